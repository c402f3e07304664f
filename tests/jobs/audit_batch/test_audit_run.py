"""Whole runs of audit-batch, with services that answer in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Thread
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from artwork_backfill.jobs.audit_batch.guardrails import Limits
from artwork_backfill.jobs.audit_batch.job import AuditBatch
from artwork_backfill.jobs.audit_batch.verification import (
    verify_decisions,
    verify_repairs_and_reviews,
)
from artwork_backfill.shared.audit.decide import Policy, Status
from artwork_backfill.shared.auditing.models import STREAK_LIMIT, Reason
from artwork_backfill.shared.auditing.queueing import EventToQueue, QueueRequest, queue_events
from artwork_backfill.shared.clients.http import ServiceDown
from artwork_backfill.shared.engine.job import Partition, RunResult, Wait
from artwork_backfill.shared.engine.report import Outcome, Report
from artwork_backfill.shared.engine.runner import Runner
from artwork_backfill.shared.engine.session import Session
from artwork_backfill.shared.engine.stop import StopFlag
from artwork_backfill.shared.id_set import IdSet
from artwork_backfill.shared.review import actions, questions
from tests.beside.rows import wait_until
from tests.jobs.audit_batch.audit_scene import Scene, findings, unreadable

_CHECKS = """
SELECT gid::text, status::text, ARRAY(
    SELECT DISTINCT finding->>'check'
    FROM artwork_indexer.audit_result result, jsonb_array_elements(findings) AS finding
    WHERE result.audit_entity_id = entity.id
    ORDER BY 1) AS checks
FROM artwork_indexer.audit_entity entity
"""


def _statuses(scene: Scene) -> Counter[str]:
    return Counter(
        row.status for row in scene.rows("SELECT status::text FROM artwork_indexer.audit_entity")
    )


def test_finds_and_decides_exactly_what_the_world_has_planned(scene: Scene) -> None:
    report = scene.run()
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    found = {row.gid: (row.status, row.checks) for row in scene.rows(_CHECKS)}
    planned = {plan.gid: (plan.status, sorted(plan.checks)) for plan in scene.world.plans()}
    assert found == planned


def test_the_report_counts_what_is_in_the_tables(scene: Scene) -> None:
    report = scene.run()
    statuses = _statuses(scene)
    assert {status: report.totals[status] for status in statuses} == statuses
    assert report.totals["scanned"] == report.totals["written"] == scene.world.spec.size
    assert report.totals["events"] == len(scene.events())
    entities = Counter(check for plan in scene.world.plans() for check in plan.checks)
    assert {check: count.entities for check, count in findings(report).items()} == entities
    assert all(count.findings >= count.entities for count in findings(report).values())
    assert report.as_dict()["findings"]["xml.field"] == {
        "entities": entities["xml.field"],
        "findings": findings(report)["xml.field"].findings,
    }


def test_nothing_is_audited_twice(scene: Scene) -> None:
    scene.run()
    asked = scene.archive.asked.copy()
    events = scene.events()
    report = scene.run()
    assert (report.outcome, report.totals["scanned"]) == (Outcome.VERIFIED, 0)
    assert scene.archive.asked == asked
    assert scene.events() == events


_RELATIONS = """
SELECT oid::regclass::text AS name, relkind = 'S' AS is_sequence
FROM pg_class
WHERE relnamespace = 'artwork_indexer'::regnamespace AND relkind IN ('r', 'S')
ORDER BY 1
"""


def _contents(scene: Scene) -> dict[str, list[Any]]:
    """Everything in the tables and sequences of artwork_indexer."""
    return {
        name: scene.rows(
            f"SELECT * FROM {name}"
            if is_sequence
            else f"SELECT * FROM {name} AS content ORDER BY content::text"
        )
        for name, is_sequence in scene.rows(_RELATIONS)
    }


def test_a_dry_run_reports_the_same_and_changes_nothing_at_all(scene: Scene) -> None:
    scene.queue(scene.plan(None).gid)
    before = _contents(scene)
    previewed = scene.run(dry_run=True)
    assert _contents(scene) == before
    assert (previewed.outcome, previewed.exit_code) == (Outcome.VERIFIED, 0)
    report = scene.run()
    same = ("scanned", "clean", "repair_queue", "manual_review", "legacy", "events", "deferred")
    assert [previewed.totals[name] for name in same] == [report.totals[name] for name in same]
    assert findings(previewed) == findings(report)


def test_deferred_entities_are_not_claimed_again_by_the_same_run(scene: Scene) -> None:
    busy = [scene.plan(None, skip=skip).gid for skip in range(5)]
    for gid in busy:
        scene.queue(gid)
    failing = scene.plan(None, skip=6).gid
    scene.archive.answers[failing] = unreadable
    report = scene.run(batch_size=3, fixed_batch_size=True)
    assert report.outcome is Outcome.VERIFIED
    assert report.totals["deferred"] == 6
    assert report.reason == "6 rows were deferred to a later run"
    assert report.totals[f"deferred: {Reason.EVENT_QUEUED}"] == 5
    assert scene.archive.asked[failing] == 1
    assert {scene.status(gid) for gid in [*busy, failing]} == {"unchecked"}
    again = scene.run()
    assert again.totals["scanned"] == 6


def test_a_limit_ends_the_run_with_everything_else_untouched(scene: Scene) -> None:
    report = scene.run(limit=123)
    assert (report.outcome, report.exit_code) == (Outcome.STOPPED, 0)
    assert _statuses(scene)["unchecked"] == scene.world.spec.size - 123


def test_partitions_audit_everything_between_them(scene: Scene) -> None:
    reports = [scene.run(partition=Partition(index, 2)) for index in range(2)]
    assert sum(report.totals["scanned"] for report in reports) == scene.world.spec.size
    assert "unchecked" not in _statuses(scene)


def test_a_bad_row_is_reported_and_left_while_the_rest_is_written(own_scene: Scene) -> None:
    scene = own_scene
    gid = scene.plan("index-missing").gid
    number = scene.world.number(gid)
    assert number is not None
    scene.conn.execute(
        "UPDATE cover_art_archive.cover_art SET mime_type = 'image/webp' WHERE release = %s",
        (scene.world.entity(number).row_id,),
    )
    report = scene.run()
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    [problem] = report.problems
    assert gid in problem.what
    assert "'image/webp', without image_type" in problem.detail
    assert scene.status(gid) == "unchecked"
    assert report.totals["written"] == scene.world.spec.size - 1


def test_a_row_that_the_database_refuses_is_left_while_the_rest_is_written(
    own_scene: Scene,
) -> None:
    scene = own_scene
    gid = scene.plan("index-missing").gid
    scene.conn.execute(
        f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no events for this one'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON artwork_indexer.event_queue FOR EACH ROW
        WHEN (NEW.message->>'gid' = '{gid}') EXECUTE FUNCTION refuse();
        """.encode()
    )
    report = scene.run()
    [problem] = report.problems
    assert gid in problem.what
    assert "no events for this one" in problem.detail
    assert scene.status(gid) == "unchecked"
    assert report.totals["written"] == scene.world.spec.size - 1


