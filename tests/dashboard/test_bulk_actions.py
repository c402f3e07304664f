"""What is done to many reviews at once, and what keeps it from treading on somebody's work."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import psycopg
import pytest

from artwork_backfill.shared.review import actions, questions
from artwork_backfill.shared.review.actions import Refused, ReviewAction
from artwork_backfill.shared.review.questions import Review
from tests.dashboard.dashboard_rows import Rows

NOTE = "archive.org has fixed it"


def _status(rows: Rows, review: Review) -> str:
    return str(
        rows.value(
            "SELECT status::text FROM artwork_indexer.audit_entity WHERE gid = %s", review.gid
        )
    )


@pytest.mark.parametrize(
    ("action", "before", "after", "entity"),
    [
        (actions.resolve, "open", "resolved", "unchecked"),
        (actions.leave_unfixed, "open", "wont_fix", "clean"),
        (actions.annotate, "open", "open", "manual_review"),
        (actions.audit_again, "open", "open", "unchecked"),
    ],
)
def test_many_reviews_are_changed_alike(
    rows: Rows, action: ReviewAction, before: str, after: str, entity: str
) -> None:
    seen = [rows.review(status=before) for _ in range(3)]
    outcomes = actions.apply_to_all(rows.conn, action, seen, by="me", note=NOTE)
    assert [entry.refusal for entry in outcomes] == [None] * 3
    for review in seen:
        now = rows.seen(review.id)
        assert now.status == after
        assert now.entity_status == entity
        assert now.notes is not None
        assert "me: " in now.notes
        assert NOTE in now.notes


def _closed(rows: Rows, review: Review) -> None:
    actions.resolve(rows.conn, review, by="another", note="done")


def _noted(rows: Rows, review: Review) -> None:
    actions.annotate(rows.conn, review, by="another", note="wait")


def _claimed(rows: Rows, review: Review) -> None:
    rows.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET status = 'audit_in_progress' WHERE gid = %s",
        (review.gid,),
    )


@pytest.mark.parametrize("action", [actions.resolve, actions.leave_unfixed, actions.audit_again])
@pytest.mark.parametrize(
    ("meanwhile", "says"),
    [(_closed, "has changed"), (_noted, "has changed"), (_claimed, "being audited")],
)
def test_a_review_that_changed_meanwhile_is_left_and_the_others_are_not(
    rows: Rows, action: ReviewAction, meanwhile: Callable[[Rows, Review], None], says: str
) -> None:
    first, changed, last = (rows.review() for _ in range(3))
    meanwhile(rows, changed)
    as_it_is = rows.seen(changed.id)
    outcomes = actions.apply_to_all(rows.conn, action, [first, changed, last], by="me", note=NOTE)
    assert [entry.refusal is None for entry in outcomes] == [True, False, True]
    assert says in str(outcomes[1].refusal)
    assert rows.seen(changed.id) == as_it_is


def test_a_note_is_refused_where_somebody_else_has_added_one(rows: Rows) -> None:
    seen = rows.review()
    _noted(rows, seen)
    with pytest.raises(Refused, match="has changed"):
        actions.annotate(rows.conn, seen, by="me", note=NOTE)


def test_an_entity_that_is_audited_again_comes_first(rows: Rows) -> None:
    seen = rows.review()
    actions.audit_again(rows.conn, seen, by="me", note="")
    now = rows.seen(seen.id)
    assert (now.entity_status, now.priority) == ("unchecked", 300)
    assert str(now.notes).endswith("me: to be audited again")


def test_a_closed_review_stays_closed_when_its_entity_is_audited_again(rows: Rows) -> None:
    seen = rows.review(status="wont_fix")
    actions.audit_again(rows.conn, seen, by="me", note=NOTE)
    assert rows.seen(seen.id).status == "wont_fix"
    assert _status(rows, seen) == "unchecked"


def test_all_or_nothing_when_the_database_fails_in_between(rows: Rows) -> None:
    seen = [rows.review() for _ in range(2)]
    rows.conn.execute(
        "ALTER TABLE artwork_indexer.needs_manual_review ADD CONSTRAINT no_second_note"
        f" CHECK (id <> {seen[1].id} OR resolution_notes IS NULL)"
    )
    try:
        with pytest.raises(psycopg.errors.CheckViolation):
            actions.apply_to_all(rows.conn, actions.resolve, seen, by="me", note=NOTE)
    finally:
        rows.conn.execute(
            "ALTER TABLE artwork_indexer.needs_manual_review DROP CONSTRAINT no_second_note"
        )
    assert rows.reviews() == seen


def test_two_people_who_change_the_same_rows_in_another_order_do_not_block_each_other(
    rows: Rows, database: str
) -> None:
    seen = [rows.review() for _ in range(40)]
    refused: list[int] = []

    def resolve(reviews: list[Review], by: str) -> None:
        with psycopg.connect(database, autocommit=True) as conn:
            outcomes = actions.apply_to_all(conn, actions.resolve, reviews, by=by, note=NOTE)
        refused.append(sum(entry.refusal is not None for entry in outcomes))

    people = [
        Thread(target=resolve, args=(seen, "first")),
        Thread(target=resolve, args=(seen[::-1], "second")),
    ]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert sorted(refused) == [0, 40]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE artwork_indexer.audit_entity SET status = 'clean'",
        "UPDATE artwork_indexer.audit_entity SET last_audit_at = now()",
    ],
)
def test_an_entity_that_changed_since_it_was_looked_at_is_not_audited_again(
    rows: Rows, change: str
) -> None:
    gid = rows.review().gid
    seen = [case.entity for case in questions.find_cases(rows.conn, gid)]
    rows.conn.execute(change.encode())
    with pytest.raises(Refused, match="has changed meanwhile"):
        actions.retry(rows.conn, [gid], by="me", seen=seen)
    as_it_is = [case.entity for case in questions.find_cases(rows.conn, gid)]
    actions.retry(rows.conn, [gid], by="me", seen=as_it_is)
    assert questions.find_cases(rows.conn, gid)[0].entity.status == "unchecked"
