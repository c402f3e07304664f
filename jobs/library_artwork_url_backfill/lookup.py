"""Asking LML about many albums: together where the server can, else one after another."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from artwork_backfill.shared.clients.http import (
    CredentialsRefused,
    NotFound,
    ServiceDown,
    Unreadable,
)
from artwork_backfill.shared.clients.lml import (
    BulkAnswer,
    BulkUnsupported,
    LmlClient,
    LmlQuery,
    LookupAnswer,
)
from artwork_backfill.shared.engine.job import RunFailed, StopRun

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LookupFailed:
    """There is no answer to a query, and why; that says nothing about the album."""

    reason: str


class Lookups:
    """Asks for groups of albums, from any number of threads."""

    def __init__(self, client: LmlClient) -> None:
        self._client = client
        # Only ever change once, so threads may look at them without a lock.
        self._has_bulk = True
        self._was_there = False

    def ask(self, queries: Sequence[LmlQuery]) -> list[LookupAnswer | LookupFailed]:
        """Return what LML knows of up to 100 albums, in their order.

        Raises
        ------
        StopRun
            LML is down, or keeps refusing.
        RunFailed
            LML does not accept our key, or is not where the settings say.
        Unreadable
            There was no answer for these albums together; asked one by one, there may be.
        """
        try:
            return self._ask_together(queries) if len(queries) > 1 else self._ask_apart(queries)
        except ServiceDown as down:
            raise StopRun(str(down)) from down
        except CredentialsRefused as refusal:
            raise RunFailed(str(refusal)) from refusal

    def _ask_together(self, queries: Sequence[LmlQuery]) -> list[LookupAnswer | LookupFailed]:
        if not self._has_bulk:
            return self._ask_apart(queries)
        try:
            answers = self._client.lookup_bulk(queries)
        except BulkUnsupported as refusal:
            log.info("looking albums up one after another: %s", refusal)
            self._has_bulk = False
            return self._ask_apart(queries)
        self._was_there = True
        return [self._settle(*pair) for pair in zip(queries, answers, strict=True)]

    def _ask_apart(self, queries: Sequence[LmlQuery]) -> list[LookupAnswer | LookupFailed]:
        return [self._ask_once(query) for query in queries]

    def _settle(self, query: LmlQuery, answer: BulkAnswer) -> LookupAnswer | LookupFailed:
        """Return the answer of one query of many, asking again alone where there was an error."""
        if answer.status == "error":
            return self._ask_once(query)
        return answer.lookup or LookupAnswer(())

    def _ask_once(self, query: LmlQuery) -> LookupAnswer | LookupFailed:
        try:
            answer = self._client.lookup(query)
        except Unreadable as failure:
            return LookupFailed(str(failure))
        except NotFound as failure:
            if self._was_there:
                return LookupFailed(str(failure))
            raise RunFailed(f"{failure}: check LIBRARY_METADATA_URL") from failure
        self._was_there = True
        return answer
