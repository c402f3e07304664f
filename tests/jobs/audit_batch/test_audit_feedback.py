"""The trigger on the queue: what the audit hears, and that it never gets in the way."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.jobs.audit_batch.audit_scene import Scene
from tests.timing import LIMIT_S, at_most

UNKNOWN = "00000000-0000-4000-8000-0000000000aa"


@pytest.fixture
def indexer(scene: Scene) -> Iterator[psycopg.Connection]:
    """artwork-indexer's session."""
    with psycopg.connect(scene.dsn, autocommit=True) as conn:
        yield conn


def _set(scene: Scene, gid: str, status: str) -> None:
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET status = %s WHERE gid = %s", (status, gid)
    )


def _entity(scene: Scene, gid: str) -> tuple[str, str, int]:
    [row] = scene.rows("SELECT * FROM artwork_indexer.audit_entity WHERE gid = %s", gid)
    return (row.entity_type, row.status, row.priority)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("repair_queue", "unchecked"),
        ("manual_review", "unchecked"),
        ("clean", "clean"),
        ("legacy", "unchecked"),
        ("unchecked", "unchecked"),
        ("audit_in_progress", "audit_in_progress"),
    ],
)
def test_a_completed_event_sends_repairs_and_reviews_to_their_next_audit(
    scene: Scene, before: str, after: str
) -> None:
    gid = scene.plan(None).gid
    _set(scene, gid, before)
    scene.finish(scene.queue(gid))
    assert scene.status(gid) == after


@pytest.mark.parametrize(
    ("action", "priority"), [("delete_image", 100), ("copy_image", 100), ("deindex", 150)]
)
@pytest.mark.parametrize("status", ["clean", "legacy"])
def test_what_changes_an_items_images_makes_it_due_again(
    scene: Scene, status: str, action: str, priority: int
) -> None:
    gid = scene.plan(None).gid
    _set(scene, gid, status)
    scene.queue(gid)
    scene.finish(scene.queue(gid, action=action))
    assert _entity(scene, gid) == ("release", "unchecked", priority)


@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize("key", ["gid", "old_gid", "new_gid"])
def test_the_next_audit_waits_for_the_last_event(scene: Scene, key: str, state: str) -> None:
    gid = scene.plan(None).gid
    _set(scene, gid, "repair_queue")
    first = scene.queue(gid)
    last = scene.queue(gid, state=state, action="copy_image", message={key: gid})
    scene.finish(first)
    assert scene.status(gid) == "repair_queue"
    scene.finish(last)
    assert scene.status(gid) == "unchecked"


def test_events_of_another_type_are_not_waited_for(scene: Scene) -> None:
    gid = scene.plan(None).gid
    _set(scene, gid, "repair_queue")
    scene.queue(gid, entity_type="event")
    scene.finish(scene.queue(gid))
    assert scene.status(gid) == "unchecked"


def test_the_last_two_events_may_be_completed_at_once(
    scene: Scene, indexer: psycopg.Connection
) -> None:
    gid = scene.plan(None).gid
    _set(scene, gid, "repair_queue")
    first = scene.queue(gid, state="running")
    last = scene.queue(gid, action="deindex", state="running")
    with psycopg.connect(scene.dsn, autocommit=True) as other:
        with indexer.transaction():
            indexer.execute(_COMPLETE, (first,))
            with psycopg.connect(scene.dsn, autocommit=True) as watcher:
                other.pgconn.send_query_params(
                    _COMPLETE.replace("%s", "$1").encode(), [str(last).encode()]
                )
                _wait_until_blocked(watcher)
        while other.pgconn.get_result() is not None:
            pass
    assert scene.status(gid) == "unchecked"


_COMPLETE = "UPDATE artwork_indexer.event_queue SET state = 'completed' WHERE id = %s"


