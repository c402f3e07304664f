"""The rate of requests to a service, and the point at which further requests are useless.

Three small thread-safe parts, none of which knows HTTP: `Pace` (requests per second), `Health`
(whether the service fails broadly) and `Meter` (counters and latencies).
"""

from __future__ import annotations

import math
import random
import statistics
import threading
from collections import deque
from collections.abc import Callable

from artwork_backfill.shared.service_stats import ServiceStats

Clock = Callable[[], float]
"""Seconds from any fixed point, never decreasing."""


class Interrupted(Exception):
    """The run was stopped while a request waited for its rate or for a retry."""


class Pace:
    """Give evenly spaced turns to all threads, so that no burst follows a pause.

    `rate` is in requests per second; `None` means that turns come at once, and slowing down then
    starts from the rate at which they were taken.
    """

    _MAX_SLOWDOWN = 16
    _TURNS_TO_RECOVER = 50
    _SLOW_DOWN_AT_MOST_EVERY_S = 10.0
    _LONGEST_INTERVAL_S = 1.0

    def __init__(self, rate: float | None, *, clock: Clock, stop_flag: threading.Event) -> None:
        self._interval = 1 / rate if rate else 0.0
        # When turns were taken recently, to know their rate if none is set.
        self._taken: deque[float] | None = None if rate else deque(maxlen=self._TURNS_TO_RECOVER)
        self._clock = clock
        self._stop_flag = stop_flag
        self._lock = threading.Lock()
        self._slowdown = 1
        self._successes = 0
        self._next_turn = -math.inf
        self._held_until = -math.inf
        self._slowed_at = -math.inf

    def take_turn(self) -> None:
        """Wait for this thread's turn; raise `Interrupted` as soon as the run is stopping."""
        if self._stop_flag.is_set():
            raise Interrupted("the run is stopping")
        delay = self._reserve()
        while delay > 0:
            self.pause(delay)
            # A hold that began during the wait invalidates the turn.
            delay = self._reserve() if self._held_until > self._clock() else 0.0

    def pause(self, seconds: float) -> None:
        """Wait for some seconds. Raises `Interrupted` as soon as the run is to stop."""
        if self._stop_flag.wait(seconds):
            raise Interrupted("the run is stopping")

    def hold(self, seconds: float) -> None:
        """Give no thread a turn for some seconds."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)

    def slow_down(self) -> None:
        """Halve the rate, down to a sixteenth; simultaneous refusals count once."""
        with self._lock:
            self._successes = 0
            now = self._clock()
            if now - self._slowed_at >= self._SLOW_DOWN_AT_MOST_EVERY_S:
                self._slowed_at = now
                if self._taken and self._slowdown == 1:
                    taken_every = (now - self._taken[0]) / len(self._taken)
                    # Pauses between rare requests do not slow a service down.
                    self._interval = min(taken_every, self._LONGEST_INTERVAL_S)
                self._slowdown = min(self._slowdown * 2, self._MAX_SLOWDOWN)

    def succeeded(self) -> None:
        """Double a halved rate again after enough successes."""
        if self._slowdown == 1:
            return
        with self._lock:
            self._successes += 1
            if self._successes >= self._TURNS_TO_RECOVER:
                self._slowdown = max(self._slowdown // 2, 1)
                self._successes = 0

    def _reserve(self) -> float:
        with self._lock:
            now = self._clock()
            turn = max(now, self._next_turn, self._held_until)
            if self._taken is None or self._slowdown > 1:
                self._next_turn = turn + self._interval * self._slowdown
            else:
                self._taken.append(now)
            return turn - now


class Health:
    """Track the outcomes of recent requests.

    A service is in trouble while at least half of its last `WINDOW` requests failed (from `ENOUGH`
    requests on), and down if it is still in trouble after `patience_s` seconds. With `silence_s`,
    it is also down if no request was answered for that long, however few there were.
    """

    WINDOW = 50
    ENOUGH = 10
    # Outcomes from before a long silence say nothing about the service now.
    FORGET_AFTER_S = 300.0
    SLOW_DOWN_EVERY_S = 30.0
    # If nothing was requested for that long, the silence is ours.
    IDLE_AFTER_S = 120.0

    def __init__(self, patience_s: float, *, silence_s: float | None = None, clock: Clock) -> None:
        self._patience_s = patience_s
        self._silence_s = math.inf if silence_s is None else silence_s
        self._silent_since: float | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: deque[bool] = deque(maxlen=self.WINDOW)
        self._failures = 0
        self._heard_at = -math.inf
        self._trouble_began: float | None = None
        self._slowed_at = -math.inf
        self._down: str | None = None

    @property
    def down(self) -> str | None:
        """Why the service counts as down, or `None` if it does not.

        While it does, nothing is requested, so after a long silence it has to be tried again.
        """
        with self._lock:
            self._forget(self._clock())
            return self._down

    def succeeded(self) -> None:
        """Record an answered request."""
        with self._lock:
            self._silent_since = None
            self._note(failed=False)

    def failed(self, reason: str, took_s: float = 0.0) -> bool:
        """Record a request that failed after `took_s` seconds; return whether to slow down now."""
        with self._lock:
            began = self._clock() - took_s
            if self._silent_since is None or began - self._heard_at > self.IDLE_AFTER_S:
                self._silent_since = began
            now = self._note(failed=True)
            silence_s = now - self._silent_since
            if silence_s >= self._silence_s:
                self._down = (
                    f"it has not answered any request for {silence_s:.0f} s; the last failure: "
                    f"{reason}"
                )
            if self._trouble_began is None:
                return False
            trouble_s = now - self._trouble_began
            if trouble_s >= self._patience_s:
                self._down = (
                    f"{self._failures} of its last {len(self._failed)} requests failed and "
                    f"it has not recovered for {trouble_s:.0f} s; the last failure: {reason}"
                )
            if now - self._slowed_at < self.SLOW_DOWN_EVERY_S:
                return False
            self._slowed_at = now
            return True

    def _note(self, *, failed: bool) -> float:
        now = self._clock()
        self._forget(now)
        self._heard_at = now
        if len(self._failed) == self.WINDOW:
            self._failures -= self._failed[0]
        self._failed.append(failed)
        self._failures += failed
        seen = len(self._failed)
        if seen < self.ENOUGH or self._failures * 2 < seen:
            self._trouble_began = self._down = None
        elif self._trouble_began is None:
            self._trouble_began = now
        return now

    def _forget(self, now: float) -> None:
        if now - self._heard_at > self.FORGET_AFTER_S:
            self._failed.clear()
            self._failures = 0
            self._trouble_began = self._down = None


class Meter:
    """Count requests, and keep a uniform sample of their latencies."""

    _SAMPLE = 1000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._retries = 0
        self._errors = 0
        self._latencies: list[float] = []

    def request(self, seconds: float) -> None:
        """Record the duration of one HTTP request, whatever its outcome."""
        with self._lock:
            self._requests += 1
            if len(self._latencies) < self._SAMPLE:
                self._latencies.append(seconds)
            # Each request is in the sample with the same probability (Vitter's algorithm R).
            elif (place := random.randrange(self._requests)) < self._SAMPLE:
                self._latencies[place] = seconds

    def retry(self) -> None:
        """Record that a call is retried."""
        with self._lock:
            self._retries += 1

    def error(self) -> None:
        """Record that a call has failed."""
        with self._lock:
            self._errors += 1

    def stats(self) -> ServiceStats:
        """Return the statistics so far."""
        with self._lock:
            # quantiles() needs two values.
            sample = self._latencies * 2 if len(self._latencies) == 1 else self._latencies
            cuts = statistics.quantiles(sample, n=20, method="inclusive") if sample else [0.0] * 19
            return ServiceStats(
                requests=self._requests,
                retries=self._retries,
                errors=self._errors,
                p50_ms=round(cuts[9] * 1000, 1),
                p95_ms=round(cuts[18] * 1000, 1),
            )
