"""The row of each run in `artwork_indexer.backfill_run`, by which runs know of each other.

A run writes its heartbeat every few seconds, from a thread and a connection of its own. A run
without a heartbeat for a minute is dead: another run declares it dead and reclaims its rows. If a
run that was declared dead is alive, its next transaction does nothing (`RunRecord.guard`), and it
ends.

In a database without the table, everything works without a record.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from artwork_backfill.shared.engine.errors import StopRun
from artwork_backfill.shared.engine.session import TAKEN_FOR_DEAD, Session, explain, holds
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.version import VERSION

log = logging.getLogger(__name__)

#: The time without a heartbeat after which a run is dead, and the interval of heartbeats, in
#: seconds.
DEAD_AFTER_S: Final = 60.0
BEAT_EVERY_S: Final = 10.0

#: How often a run checks for requests of people, at most, in seconds.
_ASK_EVERY_S: Final = 1.0
_LOOK_AGAIN_S: Final = 1.0

RUNS: Final = "artwork_indexer.backfill_run"

#: The tables that jobs need for records of runs.
RUN_TABLES: Final = (
    Table(RUNS, ("SELECT", "INSERT", "UPDATE")),
    Table("artwork_indexer.backfill_hold"),
)

# Without rights to both tables a job works without a record, unless it requires them itself.
_EXISTS: Final = """
SELECT count(*) = 4
FROM (VALUES ('backfill_run', 'SELECT'), ('backfill_run', 'INSERT'), ('backfill_run', 'UPDATE'),
             ('backfill_hold', 'SELECT')) AS needed (name, privilege)
JOIN pg_class ON relname = name
JOIN pg_namespace ON pg_namespace.oid = relnamespace AND nspname = 'artwork_indexer'
WHERE has_schema_privilege(pg_namespace.oid, 'USAGE')
AND has_table_privilege(pg_class.oid, privilege)
"""

# Repeated for a caller that lives on: it may have been declared dead between two calls.
_BEGIN: Final = """
INSERT INTO artwork_indexer.backfill_run AS run (id, job, version, host, who, options)
VALUES (%(id)s, %(job)s, %(version)s, %(host)s, %(who)s, %(options)s)
ON CONFLICT (id) DO UPDATE
SET heartbeat = now(), finished = NULL, outcome = NULL, exit_code = NULL
"""

_BEAT: Final = """
UPDATE artwork_indexer.backfill_run
SET heartbeat = now(), totals = coalesce(%(totals)s, totals),
    progress = coalesce(%(progress)s, progress)
WHERE id = %(id)s AND finished IS NULL
RETURNING id
"""

# Part of the statement that begins a transaction, which takes no parameters; the id is a UUID.
_IS_ALIVE: Final = """
SELECT count(*) = 1
FROM (
    SELECT
    FROM artwork_indexer.backfill_run
    WHERE id = '{id}' AND finished IS NULL
    FOR KEY SHARE) held
"""

_ASK: Final = """
SELECT run.requested, run.requested_by, run.requested_why,
       hold.who, hold.why
FROM artwork_indexer.backfill_run run
LEFT JOIN artwork_indexer.backfill_hold hold ON hold.job = run.job
WHERE run.id = %(id)s
"""

_FINISH: Final = """
UPDATE artwork_indexer.backfill_run
SET heartbeat = now(), finished = now(), outcome = %(outcome)s, exit_code = %(exit_code)s,
    totals = %(totals)s, report = %(report)s, progress = progress || %(progress)s
