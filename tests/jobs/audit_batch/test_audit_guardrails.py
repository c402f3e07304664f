"""How many entities may be claimed just now, and why none may."""

from __future__ import annotations

from typing import Any

import pytest

from artwork_backfill.jobs.audit_batch.guardrails import Guardrails, Limits
from artwork_backfill.shared.auditing.queueing import sweep
from artwork_backfill.shared.engine.job import StopRun, Wait
from tests.jobs.audit_batch.audit_scene import Scene


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _guardrails(clock: Clock | None = None, **limits: Any) -> Guardrails:
    return Guardrails(Limits(**limits), clock or Clock())


def _queue(scene: Scene, number: int, **options: Any) -> list[int]:
    plans = list(scene.world.plans())[:number]
    return [scene.queue(plan.gid, entity_type=str(plan.entity_type), **options) for plan in plans]


def _waits(answer: int | Wait) -> Wait:
    assert isinstance(answer, Wait)
    return answer


def test_without_a_limit_there_is_always_room(scene: Scene) -> None:
    _queue(scene, 30)
    assert _guardrails(max_queue_depth=0).room(scene.conn, 200) == 200


@pytest.mark.parametrize(
    ("queued", "in_progress", "room"),
    [(0, 0, 50), (80, 0, 20), (99, 0, 1), (50, 45, 5), (0, 98, 2)],
)
def test_queued_events_and_claimed_entities_leave_that_much_room(
    scene: Scene, queued: int, in_progress: int, room: int
) -> None:
    _queue(scene, queued)
    if in_progress:
        scene.claim(in_progress)
    assert _guardrails(max_queue_depth=100).room(scene.conn, 200) == room


def test_running_events_count_and_finished_ones_do_not(scene: Scene) -> None:
    _queue(scene, 7, state="running")
    _queue(scene, 9, state="completed")
    _queue(scene, 9, state="failed")
    assert _guardrails(max_queue_depth=10).room(scene.conn, 200) == 3
    assert _guardrails(max_queue_depth=8).room(scene.conn, 200) == 1


def test_no_more_than_was_asked_for(scene: Scene) -> None:
    assert _guardrails(max_queue_depth=100).room(scene.conn, 3) == 3


def test_a_full_queue_is_waited_for_and_it_says_so(scene: Scene) -> None:
    _queue(scene, 12)
    answer = _waits(_guardrails(max_queue_depth=10).room(scene.conn, 200))
    assert answer.reason == (
        "the event queue holds 12 events, and --max-queue-depth allows 10:"
        " waiting for artwork-indexer"
    )


def test_as_many_entities_in_hand_as_the_queue_has_room_for_are_waited_for_briefly(
    scene: Scene,
) -> None:
    scene.claim(10)
    answer = _waits(_guardrails(max_queue_depth=10).room(scene.conn, 200))
    assert answer.seconds < 0.5


def test_a_repair_that_found_no_room_is_claimed_again_only_when_there_is_room_for_it(
    scene: Scene,
) -> None:
    events = _queue(scene, 8)
    guardrails = _guardrails(max_queue_depth=10)
    guardrails.postponed(3)
    _waits(guardrails.room(scene.conn, 200))
    scene.finish(events[0])
    assert guardrails.room(scene.conn, 200) == 3
    guardrails.claimed(3)
    scene.finish(*events[1:])
    scene.claim(9)
    assert guardrails.room(scene.conn, 200) == 1


def test_a_repair_larger_than_the_limit_waits_for_an_empty_queue(scene: Scene) -> None:
    events = _queue(scene, 2)
    guardrails = _guardrails(max_queue_depth=2)
    guardrails.postponed(5)
    scene.finish(events[0])
    _waits(guardrails.room(scene.conn, 200))
    assert guardrails.max_depth(5) == 5
    scene.finish(events[1])
    assert guardrails.room(scene.conn, 200) == 1


def test_a_large_repair_does_not_wait_for_events_that_are_tried_again_in_hours(
    scene: Scene,
) -> None:
    *failed, last = _queue(scene, 3)
    scene.conn.execute(
        "UPDATE artwork_indexer.event_queue SET attempts = 1 WHERE id = ANY (%s)", (failed,)
    )
    guardrails = _guardrails(max_queue_depth=4)
    assert guardrails.room(scene.conn, 200) == 1
    guardrails.postponed(4)
    _waits(guardrails.room(scene.conn, 200))
    assert guardrails.max_depth(4) == 4
    scene.finish(last)
    assert guardrails.room(scene.conn, 200) == 2
    assert (guardrails.max_depth(4), guardrails.max_depth(9)) == (6, 11)


@pytest.mark.parametrize("limits", [{"max_queue_depth": 3}, {"only_when_idle": True}])
def test_a_queue_that_does_not_drain_at_all_ends_the_run(
    scene: Scene, limits: dict[str, Any]
) -> None:
    clock = Clock()
    guardrails = _guardrails(clock, queue_patience=600, **limits)
    _queue(scene, 5)
    _waits(guardrails.room(scene.conn, 200))
    clock.now = 1300
    # More events are no sign of work.
    scene.queue(scene.plan(None, skip=9).gid)
    _waits(guardrails.room(scene.conn, 200))
    clock.now = 1599
    _waits(guardrails.room(scene.conn, 200))
    clock.now = 1600
    with pytest.raises(StopRun, match="none was finished for 600 s: artwork-indexer is not"):
        guardrails.room(scene.conn, 200)


