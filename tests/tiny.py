"""A tiny job on a table of its own, and a way to drive it, for the tests of the core.

A row of `work` is waiting, claimed or done; `writes` counts how often it was written, and
`transaction` says by which transaction. A constraint refuses to have bad rows done.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import psycopg
from artwork_backfill.shared.engine import db
from artwork_backfill.shared.engine.job import (
    Counts,
    Job,
    Run,
    RunOptions,
    Stop,
    Verification,
    Wait,
)
from artwork_backfill.shared.engine.log import Redactor, RunLog
from artwork_backfill.shared.engine.progress import Progress
from artwork_backfill.shared.engine.report import Report
from artwork_backfill.shared.engine.runner import Runner
from artwork_backfill.shared.engine.stop import Stopping
from artwork_backfill.shared.settings import Settings
from psycopg import Connection

CREATE = b"""
DROP TABLE IF EXISTS work CASCADE;
CREATE TABLE work (
    id           INT PRIMARY KEY,
    state        TEXT NOT NULL DEFAULT 'waiting',
    run          UUID,
    bad          BOOLEAN NOT NULL DEFAULT FALSE,
    writes       INT NOT NULL DEFAULT 0,
    transaction  XID8,
    CONSTRAINT good_when_done CHECK (state <> 'done' OR NOT bad)
);
"""

LOOK = """
SELECT id
FROM work
WHERE id > %(after)s AND state = 'waiting' AND mod(id, %(partitions)s) = %(partition)s
ORDER BY id
LIMIT %(size)s
"""

# What this run claimed without hearing of it, it claims again.
CLAIM = """
UPDATE work SET state = 'claimed', run = %(run)s
WHERE id IN (
    SELECT id
    FROM work
    WHERE id > %(after)s AND mod(id, %(partitions)s) = %(partition)s
    AND (state = 'waiting' OR (state = 'claimed' AND run = %(run)s))
    ORDER BY id
    LIMIT %(size)s
    FOR UPDATE SKIP LOCKED
)
RETURNING id
"""

Rows = list[tuple[Any, ...]]


def create_work(dsn: str, rows: int) -> None:
    """Create the table with rows 1 to `rows`, all waiting."""
    with psycopg.connect(dsn) as conn:
        conn.execute(CREATE)
        conn.execute("INSERT INTO work (id) SELECT generate_series(1, %s)", (rows,))


def execute(dsn: str, statement: str) -> None:
    """Run a statement in a session of its own."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(statement.encode())


def query(dsn: str, statement: str) -> Rows:
    """Return what a statement finds, from a session of its own."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        return conn.execute(statement.encode()).fetchall()


def states(dsn: str) -> dict[str, int]:
    """Return how many rows are in each state."""
    return dict(query(dsn, "SELECT state, count(*) FROM work GROUP BY state"))


def doubled(dsn: str) -> Rows:
    """Return the rows that were written more than once."""
    return query(dsn, "SELECT id FROM work WHERE writes > 1")


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return when the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class TinyJob(Job[int, int]):
    """Claims waiting rows with SKIP LOCKED, and marks them as done."""

    name: ClassVar[str] = "tiny"
    tables: ClassVar[tuple[db.Table, ...]] = (db.Table("public.work", ("SELECT", "UPDATE")),)
    batch_size: ClassVar[int] = 10
    max_batch_size: ClassVar[int] = 1000

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.looked_at = 0
        self.claims: list[list[int]] = []
        self.closed = 0

    def count(self, conn: Connection) -> int:
        return _number(conn, "SELECT count(*) FROM work WHERE state = 'waiting'")

    def claim(self, conn: Connection, size: int) -> Sequence[int] | Wait | Stop:
        partition = self.run.options.partition
        values = {
            "after": self.looked_at,
            "size": size,
            "partition": partition.index,
            "partitions": partition.count,
            "run": self.run.id,
        }
        claim = LOOK if self.run.options.dry_run else CLAIM
        return sorted(row[0] for row in conn.execute(claim, values).fetchall())

    def claimed(self, items: Sequence[int]) -> None:
        self.looked_at = items[-1]
        self.claims.append(list(items))

    def write(self, conn: Connection, results: Sequence[int]) -> Counts:
        written = conn.execute(
            "UPDATE work SET state = 'done', writes = writes + 1,"
            " transaction = pg_current_xact_id() WHERE id = ANY(%s) AND state = 'claimed'",
            (list(results),),
        ).rowcount
        return {"written": written, "skipped": len(results) - written}

    def release(self, conn: Connection, items: Sequence[int]) -> None:
        conn.execute(
            "UPDATE work SET state = 'waiting' WHERE id = ANY(%s) AND state = 'claimed'",
            (list(items),),
        )

    def verify(self, conn: Connection) -> Sequence[Verification]:
        claimed = _number(conn, "SELECT count(*) FROM work WHERE state = 'claimed'")
        return [Verification.equal("rows still claimed", 0, claimed)]

    def describe(self, result: int) -> str:
        return f"row {result}"

    def close(self) -> None:
        self.closed += 1


class FetchingJob(TinyJob):
    """The same with a fetch, one row at a time, two at once."""

    concurrency: ClassVar[int] = 2

    def fetch(self, items: Sequence[int]) -> Sequence[int]:
        return items


class Driver:
    """Drives jobs in this process.

    Parameters
    ----------
    open_connection
        Opens the run's connections.
    patience
        For how long transactions are repeated, in seconds.
    """

    def __init__(
        self,
        open_connection: Callable[[], Connection],
        *,
        patience: float = 20.0,
        secrets: Iterable[str] = (),
    ) -> None:
        self._open = open_connection
        self._patience = patience
        self._secrets = secrets
        self.stopping = Stopping()

    def runner(self, job_type: type[Job[Any, Any]], **options: Any) -> Runner[Any, Any]:
        """Return a runner of a new job, whose options default to batches of ten."""
        chosen = RunOptions(
            **{"batch_size": 10, "fixed_batch_size": True, "concurrency": 2, **options}
        )
        run = Run(uuid.uuid4(), chosen, Settings({}), self.stopping.event, self._open)
        self.job: Any = job_type(run)
        return Runner(
            self.job,
            run,
            log=RunLog(job_type.name, run.id, Redactor(self._secrets)),
            progress=Progress(job_type.name, None),
            stopping=self.stopping,
            patience=self._patience,
        )

    def run(self, job_type: type[Job[Any, Any]], **options: Any) -> Report:
        """Run a new job to its end."""
        return self.runner(job_type, **options).run()


def driver(dsn: str, **attributes: Any) -> Driver:
    """Return a driver of jobs in a database."""
    return Driver(lambda: db.connect(dsn, "tiny"), **attributes)


def _number(conn: Connection, statement: str) -> int:
    row = conn.execute(statement.encode()).fetchone()
    assert row is not None
    return int(row[0])
