"""The questions that only the page asks, on a real PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from artwork_backfill.dashboard import queries, words
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.review import questions
from artwork_backfill.shared.review.lists import Page
from artwork_backfill.shared.review.questions import ReviewFilter, ReviewStatus
from tests.dashboard.dashboard_rows import HOSTILE, Rows

WEEK = timedelta(days=7)
GID = UUID("76df3287-6cda-33eb-8e9a-044b5e15ffdd")


def _tally(rows: Rows, outcome: str, audits: int, hours_ago: int, run: UUID | None = None) -> None:
    rows.conn.execute(
        "INSERT INTO artwork_indexer.audit_tally (run_id, hour, outcome, audits, events, first_at)"
        " VALUES (%(run)s, date_trunc('hour', now()) - %(ago)s, %(outcome)s, %(audits)s, 0,"
        "         now() - %(ago)s - interval '30 min')",
        {
            "run": run or uuid4(),
            "ago": timedelta(hours=hours_ago),
            "outcome": outcome,
            "audits": audits,
        },
    )


def _found(rows: Rows, check: str, entities: int, hours_ago: int, examples: list[int]) -> None:
    rows.conn.execute(
        "INSERT INTO artwork_indexer.finding_tally"
        " (run_id, hour, check_name, entities, findings, examples)"
        " VALUES (%s, date_trunc('hour', now()) - %s, %s, %s, %s, %s)",
        (uuid4(), timedelta(hours=hours_ago), check, entities, entities * 2, examples),
    )


# -- the past ------------------------------------------------------------------------------------


def test_audits_of_several_runs_add_up_by_stretch_and_outcome(rows: Rows) -> None:
    for hours_ago in (1, 1, 200):
        _tally(rows, "clean", 5, hours_ago)
    _tally(rows, "legacy", 1, 1)
    found = queries.audits_over_time(rows.conn, timedelta(days=1))
    assert [(outcome, audits) for _, _, outcome, audits in found] == [("clean", 10), ("legacy", 1)]
    assert {until - since for since, until, _, _ in found} == {timedelta(hours=1)}


def test_a_long_past_is_told_in_few_points(rows: Rows) -> None:
    rows.conn.execute(
        "INSERT INTO artwork_indexer.audit_status_history"
        " SELECT now() - make_interval(hours => ago), 'clean', 1000 - ago"
        " FROM generate_series(1, 8000) AS ago"
    )
    year = queries.statuses_over_time(rows.conn, timedelta(days=365))
    assert 150 < len(year) < 250
    assert year[-1][2] == 999
    assert len(queries.statuses_over_time(rows.conn, timedelta(days=1))) == 23


def test_the_rate_is_that_of_the_last_two_hours(rows: Rows) -> None:
    assert queries.audits_per_hour(rows.conn) is None
    _tally(rows, "clean", 1_000_000, hours_ago=3)
    assert queries.audits_per_hour(rows.conn) is None
    _tally(rows, "clean", 900, hours_ago=0)
    _tally(rows, "repair_queue", 100, hours_ago=0)
    assert queries.audits_per_hour(rows.conn) == pytest.approx(2_000, rel=0.01)


def test_findings_are_counted_by_check_within_the_period(rows: Rows) -> None:
    _found(rows, "item.dark", 1, 1, [])
    _found(rows, "xml.field", 2, 1, [])
    _found(rows, "xml.field", 2, 2, [])
    _found(rows, "item.dark", 100, 24 * 8, [])
    assert queries.findings(rows.conn, WEEK) == {"item.dark": (1, 2), "xml.field": (4, 8)}


def test_examples_are_entities_as_they_are_now_the_latest_audited_first(rows: Rows) -> None:
    old, new, deleted = rows.entity(status="clean"), rows.entity(GID), rows.entity()
    rows.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET last_audit_at = now() - id * interval '-1 min'"
    )
    rows.conn.execute("DELETE FROM artwork_indexer.audit_entity WHERE id = %s", (deleted,))
    _found(rows, "xml.field", 3, 1, [old, new, deleted])
    _found(rows, "xml.field", 3, 2, [old])
    found = queries.examples(rows.conn, "xml.field")
    assert [entity.status for entity in found] == ["manual_review", "clean"]
    assert found[0].gid == GID
    assert queries.examples(rows.conn, "item.dark") == []


# -- lists -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (ReviewFilter(priority=300), ["urgent"]),
        (ReviewFilter(text="URGENT"), ["urgent"]),
        (ReviewFilter(text=str(GID)[:13].upper()), ["of a known gid"]),
        (ReviewFilter(text="seen by"), ["noted"]),
        (ReviewFilter(text="100%_"), []),
        (ReviewFilter(text=HOSTILE), [HOSTILE]),
        (ReviewFilter(statuses=(ReviewStatus.RESOLVED,), priority=100), ["resolved"]),
    ],
)
def test_reviews_are_found_by_priority_and_free_text(
    rows: Rows, wanted: ReviewFilter, found: list[str]
) -> None:
    rows.review("urgent", priority=300)
    rows.review("of a known gid", gid=GID)
    noted = rows.review("noted")
    rows.conn.execute(
        "UPDATE artwork_indexer.needs_manual_review SET resolution_notes = 'seen by me'"
        " WHERE id = %s",
        (noted.id,),
    )
    rows.review("resolved", status="resolved")
    rows.review(HOSTILE)
    listed = questions.REVIEWS.page(rows.conn, wanted, Page())
    assert [review.reason for review in listed] == found


def test_events_that_wait_for_another_are_counted(rows: Rows) -> None:
    parent = rows.event(GID, action="delete_image", failure="HTTP 503")
    rows.event(depends_on=[parent])
    rows.event(depends_on=[parent, 99], state="queued")
    rows.event(depends_on=[parent], state="completed")
    assert queries.dependants(rows.conn, [parent, parent + 1]) == {parent: 2}


# -- one entity ------------------------------------------------------------------------------------


def test_images_are_linked_in_the_order_of_the_listing(rows: Rows) -> None:
    rows.conn.execute(
        "TRUNCATE musicbrainz.release, cover_art_archive.cover_art,"
        " cover_art_archive.image_type CASCADE"
    )
    rows.conn.execute(
        "INSERT INTO cover_art_archive.image_type (mime_type, suffix) VALUES ('image/png', 'png')"
    )
    rows.conn.execute(
        "INSERT INTO musicbrainz.release (id, gid, name, artist_credit) VALUES (1, %s, 'A', 1)",
        (GID,),
    )
    for id_, ordering in ((11, 2), (12, 1)):
        rows.conn.execute(
            "INSERT INTO cover_art_archive.cover_art"
            " (id, release, comment, edit, ordering, mime_type)"
            " VALUES (%s, 1, %s, 1, %s, 'image/png')",
            (id_, HOSTILE, ordering),
        )
    found = queries.artwork(rows.conn, EntityType.RELEASE, GID)
    assert [image.url for image in found] == [
        f"https://coverartarchive.org/release/{GID}/12.png",
        f"https://coverartarchive.org/release/{GID}/11.png",
    ]
    assert queries.artwork(rows.conn, EntityType.EVENT, GID) == []


def test_standings_tell_what_has_come_of_entities_and_events(rows: Rows) -> None:
    rows.entity(GID, status="clean")
    rows.entity(GID, status="unchecked", entity_type="event")
    rows.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET last_audit_at = '2026-08-01 12:00+00'"
    )
    release, event = (EntityType.RELEASE, GID), (EntityType.EVENT, GID)
    found = queries.standings(rows.conn, [GID, uuid4()])
    assert {key: entity.status for key, entity in found.items()} == {
        release: "clean",
        event: "unchecked",
    }
    id_ = rows.event(state="queued")
    assert queries.states(rows.conn, [id_, id_ + 1]) == {id_: "queued"}
    assert queries.standings(rows.conn, []) == {}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"gid": "x", "artwork_id": 5}, "gid x, artwork_id 5"),
        ({"gid": {"deep": None}}, 'gid {"deep": null}'),
        ({}, ""),
    ],
)
def test_a_message_is_one_line(message: dict[str, object], text: str) -> None:
    assert words.message(message) == text
