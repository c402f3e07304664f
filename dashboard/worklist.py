"""A list that stays as it was seen while a person works on it.

The page is drawn again at every click. If the list were read each time, rows would move beneath the
ticks, and it would be unknown what a person saw when a button was pressed. So a list is read only
when its filters change, after an action, and when the person asks for it.

Ticks belong to one reading: its table has a key that no other reading ever had, in this session or
another. A browser that reconnects after a lost connection sends the positions of its ticks; there
is no table for them, so they tick nothing.
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

#: Changes to more rows than this are asked about first.
ASK_BEYOND: Final = 100

#: Lines of a notice that are shown.
_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """Rows as they were seen, and how many there were in all and of each kind.

    `wanted` is the filter. `token` is of this reading alone.
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
    """What is said about the last action: a headline of ours, and lines from anywhere.

    `undo` reverts the action; `more` is another possible action, by its label.
    """

    headline: str
    details: tuple[str, ...] = ()
    ok: bool = True
    undo: Callable[[], None] | None = None
    more: tuple[str, Callable[[], None]] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked before many rows are touched; `about` is what they saw then.

    `answers` are what they can say by label, and what is done then.
    """

    title: str
    details: tuple[str, ...]
    answers: Mapping[str, Callable[[], None]]
    about: object


class Worklist(Generic[T]):
    """One list of the page, with its pages, its ticks and its notices.

    Parameters
    ----------
    name
        Begins the keys of everything that belongs to it.
    id_of
        The id of a row.
    """

    def __init__(self, name: str, id_of: Callable[[T], int]) -> None:
        self.name = name
        self._id_of = id_of

    def fields(self) -> tuple[Field, ...]:
        """Return what the address says of the list."""
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
        """Return the list as it was seen, or read it when other rows are wanted."""
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
            # The last page has been worked off, or an old link leads beyond it.
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
        """Return the list as it was seen last."""
        return cast("Listing[T] | None", st.session_state.get(self._key("listing")))

    def reload(self) -> None:
        """Forget what was seen, and with it the ticks."""
        st.session_state.pop(self._key("listing"), None)

    def _page(self) -> Page:
        size = st.session_state.get(self._key("size"), 50)
        size = size if size in PAGE_SIZES else 50
        # The page on which that row is, whatever the size of pages was when it was first.
        first = st.session_state.get(self._key("first"), 0)
        return Page(size, first // size * size)

    # -- choosing ------------------------------------------------------------------------------

    def table_key(self) -> str:
        """Return the key of the list's table: another one for each reading of the list."""
        seen = self.seen()
        return f"{self.name}.table.{seen.token if seen else ''}"

    def selected(self) -> list[T]:
        """Return the rows that are ticked, as they were seen."""
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
        """Whether everything that the filter lets through is chosen."""
        return bool(st.session_state.get(self._key("all")))

    def choose_all(self, chosen: bool) -> None:
        """Choose everything that the filter lets through, or not; for callbacks."""
        st.session_state[self._key("all")] = chosen

    # -- one row -------------------------------------------------------------------------------

    def opened(self) -> int | None:
        """Return the id of the row that is open: the one that was ticked alone, or asked for."""
        ticked = [self._id_of(row) for row in self.selected()]
        if ticked != st.session_state.get(self._key("ticked"), []):
            st.session_state[self._key("ticked")] = ticked
            st.session_state[self._key("open")] = ticked[0] if len(ticked) == 1 else 0
        return st.session_state.get(self._key("open")) or None

    def close(self) -> None:
        """Close the row that is open; for callbacks."""
        st.session_state[self._key("open")] = 0
        self._untick()

    def stepper(self) -> None:
        """Let a person go to the next and the previous row of the page of the list."""
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
        """Show which part of the list this is, and let a person turn the pages.

        `more` adds what else can be done with the list as a whole.
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
        """Say what came of an action, until the next one."""
        st.session_state[self._key("notice")] = Notice(headline, tuple(details), ok, undo, more)

    def show_notice(self) -> None:
        """Show what was said last; a screen reader says it when it appears."""
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
        """Ask before something is done; `details` are lines from anywhere."""
        st.session_state.pop(self._key("notice"), None)
        question = Question(title, tuple(details), answers, self._about())
        st.session_state[self._key("question")] = question

    def show_question(self) -> None:
        """Show the question that waits for an answer, unless anything has changed since."""
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
        """Return what a question is about: another list, or other ticks, and it is dropped."""
        seen = self.seen()
        if seen is None:
            return None
        ticks: Any = tuple(show.selected(self.table_key()))
        return seen.wanted, seen.token, self.all_chosen, ticks

    def _key(self, name: str) -> str:
        return f"{self.name}.{name}"
