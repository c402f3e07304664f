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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread, current_thread, main_thread
from types import FrameType
from typing import Final

#: Wakes the watching thread, which then checks whether the run is over.
_WAKE: Final = signal.SIGUSR1
#: Terminals and containers often send a signal twice, to the process and to its group.
_TWICE_S: Final = 1.0

_Handler = Callable[[int, FrameType | None], object]


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
    with _handled({signal.SIGTERM, signal.SIGINT}, interruption.take):
        yield interruption


@contextmanager
def _handled(signals: Iterable[signal.Signals], handler: _Handler) -> Iterator[None]:
    # Only the main thread may set handlers; a program that calls us from another keeps its own.
    taken = signals if current_thread() is main_thread() else ()
    before = {signum: signal.signal(signum, handler) for signum in taken}
    try:
        yield
    finally:
        for signum, former in before.items():
            signal.signal(signum, former)


def ignore_signals() -> None:
    """Ignore signals from now on, because the process is about to end."""
    if current_thread() is main_thread():
        for signum in _signals():
            signal.signal(signum, signal.SIG_IGN)


@contextmanager
def signals_held() -> Iterator[None]:
    """Start threads that receive no signal; threads inherit the signal mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def on_signals(stop_flag: StopFlag) -> Iterator[None]:
    """Turn the first SIGTERM or SIGINT into a request to stop, and end the process at the second.

    Signals are ignored afterwards, because the run has ended. On a terminal SIGHUP counts as
    SIGTERM. A thread rather than a handler receives the signals: a handler interrupts the main
    thread anywhere, and must not acquire a lock that it holds.
    """
    signals = _signals()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*signals, _WAKE})
    finished = Event()
    watcher = Thread(
        target=_watch, args=(stop_flag, signals, finished), name="signals", daemon=True
    )
    watcher.start()

    def pass_on(signum: int, _frame: FrameType | None) -> None:
        # Received by a thread that was started before the signals were blocked.
        if watcher.ident is not None:
            signal.pthread_kill(watcher.ident, signum)

    try:
        with _handled(signals, pass_on):
            yield
    finally:
        finished.set()
        if watcher.ident is not None:
            signal.pthread_kill(watcher.ident, _WAKE)
        watcher.join()
        # The report is out: a signal that comes later must not change the exit code.
        ignore_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(stop_flag: StopFlag, signals: frozenset[signal.Signals], finished: Event) -> None:
    first_at: float | None = None
    while True:
        signum = signal.sigwait({*signals, _WAKE})
        if signum == _WAKE:
            # Any process can send it, and it must not make the run ignore the other signals.
            if finished.is_set():
                return
            continue
        if signum == signal.SIGHUP:
            signum = signal.SIGTERM
        if first_at is None:
            first_at = time.monotonic()
            stop_flag.request(f"stopped by {signal.Signals(signum).name}", signum)
        elif time.monotonic() - first_at > _TWICE_S:
            os._exit(128 + signum)
