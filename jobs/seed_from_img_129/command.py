"""The seed-from-img-129 command."""

from __future__ import annotations

import click

from artwork_backfill.jobs.command import job_command, option
from artwork_backfill.jobs.seed_from_img_129.job import SeedFromImg129
from artwork_backfill.jobs.seed_from_img_129.sources import SourceError, find
from artwork_backfill.shared.engine.job import Run


@job_command(SeedFromImg129)
@click.argument("places", metavar="SOURCE...", nargs=-1, required=True)
@option(
    "--priority",
    type=click.IntRange(0, 32767),
    metavar="N",
    envvar="BACKFILL_PRIORITY",
    help="Give every entity this priority instead of the usual one.",
)
@option(
    "--include-passed",
    is_flag=True,
    envvar="BACKFILL_INCLUDE_PASSED",
    help="Also seed items of a results cache that passed every check, with priority 100.",
)
@option(
    "--allow-damaged",
    is_flag=True,
    envvar="BACKFILL_ALLOW_DAMAGED",
    help="End with exit code 0 even if a source could not be read completely or was empty.",
)
def command(
    run: Run,
    places: tuple[str, ...],
    priority: int | None,
    include_passed: bool,
    allow_damaged: bool,
) -> SeedFromImg129:
    """Give the items that the audit of 2021 (IMG-129) found faulty a high priority.

    SOURCE is a file, a folder of files, a URL, or - for standard input: bad_items.csv,
    failed_checks.log, skipped_items.log, an action list such as reindex, a list of gids such as
    darkened_items, or results_cache.gz; plain, compressed with gzip or xz, or several in a tar
    archive. The content determines the kind of file.

    The priority is 300 if the index was missing or malformed, or an image was missing, unexpected
    or without its original; otherwise 200, also for skipped items. Test items are not seeded.

    Example: artwork-backfill seed-from-img-129 bad_items.csv skipped_items.log --report seed.md
    """
    try:
        sources, passed_over = find(places, run.stop_flag)
    except SourceError as error:
        raise click.UsageError(str(error)) from error
    return SeedFromImg129(
        run,
        sources,
        passed_over=passed_over,
        include_passed=include_passed,
        allow_damaged=allow_damaged,
        priority=priority,
    )
