"""Queries about reviews, entities and failed events; nothing is changed here.

Every function takes a connection and returns typed rows. Lists are paged in SQL, and each query
uses an index: lists `(status, created_at)` and `(state, created)`, entities their gid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.decide import PROOFS
from artwork_backfill.shared.engine.tables import Table

#: The tables that these queries read.
TABLES: Final = (
    Table("artwork_indexer.event_queue"),
    Table("artwork_indexer.event_failure_reason"),
    Table("artwork_indexer.audit_entity"),
    Table("artwork_indexer.needs_manual_review"),
    Table("artwork_indexer.audit_result"),
)

#: The tables that `list_repairs` reads.
REPAIR_TABLES: Final = (Table("artwork_indexer.repair_tally"),)


class ReviewStatus(StrEnum):
    """The status of a review; the values are those of `manual_review_status`."""

    OPEN = "open"
    RESOLVED = "resolved"
    WONT_FIX = "wont_fix"


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list to return."""

    limit: int = 50
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ReviewFilter:
    """A filter for reviews; fields that are `None` or empty do not restrict the list.

    `reason` is text that the reason contains, case-insensitive; `text` may also be in the gid or
    the notes. `kind` is one of `Review.kinds`. Ages are counted from the review's creation.
    """

    statuses: tuple[ReviewStatus, ...] = (ReviewStatus.OPEN,)
    entity_type: EntityType | None = None
    reason: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    priority: int | None = None
    text: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """One row of needs_manual_review, with its entity.

    `kinds` are the reasons as codes: the check of a plain finding, or else a `ReasonCode` or
    `CopyState`.
    """

    id: int
    entity_type: EntityType
    gid: UUID
    entity_status: str
    status: ReviewStatus
    reason: str
    notes: str | None
    created_at: datetime
    resolved_at: datetime | None
    priority: int
    kinds: list[str]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """A filter for failed events; `reason` is text that the latest failure contains."""

    entity_type: EntityType | None = None
    action: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of artwork-indexer's queue; `failure` is its latest failure reason, if any."""

    id: int
    state: str
    entity_type: EntityType
    action: str
    message: dict[str, Any]
    depends_on: list[int] | None
    attempts: int
    created: datetime
    last_updated: datetime
    failures: int
    failure: str | None


@dataclass(frozen=True, slots=True)
class StoredFinding:
    """One finding as stored by an audit; `repair` says that it led to that audit's events."""

    check: str
    severity: str
    subject: str
    expected: str | None
    actual: str | None
    repair: bool


@dataclass(frozen=True, slots=True)
class PastAudit:
    """One stored audit, with another result than simply clean."""

    run_id: UUID
    audited_at: datetime
    outcome: str
    event_ids: list[int]
    findings: tuple[StoredFinding, ...]


@dataclass(frozen=True, slots=True)
class EntityRow:
    """One row of audit_entity."""

    id: int
    entity_type: EntityType
    gid: UUID
    status: str
    priority: int
    last_audit_at: datetime | None


