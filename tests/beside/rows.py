"""A few entities with images, and what MusicBrainz's editors and runs of the audit do with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

from artwork_backfill.shared.auditing.queueing import (
    EventToQueue,
    Queueing,
    QueueRequest,
    queue_events,
)
from tests.timing import LIMIT_S

#: Releases by number; ORPHAN was merged away, and its item still holds the image of OWNER.
OWNER, LIVE, BYSTANDER = 1, 2, 3
ORPHAN = 9

IMAGE = 70
OWN_IMAGE = 71

ROWS = f"""
INSERT INTO musicbrainz.release (id, gid, name, artist_credit)
SELECT n, ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'release ' || n, 1
FROM generate_series(1, 3) AS n;
INSERT INTO cover_art_archive.cover_art (id, release, edit, ordering, mime_type) VALUES
    ({IMAGE}, {OWNER}, 1, 1, 'image/jpeg'), ({OWN_IMAGE}, {LIVE}, 1, 1, 'image/jpeg');
TRUNCATE artwork_indexer.event_queue CASCADE;
"""


def gid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def deletion(number: int, artwork_id: int = IMAGE, *, owner: int | None = OWNER) -> EventToQueue:
    message = {"gid": gid(number), "artwork_id": artwork_id, "suffix": "jpg"}
    return EventToQueue("delete_image", message, owner_gid=owner and gid(owner))


def index(number: int, *depends_on: int) -> EventToQueue:
    return EventToQueue("index", {"gid": gid(number)}, depends_on)


def deindex(number: int, *depends_on: int) -> EventToQueue:
    return EventToQueue("deindex", {"gid": gid(number)}, depends_on)


@dataclass(frozen=True, slots=True)
class Place:
    """One database with the entities, and a connection in autocommit mode for each party."""

    dsn: str
    ours: psycopg.Connection
    editor: psycopg.Connection

    # -- the audit ---------------------------------------------------------------------------------

    def claim(self, number: int, entity_type: str = "release") -> tuple[int, datetime]:
        """Have an entity audited; return its id and the token of the claim."""
        (row,) = self.ours.execute(
            "INSERT INTO artwork_indexer.audit_entity AS entity"
            " (entity_type, gid, status, last_audit_at)"
            " VALUES (%s, %s, 'audit_in_progress', clock_timestamp())"
            " ON CONFLICT (entity_type, gid)"
            " DO UPDATE SET status = 'audit_in_progress', last_audit_at = clock_timestamp()"
            " RETURNING id, last_audit_at",
            (entity_type, gid(number)),
        ).fetchall()
        return row[0], row[1]

    def request(self, number: int, events: Sequence[EventToQueue], **options: Any) -> QueueRequest:
        """Claim an entity and return the request for its events."""
        id_, claimed_at = self.claim(number)
        given = {
            "claimed_at": claimed_at,
            "is_live": number != ORPHAN,
            "result": "repair_queue",
            "run_id": uuid4(),
        }
        return QueueRequest(id_, events=events, **{**given, **options})

    def queue(self, number: int, *events: EventToQueue, **options: Any) -> Queueing:
        return queue_events(self.ours, self.request(number, events, **options))

    def queued(self, number: int, *events: EventToQueue, **options: Any) -> list[int]:
        """Queue events that nothing is in the way of; return their ids."""
        outcome = self.queue(number, *events, **options)
        assert outcome.obstacle is None
        return list(outcome.event_ids)

    def entity(self, number: int) -> Any:
        return self.rows("TABLE artwork_indexer.audit_entity", gid=gid(number))[0]

    # -- looking -------------------------------------------------------------------------------

    def rows(self, table: str, **where: object) -> list[Any]:
        """The rows of a ``TABLE name`` statement, with these values, in order."""
        with self.ours.cursor(row_factory=namedtuple_row) as cursor:
            rows = cursor.execute(table.encode()).fetchall()
        return [
            row
            for row in sorted(rows, key=lambda row: row[0])
            if all(str(getattr(row, name)) == str(value) for name, value in where.items())
        ]

    def rows_of(self, query: str) -> list[Any]:
        return self.ours.execute(query.encode()).fetchall()

    def events(self, **where: object) -> list[Any]:
        return self.rows("TABLE artwork_indexer.event_queue", **where)

    def locks(self, conn: psycopg.Connection) -> int:
        """How many advisory locks a connection holds."""
        pid = conn.info.backend_pid
        return len(
            self.rows_of(f"SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = {pid}")
        )

    # -- MusicBrainz ---------------------------------------------------------------------------

    def foreign(self, action: str, message: dict[str, object], clause: str = "") -> int | None:
        """Queue an event as somebody else does; return its id, if there is a new one."""
        row = self.editor.execute(
            "INSERT INTO artwork_indexer.event_queue AS queued (entity_type, action, message)"
            f" VALUES ('release', %s, %s) {clause} RETURNING id".encode(),
            (action, Jsonb(message)),
        ).fetchone()
        return None if row is None else int(row[0])

    def edit(self, statement: str) -> None:
        self.editor.execute(statement.encode())

    def merge(self, source: int, target: int) -> None:
        """Merge the images of one release into another, as an edit does."""
        self.edit(
            f"UPDATE cover_art_archive.cover_art SET release = {target} WHERE release = {source}"
        )

    def upload(self, number: int, artwork_id: int = 99) -> None:
        self.edit(
            "INSERT INTO cover_art_archive.cover_art (id, release, edit, ordering, mime_type)"
            f" VALUES ({artwork_id}, {number}, 1, 9, 'image/jpeg')"
        )

    # -- artwork-indexer -----------------------------------------------------------------------

    def run(self, event_id: int, *, ends: str, conn: psycopg.Connection | None = None) -> None:
        """Run an event to `completed` or `failed`, or back to `queued`, as the indexer does."""
        conn = conn or self.editor
        conn.execute(
            "UPDATE artwork_indexer.event_queue SET state = 'running', attempts = attempts + 1"
            " WHERE id = %s",
            (event_id,),
        )
        with conn.transaction():
            conn.execute(
                "UPDATE artwork_indexer.event_queue"
                " SET state = %s::artwork_indexer.event_state WHERE id = %s",
                (ends, event_id),
            )
            if ends != "completed":
                conn.execute(
                    "INSERT INTO artwork_indexer.event_failure_reason (event, failure_reason)"
                    " VALUES (%s, 'HTTP 503')",
                    (event_id,),
                )

    @contextmanager
    def taken(self, event_id: int) -> Iterator[psycopg.Connection]:
        """An event that an indexer has locked and not yet set running, within the block."""
        with psycopg.connect(self.dsn) as indexer:
            indexer.execute(
                "SELECT FROM artwork_indexer.event_queue WHERE id = %s FOR UPDATE SKIP LOCKED",
                (event_id,),
            )
            yield indexer


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[Thread]:
    """Do something in another thread during the block, and wait for its end after it."""
    thread = Thread(target=work)
    thread.start()
    yield thread
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def wait_until(condition: Callable[[], object], seconds: float = LIMIT_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def is_waiting_for_lock(dsn: str, pid: int) -> bool:
    with psycopg.connect(dsn, autocommit=True) as conn:
        rows = conn.execute(
            "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", (pid,)
        ).fetchall()
    return bool(rows)


RUN = UUID(int=1)
