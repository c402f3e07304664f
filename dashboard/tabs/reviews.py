"""What waits for a person: found by filters, looked at one by one, settled alone or in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import streamlit as st
from artwork_backfill.dashboard import queries, show
from artwork_backfill.dashboard.desk import Desk, Trouble
from artwork_backfill.dashboard.tabs import case
from artwork_backfill.dashboard.worklist import Done, Worklist, record
from artwork_backfill.shared.review import actions, questions
from artwork_backfill.shared.review.actions import Settle
from artwork_backfill.shared.review.questions import Page, Review, ReviewFilter, ReviewStatus

PRIORITIES: Final = {
    "all": None,
    "300 asked for, or urgent": 300,
    "200 IMG-129": 200,
    "150 not in MusicBrainz": 150,
    "100 in MusicBrainz": 100,
    "10 recent": 10,
}
AGES: Final = {
    "any": (None, None),
    "newer than a day": (None, timedelta(days=1)),
    "newer than a week": (None, timedelta(days=7)),
    "older than a week": (timedelta(days=7), None),
    "older than a month": (timedelta(days=30), None),
}

_LIST: Final[Worklist[Review]] = Worklist("reviews")
_NOTE: Final = "reviews.note"


@dataclass(frozen=True, slots=True)
class Action:
    """A button: what it does to a review, and in words that it was done."""

    label: str
    settle: Settle
    done: str
    needs_note: bool = True
    help: str = ""


ACTIONS: Final = (
    Action("Add note", actions.annotate, "note added", help="Nothing but the note changes."),
    Action(
        "Resolve",
        actions.resolve,
        "resolved",
        help="It is mended. The entity is audited again, which proves it.",
    ),
    Action(
        "Won't fix",
        actions.leave_unfixed,
        "left unfixed",
        help="The entity counts as clean and is not audited any more.",
    ),
    Action("Reopen", actions.reopen, "reopened", help="The entity waits for a person once more."),
    Action(
        "Audit again",
        actions.audit_again,
        "to be audited again",
        needs_note=False,
        help="Before all others. The review stays open until the audit settles it.",
    ),
)


def show_tab(desk: Desk) -> None:
    """Draw the tab."""
    wanted = _filters()
    with desk.reading() as conn:
        seen = _LIST.read(wanted, partial(questions.list_reviews, conn, wanted))
    _LIST.show_notice()
    _LIST.show_question()
    if not seen.rows:
        st.info("No reviews pass these filters.")
    else:
        _table(seen.rows)
    _LIST.pager(lambda: show.download("reviews", Review, partial(_all, desk, wanted)))
    selected = _LIST.selected()
    if not desk.config.read_only:
        _action_bar(desk, selected)
    if len(selected) == 1:
        case.show_gid(desk, selected[0].gid)
    elif not selected:
        st.caption("Select one review to see all that is known about its entity.")


def _filters() -> ReviewFilter:
    columns = st.columns([2, 1.2, 1.6, 1.6, 2, 2])
    with columns[0]:
        statuses = st.multiselect(
            "Status",
            list(ReviewStatus),
            default=[ReviewStatus.OPEN],
            format_func=lambda status: status.value,
            key="reviews.statuses",
            persist_state="session",
        )
    with columns[1]:
        entity_type = show.entity_type_filter("reviews.entity_type")
    with columns[2]:
        priority = st.selectbox(
            "Priority", list(PRIORITIES), key="reviews.priority", persist_state="session"
        )
    with columns[3]:
        age = st.selectbox("Age", list(AGES), key="reviews.age", persist_state="session")
    with columns[4]:
        reason = st.text_input("Reason contains", key="reviews.reason", persist_state="session")
    with columns[5]:
        text = st.text_input(
            "Gid, reason or notes contain", key="reviews.text", persist_state="session"
        )
    older_than, newer_than = AGES[age]
    return ReviewFilter(
        statuses=tuple(statuses) or tuple(ReviewStatus),
        entity_type=entity_type,
        reason=reason.strip() or None,
        older_than=older_than,
        newer_than=newer_than,
        priority=PRIORITIES[priority],
        text=text.strip() or None,
    )


def _table(rows: Sequence[Review]) -> None:
    show.table(
        queries.reviews(rows),
        {
            "id": show.number("Review", 62, grouped=False),
            "created_at": show.moment("Since", 128),
            "entity_type": show.words("Type", 64),
            "gid": show.words("Gid", 110),
            "reason": show.words("Reason", 340),
            "entity_status": show.words("Entity is", 118),
            "priority": show.number("Priority", 68),
            "status": show.words("Status", 70),
            "notes": show.words("Notes", 130),
        },
        name="Reviews",
        key=_LIST.table_key(),
        selection="multi-row",
        rows=12,
    )


def _action_bar(desk: Desk, selected: Sequence[Review]) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Note, for whoever looks at this later",
            key=_NOTE,
            max_chars=1_000,
            width=420,
        )
        for action in ACTIONS:
            st.button(
                action.label,
                key=f"reviews.{action.label}",
                help=action.help,
                disabled=not selected,
                on_click=_press,
                args=(desk, action),
            )
        count = len(selected)
        st.caption(f"{count:,} selected" if count else "Nothing is selected.", width="content")


def _press(desk: Desk, action: Action) -> None:
    """A button was pressed, with the rows and the note as the person sees them."""
    selected = _LIST.selected()
    note = " ".join(st.session_state.get(_NOTE, "").split())
    if action.needs_note and not note:
        _LIST.notify(f"{action.label}: say why in the note first. Nothing was changed.")
        return
    _LIST.confirm(
        f"{action.label}: this touches {len(selected):,} reviews. Go on?",
        partial(_act, desk, action, selected, note),
        len(selected),
    )


def _act(desk: Desk, action: Action, selected: Sequence[Review], note: str) -> None:
    try:
        settled = desk.act(
            lambda conn, by: actions.settle_all(conn, action.settle, selected, by=by, note=note)
        )
    except Trouble as trouble:
        _LIST.notify("Nothing was changed.", [str(trouble)])
        _LIST.reload()
        return
    done = [entry.review for entry in settled if entry.refusal is None]
    refusals = [entry.refusal for entry in settled if entry.refusal is not None]
    now = datetime.now(UTC)
    record(
        Done(now, f"review {review.id} {action.done}", review.entity_type, review.gid)
        for review in done
    )
    headline = f"{len(done):,} of {len(settled):,} reviews: {action.done}."
    if refusals:
        headline += " The others were left as they are, and the list has been read anew:"
    _LIST.notify(headline, refusals)
    _LIST.reload()
    if done:
        st.session_state[_NOTE] = ""


def _all(desk: Desk, wanted: ReviewFilter) -> list[Review]:
    with desk.reading() as conn:
        return questions.list_reviews(conn, wanted, Page(show.CSV_ROWS))
