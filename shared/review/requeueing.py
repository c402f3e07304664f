"""Requeueing of events that artwork-indexer has given up.

Events that an audit has queued go the way of all its events, `queueing.queue_events`: those of an
entity together, or none of them. Deletions are checked before, as in an audit. No lock of ours
outlives a statement.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, Literal
from uuid import uuid4

from psycopg import Connection
from psycopg.errors import DeadlockDetected, LockNotAvailable, QueryCanceled, UniqueViolation

from artwork_backfill.shared.audit.actual import (
    CopyState,
    ItemState,
    OriginalImage,
    compare_copies,
)
from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType
from artwork_backfill.shared.audit.expected import Presence
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
from artwork_backfill.shared.engine.session import holds, one_statement
from artwork_backfill.shared.review.actions import NOTE_OPEN_REVIEWS, images_with, stamped


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
class RequeuedEvent:
    """An event and the result; `asked_for` is false if it depends on a requested one.

    `detail` says why a deletion is `UNSAFE`.
    """

    id: int
    outcome: Requeued
    asked_for: bool
    detail: str = ""


# There are few failed events, and they have an index: searching them for dependants costs little.
# The last two columns are NULL for an event that no audit has queued. Ids are reused after a
# TRUNCATE: an event is an audit's only if action and entity agree, too.
_FAILED_FAMILY: Final = """
WITH RECURSIVE family (id) AS (
    SELECT id FROM unnest(%(ids)s::bigint[]) AS wanted (id)
    UNION
    SELECT child.id
    FROM family
    JOIN artwork_indexer.event_queue child
      ON child.state = 'failed' AND child.depends_on @> ARRAY[family.id]
)
SELECT event.id, event.state::text,
       ARRAY(SELECT id FROM artwork_indexer.event_queue
             WHERE state = 'failed' AND id = ANY (event.depends_on)),
       event.entity_type::text, event.action::text, event.message, audit.entity_id, audit.is_purge
FROM artwork_indexer.event_queue event
LEFT JOIN LATERAL (
    SELECT entity.id AS entity_id, bool_or(result.outcome = 'purge') AS is_purge
    FROM artwork_indexer.audit_entity entity
    JOIN artwork_indexer.audit_result result
      ON result.audit_entity_id = entity.id AND event.id = ANY (result.event_ids)
    WHERE entity.entity_type = event.entity_type
    AND entity.gid = CASE
        WHEN event.message->>'gid' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
        THEN (event.message->>'gid')::uuid END
    AND event.action IN ('index', 'delete_image', 'deindex')
    GROUP BY entity.id
) AS audit ON TRUE
WHERE event.id IN (SELECT id FROM family)
ORDER BY event.id
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
    events = _failed_family(conn, ids)
    others = []
    groups: dict[int, list[_Event]] = {}
    for event in _parents_first(events):
        if _is_blocked(event, events):
            event.leave(Requeued.PARENT_FAILED)
        elif not (event.is_ours or any_event):
            event.leave(Requeued.NOT_OURS)
        elif event.action == "delete_image" and (obstacle := _obstacle(conn, event, listings)):
            event.leave(*obstacle)
        elif event.entity_id is not None:
            groups.setdefault(event.entity_id, []).append(event)
        else:
            others.append(event)
    for event in others:
        blocked = _is_blocked(event, events)
        event.outcome = Requeued.PARENT_FAILED if blocked else _requeue_one(conn, event.id)
    _note_requeued(conn, [event.id for event in others if event.is_requeued], by)
    for entity_id, group in groups.items():
        _requeue_ours(conn, entity_id, group, events, by)
    results = [
        RequeuedEvent(event.id, event.outcome, event.id in ids, event.detail)
        for event in events.values()
    ]
    results += [
        RequeuedEvent(id_, Requeued.MISSING, asked_for=True) for id_ in ids if id_ not in events
    ]
    return sorted(results, key=attrgetter("id"))


@dataclass(slots=True)
class _Event:
    """An event, and the outcome of requeueing it, as far as it is known.

    `failed_parents` are the ids of failed events that it depends on. `entity_id` and `is_purge` are
    None if no audit has queued it. `owner` is the gid of the entity that owns an image to delete.
    """

    id: int
    outcome: Requeued
    failed_parents: Sequence[int]
    entity_type: EntityType
    action: Literal["index", "copy_image", "delete_image", "deindex"]
    message: Mapping[str, Any]
    entity_id: int | None
    is_purge: bool | None
    detail: str = ""
    owner: str | None = None

    @property
    def gid(self) -> str:
        return str(self.message.get("gid"))

    @property
    def artwork_id(self) -> int:
        id_ = self.message.get("artwork_id")
        return id_ if isinstance(id_, int) else 0

    @property
    def is_ours(self) -> bool:
        return self.entity_id is not None

    @property
    def is_requeued(self) -> bool:
        return self.outcome is Requeued.REQUEUED

    def leave(self, outcome: Requeued, detail: str = "") -> None:
        """Leave the event as it is."""
        self.outcome, self.detail = outcome, detail


