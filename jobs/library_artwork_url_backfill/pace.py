"""How fast this job may go: questions to Discogs through LML, and rows written.

LML asks Discogs for what it has not cached, and Discogs answers so many questions a minute for
everybody. Each row that is written makes the database notify the live site's listeners. Both paces
are of the form "so much was used, so wait until that is due"; nothing is saved up for a burst.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from artwork_backfill.shared.clients.http import Interrupted

Clock = Callable[[], float]


class Pace:
    """Keeps what is used below a rate, over all threads.

    Parameters
    ----------
    per_second
        The rate; `None` for none.
    stop_flag
        Once set, waiting ends at once with `Interrupted`.
    clock
        Monotonic seconds.
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
        """Take note that so much was used just now; `wait` then lasts until that is due."""
        with self._lock:
            self._due = max(self._due, self._clock()) + count * self._seconds_each

    def wait(self) -> None:
        """Return when all that was used is due. Raises `Interrupted`."""
        while (left := self._due - self._clock()) > 0:
            if self._stop_flag.wait(left):
                raise Interrupted("the run is stopping")
