"""The seed-from-ia-scan command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from artwork_backfill.jobs.command import job_command, option
from artwork_backfill.jobs.seed_from_ia_scan.job import SeedFromIaScan
from artwork_backfill.shared.audit.archives import ART_ARCHIVES, ArtArchive, EntityType
from artwork_backfill.shared.engine.job import Run

_ARCHIVES: Final[Mapping[str, ArtArchive]] = {
    "caa": ART_ARCHIVES[EntityType.RELEASE],
    "eaa": ART_ARCHIVES[EntityType.EVENT],
}


@job_command(SeedFromIaScan)
@option(
    "--collection",
    "collections",
    type=click.Choice(list(_ARCHIVES)),
    multiple=True,
    envvar="BACKFILL_COLLECTION",
    help="Only the Cover Art Archive (caa) or the Event Art Archive (eaa). Repeatable; the default"
    " is both, for a list caa.",
)
@option(
    "--from-list",
    "listed",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    envvar="BACKFILL_FROM_LIST",
    help="Read the identifiers from a file, one per line, plain or compressed, instead of asking"
    " archive.org.",
)
@option(
    "--restart",
    is_flag=True,
    envvar="BACKFILL_RESTART",
    help="Scan from the beginning even if an earlier scan was interrupted.",
)
@option(
    "--accept-total",
    is_flag=True,
    envvar="BACKFILL_ACCEPT_TOTAL",
    help="End with exit code 0 even if archive.org's own total exceeds what was seen by over 1 %.",
)
def command(
    run: Run,
    collections: tuple[str, ...],
    listed: Path | None,
    restart: bool,
    accept_total: bool,
) -> SeedFromIaScan:
    """Give every entity that archive.org has an item for a row in the audit table.

    archive.org shows these items only to accounts with rights on the collections: set
    ARCHIVE_ORG_ACCESS_KEY and ARCHIVE_ORG_SECRET_KEY. A scan that sees implausibly few items ends
    with exit code 3 and says what is missing. A batch is a page, whose size archive.org chooses;
    --batch-size applies to lists, and --limit is rounded up to whole pages.

    An interrupted scan continues at its stored position. Gids that are not live in MusicBrainz get
    priority 150, the others 100.

    Example: artwork-backfill seed-from-ia-scan --collection caa --report scan.md
    """
    if listed and restart:
        raise click.UsageError("--restart has no effect with --from-list: omit it")
    if listed and len(collections) > 1:
        raise click.UsageError("--from-list holds one collection: pass one --collection")
    chosen = collections or (("caa",) if listed else tuple(_ARCHIVES))
    archives = [_ARCHIVES[name] for name in dict.fromkeys(chosen)]
    return SeedFromIaScan(run, archives, listed=listed, restart=restart, accept_total=accept_total)
