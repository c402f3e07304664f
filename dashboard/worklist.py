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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar, cast

import streamlit as st

from artwork_backfill.dashboard import show, words
from artwork_backfill.dashboard.address import Field
from artwork_backfill.shared.review.questions import Page
from artwork_backfill.shared.review.triage import Extent, Group

T = TypeVar("T")

#: Rows on a page of a list.
PAGE_SIZES: Final = (25, 50, 100, 250, 500)

#: A change to more rows than this needs a confirmation.
ASK_BEYOND: Final = 100

#: Lines of a notice that are shown.
_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """The rows of one reading, and the number of rows in total and of each kind.

    `wanted` is the filter. `token` identifies the reading.
    """

    wanted: object
    page: Page
    rows: Sequence[T]
    extent: Extent
    groups: Sequence[Group]
    at: datetime
    token: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice about the last action: a headline of this project, and lines from any source.

    `undo` reverts the action; `more` holds a further action by its label.
    """

    headline: str
    details: tuple[str, ...] = ()
    ok: bool = True
    undo: Callable[[], None] | None = None
    more: tuple[str, Callable[[], None]] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question asked before many rows change; `about` is what the person saw when it was asked.

    `answers` maps each label to the action that it starts.
    """

    title: str
    details: tuple[str, ...]
    answers: Mapping[str, Callable[[], None]]
    about: object


