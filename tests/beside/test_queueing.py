"""The function that queues the events of one entity: all of them, or none and a reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from artwork_backfill.shared.auditing.queueing import (
    EventToQueue,
    Obstacle,
    Queueing,
    QueueRequest,
    queue_events,
)
from tests.beside.rows import (
    BYSTANDER,
    IMAGE,
    LIVE,
    ORPHAN,
    OWN_IMAGE,
    OWNER,
    RUN,
    Place,
    deindex,
    deletion,
    gid,
    index,
    is_waiting_for_lock,
    meanwhile,
    wait_until,
)


def test_all_events_are_queued_noted_and_recorded_at_once(place: Place) -> None:
    findings = [{"check": "orphan.image"}]
    request = place.request(
        ORPHAN, [deletion(ORPHAN), deindex(ORPHAN, 0)], findings=findings, run_id=RUN
    )
    outcome = queue_events(place.ours, request)
    first, second = outcome.event_ids
    assert [
        (event.id, event.action, event.depends_on, event.state) for event in place.events()
    ] == [
        (first, "delete_image", None, "queued"),
        (second, "deindex", [first], "queued"),
    ]
    assert [
        (row.event_id, str(row.gid), row.action, row.artwork_id, str(row.owner_gid))
        for row in place.rows("TABLE artwork_indexer.audit_event")
    ] == [
        (first, gid(ORPHAN), "delete_image", IMAGE, gid(OWNER)),
        (second, gid(ORPHAN), "deindex", None, "None"),
    ]
    entity = place.entity(ORPHAN)
    assert (entity.status, entity.claimed_by) == ("repair_queue", None)
    (result,) = place.rows("TABLE artwork_indexer.audit_result")
    assert (result.run_id, result.outcome, result.findings, result.event_ids) == (
        RUN,
        "repair_queue",
        findings,
        [first, second],
    )
    assert result.audited_at == entity.last_audit_at


def test_events_are_found_again_after_the_answer_to_the_commit_was_lost(place: Place) -> None:
    request = place.request(ORPHAN, [deletion(ORPHAN)])
    first = queue_events(place.ours, request)
    assert queue_events(place.ours, request) == first
    assert len(place.events()) == 1


def test_a_claim_that_another_run_has_taken_back_queues_nothing(place: Place) -> None:
    request = place.request(ORPHAN, [deletion(ORPHAN)])
    place.claim(ORPHAN)
    assert queue_events(place.ours, request) == Queueing(obstacle=Obstacle.LOST)
    assert place.events() == []


@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("index", {"gid": gid(ORPHAN)}),
        ("copy_image", {"old_gid": gid(ORPHAN), "new_gid": gid(BYSTANDER)}),
        ("copy_image", {"old_gid": gid(BYSTANDER), "new_gid": gid(ORPHAN).upper()}),
    ],
)
def test_an_event_of_the_entity_is_in_the_way(
    place: Place, action: str, message: dict[str, object], state: str
) -> None:
    place.foreign(action, message)
    place.edit(f"UPDATE artwork_indexer.event_queue SET state = '{state}'")
    assert place.queue(ORPHAN, deletion(ORPHAN)).obstacle is Obstacle.EVENT_QUEUED


def test_an_event_of_another_type_with_the_same_gid_is_not_in_the_way(place: Place) -> None:
    place.edit(
        "INSERT INTO artwork_indexer.event_queue (entity_type, action, message)"
        f" VALUES ('event', 'index', jsonb_build_object('gid', '{gid(ORPHAN)}'))"
    )
    place.queued(ORPHAN, deletion(ORPHAN))


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_an_event_that_came_and_went_since_the_claim_is_in_the_way(
    place: Place, state: str
) -> None:
    request = place.request(ORPHAN, [deletion(ORPHAN)])
    place.foreign("index", {"gid": gid(ORPHAN)})
    place.edit("ALTER TABLE artwork_indexer.event_queue DISABLE TRIGGER audit_feedback")
    place.edit(f"UPDATE artwork_indexer.event_queue SET state = '{state}'")
    assert queue_events(place.ours, request).obstacle is Obstacle.EVENT_SINCE


@pytest.mark.parametrize(
    ("action", "obstacle"),
    [
        ("copy_image", Obstacle.OWNER_BUSY),
        ("delete_image", Obstacle.OWNER_BUSY),
        ("deindex", Obstacle.OWNER_BUSY),
        ("index", None),
    ],
)
def test_an_event_that_may_change_the_owners_copy_is_in_the_way(
    place: Place, action: str, obstacle: Obstacle | None
) -> None:
    place.foreign(action, {"gid": gid(OWNER), "artwork_id": 5})
    assert place.queue(ORPHAN, deletion(ORPHAN)).obstacle is obstacle


def test_two_deletions_never_rely_on_each_other(place: Place) -> None:
    place.queued(ORPHAN, deletion(ORPHAN))
    assert (
        place.queue(OWNER, deletion(OWNER, 72, owner=None), index(OWNER, 0)).obstacle
        is Obstacle.OWNER_BUSY
    )
    place.queued(OWNER, index(OWNER))


@pytest.mark.parametrize(
    ("edit", "obstacle"),
    [
        (f"UPDATE cover_art_archive.cover_art SET release = {BYSTANDER}", Obstacle.OWNER_CHANGED),
        ("DELETE FROM cover_art_archive.cover_art", Obstacle.OWNER_CHANGED),
        (
            f"UPDATE musicbrainz.release SET gid = '{gid(ORPHAN)}' WHERE id = 3",
            Obstacle.ENTITY_CHANGED,
        ),
    ],
)
def test_what_musicbrainz_has_changed_since_the_claim_is_in_the_way(
    place: Place, edit: str, obstacle: Obstacle
) -> None:
    request = place.request(ORPHAN, [deletion(ORPHAN)])
    place.edit(edit)
    # Even when artwork-indexer has carried out all of it already.
    place.edit("TRUNCATE artwork_indexer.event_queue CASCADE")
    assert queue_events(place.ours, request).obstacle is obstacle
    assert place.events() == []


def test_an_image_of_the_entity_itself_is_not_deleted(place: Place) -> None:
    event = deletion(LIVE, OWN_IMAGE, owner=None)
    assert place.queue(LIVE, event).obstacle is Obstacle.OWNER_CHANGED


def test_the_images_and_entities_of_events_are_looked_up_in_their_own_tables(place: Place) -> None:
    place.edit(
        f"INSERT INTO musicbrainz.event (id, gid, name) VALUES (1, '{gid(4)}', 'e');"
        "INSERT INTO event_art_archive.event_art (id, event, edit, ordering, mime_type)"
        " VALUES (80, 1, 1, 1, 'image/jpeg'); TRUNCATE artwork_indexer.event_queue CASCADE"
    )
    id_, claimed_at = place.claim(ORPHAN, "event")
    request = QueueRequest(
        id_, RUN, [deletion(ORPHAN, 80, owner=4)], claimed_at=claimed_at, is_live=False
    )
    assert len(queue_events(place.ours, request).event_ids) == 1
    other = replace(request, events=[deletion(ORPHAN, IMAGE, owner=OWNER)])
    place.edit("TRUNCATE artwork_indexer.event_queue CASCADE")
    other = replace(other, claimed_at=place.claim(ORPHAN, "event")[1])
    assert queue_events(place.ours, other).obstacle is Obstacle.OWNER_CHANGED


@pytest.mark.parametrize(("max_depth", "has_room"), [(0, True), (3, True), (2, False)])
def test_the_queue_grows_no_longer_than_it_may(
    place: Place, max_depth: int, has_room: bool
) -> None:
    place.foreign("noop", {})
    outcome = place.queue(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0), max_depth=max_depth)
    assert (outcome.obstacle is None) is has_room
    assert has_room or outcome.obstacle is Obstacle.NO_ROOM


def test_an_entity_that_needs_more_than_the_limit_has_an_empty_queue_for_itself(
    place: Place,
) -> None:
    place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0), max_depth=1)


def test_on_a_persons_word_the_entity_need_not_be_claimed(place: Place) -> None:
    request = replace(place.request(ORPHAN, [deletion(ORPHAN)]), claimed_at=None)
    assert queue_events(place.ours, request).obstacle is Obstacle.BEING_AUDITED
    place.edit("UPDATE artwork_indexer.audit_entity SET status = 'manual_review'")
    assert len(queue_events(place.ours, request).event_ids) == 1
    assert place.entity(ORPHAN).status == "repair_queue"


class TestQueuedAgain:
    def fail(self, place: Place, *events: EventToQueue) -> list[int]:
        ids = place.queued(ORPHAN, *events)
        place.edit(
            "UPDATE artwork_indexer.event_queue SET state = 'failed', attempts = 5,"
            " created = now() - interval '1 day'"
        )
        return ids

    def again(self, place: Place, ids: list[int], *events: EventToQueue) -> Queueing:
        wanted = [replace(event, event_id=id_) for event, id_ in zip(events, ids, strict=True)]
        request = place.request(ORPHAN, wanted, claimed_at=None, result=None)
        place.edit("UPDATE artwork_indexer.audit_entity SET status = 'manual_review'")
        return queue_events(place.ours, request)

    def test_failed_events_keep_their_ids_and_wait_behind_what_is_queued(
        self, place: Place
    ) -> None:
        events = deletion(ORPHAN), deindex(ORPHAN, 0)
        ids = self.fail(place, *events)
        assert self.again(place, ids, *events).event_ids == tuple(ids)
        for event in place.events():
            assert (event.state, event.attempts) == ("queued", 0)
            assert event.last_updated - event.created < timedelta(minutes=1)
        assert place.events()[1].depends_on == ids[:1]

    def test_they_are_withdrawn_as_new_ones_are(self, place: Place) -> None:
        ids = self.fail(place, deletion(ORPHAN))
        self.again(place, ids, deletion(ORPHAN))
        place.foreign("index", {"gid": gid(ORPHAN)})
        assert not set(ids) & {event.id for event in place.events()}

    def test_an_event_that_is_not_failed_any_more_keeps_all_from_being_queued(
        self, place: Place
    ) -> None:
        events = deletion(ORPHAN), deindex(ORPHAN, 0)
        first, second = self.fail(place, *events)
        place.edit(f"DELETE FROM artwork_indexer.event_queue WHERE id = {second}")
        assert self.again(place, [first, second], *events).obstacle is Obstacle.EVENT_CHANGED
        assert [event.state for event in place.events()] == ["failed"]


MERGE_INTO_ORPHAN = f"""
INSERT INTO artwork_indexer.event_queue (entity_type, action, message)
VALUES ('release', 'copy_image',
        jsonb_build_object('old_gid', '{gid(OWNER)}', 'new_gid', '{gid(ORPHAN)}'))
