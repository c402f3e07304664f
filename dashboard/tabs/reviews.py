"""Reviews: by kind, as a list, and one by one; a person closes one or many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import streamlit as st
from psycopg import Connection

from artwork_backfill.dashboard import bulk, downloads, queries, show, words
from artwork_backfill.dashboard.address import Field
from artwork_backfill.dashboard.bulk import Batch, Bulk
from artwork_backfill.dashboard.database import DashboardDb, Trouble, without_commands
from artwork_backfill.dashboard.memory import Done, Memory
from artwork_backfill.dashboard.tabs import case
from artwork_backfill.dashboard.worklist import ASK_BEYOND, Worklist
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.review import actions, questions, triage
from artwork_backfill.shared.review.actions import ReviewAction, ReviewOutcome
from artwork_backfill.shared.review.questions import Review, ReviewFilter, ReviewStatus

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

_LIST: Final[Worklist[Review]] = Worklist("reviews", lambda review: review.id)
_NOTE: Final = "reviews.note"
_YES: Final = "Yes, do it"

#: The key of the kind by which the list is filtered; other tabs set it, too.
KIND: Final = "reviews.kind"

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


@dataclass(frozen=True, slots=True)
class Action:
    """A button: the action on a review, and the words that report it."""

    label: str
    apply: ReviewAction
    done: str
    shortcut: str
    needs_note: bool = True
    help: str = ""
    becomes: ReviewStatus | None = None


RESOLVE: Final = Action(
    "Resolve",
    actions.resolve,
    "resolved",
    "alt+e",
    help="It is fixed. The entity is audited again, which proves it.",
    becomes=ReviewStatus.RESOLVED,
)
REOPEN: Final = Action(
    "Reopen",
    actions.reopen,
    "reopened",
    "alt+o",
    help="The entity waits for a person again.",
    becomes=ReviewStatus.OPEN,
)
ACTIONS: Final = (
    RESOLVE,
    Action(
        "Won't fix",
        actions.leave_unfixed,
        "left unfixed",
        "alt+w",
        help="The entity counts as clean. It is audited again if MusicBrainz merges or deletes it.",
        becomes=ReviewStatus.WONT_FIX,
    ),
    Action(
        "Audit again",
        actions.audit_again,
        "to be audited again",
        "alt+a",
        needs_note=False,
        help="Audits the entity first. The review stays open until then.",
    ),
    Action("Add note", actions.annotate, "note added", "alt+n", help="Changes only the note."),
    REOPEN,
)


def show_tab(database: DashboardDb, kept: Memory) -> None:
    """Draw the tab."""
    wanted = _filters()
    with database.reading() as conn:
        seen = _LIST.read(
            wanted,
            partial(questions.list_reviews, conn, wanted),
            partial(triage.count_reviews, conn, wanted),
            partial(triage.group_reviews, conn, wanted),
        )
    opened = _LIST.opened()
    # Each part has a container, even if it is empty: the parts after it keep their place in the
    # browser, and with it the focus.
    with st.container():
        show.groups(
            "reviews",
            seen.groups,
            seen.at,
            _narrow,
            narrowed=wanted.kind is not None,
            chosen=wanted.kind,
        )
    with st.container():
        if not seen.rows:
            st.info("No reviews pass these filters.")
        else:
            _table(seen.rows, seen.at, 5 if opened else 10)
    rows = partial(_rows, wanted)
    _LIST.pager(lambda: downloads.offer("reviews", Review, rows, database, key=wanted))
    with st.container():
        if opened is not None:
            _case(database, kept, opened)
        elif not _LIST.selected() and seen.rows:
            st.caption("Select one review to see everything about its entity.")
    if not database.config.read_only:
        with show.action_bar("reviews"):
            with st.container():
                is_busy = bulk.show_bulk(kept, "reviews", _LIST.reload)
                if not is_busy:
                    _LIST.show_notice()
            if not is_busy:
                _action_bar(database, kept, wanted, opened)
        _LIST.show_question()


def filter_words(wanted: ReviewFilter) -> str:
    """Describe in words the reviews that a filter selects."""
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
    return ", ".join(part for part in parts if part)


# -- which ---------------------------------------------------------------------------------------


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


def _narrow(group: triage.Group | None) -> None:
    """Show the reviews of one kind only, or all again."""
    st.session_state[KIND] = "" if group is None else group.kind


def _table(rows: Sequence[Review], at: datetime, shown: int) -> None:
    show.table(
        queries.reviews(rows, at),
        {
            "age": show.words("Age", "small"),
            "reason": show.words("Reason", 520),
            "entity_type": show.words("Type", "small"),
            "gid": show.words("Gid", "small"),
            "entity_status": show.words("Entity is"),
            "priority": show.number("Priority", "small"),
            "status": show.words("Review is", "small"),
            "notes": show.words("Notes"),
            "id": show.number("Review", "small", grouped=False),
        },
        name="Reviews",
        key=_LIST.table_key(),
        selection="multi-row",
        rows=shown,
    )


def _case(database: DashboardDb, kept: Memory, review_id: int) -> None:
    with database.reading() as conn:
        review = questions.find_review(conn, review_id)
    st.divider()
    _LIST.stepper()
    if review is None:
        show.text(f"Review {review_id} does not exist any more.")
        return
    case.show_entity(database, kept, review.entity_type, review.gid, review)


# -- doing ---------------------------------------------------------------------------------------


def _action_bar(
    database: DashboardDb, kept: Memory, wanted: ReviewFilter, opened: int | None
) -> None:
    seen = _LIST.seen()
    total = seen.extent.count if seen else 0
    selected = _LIST.selected()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        show.draft("Note for people who look at this later", kept, _NOTE, max_chars=1_000)
        for action in ACTIONS:
            st.button(
                action.label,
                key=f"reviews.{action.label}",
                help=action.help,
                shortcut=action.shortcut,
                on_click=_press,
                args=(database, kept, action, wanted, opened),
            )
    with st.container(horizontal=True, vertical_alignment="center"):
        if _LIST.all_chosen:
            st.markdown(f"**All {total:,} that match are selected.**", width="content")
            st.button("Select none", key="reviews.none", on_click=_LIST.choose_all, args=(False,))
            return
        if selected:
            st.caption(f"{len(selected):,} selected", width="content")
        elif opened is not None:
            st.caption(f"Acts on review {opened}, which is open.", width="content")
        else:
            st.caption("Nothing is selected.", width="content")
        if total > 1:
            st.button(
                f"Select all {total:,} that match",
                key="reviews.choose",
                type="tertiary",
                on_click=_LIST.choose_all,
                args=(True,),
            )


def _press(
    database: DashboardDb, kept: Memory, action: Action, wanted: ReviewFilter, opened: int | None
) -> None:
    """Handle a pressed button with the rows and the note that the person sees."""
    seen = _LIST.seen()
    note = " ".join(st.session_state.get(_NOTE, "").split())
    selected = _LIST.selected()
    if action.needs_note and not note:
        _LIST.notify(f"{action.label}: write the reason in the note first.", ok=False)
        return
    if _LIST.all_chosen and seen is not None:
        to = (f"All {seen.extent.count:,} {filter_words(wanted)}.", f"Note: {note}" if note else "")
        _LIST.ask(
            f"{action.label}: {seen.extent.count:,} reviews?",
            filter(None, to),
            {_YES: partial(_start, database, kept, action, wanted, note)},
        )
        return
    if not selected and opened is not None:
        selected = _opened(database, opened)
    if not selected:
        _LIST.notify(f"{action.label}: select reviews first.", ok=False)
        return
    act = partial(_act, database, kept, action, selected, note)
    if len(selected) > ASK_BEYOND:
        to = (f"The {len(selected):,} selected of the {filter_words(wanted)}.", f"Note: {note}")
        _LIST.ask(f"{action.label}: {len(selected):,} reviews?", to, {_YES: act})
    else:
        act()


def _opened(database: DashboardDb, review_id: int) -> list[Review]:
    """Return the open review as the case page shows it."""
    shown = case.shown_review()
    return [shown] if shown is not None and shown.id == review_id else []


def _act(
    database: DashboardDb, kept: Memory, action: Action, selected: Sequence[Review], note: str
) -> None:
    try:
        outcomes = database.act(
            lambda conn, by: actions.apply_to_all(conn, action.apply, selected, by=by, note=note)
        )
    except Trouble as trouble:
        _LIST.notify("Nothing was changed.", [str(trouble)], ok=False)
        _LIST.reload()
        return
    done = [entry.review for entry in outcomes if entry.refusal is None]
    refusals = [without_commands(entry.refusal) for entry in outcomes if entry.refusal is not None]
    now = datetime.now(UTC)
    kept.record(
        Done(now, f"review {review.id} {action.done}", review.entity_type, review.gid)
        for review in done
    )
    headline = f"{len(done):,} of {len(outcomes):,} reviews: {action.done}."
    if refusals:
        headline += " The others were not changed, and the list was reloaded:"
    undo = _undo(database, action) if done else None
    _LIST.notify(
        headline,
        refusals,
        ok=bool(done),
        undo=None
        if undo is None
        else partial(_take_back, database, kept, action, [review.id for review in done]),
    )
    _LIST.reload()
    if done:
        show.write(kept, _NOTE, "")


def _start(
    database: DashboardDb, kept: Memory, action: Action, wanted: ReviewFilter, note: str
) -> None:
    """Start an action on all reviews that match a filter."""
    seen = _LIST.seen()
    if seen is None:
        return
    up_to = seen.extent.last_id

    def step(after: int) -> Batch:
        with database.reading() as conn:
            batch = questions.reviews_after(
                conn, wanted, after=after, up_to=up_to, limit=bulk.BATCH
            )
        return _apply_to_batch(database, action, batch, note)

    kept.bulk = Bulk(
        "reviews",
        action.label,
        (filter_words(wanted), *([f"Note: {note}"] if note else ())),
        seen.extent.count,
        step,
        _undo(database, action),
    )
    kept.record(
        [Done(datetime.now(UTC), f"{action.label}: all {seen.extent.count:,} that matched")]
    )
    _LIST.choose_all(False)
    show.write(kept, _NOTE, "")


def _apply_to_batch(
    database: DashboardDb, action: Action, batch: Sequence[Review], note: str
) -> Batch:
    if not batch:
        return Batch(None)
    outcomes: list[ReviewOutcome] = database.act(
        lambda conn, by: actions.apply_to_all(conn, action.apply, batch, by=by, note=note)
    )
    return Batch(
        batch[-1].id,
        [entry.review.id for entry in outcomes if entry.refusal is None],
        [without_commands(entry.refusal) for entry in outcomes if entry.refusal is not None],
    )


def _undo(database: DashboardDb, action: Action) -> Callable[[Sequence[int]], Bulk] | None:
    """Return the function that undoes an action, `None` unless the action closes reviews."""
    if action.becomes not in (ReviewStatus.RESOLVED, ReviewStatus.WONT_FIX):
        return None

    def undo(ids: Sequence[int]) -> Bulk:
        left = sorted(ids)

        def step(after: int) -> Batch:
            batch = [id_ for id_ in left if id_ > after][: bulk.BATCH]
            if not batch:
                return Batch(None)
            reviews, refusals = _still(database, batch, action)
            if not reviews:
                return Batch(batch[-1], (), refusals)
            undone = _apply_to_batch(database, REOPEN, reviews, f"undone: {action.label}")
            return Batch(batch[-1], undone.done, [*refusals, *undone.refusals])

        return Bulk("reviews", f"Undo: {action.label}", (), len(left), step)

    return undo


def _still(
    database: DashboardDb, ids: Sequence[int], action: Action
) -> tuple[list[Review], list[str]]:
    """Return the reviews that the action alone has changed, and messages about the others."""
    with database.reading() as conn:
        found = {id_: questions.find_review(conn, id_) for id_ in ids}
    by = database.who()
    same = [
        review
        for review in found.values()
        if review is not None
        and review.status is action.becomes
        and f"UTC, {by}: {action.becomes}:" in (review.notes or "").splitlines()[-1]
    ]
    kept = {review.id for review in same}
    return same, [f"review {id_} has changed since" for id_ in ids if id_ not in kept]


def _take_back(database: DashboardDb, kept: Memory, action: Action, ids: Sequence[int]) -> None:
    """Undo an action on a few rows."""
    undo = _undo(database, action)
    if undo is None:
        return
    taken = undo(ids)
    taken.advance(for_s=10.0)
    kept.record(
        Done(datetime.now(UTC), f"undone: review {id_} {action.done}") for id_ in taken.done
    )
    details = [taken.trouble] if taken.trouble else taken.refusals
    _LIST.notify(taken.summary(), details, ok=bool(taken.done))
    _LIST.reload()


def _rows(wanted: ReviewFilter, conn: Connection) -> Iterator[Review]:
    return questions.walk_reviews(conn, wanted)
