"""The outside services of an audit, and reading items of archive.org.

One function classifies and counts every answer about an item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Final, Self

from artwork_backfill.shared.audit.actual import Item, ItemState, classify
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient
from artwork_backfill.shared.clients.http import Budget
from artwork_backfill.shared.clients.musicbrainz import MusicBrainzClient
from artwork_backfill.shared.service_stats import ServiceStats
from artwork_backfill.shared.settings import Settings

#: How long a service may fail broadly before the audit ends, in seconds.
PATIENCE_S: Final = 180.0

#: How long after the first answer an absence is confirmed, in seconds.
SECOND_LOOK_AFTER_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Services:
    """The clients of both services.

    `rate` is that of the slower service, in requests per second; `concurrency` the number of
    threads. `second_look_after` is in seconds. `budget` limits the memory of large answers of both
    services; code that processes answers does so within a `scope` of it.
    """

    archive: ArchiveOrgClient
    musicbrainz: MusicBrainzClient
    rate: float | None
    concurrency: int = 1
    second_look_after: float = field(default=SECOND_LOOK_AFTER_S, kw_only=True)
    budget: Budget = field(default_factory=Budget)

    @classmethod
    def from_settings(cls, settings: Settings, *, concurrency: int, stop_flag: Event) -> Self:
        """Return the services that the settings name, without sending anything yet.

        Raises
        ------
        SettingsError
            A setting is missing or malformed.
        """
        budget = Budget()
        archive = ArchiveOrgClient.from_settings(
            settings,
            concurrency=concurrency,
            stop_flag=stop_flag,
            patience_s=PATIENCE_S,
            budget=budget,
        )
        musicbrainz = MusicBrainzClient.from_settings(
            settings,
            concurrency=concurrency,
            stop_flag=stop_flag,
            patience_s=PATIENCE_S,
            budget=budget,
        )
        rates = (settings.archive_org().rate, settings.musicbrainz().rate)
        return cls(
            archive,
            musicbrainz,
            rate=min((rate for rate in rates if rate), default=None),
            concurrency=concurrency,
            budget=budget,
        )

    def stats(self) -> Mapping[str, ServiceStats]:
        """Return the request statistics of each service."""
        return {"archive.org": self.archive.stats(), "MusicBrainz": self.musicbrainz.stats()}

    def close(self) -> None:
        """Close idle connections."""
        self.archive.close()
        self.musicbrainz.close()


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
