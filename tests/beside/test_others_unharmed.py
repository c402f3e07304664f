"""Our triggers can neither fail nor delay the statements of others, whatever is wrong with us."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.beside.rows import (
    IMAGE,
    LIVE,
    ORPHAN,
    OWNER,
    Place,
    deindex,
    deletion,
    gid,
    index,
)
from tests.timing import at_most

#: What one event may take longer for our triggers, in seconds.
MOST_PER_EVENT_S = 0.0001

BROKEN = {
    "no table": "DROP TABLE artwork_indexer.audit_event",
    "no helper": "DROP FUNCTION artwork_indexer.audit_withdraw_events",
    "no bucket": "DROP FUNCTION artwork_indexer.audit_bucket",
    "no rights on our table": "REVOKE ALL ON artwork_indexer.audit_event FROM audit_owner",
    "no rights on the queue": "REVOKE DELETE ON artwork_indexer.event_queue FROM audit_owner",
    "another shape": "ALTER TABLE artwork_indexer.audit_event RENAME COLUMN gid TO mbid",
}


def edit_all(place: Place) -> None:
    """One edit of each kind, also one that meets our events."""
    place.foreign("index", {"gid": gid(ORPHAN)}, "ON CONFLICT DO NOTHING")
    place.edit("UPDATE musicbrainz.release SET name = name || '!'")
    place.edit(f"UPDATE cover_art_archive.cover_art SET release = 3 WHERE id = {IMAGE}")
    place.edit("DELETE FROM cover_art_archive.cover_art")
    place.edit(f"DELETE FROM musicbrainz.release WHERE id = {OWNER}")
    (event, *_) = place.events(action="delete_image", state="queued")
    place.run(event.id, ends="queued")


@pytest.fixture
def owner_without_power(place: Place) -> Place:
    """A place whose triggers run with the rights of a role that has only those it needs."""
    place.edit("DROP OWNED BY audit_owner" if _has_role(place) else "CREATE ROLE audit_owner")
    place.edit(
        "GRANT USAGE, CREATE ON SCHEMA artwork_indexer TO audit_owner;"
        "GRANT SELECT, UPDATE, DELETE ON artwork_indexer.event_queue TO audit_owner;"
        "GRANT SELECT ON artwork_indexer.audit_event TO audit_owner;"
        "ALTER FUNCTION artwork_indexer.audit_withdraw OWNER TO audit_owner;"
        "ALTER FUNCTION artwork_indexer.audit_withdraw_failed OWNER TO audit_owner"
    )
    return place


def _has_role(place: Place) -> bool:
    query = "SELECT FROM pg_roles WHERE rolname = 'audit_owner'"
    return bool(place.editor.execute(query).fetchall())


@pytest.mark.parametrize("change", list(BROKEN.values()), ids=list(BROKEN))
def test_no_edit_fails_because_something_of_ours_is_missing(
    owner_without_power: Place, change: str
) -> None:
    place = owner_without_power
    place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
    place.edit(change)
    edit_all(place)


def test_a_role_without_rights_on_our_tables_fires_our_triggers(
    owner_without_power: Place,
) -> None:
    place = owner_without_power
    ours = place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
    place.edit(
        "DROP OWNED BY artwork_editor" if _editor_exists(place) else "CREATE ROLE artwork_editor"
    )
    place.edit(
        "GRANT USAGE ON SCHEMA artwork_indexer TO artwork_editor;"
        "GRANT SELECT, INSERT ON artwork_indexer.event_queue TO artwork_editor;"
        "GRANT USAGE ON SEQUENCE artwork_indexer.event_queue_id_seq TO artwork_editor;"
        "SET ROLE artwork_editor"
    )
    theirs = place.foreign("index", {"gid": gid(ORPHAN)})
    assert [event.id for event in place.events()] == [theirs]
    assert theirs not in ours
    place.edit("RESET ROLE")


def _editor_exists(place: Place) -> bool:
    query = "SELECT FROM pg_roles WHERE rolname = 'artwork_editor'"
    return bool(place.editor.execute(query).fetchall())


ODD_SETTINGS = [
    "SET search_path = ''",
    "SET search_path = pg_temp, nowhere; CREATE TEMP TABLE audit_event (event_id TEXT)",
    "SET lock_timeout = '1ms'",
    "SET statement_timeout = '5s'",
    "SET default_transaction_isolation = 'repeatable read'",
    "SET default_transaction_isolation = 'serializable'",
    "SET plan_cache_mode = force_generic_plan",
    "SET plan_cache_mode = force_custom_plan",
    "SET row_security = off",
    "SET artwork_backfill.queueing = 'off'",
    "SET artwork_backfill.queueing = ''",
    "SET enable_indexscan = off; SET enable_bitmapscan = off",
    "SET client_min_messages = error",
    "SET standard_conforming_strings = off",
    "SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kathmandu'",
    "LOAD 'plpgsql'; SET plpgsql.extra_errors = 'all'; SET plpgsql.variable_conflict = error",
]


@pytest.mark.parametrize("setting", ODD_SETTINGS)
def test_whatever_a_session_has_set_edits_succeed_and_withdraw(place: Place, setting: str) -> None:
    ours = place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
    place.edit(setting)
    edit_all(place)
    assert not set(ours) & {event.id for event in place.events()}


def test_a_marker_of_an_earlier_transaction_hides_no_edit(place: Place) -> None:
    # As ours leaves it on a connection that a pool gives to somebody else.
    place.queued(LIVE, index(LIVE))
    place.queued(ORPHAN, deletion(ORPHAN))
    place.ours.execute(
        "INSERT INTO artwork_indexer.event_queue (entity_type, action, message)"
        " SELECT 'release', 'index', jsonb_build_object('gid', %s::text)",
        (gid(ORPHAN),),
    )
    assert [event.action for event in place.events() if event.message["gid"] == gid(ORPHAN)] == [
        "index"
    ]


def test_an_old_snapshot_lets_an_edit_through(place: Place) -> None:
    with place.editor.transaction():
        place.edit("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        place.edit("SELECT FROM artwork_indexer.event_queue")
        place.queued(ORPHAN, deletion(ORPHAN))
        place.foreign("index", {"gid": gid(ORPHAN)})
    assert len(place.events()) == 2


def test_a_cancelled_statement_is_cancelled(place: Place) -> None:
    (ours,) = place.queued(ORPHAN, deletion(ORPHAN))
    place.edit("SET statement_timeout = '100ms'")
    event = deletion(ORPHAN)
    with place.taken(ours), pytest.raises(psycopg.errors.QueryCanceled), at_most(1):
        place.foreign(event.action, dict(event.message))


def test_a_lock_on_our_table_delays_an_edit_by_two_seconds_at_most(place: Place) -> None:
    place.queued(ORPHAN, deletion(ORPHAN))
    with place.ours.transaction():
        place.ours.execute("LOCK artwork_indexer.audit_event IN ACCESS EXCLUSIVE MODE")
        with at_most(2.5):
            place.foreign("index", {"gid": gid(ORPHAN)})


def test_an_edit_of_any_size_takes_no_more_than_256_locks(place: Place) -> None:
    with place.editor.transaction():
        place.edit(
            "INSERT INTO artwork_indexer.event_queue (entity_type, action, message)"
            " SELECT 'release', 'copy_image', jsonb_build_object("
            "   'artwork_id', n, 'old_gid', gen_random_uuid(), 'new_gid', gen_random_uuid())"
            " FROM generate_series(1, 2000) AS n"
        )
        assert 200 < place.locks(place.editor) <= 256


def test_an_edit_that_only_indexes_takes_no_lock(place: Place) -> None:
    with place.editor.transaction():
        place.edit("UPDATE musicbrainz.release SET name = name || '!'")
        assert place.locks(place.editor) == 0


# -- mass edits ------------------------------------------------------------------------------------


def fill(place: Place, releases: int) -> None:
    place.edit(
        f"""
        INSERT INTO musicbrainz.release (id, gid, name, artist_credit)
        SELECT n, ('10000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'r', 5
        FROM generate_series(1001, 1000 + {releases}) AS n;
        ALTER TABLE cover_art_archive.cover_art DISABLE TRIGGER USER;
        INSERT INTO cover_art_archive.cover_art (id, release, edit, ordering, mime_type)
        SELECT n, n, 1, 1, 'image/jpeg' FROM generate_series(1001, 1000 + {releases}) AS n;
        ALTER TABLE cover_art_archive.cover_art ENABLE TRIGGER USER;
        ANALYZE musicbrainz.release, cover_art_archive.cover_art
        """
    )


#: Events of ours for entities that no edit touches, and for every hundredth that it does.
OURS = """
INSERT INTO artwork_indexer.event_queue (entity_type, action, message, created)
SELECT 'release', 'index', jsonb_build_object('gid', 'f0000000-0000-4000-8000-' ||
       lpad(n::text, 12, '0')), now() - interval '1 hour'
FROM generate_series(1, {size}) AS n;
INSERT INTO artwork_indexer.event_queue (entity_type, action, message)
SELECT 'release', 'index', jsonb_build_object('gid', release.gid)
FROM musicbrainz.release WHERE id > 1000 AND id %% 100 = 0;
INSERT INTO artwork_indexer.audit_entity (entity_type, gid)
SELECT entity_type, (message->>'gid')::uuid FROM artwork_indexer.event_queue
ON CONFLICT DO NOTHING;
INSERT INTO artwork_indexer.audit_event (event_id, entity_type, gid, action, message, owner_gid)
SELECT id, entity_type, (message->>'gid')::uuid, action, message, gen_random_uuid()
FROM artwork_indexer.event_queue
"""


def nothing(place: Place) -> None:
    pass


def analysed_while_empty(place: Place) -> None:
    place.edit("ANALYZE artwork_indexer.event_queue, artwork_indexer.audit_event")
    # Plans that fit an empty table are kept by the session, and then the table grows.
    for number in range(8):
        place.foreign("delete_image", {"gid": gid(500), "artwork_id": number})
    large(place)


def large(place: Place) -> None:
    place.edit(OURS.format(size=40_000).replace("%%", "%"))


def analysed(place: Place) -> None:
    large(place)
    place.edit("ANALYZE artwork_indexer.event_queue, artwork_indexer.audit_event")


RENAME = "UPDATE musicbrainz.release SET name = name || '!' WHERE id > 1000"
MOVE = "UPDATE cover_art_archive.cover_art SET release = 1 + id % 3 WHERE id > 1000"


def cpu_s(place: Place) -> float:
    """The processor time that the editor's server process has used: other load does not count."""
    fields = (
        Path(f"/proc/{place.editor.info.backend_pid}/stat").read_text().rpartition(")")[2].split()
    )
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("state", "edit", "entities", "events"),
    [
        (nothing, RENAME, 5_000, 5_000),
        (analysed_while_empty, RENAME, 5_000, 5_000),
        (large, RENAME, 5_000, 5_000),
        (nothing, MOVE, 2_500, 10_000),
        (analysed_while_empty, MOVE, 1_250, 5_000),
        (analysed, MOVE, 1_250, 5_000),
    ],
)
def test_a_mass_edit_takes_at_most_a_tenth_of_a_millisecond_longer_for_each_event(
    place: Place,
    state: Callable[[Place], None],
    edit: str,
    entities: int,
    events: int,
    record_property: Callable[[str, object], None],
) -> None:
    fill(place, entities)
    state(place)

    def timed() -> float:
        started = cpu_s(place)
        with place.editor.transaction(force_rollback=True):
            place.edit(edit)
        return cpu_s(place) - started

    with_ours = min(timed() for _ in range(2))
    place.edit("ALTER TABLE artwork_indexer.event_queue DISABLE TRIGGER audit_withdraw")
    per_event = (with_ours - min(timed() for _ in range(2))) / events
    record_property("ms_per_event", round(per_event * 1000, 4))
    assert per_event < MOST_PER_EVENT_S
