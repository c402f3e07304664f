"""The auditor for a daemon's idle loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from artwork_backfill.jobs.audit_batch import auditor as auditor_module
from artwork_backfill.jobs.audit_batch.auditor import Auditor, AuditSummary
from artwork_backfill.jobs.audit_batch.guardrails import Limits
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.auditing.expectation import add_expectations
from artwork_backfill.shared.auditing.models import STREAK_LIMIT, Reason
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.clients.http import Interrupted, ServiceDown
from artwork_backfill.shared.settings import SettingsError
from tests.beside.rows import wait_until
from tests.jobs.audit_batch.audit_scene import Scene, unreadable


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def connected(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A scene whose services an auditor finds."""

    def connect(*_: object, stop_flag: threading.Event, **__: object) -> Services:
        scene.interrupt = stop_flag
        return scene.services()

    monkeypatch.setattr(Services, "from_settings", connect)
    return scene


@pytest.fixture
def auditor(connected: Scene) -> Iterator[Auditor]:
    with Auditor(connected.settings()) as auditor:
        yield auditor


def _in_progress(scene: Scene) -> int:
    return int(
        scene.value(
            "SELECT count(*) FROM artwork_indexer.audit_entity WHERE status = 'audit_in_progress'"
        )
    )


def _locks(scene: Scene) -> int:
    return int(
        scene.value(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            " WHERE locktype = 'advisory' AND datname = current_database()"
        )
    )


def test_a_call_audits_up_to_so_many_entities(scene: Scene, auditor: Auditor) -> None:
    gids = [scene.plan(drift).gid for drift in (None, "index-missing", "original-missing")]
    scene.only(*gids)
    assert auditor.audit(limit=2).audited == 2
    scene.conn.execute("UPDATE artwork_indexer.event_queue SET state = 'completed'")
    assert auditor.audit(limit=2).audited == 1
    assert scene.status(gids[0]) == "clean"
    assert scene.status(gids[2]) == "manual_review"
    assert len(scene.results(gids[1])) == 1


def test_the_summary_says_what_became_of_them(scene: Scene, auditor: Auditor) -> None:
    gid = scene.plan("index-missing").gid
    scene.only(gid)
    summary = auditor.audit(limit=5)
    assert summary == AuditSummary(
        {"audited": 1, "written": 1, "repair_queue": 1, "events": 1}, (), None, 0.0
    )
    [result] = scene.results(gid)
    assert result.event_ids == [scene.events()[0].id]


def test_when_nothing_is_left_it_says_so(scene: Scene, auditor: Auditor) -> None:
    scene.only()
    summary = auditor.audit()
    assert (summary.audited, summary.waits_for) == (0, "nothing is left to audit")
    assert summary.retry_after > 0


def test_by_default_it_keeps_out_of_the_indexers_way(scene: Scene, auditor: Auditor) -> None:
    event_id = scene.queue(scene.plan(None).gid)
    summary = auditor.audit()
    assert summary.waits_for is not None
    assert "artwork-indexer has 1 events to work on" in summary.waits_for
    assert (summary.audited, _in_progress(scene)) == (0, 0)
    scene.finish(event_id)
    assert auditor.audit().audited == 1


def test_a_dead_indexer_is_waited_for_without_end_but_said(connected: Scene) -> None:
    clock = Clock()
    connected.queue(connected.plan(None).gid)
    with Auditor(connected.settings(), clock=clock) as auditor:
        auditor.audit()
        clock.now += 3600
        summary = auditor.audit()
    assert summary.waits_for is not None
    assert "artwork-indexer is not working" in summary.waits_for
    assert summary.retry_after > 0


def test_the_rate_holds_over_several_calls(connected: Scene) -> None:
    clock = Clock()
    connected.only(*[connected.plan(None, skip=skip).gid for skip in range(5)])
    with Auditor(connected.settings(), rate=0.5, clock=clock) as auditor:
        assert auditor.audit(limit=3).audited == 3
        summary = auditor.audit()
        assert summary.waits_for == "the rate that was asked for"
        assert summary.retry_after == pytest.approx(6)
        clock.now += 5.9
        assert auditor.audit().audited == 0
        clock.now += 0.2
        assert auditor.audit().audited == 1


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_that_is_none_is_refused(scene: Scene, rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        Auditor(scene.settings(), rate=rate)


def test_the_queue_is_never_filled_beyond_its_limit(connected: Scene) -> None:
    gids = [connected.plan("foreign-owned", skip=skip).gid for skip in range(2)]
    connected.only(*gids)
    limits = Limits(max_queue_depth=3)
    policy = Policy(delete_from_live=True)
    with Auditor(connected.settings(), limits=limits, policy=policy) as auditor:
        for _ in range(4):
            auditor.audit(limit=2)
    assert len(connected.events()) == 2


def test_an_entity_that_was_deferred_is_left_alone_for_an_hour(
    scene: Scene, auditor: Auditor
) -> None:
    gid = scene.plan(None).gid
    scene.only(gid)
    scene.archive.answers[gid] = unreadable
    assert auditor.audit().counts[f"deferred: {Reason.UNREADABLE}"] == 1
    assert auditor.audit().waits_for == "nothing is left to audit"
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET last_audit_at = now() - interval '61 minutes'"
        " WHERE gid = %s",
        (gid,),
    )
    assert auditor.audit().counts["deferred"] == 1


