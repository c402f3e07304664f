"""A deletion of ours never waits in the queue, and nothing goes round in circles for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from artwork_backfill.shared import migrations
from artwork_backfill.shared.auditing.queueing import Swept, sweep
from tests.beside.rows import (
    BYSTANDER,
    LIVE,
    ORPHAN,
    Place,
    deindex,
    deletion,
    gid,
    index,
)
from tests.timing import at_most


def age(place: Place, length: str) -> None:
    place.edit(f"UPDATE artwork_indexer.event_queue SET created = now() - interval '{length}'")


def wait_minutes(entity: Any, conn: psycopg.Connection) -> float:
    (row,) = conn.execute("SELECT now()").fetchall()
    length: timedelta = entity.not_before - row[0]
    return length.total_seconds() / 60


class TestTheFirstFailedAttempt:
    @pytest.mark.parametrize("target", [ORPHAN, LIVE])
    def test_withdraws_the_entitys_events(self, place: Place, target: int) -> None:
        after = deindex(ORPHAN, 0) if target == ORPHAN else index(LIVE, 0)
        first, _ = place.queued(target, deletion(target), after)
        other = place.queued(BYSTANDER, index(BYSTANDER))
        place.run(first, ends="queued")
        assert [event.id for event in place.events()] == other
        assert place.rows("TABLE artwork_indexer.event_failure_reason") == []

    def test_leaves_the_deletions_of_others_to_be_retried(self, place: Place) -> None:
        theirs = place.foreign("delete_image", {"gid": gid(ORPHAN), "artwork_id": 5})
        assert theirs is not None
        place.run(theirs, ends="queued")
        assert [event.id for event in place.events()] == [theirs]
        assert len(place.rows("TABLE artwork_indexer.event_failure_reason")) == 1

    def test_of_an_index_is_retried(self, place: Place) -> None:
        ours = place.queued(LIVE, index(LIVE))
        place.run(ours[0], ends="queued")
        assert [event.id for event in place.events()] == ours

    def test_leaves_what_another_indexer_has_begun(self, place: Place) -> None:
        first, second = place.queued(ORPHAN, deletion(ORPHAN), deletion(ORPHAN, 72, owner=None))
        with place.taken(second), at_most(0.5):
            place.run(first, ends="queued")
        assert [event.id for event in place.events()] == [second]

    def test_leaves_events_that_have_ended(self, place: Place) -> None:
        first, second = place.queued(ORPHAN, deletion(ORPHAN), deletion(ORPHAN, 72, owner=None))
        place.run(first, ends="completed")
        place.run(second, ends="queued")
        assert [event.id for event in place.events()] == [first]


class TestAFailedDeletion:
    """artwork-indexer fails an event that began 2.5 minutes after its creation."""

    REQUEUE = "UPDATE artwork_indexer.event_queue SET state = 'queued' WHERE state = 'failed'"

    def test_stays_failed_when_people_requeue_it_unchecked(self, place: Place) -> None:
        (ours,) = place.queued(ORPHAN, deletion(ORPHAN))
        theirs = place.foreign("delete_image", {"gid": gid(BYSTANDER), "artwork_id": 5})
        assert theirs is not None
        place.run(ours, ends="failed")
        place.run(theirs, ends="failed")
        said: list[str] = []
        place.editor.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
        place.edit(self.REQUEUE)
        assert [(event.id, event.state) for event in place.events()] == [
            (ours, "failed"),
            (theirs, "queued"),
        ]
        (warning,) = said
        assert warning.startswith(f"event {ours} stays failed")
        assert f"`artwork-backfill events requeue {ours}`" in warning

    def test_is_requeued_with_a_warning_when_our_table_is_gone(self, place: Place) -> None:
        (ours,) = place.queued(ORPHAN, deletion(ORPHAN))
        place.run(ours, ends="failed")
        place.edit("ALTER TABLE artwork_indexer.audit_event RENAME TO gone")
        place.edit(self.REQUEUE)
        assert [event.state for event in place.events()] == ["queued"]


class TestSweep:
    def test_brings_an_entity_back_whose_events_were_withdrawn(self, place: Place) -> None:
        place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
        place.foreign("index", {"gid": gid(ORPHAN)})
        assert sweep(place.ours) == Swept(deferred=1)
        entity = place.entity(ORPHAN)
        assert (entity.status, entity.withdrawals) == ("unchecked", 1)
        assert 1.9 < wait_minutes(entity, place.ours) <= 2
        assert place.rows("TABLE artwork_indexer.audit_event") == []
        assert sweep(place.ours) == Swept()

    def test_defers_twice_as_long_each_time_and_then_asks_a_person(self, place: Place) -> None:
        waits = []
        for _ in range(5):
            place.queued(ORPHAN, deletion(ORPHAN))
            place.foreign("index", {"gid": gid(ORPHAN)})
            place.edit("DELETE FROM artwork_indexer.event_queue")
            swept = sweep(place.ours)
            entity = place.entity(ORPHAN)
            waits.append(entity.not_before and round(wait_minutes(entity, place.ours)))
        assert waits == [2, 4, 8, 16, None]
        assert swept == Swept(reviewed=1)
        assert (entity.status, entity.withdrawals) == ("manual_review", 0)
        (review,) = place.rows("TABLE artwork_indexer.needs_manual_review")
        assert "withdrawn 5 times in a row" in review.review_reason

    def test_defers_for_no_longer_than_six_hours(self, place: Place) -> None:
        place.queued(ORPHAN, deletion(ORPHAN))
        place.foreign("index", {"gid": gid(ORPHAN)})
        sweep(place.ours, unit=timedelta(hours=5))
        assert 359 < wait_minutes(place.entity(ORPHAN), place.ours) <= 360

    def test_counts_from_the_start_once_an_event_was_completed(self, place: Place) -> None:
        place.queued(ORPHAN, deletion(ORPHAN))
        place.foreign("index", {"gid": gid(ORPHAN)})
        sweep(place.ours)
        place.edit("DELETE FROM artwork_indexer.event_queue")
        (event,) = place.queued(ORPHAN, deletion(ORPHAN))
        assert place.entity(ORPHAN).withdrawals == 1
        place.run(event, ends="completed")
        sweep(place.ours)
        entity = place.entity(ORPHAN)
        assert (entity.status, entity.withdrawals, entity.not_before) == ("unchecked", 0, None)

    @pytest.mark.parametrize(("length", "withdrawn"), [("9 minutes", 0), ("11 minutes", 2)])
    def test_withdraws_a_deletion_that_has_not_begun_after_ten_minutes(
        self, place: Place, length: str, withdrawn: int
    ) -> None:
        place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
        place.queued(LIVE, index(LIVE))
        age(place, length)
        assert sweep(place.ours).withdrawn == withdrawn
        assert len(place.events()) == 3 - withdrawn

    def test_makes_up_for_a_trigger_that_missed_a_failed_attempt(self, place: Place) -> None:
        place.edit("ALTER TABLE artwork_indexer.event_queue DISABLE TRIGGER audit_withdraw_failed")
        (event,) = place.queued(ORPHAN, deletion(ORPHAN))
        place.run(event, ends="queued")
        assert sweep(place.ours) == Swept(withdrawn=1, deferred=1)

    def test_withdraws_what_waits_for_an_event_that_was_given_up(self, place: Place) -> None:
        """artwork-indexer fails what depends on a failed event, but not on one that it gives up."""
        first, *_ = place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
        other = place.queued(LIVE, index(LIVE))
        place.run(first, ends="failed")
        assert sweep(place.ours) == Swept(withdrawn=1)
        assert [(event.id, event.state) for event in place.events()] == [
            (first, "failed"),
            (other[0], "queued"),
        ]
        assert place.entity(ORPHAN).status == "manual_review"
        assert sweep(place.ours) == Swept()

    def test_leaves_events_that_were_queued_after_another_had_failed(self, place: Place) -> None:
        (failed,) = place.queued(ORPHAN, deletion(ORPHAN))
        place.run(failed, ends="failed")
        later = place.queued(ORPHAN, deletion(ORPHAN, 72, owner=None), deindex(ORPHAN, 0))
        assert sweep(place.ours) == Swept()
        assert {event.id for event in place.events()} == {failed, *later}

    @pytest.mark.parametrize("ends", ["completed", "failed"])
    def test_makes_up_for_feedback_that_was_missed(self, place: Place, ends: str) -> None:
        place.edit("ALTER TABLE artwork_indexer.event_queue DISABLE TRIGGER audit_feedback")
        (event,) = place.queued(ORPHAN, deletion(ORPHAN))
        place.run(event, ends=ends)
        assert sweep(place.ours) == Swept()
        entity = place.entity(ORPHAN)
        assert (entity.status, entity.not_before) == ("unchecked", None)

    def test_leaves_an_entity_alone_while_an_event_of_it_is_running(self, place: Place) -> None:
        first, _ = place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
        place.edit(f"UPDATE artwork_indexer.event_queue SET state = 'running' WHERE id = {first}")
        place.foreign("index", {"gid": gid(ORPHAN)})
        assert sweep(place.ours) == Swept()
        assert place.entity(ORPHAN).status == "repair_queue"
        place.edit(f"UPDATE artwork_indexer.event_queue SET state = 'completed' WHERE id = {first}")
        assert sweep(place.ours) == Swept(deferred=1)

    @pytest.mark.parametrize("status", ["manual_review", "clean", "legacy", "audit_in_progress"])
    def test_leaves_entities_as_they_are_that_are_not_in_repair(
        self, place: Place, status: str
    ) -> None:
        place.queued(ORPHAN, deletion(ORPHAN))
        place.foreign("index", {"gid": gid(ORPHAN)})
        place.edit(f"UPDATE artwork_indexer.audit_entity SET status = '{status}'")
        assert sweep(place.ours) == Swept()
        assert place.entity(ORPHAN).status == status

    def test_remembers_failed_events_and_no_others(self, place: Place) -> None:
        ends = {"failed": ORPHAN, "completed": LIVE, "queued": BYSTANDER}
        ids = {}
        for state, number in ends.items():
            (ids[state],) = place.queued(number, index(number))
            place.edit(
                f"UPDATE artwork_indexer.event_queue SET state = '{state}' WHERE id = {ids[state]}"
            )
        sweep(place.ours)
        known = {row.event_id for row in place.rows("TABLE artwork_indexer.audit_event")}
        assert known == {ids["failed"], ids["queued"]}

    def test_counts_once_when_two_runs_sweep_at_once(self, place: Place) -> None:
        place.queued(ORPHAN, deletion(ORPHAN))
        place.foreign("index", {"gid": gid(ORPHAN)})
        with psycopg.connect(place.dsn) as other:
            other.execute("SELECT * FROM artwork_indexer.audit_sweep()")
            with at_most(0.5):
                assert sweep(place.ours) == Swept()
        assert sweep(place.ours) == Swept()
        assert place.entity(ORPHAN).withdrawals == 1

    def test_waits_for_nothing(self, place: Place) -> None:
        first, _ = place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
        age(place, "1 hour")
        with place.taken(first), at_most(0.5):
            assert sweep(place.ours).withdrawn == 1
        with place.editor.transaction():
            place.edit("LOCK artwork_indexer.event_queue IN ACCESS EXCLUSIVE MODE")
            with at_most(2):
                assert sweep(place.ours) == Swept()


def test_what_earlier_versions_have_queued_is_known(musicbrainz_database: str) -> None:
    with psycopg.connect(musicbrainz_database, autocommit=True) as conn:
        files = {migration.name[:4]: migration.sql for migration in migrations.available()}
        for number in sorted(files):
            if number < "0007":
                conn.execute(files[number])
        conn.execute(
            "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status)"
            " VALUES ('release', %(gid)s, 'repair_queue');"
            "INSERT INTO artwork_indexer.event_queue (entity_type, action, message)"
            " SELECT 'release', action::artwork_indexer.event_queue_action,"
            " jsonb_build_object('gid', %(gid)s, 'artwork_id', 5)"
            " FROM unnest(ARRAY['delete_image', 'deindex', 'index']) AS action;"
            "INSERT INTO artwork_indexer.audit_result (audit_entity_id, run_id, outcome, event_ids)"
            " VALUES (1, gen_random_uuid(), 'repair_queue', '{1,2}')".replace(
                "%(gid)s", f"'{gid(ORPHAN)}'"
            )
        )
        conn.execute(files["0007"])
        rows = conn.execute(
            "SELECT event_id, action::text, artwork_id FROM artwork_indexer.audit_event ORDER BY 1"
        ).fetchall()
    assert rows == [(1, "delete_image", 5), (2, "deindex", None)]
