"""Applying migrations, and deleting the records of old runs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import click
from psycopg import Connection

from artwork_backfill.jobs.command import announce, musicbrainz_database
from artwork_backfill.shared import migrations
from artwork_backfill.shared.engine.tables import Table, check_tables
from artwork_backfill.shared.review import runs
from artwork_backfill.shared.settings import Settings


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


@click.command(name="migrate")
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
def command(*, only_status: bool, keep_runs: timedelta | int | None, database: str) -> None:
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
