"""Runs any job from its first count to its report.

This is the only place that writes batches, with their transactions, the isolation of bad rows, the
totals and the end of a run. It knows nothing about what a job does.

| how a run ends                                             | outcome       | exit code    |
|------------------------------------------------------------|---------------|--------------|
| at its end, and the verification holds                     | `verified`    | 0            |
| at its end or its limit, with a wrong count or failed rows | `unverified`  | 3            |
| at its limit, its time limit, or on request                | `stopped`     | 0            |
| by a signal                                                | `stopped`     | 128 + signal |
| by `StopRun`, or by a database that has no room or a lock  | `interrupted` | 75           |
| by `RunFailed`, or by an unforeseen error                  | `failed`      | 1            |
| by `WrongUsage`, before anything was read                  | `failed`      | 2            |
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Final, Generic, TypeVar

import psycopg
from psycopg import Connection

from artwork_backfill.shared.engine import session as db
from artwork_backfill.shared.engine.errors import EngineError, RunFailed, StopRun, WrongUsage
from artwork_backfill.shared.engine.job import (
    Alone,
    Checked,
    Failed,
    Item,
    Job,
    Left,
    Note,
    Problem,
    Result,
    Run,
    RunResult,
    Section,
    Verification,
    Written,
    halves_of,
    item_of,
    rows_of,
)
from artwork_backfill.shared.engine.log import RunLog
from artwork_backfill.shared.engine.metrics import MetricsFile
from artwork_backfill.shared.engine.pipeline import GRACE_S, Batch, BatchSize, Pipeline
from artwork_backfill.shared.engine.progress import Progress
from artwork_backfill.shared.engine.report import LISTED_PROBLEMS, Outcome, Report
from artwork_backfill.shared.engine.runs import Snapshot
from artwork_backfill.shared.engine.session import Session
from artwork_backfill.shared.engine.sources import Source
from artwork_backfill.shared.engine.stop import StopFlag
from artwork_backfill.shared.version import VERSION

T = TypeVar("T")

#: If the database refuses this many rows in a row, the rows are not the problem.
HOPELESS_AFTER: Final = 100

#: How often a verification without a run checks the stop flag, in seconds.
_LOOK_EVERY_S: Final = 0.5

#: Exit codes; see the table above.
FAILED: Final = 1
WRONG_USAGE: Final = 2
UNVERIFIED: Final = 3
INTERRUPTED: Final = 75


@dataclass(slots=True)
class _Counted:
    """The verification of a job, and why it is unreliable, if it is."""

    checks: list[Verification] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    #: The number of remaining rows, `None` if it was not counted.
    left: int | None = None
    stop: StopRun | None = None


class Runner(Generic[Item, Result]):
    """One run of one job.

    Parameters
    ----------
    patience, grace
        How long a transaction is retried while the database fails, and how long current requests
        may still take when the run is to end, in seconds.
    hopeless_after
        How many rows in a row the database may refuse.
    write_timeout
        How long a statement of a write may take, in seconds. After that the batch is written in
        parts.
    """

    def __init__(
        self,
        job: Job[Item, Result],
        run: Run,
        *,
        log: RunLog,
        progress: Progress,
        stop_flag: StopFlag,
        metrics: MetricsFile | None = None,
        patience: float = db.PATIENCE_S,
        grace: float = GRACE_S,
        hopeless_after: int = HOPELESS_AFTER,
        write_timeout: float = db.WRITE_TIMEOUT_S,
    ) -> None:
        self._job = job
        self._run = run
        self._log = log
        self._progress = progress
        self._stop_flag = stop_flag
        self._metrics = metrics
        self._grace = grace
        self._hopeless_after = hopeless_after
        self._dry_run = run.options.dry_run
        self._claims, self._writes = (
            Session(
                run.open_connection,
                read_only=self._dry_run,
                guard=run.record.guard,
                stop_flag=stop_flag.event,
                patience=patience,
                write_timeout=write_timeout,
            )
            for _ in range(2)
        )
        self._started_at = datetime.now(UTC)
        self._totals: Counter[str] = Counter(scanned=0, written=0, skipped=0, failed=0)
        self._shown_totals = dict(self._totals)
        self._problems: list[Problem] = []
        self._left_out: list[tuple[Item, str]] = []
        self._refused_in_a_row = 0
        self._last: Item | None = None
        #: Whether threads still wait for an answer and keep the process from ending.
        self.has_stragglers = False

    def run(self) -> Report:
        """Run the job to its end and return the report, whatever happened."""
        self._log.enter("started")
        self._log.info(f"{self._job.name} started", version=VERSION, options=self._options())
        try:
            if self._metrics is not None:
                self._metrics.start()
            report = self._reported(self._run_job)
            self._finish(report)
            if self._metrics is not None:
                self._metrics.finish(report)
            return report
        finally:
            self._close()

    def verify(self) -> Report:
        """Run only the job's verification and return the report."""

        def work() -> Report:
            counted = self._verify(None)
            # A verification that a signal has interrupted proves nothing.
            return self._ended(self._stop_flag.reason, counted, _HOLDS)

        over = Event()
        Thread(target=self._cancel_when_stopped, args=(over,), name="cancel", daemon=True).start()
        try:
            return self._reported(work)
        finally:
            over.set()
            self._close()

    def _cancel_when_stopped(self, over: Event) -> None:
        """Cancel the query of a verification that is to end, because a count may take minutes."""
        while not over.wait(_LOOK_EVERY_S):
            if self._stop_flag.requested:
                self._writes.cancel()

    def _reported(self, work: Callable[[], Report]) -> Report:
        """Return the report of `work`, or of its failure."""
        try:
            return work()
        except StopRun as stop:
            self._stop_flag.request(str(stop), planned=stop.planned)
            return self._ended(self._stop_flag.reason, _Counted())
        except Exception as error:  # even then there is a report
            return self._failed(error)

    def _run_job(self) -> Report:
        record = self._run.record
        if not self._dry_run:
            record.begin(self._writes, self._job.name, self._options())
            record.start_beating(
                lambda: Session(self._run.open_connection, patience=0),
                self._snapshot,
                lambda reason: self._stop_flag.request(reason, planned=False),
            )
            # If the job is held, its rows are not even counted.
            record.ask(self._claims)
        source = self._job.source()
        source.prepare(self._claims)
        expected, limit = source.count(self._claims), self._run.options.limit
        self._progress.start(
            expected if limit is None else limit if expected is None else min(expected, limit)
        )
        ended_early = self._work(source)
        result = RunResult(ended_early is None, self._last)
        return self._ended(ended_early, self._verify(result))

    def _snapshot(self) -> Snapshot:
        """Return the progress of the run; called from the thread of the heartbeat."""
        stats = {client.name: client.stats() for client in self._run.clients}
        requests = {
            name: {"requests": each.requests, "retries": each.retries, "errors": each.errors}
            for name, each in stats.items()
        }
        said = self._log.redactor.text(self._progress.last_words())
        figures = self._progress.figures()
        return Snapshot(self._shown_totals, {**figures, "said": said, "requests": requests})

    # -- working -----------------------------------------------------------------------------------

    def _work(self, source: Source[Item]) -> str | None:
        """Write every batch; return why the run ended before all was done, or None."""
        size = BatchSize(self._run.options, self._job.max_batch_size)
        pipeline = Pipeline(
            self._job,
            source,
            self._run.options,
            session=self._claims,
            size=size,
            stop_flag=self._stop_flag,
            ask=self._run.record.ask,
            on_wait=self._progress.waiting,
            grace=self._grace,
        )
        try:
            with closing(pipeline.batches()) as batches:
                for batch in batches:
                    self._log.enter(f"batch-{batch.number}")
                    seconds = self._write_batch(source, batch)
                    # A batch that a pause has cut is mostly unwritten.
                    size.adapt(0 if batch.is_cut else batch.rows, seconds)
        except Exception:
            self._give_back_quietly(source, pipeline.in_hand())
            raise
        finally:
            self.has_stragglers = pipeline.has_stragglers
        return pipeline.ended_early

    def _write_batch(self, source: Source[Item], batch: Batch[Item, Result]) -> float:
        """Write the results of a batch and give back the rest; return the seconds it took."""
        began = time.monotonic()
        results, failed, unfetched = batch.fetched(), batch.failed(), batch.unfetched()
        for item, message in failed:
            self._problem(str(item), message)
        counts, writing_s, stop = self._write_groups(results)
        left = sum(map(rows_of, results)) - counts.pop("covered", 0)
        self._give_back_failed(source, [*failed, *self._left_out])
        self._left_out.clear()
        if left:
            # Rows among these that were written stay as they are.
            self._give_back(source, [batch.items[i] for i in sorted(batch.results)])
        self._give_back(source, unfetched)
        released = left + sum(map(rows_of, unfetched))
        counts["failed"] += sum(rows_of(item) for item, _ in failed)
        counts.update(scanned=batch.rows - released, released=released)
        if results and not left:
            self._last = batch.items[-1]
        self._totals.update(+counts)
        self._shown_totals = dict(self._totals)
        seconds = time.monotonic() - began
        self._progress.advance(
            f"batch {batch.number} {'previewed' if self._dry_run else 'written'}",
            self._totals["scanned"],
            self._totals,
            rows=batch.rows,
            counts=dict(+counts),
            fetch_s=round(began - batch.taken_at, 3),
            write_s=round(seconds, 3),
        )
        if self._metrics is not None:
            self._metrics.advance(self._totals)
        if stop is not None:
            raise stop
        return writing_s

    def _write_groups(
        self, results: Sequence[Result]
    ) -> tuple[Counter[str], float, StopRun | None]:
        """Write the groups of a batch until a stop.

        Return the counts, with the number of `covered` rows, and the seconds that writing took. Not
        included is the time of making the groups, for which a job may ask a service again.
        """
        counts: Counter[str] = Counter()
        writing_s = 0.0
        try:
            for group in self._job.groups(results) if results else ():
                began = time.monotonic()
                if isinstance(group, Failed):
                    covered: Sequence[Result] = [group.result]
                    counts.update(self._leave_out(group.result, group.reason))
                else:
                    is_alone = isinstance(group, Alone)
                    covered = group.results if isinstance(group, Alone) else group
                    counts.update(self._write(covered, is_alone) if covered else {})
                writing_s += time.monotonic() - began
                counts["covered"] += sum(map(rows_of, covered))
        except StopRun as stop:
            # Before the pipeline is closed, which would set another reason.
            self._stop_flag.request(str(stop), planned=stop.planned)
            return counts, writing_s, stop
        return counts, writing_s, None

    def _write(self, results: Sequence[Result], is_alone: bool) -> Counter[str]:
        """Write results in one transaction; if that is refused or too slow, write its parts."""
        try:
            written = self._apply(results, is_alone)
        except psycopg.Error as error:
            if db.is_passing(error):
                raise
            refusal = db.explain(error)
        else:
            self._refused_in_a_row = 0
            for problem in written.problems:
                self._problem(problem.what, problem.detail, **problem.fields)
            self._job.committed(written)
            return Counter(written.counts)
        parts = self._parts(results)
        if not parts:
            left_out = self._leave_out(results[0], refusal)
            self._refused_in_a_row += 1
            if self._refused_in_a_row >= self._hopeless_after:
                raise RunFailed(
                    f"the database refuses one row after another: {refusal}. Fix the cause, and run"
                    " again"
                )
            return left_out
        counts: Counter[str] = Counter()
        for part in parts:
            counts.update(self._write(part, is_alone))
        return counts

    def _apply(self, results: Sequence[Result], is_alone: bool) -> Written:
        if self._dry_run:
            return self._writes.transaction(lambda conn: self._job.preview(conn, results))
        if is_alone:
            return self._writes.autocommit(lambda conn: self._job.write(conn, results))
        return self._writes.transaction(
            lambda conn: self._job.write(conn, results), once=True, may_split=True
        )

    def _parts(self, results: Sequence[Result]) -> list[Sequence[Result]]:
        if len(results) > 1:
            middle = len(results) // 2
            return [results[:middle], results[middle:]]
        return [[part] for part in halves_of(results[0])]

    def _leave_out(self, result: Result, reason: str) -> Counter[str]:
        """Report the one row that cannot be written, and leave it as it was."""
        self._problem(str(result), reason)
        self._left_out.append((item_of(result), reason))
        return Counter(failed=rows_of(result))

    def _give_back(self, source: Source[Item], items: Sequence[Item]) -> None:
        if items and not self._dry_run:
            source.give_back(self._writes, items)

    def _give_back_failed(self, source: Source[Item], failed: Sequence[tuple[Item, str]]) -> None:
        if failed and not self._dry_run:
            source.fail(self._writes, failed)

    def _give_back_quietly(self, source: Source[Item], items: list[Item]) -> None:
        # The run is already ending, perhaps because the database is gone, and its report must name
        # the first cause. A later run reclaims claims that cannot be given back.
        try:
            self._give_back(source, items)
        except Exception as error:
            self._log.warning(f"{len(items):,} claims could not be given back: {_reason(error)}")

    def _problem(self, what: str, detail: str, **fields: object) -> None:
        self._totals["problems"] += 1
        if len(self._problems) < LISTED_PROBLEMS:
            self._problems.append(Problem(what, detail))
        self._log.warning(f"{what}: {detail}", **fields)

    # -- ending ------------------------------------------------------------------------------------

    def _verify(self, result: RunResult | None) -> _Counted:
        self._log.enter("verify")
        counted = _Counted()
        if self._dry_run and not self._job.verifies_dry_runs:
            # It changed nothing, so there is hardly anything to count.
            return counted
        said, counted.stop = self._count_again(result)
        for each in said:
            match each:
                case Verification():
                    counted.checks.append(each)
                    say = self._log.info if each.ok else self._log.warning
                    found = f"expected {each.expected:,}, found {each.actual:,}"
                    say(f"{each.name}: {found}", ok=each.ok, detail=each.detail)
                case Note():
                    counted.notes.append(each)
                    self._log.info(f"{each.name}: {each.value:,}", detail=each.detail)
                case Problem():
                    self._problem(each.what, each.detail, **each.fields)
                case Left():
                    counted.left = (counted.left or 0) + each.count
        return counted

    def _count_again(self, result: RunResult | None) -> tuple[list[Checked], StopRun | None]:
        def work(conn: Connection) -> tuple[list[Checked], StopRun | None]:
            said: list[Checked] = []
            try:
                said.extend(self._job.verify(conn, result))
            except StopRun as stop:
                return said, stop
            return said, None

        if self._job.one_snapshot:
            return self._writes.transaction(work, read_only=True)
        return self._writes.look(work)

    def _ended(
        self, ended_early: str | None, counted: _Counted, all_done: str | None = None
    ) -> Report:
        stop_flag = self._stop_flag
        reason = ended_early or (str(counted.stop) if counted.stop is not None else None)
        if reason is not None and stop_flag.signal is not None:
            return self._report(Outcome.STOPPED, 128 + stop_flag.signal, reason, counted)
        if ended_early is not None and not stop_flag.is_planned:
            return self._interrupted(ended_early, counted)
        if counted.stop is not None and not counted.stop.planned:
            return self._interrupted(str(counted.stop), counted)
        if self._totals["failed"]:
            counted.checks.append(
                Verification.equal("rows left as they were", 0, self._totals["failed"], "problems")
            )
        wrong = [check.name for check in counted.checks if not check.ok]
        if wrong:
            reason = f"the verification does not hold ({', '.join(wrong)})"
            self._log.error(f"{self._job.name}: {reason}")
            return self._report(Outcome.UNVERIFIED, UNVERIFIED, reason, counted)
        if ended_early is not None:
            return self._report(Outcome.STOPPED, 0, ended_early, counted)
        return self._report(Outcome.VERIFIED, 0, all_done or self._all_done(counted), counted)

    def _all_done(self, counted: _Counted) -> str:
        """Return what is left; that nothing is left only if that was counted."""
        if self._totals["deferred"]:
            return f"{self._totals['deferred']:,} rows were deferred to a later run"
        if counted.left is None:
            return "all rows were processed"
        if counted.left:
            return f"all rows were processed, and {counted.left:,} rows are left"
        return "nothing is left to do"

    def _interrupted(self, reason: str, counted: _Counted) -> Report:
        self._log.error(f"{self._job.name} was interrupted: {reason}")
        return self._report(Outcome.INTERRUPTED, INTERRUPTED, reason, counted)

    def _failed(self, error: Exception) -> Report:
        reason = _reason(error)
        if isinstance(error, psycopg.Error):
            if self._stop_flag.signal is not None and db.is_passing(error):
                # After a signal there is hardly any time for retries, so a temporary error is no
                # failure.
                self._problem(self._job.name, f"stopped without waiting any longer: {reason}")
                return self._ended(self._stop_flag.reason, _Counted())
            if db.is_unavailable(error) or db.is_locked_out(error):
                return self._interrupted(reason, _Counted())
        self._log.enter("failed")
        self._log.error(f"{self._job.name} failed: {reason}", None if _is_known(error) else error)
        self._problems.append(Problem(self._job.name, reason))
        exit_code = WRONG_USAGE if isinstance(error, WrongUsage) else FAILED
        return self._report(Outcome.FAILED, exit_code, reason, _Counted())

    def _report(self, outcome: Outcome, exit_code: int, reason: str, counted: _Counted) -> Report:
        redact = self._log.redactor.text
        sections = list(self._job.sections())
        return Report(
            run_id=str(self._run.id),
            job=self._job.name,
            version=VERSION,
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            reason=redact(reason),
            outcome=outcome,
            exit_code=exit_code,
            dry_run=self._dry_run,
            options=self._options(),
            totals=dict(self._totals),
            requests={client.name: client.stats() for client in self._run.clients},
            verification=counted.checks,
            notes=counted.notes,
            sections=[section for section in sections if isinstance(section, Section)],
            next_steps=[step for step in sections if isinstance(step, str)],
            problems=[
                Problem(redact(problem.what), redact(problem.detail)) for problem in self._problems
            ],
        )

    def _finish(self, report: Report) -> None:
        """Write the end of the run to its record, if possible."""
        session = Session(self._run.open_connection, patience=db.ENDING_PATIENCE_S)
        try:
            with closing(session):
                self._run.record.finish(session, report.outcome, report.exit_code, report.as_dict())
        except Exception as error:  # the report is printed already
            self._log.warning(f"the end of the run could not be recorded: {_reason(error)}")

    def _options(self) -> dict[str, object]:
        options = asdict(self._run.options)
        partition = self._run.options.partition
        options["partition"] = f"{partition.index}/{partition.count}"
        options |= options.pop("own")
        shown = {name: _plain(value) for name, value in options.items()}
        redacted: dict[str, object] = self._log.redactor.value(shown)
        return redacted

    def _close(self) -> None:
        self._progress.stop()
        self._run.record.stop_beating()
        self._claims.close()
        self._writes.close()
        try:
            self._run.close()
        except Exception as error:  # even then there is a report
            self._log.error(f"{self._job.name} did not close: {_reason(error)}", error)


_HOLDS: Final = "the verification holds"


def _is_known(error: Exception) -> bool:
    """Return whether the message of an error suffices, so that no traceback is needed."""
    if isinstance(error, psycopg.Error):
        return db.is_passing(error)
    return isinstance(error, EngineError)


def _reason(error: Exception) -> str:
    if isinstance(error, psycopg.Error):
        if db.is_locked_out(error):
            return (
                "another session keeps a lock that this run needs: end its transaction or run again"
                f" later ({db.explain(error)})"
            )
        return f"the database failed: {db.explain(error)}"
    return str(error) if _is_known(error) else f"{type(error).__name__}: {error}"


def _plain(value: object) -> object:
    """Return the value of an option in a form for JSON."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | float | None) else str(value)
