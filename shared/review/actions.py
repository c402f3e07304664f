"""What people do about reviews, entities and failed events: one transaction each.

An action is refused where a row is not any more as the person saw it, and nothing is changed then.
Who did what is kept in the notes of the review.

Rows are locked as the audit locks them, the entity before its reviews, so that neither waits for
the other in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.review.questions import EntityRow, Review, ReviewStatus
from psycopg import Connection
from psycopg.errors import UniqueViolation

#: The tables that these actions change.
TABLES: Final = (
    Table("artwork_indexer.event_queue", ("SELECT", "UPDATE")),
    Table("artwork_indexer.audit_entity", ("SELECT", "UPDATE")),
    Table("artwork_indexer.needs_manual_review", ("SELECT", "UPDATE")),
)

#: What a person wants audited comes first.
RETRY_PRIORITY: Final = 300

_AGAIN: Final = "to be audited again"


class Refused(Exception):
    """An action does not fit the rows as they are now. The message says why, and what to do."""


class Retried(StrEnum):
    """What became of a gid that was to be audited again."""

    RETRIED = "is unchecked now and audited next"
    IN_PROGRESS = "is being audited just now: nothing to do"
    UNKNOWN = "is not in the audit table: seed it first, for example with seed-from-mb"


class Requeued(StrEnum):
    """What became of an event that was to be queued again."""

    REQUEUED = "is queued again"
    MISSING = "does not exist (any more)"
    NOT_FAILED = "is not failed: nothing to do"
    PARENT_FAILED = (
        "depends on an event that stays failed: see to that one, it takes this one along"
    )
    DUPLICATE = "has a twin that is queued already: that one does its work"


@dataclass(frozen=True, slots=True)
class SettledReview:
    """A review and what became of it: as it is now, or as it was seen and why it was left so."""

    review: Review
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class RetriedGid:
    """A gid and what became of it; `entity_type` is `None` for one that is unknown."""

    gid: UUID
    entity_type: EntityType | None
    outcome: Retried


@dataclass(frozen=True, slots=True)
class RequeuedEvent:
    """An event and what became of it; `asked_for` is false for one that a parent took along."""

    id: int
    outcome: Requeued
    asked_for: bool


_LOCK: Final = """
SELECT entity.status::text
FROM artwork_indexer.audit_entity entity
WHERE id = (SELECT audit_entity_id FROM artwork_indexer.needs_manual_review WHERE id = %(id)s)
FOR UPDATE
"""

# Statuses, reason and notes are all that a person can have seen of a review.
_LOCK_REVIEW: Final = """
SELECT audit_entity_id, status::text, review_reason, resolution_notes
FROM artwork_indexer.needs_manual_review
WHERE id = %(id)s
FOR UPDATE
"""

# In order of id, as the audit locks them.
_LOCK_ENTITIES_OF_REVIEWS: Final = """
SELECT entity.id
FROM artwork_indexer.audit_entity entity
JOIN artwork_indexer.needs_manual_review review ON review.audit_entity_id = entity.id
WHERE review.id = ANY (%(ids)s::bigint[])
ORDER BY entity.id
FOR UPDATE OF entity
"""

_ADD_NOTE: Final = """
UPDATE artwork_indexer.needs_manual_review
SET resolution_notes = concat_ws(E'\\n', resolution_notes, %(note)s::text)
WHERE id = %(id)s
"""

_SET_REVIEW: Final = """
UPDATE artwork_indexer.needs_manual_review
SET status = %(status)s::artwork_indexer.manual_review_status,
    resolved_at = CASE WHEN %(status)s = 'open' THEN NULL ELSE now() END,
    resolution_notes = concat_ws(E'\\n', resolution_notes, %(note)s::text)