"""


class TestNothingIsWaitedFor:
    """A transaction that is not committed yet cannot be seen, and is not waited for."""

    @pytest.mark.parametrize(
        "edit",
        [
            MERGE_INTO_ORPHAN,
            f"UPDATE cover_art_archive.cover_art SET release = {BYSTANDER} WHERE id = {IMAGE}",
            f"DELETE FROM cover_art_archive.cover_art WHERE id = {IMAGE}",
            f"DELETE FROM musicbrainz.release WHERE id = {OWNER}",
        ],
    )
    def test_an_open_edit_of_the_entity_or_an_owner_defers(self, place: Place, edit: str) -> None:
        with place.editor.transaction(force_rollback=True):
            place.edit(edit)
            assert place.queue(ORPHAN, deletion(ORPHAN)).obstacle is Obstacle.BUSY
        place.queued(ORPHAN, deletion(ORPHAN))

    def test_an_open_edit_that_queues_the_same_index_defers(self, place: Place) -> None:
        with place.editor.transaction(force_rollback=True):
            place.edit(f"UPDATE musicbrainz.release SET name = 'renamed' WHERE id = {LIVE}")
            assert place.queue(LIVE, index(LIVE)).obstacle is Obstacle.BUSY
            assert place.entity(LIVE).status == "audit_in_progress"
        place.queued(LIVE, index(LIVE))

    def test_an_open_edit_of_another_entity_does_not_defer(self, place: Place) -> None:
        with place.editor.transaction(force_rollback=True):
            place.merge(LIVE, BYSTANDER)
            place.queued(ORPHAN, deletion(ORPHAN))

    def test_a_locked_row_of_the_entity_defers(self, place: Place) -> None:
        request = place.request(LIVE, [index(LIVE)])
        with place.editor.transaction():
            place.edit("SELECT FROM artwork_indexer.audit_entity FOR UPDATE")
            assert queue_events(place.ours, request).obstacle is Obstacle.BUSY

    def test_a_locked_table_defers_after_a_second(self, place: Place) -> None:
        with place.editor.transaction():
            place.edit("LOCK artwork_indexer.event_queue IN ACCESS EXCLUSIVE MODE")
            assert place.queue(LIVE, index(LIVE)).obstacle is Obstacle.BUSY

    def test_no_lock_is_left(self, place: Place) -> None:
        place.queued(ORPHAN, deletion(ORPHAN))
        assert place.locks(place.ours) == 0
        place.queue(ORPHAN, deletion(ORPHAN))
        assert place.locks(place.ours) == 0

    def test_settings_of_the_session_are_as_before(self, place: Place) -> None:
        names = ["statement_timeout", "lock_timeout", "transaction_isolation"]
        before = [place.ours.execute(f"SHOW {name}".encode()).fetchone() for name in names]
        place.queued(ORPHAN, deletion(ORPHAN))
        after = [place.ours.execute(f"SHOW {name}".encode()).fetchone() for name in names]
        assert after == before
        # Not even the marker is left: an event of somebody else on this connection withdraws ours.
        Place(place.dsn, place.editor, place.ours).foreign("index", {"gid": gid(ORPHAN)})
        assert [event.action for event in place.events()] == ["index"]


def test_while_events_are_queued_an_edit_waits_and_then_withdraws_them(place: Place) -> None:
    # Something holds up the function in its midst, with the handshake made.
    slow = psycopg.connect(place.dsn)
    slow.execute("LOCK artwork_indexer.audit_event IN ACCESS EXCLUSIVE MODE")
    request = place.request(ORPHAN, [deletion(ORPHAN)])
    outcomes: list[Queueing] = []
    # Longer than it would wait, so that its end is certain.
    place.ours.execute("ALTER FUNCTION artwork_indexer.audit_queue SET lock_timeout = '10s'")
    with meanwhile(lambda: outcomes.append(queue_events(place.ours, request))):
        ours, editor = place.ours.info.backend_pid, place.editor.info.backend_pid
        wait_until(lambda: is_waiting_for_lock(place.dsn, ours))
        with meanwhile(lambda: place.edit(f"DELETE FROM musicbrainz.release WHERE id = {OWNER}")):
            wait_until(lambda: is_waiting_for_lock(place.dsn, editor))
            slow.close()
    assert len(outcomes[0].event_ids) == 1
    assert not set(outcomes[0].event_ids) & {event.id for event in place.events()}


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_it_works_whatever_the_session_says(place: Place, level: str) -> None:
    place.ours.execute(f"SET default_transaction_isolation = '{level}'".encode())
    place.ours.execute("SET search_path = nowhere")
    request: Any = None
    with psycopg.connect(place.dsn, autocommit=True) as other:
        request = Place(place.dsn, other, place.editor).request(ORPHAN, [deletion(ORPHAN)])
    assert len(queue_events(place.ours, request).event_ids) == 1


def test_a_connection_with_a_transaction_open_is_refused(place: Place) -> None:
    request = place.request(ORPHAN, [deletion(ORPHAN)])
    with place.ours.transaction(), pytest.raises(ValueError, match="autocommit"):
        queue_events(place.ours, request)


def test_a_read_only_session_queues_nothing(place: Place) -> None:
    request = place.request(ORPHAN, [deletion(ORPHAN)])
    place.ours.execute("SET default_transaction_read_only = on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        queue_events(place.ours, request)
    assert place.events() == []


def test_the_open_review_is_told(place: Place) -> None:
    request = place.request(
        ORPHAN, [deletion(ORPHAN)], claimed_at=None, note="alice: event {events}"
    )
    place.edit(
        "UPDATE artwork_indexer.audit_entity SET status = 'manual_review';"
        "INSERT INTO artwork_indexer.needs_manual_review"
        " (audit_entity_id, review_reason, status, resolution_notes)"
        " SELECT id, 'r', its::artwork_indexer.manual_review_status, 'before'"
        " FROM artwork_indexer.audit_entity CROSS JOIN unnest(ARRAY['open', 'resolved']) AS its"
    )
    (event,) = queue_events(place.ours, request).event_ids
    reviews = place.rows("TABLE artwork_indexer.needs_manual_review")
    notes = {review.status: review.resolution_notes for review in reviews}
    assert notes == {"open": f"before\nalice: event {event}", "resolved": "before"}