def test_a_service_that_is_down_for_good_interrupts_the_run(scene: Scene) -> None:
    first = [plan.gid for plan in scene.world.plans()][:60]

    def down() -> object:
        raise ServiceDown("archive.org is down: run again later", service="archive.org")

    scene.archive.answers = {
        plan.gid: down for plan in scene.world.plans() if plan.gid not in first
    }
    report = scene.run(batch_size=20)
    assert (report.outcome, report.exit_code) == (Outcome.INTERRUPTED, 75)
    assert report.reason == "archive.org is down: run again later"
    statuses = _statuses(scene)
    assert statuses["audit_in_progress"] == 0
    assert 0 < scene.world.spec.size - statuses["unchecked"] <= 60
    never = scene.value(
        "SELECT count(*) FROM artwork_indexer.audit_entity WHERE last_audit_at IS NULL"
    )
    assert never == statuses["unchecked"]


# -- the database's answers get lost -----------------------------------------------------------


def _drive(scene: Scene, job: AuditBatch, stop_flag: StopFlag) -> Report:
    return Runner(
        job, job.run, log=scene.log(job), progress=scene.progress(job), stop_flag=stop_flag
    ).run()


class LosesAnswer(psycopg.Connection[Any]):
    """Commits, and once told to, loses its connection before the answer arrives."""

    loses = False

    def commit(self) -> None:
        super().commit()
        if self.loses:
            self.close()
            raise psycopg.OperationalError("the connection is lost")


