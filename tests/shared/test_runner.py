"""How a run goes: transactions, overlap, bad rows, and every way to end."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from psycopg import Connection

from artwork_backfill.shared.engine.job import (
    Job,
    Partition,
    Problem,
    Run,
    RunFailed,
    RunResult,
    StopRun,
    Verification,
    Wait,
    Written,
)
from artwork_backfill.shared.engine.report import LISTED_PROBLEMS, Outcome
from artwork_backfill.shared.engine.session import Session
from artwork_backfill.shared.engine.sources import Keyset
from artwork_backfill.shared.service_stats import ServiceStats
from artwork_backfill.shared.settings import Settings
from sandbox.postgres import Cluster
from tests.timing import LIMIT_S, at_most
from tests.tiny import (
    FetchingJob,
    TinyJob,
    create_work,
    doubled,
    driver,
    execute,
    query,
    states,
)


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


def spoil(dsn: str, *ids: int) -> None:
    """Let the database refuse these rows."""
    for id_ in ids:
        execute(dsn, f"UPDATE work SET bad = TRUE WHERE id = {id_}")


# -- transactions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("job_type", [TinyJob, FetchingJob])
def test_every_row_is_written_once_in_one_transaction_per_batch(
    work: str, job_type: type[Job[Any, Any]]
) -> None:
    report = driver(work).run(job_type)
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    assert report.totals == {"scanned": 35, "written": 35, "skipped": 0, "failed": 0}
    assert states(work) == {"done": 35}
    batches = query(work, "SELECT count(*), min(id) FROM work GROUP BY transaction ORDER BY 2")
    assert batches == [(10, 1), (10, 11), (10, 21), (5, 31)]
    assert doubled(work) == []


def test_no_transaction_is_open_during_a_fetch(work: str) -> None:
    seen: list[list[tuple[Any, ...]]] = []

    class Looks(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            seen.append(
                query(
                    work,
                    "SELECT state, xact_start IS NOT NULL FROM pg_stat_activity"
                    " WHERE application_name = 'tiny' AND datname = current_database()",
                )
            )
            return items

    # A single batch: of several, one may be written while the next is fetched.
    driver(work).run(Looks, limit=4, batch_size=4)
    assert len(seen) == 4
    for sessions in seen:
        assert sessions
        assert set(sessions) == {("idle", False)}


def test_sessions_carry_a_name_and_time_outs(work: str) -> None:
    found: dict[str, str] = {}
    names = ("lock_timeout", "idle_in_transaction_session_timeout", "application_name")

    class Looks(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            for name in ("statement_timeout", *names):
                row = conn.execute("SELECT current_setting(%s)", (name,)).fetchone()
                assert row is not None
                found[name] = row[0]
            return super().write(conn, results)

    driver(work).run(Looks, limit=1)
    assert found == {
        "statement_timeout": "30s",
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "1min",
        "application_name": "tiny",
    }


def test_the_next_batch_is_fetched_while_this_one_is_written(work: str) -> None:
    fetching_second = threading.Event()

    class Overlaps(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            if items[0] > 10:
                fetching_second.set()
            return items

        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            if results[0] == 1:
                assert fetching_second.wait(LIMIT_S)
            return super().write(conn, results)

    assert driver(work).run(Overlaps).exit_code == 0


def test_the_next_batch_is_claimed_while_this_one_is_written(work: str) -> None:
    claimed_second = threading.Event()

    class Overlaps(TinyJob):
        def claimed(self, items: Sequence[int]) -> None:
            super().claimed(items)
            if len(self.claims) == 2:
                claimed_second.set()

        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            if results[0] == 1:
                assert claimed_second.wait(LIMIT_S)
            return super().write(conn, results)

    assert driver(work).run(Overlaps).exit_code == 0


def test_no_more_than_a_few_batches_are_claimed_ahead(work: str) -> None:
    most = 0

    class Ahead(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            nonlocal most
            most = max(most, sum(map(len, self.claims)) - results[0] + 1)
            return super().write(conn, results)

    driver(work).run(Ahead, batch_size=2)
    assert most <= 3 * 2


def test_fetches_run_as_many_at_once_as_was_asked_for(work: str) -> None:
    together = threading.Barrier(7)

    class Meets(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            together.wait(LIMIT_S)
            return items

    # 35 is five times seven: were there fewer threads, the barrier would break.
    assert driver(work).run(Meets, concurrency=7, batch_size=35).totals["written"] == 35


class Later(int):
    """A result that is not ready when it is fetched."""

    ready_at: float


def test_while_a_batch_is_not_ready_the_next_ones_are_fetched(work: str) -> None:
    ready_at: dict[int, float] = {}
    fetched: list[int] = []
    early: list[int] = []
    all_fetched = threading.Event()

    class Rests(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            [later] = map(Later, items)
            # The first batch waits until six more are fetched, as far as the machine manages that.
            later.ready_at = time.monotonic() + (LIMIT_S if later <= 5 else 0)
            ready_at[later] = later.ready_at
            fetched.append(later)
            if len(fetched) == 35:
                all_fetched.set()
            return [later]

        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            early.extend(id_ for id_ in results if ready_at[id_] > time.monotonic())
            return super().write(conn, results)

    drive = driver(work)
    thread = threading.Thread(target=drive.run, args=(Rests,), kwargs={"batch_size": 5})
    thread.start()
    assert all_fetched.wait(LIMIT_S)
    assert states(work) == {"claimed": 35}
    assert early == []
    # A run that is to end does not wait.
    drive.stop_flag.request("seen enough")
    with at_most(5):
        thread.join(LIMIT_S)
    assert early


def test_what_is_not_ready_is_written_later_and_in_order(work: str) -> None:
    written: list[int] = []
    early: list[int] = []

    class Rests(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            [later] = map(Later, items)
            later.ready_at = time.monotonic() + (0.3 if later % 10 == 1 else 0)
            return [later]

        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            now = time.monotonic()
            early.extend(id_ for id_ in results if getattr(id_, "ready_at") > now)  # noqa: B009
            written.extend(results)
            return super().write(conn, results)

    report = driver(work).run(Rests)
    assert report.exit_code == 0
    assert early == []
    assert written == list(range(1, 36))


# -- rows that are refused -------------------------------------------------------------------------


@pytest.mark.parametrize("job_type", [TinyJob, FetchingJob])
@pytest.mark.parametrize("bad", [(1,), (35,), (13, 14), (7, 12, 29)])
def test_refused_rows_are_isolated_and_the_rest_is_written(
    work: str, job_type: type[Job[Any, Any]], bad: tuple[int, ...]
) -> None:
    spoil(work, *bad)
    report = driver(work).run(job_type)
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    assert report.totals["written"] == 35 - len(bad)
    assert report.totals["failed"] == report.totals["problems"] == len(bad)
    left = query(work, "SELECT id, state, writes FROM work WHERE state <> 'done' ORDER BY id")
    assert left == [(id_, "waiting", 0) for id_ in bad]
    assert [problem.what for problem in report.problems] == [str(id_) for id_ in bad]
    assert all("good_when_done" in problem.detail for problem in report.problems)
    assert "rows left as they were" in report.reason
    assert doubled(work) == []


def test_a_range_is_split_down_to_its_bad_row(work: str) -> None:
    class Part(NamedTuple):
        first: int
        end: int

        @property
        def rows(self) -> int:
            return self.end - self.first

        def halves(self) -> Sequence[Any]:
            middle = (self.first + self.end) // 2
            return (Part(self.first, middle), Part(middle, self.end)) if self.rows > 1 else ()

    class Ranges(Job[Part, Part]):
        name = "ranges"
        database = Settings.musicbrainz_database

        def source(self) -> Keyset[Part]:
            return Keyset(
                lambda _conn, after, _size: [] if after else [Part(1, 36)],
                lambda part: part.end,
                lambda _: 35,
            )

        def write(self, conn: Connection, results: Sequence[Part]) -> Written:
            (part,) = results
            written = conn.execute(
                "UPDATE work SET state = 'done' WHERE id >= %s AND id < %s", part
            ).rowcount
            return Written.of(written)

        def verify(self, conn: Connection, run: RunResult | None) -> Any:
            return ()

    spoil(work, 8, 22)
    report = driver(work).run(Ranges)
    assert report.totals["written"] == 33
    assert report.totals["failed"] == 2
    assert [problem.what for problem in report.problems] == [str(Part(8, 9)), str(Part(22, 23))]
    assert query(work, "SELECT id FROM work WHERE state = 'waiting' ORDER BY id") == [(8,), (22,)]


def test_a_run_whose_rows_are_all_refused_fails(work: str) -> None:
    execute(work, "UPDATE work SET bad = TRUE WHERE id > 12")
    report = driver(work, hopeless_after=8).run(TinyJob, batch_size=3)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert "refuses one row after another" in report.reason
    assert states(work) == {"done": 12, "waiting": 23}


def test_the_report_lists_the_first_problems_and_counts_all(
    work: str,
) -> None:
    execute(work, "INSERT INTO work (id) SELECT generate_series(36, 200)")
    execute(work, "UPDATE work SET bad = TRUE WHERE mod(id, 3) = 0")
    report = driver(work).run(TinyJob)
    assert report.totals["problems"] == report.totals["failed"] == 66
    assert len(report.problems) == LISTED_PROBLEMS


def test_problems_of_the_job_itself_are_reported(work: str) -> None:
    class Complains(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            return Written(super().write(conn, results).counts, [Problem("line 7", "is damaged")])

    report = driver(work).run(Complains, batch_size=35)
    assert Problem("line 7", "is damaged") in report.problems


def test_a_fetch_that_fails_leaves_its_row_alone_as_it_was(work: str) -> None:
    class Fails(FetchingJob):
        fetch_size = 4

        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            if 14 in items:
                raise ValueError("no answer for 14")
            return items

    report = driver(work).run(Fails)
    assert report.exit_code == 3
    assert report.totals["written"] == 34
    assert report.totals["failed"] == 1
    assert report.problems == [Problem("14", "ValueError: no answer for 14")]
    assert query(work, "SELECT id, state FROM work WHERE state <> 'done'") == [(14, "waiting")]


def test_a_fetch_with_too_few_results_fails_its_rows(work: str) -> None:
    class Forgets(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            return []

    report = driver(work).run(Forgets, limit=3)
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    assert report.totals["failed"] == 3
    assert "fetch returned 0 results for 1 items" in report.problems[0].detail
    assert states(work) == {"waiting": 35}


# -- ending as planned -----------------------------------------------------------------------------


@pytest.mark.parametrize("job_type", [TinyJob, FetchingJob])
@pytest.mark.parametrize("limit", [1, 9, 10, 25])
def test_a_limit_stops_after_exactly_so_many_rows(
    work: str, job_type: type[Job[Any, Any]], limit: int
) -> None:
    report = driver(work).run(job_type, limit=limit)
    assert (report.outcome, report.exit_code) == (Outcome.STOPPED, 0)
    assert report.reason == f"the limit of {limit} rows was reached"
    assert states(work) == {"done": limit, "waiting": 35 - limit}


def test_a_limit_beyond_the_last_row_stops_nothing(work: str) -> None:
    assert driver(work).run(TinyJob, limit=36).outcome is Outcome.VERIFIED


def test_runs_after_a_limit_go_on_where_the_last_one_ended(work: str) -> None:
    for done in (20, 35):
        driver(work).run(TinyJob, limit=20)
        assert states(work)["done"] == done
    assert doubled(work) == []


@pytest.mark.parametrize("job_type", [TinyJob, FetchingJob])
def test_a_request_to_stop_finishes_the_batch_in_hand_and_releases_the_rest(
    work: str, job_type: type[TinyJob]
) -> None:
    drive = driver(work)

    def stop(self: TinyJob, written: Written) -> None:
        drive.stop_flag.request("it was enough")

    report = drive.run(type("Stops", (job_type,), {"committed": stop}))
    assert (report.outcome, report.exit_code) == (Outcome.STOPPED, 0)
    assert report.reason == "it was enough"
    assert 10 <= states(work)["done"] < 35
    assert set(states(work)) == {"done", "waiting"}


@pytest.mark.parametrize(
    ("planned", "outcome", "exit_code"),
    [(False, Outcome.INTERRUPTED, 75), (True, Outcome.STOPPED, 0)],
)
def test_a_fetch_may_end_the_run_in_good_order(
    work: str, planned: bool, outcome: Outcome, exit_code: int
) -> None:
    class Stops(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            if items[0] > 14:
                raise StopRun("the service is down", planned=planned)
            return items

    report = driver(work).run(Stops, concurrency=1)
    assert (report.outcome, report.exit_code) == (outcome, exit_code)
    assert report.reason == "the service is down"
    assert report.totals["written"] == 14
    assert report.totals["released"] >= 6
    assert states(work) == {"done": 14, "waiting": 21}


def test_a_fetch_may_fail_the_run_and_what_was_fetched_is_written(work: str) -> None:
    class Refused(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            if items[0] > 14:
                raise RunFailed("SOME_KEY was refused")
            return items

    report = driver(work).run(Refused, concurrency=1)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert report.reason == "SOME_KEY was refused"
    assert states(work) == {"done": 14, "waiting": 21}


def test_what_waits_in_a_fetch_is_released_when_the_run_is_to_end(work: str) -> None:
    drive = driver(work)

    class Waits(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            if items[0] == 5:
                drive.stop_flag.request("by hand")
            if items[0] >= 5:
                self.run.stop_flag.wait()
                raise ConnectionError("interrupted")
            return items

    report = drive.run(Waits, concurrency=1)
    assert report.totals["written"] == 4
    assert report.totals["failed"] == 0
    assert states(work) == {"done": 4, "waiting": 31}


def test_fetches_that_hang_are_given_up_after_a_moment(work: str) -> None:
    drive = driver(work, grace=0.1)
    hanging, answered = threading.Event(), threading.Event()

    class Hangs(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            if items[0] == 3:
                drive.stop_flag.request("by hand")
                assert hanging.wait(LIMIT_S)
                answered.set()
            return items

    report = drive.run(Hangs, concurrency=4)
    assert report.reason == "by hand"
    assert "claimed" not in states(work)
    assert query(work, "SELECT state FROM work WHERE id = 3") == [("waiting",)]
    hanging.set()
    assert answered.wait(LIMIT_S)
    # The answer came too late to change anything.
    assert query(work, "SELECT state, writes FROM work WHERE id = 3") == [("waiting", 0)]


def test_a_wait_is_logged_and_ends_when_there_is_work_again(
    work: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    class Waits(TinyJob):
        asked = 0

        def claim(self, conn: Connection, size: int) -> Sequence[int] | Wait:
            self.asked += 1
            if self.asked in (1, 2, 3):
                return Wait("the queue is full", 0.01)
            return super().claim(conn, size)

    report = driver(work).run(Waits)
    assert report.totals["written"] == 35
    assert caplog.messages.count("waiting: the queue is full") == 1


def test_in_a_pause_nothing_is_fetched_and_what_is_not_claimed_is_kept(work: str) -> None:
    """A cursor in memory does not come back to what is given back."""
    asked: list[float] = []
    fetched: list[float] = []

    class Job(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            fetched.append(time.monotonic())
            time.sleep(0.01)
            return items

    def ask(session: Session) -> Wait | None:
        is_begun = len(fetched) >= 3
        if is_begun and (not asked or time.monotonic() < asked[0] + 0.5):
            asked.append(time.monotonic())
            return Wait("paused by ann", 0.05, is_pause=True)
        return None

    drive = driver(work)
    runner = drive.runner(Job)
    drive.job.run.record.ask = ask
    report = runner.run()

    assert report.outcome == "verified"
    assert states(work) == {"done": 35}
    assert doubled(work) == []
    # Two were under way, and each thread may have been about to begin another.
    paused = [moment for moment in fetched if asked[0] + 0.05 < moment < asked[-1]]
    assert paused == []
    assert len(fetched) == 35


def test_a_run_that_waits_can_be_stopped(work: str) -> None:
    drive = driver(work)

    class Waits(TinyJob):
        def claim(self, conn: Connection, size: int) -> Sequence[int] | Wait:
            threading.Timer(0.05, drive.stop_flag.request, ["the time limit"]).start()
            return Wait("the queue is full", 60)

    report = drive.run(Waits)
    assert (report.outcome, report.reason) == (Outcome.STOPPED, "the time limit")
    assert report.duration_s < 50


def test_a_source_may_end_the_run_in_good_order(work: str) -> None:
    class Guarded(TinyJob):
        def claim(self, conn: Connection, size: int) -> Sequence[int] | Wait:
            if self.claims:
                raise StopRun("the indexer is not working")
            return super().claim(conn, size)

    report = driver(work).run(Guarded)
    assert (report.outcome, report.exit_code) == (Outcome.INTERRUPTED, 75)
    assert report.reason == "the indexer is not working"
    assert states(work) == {"done": 10, "waiting": 25}


def test_a_verification_that_does_not_hold_is_exit_code_3(work: str) -> None:
    class Doubts(TinyJob):
        def verify(self, conn: Connection, run: RunResult | None) -> Any:
            return [
                Verification.equal("apples", 3, 3),
                Verification.equal("pears", 3, 2, "one is gone"),
            ]

    report = driver(work).run(Doubts)
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    assert report.reason == "the verification does not hold (pears)"
    assert driver(work).runner(Doubts).verify().exit_code == 3


def test_verification_alone_changes_nothing(work: str) -> None:
    report = driver(work).runner(TinyJob).verify()
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    assert [check.name for check in report.verification] == ["rows still claimed"]
    assert states(work) == {"waiting": 35}


def test_looking_at_much_takes_a_transaction_for_each_statement(work: str) -> None:
    seen: dict[bool, list[Any]] = {True: [], False: []}

    class Looks(TinyJob):
        def verify(self, conn: Connection, run: RunResult | None) -> Any:
            moments = [conn.execute("SELECT now()").fetchone() for _ in range(2)]
            read_only = conn.execute("SHOW transaction_read_only").fetchone()
            seen[self.one_snapshot] = [len(set(moments)), read_only]
            return super().verify(conn, run)

    for one_snapshot in (True, False):
        job_type = type("Tells", (Looks,), {"one_snapshot": one_snapshot})
        assert driver(work).run(job_type).outcome is Outcome.VERIFIED
    assert seen == {True: [1, ("on",)], False: [2, ("on",)]}


@pytest.mark.parametrize("one_snapshot", [True, False])
@pytest.mark.parametrize("verb", ["count", "verify"])
def test_a_verb_that_looks_cannot_write(work: str, verb: str, one_snapshot: bool) -> None:
    def write(_: TinyJob, conn: Connection, *__: object) -> int:
        return conn.execute("UPDATE work SET state = 'done'").rowcount

    report = driver(work).run(
        type("Careless", (TinyJob,), {verb: write, "one_snapshot": one_snapshot})
    )
    assert report.exit_code == 1
    assert "read-only transaction" in report.reason
    assert report.duration_s < 15


# -- failing ---------------------------------------------------------------------------------------


class Broken(Exception):
    """Something that nobody foresaw."""


@pytest.mark.parametrize("verb", ["count", "claim", "write", "verify", "committed"])
def test_an_error_in_any_verb_fails_the_run_with_a_report(work: str, verb: str) -> None:
    def fail(*_: object) -> None:
        raise Broken(f"in {verb}")

    job_type = type("Breaks", (TinyJob,), {verb: fail})
    drive = driver(work)
    report = drive.run(job_type)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert report.reason == f"Broken: in {verb}"
    assert report.problems[-1].detail == f"Broken: in {verb}"
    assert "claimed" not in states(work)


def test_claims_are_given_back_when_a_later_claim_fails(work: str) -> None:
    class Breaks(FetchingJob):
        def claim(self, conn: Connection, size: int) -> Sequence[int] | Wait:
            if self.claims:
                raise Broken("in claim")
            return super().claim(conn, size)

        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            if items[0] > 5:
                self.run.stop_flag.wait(LIMIT_S)
            return items

    assert driver(work).run(Breaks, concurrency=20).reason == "Broken: in claim"
    assert states(work) == {"waiting": 35}


def test_an_error_while_clearing_up_hides_neither_the_report_nor_the_cause(work: str) -> None:
    class Unclosable:
        name = "something"

        def stats(self) -> Any:
            return ServiceStats(0, 0, 0, 0.0, 0.0)

        def close(self) -> None:
            raise Broken("in close")

    class Breaks(TinyJob):
        def __init__(self, run: Run) -> None:
            super().__init__(run)
            run.use(Unclosable())

        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            raise Broken("the first cause")

        def release(self, conn: Connection, items: Sequence[int]) -> None:
            raise Broken("in release")

    report = driver(work).run(Breaks)
    assert report.reason == "Broken: the first cause"
    assert report.requests["something"].requests == 0


# -- size of batches, shares, dry runs, memory -----------------------------------------------------


def test_batches_grow_until_a_write_takes_its_time_and_never_beyond_the_maximum(work: str) -> None:
    execute(work, "INSERT INTO work (id) SELECT generate_series(36, 3000)")
    drive = driver(work)

    class Small(TinyJob):
        max_batch_size = 300

    drive.run(Small, fixed_batch_size=False)
    sizes = [len(claim) for claim in drive.job.claims]
    assert sizes[0] == 10
    assert max(sizes) == 300
    assert sorted(sizes[:-1]) == sizes[:-1]


def test_what_making_the_groups_takes_is_no_reason_for_smaller_batches(work: str) -> None:
    class Asks(TinyJob):
        def groups(self, results: Sequence[int]) -> Iterator[Sequence[int]]:
            # Such as a service about some of them once more.
            time.sleep(1.1)
            yield results

    drive = driver(work)
    drive.run(Asks, fixed_batch_size=False, batch_size=17)
    assert [len(claim) for claim in drive.job.claims][:2] == [17, 17]


def test_a_fixed_size_stays(work: str) -> None:
    drive = driver(work)
    drive.run(TinyJob, batch_size=7)
    assert [len(claim) for claim in drive.job.claims] == [7] * 5


def test_two_partitions_share_the_rows(work: str) -> None:
    for index in (0, 1):
        report = driver(work).run(TinyJob, partition=Partition(index, 2))
        assert report.totals["written"] == (17, 18)[index]
    assert states(work) == {"done": 35}
    assert doubled(work) == []


@pytest.mark.parametrize("job_type", [TinyJob, FetchingJob])
def test_a_dry_run_reports_the_same_and_changes_nothing(
    work: str, job_type: type[Job[Any, Any]]
) -> None:
    before = query(work, "SELECT xmin, ctid, * FROM work ORDER BY id")
    report = driver(work).run(job_type, dry_run=True)
    assert report.dry_run
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    assert report.totals["written"] == 35
    assert report.verification == []
    assert query(work, "SELECT xmin, ctid, * FROM work ORDER BY id") == before


def test_a_job_that_writes_in_a_dry_run_is_stopped_by_the_database(work: str) -> None:
    class Careless(TinyJob):
        def preview(self, conn: Connection, results: Sequence[int]) -> Written:
            return self.write(conn, results)

    report = driver(work).run(Careless, dry_run=True)
    assert report.exit_code == 1
    assert "read-only transaction" in report.reason
    # It is not tried again, for the twenty seconds that trouble may take.
    assert report.duration_s < 15
    assert states(work) == {"waiting": 35}


def test_memory_does_not_grow_with_the_number_of_batches(database: str) -> None:
    create_work(database, 500)
    sizes: list[int] = []

    class Measured(FetchingJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            self.last = results[0]
            return super().write(conn, results)

        def committed(self, written: Written) -> None:
            self.claims.clear()
            if self.last in (100, 500):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        report = driver(database).run(Measured, batch_size=1)
    finally:
        tracemalloc.stop()
    assert report.totals["written"] == 500
    assert sizes[1] - sizes[0] < 80_000
