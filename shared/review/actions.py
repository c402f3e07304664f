"""Actions of people on reviews, entities and failed events: one transaction each.

An action is refused, and changes nothing, if a row has changed since the person saw it. The notes
of the review record who did what. A deletion is queued only after archive.org's listings were read
again, before the transaction, through `Listings`.

Rows are locked in the order of the audit, the entity before its reviews, so that the two cannot
deadlock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Literal
from uuid import UUID, uuid4

from psycopg import Connection
from psycopg.errors import (
    DeadlockDetected,
    LockNotAvailable,
    QueryCanceled,
    UniqueViolation,
)

from artwork_backfill.shared.audit.actual import (
    CopyState,
    Item,
    ItemState,
    OriginalImage,
    compare_copies,
    is_of_other_archive,
)
from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType, item_name
from artwork_backfill.shared.audit.decide import Status
from artwork_backfill.shared.audit.expected import Presence
from artwork_backfill.shared.auditing import expectation, queueing
from artwork_backfill.shared.auditing.expectation import read_presence
from artwork_backfill.shared.auditing.owners import read_owners
from artwork_backfill.shared.auditing.queueing import (
    EVENT_IDS,
    EventToQueue,
    Obstacle,
    QueueRequest,
    queue_events,
)
from artwork_backfill.shared.auditing.services import Listings
from artwork_backfill.shared.clients.http import Interrupted, ServiceError
from artwork_backfill.shared.engine.session import holds, one_statement, only_row
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.review.questions import EntityRow, Review, ReviewStatus

#: The tables that these actions change.
TABLES: Final = (
    Table(
        "artwork_indexer.event_queue",
        ("SELECT", "UPDATE"),
        updated=("state", "attempts", "created"),
    ),
    Table("artwork_indexer.audit_entity", ("SELECT", "UPDATE")),
    Table("artwork_indexer.needs_manual_review", ("SELECT", "UPDATE")),
)

#: Further tables that are read and written when a deletion is queued.
DELETION_TABLES: Final = (*expectation.PRESENCE_TABLES, *queueing.TABLES)

#: The outcome in `audit_result` of a deletion that a person decided.
PURGE: Final = "purge"

#: Entities that a person wants audited come first.
RETRY_PRIORITY: Final = 300

_AGAIN: Final = "to be audited again"


class Refused(Exception):
    """An action does not fit the present rows. The message says why, and what to do."""


class Retried(StrEnum):
    """The result of making a gid unchecked."""

    RETRIED = "is unchecked now and audited next"
    IN_PROGRESS = "is being audited just now: nothing to do"
    UNKNOWN = "is not in the audit table: seed it first, for example with seed-from-mb"


class Requeued(StrEnum):
    """The result of requeueing an event."""

    REQUEUED = "is queued again"
    MISSING = "does not exist"
    NOT_FAILED = "is not failed: nothing to do"
    PARENT_FAILED = (
        "depends on an event that stays failed: requeue that event, and this one is requeued, too"
    )
    DUPLICATE = "has an identical event in the queue: nothing to do"
    NOT_OURS = "was not queued by an audit: pass --any to requeue it nevertheless"
    UNSAFE = "would delete an image that must not be deleted now: see `review retry`"
    OUTDATED = (
        "is out of date, because MusicBrainz has merged, deleted or restored the entity: see"
        " `review retry`"
    )
    BUSY = "must wait for other events of the entity or of the image's owner: try again later"
    UNREAD = "could not be checked, because archive.org gave no usable answer: try again later"


@dataclass(frozen=True, slots=True)
class ReviewOutcome:
    """A review after an action, or as it was seen together with the reason of the refusal."""

    review: Review
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class RetriedGid:
    """A gid and the result; `entity_type` is `None` for an unknown gid."""

    gid: UUID
    entity_type: EntityType | None
    outcome: Retried


@dataclass(frozen=True, slots=True)
class RequeuedEvent:
    """An event and the result; `asked_for` is false if it depends on a requested one.

    `detail` says why a deletion is `UNSAFE`.
    """

    id: int
    outcome: Requeued
    asked_for: bool
    detail: str = ""


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

# In the order of ids, in which the audit locks rows.
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
SET status = %(status)s::artwork_indexer.audit_entity_status, not_before = NULL
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
SET status = 'unchecked', priority = greatest(priority, %(priority)s), not_before = NULL
WHERE id = ANY (%(ids)s::bigint[])
"""