@pytest.mark.parametrize("status", ["unchecked", "clean", "manual_review"])
def test_one_given_entity_is_audited_whatever_its_status(
    scene: Scene, auditor: Auditor, status: str
) -> None:
    gid = scene.plan("index-missing").gid
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET status = %s, last_audit_at = now() WHERE gid = %s",
        (status, gid),
    )
    assert auditor.audit_entity("release", gid.upper()).counts["repair_queue"] == 1
    assert scene.status(gid) == "repair_queue"


def test_a_call_does_nothing_while_people_want_it_so(scene: Scene, auditor: Auditor) -> None:
    scene.only(scene.plan(None).gid)
    scene.conn.execute(
        "INSERT INTO artwork_indexer.backfill_hold (job, who, why)"
        " VALUES ('auditor', 'ann', 'a move')"
    )
    for _ in range(2):
        summary = auditor.audit()
        assert summary.audited == 0
        assert summary.waits_for == "the job is held by ann: a move"
    scene.conn.execute("DELETE FROM artwork_indexer.backfill_hold")
    scene.conn.execute("UPDATE artwork_indexer.backfill_run SET requested = 'stop'")
    assert auditor.audit().waits_for == "stopped"
    scene.conn.execute("UPDATE artwork_indexer.backfill_run SET requested = NULL")
    assert auditor.audit().audited == 1


def test_a_given_entity_that_another_run_holds_is_left_to_it(
    scene: Scene, auditor: Auditor
) -> None:
    gid = scene.plan(None).gid
    scene.only(gid)
    scene.claim()
    assert auditor.audit_entity("release", gid).waits_for == "another run is auditing it"
    assert scene.status(gid) == "audit_in_progress"


@pytest.mark.parametrize(("entity_type", "gid"), [("label", "0" * 32), ("release", "nonsense")])
def test_what_is_no_entity_is_refused(auditor: Auditor, entity_type: str, gid: str) -> None:
    with pytest.raises(ValueError, match=r"label|UUID"):
        auditor.audit_entity(entity_type, gid)


def test_an_entity_of_the_other_type_is_refused(scene: Scene, auditor: Auditor) -> None:
    """Their items have names of the same form: it would be an orphan with the release's images."""
    gid = scene.plan(None).gid
    with pytest.raises(ValueError, match="is not of type event: MusicBrainz has it as the other"):
        auditor.audit_entity("event", gid)
    assert scene.value("SELECT count(*) FROM artwork_indexer.audit_entity WHERE gid = %s", gid) == 1
    assert auditor.audit_entity("release", gid).audited == 1


def test_a_service_that_is_down_is_no_error_and_leaves_no_claim(
    scene: Scene, auditor: Auditor
) -> None:
    gids = [scene.plan(None, skip=skip).gid for skip in range(3)]
    scene.only(*gids)

    def down() -> object:
        raise ServiceDown("archive.org is down", service="archive.org")

    scene.archive.answers = dict.fromkeys(gids, down)
    summary = auditor.audit(limit=3)
    assert (summary.audited, summary.waits_for) == (0, "archive.org is down")
    assert (_in_progress(scene), _locks(scene)) == (0, 0)
    never = "SELECT last_audit_at FROM artwork_indexer.audit_entity WHERE gid = %s"
    assert scene.value(never, gids[0]) is None


def test_a_call_ends_when_its_time_is_up(connected: Scene) -> None:
    scene = connected
    gids = [scene.plan(None, skip=skip).gid for skip in range(3)]
    scene.only(*gids)

    def patient() -> object:
        # As a client waits for its turn or its next attempt.
        assert scene.interrupt is not None
        if scene.interrupt.wait(10):
            raise Interrupted("the run is stopping")
        return None

    scene.archive.answers = dict.fromkeys(gids[1:], patient)
    with Auditor(scene.settings(), time_limit=0.2) as auditor:
        summary = auditor.audit(limit=3)
        assert scene.interrupt is not None
        assert summary.waits_for == "the time limit of 0.2 s was reached"
        assert (summary.audited, _in_progress(scene)) == (1, 0)
        # The next call has its own time.
        assert not scene.interrupt.is_set()
        scene.archive.answers = {}
        assert auditor.audit(limit=3).audited == 2


