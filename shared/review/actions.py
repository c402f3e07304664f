"""Actions of people on reviews and entities: one transaction each.

An action is refused, and changes nothing, if a row has changed since the person saw it. The notes
of the review record who did what. A deletion is queued only after archive.org's listings were read
again, before the transaction, through `Listings`.

Rows are locked in the order of the audit, the entity before its reviews, so that the two cannot
deadlock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid4

from psycopg import Connection
from psycopg.errors import UniqueViolation

from artwork_backfill.shared.audit.actual import (
    Item,
    ItemState,
    OriginalImage,
    is_of_other_archive,
)
from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType, item_name
from artwork_backfill.shared.audit.decide import Status
from artwork_backfill.shared.auditing import expectation, queueing
from artwork_backfill.shared.auditing.queueing import (
    EVENT_IDS,
    EventToQueue,
    Obstacle,
    QueueRequest,
    queue_events,
)
from artwork_backfill.shared.auditing.services import Listings
from artwork_backfill.shared.clients.http import Interrupted, ServiceError
from artwork_backfill.shared.engine.session import only_row
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

#: Adds a note to the open reviews of entities.
NOTE_OPEN_REVIEWS: Final = """
UPDATE artwork_indexer.needs_manual_review
SET resolution_notes = concat_ws(E'\\n', resolution_notes, %(note)s::text)
WHERE status = 'open' AND audit_entity_id = ANY (%(ids)s::bigint[])
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
                    {"id": seen.id, "status": self.status, "note": stamped(conn, by, words)},
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
        words = stamped(conn, by, f"{PURGE} of {image.name}, event {EVENT_IDS}: {note}")
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
    images = images_with(item, artwork_id, suffix)
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
        conn.execute(NOTE_OPEN_REVIEWS, {"ids": ids, "note": stamped(conn, by, audit_again.says)})
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


def images_with(item: Item, artwork_id: int, suffix: str | None) -> list[OriginalImage]:
    """Return the originals of an item with an artwork id, and with a suffix if it is given."""
    return [
        image
        for image in item.originals()
        if image.artwork_id == artwork_id and suffix in (None, image.suffix)
    ]


def stamped(conn: Connection, by: str, note: str) -> str:
    """Return a note preceded by the database's time and the person's name."""
    (now,) = only_row(conn, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')")
    return f"{now} UTC, {by}: {note}"
