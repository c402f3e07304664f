"""A list that stays as it was seen while a person works on it, and what has been done.

The page is run anew at every click. Were the list read anew each time, rows would move beneath the
selection, and nobody could tell what the person had seen when a button was pressed. So a list is
read when its filters change, after an action, and when the person asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar, cast
from uuid import UUID

import streamlit as st
from artwork_backfill.dashboard import show
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.review.questions import Page

T = TypeVar("T")

#: Rows on a page of a list.
PAGE_SIZES: Final = (25, 50, 100, 250, 500)

#: Changes to more rows than this are asked about first.
ASK_BEYOND: Final = 100

#: What has been done is remembered so far back.
_DONE: Final = 200

_JOURNAL: Final = "journal"


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """Rows as they were seen; `key` is the filter and page that they were asked for with."""

    key: object
    rows: Sequence[T]
    has_more: bool
    at: datetime
    generation: int


@dataclass(frozen=True, slots=True)
class Done:
    """Something that was done at this page, by this visitor: to an entity or to an event."""

    at: datetime
    what: str
    entity_type: EntityType
    gid: UUID | None
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """What is said about the last action: a headline of ours, and lines from anywhere."""

    headline: str
    details: tuple[str, ...] = ()


class Worklist(Generic[T]):
    """One list of the page, with its pages, its selection and its notices."""

    def __init__(self, name: str) -> None:
        self.name = name

    def page(self) -> Page:
        """Return the part of the list that is wanted now."""
        size = st.session_state.get(f"{self.name}.size", PAGE_SIZES[1])
        return Page(size, size * st.session_state.get(f"{self.name}.page", 0))

    def read(self, wanted: object, load: Callable[[Page], Sequence[T]]) -> Listing[T]:
        """Return the list as it was seen, or read it when other rows are wanted.

        `load` gets a page that is one row longer, which tells whether more follow.
        """
        if st.session_state.get(f"{self.name}.wanted") != wanted:
            st.session_state[f"{self.name}.wanted"] = wanted
            st.session_state[f"{self.name}.page"] = 0
        page = self.page()
        seen = self.seen()
        if seen is None or seen.key != (wanted, page):
            rows = load(Page(page.limit + 1, page.offset))
            generation = st.session_state.get(f"{self.name}.generation", 0) + 1
            seen = Listing(
                (wanted, page),
                tuple(rows[: page.limit]),
                len(rows) > page.limit,
                datetime.now(UTC),
                generation,
            )
            st.session_state[f"{self.name}.generation"] = generation
            st.session_state[f"{self.name}.listing"] = seen
        return seen

    def seen(self) -> Listing[T] | None:
        """Return the list as it was seen last."""
        return cast("Listing[T] | None", st.session_state.get(f"{self.name}.listing"))

    def reload(self) -> None:
        """Forget what was seen, and with it the selection."""
        st.session_state.pop(f"{self.name}.listing", None)

    def table_key(self) -> str:
        """Return the key of the list's table: another one for each reading of the list."""
        return f"{self.name}.table.{st.session_state.get(f'{self.name}.generation', 0)}"

    def selected(self) -> list[T]:
        """Return the rows that are selected, as they were seen."""
        seen = self.seen()
        if seen is None:
            return []
        return [
            seen.rows[position]
            for position in show.selected(self.table_key())
            if position < len(seen.rows)
        ]

    def pager(self, more: Callable[[], None]) -> None:
        """Show which part of the list this is, and let a person turn the pages.

        `more` adds what else there is to be done with the list as a whole.
        """
        seen = self.seen()
        if seen is None:
            return
        page = self.page()
        number = f"{self.name}.page"
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.selectbox(
                "Rows on a page",
                PAGE_SIZES,
                index=1,
                key=f"{self.name}.size",
                width=130,
                persist_state="session",
            )
            st.button(
                "Previous",
                key=f"{self.name}.previous",
                disabled=page.offset == 0,
                on_click=self._turn,
                args=(number, -1),
            )
            st.button(
                "Next",
                key=f"{self.name}.next",
                disabled=not seen.has_more,
                on_click=self._turn,
                args=(number, 1),
            )
            st.button("Reload", key=f"{self.name}.reload", on_click=self.reload)
            more()
            if seen.rows:
                first = page.offset + 1
                extent = f"Rows {first:,} to {page.offset + len(seen.rows):,}"
                rest = "more follow" if seen.has_more else "no more follow"
                st.caption(f"{extent}, {rest}; as of {show.clock(seen.at)}.")

    def notify(self, headline: str, details: Iterable[str] = ()) -> None:
        """Say something above the list, until the next action."""
        st.session_state[f"{self.name}.notice"] = Notice(headline, tuple(details))

    def show_notice(self) -> None:
        """Show what was said last."""
        notice: Notice | None = st.session_state.get(f"{self.name}.notice")
        if notice is None:
            return
        with st.container(border=True):
            st.markdown(f"**{notice.headline}**")
            for line in notice.details[:20]:
                show.text(line)
            if len(notice.details) > 20:
                st.caption(f"and {len(notice.details) - 20:,} more")

    def confirm(self, question: str, act: Callable[[], None], count: int) -> None:
        """Act, or ask first when more than `ASK_BEYOND` rows would be touched."""
        st.session_state.pop(f"{self.name}.notice", None)
        if count > ASK_BEYOND:
            st.session_state[f"{self.name}.pending"] = (question, act)
        else:
            act()

    def show_question(self) -> None:
        """Ask what is pending, with the two answers."""
        pending = st.session_state.get(f"{self.name}.pending")
        if pending is None:
            return
        with st.container(border=True):
            st.markdown(f"**{pending[0]}**")
            with st.container(horizontal=True):
                st.button("Yes, do it", key=f"{self.name}.yes", type="primary", on_click=self._yes)
                st.button("No", key=f"{self.name}.no", on_click=self._no)

    def _turn(self, key: str, step: int) -> None:
        st.session_state[key] = max(0, st.session_state.get(key, 0) + step)

    def _yes(self) -> None:
        _, act = st.session_state.pop(f"{self.name}.pending")
        act()

    def _no(self) -> None:
        st.session_state.pop(f"{self.name}.pending")


def record(done: Iterable[Done]) -> None:
    """Remember what was done, the latest first."""
    st.session_state[_JOURNAL] = [*done, *journal()][:_DONE]


def journal() -> list[Done]:
    """Return what was done at this page, the latest first."""
    return cast("list[Any]", st.session_state.get(_JOURNAL, []))
