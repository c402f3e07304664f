"""Lists, their pages and questions, and actions on many rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from artwork_backfill.dashboard import memory
from artwork_backfill.dashboard.bulk import Batch, Bulk
from artwork_backfill.dashboard.database import Trouble
from artwork_backfill.shared.review import actions
from tests.dashboard.app import Open, press, run
from tests.dashboard.dashboard_rows import Rows


@pytest.fixture
def reviews(page: Open) -> Open:
    """Opens the tab of reviews for another visitor, at an address."""
    return partial(page, tab="Reviews")


def reasons(app: AppTest) -> list[str]:
    return next((list(df.value["reason"]) for df in app.dataframe if "reason" in df.value), [])


def captions(app: AppTest) -> str:
    return "\n".join(caption.value for caption in app.caption)


def _many(rows: Rows, count: int) -> None:
    rows.conn.execute(
        "WITH made AS (INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status)"
        " SELECT 'release', gen_random_uuid(), 'manual_review' FROM generate_series(1, %s)"
        " RETURNING id) INSERT INTO artwork_indexer.needs_manual_review"
        " (audit_entity_id, review_reason, reasons, created_at)"
        ' SELECT id, \'row \' || id, \'[{"code": "only_copy", "check": "orphan.image"}]\','
        "        now() - interval '1 hour' + id * interval '1 second' FROM made",
        (count,),
    )


# -- pages ---------------------------------------------------------------------------------------


def test_another_size_of_pages_keeps_the_rows_in_sight(reviews: Open, rows: Rows) -> None:
    _many(rows, 300)
    app = reviews(**{"from": "150"})
    assert (reasons(app)[0], len(reasons(app))) == ("row 151", 50)
    app.selectbox(key="reviews.size").set_value(250)
    assert "row 151" in reasons(run(app))
    assert "Rows 1 to 250 of 300," in captions(app)


def test_the_page_before_is_shown_when_the_last_one_has_been_worked_off(
    reviews: Open, rows: Rows
) -> None:
    _many(rows, 51)
    app = reviews(**{"from": "50"})
    assert reasons(app) == ["row 51"]
    actions.resolve(rows.conn, rows.reviews()[-1], by="another", note="done")
    assert len(reasons(press(app, "reviews.reload"))) == 50
    assert "of 50," in captions(app)


def test_an_address_beyond_the_end_shows_the_last_page(reviews: Open, rows: Rows) -> None:
    _many(rows, 60)
    assert reasons(reviews(**{"from": "5000"}))[-1] == "row 60"


@pytest.mark.parametrize(
    "query",
    [
        {"from": "-1"},
        {"from": "1e9"},
        {"rows": "7"},
        {"open": "999999999999999"},
        {"status": "nonsense"},
        {"age": "'; DROP TABLE x"},
        {"tab": "Nonsense"},
        {"kind": "no such kind"},
        {"from": "9" * 40},
    ],
)
def test_an_address_that_makes_no_sense_does_no_harm(
    reviews: Open, rows: Rows, query: dict[str, str]
) -> None:
    rows.review()
    assert not reviews(**query).error


def test_the_address_says_what_is_shown(reviews: Open, rows: Rows) -> None:
    review = rows.review("of a kind", kind="only_copy")
    app = reviews(type="release", kind="only_copy", open=str(review.id))
    assert reasons(app) == ["of a kind"]
    app.text_input(key="reviews.reason").set_value("kind")
    run(app)
    assert app.query_params == {
        "tab": "Reviews",
        "type": "release",
        "kind": "only_copy",
        "reason": "kind",
        "open": str(review.id),
    }


# -- kinds ---------------------------------------------------------------------------------------


def test_one_click_on_a_kind_shows_its_reviews_alone(reviews: Open, rows: Rows) -> None:
    for number in range(3):
        rows.review(f"orphan.image: {number}", kind="only_copy")
    rows.review("item.dark: the item is dark")
    app = reviews()
    press(app, "reviews.group.only copy")
    assert len(reasons(app)) == 3
    press(app, "reviews.group.item.dark")
    assert reasons(app) == ["item.dark: the item is dark"]
    press(app, "reviews.group")
    assert len(reasons(app)) == 4


# -- what is asked -------------------------------------------------------------------------------


def test_a_question_is_dropped_when_the_list_changes(reviews: Open, rows: Rows) -> None:
    _many(rows, 101)
    app = reviews()
    app.text_input(key="reviews.note").set_value("why")
    press(app, "reviews.choose")
    press(app, "reviews.Won't fix")
    assert any(button.key == "reviews.yes.0" for button in app.button)
    app.text_input(key="reviews.reason").set_value("row 1")
    run(app)
    assert not any(button.key == "reviews.yes.0" for button in app.button)
    app.text_input(key="reviews.reason").set_value("")
    run(app)
    assert not any(button.key == "reviews.yes.0" for button in app.button)
    assert {review.status for review in rows.reviews()} == {"open"}


def test_what_comes_after_the_question_is_not_touched(reviews: Open, rows: Rows) -> None:
    _many(rows, 3)
    app = reviews()
    app.text_input(key="reviews.note").set_value("why")
    press(app, "reviews.choose")
    press(app, "reviews.Resolve")
    later = rows.review("row later", kind="only_copy")
    press(app, "reviews.yes.0")
    run(app)
    assert rows.seen(later.id).status == "open"
    assert sum(review.status == "resolved" for review in rows.reviews()) == 3


def test_what_was_closed_is_put_back_in_one_click(reviews: Open, rows: Rows) -> None:
    review = rows.review()
    app = reviews(open=str(review.id))
    app.text_input(key="reviews.note").set_value("by mistake")
    press(app, "reviews.Resolve")
    assert rows.seen(review.id).status == "resolved"
    press(app, "reviews.undo")
    assert rows.seen(review.id).status == "open"
    assert "undone: Resolve" in str(rows.seen(review.id).notes)


def test_undoing_leaves_what_somebody_has_changed_since(reviews: Open, rows: Rows) -> None:
    review = rows.review()
    app = reviews(open=str(review.id))
    app.text_input(key="reviews.note").set_value("done")
    press(app, "reviews.Resolve")
    actions.annotate(rows.conn, rows.seen(review.id), by="another", note="and checked")
    as_it_is = rows.seen(review.id)
    press(app, "reviews.undo")
    assert rows.seen(review.id) == as_it_is
    assert f"review {review.id} has changed since" in "\n".join(text.value for text in app.text)


def test_a_refusal_does_not_speak_of_the_command_line(reviews: Open, rows: Rows) -> None:
    review = rows.review()
    app = reviews(open=str(review.id))
    actions.annotate(rows.conn, review, by="another", note="wait")
    app.text_input(key="reviews.note").set_value("done")
    press(app, "reviews.Resolve")
    said = [text.value for text in app.text]
    assert f"review {review.id} has changed meanwhile" in said
    assert not [text for text in said if "`" in text]


# -- many rows -----------------------------------------------------------------------------------


class _Step:
    """Works ten batches of two rows; refuses the last row, and fails once if asked to."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at

    def __call__(self, after: int) -> Batch:
        if self.fail_at == after:
            self.fail_at = None
            raise Trouble("The database cannot be used")
        if after >= 20:
            return Batch(None)
        if after == 18:
            return Batch(20, [19], ["row 20 has changed"])
        return Batch(after + 2, [after + 1, after + 2])