@dataclass(frozen=True, slots=True)
class Case:
    """Everything about one entity, the latest first."""

    entity: EntityRow
    reviews: tuple[Review, ...]
    audits: tuple[PastAudit, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class RepairTally:
    """How often the completed repair of a check was found to hold.

    `is_given_up` says that the check is not repaired any more, because its repairs do not hold.
    """

    check: str
    held: int
    not_held: int
    not_held_in_a_row: int

    @property
    def is_given_up(self) -> bool:
        return self.not_held_in_a_row >= PROOFS


#: The number of previous audits and events in a `Case`.
_PAST_AUDITS: Final = 20

_ANY: Final = ReviewFilter(statuses=tuple(ReviewStatus))
_ALL: Final = Page(limit=1_000)

#: No id is larger.
_LAST_ID: Final = 2**63 - 1

# A NULL here is known before the query is planned, so that an id is found by its index.
REVIEW_CONDITIONS: Final = """
    review.status = ANY (%(statuses)s::artwork_indexer.manual_review_status[])
AND (%(entity_type)s::text IS NULL OR entity.entity_type::text = %(entity_type)s)
AND (%(reason)s::text IS NULL
     OR position(lower(%(reason)s) IN lower(review.review_reason)) > 0)
AND (%(older_than)s::interval IS NULL OR review.created_at <= now() - %(older_than)s::interval)
AND (%(newer_than)s::interval IS NULL OR review.created_at > now() - %(newer_than)s::interval)
AND (%(priority)s::int IS NULL OR entity.priority = %(priority)s)
AND (%(text)s::text IS NULL
     OR position(lower(%(text)s) IN lower(concat_ws(
            ' ', entity.gid, review.review_reason, review.resolution_notes))) > 0)
AND (%(kind)s::text IS NULL OR EXISTS (
        SELECT FROM jsonb_array_elements(review.reasons) AS reason
        WHERE %(kind)s = CASE reason->>'code' WHEN 'finding' THEN reason->>'check'
                                              ELSE reason->>'code' END))
"""

# The kinds are read only for the rows of the page, not for all rows that are sorted. OFFSET 0 keeps
# the planner from joining millions of entities with the few in review.
_REVIEW_COLUMNS: Final = """
SELECT id, entity_type::text, gid, entity_status, status::text, reason, notes, created_at,
       resolved_at, priority,
       ARRAY(SELECT DISTINCT CASE one->>'code' WHEN 'finding' THEN one->>'check'
                                               ELSE one->>'code' END
             FROM jsonb_array_elements(reasons) AS one
             ORDER BY 1) AS kinds
"""

_REVIEW_ROWS: Final = """
SELECT review.id, entity.entity_type, entity.gid, entity.status::text AS entity_status,
       review.status, review.review_reason AS reason, review.resolution_notes AS notes,
       review.created_at, review.resolved_at, entity.priority, review.reasons
FROM artwork_indexer.needs_manual_review review
CROSS JOIN LATERAL (
    SELECT entity_type, gid, status, priority
    FROM artwork_indexer.audit_entity
    WHERE id = review.audit_entity_id
    OFFSET 0
) AS entity
"""

_REVIEWS: Final = f"""
{_REVIEW_COLUMNS}
FROM (
    {_REVIEW_ROWS}
    WHERE {REVIEW_CONDITIONS}
    AND (%(id)s::bigint IS NULL OR review.id = %(id)s)
    AND (%(entity_id)s::bigint IS NULL OR review.audit_entity_id = %(entity_id)s)
    ORDER BY review.created_at, review.id
    LIMIT %(limit)s OFFSET %(offset)s
) AS page
ORDER BY created_at, id
"""

# Walks over all matching rows in order to act on them: rows leave the list in the meantime.
_REVIEWS_AFTER: Final = f"""
{_REVIEW_COLUMNS}
FROM (
    {_REVIEW_ROWS}
    WHERE {REVIEW_CONDITIONS}
    AND review.id > %(after)s AND review.id <= %(up_to)s
    ORDER BY review.id
    LIMIT %(limit)s
) AS page
ORDER BY id
"""

# A gid alone cannot use the index, whose first column is the entity type.
_ENTITIES: Final = """
SELECT id, entity_type::text, gid, status::text, priority, last_audit_at
FROM artwork_indexer.audit_entity
WHERE (entity_type, gid) IN (('release', %(gid)s), ('event', %(gid)s))
ORDER BY entity_type DESC
"""

_AUDITS: Final = """
SELECT run_id, audited_at, outcome, event_ids, findings
FROM artwork_indexer.audit_result
WHERE audit_entity_id = %(entity_id)s
ORDER BY id DESC
LIMIT %(limit)s
"""

EVENT_CONDITIONS: Final = """
    event.state = 'failed'
AND (%(entity_type)s::text IS NULL OR event.entity_type::text = %(entity_type)s)
AND (%(action)s::text IS NULL OR event.action::text = %(action)s)
AND (%(reason)s::text IS NULL OR position(lower(%(reason)s) IN lower(failed.failure)) > 0)
"""

WITH_FAILURES: Final = """
artwork_indexer.event_queue event
CROSS JOIN LATERAL (
    SELECT count(*) AS failures,
           (array_agg(reason.failure_reason ORDER BY reason.created DESC))[1] AS failure
    FROM artwork_indexer.event_failure_reason reason
    WHERE reason.event = event.id
) AS failed
"""

_EVENT_COLUMNS: Final = f"""
SELECT event.id, event.state::text, event.entity_type::text, event.action::text, event.message,
       event.depends_on, event.attempts, event.created, event.last_updated,
       failed.failures, failed.failure
FROM {WITH_FAILURES}
"""  # noqa: S608

# Events that have not completed name the entity. There are too many completed ones to search, but
# those that an audit queued are known by their id.
_EVENTS_OF_ENTITY: Final = f"""
{_EVENT_COLUMNS}
WHERE event.id = ANY (%(event_ids)s::bigint[])
OR (event.state IN ('queued', 'running', 'failed')
    AND event.entity_type::text = %(entity_type)s
    AND %(gid)s IN (event.message->>'gid', event.message->>'old_gid', event.message->>'new_gid'))
ORDER BY event.id DESC
"""

_EVENT_BY_ID: Final = f"""
{_EVENT_COLUMNS}
WHERE event.id = %(id)s
"""

_FAILED_EVENTS: Final = f"""
{_EVENT_COLUMNS}
WHERE {EVENT_CONDITIONS}
ORDER BY event.created, event.id
LIMIT %(limit)s OFFSET %(offset)s
"""

_FAILED_EVENTS_AFTER: Final = f"""
{_EVENT_COLUMNS}
WHERE {EVENT_CONDITIONS}
AND event.id > %(after)s AND event.id <= %(up_to)s
ORDER BY event.id
LIMIT %(limit)s
"""


_REPAIRS: Final = """
SELECT check_name, held, not_held, not_held_in_a_row
FROM artwork_indexer.repair_tally
ORDER BY check_name
"""


def list_reviews(conn: Connection, wanted: ReviewFilter, page: Page) -> list[Review]:
    """Return reviews, oldest first."""
    return _reviews(conn, wanted, page)


def reviews_after(
    conn: Connection, wanted: ReviewFilter, *, after: int, up_to: int, limit: int
) -> list[Review]:
    """Return the reviews of a list in the order of ids, those after `after` up to `up_to`."""
    values = review_values(wanted) | {"after": after, "up_to": up_to, "limit": limit}
    return [_review(row) for row in conn.execute(_REVIEWS_AFTER, values)]


def walk_reviews(conn: Connection, wanted: ReviewFilter) -> Iterator[Review]:
    """Yield all reviews of a list in the order of ids, read a thousand at a time."""
    after = 0
    while rows := reviews_after(conn, wanted, after=after, up_to=_LAST_ID, limit=_ALL.limit):
        yield from rows
        after = rows[-1].id


def find_review(conn: Connection, review_id: int) -> Review | None:
    """Return one review, or `None` if there is none with this id."""
    return next(iter(_reviews(conn, _ANY, _ALL, id_=review_id)), None)


def find_cases(conn: Connection, gid: UUID) -> list[Case]:
    """Return what is known about a gid: one case, or two if a release and an event share it."""
    rows = conn.execute(_ENTITIES, {"gid": gid}).fetchall()
    return [
        _case(conn, EntityRow(id_, EntityType(entity_type), *rest))
        for id_, entity_type, *rest in rows
    ]


def list_failed_events(conn: Connection, wanted: EventFilter, page: Page) -> list[Event]:
    """Return events that artwork-indexer has given up, oldest first."""
    return _events(
        conn, _FAILED_EVENTS, **event_values(wanted), limit=page.limit, offset=page.offset
    )


def failed_events_after(
    conn: Connection, wanted: EventFilter, *, after: int, up_to: int, limit: int
) -> list[Event]:
    """Return the failed events of a list in the order of ids, those after `after` up to `up_to`."""
    return _events(
        conn, _FAILED_EVENTS_AFTER, **event_values(wanted), after=after, up_to=up_to, limit=limit
    )


def find_event(conn: Connection, event_id: int) -> Event | None:
    """Return one event, or `None` if there is none with this id."""
    return next(iter(_events(conn, _EVENT_BY_ID, id=event_id)), None)


def walk_failed_events(conn: Connection, wanted: EventFilter) -> Iterator[Event]:
    """Yield all failed events of a list in the order of ids, read a thousand at a time."""
    after = 0
    while rows := failed_events_after(conn, wanted, after=after, up_to=_LAST_ID, limit=_ALL.limit):
        yield from rows
        after = rows[-1].id


def review_values(wanted: ReviewFilter) -> dict[str, object]:
    """Return the parameters of `REVIEW_CONDITIONS`."""
    return {
        "statuses": [status.value for status in wanted.statuses],
        "entity_type": wanted.entity_type,
        "reason": wanted.reason,
        "older_than": wanted.older_than,
        "newer_than": wanted.newer_than,
        "priority": wanted.priority,
        "text": wanted.text,
        "kind": wanted.kind,
    }


def event_values(wanted: EventFilter) -> dict[str, object]:
    """Return the parameters of `EVENT_CONDITIONS`."""
    return {
        "entity_type": wanted.entity_type,
        "action": wanted.action,
        "reason": wanted.reason,
    }


def list_repairs(conn: Connection) -> list[RepairTally]:
    """Return what is known about each check's repairs, ordered by check."""
    return [RepairTally(*row) for row in conn.execute(_REPAIRS)]


def _case(conn: Connection, entity: EntityRow) -> Case:
    audits = tuple(
        PastAudit(run_id, audited_at, outcome, event_ids, tuple(map(_finding, findings)))
        for run_id, audited_at, outcome, event_ids, findings in conn.execute(
            _AUDITS, {"entity_id": entity.id, "limit": _PAST_AUDITS}
        )
    )
    events = _events(
        conn,
        _EVENTS_OF_ENTITY,
        entity_type=entity.entity_type,
        gid=str(entity.gid),
        event_ids=[id_ for audit in audits for id_ in audit.event_ids],
    )
    reviews = _reviews(conn, _ANY, _ALL, entity_id=entity.id)
    return Case(entity, tuple(reversed(reviews)), audits, tuple(events))


def _reviews(
    conn: Connection,
    wanted: ReviewFilter,
    page: Page,
    *,
    id_: int | None = None,
    entity_id: int | None = None,
) -> list[Review]:
    values = review_values(wanted) | {
        "id": id_,
        "entity_id": entity_id,
        "limit": page.limit,
        "offset": page.offset,
    }
    return [_review(row) for row in conn.execute(_REVIEWS, values)]


def _review(row: tuple[Any, ...]) -> Review:
    id_, entity_type, gid, entity_status, status, *rest = row
    return Review(id_, EntityType(entity_type), gid, entity_status, ReviewStatus(status), *rest)


def _events(conn: Connection, query: LiteralString, **values: object) -> list[Event]:
    rows = conn.execute(query, values).fetchall()
    return [
        Event(id_, state, EntityType(entity_type), *rest) for id_, state, entity_type, *rest in rows
    ]


def _finding(stored: Mapping[str, Any]) -> StoredFinding:
    # An audit that could not read the item stores less of a finding.
    return StoredFinding(
        check=stored["check"],
        severity=stored.get("severity") or "",
        subject=stored.get("subject") or "",
        expected=stored.get("expected"),
        actual=stored.get("actual"),
        repair=stored.get("repair") is True,
    )
