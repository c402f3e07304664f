"""The audit-batch command."""

from __future__ import annotations

import click

from artwork_backfill.jobs.audit_batch.guardrails import Limits
from artwork_backfill.jobs.audit_batch.job import AuditBatch, Xml
from artwork_backfill.jobs.audit_batch.policy import policy_options
from artwork_backfill.jobs.command import MOST_AT_ONCE, DurationType, job_command, option
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.engine.job import Run


@job_command(AuditBatch)
@option(
    "--max-queue-depth",
    type=click.IntRange(0, MOST_AT_ONCE),
    default=40,
    envvar="BACKFILL_MAX_QUEUE_DEPTH",
    help="Keep artwork-indexer's queue at or below this many events; 0 for no limit.",
)
@option(
    "--queue-patience",
    type=DurationType(),
    default="10m",
    envvar="BACKFILL_QUEUE_PATIENCE",
    help="Stop if events wait and artwork-indexer has begun none for this time.",
)
@option(
    "--only-when-idle",
    is_flag=True,
    envvar="BACKFILL_ONLY_WHEN_IDLE",
    help="Claim nothing while artwork-indexer has an event to work on.",
)
@option(
    "--max-per-hour",
    type=click.IntRange(1, MOST_AT_ONCE),
    metavar="N",
    envvar="BACKFILL_MAX_PER_HOUR",
    help="Audit at most N entities in any hour.",
)
@option(
    "--xml",
    type=click.Choice(list(Xml)),
    default=Xml.EXACT,
    envvar="BACKFILL_XML",
    help="How to compare mb_metadata.xml of releases. exact: with the web service, one request"
    " each. screen: what archive.org extracted from it with MusicBrainz's tables; the web service"
    " is asked only if they differ. Events are always compared exactly.",
)
@policy_options
def command(
    run: Run,
    max_queue_depth: int,
    queue_patience: float,
    only_when_idle: bool,
    max_per_hour: int | None,
    xml: str,
    policy: Policy,
) -> AuditBatch:
    """Compare MusicBrainz with archive.org and queue repairs of the differences.

    Audits each unchecked entity once. Differences that artwork-indexer can repair become events in
    its queue; the others become reviews, which a person decides.

    Example: artwork-backfill audit-batch --limit 1000 --dry-run --report audit.md
    """
    limits = Limits(max_queue_depth, queue_patience, only_when_idle, max_per_hour)
    return AuditBatch(run, limits, policy, xml=Xml(xml))
