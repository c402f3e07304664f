"""The seed-from-mb command."""

from __future__ import annotations

import click

from artwork_backfill.jobs.command import job_command, option
from artwork_backfill.jobs.seed_from_mb.gids import Kind
from artwork_backfill.jobs.seed_from_mb.job import SeedFromMb
from artwork_backfill.shared.engine.job import Run


@job_command(SeedFromMb)
@option(
    "--entity",
    "entity_types",
    type=click.Choice(["release", "event"]),
    multiple=True,
    envvar="BACKFILL_ENTITY",
    help="Only this entity type. Repeatable; the default is both.",
)
@option(
    "--source",
    "kinds",
    type=click.Choice([kind.value for kind in Kind]),
    multiple=True,
    envvar="BACKFILL_SOURCE",
    help="Only gids that are live, merged or deleted. Repeatable; the default is all.",
)
@option(
    "--only-with-art",
    is_flag=True,
    envvar="BACKFILL_ONLY_WITH_ART",
    help="Skip live entities without art. This misses nothing if all items of archive.org are"
    " seeded as well: by seed-from-ia-scan with rights on the collections, or by"
    " seed-from-ia-changes --from-beginning.",
)
def command(
    run: Run, entity_types: tuple[str, ...], kinds: tuple[str, ...], *, only_with_art: bool
) -> SeedFromMb:
    """Give every release and event of MusicBrainz a row in the audit table.

    Includes merged and deleted gids: archive.org's search hides their items, so this is the way to
    find what is left of them.

    Example: artwork-backfill seed-from-mb --entity event --report seed.md
    """
    return SeedFromMb(
        run, entity_types, [Kind(kind) for kind in kinds], only_with_art=only_with_art
    )
