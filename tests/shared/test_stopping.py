"""Signals, as the thread that takes them hears them."""

from __future__ import annotations

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


def test_a_wake_up_call_of_somebody_else_leaves_the_run_as_it_is() -> None:
    stop_flag = StopFlag()
    with on_signals(stop_flag):
        (watcher,) = (thread for thread in threading.enumerate() if thread.name == "signals")
        assert watcher.ident is not None
        signal.pthread_kill(watcher.ident, signal.SIGUSR1)
        signal.pthread_kill(watcher.ident, signal.SIGTERM)
        wait_for(lambda: stop_flag.requested)
        assert (stop_flag.reason, stop_flag.signal) == ("stopped by SIGTERM", signal.SIGTERM)
    assert not watcher.is_alive()
