"""audit-batch on clean entities, compared with a bare loop that sends the same requests.

Both use the same number of threads and the same stand-ins on this machine. The bare loop reads the
answers and discards them; the audit has to parse, compare and record them.
"""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import psycopg
import requests

from bench.commands import Usage, run_command, running_world
from sandbox.entities import Entity, EntityType
from sandbox.services import Services
from sandbox.surroundings import Surroundings
from sandbox.world import Spec, World

ENTITIES: Final = 5_000
#: Each is measured this often, alternately; ratios are those of neighbours.
ROUNDS: Final = 3
CONCURRENCY: Final = 16

LATENCY_S: Final = 0.05
LATENCY_CONCURRENCY: Final = 64

TARGET_RATIO: Final = 0.60
TARGET_LATENCY_RATIO: Final = 0.80
TARGET_MB: Final = 200

# No drift and no orphans, so that every entity costs the same.
_SPEC: Final = Spec(
    size=ENTITIES, drift_rate=0, orphan_share=0, dark_share=0, untidy_share=0, art_share=1
)

_SEED: Final = """
TRUNCATE artwork_indexer.audit_entity CASCADE;
INSERT INTO artwork_indexer.audit_entity (entity_type, gid)
SELECT 'release', gid FROM musicbrainz.release;
INSERT INTO artwork_indexer.audit_entity (entity_type, gid)
SELECT 'event', gid FROM musicbrainz.event
"""

_INCLUDES: Final = {EntityType.RELEASE: "artists", EntityType.EVENT: "artist-rels+place-rels"}


def run() -> None:
    """Measure and print two lines."""
    bare: list[float] = []
    audits: list[Usage] = []
    slow: list[Usage] = []
    part: list[Usage] = []
    with running_world(_SPEC) as (around, conn):
        services = around.services
        for _ in range(ROUNDS):
            bare.append(_bare_loop(around.world, services))
            services.control("archive", reset_stats=True)
            audits.append(_audit(conn, around))
            requests_each = services.stats("archive").requests / ENTITIES
            _set_latency(services, LATENCY_S)
            slow.append(_audit(conn, around, "--concurrency", str(LATENCY_CONCURRENCY)))
            _set_latency(services, 0.0)
            part.append(_audit(conn, around, "--limit", str(ENTITIES // 4)))
    ratio = statistics.median(b / a.seconds for b, a in zip(bare, audits, strict=True))
    latency_ratio = statistics.median(
        a.seconds / s.seconds for a, s in zip(audits, slow, strict=True)
    )
    figure = ENTITIES / statistics.median(audit.seconds for audit in audits)
    print(
        f"audit-batch: {figure:,.0f} entities/s, {ratio:.0%} of a bare loop of the same requests"
        f" (target {TARGET_RATIO:.0%}); {requests_each:.2f} requests to archive.org per clean"
        f" entity (target 1.00); with {LATENCY_S * 1000:.0f} ms of latency and --concurrency"
        f" {LATENCY_CONCURRENCY}, {latency_ratio:.0%} of that (target {TARGET_LATENCY_RATIO:.0%})"
    )
    print(
        f"audit-batch: peak memory {max(usage.peak_mb for usage in audits + slow):.0f} MB (target"
        f" {TARGET_MB} MB), against {max(usage.peak_mb for usage in part):.0f} MB for a quarter of"
        " the entities"
    )


def _audit(conn: psycopg.Connection, around: Surroundings, *options: str) -> Usage:
    conn.execute(_SEED)
    conn.execute("CHECKPOINT")
    environment = {**around.environment, "BACKFILL_CONCURRENCY": str(CONCURRENCY)}
    return run_command("audit-batch", *options, environment=environment)


def _set_latency(services: Services, seconds: float) -> None:
    services.control("archive", latency_s=seconds)
    services.control("musicbrainz", latency_s=seconds)


def _bare_loop(world: World, services: Services) -> float:
    """Send the requests of the audit and nothing else; return the duration in seconds."""
    local = threading.local()
    urls = [_urls(world.entity(number), services) for number in range(ENTITIES)]

    def ask(urls: tuple[str, str]) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.trust_env = False
        for url in urls:
            local.session.get(url).raise_for_status()

    began = time.monotonic()
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for _ in pool.map(ask, urls):
            pass
    return time.monotonic() - began


def _urls(entity: Entity, services: Services) -> tuple[str, str]:
    path = f"{entity.entity_type}/{entity.gid}?inc={_INCLUDES[entity.entity_type]}"
    return (
        f"{services.archive_url}/metadata/mbid-{entity.gid}",
        f"{services.musicbrainz_url}/ws/2/{path}",
    )
