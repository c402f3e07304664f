"""Queries about reviews, entities and failed events; nothing is changed here.

`REVIEWS` and `FAILED_EVENTS` are the two lists that people work on. Each query uses an index: lists
`(status, created_at)` and `(state, created)`, entities their gid.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.decide import PROOFS
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.review.lists import RowList

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

_GID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: The kind of a review's reason: its code, or the check if it is a plain finding.
KIND: Final = "CASE reason->>'code' WHEN 'finding' THEN reason->>'check' ELSE reason->>'code' END"

# A NULL here is known before the query is planned, so that an id is found by its index.
_REVIEW_CONDITIONS: Final = f"""
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
        WHERE %(kind)s = {KIND}))
"""

# The kinds are read only for the rows of the page, not for all rows that are sorted.
_REVIEW_COLUMNS: Final = f"""
id, entity_type, gid, entity_status, status::text, review_reason, resolution_notes, created_at,
resolved_at, priority,
ARRAY(SELECT DISTINCT {KIND} FROM jsonb_array_elements(reasons) AS reason ORDER BY 1)
"""  # noqa: S608

# OFFSET 0 keeps the planner from joining millions of entities with the few in review.
_REVIEW_ROWS: Final = """
SELECT review.id, entity.entity_type::text, entity.gid, entity.status::text AS entity_status,
       review.status, review.review_reason, review.resolution_notes,
       review.created_at, review.resolved_at, entity.priority, review.reasons
FROM artwork_indexer.needs_manual_review review
CROSS JOIN LATERAL (
    SELECT entity_type, gid, status, priority
    FROM artwork_indexer.audit_entity
    WHERE id = review.audit_entity_id
    OFFSET 0
) AS entity
"""

_REVIEW_SOURCE: Final = """
artwork_indexer.needs_manual_review review
JOIN artwork_indexer.audit_entity entity ON entity.id = review.audit_entity_id
"""

# A review with reasons of several kinds is in the group of each.
_REVIEW_KINDS: Final = f"""
SELECT DISTINCT review.id, review.created_at AS since, {KIND} AS kind, NULL AS action
FROM {_REVIEW_SOURCE}
CROSS JOIN LATERAL jsonb_array_elements(review.reasons) AS reason
"""  # noqa: S608

# A gid alone cannot use the index, whose first column is the entity type.
ENTITIES_OF_GIDS: Final = """
SELECT id, entity_type::text, gid, status::text, priority, last_audit_at
FROM artwork_indexer.audit_entity
WHERE (entity_type, gid) IN (
    SELECT entity_type, wanted.gid
    FROM unnest(%(gids)s::uuid[]) AS wanted (gid)
    CROSS JOIN unnest(enum_range(NULL::artwork_indexer.indexable_entity_type))
         AS types (entity_type)
)
"""

_AUDITS: Final = """
SELECT run_id, audited_at, outcome, event_ids, findings
FROM artwork_indexer.audit_result
WHERE audit_entity_id = %(entity_id)s
ORDER BY id DESC
LIMIT %(limit)s
"""

_EVENT_CONDITIONS: Final = """
    event.state = 'failed'
AND (%(entity_type)s::text IS NULL OR event.entity_type::text = %(entity_type)s)
AND (%(action)s::text IS NULL OR event.action::text = %(action)s)
AND (%(reason)s::text IS NULL OR position(lower(%(reason)s) IN lower(failed.failure)) > 0)
"""

_EVENT_SOURCE: Final = """
artwork_indexer.event_queue event
CROSS JOIN LATERAL (
    SELECT count(*) AS failures,
           (array_agg(reason.failure_reason ORDER BY reason.created DESC))[1] AS failure
    FROM artwork_indexer.event_failure_reason reason
    WHERE reason.event = event.id
) AS failed
"""

_EVENT_ROWS: Final = f"""
SELECT event.id, event.state::text, event.entity_type::text, event.action::text, event.message,
       event.depends_on, event.attempts, event.created, event.last_updated,
       failed.failures, failed.failure
