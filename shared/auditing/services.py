"""The outside services of an audit: archive.org and the MusicBrainz web service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Final, Self

from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient
from artwork_backfill.shared.clients.http import Budget, ServiceStats
from artwork_backfill.shared.clients.musicbrainz import MusicBrainzClient
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
