"""seed-from-mb on the command line."""

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
    help="Only this entity type. Repeatable; all by default.",
)
@option(
    "--source",
    "kinds",
    type=click.Choice([kind.value for kind in Kind]),
    multiple=True,
    envvar="BACKFILL_SOURCE",
    help="Only gids that are live, merged away or deleted. Repeatable; all by default.",
)
@option(
    "--only-with-art",
    is_flag=True,
    envvar="BACKFILL_ONLY_WITH_ART",
    help="Leave out what is live and has no art. Nothing is missed if all items of archive.org are"
    " seeded, too: by seed-from-ia-scan with rights on the collections, or by seed-from-ia-changes"
    " --from-beginning.",
)
def command(
    run: Run, entity_types: tuple[str, ...], kinds: tuple[str, ...], *, only_with_art: bool
) -> SeedFromMb:
    """Give every release and event of MusicBrainz a row in the audit table.

    Gids that were merged away or deleted get one too: archive.org's search hides their items, so
    this is the way to find what was left behind.

    Example: artwork-backfill seed-from-mb --entity event --report seed.md
    """
    return SeedFromMb(
        run, entity_types, [Kind(kind) for kind in kinds], only_with_art=only_with_art
    )
