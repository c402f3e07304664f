"""The seed-from-ia-changes command."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from artwork_backfill.jobs.command import job_command, option
from artwork_backfill.jobs.seed_from_ia_changes.job import SeedFromIaChanges
from artwork_backfill.shared.engine.job import Run


@job_command(SeedFromIaChanges)
@option(
    "--since",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    envvar="BACKFILL_SINCE",
    help="Start with the changes of this day (UTC), such as 2026-08-31, instead of the position of"
    " the last run.",
)
@option(
    "--from-beginning",
    is_flag=True,
    envvar="BACKFILL_FROM_BEGINNING",
    help="Start with the list of all items of archive.org, including hidden ones, or continue it if"
    " it was interrupted.",
)
def command(run: Run, since: datetime | None, *, from_beginning: bool) -> SeedFromIaChanges:
    """Make entities unchecked again whose items archive.org has changed.

    Follows archive.org's Changes API from the position of the last run, and ends when no more
    changes are available. Run it every hour. Clean and legacy entities whose items have changed
    become unchecked with priority 50; unknown entities are added.

    Needs ARCHIVE_ORG_ACCESS_KEY and ARCHIVE_ORG_SECRET_KEY of an account with the privilege
    see_all_catalog_changes, which archive.org's collections team grants.

    Example: artwork-backfill seed-from-ia-changes --since 2026-08-31
    """
    if since is not None and from_beginning:
        raise click.UsageError("--since and --from-beginning exclude each other: pass one of them")
    if since is not None:
        since = since.replace(tzinfo=UTC)
        if since > datetime.now(UTC):
            raise click.BadParameter(
                "the day is in the future: pass a past day", param_hint="--since"
            )
    return SeedFromIaChanges(run, since=since, from_beginning=from_beginning)
