"""What a job is, and what a run of it is.

A job author writes a subclass of `Job` that says only what is special about the job. Everything
else (transactions, retry, concurrency, stopping, batch size, progress, totals, the report) belongs
to `shared.engine.runner`, which is the only caller of a job's verbs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import ClassVar, Generic, Protocol, TypeVar
from uuid import UUID

from artwork_backfill.shared.engine.db import Table
from artwork_backfill.shared.settings import Settings
from psycopg import Connection

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Counts by name; the runner adds them up over the run.
Counts = Mapping[str, int]


class Database(StrEnum):
    """The databases that jobs work in."""

    MUSICBRAINZ = "musicbrainz"
    WXYC = "wxyc"


class StopRun(Exception):
    """Raised by `fetch` to end the run as planned: what is done stays, the rest is released."""


class RunFailed(Exception):
    """The run cannot go on. The message says why; `fetch` and `claim` may raise it as well."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong without ending the run: what, and which row or answer."""

    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Partition:
    """The share of the rows that this container takes: those whose id modulo `count` is `index`."""

    index: int = 0
    count: int = 1


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


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of one job: its identity, its options and its settings."""

    id: UUID
    options: RunOptions
    settings: Settings
    #: Set when the run is to end soon; whatever waits must then stop waiting.
    stopping: Event
    #: Opens another connection to the job's database, for jobs whose `fetch` has to look there.
    open_connection: Callable[[], Connection]


@dataclass(frozen=True, slots=True)
class Wait:
    """Answer of `claim`: nothing may be claimed just now, ask again after `seconds`."""

    reason: str
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Stop:
    """Answer of `claim`: a guardrail ends the run as planned."""

    reason: str


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


@dataclass(frozen=True, slots=True)
class FindingCount:
    """How often a check was found: in how many entities, and how many findings in all."""

    entities: int
    findings: int


class Job(ABC, Generic[Item, Result]):
    """One backfill. Subclasses say which rows, what to ask the network, and what to write.

    An `Item` is what is claimed, a `Result` what is known about it after `fetch`; a job without
    network work uses one type for both and leaves `fetch` alone.

    Idempotence rests on the data alone: `claim` only ever returns rows that still need work.
    """

    #: The job's name on the command line and in logs (`tool`).
    name: ClassVar[str]
    database: ClassVar[Database] = Database.MUSICBRAINZ
    #: The tables it works on and the privileges it needs; checked before anything is touched.
    tables: ClassVar[tuple[Table, ...]] = ()
    #: Rows in the first batch, and in the largest that the runner may grow to.
    batch_size: ClassVar[int] = 1000
    max_batch_size: ClassVar[int] = 10_000
    #: How many fetches run at once; 0 for a job that asks nothing of the network.
    concurrency: ClassVar[int] = 0
    #: Whether all statements of `count`, or of `verify`, have to see one moment. Otherwise each
    #: is a transaction of its own, so that none is open for long, however much they look at.
    one_snapshot: ClassVar[bool] = True
    #: How many items one call of `fetch` gets.
    fetch_size: ClassVar[int] = 1

    def __init__(self, run: Run) -> None:
        self.run = run

    @classmethod
    def tables_for(cls, settings: Settings) -> tuple[Table, ...]:
        """Return the tables to check, for jobs whose schema is a setting."""
        return cls.tables

    # -- the five verbs ------------------------------------------------------------------------

    @abstractmethod
    def count(self, conn: Connection) -> int | None:
        """Return how many rows the run is expected to touch, `None` where nobody can know.

        Read only; called first, once.
        """

    @abstractmethod
    def claim(self, conn: Connection, size: int) -> Sequence[Item] | Wait | Stop:
        """Return the next items, about `size` rows of them; none when the work is done.

        Runs in a short transaction of its own, which is read only in a dry run. Called again when
        the answer of that transaction was lost: what moves along with the claims, such as the
        position in a table, moves in `claimed`.
        """

    def fetch(self, items: Sequence[Item]) -> Sequence[Result]:
        """Return one result per item, in order, asking the network. No transaction is open.

        Called from several threads at once with up to `fetch_size` items. Raises `StopRun` to end
        the run, `RunFailed` to end it as failed. Any other exception fails these items alone.
        """
        raise NotImplementedError(f"{type(self).__name__} sets concurrency but has no fetch")

    @abstractmethod
    def write(self, conn: Connection, results: Sequence[Result]) -> Counts:
        """Apply results in the transaction that is open on `conn`: all of them or none.

        Called again with the same results after a lost connection, and with parts of them to
        isolate a bad row. Returns counts; `written` and `skipped` mean the same in every job.
        """

    @abstractmethod
    def verify(self, conn: Connection) -> Sequence[Verification]:
        """Count again from the tables, not from what the run believes it did. Read only."""

    # -- what most jobs need not change ----------------------------------------------------------

    def preview(self, conn: Connection, results: Sequence[Result]) -> Counts:
        """Return what `write` would count, reading only. Takes its place in a dry run."""
        return {"written": sum(self.rows(result) for result in results)}

    def committed(self, results: Sequence[Result]) -> None:
        """Learn that these results are in the database now (or were previewed), once for each.

        The place for what a job remembers of a run, since `write` may be repeated.
        """

    def claimed(self, items: Sequence[Item]) -> None:
        """Take note that a claim is committed. Called in turn with `claim`, by the same thread."""

    def confirm(self, results: Sequence[Result]) -> Sequence[Result | None]:
        """Return results as they stand just before they are written, in order.

        The place to look again at what must still be true then; no transaction is open. None stands
        for a result that is not to be written: its item is given back. Raises `StopRun` as `fetch`.
        """
        return results

    def failed(self, conn: Connection, items: Sequence[tuple[Item, str]]) -> None:
        """Give back claimed items that failed, each with the reason."""
        self.release(conn, [item for item, _ in items])

    def release(self, conn: Connection, items: Sequence[Item]) -> None:
        """Give back claimed items that will not be written. Nothing to do for keyset claims.

        After a failure, some may have been written after all: those stay as they are.
        """

    def rows(self, item: Item | Result) -> int:
        """Return how many rows an item (or the result of it) stands for.

        Where only `fetch` finds out, an item's number is a guess and its result's number counts.
        """
        return 1

    def split(self, result: Result) -> Sequence[Result]:
        """Return the parts of a result that stands for many rows, to isolate the bad one."""
        return ()

    def describe(self, result: Item | Result) -> str:
        """Return a short name of an item or result for the report's problems."""
        return str(result)

    def on_connect(self, conn: Connection) -> None:
        """Prepare each session of the run that claims, on connecting and reconnecting."""

    def problems(self) -> Sequence[Problem]:
        """Return what went wrong since the last call, in rows that the runner never saw."""
        return ()

    def requests(self) -> Mapping[str, ServiceStats]:
        """Return what was asked of each outside service so far."""
        return {}

    def findings(self) -> Mapping[str, FindingCount]:
        """Return how often each check was found so far; only audits have any."""
        return {}

    def next_steps(self) -> Sequence[str]:
        """Return what a person should do after this run, beyond running it again; in sentences."""
        return ()

    def close(self) -> None:
        """Let go of what the job opened. Called once, whatever happened."""