def test_an_entity_that_takes_a_whole_call_lets_others_through(connected: Scene) -> None:
    scene = connected
    slow, other = scene.plan(None).gid, scene.plan(None, skip=1).gid
    scene.only(slow, other)
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET priority = 300 WHERE gid = %s", (slow,)
    )

    def silent() -> object:
        assert scene.interrupt is not None
        scene.interrupt.wait(10)
        raise Interrupted("the run is stopping")

    scene.archive.answers[slow] = silent
    with Auditor(scene.settings(), time_limit=0.6) as auditor:
        late = auditor.audit()
        assert late.counts["deferred"] == 1
        assert late.waits_for == "the time limit of 0.6 s was reached"
    with Auditor(scene.settings()) as auditor:
        assert auditor.audit().audited == 1
    assert (scene.status(slow), scene.status(other)) == ("unchecked", "clean")
    with Auditor(scene.settings(), time_limit=0.6) as auditor:
        for _ in range(STREAK_LIMIT - 1):
            auditor.audit_entity("release", slow)
    assert scene.status(slow) == "manual_review"


def test_a_call_that_had_to_wait_for_another_defers_nothing(connected: Scene) -> None:
    scene = connected
    slow = scene.plan(None).gid
    scene.only(slow)

    def silent() -> object:
        assert scene.interrupt is not None
        scene.interrupt.wait(10)
        raise Interrupted("the run is stopping")

    scene.archive.answers[slow] = silent
    with Auditor(scene.settings(), time_limit=2.0) as auditor:
        first = threading.Thread(target=auditor.audit_entity, args=("release", slow))
        first.start()
        wait_until(lambda: scene.archive.asked[slow] == 1)
        late = auditor.audit_entity("release", slow)
        first.join()
    assert late.waits_for == "the time limit of 2 s was reached"
    assert late.counts["deferred"] == 0


def test_a_bad_row_is_a_problem_and_stops_nobody(
    own_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = own_scene
    monkeypatch.setattr(Services, "from_settings", lambda *_, **__: scene.services())
    bad, good = scene.plan("index-missing").gid, scene.plan("item-missing").gid
    number = scene.world.number(bad)
    assert number is not None
    scene.conn.execute(
        "UPDATE cover_art_archive.cover_art SET mime_type = 'image/webp' WHERE release = %s",
        (scene.world.entity(number).row_id,),
    )
    scene.conn.execute("TRUNCATE artwork_indexer.event_queue CASCADE")
    scene.only(bad, good)
    with Auditor(scene.settings()) as auditor:
        summary = auditor.audit(limit=2)
        assert auditor.audit(limit=2).waits_for == "nothing is left to audit"
    [problem] = summary.problems
    assert bad in problem
    assert "image/webp" in problem
    assert (summary.audited, scene.status(bad)) == (1, "unchecked")


def test_an_error_that_was_not_foreseen_fails_one_entity_and_asks_a_person_in_the_end(
    scene: Scene, auditor: Auditor
) -> None:
    bad, good = scene.plan(None).gid, scene.plan(None, skip=1).gid
    scene.only(bad, good)

    def surprise() -> object:
        raise RuntimeError("not foreseen")

    scene.archive.answers[bad] = surprise
    summary = auditor.audit(limit=2)
    assert summary.counts["failed"] == summary.counts["audited"] == 1
    assert summary.problems == (f"release {bad}: RuntimeError: not foreseen",)
    assert (scene.status(bad), scene.status(good)) == ("unchecked", "clean")
    for _ in range(STREAK_LIMIT - 1):
        auditor.audit_entity("release", bad)
    assert scene.status(bad) == "manual_review"


def test_a_lost_database_is_an_error_and_the_next_call_goes_on(
    scene: Scene, auditor: Auditor
) -> None:
    assert auditor.audit().audited == 1
    scene.conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'artwork-backfill auditor'"
    )
    assert auditor.audit().audited == 1


