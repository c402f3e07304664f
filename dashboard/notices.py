"""What is said about the last action: a headline of this project, and lines from any source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import streamlit as st

from artwork_backfill.dashboard import show
from artwork_backfill.dashboard.database import Trouble

#: Lines of a notice that are shown.
_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class _Notice:
    headline: str
    details: tuple[str, ...]
    ok: bool
    undo: Callable[[], None] | None
    more: tuple[str, Callable[[], None]] | None


@dataclass(frozen=True, slots=True)
class Notices:
    """The notice of one part of the page; `name` is the prefix of its keys."""

    name: str

    def notify(
        self,
        headline: str,
        details: Iterable[str] = (),
        *,
        ok: bool = True,
        undo: Callable[[], None] | None = None,
        more: tuple[str, Callable[[], None]] | None = None,
    ) -> None:
        """Set the notice; it stays until the next action.

        `undo` reverts the action; `more` is a further action with its label.
        """
        notice = _Notice(headline, tuple(details), ok, undo, more)
        st.session_state[f"{self.name}.notice"] = notice

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Run an action, and say so if the database refuses it."""
        try:
            yield
        except Trouble as trouble:
            self.notify("Nothing was changed.", [str(trouble)], ok=False)

    def show(self) -> None:
        """Show the notice; a screen reader reads it out when it appears."""
        notice: _Notice | None = st.session_state.get(f"{self.name}.notice")
        if notice is None:
            return
        (st.success if notice.ok else st.warning)(notice.headline)
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
        self.forget()
        act()

    def forget(self) -> None:
        """Remove the notice."""
        st.session_state.pop(f"{self.name}.notice", None)
