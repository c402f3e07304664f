"""seed-from-img-129: 900,000 rows of a table, against a bare COPY; and a long results cache."""

from __future__ import annotations

import gzip
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from random import Random
from typing import Final

from psycopg import Connection

from bench.commands import Usage, fill_releases, forget_audits, musicbrainz_database, run_command

ITEMS: Final = 900_000
CACHE_LINES: Final = 20_000_000
LINES_PER_ITEM: Final = 100
#: The job and the bare statements are measured this often, alternately; medians are compared.
ROUNDS: Final = 3

TARGET_RATIO: Final = 0.5
TARGET_MB: Final = 100

_CHECKS: Final = (
    *(f"Item::CAAIndex::Image::has {key}" for key in ("id", "image", "types", "front", "edit")),
    *(f"Item::Files::{size}px thumbnail exists" for size in (250, 500, 1200)),
    *(f"Item::Metadata::{key} correct" for key in ("title", "date", "creators", "language")),
    *(f"MergedItem::{thing} is absent" for thing in ("index", "mb_metadata", "image")),
    "Item::CAAIndex::is present",
    "Item::CAAIndex::is well-formed",
    "Item::CAAIndex::Image::missing image",
    "Item::Files::index.json exists",
    "Item::Files::original image exists",
)

# Two of the checks failed, each one to nine times.
_TABLE: Final = """
COPY (
    SELECT gid || ',' || overlay(
        overlay({zeros} PLACING (1 + floor(random() * 9))::text
                FROM 1 + 2 * floor(random() * {checks})::int FOR 1)
        PLACING (1 + floor(random() * 9))::text
        FROM 1 + 2 * floor(random() * {checks})::int FOR 1)
    FROM musicbrainz.release
) TO STDOUT
"""

_BARE_INSERT: Final = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority)
SELECT 'release', gid, 200 FROM bare
"""


def run() -> None:
    """Measure and print one line."""
    bare: list[float] = []
    jobs: list[Usage] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        musicbrainz_database() as (dsn, conn),
    ):
        table, cache = Path(folder, "bad_items.csv"), Path(folder, "results_cache.gz")
        environment = {"MUSICBRAINZ_DATABASE_URL": dsn}
        fill_releases(conn, ITEMS)
        conn.execute("ANALYZE")
        _write_table(conn, table)
        for _ in range(ROUNDS):
            bare.append(_bare(conn, table))
            forget_audits(conn)
            jobs.append(run_command("seed-from-img-129", str(table), environment=environment))
        _write_cache(cache)
        long = run_command(
            "seed-from-img-129", str(cache), "--include-passed", environment=environment
        )
    single = statistics.median(bare)
    job = statistics.median(usage.working_s for usage in jobs)
    verified = statistics.median(usage.seconds for usage in jobs)
    print(
        f"seed-from-img-129: {ITEMS:,} rows of bad_items.csv in {job:.1f} s, {verified:.1f} s with"
        f" the verification; {single / job:.0%} of the rows/s of a bare COPY and one"
        f" INSERT ... SELECT (target {TARGET_RATIO:.0%});"
        f" peak memory {max(usage.peak_mb for usage in jobs):.0f} MB"
        f" (target {TARGET_MB} MB). A results cache of {CACHE_LINES:,} lines in"
        f" {long.seconds:.1f} s; peak memory {long.peak_mb:.0f} MB (target {TARGET_MB} MB)"
    )


def _write_table(conn: Connection, path: Path) -> None:
    zeros = "'" + ",".join(["0"] * len(_CHECKS)) + "'"
    statement = _TABLE.format(zeros=zeros, checks=len(_CHECKS)).encode()
    with path.open("wb") as file, conn.cursor().copy(statement) as copy:
        file.write(f"mbid,{','.join(_CHECKS)}\n".encode())
        file.writelines(bytes(data) for data in copy)


def _bare(conn: Connection, table: Path) -> float:
    """Return how many seconds it takes to get the gids into the audit table at all."""
    forget_audits(conn)
    conn.execute("CREATE TEMPORARY TABLE bare (gid UUID)")
    began = time.monotonic()
    with table.open("rb") as file, conn.cursor().copy("COPY bare FROM STDIN") as copy:
        next(file)
        while lines := file.readlines(1_000_000):
            copy.write(b"".join([line[:36] + b"\n" for line in lines]))
    conn.execute(_BARE_INSERT)
    seconds = time.monotonic() - began
    conn.execute("DROP TABLE bare")
    return seconds


def _write_cache(path: Path) -> None:
    random = Random(129)
    tails = [f"\t{_CHECKS[n % len(_CHECKS)]}\t" for n in range(LINES_PER_ITEM)]
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(CACHE_LINES // LINES_PER_ITEM):
            gid = str(uuid.UUID(int=random.getrandbits(128), version=4))
            failed = random.randrange(2 * LINES_PER_ITEM)
            outcomes = ["FAILED" if n == failed else "PASSED" for n in range(LINES_PER_ITEM)]
            lines = (gid + tail + outcome for tail, outcome in zip(tails, outcomes, strict=True))
            file.write(("\n".join(lines) + "\n").encode())
