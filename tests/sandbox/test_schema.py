"""The outside schemas behave as the real ones in what the jobs rely on."""

from __future__ import annotations

import psycopg
import pytest

from sandbox import schema

QUEUE = """
INSERT INTO artwork_indexer.event_queue (entity_type, action, message)
VALUES ('release', 'index', '{"gid": "0"}') RETURNING id
"""

REASON = """
INSERT INTO artwork_indexer.event_failure_reason (event, failure_reason)
SELECT id, 'it broke' FROM artwork_indexer.event_queue
"""


def test_two_identical_events_cannot_both_be_queued(musicbrainz_database: str) -> None:
    with psycopg.connect(musicbrainz_database, autocommit=True) as conn:
        conn.execute(QUEUE)
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute(QUEUE)
        conn.execute("UPDATE artwork_indexer.event_queue SET state = 'running'")
        conn.execute(QUEUE)


def test_an_update_moves_last_updated_unless_it_sets_it(musicbrainz_database: str) -> None:
    stamp = "SELECT last_updated FROM artwork_indexer.event_queue"
    with psycopg.connect(musicbrainz_database, autocommit=True) as conn:
        conn.execute(QUEUE)
        first = conn.execute(stamp).fetchone()
        conn.execute("UPDATE artwork_indexer.event_queue SET attempts = 1")
        assert conn.execute(stamp).fetchone() != first
        conn.execute("UPDATE artwork_indexer.event_queue SET last_updated = '2020-01-01Z'")
        assert conn.execute(f"{stamp} WHERE last_updated = '2020-01-01Z'").fetchone()


def test_failure_reasons_go_with_their_event(musicbrainz_database: str) -> None:
    with psycopg.connect(musicbrainz_database) as conn:
        conn.execute(QUEUE)
        conn.execute(REASON)
        conn.execute("DELETE FROM artwork_indexer.event_queue")
        assert conn.execute("TABLE artwork_indexer.event_failure_reason").fetchall() == []


LISTING = """
INSERT INTO musicbrainz.edit (id, close_time) VALUES (1, now()), (2, NULL);
INSERT INTO musicbrainz.release (id, gid, name, artist_credit)
    VALUES (1, '00000000-0000-4000-8000-000000000001', 'r', 1);
INSERT INTO cover_art_archive.cover_art (id, release, edit, ordering, mime_type) VALUES
    (30, 1, 1, 2, 'image/jpeg'), (20, 1, 2, 1, 'image/png'), (10, 1, 1, 3, 'application/pdf');
INSERT INTO cover_art_archive.cover_art_type VALUES (30, 1), (20, 1), (20, 2);
"""


def test_the_listing_tells_the_first_front_and_whether_the_edit_is_closed(
    musicbrainz_database: str,
) -> None:
    with psycopg.connect(musicbrainz_database) as conn:
        conn.execute(LISTING)
        rows = conn.execute(
            "SELECT id, approved, is_front, is_back, array_length(types, 1)"
            " FROM cover_art_archive.index_listing ORDER BY ordering"
        ).fetchall()
    assert rows == [
        (20, False, True, True, 2),
        (30, True, False, False, 1),
        (10, True, False, False, None),
    ]


def test_the_listing_of_events_has_no_back(musicbrainz_database: str) -> None:
    with psycopg.connect(musicbrainz_database) as conn:
        cursor = conn.execute("SELECT * FROM event_art_archive.index_listing")
        assert cursor.description is not None
        names = {column.name for column in cursor.description}
    assert "is_front" in names
    assert "is_back" not in names


@pytest.mark.parametrize("newer", [True, False])
def test_an_old_library_has_six_columns_at_most(empty_database: str, newer: bool) -> None:
    with psycopg.connect(empty_database) as conn:
        schema.create_wxyc(conn, "radio", is_old=not newer)
        conn.commit()
        cursor = conn.execute("SELECT * FROM radio.library")
        assert cursor.description is not None
        assert ("discogs_unavailable" in {c.name for c in cursor.description}) is newer
