"""Runs of jobs: which are working, how the others ended, and requests of people to them.

A run reads its own row before it claims anything, so a request takes effect within seconds, at the
next claim. Nothing here starts a run.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from artwork_backfill.shared.engine.runs import DEAD_AFTER_S, user
from artwork_backfill.shared.engine.session import holds
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.review.actions import Refused
from artwork_backfill.shared.version import VERSION

#: The tables that these functions read and write.
TABLES: Final = (
    Table("artwork_indexer.backfill_run", ("SELECT", "UPDATE")),
    Table("artwork_indexer.backfill_hold", ("SELECT", "INSERT", "DELETE")),
)

#: Reading needs fewer rights than requests.
LOOK: Final = tuple(Table(table.name) for table in TABLES)

#: The time without a heartbeat after which a run is dead.
DEAD_AFTER: Final = timedelta(seconds=DEAD_AFTER_S)

Request = Literal["pause", "stop"]


@dataclass(frozen=True, slots=True)
class Run:
    """One row of backfill_run, read at `seen` by the clock of the database, as its heartbeat is.

    `report` is empty until the run has ended, and in lists.
    """

    id: UUID
    job: str
    version: str
    host: str
    who: str
    options: Mapping[str, Any]
    started: datetime
    heartbeat: datetime
    finished: datetime | None
    outcome: str | None
    exit_code: int | None
    totals: Mapping[str, Any]
    requested: str | None
    requested_by: str | None
    requested_why: str | None
    #: Its progress: `done`, `total`, `rate` in rows per second, `eta_s`, `said`, `requests`.
    progress: Mapping[str, Any]
    seen: datetime
    report: Mapping[str, Any] | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether the run is alive, paused or not."""
        return self.finished is None and self.seen - self.heartbeat <= DEAD_AFTER

    @property
    def state(self) -> str:
        """The state of the run, in a word or two."""
        if self.finished is not None:
            return self.outcome or "ended"
        if not self.is_at_work:
            return "no heartbeat"
        return {"pause": "paused", "stop": "stopping"}.get(self.requested or "", "at work")

    @property
    def duration_s(self) -> float:
        """How long it has worked, in seconds."""
        return max(0.0, ((self.finished or self.seen) - self.started).total_seconds())

    @property
    def request(self) -> str:
        """What people have requested of it, or the empty string."""
        if self.requested is None:
            return ""
        why = f": {self.requested_why}" if self.requested_why else ""
        return f"{self.requested} requested by {self.requested_by}{why}"


@dataclass(frozen=True, slots=True)
class Hold:
    """A job whose runs may not work, and who says so."""

    job: str
    who: str
    why: str
    since: datetime


_MAY_READ: Final = """
SELECT count(*) = 2
FROM (VALUES ('artwork_indexer.backfill_run'), ('artwork_indexer.backfill_hold')) AS needed (name)
WHERE has_table_privilege(to_regclass(name), 'SELECT')
"""

_COLUMNS: Final = """
id, job, version, host, who, options, started, heartbeat, finished, outcome, exit_code, totals,
requested, requested_by, requested_why, progress, clock_timestamp()
"""

# Runs that have not ended come first; there are few.
_RUNS: Final = f"""
(SELECT {_COLUMNS} FROM artwork_indexer.backfill_run
 WHERE finished IS NULL
 ORDER BY started DESC LIMIT %(limit)s)
UNION ALL
(SELECT {_COLUMNS} FROM artwork_indexer.backfill_run
 WHERE finished IS NOT NULL AND (%(ended)s OR finished > now() - interval '1 minute')
 ORDER BY started DESC LIMIT %(limit)s)
LIMIT %(limit)s
"""  # noqa: S608

_LATEST: Final = f"""
SELECT {_COLUMNS}, report
FROM artwork_indexer.backfill_run
WHERE job = %(job)s AND finished IS NOT NULL
ORDER BY started DESC
LIMIT 1
"""  # noqa: S608

_MAY_KEEP: Final = """
SELECT has_table_privilege(to_regclass('artwork_indexer.backfill_run'), 'INSERT')
AND NOT pg_is_in_recovery()
"""

_KEEP: Final = """
INSERT INTO artwork_indexer.backfill_run
    (id, job, version, host, who, options, started, finished, outcome, exit_code, report)
VALUES (gen_random_uuid(), %(job)s, %(version)s, %(host)s, %(who)s, %(options)s, %(started)s,
        now(), 'done', 0, %(report)s)
"""

_FIND: Final = f"""
SELECT {_COLUMNS}, report
FROM artwork_indexer.backfill_run
WHERE id::text LIKE %(prefix)s || '%%'
ORDER BY started DESC
LIMIT 2
"""  # noqa: S608

