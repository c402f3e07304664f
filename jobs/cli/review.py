"""The review and events commands."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from threading import Event as Flag
from typing import Any, Final
from uuid import UUID

import click
from psycopg import Connection
from psycopg.errors import LockNotAvailable, QueryCanceled
from rich.console import RenderableType

from artwork_backfill.jobs.cli import views
from artwork_backfill.jobs.command import (
    BIGINT_MAX,
    DurationType,
    F,
    form_option,
    musicbrainz_database,
)
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.auditing.services import Listings, Services
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient
from artwork_backfill.shared.engine.log import plain
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.review import actions, questions, requeueing, spreadsheet
from artwork_backfill.shared.review import export as staff
from artwork_backfill.shared.review.actions import Refused, Retried, ReviewAction
from artwork_backfill.shared.review.lists import Filter, Page, Row, RowList
from artwork_backfill.shared.review.questions import (
    FAILED_EVENTS,
    REVIEWS,
    EventFilter,
    Review,
    ReviewFilter,
    ReviewStatus,
)
from artwork_backfill.shared.review.requeueing import Requeued
from artwork_backfill.shared.settings import Settings

#: A person waits for the answer: a query that takes longer is too broad.
_STATEMENT_TIMEOUT: Final = "60s"


class GidType(click.ParamType[UUID]):
    """A gid, alone or within an archive.org identifier or a URL."""

    name = "gid"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        if isinstance(value, UUID):
            return value
        found = questions.gids_in(value)
        if len(found) != 1:
            self.fail(
                f"{value!r} holds no gid: give a UUID, mbid-UUID, or the entity's URL", param, ctx
            )
        return found[0]


class NoteType(click.ParamType[str]):
    """Text that is not blank."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        note: str = value.strip()
        if not note:
            self.fail("the note is empty: say why", param, ctx)
        return note


_AGE: Final = DurationType("age")


# -- shared options ------------------------------------------------------------------------------


def _list_options(command: F) -> F:
    for option in reversed(
        (
            click.option(
                "--entity",
                "entity_type",
                type=click.Choice([entity_type.value for entity_type in EntityType]),
                help="Only this entity type.",
            ),
            click.option("--reason", help="Only rows whose reason contains this text."),
            click.option(
                "--limit",
                type=click.IntRange(1, 100_000),
                default=50,
                show_default=True,
                metavar="N",
                help="Show at most N rows.",
            ),
            click.option(
                "--offset",
                type=click.IntRange(0, BIGINT_MAX),
                default=0,
                show_default=True,
                metavar="N",
                help="Skip the first N rows.",
            ),
            form_option("json", "Print JSON instead of a table."),
            form_option("csv", "Print CSV instead of a table."),
        )
    ):
        command = option(command)
    return command


def by_option(command: F) -> F:
    """Add the option --by; the command gets the name of the person as `by`."""
    return click.option(
        "--by",
        envvar="BACKFILL_BY",
        show_envvar=True,
        callback=lambda ctx, param, value: _person(value),
        help="The name to record in the notes; by default, the user of this machine.",
    )(command)


def _person(given: str | None) -> str:
    name = (given or "").strip()
    if not name:
        try:
            name = getpass.getuser()
        except (OSError, KeyError):  # a user id without a name, as containers may have
            raise click.UsageError("cannot determine the user name; pass --by NAME") from None
    return plain(name).replace("\n", " ")


# -- review --------------------------------------------------------------------------------------


@click.group(name="review")
def review_group() -> None:
    """List and decide reviews, the cases that wait for a person.

    Example: artwork-backfill review list --entity release --older-than 7d
    """


@review_group.command(name="list")
@click.option(
    "--status",
    "statuses",
    type=click.Choice([status.value for status in ReviewStatus]),
    multiple=True,
    default=[ReviewStatus.OPEN.value],
    show_default=True,
    help="Only reviews with this status. Repeatable.",
)
@click.option("--older-than", type=_AGE, help="Only reviews at least this old, such as 7d.")
@click.option("--newer-than", type=_AGE, help="Only reviews newer than this, such as 12h.")
@_list_options
def list_reviews(
    *,
    statuses: tuple[str, ...],
    older_than: float | None,
    newer_than: float | None,
    entity_type: str | None,
    reason: str | None,
    limit: int,
    offset: int,
    form: str | None,
) -> None:
    """List reviews, oldest first.

    Example: artwork-backfill review list --reason "only copy" --csv
    """
    wanted = ReviewFilter(
        statuses=tuple(map(ReviewStatus, statuses)),
        entity_type=EntityType(entity_type) if entity_type else None,
        reason=reason,
        older_than=_age(older_than),
        newer_than=_age(newer_than),
    )
    _show_list("review", REVIEWS, wanted, Page(limit, offset), form, views.reviews_table)


