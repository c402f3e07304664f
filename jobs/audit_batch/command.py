"""audit-batch on the command line."""

from __future__ import annotations

import click
from artwork_backfill.jobs.audit_batch.guardrails import Limits
from artwork_backfill.jobs.audit_batch.job import AuditBatch
from artwork_backfill.jobs.command import DurationType, job_command, option
from artwork_backfill.shared.audit.catalogue import (
    Remedy,
    Severity,
    UnknownCheck,
    match_checks,
    parse_remedies,
)
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.engine.job import Run


@job_command(AuditBatch)
@option(
    "--max-queue-depth",
    type=click.IntRange(min=0),
    default=40,
    envvar="BACKFILL_MAX_QUEUE_DEPTH",
    help="Keep artwork-indexer's queue at or below this many events; 0 for no limit.",
)
@option(
    "--queue-patience",
    type=DurationType(),
    default="10m",
    envvar="BACKFILL_QUEUE_PATIENCE",
    help="Stop when the full queue has not drained at all for so long.",
)
@option(
    "--only-when-idle",
    is_flag=True,
    envvar="BACKFILL_ONLY_WHEN_IDLE",
    help="Claim nothing while artwork-indexer has any event to work on.",
)
@option(
    "--max-per-hour",
    type=click.IntRange(min=1),
    metavar="N",
    envvar="BACKFILL_MAX_PER_HOUR",
    help="Audit at most N entities in any hour.",
)
@option(
    "--ignore",
    "ignored",
    multiple=True,
    metavar="CHECK",
    envvar="BACKFILL_IGNORE",
    help="Record this check's findings without acting on them. Repeatable; globs like 'meta.*'.",
)
@option(
    "--min-severity",
    type=click.Choice([severity.label for severity in Severity]),
    default=Severity.MINOR.label,
    envvar="BACKFILL_MIN_SEVERITY",
    help="Record findings that are less grave without acting on them.",
)
@option(
    "--remedy",
    "remedies",
    multiple=True,
    metavar="CHECK=REMEDY",
    envvar="BACKFILL_REMEDY",
    help="Act on this check's findings by index, review or record, instead of as the catalogue"
    " says. Repeatable; globs like 'item.*=index'.",
)
@option(
    "--no-deletions",
    is_flag=True,
    envvar="BACKFILL_NO_DELETIONS",
    help="Queue no delete_image: record images that could be deleted without acting on them.",
)
@option(
    "--delete-from-live",
    is_flag=True,
    envvar="BACKFILL_DELETE_FROM_LIVE",
    help="Delete images of others from items of live entities, too, where everything else is"
    " proved; otherwise a person decides. See docs/beside-musicbrainz.md for what stays open.",
)
def command(
    run: Run,
    max_queue_depth: int,
    queue_patience: float,
    only_when_idle: bool,
    max_per_hour: int | None,
    ignored: tuple[str, ...],
    min_severity: str,
    remedies: tuple[str, ...],
    no_deletions: bool,
    delete_from_live: bool,
) -> AuditBatch:
    """Compare MusicBrainz with archive.org and queue what repairs the differences.

    Each unchecked entity is audited once. Differences that artwork-indexer can repair become events
    in its queue; those that no machine should decide become rows in needs_manual_review.

    Example: artwork-backfill audit-batch --limit 1000 --dry-run --report audit.md
    """
    if no_deletions and delete_from_live:
        raise click.UsageError("--no-deletions and --delete-from-live exclude each other")
    limits = Limits(max_queue_depth, queue_patience, only_when_idle, max_per_hour)
    policy = Policy(
        _matched(ignored),
        _severity(min_severity),
        _chosen(remedies),
        deletions=not no_deletions,
        delete_from_live=delete_from_live,
    )
    return AuditBatch(run, limits, policy)


def _chosen(remedies: tuple[str, ...]) -> dict[str, Remedy]:
    try:
        return parse_remedies(remedies)
    except UnknownCheck as error:
        raise click.BadParameter(str(error), param_hint="--remedy") from None


def _matched(patterns: tuple[str, ...]) -> frozenset[str]:
    try:
        return frozenset(check for pattern in patterns for check in match_checks(pattern))
    except UnknownCheck as error:
        raise click.BadParameter(str(error), param_hint="--ignore") from None


def _severity(label: str) -> Severity:
    return next(severity for severity in Severity if severity.label == label)
