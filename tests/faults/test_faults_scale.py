"""Six million rows, and a long audit under all faults at once; only in the long form."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from artwork_backfill.shared.migrations import migrate
from sandbox.load import build_database
from sandbox.postgres import DURABLE, Cluster, start_server
from sandbox.services import Services
from sandbox.world import Spec, World
from tests.faults.fault_processes import JobProcess
from tests.faults.fault_scenes import Launch
from tests.faults.test_faults_services import OF_ANY_SERVICE, OF_ARCHIVE_ORG, OF_MUSICBRAINZ

pytestmark = [pytest.mark.long, pytest.mark.timeout(3 * 3600)]

MANY = 6_000_000
#: Nobody else may have to wait for longer than this, in seconds.
LONGEST_TRANSACTION_S = 5.0

_TRANSACTIONS = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float,
       coalesce(max(extract(epoch FROM clock_timestamp() - xact_start))
                FILTER (WHERE backend_xid IS NOT NULL), 0)::float
FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'artwork-backfill %'
"""
_ROWS_SCANNED = """
SELECT coalesce(seq_tup_read, 0) FROM pg_stat_user_tables
WHERE schemaname = 'artwork_indexer' AND relname = 'audit_entity'
"""
_STATUSES = "SELECT gid::text, status::text FROM artwork_indexer.audit_entity"
_DONE = """
SELECT count(*) FROM artwork_indexer.audit_entity WHERE last_audit_at IS NOT NULL
"""


@dataclass(slots=True)
class Transactions:
    """The longest transaction of a job so far, and the longest that had written, in seconds."""

    any_s: float = 0.0
    writing_s: float = 0.0


@contextmanager
def watched_transactions(dsn: str) -> Iterator[Transactions]:
    """Watch how long a job's transactions are, as long as the block lasts."""
    longest, ended = Transactions(), threading.Event()

    def watch() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not ended.wait(0.05):
                row = conn.execute(_TRANSACTIONS).fetchone()
                assert row is not None
                longest.any_s = max(longest.any_s, row[0])
                longest.writing_s = max(longest.writing_s, row[1])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield longest
    finally:
        ended.set()
        watcher.join()


@dataclass(slots=True)
class Measured:
    """What one command took."""

    process: JobProcess
    seconds: float
    longest: Transactions
    rows_scanned: int

    def __str__(self) -> str:
        return (
            f"{' '.join(self.process.arguments)}: {self.seconds:.1f} s,"
            f" {self.process.peak_bytes / 2**20:.0f} MB,"
            f" longest transaction {self.longest.any_s:.1f} s"
            f" (writing {self.longest.writing_s:.1f} s),"
            f" {self.rows_scanned:,} rows of audit_entity read without an index"
        )


@dataclass(slots=True)
class Millions:
    """A database with millions of rows, and commands that are measured in it."""

    dsn: str
    services: Services
    launch: Launch
    figure: Callable[[str], None]

    def measure(self, *arguments: str) -> Measured:
        """Run a command to its good end."""
        before = self._rows_scanned()
        began = time.monotonic()
        with watched_transactions(self.dsn) as longest:
            process: JobProcess = self.launch(
                *arguments,
                musicbrainz=self.dsn,
                ARCHIVE_ORG_URL=self.services.archive_url,
                ARCHIVE_ORG_SECRET_KEY=self.services.secret_key,
                MUSICBRAINZ_URL=self.services.musicbrainz_url,
            )
            assert process.wait(3600) == 0, process.output[-4000:]
        measured = Measured(
            process, time.monotonic() - began, longest, self._rows_scanned() - before
        )
        self.figure(str(measured))
        return measured

    def _rows_scanned(self) -> int:
        with psycopg.connect(self.dsn) as conn:
            row = conn.execute(_ROWS_SCANNED).fetchone()
        return int(row[0]) if row is not None else 0


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Spec]]:
    """A server as in production, with six million releases."""
    spec = Spec(seed=7, size=MANY, art_share=0.0, event_share=0.02, drift_rate=0.0)
    with start_server(tmp_path_factory.mktemp("millions"), settings=DURABLE) as server:
        dsn = server.create_database("millions")
        build_database(dsn, World(spec))
        with psycopg.connect(dsn, autocommit=True) as conn:
            migrate(conn)
        yield dsn, spec