_NOTE: Final = """
UPDATE artwork_indexer.needs_manual_review
SET resolution_notes = concat_ws(E'\\n', resolution_notes, %(note)s::text)
WHERE status = 'open' AND audit_entity_id = ANY (%(ids)s::bigint[])
"""

# There are few failed events, and they have an index: searching them for dependants costs little.
_FAILED_FAMILY: Final = """
WITH RECURSIVE family (id) AS (
    SELECT id FROM unnest(%(ids)s::bigint[]) AS wanted (id)
    UNION
    SELECT child.id
    FROM family
    JOIN artwork_indexer.event_queue child
      ON child.state = 'failed' AND child.depends_on @> ARRAY[family.id]
)
SELECT id, state::text, depends_on, entity_type::text, action::text, message
FROM artwork_indexer.event_queue
WHERE id IN (SELECT id FROM family)
ORDER BY id
"""

# Ids are reused after a TRUNCATE: an event is an audit's only if action and entity agree, too.
_MADE_BY_AUDIT: Final = """
SELECT event.id, bool_or(result.outcome = 'purge')
FROM artwork_indexer.event_queue event
JOIN artwork_indexer.audit_entity entity
  ON entity.entity_type = event.entity_type
 AND entity.gid = CASE WHEN event.message->>'gid' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                       THEN (event.message->>'gid')::uuid END
JOIN artwork_indexer.audit_result result
  ON result.audit_entity_id = entity.id AND event.id = ANY (result.event_ids)
WHERE event.id = ANY (%(ids)s::bigint[])
AND event.action IN ('index', 'delete_image', 'deindex')
GROUP BY event.id
"""

# An event that waits for one of the omitted ones is no obstacle to it.
_UNDER_WAY: Final = """
SELECT EXISTS (
    SELECT
    FROM artwork_indexer.event_queue
    WHERE state IN ('queued', 'running')
    AND entity_type::text = %(entity_type)s
    AND %(gid)s IN (message->>'gid', message->>'old_gid', message->>'new_gid')
    AND NOT id = ANY (%(but)s::bigint[])
    AND NOT (state = 'queued' AND coalesce(depends_on && %(but)s::bigint[], false)))
"""

_ENTITY_ID: Final = """
SELECT id
FROM artwork_indexer.audit_entity
WHERE entity_type::text = %(entity_type)s AND gid = %(gid)s
"""

_HAS_TWIN: Final = """
SELECT EXISTS (
    SELECT
    FROM artwork_indexer.event_queue event
    JOIN artwork_indexer.event_queue twin
      ON twin.entity_type = event.entity_type
     AND twin.action = event.action
     AND twin.message = event.message
    WHERE event.id = %(id)s AND twin.id <> event.id AND twin.state = 'queued')
"""

_FAILED_PARENTS: Final = """
SELECT id FROM artwork_indexer.event_queue
WHERE state = 'failed' AND id = ANY (%(ids)s::bigint[])
"""

# As if it were new: artwork-indexer gives up an event that runs 2.5 minutes after `created`.
_REQUEUE: Final = """
UPDATE artwork_indexer.event_queue
SET state = 'queued', attempts = 0, created = now()
WHERE id = %(id)s AND state = 'failed'
RETURNING id
"""

# A message may contain anything, and text that is not a UUID names no entity.
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
    """Close an open review as fixed. Its entity is audited again, which proves it.

    Parameters
    ----------
    conn
        A connection in autocommit mode.
    seen
        The review as the person saw it.
    by, note
        The person's name and the reason; both are stored with the review.

    Raises
    ------
    Refused
        The review is not open, or has changed since it was seen.
    """
    return _change(conn, seen, ReviewStatus.RESOLVED, Status.UNCHECKED, _WITH_OPEN_REVIEW, by, note)