def test_every_row_is_worked_once() -> None:
    bulk = Bulk("reviews", "Resolve", (), 20, _Step())
    bulk.advance(for_s=5)
    assert (bulk.state, bulk.done, bulk.refused) == ("finished", list(range(1, 20)), 1)
    assert bulk.summary() == "Resolve: 19 of 20 done, 1 left as they are."


def test_it_continues_where_the_database_failed() -> None:
    bulk = Bulk("reviews", "Resolve", (), 20, _Step(fail_at=6))
    bulk.advance(for_s=5)
    assert (bulk.state, bulk.done) == ("stopped", [1, 2, 3, 4, 5, 6])
    assert bulk.trouble == "The database cannot be used"
    bulk.resume()
    bulk.advance(for_s=5)
    assert (bulk.state, bulk.done) == ("finished", list(range(1, 20)))


def test_it_does_nothing_more_once_it_is_stopped() -> None:
    bulk = Bulk("reviews", "Resolve", (), 20, _Step())
    bulk.stop()
    bulk.advance(for_s=5)
    assert bulk.done == []
    assert bulk.summary() == "Resolve: 0 of 20 done, stopped."


def test_visitors_are_told_apart() -> None:
    first = memory.of_browser("browser", "anna")
    assert memory.of_browser("browser", "ben") is not first
    assert memory.of_browser("another", "anna") is not first
    assert memory.of_browser("browser", "anna") is first


def test_the_visitor_who_was_away_longest_is_forgotten() -> None:
    first, second = (memory.of_browser(name, "anna") for name in ("first", "second"))
    for number in range(499):
        memory.of_browser(f"browser {number}", "anna")
        assert memory.of_browser("first", "anna") is first
    assert memory.of_browser("second", "anna") is not second


# -- a browser that is late ------------------------------------------------------------------------


def test_an_action_that_overtakes_the_address_is_not_taken_for_going_back(
    reviews: Open, rows: Rows
) -> None:
    rows.review("orphan.image: a", kind="only_copy")
    rows.review("item.dark: b")
    app = reviews()
    address, heard = dict(app.query_params), app.text_input(key="address.heard").value
    press(app, "reviews.group.only copy")
    # The browser has not heard of the new address when the next button is pressed.
    _set_address(app, address)
    app.text_input(key="address.heard").set_value(heard)
    press(app, "reviews.Resolve")
    assert reasons(app) == ["orphan.image: a"]
    # It has, and brings the one before: someone went back.
    _set_address(app, address)
    assert len(reasons(run(app))) == 2


def _set_address(app: Any, address: dict[str, list[str]]) -> None:
    app.query_params.clear()
    app.query_params.update(address)
