"""Metrics of a run for monitoring: a file that Prometheus's node_exporter reads.

The text is OpenMetrics with only gauges and counters and without timestamps, which the textfile
collector of node_exporter understands as well. A job's own metrics come from its report's sections
and from `Run.measure`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock, Thread
from types import SimpleNamespace
from typing import Any, Final

import psycopg
from psycopg import Connection

from artwork_backfill.shared.engine.job import Job, Metric, Run, Section
from artwork_backfill.shared.engine.log import RunLog
from artwork_backfill.shared.engine.progress import Progress
from artwork_backfill.shared.engine.report import Outcome, Report
from artwork_backfill.shared.engine.session import Session, explain
from artwork_backfill.shared.version import VERSION

#: The prefix of every name.
PREFIX: Final = "artwork_backfill_"

#: The minimum time between two writes, and between two readings of the database, in seconds.
#: Readings count millions of rows, so they take at most a twentieth of the time.
WRITE_EVERY_S: Final = 1.0
READ_EVERY_S: Final = 15.0
_READ_SHARE: Final = 20
_READ_TIMEOUT: Final = "30s"

_RUNNING: Final = "running"


def render(metrics: Iterable[Metric]) -> str:
    """Return metrics as OpenMetrics text. Metrics with the same name become one family."""
    # Imported only if needed, because it takes a tenth of a second.
    from prometheus_client.core import Metric as Family
    from prometheus_client.openmetrics.exposition import generate_latest

    families: dict[str, Family] = {}
    for metric in metrics:
        name, kind = f"{PREFIX}{metric.name}", "counter" if metric.is_counter else "gauge"
        family = families.setdefault(name, Family(name, metric.meaning, kind))
        for labels, value in metric.samples:
            family.add_sample(f"{name}_total" if metric.is_counter else name, dict(labels), value)
    # All that it needs of a registry.
    registry: Any = SimpleNamespace(collect=families.values)
    write: Callable[[Any], bytes] = generate_latest
    return write(registry).decode("utf-8")


class MetricsFile:
    """The metrics of one run, written to a file as a whole each time.

    A reader never sees a part of it.
    """

    def __init__(
        self,
        path: Path,
        job: Job[Any, Any],
        run: Run,
        *,
        log: RunLog,
        progress: Progress,
    ) -> None:
        self._path = path
        self._job = job
        self._run = run
        self._log = log
        self._progress = progress
        self._lock = Lock()
        self._over = Event()
        self._thread: Thread | None = None
        self._written_at: float | None = None
        self._is_broken = False
        self._started_at = time.time()
        self._counts: list[Metric] = []
        self._read: list[Metric] = []
        self._report: Report | None = None

    def start(self) -> None:
        """Write the file for the first time, and update it from a thread of its own."""
        self._write()
        self._thread = Thread(target=self._keep_current, name="metrics", daemon=True)
        self._thread.start()

    def advance(self, totals: Mapping[str, int]) -> None:
        """Update the totals after a batch, and write the file unless that was just done."""
        now = time.monotonic()
        if self._written_at is None or now - self._written_at >= WRITE_EVERY_S:
            self._written_at = now
            self._counts = list(self._count(totals))
            self._write()

    def finish(self, report: Report) -> None:
        """Write the file for the last time."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        self._counts = list(self._count(report.totals))
        self._report = report
        self._write()

    def _count(self, totals: Mapping[str, int]) -> Iterable[Metric]:
        """Return the metrics of the main thread."""
        yield Metric(
            "rows",
            "Rows of this run, by result.",
            [({"count": name}, number) for name, number in totals.items()],
            is_counter=True,
        )
        for section in self._job.sections():
            if isinstance(section, Section):
                yield from section.metrics

    def _now(self) -> Iterable[Metric]:
        """Return the metrics that every thread may read."""
        identity = {
            "run_id": str(self._run.id),
            "version": VERSION,
            "dry_run": str(self._run.options.dry_run).lower(),
        }
        yield Metric("run", "1 for the run that these metrics are about.", [(identity, 1)])
        yield _gauge("run_started_timestamp_seconds", "When the run started.", self._started_at)
        report = self._report
        current = _RUNNING if report is None else str(report.outcome)
        outcomes = [_RUNNING, *map(str, Outcome)]
        yield Metric(
            "run_outcome",
            "1 for the current or final outcome of the run, else 0.",
            [({"outcome": name}, int(name == current)) for name in outcomes],
        )
        yield _gauge("waiting", "1 while the run waits for something.", self._progress.is_waiting)
        figures = self._progress.figures()
        for key, name, meaning in _FIGURES:
            if (value := figures[key]) is not None:
                yield _gauge(name, meaning, value)
        yield from self._requests()
        if report is not None:
            yield _gauge("run_exit_code", "Exit code of the last run.", report.exit_code)
            finished = report.finished_at.timestamp()
            yield _gauge("run_finished_timestamp_seconds", "When the last run ended.", finished)

    def _requests(self) -> Iterable[Metric]:
        for client in self._run.clients:
            stats, service = client.stats(), {"service": client.name}
            for name, meaning, number in (
                ("requests", "Requests of this run.", stats.requests),
                ("request_retries", "Requests that were retried.", stats.retries),
                ("request_errors", "Requests that failed for good.", stats.errors),
            ):
                yield Metric(name, meaning, [(service, number)], is_counter=True)
            yield Metric(
                "request_duration_seconds",
                "How long requests take, by percentile.",
                [
                    (service | {"percentile": "50"}, stats.p50_ms / 1000),
                    (service | {"percentile": "95"}, stats.p95_ms / 1000),
                ],
            )

    def _keep_current(self) -> None:
        """Read the job's metrics from the database from time to time, during the run."""
        with closing(Session(self._run.open_connection, read_only=True, patience=0)) as session:
            pause = 0.0
            while not self._over.wait(pause):
                began = time.monotonic()
                self._measure(session)
                pause = max(READ_EVERY_S, _READ_SHARE * (time.monotonic() - began))
                if not self._over.is_set():
                    self._write()

    def _measure(self, session: Session) -> None:
        def work(conn: Connection) -> list[Metric]:
            return [metric for read in self._run.gauges for metric in read(conn)]

        if not self._run.gauges:
            return
        try:
            self._read = session.transaction(work, read_only=True, statement_timeout=_READ_TIMEOUT)
        except psycopg.Error as error:
            # Old figures must not look like current ones.
            self._read = []
            self._log.warning(f"metrics could not be read: {explain(error)}")

    def _labelled(self, metric: Metric) -> Metric:
        labels = {"job": self._job.name}
        return replace(
            metric, samples=[({**labels, **own}, value) for own, value in metric.samples]
        )

    def _write(self) -> None:
        with self._lock:
            metrics = (*self._now(), *self._counts, *self._read)
            text = render(map(self._labelled, metrics))
            # The collector reads every file *.prom.
            unfinished = self._path.with_name(f".{self._path.name}.{self._run.id}")
            try:
                unfinished.write_text(text, encoding="utf-8")
                unfinished.replace(self._path)
            except OSError as error:
                if not self._is_broken:
                    self._log.warning(
                        f"metrics cannot be written to {self._path}: {error.strerror or error}"
                    )
                self._is_broken = True
            else:
                self._is_broken = False


_FIGURES: Final = (
    ("total", "rows_expected", "Rows that the run is expected to process."),
    ("rate", "rows_per_second", "Rows per second since the run began its work."),
    ("eta_s", "eta_seconds", "Seconds until all expected rows are done, at this rate."),
)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return Metric(name, meaning, [({}, float(value))])
