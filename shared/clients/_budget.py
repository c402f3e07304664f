"""A limit on the memory of answers, whatever services send.

Parsing a document takes many times its size, so the limit applies to the bytes of all large answers
that are in use at the same time, over all threads. Small answers do not count, because there are
only few threads.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

MEBIBYTE: Final = 1024 * 1024

#: From glibc's malloc.h.
_M_MMAP_THRESHOLD: Final = -3


def _return_freed_blocks() -> None:
    """Make the C library return large blocks to the system as soon as they are freed.

    glibc does so at first, but then keeps ever larger blocks for each thread: with sixteen threads,
    as much again as all answers take.
    """
    # Other C libraries have no such setting.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 128 * 1024)


class Budget:
    """Share a number of bytes among threads.

    A thread holds what it took until the end of its outermost `scope`. While it holds bytes, it may
    need more than are left. One thread at a time may take them nevertheless, so that threads that
    wait for each other's bytes do not wait for ever.
    """

    #: Answers up to this size are not counted.
    SMALL: Final = 64 * 1024
    # A wait for a condition cannot include a threading.Event, so waiters check it periodically.
    _LOOK_EVERY_S: Final = 0.1

    def __init__(self, total: int = 3 * MEBIBYTE) -> None:
        _return_freed_blocks()
        self._total = total
        self._changed = threading.Condition()
        self._held: dict[int, int] = {}
        #: The thread that may take more than there is.
        self._exceeding: int | None = None
        self._depth = threading.local()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Hold the bytes that this thread takes until the end of its outermost scope.

        After an error they are given back at once, because what was read is not used.
        """
        me = threading.get_ident()
        depth = getattr(self._depth, "value", 0)
        before = self._held.get(me, 0)
        self._depth.value = depth + 1
        try:
            yield
        except BaseException:
            self._hold(me, before)
            raise
        finally:
            self._depth.value = depth
            # Most scopes hold nothing, and should cost nothing.
            if depth == 0 and me in self._held:
                self._hold(me, 0)

    def take(self, size: int, until: float, stop_flag: threading.Event) -> bool:
        """Wait until there is room for `size` more bytes, and hold them.

        Returns false if there is none by `until` (monotonic seconds), or if the run is to stop.
        """
        me = threading.get_ident()
        with self._changed:
            while not self._has_room(me, size):
                left = until - time.monotonic()
                if left <= 0 or stop_flag.is_set():
                    return False
                self._changed.wait(min(left, self._LOOK_EVERY_S))
            self._held[me] = self._held.get(me, 0) + size
        return True

    def give_back(self, size: int) -> None:
        """Give back bytes that were taken, because the answer was smaller."""
        me = threading.get_ident()
        self._hold(me, self._held.get(me, 0) - size)

    @property
    def held(self) -> int:
        """The number of bytes that all threads hold."""
        with self._changed:
            return sum(self._held.values())

    def _has_room(self, me: int, size: int) -> bool:
        held = self._held.get(me, 0)
        if self._exceeding == me or sum(self._held.values()) + size <= self._total:
            return True
        if self._exceeding is None and (held or not self._held):
            self._exceeding = me
            return True
        return False

    def _hold(self, me: int, size: int) -> None:
        with self._changed:
            if size > 0:
                self._held[me] = size
            else:
                self._held.pop(me, None)
                self._exceeding = None if self._exceeding == me else self._exceeding
            self._changed.notify_all()
