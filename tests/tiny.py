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
from psycopg import Connection

from artwork_backfill.shared.engine import session as db
from artwork_backfill.shared.engine.job import (
    Job,
    Note,
    Problem,
    Run,
    RunOptions,
    RunResult,
    Verification,
    Wait,
    Written,
)
from artwork_backfill.shared.engine.log import Redactor, RunLog
from artwork_backfill.shared.engine.progress import Progress
from artwork_backfill.shared.engine.report import Report
from artwork_backfill.shared.engine.runner import Runner
from artwork_backfill.shared.engine.session import Session
from artwork_backfill.shared.engine.sources import Source
from artwork_backfill.shared.engine.stop import StopFlag
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.settings import Settings
from tests.timing import LIMIT_S

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


def wait_for(condition: Callable[[], object], seconds: float = LIMIT_S) -> None:
    """Return when the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class TinySource(Source[int]):
    """Claims waiting rows with SKIP LOCKED, by the verbs of a job, which tests break."""

    def __init__(self, job: TinyJob) -> None:
        self._job = job

    def count(self, session: Session) -> int | None:
        return session.transaction(self._job.count, read_only=True)

    def next(self, session: Session, size: int) -> Sequence[int] | Wait:
        items = session.transaction(lambda conn: self._job.claim(conn, size))
        if items and not isinstance(items, Wait):
            self._job.claimed(items)
        return items

    def give_back(self, session: Session, items: Sequence[int]) -> None:
        session.transaction(lambda conn: self._job.release(conn, items))

    def fail(self, session: Session, failed: Sequence[tuple[int, str]]) -> None:
        self.give_back(session, [item for item, _ in failed])


class TinyJob(Job[int, int]):
    """Claims waiting rows, and marks them as done."""

    name: ClassVar[str] = "tiny"
    database = Settings.musicbrainz_database
    tables: ClassVar[tuple[Table, ...]] = (Table("public.work", ("SELECT", "UPDATE")),)
    batch_size: ClassVar[int] = 10
    max_batch_size: ClassVar[int] = 1000

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.looked_at = 0
        self.claims: list[list[int]] = []

    def source(self) -> TinySource:
        return TinySource(self)

    def count(self, conn: Connection) -> int:
        return _number(conn, "SELECT count(*) FROM work WHERE state = 'waiting'")

    def claim(self, conn: Connection, size: int) -> Sequence[int] | Wait:
        values = self.run.options.partition.values | {
            "after": self.looked_at,
            "size": size,
            "run": self.run.id,
        }
        claim = LOOK if self.run.options.dry_run else CLAIM
        return sorted(row[0] for row in conn.execute(claim, values).fetchall())

    def claimed(self, items: Sequence[int]) -> None:
        self.looked_at = items[-1]
        self.claims.append(list(items))

    def write(self, conn: Connection, results: Sequence[int]) -> Written:
        written = conn.execute(
            "UPDATE work SET state = 'done', writes = writes + 1,"
            " transaction = pg_current_xact_id() WHERE id = ANY(%s) AND state = 'claimed'",
            (list(results),),
        ).rowcount
        return Written.of(written, len(results))

    def release(self, conn: Connection, items: Sequence[int]) -> None:
        conn.execute(
            "UPDATE work SET state = 'waiting' WHERE id = ANY(%s) AND state = 'claimed'",
            (list(items),),
        )

    def verify(
        self, conn: Connection, run: RunResult | None
    ) -> Iterable[Verification | Note | Problem]:
        claimed = _number(conn, "SELECT count(*) FROM work WHERE state = 'claimed'")
        return [Verification.equal("rows still claimed", 0, claimed)]


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
    attributes
        Of the runner.
    """

    def __init__(
        self,
        open_connection: Callable[[], Connection],
        *,
        patience: float = 20.0,
        secrets: Iterable[str] = (),
        dead_after: float = 60.0,
        **attributes: Any,
    ) -> None:
        self._open = open_connection
        self._attributes = {"patience": patience, **attributes}
        self._secrets = secrets
        self._dead_after = dead_after
        self.stop_flag = StopFlag()

    def runner(self, job_type: type[Job[Any, Any]], **options: Any) -> Runner[Any, Any]:
        """Return a runner of a new job, whose options default to batches of ten."""
        chosen = RunOptions(
            **{"batch_size": 10, "fixed_batch_size": True, "concurrency": 2, **options}
        )
        run = Run(
            uuid.uuid4(),
            chosen,
            Settings({}),
            self.stop_flag.event,
            self._open,
            dead_after=self._dead_after,
        )
        self.job: Any = job_type(run)
        log = RunLog(job_type.name, run.id, Redactor(self._secrets))
        return Runner(
            self.job,
            run,
            log=log,
            progress=Progress(log, None),
            stop_flag=self.stop_flag,
            **self._attributes,
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
