"""The MusicBrainz web service client: the XML of one entity, as the indexer would archive it.

It does not read the XML: whether it is well-formed and about the entity asked for (a merged gid
is answered with the entity it was merged into) is for the caller to find out.
"""

from __future__ import annotations

import codecs
import threading
from types import MappingProxyType
from typing import Final
from uuid import UUID

from artwork_backfill.shared.clients.http import (
    BadAnswer,
    HttpClient,
    Response,
    Service,
    ServiceStats,
)
from artwork_backfill.shared.settings import Settings, SettingsError

#: What artwork-indexer asks for. The `+` separates values and must not be percent-encoded.
_QUERIES: Final = MappingProxyType(
    {"release": "inc=artists", "event": "inc=artist-rels+place-rels"}
)


#: All that the web service says is in it; the page that a proxy or a gate puts in its place is not,
#: and must count against the service's health, whatever its status.
_NAMESPACE: Final = b"http://musicbrainz.org/ns/mmd-2.0#"


def connect(
    *,
    base_url: str,
    stopping: threading.Event,
    rate: float | None = None,
    contact: str | None = None,
    set_database: str | None = None,
    concurrency: int = 16,
    patience_s: float = 180.0,
) -> MusicBrainzClient:
    """Return a client; see `Service` and `HttpClient` for what the parameters mean.

    `set_database` selects a database on hosts that support it. Raises `ValueError` when a value
    cannot be used.
    """
    service = Service(
        name="MusicBrainz",
        url_setting="MUSICBRAINZ_URL",
        base_url=base_url,
        contact=contact,
        rate=rate,
        concurrency=concurrency,
        headers={"mb-set-database": set_database} if set_database else {},
        patience_s=patience_s,
    )
    return MusicBrainzClient(HttpClient(service, stopping=stopping))


class MusicBrainzClient:
    """Asks the MusicBrainz web service, from any number of threads."""

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        stopping: threading.Event,
        concurrency: int,
        patience_s: float = 180.0,
    ) -> MusicBrainzClient:
        """Return a client as the settings have it; nothing is sent yet.

        Raises `SettingsError` where a setting is missing or malformed.
        """
        place = settings.musicbrainz()
        try:
            return connect(
                base_url=place.base_url,
                rate=place.rate,
                contact=settings.contact(),
                set_database=settings.get("MUSICBRAINZ_SET_DATABASE"),
                concurrency=concurrency,
                stopping=stopping,
                patience_s=patience_s,
            )
        except ValueError as error:
            raise SettingsError(str(error)) from None

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    @property
    def name(self) -> str:
        """What people call the service."""
        return self._http.service.name

    def entity_xml(self, entity_type: str, gid: str) -> bytes:
        """Return the web service's XML for a `release` or an `event`.

        Raises
        ------
        NotFound
            There is no such entity now.
        Unreadable, ServiceDown, Interrupted
            There is no answer.
        """
        return self._http.get(
            f"/ws/2/{entity_type}/{UUID(gid)}?{_QUERIES[entity_type]}", _parse_xml
        )

    def stats(self) -> ServiceStats:
        """Return what asking MusicBrainz has cost so far."""
        return self._http.stats()

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()


def _parse_xml(response: Response) -> bytes:
    is_xml = response.body.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")
    if not is_xml or _NAMESPACE not in response.body:
        raise BadAnswer("the answer is not XML of the web service")
    return response.body
