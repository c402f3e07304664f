"""Jobs on databases of their own, to be disturbed and to be watched from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tests.faults.fault_processes import DEAD_AFTER_S, Haste, JobProcess, wait_for
from tests.faults.fault_tables import assert_same, audit_tables, library_rows, scan_tables

#: Starts a command: its arguments, `musicbrainz` or `wxyc` for the database's URL, and a `haste`.
Launch = Callable[..., JobProcess]

# What a job's sessions do just then. A session with a transaction id has written something that is
# not committed yet: the most dangerous moment of all.
_WRITING: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_xid IS NOT NULL
AND application_name LIKE 'artwork-backfill %'
"""
_SESSIONS: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'artwork-backfill %'
"""
_WAITING: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
AND application_name LIKE 'artwork-backfill %'
"""
# Between any two statements of a write, there is time to be killed.
_SLOW_DOWN: Final = """
CREATE FUNCTION public.drag() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.004);
    RETURN NULL;
END $$;
DO $$
DECLARE
    written regclass;
BEGIN
    FOR written IN
        SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname IN ('artwork_indexer', 'wxyc_schema')
    LOOP
        EXECUTE format('CREATE TRIGGER drag AFTER INSERT OR UPDATE ON %s'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION public.drag()', written);
    END LOOP;
END $$;
"""
_SEEDED: Final = "SELECT count(*) FROM artwork_indexer.audit_entity"
_AUDITED: Final = """
SELECT count(*) FROM artwork_indexer.audit_entity
WHERE status NOT IN ('unchecked', 'audit_in_progress')
"""
_CLAIMED: Final = (
    "SELECT count(*) FROM artwork_indexer.audit_entity WHERE status = 'audit_in_progress'"
)
_AT_WORK: Final = """
SELECT count(DISTINCT claimed_by)
FROM artwork_indexer.audit_entity WHERE status = 'audit_in_progress'
"""
_NO_CLAIMS: Final = "SELECT 0"
_FILLED: Final = "SELECT count(*) FROM wxyc_schema.library WHERE artwork_url IS NOT NULL"


# As if an hour had gone by since they were killed.
_AGE: Final = """
UPDATE artwork_indexer.backfill_run
SET heartbeat = heartbeat - interval '1 hour'
WHERE finished IS NULL AND (%(run)s::uuid IS NULL OR id = %(run)s)
"""
_MAY_BE_ALIVE: Final = """
SELECT EXISTS (
    SELECT
    FROM artwork_indexer.backfill_run
    WHERE finished IS NULL
    AND greatest(heartbeat, pg_postmaster_start_time())
        > now() - make_interval(secs => %(dead_after)s))
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A job to be disturbed.

    `arguments` make its batches small; `database` and `template` name the variable and the fixture
    of its database, and `written` the table that it writes last in a transaction. `progress` counts
    the rows that are done, `claims` those under way; `tables` returns all that a run leaves.
    """

    arguments: tuple[str, ...]
    template: str
    progress: str
    written: str
    database: str = "musicbrainz"
    claims: str = _CLAIMED
    tables: Callable[[str], dict[str, Any]] = audit_tables


_SMALL: Final = ("--fixed-batch-size", "--batch-size", "6")
_TINY: Final = ("--fixed-batch-size", "--batch-size", "3")

KINDS: Final = {
    "seed-from-mb": Kind(
        ("seed-from-mb", *_TINY), "unseeded", _SEEDED, "artwork_indexer.audit_entity"
    ),
    "seed-from-img-129": Kind(
        ("seed-from-img-129", "SOURCE", *_SMALL),
        "unseeded",
        _SEEDED,
        "artwork_indexer.audit_entity",
    ),
    # Its batches are archive.org's pages.
    "seed-from-ia-scan": Kind(
        ("seed-from-ia-scan",),
        "unseeded",
        _SEEDED,
        "artwork_indexer.ia_scan",
        tables=scan_tables,
    ),
    "audit-batch": Kind(
        ("audit-batch", "--max-queue-depth", "0", "--concurrency", "4", *_SMALL),
        "seeded",
        _AUDITED,
        "artwork_indexer.audit_result",
    ),
    "library-artwork-url-backfill": Kind(
        ("library-artwork-url-backfill", "--concurrency", "2", "--write-rate", "0", *_SMALL),
        "shelved",
        _FILLED,
        "wxyc_schema.library",
        database="wxyc",
        claims=_NO_CLAIMS,
        tables=library_rows,
    ),
}


