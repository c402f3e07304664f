"""A database in trouble: what passes is repeated, nothing is lost or written twice."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from artwork_backfill.shared.engine import session as db
from artwork_backfill.shared.engine.job import (
    RunFailed,
    RunResult,
    StopRun,
    Verification,
    Wait,
    Written,
)
from artwork_backfill.shared.engine.report import Outcome, Report
from sandbox.postgres import Cluster, start_server
from tests.tiny import (
    Driver,
    FetchingJob,
    TinyJob,
    create_work,
    doubled,
    driver,
    execute,
    query,
    states,
    wait_for,
)

VERBS = ("count", "claim", "write", "release", "verify")


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> Iterator[str]:
    """URL of a database for all tests of this module, one after another."""
    name = f"tiny_{uuid.uuid4().hex}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def work(database: str) -> str:
    """URL of a database with 35 rows to work on."""
    create_work(database, 35)
    return database


def troubled(verb: str, trouble: Callable[[Connection], None], times: int = 1) -> type[TinyJob]:
    """Return a job that gets into trouble in a verb, after its work and so many times."""
    left = times

    def in_trouble(self: TinyJob, conn: Connection, *arguments: Any) -> Any:
        nonlocal left
        done = getattr(FetchingJob, verb)(self, conn, *arguments)
        if left:
            left -= 1
            trouble(conn)
        return done

    def fetch(self: TinyJob, items: Sequence[int]) -> Sequence[int]:
        # One row to be given back.
        if 7 in items:
            raise ValueError("no answer")
        return items

    return type("Troubled", (FetchingJob,), {verb: in_trouble, "fetch": fetch})


def lose_connection(conn: Connection) -> None:
    conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def raise_in_server(sqlstate: str) -> Callable[[Connection], None]:
    def trouble(conn: Connection) -> None:
        conn.execute(
            "DO $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '" + sqlstate + "'; END $$"
        )

    return trouble


def assert_done(dsn: str, report: Report) -> None:
    assert report.totals["failed"] == 1, report.problems
    assert report.totals["written"] == 34
    assert query(dsn, "SELECT id, state FROM work WHERE state <> 'done'") == [(7, "waiting")]
    assert doubled(dsn) == []
    assert {check.name: check.ok for check in report.verification}["rows still claimed"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_lost_connection_repeats_the_transaction(work: str, verb: str) -> None:
    assert_done(work, driver(work).run(troubled(verb, lose_connection)))


@pytest.mark.parametrize(
    "sqlstate", ["40001", "40P01", "55P03", "57014", "53300", "25006", "58030", "57P01", "57P03"]
)
@pytest.mark.parametrize("verb", ["claim", "write"])
def test_passing_trouble_repeats_the_transaction(work: str, verb: str, sqlstate: str) -> None:
    assert_done(work, driver(work).run(troubled(verb, raise_in_server(sqlstate), times=2)))


@pytest.mark.parametrize("sqlstate", ["42P01", "42501", "54000", "XX000", "0A000", "22003"])
def test_other_trouble_is_isolated_whatever_its_sqlstate(work: str, sqlstate: str) -> None:
    assert_done(work, driver(work).run(troubled("write", raise_in_server(sqlstate))))


class LosesAnswer(Connection[Any]):
    """Once told to, commits and loses its connection before the answer arrives."""

    loses = False

    def commit(self) -> None:
        super().commit()
        if self.loses:
            self.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")


@pytest.mark.parametrize("verb", VERBS)
def test_a_commit_whose_answer_is_lost_loses_and_doubles_nothing(work: str, verb: str) -> None:
    lost: list[Connection] = []

    def lose(conn: Connection) -> None:
        assert isinstance(conn, LosesAnswer)
        conn.loses = True
        lost.append(conn)

    drive = Driver(lambda: LosesAnswer.connect(work, autocommit=True))
    report = drive.run(troubled(verb, lose))
    assert [conn.closed for conn in lost] == [True]
    assert query(work, "SELECT id, state FROM work WHERE state <> 'done'") == [(7, "waiting")]
    assert doubled(work) == []
    # Asked what became of the commit, the server says that it went through.
    assert (report.totals["written"], report.totals["skipped"]) == (34, 0)
    claimed = [id_ for claim in drive.job.claims for id_ in claim]
    assert claimed == list(range(1, 36))


def test_a_real_lock_that_is_held_too_long_is_waited_for_again(work: str) -> None:
    def open_impatient() -> Connection:
        conn = db.connect(work, "tiny")
        conn.execute("SET lock_timeout = '50ms'")
        return conn

    drive = Driver(open_impatient)
    seen = threading.Event()

    class Retries(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            if 15 in results:
                if seen.is_set():
                    holder.rollback()
                seen.set()
            return super().write(conn, results)

    # A lock that lets rows be claimed (which changes no key) would not do: this one is taken later.
    class LocksLater(Retries):
        def claimed(self, items: Sequence[int]) -> None:
            super().claimed(items)
            if 15 in items:
                holder.execute("SELECT FROM work WHERE id = 15 FOR UPDATE")

    with psycopg.connect(work) as holder:
        report = drive.run(LocksLater)
    assert report.totals["written"] == 35
    assert doubled(work) == []


def test_a_batch_that_takes_too_long_is_written_in_parts(work: str) -> None:
    sizes: list[int] = []

    class Slow(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            sizes.append(len(results))
            if len(results) > 5:
                conn.execute("SELECT pg_sleep(600)")
            return super().write(conn, results)

    report = driver(work, write_timeout=2.0).run(Slow, limit=10)
    assert (report.exit_code, report.totals["written"]) == (0, 10)
    assert (sizes[0], max(sizes[1:])) == (10, 5)
    assert doubled(work) == []


def test_a_row_that_takes_too_long_by_itself_is_reported_and_the_others_written(work: str) -> None:
    class Slow(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            if 2 in results:
                conn.execute("SELECT pg_sleep(600)")
            return super().write(conn, results)

    report = driver(work, write_timeout=2.0).run(Slow, batch_size=2, limit=4)
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    assert (report.totals["written"], report.totals["failed"]) == (3, 1)
    (problem,) = report.problems
    assert (problem.what, "57014" in problem.detail) == ("2", True)


def test_a_real_deadlock_is_resolved_by_writing_again(work: str) -> None:
    locked = threading.Event()

    with psycopg.connect(work) as rival:
        rival.execute("SET deadlock_timeout = '10s'")

        class Collides(TinyJob):
            collided = False

            def write(self, conn: Connection, results: Sequence[int]) -> Written:
                if not self.collided:
                    self.collided = True
                    conn.execute("SET LOCAL deadlock_timeout = '10ms'")
                    conn.execute("SELECT FROM work WHERE id = 1 FOR UPDATE")
                    rival.execute("SELECT FROM work WHERE id = 2 FOR UPDATE")
                    waiter = threading.Thread(
                        target=rival.execute, args=("SELECT FROM work WHERE id = 1 FOR UPDATE",)
                    )
                    waiter.start()
                    wait_for(lambda: waits_for_lock(work))
                    locked.set()
                    try:
                        conn.execute("SELECT FROM work WHERE id = 2 FOR UPDATE")
                    except psycopg.errors.DeadlockDetected:
                        # Only once this transaction is over does the rival get its lock.
                        threading.Thread(target=lambda: (waiter.join(), rival.rollback())).start()
                        raise
                return super().write(conn, results)

        report = driver(work).run(Collides)
    assert locked.is_set()
    assert report.totals["written"] == 35
    assert doubled(work) == []


def waits_for_lock(dsn: str) -> bool:
    return bool(
        query(
            dsn,
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()",
        )
    )


def test_a_database_that_is_read_only_for_a_moment_is_waited_for(work: str) -> None:
    name = query(work, "SELECT current_database()")[0][0]

    def switch(value: str) -> None:
        execute(work, f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")

    class Interrupted(TinyJob):
        writes = 0

        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            self.writes += 1
            if self.writes == 2:
                switch("on")
                lose_connection(conn)
            if self.writes == 4:
                with psycopg.connect(work, autocommit=True) as admin:
                    admin.execute("SET default_transaction_read_only = off")
                    admin.execute(
                        f"ALTER DATABASE {name} RESET default_transaction_read_only".encode()
                    )
                lose_connection(conn)
            return super().write(conn, results)

    report = driver(work).run(Interrupted)
    assert report.totals["written"] == 35
    assert doubled(work) == []


def test_a_restart_of_the_server_is_waited_for() -> None:
    with start_server() as server:
        dsn = server.create_database("tiny")
        create_work(dsn, 35)

        class Restarts(FetchingJob):
            restarted = False

            def fetch(self, items: Sequence[int]) -> Sequence[int]:
                if items[0] == 15 and not self.restarted:
                    self.restarted = True
                    server.stop()
                    threading.Timer(0.3, server.start).start()
                return items

        report = driver(dsn).run(Restarts)
        assert report.exit_code == 0
        assert states(dsn) == {"done": 35}
        assert doubled(dsn) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_database_that_stays_down_fails_the_run_with_a_report(work: str, verb: str) -> None:
    is_down = threading.Event()

    def open_if_up() -> Connection:
        if is_down.is_set():
            raise psycopg.OperationalError("connection to server failed:\n\tConnection refused")
        return db.connect(work, "tiny")

    def go_down(conn: Connection) -> None:
        is_down.set()
        execute(
            work,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'tiny' AND datname = current_database()",
        )
        conn.execute("SELECT 1")

    report = Driver(open_if_up, patience=1.0).run(troubled(verb, go_down))
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert report.reason == ("the database failed: connection to server failed: Connection refused")
    assert report.duration_s < 60
    assert doubled(work) == []


def test_a_database_that_stays_full_interrupts_the_run(work: str) -> None:
    is_full = threading.Event()

    def open_if_free() -> Connection:
        if is_full.is_set():
            raise psycopg.OperationalError("FATAL:  sorry, too many clients already")
        return db.connect(work, "tiny")

    def go_down(conn: Connection) -> None:
        is_full.set()
        lose_connection(conn)

    report = Driver(open_if_free, patience=0.5).run(troubled("write", go_down))
    assert (report.outcome, report.exit_code) == (Outcome.INTERRUPTED, 75)
    assert "too many clients" in report.reason
    assert doubled(work) == []


def test_nobody_waits_for_a_lost_database_once_the_run_is_to_end(work: str) -> None:
    drive: Driver

    def open_once_in_vain() -> Connection:
        drive.stop_flag.request("stopped by SIGTERM", 15)
        raise psycopg.OperationalError("Connection refused")

    drive = Driver(open_once_in_vain, patience=300)
    report = drive.run(TinyJob)
    assert (report.outcome, report.exit_code) == (Outcome.STOPPED, 143)
    assert 2 < report.duration_s < 100


@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_while_the_database_is_in_trouble_stops_the_run(work: str, verb: str) -> None:
    drive = driver(work)

    def wait_for_others(conn: Connection) -> None:
        drive.stop_flag.request("stopped by SIGTERM", 15)
        # Such as a transaction of somebody that is open for minutes.
        raise_in_server("55P03")(conn)

    report = drive.run(troubled(verb, wait_for_others, times=1_000))
    assert (report.outcome, report.exit_code) == (Outcome.STOPPED, 143), report.reason
    assert report.reason == "stopped by SIGTERM"
    assert doubled(work) == []


def test_a_run_that_may_not_give_back_is_interrupted_for_that_reason(work: str) -> None:
    def stop(_: Connection) -> None:
        raise StopRun("another run declared it dead")

    report = driver(work).run(troubled("release", stop))
    assert (report.outcome, report.exit_code) == (Outcome.INTERRUPTED, 75)
    assert report.reason == "another run declared it dead"


def test_an_error_that_does_not_pass_fails_the_run_in_spite_of_a_signal(work: str) -> None:
    drive = driver(work)

    def misspell(conn: Connection) -> None:
        drive.stop_flag.request("stopped by SIGTERM", 15)
        conn.execute("SELECT misspelt FROM work")

    report = drive.run(troubled("verify", misspell))
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)


def test_a_signal_ends_a_verification_whatever_it_waits_for(work: str) -> None:
    drive = driver(work)

    class Counts(TinyJob):
        def verify(self, conn: Connection, run: RunResult | None) -> Iterator[Verification]:
            threading.Timer(0.1, drive.stop_flag.request, ["stopped by SIGTERM", 15]).start()
            conn.execute("SELECT pg_sleep(600)")
            yield Verification.equal("seconds", 600, 600)

    report = drive.runner(Counts).verify()
    assert (report.outcome, report.exit_code) == (Outcome.STOPPED, 143)
    assert report.duration_s < 100


def test_a_row_that_failed_is_reported_although_the_next_claim_fails_as_well(work: str) -> None:
    # Such as a page that breaks our code: the next cannot be claimed without it.
    class Lost(FetchingJob):
        def claim(self, conn: Connection, size: int) -> Sequence[int] | Wait:
            if len(self.claims) == 2:
                raise RunFailed("the next is not known")
            return super().claim(conn, 1)

        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            if 2 in items:
                raise ValueError("nobody foresaw this")
            return items

        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            wait_for(lambda: all(thread.name != "claim" for thread in threading.enumerate()))
            return super().write(conn, results)

    report = driver(work).run(Lost, concurrency=1)
    assert (report.outcome, report.reason) == (Outcome.FAILED, "the next is not known")
    assert any("nobody foresaw this" in problem.detail for problem in report.problems)
    assert query(work, "SELECT id FROM work WHERE state <> 'waiting'") == [(1,)]
