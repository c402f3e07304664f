"""The explain command: what an audit of one entity would find, and why."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from functools import partial
from typing import Final
from uuid import UUID

import click
from rich.console import Group, RenderableType
from rich.text import Text

from artwork_backfill.jobs.cli import views
from artwork_backfill.jobs.cli.review import GidType
from artwork_backfill.jobs.command import UnavailableError, musicbrainz_database, usage_errors
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.auditing.expectation import TABLES
from artwork_backfill.shared.auditing.models import BadRow
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.engine.job import StopRun
from artwork_backfill.shared.engine.redaction import Redactor
from artwork_backfill.shared.review import explain as explaining
from artwork_backfill.shared.review.explain import Explanation
from artwork_backfill.shared.settings import Settings

_COMMAND: Final = "explain"

_database: Final = partial(musicbrainz_database, _COMMAND, TABLES, read_only=True)


@click.command(name=_COMMAND)
@click.argument("gid", metavar="GID_OR_URL", type=GidType())
@click.option(
    "--entity",
    "entity_type",
    type=click.Choice([entity_type.value for entity_type in EntityType]),
    help="Only this entity type. The default is the type that MusicBrainz knows.",
)
@click.option("--all", "show_all", is_flag=True, help="Also show what is as expected.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, gid: UUID, entity_type: str | None, show_all: bool, as_json: bool) -> None:
    """Audit one entity and show what was expected and found, without changing anything.

    Shows each difference with its meaning, what an audit would do and why, the owners of foreign
    images, events, and previous audits. Works on a read-only replica.

    Example: artwork-backfill explain 76df3287-6cda-33eb-8e9a-044b5e15ffdd
    """
    explanations = _explain(gid, EntityType(entity_type) if entity_type else None)
    if as_json:
        click.echo(views.to_json(explanations))
        return
    for explanation in explanations:
        views.show(_view(explanation, show_all=show_all))


def _explain(gid: UUID, entity_type: EntityType | None) -> list[Explanation]:
    settings = Settings(os.environ)
    with usage_errors(Redactor.of_process(settings)):
        services = Services.from_settings(settings, concurrency=1, stop_flag=threading.Event())
    with closing(services):
        examiner = explaining.examining(services, _database)
        types = [entity_type] if entity_type else explaining.entity_types(_database, gid)
        try:
            return [explaining.explain(_database, examiner, each, gid) for each in types]
        except BadRow as problem:
            raise click.ClickException(
                f"{gid} cannot be audited: {problem}. Correct the row in MusicBrainz"
            ) from None
        except StopRun as problem:
            raise UnavailableError(str(problem)) from None


# -- terminal output -----------------------------------------------------------------------------


def _view(explanation: Explanation, *, show_all: bool) -> RenderableType:
    gid = explanation.gid
    lines = [side for side in explanation.comparison if show_all or side.differs]
    same = len(explanation.comparison) - len(lines)
    parts: list[RenderableType] = [
        Text(f"{explanation.entity_type} {gid}", style="bold"),
        Text(f"{explanation.presence} in MusicBrainz, {explanation.images:,} images expected"),
        *views.link_lines(explanation.entity_type, gid),
        views.heading("Expected and found"),
        views.table(
            ("Where", "What", "Expected", "Found"),
            ((side.part, side.what, side.expected or "", side.found or "") for side in lines),
        ),
    ]
    if same:
        parts.append(Text(f"{same:,} others are as expected; --all shows them"))
    parts += [
        views.heading("Findings"),
        views.table(
            ("Check", "Severity", "Subject", "Means", "Remedy"),
            (
                (found.check, found.severity, found.subject, found.meaning, found.remedy)
                for found in explanation.findings
            ),
        ),
    ]
    if foreign := explanation.foreign_images:
        rows = ((image.name, image.owner or "", image.verdict) for image in foreign)
        parts += [
            views.heading("Foreign images"),
            views.table(("Image", "Owner", "Verdict"), rows),
        ]
    parts += [views.heading("An audit would decide"), Text(explanation.outcome, style="bold")]
    parts += [Text(f"because {reason}") for reason in explanation.why]
    parts += [Text(f"and queue: {event}") for event in explanation.events]
    if explanation.event_under_way:
        parts.append(
            Text("An event of the entity is queued or running; audits wait until it ends.")
        )
    parts.append(views.heading("On record"))
    parts.append(
        Text("nothing: it is not in the audit table")
        if explanation.case is None
        else views.case_view(explanation.case)
    )
    return Group(*parts)
