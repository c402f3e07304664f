"""Migrations: once each, one process at a time, all of a file or nothing of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection

from artwork_backfill.shared import migrations
from artwork_backfill.shared.engine import session
from artwork_backfill.shared.engine.errors import DatabaseError
from artwork_backfill.shared.engine.session import open_standalone
from artwork_backfill.shared.migrations import MigrationFailed, State, available, migrate, status
from tests.timing import LIMIT_S
from tests.tiny import query, wait_for

#: The first half of the SHA-256 checksums of migrations that databases have applied: `migrate`
#: refuses any other.
RELEASED = {
    "0001_audit_tables.sql": "d384f4942e88c64626319881a0b362ec",
    "0002_indexer_feedback.sql": "228e4c472a45a687b4d8b7c262bf7f3f",
    "0003_ia_scan.sql": "34367db71045e950f8512e985fc2a435",
    "0004_audit_history.sql": "d2013551fa8821886df64ba1fe2bceaf",
    "0005_runs.sql": "1f558a4ca8ff677596d79ed6ec9d765d",
    "0006_evidence.sql": "16fc085e23bfbcfa66d238b1aa3a9519",
    "0007_beside_musicbrainz.sql": "e86a72e6cec9568b358c048433aa80da",
    "0008_run_progress.sql": "64ca2fd80f6573347853819911b2285d",
    "0009_in_step.sql": "c13a4f1c9f0b6fc7fba8969cc993b998",
    "0010_distinct_identifiers.sql": "5bcc984ef5c68832d2e6415a3f22412e",
}

RECORDS = "SELECT name, checksum FROM artwork_indexer.backfill_migration ORDER BY name"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of migrations of the test's own, with one good file."""
    monkeypatch.setattr(migrations.Target, "folder", tmp_path)
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE artwork_indexer.first (id INT);")
    return tmp_path


@pytest.fixture
def conn(musicbrainz_database: str) -> Iterator[Connection]:
    """A session in a database without any migration."""
    with open_standalone(musicbrainz_database, "migrate") as conn:
        yield conn


def test_all_are_applied_in_order_and_recorded_once(
    conn: Connection, musicbrainz_database: str
) -> None:
    names = [migration.name for migration in available()]
    assert names == sorted(names)
    assert names
    assert migrate(conn) == names
    assert migrate(conn) == []
    assert query(musicbrainz_database, RECORDS) == [
        (migration.name, migration.checksum) for migration in available()
    ]
    assert status(conn) == [(name, State.APPLIED) for name in names]


def test_released_migrations_never_change_not_even_in_a_comment() -> None:
    checksums = {migration.name: migration.checksum for migration in available()}
    assert {name: checksums[name][:32] for name in RELEASED} == RELEASED


def test_only_what_is_pending_is_applied(conn: Connection, folder: Path) -> None:
    assert migrate(conn) == ["0001_first.sql"]
    (folder / "0002_second.sql").write_text("CREATE TABLE artwork_indexer.second (id INT);")
    assert migrate(conn) == ["0002_second.sql"]


def test_status_only_reads(conn: Connection, folder: Path) -> None:
    conn.execute("SET default_transaction_read_only = on")
    assert status(conn) == [("0001_first.sql", State.PENDING)]


def test_status_tells_pending_applied_changed_and_unknown(conn: Connection, folder: Path) -> None:
    for name in ("0002_second.sql", "0003_third.sql"):
        (folder / name).write_text("SELECT 1;")
    migrate(conn)
    (folder / "0002_second.sql").write_text("SELECT 2;")
    (folder / "0003_third.sql").unlink()
    (folder / "0004_fourth.sql").write_text("SELECT 4;")
    assert status(conn) == [
        ("0001_first.sql", State.APPLIED),
        ("0002_second.sql", State.CHANGED),
        ("0004_fourth.sql", State.PENDING),
        ("0003_third.sql", State.UNKNOWN),
    ]


def test_a_changed_file_is_refused_before_anything_is_applied(
    conn: Connection, folder: Path
) -> None:
    migrate(conn)
    (folder / "0000_earlier.sql").write_text("CREATE TABLE artwork_indexer.earlier (id INT);")
    with (folder / "0001_first.sql").open("a") as file:
        file.write("\n")
    with pytest.raises(DatabaseError, match=r"0001_first\.sql has changed since it was applied"):
        migrate(conn)
    assert dict(status(conn))["0000_earlier.sql"] is State.PENDING


