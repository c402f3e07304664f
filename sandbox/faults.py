"""Faults of services, and their behaviour, which can be changed at run time."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sandbox.httpd import Request, Response

FaultKind = Literal[
    # Any request.
    "refuse",  # 503, or `status`, with `retry_after` when given
    "fail",  # 500, or `status`
    "cut",  # hangs up half-way through the body
    "hang_up",  # hangs up without an answer
    "late",  # answers after `seconds`
    "drip",  # takes `seconds` to send the body
    "redirect",  # 302 to `location`
    "garbage",  # 200 with HTML in place of the expected body
    "empty",  # 200 with no body
    # The metadata API.
    "error_key",  # 200 with an "error" key
    "servers_unavailable",
    "pending_tasks",
    "has_redrow",
    "changing",  # item_last_updated changes with each answer
    "hostile_node",  # d1 and d2 are `location`
    # The scrape API.
    "scrape_error",  # {"error": ...} with `status`
    "foreign_page",  # the answer to another query
    "stuck_cursor",  # the cursor that was sent comes back
    "changes_error",  # the Changes API reports an error with HTTP 200
    "repeated_token",  # it gives the token that was sent as the next one
    # Downloads and the web service.
    "huge",  # the body is followed by 2 GB of spaces
    "xml_bomb",  # entities that expand to gigabytes
]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in a share of the requests.

    Parameters
    ----------
    rate
        The share of the requests that it affects.
    paths
        The kinds of path that it affects; all if empty. See each stand-in for its kinds.
    gids
        The gids that it affects; all if empty.
    times
        The number of requests after which it ends; never if None.
    """

    kind: FaultKind
    rate: float = 1.0
    paths: tuple[str, ...] = ()
    gids: tuple[str, ...] = ()
    times: int | None = None
    status: int | None = None
    retry_after: str | None = None
    seconds: float = 1.0
    location: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(
                f"unknown fault {self.kind!r}; known: {', '.join(get_args(FaultKind))}"
            )


@dataclass(slots=True)
class Behaviour:
    """How a service behaves towards every request; changed through its control endpoint.

    Parameters
    ----------
    latency_s
        The delay of every answer; varied by up to `jitter` of itself.
    limit
        The number of requests per second that are answered; others are refused with 503.
    """

    latency_s: float = 0.0
    jitter: float = 0.0
    limit: float | None = None
    faults: tuple[Fault, ...] = ()


@dataclass(slots=True)
class Stats:
    """What a service has seen; `log` holds the latest requests, if enabled.

    `counts` is for numbers that only one stand-in counts.
    """

    paths: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    log: deque[Request] = field(default_factory=lambda: deque(maxlen=20_000))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for an answer."""
        return {
            "paths": dict(self.paths),
            "statuses": {str(status): number for status, number in self.statuses.items()},
            "faults": dict(self.faults),
            "counts": dict(self.counts),
            "log": [
                {"method": r.method, "target": r.target, "headers": r.headers()} for r in self.log
            ],
        }


class Trouble:
    """Decide which fault, if any, affects a request.

    The same requests after `plan` always meet the same faults, whatever happened before.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._luck = random.Random(seed)
        self._jitter = random.Random(seed)
        self._left: dict[Fault, int] = {}
        self._faults: tuple[Fault, ...] = ()
        self._allowed_at = 0.0

    def plan(self, faults: Iterable[Fault]) -> None:
        """Start again with these faults."""
        self._luck.seed(self._seed)
        self._faults = tuple(faults)
        self._left = {fault: fault.times for fault in self._faults if fault.times is not None}

    def strike(self, path: str, gid: str | None) -> Fault | None:
        """Return the fault that affects a request with this kind of path, or None."""
        for fault in self._faults:
            if fault.paths and path not in fault.paths:
                continue
            if fault.gids and gid not in fault.gids:
                continue
            if self._left.get(fault) == 0 or self._luck.random() >= fault.rate:
                continue
            if fault in self._left:
                self._left[fault] -= 1
            return fault
        return None

    def exceeds(self, limit: float | None) -> bool:
        """Return whether one more request now exceeds the limit per second."""
        if limit is None:
            return False
        now = time.monotonic()
        if now < self._allowed_at:
            return True
            # A tenth of the gap is tolerated, because a client that keeps the limit is uneven.
        self._allowed_at = max(self._allowed_at, now - 0.1 / limit) + 0.9 / limit
        return False

    def delay(self, behaviour: Behaviour) -> float:
        """Return how long to delay a request."""
        if not behaviour.latency_s:
            return 0.0
        return behaviour.latency_s * (1 + behaviour.jitter * self._jitter.uniform(-1, 1))


def spoil(response: Response, fault: Fault) -> Response:
    """Apply one of the faults that any request may have; others change nothing here."""
    match fault.kind:
        case "refuse" | "fail":
            status = fault.status or (503 if fault.kind == "refuse" else 500)
            headers = f"Retry-After: {fault.retry_after}\r\n" if fault.retry_after else ""
            return Response(status, b"<html>not now</html>", headers, "text/html")
        case "redirect":
            return Response(302, b"", f"Location: {fault.location}\r\n")
        case "garbage":
            return Response(200, b"<html><body>Please wait</body></html>", "", "text/html")
        case "empty":
            return Response(200, b"", "", response.content_type)
        case "cut":
            response.cut = True
        case "hang_up":
            response.hang_up = True
        case "late":
            response.delay_s += fault.seconds
        case "drip":
            response.drip_s = fault.seconds
        case "huge":
            response.padding = 2 << 30
        case _:
            pass
    return response
