"""Requests to LML for many albums, without overloading it.

LML looks up five albums at once for all its callers, including the live site, so one request of
five albums at a time is as fast as possible. A refused request is retried later as a whole, never
in pieces. A request that takes too long is not retried, because LML throws its work away; the next
run looks its albums up again. A failed request says nothing about the albums.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from artwork_backfill.shared.clients.http import (
    CredentialsRefused,
    Interrupted,
    NotFound,
    ServiceDown,
    ServiceError,
    TimedOut,
    Unreadable,
)
from artwork_backfill.shared.clients.lml import (
    BulkAnswer,
    BulkUnsupported,
    LmlClient,
    LmlQuery,
    LookupAnswer,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

_REFUSALS: Final = frozenset({429, 503})
#: The delay before a refused request is retried, in seconds: the first and the longest.
FIRST_WAIT_S: Final = 2.0
LONGEST_WAIT_S: Final = 60.0
#: How long LML may refuse all requests before it counts as down, in seconds.
PATIENCE_S: Final = 300.0


class WrongAddress(Exception):
    """The settings name an address without LML. The message names the setting."""


@dataclass(frozen=True, slots=True)
class LookupFailed:
    """The reason why a query got no answer, which says nothing about the album."""

    reason: str


Answer = LookupAnswer | LookupFailed
Clock = Callable[[], float]


class Lookups:
    """Look up groups of albums, from any number of threads.

    Parameters
    ----------
    discogs
        The rate limit of lookups at Discogs, as LML reports them. A server that does not report
        them is not limited.
    stop_flag, clock
        Waiting ends when `stop_flag` is set; `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        client: LmlClient,
        *,
        discogs: Pace,
        stop_flag: threading.Event,
        clock: Clock = time.monotonic,
    ) -> None:
        self._client = client
        self._discogs = discogs
        self._stop_flag = stop_flag
        self._clock = clock
        # Each flag changes only once, so threads may read it without a lock.
        self._has_bulk = True
        self._bulk_worked = False
        self._single_worked = False

    def ask(self, queries: Sequence[LmlQuery]) -> list[Answer]:
        """Return LML's answers for a group of albums, in their order.

        Raises
        ------
        ServiceDown
            LML is down, or keeps refusing.
        CredentialsRefused, WrongAddress
            LML refuses the key, or is not at the address of the settings.
        Interrupted
            The run is stopping.
        """
        if not queries:
            return []
        return self._together(queries) if self._has_bulk else self._apart(queries)

    def _together(self, queries: Sequence[LmlQuery]) -> list[Answer]:
        try:
            answers = self._patiently(lambda: self._client.lookup_bulk(queries))
        except BulkUnsupported as refusal:
            return self._without_bulk(queries, refusal)
        except TimedOut as failure:
            return [LookupFailed(str(failure)) for _ in queries]
        except Unreadable as failure:
            log.info("looking up %d albums one by one: %s", len(queries), failure)
            return self._apart(queries)
        self._bulk_worked = True
        self._pay(answer.lookup for answer in answers)
        return [self._read(*pair) for pair in zip(queries, answers, strict=True)]

    def _read(self, query: LmlQuery, answer: BulkAnswer) -> Answer:
        """Return the answer of one query out of many; retry once what LML calls an error."""
        if answer.lookup is not None:
            return answer.lookup
        if answer.status == "failed":
            return self._once(query)
        return LookupFailed(answer.message)

    def _without_bulk(self, queries: Sequence[LmlQuery], refusal: BulkUnsupported) -> list[Answer]:
        """Look up albums at a server that seems to have no bulk lookup.

        During a deployment every URL answers 404. Therefore bulk lookup counts as missing only if a
        single lookup has worked and bulk lookup still fails.
        """
        if self._single_worked or refusal.status == 405:
            log.info("looking up albums one by one: %s", refusal)
            self._has_bulk = False
            return self._apart(queries)
        return [self._once(queries[0]), *self.ask(queries[1:])]

    def _apart(self, queries: Sequence[LmlQuery]) -> list[Answer]:
        return [self._once(query) for query in queries]

    def _once(self, query: LmlQuery) -> Answer:
        try:
            answer = self._patiently(lambda: self._client.lookup(query))
        except Unreadable as failure:
            return LookupFailed(str(failure))
        except NotFound as absence:
            raise WrongAddress(f"{absence}: check LIBRARY_METADATA_URL") from absence
        self._single_worked = True
        self._pay([answer])
        return answer

    def _patiently(self, request: Callable[[], T]) -> T:
        """Send a request, and retry it while LML refuses it or is unreachable for the moment."""
        gives_up_at = self._clock() + PATIENCE_S
        wait_s = FIRST_WAIT_S
        while True:
            self._discogs.wait()
            try:
                return request()
            except (ServiceDown, CredentialsRefused):
                raise
            except ServiceError as refusal:
                if not self._is_passing(refusal):
                    raise
                if self._clock() >= gives_up_at:
                    raise ServiceDown(
                        f"LML has refused for {PATIENCE_S:.0f} s: {refusal}. Run again later",
                        service=refusal.service,
                        url=refusal.url,
                        status=refusal.status,
                    ) from refusal
                log.warning("LML refuses, repeating the request in %.0f s: %s", wait_s, refusal)
            if self._stop_flag.wait(wait_s):
                raise Interrupted("the run is stopping")
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    def _is_passing(self, refusal: ServiceError) -> bool:
        if isinstance(refusal, BulkUnsupported):
            return refusal.status == 404 and self._bulk_worked
        if isinstance(refusal, NotFound):
            return self._bulk_worked or self._single_worked
        return refusal.status in _REFUSALS

    def _pay(self, answers: Iterable[LookupAnswer | None]) -> None:
        calls = sum(answer.api_calls or 0 for answer in answers if answer is not None)
        if calls:
            self._discogs.used(calls)


class Pace:
    """Keep the use of a resource below a rate, over all threads.

    LML asks Discogs for albums that are not in its cache, and Discogs limits LML's requests per
    minute; each written row makes the database notify the live site's listeners. A limit is
    enforced after the fact: wait until the use so far is due. Unused time is not saved for a burst.

    `per_second` is the rate, `None` for no limit. Waiting ends with `Interrupted` when `stop_flag`
    is set; `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        per_second: float | None,
        stop_flag: threading.Event,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._seconds_each = 1 / per_second if per_second else 0.0
        self._stop_flag = stop_flag
        self._clock = clock
        self._lock = threading.Lock()
        self._due = clock()

    def used(self, count: int) -> None:
        """Record a use of `count`; `wait` then lasts until it is due."""
        with self._lock:
            self._due = max(self._due, self._clock()) + count * self._seconds_each

    def wait(self) -> None:
        """Wait until all use so far is due."""
        while (left := self._due - self._clock()) > 0:
            if self._stop_flag.wait(left):
                raise Interrupted("the run is stopping")
