"""The events that artwork-indexer has given up, by kind and as a list, and their requeueing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

import pandas as pd
import streamlit as st
from psycopg import Connection

from artwork_backfill.dashboard import bulk, downloads, outside, queries, show, words
from artwork_backfill.dashboard.address import Field
from artwork_backfill.dashboard.bulk import Batch, Bulk
from artwork_backfill.dashboard.database import DashboardDb, Trouble
from artwork_backfill.dashboard.memory import Done, Memory
from artwork_backfill.dashboard.tabs import case
from artwork_backfill.dashboard.worklist import ASK_BEYOND, Worklist
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.review import actions, questions, triage
from artwork_backfill.shared.review.actions import Requeued, RequeuedEvent
from artwork_backfill.shared.review.questions import Event, EventFilter

ACTIONS: Final = ("index", "copy_image", "delete_image", "deindex", "noop")

_LIST: Final[Worklist[Event]] = Worklist("events", lambda event: event.id)

#: Messages for refusals whose command-line message names a command.
_OUTCOMES: Final = {
    Requeued.NOT_OURS: "was queued by others, not by an audit",
    Requeued.OUTDATED: (
        "is out of date, because MusicBrainz has merged, deleted or restored the entity: audit it"
        " again"
    ),
    Requeued.UNSAFE: "would delete an image that may not be deleted now: audit its entity again",
}

FIELDS: Final = (
    Field("type", "events.entity_type", "", tuple(EntityType)),
    Field("action", "events.action", "", ACTIONS),
    Field("failure", "events.reason"),
    *_LIST.fields(),
)


def show_tab(database: DashboardDb, kept: Memory) -> None:
    """Draw the tab."""
    wanted = _filters()
    with database.reading() as conn:
        seen = _LIST.read(
            wanted,
            partial(questions.list_failed_events, conn, wanted),
            partial(triage.count_failed_events, conn, wanted),
            partial(triage.group_failed_events, conn, wanted),
        )
        frame = queries.failed_events(conn, seen.rows, seen.at)
    opened = _LIST.opened()
    with st.container():
        show.groups("events", seen.groups, seen.at, _narrow, narrowed=wanted.reason is not None)
    with st.container():
        if not seen.rows:
            st.info("No failed events pass these filters.")
        else:
            _table(frame, 5 if opened else 10)
    rows = partial(_rows, wanted)
    _LIST.pager(lambda: downloads.offer("failed-events", Event, rows, database, key=wanted))
    with st.container():
        if opened is not None:
            _case(database, kept, opened)
    if not database.config.read_only:
        with show.action_bar("events"):
            with st.container():
                is_busy = bulk.show_bulk(kept, "events", _LIST.reload)
                if not is_busy:
                    _LIST.show_notice()
            if not is_busy:
                _action_bar(database, kept, wanted)
        _LIST.show_question()


def _table(frame: pd.DataFrame, shown: int) -> None:
    show.table(
        frame,
        {
            "age": show.words("Age", 62),
            "failure": show.words("Latest failure", 400),
            "action": show.words("Action", 96),
            "entity_type": show.words("Type", 62),
            "message": show.words("Message", 216),
            "failures": show.number("Failures", 64),
            "depends_on": show.words("Waits for", 64),
            "dependants": show.number("Wait for it", 64),
            "id": show.number("Event", 62, grouped=False),
        },
        name="Failed events",
        key=_LIST.table_key(),
        selection="multi-row",
        rows=shown,
    )


def filter_words(wanted: EventFilter) -> str:
    """Describe in words the events that a filter selects."""
    parts = [
        "failed events",
        f"of {wanted.entity_type}s" if wanted.entity_type else "",
        f"that {words.ACTIONS.get(wanted.action, wanted.action)}" if wanted.action else "",
        f"whose latest failure contains “{wanted.reason}”" if wanted.reason else "",
    ]
    return ", ".join(part for part in parts if part)


def _filters() -> EventFilter:
    with st.container(horizontal=True, key="events-filters"):
        entity_type = show.entity_type_filter("events.entity_type")
        action = st.selectbox(
            "Action",
            ["", *ACTIONS],
            format_func=lambda action: action or "all",
            key="events.action",
            persist_state="session",
            width=160,
        )
        reason = st.text_input(
            "Latest failure contains", key="events.reason", persist_state="session", width=320
        )
    return EventFilter(entity_type, action or None, reason.strip() or None)


def _narrow(group: triage.Group | None) -> None:
    """Show the events of one kind only, or all again."""
    st.session_state["events.action"] = "" if group is None else group.action
    st.session_state["events.reason"] = "" if group is None else group.text


def _case(database: DashboardDb, kept: Memory, event_id: int) -> None:
    with database.reading() as conn:
        event = questions.find_event(conn, event_id)
    st.divider()
    _LIST.stepper()
    if event is None:
        show.text(f"Event {event_id} does not exist any more.")
        return
    if event.failure:
        st.markdown("**Latest failure**")
        show.text(event.failure)
    gid = _gid(event)
    if gid is None:
        show.text("Its message names no entity.")
    else:
        case.show_entity(database, kept, event.entity_type, gid)


def _action_bar(database: DashboardDb, kept: Memory, wanted: EventFilter) -> None:
    seen = _LIST.seen()
    total = seen.extent.count if seen else 0
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Requeue",
            key="events.Requeue",
            help="Queues them again with all their attempts, and what failed because of them.",
            shortcut="alt+q",
            on_click=_press,
            args=(database, kept, wanted),
        )
        if _LIST.all_chosen:
            st.markdown(f"**All {total:,} that match are selected.**", width="content")
            st.button("Select none", key="events.none", on_click=_LIST.choose_all, args=(False,))
            return
        count = len(_LIST.selected())
        st.caption(f"{count:,} selected" if count else "Nothing is selected.", width="content")
        if total > 1:
            st.button(
                f"Select all {total:,} that match",
                key="events.choose",
                type="tertiary",
                on_click=_LIST.choose_all,
                args=(True,),
            )


def _press(database: DashboardDb, kept: Memory, wanted: EventFilter) -> None:
    seen, selected = _LIST.seen(), _LIST.selected()
    if _LIST.all_chosen and seen is not None:
        count = seen.extent.count
        to = f"All {count:,} {filter_words(wanted)}, and what failed because of them."
        _ask(count, to, partial(_start, database, kept, wanted))
    elif not selected:
        _LIST.notify("Requeue: select events first.", ok=False)
    elif len(selected) > ASK_BEYOND:
        to = f"The {len(selected):,} selected, and what failed because of them."
        _ask(len(selected), to, partial(_act, database, kept, selected))
    else:
        _act(database, kept, selected, any_event=False)


def _ask(count: int, to: str, act: Callable[..., None]) -> None:
    """Ask before many events are requeued; offer to leave out those that no audit has queued."""
    _LIST.ask(
        f"Requeue {count:,} events?",
        (to,),
        {
            f"Requeue all {count:,}": partial(act, any_event=True),
            "Only those that audits have queued": partial(act, any_event=False),
        },
    )


def _act(
    database: DashboardDb, kept: Memory, selected: Sequence[Event], *, any_event: bool
) -> None:
    ids = {event.id for event in selected}
    try:
        requeued = database.act(partial(_requeue, ids, any_event))
    except Trouble as trouble:
        _LIST.notify("Nothing was changed.", [str(trouble)], ok=False)
        _LIST.reload()
        return
    by_id = {event.id: event for event in selected}
    now = datetime.now(UTC)
    done = [event for event in requeued if event.outcome is Requeued.REQUEUED]
    kept.record(
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
    left = _left(requeued)
    if left:
        headline += " The others were not changed, and the list was reloaded:"
    others = {event.id for event in requeued if event.outcome is Requeued.NOT_OURS}
    again = [event for event in selected if event.id in others]
    _LIST.notify(
        headline,
        left,
        ok=bool(done),
        more=(
            f"Requeue the {len(again):,} of others, too" if len(again) > 1 else "Requeue it anyway",
            partial(_act, database, kept, again, any_event=True),
        )
        if again
        else None,
    )
    _LIST.reload()


def _start(database: DashboardDb, kept: Memory, wanted: EventFilter, *, any_event: bool) -> None:
    """Begin to requeue all events that a filter lets through."""
    seen = _LIST.seen()
    if seen is None:
        return
    up_to = seen.extent.last_id

    def step(after: int) -> Batch:
        with database.reading() as conn:
            batch = questions.failed_events_after(
                conn, wanted, after=after, up_to=up_to, limit=bulk.BATCH
            )
        if not batch:
            return Batch(None)
        ids = {event.id for event in batch}
        requeued = database.act(partial(_requeue, ids, any_event))
        done = [event.id for event in requeued if event.outcome is Requeued.REQUEUED]
        return Batch(batch[-1].id, [id_ for id_ in done if id_ in ids], _left(requeued))

    kept.bulk = Bulk("events", "Requeue", (filter_words(wanted),), seen.extent.count, step)
    kept.record([Done(datetime.now(UTC), f"Requeue: all {seen.extent.count:,} that matched")])
    _LIST.choose_all(False)


def _requeue(ids: set[int], any_event: bool, conn: Connection, by: str) -> list[RequeuedEvent]:
    return actions.requeue(conn, ids, by=by, listings=outside.listings(), any_event=any_event)


def _left(requeued: Sequence[RequeuedEvent]) -> list[str]:
    return [
        f"event {event.id} {_OUTCOMES.get(event.outcome, event.outcome)}"
        + (f": {event.detail}" if event.detail else "")
        for event in requeued
        if event.outcome is not Requeued.REQUEUED
    ]


def _gid(event: Event) -> UUID | None:
    """The entity that an event is about; what a message says is not always a gid."""
    named: Any = event.message.get("gid") or event.message.get("new_gid")
    try:
        return UUID(named)
    except (TypeError, ValueError, AttributeError):
        return None


def _rows(wanted: EventFilter, conn: Connection) -> Iterator[Event]:
    return questions.walk_failed_events(conn, wanted)
