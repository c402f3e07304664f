"""seed-from-ia-changes: millions of identifiers from the stand-in of the Changes API."""

from __future__ import annotations

from typing import Final

from bench.commands import run_command, running_world
from sandbox.world import Spec

#: One of 500 identifiers is ours: archive.org has over a hundred million items.
STRANGERS: Final = 499
PAGE_SIZE: Final = 20

TARGET_RATE: Final = 100_000
TARGET_MB: Final = 100

_READ: Final = "SELECT identifiers FROM artwork_indexer.ia_changes"


def run() -> None:
    """Measure and print one line."""
    identifiers, seconds, peak_mb = _follow(10_000)
    _, _, part_mb = _follow(2_500)
    print(
        f"seed-from-ia-changes: {identifiers:,} identifiers by pages of"
        f" {PAGE_SIZE * (STRANGERS + 1):,} in {seconds:.1f} s from start to end;"
        f" {identifiers / seconds:,.0f} identifiers/s (target {TARGET_RATE:,});"
        f" peak memory {peak_mb:.0f} MB (target {TARGET_MB} MB), against {part_mb:.0f} MB for a"
        " quarter of them"
    )


def _follow(entities: int) -> tuple[int, float, float]:
    spec = Spec(size=entities, drift_rate=0, drifts=(), event_share=0, art_share=1, orphan_share=0)
    with running_world(spec) as (around, conn):
        around.services.control("changes", page_size=PAGE_SIZE, strangers=STRANGERS)
        usage = run_command(
            "seed-from-ia-changes", "--from-beginning", environment=around.environment
        )
        ((identifiers,),) = conn.execute(_READ).fetchall()
    return identifiers, usage.seconds, usage.peak_mb
