"""Signals, as the thread that takes them hears them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from artwork_backfill.shared.engine.stop import StopFlag, on_signals
from tests.tiny import wait_for


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    """A run that has ended ignores signals, as programs that the tests start later would."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_a_signal_that_comes_after_a_run_is_ignored() -> None:
    with on_signals(StopFlag()):
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_signal_is_heard_whatever_the_main_thread_does_and_whichever_thread_takes_it() -> None:
    stop_flag = StopFlag()
    with on_signals(stop_flag):
        (watcher,) = (thread for thread in threading.enumerate() if thread.name == "signals")
        assert watcher.ident is not None
        signal.pthread_kill(watcher.ident, signal.SIGTERM)
        wait_for(lambda: stop_flag.requested)
        assert (stop_flag.reason, stop_flag.signal) == ("stopped by SIGTERM", signal.SIGTERM)
    assert not watcher.is_alive()


def test_a_signal_of_another_handler_leaves_the_run_as_it_is() -> None:
    stop_flag = StopFlag()
    heard = threading.Event()
    former = signal.signal(signal.SIGUSR1, lambda *_: heard.set())
    try:
        with on_signals(stop_flag):
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_for(heard.is_set)
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(lambda: stop_flag.requested)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert stop_flag.signal == signal.SIGINT