def test_six_million_rows(
    database: tuple[str, Spec], launch: Launch, figure: Callable[[str], None]
) -> None:
    dsn, spec = database
    with Services(spec) as services:
        millions = Millions(dsn, services, launch, figure)
        seeding = millions.measure("seed-from-mb")
        assert seeding.longest.writing_s < LONGEST_TRANSACTION_S
        assert seeding.process.peak_bytes < 200 * 2**20
        again = millions.measure("seed-from-mb")
        assert again.process.report["totals"]["written"] == 0

        audits = [
            millions.measure("audit-batch", "--limit", "2000", "--max-queue-depth", "0")
            for _ in range(2)
        ]
        audits.append(millions.measure("audit-batch", "--limit", "100", "--dry-run"))
        for audit in audits:
            assert audit.longest.any_s < LONGEST_TRANSACTION_S
            # Counting what waits reads it all, once; claims read what they take.
            assert audit.rows_scanned <= MANY
        for arguments in (("status",), ("verify", "audit-batch"), ("review", "list")):
            look = millions.measure(*arguments)
            assert look.longest.any_s < LONGEST_TRANSACTION_S
            assert look.rows_scanned <= (MANY if arguments == ("status",) else 0)
        millions.measure("verify", "seed-from-mb")


def test_memory_stays_flat_under_all_faults(
    postgres: Cluster, launch: Launch, figure: Callable[[str], None]
) -> None:
    spec = Spec(seed=11, size=50_000)
    world = World(spec)
    dsn = postgres.create_database("soak")
    build_database(dsn, world)
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
    seeding = launch("seed-from-mb", musicbrainz=dsn)
    assert seeding.wait() == 0
    with Services(spec) as services:
        troubles: dict[str, dict[str, Any]] = {
            "archive": OF_ANY_SERVICE | OF_ARCHIVE_ORG,
            "musicbrainz": OF_ANY_SERVICE | OF_MUSICBRAINZ,
        }
        for name, faults in troubles.items():
            rare = [{**fault, "rate": 0.02, **_elsewhere(fault)} for fault in faults.values()]
            services.control(name, faults=rare)
        began = time.monotonic()
        process = launch(
            "audit-batch",
            "--max-queue-depth",
            "0",
            musicbrainz=dsn,
            ARCHIVE_ORG_URL=services.archive_url,
            ARCHIVE_ORG_SECRET_KEY=services.secret_key,
            MUSICBRAINZ_URL=services.musicbrainz_url,
        )
        samples = sampled_memory(process, dsn)
        assert process.wait(60) == 0, process.output[-4000:]
    seconds = time.monotonic() - began
    early = statistics.median(size for done, size in samples if 5_000 <= done < 7_000)
    late = statistics.median(size for done, size in samples if done >= samples[-1][0] - 2_000)
    requests = process.report["requests"]
    figure(
        f"soak: {samples[-1][0]:,} audits in {seconds:.0f} s; memory {early / 2**20:.0f} MB after"
        f" 5,000, {late / 2**20:.0f} MB at the end, {process.peak_bytes / 2**20:.0f} MB at most;"
        f" {requests}; {process.report['totals']}"
    )
    assert late <= 1.1 * early
    planned = {plan.gid: plan.status for plan in world.plans()}
    with psycopg.connect(dsn) as conn:
        found = dict(conn.execute(_STATUSES).fetchall())
    wrong = [gid for gid, s in found.items() if s != "unchecked" and s != planned[gid]]
    assert wrong == []
    postgres.drop_database("soak")


def _elsewhere(fault: dict[str, Any]) -> dict[str, str]:
    """Return where a fault leads: to a place where nobody listens."""
    place = "127.0.0.1:1"
    return {"location": f"http://{place}/" if fault["kind"] == "redirect" else place}


def sampled_memory(process: JobProcess, dsn: str) -> list[tuple[int, int]]:
    """Return, as a run goes along, how many entities are done and the bytes it has in use."""
    samples: list[tuple[int, int]] = []
    deadline = time.monotonic() + 2 * 3600
    with psycopg.connect(dsn, autocommit=True) as conn:
        while process.is_running:
            assert time.monotonic() < deadline, process.output[-4000:]
            row = conn.execute(_DONE).fetchone()
            size = process.resident_bytes()
            if row is not None and size:
                samples.append((int(row[0]), size))
            time.sleep(0.25)
    return samples
