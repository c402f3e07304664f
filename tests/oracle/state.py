"""All that an audit decides from, and what it may decide: plain values that a person can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from sandbox.entities import EntityType
from tests.oracle.musicbrainz import Known
from tests.oracle.place import Key, Queued

Override = Literal["index", "review", "record"]
"""A remedy that takes the place of a check's own."""

SEVERITIES = ("minor", "major", "critical")


@dataclass(slots=True)
class ItemState:
    """archive.org's side of a gid.

    Parameters:
        answers: what the metadata API answers in turn, of which the last one repeats.
        contents: the bytes of index.json and mb_metadata.xml by name.
    """

    answers: list[bytes]
    contents: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueuedBefore:
    """An event that is in the queue before the audit; `place` orders them in time."""

    place: int
    state: Literal["queued", "running", "failed", "completed"]
    entity_type: EntityType
    action: str
    message: Mapping[str, Any]

    def names(self, gid: str) -> bool:
        """Whether the event is about a gid, whichever part it plays."""
        return gid in (self.message.get(key) for key in ("gid", "old_gid", "new_gid"))


@dataclass(frozen=True, slots=True)
class EarlierAudit:
    """An audit that was not deferred.

    Parameters:
        found: every check that it found.
        repaired: those of them that led to events.
        events_completed: whether every one of these events has completed.
    """

    found: frozenset[str]
    repaired: frozenset[str] = frozenset()
    events_completed: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """The options of audit-batch that say what is acted on."""

    ignore: tuple[str, ...] = ()
    min_severity: Literal["minor", "major", "critical"] = "minor"
    remedies: Mapping[str, Override] = field(default_factory=dict)
    no_deletions: bool = False

    @property
    def options(self) -> list[str]:
        """The policy on the command line."""
        options = [word for check in self.ignore for word in ("--ignore", check)]
        if self.min_severity != "minor":
            options += ["--min-severity", self.min_severity]
        for check, remedy in self.remedies.items():
            options += ["--remedy", f"{check}={remedy}"]
        return [*options, "--no-deletions"] if self.no_deletions else options

    def acts_on(self, check: str, severity: str) -> bool:
        """Whether a finding is more than recorded."""
        grave = SEVERITIES.index(severity) >= SEVERITIES.index(self.min_severity)
        return grave and not any(fnmatchcase(check, pattern) for pattern in self.ignore)

    def remedy(self, check: str) -> Override | None:
        """The remedy that takes the place of a check's own."""
        for pattern, remedy in self.remedies.items():
            if fnmatchcase(check, pattern):
                return remedy
        return None


@dataclass(slots=True)
class World:
    """Everything there is.

    Parameters:
        known: what MusicBrainz knows, by type and gid; what is not in it is unknown.
        items: by gid; where there is none, archive.org has none.
        queue: artwork-indexer's queue before the audit.
        audits: earlier audits of an entity, in order of time.
        open_reviews: the entities that a person has been asked about.
    """

    known: dict[Key, Known] = field(default_factory=dict)
    items: dict[str, ItemState] = field(default_factory=dict)
    queue: list[QueuedBefore] = field(default_factory=list)
    audits: dict[Key, list[EarlierAudit]] = field(default_factory=dict)
    open_reviews: set[Key] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an audit may leave behind: the entity's status and the events that it queued."""

    status: str
    events: frozenset[Queued] = frozenset()

    def __str__(self) -> str:
        return f"{self.status}, {', '.join(sorted(map(str, self.events))) or 'no events'}"


DEFERRED = Outcome("unchecked")
REVIEW = Outcome("manual_review")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules allow an audit to decide.

    Parameters:
        allowed: every outcome that is right.
        because: the findings and circumstances that it follows from, for people.
        must: the checks that have to be found, unless the audit is deferred.
        may: further checks that can be found.
        repaired: those that lead to events.
        says: what a review has to say.
        keeps_review: whether an open review has to stay open.
    """

    allowed: tuple[Outcome, ...]
    because: tuple[str, ...]
    must: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    repaired: frozenset[str] = frozenset()
    says: tuple[str, ...] = ()
    keeps_review: bool = False
