"""A clock that only waiting moves."""

from __future__ import annotations

from threading import Event


class FakeTime(Event):
    """A clock and the run's stop flag in one: waiting takes no time, but moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.waits: list[float] = []

    def clock(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self.now += timeout
        return self.is_set()
