"""A list that stays as it was read while a person works on it.

Streamlit redraws the page at every click. If each redraw read the list again, rows would move
beneath the ticks, and the rows a person saw when they pressed a button would be unknown. A list is
therefore read only when its filters change, after an action, and when the person asks for it.

Ticks belong to one reading: its table has a key that no other reading has had, in this session or
any other. A browser that reconnects after a lost connection sends the positions of its ticks; no
table has their key, so they select nothing.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic, cast

import streamlit as st
from psycopg import Connection

from artwork_backfill.dashboard import downloads, show, words
from artwork_backfill.dashboard.address import Field
from artwork_backfill.dashboard.database import DashboardDb
from artwork_backfill.dashboard.memory import Visit
from artwork_backfill.shared.review.lists import Extent, Filter, Group, Page, Row, RowList

#: Rows on a page of a list.
PAGE_SIZES: Final = (25, 50, 100, 250, 500)


@dataclass(frozen=True, slots=True)
class Listing(Generic[Filter, Row]):
    """The rows of one reading, and the number of rows in total and of each kind.

    `wanted` is the filter. `token` identifies the reading.
    """

    wanted: Filter
    page: Page
    rows: Sequence[Row]
    extent: Extent
    groups: Sequence[Group]
    at: datetime
    token: str


class Worklist(ABC, Generic[Filter, Row]):
    """One list of the page, with its pages, ticks and open row; a subclass says what it shows.

    Attributes
    ----------
    name
        The prefix of the keys of all its widgets.
    noun
        What its rows are called, in the singular.
    columns
        The columns of its table, see `show.table`.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    columns: ClassVar[Mapping[str, Any]]

    def __init__(self, rows: RowList[Filter, Row]) -> None:
        self.rows = rows

    @abstractmethod
    def cells(
        self, conn: Connection, rows: Sequence[Row], now: datetime
    ) -> Iterable[Sequence[object]]:
        """Yield the cells of the table."""

    @abstractmethod
    def describe(self, wanted: Filter) -> str:
        """Describe in words the rows that a filter selects."""

    @abstractmethod
    def kind_of(self, wanted: Filter) -> str | None:
        """Return the kind that a filter selects, `None` for all."""

    @abstractmethod
    def narrow(self, group: Group | None) -> None:
        """Show the rows of one kind only, or all again; a callback."""

    @abstractmethod
    def show_row(self, visit: Visit, row: Row) -> None:
        """Show everything about the open row."""

    def fields(self) -> tuple[Field, ...]:
        """Return the fields of the address that describe the list."""
        return (
            Field("rows", self.key("size"), 50),
            Field("from", self.key("first"), 0),
            Field("open", self.key("open"), 0),
        )

    def show(self, visit: Visit, wanted: Filter) -> None:
        """Draw the list, its kinds and pages, and the open row.

        Each part has a container, even if it is empty: the parts after it keep their place in the
        browser, and with it the focus.
        """
        with visit.reading() as conn:
            seen = self._read(conn, wanted)
            cells = list(self.cells(conn, seen.rows, seen.at))
            opened = self.opened()
            row = None if opened is None else self.rows.find(conn, opened)
        st.session_state[self.key("shown")] = row
        with st.container():
            kind = self.kind_of(wanted)
            show.groups(self.name, seen.groups, seen.at, self.narrow, chosen=kind)
        with st.container():
            if not cells:
                st.info(f"No {self.noun}s pass these filters.")
            else:
                show.table(
                    cells,
                    self.columns,
                    name=f"{self.noun.capitalize()}s",
                    key=self._table_key(),
                    selection="multi-row",
                    rows=10 if opened is None else 5,
                )
        self._pager(visit, seen)
        with st.container():
            if opened is not None:
                st.divider()
                self._stepper(seen, opened)
                if row is None:
                    show.text(f"{self.noun.capitalize()} {opened} does not exist any more.")
                else:
                    self.show_row(visit, row)
            elif cells and not self.selected():
                st.caption(f"Select one {self.noun} to see everything about its entity.")

    # -- reading -------------------------------------------------------------------------------

    def _read(self, conn: Connection, wanted: Filter) -> Listing[Filter, Row]:
        """Return the list as it was read; read it again if other rows are wanted."""
        known = st.session_state.get(self.key("wanted"))
        if known != wanted:
            if known is not None:
                st.session_state[self.key("first")] = 0
            st.session_state[self.key("wanted")] = wanted
        page = self._page()
        seen = self.seen()
        if seen is not None and (seen.wanted, seen.page) == (wanted, page):
            return seen
        extent = self.rows.extent(conn, wanted)
        if page.offset >= extent.count:
            # The last page has become empty, or an old link points past the end.
            page = replace(page, offset=max(0, extent.count - 1) // page.limit * page.limit)
            st.session_state[self.key("first")] = page.offset
        listing = Listing(
            wanted,
            page,
            self.rows.page(conn, wanted, page),
            extent,
            self.rows.groups(conn, wanted),
            datetime.now(UTC),
            secrets.token_hex(8),
        )
        st.session_state[self.key("listing")] = listing
        st.session_state[self.key("all")] = False
        return listing

    def seen(self) -> Listing[Filter, Row] | None:
        """Return the last reading of the list."""
        return cast("Listing[Filter, Row] | None", st.session_state.get(self.key("listing")))

    def reload(self) -> None:
        """Forget the reading, and with it the ticks."""
        st.session_state.pop(self.key("listing"), None)

    def _page(self) -> Page:
        size = st.session_state.get(self.key("size"), 50)
        size = size if size in PAGE_SIZES else 50
        # Open the page that contains the first row of the page shown before.
        first = st.session_state.get(self.key("first"), 0)
        return Page(size, first // size * size)

    # -- choosing ------------------------------------------------------------------------------

    def _table_key(self) -> str:
        """Return the key of the list's table, which is different for each reading."""
        seen = self.seen()
        return f"{self.name}.table.{seen.token if seen else ''}"

    def selected(self) -> list[Row]:
        """Return the ticked rows of this reading."""
        seen = self.seen()
        if seen is None:
            return []
        ticks = show.selected(self._table_key())
        return [seen.rows[position] for position in ticks if position < len(seen.rows)]

    @property
    def all_chosen(self) -> bool:
        """Whether all rows that match the filter are selected."""
        return bool(st.session_state.get(self.key("all")))

    def choose_all(self, chosen: bool) -> None:
        """Select all rows that match the filter, or none; for callbacks."""
        st.session_state[self.key("all")] = chosen

    def choice(self) -> object:
        """Return a value that changes when the person wants, sees or ticks other rows."""
        seen = self.seen()
        if seen is None:
            return None
        return seen.wanted, seen.token, self.all_chosen, show.selected(self._table_key())

    # -- one row -------------------------------------------------------------------------------

    def opened(self) -> int | None:
        """Return the id of the open row: the only one ticked, or the one asked for."""
        ticked = [row.id for row in self.selected()]
        if ticked != st.session_state.get(self.key("ticked"), []):
            st.session_state[self.key("ticked")] = ticked
            st.session_state[self.key("open")] = ticked[0] if len(ticked) == 1 else 0
        return st.session_state.get(self.key("open")) or None

    def shown(self) -> Row | None:
        """Return the open row as the person sees it."""
        return cast("Row | None", st.session_state.get(self.key("shown")))

    def _stepper(self, seen: Listing[Filter, Row], opened: int) -> None:
        """Show buttons that open the next and the previous row of this page of the list."""
        ids = [row.id for row in seen.rows]
        position = ids.index(opened) if opened in ids else None
        with st.container(horizontal=True, vertical_alignment="center"):
            for label, step, shortcut in (("Previous", -1, "k"), ("Next", 1, "j")):
                to = -1 if position is None else position + step
                there = 0 <= to < len(ids)
                st.button(
                    f"{label} in the list",
                    key=f"{self.name}.open.{label.lower()}",
                    disabled=not there,
                    shortcut=shortcut,
                    on_click=self._open,
                    args=(ids[to] if there else 0,),
                )
            st.button("Close", key=f"{self.name}.open.close", on_click=self._open, args=(0,))
            if position is not None:
                place = seen.page.offset + position + 1
                st.caption(f"{place:,} of {seen.extent.count:,}", width="content")

    def _open(self, id_: int) -> None:
        """Open a row, or none, and untick all."""
        st.session_state[self.key("open")] = id_
        if (seen := self.seen()) is not None:
            fresh = replace(seen, token=secrets.token_hex(8))
            st.session_state[self.key("listing")] = fresh
            st.session_state[self.key("ticked")] = []

    # -- pages ---------------------------------------------------------------------------------

    def _pager(self, database: DashboardDb, seen: Listing[Filter, Row]) -> None:
        """Show which rows of the list are on this page, and controls for the whole list."""
        page, total = seen.page, seen.extent.count
        last = page.offset + len(seen.rows)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            if seen.rows:
                st.caption(
                    f"Rows {page.offset + 1:,} to {last:,} of {total:,},"
                    f" read at {words.clock(seen.at)}",
                    width="content",
                    help="A column's header sorts the rows of this page only.",
                )
            st.button(
                "Previous page",
                key=f"{self.name}.previous",
                disabled=page.offset == 0,
                on_click=self._turn,
                args=(page.offset - page.limit,),
            )
            st.button(
                "Next page",
                key=f"{self.name}.next",
                disabled=last >= total,
                on_click=self._turn,
                args=(last,),
            )
            st.button("Reload", key=f"{self.name}.reload", on_click=self.reload, shortcut="u")
            name = f"{self.noun.replace(' ', '-')}s"
            downloads.offer(name, self.rows, seen.wanted, database)
            st.selectbox(
                "Rows on a page",
                PAGE_SIZES,
                key=self.key("size"),
                width=130,
                persist_state="session",
            )

    def _turn(self, first: int) -> None:
        st.session_state[self.key("first")] = max(0, first)

    def key(self, name: str) -> str:
        """Return the key of a widget or a value of this list."""
        return f"{self.name}.{name}"
