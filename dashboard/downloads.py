"""Lists as CSV: whole, read and sent a few rows at a time, for the browser that was shown them.

Streamlit would keep each file in memory and serve it to everyone who knows its address. Here the
page issues a ticket, which names the question; the rows are read when the browser comes with it.
"""

from __future__ import annotations

import codecs
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import streamlit as st
from psycopg import Connection
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from artwork_backfill.dashboard import guard, memory
from artwork_backfill.dashboard.database import DashboardDb, Trouble
from artwork_backfill.shared.review import spreadsheet

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: For how long a ticket is good, in seconds, and how many there are at most.
_GOOD_FOR_S: Final = 12 * 3600
_TICKETS: Final = 2_000

#: Sent in one piece.
_LINES: Final = 500

Rows = Callable[[Connection], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Ticket:
    """What may be fetched, by which browser, until when (`time.monotonic`)."""

    visitor: str
    name: str
    row_type: type[DataclassInstance]
    rows: Rows
    database: DashboardDb
    until: float


class Tickets:
    """The tickets that are out; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()

    def issue(self, ticket: Ticket) -> str:
        """Return the number of a new ticket."""
        number = secrets.token_urlsafe(24)
        with self._lock:
            self._tickets[number] = ticket
            while len(self._tickets) > _TICKETS:
                self._tickets.popitem(last=False)
        return number

    def find(self, number: str, visitor: str) -> Ticket | None:
        """Return a ticket that is still good for a browser."""
        with self._lock:
            ticket = self._tickets.get(number)
        if ticket is None or ticket.visitor != visitor or ticket.until < time.monotonic():
            return None
        return ticket


@st.cache_resource(show_spinner=False)
def _tickets() -> Tickets:
    return Tickets()


def offer(
    name: str, row_type: type[DataclassInstance], rows: Rows, database: DashboardDb, *, key: object
) -> None:
    """Offer rows as CSV.

    Parameters
    ----------
    name
        Of the file, without `.csv`.
    row_type, rows
        What the rows are, and how they are read.
    key
        What the question depends on: another key, another ticket.
    """
    held: dict[str, tuple[object, str]] = st.session_state.setdefault("downloads", {})
    if name not in held or held[name][0] != key:
        until = time.monotonic() + _GOOD_FOR_S
        ticket = Ticket(memory.visitor(), name, row_type, rows, database, until)
        held[name] = (key, _tickets().issue(ticket))
    # A link of its own, since Streamlit's open another window.
    st.html(
        f'<a class="download" href="/download/{held[name][1]}/{name}.csv" download'
        ' title="All rows that the filters let through">Download CSV</a>',
        width="content",
    )


def _download(request: Request) -> Response:
    visitor = guard.visitor(request.headers.get("cookie")) or ""
    ticket = _tickets().find(request.path_params["number"], visitor)
    if ticket is None:
        return PlainTextResponse(
            "This link is not valid any more: reload the page and download again.\n", 410
        )
    headers = {
        "Content-Disposition": f'attachment; filename="{ticket.name}.csv"',
        "Cache-Control": "no-store",
    }
    # Told apart before the first line is sent: afterwards, all that can be done is to break off.
    pieces = _pieces(ticket)
    try:
        first = next(pieces)
    except Trouble as trouble:
        return PlainTextResponse(f"{trouble}\n", 503)
    return StreamingResponse(
        _chain(first, pieces), media_type="text/csv; charset=utf-8", headers=headers
    )


def _pieces(ticket: Ticket) -> Iterator[bytes]:
    """Yield the file, the first piece with the mark that makes spreadsheets read it as UTF-8."""
    with ticket.database.reading() as conn:
        lines = spreadsheet.lines(ticket.row_type, ticket.rows(conn))
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
