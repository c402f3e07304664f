"""Reviews: by kind, as a list, and one by one; a person closes one or many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Final

import streamlit as st
from psycopg import Connection

from artwork_backfill.dashboard import show, words
from artwork_backfill.dashboard.action_bar import Action, ActionBar, Applied
from artwork_backfill.dashboard.address import Field
from artwork_backfill.dashboard.database import without_commands
from artwork_backfill.dashboard.memory import Done, Visit
from artwork_backfill.dashboard.tabs import case
from artwork_backfill.dashboard.worklist import Worklist
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.review import actions
from artwork_backfill.shared.review.actions import ReviewAction, ReviewOutcome
from artwork_backfill.shared.review.lists import Group
from artwork_backfill.shared.review.questions import REVIEWS, Review, ReviewFilter, ReviewStatus

PRIORITIES: Final = {
    "": "all",
    "300": "300 asked for, or urgent",
    "200": "200 IMG-129",
    "150": "150 not in MusicBrainz",
    "100": "100 in MusicBrainz",
    "10": "10 recent",
}
AGES: Final = {
    "": ("any", None, None),
    "day": ("newer than a day", None, timedelta(days=1)),
    "week": ("newer than a week", None, timedelta(days=7)),
    "older-week": ("older than a week", timedelta(days=7), None),
    "older-month": ("older than a month", timedelta(days=30), None),
}

#: The key of the kind by which the list is filtered; other tabs set it, too.
KIND: Final = "reviews.kind"


class _Reviews(Worklist[ReviewFilter, Review]):
    name = "reviews"
    noun = "review"
    columns: ClassVar[Mapping[str, Any]] = {
        "age": show.words("Age", "small"),
        "reason": show.words("Reason", 520),
        "entity_type": show.words("Type", "small"),
        "gid": show.words("Gid", "small"),
        "entity_status": show.words("Entity is"),
        "priority": show.number("Priority", "small"),
        "status": show.words("Review is", "small"),
        "notes": show.words("Notes"),
        "id": show.number("Review", "small", grouped=False),
    }

    def cells(
        self, conn: Connection, rows: Sequence[Review], now: datetime
    ) -> Iterator[Sequence[object]]:
        """Yield the cells; reasons do not repeat the gid, and only the latest note is shown.

        Long texts are truncated; the case page shows them in full.
        """
        for review in rows:
            yield (
                words.age(review.created_at, now),
                words.shortened(review.reason.replace(str(review.gid), "…")),
                review.entity_type,
                review.gid,
                words.status(review.entity_status),
                review.priority,
                words.REVIEWS[review.status],
                words.shortened((review.notes or "").rpartition("\n")[2]),
                review.id,
            )

    def describe(self, wanted: ReviewFilter) -> str:
        parts = [
            " or ".join(words.REVIEWS[status] for status in wanted.statuses) + " reviews",
            f"of {wanted.entity_type}s" if wanted.entity_type else "",
            f"with priority {wanted.priority}" if wanted.priority is not None else "",
            f"older than {wanted.older_than.days} days" if wanted.older_than else "",
            f"newer than {wanted.newer_than.days} days" if wanted.newer_than else "",
            f"because of “{words.kind(wanted.kind)}”" if wanted.kind else "",
            f"whose reason contains “{wanted.reason}”" if wanted.reason else "",
            f"with “{wanted.text}” in gid, reason or notes" if wanted.text else "",
        ]
        return ", ".join(filter(None, parts))

    def kind_of(self, wanted: ReviewFilter) -> str | None:
        return wanted.kind

    def narrow(self, group: Group | None) -> None:
        st.session_state[KIND] = "" if group is None else group.kind

    def show_row(self, visit: Visit, row: Review) -> None:
        case.show_entity(visit, row.entity_type, row.gid, row)


_LIST: Final = _Reviews(REVIEWS)

FIELDS: Final = (
    Field("status", "reviews.statuses", ("open",), tuple(ReviewStatus)),
    Field("type", "reviews.entity_type", "", tuple(EntityType)),
    Field("priority", "reviews.priority", "", PRIORITIES),
    Field("age", "reviews.age", "", AGES),
    Field("kind", KIND),
    Field("reason", "reviews.reason"),
    Field("text", "reviews.text"),
    *_LIST.fields(),
)


def show_tab(visit: Visit) -> None:
    """Draw the tab."""
    wanted = _filters()
    _LIST.show(visit, wanted)
    note = "Note for people who look at this later"
    ActionBar(_LIST, ACTIONS, visit, wanted, note).show()


def _filters() -> ReviewFilter:
    with st.container(horizontal=True, key="reviews-filters"):
        statuses = st.multiselect(
            "Status",
            [status.value for status in ReviewStatus],
            format_func=lambda status: words.REVIEWS[status],
            key="reviews.statuses",
            persist_state="session",
            width=170,
        )
        entity_type = show.entity_type_filter("reviews.entity_type")
        priority = st.selectbox(
            "Priority",
            list(PRIORITIES),
            format_func=PRIORITIES.__getitem__,
            key="reviews.priority",
            persist_state="session",
            width=160,
        )
        age = st.selectbox(
            "Age",
            list(AGES),
            format_func=lambda age: AGES[age][0],
            key="reviews.age",
            persist_state="session",
            width=150,
        )
        reason = st.text_input(
            "Reason contains", key="reviews.reason", persist_state="session", width=200
        )
        text = st.text_input(
            "Gid, reason or notes contain", key="reviews.text", persist_state="session", width=220
        )
    _, older_than, newer_than = AGES[age]
    return ReviewFilter(
        statuses=tuple(map(ReviewStatus, statuses)) or tuple(ReviewStatus),
        entity_type=entity_type,
        reason=reason.strip() or None,
        older_than=older_than,
        newer_than=newer_than,
        priority=int(priority) if priority else None,
        text=text.strip() or None,
        kind=st.session_state.get(KIND) or None,
    )


# -- actions -------------------------------------------------------------------------------------


def _apply(
    action: ReviewAction, done: str, conn: Connection, by: str, rows: Sequence[Review], note: str
) -> Applied[Review]:
    """Apply an action to reviews; `done` is what they are then."""
    outcomes = actions.apply_to_all(conn, action, rows, by=by, note=note)
    return _applied(outcomes, done)


def _applied(outcomes: Sequence[ReviewOutcome], done: str) -> Applied[Review]:
    changed = [entry.review for entry in outcomes if entry.refusal is None]
    now = datetime.now(UTC)
    return Applied(
        [review.id for review in changed],
        f"{len(changed):,} of {len(outcomes):,} reviews: {done}.",
        [without_commands(entry.refusal) for entry in outcomes if entry.refusal is not None],
        [
            Done(now, f"review {review.id} {done}", review.entity_type, review.gid)
            for review in changed
        ],
    )


def _put_back(
    label: str,
    action: ReviewAction,
    conn: Connection,
    by: str,
    rows: Sequence[Review],
    note: str,
) -> Applied[Review]:
    """Reopen the reviews that the person has closed, unless they have changed since."""
    del note
    last_note = f"UTC, {by}: {action.status}:"
    same = [
        review
        for review in rows
        if review.status is action.status and last_note in (review.notes or "").rpartition("\n")[2]
    ]
    others = [
        ReviewOutcome(review, f"review {review.id} has changed since")
        for review in rows
        if review not in same
    ]
    undone = actions.apply_to_all(conn, actions.reopen, same, by=by, note=f"undone: {label}")
    return _applied([*undone, *others], "reopened")


def _action(
    label: str, apply: ReviewAction, done: str, shortcut: str, help_text: str
) -> Action[Review]:
    """Return a button for an action; one that closes reviews can be undone."""
    closes = apply.status not in (None, ReviewStatus.OPEN)
    return Action(
        label,
        partial(_apply, apply, done),
        shortcut,
        help_text,
        needs_note=apply is not actions.audit_again,
        undo=Action(f"Undo: {label}", partial(_put_back, label, apply)) if closes else None,
    )


ACTIONS: Final = (
    _action(
        "Resolve",
        actions.resolve,
        "resolved",
        "alt+e",
        "It is fixed. The entity is audited again, which proves it.",
    ),
    _action(
        "Won't fix",
        actions.leave_unfixed,
        "left unfixed",
        "alt+w",
        "The entity counts as clean. It is audited again if MusicBrainz merges or deletes it.",
    ),
    _action(
        "Audit again",
        actions.audit_again,
        "to be audited again",
        "alt+a",
        "Audits the entity first. The review stays open until then.",
    ),
    _action("Add note", actions.annotate, "note added", "alt+n", "Changes only the note."),
    _action("Reopen", actions.reopen, "reopened", "alt+o", "The entity waits for a person again."),
)
