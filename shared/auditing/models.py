"""What travels through an audit: a claimed entity, and what was found out about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.decide import Decision, History
from artwork_backfill.shared.audit.expected import Expected
from artwork_backfill.shared.audit.finding import Finding

#: So many audits in a row that could not read what they needed make a case for a person.
UNREADABLE_LIMIT = 5

#: The outcome in `audit_result` of an audit that could not read what it needed.
UNREADABLE = "unreadable"


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
class Past:
    """What earlier audits of an entity left behind.

    `unreadable` counts the latest audits in a row that could not be read. `is_settled` says that
    the latest audit found nothing, or that there was none: only then is a clean audit no news.
    """

    history: History = field(default_factory=History)
    unreadable: int = 0
    is_settled: bool = True


@dataclass(frozen=True, slots=True)
class Claim:
    """An entity that this run holds, with all that the database says about it.

    `claimed_at` is the token of the claim: `audit_entity.last_audit_at` holds it as long as nobody
    else took the entity. `audited_before` is what stood there until then.
    """

    entity: Entity
    claimed_at: datetime
    audited_before: datetime | None
    expected: Expected | None = None
    past: Past = field(default_factory=Past)
    is_busy: bool = False
    #: What is wrong with MusicBrainz's rows, if anything.
    bad_row: str | None = None

    @property
    def id(self) -> int:
        return self.entity.id

    def __str__(self) -> str:
        return str(self.entity)


@dataclass(frozen=True, slots=True)
class Deferral:
    """An entity that could not be audited now; `detail` is for people."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """One claim and what came of it: a decision with its findings, or a deferral."""

    claim: Claim
    outcome: Decision | Deferral
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        return str(self.claim)
