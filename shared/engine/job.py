"""What a job is, and the values that it exchanges with the runner.

A job author writes a subclass of `Job` that says only what is special about the job: where its
batches come from and how one is written. Everything else (transactions, retry, concurrency,
stopping, batch size, progress, totals, the report) belongs to the runner, the only caller of a job.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Generic, Protocol, TypeVar, final
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared.engine.errors import RunFailed, StopRun
from artwork_backfill.shared.engine.runs import DEAD_AFTER_S, RunRecord, Wait
from artwork_backfill.shared.engine.session import Session
from artwork_backfill.shared.engine.sources import Keyset, Partition, Source
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.settings import Settings

__all__ = [
    "Alone",
    "Failed",
    "Job",
    "Metric",
    "Note",
    "Partition",
    "Problem",
    "Run",
    "RunFailed",
    "RunOptions",
    "RunResult",
    "Section",
    "StopRun",
    "Verification",
    "Wait",
    "Written",
]

Item = TypeVar("Item")
Result = TypeVar("Result")
C = TypeVar("C", bound="Client")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong without ending the run: what, and which row or answer.

    `fields` are further fields of its line in the log.
    """

    what: str
    detail: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """What one transaction did. A job that has more to say to its `committed` makes a subclass.

    Parameters
    ----------
    counts
        By name; the runner adds them up over the run. `written`, `skipped`, `failed` and
        `deferred` (left for a later run) mean the same in every job.
    problems
        What went wrong in rows that the runner never saw.
    """

    counts: Mapping[str, int]
    problems: Sequence[Problem] = ()

    @classmethod
    def of(cls, written: int, rows: int | None = None) -> Written:
        """Return that so many of `rows` rows were written, and the others needed no writing."""
        skipped = 0 if rows is None else rows - written
        return cls({"written": written, "skipped": skipped})


@dataclass(frozen=True, slots=True)
class Verification:
    """One thing that was counted again at the end, and what it should have been."""

    name: str
    expected: int
    actual: int
    detail: str = ""
    #: Only where something else than equality decides.
    ok: bool = field(kw_only=True)

    @classmethod
    def equal(cls, name: str, expected: int, actual: int, detail: str = "") -> Verification:
        """Return a verification that holds when both counts are the same."""
        return cls(name, expected, actual, detail, ok=expected == actual)


@dataclass(frozen=True, slots=True)
class Note:
    """A number that informs, and proves nothing."""

    name: str
    value: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number, or several that differ in their labels, for monitoring.

    Parameters
    ----------
    name
        In the units of Prometheus, such as `oldest_claim_age_seconds`; a counter without `_total`.
    samples
        Labels and value.
    is_counter
        Whether the number only grows during a run.
    """

    name: str
    meaning: str
    samples: Sequence[tuple[Mapping[str, str], float]]
    is_counter: bool = False

    def with_labels(self, labels: Mapping[str, str]) -> Metric:
        """Return the same with further labels."""
        samples = [({**labels, **own}, value) for own, value in self.samples]
        return replace(self, samples=samples)


@dataclass(frozen=True, slots=True)
class Section:
    """A table that only the report of this job has.

    `key` is its name in the JSON report, and `data` what stands there; `metrics` says the same for
    monitoring, where that is of use after each batch already.
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

    It gets the connection in autocommit mode, so that no lock is held across a round trip.
    """

    results: Sequence[Result]


@dataclass(frozen=True, slots=True)
class Failed(Generic[Result]):
    """A result that cannot be written, with the reason; its item counts as one whose fetch failed.

    `result` is one that `groups` was given.
    """

    result: Result
    reason: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """How far a run came, for its verification.

    Parameters
    ----------
    is_complete
        Whether the source had no more to give; otherwise the run ended early.
    last
        The last item whose batch was written, `None` where none was.
    """

    is_complete: bool
    last: Any = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the person who starts a run can choose for every job."""

    batch_size: int
    concurrency: int = 1
    fixed_batch_size: bool = False
    limit: int | None = None
    #: Seconds; `None` for no limit.
    max_duration: float | None = None
    dry_run: bool = False
    partition: Partition = field(default_factory=Partition)
    reports: tuple[Path, ...] = ()
    #: What was chosen of the job's own options, for the report.
    own: Mapping[str, object] = field(default_factory=dict)


