"""Ending of exchanges whose time is up, or that a stopped run no longer waits for.

A socket's own time-out starts again with every byte received, so a server that sends single bytes
could block a thread for ever, in the headers as well as in the body. A separate thread shuts such a
socket down, which ends every wait for it.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Exchange:
    """One exchange in progress: its deadline, and the socket that it uses.

    `until` is in monotonic seconds; once `stop_flag` is set, `grace_s` seconds are left.
    """

    def __init__(self, until: float, stop_flag: threading.Event, grace_s: float) -> None:
        self.until = until
        self.is_cut = False
        self._stop_flag = stop_flag
        self._grace_s = grace_s
        self._socket: socket.socket | None = None

    def attach(self, sock: socket.socket | None) -> None:
        """Record the socket on which the answer arrives."""
        self._socket = sock
        if self.is_cut:
            # Too late for the watching thread, which has already checked.
            self.cut()

    def is_due(self) -> bool:
        """Return whether the exchange has to end now."""
        now = time.monotonic()
        if self._stop_flag.is_set() and self._grace_s < math.inf:
            self.until, self._grace_s = min(self.until, now + self._grace_s), math.inf
        return now >= self.until

    def cut(self) -> None:
        """Shut the socket down. What was read is not an answer, even if it looks complete."""
        self.is_cut = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class Deadlines:
    """Watches the exchanges of one transport."""

    _LOOK_EVERY_S = 0.1

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._exchanges: set[Exchange] = set()
        self._watcher: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def exchange(
        self, seconds: float, stop_flag: threading.Event, *, grace_s: float
    ) -> Iterator[Exchange]:
        """Watch the exchange of this thread until its deadline, or until shortly after a stop."""
        exchange = Exchange(time.monotonic() + seconds, stop_flag, grace_s)
        with self._changed:
            self._exchanges.add(exchange)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._watcher.start()
            elif len(self._exchanges) == 1:
                self._changed.notify()
        _under_way.exchange = exchange
        try:
            yield exchange
        finally:
            _under_way.exchange = None
            # The connection may serve another exchange from now on.
            with self._changed:
                self._exchanges.discard(exchange)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                for exchange in self._exchanges:
                    if not exchange.is_cut and exchange.is_due():
                        exchange.cut()
                self._changed.wait(self._LOOK_EVERY_S if self._exchanges else None)


class _UnderWay(threading.local):
    exchange: Exchange | None = None


_under_way = _UnderWay()


def attach(sock: socket.socket | None) -> None:
    """Record the socket of this thread's exchange."""
    if _under_way.exchange is not None:
        _under_way.exchange.attach(sock)