class Worklist(Generic[T]):
    """One list of the page, with its pages, ticks and notices.

    Parameters
    ----------
    name
        The prefix of the keys of all its widgets.
    id_of
        Returns the id of a row.
    """

    def __init__(self, name: str, id_of: Callable[[T], int]) -> None:
        self.name = name
        self._id_of = id_of

    def fields(self) -> tuple[Field, ...]:
        """Return the fields of the address that describe the list."""
        return (
            Field("rows", self._key("size"), 50),
            Field("from", self._key("first"), 0),
            Field("open", self._key("open"), 0),
        )

    # -- reading -------------------------------------------------------------------------------

    def read(
        self,
        wanted: object,
        load: Callable[[Page], Sequence[T]],
        count: Callable[[], Extent],
        group: Callable[[], Sequence[Group]],
    ) -> Listing[T]:
        """Return the list as it was read; read it again if other rows are wanted."""
        known = st.session_state.get(self._key("wanted"))
        if known != wanted:
            if known is not None:
                st.session_state[self._key("first")] = 0
            st.session_state[self._key("wanted")] = wanted
        page = self._page()
        seen = self.seen()
        if seen is not None and (seen.wanted, seen.page) == (wanted, page):
            return seen
        extent = count()
        if page.offset >= extent.count:
            # The last page has become empty, or an old link points past the end.
            page = replace(page, offset=max(0, extent.count - 1) // page.limit * page.limit)
            st.session_state[self._key("first")] = page.offset
        listing = Listing(
            wanted,
            page,
            tuple(load(page)),
            extent,
            tuple(group()),
            datetime.now(UTC),
            secrets.token_hex(8),
        )
        st.session_state[self._key("listing")] = listing
        st.session_state[self._key("all")] = False
        return listing

    def seen(self) -> Listing[T] | None:
        """Return the last reading of the list."""
        return cast("Listing[T] | None", st.session_state.get(self._key("listing")))

    def reload(self) -> None:
        """Forget the reading, and with it the ticks."""
        st.session_state.pop(self._key("listing"), None)

    def _page(self) -> Page:
        size = st.session_state.get(self._key("size"), 50)
        size = size if size in PAGE_SIZES else 50
        # Open the page that contains the first row of the page shown before.
        first = st.session_state.get(self._key("first"), 0)
        return Page(size, first // size * size)

    # -- choosing ------------------------------------------------------------------------------

    def table_key(self) -> str:
        """Return the key of the list's table, which is different for each reading."""
        seen = self.seen()
        return f"{self.name}.table.{seen.token if seen else ''}"

    def selected(self) -> list[T]:
        """Return the ticked rows of this reading."""
        seen = self.seen()
        if seen is None:
            return []
        return [
            seen.rows[position]
            for position in show.selected(self.table_key())
            if position < len(seen.rows)
        ]

    @property
    def all_chosen(self) -> bool:
        """Whether all rows that match the filter are selected."""
        return bool(st.session_state.get(self._key("all")))

    def choose_all(self, chosen: bool) -> None:
        """Select all rows that match the filter, or none; for callbacks."""
        st.session_state[self._key("all")] = chosen

    # -- one row -------------------------------------------------------------------------------

    def opened(self) -> int | None:
        """Return the id of the open row: the only one ticked, or the one asked for."""
        ticked = [self._id_of(row) for row in self.selected()]
        if ticked != st.session_state.get(self._key("ticked"), []):
            st.session_state[self._key("ticked")] = ticked
            st.session_state[self._key("open")] = ticked[0] if len(ticked) == 1 else 0
        return st.session_state.get(self._key("open")) or None

    def close(self) -> None:
        """Close the open row; for callbacks."""
        st.session_state[self._key("open")] = 0
        self._untick()

    def stepper(self) -> None:
        """Show buttons that open the next and the previous row of this page of the list."""
        seen, opened = self.seen(), st.session_state.get(self._key("open"))
        if seen is None:
            return
        ids = [self._id_of(row) for row in seen.rows]
        position = ids.index(opened) if opened in ids else None
        first = seen.page.offset
        with st.container(horizontal=True, vertical_alignment="center"):
            for label, step, shortcut in (("Previous", -1, "k"), ("Next", 1, "j")):
                to = None if position is None else position + step
                there = to is not None and 0 <= to < len(ids)
                st.button(
                    f"{label} in the list",
                    key=f"{self.name}.open.{label.lower()}",
                    disabled=not there,
                    shortcut=shortcut,
                    on_click=self._open,
                    args=(ids[to] if there and to is not None else 0,),
                )
            st.button("Close", key=f"{self.name}.open.close", on_click=self.close)
            if position is not None:
                st.caption(f"{first + position + 1:,} of {seen.extent.count:,}", width="content")

    def _open(self, id_: int) -> None:
        st.session_state[self._key("open")] = id_
        self._untick()

    def _untick(self) -> None:
        if (seen := self.seen()) is not None:
            fresh = replace(seen, token=secrets.token_hex(8))
            st.session_state[self._key("listing")] = fresh
            st.session_state[self._key("ticked")] = []

    # -- around the table ----------------------------------------------------------------------

    def pager(self, more: Callable[[], None]) -> None:
        """Show which rows of the list are on this page, and controls to turn the pages.

        `more` draws further controls for the whole list.
        """
        seen = self.seen()
        if seen is None:
            return
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
            more()
            st.selectbox(
                "Rows on a page",
                PAGE_SIZES,
                key=self._key("size"),
                width=130,
                persist_state="session",
            )

    def _turn(self, first: int) -> None:
        st.session_state[self._key("first")] = max(0, first)

    # -- saying and asking ---------------------------------------------------------------------

    def notify(
        self,
        headline: str,
        details: Iterable[str] = (),
        *,
        ok: bool = True,
        undo: Callable[[], None] | None = None,
        more: tuple[str, Callable[[], None]] | None = None,
    ) -> None:
        """Set the notice about an action; it stays until the next action."""
        st.session_state[self._key("notice")] = Notice(headline, tuple(details), ok, undo, more)

    def show_notice(self) -> None:
        """Show the last notice; a screen reader reads it out when it appears."""
        notice: Notice | None = st.session_state.get(self._key("notice"))
        if notice is None:
            return
        if notice.ok:
            st.success(notice.headline)
        else:
            st.warning(notice.headline)
        for line in notice.details[:_LINES]:
            show.text(line)
        if len(notice.details) > _LINES:
            st.caption(f"and {len(notice.details) - _LINES:,} more")
        if notice.undo is not None:
            st.button(
                "Undo",
                key=f"{self.name}.undo",
                on_click=self._follow,
                args=(notice.undo,),
                help="Reverts the last action.",
            )
        if notice.more is not None:
            label, act = notice.more
            st.button(label, key=f"{self.name}.more", on_click=self._follow, args=(act,))

    def _follow(self, act: Callable[[], None]) -> None:
        st.session_state.pop(self._key("notice"), None)
        act()

    def ask(
        self, title: str, details: Iterable[str], answers: Mapping[str, Callable[[], None]]
    ) -> None:
        """Set a question to be answered before an action; `details` are lines from any source."""
        st.session_state.pop(self._key("notice"), None)
        question = Question(title, tuple(details), answers, self._about())
        st.session_state[self._key("question")] = question

    def show_question(self) -> None:
        """Show the open question, unless the list or the ticks have changed since."""
        question: Question | None = st.session_state.get(self._key("question"))
        if question is None:
            return
        if question.about != self._about():
            self._drop()
            return
        st.dialog(question.title, on_dismiss=self._drop)(self._answer)(question)

    def _answer(self, question: Question) -> None:
        if st.session_state.get(self._key("question")) is not question:
            st.rerun()
        for line in question.details:
            show.text(line)
        with st.container(horizontal=True):
            for position, (label, act) in enumerate(question.answers.items()):
                st.button(
                    label,
                    key=f"{self.name}.yes.{position}",
                    type="secondary" if position else "primary",
                    on_click=self._yes,
                    args=(act,),
                )
            st.button("No", key=f"{self.name}.no", on_click=self._drop)

    def _yes(self, act: Callable[[], None]) -> None:
        self._drop()
        act()

    def _drop(self) -> None:
        st.session_state.pop(self._key("question"), None)

    def _about(self) -> object:
        """Return the list and ticks that a question is about; another value cancels it."""
        seen = self.seen()
        if seen is None:
            return None
        ticks: Any = tuple(show.selected(self.table_key()))
        return seen.wanted, seen.token, self.all_chosen, ticks

    def _key(self, name: str) -> str:
        return f"{self.name}.{name}"
