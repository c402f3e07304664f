"""Drives any job from its first count to its report.

This is the only place that writes, with its transactions, the isolation of bad rows, the totals
and the way a run ends. It knows nothing of what a job does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar

import psycopg
from artwork_backfill.shared.engine import db
from artwork_backfill.shared.engine.job import (
    Item,
    Job,
    Problem,
    Result,
    Run,
    RunFailed,
    StopRun,
    Verification,
)
from artwork_backfill.shared.engine.log import RunLog
from artwork_backfill.shared.engine.pipeline import Batch, BatchSize, Pipeline
from artwork_backfill.shared.engine.progress import Progress
from artwork_backfill.shared.engine.report import LISTED_PROBLEMS, Outcome, Report
from artwork_backfill.shared.engine.stop import Stopping
from artwork_backfill.shared.settings import SettingsError
from artwork_backfill.shared.version import VERSION
from psycopg import Connection

T = TypeVar("T")

#: When the database refuses so many rows one after another, the rows are not the problem.
HOPELESS_AFTER: Final = 100

#: A wait is logged once it has lasted so long, and then so often, in seconds.
_WAIT_WORTH_A_LINE_S: Final = 1.0
_LOG_WAIT_EVERY_S: Final = 60.0

_ALL_DONE: Final = "nothing is left to do"


class Runner(Generic[Item, Result]):
    """One run of one job.

    Parameters
    ----------
    patience
        For how long a transaction is repeated while the database is in trouble, in seconds.
    """

    def __init__(
        self,
        job: Job[Item, Result],
        run: Run,
        *,
        log: RunLog,
        progress: Progress,
        stopping: Stopping,
        patience: float = db.PATIENCE_S,
    ) -> None:
        self._job = job
        self._run = run
        self._log = log
        self._progress = progress
        self._stopping = stopping
        self._dry_run = run.options.dry_run
        ending = stopping.event
        self._claims = db.Session(
            run.open_connection, on_connect=job.on_connect, ending=ending, patience=patience
        )
        self._writes = db.Session(run.open_connection, ending=ending, patience=patience)
        self._started_at = datetime.now(UTC)
        self._totals: Counter[str] = Counter(scanned=0, written=0, skipped=0, failed=0)
        self._problems: list[Problem] = []
        self._refused_in_a_row = 0
        self._logs_wait_at: float | None = None

    def run(self) -> Report:
        """Run the job to its end and return the report, whatever happened."""
        self._log.enter("started")
        self._log.info(f"{self._job.name} started", version=VERSION, options=self._options())
        try:
            self._progress.start(self._look(self._claims, self._job.count))
            ended_early = self._work()
            return self._ended(ended_early, self._verify(ended_early))
        except Exception as error:  # the report comes even then
            return self._failed(error)
        finally:
            self._close()

    def verify(self) -> Report:
        """Repeat the job's verification, and nothing else."""
        try:
            return self._ended(None, self._verify(None))
        except Exception as error:  # the report comes even then
            return self._failed(error)
        finally:
            self._close()

    def _look(self, session: db.Session, verb: Callable[[Connection], T]) -> T:
        """Call a verb that only reads."""
        if self._job.one_snapshot:
            return session.transaction(verb, read_only=True)
        return session.look(verb)

    # -- working -----------------------------------------------------------------------------------

    def _work(self) -> str | None:
        """Write every batch; return why the run ended before all was done, if it did."""
        size = BatchSize(self._run.options, self._job.max_batch_size)
        pipeline = Pipeline(
            self._job,
            self._run.options,
            session=self._claims,
            size=size,
            stopping=self._stopping,
            on_wait=self._wait,
        )
        try:
            with closing(pipeline.batches()) as batches:
                for batch in batches:
                    self._log.enter(f"batch-{batch.number}")
                    size.adapt(batch.rows, self._write_batch(batch))
        except Exception:
            self._give_back_quietly(pipeline.in_hand())
            raise
        return pipeline.ended_early

    def _write_batch(self, batch: Batch[Item, Result]) -> float:
        """Settle a batch and say so; return how long that took, in seconds."""
        began = time.monotonic()
        counts = self._settle(batch)
        self._take_problems()
        seconds = time.monotonic() - began
        self._totals.update(counts)
        self._progress.advance(self._totals["scanned"], self._totals)
        self._log.info(
            f"batch {batch.number} {'previewed' if self._dry_run else 'written'}",
            rows=batch.rows,
            counts=dict(counts),
            fetch_s=round(began - batch.claimed_at, 3),
            write_s=round(seconds, 3),
            totals=dict(self._totals),
        )
        return seconds

    def _settle(self, batch: Batch[Item, Result]) -> Counter[str]:
        """Write what was fetched of a batch, and give back the rest."""
        fetched, failed, unfetched = batch.fetched(), batch.failed(), batch.unfetched()
        for item, message in failed:
            self._problem(self._job.describe(item), message)
        fetched, unconfirmed = self._confirm(fetched)
        unfetched += unconfirmed
        counts: Counter[str] = Counter()
        if fetched:
            counts.update(self._write(fetched))
        self._give_back(unfetched)
        self._give_back_failed(failed)
        released = sum(self._job.rows(item) for item in unfetched)
        counts.update(
            scanned=batch.rows - released,
            released=released,
            failed=sum(self._job.rows(item) for item, _ in failed),
        )
        return +counts

    def _confirm(
        self, fetched: list[tuple[Item, Result]]
    ) -> tuple[list[tuple[Item, Result]], list[Item]]:
        """Return what can be written after the job has looked again, and the other items."""
        items = [item for item, _ in fetched]
        try:
            results = self._job.confirm([result for _, result in fetched])
        except StopRun as stop:
            self._stopping.request(str(stop))
            return [], items
        pairs = list(zip(items, results, strict=True))
        confirmed = [(item, result) for item, result in pairs if result is not None]
        return confirmed, [item for item, result in pairs if result is None]

    def _write(self, fetched: Sequence[tuple[Item, Result]]) -> Counter[str]:
        """Write results in one transaction; where the data is refused, isolate the bad row."""
        results = [result for _, result in fetched]
        apply = self._job.preview if self._dry_run else self._job.write
        try:
            written = self._writes.transaction(
                lambda conn: apply(conn, results), read_only=self._dry_run
            )
        except psycopg.Error as error:
            if db.is_passing(error):
                raise
            refusal = db.explain(error)
        else:
            self._refused_in_a_row = 0
            self._job.committed(results)
            return Counter(written)
        parts = self._parts(fetched)
        if not parts:
            return self._leave_out(*fetched[0], refusal)
        counts: Counter[str] = Counter()
        for part in parts:
            counts.update(self._write(part))
        return counts

    def _leave_out(self, item: Item, result: Result, refusal: str) -> Counter[str]:
        """Report the one row that the database refuses, and leave it as it was."""
        self._problem(self._job.describe(result), refusal)
        self._give_back_failed([(item, refusal)])
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= HOPELESS_AFTER:
            raise RunFailed(f"the database refuses one row after another: {refusal}")
        return Counter(failed=self._job.rows(result))

    def _parts(self, fetched: Sequence[tuple[Item, Result]]) -> list[Sequence[tuple[Item, Result]]]:
        if len(fetched) > 1:
            middle = len(fetched) // 2
            return [fetched[:middle], fetched[middle:]]
        item, result = fetched[0]
        return [[(item, part)] for part in self._job.split(result)]

    def _give_back(self, items: Sequence[Item]) -> None:
        if items and not self._dry_run:
            self._writes.transaction(lambda conn: self._job.release(conn, items))

    def _give_back_failed(self, failed: Sequence[tuple[Item, str]]) -> None:
        if failed and not self._dry_run:
            self._writes.transaction(lambda conn: self._job.failed(conn, failed))

    def _give_back_quietly(self, items: list[Item]) -> None:
        # The run is failing already, perhaps because the database is gone, and its report must
        # name the first cause; claims that cannot be given back are taken back by a later run.
        try:
            self._give_back(items)
        except Exception as error:
            self._log.warning(f"{len(items):,} claims could not be given back: {_reason(error)}")

    def _wait(self, reason: str | None) -> None:
        """Show what the job waits for, and log it once the wait is worth a line."""
        self._progress.waiting(reason)
        if reason is None:
            self._logs_wait_at = None
            return
        now = time.monotonic()
        if self._logs_wait_at is None:
            self._logs_wait_at = now + _WAIT_WORTH_A_LINE_S
        elif now >= self._logs_wait_at:
            self._log.info(f"waiting: {reason}")
            self._logs_wait_at = now + _LOG_WAIT_EVERY_S

    def _problem(self, what: str, detail: str) -> None:
        self._totals["problems"] += 1
        if len(self._problems) < LISTED_PROBLEMS:
            self._problems.append(Problem(what, detail))
        self._log.warning(f"{what}: {detail}")

    def _take_problems(self) -> None:
        for problem in self._job.problems():
            self._problem(problem.what, problem.detail)

    # -- ending ------------------------------------------------------------------------------------

    def _verify(self, ended_early: str | None) -> list[Verification]:
        self._log.enter("verify")
        checks: list[Verification] = []
        if not self._dry_run:  # which left everything as it was: there is nothing to count again
            checks += self._look(self._writes, self._job.verify)
        self._take_problems()
        # A run that ended early leaves rows to the next one anyway, among them what failed, such
        # as all that a service left unanswered before it counted as down.
        if self._totals["failed"] and ended_early is None:
            checks.append(
                Verification.equal("rows left as they were", 0, self._totals["failed"], "problems")
            )
        for check in checks:
            say = self._log.info if check.ok else self._log.warning
            say(
                f"{check.name}: expected {check.expected:,}, found {check.actual:,}",
                ok=check.ok,
                detail=check.detail,
            )
        return checks

    def _ended(self, ended_early: str | None, checks: Sequence[Verification]) -> Report:
        if ended_early is not None and self._stopping.signal is not None:
            code = 128 + self._stopping.signal
            return self._report(Outcome.STOPPED, code, ended_early, checks)
        wrong = [check.name for check in checks if not check.ok]
        if wrong:
            reason = f"the verification does not hold ({', '.join(wrong)})"
            return self._report(Outcome.UNVERIFIED, 3, reason, checks)
        if ended_early is not None:
            return self._report(Outcome.STOPPED, 0, ended_early, checks)
        return self._report(Outcome.VERIFIED, 0, _ALL_DONE, checks)

    def _failed(self, error: Exception) -> Report:
        self._log.enter("failed")
        reason = _reason(error)
        self._log.error(f"{self._job.name} failed: {reason}", None if _is_known(error) else error)
        self._problems.append(Problem(self._job.name, reason))
        code = 2 if isinstance(error, SettingsError) else 1
        return self._report(Outcome.FAILED, code, reason, [])

    def _report(
        self, outcome: Outcome, exit_code: int, reason: str, checks: Sequence[Verification]
    ) -> Report:
        redact = self._log.redactor.text
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
            requests=self._job.requests(),
            findings=self._job.findings(),
            verification=checks,
            next_steps=self._job.next_steps(),
            problems=[
                Problem(redact(problem.what), redact(problem.detail)) for problem in self._problems
            ],
        )

    def _options(self) -> dict[str, object]:
        options = asdict(self._run.options)
        partition = self._run.options.partition
        options["partition"] = f"{partition.index}/{partition.count}"
        options |= options.pop("own")
        return {name: _plain(value) for name, value in options.items()}

    def _close(self) -> None:
        self._progress.stop()
        self._claims.close()
        self._writes.close()
        try:
            self._job.close()
        except Exception as error:  # the report must come even then
            self._log.error(f"{self._job.name} did not close: {_reason(error)}", error)


def _is_known(error: Exception) -> bool:
    """Tell whether the message of an error says it all, so that no traceback is needed."""
    if isinstance(error, psycopg.Error):
        return db.is_passing(error)
    return isinstance(error, RunFailed | SettingsError | db.DatabaseError)


def _reason(error: Exception) -> str:
    if isinstance(error, psycopg.Error):
        return f"the database failed: {db.explain(error)}"
    return str(error) if _is_known(error) else f"{type(error).__name__}: {error}"


def _plain(value: object) -> object:
    """Return the value of an option as JSON can show it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | float | None) else str(value)
