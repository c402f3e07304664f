"""The Library Metadata Lookup (LML) client: artwork for an artist's album.

It parses answers into small dataclasses. The caller decides whether artwork is that of the album;
`library_item` in an answer only repeats the request, and is not read. Forms and headers:
WXYC/library-metadata-lookup, `lookup/`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from artwork_backfill.shared.clients.http import (
    MEBIBYTE,
    BadAnswer,
    HttpClient,
    Response,
    Service,
    ServiceError,
    parse_json,
)
from artwork_backfill.shared.settings import Settings

#: The maximum number of queries of a bulk request.
BULK_MAX: Final = 100

_LOOKUP: Final = "/api/v1/lookup"
#: Without the parameter, a bulk lookup only uses LML's cache.
_BULK: Final = "/api/v1/lookup/bulk?allow_release_resolution_fallback=true"

#: Batch traffic; LML groups its telemetry by the reason.
_HEADERS: Final = {"x-caller-class": "5", "x-caller-reason": "library-artwork-url-backfill"}
#: The mere presence of this header makes LML give up after about 4 s.
_BUDGET: Final = {"x-caller-budget-ms": "4000"}

#: An aborted request is wasted work: each album gets its time, and a single one as long as LML may
#: take for it.
_PER_ALBUM_S: Final = 5.0
_OVERHEAD_S: Final = 5.0
_LONGEST_LOOKUP_S: Final = 30.0

#: Reasons of a degraded answer that make it unusable; `cache_only` is one.
_NO_ANSWER: Final = frozenset({"deadline_exceeded", "upstream_unavailable"})

#: How often a look-up is tried, and the maximum time of the pauses between attempts.
_ATTEMPTS: Final = 4
_PAUSES_S: Final = 120.0
#: How long LML may leave all requests unanswered before it counts as down.
_PATIENCE_S: Final = 300.0

#: Parsing a document takes up to thirty times its size, and this is more than LML sends.
_LARGEST_ANSWER: Final = MEBIBYTE
_LARGEST_PER_ALBUM: Final = 20 * 1024
_MOST_RESULTS: Final = 50
_LONGEST_NAME: Final = 500
#: Longer than any URL that the catalogue may hold.
_LONGEST_URL: Final = 1_000


class BulkUnsupported(ServiceError):
    """This LML server has no bulk lookup: look albums up one by one. A 404 may be temporary."""


@dataclass(frozen=True, slots=True)
class LmlQuery:
    """The album to look up."""

    artist: str
    album: str


@dataclass(frozen=True, slots=True)
class Artwork:
    """A picture that LML found, and the Discogs release that it belongs to.

    `release_id` is 0 for the cover of a track search; `confidence` is LML's own, from 0.2 to 1.
    Every field is as LML sent it, `None` if missing; very long texts are truncated.
    """

    artist: str | None
    album: str | None
    release_id: int | None
    url: str | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class LookupAnswer:
    """What LML found for one query, best first; `None` stands for a result without artwork."""

    results: tuple[Artwork | None, ...]
    #: Why LML could not search everywhere (it timed out, or was cut off from Discogs). There may be
    #: artwork even if the answer has none.
    unsure: str | None = None
    #: The number of requests to Discogs that this took, `None` if the server does not say.
    api_calls: int | None = None


@dataclass(frozen=True, slots=True)
class BulkAnswer:
    """The result of one query of a bulk request; `index` is its position there.

    `lookup` is set if `status` is `answered`. `failed` is what LML itself calls an error;
    `unreadable` is an answer, or a status, that is not understood. `message` explains both.
    """

    index: int
    status: Literal["answered", "failed", "unreadable"]
    lookup: LookupAnswer | None
    message: str = ""


class LmlClient(HttpClient):
    """A client of LML, for any number of threads."""

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        stop_flag: threading.Event,
        concurrency: int = 1,
        bulk_size: int = 5,
        quick: bool = False,
    ) -> Self:
        """Return a client for the LML of the settings, without sending anything yet.

        `bulk_size` is the maximum number of queries of a bulk request, which determines its time
        limit. With `quick`, LML gives up after about 4 s per album, and finds less. See `Service`
        and `HttpClient` for the other parameters. Raises `SettingsError`.
        """
        endpoint, api_key = settings.lml(), settings.get("LML_API_KEY")
        deadline_s = max(_LONGEST_LOOKUP_S, _PER_ALBUM_S * bulk_size + _OVERHEAD_S)
        service = Service(
            name="LML",
            url_setting="LIBRARY_METADATA_URL",
            base_url=endpoint.base_url,
            contact=settings.contact(),
            rate=endpoint.rate,
            concurrency=concurrency,
            headers=_HEADERS | (_BUDGET if quick else {}),
            credentials={"authorization": f"Bearer {api_key}"} if api_key else {},
            key_settings="LML_API_KEY",
            read_timeout_s=deadline_s,
            deadline_s=deadline_s,
            call_s=_ATTEMPTS * deadline_s + _PAUSES_S,
            max_bytes=max(_LARGEST_ANSWER, bulk_size * _LARGEST_PER_ALBUM),
            attempts=_ATTEMPTS,
            silence_s=_PATIENCE_S,
            # LML discards its results for an aborted request.
            retries_timeouts=False,
        )
        return cls(service, stop_flag=stop_flag)

    def lookup(self, query: LmlQuery) -> LookupAnswer:
        """Look up one album; raises as `get`. `NotFound` means that there is no LML there now."""
        return self.post_json(
            _LOOKUP,
            _document(query),
            lambda response: _read_lookup(parse_json(response)),
            authorized=True,
        )

    def lookup_bulk(self, queries: Sequence[LmlQuery]) -> tuple[BulkAnswer, ...]:
        """Look up at most `BULK_MAX` albums at once; the answers are in the order of the queries.

        Raises `BulkUnsupported` if the server is too old for it, or if there is no LML at this
        address now; otherwise as `get`.
        """
        if len(queries) > BULK_MAX:
            raise ValueError(f"{len(queries)} queries in one bulk request; {BULK_MAX} are possible")
        if not queries:
            return ()
        return self.post_json(
            _BULK,
            {"items": [_document(query) for query in queries]},
            lambda response: _read_bulk(response, len(queries)),
            authorized=True,
            also_wanted=frozenset({404, 405}),
        )


def _document(query: LmlQuery) -> dict[str, str]:
    return {
        "artist": query.artist,
        "album": query.album,
        "raw_message": f"{query.artist} - {query.album}",
    }


# -- single lookup ---------------------------------------------------------------------------------


def _read_lookup(document: object) -> LookupAnswer:
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(results, list):
        raise BadAnswer("the answer has no list of results")
    return LookupAnswer(
        tuple(_read_result(result) for result in results[:_MOST_RESULTS]),
        _read_doubt(document),
        _read_api_calls(document.get("cache_stats")),
    )


def _read_doubt(document: dict[str, object]) -> str | None:
    """Return why an answer is unusable, or `None` if LML searched everywhere."""
    if document.get("timeout") is True:
        return "LML gave up looking (timeout)"
    reason = document.get("degraded_reason")
    if document.get("degraded") is True and reason in _NO_ANSWER:
        return f"LML could not look everywhere ({reason})"
    return None


def _read_api_calls(stats: object) -> int | None:
    calls = stats.get("api_calls") if isinstance(stats, dict) else None
    # isinstance counts a bool as an int.
    return calls if type(calls) is int and calls >= 0 else None


def _read_result(document: object) -> Artwork | None:
    if not isinstance(document, dict):
        raise BadAnswer("a result is not an object")
    artwork = document.get("artwork")
    if artwork is None:
        return None
    if not isinstance(artwork, dict):
        raise BadAnswer("artwork is not an object")
    return Artwork(
        artist=_text(artwork, "artist"),
        album=_text(artwork, "album"),
        release_id=_optional(artwork, "release_id", int, "an integer"),
        url=_text(artwork, "artwork_url", longest=_LONGEST_URL),
        confidence=_number(artwork, "confidence"),
    )


# -- bulk lookup -----------------------------------------------------------------------------------


def _read_bulk(response: Response, asked: int) -> tuple[BulkAnswer, ...]:
    if response.status != 200:
        raise BulkUnsupported(
            f"LML has no bulk lookup at {response.url} (HTTP {response.status}): look albums up "
            "one by one, or check LIBRARY_METADATA_URL",
            service="LML",
            url=response.url,
            status=response.status,
        )
    document = parse_json(response)
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list) or len(results) != asked:
        raise BadAnswer(f"the answer has no list of {asked} results")
    answers = sorted((_read_bulk_answer(result) for result in results), key=lambda a: a.index)
    if [answer.index for answer in answers] != list(range(asked)):
        raise BadAnswer("the answer does not hold each index once")
    return tuple(answers)


def _read_bulk_answer(document: object) -> BulkAnswer:
    """Parse the result of one query; an unreadable one does not affect the others."""
    if not isinstance(document, dict):
        raise BadAnswer("a result is not an object")
    index = document.get("index")
    if type(index) is not int:
        raise BadAnswer("a result has no index")
    status, lookup = document.get("status"), document.get("lookup")
    if status not in ("match", "no_match"):
        message = str(document.get("message") or "no message")[:200]
        known = status == "error"
        said = message if known else f"unknown status {str(status)[:50]!r}: {message}"
        return BulkAnswer(index, "failed" if known else "unreadable", None, said)
    if status == "no_match" and lookup is None:
        return BulkAnswer(index, "answered", LookupAnswer(()))
    try:
        return BulkAnswer(index, "answered", _read_lookup(lookup))
    except BadAnswer as problem:
        return BulkAnswer(index, "unreadable", None, problem.reason)


# -- values ----------------------------------------------------------------------------------------


def _text(document: dict[str, object], key: str, *, longest: int = _LONGEST_NAME) -> str | None:
    value = _optional(document, key, str, "a text")
    return value[:longest] if value else None


def _number(document: dict[str, object], key: str) -> float | None:
    value = _optional(document, key, (int, float), "a number")
    if value is not None and not math.isfinite(value):
        raise BadAnswer(f"{key} is not a number")
    return None if value is None else float(value)


def _optional(document: dict[str, object], key: str, kind: Any, what: str) -> Any:
    value = document.get(key)
    # isinstance counts a bool as an int.
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
        raise BadAnswer(f"{key} is not {what}")
    return value
