"""The outside services that an audit asks: archive.org and the MusicBrainz web service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event
from typing import Final, Self

from artwork_backfill.shared.clients import archive_org, musicbrainz
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient
from artwork_backfill.shared.clients.musicbrainz import MusicBrainzClient
from artwork_backfill.shared.engine.job import ServiceStats
from artwork_backfill.shared.settings import Settings, SettingsError

#: For how long a service may fail broadly before the audit ends, in seconds.
PATIENCE_S: Final = 180.0

#: How long after the first answer an absence is asked about again, in seconds.
SECOND_LOOK_AFTER_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Services:
    """Both clients.

    `rate` is what the slower of them may be asked, per second; `concurrency` how many threads ask.
    `second_look_after` is in seconds.
    """

    archive: ArchiveOrgClient
    musicbrainz: MusicBrainzClient
    rate: float | None
    concurrency: int = 1
    second_look_after: float = SECOND_LOOK_AFTER_S

    @classmethod
    def connect(cls, settings: Settings, *, concurrency: int, stopping: Event) -> Self:
        """Return the services that the settings name; nothing is sent yet.

        Raises `SettingsError` where a setting is missing or malformed.
        """
        try:
            return cls._connect(settings, concurrency, stopping)
        except ValueError as problem:
            raise SettingsError(str(problem)) from None

    @classmethod
    def _connect(cls, settings: Settings, concurrency: int, stopping: Event) -> Self:
        archive, web_service = settings.archive_org(), settings.musicbrainz()
        contact, keys = settings.contact(), settings.archive_org_keys()
        return cls(
            archive_org.connect(
                base_url=archive.base_url,
                rate=archive.rate,
                contact=contact,
                access_key=keys[0] if keys else None,
                secret_key=keys[1] if keys else None,
                concurrency=concurrency,
                stopping=stopping,
                patience_s=PATIENCE_S,
            ),
            musicbrainz.connect(
                base_url=web_service.base_url,
                rate=web_service.rate,
                contact=contact,
                set_database=settings.get("MUSICBRAINZ_SET_DATABASE"),
                concurrency=concurrency,
                stopping=stopping,
                patience_s=PATIENCE_S,
            ),
            rate=min((rate for rate in (archive.rate, web_service.rate) if rate), default=None),
            concurrency=concurrency,
        )

    def stats(self) -> Mapping[str, ServiceStats]:
        """Return what was asked of each so far."""
        return {"archive.org": self.archive.stats(), "MusicBrainz": self.musicbrainz.stats()}

    def close(self) -> None:
        """Close idle connections."""
        self.archive.close()
        self.musicbrainz.close()
