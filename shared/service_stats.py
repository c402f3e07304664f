"""The figures of the requests to one outside service, as clients count and reports show them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """The requests to one service so far.

    `requests` counts every HTTP request, including redirects and retries; `retries` the retries of
    calls; `errors` the calls that failed. Latencies are those of single HTTP requests, including
    the body and excluding waits, in milliseconds; 0 before the first.
    """

    requests: int
    retries: int
    errors: int
    p50_ms: float
    p95_ms: float
