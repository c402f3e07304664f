"""The database goes away or refuses: a run waits and goes on, or stops; nothing is half done."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg import sql

from sandbox.postgres import Cluster, Server
from sandbox.services import Services
from tests.faults.fault_processes import Haste, JobProcess, wait_for
from tests.faults.fault_scenes import Scene, Watch, some_jobs
from tests.faults.fault_tables import assert_nothing_is_half_done

_SESSIONS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'artwork-backfill %'
ORDER BY pid
"""
# The rows of the batch that was claimed first, in the order in which it will be written.
_FIRST_CLAIMS = """
SELECT id, gid::text FROM artwork_indexer.audit_entity
WHERE status = 'audit_in_progress' AND last_audit_at = (
    SELECT min(last_audit_at) FROM artwork_indexer.audit_entity WHERE status = 'audit_in_progress')
ORDER BY id
"""
_LOCK = "SELECT FROM artwork_indexer.audit_entity WHERE id = %s FOR UPDATE"
_INSERT_EVERYTHING = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid)
SELECT 'release', gid FROM musicbrainz.release
"""

# Lets a job come as far as so many rows and no further. PostgreSQL's own code for a disk that is
# full is in its appendix on error codes.
_HINDER = """
CREATE TABLE public.hindrance (what text);
CREATE FUNCTION public.hinder() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF ({progress}) >= {rows} THEN
        IF EXISTS (SELECT FROM public.hindrance WHERE what = 'pause') THEN
            PERFORM pg_advisory_xact_lock_shared(1);
        ELSIF EXISTS (SELECT FROM public.hindrance WHERE what = 'full disk') THEN
            RAISE EXCEPTION 'could not extend file: No space left on device'
            USING ERRCODE = '53100';
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER hinder BEFORE INSERT OR UPDATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION public.hinder();
"""
_BEGIN_HINDRANCE = "INSERT INTO public.hindrance VALUES (%s)"
_END_HINDRANCE = "DELETE FROM public.hindrance"


def hinder(conn: psycopg.Connection, scene: Scene, what: str) -> None:
    """Let the job, once it has done a fifth of its rows, meet with something as it writes."""
    statement = sql.SQL(_HINDER).format(
        progress=sql.SQL(scene.kind.progress),
        rows=sql.Literal(scene.undisturbed().done // 5),
        table=sql.Identifier(*scene.kind.written.split(".")),
    )
    conn.execute(statement)
    conn.execute(_BEGIN_HINDRANCE, (what,))


@contextmanager
def in_the_midst(scene: Scene, **options: Any) -> Iterator[JobProcess]:
    """Start a run, and hold it within a transaction in which it has written, for a block's time."""
    with scene.connect() as holder, scene.watch() as watch:
        hinder(holder, scene, "pause")
        holder.execute("SELECT pg_advisory_lock(1)")
        process = scene.start(**options)
        wait_for(watch.waiting, process=process)
        yield process
        # Where the server is gone meanwhile, so is the lock.
        with suppress(psycopg.OperationalError):
            holder.execute("SELECT pg_advisory_unlock(1)")


def test_sessions_that_are_terminated_are_replaced(
    scene: Scene, dice: random.Random, is_long: bool
) -> None:
    total = scene.undisturbed().done
    terminations = 60 if is_long else 6
    with scene.watch() as watch, scene.connect() as admin:
        process = scene.start()
        # Before its first line it only looks whether there is a database at all.
        wait_for(lambda: process.lines, process=process)
        for place in range(terminations):
            wait_for_rows(process, watch, (place + dice.random()) * total / terminations)
            sessions = [pid for (pid,) in admin.execute(_SESSIONS)]
            if sessions:
                admin.execute("SELECT pg_terminate_backend(%s)", (dice.choice(sessions),))
    assert_ended_well(scene, process)


def wait_for_rows(process: JobProcess, watch: Watch, rows: float) -> None:
    wait_for(lambda: watch.done() >= rows or not process.is_running, process=process)


@some_jobs
def test_a_failover_to_a_server_that_is_read_only_is_waited_for(scene: Scene) -> None:
    with scene.connect() as admin:
        with in_the_midst(scene) as process:
            set_read_only(admin, "on")
        wait_for(lambda: "(SQLSTATE 25006)" in process.stdout, process=process)
        set_read_only(admin, "off")
    assert_ended_well(scene, process)


def set_read_only(admin: psycopg.Connection, value: str) -> None:
    """Let a database accept writes or none; sessions feel it once they connect again."""
    admin.execute("SET default_transaction_read_only = off")
    statement = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
    admin.execute(statement.format(sql.Identifier(admin.info.dbname), sql.SQL(value)))
    for (pid,) in admin.execute(_SESSIONS).fetchall():
        admin.execute("SELECT pg_terminate_backend(%s)", (pid,))


