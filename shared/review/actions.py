"""Actions of people on reviews, entities and failed events: one transaction each.

An action is refused, and changes nothing, if a row has changed since the person saw it. The notes
of the review record who did what. A deletion is queued only after archive.org's listings were read
again, before the transaction, through `Listings`.

Rows are locked in the order of the audit, the entity before its reviews, so that the two cannot
deadlock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import attrgetter
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
from artwork_backfill.shared.review.questions import (
    ENTITIES_OF_GIDS,
    EntityRow,
    Review,
    ReviewStatus,
    find_entities,
)

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


# Statuses, reason and notes are all that a person can have seen of a review.
_LOCK_REVIEW: Final = """
SELECT audit_entity_id, status::text, review_reason, resolution_notes
FROM artwork_indexer.needs_manual_review
WHERE id = %(id)s
FOR UPDATE
"""

# In the order of ids, in which the audit locks rows.
_LOCK_ENTITIES_OF_REVIEWS: Final = """
SELECT entity.status::text
FROM artwork_indexer.audit_entity entity
JOIN artwork_indexer.needs_manual_review review ON review.audit_entity_id = entity.id
WHERE review.id = ANY (%(ids)s::bigint[])
ORDER BY entity.id
FOR UPDATE OF entity
"""

_SET_REVIEW: Final = """
UPDATE artwork_indexer.needs_manual_review
SET status = coalesce(%(status)s::artwork_indexer.manual_review_status, status),
    resolved_at = CASE WHEN %(status)s IS NULL THEN resolved_at
                       WHEN %(status)s <> 'open' THEN now() END,
    resolution_notes = concat_ws(E'\\n', resolution_notes, %(note)s::text)
WHERE id = %(id)s
"""

_SET_ENTITIES: Final = """
UPDATE artwork_indexer.audit_entity
SET status = %(status)s::artwork_indexer.audit_entity_status,
    priority = greatest(priority, %(priority)s), not_before = NULL