WHERE id = %(id)s
"""

_SET_ENTITY: Final = """
UPDATE artwork_indexer.audit_entity
SET status = %(status)s::artwork_indexer.audit_entity_status
WHERE id = %(id)s AND status::text = ANY (%(instead_of)s)
"""

_LOCK_ENTITIES: Final = """
SELECT id, entity_type::text, gid, status::text, last_audit_at
FROM artwork_indexer.audit_entity
WHERE (entity_type, gid) IN (
    SELECT entity_type, wanted.gid
    FROM unnest(%(gids)s::uuid[]) AS wanted (gid)
    CROSS JOIN unnest(enum_range(NULL::artwork_indexer.indexable_entity_type))
         AS types (entity_type)
)
ORDER BY id
FOR UPDATE
"""

_RETRY: Final = """
UPDATE artwork_indexer.audit_entity
SET status = 'unchecked', priority = greatest(priority, %(priority)s)
WHERE id = ANY (%(ids)s::bigint[])
"""

_NOTE: Final = """
UPDATE artwork_indexer.needs_manual_review
SET resolution_notes = concat_ws(E'\\n', resolution_notes, %(note)s::text)
WHERE status = 'open' AND audit_entity_id = ANY (%(ids)s::bigint[])
"""

# Failed events are few, and have an index: looking through them for those that depend on others
# costs little.
_LOCK_FAILED: Final = """
WITH RECURSIVE family (id) AS (
    SELECT id FROM unnest(%(ids)s::bigint[]) AS wanted (id)
    UNION
    SELECT child.id
    FROM family
    JOIN artwork_indexer.event_queue child
      ON child.state = 'failed' AND child.depends_on @> ARRAY[family.id]
)
SELECT id, state::text, depends_on
FROM artwork_indexer.event_queue
WHERE id IN (SELECT id FROM family)
ORDER BY id
FOR UPDATE
"""

_FAILED_PARENTS: Final = """
SELECT id FROM artwork_indexer.event_queue
WHERE state = 'failed' AND id = ANY (%(ids)s::bigint[])
"""

_REQUEUE: Final = """
UPDATE artwork_indexer.event_queue SET state = 'queued', attempts = 0 WHERE id = %(id)s
"""

# A message may hold anything, and what is not a UUID names no entity.
_ENTITIES_OF_EVENTS: Final = """
SELECT entity.id
FROM artwork_indexer.event_queue event
CROSS JOIN LATERAL (
    VALUES (event.message->>'gid'), (event.message->>'old_gid'), (event.message->>'new_gid')
) AS named (gid)
JOIN artwork_indexer.audit_entity entity
  ON entity.entity_type = event.entity_type
 AND entity.gid = CASE WHEN named.gid ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                       THEN named.gid::uuid END
