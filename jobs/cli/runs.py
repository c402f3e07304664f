"""The runs command: list, show, pause, resume, stop and hold runs."""

from __future__ import annotations

from typing import Final

import click

from artwork_backfill.jobs.cli import run_views, views
from artwork_backfill.jobs.cli.main import JOBS, load_job
from artwork_backfill.jobs.cli.review import by_option, database
from artwork_backfill.jobs.command import F
from artwork_backfill.shared.review import runs
from artwork_backfill.shared.settings import Settings

_WHEN: Final = "takes effect within two seconds, after the current batch is written"

#: The audit within a daemon, see `jobs.audit_batch.auditor`.
_AUDITOR: Final = "auditor"


class RunIdType(click.ParamType[str]):
    """The id of a run, or the beginning of one."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = value.strip().lower()
        if not text or set(text) - set("0123456789abcdef-"):
            self.fail(f"{value!r} is not the id of a run: `runs list` shows the ids", param, ctx)
        return text


_run_argument = click.argument("run_id", metavar="ID", type=RunIdType())
_job_argument = click.argument(
    "job", metavar="JOB", type=click.Choice([*JOBS, _AUDITOR], case_sensitive=False)
)


def _why_option(command: F) -> F:
    return click.option("--why", default="", help="The reason, for the log and other people.")(
        command
    )


@click.group(name="runs")
def runs_group() -> None:
    """List, show, pause, stop and hold runs.

    Example: artwork-backfill runs list
    """


@runs_group.command(name="list")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    metavar="N",
    help="Show at most N runs.",
)
@click.option("--at-work", is_flag=True, help="Omit runs that have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_runs(*, limit: int, at_work: bool, as_json: bool) -> None:
    """List runs, working ones first, then the latest; and list held jobs.

    Dry runs and library-artwork-url-backfill have no records.

    Example: artwork-backfill runs list --at-work
    """
    with database("runs", runs.LOOK) as conn:
        found = runs.list_runs(conn, limit, ended=not at_work)
        holds = runs.list_holds(conn)
    if as_json:
        click.echo(run_views.list_to_json(found, holds))
        return
    views.show(run_views.runs_table(found))
    if holds:
        views.show(run_views.holds_table(holds))


@runs_group.command(name="show")
@_run_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(*, run_id: str, as_json: bool) -> None:
    """Show the report of run ID, or its progress.

    ID may be abbreviated to the beginning of the id, as long as that is unique.

    Example: artwork-backfill runs show 1f0c
    """
    with database("runs", runs.LOOK) as conn:
        run = runs.find_run(conn, run_id)
    if as_json:
        click.echo(run_views.run_to_json(run))
    else:
        views.show(run_views.run_view(run))


@runs_group.command(name="pause")
@_run_argument
@_why_option
@by_option
def pause(*, run_id: str, why: str, by: str) -> None:
    """Pause run ID: it gives back what it has claimed and waits for `runs resume`.

    Example: artwork-backfill runs pause 1f0c --why "archive.org is being moved"
    """
    with database("runs", runs.TABLES) as conn:
        run = runs.find_run(conn, run_id)
        runs.request(conn, run.id, "pause", by=by, why=why)
    click.echo(f"requested a pause of {run.job} {run.id}: {_WHEN}")


@runs_group.command(name="resume")
@_run_argument
@by_option
def resume(*, run_id: str, by: str) -> None:
    """Resume the paused run ID.

    Example: artwork-backfill runs resume 1f0c
    """
    with database("runs", runs.TABLES) as conn:
        run = runs.find_run(conn, run_id)
        runs.request(conn, run.id, None, by=by)
    click.echo(f"requested {run.job} {run.id} to resume: takes effect within two seconds")


@runs_group.command(name="stop")
@_run_argument
@_why_option
@by_option
def stop(*, run_id: str, why: str, by: str) -> None:
    """Stop run ID in an orderly way, with its report and exit code 0.

    Example: artwork-backfill runs stop 1f0c --why "replaced by a faster one"
    """
    with database("runs", runs.TABLES) as conn:
        run = runs.find_run(conn, run_id)
        runs.request(conn, run.id, "stop", by=by, why=why)
    click.echo(f"requested a stop of {run.job} {run.id}: {_WHEN}")


@runs_group.command(name="hold")
@_job_argument
@click.option("--why", required=True, help="The reason, for the log and other people.")
@by_option
def hold(*, job: str, why: str, by: str) -> None:
    """Hold JOB: none of its runs works until `runs unhold`.

    Working runs end in an orderly way. Runs that start, such as a CronJob's, end before they claim
    anything. The exit code is 0. The job "auditor" is the audit within a daemon, whose calls then
    do nothing.

    Example: artwork-backfill runs hold audit-batch --why "archive.org is being moved"
    """
    if job != _AUDITOR and load_job(job).job.database is not Settings.musicbrainz_database:
        raise click.UsageError(
            f"{job} works in a database without records of runs: stop its containers, or suspend"
            " its CronJob"
        )
    with database("runs", runs.TABLES) as conn:
        runs.hold(conn, job, by=by, why=why)
    click.echo(f"{job} is held: its runs end, and no new one works until `runs unhold {job}`")


@runs_group.command(name="unhold")
@_job_argument
def unhold(*, job: str) -> None:
    """End the hold of JOB. This starts no run.

    Example: artwork-backfill runs unhold audit-batch
    """
    with database("runs", runs.TABLES) as conn:
        runs.unhold(conn, job)
    click.echo(f"{job} is no longer held")
