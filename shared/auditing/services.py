"""The outside services that an audit asks: archive.org and the MusicBrainz web service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Final, Self

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