def _wait_until_blocked(watcher: psycopg.Connection) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not watcher.execute(
        "SELECT 1 FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone():
        assert time.monotonic() < deadline, "nobody waits for a lock"
        time.sleep(0.01)


def test_an_unknown_entity_is_added_behind_all_others(scene: Scene) -> None:
    scene.finish(scene.queue(UNKNOWN.upper(), entity_type="event"))
    assert _entity(scene, UNKNOWN) == ("event", "unchecked", 10)


def test_a_copied_image_is_about_two_entities(scene: Scene) -> None:
    known = scene.plan(None).gid
    _set(scene, known, "repair_queue")
    message = {"artwork_id": 1, "old_gid": known, "new_gid": UNKNOWN, "suffix": "jpg"}
    scene.finish(scene.queue(known, action="copy_image", message=message))
    assert scene.status(known) == "unchecked"
    assert _entity(scene, UNKNOWN) == ("release", "unchecked", 10)


@pytest.mark.parametrize(
    "status", ["unchecked", "audit_in_progress", "clean", "repair_queue", "legacy"]
)
def test_a_failed_event_asks_a_person(scene: Scene, status: str) -> None:
    gid = scene.plan(None).gid
    _set(scene, gid, status)
    event_id = scene.queue(gid)
    scene.finish(event_id, state="failed")
    assert scene.status(gid) == "manual_review"
    [review] = scene.reviews(gid)
    assert review.status == "open"
    assert f"event {event_id} has failed: index" in review.review_reason
    assert gid in review.review_reason


def test_a_failed_event_of_an_unknown_entity_asks_a_person_too(scene: Scene) -> None:
    scene.finish(scene.queue(UNKNOWN), state="failed")
    assert _entity(scene, UNKNOWN) == ("release", "manual_review", 10)
    assert len(scene.reviews(UNKNOWN)) == 1


def test_failures_add_up_in_one_open_review(scene: Scene) -> None:
    gid = scene.plan(None).gid
    delete = scene.queue(gid, action="delete_image", message={"gid": gid, "artwork_id": 1})
    index = scene.queue(gid)
    # The dependant fails with its parent.
    scene.finish(delete, index, state="failed")
    scene.conn.execute(
        "UPDATE artwork_indexer.event_queue SET state = 'queued' WHERE id = %s", (index,)
    )
    scene.finish(index, state="failed")
    [review] = scene.reviews(gid)
    assert review.review_reason.count(f"event {delete} has failed") == 1
    assert review.review_reason.count(f"event {index} has failed") == 1


def test_a_failed_event_that_is_queued_once_more_leaves_the_answer_to_that_one(
    scene: Scene,
) -> None:
    gid = scene.plan(None).gid
    _set(scene, gid, "repair_queue")
    first = scene.queue(gid, state="running")
    again = scene.queue(gid)
    scene.conn.execute(
        "UPDATE artwork_indexer.event_queue SET state = 'failed' WHERE id = %s", (first,)
    )
    assert (scene.status(gid), scene.reviews(gid)) == ("repair_queue", [])
    scene.finish(again)
    assert scene.status(gid) == "unchecked"


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_noop_means_nothing(scene: Scene, state: str) -> None:
    gid = scene.plan(None).gid
    _set(scene, gid, "repair_queue")
    scene.finish(scene.queue(gid, action="noop"), state=state)
    assert scene.status(gid) == "repair_queue"


def test_an_event_that_stays_as_it_is_means_nothing(scene: Scene) -> None:
    gid = scene.plan(None).gid
    event_id = scene.queue(gid, state="completed")
    _set(scene, gid, "repair_queue")
    scene.conn.execute(_COMPLETE, (event_id,))
    assert scene.status(gid) == "repair_queue"


@pytest.mark.parametrize("state", ["completed", "failed"])
@pytest.mark.parametrize(
    "message",
    [
        '{"gid": "A"}',
        '{"gid": null}',
        '{"gid": 7}',
        '{"gid": ["x"]}',
        '{"gid": "00000000-0000-4000-8000-0000000000aa; DROP TABLE x"}',
        '{"fail": true}',
        "[]",
        '"text"',
        "null",
    ],
)
def test_a_message_that_names_no_gid_names_no_entity(
    scene: Scene, indexer: psycopg.Connection, message: str, state: str
) -> None:
    warnings = _listen(indexer)
    before = scene.value("SELECT count(*) FROM artwork_indexer.audit_entity")
    indexer.execute(
        "INSERT INTO artwork_indexer.event_queue (entity_type, action, message)"
        " VALUES ('release', 'index', %s)",
        (message,),
    )
    indexer.execute("UPDATE artwork_indexer.event_queue SET state = %s", (state,))
    assert [event.state for event in scene.events()] == [state]
    assert scene.value("SELECT count(*) FROM artwork_indexer.audit_entity") == before
    assert warnings == []


def test_half_of_a_message_is_heard(scene: Scene) -> None:
    message = {"artwork_id": 1, "old_gid": "A", "new_gid": UNKNOWN}
    scene.finish(scene.queue("A", action="copy_image", message=message))
    assert _entity(scene, UNKNOWN) == ("release", "unchecked", 10)


def _listen(conn: psycopg.Connection) -> list[str]:
    """Collect the warnings that a session is sent."""
    warnings: list[str] = []
    conn.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    return warnings


# -- never in artwork-indexer's way ------------------------------------------------------------


def test_what_is_locked_by_others_is_waited_for_two_seconds_and_no_longer(
    scene: Scene, indexer: psycopg.Connection
) -> None:
    gid = scene.plan(None).gid
    _set(scene, gid, "repair_queue")
    event_id = scene.queue(gid, state="running")
    warnings = _listen(indexer)
    with scene.conn.transaction():
        scene.conn.execute("LOCK TABLE artwork_indexer.audit_entity IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        with at_most(4):
            indexer.execute(_COMPLETE, (event_id,))
        took = time.monotonic() - began
    assert [event.state for event in scene.events()] == ["completed"]
    assert took > 1.5
    assert [f"did not hear of event {event_id}" in warning for warning in warnings] == [True]
    assert indexer.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_a_statement_time_out_of_the_indexers_own_does_not_strike_it_here(
    scene: Scene, indexer: psycopg.Connection
) -> None:
    gid = scene.plan(None).gid
    _set(scene, gid, "repair_queue")
    event_id = scene.queue(gid, state="running")
    indexer.execute("SET statement_timeout = '200ms'")
    with scene.conn.transaction():
        scene.conn.execute(
            "SELECT 1 FROM artwork_indexer.audit_entity WHERE gid = %s FOR UPDATE", (gid,)
        )
        indexer.execute(_COMPLETE, (event_id,))
    assert [event.state for event in scene.events()] == ["completed"]


def test_without_our_tables_the_indexer_works_on(own_scene: Scene) -> None:
    scene = own_scene
    event_id = scene.queue(scene.plan(None).gid)
    scene.conn.execute(
        "DROP TABLE artwork_indexer.audit_entity, artwork_indexer.needs_manual_review,"
        " artwork_indexer.audit_result CASCADE"
    )
    scene.finish(event_id)
    failed = scene.queue(scene.plan(None, skip=1).gid)
    scene.finish(failed, state="failed")
    assert [event.state for event in scene.events()] == ["completed", "failed"]


def test_it_works_for_a_role_that_may_not_touch_our_tables(own_scene: Scene) -> None:
    scene = own_scene
    gid = scene.plan(None).gid
    event_id = scene.queue(gid, state="running")
    role = sql.Identifier(f"indexer_{uuid.uuid4().hex}")
    grant = "GRANT USAGE ON SCHEMA artwork_indexer TO {}"
    queue = "GRANT SELECT, INSERT, UPDATE, DELETE ON artwork_indexer.event_queue TO {}"
    scene.conn.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        for statement in (grant, queue):
            scene.conn.execute(sql.SQL(statement).format(role))
        scene.conn.execute(sql.SQL("SET ROLE {}").format(role))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            scene.conn.execute("SELECT 1 FROM artwork_indexer.audit_entity")
        scene.conn.execute(
            "UPDATE artwork_indexer.event_queue SET state = 'failed' WHERE id = %s", (event_id,)
        )
    finally:
        scene.conn.execute("RESET ROLE")
        scene.conn.execute(sql.SQL("DROP OWNED BY {}").format(role))
        scene.conn.execute(sql.SQL("DROP ROLE {}").format(role))
    assert scene.status(gid) == "manual_review"


def test_a_search_path_of_the_callers_choice_leads_nowhere(own_scene: Scene) -> None:
    scene = own_scene
    gid = scene.plan(None).gid
    event_id = scene.queue(gid, state="running")
    _set(scene, gid, "repair_queue")
    scene.conn.execute(
        "CREATE SCHEMA trap;"
        " CREATE FUNCTION trap.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'trapped' $$;"
        " SET search_path = trap, pg_catalog"
    )
    scene.conn.execute(_COMPLETE, (event_id,))
    assert scene.status(gid) == "unchecked"


def test_the_queue_can_be_truncated(scene: Scene) -> None:
    gid = scene.plan("index-missing").gid
    scene.audit(gid)
    scene.conn.execute("TRUNCATE artwork_indexer.event_queue CASCADE")
    assert scene.status(gid) == "repair_queue"
    assert len(scene.results(gid)) == 1


@pytest.mark.parametrize("has_trigger", [True, False])
def test_the_queue_itself_is_the_same_with_and_without_us(
    own_scene: Scene, has_trigger: bool
) -> None:
    scene = own_scene
    if not has_trigger:
        scene.conn.execute("DROP TRIGGER audit_feedback ON artwork_indexer.event_queue")
    gids = [scene.plan(None, skip=skip).gid for skip in range(3)]
    completed, failed, retried = (scene.queue(gid) for gid in gids)
    scene.finish(completed)
    scene.finish(failed, state="failed")
    scene.finish(retried, state="queued")
    rows = scene.rows(
        "SELECT id, state::text, entity_type::text, action::text, message, depends_on, attempts"
        " FROM artwork_indexer.event_queue ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [
        (completed, "completed", "release", "index", {"gid": gids[0]}, None, 0),
        (failed, "failed", "release", "index", {"gid": gids[1]}, None, 0),
        (retried, "queued", "release", "index", {"gid": gids[2]}, None, 0),
    ]