WHERE event.id = ANY (%(ids)s::bigint[])
"""


# -- reviews -----------------------------------------------------------------------------------


def resolve(conn: Connection, seen: Review, *, by: str, note: str) -> Review:
    """Close an open review as mended. Its entity is audited again, which proves it.

    Parameters
    ----------
    seen
        The review as the person saw it.
    by, note
        Who says so, and why; both are kept with the review.

    Raises
    ------
    Refused
        The review is not open, or not any more as it was seen.
    """
    return _settle(conn, seen, ReviewStatus.RESOLVED, "unchecked", _WITH_OPEN_REVIEW, by, note)


def leave_unfixed(conn: Connection, seen: Review, *, by: str, note: str) -> Review:
    """Close an open review for good: its entity counts as clean and is not audited any more.

    An event of it that fails later, or `retry`, brings it back. Parameters and errors are those of
    `resolve`.
    """
    return _settle(conn, seen, ReviewStatus.WONT_FIX, "clean", _WITH_OPEN_REVIEW, by, note)


def reopen(conn: Connection, seen: Review, *, by: str, note: str) -> Review:
    """Open a closed review again: its entity waits for a person once more.

    Parameters are those of `resolve`.

    Raises
    ------
    Refused
        The review is open, another one of its entity is, or it is not any more as it was seen.
    """
    try:
        return _settle(conn, seen, ReviewStatus.OPEN, "manual_review", _SETTLED, by, note)
    except UniqueViolation:
        raise Refused(
            f"{seen.entity_type} {seen.gid} has another open review: see `review show {seen.gid}`"
        ) from None


def annotate(conn: Connection, seen: Review, *, by: str, note: str) -> Review:
    """Add a note to a review and leave everything else as it is.

    Parameters are those of `resolve`; raises `Refused` when the review is not as it was seen.
    """
    with conn.transaction():
        _lock_as_seen(conn, seen)
        conn.execute(_ADD_NOTE, {"id": seen.id, "note": _stamped(conn, by, note)})
    return seen


def audit_again(conn: Connection, seen: Review, *, by: str, note: str) -> Review:
    """Have the entity of a review audited again, before all others.

    An open review stays open: the audit settles it, or finds more reasons for it. Parameters and
    errors are those of `annotate`; also refused while the entity is being audited.
    """
    with conn.transaction():
        _lock_idle_entity(conn, seen)
        entity_id = _lock_as_seen(conn, seen)
        conn.execute(_RETRY, {"ids": [entity_id], "priority": RETRY_PRIORITY})
        words = f"{_AGAIN}: {note}" if note else _AGAIN
        conn.execute(_ADD_NOTE, {"id": seen.id, "note": _stamped(conn, by, words)})
    return replace(seen, entity_status="unchecked")


#: What can be done about one review; all take the same parameters.
Settle = Callable[..., Review]


def settle_all(
    conn: Connection, settle: Settle, seen: Sequence[Review], *, by: str, note: str
) -> list[SettledReview]:
    """Do the same about many reviews, in one transaction; return what became of each, in order.

    `settle` is one of the functions above. A review that it refuses is left as it is, and does not
    keep the others.
    """
    settled = []
    with conn.transaction():
        conn.execute(_LOCK_ENTITIES_OF_REVIEWS, {"ids": [review.id for review in seen]})
        for review in seen:
            try:
                settled.append(SettledReview(settle(conn, review, by=by, note=note)))
            except Refused as refusal:
                settled.append(SettledReview(review, str(refusal)))
    return settled


#: Where an entity may stand whose open review is closed; in repair, its events go on.
_WITH_OPEN_REVIEW: Final = ("manual_review", "unchecked")
_SETTLED: Final = ("clean", "legacy", "unchecked", "repair_queue")


def _settle(
    conn: Connection,
    seen: Review,
    status: ReviewStatus,
    entity_status: str,
    instead_of: Sequence[str],
    by: str,
    note: str,
) -> Review:
    with conn.transaction():
        _lock_idle_entity(conn, seen)
        entity_id = _lock_as_seen(conn, seen)
        _check_step(seen, status)
        note = _stamped(conn, by, f"{status}: {note}")
        conn.execute(_SET_REVIEW, {"id": seen.id, "status": status.value, "note": note})
        changed = conn.execute(
            _SET_ENTITY, {"id": entity_id, "status": entity_status, "instead_of": list(instead_of)}
        ).rowcount
    return replace(
        seen, status=status, entity_status=entity_status if changed else seen.entity_status
    )


def _lock_idle_entity(conn: Connection, seen: Review) -> None:
    row = conn.execute(_LOCK, {"id": seen.id}).fetchone()
    if row is None:
        raise Refused(f"review {seen.id} does not exist any more")
    if row[0] == "audit_in_progress":
        raise Refused(
            f"{seen.entity_type} {seen.gid} is being audited just now: look again in a minute"
        )


def _lock_as_seen(conn: Connection, seen: Review) -> int:
    """Lock a review and return its entity's id, unless it has changed since it was seen."""
    row = conn.execute(_LOCK_REVIEW, {"id": seen.id}).fetchone()
    if row is None or (row[1], row[2], row[3]) != (seen.status, seen.reason, seen.notes):
        raise Refused(
            f"review {seen.id} has changed meanwhile: look again with `review show {seen.gid}`"
        )
    return int(row[0])


def _check_step(seen: Review, status: ReviewStatus) -> None:
    """Check that a review can become `status`: an open one is closed, a closed one reopened."""
    closing = status is not ReviewStatus.OPEN
    if closing and seen.status is not ReviewStatus.OPEN:
        raise Refused(f"review {seen.id} is {seen.status} already: `review reopen` opens it again")
    if not closing and seen.status is ReviewStatus.OPEN:
        raise Refused(f"review {seen.id} is open already: there is nothing to reopen")


# -- entities ----------------------------------------------------------------------------------


