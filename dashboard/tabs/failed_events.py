"""The events that artwork-indexer has given up, by kind and as a list, and their requeueing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Final
from uuid import UUID

import streamlit as st
from psycopg import Connection

from artwork_backfill.dashboard import outside, queries, show, words
from artwork_backfill.dashboard.action_bar import Action, ActionBar, Applied
from artwork_backfill.dashboard.address import Field
from artwork_backfill.dashboard.memory import Done, Visit
from artwork_backfill.dashboard.tabs import case
from artwork_backfill.dashboard.worklist import Worklist
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.review.lists import Group
from artwork_backfill.shared.review.questions import FAILED_EVENTS, Event, EventFilter
from artwork_backfill.shared.review.requeueing import Requeued, requeue

ACTIONS: Final = ("index", "copy_image", "delete_image", "deindex", "noop")

#: The parts of a failure that the list omits, so that the status after them is visible.
_ADDRESS: Final = re.compile(r"https?://[^\s'\"]+")

#: Messages for refusals whose command-line message names a command.
_OUTCOMES: Final = {
    Requeued.NOT_OURS: "was queued by others, not by an audit",
    Requeued.OUTDATED: (
        "is out of date, because MusicBrainz has merged, deleted or restored the entity: audit it"
        " again"
    ),
    Requeued.UNSAFE: "would delete an image that may not be deleted now: audit its entity again",
}


class _FailedEvents(Worklist[EventFilter, Event]):
    name = "events"
    noun = "failed event"
    columns: ClassVar[Mapping[str, Any]] = {
        "age": show.words("Age", 62),
        "failure": show.words("Latest failure", 400),
        "action": show.words("Action", 96),
        "entity_type": show.words("Type", 62),
        "message": show.words("Message", 216),
        "failures": show.number("Failures", 64),
        "depends_on": show.words("Waits for", 64),
        "dependants": show.number("Wait for it", 64),
        "id": show.number("Event", 62, grouped=False),
    }

    def cells(
        self, conn: Connection, rows: Sequence[Event], now: datetime
    ) -> Iterator[Sequence[object]]:
        dependants = queries.dependants(conn, [event.id for event in rows])
        for event in rows:
            yield (
                words.age(event.created, now),
                words.shortened(_ADDRESS.sub("…", event.failure or "no reason kept")),
                event.action,
                event.entity_type,
                words.shortened(words.message(event.message)),
                event.failures,
                ", ".join(map(str, event.depends_on or ())),
                dependants.get(event.id, 0),
                event.id,
            )

    def describe(self, wanted: EventFilter) -> str:
        action = wanted.action and words.ACTIONS.get(wanted.action, wanted.action)
        parts = [
            "failed events",
            f"of {wanted.entity_type}s" if wanted.entity_type else "",
            f"that {action}" if action else "",
            f"whose latest failure contains “{wanted.reason}”" if wanted.reason else "",
        ]
        return ", ".join(filter(None, parts))

    def kind_of(self, wanted: EventFilter) -> str | None:
        return wanted.reason

    def narrow(self, group: Group | None) -> None:
        st.session_state["events.action"] = "" if group is None else group.action
        st.session_state["events.reason"] = "" if group is None else group.text

    def show_row(self, visit: Visit, row: Event) -> None:
        if row.failure:
            st.markdown("**Latest failure**")
            show.text(row.failure)
        gid = _gid(row)
        if gid is None:
            show.text("Its message names no entity.")
        else:
            case.show_entity(visit, row.entity_type, gid)


_LIST: Final = _FailedEvents(FAILED_EVENTS)

FIELDS: Final = (
    Field("type", "events.entity_type", "", tuple(EntityType)),
    Field("action", "events.action", "", ACTIONS),
    Field("failure", "events.reason"),
    *_LIST.fields(),
)


def show_tab(visit: Visit) -> None:
    """Draw the tab."""
    wanted = _filters()
    _LIST.show(visit, wanted)
    ActionBar(_LIST, [_REQUEUE], visit, wanted).show()


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


def _requeue(
    any_event: bool, conn: Connection, by: str, rows: Sequence[Event], note: str
) -> Applied[Event]:
    """Requeue events; with `any_event` also those that no audit has queued."""
    del note
    by_id = {event.id: event for event in rows}
    requeued = requeue(conn, by_id, by=by, listings=outside.listings(), any_event=any_event)
    done = [event for event in requeued if event.outcome is Requeued.REQUEUED]
    asked_for = [event.id for event in done if event.asked_for]
    headline = f"{len(asked_for):,} of {len(rows):,} events are queued again"
    if along := len(done) - len(asked_for):
        headline += f", and {along:,} that depend on them"
    now = datetime.now(UTC)
    refused = {event.id for event in requeued if event.outcome is Requeued.NOT_OURS}
    others = [event for event in rows if event.id in refused]
    many = f"Requeue the {len(others):,} of others, too"
    return Applied(
        asked_for,
        f"{headline}.",
        [
            f"event {event.id} {_OUTCOMES.get(event.outcome, event.outcome)}"
            + (f": {event.detail}" if event.detail else "")
            for event in requeued
            if event.outcome is not Requeued.REQUEUED
        ],
        [
            Done(
                now,
                f"event {event.id} queued again",
                by_id.get(event.id, rows[0]).entity_type,
                _gid(by_id[event.id]) if event.id in by_id else None,
                event.id,
            )
            for event in done
        ],
        (many if len(others) > 1 else "Requeue it anyway", _REQUEUE_ANY, others)
        if others
        else None,
    )


def _gid(event: Event) -> UUID | None:
    """The entity that an event is about; what a message says is not always a gid."""
    named: Any = event.message.get("gid") or event.message.get("new_gid")
    try:
        return UUID(named)
    except (TypeError, ValueError, AttributeError):
        return None


_REQUEUE_OURS: Final = Action(
    "Requeue",
    partial(_requeue, False),
    "alt+q",
    "Queues them again with all their attempts, and what failed because of them.",
    also=", and what failed because of them",
)
_REQUEUE_ANY: Final = replace(_REQUEUE_OURS, apply=partial(_requeue, True))
_REQUEUE: Final = replace(
    _REQUEUE_OURS,
    answers={
        "Requeue all {count}": _REQUEUE_ANY,
        "Only those that audits have queued": _REQUEUE_OURS,
    },
)