def leave_unfixed(conn: Connection, seen: Review, *, by: str, note: str) -> Review:
    """Close an open review without a fix: its entity counts as clean and is not audited again.

    An event of it that fails later, or `retry`, makes it unchecked again. Parameters and errors are
    those of `resolve`.
    """
    return _change(conn, seen, ReviewStatus.WONT_FIX, Status.CLEAN, _WITH_OPEN_REVIEW, by, note)


def reopen(conn: Connection, seen: Review, *, by: str, note: str) -> Review:
    """Reopen a closed review, so that its entity waits for a person again.

    Parameters are those of `resolve`.

    Raises
    ------
    Refused
        The review is open, its entity has another open review, or it has changed since it was seen.
    """
    try:
        return _change(conn, seen, ReviewStatus.OPEN, Status.MANUAL_REVIEW, _CLOSED, by, note)
    except UniqueViolation:
        raise Refused(
            f"{seen.entity_type} {seen.gid} has another open review: see `review show {seen.gid}`"
        ) from None


def annotate(conn: Connection, seen: Review, *, by: str, note: str) -> Review:
    """Add a note to a review, and leave everything else as it is.

    Parameters are those of `resolve`; raises `Refused` if the review has changed since it was seen.
    """
    with conn.transaction():
        _lock_as_seen(conn, seen)
        conn.execute(_ADD_NOTE, {"id": seen.id, "note": _stamped(conn, by, note)})
    return seen


def audit_again(conn: Connection, seen: Review, *, by: str, note: str) -> Review:
    """Make the entity of a review unchecked, to be audited before all others.

    An open review stays open: the audit resolves it, or finds more reasons for it. Parameters and
    errors are those of `annotate`; also refused while the entity is being audited.
    """
    with conn.transaction():
        _lock_idle_entity(conn, seen)
        entity_id = _lock_as_seen(conn, seen)
        conn.execute(_RETRY, {"ids": [entity_id], "priority": RETRY_PRIORITY})
        words = f"{_AGAIN}: {note}" if note else _AGAIN
        conn.execute(_ADD_NOTE, {"id": seen.id, "note": _stamped(conn, by, words)})
    return replace(seen, entity_status=Status.UNCHECKED)


#: The actions on one review; all take the same parameters.
ReviewAction = Callable[..., Review]


def apply_to_all(
    conn: Connection, action: ReviewAction, seen: Sequence[Review], *, by: str, note: str
) -> list[ReviewOutcome]:
    """Apply an action to many reviews in one transaction; return the results in order.

    `action` is one of the functions above. A refused review stays as it is, and does not affect the
    others.
    """
    outcomes = []
    with conn.transaction():
        conn.execute(_LOCK_ENTITIES_OF_REVIEWS, {"ids": [review.id for review in seen]})
        for review in seen:
            try:
                outcomes.append(ReviewOutcome(action(conn, review, by=by, note=note)))
            except Refused as refusal:
                outcomes.append(ReviewOutcome(review, str(refusal)))
    return outcomes


#: The statuses of an entity whose open review can be closed; queued events of a repair stay.
_WITH_OPEN_REVIEW: Final = (Status.MANUAL_REVIEW, Status.UNCHECKED)
_CLOSED: Final = (Status.CLEAN, Status.LEGACY, Status.UNCHECKED, Status.REPAIR_QUEUE)


