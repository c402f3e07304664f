"""The reaudit command."""

from __future__ import annotations

import click

from artwork_backfill.jobs.command import DurationType, job_command, matched_checks, option
from artwork_backfill.jobs.reaudit.job import OLD_AFTER_S, Reaudit
from artwork_backfill.shared import reaudit
from artwork_backfill.shared.engine.job import Run


@job_command(Reaudit)
@option(
    "--older-than",
    type=DurationType(),
    metavar="DURATION",
    envvar="BACKFILL_OLDER_THAN",
    help="Only entities whose last audit was at least this long ago. The default is 365d; with"
    " --check, any age.",
)
@option(
    "--status",
    "statuses",
    type=click.Choice([status.value for status in reaudit.DONE]),
    multiple=True,
    envvar="BACKFILL_STATUS",
    help="Only entities of this status. Repeatable; the default is both.",
)
@option(
    "--check",
    "checks",
    multiple=True,
    metavar="CHECK",
    envvar="BACKFILL_CHECK",
    help="Only entities with findings of this check that an earlier policy recorded without acting"
    " on them. Repeatable; globs such as 'meta.*'.",
)
def command(
    run: Run, older_than: float | None, statuses: tuple[str, ...], checks: tuple[str, ...]
) -> Reaudit:
    """Make entities unchecked again, those with the oldest audits first.

    Clean and legacy entities become unchecked with priority 50, so that all others come first.
    Entities that were merged or deleted since their audit get priority 150. audit-batch then audits
    them. Run it with --limit every day.

    Example: artwork-backfill reaudit --older-than 365d --limit 20000
    """
    if older_than is None:
        older_than = 0.0 if checks else OLD_AFTER_S
    return Reaudit(
        run, older_than, statuses or reaudit.DONE, matched_checks(checks, "--check") or None
    )
