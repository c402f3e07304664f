"""The MusicBrainz web service client: the XML of one entity, as the indexer would archive it.

It does not parse the XML: the caller checks whether it is well-formed and about the requested
entity (for a merged gid, the answer is about the target).
"""

from __future__ import annotations

import codecs
import threading
from collections.abc import Mapping
from typing import Final, Self
from uuid import UUID

from artwork_backfill.shared.clients.http import (
    MEBIBYTE,
    BadAnswer,
    Budget,
    HttpClient,
    Response,
    Service,
)
from artwork_backfill.shared.settings import Settings

#: The form that artwork-indexer requests. The `+` separates values and must not be percent-encoded.
_QUERIES: Final[Mapping[str, str]] = {
    "release": "inc=artists",
    "event": "inc=artist-rels+place-rels",
}

#: An answer has a few kilobytes, and 300 bytes more for each further artist.
_MAX_BYTES: Final = 2 * MEBIBYTE

#: All answers of the web service are in this namespace. The page of a proxy or a gateway is not,
#: and must count against the service's health, whatever its status.
_NAMESPACE: Final = b"http://musicbrainz.org/ns/mmd-2.0#"


class MusicBrainzClient(HttpClient):
    """A client of the MusicBrainz web service, for any number of threads."""

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        stop_flag: threading.Event,
        concurrency: int = 16,
        patience_s: float = 180.0,
        budget: Budget | None = None,
    ) -> Self:
        """Return a client for the web service of the settings, without sending anything yet.

        See `Service` and `HttpClient` for the parameters. Raises `SettingsError`.
        """
        endpoint, database = settings.musicbrainz(), settings.get("MUSICBRAINZ_SET_DATABASE")
        service = Service(
            name="MusicBrainz",
            url_setting="MUSICBRAINZ_URL",
            base_url=endpoint.base_url,
            contact=settings.contact(),
            rate=endpoint.rate,
            concurrency=concurrency,
            headers={"mb-set-database": database} if database else {},
            max_bytes=_MAX_BYTES,
            patience_s=patience_s,
        )
        return cls(service, stop_flag=stop_flag, budget=budget)

    def entity_xml(self, entity_type: str, gid: str) -> bytes:
        """Return the web service's XML for a `release` or an `event`; raises as `get`."""
        return self.get(f"/ws/2/{entity_type}/{UUID(gid)}?{_QUERIES[entity_type]}", _parse_xml)


def _parse_xml(response: Response) -> bytes:
    is_xml = response.body.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")
    if not is_xml or _NAMESPACE not in response.body:
        raise BadAnswer("the answer is not XML of the web service")
    return response.body
