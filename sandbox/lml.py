"""Stand-ins for Library Metadata Lookup (LML): the current server, and an old one.

Both answer from a `sandbox.library.Library`. The current one behaves as the real one does under
load: every item of a bulk request, and every lookup of a batch or of the live site, needs one of a
few permits; cached albums take milliseconds, others ask Discogs; a request continues after its
client has given up. `library_item` is the requested row, whatever the artwork belongs to.

In addition to what every stand-in counts (see `sandbox.stand_ins`), ``counts`` has ``discogs``
(requests to Discogs) and ``asked_again`` (albums that were looked up before).
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sandbox.faults import Behaviour
from sandbox.httpd import Request, Response, json_response
from sandbox.library import Library, LibraryRow, artwork_url
from sandbox.stand_ins import StandIn

_NOT_FOUND = b'{"detail":"Not Found"}'
#: A caller that sends any budget gets an answer after this time at the latest.
_BUDGET_S = 4.0


@dataclass(frozen=True, slots=True)
class LmlBehaviour(Behaviour):
    """How Library Metadata Lookup behaves.

    Parameters
    ----------
    api_key
        The key that it requires.
    permits
        How many albums are looked up at once, for all callers together.
    lookup_s
        How long a cached album takes.
    uncached_s
        How long an album takes for which Discogs has to be asked.
    gone
        Whether every route answers 404, as during a deployment.
    """

    api_key: str = "sandbox-lml-key"
    permits: int = 5
    lookup_s: float = 0.014
    uncached_s: float = 4.0
    gone: bool = False


class Lml(StandIn):
    """The current server. Kinds of path: ``lookup``, ``bulk``."""

    _BULK_LIMIT = 100
    _PATHS: ClassVar = {"/api/v1/lookup": "lookup", "/api/v1/lookup/bulk": "bulk"}
    behaviour: LmlBehaviour

    def __init__(self, library: Library, behaviour: LmlBehaviour) -> None:
        super().__init__(library.spec.seed + 2, behaviour)
        self._library = library
        # When each permit becomes free again.
        self._permits = [0.0] * behaviour.permits
        self._asked: set[int] = set()

    def control(self, changes: dict[str, Any]) -> None:
        if changes.get("reset_stats"):
            self._asked.clear()
        super().control(changes)
        self._permits = [0.0] * self.behaviour.permits

    def kind(self, request: Request) -> str:
        return self._PATHS.get(request.path, "other")

    def answer(self, path: str, request: Request) -> Response:
        if path == "other" or self.behaviour.gone:
            return Response(404, _NOT_FOUND)
        if request.method != "POST":
            return json_response({"detail": "Method Not Allowed"}, status=405)
        if request.header("authorization") != f"Bearer {self.behaviour.api_key}":
            return json_response({"detail": "Invalid or missing API key"}, status=401)
        try:
            document = json.loads(request.body)
            if path == "bulk":
                return self._bulk(document, request)
            return self._lookup(document, request)
        except (ValueError, KeyError, TypeError) as error:
            return json_response({"detail": f"not a valid request: {error!r}"}, status=422)

    def _lookup(self, query: dict[str, str], request: Request) -> Response:
        row = self._find(query)
        # The live site's requests wait for a permit, too.
        delay_s = self._take_permits([self._seconds(row, request)])
        if row is not None and row.outcome == "error":
            return json_response({"detail": "Internal Server Error"}, status=500, delay_s=delay_s)
        return json_response(self._document(query, row, request), delay_s=delay_s)

    def _bulk(self, document: dict[str, Any], request: Request) -> Response:
        queries = document["items"]
        if not 0 < len(queries) <= self._BULK_LIMIT:
            return json_response({"detail": f"1 to {self._BULK_LIMIT} items, please"}, status=422)
        only_cached = "allow_release_resolution_fallback=true" not in request.query
        rows = [self._find(query) for query in queries]
        delay_s = self._take_permits(
            [
                self.behaviour.lookup_s if only_cached else self._seconds(row, request)
                for row in rows
            ]
        )
        results = [
            self._bulk_result(place, query, row, request, only_cached=only_cached)
            for place, (query, row) in enumerate(zip(queries, rows, strict=True))
        ]
        return json_response({"results": results}, delay_s=delay_s)

    def _bulk_result(
        self,
        place: int,
        query: dict[str, str],
        row: LibraryRow | None,
        request: Request,
        *,
        only_cached: bool,
    ) -> dict[str, Any]:
        if row is not None and row.outcome == "error":
            return {"index": place, "status": "error", "lookup": None, "message": "TimeoutError"}
        lookup = self._document(query, row, request, only_cached=only_cached)
        status = "match" if lookup["results"] else "no_match"
        return {"index": place, "status": status, "lookup": lookup}

    def _find(self, query: dict[str, str]) -> LibraryRow | None:
        if not query["raw_message"]:
            raise ValueError("raw_message is empty")
        return self._library.find(query["artist"], query["album"])

    def _is_known(self, row: LibraryRow | None) -> bool:
        """Return whether Discogs need not be asked: the album is cached or was asked for."""
        return row is None or row.is_cached or row.id in self._asked

    def _seconds(self, row: LibraryRow | None, request: Request) -> float:
        if self._is_known(row):
            return self.behaviour.lookup_s
        seconds = self.behaviour.uncached_s
        return min(seconds, _BUDGET_S) if self._gives_up(request) else seconds

    def _gives_up(self, request: Request) -> bool:
        return (
            request.header("x-caller-budget-ms") is not None
            and self.behaviour.uncached_s >= _BUDGET_S
        )

    def _take_permits(self, seconds: Sequence[float]) -> float:
        """Return after how long lookups of these durations are all done."""
        now = done = time.monotonic()
        for each in seconds:
            ready = max(now, heapq.heappop(self._permits)) + each
            heapq.heappush(self._permits, ready)
            done = max(done, ready)
        return done - now

    def _document(
        self,
        query: dict[str, str],
        row: LibraryRow | None,
        request: Request,
        *,
        only_cached: bool = False,
    ) -> dict[str, Any]:
        known = self._is_known(row)
        if row is not None:
            self.stats.counts["asked_again"] += row.id in self._asked
            self._asked.add(row.id)
        self.stats.counts["discogs"] += not known and not only_cached
        document: dict[str, Any] = {
            "results": _results(query, row),
            "search_type": "direct",
            "song_not_found": False,
            "found_on_compilation": False,
            "context_message": None,
            "corrected_artist": None,
            "timeout": False,
            "degraded": False,
            "cache_stats": {
                "memory_hits": 0,
                "pg_hits": int(known),
                "pg_misses": int(not known),
                "api_calls": int(not known and not only_cached),
            },
        }
        if not known and only_cached and row is not None:
            document["results"] = [_result(query, row, picture="A")]
            document |= {"degraded": True, "degraded_reason": "cache_only"}
        elif not known and self._gives_up(request):
            document |= {"results": [], "timeout": True}
        elif row is not None and row.outcome == "timeout":
            document |= {"search_type": "none", "timeout": True}
        elif row is not None and row.outcome == "degraded":
            document |= {"degraded": True, "degraded_reason": "upstream_unavailable"}
        return document


class OldLml(Lml):
    """An old server: no bulk lookup, no reports of time-outs or costs, logos among its pictures."""

    _PATHS: ClassVar = {"/api/v1/lookup": "lookup"}
    _UNKNOWN_KEYS = ("timeout", "degraded", "degraded_reason", "cache_stats")

    def _document(self, *args: Any, **options: Any) -> dict[str, Any]:
        document = super()._document(*args, **options)
        return {key: value for key, value in document.items() if key not in self._UNKNOWN_KEYS}


def _results(query: dict[str, str], row: LibraryRow | None) -> list[dict[str, Any]]:
    if row is None:
        return []
    own = _result(query, row)
    volume = f"{row.album.rpartition(' ')[0]} {row.id + 1}"
    other = _result(query, row, album=volume, number=9_000_000 + row.id, confidence=0.2)
    match row.outcome:
        case "no_match" | "timeout" | "error":
            return []
        case "match_second":
            return [other, own]
        case "other_album":
            return [other]
        case "other_artist":
            near = f"{row.artist.partition(' ')[0]}a {row.artist.partition(' ')[2]}"
            return [_result(query, row, artist=near, number=8_000_000 + row.id, confidence=0.5)]
        case "no_artwork" | "degraded":
            return [{**own, "artwork": None}]
        case "placeholder":
            spacer = "https://st.discogs.com/images/spacer.gif"
            return [{**own, "artwork": {**own["artwork"], "artwork_url": spacer}}]
        case "photo":
            return [_result(query, row, picture="A")]
        case "logo":
            return [_result(query, row, picture="L")]
        case _:
            return [own, other]


def _result(
    query: dict[str, str],
    row: LibraryRow,
    *,
    artist: str | None = None,
    album: str | None = None,
    number: int | None = None,
    picture: str = "R",
    confidence: float = 0.95,
) -> dict[str, Any]:
    number = row.id if number is None else number
    return {
        "library_item": {
            "id": row.legacy_release_id,
            "title": query["album"],
            "artist": query["artist"],
            "call_letters": row.artist[0],
            "artist_call_number": row.artist_id,
            "release_call_number": 1,
            "genre": "Rock",
            "format": "CD",
            "library_url": f"http://www.wxyc.info/wxycdb/libraryRelease?id={row.legacy_release_id}",
        },
        "artwork": {
            "album": album or row.album,
            "artist": artist or row.artist,
            "release_id": number,
            "release_url": f"https://www.discogs.com/release/{number}",
            "artwork_url": artwork_url(number, picture),
            "confidence": confidence,
        },
    }
