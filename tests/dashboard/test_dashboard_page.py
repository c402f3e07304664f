"""The page's logic, run as Streamlit runs it but without a browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from artwork_backfill.dashboard import access
from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.engine.log import plain
from artwork_backfill.shared.review import actions, requeueing, runs
from tests.dashboard.app import Open, press, run
from tests.dashboard.dashboard_rows import HOSTILE, Rows

GID: Final = UUID("76df3287-6cda-33eb-8e9a-044b5e15ffdd")
TABS: Final = ["Overview", "Reviews", "Failed events", "Entities", "Checks", "Runs"]


def select(app: AppTest, name: str, *positions: int) -> AppTest:
    """Tick rows of the list's table, as a person would."""
    token = app.session_state[f"{name}.listing"].token
    selection = {"selection": {"rows": list(positions), "columns": [], "cells": []}}
    app.session_state[f"{name}.table.{token}"] = selection
    return run(app)


def act_on(app: AppTest, action: str, note: str = "") -> AppTest:
    if note:
        app.text_input(key="reviews.note").set_value(note)
    return press(app, f"reviews.{action}")


def table(app: AppTest, column: str) -> list[Any]:
    """The values of the first table's column."""
    return list(app.dataframe[0].value[column])


def shown(app: AppTest) -> str:
    return "\n".join(element.value for element in app.text)


def said(app: AppTest) -> str:
    return "\n".join(
        element.value for element in (*app.success, *app.warning, *app.markdown, *app.caption)
    )


