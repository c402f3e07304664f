"""What a job is, and the values that it exchanges with the runner.

A job author writes a subclass of `Job` with what is special about the job: where its batches come
from and how one is written. Everything else (transactions, retries, concurrency, stopping, batch
size, progress, totals, the report) belongs to the runner, the only caller of a job.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Generic, Protocol, TypeVar, final
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared.engine.errors import RunFailed as RunFailed
from artwork_backfill.shared.engine.errors import StopRun as StopRun
from artwork_backfill.shared.engine.runs import DEAD_AFTER_S, RunRecord
from artwork_backfill.shared.engine.runs import Wait as Wait
from artwork_backfill.shared.engine.session import Session
from artwork_backfill.shared.engine.sources import Partition as Partition
from artwork_backfill.shared.engine.sources import Query, Source
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.service_stats import ServiceStats
from artwork_backfill.shared.settings import Settings

Item = TypeVar("Item")
Result = TypeVar("Result")
C = TypeVar("C", bound="Client")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong without ending the run: what, and the row or answer concerned.

    `fields` are further fields of its log line.
    """

    what: str
    detail: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """The result of one transaction. Jobs subclass it to pass more to `committed`."""

    #: By name; the runner adds them up over the run. `written`, `skipped`, `failed` and `deferred`
    #: (left for a later run) mean the same in every job.
    counts: Mapping[str, int]
    #: Problems of rows that the runner never saw.
    problems: Sequence[Problem] = ()

    @classmethod
    def of(cls, written: int, rows: int | None = None) -> Written:
        """Return that `written` of `rows` rows were written, and the others needed no write."""
        skipped = 0 if rows is None else rows - written
        return cls({"written": written, "skipped": skipped})


@dataclass(frozen=True, slots=True)
class Verification:
    """One count of the verification, and its expected value."""

    name: str
    expected: int
    actual: int
    detail: str = ""
    #: Set only if something other than equality decides.
    ok: bool = field(kw_only=True)

    @classmethod
    def equal(cls, name: str, expected: int, actual: int, detail: str = "") -> Verification:
        """Return a verification that holds if both counts are equal."""
        return cls(name, expected, actual, detail, ok=expected == actual)


@dataclass(frozen=True, slots=True)
class Note:
    """A number that informs, but proves nothing."""

    name: str
    value: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """A number of remaining rows. The report says so if it is 0."""

    count: int


#: What a verification consists of.
Checked = Verification | Note | Problem | Left


@dataclass(frozen=True, slots=True)
class Metric:
    """A number, or several that differ in their labels, for monitoring."""

    #: In the units of Prometheus, such as `oldest_claim_age_seconds`; a counter without `_total`.
    name: str
    meaning: str
    #: Pairs of labels and value.
    samples: Sequence[tuple[Mapping[str, str], float]]
    #: Whether the number only grows during a run.
    is_counter: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A table that only the report of this job has.

    `key` is its name in the JSON report, and `data` its value there. `metrics` are the same figures
    for monitoring, if they are useful after each batch.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: object
    metrics: tuple[Metric, ...] = ()


@dataclass(frozen=True, slots=True)
class Alone(Generic[Result]):
    """A group of results that `write` applies by a single call of `session.one_statement`.

    `write` gets the connection in autocommit mode, so that no lock is held across a round trip.
    """

    results: Sequence[Result]


