"""Signals, as the thread that takes them hears them."""

from __future__ import annotations

import signal
import threading

from artwork_backfill.shared.engine.stop import StopFlag, on_signals
from tests.tiny import wait_for


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
