"""Complete lists as CSV, read and sent a few rows at a time, only for the browser that saw them.

Streamlit would keep each file in memory and serve it to everyone who knows its URL. Instead the
page issues a ticket for a query, and the rows are read when the browser sends it.
"""

from __future__ import annotations

import codecs
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import streamlit as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from artwork_backfill.dashboard import guard, memory
from artwork_backfill.dashboard.database import DashboardDb, Trouble
from artwork_backfill.shared.review import spreadsheet
from artwork_backfill.shared.review.lists import Filter, Row, RowList

#: How long a ticket is valid, in seconds, and the maximum number of tickets.
_GOOD_FOR_S: Final = 12 * 3600
_TICKETS: Final = 2_000

#: The number of rows sent in one piece.
_LINES: Final = 500


@dataclass(frozen=True, slots=True)
class Ticket:
    """What may be fetched, by which browser, and until when (`time.monotonic`)."""

    visitor: str
    name: str
    rows: RowList[Any, Any]
    wanted: object
    database: DashboardDb
    until: float


#: The valid tickets by number, the oldest first.
_tickets: Final[OrderedDict[str, Ticket]] = OrderedDict()
_lock: Final = Lock()


def _issue(ticket: Ticket) -> str:
    """Return the number of a new ticket."""
    number = secrets.token_urlsafe(24)
    with _lock:
        _tickets[number] = ticket
        while len(_tickets) > _TICKETS:
            _tickets.popitem(last=False)
    return number


def _find(number: str, visitor: str) -> Ticket | None:
    """Return a valid ticket of a browser, or None."""
    with _lock:
        ticket = _tickets.get(number)
    is_valid = ticket and ticket.visitor == visitor and time.monotonic() <= ticket.until
    return ticket if is_valid else None


def offer(name: str, rows: RowList[Filter, Row], wanted: Filter, database: DashboardDb) -> None:
    """Offer all rows of a list that a filter selects, as `name`.csv."""
    held: dict[str, tuple[object, str]] = st.session_state.setdefault("downloads", {})
    # Another filter needs another ticket.
    if name not in held or held[name][0] != wanted:
        until = time.monotonic() + _GOOD_FOR_S
        ticket = Ticket(memory.visitor(), name, rows, wanted, database, until)
        held[name] = (wanted, _issue(ticket))
    # A plain link, because Streamlit's open another window.
    st.html(
        f'<a class="download" href="/download/{held[name][1]}/{name}.csv" download'
        ' title="All rows that the filters let through">Download CSV</a>',
        width="content",
    )


def _download(request: Request) -> Response:
    visitor = guard.visitor(request.headers.get("cookie")) or ""
    ticket = _find(request.path_params["number"], visitor)
    if ticket is None:
        return PlainTextResponse(
            "This link is not valid any more: reload the page and download again.\n", 410
        )
    headers = {
        "Content-Disposition": f'attachment; filename="{ticket.name}.csv"',
        "Cache-Control": "no-store",
    }
    # Errors are detected before the first line is sent: later, the file can only be cut off.
    pieces = _pieces(ticket)
    try:
        first = next(pieces)
    except Trouble as trouble:
        return PlainTextResponse(f"{trouble}\n", 503)
    return StreamingResponse(
        _chain(first, pieces), media_type="text/csv; charset=utf-8", headers=headers
    )


def _pieces(ticket: Ticket) -> Iterator[bytes]:
    """Yield the file; the first piece has the mark that makes spreadsheets read it as UTF-8."""
    with ticket.database.reading() as conn:
        rows = ticket.rows.walk(conn, ticket.wanted)
        lines = spreadsheet.lines(ticket.rows.row, rows)
        piece = [codecs.BOM_UTF8.decode(), next(lines)]
        for line in lines:
            piece.append(line)
            if len(piece) >= _LINES:
                yield "".join(piece).encode()
                piece.clear()
        yield "".join(piece).encode()


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    with closing(rest):  # type: ignore[type-var]
        yield first
        yield from rest


ROUTE: Final = Route("/download/{number}/{name}", _download, methods=["GET"])
