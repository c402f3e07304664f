"""What artwork-indexer has given up, and having it tried again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

import streamlit as st
from artwork_backfill.dashboard import queries, show
from artwork_backfill.dashboard.desk import Desk, Trouble
from artwork_backfill.dashboard.tabs import case
from artwork_backfill.dashboard.worklist import Done, Worklist, record
from artwork_backfill.shared.review import actions, questions
from artwork_backfill.shared.review.actions import Requeued
from artwork_backfill.shared.review.questions import Event, EventFilter, Page

ACTIONS: Final = ("index", "copy_image", "delete_image", "deindex", "noop")

_LIST: Final[Worklist[Event]] = Worklist("events")


def show_tab(desk: Desk) -> None:
    """Draw the tab."""
    wanted = _filters()
    with desk.reading() as conn:
        seen = _LIST.read(wanted, partial(questions.list_failed_events, conn, wanted))
        frame = queries.failed_events(conn, seen.rows)
    _LIST.show_notice()
    _LIST.show_question()
    if not seen.rows:
        st.info("No failed events pass these filters.")
    else:
        show.table(
            frame,
            {
                "id": show.number("Event", 62, grouped=False),
                "created": show.moment("Created", 128),
                "entity_type": show.words("Type", 64),
                "action": show.words("Action", 95),
                "message": show.words("Message", 215),
                "failures": show.number("Failures", 70),
                "failure": show.words("Latest failure", 270),
                "depends_on": show.words("Waits for", 78),
                "dependants": show.number("Dependants", 92),
            },
            name="Failed events",
            key=_LIST.table_key(),
            selection="multi-row",
            rows=12,
        )
    _LIST.pager(lambda: show.download("failed-events", Event, partial(_all, desk, wanted)))
    selected = _LIST.selected()
    if not desk.config.read_only:
        _action_bar(desk, selected)
    if len(selected) == 1 and (gid := _gid(selected[0])):
        case.show_gid(desk, gid)


def _filters() -> EventFilter:
    columns = st.columns([1, 1, 3])
    with columns[0]:
        entity_type = show.entity_type_filter("events.entity_type")
    with columns[1]:
        action = st.selectbox(
            "Action", ["all", *ACTIONS], key="events.action", persist_state="session"
        )
    with columns[2]:
        reason = st.text_input(
            "Latest failure contains", key="events.reason", persist_state="session"
        )
    return EventFilter(entity_type, None if action == "all" else action, reason.strip() or None)


def _action_bar(desk: Desk, selected: Sequence[Event]) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.button(
            "Requeue",
            key="events.Requeue",
            help="They are queued again with all their attempts, and so is what failed with them.",
            disabled=not selected,
            on_click=_press,
            args=(desk,),
        )
        count = len(selected)
        st.caption(f"{count:,} selected" if count else "Nothing is selected.", width="content")


def _press(desk: Desk) -> None:
    selected = _LIST.selected()
    _LIST.confirm(
        f"Requeue: this touches {len(selected):,} events and what depends on them. Go on?",
        partial(_act, desk, selected),
        len(selected),
    )


def _act(desk: Desk, selected: Sequence[Event]) -> None:
    ids = {event.id for event in selected}
    try:
        requeued = desk.act(lambda conn, by: actions.requeue(conn, ids, by=by))
    except Trouble as trouble:
        _LIST.notify("Nothing was changed.", [str(trouble)])
        _LIST.reload()
        return
    by_id = {event.id: event for event in selected}
    now = datetime.now(UTC)
    done = [event for event in requeued if event.outcome is Requeued.REQUEUED]
    record(
        Done(
            now,
            f"event {event.id} queued again",
            by_id[event.id].entity_type if event.id in by_id else selected[0].entity_type,
            _gid(by_id[event.id]) if event.id in by_id else None,
            event.id,
        )
        for event in done
    )
    along = sum(not event.asked_for for event in done)
    headline = f"{len(done) - along:,} of {len(ids):,} events are queued again"
    headline += f", and {along:,} that depend on them." if along else "."
    left = [
        f"event {event.id} {event.outcome}"
        for event in requeued
        if event.outcome is not Requeued.REQUEUED
    ]
    if left:
        headline += " The others were left as they are, and the list has been read anew:"
    _LIST.notify(headline, left)
    _LIST.reload()


def _gid(event: Event) -> UUID | None:
    """The entity that an event is about; what a message says is not always a gid."""
    named: Any = event.message.get("gid") or event.message.get("new_gid")
    try:
        return UUID(named)
    except (TypeError, ValueError, AttributeError):
        return None


def _all(desk: Desk, wanted: EventFilter) -> list[Event]:
    with desk.reading() as conn:
        return questions.list_failed_events(conn, wanted, Page(show.CSV_ROWS))