class ServiceStats(Protocol):
    """What the report says of one outside service; durations are in milliseconds."""

    @property
    def requests(self) -> int: ...
    @property
    def retries(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def p50_ms(self) -> float: ...
    @property
    def p95_ms(self) -> float: ...


class TablesOf(Protocol):
    """Says which tables a job needs where the settings name their schema."""

    def __call__(self, settings: Settings, /) -> tuple[Table, ...]: ...


class Client(Protocol):
    """A client of an outside service, as the runner sees it."""

    @property
    def name(self) -> str: ...
    def stats(self) -> ServiceStats: ...
    def close(self) -> None: ...


#: Reads metrics from the database.
Gauges = Callable[[Connection], Iterable[Metric]]


@dataclass(eq=False, slots=True)
class Run:
    """One execution of one job: its identity, its options, its settings, and what it has opened."""

    id: UUID
    options: RunOptions
    settings: Settings
    #: Set when the run is to end soon; whatever waits must then stop waiting.
    stop_flag: Event
    open_connection: Callable[[], Connection]
    #: A run is dead for others without a heartbeat for so long, in seconds.
    dead_after: float = field(default=DEAD_AFTER_S, kw_only=True)
    record: RunRecord = field(init=False)
    clients: list[Client] = field(default_factory=list, init=False)
    sessions: list[Session] = field(default_factory=list, init=False)
    gauges: list[Gauges] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.record = RunRecord(self.id, dead_after=self.dead_after)

    def use(self, client: C) -> C:
        """Return a client whose requests the report shows, and which the runner closes."""
        self.clients.append(client)
        return client

    def measure(self, read: Gauges) -> None:
        """Have metrics read from the database now and then, while somebody wants metrics.

        Called from a thread of its own in a transaction that only reads.
        """
        self.gauges.append(read)

    def session(self) -> Session:
        """Return another session, for a `fetch` that has to look into the database.

        It may be used by one thread at a time, and the runner closes it.
        """
        session = Session(self.open_connection, read_only=True, stop_flag=self.stop_flag)
        self.sessions.append(session)
        return session

    def close(self) -> None:
        """Close all that was opened, as far as that is possible."""
        for client in self.clients:
            client.close()
        for session in self.sessions:
            session.close()


class ManyRows(Protocol):
    """An item or a result that stands for many rows. Any that has these is treated as one."""

    @property
    def rows(self) -> int:
        """How many."""

    def halves(self) -> Sequence[Any]:
        """Return two parts that are the whole, or nothing where it is a single row.

        Parts of it are written where the database refuses a row, to find that row.
        """


def rows_of(value: object) -> int:
    """Return how many rows an item or a result stands for: one, unless it says otherwise."""
    rows: int = getattr(value, "rows", 1)
    return rows


def item_of(result: object) -> Any:
    """Return what a result was made of: `result.item`, or itself where it has none."""
    return getattr(result, "item", result)


def ready_at(result: object) -> float:
    """Return when a result may be written, in monotonic seconds: at once, unless it says when."""
    moment: float = getattr(result, "ready_at", -math.inf)
    return moment


def halves_of(result: object) -> Sequence[Any]:
    """Return the parts of a result that stands for many rows, or nothing."""
    halves: Callable[[], Sequence[Any]] | None = getattr(result, "halves", None)
    return () if halves is None else halves()


class Job(ABC, Generic[Item, Result]):
    """One backfill: where its batches come from, what to ask the network, and what to write.

    An `Item` comes from the source, a `Result` is what is known about it after `fetch`; a job
    without network work uses one type for both and has no `fetch`. `str()` of either is its name
    for people. Where it stands for many rows, see `ManyRows`. A result of another type than its
    item says as `item` what to give back when it cannot be written. One that has to wait before it
    is written says as `ready_at` until when, in monotonic seconds; other batches are fetched then.

    Threads: `fetch` is called from several threads at once; all else on the main thread. What both
    touch needs a lock.

    Idempotence rests on the data alone: a source only ever gives rows that still need work.
    """

    #: The job's name on the command line and in logs (`tool`).
    name: ClassVar[str]
    #: Which setting says where the job's database is, such as `Settings.musicbrainz_database`.
    database: ClassVar[Callable[[Settings], str]]
    #: The tables it works on and the privileges it needs; checked before anything is touched. A
    #: function of the settings where those name the schema.
    tables: ClassVar[tuple[Table, ...] | TablesOf] = ()
    #: Those that only runs with certain options need, and those of them that this run does.
    optional_tables: ClassVar[tuple[Table, ...]] = ()
    more_tables: tuple[Table, ...] = ()
    #: Rows in the first batch, and in the largest that the runner may grow to.
    batch_size: ClassVar[int] = 1000
    max_batch_size: ClassVar[int] = 10_000
    #: How many fetches run at once; 0 for a job that asks nothing of the network.
    concurrency: ClassVar[int] = 0
    #: How many items one call of `fetch` gets.
    fetch_size: int = 1
    #: Whether all statements of `verify` see one moment. Otherwise each is a transaction of its
    #: own, so that none is open for long, however much they look at.
    one_snapshot: ClassVar[bool] = True
    #: Whether `verify` has something to say after a dry run, such as what could not be read.
    verifies_dry_runs: ClassVar[bool] = False

    def __init__(self, run: Run) -> None:
        self.run = run

    @abstractmethod
    def source(self) -> Source[Item]:
        """Return where the batches come from. Called once."""

    def fetch(self, items: Sequence[Item]) -> Sequence[Result]:
        """Return one result per item, in order, asking the network. No transaction is open.

        Called from several threads at once with up to `fetch_size` items. `StopRun` and `RunFailed`
        end the run; any other exception fails these items alone.
        """
        raise NotImplementedError(f"{type(self).__name__} sets concurrency but has no fetch")

    def groups(
        self, results: Sequence[Result]
    ) -> Iterator[Sequence[Result] | Alone[Result] | Failed[Result]]:
        """Yield the parts of a batch that are each written in one transaction, in order.

        Asked for the next group only when the one before is committed; no transaction is open.
        So this is the place to look again, just before a transaction, at what must still be true.
        What is left out is given back. It may raise `StopRun` and `RunFailed`.
        """
        yield results

    @abstractmethod
    def write(self, conn: Connection, results: Sequence[Result]) -> Written:
        """Apply results in the transaction that is open on `conn`: all of them or none.

        Called again with the same results when the transaction was rolled back for passing
        trouble, and with parts of them to isolate a bad row.
        """

    def committed(self, written: Any) -> None:
        """Learn what `write` (or `preview`) returned, once it is in the database; once for each."""

    def preview(self, conn: Connection, results: Sequence[Result]) -> Written:
        """Return what `write` would, reading only. Takes its place in a dry run."""
        return Written.of(sum(map(rows_of, results)))

    def verify(
        self, conn: Connection, run: RunResult | None
    ) -> Iterable[Verification | Note | Problem]:
        """Count again from the tables, not from what the run believes it did. Read only.

        `run` is `None` where only the verification was asked for. May raise `StopRun`, such as
        when what the run saw is not to be relied upon.
        """
        source = self.source()
        if not isinstance(source, Keyset):
            raise NotImplementedError(f"{type(self).__name__} has no verify")
        if run is None or run.is_complete:
            yield Verification.equal("rows left", 0, source.left(conn, None))
        elif run.last is not None:
            left = source.left(conn, run.last)
            yield Verification.equal("rows left", 0, left, "only as far as this run came")

    def sections(self) -> Iterable[Section | str]:
        """Return what else the report shows: tables, and sentences that say what to do next.

        Also called after a batch, for the metrics of the tables.
        """
        return ()

    @final
    @classmethod
    def tables_for(cls, settings: Settings) -> tuple[Table, ...]:
        """Return the tables to check."""
        return cls.tables(settings) if callable(cls.tables) else cls.tables
