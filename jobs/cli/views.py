"""Reviews, cases and events as tables, text, JSON and CSV.

All text shown comes from outside in the end: names, comments and error texts. Therefore terminals
get plain `Text` without control characters, never markup; spreadsheets get no cell that they would
interpret as a formula; and links are built here from a gid, never copied.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from artwork_backfill.shared.audit.archives import EntityType, entity_url, item_name
from artwork_backfill.shared.engine.log import plain
from artwork_backfill.shared.review import spreadsheet
from artwork_backfill.shared.review.questions import Case, Event, PastAudit, Review

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: The width of tables that go to a file or a pipe, in characters.
_PIPE_WIDTH: Final = 200


def to_json(rows: Sequence[DataclassInstance]) -> str:
    """Return rows as a JSON array, one object per row."""
    return json.dumps([dataclasses.asdict(row) for row in rows], default=spreadsheet.text, indent=2)


# -- terminal output ---------------------------------------------------------------------------


def reviews_table(reviews: Sequence[Review]) -> RenderableType:
    """Return a table of reviews."""
    return table(
        ("Review", "Since", "Status", "Entity", "Reason"),
        (
            (
                str(review.id),
                _moment(review.created_at),
                review.status,
                f"{review.entity_type} {review.gid}",
                review.reason,
            )
            for review in reviews
        ),
    )


def events_table(events: Sequence[Event]) -> RenderableType:
    """Return a table of artwork-indexer's events."""
    return table(
        (
            "Event",
            "State",
            "Created",
            "Action",
            "Message",
            "Waits for",
            "Attempts",
            "Latest failure",
        ),
        (
            (
                str(event.id),
                event.state,
                _moment(event.created),
                f"{event.action} {event.entity_type}",
                _message(event.message),
                ", ".join(map(str, event.depends_on or ())),
                str(event.attempts),
                event.failure or "",
            )
            for event in events
        ),
    )


def case_view(case: Case) -> RenderableType:
    """Return everything about an entity."""
    entity = case.entity
    parts: list[RenderableType] = [
        Text(f"{entity.entity_type} {entity.gid}", style="bold"),
        Text(
            f"{entity.status}, priority {entity.priority},"
            f" last audit {_moment(entity.last_audit_at)}"
        ),
        *link_lines(entity.entity_type, entity.gid),
        heading("Reviews"),
        table(
            ("Review", "Since", "Status", "Reason", "Notes"),
            (
                (
                    str(review.id),
                    _moment(review.created_at),
                    review.status,
                    review.reason,
                    review.notes or "",
                )
                for review in case.reviews
            ),
        ),
        heading("Events"),
        events_table(case.events),
    ]
    for audit in case.audits:
        parts += [heading(_audit_title(audit)), _findings_table(audit)]
    return Group(*parts)


def _audit_title(audit: PastAudit) -> str:
    queued = f", queued events {', '.join(map(str, audit.event_ids))}" if audit.event_ids else ""
    return f"Audit of {_moment(audit.audited_at)}: {audit.outcome}{queued} (run {audit.run_id})"


def _findings_table(audit: PastAudit) -> RenderableType:
    return table(
        ("Check", "Severity", "Subject", "Expected", "Found", "Repair"),
        (
            (
                finding.check,
                finding.severity,
                finding.subject,
                finding.expected or "",
                finding.actual or "",
                "✓" if finding.repair else "",
            )
            for finding in audit.findings
        ),
    )


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    has_numbers: bool = False,
    whole: Collection[str] = (),
) -> RenderableType:
    """Return a table, or a note if there are no rows.

    With `has_numbers`, all columns but the first hold numbers. The words of the columns in `whole`
    are never broken, whatever the width.
    """
    lines = Table(
        title=f"\n{title}" if title else None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for position, column in enumerate(columns):
        justify: JustifyMethod = "right" if has_numbers and position else "left"
        lines.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    for row in rows:
        lines.add_row(*(Text(plain(cell)) for cell in row))
    return lines if lines.row_count or title else Text("none")


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = (columns, ("---",) * len(columns), *rows)
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def show(renderable: RenderableType) -> None:
    """Print to the terminal in its width, or to a file or pipe in a fixed width."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(width=width).print(renderable)


def link_lines(entity_type: EntityType, gid: UUID) -> list[Text]:
    """Return the URLs of an entity, its item and the item's files, as lines for a terminal."""
    item = item_name(str(gid))
    urls = (
        entity_url(entity_type, str(gid)),
        f"https://archive.org/details/{item}",
        f"https://archive.org/download/{item}/",
    )
    return [Text(url, style=f"link {url}") for url in urls]


def heading(text: str) -> Text:
    """Return a heading within a view."""
    return Text(f"\n{plain(text)}", style="bold")


def _message(message: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in message.items())


def _moment(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
