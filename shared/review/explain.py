"""What an audit of one entity would find now, what it would do, and why. Only reads.

Used by the command line and the dashboard. It works without our tables and artwork-indexer's, for
example on a mirror of MusicBrainz; previous audits and events are unknown then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared.audit.actual import Item
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.audit.decide import Decision, Policy, copy_words
from artwork_backfill.shared.audit.expected import Presence
from artwork_backfill.shared.audit.sides import Document, Side, documents, sides
from artwork_backfill.shared.auditing.examination import Examiner, Inspection
from artwork_backfill.shared.auditing.expectation import look_at
from artwork_backfill.shared.auditing.models import Audit, Claim, Deferral
from artwork_backfill.shared.auditing.owners import looking_up
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.review.questions import Case, find_cases

#: Opens a connection for a short read of the database.
Connect = Callable[[], AbstractContextManager[Connection]]

_POLICY: Final = Policy()


def examining(services: Services, connect: Connect) -> Examiner:
    """Return an examiner for the functions below, which reads owners on its own connections."""
    return Examiner(services, looking_up(connect), _POLICY)


@dataclass(frozen=True, slots=True)
class ExplainedFinding:
    """One difference, its meaning, and what the policy does about it."""

    check: str
    severity: str
    subject: str
    expected: str | None
    found: str | None
    meaning: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ExplainedImage:
    """A foreign image: its owner, and what the owner's item holds of it."""

    name: str
    owner: str | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """One entity as an audit sees it now.

    `outcome` is the status that an audit would give it, or `deferred`; `why` are the reasons.
    `events` are what it would queue, as `ACTION MESSAGE`. `case` is what the tables say, None if
    they know nothing.
    """

    entity_type: EntityType
    gid: UUID
    presence: Presence
    images: int
    comparison: tuple[Side, ...]
    findings: tuple[ExplainedFinding, ...]
    foreign_images: tuple[ExplainedImage, ...]
    outcome: str
    why: tuple[str, ...]
    events: tuple[str, ...]
    event_under_way: bool
    case: Case | None


def explain(
    connect: Connect, examiner: Examiner, entity_type: EntityType, gid: UUID
) -> Explanation:
    """Return what an audit of one entity would find and do.

    No transaction is open during requests to services.

    Raises
    ------
    BadRow
        MusicBrainz's rows violate an assumption.
    StopRun
        A service is down.
    """
    with connect() as conn:
        (claim,) = look_at(conn, entity_type, [str(gid)])
        # Without our tables, no entity has an id.
        cases = find_cases(conn, gid) if claim.entity.id >= 0 else []
    case = next((case for case in cases if case.entity.id == claim.entity.id), None)
    inspection = examiner.inspect(claim)
    confirmed = examiner.confirm(inspection.audit)
    return _explanation(claim, inspection, confirmed or inspection.audit, case)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides of an entity: its item, those of its images' owners, and documents.

    `problem` says why there are none.
    """

    items: tuple[Item, ...] = ()
    documents: tuple[Document, ...] = ()
    problem: str = ""


def compare_whole(
    connect: Connect, examiner: Examiner, entity_type: EntityType, gid: UUID
) -> Comparison:
    """Return what an audit of one entity would compare. Connections and errors as `explain`."""
    with connect() as conn:
        (claim,) = look_at(conn, entity_type, [str(gid)])
    inspection = examiner.inspect(claim)
    if inspection.actual is None:
        return Comparison(problem="; ".join(_why(inspection.audit.outcome)))
    documents_now = documents(inspection.expected, inspection.actual)
    return Comparison(inspection.items, documents_now)


def entity_types(connect: Connect, gid: UUID) -> Sequence[EntityType]:
    """Return the entity types that MusicBrainz knows or knew a gid as; all if none."""
    with connect() as conn:
        known = [
            entity_type
            for entity_type in EntityType
            for claim in look_at(conn, entity_type, [str(gid)])
            if claim.expected is None or claim.expected.presence is not Presence.UNKNOWN
        ]
    return known or list(EntityType)


def _explanation(
    claim: Claim, inspection: Inspection, audit: Audit, case: Case | None
) -> Explanation:
    expected, actual = inspection.expected, inspection.actual
    outcome = audit.outcome
    return Explanation(
        entity_type=expected.entity_type,
        gid=UUID(expected.gid),
        presence=expected.presence,
        images=len(expected.artwork),
        comparison=sides(expected, actual) if actual is not None else (),
        findings=tuple(
            ExplainedFinding(
                check=finding.check,
                severity=finding.severity.label,
                subject=finding.subject,
                expected=finding.expected,
                found=finding.actual,
                meaning=CHECKS[finding.check].summary,
                remedy=str(_POLICY.remedy(finding.check)),
            )
            for finding in audit.findings
        ),
        foreign_images=tuple(
            ExplainedImage(
                image.name,
                owner.gid,
                "it belongs to no entity"
                if owner.gid is None
                else copy_words(owner.copy, f"{expected.entity_type} {owner.gid}"),
            )
            for image, owner in inspection.owners.items()
        ),
        outcome="deferred" if isinstance(outcome, Deferral) else str(outcome.status),
        why=_why(outcome),
        events=_events(outcome),
        event_under_way=claim.is_busy,
        case=case,
    )


def _why(outcome: Decision | Deferral) -> tuple[str, ...]:
    if isinstance(outcome, Deferral):
        return (f"{outcome.reason}: {outcome.detail}" if outcome.detail else str(outcome.reason),)
    if outcome.review_reasons:
        return tuple(map(str, outcome.review_reasons))
    return tuple(f"{check}: {CHECKS[check].summary}" for check in outcome.causes)


def _events(outcome: Decision | Deferral) -> tuple[str, ...]:
    if isinstance(outcome, Deferral):
        return ()
    return tuple(
        " ".join((event.action, *(f"{key}={value}" for key, value in event.message.items())))
        for event in outcome.events
    )
