"""The outside services that an audit asks, and how items of archive.org are read.

Every answer about an item passes through the one classifier, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Final, Self

from artwork_backfill.shared.audit.actual import Item, ItemState, classify
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient
from artwork_backfill.shared.clients.http import Budget, ServiceStats
from artwork_backfill.shared.clients.musicbrainz import MusicBrainzClient
from artwork_backfill.shared.settings import Settings

#: For how long a service may fail broadly before the audit ends, in seconds.
PATIENCE_S: Final = 180.0

#: How long after the first answer an absence is asked about again, in seconds.
SECOND_LOOK_AFTER_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Services:
    """Both clients.

    `rate` is what the slower of them may be asked, per second; `concurrency` how many threads ask.
    `second_look_after` is in seconds. `budget` is what large answers of both may take together:
    whoever works on what they said stays within a `scope` of it.
    """

    archive: ArchiveOrgClient
    musicbrainz: MusicBrainzClient
    rate: float | None
    concurrency: int = 1
    second_look_after: float = field(default=SECOND_LOOK_AFTER_S, kw_only=True)
    budget: Budget = field(default_factory=Budget)

    @classmethod
    def from_settings(cls, settings: Settings, *, concurrency: int, stop_flag: Event) -> Self:
        """Return the services that the settings name; nothing is sent yet.

        Raises `SettingsError` where a setting is missing or malformed.
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
        """Return what was asked of each so far."""
        return {"archive.org": self.archive.stats(), "MusicBrainz": self.musicbrainz.stats()}

    def close(self) -> None:
        """Close idle connections."""
        self.archive.close()
        self.musicbrainz.close()


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
