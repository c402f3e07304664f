"""What travels through an audit: a claimed entity, and what was found out about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from artwork_backfill.shared.audit.actual import Item
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.decide import Decision, PreviousAudits
from artwork_backfill.shared.audit.expected import Expected
from artwork_backfill.shared.audit.finding import Finding

#: An entity that cannot be audited this often in a row becomes a review.
STREAK_LIMIT: Final = 5

#: An entity whose item archive.org has not finished its work on for this long becomes a review.
STUCK_AFTER: Final = timedelta(days=14)

#: Stands in `audit_result.findings` in place of a check, with the check as its subject: one that an
#: earlier audit has had repaired, and that this audit did not compare.
NOT_COMPARED: Final = "not_compared"

#: The outcome in `audit_result` of an audit that could not read what it needed.
UNREADABLE: Final = "unreadable"


class BadRow(ValueError):
    """MusicBrainz's rows of an entity are not as this project assumes. The message says how."""


class Reason(StrEnum):
    """Why an entity is not audited now, and goes to the end of its priority class instead."""

    EVENT_QUEUED = "an event of it is queued or running"
    TASKS_PENDING = "archive.org is still working on its item"
    ITEM_CHANGED = "its item changed while it was being read"
    UNREADABLE = "a service could not answer"
    EVENT_SINCE = "an event of it came up since the claim"
    ENTITY_CHANGED = "MusicBrainz has merged, deleted or restored it since the claim"
    OWNER_BUSY = "an event of the owner of one of its images is queued or running"
    OWNER_CHANGED = "an image and its owner's copy are not any more what they were"
    EDIT_OPEN = "MusicBrainz is changing it or the owner of one of its images"
    INCOMPARABLE = "an image cannot be compared with its owner's copy"


class Streak(StrEnum):
    """What keeps an entity from being audited several times in a row, as stored."""

    UNREADABLE = "unreadable"
    UNFINISHED = "unfinished"
    INCOMPARABLE = "incomparable"
    FAILED = "failed"


STREAKS: Final[Mapping[Reason, Streak]] = {
    Reason.UNREADABLE: Streak.UNREADABLE,
    Reason.TASKS_PENDING: Streak.UNFINISHED,
    Reason.INCOMPARABLE: Streak.INCOMPARABLE,
}
"""The deferrals that are counted; the others pass by themselves."""


@dataclass(frozen=True, slots=True)
class FindingCount:
    """How often a check was found: in how many entities, and how many findings in all."""

    entities: int
    findings: int

    def __add__(self, other: FindingCount) -> FindingCount:
        return FindingCount(self.entities + other.entities, self.findings + other.findings)


@dataclass(frozen=True, slots=True)
class Entity:
    """One row of `audit_entity`, as far as an audit needs it. `gid` is lower case."""

    id: int
    entity_type: EntityType
    gid: str

    def __str__(self) -> str:
        return f"{self.entity_type} {self.gid}"


@dataclass(frozen=True, slots=True)
class StreakLength:
    """For how many audits in a row, and since when, something has kept an entity back."""

    audits: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """An entity that this run holds, with all that the database says about it.

    `claimed_at` is the token of the claim: `audit_entity.last_audit_at` holds it as long as nobody
    else took the entity. `audited_before` is what stood there until then. `was_uneventful` says
    that the latest audit found nothing, or that there was none: only then is a clean audit no news.
    """

    entity: Entity
    claimed_at: datetime
    audited_before: datetime | None
    expected: Expected | None = None
    previous: PreviousAudits = field(default_factory=PreviousAudits)
    streaks: Mapping[Streak, StreakLength] = field(default_factory=dict)
    was_uneventful: bool = True
    is_busy: bool = False
    #: What is wrong with MusicBrainz's rows, if anything.
    bad_row: str | None = None

    @property
    def id(self) -> int:
        return self.entity.id

    def audits_in_a_row(self, streak: Streak) -> int:
        """Return how many audits in a row were kept from deciding by this."""
        length = self.streaks.get(streak)
        return 0 if length is None else length.audits

    def __str__(self) -> str:
        return str(self.entity)


@dataclass(frozen=True, slots=True)
class Deferral:
    """An entity that could not be audited now; `detail` is for people."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A claim whose audit failed by an error that nothing accounts for."""

    claim: Claim
    error: Exception

    @property
    def message(self) -> str:
        """The error in words, for people."""
        return f"{type(self.error).__name__}: {self.error}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an audit rests on that has to be looked at again before it is written.

    `item` is the entity's, with nothing but the images that are to be deleted. `absent_once` are
    the gids whose item only one answer called absent; `again_at` is when they may be asked about
    again, in monotonic seconds.
    """

    item: Item
    absent_once: frozenset[str] = frozenset()
    again_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class Audit:
    """One claim and what came of it: a decision with its findings, or a deferral.

    `evidence` is None once there is nothing to look at again. `proofs` says of the checks that were
    repaired before whether that repair held, and `not_compared` which of them could not be judged.
    """

    claim: Claim
    outcome: Decision | Deferral
    findings: tuple[Finding, ...] = ()
    proofs: Mapping[str, bool] = field(default_factory=dict)
    not_compared: frozenset[str] = frozenset()
    evidence: Evidence | None = None

    def __str__(self) -> str:
        return str(self.claim)

    @property
    def item(self) -> Claim:
        """What is given back when this cannot be written."""
        return self.claim

    @property
    def ready_at(self) -> float:
        """When this may be looked at again and written, in monotonic seconds."""
        return -math.inf if self.evidence is None else self.evidence.again_at