def retry(
    conn: Connection, gids: Collection[UUID], *, by: str, seen: Collection[EntityRow] = ()
) -> list[RetriedGid]:
    """Have entities audited again, before all others; return what became of each gid.

    A gid that both a release and an event have stands for both. Raises `Refused` when one of the
    entities `seen` is not any more as the person saw it.
    """
    with conn.transaction():
        locked = conn.execute(_LOCK_ENTITIES, {"gids": list(gids)}).fetchall()
        _check_as_seen({row[0]: row[3:] for row in locked}, seen)
        rows = [row[:4] for row in locked]
        ids = [id_ for id_, _, _, status in rows if status != "audit_in_progress"]
        conn.execute(_RETRY, {"ids": ids, "priority": RETRY_PRIORITY})
        conn.execute(_NOTE, {"ids": ids, "note": _stamped(conn, by, _AGAIN)})
    retried = [
        RetriedGid(
            gid,
            EntityType(entity_type),
            Retried.IN_PROGRESS if status == "audit_in_progress" else Retried.RETRIED,
        )
        for _, entity_type, gid, status in rows
    ]
    known = {entry.gid for entry in retried}
    unknown = [RetriedGid(gid, None, Retried.UNKNOWN) for gid in gids if gid not in known]
    return retried + unknown


def _check_as_seen(now: Mapping[int, tuple[Any, ...]], seen: Collection[EntityRow]) -> None:
    for entity in seen:
        if now.get(entity.id) != (entity.status, entity.last_audit_at):
            raise Refused(
                f"{entity.entity_type} {entity.gid} has changed meanwhile: look at it again"
            )


# -- events ------------------------------------------------------------------------------------


def requeue(conn: Connection, ids: Collection[int], *, by: str) -> list[RequeuedEvent]:
    """Put failed events back into artwork-indexer's queue, with those that failed along with them.

    An event whose twin is queued already stays as it is, and so does one that depends on an event
    that stays failed. Returns what became of each event that was asked for, and of each that
    depends on one.
    """
    with conn.transaction():
        rows = conn.execute(_LOCK_FAILED, {"ids": list(ids)}).fetchall()
        parents = {id_: set(depends_on or ()) for id_, _, depends_on in rows}
        outcomes = dict.fromkeys(ids, Requeued.MISSING)
        outcomes |= {id_: Requeued.NOT_FAILED for id_, _, _ in rows}
        failed = {id_ for id_, state, _ in rows if state == "failed"}
        blocking = _failed(conn, set().union(*parents.values())) - failed
        for id_ in _parents_first(failed, parents):
            outcomes[id_] = (
                Requeued.PARENT_FAILED if parents[id_] & blocking else _requeue_one(conn, id_)
            )
            if outcomes[id_] is not Requeued.REQUEUED:
                blocking.add(id_)
        _note_requeued(conn, outcomes, by)
    return [RequeuedEvent(id_, outcomes[id_], id_ in ids) for id_ in sorted(outcomes)]


def _failed(conn: Connection, ids: Iterable[int]) -> set[int]:
    return {id_ for (id_,) in conn.execute(_FAILED_PARENTS, {"ids": list(ids)})}


def _parents_first(ids: Collection[int], parents: dict[int, set[Any]]) -> list[int]:
    """Return ids in an order in which every event comes after those it depends on."""
    ordered: dict[int, None] = {}
    left = set(ids)
    while left:
        ready = {id_ for id_ in left if not parents[id_] & left}
        # Events that depend on each other can never run; any order does for them.
        ordered |= dict.fromkeys(sorted(ready or left))
        left -= ready or left
    return list(ordered)


def _requeue_one(conn: Connection, id_: int) -> Requeued:
    try:
        # A savepoint: queued events are unique, and whoever queues a twin may still be at it.
        with conn.transaction():
            conn.execute(_REQUEUE, {"id": id_})
    except UniqueViolation:
        return Requeued.DUPLICATE
    return Requeued.REQUEUED


def _note_requeued(conn: Connection, outcomes: dict[int, Requeued], by: str) -> None:
    ids = [id_ for id_, outcome in outcomes.items() if outcome is Requeued.REQUEUED]
    entities = {id_ for (id_,) in conn.execute(_ENTITIES_OF_EVENTS, {"ids": ids})}
    note = _stamped(conn, by, f"events queued again: {', '.join(map(str, ids))}")
    conn.execute(_NOTE, {"ids": sorted(entities), "note": note})


def _stamped(conn: Connection, by: str, note: str) -> str:
    """Return a note with the time, by the database's clock, and the person's name before it."""
    row = conn.execute("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')").fetchone()
    return f"{row[0] if row else ''} UTC, {by}: {note}"
