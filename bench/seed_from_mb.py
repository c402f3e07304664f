"""seed-from-mb for a million releases, compared with one INSERT ... SELECT that does the same."""

from __future__ import annotations

import statistics
import time
from typing import Final

from psycopg import Connection

from bench.commands import Usage, fill_releases, forget_audits, musicbrainz_database, run_command

RELEASES: Final = 1_000_000
#: Each is measured this often, alternately; medians are compared.
ROUNDS: Final = 3

TARGET_RATIO: Final = 0.85
TARGET_AGAIN_S: Final = 2
TARGET_MB: Final = 100

_FILL_META: Final = """
INSERT INTO musicbrainz.release_meta (id, date_added)
SELECT i, now() - mod(i, 3000) * interval '1 day'
FROM generate_series(1, %(releases)s) i
"""

_SINGLE_STATEMENT: Final = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority)
SELECT 'release', gid, CASE WHEN date_added > now() - interval '90 days' THEN 10 ELSE 100 END
FROM musicbrainz.release
LEFT JOIN musicbrainz.release_meta USING (id)
WHERE NOT EXISTS (
    SELECT
    FROM artwork_indexer.audit_entity
    WHERE entity_type = 'release' AND audit_entity.gid = release.gid
)
ON CONFLICT (entity_type, gid) DO NOTHING
"""


def run() -> None:
    """Measure and print one line."""
    singles: list[float] = []
    jobs: list[Usage] = []
    again: list[Usage] = []
    with musicbrainz_database() as (dsn, conn):
        environment = {"MUSICBRAINZ_DATABASE_URL": dsn}
        fill_releases(conn, RELEASES)
        conn.execute(_FILL_META, {"releases": RELEASES})
        conn.execute("ANALYZE")
        for _ in range(ROUNDS):
            singles.append(_single_statement(conn))
            forget_audits(conn)
            jobs.append(run_command("seed-from-mb", environment=environment))
            again.append(run_command("seed-from-mb", environment=environment))
    single, job = statistics.median(singles), statistics.median(usage.seconds for usage in jobs)
    print(
        f"seed-from-mb: {RELEASES:,} releases in {job:.1f} s, from the start of the process to the"
        f" end of its verification; {single / job:.0%} of the rows/s of one INSERT ... SELECT"
        f" (target {TARGET_RATIO:.0%}); once more with nothing left to do in"
        f" {statistics.median(usage.seconds for usage in again):.1f} s (target {TARGET_AGAIN_S} s);"
        f" peak memory {max(usage.peak_mb for usage in jobs):.0f} MB (target {TARGET_MB} MB)"
    )


def _single_statement(conn: Connection) -> float:
    forget_audits(conn)
    began = time.monotonic()
    conn.execute(_SINGLE_STATEMENT)
    return time.monotonic() - began
