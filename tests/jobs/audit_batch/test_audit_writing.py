"""Writing audits: events, reviews and results, and what happened since the claim."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from artwork_backfill.jobs.audit_batch.claims import TABLE
from artwork_backfill.jobs.audit_batch.writing import Writer
from artwork_backfill.shared import reaudit, seeding
from artwork_backfill.shared.audit.catalogue import Severity
from artwork_backfill.shared.audit.decide import Decision, Policy, ReviewReason, Status
from artwork_backfill.shared.audit.expected import index_json, md5
from artwork_backfill.shared.auditing.models import Audit, Deferral, Reason
from tests.jobs.audit_batch.audit_scene import Scene, unreadable
from tests.timing import LIMIT_S

#: Two events of one entity: a leftover deleted, and an index after it.
FROM_LIVE = Policy(delete_from_live=True)


@pytest.fixture
def other(scene: Scene) -> Iterator[psycopg.Connection]:
    """The session of somebody else: a user's edit, artwork-indexer, another run."""
    with psycopg.connect(scene.dsn, autocommit=True) as conn:
        yield conn


def _audits(scene: Scene, *gids: str, policy: Policy | None = None) -> list[Audit]:
    scene.only(*gids)
    return scene.examine(scene.claim(len(gids)), policy)


def _wait_until_blocked(scene: Scene) -> None:
    """Wait until a session of this database waits for a lock."""
    deadline = time.monotonic() + LIMIT_S
    with psycopg.connect(scene.dsn, autocommit=True) as conn:
        while not conn.execute(
            "SELECT 1 FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone():
            assert time.monotonic() < deadline, "nobody waits for a lock"
            time.sleep(0.01)


# -- what is written ---------------------------------------------------------------------------


def test_a_clean_audit_leaves_nothing_but_its_status(scene: Scene) -> None:
    gid = scene.plan(None).gid
    written = scene.audit(gid)
    assert scene.status(gid) == "clean"
    assert written.counts == {"audited": 1, "written": 1, "clean": 1}
    assert (scene.results(gid), scene.events(), scene.reviews(gid)) == ([], [], [])


def test_a_repair_becomes_an_event_and_a_result_that_names_it(scene: Scene) -> None:
    gid = scene.plan("index-missing").gid
    scene.audit(gid)
    [event] = scene.events()
    assert (event.state, event.entity_type, event.action) == ("queued", "release", "index")
    assert (event.message, event.depends_on) == ({"gid": gid}, None)
    [result] = scene.results(gid)
    assert (result.outcome, result.event_ids) == ("repair_queue", [event.id])
    assert result.run_id == scene.run_id
    assert [(f["check"], f["severity"], f["repair"]) for f in result.findings] == [
        ("files.index.missing", "critical", True)
    ]


def test_deletions_come_before_the_index_that_waits_for_them(scene: Scene) -> None:
    gid = scene.plan("foreign-owned").gid
    scene.audit(gid, policy=FROM_LIVE)
    delete, index = scene.events()
    assert (delete.action, index.action) == ("delete_image", "index")
    assert set(delete.message) == {"gid", "artwork_id", "suffix"}
    assert isinstance(delete.message["artwork_id"], int)
    assert index.depends_on == [delete.id]


def test_an_orphans_index_goes_after_its_images(scene: Scene) -> None:
    gid = scene.plan("orphan-image-and-index").gid
    scene.audit(gid)
    delete, deindex = scene.events()
    assert (delete.action, deindex.action, deindex.message) == (
        "delete_image",
        "deindex",
        {"gid": gid},
    )
    assert deindex.depends_on == [delete.id]


def test_a_review_names_every_reason_and_queues_nothing(scene: Scene) -> None:
    gid = scene.plan("foreign-only-copy").gid
    scene.audit(gid)
    [review] = scene.reviews(gid)
    assert (review.status, scene.status(gid)) == ("open", "manual_review")
    assert "files.original.extra" in review.review_reason
    assert "only copy" in review.review_reason
    assert scene.events() == []


def test_a_review_that_is_open_is_brought_up_to_date(scene: Scene) -> None:
    gid = scene.plan("original-missing").gid
    scene.conn.execute(
        "INSERT INTO artwork_indexer.needs_manual_review (audit_entity_id, review_reason)"
        " VALUES (%s, 'another reason')",
        (scene.id(gid),),
    )
    scene.audit(gid)
    [review] = scene.reviews(gid)
    assert "files.original.missing" in review.review_reason
    assert "another reason" not in review.review_reason


def test_a_clean_audit_closes_the_open_review_and_says_so(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.conn.execute(
        "INSERT INTO artwork_indexer.needs_manual_review"
        " (audit_entity_id, review_reason, status) VALUES (%s, 'old', 'wont_fix')",
        (scene.id(gid),),
    )
    scene.conn.execute(
        "INSERT INTO artwork_indexer.needs_manual_review (audit_entity_id, review_reason)"
        " VALUES (%s, 'new')",
        (scene.id(gid),),
    )
    scene.audit(gid)
    wont_fix, resolved = scene.reviews(gid)
    assert (wont_fix.status, wont_fix.resolution_notes) == ("wont_fix", None)
    assert resolved.status == "resolved"
    assert resolved.resolution_notes == f"audit {scene.run_id} found it clean"
    assert resolved.resolved_at is not None


@pytest.mark.parametrize(
    "policy",
    [Policy(ignored=frozenset({"index.image.url"})), Policy(min_severity=Severity.CRITICAL)],
)
def test_findings_that_are_not_acted_upon_are_kept_all_the_same(
    scene: Scene, policy: Policy
) -> None:
    gid = scene.plan("index-url").gid
    scene.write(_audits(scene, gid, policy=policy))
    [result] = scene.results(gid)
    assert (scene.status(gid), result.outcome) == ("clean", "clean")
    assert {(f["check"], f["repair"]) for f in result.findings} == {("index.image.url", False)}
    assert scene.events() == []


def test_every_deferral_goes_to_the_end_of_its_class_and_is_counted(scene: Scene) -> None:
    gids = [scene.plan(None, skip=skip).gid for skip in range(3)]
    scene.queue(gids[0])
    scene.archive.answers[gids[1]] = lambda: {
        **scene.archive.document(gids[1]),
        "pending_tasks": True,
    }
    scene.archive.answers[gids[2]] = unreadable
    audits = _audits(scene, *gids)
    before = scene.value("SELECT now()")
    written = scene.write(audits)
    assert written.counts == {
        "skipped": 3,
        "deferred": 3,
        f"deferred: {Reason.EVENT_QUEUED}": 1,
        f"deferred: {Reason.TASKS_PENDING}": 1,
        f"deferred: {Reason.UNREADABLE}": 1,
    }
    rows = scene.rows(
        "SELECT status::text, last_audit_at FROM artwork_indexer.audit_entity"
        " WHERE gid = ANY (%s::uuid[])",
        gids,
    )
    assert all(row.status == "unchecked" and row.last_audit_at >= before for row in rows)
    # Only what could not be read leaves a trace, for the count of such audits.
    assert [len(scene.results(gid)) for gid in gids] == [0, 0, 1]


# -- what happened since the claim -------------------------------------------------------------


@pytest.mark.parametrize("state", ["queued", "running", "completed", "failed"])
@pytest.mark.parametrize("key", ["gid", "old_gid", "new_gid"])
def test_an_event_since_the_claim_overrules_what_was_found(
    scene: Scene, key: str, state: str
) -> None:
    gid = scene.plan("index-missing").gid
    audits = _audits(scene, gid)
    scene.queue(gid, state=state, action="copy_image", message={key: gid})
    written = scene.write(audits)
    assert written.counts[f"deferred: {Reason.EVENT_SINCE}"] == 1
    assert scene.status(gid) == "unchecked"
    assert len(scene.events()) == 1


def test_an_old_event_that_was_queued_anew_and_completed_since_the_claim_overrules_as_well(
    scene: Scene,
) -> None:
    gid = scene.plan("index-missing").gid
    event_id = scene.queue(gid, state="failed", age="2 days")
    audits = _audits(scene, gid)
    scene.conn.execute("UPDATE artwork_indexer.event_queue SET state = 'queued', attempts = 0")
    scene.finish(event_id)
    assert scene.write(audits).counts[f"deferred: {Reason.EVENT_SINCE}"] == 1


def test_events_that_ended_before_the_claim_and_events_of_others_overrule_nothing(
    scene: Scene,
) -> None:
    gid = scene.plan("index-missing").gid
    scene.queue(gid, state="completed", age="1 minute")
    audits = _audits(scene, gid)
    scene.queue(scene.plan(None).gid)
    scene.queue(gid, entity_type="event")
    assert scene.write(audits).counts["repair_queue"] == 1


@pytest.mark.parametrize("drift", [None, "index-missing", "original-missing"])
def test_an_entity_that_was_merged_since_the_claim_is_left_for_later(
    own_scene: Scene, drift: str | None
) -> None:
    scene = own_scene
    gid = scene.plan(drift).gid
    audits = _audits(scene, gid)
    scene.conn.execute(
        "DELETE FROM musicbrainz.release_gid_redirect USING musicbrainz.release"
        " WHERE release.id = new_id AND release.gid = %s",
        (gid,),
    )
    scene.conn.execute("DELETE FROM musicbrainz.release WHERE gid = %s", (gid,))
    scene.conn.execute(
        "INSERT INTO musicbrainz.release_gid_redirect SELECT %s, id FROM musicbrainz.release"
        " LIMIT 1",
        (gid,),
    )
    # What the edit has queued was carried out since, and is forgotten.
    scene.conn.execute("TRUNCATE artwork_indexer.event_queue CASCADE")
    written = scene.write(audits)
    assert written.counts[f"deferred: {Reason.ENTITY_CHANGED}"] == 1
    assert (scene.status(gid), scene.events(), scene.reviews(gid)) == ("unchecked", [], [])


def test_what_another_run_has_taken_over_is_not_written(scene: Scene) -> None:
    lost, held = scene.plan("index-missing").gid, scene.plan("index-value").gid
    audits = _audits(scene, lost, held)
    TABLE.give_back(scene.conn, [a.claim for a in audits if a.claim.entity.gid == lost])
    [theirs] = scene.claim(1)
    assert theirs.entity.gid == lost
    written = scene.write(audits)
    assert (written.counts["lost"], written.counts["repair_queue"]) == (1, 1)
    assert scene.status(lost) == "audit_in_progress"
    assert [event.message["gid"] for event in scene.events()] == [held]


def test_a_claim_whose_status_somebody_has_set_is_not_written(scene: Scene) -> None:
    gid = scene.plan("index-missing").gid
    audits = _audits(scene, gid)
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET status = 'manual_review' WHERE gid = %s", (gid,)
    )
    assert scene.write(audits).counts == {"lost": 1}
    assert scene.status(gid) == "manual_review"


# -- the queue at the very moment of writing ---------------------------------------------------


def test_an_entity_for_which_somebody_is_queueing_an_event_is_left_for_later(
    scene: Scene, other: psycopg.Connection
) -> None:
    gid = scene.plan("foreign-owned").gid
    audits = _audits(scene, gid, policy=FROM_LIVE)
    with other.transaction():
        theirs = _queue(other, gid)
        assert scene.write(audits).counts[f"deferred: {Reason.EDIT_OPEN}"] == 1
    assert [event.id for event in scene.events()] == [theirs]
    assert scene.status(gid) == "unchecked"


def _queue(conn: psycopg.Connection, gid: str) -> int:
    row = conn.execute(
        "INSERT INTO artwork_indexer.event_queue (entity_type, action, message)"
        " VALUES ('release', 'index', jsonb_build_object('gid', %s::text)) RETURNING id",
        (gid,),
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_two_runs_that_write_at_once_do_not_wait_in_a_circle(scene: Scene) -> None:
    gids = [scene.plan("xml-language", skip=skip).gid for skip in range(4)]
    scene.only(*gids)
    audits = scene.examine(scene.claim(4))
    barrier = threading.Barrier(2)

    def write(batch: list[Audit]) -> None:
        with psycopg.connect(scene.dsn, autocommit=True) as conn:
            for _ in range(5):
                barrier.wait(LIMIT_S)
                scene.write(batch, conn=conn)

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(write, audits), pool.submit(write, audits[::-1])]:
            future.result(LIMIT_S)
    assert len(scene.events()) == 4
    assert [len(scene.results(gid)) for gid in gids] == [1] * 4


# -- no more events than the queue may hold ----------------------------------------------------


def test_repairs_that_find_no_room_in_the_queue_are_given_back(scene: Scene) -> None:
    gids = [scene.plan("foreign-owned", skip=skip).gid for skip in range(3)]
    audits = _audits(scene, *gids, policy=FROM_LIVE)
    scene.queue(scene.plan(None).gid)
    written = scene.write(audits, max_queue_depth=4)
    assert (written.counts["repair_queue"], written.counts["postponed"]) == (1, 2)
    assert written.postponed == 2
    assert len(scene.events()) == 3
    waiting = scene.rows(
        "SELECT last_audit_at FROM artwork_indexer.audit_entity WHERE status = 'unchecked'"
    )
    assert [row.last_audit_at for row in waiting] == [None, None]


def test_decisions_without_events_need_no_room(scene: Scene) -> None:
    gids = [scene.plan(None).gid, scene.plan("original-missing").gid]
    audits = _audits(scene, *gids)
    scene.queue(scene.plan(None, skip=1).gid)
    written = scene.write(audits, max_queue_depth=1)
    assert (written.counts["clean"], written.counts["manual_review"]) == (1, 1)


def test_a_repair_of_more_events_than_the_limit_gets_an_empty_queue_for_itself(
    scene: Scene,
) -> None:
    gids = [scene.plan("foreign-owned", skip=skip).gid for skip in range(2)]
    audits = _audits(scene, *gids, policy=FROM_LIVE)
    written = scene.write(audits, max_queue_depth=1)
    assert (written.counts["repair_queue"], written.counts["postponed"]) == (1, 1)
    assert len(scene.events()) == 2


def test_two_runs_do_not_fill_the_queue_together(scene: Scene, other: psycopg.Connection) -> None:
    gids = [scene.plan("xml-language", skip=skip).gid for skip in range(4)]
    audits = _audits(scene, *gids)
    with ThreadPoolExecutor(2) as pool:
        written = [
            pool.submit(scene.write, audits[part::2], max_queue_depth=3, conn=conn)
            for part, conn in enumerate((scene.conn, other))
        ]
        counts = [future.result(LIMIT_S).counts for future in written]
    assert sum(count.get("events", 0) for count in counts) == len(scene.events()) == 3


# -- retry -------------------------------------------------------------------------------------


def test_a_transaction_that_was_rolled_back_is_written_anew(scene: Scene) -> None:
    gid = scene.plan("original-missing").gid
    audits = _audits(scene, gid)
    writer = Writer(uuid4())
    with scene.conn.transaction(force_rollback=True):
        writer.write(scene.conn, audits)
    with scene.conn.transaction():
        assert writer.write(scene.conn, audits).counts["manual_review"] == 1
    assert len(scene.reviews(gid)) == 1


def test_a_preview_counts_the_same_and_changes_nothing(scene: Scene) -> None:
    gids = [scene.plan(drift).gid for drift in (None, "foreign-owned", "original-missing")]
    audits = _audits(scene, *gids)
    previewed = Writer(uuid4()).preview(scene.conn, audits)
    assert scene.events() == []
    written = scene.write(audits)
    assert previewed.counts == written.counts
    assert previewed.findings == written.findings


# -- never round in circles --------------------------------------------------------------------


def test_an_identical_event_that_has_failed_is_named_to_a_person(scene: Scene) -> None:
    gid = scene.plan("index-missing").gid
    event_id = scene.queue(gid, state="failed", age="1 day")
    scene.audit(gid)
    assert scene.status(gid) == "manual_review"
    assert f"event {event_id} has failed" in scene.reviews(gid)[0].review_reason
    assert len(scene.events()) == 1


def _repaired_in_vain(scene: Scene) -> str:
    """Let an entity be repaired without effect; return its gid."""
    gid = scene.plan("index-missing").gid
    scene.audit(gid)
    [event] = scene.events(gid)
    scene.finish(event.id)
    scene.conn.execute(
        "UPDATE artwork_indexer.event_queue SET last_updated = now() - interval '1 minute'"
    )
    assert scene.status(gid) == "unchecked"
    return gid


def test_a_repair_that_did_not_hold_is_not_tried_again(scene: Scene) -> None:
    gid = _repaired_in_vain(scene)
    scene.audit(gid)
    assert scene.status(gid) == "manual_review"
    [review] = scene.reviews(gid)
    assert "repair did not hold: files.index.missing" in review.review_reason
    assert len(scene.events()) == 1


def test_a_repair_that_was_never_carried_out_is_not_blamed(scene: Scene) -> None:
    gid = scene.plan("index-missing").gid
    scene.audit(gid)
    scene.finish(scene.events()[0].id, state="failed")
    scene.conn.execute(
        "UPDATE artwork_indexer.event_queue SET last_updated = now() - interval '1 minute'"
    )
    scene.audit(gid)
    [review] = scene.reviews(gid)
    assert "has failed" in review.review_reason
    assert "did not hold" not in review.review_reason


def test_an_unreadable_audit_in_between_does_not_hide_that_a_repair_did_not_hold(
    scene: Scene,
) -> None:
    gid = _repaired_in_vain(scene)
    scene.archive.answers[gid] = unreadable
    scene.audit(gid)
    del scene.archive.answers[gid]
    scene.audit(gid)
    assert scene.status(gid) == "manual_review"


def test_after_a_clean_audit_in_between_the_same_check_is_repaired_again(scene: Scene) -> None:
    gid = _repaired_in_vain(scene)
    mended = _with_index(scene, gid)
    scene.archive.answers[gid] = lambda: mended
    scene.audit(gid)
    assert scene.status(gid) == "clean"
    del scene.archive.answers[gid]
    scene.audit(gid)
    assert scene.status(gid) == "repair_queue"


def _with_index(scene: Scene, gid: str) -> dict[str, Any]:
    """The item as it is once its index.json is there."""
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET status = 'unchecked' WHERE gid = %s", (gid,)
    )
    scene.only(gid)
    [claim] = scene.claim()
    assert claim.expected is not None
    TABLE.give_back(scene.conn, [claim])
    index = {
        "name": "index.json",
        "source": "original",
        "md5": md5(index_json(claim.expected)),
        "size": "1000",
    }
    document = scene.archive.document(gid)
    files = [*document["files"], index]
    return {**document, "files": files, "files_count": len(files)}