@pytest.mark.parametrize("verb", ["claim", "write"])
def test_a_commit_whose_answer_is_lost_loses_and_doubles_nothing(
    scene: Scene, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_flag = StopFlag()
    job = scene.job(stop_flag=stop_flag)
    job.run.open_connection = lambda: LosesAnswer.connect(scene.dsn, autocommit=True)
    losses: list[bool] = []
    original: Callable[..., Any] = job.source().complete if verb == "claim" else job.write

    def lose(conn: psycopg.Connection, *args: Any) -> Any:
        result = original(conn, *args)
        if not losses:
            losses.append(True)
            assert isinstance(conn, LosesAnswer)
            conn.loses = True
        return result

    if verb == "claim":
        monkeypatch.setattr(job.source(), "complete", lose)
    else:
        monkeypatch.setattr(job, "write", lose)
    report = _drive(scene, job, stop_flag)
    assert losses == [True]
    assert (report.outcome, report.reason) == (Outcome.VERIFIED, "nothing is left to do")
    assert report.totals["written"] == scene.world.spec.size
    assert "lost" not in report.totals
    found = {row.gid: (row.status, row.checks) for row in scene.rows(_CHECKS)}
    assert found == {plan.gid: (plan.status, sorted(plan.checks)) for plan in scene.world.plans()}
    assert scene.value("SELECT sum(audits) FROM artwork_indexer.audit_tally") == len(found)


# -- guardrails --------------------------------------------------------------------------------


def test_a_queue_that_nobody_works_ends_the_run_with_the_queue_full_and_no_fuller(
    scene: Scene,
) -> None:
    scene.only(*[scene.plan(drift).gid for drift in ("index-missing", "index-malformed")])
    report = scene.run(limits=Limits(max_queue_depth=1, queue_patience=0.3))
    assert (report.outcome, report.exit_code) == (Outcome.INTERRUPTED, 75)
    assert "artwork-indexer is not working" in report.reason
    assert "--max-queue-depth allows 1" in report.reason
    assert len(scene.events()) == 1
    assert _statuses(scene)["audit_in_progress"] == 0


def test_slow_services_get_small_batches(scene: Scene) -> None:
    # What is read long before it is written may be out of date by then.
    job = scene.job(rate=0.1)
    session = Session(job.run.open_connection)
    claimed = job.source().next(session, 200)
    session.close()
    assert not isinstance(claimed, Wait)
    assert len(claimed) == 6


def test_claims_of_a_run_that_died_are_taken_over_in_the_same_run(scene: Scene) -> None:
    scene.claim(50)
    scene.record(heartbeat="2 minutes")
    report = scene.run()
    assert report.totals["scanned"] == scene.world.spec.size
    assert _statuses(scene)["audit_in_progress"] == 0


def test_claims_of_a_run_that_dies_meanwhile_are_taken_over_when_nothing_else_is_left(
    scene: Scene,
) -> None:
    scene.claim(50)
    scene.record()
    stop_flag = StopFlag()
    job = scene.job(stop_flag=stop_flag)

    def die(_: int) -> None:
        scene.conn.execute(
            "UPDATE artwork_indexer.backfill_run SET heartbeat = now() - interval '2 minutes'"
            " WHERE id = %s",
            (scene.run_id,),
        )

    job.source().taken = die
    report = _drive(scene, job, stop_flag)
    assert report.totals["scanned"] == scene.world.spec.size


def test_what_a_run_holds_that_was_just_killed_is_left(scene: Scene) -> None:
    scene.claim(7)
    # It still counts as alive, however slow the machine is.
    scene.record(heartbeat="-1 hour")
    report = scene.run()
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    assert report.reason == "all rows were processed, and 7 rows are left"


def test_a_run_that_is_taken_for_dead_writes_nothing_any_more(scene: Scene) -> None:
    stop_flag = StopFlag()
    job = scene.job(stop_flag=stop_flag, batch_size=50, fixed_batch_size=True)
    written: list[int] = []

    def bury(done: Any) -> None:
        written.append(done.counts["written"])
        scene.conn.execute("UPDATE artwork_indexer.backfill_run SET finished = now()")

    job.committed = bury  # type: ignore[method-assign]
    report = _drive(scene, job, stop_flag)
    assert (report.outcome, report.exit_code) == (Outcome.INTERRUPTED, 75)
    assert "declared it dead" in report.reason
    assert len(written) == 1
    assert scene.value("SELECT sum(audits) FROM artwork_indexer.audit_tally") == written[0]
    # The next run takes back what it held.
    assert scene.run().totals["scanned"] == scene.world.spec.size - written[0]


def test_a_run_that_could_read_less_than_half_is_interrupted(scene: Scene) -> None:
    gids = [scene.plan(None, skip=skip).gid for skip in range(3)]
    scene.only(*gids)
    scene.archive.answers = dict.fromkeys(gids[:2], unreadable)
    report = scene.run()
    assert (report.outcome, report.exit_code) == (Outcome.INTERRUPTED, 75)
    assert report.reason.startswith("2 of 3 audits could not read what they needed")


# -- verification ------------------------------------------------------------------------------


def test_a_decision_without_events_ends_the_row_of_withdrawals(scene: Scene) -> None:
    decided, deferred = scene.plan(None).gid, scene.plan(None, skip=1).gid
    scene.only(decided, deferred)
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET withdrawals = 4, not_before = now()"
    )
    scene.archive.answers[deferred] = unreadable
    scene.run()
    rows = scene.rows(
        "SELECT gid::text, withdrawals, not_before IS NULL AS is_due"
        " FROM artwork_indexer.audit_entity WHERE gid = ANY (%s::uuid[])",
        [decided, deferred],
    )
    assert {row[0]: row[1:] for row in rows} == {decided: (0, True), deferred: (4, False)}


