"""The Library Metadata Lookup (LML) client: which artwork belongs to an artist's album?

It reads answers into small dataclasses. Whether a result is the album that was asked for is for
the caller to judge.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from artwork_backfill.shared.clients.http import (
    BadAnswer,
    HttpClient,
    Response,
    Service,
    ServiceError,
    ServiceStats,
    parse_json,
)
from artwork_backfill.shared.settings import Settings, SettingsError

#: Most queries that one bulk request may hold.
BULK_MAX: Final = 100

_TIMEOUT_S: Final = 29.0
_HEADERS: Final = {"x-caller-class": "5", "x-caller-budget-ms": "28000"}
#: How Discogs says that it has no picture.
_PLACEHOLDER: Final = "spacer.gif"


class BulkUnsupported(ServiceError):
    """This LML server has no bulk look-up: ask one by one."""


@dataclass(frozen=True, slots=True)
class LmlQuery:
    """The album looked for."""

    artist: str
    album: str


@dataclass(frozen=True, slots=True)
class LookupResult:
    """One album that LML found; not always the one asked for, it also lists the artist's others.

    `library_item_id` is the library row's `legacy_release_id`. `artwork_url` is as it came, which
    may be a placeholder: see `has_artwork`.
    """

    library_item_id: int | None
    title: str | None
    artist: str | None
    artwork_url: str | None

    @property
    def has_artwork(self) -> bool:
        """Whether `artwork_url` leads to a picture of this album."""
        return self.artwork_url is not None and _PLACEHOLDER not in self.artwork_url


@dataclass(frozen=True, slots=True)
class LookupAnswer:
    """What LML found for one query, best first."""

    results: tuple[LookupResult, ...]


@dataclass(frozen=True, slots=True)
class BulkAnswer:
    """What became of one query of a bulk request; `index` is its place there.

    `lookup` is there when `status` is `match`; `message` tells what an `error` was.
    """

    index: int
    status: Literal["match", "no_match", "error"]
    lookup: LookupAnswer | None
    message: str | None


def connect(
    *,
    base_url: str,
    stopping: threading.Event,
    api_key: str | None = None,
    rate: float | None = None,
    contact: str | None = None,
    concurrency: int = 16,
    patience_s: float = 180.0,
) -> LmlClient:
    """Return a client; see `Service` and `HttpClient` for what the parameters mean.

    Raises `ValueError` when a value cannot be used.
    """
    service = Service(
        name="LML",
        url_setting="LIBRARY_METADATA_URL",
        base_url=base_url,
        contact=contact,
        rate=rate,
        concurrency=concurrency,
        headers=_HEADERS,
        credentials={"authorization": f"Bearer {api_key}"} if api_key else {},
        key_settings="LML_API_KEY",
        read_timeout_s=_TIMEOUT_S,
        deadline_s=_TIMEOUT_S,
        patience_s=patience_s,
    )
    return LmlClient(HttpClient(service, stopping=stopping))


class LmlClient:
    """Asks Library Metadata Lookup, from any number of threads.

    Every method raises `CredentialsRefused`, `NotFound`, `Unreadable`, `ServiceDown` or
    `Interrupted` where there is no answer.
    """

    @classmethod
    def from_settings(
        cls, settings: Settings, *, stopping: threading.Event, concurrency: int
    ) -> LmlClient:
        """Return a client as the settings have it; nothing is sent yet.

        Raises `SettingsError` where a setting is missing or malformed.
        """
        place = settings.lml()
        try:
            return connect(
                base_url=place.base_url,
                rate=place.rate,
                contact=settings.contact(),
                api_key=settings.get("LML_API_KEY"),
                concurrency=concurrency,
                stopping=stopping,
            )
        except ValueError as error:
            raise SettingsError(str(error)) from None

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    @property
    def name(self) -> str:
        """What people call the service."""
        return self._http.service.name

    def lookup(self, query: LmlQuery) -> LookupAnswer:
        """Look one album up."""
        return self._http.post_json(
            "/api/v1/lookup",
            _document(query),
            lambda response: _read_lookup(parse_json(response)),
            authorized=True,
        )

    def lookup_bulk(self, queries: Sequence[LmlQuery]) -> tuple[BulkAnswer, ...]:
        """Look up to `BULK_MAX` albums up at once; the answers come in the order of the queries.

        Raises
        ------
        BulkUnsupported
            The server is too old for it.
        """
        if len(queries) > BULK_MAX:
            raise ValueError(f"{len(queries)} queries in one bulk request; {BULK_MAX} are possible")
        if not queries:
            return ()
        return self._http.post_json(
            "/api/v1/lookup/bulk",
            {"items": [_document(query) for query in queries]},
            lambda response: _read_bulk(response, len(queries)),
            authorized=True,
            also_wanted=frozenset({404, 405}),
        )

    def stats(self) -> ServiceStats:
        """Return what asking LML has cost so far."""
        return self._http.stats()

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()


def _document(query: LmlQuery) -> dict[str, str]:
    return {
        "artist": query.artist,
        "album": query.album,
        "raw_message": f"{query.artist} - {query.album}",
    }


def _read_lookup(document: object) -> LookupAnswer:
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        raise BadAnswer("the answer has no list of results")
    return LookupAnswer(tuple(_read_result(result) for result in results))


def _read_result(document: object) -> LookupResult:
    if not isinstance(document, dict):
        raise BadAnswer("a result is not an object")
    item = _optional_object(document, "library_item")
    artwork = _optional_object(document, "artwork")
    return LookupResult(
        library_item_id=_optional_int(item, "id"),
        title=_optional_text(item, "title"),
        artist=_optional_text(item, "artist"),
        artwork_url=_optional_text(artwork, "artwork_url"),
    )


def _read_bulk(response: Response, asked: int) -> tuple[BulkAnswer, ...]:
    if response.status != 200:
        raise BulkUnsupported(
            f"LML has no bulk look-up at {response.url} (HTTP {response.status}): look albums up "
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
    if not isinstance(document, dict):
        raise BadAnswer("a result is not an object")
    index = document.get("index")
    if type(index) is not int:
        raise BadAnswer("a result has no index")
    message = _optional_text(document, "message")
    match document.get("status"):
        case "match":
            return _read_match(index, document.get("lookup"))
        case "no_match":
            return BulkAnswer(index, "no_match", None, message)
        case "error":
            return BulkAnswer(index, "error", None, message)
        case _:
            raise BadAnswer("a result has no known status")


def _read_match(index: int, document: object) -> BulkAnswer:
    """Read a match; one that cannot be read is an error of that query, not of its neighbours."""
    try:
        return BulkAnswer(index, "match", _read_lookup(document), None)
    except BadAnswer as problem:
        return BulkAnswer(index, "error", None, problem.reason)


def _optional_object(document: dict[str, object], key: str) -> dict[str, object]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadAnswer(f"{key} is not an object")
    return value


def _optional_text(document: dict[str, object], key: str) -> str | None:
    value = document.get(key)
    if not isinstance(value, str | None):
        raise BadAnswer(f"{key} is not a text")
    return value or None


def _optional_int(document: dict[str, object], key: str) -> int | None:
    value = document.get(key)
    # A bool is an int to isinstance.
    if value is not None and type(value) is not int:
        raise BadAnswer(f"{key} is not an integer")
    return value
