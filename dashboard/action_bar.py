"""The actions on a list: buttons, the question before many rows change, and the result.

A person acts on the rows they have ticked, on the open row, or on all rows that the filter lets
through. Each is the same action: a function of rows. On all rows it works a batch at a time, see
`bulk`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final, Generic

import streamlit as st
from psycopg import Connection

from artwork_backfill.dashboard import bulk, show
from artwork_backfill.dashboard.bulk import Batch, Bulk
from artwork_backfill.dashboard.memory import Done, Visit
from artwork_backfill.dashboard.notices import Notices
from artwork_backfill.dashboard.worklist import Worklist
from artwork_backfill.shared.review.lists import Filter, Row

#: A change to more rows than this needs a confirmation.
ASK_BEYOND: Final = 100


@dataclass(frozen=True, slots=True)
class Applied(Generic[Row]):
    """The result of an action: the ids of the rows that it changed, and what to say about it.

    `more` is a further action with its label, and the rows for it.
    """

    done: Sequence[int]
    headline: str
    refusals: Sequence[str] = ()
    journal: Sequence[Done] = ()
    more: tuple[str, Action[Row], Sequence[Row]] | None = None


@dataclass(frozen=True, slots=True)
class Action(Generic[Row]):
    """A button.

    Parameters
    ----------
    apply
        Changes rows, given a connection, the person's name, the rows and the note.
    undo
        The action that reverts this one for the rows that it changed, read again.
    also
        What else it changes, for the question.
    answers
        The answers to the question before many rows change, each with the action that it starts;
        `{count}` becomes their number. By default, there is one for the action itself.
    """

    label: str
    apply: Callable[[Connection, str, Sequence[Row], str], Applied[Row]]
    shortcut: str = ""
    help: str = ""
    needs_note: bool = False
    undo: Action[Row] | None = None
    also: str = ""
    answers: Mapping[str, Action[Row]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Question:
    """A question before many rows change; `about` is what the person saw when it was asked."""

    title: str
    details: tuple[str, ...]
    answers: Mapping[str, Callable[[], None]]
    about: object


@dataclass(frozen=True, slots=True)
class ActionBar(Generic[Filter, Row]):
    """The actions on a list with a filter; `note` is the label of the note, if they take one."""

    worklist: Worklist[Filter, Row]
    actions: Sequence[Action[Row]]
    visit: Visit
    wanted: Filter
    note: str = ""

    def show(self) -> None:
        """Draw the bar; nothing if the dashboard is read only."""
        if self.visit.config.read_only:
            return
        with show.action_bar(self.worklist.name):
            with st.container():
                is_busy = bulk.show_bulk(self.visit.kept, self.worklist.name, self.worklist.reload)
                if not is_busy:
                    self._notices.show()
            if not is_busy:
                self._buttons()
                self._choice()
        self._show_question()

    @property
    def _notices(self) -> Notices:
        return Notices(self.worklist.name)

    @property
    def _note_key(self) -> str:
        return self.worklist.key("note")

    def _buttons(self) -> None:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            if self.note:
                show.draft(self.note, self.visit.kept, self._note_key, max_chars=1_000)
            for action in self.actions:
                st.button(
                    action.label,
                    key=self.worklist.key(action.label),
                    help=action.help,
                    shortcut=action.shortcut,
                    on_click=self._press,
                    args=(action,),
                )

    def _choice(self) -> None:
        """Show which rows the buttons act on."""
        worklist = self.worklist
        seen, selected, shown = worklist.seen(), worklist.selected(), worklist.shown()
        total = seen.extent.count if seen else 0
        with st.container(horizontal=True, vertical_alignment="center"):
            if worklist.all_chosen:
                st.markdown(f"**All {total:,} that match are selected.**", width="content")
                st.button(
                    "Select none",
                    key=worklist.key("none"),
                    on_click=worklist.choose_all,
                    args=(False,),
                )
                return
            if selected:
                st.caption(f"{len(selected):,} selected", width="content")
            elif shown is not None:
                words = f"Acts on {worklist.noun} {shown.id}, which is open."
                st.caption(words, width="content")
            else:
                st.caption("Nothing is selected.", width="content")
            if total > 1:
                st.button(
                    f"Select all {total:,} that match",
                    key=worklist.key("choose"),
                    type="tertiary",
                    on_click=worklist.choose_all,
                    args=(True,),
                )

    # -- acting --------------------------------------------------------------------------------

    def _press(self, action: Action[Row]) -> None:
        """Handle a pressed button with the rows and the note that the person sees."""
        seen, shown = self.worklist.seen(), self.worklist.shown()
        note = " ".join(st.session_state.get(self._note_key, "").split())
        chosen = self.worklist.selected() or ([] if shown is None else [shown])
        described = f"{self.worklist.describe(self.wanted)}{action.also}."
        if action.needs_note and not note:
            self._notices.notify(f"{action.label}: write the reason in the note first.", ok=False)
        elif self.worklist.all_chosen and seen is not None:
            count = seen.extent.count
            self._ask(action, count, f"All {count:,} {described}", note, self._start)
        elif not chosen:
            words = f"{action.label}: select {self.worklist.noun}s first."
            self._notices.notify(words, ok=False)
        elif len(chosen) > ASK_BEYOND:
            count = len(chosen)
            to = f"The {count:,} selected of the {described}"
            self._ask(action, count, to, note, partial(self._act, rows=chosen))
        else:
            self._act(action, note, rows=chosen)

    def _act(self, action: Action[Row], note: str, *, rows: Sequence[Row]) -> None:
        with self._notices.reporting():
            applied = self.visit.act(lambda conn, by: action.apply(conn, by, rows, note))
            self.visit.kept.record(applied.journal)
            headline = applied.headline
            if applied.refusals:
                headline += " The others were not changed, and the list was reloaded:"
            undo = more = None
            if action.undo is not None and applied.done:
                undo = partial(self._undo, action.undo, applied.done)
            if applied.more is not None:
                label, next_action, others = applied.more
                more = (label, partial(self._act, next_action, note, rows=others))
            self._notices.notify(
                headline, applied.refusals, ok=bool(applied.done), undo=undo, more=more
            )
            if applied.done:
                self._clear(note)
        self.worklist.reload()

    def _undo(self, action: Action[Row], ids: Sequence[int]) -> None:
        with self._notices.reporting():
            with self.visit.reading() as conn:
                rows = self.worklist.rows.with_ids(conn, ids)
            self._act(action, "", rows=rows)

    def _start(self, action: Action[Row], note: str) -> None:
        """Start an action on all rows that match the filter."""
        seen = self.worklist.seen()
        if seen is None:
            return
        count, up_to = seen.extent.count, seen.extent.last_id

        def read(conn: Connection, after: int) -> list[Row]:
            return self.worklist.rows.after(
                conn, self.wanted, after=after, up_to=up_to, limit=bulk.BATCH
            )

        to = (self.worklist.describe(self.wanted), *_note_line(note))
        self.visit.kept.bulk = self._bulk(action, read, to=to, total=count, note=note)
        self.visit.kept.record(
            [Done(datetime.now(UTC), f"{action.label}: all {count:,} that matched")]
        )
        self.worklist.choose_all(False)
        self._clear(note)

    def _bulk(
        self,
        action: Action[Row],
        read: Callable[[Connection, int], list[Row]],
        *,
        total: int,
        to: Sequence[str] = (),
        note: str = "",
    ) -> Bulk:
        """Return an action on the rows that `read` returns, given the last id of those before."""

        def step(after: int) -> Batch:
            with self.visit.reading() as conn:
                rows = read(conn, after)
            if not rows:
                return Batch(None)
            applied = self.visit.act(lambda conn, by: action.apply(conn, by, rows, note))
            return Batch(rows[-1].id, applied.done, applied.refusals)

        name = self.worklist.name
        undo = None if action.undo is None else partial(self._bulk_undo, action.undo)
        return Bulk(name, action.label, to, total, step, undo)

    def _bulk_undo(self, action: Action[Row], ids: Sequence[int]) -> Bulk:
        def read(conn: Connection, after: int) -> list[Row]:
            left = [id_ for id_ in ids if id_ > after]
            return self.worklist.rows.with_ids(conn, left, limit=bulk.BATCH)

        return self._bulk(action, read, total=len(ids))

    def _clear(self, note: str) -> None:
        """Clear the note that an action has used."""
        if note:
            show.write(self.visit.kept, self._note_key, "")

    # -- asking --------------------------------------------------------------------------------

    def _ask(
        self,
        action: Action[Row],
        count: int,
        to: str,
        note: str,
        act: Callable[[Action[Row], str], None],
    ) -> None:
        """Ask before many rows change; `to` says which."""
        self._notices.forget()
        answers = action.answers or {"Yes, do it": action}
        st.session_state[self.worklist.key("question")] = _Question(
            f"{action.label}: {count:,} {self.worklist.noun}s?",
            (to, *_note_line(note)),
            {
                label.format(count=f"{count:,}"): partial(act, answer, note)
                for label, answer in answers.items()
            },
            self.worklist.choice(),
        )

    def _show_question(self) -> None:
        """Show the open question, unless the list or the ticks have changed since."""
        question: _Question | None = st.session_state.get(self.worklist.key("question"))
        if question is None:
            return
        if question.about != self.worklist.choice():
            self._drop_question()
            return
        st.dialog(question.title, on_dismiss=self._drop_question)(self._answer)(question)

    def _answer(self, question: _Question) -> None:
        if st.session_state.get(self.worklist.key("question")) is not question:
            st.rerun()
        for line in question.details:
            show.text(line)
        with st.container(horizontal=True):
            for position, (label, act) in enumerate(question.answers.items()):
                st.button(
                    label,
                    key=self.worklist.key(f"yes.{position}"),
                    type="secondary" if position else "primary",
                    on_click=self._yes,
                    args=(act,),
                )
            st.button("No", key=self.worklist.key("no"), on_click=self._drop_question)

    def _yes(self, act: Callable[[], None]) -> None:
        self._drop_question()
        act()

    def _drop_question(self) -> None:
        st.session_state.pop(self.worklist.key("question"), None)


def _note_line(note: str) -> list[str]:
    return [f"Note: {note}"] if note else []