def test_an_outage_makes_no_reviews_however_many_runs_it_lasts(scene: Scene) -> None:
    gids = [scene.plan(None, skip=skip).gid for skip in range(3)]
    scene.only(*gids)
    scene.archive.answers = dict.fromkeys(gids, unreadable)
    for _ in range(STREAK_LIMIT + 1):
        assert scene.run().exit_code == 75
    assert {scene.status(gid) for gid in gids} == {"unchecked"}
    # What is still unreadable when the others are not is a matter for a person.
    scene.archive.answers = {gids[0]: unreadable}
    assert scene.run().exit_code == 0
    assert [scene.status(gid) for gid in gids] == ["manual_review", "clean", "clean"]


def test_a_review_for_what_could_not_be_read_counts_as_unreadable(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.archive.answers[gid] = unreadable
    for _ in range(STREAK_LIMIT - 1):
        scene.audit(gid)
    scene.only(gid)
    report = scene.run()
    assert (scene.status(gid), report.exit_code) == ("manual_review", 75)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        ("UPDATE artwork_indexer.audit_entity SET status = 'legacy' WHERE gid = %s", "decided"),
        ("DELETE FROM artwork_indexer.needs_manual_review", "entities in review"),
        (
            "TRUNCATE artwork_indexer.event_queue, artwork_indexer.audit_event CASCADE",
            "entities in repair",
        ),
    ],
)
def test_the_verification_sees_what_was_lost(
    scene: Scene, damage: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_flag = StopFlag()
    job = scene.job(stop_flag=stop_flag)
    verify = job.verify

    def damaged(conn: psycopg.Connection, run: RunResult | None) -> Any:
        scene.conn.execute(damage.encode(), [scene.plan(None).gid] * damage.count("%s"))
        return verify(conn, run)

    monkeypatch.setattr(job, "verify", damaged)
    report = _drive(scene, job, stop_flag)
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    [wrong] = [check.name for check in report.verification if not check.ok]
    assert name in wrong


def test_a_replica_without_edits_is_said_to_be_one(own_scene: Scene) -> None:
    """Every image would seem not to be approved."""
    own_scene.conn.execute("TRUNCATE musicbrainz.edit CASCADE")
    stop_flag = StopFlag()
    report = _drive(own_scene, own_scene.job(stop_flag=stop_flag), stop_flag)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert "like a replica without the edit tables" in report.reason
    assert own_scene.value("SELECT count(*) FROM artwork_indexer.audit_result") == 0


def test_events_that_musicbrainz_has_deleted_are_in_order(scene: Scene) -> None:
    """It deletes those of an entity that is merged or deleted before they are completed."""
    stop_flag = StopFlag()
    job = scene.job(stop_flag=stop_flag)
    assert _drive(scene, job, stop_flag).exit_code == 0
    scene.conn.execute("DELETE FROM artwork_indexer.event_queue")
    checks = list(verify_repairs_and_reviews(scene.conn))
    assert [check.ok for check in checks] == [True, True]
    assert checks[0].expected > 0


def test_what_others_did_since_is_in_order(scene: Scene) -> None:
    gid = scene.plan("index-missing").gid
    scene.audit(gid)
    ids = IdSet()
    ids.update([scene.id(gid)])
    scene.finish(scene.events()[0].id)
    [check] = verify_decisions(
        scene.conn,
        {Status.REPAIR_QUEUE: ids},
        run_id=scene.run_id,
        run_started=scene.value("SELECT now() - interval '1 minute'"),
    )
    assert (scene.status(gid), check.ok) == ("unchecked", True)


def test_what_people_decided_since_is_in_order(scene: Scene) -> None:
    unfixed, requeued = scene.plan("original-missing").gid, scene.plan("index-missing").gid
    failed = scene.queue(requeued)
    scene.finish(failed, state="failed")
    scene.audit(unfixed, requeued)
    ids = IdSet()
    ids.update([scene.id(unfixed), scene.id(requeued)])
    assert scene.status(unfixed) == scene.status(requeued) == "manual_review"

    review = questions.REVIEWS.find(scene.conn, scene.reviews(unfixed)[0].id)
    assert review is not None
    actions.leave_unfixed(scene.conn, review, by="alice", note="as it should be")
    request = QueueRequest(
        scene.id(requeued), uuid4(), [EventToQueue("index", {"gid": requeued}, event_id=failed)]
    )
    assert queue_events(scene.conn, request).obstacle is None
    [check] = verify_decisions(
        scene.conn,
        {Status.MANUAL_REVIEW: ids},
        run_id=scene.run_id,
        run_started=scene.value("SELECT now() - interval '1 minute'"),
    )
    assert (scene.status(unfixed), scene.status(requeued)) == ("clean", "repair_queue")
    assert check.ok


@pytest.mark.parametrize(("was_live", "is_ok"), [(False, True), (True, False)])
def test_an_entity_that_is_gone_since_and_legacy_for_another_run_is_in_order(
    scene: Scene, was_live: bool, is_ok: bool
) -> None:
    gid = scene.plan(None).gid
    scene.audit(gid)
    assert (scene.status(gid), scene.results(gid)) == ("clean", [])
    ids = IdSet()
    ids.update([scene.id(gid)])
    # The feedback of its merge, and an Auditor in artwork-indexer.
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET status = 'legacy', was_live = %s WHERE gid = %s",
        (was_live, gid),
    )
    [check] = verify_decisions(
        scene.conn,
        {Status.CLEAN: ids},
        run_id=scene.run_id,
        run_started=scene.value("SELECT now() - interval '1 minute'"),
    )
    assert check.ok is is_ok


