"""What benchmarks share: their databases, and commands with measurement of time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import Connection

from artwork_backfill.shared.migrations import migrate
from sandbox import schema, surroundings
from sandbox.postgres import DURABLE, start_server
from sandbox.surroundings import Surroundings
from sandbox.world import Spec

_PROGRAM = str(Path(sys.executable).with_name("artwork-backfill"))

_FILL_RELEASES = """
INSERT INTO musicbrainz.release (id, gid, name, artist_credit)
SELECT i, gen_random_uuid(), 'release ' || i, 1
FROM generate_series(1, %s) i
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a command took, from its start to its end; and up to its last batch."""

    seconds: float
    working_s: float
    #: The maximum resident memory, in megabytes.
    peak_mb: float


@contextmanager
def running_world(spec: Spec) -> Iterator[tuple[Surroundings, Connection]]:
    """Start a world with its services; its MusicBrainz database is migrated."""
    with (
        surroundings.start(spec, settings=DURABLE) as around,
        psycopg.connect(around.musicbrainz_dsn, autocommit=True) as conn,
    ):
        migrate(conn)
        yield around, conn


@contextmanager
def musicbrainz_database(
    settings: Mapping[str, str] = DURABLE,
) -> Iterator[tuple[str, Connection]]:
    """Start a migrated MusicBrainz database without rows; yield its URL and a connection."""
    with start_server(settings=settings) as server:
        dsn = server.create_database("musicbrainz")
        # Prepared statements would keep plans from before an ANALYZE.
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as conn:
            schema.create_musicbrainz(conn)
            migrate(conn)
            yield dsn, conn


def fill_releases(conn: Connection, number: int) -> None:
    """Add releases without anything else."""
    conn.execute(_FILL_RELEASES, (number,))


def forget_audits(conn: Connection) -> None:
    """Empty the audit table, and write everything to disk before the next measurement."""
    conn.execute("TRUNCATE artwork_indexer.audit_entity CASCADE")
    conn.execute("CHECKPOINT")


def run_command(*arguments: str, environment: Mapping[str, str]) -> Usage:
    """Run ``artwork-backfill`` with these arguments.

    Raises `RuntimeError` if it does not end with exit code 0.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        [_PROGRAM, *arguments],
        # Lines of the log must not wait in a buffer, because one of them is timed.
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    worked = began
    assert process.stdout is not None
    for line in process.stdout:
        if '"step": "batch-' in line:
            worked = time.monotonic()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{arguments[0]} ended with exit code {process.returncode}")
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(seconds, worked - began, usage.ru_maxrss * unit / 1e6)
