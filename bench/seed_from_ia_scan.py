"""seed-from-ia-scan: a million identifiers from the stand-in of archive.org."""

from __future__ import annotations

from typing import Final

from bench.commands import run_command, running_world
from sandbox.world import Spec

#: A little more than a million, because the art of some entities is dark or gone.
ENTITIES: Final = 1_045_000
PAGE_SIZE: Final = 5_000

TARGET_RATE: Final = 40_000
TARGET_MB: Final = 100

_COUNT: Final = "SELECT count(*) FROM artwork_indexer.audit_entity"


def run() -> None:
    """Measure and print one line."""
    # Only releases with art, whose identifiers the stand-in finds fastest.
    spec = Spec(size=ENTITIES, drift_rate=0, drifts=(), event_share=0, art_share=1)
    with running_world(spec) as (around, conn):
        around.services.control("archive", page_size=PAGE_SIZE)
        conn.execute("CHECKPOINT")
        usage = run_command(
            "seed-from-ia-scan", "--collection", "caa", environment=around.environment
        )
        ((seeded,),) = conn.execute(_COUNT).fetchall()
    rate = seeded / usage.working_s
    print(
        f"seed-from-ia-scan: {seeded:,} identifiers by pages of {PAGE_SIZE:,} in"
        f" {usage.working_s:.1f} s, {usage.seconds:.1f} s with the verification;"
        f" {rate:,.0f} identifiers/s (target {TARGET_RATE:,});"
        f" peak memory {usage.peak_mb:.0f} MB (target {TARGET_MB} MB)"
    )
