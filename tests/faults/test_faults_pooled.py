"""Behind PgBouncer in transaction mode, whose few sessions are shared with everybody else.

Whatever a command would set on a session, or lock by it, the next client of the pool would inherit.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from sandbox import schema
from sandbox.postgres import UNPRIVILEGED_USER, Cluster
from sandbox.services import Services
from tests.faults.fault_processes import DEAD_AFTER_S, PATIENT, JobProcess, wait_for
from tests.faults.fault_scenes import runs_at_work

#: Sessions of the pool: fewer than a single run would like.
POOL = 3

Launch = Callable[..., JobProcess]

_SETTINGS = """
SELECT name, setting
FROM pg_settings
WHERE name NOT IN ('application_name', 'client_encoding')
"""

_SESSION_LOCKS = """
SELECT count(*)
FROM pg_locks
WHERE locktype = 'advisory' AND pid = pg_backend_pid()
"""

_LEFT_BEHIND = """
SELECT (SELECT count(*) FROM pg_prepared_statements),
       (SELECT count(*) FROM pg_class WHERE relpersistence = 't'
        AND pg_table_is_visible(oid))
"""

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed")


@pytest.fixture(scope="module")
def pooled(postgres: Cluster) -> Iterator[Callable[[str], str]]:
    """Returns the URL of a database through the pool."""
    assert PGBOUNCER is not None
    target = conninfo_to_dict(postgres.dsn("postgres"))
    place = f"host={target['host']} port={target.get('port', 5432)} user={target['user']}"
    if target.get("password"):
        place += f" password={target['password']}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    identity = UNPRIVILEGED_USER if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="pgbouncer-", dir="/tmp") as folder:
        config = Path(folder, "pgbouncer.ini")
        config.write_text(
            f"[databases]\n* = {place}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {POOL}\n"
        )
        Path(folder).chmod(0o755)
        config.chmod(0o644)
        process = subprocess.Popen(
            [PGBOUNCER, "--quiet", str(config)],
            stdin=subprocess.DEVNULL,
            user=identity,
            group=identity,
            start_new_session=True,
        )
        try:
            wait_for(lambda: _listens(port))
            yield (
                lambda dsn: (
                    f"postgresql://{target['user']}@127.0.0.1:{port}/{conninfo_to_dict(dsn)['dbname']}"
                )
            )
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def every_session(dsn: str) -> Iterator[list[psycopg.Connection[Any]]]:
    """Hold every session of the pool at once, each by a transaction of its own."""
    with ExitStack() as stack:
        conns = [stack.enter_context(psycopg.connect(dsn)) for _ in range(POOL)]
        for conn in conns:
            conn.execute("SELECT 1")
        pids = {conn.execute("SELECT pg_backend_pid()").fetchone() for conn in conns}
        assert len(pids) == POOL
        yield conns
        for conn in conns:
            conn.rollback()


def assert_untouched(dsn: str, settings: dict[str, str]) -> None:
    """Check that the pool's sessions are as a new one is, and that others can work on them."""
    with every_session(dsn) as conns:
        for number, conn in enumerate(conns):
            now: dict[str, str] = dict(conn.execute(_SETTINGS).fetchall())
            assert {name: now[name] for name in settings} == settings
            assert conn.execute(_SESSION_LOCKS).fetchone() == (0,)
            assert conn.execute(_LEFT_BEHIND).fetchone() == (0, 0)
            conn.execute(f"CREATE TABLE edit_{number} (id INT)".encode())


def settings_of_a_new_session(dsn: str) -> dict[str, str]:
    with psycopg.connect(dsn) as conn:
        return dict(conn.execute(_SETTINGS).fetchall())


def test_sessions_of_others_are_as_they_were_after_every_command(
    launch: Launch,
    seeded: str,
    copy: Callable[[str], str],
    pooled: Callable[[str], str],
    tmp_path: Path,
) -> None:
    direct = copy(seeded)
    dsn = pooled(direct)
    settings = settings_of_a_new_session(direct)
    listed = tmp_path / "listed"
    listed.write_text("mbid-00000000-0000-4000-8000-000000000001\n")
    gids = tmp_path / "darkened_items"
    gids.write_text("00000000-0000-4000-8000-000000000002\n")
    commands = [
        ("migrate", "--status"),
        ("migrate",),
        ("status",),
        ("checks",),
        ("seed-from-mb", "--dry-run"),
        ("seed-from-mb",),
        ("seed-from-img-129", str(gids)),
        ("seed-from-ia-scan", "--from-list", str(listed)),
        ("seed-from-ia-scan", "--collection", "caa", "--limit", "20"),
        ("audit-batch", "--dry-run", "--limit", "40"),
        ("audit-batch", "--limit", "100", "--max-queue-depth", "0"),
        ("verify", "audit-batch"),
        ("verify", "seed-from-mb"),
        ("review", "list"),
        ("events", "failed"),
        ("review", "export", "--for", "archive.org"),
    ]
    for command in commands:
        process = launch(*command, musicbrainz=dsn)
        assert process.wait() in (0, 3), process.output
        assert_untouched(dsn, settings)