def _change(
    conn: Connection,
    seen: Review,
    status: ReviewStatus,
    entity_status: Status,
    instead_of: Sequence[Status],
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
        raise Refused(f"review {seen.id} does not exist any more: `review list` shows all reviews")
    if row[0] == Status.IN_PROGRESS:
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


def purge(
    conn: Connection,
    seen: Review,
    *,
    artwork_id: int,
    listings: Listings,
    by: str,
    note: str,
    suffix: str | None = None,
) -> int:
    """Queue the deletion of one foreign image on a person's decision; return the event's id.

    Does not check who owns the image and whether a copy exists elsewhere. Checks everything else:
    the item is read again and must list the image, and no event of the entity may be in progress.
    Events of ours that a failed one has left in the queue are withdrawn. The review stays open with
    a note, and the audit after the deletion closes it.

    Parameters
    ----------
    seen
        The open review as the person saw it.
    artwork_id
        The artwork id in the name of the file.
    suffix
        The suffix of the file, if several files have the id.
    listings
        Reads the item.
    by, note
        The person's name and the reason; both are stored with the review.

    Raises
    ------
    Refused
        A check failed; nothing was changed.
    """
    gid, entity_type = str(seen.gid), seen.entity_type
    if seen.status is not ReviewStatus.OPEN:
        raise Refused(f"review {seen.id} is {seen.status}: `review reopen` opens it again")
    image = _image_to_purge(_listed(listings, entity_type, gid), artwork_id, suffix)
    with conn.transaction():
        _lock_idle_entity(conn, seen)
        entity_id = _lock_as_seen(conn, seen)
        words = _stamped(conn, by, f"{PURGE} of {image.name}, event {EVENT_IDS}: {note}")
    queueing.sweep(conn)
    message = {"gid": gid, "artwork_id": artwork_id, "suffix": image.suffix}
    queued = queue_events(
        conn,
        QueueRequest(
            entity_id,
            uuid4(),
            [EventToQueue("delete_image", message)],
            result=PURGE,
            findings=[
                {"check": PURGE, "severity": "major", "subject": image.name, "repair": False}
            ],
            note=words,
        ),
    )
    if queued.obstacle is Obstacle.OWNER_CHANGED:
        raise Refused(
            f"artwork {artwork_id} is {entity_type} {gid}'s own: remove it at MusicBrainz"
        )
    if queued.obstacle is not None:
        raise Refused(f"{entity_type} {gid}: {queued.obstacle.explanation}: try again later")
    return queued.event_ids[0]


def _listed(listings: Listings, entity_type: EntityType, gid: str) -> Item:
    """Return the item of an entity as it is listed now; refuse if it is not."""
    try:
        item = listings.read(gid)
    except (ServiceError, Interrupted) as error:
        raise Refused(f"{item_name(gid)} could not be read, try again later: {error}") from None
    if item.state is not ItemState.LISTED:
        problem = f": {item.problem}" if item.problem else ""
        raise Refused(
            f"archive.org says that {item_name(gid)} is {item.state}{problem}: try again later"
        )
    if is_of_other_archive(item, ART_ARCHIVES[entity_type]):
        raise Refused(f"{item_name(gid)} belongs to the other archive: close the review instead")
    return item


def _image_to_purge(item: Item, artwork_id: int, suffix: str | None) -> OriginalImage:
    images = _images(item, artwork_id, suffix)
    if not images:
        raise Refused(
            f"{item_name(item.gid)} lists no original with artwork id {artwork_id}: check the"
            " number"
        )
    if len(images) > 1:
        names = ", ".join(image.name for image in images)
        raise Refused(f"several originals have that artwork id ({names}): pass --suffix")
    return images[0]


# -- entities ----------------------------------------------------------------------------------


def retry(
    conn: Connection, gids: Collection[UUID], *, by: str, seen: Collection[EntityRow] = ()
) -> list[RetriedGid]:
    """Make entities unchecked, to be audited before all others; return the result of each gid.

    A gid that both a release and an event have stands for both.

    Raises
    ------
    Refused
        One of the entities `seen` has changed since the person saw it.
    """
    with conn.transaction():
        locked = conn.execute(_LOCK_ENTITIES, {"gids": list(gids)}).fetchall()
        _check_as_seen({row[0]: row[3:] for row in locked}, seen)
        rows = [row[:4] for row in locked]
        ids = [id_ for id_, _, _, status in rows if status != Status.IN_PROGRESS]
        conn.execute(_RETRY, {"ids": ids, "priority": RETRY_PRIORITY})
        conn.execute(_NOTE, {"ids": ids, "note": _stamped(conn, by, _AGAIN)})
    retried = [
        RetriedGid(
            gid,
            EntityType(entity_type),
            Retried.IN_PROGRESS if status == Status.IN_PROGRESS else Retried.RETRIED,
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


def requeue(
    conn: Connection,
    ids: Collection[int],
    *,
    by: str,
    listings: Listings | None = None,
    any_event: bool = False,
) -> list[RequeuedEvent]:
    """Requeue failed events, together with the failed events that depend on them.

    An event stays as it is if an identical one is queued, or if it depends on an event that stays
    failed. A deletion is checked first, as in an audit, because the image may have become this
    entity's own in the meantime, or its owner may have lost it.

    Parameters
    ----------
    ids
        The ids of the events.
    by
        The person's name, for the notes of reviews.
    listings
        Reads the items of deletions; without it, every deletion is `UNREAD`.
    any_event
        Whether to also requeue events that no audit has queued.

    Returns
    -------
    list[RequeuedEvent]
        The result of each requested event, and of each that depends on one.
    """
    family = _failed_family(conn, ids)
    ours = _made_by_audit(conn, family)
    looks = {
        event.id: _look_at(conn, event, listings)
        for event in family
        if event.action == "delete_image" and event.state == "failed" and event.id in ours
    }
    requeuing = _Requeuing(conn, family, ids)
    groups: dict[tuple[EntityType, str], list[_Event]] = {}
    others: list[int] = []
    for event in requeuing.parents_first():
        if event.id not in ours and not any_event:
            requeuing.leave(event, Requeued.NOT_OURS)
        elif event.action == "delete_image" and (
            obstacle := _obstacle(
                conn, event, looks.get(event.id), ours.get(event.id), requeuing.failed
            )
        ):
            requeuing.leave(event, *obstacle)
        elif event.id in ours:
            groups.setdefault((event.entity_type, event.gid), []).append(event)
        elif (outcome := _requeue_one(conn, event.id)) is Requeued.REQUEUED:
            others.append(event.id)
        else:
            requeuing.leave(event, outcome)
    _note_requeued(conn, others, by)
    for group in groups.values():
        _requeue_ours(conn, requeuing, group, looks, by)
    return requeuing.summary()


class _Requeuing:
    """The results of requeueing events, parents before the events that depend on them."""

    def __init__(self, conn: Connection, family: Collection[_Event], ids: Collection[int]) -> None:
        events = {event.id: event for event in family}
        self._events = events
        self._asked_for = frozenset(ids)
        self._parents = {id_: event.depends_on for id_, event in events.items()}
        self.failed = {id_ for id_, event in events.items() if event.state == "failed"}
        self.outcomes = dict.fromkeys(ids, Requeued.MISSING)
        self.outcomes |= dict.fromkeys(events, Requeued.NOT_FAILED)
        self.outcomes |= dict.fromkeys(self.failed, Requeued.REQUEUED)
        self._details: dict[int, str] = {}
        self._blocking = _failed(conn, set().union(*self._parents.values())) - self.failed

    def parents_first(self) -> Iterator[_Event]:
        """Yield the failed events, without those whose parents stay failed."""
        for id_ in _parents_first(self.failed, self._parents):
            if not self.is_blocked(self._events[id_]):
                yield self._events[id_]

    def leave(self, event: _Event, outcome: Requeued, detail: str = "") -> None:
        """Leave an event as it is, and the events that depend on it."""
        self.outcomes[event.id] = outcome
        self._details[event.id] = detail
        self._blocking.add(event.id)

    def is_blocked(self, event: _Event) -> bool:
        """Return whether a parent stays failed, and leave the event in that case."""
        if self._blocking.isdisjoint(event.depends_on):
            return False
        self.leave(event, Requeued.PARENT_FAILED)
        return True

    def summary(self) -> list[RequeuedEvent]:
        return [
            RequeuedEvent(
                id_, self.outcomes[id_], id_ in self._asked_for, self._details.get(id_, "")
            )
            for id_ in sorted(self.outcomes)
        ]


_OBSTACLES: Final[Mapping[Obstacle, Requeued]] = {
    Obstacle.EVENT_CHANGED: Requeued.NOT_FAILED,
    Obstacle.ENTITY_CHANGED: Requeued.OUTDATED,
    Obstacle.OWNER_CHANGED: Requeued.UNSAFE,
}


def _requeue_ours(
    conn: Connection,
    requeuing: _Requeuing,
    group: Sequence[_Event],
    looks: Mapping[int, _Look],
    by: str,
) -> None:
    """Requeue the events of one entity, all of them or none."""
    is_live = read_presence(conn, group[0].entity_type, group[0].gid) is Presence.LIVE
    twins: set[str] = set()
    wanted = []
    for event in group:
        twin = f"{event.action} {sorted(event.message.items())}"
        if requeuing.is_blocked(event):
            continue
        if event.action == ("deindex" if is_live else "index"):
            requeuing.leave(event, Requeued.OUTDATED)
            continue
        if twin in twins:
            requeuing.leave(event, Requeued.DUPLICATE)
            continue
        twins.add(twin)
        wanted.append(event)
    if not wanted:
        return
    request = QueueRequest(
        _entity_id(conn, wanted[0]),
        uuid4(),
        [
            EventToQueue(
                event.action,
                event.message,
                owner_gid=looks[event.id].owner if event.id in looks else None,
                event_id=event.id,
            )
            for event in wanted
        ],
        is_live=is_live,
        note=_stamped(conn, by, f"events requeued: {EVENT_IDS}"),
    )
    obstacle = queue_events(conn, request).obstacle
    if obstacle is None:
        return
    for event in wanted:
        if _has_twin(conn, event):
            requeuing.leave(event, Requeued.DUPLICATE)
        elif not requeuing.is_blocked(event):
            outcome = _OBSTACLES.get(obstacle, Requeued.BUSY)
            detail = obstacle.explanation if outcome is Requeued.UNSAFE else ""
            requeuing.leave(event, outcome, detail)


@dataclass(frozen=True, slots=True)
class _Event:
    id: int
    state: str
    depends_on: set[int]
    entity_type: EntityType
    action: Literal["index", "copy_image", "delete_image", "deindex"]
    message: Mapping[str, Any]

    @property
    def gid(self) -> str:
        return str(self.message.get("gid"))

    @property
    def artwork_id(self) -> int:
        id_ = self.message.get("artwork_id")
        return id_ if isinstance(id_, int) else 0


@dataclass(frozen=True, slots=True)
class _Look:
    """What archive.org lists of an image to delete: here, and in its owner's item."""

    image: OriginalImage | None = None
    owner: str | None = None
    copy: CopyState | None = None
    is_readable: bool = True


def _failed_family(conn: Connection, ids: Collection[int]) -> list[_Event]:
    return [
        _Event(id_, state, set(depends_on or ()), EntityType(entity_type), action, message)
        for id_, state, depends_on, entity_type, action, message in conn.execute(
            _FAILED_FAMILY, {"ids": list(ids)}
        )
    ]


def _made_by_audit(conn: Connection, events: Iterable[_Event]) -> dict[int, bool]:
    """Return the ids of events that an audit queued, and whether a person decided them."""
    ids = [event.id for event in events]
    return dict(conn.execute(_MADE_BY_AUDIT, {"ids": ids}).fetchall())


def _look_at(conn: Connection, event: _Event, listings: Listings | None) -> _Look:
    """Read the items that a deletion depends on; no transaction is open."""
    if listings is None:
        return _Look(is_readable=False)
    owner = read_owners(conn, event.entity_type, [event.artwork_id]).gids.get(event.artwork_id)
    archive = ART_ARCHIVES[event.entity_type]
    try:
        item = listings.read(event.gid)
        if item.state in (ItemState.UNFINISHED, ItemState.UNAVAILABLE):
            return _Look(is_readable=False)
        image = next(iter(_images(item, event.artwork_id, str(event.message.get("suffix")))), None)
        if image is None or owner is None or owner == event.gid:
            return _Look(image, owner)
        copy = compare_copies(image, listings.read(owner), archive)
    except (ServiceError, Interrupted, ValueError):
        return _Look(is_readable=False)
    return _Look(image, owner, copy, is_readable=copy is not CopyState.UNKNOWN)


def _obstacle(
    conn: Connection,
    event: _Event,
    look: _Look | None,
    is_purge: bool | None,
    requeued: Collection[int],
) -> tuple[Requeued, str] | None:
    """Return why a deletion must not be requeued, with a detail; None if it may be.

    `is_purge` is None for an event that no audit has queued: then it only matters that the image is
    not the entity's own.
    """
    rows = read_owners(conn, event.entity_type, [event.artwork_id])
    owner = rows.gids.get(event.artwork_id)
    if owner == event.gid:
        return Requeued.UNSAFE, "the image is this entity's own"
    if is_purge is None:
        return None
    if look is None or not look.is_readable:
        return Requeued.UNREAD, ""
    but = list(requeued)
    if _is_under_way(conn, event.entity_type, event.gid, but=but) or owner in rows.busy:
        return Requeued.BUSY, ""
    if look.image is None:
        return Requeued.UNSAFE, "the item does not list the image any more"
    if is_purge:
        return None
    if owner is None:
        return Requeued.UNSAFE, "the image belongs to no entity"
    if owner != look.owner:
        return Requeued.BUSY, ""
    if read_presence(conn, event.entity_type, event.gid) is Presence.LIVE:
        return Requeued.UNSAFE, "the entity is live"
    if look.copy is not CopyState.SAME:
        return Requeued.UNSAFE, f"{event.entity_type} {owner} does not hold the same image"
    return None


def _entity_id(conn: Connection, event: _Event) -> int:
    values = {"entity_type": event.entity_type.value, "gid": event.gid}
    ((id_,),) = conn.execute(_ENTITY_ID, values).fetchall()
    return int(id_)


def _has_twin(conn: Connection, event: _Event) -> bool:
    return holds(conn, _HAS_TWIN, {"id": event.id})


def _is_under_way(
    conn: Connection, entity_type: EntityType, gid: str, *, but: Sequence[int] = ()
) -> bool:
    values = {"entity_type": entity_type.value, "gid": gid, "but": list(but)}
    return holds(conn, _UNDER_WAY, values)


def _images(item: Item, artwork_id: int, suffix: str | None) -> list[OriginalImage]:
    return [
        image
        for image in item.originals()
        if image.artwork_id == artwork_id and suffix in (None, image.suffix)
    ]


def _failed(conn: Connection, ids: Iterable[int]) -> set[int]:
    return {id_ for (id_,) in conn.execute(_FAILED_PARENTS, {"ids": list(ids)})}


def _parents_first(ids: Collection[int], parents: Mapping[int, Collection[int]]) -> list[int]:
    """Return ids in an order in which every event comes after those it depends on."""
    ordered: dict[int, None] = {}
    left = set(ids)
    while left:
        ready = {id_ for id_ in left if left.isdisjoint(parents[id_])}
        # Events that depend on each other can never run, so their order does not matter.
        ordered |= dict.fromkeys(sorted(ready or left))
        left -= ready or left
    return list(ordered)


def _requeue_one(conn: Connection, id_: int) -> Requeued:
    """Requeue an event of another program; no lock of ours outlives the statement."""
    try:
        requeued = one_statement(conn, _REQUEUE, {"id": id_})
    except UniqueViolation:
        return Requeued.DUPLICATE
    except (LockNotAvailable, QueryCanceled, DeadlockDetected):
        # An identical event is being queued, and may stay uncommitted for long.
        return Requeued.BUSY
    return Requeued.REQUEUED if requeued else Requeued.NOT_FAILED


def _note_requeued(conn: Connection, ids: Sequence[int], by: str) -> None:
    entities = {id_ for (id_,) in conn.execute(_ENTITIES_OF_EVENTS, {"ids": ids})}
    note = _stamped(conn, by, f"events requeued: {', '.join(map(str, ids))}")
    conn.execute(_NOTE, {"ids": sorted(entities), "note": note})


def _stamped(conn: Connection, by: str, note: str) -> str:
    """Return a note preceded by the database's time and the person's name."""
    (now,) = only_row(conn, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')")
    return f"{now} UTC, {by}: {note}"