FROM {_EVENT_SOURCE}
"""  # noqa: S608

# URLs, ids and numbers differ from event to event; a status of three digits stays.
_EVENT_KINDS: Final = f"""
SELECT event.action::text, event.created AS since,
       left(regexp_replace(regexp_replace(regexp_replace(
           coalesce(failed.failure, 'no reason kept'),
           'https?://[^[:space:]]+', '…', 'g'),
           '[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}', '…', 'gi'),
           '[0-9]{{4,}}', '…', 'g'), 80) AS kind
FROM {_EVENT_SOURCE}
"""  # noqa: S608

# Events that have not completed name the entity. There are too many completed ones to search, but
# those that an audit queued are known by their id.
_IS_OF_ENTITY: Final = """
event.id = ANY (%(event_ids)s::bigint[])
OR (event.state IN ('queued', 'running', 'failed')
    AND event.entity_type::text = %(entity_type)s
    AND %(gid)s IN (event.message->>'gid', event.message->>'old_gid', event.message->>'new_gid'))
"""

_REPAIRS: Final = """
SELECT check_name, held, not_held, not_held_in_a_row
FROM artwork_indexer.repair_tally
ORDER BY check_name
"""


def _review(
    id_: int, entity_type: str, gid: UUID, entity_status: str, status: str, *rest: Any
) -> Review:
    return Review(id_, EntityType(entity_type), gid, entity_status, ReviewStatus(status), *rest)


def _event(id_: int, state: str, entity_type: str, *rest: Any) -> Event:
    return Event(id_, state, EntityType(entity_type), *rest)


#: Reviews.
REVIEWS: Final[RowList[ReviewFilter, Review]] = RowList(
    name="review",
    since="created_at",
    source=_REVIEW_SOURCE,
    rows=_REVIEW_ROWS,
    columns=_REVIEW_COLUMNS,
    conditions=_REVIEW_CONDITIONS,
    kinds=_REVIEW_KINDS,
    row=Review,
    make=_review,
)

#: Events that artwork-indexer has given up, with their latest failure; `find` and `select` also
#: return others.
FAILED_EVENTS: Final[RowList[EventFilter, Event]] = RowList(
    name="event",
    since="created",
    source=_EVENT_SOURCE,
    rows=_EVENT_ROWS,
    columns="*",
    conditions=_EVENT_CONDITIONS,
    kinds=_EVENT_KINDS,
    row=Event,
    make=_event,
)


def gids_in(text: str) -> list[UUID]:
    """Return the gids that a text holds, such as an archive.org identifier or a URL."""
    return [UUID(gid) for gid in sorted(set(_GID.findall(text.lower())))]


def find_entities(
    conn: Connection, gids: Collection[UUID], *, query: str = ENTITIES_OF_GIDS
) -> list[EntityRow]:
    """Return the entities with these gids, which a release and an event may share."""
    return [
        EntityRow(id_, EntityType(entity_type), *rest)
        for id_, entity_type, *rest in conn.execute(query, {"gids": list(gids)})
    ]


def find_cases(conn: Connection, gid: UUID) -> list[Case]:
    """Return what is known about a gid: one case, or two if a release and an event share it."""
    query = f"{ENTITIES_OF_GIDS} ORDER BY entity_type DESC"
    return [_case(conn, entity) for entity in find_entities(conn, [gid], query=query)]


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
    names_entity = {
        "entity_type": entity.entity_type,
        "gid": str(entity.gid),
        "event_ids": [id_ for audit in audits for id_ in audit.event_ids],
    }
    events = FAILED_EVENTS.select(conn, _IS_OF_ENTITY, "id DESC", names_entity)
    reviews = REVIEWS.select(
        conn,
        "review.audit_entity_id = %(entity_id)s",
        "created_at DESC, id DESC",
        {"entity_id": entity.id},
    )
    return Case(entity, tuple(reviews), audits, tuple(events))


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
