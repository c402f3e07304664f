"""Faults of services, and their behaviour, which can be changed at run time."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sandbox.httpd import Response

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


@dataclass(slots=True)
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
        The number of requests that it will still affect; no limit if None.
    """

    kind: FaultKind
    rate: float = 1.0
    paths: Sequence[str] = ()
    gids: Sequence[str] = ()
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


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a service behaves; changed through its control endpoint.

    Parameters
    ----------
    latency_s
        The delay of every answer; varied by up to `jitter` of itself.
    limit
        The number of requests per second that are answered; others are refused with 503.
    log
        Whether `Stats` keeps the requests.
    """

    latency_s: float = 0.0
    jitter: float = 0.0
    limit: float | None = None
    faults: Sequence[Fault] = ()
    log: bool = False


@dataclass
class Stats:
    """What a service has seen: numbers of requests by kind of path, status and fault.

    `counts` is for numbers that only one stand-in counts, `log` for the requests, if enabled. All
    are values of JSON, because another process asks for them.
    """

    paths: dict[str, int] = field(default_factory=Counter)
    statuses: dict[str, int] = field(default_factory=Counter)
    faults: dict[str, int] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=Counter)
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return sum(self.paths.values())


class Trouble:
    """Decide which fault, if any, affects a request.

    The same requests after `plan` always meet the same faults, whatever happened before.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._luck = random.Random(seed)
        self._jitter = random.Random(seed)
        self._faults: Sequence[Fault] = ()
        self._allowed_at = 0.0

    def plan(self, faults: Sequence[Fault]) -> None:
        """Start again with these faults."""
        self._luck.seed(self._seed)
        self._faults = faults

    def strike(self, path: str, gid: str | None) -> Fault | None:
        """Return the fault that affects a request with this kind of path, or None."""
        for fault in self._faults:
            if fault.paths and path not in fault.paths:
                continue
            if fault.gids and gid not in fault.gids:
                continue
            if fault.times == 0 or self._luck.random() >= fault.rate:
                continue
            if fault.times is not None:
                fault.times -= 1
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