@dataclass(frozen=True, slots=True)
class End:
    """What an undisturbed run leaves: its tables, and how many rows are done in them."""

    tables: dict[str, Any]
    done: int


#: Where one of the jobs that seed will do in the short form, since the same runner drives them all.
some_jobs: Final = pytest.mark.parametrize(
    "scene",
    [
        pytest.param(name, marks=pytest.mark.long)
        if name in ("seed-from-img-129", "seed-from-ia-scan")
        else name
        for name in KINDS
    ],
    indirect=True,
)


def runs_at_work(dsn: str) -> int:
    """Return how many audits hold claims."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute(_AT_WORK).fetchone()
    assert row is not None
    return int(row[0])


class Scene:
    """One job, a database for it, and another to see what it does undisturbed."""

    def __init__(
        self,
        kind: Kind,
        launch: Launch,
        template: str,
        copy: Callable[[str], str],
        source: Path,
        ends: dict[Kind, End],
    ) -> None:
        self.kind = kind
        self._launch = launch
        self._template = template
        self._copy = copy
        self._arguments = [str(source) if a == "SOURCE" else a for a in kind.arguments]
        self._ends = ends
        self.dsn = copy(template)

    def copy(self) -> str:
        """Return the URL of another database like the job's at the start."""
        return self._copy(self._template)

    def start(
        self, dsn: str | None = None, haste: Haste | None = None, **variables: str
    ) -> JobProcess:
        database = {self.kind.database: dsn or self.dsn}
        return self._launch(*self._arguments, **database, **variables, haste=haste)

    def undisturbed(self) -> End:
        """Return what a run leaves that nothing happens to; it is made but once."""
        if self.kind not in self._ends:
            dsn = self.copy()
            process = self.start(dsn)
            assert process.wait() == 0, process.output
            with self.watch(dsn) as watch:
                self._ends[self.kind] = End(self.kind.tables(dsn), watch.done())
        return self._ends[self.kind]

    def finish(self) -> None:
        """Run the job once more, and check that the tables are those of an undisturbed run.

        No other run may be under way: those that have not written their end were killed.
        """
        self.age_heartbeats()
        # After a restart of the server, all runs count as alive for a while.
        wait_for(lambda: not self.may_be_alive())
        last = self.start()
        assert last.wait() == 0, last.output
        assert_same(self.undisturbed().tables, self.tables())

    def age_heartbeats(self, run_id: str | None = None) -> None:
        """Make it long ago that a run which was killed has beaten, or all that have no end."""
        if self._keeps_runs:
            with self.connect() as conn:
                conn.execute(_AGE, {"run": run_id})

    def may_be_alive(self) -> bool:
        """Return whether runs that were killed still count as alive."""
        if not self._keeps_runs:
            return False
        with self.connect() as conn:
            row = conn.execute(_MAY_BE_ALIVE, {"dead_after": DEAD_AFTER_S}).fetchone()
        return row is not None and bool(row[0])

    @property
    def _keeps_runs(self) -> bool:
        return self.kind.database == "musicbrainz"

    def slow_writes_down(self) -> None:
        """Make the job's transactions so slow that many moments fall within one."""
        with self.connect() as conn:
            conn.execute(_SLOW_DOWN)

    def tables(self) -> dict[str, Any]:
        return self.kind.tables(self.dsn)

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """Open a session of somebody else on the job's database."""
        with psycopg.connect(self.dsn, autocommit=True, application_name="somebody") as conn:
            yield conn

    @contextmanager
    def watch(self, dsn: str | None = None) -> Iterator[Watch]:
        with psycopg.connect(dsn or self.dsn, autocommit=True) as conn:
            yield Watch(conn, self.kind.progress, self.kind.claims)


class Watch:
    """Looks at a database from outside."""

    def __init__(self, conn: psycopg.Connection, progress: str, claims: str) -> None:
        self._conn = conn
        self._progress = progress
        self._claims = claims

    def done(self) -> int:
        """How many rows are done."""
        return self._count(self._progress)

    def claims(self) -> int:
        """How many rows are claimed and not given back."""
        return self._count(self._claims)

    def is_writing(self) -> bool:
        """Whether a job has written what it has not committed."""
        return self._count(_WRITING) > 0

    def waiting(self) -> int:
        """How many sessions of jobs wait until somebody else lets a lock go."""
        return self._count(_WAITING)

    def is_alone(self) -> bool:
        """Whether no job is connected any more."""
        return self._count(_SESSIONS) == 0

    def _count(self, query: str) -> int:
        row = self._conn.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])
