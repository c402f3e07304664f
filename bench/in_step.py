"""The requests of a full audit and of a day's changes, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.commands import run_command, running_world
from sandbox.services import ServiceName
from sandbox.surroundings import Surroundings
from sandbox.world import Spec, World

#: Three of ten live entities have no art; there is hardly any drift, because drift costs more.
_SPEC: Final = Spec(
    size=20_000,
    drift_rate=0.002,
    event_share=0.005,
    art_share=0.7,
    orphan_share=0.01,
    untidy_share=0.0,
)

#: The CAA Auditor of 2021 read the metadata and the index of each item.
CAA_AUDITOR: Final = 2.0

TARGET_EACH: Final = 1.02
CHANGES: Final = 1_000
TARGET_CHANGES: Final = 1_100

_ALL: Final = ("seed-from-mb",)
_WITH_ART: Final = ("seed-from-mb", "--only-with-art", "--source", "live")
_LIST: Final = ("seed-from-ia-changes", "--from-beginning")

_RUNS: Final[Sequence[tuple[str, Sequence[Sequence[str]], str]]] = (
    ("exact, all of MusicBrainz", (_ALL, _LIST), "exact"),
    ("exact, --only-with-art and a complete list", (_WITH_ART, _LIST), "exact"),
    ("screen, all of MusicBrainz", (_ALL, _LIST), "screen"),
    ("screen, --only-with-art and a complete list", (_WITH_ART, _LIST), "screen"),
)

_FORGET: Final = """
TRUNCATE artwork_indexer.audit_entity, artwork_indexer.ia_changes, artwork_indexer.event_queue
CASCADE
"""

_SERVICES: Final[Sequence[ServiceName]] = ("archive", "changes", "musicbrainz")


class _Cost(NamedTuple):
    """Requests to archive.org and to MusicBrainz."""

    archive: int
    musicbrainz: int

    @property
    def total(self) -> int:
        return self.archive + self.musicbrainz


def run() -> None:
    """Measure and print the table."""
    world = World(_SPEC)
    items = [n for n in range(_SPEC.size) if world.item(world.gid(n)) is not None]
    print(f"in step: {_SPEC.size:,} entities, {len(items):,} items; requests of a full audit:")
    print(f"  {'':45} {'archive.org':>11} {'MusicBrainz':>11} {'in all':>7} {'per item':>8}")
    with running_world(_SPEC) as (around, conn):
        for name, seeds, xml in _RUNS:
            conn.execute(_FORGET)
            cost = _cost(around, *seeds, _audit(xml))
            _print(name, cost, len(items))
        changed = [world.gid(number) for number in items if not world.plan(number).checks]
        around.services.control("changes", changed=changed[:CHANGES])
        day = _cost(around, ("seed-from-ia-changes",), _audit("screen"))
    auditor = CAA_AUDITOR * len(items)
    print(
        f"  {'the CAA Auditor of 2021':45} {'':>11} {'':>11} {auditor:>7,.0f} {CAA_AUDITOR:>8.2f}"
    )
    print(
        f"in step: {cost.total / len(items):.3f} requests per item with screen and a complete list"
        f" (target {TARGET_EACH}); {CHANGES:,} changes found and audited with {day.total:,}"
        f" requests (target {TARGET_CHANGES:,})"
    )


def _audit(xml: str) -> Sequence[str]:
    return ("audit-batch", "--xml", xml, "--max-queue-depth", "0")


def _cost(around: Surroundings, *commands: Sequence[str]) -> _Cost:
    """Run the commands; return the number of their requests."""
    services = around.services
    for service in _SERVICES:
        services.control(service, reset_stats=True)
    for command in commands:
        run_command(*command, environment=around.environment)
    archive, changes, musicbrainz = (services.stats(name).requests for name in _SERVICES)
    return _Cost(archive + changes, musicbrainz)


def _print(name: str, cost: _Cost, items: int) -> None:
    each = cost.total / items
    print(
        f"  {name:45} {cost.archive:>11,} {cost.musicbrainz:>11,} {cost.total:>7,} {each:>8.2f}",
        flush=True,
    )