@some_jobs
def test_a_full_disk_is_waited_for(scene: Scene) -> None:
    with scene.connect() as admin:
        hinder(admin, scene, "full disk")
        process = scene.start()
        wait_for(lambda: "(SQLSTATE 53100)" in process.stdout, process=process)
        admin.execute(_END_HINDRANCE)
    assert_ended_well(scene, process)


@some_jobs
def test_a_disk_that_stays_full_ends_the_run_and_leaves_nothing_half_done(scene: Scene) -> None:
    with scene.connect() as admin, scene.watch() as watch:
        hinder(admin, scene, "full disk")
        process = scene.start(haste=Haste(database_s=0.5))
        assert process.wait() == 1, process.output
        assert_failed_cleanly(process, "No space left on device (SQLSTATE 53100)")
        assert watch.claims() == 0
        admin.execute(_END_HINDRANCE)
    if scene.kind.template == "seeded":
        assert_nothing_is_half_done(scene.undisturbed().tables, scene.tables())
    scene.finish()


@some_jobs
def test_a_restart_of_the_server_is_waited_for(scene: Scene, own_server: Server) -> None:
    with in_the_midst(scene) as process:
        own_server.stop()
    wait_for(lambda: "trying again" in process.stdout, process=process)
    own_server.start()
    assert_ended_well(scene, process)


@some_jobs
def test_a_server_that_stays_away_ends_the_run(scene: Scene, own_server: Server) -> None:
    with in_the_midst(scene, haste=Haste(database_s=0.5)) as process:
        own_server.stop()
    assert process.wait() == 1, process.output
    own_server.start()
    assert_failed_cleanly(process, "the database failed: ")
    scene.finish()


@pytest.fixture
def own_server(scene: Scene, postgres: Cluster) -> Iterator[Server]:
    """The server of all tests, which one test may stop: it runs again afterwards."""
    if not isinstance(postgres, Server):
        pytest.skip("the server of TEST_DATABASE_URL is not ours to stop")
    yield postgres
    if not postgres.is_running:
        postgres.start()


@pytest.mark.parametrize("scene", ["audit-batch"], indirect=True)
def test_the_victim_of_a_deadlock_writes_again(scene: Scene, services: Services) -> None:
    tables = scene.undisturbed().tables
    services.control("archive", latency_s=0.6, jitter=0)
    with scene.connect() as rival, scene.watch() as watch:
        process = scene.start()
        wait_for(watch.claims, process=process)
        # Of two rows in one batch, the rival takes first what the run will take second. It would
        # wait for ever, so it is the run that PostgreSQL finds in a deadlock.
        rival.execute("SET deadlock_timeout = '1h'")
        # What needs no event is written together, each of the others by itself.
        first, second = [
            id_
            for id_, gid in rival.execute(_FIRST_CLAIMS).fetchall()
            if not any(row[0] == "entity" and row[2] == "repair_queue" for row in tables[gid])
        ][:2]
        with rival.transaction():
            rival.execute(_LOCK, (second,))
            wait_for(watch.waiting, process=process)
            rival.execute(_LOCK, (first,))
            wait_for(lambda: "(SQLSTATE 40P01)" in process.stdout, process=process)
        services.control("archive", latency_s=0)
    assert_ended_well(scene, process)


@pytest.mark.parametrize("scene", ["audit-batch"], indirect=True)
def test_a_row_that_is_locked_too_long_is_waited_for_again(
    scene: Scene, services: Services
) -> None:
    services.control("archive", latency_s=0.6, jitter=0)
    with scene.connect() as rival, scene.watch() as watch:
        process = scene.start(haste=Haste(lock_timeout="50ms"))
        wait_for(watch.claims, process=process)
        with rival.transaction():
            for id_, _ in rival.execute(_FIRST_CLAIMS).fetchall():
                rival.execute(_LOCK, (id_,))
            wait_for(lambda: "(SQLSTATE 55P03)" in process.stdout, process=process)
        services.control("archive", latency_s=0)
    assert_ended_well(scene, process)


@pytest.mark.parametrize("scene", ["seed-from-mb", "seed-from-img-129"], indirect=True)
def test_a_gid_that_somebody_else_is_about_to_insert_is_waited_for_again(scene: Scene) -> None:
    scene.undisturbed()
    with scene.connect() as rival, rival.transaction() as transaction:
        rival.execute(_INSERT_EVERYTHING)
        process = scene.start(haste=Haste(lock_timeout="50ms"))
        wait_for(lambda: "(SQLSTATE 55P03)" in process.stdout, process=process)
        raise psycopg.Rollback(transaction)
    assert_ended_well(scene, process)


def assert_ended_well(scene: Scene, process: JobProcess) -> None:
    assert process.wait() == 0, process.output
    assert process.report["outcome"] == "verified"
    scene.finish()


def assert_failed_cleanly(process: JobProcess, reason: str) -> None:
    """One line says what was wrong, without a traceback, and the report says so too."""
    (line,) = map(json.loads, process.stderr.splitlines())
    assert reason in line["message"]
    assert "exc_info" not in line
    assert process.report["outcome"] == "failed"
    assert reason in process.report["reason"]