def _age(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


@review_group.command(name="show")
@click.argument("gid", type=GidType())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(*, gid: UUID, as_json: bool) -> None:
    """Show everything about GID: reviews, events, failures, and the findings of its audits.

    Example: artwork-backfill review show 76df3287-6cda-33eb-8e9a-044b5e15ffdd
    """
    with database("review", questions.TABLES) as conn:
        cases = questions.find_cases(conn, gid)
    if not cases:
        raise click.ClickException(f"{gid} {Retried.UNKNOWN}")
    if as_json:
        click.echo(views.to_json(cases))
    else:
        for case in cases:
            views.show(views.case_view(case))


def _review_command(name: str, action: ReviewAction, help_text: str) -> None:
    @review_group.command(name=name, help=help_text)
    @click.argument("review_id", metavar="ID", type=click.IntRange(1, BIGINT_MAX))
    @click.option("--note", type=NoteType(), required=True, help="The reason, for later readers.")
    @by_option
    def command(*, review_id: int, note: str, by: str) -> None:
        with database("review", (*questions.TABLES, *actions.TABLES)) as conn:
            review = action(conn, _find(conn, review_id), by=by, note=note)
        click.echo(
            f"review {review.id} is {review.status};"
            f" {review.entity_type} {review.gid} is {review.entity_status}"
        )


_review_command(
    "resolve",
    actions.resolve,
    """Close review ID as fixed. The entity is audited again, which proves it.

    Example: artwork-backfill review resolve 12 --note "archive.org has restored the item"
    """,
)
_review_command(
    "wont-fix",
    actions.leave_unfixed,
    """Close review ID without a fix: the entity counts as clean and is not audited again.

    If MusicBrainz merges or deletes the entity, or an event of it fails, it is audited again.

    Example: artwork-backfill review wont-fix 12 --note "darkened at the label's request"
    """,
)
_review_command(
    "reopen",
    actions.reopen,
    """Reopen the closed review ID, so that its entity waits for a person again.

    Example: artwork-backfill review reopen 12 --note "the item is still dark"
    """,
)


@review_group.command(name="purge")
@click.argument("review_id", metavar="ID", type=click.IntRange(1, BIGINT_MAX))
@click.option(
    "--artwork",
    "artwork_id",
    type=click.IntRange(0, BIGINT_MAX),
    required=True,
    metavar="NUMBER",
    help="The artwork id in the file's name.",
)
@click.option("--suffix", help="The file's suffix, if several files have this artwork id.")
@click.option("--note", type=NoteType(), required=True, help="The reason, for later readers.")
@by_option
def purge(*, review_id: int, artwork_id: int, suffix: str | None, note: str, by: str) -> None:
    """Queue the deletion of one foreign image of review ID, on your decision.

    Does not check who owns the image and whether a copy exists elsewhere. Checks everything else:
    the item is read again and must list the image, and no event of the entity may be in progress.

    Example: artwork-backfill review purge 12 --artwork 1029384756 --note "spam, see edit 1234"
    """
    tables = (*questions.TABLES, *actions.TABLES, *actions.DELETION_TABLES)
    with database("review", tables) as conn:
        event_id = actions.purge(
            conn,
            _find(conn, review_id),
            artwork_id=artwork_id,
            suffix=suffix,
            listings=_listings(),
            by=by,
            note=note,
        )
    click.echo(f"event {event_id} deletes the image; review {review_id} stays open until then")


@review_group.command(name="retry")
@click.argument("gids", metavar="GID...", nargs=-1, required=True, type=GidType())
@by_option
def retry(*, gids: tuple[UUID, ...], by: str) -> None:
    """Audit each GID again, before all other entities.

    Example: artwork-backfill review retry 76df3287-6cda-33eb-8e9a-044b5e15ffdd
    """
    with database("review", actions.TABLES) as conn:
        retried = actions.retry(conn, dict.fromkeys(gids), by=by)
    for entry in retried:
        entity = f"{entry.entity_type} {entry.gid}" if entry.entity_type else str(entry.gid)
        click.echo(f"{entity} {entry.outcome}")
    _fail_for(sum(entry.outcome is not Retried.RETRIED for entry in retried))


#: The exports, by reader.
_EXPORTS: Final = {"archive.org": staff.instructions}


@review_group.command(name="export")
@click.option(
    "--for",
    "reader",
    type=click.Choice(list(_EXPORTS)),
    required=True,
    help="The reader of the export.",
)
def export(*, reader: str) -> None:
    """Print tasks that only archive.org's staff can do: identifier, tab, what to do.

    Example: artwork-backfill review export --for archive.org > archive-org.tsv
    """
    with database("review", questions.TABLES) as conn:
        for instruction in _EXPORTS[reader](conn):
            click.echo(f"{instruction.identifier}\t{instruction.what}")


# -- events --------------------------------------------------------------------------------------


@click.group(name="events")
def events_group() -> None:
    """List events that artwork-indexer has given up, and requeue them.

    Example: artwork-backfill events failed
    """


@events_group.command(name="failed")
@click.option(
    "--action",
    type=click.Choice(["index", "copy_image", "delete_image", "deindex", "noop"]),
    help="Only this action.",
)
@_list_options
def failed(
    *,
    action: str | None,
    entity_type: str | None,
    reason: str | None,
    limit: int,
    offset: int,
    form: str | None,
) -> None:
    """List failed events with their latest failure, oldest first.

    Example: artwork-backfill events failed --action index --reason 503
    """
    wanted = EventFilter(EntityType(entity_type) if entity_type else None, action, reason)
    page = Page(limit, offset)
    _show_list("events", FAILED_EVENTS, wanted, page, form, views.events_table)


@events_group.command(name="requeue")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=click.IntRange(1, BIGINT_MAX))
@click.option("--any", "any_event", is_flag=True, help="Also requeue events of other programs.")
@by_option
def requeue(*, ids: tuple[int, ...], any_event: bool, by: str) -> None:
    """Requeue each failed event ID, together with the events that depend on it.

    Deletions are checked first, as in an audit: both items are read again, and the image must still
    belong to another entity whose item has the same image.

    Example: artwork-backfill events requeue 4711 4712
    """
    tables = (*actions.TABLES, *actions.DELETION_TABLES)
    with database("events", tables) as conn:
        requeued = requeueing.requeue(
            conn, set(ids), by=by, listings=_listings(), any_event=any_event
        )
    for event in requeued:
        along = "" if event.asked_for else " (it depends on one of these)"
        detail = f": {event.detail}" if event.detail else ""
        click.echo(f"event {event.id} {event.outcome}{detail}{along}")
    _fail_for(sum(event.outcome is not Requeued.REQUEUED for event in requeued))


