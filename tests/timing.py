"""How tests measure time on machines that may be slow, and busy with something else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final

#: How long to wait for what should soon come about, in seconds.
LIMIT_S: Final = 300.0

_TICK_S: Final = 0.01
# What waits for a turn here has waited for others before, and will again.
_ALLOWANCE: Final = 3.0


class Metronome:
    """Counts the seconds that the machine keeps this process waiting for its turn."""

    def __init__(self) -> None:
        self.late_s = 0.0
        self._over = Event()
        self._thread = Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Metronome:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def allowance_s(self) -> float:
        """By how much longer than on an idle machine something may have taken."""
        return self.late_s * _ALLOWANCE

    def _tick(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            time.sleep(_TICK_S)
            self.late_s += time.monotonic() - began - _TICK_S


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Check that the block takes no longer, not counting what others on this machine take."""
    with Metronome() as metronome:
        began = time.monotonic()
        yield
        took = time.monotonic() - began
    assert took < seconds + metronome.allowance_s, f"it took {took:.2f} s"