def test_a_repair_whose_event_is_gone_was_withdrawn_or_rolled_back_and_is_not_blamed(
    scene: Scene,
) -> None:
    gid = scene.plan("index-missing").gid
    scene.audit(gid)
    scene.conn.execute("DELETE FROM artwork_indexer.event_queue")
    scene.audit(gid)
    assert (scene.status(gid), scene.reviews(gid)) == ("repair_queue", [])


def test_another_event_under_the_id_of_ours_is_not_taken_for_it(scene: Scene) -> None:
    gid = scene.plan("index-missing").gid
    scene.audit(gid)
    scene.conn.execute("TRUNCATE artwork_indexer.event_queue RESTART IDENTITY CASCADE")
    scene.queue(scene.plan(None).gid, state="completed", age="1 minute")
    scene.audit(gid)
    assert (scene.status(gid), scene.reviews(gid)) == ("repair_queue", [])


def test_that_a_repair_did_not_hold_is_remembered_over_all_audits_until_it_is_fixed(
    scene: Scene,
) -> None:
    gid = _repaired_in_vain(scene)
    for _ in range(3):
        scene.audit(gid)
        scene.conn.execute("UPDATE artwork_indexer.needs_manual_review SET status = 'resolved'")
    assert scene.status(gid) == "manual_review"
    assert len(scene.events(gid)) == 1