@dataclass(frozen=True, slots=True)
class Failed(Generic[Result]):
    """A result that cannot be written, with the reason; its item counts as one whose fetch failed.

    `result` is one of the results that were passed to `groups`.
    """

    result: Result
    reason: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """How far a run got, for its verification."""

    #: Whether the source had no more items; otherwise the run ended early.
    is_complete: bool
    #: The last item whose batch was written, `None` if there was none.
    last: Any = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options that every job has."""

    batch_size: int
    concurrency: int = 1
    fixed_batch_size: bool = False
    limit: int | None = None
    #: In seconds; `None` for no limit.
    max_duration: float | None = None
    dry_run: bool = False
    partition: Partition = field(default_factory=Partition)
    reports: tuple[Path, ...] = ()
    #: The values of the job's own options, for the report.
    own: Mapping[str, object] = field(default_factory=dict)


class TablesOf(Protocol):
    """Return the tables that a job needs, if the settings name their schema."""

    def __call__(self, settings: Settings, /) -> tuple[Table, ...]: ...


class Client(Protocol):
    """A client of an outside service, as the runner uses it."""

    @property
    def name(self) -> str: ...
    def stats(self) -> ServiceStats: ...
    def close(self) -> None: ...


#: Reads metrics from the database.
Gauges = Callable[[Connection], Iterable[Metric]]


@dataclass(eq=False, slots=True)
class Run:
    """One execution of a job: its identity, options and settings, and what it has opened."""

    id: UUID
    options: RunOptions
    settings: Settings
    #: Set when the run is to end soon; every wait must then end.
    stop_flag: Event
    open_connection: Callable[[], Connection]
    #: Whether only `verify` is called, which reads and sends no requests.
    verify_only: bool = field(default=False, kw_only=True)
    #: The time without a heartbeat after which others declare the run dead, in seconds.
    dead_after: float = field(default=DEAD_AFTER_S, kw_only=True)
    record: RunRecord = field(init=False)
    clients: list[Client] = field(default_factory=list, init=False)
    gauges: list[Gauges] = field(default_factory=list, init=False)
    _opened: ExitStack = field(default_factory=ExitStack, init=False)

    def __post_init__(self) -> None:
        self.record = RunRecord(self.id, dead_after=self.dead_after)

    def use(self, client: C) -> C:
        """Return a client whose requests the report shows, and which the runner closes."""
        self.clients.append(client)
        self._opened.callback(client.close)
        return client

    def measure(self, read: Gauges) -> None:
        """Read metrics from the database from time to time, if metrics are wanted.

        `read` is called from a thread of its own, in a read-only transaction.
        """
        self.gauges.append(read)

    def session(self) -> Session:
        """Return another session, for a `fetch` that has to read the database.

        One thread at a time may use it, and the runner closes it.
        """
        session = Session(self.open_connection, read_only=True, stop_flag=self.stop_flag)
        self._opened.callback(session.close)
        return session

    def close(self) -> None:
        """Close everything that was opened, as far as possible."""
        self._opened.close()


class ManyRows(Protocol):
    """An item or a result that stands for many rows; any object with these attributes is one."""

    @property
    def rows(self) -> int:
        """How many."""

    def halves(self) -> Sequence[Any]:
        """Return two parts that make up the whole, or nothing for a single row.

        If the database refuses a row, the parts are written separately to find it.
        """


def rows_of(value: object) -> int:
    """Return how many rows an item or a result stands for: one, unless it is a `ManyRows`."""
    rows: int = getattr(value, "rows", 1)
    return rows


def item_of(result: object) -> Any:
    """Return the item that a result was made of: `result.item`, or the result itself."""
    return getattr(result, "item", result)


def ready_at(result: object) -> float:
    """Return when a result may be written, in monotonic seconds: at once, unless it says when."""
    moment: float = getattr(result, "ready_at", -math.inf)
    return moment


def halves_of(result: object) -> Sequence[Any]:
    """Return the parts of a result that stands for many rows, or nothing."""
    halves: Callable[[], Sequence[Any]] = getattr(result, "halves", tuple)
    return halves()


class Job(ABC, Generic[Item, Result]):
    """One backfill: where its batches come from, what to request, and what to write.

    An `Item` comes from the source; a `Result` is what is known about it after `fetch`. A job
    without network requests uses one type for both and has no `fetch`. `str()` of either is its
    name for people. For items that stand for many rows, see `ManyRows`. A result of another type
    than its item has an attribute `item`, which is given back if the result cannot be written. A
    result that must not be written before some time has an attribute `ready_at`, in monotonic
    seconds; other batches are fetched in the meantime.

    Threads: `fetch` is called from several threads at once; everything else from the main thread.
    Data that both use needs a lock.

    A job can be repeated at any time, because a source only returns rows that still need work.
    """

    #: The job's name on the command line and in logs (`tool`).
    name: ClassVar[str]
    #: The setting of the job's database, such as `Settings.musicbrainz_database`.
    database: ClassVar[Callable[[Settings], str]]
    #: The tables that the job uses and the privileges that it needs, checked before any change; a
    #: function of the settings if those name the schema.
    tables: ClassVar[tuple[Table, ...] | TablesOf] = ()
    #: Tables that only runs with certain options need, and those of them that this run needs.
    optional_tables: ClassVar[tuple[Table, ...]] = ()
    more_tables: tuple[Table, ...] = ()
    #: The number of rows in the first batch, and in the largest possible one.
    batch_size: ClassVar[int] = 1000
    max_batch_size: ClassVar[int] = 10_000
    #: The default number of simultaneous fetches; 0 for a job without network requests.
    concurrency: ClassVar[int] = 0
    #: The number of items that one call of `fetch` gets.
    fetch_size: int = 1
    #: Whether all statements of `verify` see the same snapshot. Otherwise each is a transaction of
    #: its own, so that none is open for long, however much it reads.
    one_snapshot: ClassVar[bool] = True
    #: Whether `verify` also runs after a dry run, for example to report what could not be read.
    verifies_dry_runs: ClassVar[bool] = False

    def __init__(self, run: Run) -> None:
        self.run = run

    @abstractmethod
    def source(self) -> Source[Item]:
        """Return the source of the batches. Called once."""

    def fetch(self, items: Sequence[Item]) -> Sequence[Result]:
        """Return one result per item, in order, by requests to the network.

        No transaction is open. Called from several threads at once with up to `fetch_size` items.
        `StopRun` and `RunFailed` end the run; any other exception fails only these items.
        """
        raise NotImplementedError(f"{type(self).__name__} sets concurrency but has no fetch")

    def groups(
        self, results: Sequence[Result]
    ) -> Iterator[Sequence[Result] | Alone[Result] | Failed[Result]]:
        """Yield the parts of a batch that are each written in one transaction, in order.

        The next group is requested only after the previous one is committed, with no transaction
        open. So this is the place to check again, just before a transaction, what must still be
        true. Omitted results are given back. May raise `StopRun` and `RunFailed`.
        """
        yield results

    @abstractmethod
    def write(self, conn: Connection, results: Sequence[Result]) -> Written:
        """Apply results in the open transaction on `conn`: all of them or none.

        Called again with the same results if the transaction was rolled back by a temporary
        failure, and with parts of them to isolate a bad row.
        """

    def committed(self, written: Any) -> None:
        """Process the result of `write` (or `preview`) after the commit; once for each."""

    def preview(self, conn: Connection, results: Sequence[Result]) -> Written:
        """Return what `write` would return, reading only. Replaces it in a dry run."""
        return Written.of(sum(map(rows_of, results)))

    def verify(self, conn: Connection, run: RunResult | None) -> Iterable[Checked]:
        """Count again from the tables, not from what the run believes it did. Read only.

        `run` is `None` if only the verification was requested. May raise `StopRun`, for example if
        what the run saw is unreliable.
        """
        source = self.source()
        if not isinstance(source, Query):
            raise NotImplementedError(f"{type(self).__name__} has no verify")
        if run is None or run.is_complete:
            left = source.left(conn)
            yield Verification.equal("rows left", 0, left)
            yield Left(left)
        elif run.last is not None:
            left = source.left(conn, run.last)
            yield Verification.equal("rows left", 0, left, "as far as this run got")

    def sections(self) -> Iterable[Section | str]:
        """Return further parts of the report: tables, and sentences about the next steps.

        Also called after a batch, for the metrics of the tables.
        """
        return ()

    @final
    @classmethod
    def tables_for(cls, settings: Settings) -> tuple[Table, ...]:
        """Return the tables to check."""
        return cls.tables(settings) if callable(cls.tables) else cls.tables
