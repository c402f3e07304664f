"""Values of an audit: a claimed entity, and what was found out about it."""

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

#: An entity whose item archive.org has not finished for this long becomes a review.
STUCK_AFTER: Final = timedelta(days=14)

#: Replaces the check in `audit_result.findings`, with the check as its subject: a check that an
#: earlier audit has repaired, and that this audit did not compare.
NOT_COMPARED: Final = "not_compared"

#: The outcome in `audit_result` of an audit that could not read what it needed.
UNREADABLE: Final = "unreadable"


class BadRow(ValueError):
    """MusicBrainz's rows of an entity violate an assumption. The message says which."""


class Reason(StrEnum):
    """Why an entity is deferred to the end of its priority."""

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
    """Reasons that kept an entity from being audited several times in a row, as stored."""

    UNREADABLE = "unreadable"
    UNFINISHED = "unfinished"
    INCOMPARABLE = "incomparable"
    FAILED = "failed"


STREAKS: Final[Mapping[Reason, Streak]] = {
    Reason.UNREADABLE: Streak.UNREADABLE,
    Reason.TASKS_PENDING: Streak.UNFINISHED,
    Reason.INCOMPARABLE: Streak.INCOMPARABLE,
}
"""The deferrals that are counted; the others end by themselves."""


@dataclass(frozen=True, slots=True)
class FindingCount:
    """How often a check was found: in how many entities, and how many findings in all."""

    entities: int
    findings: int

    def __add__(self, other: FindingCount) -> FindingCount:
        return FindingCount(self.entities + other.entities, self.findings + other.findings)


@dataclass(frozen=True, slots=True)
class Entity:
    """One row of `audit_entity`, with the columns that an audit needs. `gid` is lower case."""

    id: int
    entity_type: EntityType
    gid: str

    def __str__(self) -> str:
        return f"{self.entity_type} {self.gid}"


@dataclass(frozen=True, slots=True)
class StreakLength:
    """For how many audits in a row, and since when, an entity could not be decided."""

    audits: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """An entity that this run holds, with everything that the database says about it.

    `claimed_at` is the token of the claim: `audit_entity.last_audit_at` holds it until another run
    takes the entity. `audited_before` is the value before the claim. `was_uneventful` says that the
    latest audit found nothing or that there was none: only then a clean audit changes nothing.
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
        """Return how many audits in a row could not decide for this reason."""
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
    """A claim whose audit failed by an unforeseen error."""

    claim: Claim
    error: Exception

    @property
    def message(self) -> str:
        """The error as text for people."""
        return f"{type(self.error).__name__}: {self.error}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Facts of an audit that need a second look before it is written.

    `item` is the entity's, with only the images to delete. `absent_once` are the gids whose item
    only one answer called absent; `again_at` is the time from which a second request may confirm
    that, in monotonic seconds.
    """

    item: Item
    absent_once: frozenset[str] = frozenset()
    again_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class Audit:
    """One claim and its result: a decision with its findings, or a deferral.

    `evidence` is None if nothing needs a second look. `proofs` says for each check that was
    repaired before whether that repair held, and `not_compared` which of them were not judged.
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
        """The claim to give back if the audit cannot be written."""
        return self.claim

    @property
    def ready_at(self) -> float:
        """The time from which this may be confirmed and written, in monotonic seconds."""
        return -math.inf if self.evidence is None else self.evidence.again_at
