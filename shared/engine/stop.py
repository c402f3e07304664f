"""Stopping a run: by a signal, by a limit, or because a service does not recover.

The first signal asks the run to finish and commit what is in hand; the second ends the process at
once, which is just as safe, because an unfinished transaction rolls back.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Final

_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
#: Lets the watching thread look whether the run is over.
_WAKE: Final = signal.SIGUSR1


class Stopping:
    """Whether, why and by which signal the run is to end.

    `event` is set when everything that waits should stop waiting; the first reason wins.
    """

    def __init__(self) -> None:
        self.event = Event()
        self.reason: str | None = None
        self.signal: int | None = None
        self._lock = Lock()

    def request(self, reason: str, signum: int | None = None) -> None:
        """Ask the run to end. Safe to call from any thread, and more than once."""
        with self._lock:
            if self.reason is None:
                self.reason, self.signal = reason, signum
        self.event.set()

    @property
    def requested(self) -> bool:
        return self.event.is_set()


@contextmanager
def on_signals(stopping: Stopping) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into a request to stop, and the second of them into the end.

    The signals are taken by a thread of their own rather than by a handler: a handler runs in the
    middle of whatever the main thread does, and may not touch the locks that it holds.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_SIGNALS, _WAKE})
    finished = Event()
    watcher = Thread(target=_watch, args=(stopping, finished), name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        if watcher.ident is not None:
            signal.pthread_kill(watcher.ident, _WAKE)
        watcher.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(stopping: Stopping, finished: Event) -> None:
    is_second = False
    while True:
        signum = signal.sigwait({*_SIGNALS, _WAKE})
        if signum == _WAKE:
            # Anybody can send it, and must not leave the run deaf to the others.
            if finished.is_set():
                return
        elif is_second:
            os._exit(128 + signum)
        else:
            is_second = True
            stopping.request(f"stopped by {signal.Signals(signum).name}", signum)
