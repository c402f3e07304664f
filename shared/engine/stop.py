"""The stop flag of a run, and the effect of signals.

The first signal asks a run to finish and commit the current batch. Another, more than a second
later, ends the process at once, which is equally safe: an unfinished transaction rolls back.
Before a run begins, and in a command that is not a run, the first signal ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread, current_thread, main_thread
from types import FrameType
from typing import Final

#: Terminals and containers often send a signal twice, to the process and to its group.
_TWICE_S: Final = 1.0


class StopFlag:
    """Whether, why and by which signal the run is to end.

    `event` is set when every wait should end; the first reason counts.

    `is_planned` says that a person wanted the run to end: by a signal, a limit or a request.
    Otherwise an outside cause ended it, such as a service that is down.
    """

    def __init__(self) -> None:
        self.event = Event()
        self.reason: str | None = None
        self.signal: int | None = None
        self.is_planned = True
        self._lock = Lock()

    def request(self, reason: str, signum: int | None = None, *, planned: bool = True) -> None:
        """Ask the run to end. Safe to call from any thread, and more than once."""
        with self._lock:
            if self.reason is None:
                self.reason, self.signal, self.is_planned = reason, signum, planned
        self.event.set()

    @property
    def requested(self) -> bool:
        return self.event.is_set()


def _signals() -> frozenset[signal.Signals]:
    taken = {signal.SIGTERM, signal.SIGINT}
    # On a terminal, it says that the terminal was closed; elsewhere its meaning is the caller's.
    return frozenset(taken | {signal.SIGHUP} if sys.stderr.isatty() else taken)


class Interruption:
    """The signal that interrupted a command, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._first_at = 0.0

    def take(self, signum: int, _frame: FrameType | None) -> None:
        """Interrupt the command; this is the handler of its signals."""
        if self.signal is None:
            self.signal, self._first_at = signum, time.monotonic()
            # The exception for which psycopg cancels the current statement.
            raise KeyboardInterrupt
        if time.monotonic() - self._first_at > _TWICE_S:
            os._exit(128 + signum)


@contextmanager
def interrupted_by_signals() -> Iterator[Interruption]:
    """Turn SIGTERM and SIGINT into a `KeyboardInterrupt` of the main thread.

    Without a handler, process 1, as which a container runs its command, ignores SIGTERM.
    """
    interruption = Interruption()
    # Only the main thread may set handlers; a program that calls us from another keeps its own.
    signals = (signal.SIGTERM, signal.SIGINT) if current_thread() is main_thread() else ()
    before = {signum: signal.signal(signum, interruption.take) for signum in signals}
    try:
        yield interruption
    finally:
        for signum, former in before.items():
            signal.signal(signum, former)


def ignore_signals() -> None:
    """Ignore signals from now on, because the process is about to end."""
    if current_thread() is main_thread():
        for signum in _signals():
            signal.signal(signum, signal.SIG_IGN)


@contextmanager
def on_signals(stop_flag: StopFlag) -> Iterator[None]:
    """Turn the first SIGTERM or SIGINT into a request to stop, and end the process at the second.

    Signals are ignored afterwards, because the run has ended. On a terminal SIGHUP counts as
    SIGTERM. A thread reacts rather than a handler: a handler interrupts the main thread anywhere,
    must not acquire a lock that it holds, and waits until a call into C returns.
    """
    if current_thread() is not main_thread():
        yield
        return
    received, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    former = signal.set_wakeup_fd(wakeup)
    for signum in _signals():
        # Without a handler of Python's, nothing is written to the pipe.
        signal.signal(signum, lambda *_: None)
    watcher = Thread(target=_watch, args=(stop_flag, received), name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        # The report is out: a signal that comes later must not change the exit code.
        ignore_signals()
        signal.set_wakeup_fd(former)
        os.close(wakeup)
        watcher.join()
        os.close(received)


def _watch(stop_flag: StopFlag, received: int) -> None:
    first_at: float | None = None
    while number := os.read(received, 1):
        signum = signal.SIGTERM if number[0] == signal.SIGHUP else number[0]
        if signum not in (signal.SIGTERM, signal.SIGINT):
            continue  # another handler's
        if first_at is None:
            first_at = time.monotonic()
            stop_flag.request(f"stopped by {signal.Signals(signum).name}", signum)
        elif time.monotonic() - first_at > _TWICE_S:
            os._exit(128 + signum)
