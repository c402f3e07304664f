"""Reading items of archive.org: every answer passes through the one classifier, and is counted."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final

from artwork_backfill.shared.audit.actual import Item, ItemState, classify
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient

#: More incomplete listings than this share of them are no accident.
_INCOMPLETE_SHARE: Final = 0.01


class Listings:
    """Asks for items, from any number of threads; nothing is remembered but the counts.

    `open_archive` is called before each request, for callers that open a client only when one is
    needed.
    """

    def __init__(self, open_archive: Callable[[], ArchiveOrgClient]) -> None:
        self._open_archive = open_archive
        self._lock = Lock()
        self._listed = 0
        self._incomplete = 0

    def read(self, gid: str, *, again: bool = False) -> Item:
        """Return what archive.org says of an item now.

        `again` is for the second look at an absence, which asks for the reason as well. Raises what
        the client raises where there is no answer.
        """
        item = classify(self._open_archive().metadata(gid, extended_err=again), gid)
        with self._lock:
            self._listed += item.state is ItemState.LISTED
            self._incomplete += item.is_incomplete
        return item

    def warning(self) -> str | None:
        """Return what to say when too many listings were incomplete, None otherwise."""
        with self._lock:
            incomplete, listings = self._incomplete, self._incomplete + self._listed
        if incomplete <= listings * _INCOMPLETE_SHARE:
            return None
        return (
            f"{incomplete:,} of {listings:,} listings of archive.org were incomplete, more than"
            " 1 %: its answers may have another form now; those entities were deferred"
        )