def test_every_finished_event_renews_the_patience(scene: Scene) -> None:
    clock = Clock()
    guardrails = _guardrails(clock, max_queue_depth=3, queue_patience=600)
    for event_id in _queue(scene, 5):
        _waits(guardrails.room(scene.conn, 200))
        clock.now += 500
        scene.finish(event_id)
        scene.queue(scene.plan(None).gid, action="deindex", message={"gid": str(event_id)})
    _waits(guardrails.room(scene.conn, 200))


@pytest.mark.parametrize("max_queue_depth", [1, 40])
def test_withdrawn_deletions_are_no_sign_of_work(scene: Scene, max_queue_depth: int) -> None:
    """A dead artwork-indexer, whose queue empties every ten minutes all the same."""
    clock = Clock()
    guardrails = _guardrails(clock, max_queue_depth=max_queue_depth, queue_patience=1200)

    def audit(gid: str) -> None:
        assert guardrails.room(scene.conn, 1) == 1
        scene.audit(gid)
        for _ in range(10):
            guardrails.room(scene.conn, 1)
            clock.now += 60
        guardrails.room(scene.conn, 1)
        scene.conn.execute(
            "UPDATE artwork_indexer.event_queue SET created = now() - interval '11 minutes'"
        )
        assert sweep(scene.conn).withdrawn == 1

    audit(scene.plan("orphan-image").gid)
    with pytest.raises(StopRun, match="none was finished for 1,200 s: artwork-indexer is not"):
        audit(scene.plan("orphan-image", skip=1).gid)


@pytest.mark.parametrize("state", ["running", "completed", "failed"])
def test_an_event_that_was_begun_is_a_sign_of_work(scene: Scene, state: str) -> None:
    clock = Clock()
    guardrails = _guardrails(clock, max_queue_depth=1, queue_patience=600)
    event_id, *_ = _queue(scene, 3)
    _waits(guardrails.room(scene.conn, 1))
    clock.now += 599
    scene.finish(event_id, state=state)
    _waits(guardrails.room(scene.conn, 1))
    clock.now += 599
    _waits(guardrails.room(scene.conn, 1))


def test_what_waits_for_its_next_attempt_is_not_waited_for(scene: Scene) -> None:
    clock = Clock()
    guardrails = _guardrails(clock, max_queue_depth=40, queue_patience=600)
    _queue(scene, 1)
    scene.conn.execute("UPDATE artwork_indexer.event_queue SET attempts = 1")
    for _ in range(3):
        assert guardrails.room(scene.conn, 1) == 1
        clock.now += 1000


def test_patience_begins_with_the_waiting(scene: Scene) -> None:
    clock = Clock()
    guardrails = _guardrails(clock, max_queue_depth=3, queue_patience=600)
    events = _queue(scene, 3)
    _waits(guardrails.room(scene.conn, 200))
    scene.finish(*events)
    assert guardrails.room(scene.conn, 200) == 1
    clock.now += 10_000
    _queue(scene, 3)
    _waits(guardrails.room(scene.conn, 200))


@pytest.mark.parametrize(
    ("changes", "is_idle"),
    [
        ("state = 'queued'", False),
        ("state = 'running'", False),
        ("state = 'running', attempts = 5", False),
        ("state = 'running', last_updated = now() - interval '61 minutes'", True),
        ("state = 'completed'", True),
        ("state = 'failed'", True),
        ("state = 'queued', attempts = 5", True),
        ("state = 'queued', attempts = 1", True),
        ("state = 'queued', attempts = 1, last_updated = now() - interval '61 minutes'", False),
        ("state = 'queued', attempts = 2, last_updated = now() - interval '61 minutes'", True),
    ],
)
def test_only_when_idle_waits_for_what_the_indexer_could_take(
    scene: Scene, changes: str, is_idle: bool
) -> None:
    _queue(scene, 1)
    scene.conn.execute(f"UPDATE artwork_indexer.event_queue SET {changes}".encode())
    room = _guardrails(max_queue_depth=0, only_when_idle=True).room(scene.conn, 200)
    if is_idle:
        assert room == 200
    else:
        assert "artwork-indexer has 1 events to work on" in _waits(room).reason


def test_what_waits_for_an_event_that_has_failed_is_no_work(scene: Scene) -> None:
    [parent, child] = _queue(scene, 2)
    scene.conn.execute(
        "UPDATE artwork_indexer.event_queue SET depends_on = %s WHERE id = %s", ([parent], child)
    )
    scene.finish(parent, state="failed")
    assert _guardrails(only_when_idle=True).room(scene.conn, 5) == 5


def test_an_hour_holds_no_more_than_it_may(scene: Scene) -> None:
    clock = Clock()
    guardrails = _guardrails(clock, max_queue_depth=0, max_per_hour=100)
    assert guardrails.room(scene.conn, 60) == 60
    guardrails.claimed(60)
    clock.now += 1000
    assert guardrails.room(scene.conn, 60) == 40
    guardrails.claimed(40)
    clock.now += 600
    answer = _waits(guardrails.room(scene.conn, 60))
    assert (answer.reason, answer.seconds) == ("100 entities were audited within the hour", 2000)
    clock.now += 2000
    assert guardrails.room(scene.conn, 200) == 60