def test_a_failing_file_leaves_nothing_behind_and_those_before_it_stay(
    conn: Connection, folder: Path
) -> None:
    (folder / "0002_broken.sql").write_text(
        "CREATE TABLE artwork_indexer.second (id INT); SELECT 1 / 0;"
    )
    with pytest.raises(MigrationFailed, match=r"0002_broken\.sql failed .* division by zero"):
        migrate(conn)
    assert [name for name, state in status(conn) if state is State.APPLIED] == ["0001_first.sql"]
    row = conn.execute("SELECT to_regclass('artwork_indexer.second')").fetchone()
    assert row == (None,)
    (folder / "0002_broken.sql").write_text("CREATE TABLE artwork_indexer.second (id INT);")
    assert migrate(conn) == ["0002_broken.sql"]


def test_two_at_once_apply_each_file_once(
    musicbrainz_database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first stays within its migration until the second has waited beyond its lock time-out.
    monkeypatch.setattr(session, "LOCK_TIMEOUT", "100ms")
    (folder / "0001_first.sql").write_text(
        "SET LOCAL lock_timeout = 0; CREATE TABLE artwork_indexer.first (id INT);"
        " SELECT pg_advisory_xact_lock(1);"
    )
    applied: list[list[str]] = []

    def apply() -> None:
        with open_standalone(musicbrainz_database, "migrate") as conn:
            applied.append(migrate(conn))

    def waiting() -> int:
        rows = query(
            musicbrainz_database,
            "SELECT FROM pg_stat_activity WHERE wait_event = 'advisory'"
            " AND datname = current_database() AND now() - query_start > interval '150 ms'",
        )
        return len(rows)

    threads = [threading.Thread(target=apply) for _ in range(2)]
    with psycopg.connect(musicbrainz_database, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(1)")
        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_for(lambda number=number: waiting() == number)
        gate.execute("SELECT pg_advisory_unlock(1)")
        for thread in threads:
            thread.join(LIMIT_S)
    assert sorted(applied) == [[], ["0001_first.sql"]]


def test_without_artwork_indexers_schema_it_says_what_to_install(empty_database: str) -> None:
    with (
        open_standalone(empty_database, "migrate") as conn,
        pytest.raises(DatabaseError, match=r"install artwork-indexer's own schema first"),
    ):
        migrate(conn)
    assert query(empty_database, "SELECT to_regnamespace('artwork_indexer')") == [(None,)]


def test_a_role_that_may_not_create_tables_is_told_what_to_ask_for(conn: Connection) -> None:
    conn.execute("CREATE ROLE onlooker")
    try:
        conn.execute("GRANT USAGE ON SCHEMA artwork_indexer TO onlooker")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA artwork_indexer TO onlooker")
        conn.execute("SET ROLE onlooker")
        with pytest.raises(DatabaseError, match="GRANT CREATE ON SCHEMA artwork_indexer TO"):
            migrate(conn)
    finally:
        conn.execute("RESET ROLE")
        conn.execute("DROP OWNED BY onlooker")
        conn.execute("DROP ROLE onlooker")


@pytest.fixture
def onlooker(conn: Connection) -> Iterator[Connection]:
    """A session of a role that may do in artwork-indexer's schema what migrations need."""
    role = f"onlooker_{uuid4().hex}"
    conn.execute(f"CREATE ROLE {role}".encode())
    conn.execute(f"GRANT USAGE, CREATE ON SCHEMA artwork_indexer TO {role}".encode())
    conn.execute(f"GRANT ALL ON artwork_indexer.event_queue TO {role}".encode())
    conn.execute(f"SET ROLE {role}".encode())
    yield conn
    conn.execute("RESET ROLE")
    conn.execute(f"DROP OWNED BY {role} CASCADE".encode())
    conn.execute(f"DROP ROLE {role}".encode())


def test_the_rights_that_are_checked_are_enough(onlooker: Connection) -> None:
    assert migrate(onlooker) == [migration.name for migration in available()]


@pytest.mark.parametrize("right", ["TRIGGER", "SELECT", "UPDATE", "DELETE"])
def test_each_right_is_checked_before_anything_is_applied(onlooker: Connection, right: str) -> None:
    role = onlooker.execute("SELECT current_user").fetchone()
    assert role is not None
    onlooker.execute("RESET ROLE")
    onlooker.execute(f"REVOKE {right} ON artwork_indexer.event_queue FROM {role[0]}".encode())
    onlooker.execute(f"SET ROLE {role[0]}".encode())
    with pytest.raises(DatabaseError, match=f"GRANT {right} ON artwork_indexer.event_queue TO"):
        migrate(onlooker)
    onlooker.execute("RESET ROLE")
    assert {state for _, state in status(onlooker)} == {State.PENDING}


def test_only_the_role_that_owns_our_tables_may_migrate(onlooker: Connection, folder: Path) -> None:
    role = onlooker.execute("SELECT current_user").fetchone()
    assert role is not None
    onlooker.execute("RESET ROLE")
    migrate(onlooker)
    onlooker.execute(f"SET ROLE {role[0]}".encode())
    with pytest.raises(DatabaseError, match=f"role {role[0]} may not change it: run migrate as"):
        migrate(onlooker)