WHERE id = ANY (%(ids)s::bigint[]) AND status::text = ANY (%(instead_of)s)
"""

_LOCK_ENTITIES: Final = f"{ENTITIES_OF_GIDS} ORDER BY id FOR UPDATE"

_NOTE: Final = """
UPDATE artwork_indexer.needs_manual_review
SET resolution_notes = concat_ws(E'\\n', resolution_notes, %(note)s::text)
WHERE status = 'open' AND audit_entity_id = ANY (%(ids)s::bigint[])
"""

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


# -- reviews -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReviewAction:
    """An action on one review: what becomes of it and of its entity.

    Parameters
    ----------
    status
        The new status of the review; `None` leaves it as it is.
    entity, instead_of
        The new status of the entity, if it has one of the others.
    priority
        The priority that the entity has at least.
    says
        What precedes the person's note, if it is not the review's status.
    """

    status: ReviewStatus | None = None
    entity: Status | None = None
    instead_of: tuple[Status, ...] = ()
    priority: int = 0
    says: str = ""

    def __call__(self, conn: Connection, seen: Review, *, by: str, note: str) -> Review:
        """Apply the action, and return the review with its new statuses.

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
            The review has changed since it was seen, or the action does not fit its status or that
            of its entity; nothing was changed.
        """
        words = ": ".join(filter(None, (self.status or self.says, note)))
        try:
            with conn.transaction():
                if self.entity is not None:
                    _lock_idle_entity(conn, seen)
                entity_id = _lock_as_seen(conn, seen)
                self._check_step(seen)
                conn.execute(
                    _SET_REVIEW,
                    {"id": seen.id, "status": self.status, "note": _stamped(conn, by, words)},
                )
                has_changed = self.set_entities(conn, [entity_id])
        except UniqueViolation:
            raise Refused(
                f"{seen.entity_type} {seen.gid} has another open review: see"
                f" `review show {seen.gid}`"
            ) from None
        return replace(
            seen,
            status=self.status or seen.status,
            entity_status=self.entity if self.entity and has_changed else seen.entity_status,
        )

    def set_entities(self, conn: Connection, ids: Sequence[int]) -> int:
        """Set the status of entities, without their reviews; return how many were changed."""
        values = {
            "ids": ids,
            "status": self.entity,
            "instead_of": list(self.instead_of),
            "priority": self.priority,
        }
        return conn.execute(_SET_ENTITIES, values).rowcount

    def _check_step(self, seen: Review) -> None:
        """Check that an open review is closed, or a closed one reopened."""
        is_open = seen.status is ReviewStatus.OPEN
        if self.status is ReviewStatus.OPEN and is_open:
            raise Refused(f"review {seen.id} is open already: there is nothing to reopen")
        if self.status not in (None, ReviewStatus.OPEN) and not is_open:
            raise Refused(
                f"review {seen.id} is {seen.status} already: `review reopen` opens it again"
            )


#: The statuses of an entity whose open review can be closed; queued events of a repair stay.
_WITH_OPEN_REVIEW: Final = (Status.MANUAL_REVIEW, Status.UNCHECKED)

#: Closes an open review as fixed. Its entity is audited again, which proves it.
resolve: Final = ReviewAction(ReviewStatus.RESOLVED, Status.UNCHECKED, _WITH_OPEN_REVIEW)

#: Closes an open review without a fix: its entity counts as clean and is not audited again, unless
#: an event of it fails later, or `retry` makes it unchecked.
leave_unfixed: Final = ReviewAction(ReviewStatus.WONT_FIX, Status.CLEAN, _WITH_OPEN_REVIEW)

#: Reopens a closed review, so that its entity waits for a person again.
reopen: Final = ReviewAction(
    ReviewStatus.OPEN,
    Status.MANUAL_REVIEW,
    (Status.CLEAN, Status.LEGACY, Status.UNCHECKED, Status.REPAIR_QUEUE),
)

#: Adds a note, and leaves everything else as it is.
annotate: Final = ReviewAction()

#: Makes the entity unchecked, to be audited before all others. An open review stays open: the audit
#: resolves it, or finds more reasons for it.
audit_again: Final = ReviewAction(
    entity=Status.UNCHECKED,
    instead_of=tuple(Status),
    priority=RETRY_PRIORITY,
    says="to be audited again",
)


def apply_to_all(
    conn: Connection, action: ReviewAction, seen: Sequence[Review], *, by: str, note: str
) -> list[ReviewOutcome]:
    """Apply an action to many reviews in one transaction; return the results in order.

    A refused review stays as it is, and does not affect the others.
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


def _lock_idle_entity(conn: Connection, seen: Review) -> None:
    row = conn.execute(_LOCK_ENTITIES_OF_REVIEWS, {"ids": [seen.id]}).fetchone()
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
        found = find_entities(conn, gids, query=_LOCK_ENTITIES)
        now = {(entity.id, entity.status, entity.last_audit_at) for entity in found}
        for entity in seen:
            if (entity.id, entity.status, entity.last_audit_at) not in now:
                raise Refused(
                    f"{entity.entity_type} {entity.gid} has changed meanwhile: look at it again"
                )
        ids = [entity.id for entity in found if entity.status != Status.IN_PROGRESS]
        audit_again.set_entities(conn, ids)
        conn.execute(_NOTE, {"ids": ids, "note": _stamped(conn, by, audit_again.says)})
    retried = [
        RetriedGid(
            entity.gid,
            entity.entity_type,
            Retried.IN_PROGRESS if entity.status == Status.IN_PROGRESS else Retried.RETRIED,
        )
        for entity in found
    ]
    known = {entity.gid for entity in found}
    unknown = [RetriedGid(gid, None, Retried.UNKNOWN) for gid in gids if gid not in known]
    return retried + unknown


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
        image = next(iter(_images(item, event.artwork_id, str(event.message.get("suffix")))), None)
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
        note=_stamped(conn, by, f"events requeued: {EVENT_IDS}"),
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


def _images(item: Item, artwork_id: int, suffix: str | None) -> list[OriginalImage]:
    return [
        image
        for image in item.originals()
        if image.artwork_id == artwork_id and suffix in (None, image.suffix)
    ]


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