def figures(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def frame(app: AppTest, column: str) -> list[Any]:
    """The values of the first table that has a column."""
    return next(list(df.value[column]) for df in app.dataframe if column in df.value)


# -- what is drawn ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_opens_on_an_empty_database(page: Open, tab: str) -> None:
    app = page(tab)
    assert not app.error
    assert [t.label for t in app.tabs] == TABS


def test_the_overview_counts_what_there_is(page: Open, rows: Rows) -> None:
    for status in ("clean", "clean", "unchecked", "repair_queue", "legacy", "audit_in_progress"):
        rows.entity(status=status)
    rows.review()
    app = page()
    assert "5 of 7 entities audited: 71 %" in said(app)
    assert figures(app)["Open reviews"] == "1"
    assert figures(app)["Left to audit"] == "2"
    assert figures(app)["Audits per hour"] == "none"
    assert said(app).count("no audit is at work") == 2


def test_the_overview_shows_the_latest_estimate(page: Open, rows: Rows) -> None:
    each = {"estimate": 120, "low": 90, "high": 150}
    report = {"sampled": 1_000, "population": 5_000_000, "audit_s": 7_200, "indexer_s": 600,
              "outcomes": {"clean": each}, "checks": {"item.dark": each}, "events": each,
              "deletions": each}  # fmt: skip
    started = datetime.now(UTC)
    runs.keep_report(rows.conn, "estimate", report, options={}, started=started)
    app = page()
    assert "from 1,000 of 5,000,000 entities. A full audit takes at least 2 hours" in said(app)
    assert frame(app, "high") == [150] * 4
    rows.conn.execute("DELETE FROM artwork_indexer.backfill_run")


def test_the_count_of_millions_is_made_once_for_all_visitors(page: Open, rows: Rows) -> None:
    rows.entity(status="clean")
    assert "1 of 1 entities" in said(page())
    rows.entity(status="clean")
    assert "1 of 1 entities" in said(page())
    st.cache_resource.clear()
    assert "2 of 2 entities" in said(page())


def test_a_database_that_cannot_be_reached_is_said_without_its_password(
    page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "correct-horse-battery"
    monkeypatch.setenv("MUSICBRAINZ_DATABASE_URL", f"postgresql://me:{secret}@127.0.0.1:1/x")
    app = page()
    assert "The database cannot be used" in shown(app)
    assert secret not in str(app)


def test_the_filters_narrow_the_list(page: Open, rows: Rows) -> None:
    rows.review("first", priority=300)
    rows.review("second", entity_type="event")
    rows.review("third", status="resolved")
    app = page("Reviews")
    assert table(app, "reason") == ["first", "second"]
    app.selectbox(key="reviews.entity_type").set_value("event")
    assert table(run(app), "reason") == ["second"]
    app.selectbox(key="reviews.entity_type").set_value("")
    app.selectbox(key="reviews.priority").set_value("300")
    assert table(run(app), "reason") == ["first"]
    app.selectbox(key="reviews.priority").set_value("")
    app.multiselect(key="reviews.statuses").set_value([])
    app.text_input(key="reviews.reason").set_value("THIRD")
    assert table(run(app), "reason") == ["third"]
    app.text_input(key="reviews.text").set_value("nothing like it")
    assert "No reviews pass these filters." in [info.value for info in run(app).info]


@pytest.mark.parametrize(("tab", "column"), [("Reviews", "reason"), ("Failed events", "failure")])
def test_the_widest_column_says_why_and_comes_right_after_the_age(
    page: Open, rows: Rows, tab: str, column: str
) -> None:
    rows.event(rows.review("x" * 80).gid, failure="y" * 80)
    columns = json.loads(page(tab).dataframe[0].proto.columns)
    order = list(page(tab).dataframe[0].value.columns)
    widths = {name: columns[name].get("width") for name in order}
    assert order[:2] == ["age", column]
    assert (
        max(order, key=lambda name: widths[name] if isinstance(widths[name], int) else 0) == column
    )


def test_a_reason_does_not_repeat_the_gid_that_stands_beside_it(page: Open, rows: Rows) -> None:
    rows.review(f"files.original.missing: mbid-{GID}-7.jpg", gid=GID)
    app = page("Reviews")
    assert table(app, "reason") == ["files.original.missing: mbid-…-7.jpg"]
    assert table(app, "gid") == [str(GID)]


def test_failed_events_are_listed_with_how_many_wait_for_them(page: Open, rows: Rows) -> None:
    parent = rows.event(GID, action="delete_image", failure="HTTP 503 of https://s3/mbid-1")
    rows.event(depends_on=[parent])
    app = page("Failed events")
    assert table(app, "dependants") == [1, 0]
    assert table(app, "failure") == ["HTTP 503 of …", "no reason kept"]
    assert table(app, "message")[0] == f"gid {GID}"
    assert table(app, "depends_on")[1] == str(parent)


def test_the_catalogue_is_shown_whole_also_where_nothing_was_found(page: Open, rows: Rows) -> None:
    rows.conn.execute(
        "INSERT INTO artwork_indexer.finding_tally VALUES (%s, now(), 'xml.field', 2, 4, '{}')",
        (GID,),
    )
    app = page("Checks")
    assert table(app, "check") == list(CHECKS)
    found = app.dataframe[0].value.set_index("check")[["entities", "findings"]]
    assert found.loc[["xml.field", "item.dark"]].values.tolist() == [[2, 4], [0, 0]]


def test_findings_are_sorted_by_how_often_they_are_found(page: Open, rows: Rows) -> None:
    for check, entities in (("item.dark", 1), ("xml.field", 4), ("a.check.of.old", 9)):
        rows.conn.execute(
            "INSERT INTO artwork_indexer.finding_tally VALUES (%s, now(), %s, %s, %s, '{}')",
            (GID, check, entities, entities),
        )
    found = next(df.value for df in page().dataframe if "severity" in df.value)
    assert found.values.tolist() == [
        ["xml.field", "major", 4, 4],
        ["item.dark", "critical", 1, 1],
    ]


def test_pages_are_turned(page: Open, rows: Rows) -> None:
    for number in range(60):
        rows.review(f"reason {number}")
    app = page("Reviews")
    assert len(table(app, "reason")) == 50
    press(app, "reviews.next")
    assert table(app, "reason") == [f"reason {number}" for number in range(50, 60)]
    assert app.button(key="reviews.next").disabled
    press(app, "reviews.previous")
    assert table(app, "reason")[0] == "reason 0"
    press(app, "reviews.next")
    app.text_input(key="reviews.reason").set_value("reason 5")
    assert table(run(app), "reason")[0] == "reason 5"


def test_one_review_shows_all_that_is_known(page: Open, rows: Rows) -> None:
    review = rows.review("only copy", kind="only_copy", gid=GID)
    entity = rows.value("SELECT id FROM artwork_indexer.audit_entity")
    finding = {"check": "xml.field", "severity": "major", "subject": "title"}
    rows.audit(entity, finding | {"expected": "A", "actual": "B", "repair": True})
    rows.event(GID, failure="HTTP 503")
    app = select(page("Reviews"), "reviews", 0)
    assert "xml.field, major: title" in shown(app)
    assert any("<del>A</del>" in html.value and "<ins>B</ins>" in html.value for html in app.html)
    assert frame(app, "failure") == ["HTTP 503"]
    assert f"Review {review.id}, open, since " in shown(app)
    assert "keep, copy or purge it?" in said(app)
    assert {button.url for button in app.link_button} >= {
        f"https://musicbrainz.org/release/{GID}",
        f"https://archive.org/details/mbid-{GID}",
        f"https://archive.org/download/mbid-{GID}/",
        f"https://archive.org/history/mbid-{GID}",
    }


# -- what is done ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "status", "entity"),
    [
        ("Add note", "open", "manual_review"),
        ("Resolve", "resolved", "unchecked"),
        ("Won't fix", "wont_fix", "clean"),
        ("Audit again", "open", "unchecked"),
    ],
)
def test_selected_reviews_are_closed_with_the_persons_name(
    page: Open, rows: Rows, action: str, status: str, entity: str
) -> None:
    reviews = [rows.review() for _ in range(3)]
    app = act_on(select(page("Reviews"), "reviews", 0, 2), action, "looked into it")
    assert [rows.seen(review.id).status for review in reviews] == [status, "open", status]
    done = rows.seen(reviews[0].id)
    assert done.entity_status == entity
    assert "me: " in str(done.notes)
    assert "looked into it" in str(done.notes)
    assert rows.seen(reviews[1].id) == reviews[1]
    assert "2 of 2 reviews" in said(app)
    assert not app.session_state["reviews.note"]


def test_a_closed_review_is_reopened(page: Open, rows: Rows) -> None:
    review = rows.review(status="wont_fix", entity=rows.entity(status="clean"))
    app = page("Reviews")
    app.multiselect(key="reviews.statuses").set_value([])
    act_on(select(run(app), "reviews", 0), "Reopen", "it is dark again")
    assert rows.seen(review.id).status == "open"


@pytest.mark.parametrize("action", ["Add note", "Resolve", "Won't fix", "Reopen"])
def test_nothing_is_changed_without_a_reason(page: Open, rows: Rows, action: str) -> None:
    review = rows.review()
    app = act_on(select(page("Reviews"), "reviews", 0), action, "  ")
    assert rows.seen(review.id) == review
    assert "write the reason in the note first" in said(app)


def test_of_two_people_who_change_the_same_row_the_second_is_told(page: Open, rows: Rows) -> None:
    review, other = rows.review("both want it"), rows.review("only one wants it")
    first, second = page("Reviews"), page("Reviews")
    select(first, "reviews", 0)
    select(second, "reviews", 0, 1)
    act_on(first, "Won't fix", "let it be")
    act_on(second, "Resolve", "fixed")
    assert rows.seen(review.id).status == "wont_fix"
    assert "fixed" not in str(rows.seen(review.id).notes)
    assert rows.seen(other.id).status == "resolved"
    assert "1 of 2 reviews: resolved." in said(second)
    assert f"review {review.id} has changed meanwhile" in shown(second)
    assert "No reviews pass these filters." in [info.value for info in second.info]


def test_rows_do_not_move_beneath_a_selection(page: Open, rows: Rows) -> None:
    first, second = rows.review("first"), rows.review("second")
    app = select(page("Reviews"), "reviews", 1)
    actions.resolve(rows.conn, first, by="another", note="gone from the list")
    assert table(run(app), "reason") == ["first", "second"]
    act_on(app, "Resolve", "fixed")
    assert rows.seen(second.id).status == "resolved"


def test_more_than_a_hundred_rows_are_asked_about(page: Open, rows: Rows) -> None:
    reviews = [rows.review() for _ in range(101)]
    app = page("Reviews")
    app.selectbox(key="reviews.size").set_value(250)
    app = act_on(select(run(app), "reviews", *range(101)), "Resolve", "all fixed")
    assert rows.seen(reviews[0].id).status == "open"
    assert "The 101 selected of the open reviews." in shown(app)
    press(app, "reviews.no")
    assert rows.seen(reviews[0].id).status == "open"
    act_on(app, "Resolve", "all fixed")
    press(app, "reviews.yes.0")
    assert {review.status for review in rows.reviews()} == {"resolved"}


def test_a_hundred_rows_are_not_asked_about(page: Open, rows: Rows) -> None:
    for _ in range(100):
        rows.review()
    app = page("Reviews")
    app.selectbox(key="reviews.size").set_value(100)
    act_on(select(run(app), "reviews", *range(100)), "Resolve", "all fixed")
    assert {review.status for review in rows.reviews()} == {"resolved"}


def test_what_came_of_an_action_stays_in_sight(page: Open, rows: Rows) -> None:
    review = rows.review()
    app = act_on(select(page("Reviews"), "reviews", 0), "Audit again")
    assert list(app.dataframe[-1].value["now"]) == ["waiting for an audit"]
    rows.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET status = 'clean',"
        " last_audit_at = '2026-08-01 12:00+00' WHERE gid = %s",
        (review.gid,),
    )
    assert list(run(app).dataframe[-1].value["now"]) == ["clean, audited 2026-08-01 12:00:00"]


