"""Taking batches from a source, and fetching them ahead of the thread that writes them.

One thread takes batches, a pool of threads fetches, and the caller of `Pipeline.batches` gets each
batch in the order in which it was taken. Only a few batches are in memory at any time. The runner
is the only user; nothing is written here.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Final, Generic, cast

import psycopg

from artwork_backfill.shared.engine.errors import RunFailed, StopRun
from artwork_backfill.shared.engine.job import Item, Job, Result, RunOptions, ready_at, rows_of
from artwork_backfill.shared.engine.runs import Wait
from artwork_backfill.shared.engine.session import Session, is_passing
from artwork_backfill.shared.engine.sources import Source
from artwork_backfill.shared.engine.stop import StopFlag

#: The target duration of a write transaction, in seconds.
TARGET_WRITE_S: Final = 1.0

#: How long current requests may still take when the run is to end, in seconds. Docker kills a
#: container ten seconds after it has asked it to stop.
GRACE_S: Final = 5.0

#: The number of batches in memory: one being written, one ready, one being fetched.
_MOST_BATCHES: Final = 3

#: The number of full batches whose rows may be in memory, and the same while the oldest batch waits
#: until it is ready.
_MOST_FULL: Final = 2
_MOST_FULL_AT_REST: Final = 8

_POLL_S: Final = 0.2

#: The longest wait of the claiming thread before it checks everything again, in seconds.
_LONGEST_WAIT_S: Final = 10.0


class BatchSize:
    """The size of the next batch in rows, adapted so that a write takes about `TARGET_WRITE_S`."""

    def __init__(self, options: RunOptions, maximum: int) -> None:
        self.current = options.batch_size
        self._maximum = max(maximum, options.batch_size)
        self._fixed = options.fixed_batch_size

    def adapt(self, rows: int, seconds: float) -> None:
        """Adapt to a write of `rows` rows that took `seconds`.

        The size changes by at most a factor of two at a time, because one slow commit is not a
        trend, and never grows after a batch that was not full, which says little about a larger
        one.
        """
        if self._fixed or rows == 0:
            return
        ideal = rows * TARGET_WRITE_S / max(seconds, 0.001)
        bounded = max(self.current / 2, min(ideal, self.current * 2, self._maximum))
        if bounded < self.current or rows >= self.current:
            self.current = max(1, int(bounded))


@dataclass(slots=True, eq=False)
class Batch(Generic[Item, Result]):
    """Items, and by position what is known about each: a result, an error, or nothing.

    After `closed`, nothing changes any more: a late answer counts as if it was not requested.
    """

    number: int
    items: Sequence[Item]
    rows: int
    unfinished: int = 0
    closed: bool = False
    results: dict[int, Result] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    taken_at: float = field(default_factory=time.monotonic)
    ready_at: float = -math.inf
    #: Whether items were omitted because of a pause, to be given back.
    is_cut: bool = False

    def fetched(self) -> list[Result]:
        """Return the results, in the order of their items."""
        return [self.results[i] for i in sorted(self.results)]

    def failed(self) -> list[tuple[Item, str]]:
        """Return the items whose fetch failed, each with the error."""
        return [(self.items[i], self.errors[i]) for i in sorted(self.errors)]

    def unfetched(self) -> list[Item]:
        """Return the items that were not fetched because the run is to end."""
        known = self.results.keys() | self.errors.keys()
        return [item for i, item in enumerate(self.items) if i not in known]


class Pipeline(Generic[Item, Result]):
    """The batches of one run, taken and fetched ahead.

    Parameters
    ----------
    session
        The source's; only the claiming thread uses it while `batches` runs.
    ask
        Called before batches are taken; returns whether the run is to wait, or raises to stop it.
    on_wait
        Called with what the run waits for, and with `None` when it continues.
    """

    def __init__(
        self,
        job: Job[Item, Result],
        source: Source[Item],
        options: RunOptions,
        *,
        session: Session,
        size: BatchSize,
        stop_flag: StopFlag,
        ask: Callable[[Session], Wait | None],
        on_wait: Callable[[Wait | None], None],
        grace: float = GRACE_S,
    ) -> None:
        self._job = job
        self._source = source
        self._options = options
        self._session = session
        self._size = size
        self._stop_flag = stop_flag
        self._ask = ask
        self._on_wait = on_wait
        self._grace = grace
        self._claimer = Thread(target=self._claim_ahead, name="claim", daemon=True)
        self._fetchers = ThreadPoolExecutor(max(1, options.concurrency), thread_name_prefix="fetch")
        #: Whether threads may still wait for an answer that was late.
        self.has_stragglers = False

        # Shared by all threads, protected by `_changed`.
        self._changed = Condition()
        self._batches: deque[Batch[Item, Result]] = deque()
        self._taken = 0
        self._finished = 0
        self._rows_left = options.limit
        self._unfinished = 0
        #: Whether the source has no more items, and whether the claiming thread has ended.
        self._is_exhausted = False
        self._taken_all = False
        self._is_paused = False
        self._has_unfetched = False
        self._claim_error: Exception | None = None
        self._fatal: RunFailed | None = None
        self._grace_ends: float | None = None

    def batches(self) -> Generator[Batch[Item, Result], None, None]:
        """Yield each batch once it is fetched. It counts as in hand until the next is requested.

        Raises a `RunFailed` of `fetch`, and any exception of the source, above all a lasting
        `psycopg.Error`.
        """
        self._claimer.start()
        try:
            while (batch := self._next_batch()) is not None:
                self._has_unfetched |= self._stop_flag.requested and bool(batch.unfetched())
                yield batch
                with self._changed:
                    self._finished += 1
                    self._batches.popleft()
                    self._changed.notify_all()
            if self._fatal is not None:
                raise self._fatal
        except BaseException:
            # Every wait for a service or the database ends now. Why, the exception says.
            self._stop_flag.event.set()
            raise
        finally:
            # A claim in progress may still commit; its items are given back afterwards. If it does
            # not answer in time, another run reclaims them after this run has ended.
            self._claimer.join(self._grace)
            self._fetchers.shutdown(wait=False, cancel_futures=True)
            self.has_stragglers = self._claimer.is_alive() or self._unfinished > 0

    @property
    def ended_early(self) -> str | None:
        """Why the pipeline has ended although there is more to do; `None` if all is done."""
        if self._is_exhausted and not self._has_unfetched:
            return None
        return self._stop_flag.reason or f"the limit of {self._options.limit:,} rows was reached"

    def in_hand(self) -> list[Item]:
        """Return every taken item whose batch is not finished."""
        with self._changed:
            return [item for batch in self._batches for item in batch.items]

    def _next_batch(self) -> Batch[Item, Result] | None:
        """Wait until the oldest batch is fetched and return it; `None` if there are no more."""
        with self._changed:
            while True:
                # Fetched batches come first: they may hold the reason why a claim then failed.
                if self._is_ready():
                    self._batches[0].closed = True
                    return self._batches[0]
                if self._claim_error is not None:
                    raise self._claim_error
                if not self._batches and (self._taken_all or self._out_of_grace()):
                    return None
                rest = self._rest_s() if self._is_fetched() else _POLL_S
                self._changed.wait(min(rest, _POLL_S))

    def _is_ready(self) -> bool:
        if self._batches and self._out_of_grace():
            return True
        # A run that is to end does not wait until a batch is ready.
        return self._is_fetched() and (self._stop_flag.requested or self._rest_s() <= 0)

    def _is_fetched(self) -> bool:
        """Return whether the oldest batch is fetched."""
        return bool(self._batches) and self._batches[0].unfinished == 0

    def _rest_s(self) -> float:
        """Return how long the oldest batch still waits until it is ready, in seconds."""
        return self._batches[0].ready_at - time.monotonic()

    def _out_of_grace(self) -> bool:
        if not self._stop_flag.requested:
            return False
        if self._grace_ends is None:
            self._grace_ends = time.monotonic() + self._grace
        return time.monotonic() >= self._grace_ends

    # -- taking ----------------------------------------------------------------------------------

    def _claim_ahead(self) -> None:
        """Take batches while there is room for them, until there are no more or the run ends."""
        try:
            while self._is_more_wanted():
                finished = self._finished
                wait = self._ask(self._session)
                self._pause(wait)
                if not self._session.read_only:
                    self._source.upkeep(self._session)
                if wait is None and self._has_room():
                    wait = self._claim()
                if wait is not None:
                    self._rest(wait, finished)
        except StopRun as stop:
            self._stop_flag.request(str(stop), planned=stop.planned)
        except Exception as error:
            # After a request to stop, every wait is interrupted, which says nothing about the
            # source.
            if not self._stop_flag.requested or _is_lasting(error):
                self._claim_error = error
        with self._changed:
            self._taken_all = True
            self._changed.notify_all()

    def _is_more_wanted(self) -> bool:
        """Return whether to take another batch, now or later."""
        with self._changed:
            # While anything is fetched, a pause may still omit some of it.
            return not self._stop_flag.requested and (
                not self._is_all_taken()
                or self._unfinished > 0
                or self._is_paused
                or self._is_cut()
            )

    def _is_all_taken(self) -> bool:
        has_reached_limit = self._rows_left is not None and self._rows_left <= 0
        return self._is_exhausted or has_reached_limit

    def _is_cut(self) -> bool:
        """Return whether items that a pause has omitted are still to be given back."""
        return any(batch.is_cut for batch in self._batches)

    def _pause(self, wait: Wait | None) -> None:
        """Keep the fetching threads from starting requests while the run is to wait."""
        is_paused = wait is not None and wait.is_pause
        if is_paused != self._is_paused:
            with self._changed:
                self._is_paused = is_paused
                self._changed.notify_all()
            self._on_wait(wait)

    def _has_room(self) -> bool:
        """Return whether another batch may be taken now; otherwise wait a moment."""
        with self._changed:
            if not self._is_room():
                self._changed.wait(_POLL_S)
            return self._is_room() and not self._stop_flag.requested

    def _is_room(self) -> bool:
        """Return whether the fetching threads need more, and memory allows another batch.

        Items that a pause has omitted are given back first, to be claimed again.
        """
        in_hand = sum(batch.rows for batch in self._batches)
        rests = self._is_fetched() and self._rest_s() > 0
        most = _MOST_FULL_AT_REST if rests else _MOST_FULL
        return (
            not self._is_all_taken()
            and self._fetchers_run_dry()
            and in_hand < most * self._size.current
            and (in_hand > 0 or len(self._batches) < _MOST_BATCHES)
            and not self._is_cut()
        )

    def _fetchers_run_dry(self) -> bool:
        fetching = self._options.concurrency * self._job.fetch_size
        return self._unfinished < max(1, fetching)

    def _rest(self, wait: Wait, finished: int) -> None:
        """Wait until it is time to look again, or the run is to end, or a batch is finished.

        What a batch held may be what the source waits for. `finished` is the number of finished
        batches before the source was asked.
        """
        until = time.monotonic() + min(wait.seconds, _LONGEST_WAIT_S)
        with self._changed:
            while finished == self._finished and not self._stop_flag.event.is_set():
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, _POLL_S))

    def _claim(self) -> Wait | None:
        size = self._size.current
        if self._rows_left is not None:
            size = min(size, self._rows_left)
        taken = self._source.next(self._session, size)
        if isinstance(taken, Wait):
            self._on_wait(taken)
            return taken
        if taken:
            self._on_wait(None)
            self._take(taken)
        else:
            self._is_exhausted = True
        return None

    def _take(self, items: Sequence[Item]) -> None:
        with self._changed:
            self._taken += 1
            batch: Batch[Item, Result] = Batch(self._taken, items, rows=sum(map(rows_of, items)))
            self._batches.append(batch)
            if self._rows_left is not None:
                self._rows_left -= batch.rows
            if self._job.concurrency:
                batch.unfinished = len(items)
                self._unfinished += len(items)
            else:
                # Such a job uses one type for both, see `Job`.
                batch.results.update(enumerate(cast("Sequence[Result]", items)))
            self._changed.notify_all()
        step = self._job.fetch_size
        for start in range(0, batch.unfinished, step):
            self._fetchers.submit(self._fetch, batch, start, min(start + step, len(items)))

    # -- fetching --------------------------------------------------------------------------------

    def _fetch(self, batch: Batch[Item, Result], start: int, end: int) -> None:
        """Fetch the items from `start` to `end`; after a failure, fetch them one by one."""
        results: dict[int, Result] = {}
        errors: dict[int, str] = {}
        positions = [(start, end)]
        while positions:
            first, last = positions.pop()
            try:
                results.update(self._fetch_once(batch, first, last))
            except StopRun as stop:
                self._stop_flag.request(str(stop), planned=stop.planned)
            except RunFailed as error:
                self._fatal = error
                self._stop_flag.request(str(error))
            except Exception as error:  # a job may fail in unforeseen ways
                if self._stop_flag.requested:
                    # Every wait is interrupted then, which is not a failure of these items.
                    continue
                if last - first > 1:
                    positions += [(position, position + 1) for position in range(first, last)]
                else:
                    errors[first] = f"{type(error).__name__}: {error}"
        with self._changed:
            if not batch.closed:
                batch.results.update(results)
                batch.errors.update(errors)
                batch.ready_at = max([batch.ready_at, *map(ready_at, results.values())])
            batch.unfinished -= end - start
            self._unfinished -= end - start
            # Waking the other threads for every item would cost more than most items do.
            if batch.unfinished == 0 or self._fetchers_run_dry():
                self._changed.notify_all()

    def _fetch_once(self, batch: Batch[Item, Result], first: int, last: int) -> dict[int, Result]:
        if self._is_left_out(batch, first, last) or self._stop_flag.requested:
            return {}
        fetched = self._job.fetch(batch.items[first:last])
        if len(fetched) != last - first:
            raise TypeError(f"fetch returned {len(fetched)} results for {last - first} items")
        return dict(enumerate(fetched, first))

    def _is_left_out(self, batch: Batch[Item, Result], first: int, last: int) -> bool:
        """Return whether items are given back because of a pause; wait if none are claimed."""
        with self._changed:
            if self._is_paused and self._source.is_shared:
                batch.is_cut = True
                self._is_exhausted = False
                if self._rows_left is not None:
                    self._rows_left += sum(map(rows_of, batch.items[first:last]))
                return True
            while self._is_paused and not self._stop_flag.requested:
                self._changed.wait(_POLL_S)
            return False


def _is_lasting(error: Exception) -> bool:
    """Return whether an error ends a run even if the run is about to end."""
    if isinstance(error, psycopg.Error):
        return not is_passing(error)
    return isinstance(error, RunFailed)
