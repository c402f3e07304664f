"""Reading items of archive.org: one function classifies and counts every answer."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final

from artwork_backfill.shared.audit.actual import Item, ItemState, classify
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient

#: A larger share of incomplete listings is no coincidence.
_INCOMPLETE_SHARE: Final = 0.01


class Listings:
    """Request items, from any number of threads; only counts are kept.

    `open_archive` is called before each request, for callers that open a client only if one is
    needed.
    """

    def __init__(self, open_archive: Callable[[], ArchiveOrgClient]) -> None:
        self._open_archive = open_archive
        self._lock = Lock()
        self._listed = 0
        self._incomplete = 0

    def read(self, gid: str, *, again: bool = False) -> Item:
        """Return what archive.org says about an item now.

        `again` marks the second request for an absent item, which also asks for the reason. Raises
        the client's errors if there is no answer.
        """
        item = classify(self._open_archive().metadata(gid, extended_err=again), gid)
        with self._lock:
            self._listed += item.state is ItemState.LISTED
            self._incomplete += item.is_incomplete
        return item

    def warning(self) -> str | None:
        """Return a warning if too many listings were incomplete, or None."""
        with self._lock:
            incomplete, listings = self._incomplete, self._incomplete + self._listed
        if incomplete <= listings * _INCOMPLETE_SHARE:
            return None
        return (
            f"{incomplete:,} of {listings:,} listings of archive.org were incomplete, more than"
            " 1 %; their form may have changed, and those entities were deferred"
        )
