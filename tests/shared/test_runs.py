"""The records of runs: who is alive, what people ask of a run, and how its end is told."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from artwork_backfill.shared.engine.errors import StopRun
from artwork_backfill.shared.engine.job import Wait, Written
from artwork_backfill.shared.engine.report import Outcome
from artwork_backfill.shared.engine.runs import RunRecord
from artwork_backfill.shared.engine.session import Session, connect
from tests.tiny import TinyJob, create_work, driver, execute, query, states, wait_for

STOP = "UPDATE artwork_indexer.backfill_run SET requested = 'stop', requested_by = 'anna'"
HOLD = (
    "INSERT INTO artwork_indexer.backfill_hold VALUES ('tiny', 'ben', 'a large import')"
    " ON CONFLICT DO NOTHING"
)


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(migrated_database: str) -> str:
    """URL of a database with the table of runs, and 35 rows to work on."""
    create_work(migrated_database, 35)
    return migrated_database


@pytest.fixture
def session(database: str) -> Iterator[Session]:
    with closing(Session(lambda: connect(database, "test"))) as session:
        yield session


def begun(session: Session, clock: Clock | None = None) -> RunRecord:
    # A server that has just started takes no run for dead.
    record = RunRecord(uuid.uuid4(), dead_after=0.3, clock=clock or Clock())
    record.begin(session, "tiny", {"limit": 3})
    return record


def run_rows(dsn: str, columns: str) -> list[tuple[Any, ...]]:
    return query(dsn, f"SELECT {columns} FROM artwork_indexer.backfill_run ORDER BY started")


def test_a_run_has_a_row_from_its_beginning_to_its_end(database: str) -> None:
    seen: list[tuple[Any, ...]] = []

    class Looks(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            seen.extend(run_rows(database, "id::text, job, options->>'limit', finished"))
            return super().write(conn, results)

    report = driver(database).run(Looks, limit=7)
    assert seen == [(report.run_id, "tiny", "7", None)]
    ((outcome, code, written, told),) = run_rows(
        database, "outcome, exit_code, totals->>'written', report->>'reason'"
    )
    assert (outcome, code, written) == ("stopped", 0, "7")
    assert told == "the limit of 7 rows was reached"


def test_a_dry_run_and_a_verification_leave_no_row(database: str) -> None:
    driver(database).run(TinyJob, dry_run=True)
    driver(database).runner(TinyJob).verify()
    assert run_rows(database, "id") == []


def test_a_failure_is_told_in_the_row(database: str) -> None:
    class Fails(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            raise RuntimeError("not foreseen\0")

    assert driver(database).run(Fails).exit_code == 1
    assert run_rows(database, "outcome, exit_code") == [("failed", 1)]


def test_a_run_beats_while_a_batch_takes_its_time(database: str) -> None:
    beats = "heartbeat > started + interval '0.2 s', totals->>'written'"

    class Slow(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            if results[0] == 11:
                wait_for(lambda: run_rows(database, beats) == [(True, "10")])
            return super().write(conn, results)

    assert driver(database, dead_after=1.0).run(Slow).exit_code == 0


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        (STOP, "stopped by anna"),
        (HOLD, "the job is held by ben: a large import"),
    ],
    ids=["stop", "hold"],
)
def test_people_may_end_a_run_in_good_order(database: str, wish: str, reason: str) -> None:
    class Asked(TinyJob):
        def claim(self, conn: Connection, size: int) -> Sequence[int] | Wait:
            if len(self.claims) == 1:
                execute(database, wish)
                # A run asks at most once a second.
                return Wait("a moment", 1.1)
            return super().claim(conn, size)

    report = driver(database).run(Asked)
    assert (report.outcome, report.exit_code) == (Outcome.STOPPED, 0)
    assert report.reason == reason
    assert states(database) == {"done": 10, "waiting": 25}


def test_a_held_job_begins_nothing(database: str) -> None:
    execute(database, HOLD)
    report = driver(database).run(TinyJob)
    assert (report.exit_code, report.reason) == (0, "the job is held by ben: a large import")
    assert states(database) == {"waiting": 35}


def test_a_paused_run_waits_and_says_for_whom(database: str, session: Session) -> None:
    clock = Clock()
    record = begun(session, clock)
    execute(
        database,
        "UPDATE artwork_indexer.backfill_run"
        " SET requested = 'pause', requested_by = 'anna', requested_why = 'a large import'",
    )
    assert record.ask(session) == Wait("paused by anna: a large import", is_pause=True)
    execute(database, "UPDATE artwork_indexer.backfill_run SET requested = NULL")
    clock.now += 1.0
    assert record.ask(session) is None


def test_a_run_that_is_declared_dead_writes_nothing(database: str, session: Session) -> None:
    record = begun(session)
    guarded = Session(lambda: connect(database, "test"), guard=record.guard)
    with closing(guarded):
        guarded.transaction(lambda conn: conn.execute("UPDATE work SET run = NULL"))
        execute(database, "UPDATE artwork_indexer.backfill_run SET finished = now()")
        with pytest.raises(StopRun, match="declared it dead"):
            guarded.transaction(lambda conn: conn.execute("DELETE FROM work"))
    assert states(database) == {"waiting": 35}
    assert not record.beat(session)


def test_a_run_without_heartbeat_is_declared_dead_and_its_own_row_never(
    database: str, session: Session
) -> None:
    other, record = begun(session), begun(session)
    execute(database, "UPDATE artwork_indexer.backfill_run SET heartbeat = now() - interval '3 s'")
    session.transaction(record.reap)
    assert dict(run_rows(database, "id, outcome")) == {other.id: "dead", record.id: None}


def test_a_run_that_was_cut_off_itself_waits_before_it_takes_others_for_dead(
    database: str, session: Session
) -> None:
    clock = Clock()
    begun(session)
    record = begun(session, clock)
    execute(database, "UPDATE artwork_indexer.backfill_run SET heartbeat = now() - interval '3 s'")
    clock.now += 2.5
    record.beat(session)
    session.transaction(record.reap)
    assert {outcome for (outcome,) in run_rows(database, "outcome")} == {None}
    clock.now += 2.1
    session.transaction(record.reap)
    assert "dead" in {outcome for (outcome,) in run_rows(database, "outcome")}


def test_without_the_table_everything_works(empty_database: str) -> None:
    create_work(empty_database, 35)
    assert driver(empty_database).run(TinyJob).outcome is Outcome.VERIFIED
    assert states(empty_database) == {"done": 35}


def test_without_a_right_to_the_table_everything_works(database: str) -> None:
    role = f"poor_{uuid.uuid4().hex}"
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE ON work TO {role}".encode())
        conn.execute(f"GRANT USAGE ON SCHEMA artwork_indexer TO {role}".encode())
        try:
            poor = psycopg.conninfo.make_conninfo(database, user=role)
            assert driver(poor).run(TinyJob).outcome is Outcome.VERIFIED
        finally:
            conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert run_rows(database, "id") == []