def _failed_family(conn: Connection, ids: Collection[int]) -> dict[int, _Event]:
    """Return events by id, with the failed ones that depend on them."""
    return {
        id_: _Event(
            id_,
            Requeued.REQUEUED if state == "failed" else Requeued.NOT_FAILED,
            parents,
            EntityType(entity_type),
            *rest,
        )
        for id_, state, parents, entity_type, *rest in conn.execute(
            _FAILED_FAMILY, {"ids": list(ids)}
        )
    }


def _is_blocked(event: _Event, events: Mapping[int, _Event]) -> bool:
    """Return whether an event that this one depends on stays failed."""
    return not all(id_ in events and events[id_].is_requeued for id_ in event.failed_parents)


def _parents_first(events: Mapping[int, _Event]) -> list[_Event]:
    """Return the failed events in an order in which each comes after those it depends on."""
    ordered: list[_Event] = []
    left = {event.id: event for event in events.values() if event.is_requeued}
    while left:
        ready = [event for event in left.values() if left.keys().isdisjoint(event.failed_parents)]
        # Events that depend on each other can never run, so their order does not matter.
        for event in ready or list(left.values()):
            ordered.append(left.pop(event.id))
    return ordered


def _obstacle(
    conn: Connection, event: _Event, listings: Listings | None
) -> tuple[Requeued, str] | None:
    """Return why a deletion must not be requeued, with a detail; None if it may be.

    Of an event that no audit has queued, it only matters that the image is not the entity's own. No
    transaction is open, as items are read.
    """
    rows = read_owners(conn, event.entity_type, [event.artwork_id])
    event.owner = owner = rows.gids.get(event.artwork_id)
    if owner == event.gid:
        return Requeued.UNSAFE, "the image is this entity's own"
    if not event.is_ours:
        return None
    image, copy = _look_at(event, listings)
    if copy is CopyState.UNKNOWN:
        return Requeued.UNREAD, ""
    if owner in rows.busy:
        return Requeued.BUSY, ""
    if image is None:
        return Requeued.UNSAFE, "the item does not list the image any more"
    if event.is_purge:
        return None
    if owner is None:
        return Requeued.UNSAFE, "the image belongs to no entity"
    if read_presence(conn, event.entity_type, event.gid) is Presence.LIVE:
        return Requeued.UNSAFE, "the entity is live"
    if copy is not CopyState.SAME:
        return Requeued.UNSAFE, f"{event.entity_type} {owner} does not hold the same image"
    return None


def _look_at(
    event: _Event, listings: Listings | None
) -> tuple[OriginalImage | None, CopyState | None]:
    """Return the image to delete as archive.org lists it, and the state of its owner's copy."""
    unread = None, CopyState.UNKNOWN
    if listings is None:
        return unread
    try:
        item = listings.read(event.gid)
        if item.state in (ItemState.UNFINISHED, ItemState.UNAVAILABLE):
            return unread
        suffix = str(event.message.get("suffix"))
        image = next(iter(images_with(item, event.artwork_id, suffix)), None)
        if image is None or event.owner is None:
            return image, None
        archive = ART_ARCHIVES[event.entity_type]
        return image, compare_copies(image, listings.read(event.owner), archive)
    except (ServiceError, Interrupted, ValueError):
        return unread


_OBSTACLES: Final[Mapping[Obstacle, Requeued]] = {
    Obstacle.EVENT_CHANGED: Requeued.NOT_FAILED,
    Obstacle.ENTITY_CHANGED: Requeued.OUTDATED,
    Obstacle.OWNER_CHANGED: Requeued.UNSAFE,
}


def _requeue_ours(
    conn: Connection,
    entity_id: int,
    group: Sequence[_Event],
    events: Mapping[int, _Event],
    by: str,
) -> None:
    """Requeue the events of one entity, all of them or none."""
    is_live = read_presence(conn, group[0].entity_type, group[0].gid) is Presence.LIVE
    wanted: list[_Event] = []
    for event in group:
        if _is_blocked(event, events):
            event.leave(Requeued.PARENT_FAILED)
        elif event.action == ("deindex" if is_live else "index"):
            event.leave(Requeued.OUTDATED)
        elif any((event.action, event.message) == (one.action, one.message) for one in wanted):
            event.leave(Requeued.DUPLICATE)
        else:
            wanted.append(event)
    if not wanted:
        return
    request = QueueRequest(
        entity_id,
        uuid4(),
        [
            EventToQueue(event.action, event.message, owner_gid=event.owner, event_id=event.id)
            for event in wanted
        ],
        is_live=is_live,
        note=stamped(conn, by, f"events requeued: {EVENT_IDS}"),
    )
    obstacle = queue_events(conn, request).obstacle
    if obstacle is None:
        return
    for event in wanted:
        if holds(conn, _HAS_TWIN, {"id": event.id}):
            event.leave(Requeued.DUPLICATE)
        elif _is_blocked(event, events):
            event.leave(Requeued.PARENT_FAILED)
        else:
            outcome = _OBSTACLES.get(obstacle, Requeued.BUSY)
            event.leave(outcome, obstacle.explanation if outcome is Requeued.UNSAFE else "")


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
    note = stamped(conn, by, f"events requeued: {', '.join(map(str, ids))}")
    conn.execute(NOTE_OPEN_REVIEWS, {"ids": sorted(entities), "note": note})