def test_a_failed_event_is_requeued_with_what_depends_on_it(page: Open, rows: Rows) -> None:
    parent = rows.event(GID, action="delete_image", failure="HTTP 503")
    child = rows.event(GID, depends_on=[parent])
    other = rows.event(failure="gone")
    app = page("Failed events")
    app.text_input(key="events.reason").set_value("503")
    app = press(select(run(app), "events", 0), "events.Requeue")
    assert f"event {parent} was queued by others" in shown(app)
    app = press(app, "events.more")
    states = dict(rows.conn.execute("SELECT id, state::text FROM artwork_indexer.event_queue"))
    assert states == {parent: "queued", child: "queued", other: "failed"}
    assert "1 of 1 events are queued again, and 1 that depend on them." in said(app)
    assert sorted(app.dataframe[-1].value["now"]) == ["queued", "queued"]


@pytest.mark.parametrize(("answer", "state"), [(0, "queued"), (1, "failed")])
def test_all_that_failed_alike_are_requeued_in_four_clicks_of_any_origin(
    page: Open, rows: Rows, answer: int, state: str
) -> None:
    alike = [rows.event(failure="archive.org answered 503") for _ in range(3)]
    other = rows.event(failure="gone")
    app = page("Failed events")
    app = press(app, "events.group.index: archive.org answered 503")
    app = press(app, "events.choose")
    app = press(app, "events.Requeue")
    assert "whose latest failure contains “archive.org answered 503”" in shown(app)
    app = press(app, f"events.yes.{answer}")
    run(app)
    states = dict(rows.conn.execute("SELECT id, state::text FROM artwork_indexer.event_queue"))
    assert states == {**dict.fromkeys(alike, state), other: "failed"}