def test_a_claim_whose_answer_was_lost_is_given_back(
    connected: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = connected
    gid = scene.plan(None).gid
    scene.only(gid)
    original = add_expectations
    losses: list[bool] = []

    def lose(conn: psycopg.Connection, claimed: Any) -> Any:
        if not losses:
            losses.append(True)
            conn.execute("COMMIT")
            raise psycopg.OperationalError("the connection is lost")
        return original(conn, claimed)

    monkeypatch.setattr(auditor_module, "add_expectations", lose)
    with Auditor(scene.settings()) as auditor:
        assert auditor.audit().audited == 1
    assert (scene.status(gid), losses) == ("clean", [True])


def test_what_a_call_could_not_give_back_is_given_back_by_the_next(
    own_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = own_scene
    monkeypatch.setattr(Services, "from_settings", lambda *_, **__: scene.services())
    gid = scene.plan(None).gid
    scene.only(gid)
    scene.conn.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON artwork_indexer.audit_entity FOR EACH ROW"
        " WHEN (OLD.status = 'audit_in_progress') EXECUTE FUNCTION refuse()"
    )
    with Auditor(scene.settings()) as auditor:
        with pytest.raises(psycopg.Error, match="not now"):
            auditor.audit()
        assert scene.status(gid) == "audit_in_progress"
        scene.conn.execute("DROP FUNCTION refuse CASCADE")
        assert (auditor.audit().audited, scene.status(gid)) == (1, "clean")


def test_a_call_that_was_declared_dead_says_so_and_the_next_one_audits(
    scene: Scene, auditor: Auditor
) -> None:
    gid = scene.plan(None).gid
    scene.only(gid)

    def reaped() -> object:
        """archive.org answers, after the process has stood still for over a minute."""
        scene.conn.execute("UPDATE artwork_indexer.backfill_run SET finished = now()")
        return scene.archive.document(gid)

    scene.archive.answers[gid] = reaped
    summary = auditor.audit()
    assert summary.audited == 0
    assert "declared it dead" in str(summary.waits_for)
    scene.archive.answers.clear()
    assert (auditor.audit().audited, scene.status(gid)) == (1, "clean")
    scene.conn.execute("UPDATE artwork_indexer.backfill_run SET finished = now()")
    auditor.close()


def test_claims_of_dead_runs_are_taken_back(scene: Scene, auditor: Auditor) -> None:
    gid = scene.plan(None).gid
    scene.only(gid)
    scene.claim()
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET last_audit_at = now() - interval '2 hours'"
        " WHERE gid = %s",
        (gid,),
    )
    assert auditor.audit().audited == 1


def test_it_serves_a_loop_of_asyncio(scene: Scene, auditor: Auditor) -> None:
    async def idle() -> list[AuditSummary]:
        return [await asyncio.to_thread(auditor.audit, 2) for _ in range(2)]

    assert sum(summary.audited for summary in asyncio.run(idle())) >= 2


def test_calls_from_several_threads_take_turns(scene: Scene, auditor: Auditor) -> None:
    scene.only(*[scene.plan(None, skip=skip).gid for skip in range(12)])
    summaries: list[AuditSummary] = []
    threads = [
        threading.Thread(target=lambda: summaries.append(auditor.audit(limit=3))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [summary.audited for summary in summaries] == [3] * 4


def test_a_closed_auditor_says_so(connected: Scene) -> None:
    auditor = Auditor(connected.settings())
    auditor.close()
    with pytest.raises(RuntimeError, match="closed"):
        auditor.audit()


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSICBRAINZ_DATABASE_URL", raising=False)
    with pytest.raises(SettingsError, match="MUSICBRAINZ_DATABASE_URL"):
        Auditor.from_environment()


def test_it_makes_up_for_lost_feedback(own_scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = own_scene
    monkeypatch.setattr(Services, "from_settings", lambda *_, **__: scene.services())
    gid = scene.plan("index-missing").gid
    scene.only(gid)
    with Auditor(scene.settings()) as auditor:
        assert auditor.audit().counts["repair_queue"] == 1
        scene.conn.execute("ALTER TABLE artwork_indexer.event_queue DISABLE TRIGGER audit_feedback")
        scene.finish(*[event.id for event in scene.events()])
        assert scene.status(gid) == "repair_queue"
        auditor.audit()
    assert scene.status(gid) == "unchecked"


def test_an_entity_whose_events_were_withdrawn_waits_its_time(
    scene: Scene, auditor: Auditor
) -> None:
    gid = scene.plan("index-missing").gid
    scene.only(gid)
    assert auditor.audit().counts["repair_queue"] == 1
    # As an edit does: it withdraws ours, and is carried out.
    scene.finish(scene.queue(gid))
    age = "UPDATE artwork_indexer.audit_entity SET last_audit_at = now() - interval '2 hours'"
    scene.conn.execute(age)
    assert auditor.audit().waits_for == "nothing is left to audit"
    assert scene.status(gid) == "unchecked"
    scene.conn.execute("UPDATE artwork_indexer.audit_entity SET not_before = now()")
    assert auditor.audit().audited == 1


def test_an_entity_that_is_edited_steadily_is_audited_once_it_is_quiet(
    scene: Scene, auditor: Auditor
) -> None:
    gid = scene.plan("index-missing").gid
    scene.only(gid)
    age = "UPDATE artwork_indexer.audit_entity SET last_audit_at = now() - interval '2 hours'"
    for _ in range(8):
        event = scene.queue(gid)
        assert auditor.audit().audited == 0
        scene.finish(event)
        scene.conn.execute(age)
    assert auditor.audit().counts["repair_queue"] == 1