def test_there_is_never_more_than_one_open_review(scene: Scene) -> None:
    gid = scene.plan("original-missing").gid
    for _ in range(3):
        scene.audit(gid)
    assert [review.status for review in scene.reviews(gid)] == ["open"]


def test_deferrals_carry_why(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.archive.answers[gid] = unreadable
    [audit] = _audits(scene, gid)
    assert audit.outcome == Deferral(Reason.UNREADABLE, "HTTP 500")
    scene.write([audit])
    [result] = scene.results(gid)
    assert result.findings == [{"check": "unreadable", "subject": "HTTP 500", "repair": False}]


def test_hostile_texts_are_stored_as_they_can_be(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.only(gid)
    [claim] = scene.claim()
    reason = ReviewReason("finding", "'); DROP TABLE x; --", "item.dark")
    decision = Decision(Status.MANUAL_REVIEW, review_reasons=(reason,))
    scene.write([Audit(claim, decision)])
    assert scene.reviews(gid)[0].review_reason == "'); DROP TABLE x; --"


def test_an_audit_whose_item_changed_meanwhile_writes_nothing(scene: Scene) -> None:
    quiet, drifted = scene.plan(None).gid, scene.plan("index-missing").gid
    scene.only(quiet, drifted)
    audits = scene.examine(scene.claim())
    gids = seeding.uuid_array([UUID(quiet).bytes, UUID(drifted).bytes])
    with scene.conn.transaction():
        now = scene.value("SELECT now()")
        assert reaudit.make_gids_unchecked(scene.conn, gids, now).entities == 2
    assert scene.write(audits).counts["lost"] == 2
    assert (scene.status(quiet), scene.status(drifted)) == ("unchecked", "unchecked")
    assert scene.events() == []
