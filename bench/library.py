"""library-artwork-url-backfill on a library of the real size, against one lookup after another.

LML is the sandbox's: 20 ms for a lookup, and ten albums of a bulk request at a time.
"""

from __future__ import annotations

import threading
import time
from itertools import islice
from typing import Final

import psycopg
from artwork_backfill.shared.clients import lml
from artwork_backfill.shared.clients.lml import LmlQuery

from bench.commands import run_command
from sandbox import schema
from sandbox.library import Library, LibrarySpec, load_library
from sandbox.postgres import DURABLE, start_server
from sandbox.services import Services

ROWS: Final = 64_000
CANDIDATES: Final = 18_500
#: Enough to tell the pace of one lookup after another without waiting for all of them.
SAMPLE: Final = 250

TARGET_S: Final = 60
TARGET_RATIO: Final = 15
TARGET_MB: Final = 100

# Discogs knows just so many artists that the wanted number of albums are candidates.
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
    """Measure and print one line."""
    library = Library(LibrarySpec(size=ROWS))
    with start_server(settings=DURABLE) as server, Services(library=library.spec) as services:
        dsn = server.create_database("wxyc")
        candidates = _fill(dsn, library)
        alone_per_s = _pace_alone(library, services)
        environment = {
            "WXYC_DATABASE_URL": dsn,
            "LIBRARY_METADATA_URL": services.lml_url,
            "LML_API_KEY": str(services.lml_api_key),
        }
        usage = run_command("library-artwork-url-backfill", environment=environment)
    ratio = candidates / usage.seconds / alone_per_s
    print(
        f"library-artwork-url-backfill: {candidates:,} candidates in {usage.seconds:.1f} s (target"
        f" under {TARGET_S} s); {ratio:.0f} times the {alone_per_s:.0f} rows/s of one lookup after"
        f" another (target {TARGET_RATIO}); peak memory {usage.peak_mb:.0f} MB (target under"
        f" {TARGET_MB} MB)"
    )


def _fill(dsn: str, library: Library) -> int:
    with psycopg.connect(dsn, autocommit=True) as conn:
        schema.create_wxyc(conn)
        load_library(conn, library)
        conn.execute(_FORGET_ARTISTS, (CANDIDATES,))
        conn.execute("ANALYZE")
        row = conn.execute(_COUNT_CANDIDATES).fetchone()
        assert row is not None
        return int(row[0])


def _pace_alone(library: Library, services: Services) -> float:
    """Return how many albums per second are looked up one after another."""
    client = lml.connect(
        base_url=services.lml_url, stopping=threading.Event(), api_key=services.lml_api_key
    )
    began = time.monotonic()
    for row in islice(library.rows(), SAMPLE):
        client.lookup(LmlQuery(row.artist, row.album))
    seconds = time.monotonic() - began
    client.close()
    return SAMPLE / seconds