# A claim of a run without a row is reclaimed as well, only later.
_PRUNE_BY_AGE: Final = """
DELETE FROM artwork_indexer.backfill_run WHERE finished < now() - %(age)s
"""

_PRUNE_BY_COUNT: Final = """
DELETE FROM artwork_indexer.backfill_run
WHERE id IN (
    SELECT id
    FROM artwork_indexer.backfill_run
    WHERE finished IS NOT NULL
    ORDER BY finished DESC
    OFFSET %(count)s)
"""

_REQUEST: Final = """
UPDATE artwork_indexer.backfill_run
SET requested = %(requested)s, requested_by = %(by)s, requested_why = %(why)s
WHERE id = %(id)s AND finished IS NULL
"""

_HOLDS: Final = "SELECT job, who, why, since FROM artwork_indexer.backfill_hold ORDER BY job"

_HOLD: Final = """
INSERT INTO artwork_indexer.backfill_hold (job, who, why)
VALUES (%(job)s, %(by)s, %(why)s)
ON CONFLICT (job) DO NOTHING
"""

_UNHOLD: Final = "DELETE FROM artwork_indexer.backfill_hold WHERE job = %(job)s"


def may_read(conn: Connection) -> bool:
    """Return whether the database keeps records of runs that this role may read."""
    return holds(conn, _MAY_READ)


def find_run(conn: Connection, prefix: str) -> Run:
    """Return the one run whose id begins with `prefix`, with its report.

    Raises
    ------
    Refused
        There is none, or more than one.
    """
    found = [Run(*row) for row in conn.execute(_FIND, {"prefix": prefix.lower()})]
    if not found:
        raise Refused(f"there is no run {prefix}: `runs list` shows the runs")
    if len(found) > 1:
        raise Refused(
            f"the ids of several runs begin with {prefix}, such as {found[0].id} and"
            f" {found[1].id}: give more characters"
        )
    return found[0]


def prune(conn: Connection, keep: timedelta | int) -> int:
    """Delete records of runs that ended before an age, or all but a number; return how many."""
    if isinstance(keep, int):
        return conn.execute(_PRUNE_BY_COUNT, {"count": keep}).rowcount
    return conn.execute(_PRUNE_BY_AGE, {"age": keep}).rowcount


def list_runs(conn: Connection, limit: int, *, ended: bool = True) -> list[Run]:
    """Return runs, working ones first, then the latest; without `ended` only working ones."""
    return [Run(*row) for row in conn.execute(_RUNS, {"limit": limit, "ended": ended})]


def latest_run(conn: Connection, job: str) -> Run | None:
    """Return the latest run of a job that has ended, with its report."""
    row = conn.execute(_LATEST, {"job": job}).fetchone()
    return None if row is None else Run(*row)


def keep_report(
    conn: Connection,
    command: str,
    report: Mapping[str, Any],
    *,
    options: Mapping[str, Any],
    started: datetime,
) -> None:
    """Store the result of a command that only reads, as a run that has ended.

    Does nothing without the table, without the right to write to it, or on a replica.
    """
    if holds(conn, _MAY_KEEP):
        conn.execute(
            _KEEP,
            {
                "job": command,
                "version": VERSION,
                "host": socket.gethostname(),
                "who": user(),
                "options": Jsonb(options),
                "started": started,
                "report": Jsonb(report),
            },
        )


def list_holds(conn: Connection) -> list[Hold]:
    """Return the jobs that are held."""
    return [Hold(*row) for row in conn.execute(_HOLDS)]


def request(
    conn: Connection, run_id: UUID, what: Request | None, *, by: str, why: str | None = None
) -> None:
    """Request that a run pauses or stops; `None` withdraws the request, and a paused run resumes.

    A paused run claims nothing; one that is stopped finishes its claims and ends.

    Raises
    ------
    Refused
        The run has ended, or does not exist.
    """
    values = {"id": run_id, "requested": what, "by": by, "why": why}
    if not conn.execute(_REQUEST, values).rowcount:
        raise Refused(f"run {run_id} has ended, or does not exist")


def hold(conn: Connection, job: str, *, by: str, why: str) -> None:
    """Keep all runs of a job from working, until `unhold`; working runs end.

    Raises
    ------
    Refused
        The job is already held.
    """
    if not conn.execute(_HOLD, {"job": job, "by": by, "why": why}).rowcount:
        raise Refused(f"{job} is held already: `runs list` shows the holds")


def unhold(conn: Connection, job: str) -> None:
    """Let runs of a job work again. Raises `Refused` if it is not held."""
    if not conn.execute(_UNHOLD, {"job": job}).rowcount:
        raise Refused(f"{job} is not held: `runs list` shows the held jobs")