WHERE id = %(id)s
"""

# A run in the middle of a writing transaction holds its row (see `guard`) and is alive. If the
# server has only just started, no run has been able to write a heartbeat.
_REAP: Final = """
UPDATE artwork_indexer.backfill_run
SET finished = now(), outcome = 'dead'
WHERE id IN (
    SELECT id
    FROM artwork_indexer.backfill_run
    WHERE finished IS NULL
    AND heartbeat < now() - make_interval(secs => %(dead_after)s)
    AND pg_postmaster_start_time() < now() - make_interval(secs => %(dead_after)s)
    AND id <> %(id)s
    FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing may be taken now: ask again after `seconds`.

    `is_pause` says that people asked for it: then all claims are given back, too.
    """

    reason: str
    seconds: float = _LOOK_AGAIN_S
    is_pause: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The progress of a run: its totals, and further figures for people."""

    totals: Mapping[str, int]
    progress: Mapping[str, object]


class RunRecord:
    """One run's row, from its beginning to its end.

    `beat`, `ask`, `guard` and `reap` may be called from any thread. `clock` is monotonic.
    """

    def __init__(
        self,
        run_id: UUID,
        *,
        dead_after: float = DEAD_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = run_id
        self.dead_after = dead_after
        self._beat_every = min(BEAT_EVERY_S, dead_after / 6)
        self.clock = clock
        self._lock = Lock()
        #: Whether the database keeps records, and this run has created its own.
        self.exists = False
        self._beaten_at = clock()
        self._may_reap_at = clock()
        self._asked_at = -_ASK_EVERY_S
        self._answer: Wait | None = None
        self._over = Event()
        self._thread: Thread | None = None

    def begin(self, session: Session, job: str, options: Mapping[str, object]) -> None:
        """Insert the row, if the database has the table."""

        def work(conn: Connection) -> bool:
            if not holds(conn, _EXISTS):
                return False
            values = {
                "id": self.id,
                "job": job,
                "version": VERSION,
                "host": socket.gethostname(),
                "who": user(),
                "options": Jsonb(options),
            }
            conn.execute(_BEGIN, values)
            return True

        # It may have been declared dead, and then begins again.
        self.exists = False
        self.exists = session.transaction(work)
        self._beaten_at = self.clock()

    def guard(self) -> str | None:
        """Return an SQL expression that is true unless this run was declared dead.

        It also keeps others from doing so until the transaction ends.
        """
        return _IS_ALIVE.format(id=self.id) if self.exists else None

    def beat(self, session: Session, snapshot: Snapshot | None = None) -> bool:
        """Write the heartbeat; return whether the run still counts as alive."""
        values: dict[str, object] = {"id": self.id, "totals": None, "progress": None}
        if snapshot is not None:
            values["totals"] = Jsonb(dict(snapshot.totals))
            values["progress"] = Jsonb(snapshot.progress, dumps=_dumps)
        rows = session.statement(_BEAT, values, lock_timeout="5s", statement_timeout="10s")
        self._note_beat()
        return bool(rows)

    def start_beating(
        self,
        open_session: Callable[[], Session],
        snapshot: Callable[[], Snapshot],
        on_dead: Callable[[str], None],
    ) -> None:
        """Write heartbeats from a thread until `finish`; call `on_dead` if declared dead."""

        def keep_beating() -> None:
            with closing(open_session()) as session:
                while not self._over.wait(self._beat_every):
                    try:
                        if not self.beat(session, snapshot()):
                            on_dead(TAKEN_FOR_DEAD)
                            return
                    except psycopg.Error as error:
                        # The run's own transactions report this, and decide how long to retry.
                        log.debug("no heartbeat: %s", explain(error))

        if self.exists:
            self._thread = Thread(target=keep_beating, name="heartbeat", daemon=True)
            self._thread.start()

    def ask(self, session: Session) -> Wait | None:
        """Return what to wait for, if people have asked for it; `None` to continue.

        Raises `StopRun` if people want the run to end.
        """
        now = self.clock()
        if not self.exists or now - self._asked_at < _ASK_EVERY_S:
            return self._answer
        if now - self._beaten_at > self.dead_after:
            self.beat(session)
        rows = session.statement(_ASK, {"id": self.id}, statement_timeout="10s")
        self._answer = _meaning(*rows[0]) if rows else None
        self._asked_at = now
        return self._answer

    def reap(self, conn: Connection) -> None:
        """Declare runs dead that have no heartbeat, in the open transaction.

        Not for a while after this run could not reach the database: the others may not have been
        able to write heartbeats either.
        """
        if self.exists and self.clock() >= self._may_reap_at:
            conn.execute(_REAP, {"id": self.id, "dead_after": self.dead_after})

    def finish(
        self, session: Session, outcome: str, exit_code: int, report: Mapping[str, Any]
    ) -> None:
        """Write how the run ended."""
        self.stop_beating()
        if not self.exists:
            return
        values = {
            "id": self.id,
            "outcome": outcome,
            "exit_code": exit_code,
            "totals": Jsonb(report.get("totals", {})),
            "report": Jsonb(report, dumps=_dumps),
            "progress": Jsonb({"said": report.get("reason"), "eta_s": None}, dumps=_dumps),
        }
        session.transaction(lambda conn: conn.execute(_FINISH, values))

    def stop_beating(self) -> None:
        """End the thread of `start_beating`."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def _note_beat(self) -> None:
        with self._lock:
            now = self.clock()
            if now - self._beaten_at > self.dead_after:
                self._may_reap_at = now + self.dead_after
            self._beaten_at = now


def _meaning(
    requested: str | None, by: str | None, why: str | None, held_by: str | None, held_why: str
) -> Wait | None:
    asked = f" by {by}" if by else ""
    why = f": {why}" if why else ""
    if held_by is not None:
        raise StopRun(f"the job is held by {held_by}: {held_why}", planned=True)
    if requested == "stop":
        raise StopRun(f"stopped{asked}{why}", planned=True)
    if requested == "pause":
        return Wait(f"paused{asked}{why}", is_pause=True)
    return None


def _dumps(value: object) -> str:
    # PostgreSQL's JSON accepts neither NUL nor half of a surrogate pair.
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")
    return text.replace("\\u0000", "\\ufffd")


def user() -> str:
    """Return the name of the user that this process runs as."""
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return f"uid {os.getuid()}"
