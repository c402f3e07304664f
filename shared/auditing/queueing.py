"""Queues the events of one entity for artwork-indexer, and sweeps up what was withdrawn.

The database does the work (`sql/migrations/0007_beside_musicbrainz.sql`). Edits of an entity wait
while its events are being queued, so each call is one message to the server that begins and ends
its own transaction: a process that is stopped, or loses its connection, holds up no edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from psycopg import Connection, errors
from psycopg.types.json import Jsonb

from artwork_backfill.shared.engine.session import one_statement
from artwork_backfill.shared.engine.tables import Table

#: The tables that are read and written here, with the rights that the role of a run needs.
TABLES: Final = (
    Table(
        "artwork_indexer.event_queue",
        ("SELECT", "INSERT", "UPDATE", "DELETE"),
        updated=("state", "attempts", "created"),
    ),
    Table("artwork_indexer.audit_event", ("SELECT", "INSERT", "UPDATE", "DELETE")),
    Table("artwork_indexer.audit_entity", ("SELECT", "UPDATE")),
    Table("artwork_indexer.audit_result", ("SELECT", "INSERT")),
    Table("artwork_indexer.needs_manual_review", ("SELECT", "INSERT", "UPDATE")),
    Table("musicbrainz.release"),
    Table("musicbrainz.event"),
    Table("cover_art_archive.cover_art"),
    Table("event_art_archive.event_art"),
)

#: Stands in a note for the ids of the events, which are not known before they are queued.
EVENT_IDS: Final = "{events}"

#: How long after it was queued a deletion that has not begun is withdrawn.
PATIENCE: Final = timedelta(minutes=10)
#: After the k-th withdrawal in a row, an entity is not claimed for 2^k times this.
DEFERRAL_UNIT: Final = timedelta(minutes=1)

_QUEUE: Final = """
SELECT outcome, event_ids
FROM artwork_indexer.audit_queue(
    %(entity_id)s, %(claimed_at)s, %(run_id)s, %(is_live)s, %(events)s, %(result)s,
    %(findings)s, %(note)s, %(max_depth)s)
"""

_SWEEP: Final = """
SELECT withdrawn, deferred, reviewed
FROM artwork_indexer.audit_sweep(%(patience)s, %(unit)s)
"""

# Others had the locks for longer than we wait.
_BUSY: Final = (
    errors.QueryCanceled,
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
)


class Obstacle(StrEnum):
    """Why the events of an entity were not queued; the value is the database's code."""

    LOST = "lost"
    NO_ROOM = "no_room"
    BEING_AUDITED = "being_audited"
    BUSY = "busy"
    EVENT_QUEUED = "event_queued"
    EVENT_SINCE = "event_since"
    ENTITY_CHANGED = "entity_changed"
    OWNER_CHANGED = "owner_changed"
    OWNER_BUSY = "owner_busy"
    EVENT_CHANGED = "event_changed"

    @property
    def explanation(self) -> str:
        """What people read."""
        return _EXPLANATIONS[self]


_EXPLANATIONS: Final[Mapping[Obstacle, str]] = {
    Obstacle.LOST: "its claim is not held any more",
    Obstacle.NO_ROOM: "artwork-indexer's queue has no room for its events",
    Obstacle.BEING_AUDITED: "it is being audited",
    Obstacle.BUSY: "MusicBrainz is changing it or the owner of an image",
    Obstacle.EVENT_QUEUED: "an event of it is queued or running",
    Obstacle.EVENT_SINCE: "an event of it came up since the claim",
    Obstacle.ENTITY_CHANGED: "MusicBrainz has merged, deleted or restored it since the claim",
    Obstacle.OWNER_CHANGED: "an image has another owner than at the claim",
    Obstacle.OWNER_BUSY: "an event may change the owner's copy of an image, or relies on this one",
    Obstacle.EVENT_CHANGED: "an event that was to be queued again is not failed any more",
}


@dataclass(frozen=True, slots=True)
class EventToQueue:
    """One event for artwork-indexer.

    Parameters
    ----------
    action, message
        As artwork-indexer reads them.
    depends_on
        Positions, in the same request, of the events that must be completed first.
    owner_gid
        Of a deletion: the entity whose copy of the image makes it safe. `None` only where a person
        has decided without one.
    event_id
        A failed event that is to be queued again, instead of a new one.
    """

    action: Literal["index", "delete_image", "deindex", "copy_image"]
    message: Mapping[str, object]
    depends_on: tuple[int, ...] = ()
    owner_gid: str | None = None
    event_id: int | None = None

    def to_json(self) -> dict[str, object]:
        """Return the form that the database function takes."""
        return {
            "action": self.action,
            "message": dict(self.message),
            "depends_on": list(self.depends_on),
            "owner_gid": self.owner_gid,
            "event_id": self.event_id,
        }


