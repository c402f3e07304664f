"""Figures that take seconds to count: counted in the background, with the last result shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock, Thread
from typing import Final, Generic, TypeVar

from artwork_backfill.dashboard.database import Trouble

T = TypeVar("T")

#: The largest share of the time for which a repeated count may keep the database busy. A slow count
#: is repeated less often.
_SHARE: Final = 0.1

#: Seconds for which a visitor waits for a count that has begun.
_WAIT_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Counted(Generic[T]):
    """The result of the last count and its time; `trouble` says why there is no newer one."""

    value: T | None = None
    at: datetime | None = None
    trouble: str = ""


class Latest(Generic[T]):
    """The latest result of one count, shared by all visitors and safe to use from several threads.

    Parameters
    ----------
    count
        The function that counts; called in a thread of its own, never twice at the same time.
    keep_s
        The age in seconds at which a count is repeated.
    wait_s
        Seconds for which `get` waits for a count in progress.
    """

    def __init__(self, count: Callable[[], T], *, keep_s: float, wait_s: float = _WAIT_S) -> None:
        self._count = count
        self._keep_s = keep_s
        self._wait_s = wait_s
        self._lock = Lock()
        self._counted: Counted[T] = Counted()
        self._due = 0.0
        self._thread: Thread | None = None

    def get(self) -> Counted[T]:
        """Return the latest result; start a new count if it is old, and wait briefly for it."""
        with self._lock:
            if self._thread is None and time.monotonic() >= self._due:
                self._thread = Thread(target=self._run, daemon=True)
                self._thread.start()
            thread = self._thread
        if thread is not None:
            thread.join(self._wait_s)
        with self._lock:
            return self._counted

    def _run(self) -> None:
        started = time.monotonic()
        counted = self._counted
        try:
            counted = Counted(self._count(), datetime.now(UTC))
        except Trouble as trouble:
            counted = Counted(counted.value, counted.at, str(trouble))
        finally:
            took = time.monotonic() - started
            with self._lock:
                self._counted = counted
                self._due = time.monotonic() + max(self._keep_s, took / _SHARE)
                self._thread = None
