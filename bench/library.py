"""library-artwork-url-backfill on a library of the real size, beside a live caller of LML.

LML is the sandbox's: five permits for all callers, 14 ms for a cached album, 4 s for one that
Discogs has to be asked about. WXYC's own job looks up one album after another, at 50 a minute.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

import psycopg

from artwork_backfill.shared.clients.http import Origin
from bench.commands import Usage, run_command
from sandbox import schema
from sandbox.library import Library, LibraryRow, LibrarySpec, load_library
from sandbox.postgres import DURABLE, Server, start_server
from sandbox.services import Services

ROWS: Final = 64_000
CANDIDATES: Final = 18_500
#: As many as take about a minute at 20 requests to Discogs a minute.
UNCACHED_CANDIDATES: Final = 80
ONE_BY_ONE_PER_S: Final = 50 / 60

TARGET_S: Final = 360
TARGET_P95_S: Final = 0.25
TARGET_MB: Final = 100

#: The interval of the live site's requests, in seconds.
_EVERY_S: Final = 0.1

# Discogs knows this share of artists, so that the wanted number of albums are candidates.
_FORGET_ARTISTS: Final = """
UPDATE wxyc_schema.artists
SET discogs_artist_id = NULL
WHERE id > (
    SELECT artist_id
    FROM wxyc_schema.library
    WHERE artwork_url IS NULL AND NOT discogs_unavailable
    ORDER BY id
    OFFSET %s
    LIMIT 1
)
"""

_COUNT_CANDIDATES: Final = """
SELECT count(*)
FROM wxyc_schema.library
JOIN wxyc_schema.artists ON artists.id = library.artist_id
WHERE artwork_url IS NULL AND NOT discogs_unavailable AND discogs_artist_id IS NOT NULL
"""


def run() -> None:
    """Measure and print two lines."""
    with start_server(settings=DURABLE) as server:
        cached = LibrarySpec(size=ROWS, match_share=0.72)
        candidates, usage, p95_s, _ = _measure(server, cached, CANDIDATES)
        alone_s = candidates / ONE_BY_ONE_PER_S
        print(
            f"library-artwork-url-backfill: {candidates:,} cached candidates in"
            f" {usage.seconds:.0f} s (target under {TARGET_S} s; one by one at 50 a minute"
            f" {alone_s / 3600:.1f} h); a live caller's p95 {p95_s * 1000:.0f} ms (target under"
            f" {TARGET_P95_S * 1000:.0f} ms); peak memory {usage.peak_mb:.0f} MB (target under"
            f" {TARGET_MB} MB)"
        )
        some = LibrarySpec(seed=2, size=4_000, uncached_share=0.25)
        candidates, usage, p95_s, counts = _measure(server, some, UNCACHED_CANDIDATES)
        print(
            f"library-artwork-url-backfill: {candidates:,} candidates, a quarter of them not"
            f" cached, in {usage.seconds:.0f} s; {counts.get('discogs', 0)} questions to Discogs,"
            f" {counts.get('asked_again', 0)} albums looked up twice (target 0); a live caller's"
            f" p95 {p95_s * 1000:.0f} ms"
        )


def _measure(
    server: Server, spec: LibrarySpec, candidates: int
) -> tuple[int, Usage, float, dict[str, int]]:
    """Return candidates, the usage of the run, the live caller's p95, and LML's counts."""
    library = Library(spec)
    name = f"wxyc_{spec.seed}"
    with Services(library=spec) as services:
        dsn = server.create_database(name)
        found = _fill(dsn, library, candidates)
        environment = {
            **services.environment,
            "WXYC_DATABASE_URL": dsn,
            "BACKFILL_LOG_LEVEL": "info",
        }
        # Albums that the run does not look up.
        rows = [row for row in map(library.row, range(spec.size - 200, spec.size)) if row.is_cached]
        with _live_caller(services, rows) as waits:
            usage = run_command("library-artwork-url-backfill", environment=environment)
        counts = services.stats("lml").counts
        counts["asked_again"] -= max(0, len(waits) - len(rows))
        return found, usage, statistics.quantiles(waits, n=20)[-1], counts


def _fill(dsn: str, library: Library, candidates: int) -> int:
    with psycopg.connect(dsn, autocommit=True) as conn:
        schema.create_wxyc(conn)
        load_library(conn, library)
        conn.execute(_FORGET_ARTISTS, (candidates,))
        conn.execute("ANALYZE")
        row = conn.execute(_COUNT_CANDIDATES).fetchone()
        assert row is not None
        return int(row[0])


@contextlib.contextmanager
def _live_caller(services: Services, rows: Sequence[LibraryRow]) -> Iterator[list[float]]:
    """Look albums up as the live site does; yield how long each lookup took, in seconds."""
    finished = threading.Event()
    waits: list[float] = []
    thread = threading.Thread(target=_call, args=(services, rows, finished, waits))
    thread.start()
    try:
        yield waits
    finally:
        finished.set()
        thread.join()


def _call(
    services: Services, rows: Sequence[LibraryRow], finished: threading.Event, waits: list[float]
) -> None:
    origin = Origin.of(services.lml_url)
    headers = {"authorization": f"Bearer {services.lml_api_key}", "x-caller-class": "1"}
    conn = http.client.HTTPConnection(origin.host, origin.port)
    while not finished.wait(_EVERY_S):
        row = rows[len(waits) % len(rows)]
        query = {
            "artist": row.artist,
            "album": row.album,
            "raw_message": f"{row.artist} - {row.album}",
        }
        began = time.monotonic()
        conn.request("POST", "/api/v1/lookup", json.dumps(query), headers)
        conn.getresponse().read()
        waits.append(time.monotonic() - began)
    conn.close()