@dataclass(frozen=True, slots=True)
class QueueRequest:
    """The events of one entity, and what must still be true of it.

    Parameters
    ----------
    entity_id
        Of `audit_entity`.
    run_id
        Kept with the result.
    events
        In the order in which they run.
    claimed_at
        The token of the claim, `None` on a person's word: then the entity must not be claimed.
    is_live
        Whether MusicBrainz has the entity; `None` where that makes no difference.
    result, findings
        The outcome and the findings that `audit_result` keeps, `None` for no result.
    note
        What is added to the entity's open review; `EVENT_IDS` in it becomes the ids of the events.
    max_depth
        How many events may be queued or running in all, 0 for any number.
    """

    entity_id: int
    run_id: UUID
    events: Sequence[EventToQueue]
    claimed_at: datetime | None = None
    is_live: bool | None = None
    result: str | None = None
    findings: Sequence[Mapping[str, object]] = ()
    note: str | None = None
    max_depth: int = 0


@dataclass(frozen=True, slots=True)
class Queueing:
    """What became of a request: the ids of its events in order, or why there are none."""

    event_ids: tuple[int, ...] = ()
    obstacle: Obstacle | None = None


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did: events withdrawn, and entities deferred or given to people for it."""

    withdrawn: int = 0
    deferred: int = 0
    reviewed: int = 0


def queue_events(conn: Connection, request: QueueRequest) -> Queueing:
    """Queue the events of one entity in a transaction of its own, unless something is in the way.

    Waits for at most a second, and makes others wait for no longer. The same request may be sent
    again when the connection was lost: events that were queued the first time are found again.

    Parameters
    ----------
    conn
        A connection in autocommit mode with no transaction open.

    Raises
    ------
    psycopg.Error
        Nothing was queued, or the connection was lost.
    """
    values = {
        "entity_id": request.entity_id,
        "claimed_at": request.claimed_at,
        "run_id": request.run_id,
        "is_live": request.is_live,
        "events": Jsonb([event.to_json() for event in request.events]),
        "result": request.result,
        "findings": Jsonb(list(request.findings)),
        "note": request.note,
        "max_depth": request.max_depth,
    }
    try:
        ((outcome, event_ids),) = one_statement(conn, _QUEUE, values)
    except _BUSY:
        return Queueing(obstacle=Obstacle.BUSY)
    if outcome == "queued":
        return Queueing(event_ids=tuple(event_ids))
    return Queueing(obstacle=Obstacle(outcome))


def sweep(
    conn: Connection, *, patience: timedelta = PATIENCE, unit: timedelta = DEFERRAL_UNIT
) -> Swept:
    """Withdraw deletions that wait, and bring back entities whose events were withdrawn.

    Does a part of it when there is much to do, and nothing when others are in the way. Parameters
    and errors as `queue_events`; an entity is deferred for `unit` times 2, 4, 8 and 16 minutes.
    """
    values = {"patience": patience, "unit": unit}
    try:
        return Swept(*one_statement(conn, _SWEEP, values, statement_timeout="5s")[0])
    except _BUSY:
        return Swept()


#: The triggers of `sql/migrations` on artwork-indexer's queue, by what is lost without each.
TRIGGERS: Final[Mapping[str, str]] = {
    "audit_feedback": "the audit is not told what artwork-indexer has done",
    "audit_withdraw": "edits of MusicBrainz can fail because of the audit's events",
    "audit_withdraw_failed": "a deletion of the audit's that failed is retried an hour later",
}

# One that fires on replicas only does not fire here; O is the default, A always fires.
_ENABLED: Final = """
SELECT tgname::text
FROM pg_trigger
WHERE tgrelid = 'artwork_indexer.event_queue'::regclass
AND tgenabled IN ('O', 'A')
AND tgname = ANY (%(names)s)
"""


def missing_triggers(conn: Connection) -> dict[str, str]:
    """Return the names of triggers that do not fire, and what each absence means."""
    enabled = {name for (name,) in conn.execute(_ENABLED, {"names": list(TRIGGERS)})}
    return {name: meaning for name, meaning in TRIGGERS.items() if name not in enabled}