def test_what_waits_after_withdrawals_is_left_to_do(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.only(gid)
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET not_before = now() + interval '1 hour'"
        " WHERE gid = %s",
        (gid,),
    )
    report = scene.run()
    assert (report.outcome, report.totals["scanned"]) == (Outcome.VERIFIED, 0)
    assert report.reason == "all rows were processed, and 1 rows are left"


@pytest.mark.parametrize(("cut", "warns"), [(1, False), (3, True)])
def test_a_run_says_so_when_more_than_one_listing_in_a_hundred_is_incomplete(
    scene: Scene, cut: int, warns: bool
) -> None:
    clean = [plan.gid for plan in scene.world.plans() if scene.archive.document(plan.gid)]
    scene.only(*clean[:150])
    for gid in [gid for gid in clean[:150] if "files" in scene.archive.document(gid)][:cut]:
        document = {**scene.archive.document(gid), "files": []}
        scene.archive.answers[gid] = lambda document=document: document
    report = scene.run()
    assert report.totals[f"deferred: {Reason.UNREADABLE}"] >= cut
    said = [step for step in report.next_steps if "were incomplete, more than 1 %" in step]
    assert bool(said) is warns


def test_ignored_checks_lead_to_nothing_in_a_run(scene: Scene) -> None:
    checks = frozenset(check for plan in scene.world.plans() for check in plan.checks)
    report = scene.run(policy=Policy(ignored=checks))
    assert set(_statuses(scene)) <= {"clean", "legacy"}
    assert scene.events() == []
    assert set(findings(report)) == checks


def test_dark_items_that_musicbrainz_knows_of_are_clean(own_scene: Scene) -> None:
    scene = own_scene
    gid = scene.plan("item-dark").gid
    scene.conn.execute("UPDATE musicbrainz.release_meta SET cover_art_presence = 'darkened'")
    scene.only(gid)
    scene.run()
    assert scene.status(gid) == "clean"


