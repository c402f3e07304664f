"""Queueing of an entity's events for artwork-indexer, and handling of withdrawn events.

The database does the work (`sql/migrations/0007_beside_musicbrainz.sql`). Edits of an entity wait
while its events are being queued, so each call is one message to the server that begins and ends
its own transaction: a process that is stopped or loses its connection delays no edit.
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

#: Placeholder in a note for the ids of the events, which are unknown before they are queued.
EVENT_IDS: Final = "{events}"

#: The time after which a queued deletion that has not begun is withdrawn.
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

# Others held the locks for longer than we wait.
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
        """The text for people."""
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
    Obstacle.EVENT_CHANGED: "an event to be requeued is not failed any more",
}


@dataclass(frozen=True, slots=True)
class EventToQueue:
    """One event for artwork-indexer.

    Parameters
    ----------
    action, message
        In the form that artwork-indexer reads.
    depends_on
        Positions, in the same request, of the events that must be completed first.
    owner_gid
        For a deletion: the entity whose item keeps a copy of the image. `None` only if a person has
        decided without one.
    event_id
        A failed event to requeue, instead of a new one.
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
    """The events of one entity, and the conditions that must still hold.

    Parameters
    ----------
    entity_id
        The id in `audit_entity`.
    run_id
        Stored with the result.
    events
        In the order in which they run.
    claimed_at
        The token of the claim; `None` for a person's decision, where the entity must not be
        claimed.
    is_live
        Whether MusicBrainz has the entity; `None` if that makes no difference.
    result, findings
        The outcome and the findings to store in `audit_result`; `None` for no result.
    note
        Text to add to the entity's open review; `EVENT_IDS` in it becomes the ids of the events.
    max_depth
        The maximum number of queued and running events, 0 for no limit.
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
    """The result of a request: the ids of its events in order, or the obstacle."""

    event_ids: tuple[int, ...] = ()
    obstacle: Obstacle | None = None


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of a sweep: withdrawn events, and entities deferred or made reviews for that."""

    withdrawn: int = 0
    deferred: int = 0
    reviewed: int = 0


def queue_events(conn: Connection, request: QueueRequest) -> Queueing:
    """Queue the events of one entity in a transaction of its own, unless there is an obstacle.

    Waits for at most a second, and makes others wait for no longer. The same request may be sent
    again if the connection was lost: events that were queued the first time are found again.

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
    """Withdraw deletions that wait too long, and make entities with withdrawn events unchecked.

    Does a part of it if there is much to do, and nothing if others hold the locks. Parameters and
    errors as for `queue_events`; an entity is deferred for `unit` times 2, 4, 8 and 16 minutes.
    """
    values = {"patience": patience, "unit": unit}
    try:
        return Swept(*one_statement(conn, _SWEEP, values, statement_timeout="5s")[0])
    except _BUSY:
        return Swept()


#: The triggers of `sql/migrations` on artwork-indexer's queue, with the effect of their absence.
TRIGGERS: Final[Mapping[str, str]] = {
    "audit_feedback": "the audit does not learn what artwork-indexer has done",
    "audit_withdraw": "edits of MusicBrainz can fail because of the audit's events",
    "audit_withdraw_again": "an event that people requeue can collide with the audit's deletions",
    "audit_keep_failed": "a failed deletion of the audit that people requeue runs unchecked",
    "audit_withdraw_failed": "a failed deletion of the audit is retried an hour later",
}

#: Those without which the audit must not queue anything.
PROTECTING: Final = frozenset({"audit_withdraw", "audit_withdraw_again", "audit_withdraw_failed"})

# A trigger that fires only on replicas does not fire here; O is the default, A always fires.
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
