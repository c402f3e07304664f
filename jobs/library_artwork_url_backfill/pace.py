"""Limits on the speed of this job: lookups at Discogs through LML, and rows written.

LML asks Discogs for albums that are not in its cache, and Discogs limits LML's requests per minute.
Each written row makes the database notify the live site's listeners. Both limits are enforced after
the fact: wait until the use so far is due. Unused time is not saved for a burst.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from artwork_backfill.shared.clients.http import Interrupted

Clock = Callable[[], float]


class Pace:
    """Keep the use of a resource below a rate, over all threads.

    Parameters
    ----------
    per_second
        The rate; `None` for no limit.
    stop_flag
        When it is set, waiting ends at once with `Interrupted`.
    clock
        A monotonic clock, in seconds.
    """

    def __init__(
        self,
        per_second: float | None,
        stop_flag: threading.Event,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._seconds_each = 1 / per_second if per_second else 0.0
        self._stop_flag = stop_flag
        self._clock = clock
        self._lock = threading.Lock()
        self._due = clock()

    def used(self, count: int) -> None:
        """Record a use of `count`; `wait` then lasts until it is due."""
        with self._lock:
            self._due = max(self._due, self._clock()) + count * self._seconds_each

    def wait(self) -> None:
        """Wait until all use so far is due. Raises `Interrupted`."""
        while (left := self._due - self._clock()) > 0:
            if self._stop_flag.wait(left):
                raise Interrupted("the run is stopping")