def test_a_run_says_which_trigger_does_not_fire(own_scene: Scene) -> None:
    own_scene.only()
    own_scene.conn.execute("ALTER TABLE artwork_indexer.event_queue DISABLE TRIGGER audit_withdraw")
    [problem] = own_scene.run().problems
    assert problem.what == "trigger audit_withdraw is missing or disabled"


def test_nothing_is_queued_while_edits_of_musicbrainz_could_fail_for_it(own_scene: Scene) -> None:
    own_scene.only(own_scene.plan("index-missing").gid)
    own_scene.conn.execute("ALTER TABLE artwork_indexer.event_queue DISABLE TRIGGER audit_withdraw")
    report = own_scene.run()
    assert (report.outcome, report.exit_code) == (Outcome.INTERRUPTED, 75)
    assert "edits of MusicBrainz can fail because of the audit's events" in report.reason
    assert own_scene.events() == []


def test_each_deletion_is_confirmed_just_before_it_is_queued(scene: Scene) -> None:
    gids = [
        plan.gid
        for plan in scene.world.plans()
        if plan.drift == "orphan-image" and plan.status == "repair_queue"
    ][:3]
    scene.only(*gids)
    queued_when_asked: dict[str, list[int]] = {gid: [] for gid in gids}

    def answer(gid: str) -> Callable[[], object]:
        def document() -> object:
            with psycopg.connect(scene.dsn, autocommit=True) as conn:
                (queued,) = conn.execute(
                    "SELECT count(*) FROM artwork_indexer.event_queue"
                ).fetchone() or (0,)
            queued_when_asked[gid].append(queued)
            return scene.archive.document(gid)

        return document

    scene.archive.answers = {gid: answer(gid) for gid in gids}
    report = scene.run()
    assert report.totals["events"] == 3
    assert sorted(queued_when_asked.values()) == [[0, 0], [0, 1], [0, 2]]


def test_an_error_that_was_not_foreseen_fails_one_entity_in_the_second_look_too(
    scene: Scene,
) -> None:
    bad, absent = scene.plan("orphan-image").gid, scene.plan("orphan-leftover").gid
    clean = scene.plan(None).gid
    scene.only(bad, absent, clean)

    def surprise() -> object:
        if scene.archive.asked[bad] % 2:
            return {}
        raise ValueError("not foreseen")

    scene.archive.answers = {bad: surprise, absent: dict}
    report = scene.run()
    assert (report.outcome, report.totals["failed"]) == (Outcome.UNVERIFIED, 1)
    assert [problem.detail for problem in report.problems] == ["ValueError: not foreseen"]
    assert (scene.status(absent), scene.status(clean)) == ("legacy", "clean")
    assert scene.status(bad) == "unchecked"
    for _ in range(4):
        scene.run()
    assert scene.status(bad) == "manual_review"
    assert "5 audits in a row failed" in scene.reviews(bad)[0].review_reason


def test_a_paused_run_withdraws_deletions_that_wait(own_scene: Scene) -> None:
    scene = own_scene
    scene.audit(scene.plan("orphan-image").gid)
    scene.conn.execute(
        "UPDATE artwork_indexer.event_queue SET created = now() - interval '11 minutes';"
        # Every run is paused from its beginning.
        "ALTER TABLE artwork_indexer.backfill_run ALTER requested SET DEFAULT 'pause'"
    )
    stop_flag = StopFlag()
    run = Thread(target=lambda: scene.run(stop_flag=stop_flag))
    run.start()
    try:
        wait_until(lambda: not scene.events())
    finally:
        stop_flag.request("the test has seen enough")
        run.join(30)
    assert not run.is_alive()


def test_a_large_repair_does_not_wait_for_what_is_tried_again_in_hours(scene: Scene) -> None:
    gid = scene.plan("foreign-owned").gid
    scene.only(gid)
    failed_once = scene.queue(scene.plan(None).gid)
    scene.conn.execute(
        "UPDATE artwork_indexer.event_queue SET attempts = 1 WHERE id = %s", (failed_once,)
    )
    report = scene.run(
        limits=Limits(max_queue_depth=2, queue_patience=2),
        policy=Policy(delete_from_live=True),
        limit=1,
    )
    assert report.exit_code == 0
    assert (scene.status(gid), len(scene.events(gid))) == ("repair_queue", 2)