def test_the_open_event_is_requeued_if_nothing_is_ticked(page: Open, rows: Rows) -> None:
    event, other = rows.event(GID), rows.event()
    app = page("Failed events", open=str(event))
    assert f"Acts on failed event {event}, which is open." in said(app)
    press(press(app, "events.Requeue"), "events.more")
    states = dict(rows.conn.execute("SELECT id, state::text FROM artwork_indexer.event_queue"))
    assert states == {event: "queued", other: "failed"}


def test_an_event_that_was_requeued_meanwhile_is_left(page: Open, rows: Rows) -> None:
    event = rows.event()
    app = select(page("Failed events"), "events", 0)
    requeueing.requeue(rows.conn, [event], by="another", any_event=True)
    app = press(app, "events.Requeue")
    assert "0 of 1 events" in said(app)
    assert f"event {event} is not failed" in shown(app)


@pytest.mark.parametrize(
    "query",
    [str(GID), f"mbid-{GID}", f"https://musicbrainz.org/release/{GID}/cover-art", str(GID).upper()],
)
def test_an_entity_is_found_by_anything_that_holds_its_gid(
    page: Open, rows: Rows, query: str
) -> None:
    rows.entity(GID, status="clean")
    app = page("Entities")
    app.text_input(key="entities.query").set_value(query)
    assert "clean, priority 100, never audited" in shown(run(app))
    press(app, "entities.retry")
    assert rows.value("SELECT status::text FROM artwork_indexer.audit_entity") == "unchecked"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("nonsense", "This text contains no gid"),
        (str(GID), "is not in the audit table"),
        (f"{GID} {GID.int and UUID(int=1)}", "This text contains 2 gids"),
    ],
)
def test_what_is_not_found_is_said(page: Open, query: str, says: str) -> None:
    app = page("Entities")
    app.text_input(key="entities.query").set_value(query)
    assert says in shown(run(app))


def test_an_example_of_a_check_is_opened(page: Open, rows: Rows) -> None:
    entity = rows.entity(GID)
    rows.conn.execute(
        "INSERT INTO artwork_indexer.finding_tally VALUES (%s, now(), 'item.missing', 1, 1, %s)",
        (GID, [entity]),
    )
    app = page("Checks", check="item.missing")
    tick = {"selection": {"rows": [0], "columns": [], "cells": []}}
    app.session_state["checks.examples.item.missing"] = tick
    press(run(app), "checks.open")
    assert app.text_input(key="entities.query").value == str(GID)
    assert "in review, priority 100" in shown(app)


# -- what is never done ----------------------------------------------------------------------------


