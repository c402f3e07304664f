"""The command line: every job, and what belongs to no job."""

from __future__ import annotations

from typing import Final

import click
from psycopg import Connection
from rich.console import Console

from jobs import checks
from jobs import status as status_view
from jobs.audit_batch.command import command as audit_batch
from jobs.command import JobCommand, musicbrainz_database
from jobs.dashboard import command as dashboard
from jobs.library_artwork_url_backfill.command import command as library_artwork_url_backfill
from jobs.review.command import events_group, review_group
from jobs.seed_from_ia_scan.command import command as seed_from_ia_scan
from jobs.seed_from_img_129.command import command as seed_from_img_129
from jobs.seed_from_mb.command import command as seed_from_mb
from shared import migrations
from shared.version import VERSION

JOBS: Final[tuple[JobCommand, ...]] = (
    seed_from_mb,
    seed_from_img_129,
    seed_from_ia_scan,
    audit_batch,
    library_artwork_url_backfill,
)


@click.group(
    name="artwork-backfill",
    context_settings={
        "token_normalize_func": str.lower,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(VERSION)
def main() -> None:
    """Bring cover-art data back in step: one-shot, batched, restartable jobs.

    Example: artwork-backfill seed-from-mb --dry-run
    """


@main.group(name="verify")
def verify_group() -> None:
    """Repeat the verification of a job, and nothing else.

    Example: artwork-backfill verify seed-from-mb
    """


for job in JOBS:
    main.add_command(job.run)
    verify_group.add_command(job.verify)
main.add_command(review_group)
main.add_command(events_group)
main.add_command(dashboard)


@main.command()
@click.option("--status", "only_status", is_flag=True, help="List the migrations, apply none.")
def migrate(*, only_status: bool) -> None:
    """Apply the SQL migrations to the MusicBrainz database.

    Example: artwork-backfill migrate --status
    """
    with musicbrainz_database("migrate") as conn:
        if only_status:
            for name, state in migrations.status(conn):
                click.echo(f"{state:8} {name}")
        else:
            _apply_migrations(conn)


def _apply_migrations(conn: Connection) -> None:
    try:
        applied = migrations.migrate(conn)
    except migrations.MigrationFailed as error:
        raise click.ClickException(str(error)) from None
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("nothing to apply")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def status(*, as_json: bool) -> None:
    """Show how far the audit has come.

    Example: artwork-backfill status --json
    """
    with musicbrainz_database("status", status_view.TABLES) as conn:
        found = status_view.read(conn)
    if as_json:
        click.echo(status_view.to_json(found))
    else:
        Console().print(status_view.to_terminal(found))


@main.command(name="checks")
@click.option("--json", "form", flag_value="json", help="Print JSON for machines.")
@click.option("--markdown", "form", flag_value="markdown", help="Print a Markdown table.")
def list_checks(*, form: str | None) -> None:
    """List every check of the audit: what differs, how grave that is, and what is done about it.

    Example: artwork-backfill checks --json
    """
    if form == "json":
        click.echo(checks.to_json())
    elif form == "markdown":
        click.echo(checks.to_markdown())
    else:
        Console().print(checks.to_terminal())
