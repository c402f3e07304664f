"""Claims batches and fetches them ahead of whoever writes them.

One thread claims, a pool of threads fetches, and the caller of `Pipeline.batches` gets each batch
in the order of its claim. No more than a few batches are in memory at any time. The runner is the
only user; nothing is written here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Final, Generic, cast

from artwork_backfill.shared.engine.db import Session
from artwork_backfill.shared.engine.job import (
    Item,
    Job,
    Result,
    RunFailed,
    RunOptions,
    Stop,
    StopRun,
    Wait,
)
from artwork_backfill.shared.engine.stop import Stopping
from artwork_backfill.shared.settings import SettingsError

#: A write transaction should take about this long, in seconds.
TARGET_WRITE_S: Final = 1.0

#: How long requests that are under way may still take once the run is to end, in seconds. Docker
#: kills a container ten seconds after it has asked it to stop.
GRACE_S: Final = 5.0

_POLL_S: Final = 0.2


class BatchSize:
    """The size of the next batch, in rows; adapts so that a write takes about `TARGET_WRITE_S`."""

    def __init__(self, options: RunOptions, maximum: int) -> None:
        self.current = options.batch_size
        self._maximum = max(maximum, options.batch_size)
        self._fixed = options.fixed_batch_size

    def adapt(self, rows: int, seconds: float) -> None:
        """Learn from a write of `rows` rows that took `seconds`.

        Changes by no more than a factor of two at a time, since one slow commit is not a trend;
        and never grows after a batch that was not full, which says little about a larger one.
        """
        if self._fixed or rows == 0:
            return
        ideal = rows * TARGET_WRITE_S / max(seconds, 0.001)
        bounded = max(self.current / 2, min(ideal, self.current * 2, self._maximum))
        if bounded < self.current or rows >= self.current:
            self.current = max(1, int(bounded))


@dataclass(slots=True, eq=False)
class Batch(Generic[Item, Result]):
    """Claimed items, and by position what is known of each: a result, an error, or nothing.

    Once `closed`, nothing changes any more: what is answered too late counts as not asked.
    """

    number: int
    items: Sequence[Item]
    rows: int
    unfinished: int = 0
    closed: bool = False
    results: dict[int, Result] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    claimed_at: float = field(default_factory=time.monotonic)

    def fetched(self) -> list[tuple[Item, Result]]:
        """Return the items that can be written, each with its result."""
        return [(self.items[i], self.results[i]) for i in sorted(self.results)]

    def failed(self) -> list[tuple[Item, str]]:
        """Return the items whose fetch failed, each with the error."""
        return [(self.items[i], self.errors[i]) for i in sorted(self.errors)]

    def unfetched(self) -> list[Item]:
        """Return the items that were not asked for, because the run is to end."""
        known = self.results.keys() | self.errors.keys()
        return [item for i, item in enumerate(self.items) if i not in known]


class Pipeline(Generic[Item, Result]):
    """The batches of one run, claimed and fetched ahead.

    Parameters
    ----------
    session
        Claims on it; used by the claiming thread alone while `batches` runs.
    on_wait
        Told what the job waits for, and `None` when it goes on.
    """

    def __init__(
        self,
        job: Job[Item, Result],
        options: RunOptions,
        *,
        session: Session,
        size: BatchSize,
        stopping: Stopping,
        on_wait: Callable[[str | None], None],
    ) -> None:
        self._job = job
        self._options = options
        self._session = session
        self._size = size
        self._stopping = stopping
        self._on_wait = on_wait
        self._claimer = Thread(target=self._claim_ahead, name="claim", daemon=True)
        self._fetchers = ThreadPoolExecutor(max(1, options.concurrency), thread_name_prefix="fetch")
        #: Why the pipeline ended although there may be more to do; `None` when all was claimed.
        self.ended_early: str | None = None

        # Shared by all threads, under `_changed`.
        self._changed = Condition()
        self._batches: deque[Batch[Item, Result]] = deque()
        self._claims = 0
        self._rows_left = options.limit
        self._unfinished = 0
        self._claimed_all = False
        self._claim_error: Exception | None = None
        self._fatal: RunFailed | SettingsError | None = None
        self._grace_ends: float | None = None

    def batches(self) -> Generator[Batch[Item, Result], None, None]:
        """Yield each batch once it is fetched. It counts as in hand until the next is asked for.

        Raises
        ------
        RunFailed, SettingsError
            A fetch ended the run, such as when a service refused our credentials.
        Exception
            Whatever `claim` raised, above all a `psycopg.Error` that did not pass.
        """
        self._claimer.start()
        try:
            while (batch := self._next_batch()) is not None:
                yield batch
                with self._changed:
                    self._batches.popleft()
                    self._changed.notify_all()
            if self._fatal is not None:
                raise self._fatal
        except BaseException:
            # Whoever waits for a service or for the database need not wait any longer.
            self._stopping.request("the run failed")
            raise
        finally:
            # A claim under way may still commit: whoever gives back what is in hand must know it.
            self._claimer.join()
            self._fetchers.shutdown(wait=False, cancel_futures=True)

    def in_hand(self) -> list[Item]:
        """Return every item that was claimed and whose batch has not been asked past."""
        with self._changed:
            return [item for batch in self._batches for item in batch.items]

    def _next_batch(self) -> Batch[Item, Result] | None:
        """Wait until the oldest batch is fetched and return it; `None` when there are no more."""
        with self._changed:
            while True:
                # What was fetched comes first: it may hold the reason why a claim then failed.
                if self._is_ready():
                    self._batches[0].closed = True
                    return self._batches[0]
                if self._claim_error is not None:
                    raise self._claim_error
                if self._claimed_all and not self._batches:
                    return None
                self._changed.wait(_POLL_S)

    def _is_ready(self) -> bool:
        if not self._batches:
            return False
        return self._batches[0].unfinished == 0 or self._out_of_grace()

    def _out_of_grace(self) -> bool:
        if not self._stopping.requested:
            return False
        if self._grace_ends is None:
            self._grace_ends = time.monotonic() + GRACE_S
        return time.monotonic() >= self._grace_ends

    # -- claiming --------------------------------------------------------------------------------

    def _claim_ahead(self) -> None:
        """Claim batches while there is room for them, until all is claimed or the run is to end."""
        try:
            while self._wait_for_room():
                self._claim()
        except Exception as error:  # raised again where the batches are taken
            with self._changed:
                self._claim_error = error
        with self._changed:
            self._claimed_all = True
            self._changed.notify_all()

    def _wait_for_room(self) -> bool:
        """Wait until another batch may be claimed; tell whether one is wanted at all."""
        with self._changed:
            while not self._claimed_all:
                if self._stopping.requested:
                    self.ended_early = self._stopping.reason
                    return False
                if not self._limit_is_reached():
                    if self._has_room():
                        return True
                elif self._unfinished == 0:
                    self.ended_early = f"the limit of {self._options.limit:,} rows was reached"
                    return False
                self._changed.wait(_POLL_S)
            return False

    def _limit_is_reached(self) -> bool:
        """Tell so by what is known; fetches under way may find fewer rows than were guessed."""
        return self._rows_left is not None and self._rows_left <= 0

    def _has_room(self) -> bool:
        """Tell whether the fetching threads run dry, and memory allows another batch."""
        in_hand = sum(batch.rows for batch in self._batches)
        return self._fetchers_run_dry() and in_hand < 2 * self._size.current

    def _fetchers_run_dry(self) -> bool:
        fetching = self._options.concurrency * self._job.fetch_size
        return self._unfinished < max(1, fetching)

    def _claim(self) -> None:
        size = self._size.current
        if self._rows_left is not None:
            size = min(size, self._rows_left)
        claimed = self._session.transaction(
            lambda conn: self._job.claim(conn, size), read_only=self._options.dry_run
        )
        match claimed:
            case Wait(reason, seconds):
                self._on_wait(reason)
                self._stopping.event.wait(seconds)
            case Stop(reason):
                self.ended_early, self._claimed_all = reason, True
            case items if items:
                self._on_wait(None)
                self._job.claimed(items)
                self._take(items)
            case _:
                self._claimed_all = True

    def _take(self, items: Sequence[Item]) -> None:
        with self._changed:
            self._claims += 1
            batch: Batch[Item, Result] = Batch(
                self._claims, items, rows=sum(self._job.rows(item) for item in items)
            )
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
        """Fetch the items from `start` to `end`; what fails together is tried one by one."""
        results: dict[int, Result] = {}
        errors: dict[int, str] = {}
        positions = [(start, end)]
        while positions:
            first, last = positions.pop()
            try:
                results.update(self._fetch_once(batch, first, last))
            except StopRun as stop:
                self._stopping.request(str(stop))
            except (RunFailed, SettingsError) as error:
                self._fatal = error
                self._stopping.request(str(error))
            except Exception as error:  # a job may fail in ways that nobody foresaw
                if self._stopping.requested:
                    # Everything that waits is interrupted then: no failure of these items.
                    continue
                if last - first > 1:
                    positions += [(position, position + 1) for position in range(first, last)]
                else:
                    errors[first] = f"{type(error).__name__}: {error}"
        with self._changed:
            if not batch.closed:
                batch.results.update(results)
                batch.errors.update(errors)
                self._correct_rows(batch, results)
            batch.unfinished -= end - start
            self._unfinished -= end - start
            # Waking the others for every item costs more than many an item's own work.
            if batch.unfinished == 0 or self._fetchers_run_dry():
                self._changed.notify_all()

    def _correct_rows(self, batch: Batch[Item, Result], results: dict[int, Result]) -> None:
        """Count a batch by its results, where the claim could only guess."""
        guessed = sum(self._job.rows(batch.items[position]) for position in results)
        surplus = sum(map(self._job.rows, results.values())) - guessed
        batch.rows += surplus
        if self._rows_left is not None:
            self._rows_left -= surplus

    def _fetch_once(self, batch: Batch[Item, Result], first: int, last: int) -> dict[int, Result]:
        if self._stopping.requested:
            return {}
        fetched = self._job.fetch(batch.items[first:last])
        if len(fetched) != last - first:
            raise TypeError(f"fetch returned {len(fetched)} results for {last - first} items")
        return dict(enumerate(fetched, first))
