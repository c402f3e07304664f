"""The entry point of the command line: every job, and the commands that are not jobs."""

from __future__ import annotations

import re
from collections import UserDict
from datetime import timedelta
from pkgutil import resolve_name
from typing import Any, Final

import click
from psycopg import Connection
from rich.console import Console

from artwork_backfill.jobs.cli import checks
from artwork_backfill.jobs.cli import status as status_view
from artwork_backfill.jobs.command import (
    JobCommand,
    LoggedGroup,
    announce,
    form_option,
    musicbrainz_database,
)
from artwork_backfill.shared import migrations
from artwork_backfill.shared.audit.catalogue import UnknownCheck, parse_remedies
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.auditing import gauges
from artwork_backfill.shared.engine.metrics import render
from artwork_backfill.shared.engine.tables import Table, check_tables
from artwork_backfill.shared.review import questions, runs
from artwork_backfill.shared.review import status as audit_status
from artwork_backfill.shared.settings import Settings
from artwork_backfill.shared.version import VERSION

#: Every job. The package `jobs/seed_from_mb` has `command` in its module `command`.
JOBS: Final = (
    "seed-from-mb",
    "seed-from-img-129",
    "seed-from-ia-scan",
    "seed-from-ia-changes",
    "audit-batch",
    "reaudit",
    "library-artwork-url-backfill",
)


def load_job(name: str) -> JobCommand:
    """Import the commands of a job."""
    command: JobCommand = resolve_name(f"{module_of(name)}:command")
    return command


def module_of(job: str) -> str:
    """Return the name of the module with a job's commands."""
    return f"artwork_backfill.jobs.{job.replace('-', '_')}.command"


class _Commands(UserDict[str, Any]):
    """Commands by name. One that is the name of an object is imported on first use.

    Importing every job would take as long as many runs of one.
    """

    def __getitem__(self, name: str) -> click.Command:
        command = super().__getitem__(name)
        loaded: click.Command = resolve_name(command) if isinstance(command, str) else command
        return loaded


_JOBS: Final = {name: f"{module_of(name)}:command.run" for name in JOBS}
_VERIFICATIONS: Final = {name: f"{module_of(name)}:command.verify" for name in JOBS}
_GROUPS: Final = {
    "estimate": f"{__package__}.estimate:command",
    "explain": f"{__package__}.explain:command",
    "review": f"{__package__}.review:review_group",
    "runs": f"{__package__}.runs:runs_group",
    "events": f"{__package__}.review:events_group",
    "dashboard": f"{__package__}.dashboard:command",
    "grants": f"{__package__}.grants:command",
}


@click.group(
    cls=LoggedGroup,
    name="artwork-backfill",
    commands=_Commands(_JOBS | _GROUPS),
    context_settings={
        "token_normalize_func": str.lower,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 80,
    },
)
@click.version_option(VERSION)
def main() -> None:
    """Keep cover-art data consistent with one-shot, batched, restartable jobs.

    Example: artwork-backfill seed-from-mb --dry-run
    """


@main.group(name="verify", commands=_Commands(_VERIFICATIONS))
def verify_group() -> None:
    """Repeat only the verification of a job.

    Example: artwork-backfill verify seed-from-mb
    """


class KeepType(click.ParamType["timedelta | int"]):
    """How many records to keep: an age such as 90d, or a number."""

    name = "90d|N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta | int:
        match = re.fullmatch(r"(\d{1,9})(d?)", str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is neither an age in days like 90d nor a number", param, ctx)
        return timedelta(days=int(match[1])) if match[2] else int(match[1])


@main.command()
@click.option("--status", "only_status", is_flag=True, help="List the migrations; apply none.")
@click.option(
    "--keep-runs",
    type=KeepType(),
    help="Delete the records and reports of old runs: those that ended longer ago than an age such"
    " as 90d, or all but the latest N.",
)
@click.option(
    "--database",
    type=click.Choice([str(target) for target in migrations.Target]),
    default="musicbrainz",
    show_default=True,
    help="wxyc: the library's database, for --attempts-table of library-artwork-url-backfill.",
)
def migrate(*, only_status: bool, keep_runs: timedelta | int | None, database: str) -> None:
    """Apply the SQL migrations to the MusicBrainz database or the WXYC library's.

    Example: artwork-backfill migrate --status
    """
    target = migrations.Target(database)
    if keep_runs is not None and (only_status or target is migrations.Target.WXYC):
        raise click.UsageError(
            "--keep-runs cannot be combined with --status or --database wxyc: pass one of them"
        )
    where = {
        migrations.Target.MUSICBRAINZ: Settings.musicbrainz_database,
        migrations.Target.WXYC: Settings.wxyc_database,
    }
    with musicbrainz_database("migrate", database=where[target]) as conn:
        if only_status:
            for name, state in migrations.status(conn, target):
                click.echo(f"{state:8} {name}")
        else:
            _apply_migrations(conn, target)
            if keep_runs is not None:
                _prune_runs(conn, keep_runs)


def _apply_migrations(conn: Connection, target: migrations.Target) -> None:
    try:
        applied = migrations.migrate(conn, target)
    except migrations.MigrationFailed as error:
        raise click.ClickException(str(error)) from None
    for name in applied:
        announce("migrate", f"applied {name}")
    if not applied:
        announce("migrate", "nothing to apply")


def _prune_runs(conn: Connection, keep: timedelta | int) -> None:
    check_tables(conn, (Table("artwork_indexer.backfill_run", ("SELECT", "DELETE")),))
    click.echo(f"deleted the records of {runs.prune(conn, keep):,} runs")


@main.command()
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "openmetrics"]),
    default="table",
    show_default=True,
    help="The output format. openmetrics: the numbers that --metrics of audit-batch also contains.",
)
def status(*, form: str) -> None:
    """Show the progress of the audit and the runs that are working.

    Example: artwork-backfill status --json
    """
    if form == "openmetrics":
        with musicbrainz_database("status", gauges.TABLES) as conn:
            click.echo(render(gauges.read(conn)), nl=False)
        return
    with musicbrainz_database("status", audit_status.TABLES) as conn:
        found = audit_status.read(conn)
        working, holds = status_view.read_at_work(conn)
    if form == "json":
        click.echo(status_view.to_json(found, working, holds))
    else:
        Console().print(status_view.to_terminal(found, working, holds))


@main.command(name="checks")
@form_option("json", "Print JSON.")
@form_option("markdown", "Print a Markdown table.")
@click.option(
    "--remedy",
    "remedies",
    multiple=True,
    metavar="CHECK=REMEDY",
    envvar="BACKFILL_REMEDY",
    show_envvar=True,
    help="Show the remedies that audit-batch applies with this option. Repeatable.",
)
@click.option(
    "--proofs",
    is_flag=True,
    help="Show how often the repairs of each check held; reads the MusicBrainz database.",
)
def list_checks(*, form: str | None, remedies: tuple[str, ...], proofs: bool) -> None:
    """List every check of the audit with its severity and remedy.

    Example: artwork-backfill checks --json
    """
    try:
        policy = Policy(remedies=parse_remedies(remedies))
    except UnknownCheck as error:
        raise click.BadParameter(str(error), param_hint="--remedy") from None
    repairs = None
    if proofs:
        with musicbrainz_database("checks", questions.REPAIR_TABLES) as conn:
            repairs = {tally.check: tally for tally in questions.list_repairs(conn)}
    if form == "json":
        click.echo(checks.to_json(policy, repairs))
    elif form == "markdown":
        click.echo(checks.to_markdown(policy, repairs))
    else:
        Console().print(checks.to_terminal(policy, repairs))