# -- helpers -------------------------------------------------------------------------------------


def _find(conn: Connection, review_id: int) -> Review:
    review = REVIEWS.find(conn, review_id)
    if review is None:
        raise Refused(f"there is no review {review_id}: `review list` shows all reviews")
    return review


def _listings() -> Listings:
    """Return a reader of archive.org; it reads the settings when a deletion has to be checked."""

    @cache
    def open_archive() -> ArchiveOrgClient:
        settings = Settings(os.environ)
        return Services.from_settings(settings, concurrency=1, stop_flag=Flag()).archive

    return Listings(open_archive)


@contextmanager
def database(command: str, tables: tuple[Table, ...]) -> Iterator[Connection]:
    """Open the database; refusals and timeouts become one message and exit code 1."""
    with musicbrainz_database(command, tables, statement_timeout=_STATEMENT_TIMEOUT) as conn:
        try:
            yield conn
        except Refused as error:
            raise click.ClickException(str(error)) from None
        except LockNotAvailable:
            raise click.ClickException(
                "another transaction is changing these rows: try again in a moment"
            ) from None
        except QueryCanceled:
            raise click.ClickException(
                f"the query took longer than {_STATEMENT_TIMEOUT}: narrow it, for example with"
                " --limit or --reason"
            ) from None


def _show_list(
    command: str,
    rows: RowList[Filter, Row],
    wanted: Filter,
    page: Page,
    form: str | None,
    table: Callable[[Sequence[Row]], RenderableType],
) -> None:
    """Print a part of a list as a table, JSON or CSV."""
    with database(command, questions.TABLES) as conn:
        found = rows.page(conn, wanted, page)
    if form == "json":
        click.echo(views.to_json(found))
    elif form == "csv":
        click.echo("".join(spreadsheet.lines(rows.row, found)), nl=False)
    else:
        views.show(table(found))


def _fail_for(count: int) -> None:
    if count:
        raise click.ClickException(f"{count} could not be done; see the reasons above")