def test_text_from_outside_is_never_taken_for_markup(page: Open, rows: Rows) -> None:
    review = rows.review(HOSTILE, gid=GID)
    entity = rows.value("SELECT id FROM artwork_indexer.audit_entity")
    finding = {"check": HOSTILE, "severity": HOSTILE, "subject": HOSTILE}
    rows.audit(entity, finding | {"expected": HOSTILE, "actual": HOSTILE, "repair": False})
    rows.event(GID, failure=HOSTILE)
    actions.annotate(rows.conn, review, by=HOSTILE, note=HOSTILE)
    app = select(page("Reviews"), "reviews", 0)
    act_on(app, "Add note", HOSTILE)
    select(app, "reviews", 0)
    assert plain(HOSTILE) in shown(app)
    rendered = [
        *app.markdown, *app.caption, *app.info, *app.error, *app.success, *app.warning,
        *app.header, *app.subheader, *app.title,
    ]  # fmt: skip
    assert not [element.value for element in rendered if "onerror" in element.value]
    labels = [element.label for element in (*app.button, *app.link_button, *app.metric, *app.tabs)]
    assert not [label for label in labels if "onerror" in label and "\\<img" not in label]
    assert not [element.value for element in app.html if "<img" in element.value]
    assert "\u202e" not in shown(app)


def test_a_read_only_page_offers_nothing_to_change(
    page: Open, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKFILL_DASHBOARD_READ_ONLY", "1")
    rows.review(gid=GID)
    rows.event(GID)
    for tab, name in (("Reviews", "reviews"), ("Failed events", "events")):
        app = select(page(tab), name, 0)
        keys = {button.key for button in app.button}
        assert {key for key in keys if key and not key.startswith((f"{name}.open.", "case."))} == {
            f"{name}.previous", f"{name}.next", f"{name}.reload",
        }  # fmt: skip
    app = page("Entities")
    app.text_input(key="entities.query").set_value(str(GID))
    assert [button.label for button in run(app).button] == [
        "Compare with archive.org now", "Explain what an audit would decide now",
    ]  # fmt: skip


# -- who gets in -----------------------------------------------------------------------------------


def test_a_page_that_listens_for_everyone_shows_nothing(
    page: Open, listening: Callable[[str], None]
) -> None:
    listening("0.0.0.0")
    app = page()
    assert "everyone who reaches 0.0.0.0 could change things" in shown(app)
    assert not app.tabs


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch, listening: Callable[[str], None]) -> None:
    """A login is configured, and one person may enter."""
    monkeypatch.setattr(access, "login_is_configured", lambda: True)
    monkeypatch.setenv("BACKFILL_DASHBOARD_ALLOW", "ops@example.org")
    listening("0.0.0.0")


def _as(app: AppTest, **user: object) -> AppTest:
    app.user = user
    return run(app)


def test_who_has_not_logged_in_sees_nothing_but_the_door(page: Open, login: None) -> None:
    app = _as(page(), is_logged_in=False)
    assert [button.label for button in app.button] == ["Log in"]
    assert not app.tabs
    assert not app.metric


def test_who_may_not_enter_is_told_so(page: Open, login: None) -> None:
    app = _as(page(), is_logged_in=True, email="somebody@example.org")
    assert "not among those that may enter" in shown(app)
    assert not app.tabs


def test_who_may_enter_acts_under_that_name(page: Open, rows: Rows, login: None) -> None:
    review = rows.review()
    app = _as(page("Reviews"), is_logged_in=True, email="Ops@example.org", email_verified=True)
    act_on(select(app, "reviews", 0), "Resolve", "fixed")
    assert "ops@example.org: resolved: fixed" in str(rows.seen(review.id).notes)


def test_a_login_leads_back_to_what_was_asked_for(
    page: Open, rows: Rows, login: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(st, "login", lambda: None)
    rows.review("item.dark: wanted")
    rows.review("item.missing: another")
    before = _as(page("Reviews", reason="wanted"), is_logged_in=False)
    next(button for button in before.button if button.label == "Log in").click()
    run(before)
    # The provider sends the browser back to the bare address, in a new session.
    after = page()
    after.query_params.clear()
    after.session_state["memory"] = before.session_state["memory"]
    after = _as(after, is_logged_in=True, email="ops@example.org")
    assert table(after, "reason") == ["item.dark: wanted"]
    assert after.query_params["tab"] == "Reviews"


def test_who_has_logged_out_meanwhile_cannot_act_any_more(
    page: Open, rows: Rows, login: None
) -> None:
    review = rows.review()
    app = _as(page("Reviews"), is_logged_in=True, email="ops@example.org")
    select(app, "reviews", 0)
    app.user = {"is_logged_in": False}
    app.text_input(key="reviews.note").set_value("fixed")
    press(app, "reviews.Resolve")
    assert rows.seen(review.id) == review
    assert [button.label for button in app.button] == ["Log in"]