def test_the_library_is_filled_on_sessions_of_others(
    launch: Launch, shelved: str, copy: Callable[[str], str], pooled: Callable[[str], str]
) -> None:
    direct = copy(shelved)
    dsn = pooled(direct)
    settings = settings_of_a_new_session(direct)
    for options in (("--dry-run",), ()):
        process = launch("library-artwork-url-backfill", "--write-rate=0", *options, wxyc=dsn)
        assert process.wait() in (0, 3), process.output
        assert_untouched(dsn, settings)
    assert process.report["totals"]["written"] > 0


def test_migrations_are_applied_once_and_do_not_hang(
    launch: Launch, postgres: Cluster, pooled: Callable[[str], str]
) -> None:
    name = "pooled_migrations"
    direct = postgres.create_database(name)
    try:
        with psycopg.connect(direct, autocommit=True) as conn:
            schema.create_musicbrainz(conn)
        first, second = (launch("migrate", musicbrainz=pooled(direct)) for _ in range(2))
        assert (first.wait(), second.wait()) == (0, 0), first.output + second.output
        assert launch("migrate", musicbrainz=pooled(direct)).wait() == 0
        assert_untouched(pooled(direct), settings_of_a_new_session(direct))
    finally:
        postgres.drop_database(name)


def test_two_runs_share_the_work_and_others_go_on_with_theirs(
    launch: Launch,
    seeded: str,
    copy: Callable[[str], str],
    pooled: Callable[[str], str],
    services: Services,
) -> None:
    direct = copy(seeded)
    dsn = pooled(direct)
    is_over = threading.Event()
    failures: list[str] = []
    edits = 0

    def edit() -> None:
        nonlocal edits
        with psycopg.connect(dsn, prepare_threshold=None) as conn:
            while not is_over.is_set():
                try:
                    conn.execute("UPDATE musicbrainz.release SET name = name WHERE id = 1")
                    conn.commit()
                    edits += 1
                except psycopg.Error as error:
                    failures.append(str(error))
                    conn.rollback()
                is_over.wait(0.01)

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        # Neither has done everything before the other is there.
        services.control("archive", latency_s=1, jitter=0)
        options = ("--max-queue-depth", "0", "--batch-size", "10", "--fixed-batch-size")
        runs = [launch("audit-batch", *options, musicbrainz=dsn, haste=PATIENT) for _ in range(2)]
        wait_for(lambda: runs_at_work(direct) == 2)
        services.control("archive", latency_s=0)
        codes = [run.wait() for run in runs]
    finally:
        is_over.set()
        editor.join()
    assert codes == [0, 0], [run.output for run in runs]
    audited = [run.report["totals"]["audited"] for run in runs]
    with psycopg.connect(direct) as conn:
        waiting = conn.execute(
            "SELECT count(*) FROM artwork_indexer.audit_entity"
            " WHERE last_audit_at IS NULL OR status = 'audit_in_progress'"
        ).fetchone()
    assert waiting == (0,)
    assert min(audited) > 0
    assert failures == []
    assert edits > 0


def test_claims_of_a_killed_run_come_back(
    launch: Launch, seeded: str, copy: Callable[[str], str], pooled: Callable[[str], str]
) -> None:
    direct = copy(seeded)
    dsn = pooled(direct)
    claimed = "SELECT count(*) FROM artwork_indexer.audit_entity WHERE status = 'audit_in_progress'"
    with psycopg.connect(direct, autocommit=True) as conn:
        options = ("--max-queue-depth", "0", "--batch-size", "20", "--fixed-batch-size")
        process = launch("audit-batch", *options, musicbrainz=dsn)
        wait_for(lambda: conn.execute(claimed).fetchone() != (0,), process=process)
        process.kill()
        assert conn.execute(claimed).fetchone() != (0,)
        wait_for(
            lambda: (
                conn.execute(
                    "SELECT heartbeat < now() - make_interval(secs => %s)"
                    " FROM artwork_indexer.backfill_run WHERE job = 'audit-batch'",
                    (DEAD_AFTER_S,),
                ).fetchone()
                == (True,)
            )
        )
        last = launch("audit-batch", "--max-queue-depth", "0", musicbrainz=dsn)
        assert last.wait() == 0, last.output
        assert conn.execute(claimed).fetchone() == (0,)
        outcomes = dict(
            conn.execute(
                "SELECT outcome, count(*) FROM artwork_indexer.backfill_run"
                " WHERE job = 'audit-batch' GROUP BY 1"
            ).fetchall()
        )
    assert outcomes == {"dead": 1, "verified": 1}
