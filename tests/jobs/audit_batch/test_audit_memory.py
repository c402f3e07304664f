"""What audits remember of each other: policies, repairs that hold, failures, and presence."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from artwork_backfill.jobs.audit_batch import writing
from artwork_backfill.jobs.audit_batch.auditor import Auditor
from artwork_backfill.jobs.cli.main import main
from artwork_backfill.shared.audit.catalogue import Remedy, Severity
from artwork_backfill.shared.audit.decide import PROOFS, Policy
from artwork_backfill.shared.auditing.models import STREAK_LIMIT, Reason
from tests.jobs.audit_batch.audit_scene import Scene, unreadable

MAJOR_ONLY = Policy(min_severity=Severity.MAJOR)


# -- a narrower policy forgets nothing -----------------------------------------------------------


def test_what_a_narrower_policy_left_alone_is_taken_up_by_a_wider_one(scene: Scene) -> None:
    minor, clean = scene.plan("meta-title").gid, scene.plan(None).gid
    scene.only(minor, clean)
    assert scene.run(policy=MAJOR_ONLY).totals["clean"] == 2
    assert scene.run(policy=MAJOR_ONLY).totals["scanned"] == 0
    report = scene.run()
    assert report.totals["scanned"] == 1
    assert (scene.status(minor), scene.status(clean)) == ("repair_queue", "clean")
    assert scene.run().totals["scanned"] == 0


@pytest.mark.parametrize(
    "narrow",
    [
        Policy(ignored=frozenset({"orphan.image"})),
        Policy(remedies={"orphan.image": Remedy.RECORD}),
        Policy(deletions=False),
    ],
    ids=["ignored", "recorded", "no deletions"],
)
def test_the_images_of_an_orphan_are_taken_up_once_they_may_be_deleted(
    scene: Scene, narrow: Policy
) -> None:
    gid = scene.plan("orphan-image-and-index").gid
    scene.only(gid)
    scene.run(policy=narrow)
    assert (scene.status(gid), scene.events()) == ("clean", [])
    assert scene.run(policy=narrow).totals["scanned"] == 0
    scene.run()
    assert [event.action for event in scene.events(gid)] == ["delete_image", "deindex"]


def test_what_a_person_leaves_as_it_is_is_not_taken_up_by_a_wider_policy(scene: Scene) -> None:
    gid = scene.plan("original-missing").gid
    document = scene.archive.document(gid)
    document["metadata"]["title"] = "Untitled"
    scene.archive.answers[gid] = lambda: document
    scene.only(gid)
    scene.run(policy=MAJOR_ONLY)
    [review] = scene.reviews(gid)
    result = CliRunner().invoke(
        main,
        ["review", "wont-fix", str(review.id), "--note", "as it should be"],
        env={"MUSICBRAINZ_DATABASE_URL": scene.dsn, "BACKFILL_BY": "alice"},
    )
    assert result.exit_code == 0, result.output
    assert scene.run().totals["scanned"] == 0
    assert scene.status(gid) == "clean"


def test_what_is_unchecked_comes_before_what_a_wider_policy_takes_up(scene: Scene) -> None:
    minor, waiting = scene.plan("meta-title").gid, scene.plan("index-missing").gid
    scene.audit(minor, policy=MAJOR_ONLY)
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET status = 'unchecked', priority = 0,"
        " last_audit_at = NULL WHERE gid = %s",
        (waiting,),
    )
    scene.run(limit=1)
    assert (scene.status(minor), scene.status(waiting)) == ("clean", "repair_queue")


def test_a_review_is_not_closed_because_its_check_is_ignored_now(scene: Scene) -> None:
    gid = scene.plan("original-missing").gid
    scene.audit(gid)
    assert [reason["check"] for reason in scene.reviews(gid)[0].reasons] == [
        "files.original.missing"
    ]
    scene.audit(gid, policy=Policy(ignored=frozenset({"files.original.missing"})))
    assert scene.status(gid) == "manual_review"
    assert [review.status for review in scene.reviews(gid)] == ["open"]


def test_a_review_keeps_the_reasons_that_a_narrower_policy_ignores(scene: Scene) -> None:
    gid = scene.plan("original-missing").gid
    narrow = Policy(ignored=frozenset({"files.original.missing"}))
    scene.audit(gid)
    [before] = scene.reviews(gid)
    document = scene.archive.document(gid)
    files = [*document["files"], {"name": "cover.jpg", "source": "original", "size": "10"}]
    more = {**document, "files": files, "files_count": len(files)}
    for _ in range(2):
        scene.archive.answers[gid] = lambda: more
        scene.audit(gid, policy=narrow)
        [review] = scene.reviews(gid)
        assert [reason["check"] for reason in review.reasons] == [
            "files.original.extra",
            "files.original.missing",
        ]
        assert review.review_reason.endswith(f"; {before.review_reason}")
    scene.archive.answers[gid] = lambda: document
    scene.audit(gid, policy=narrow)
    assert scene.status(gid) == "manual_review"
    assert [review.status for review in scene.reviews(gid)] == ["open"]


def test_a_review_keeps_its_reasons_while_the_entity_cannot_be_read(scene: Scene) -> None:
    gid = scene.plan("original-missing").gid
    scene.audit(gid)
    scene.archive.answers[gid] = unreadable
    for _ in range(STREAK_LIMIT):
        scene.audit(gid)
    [review] = scene.reviews(gid)
    assert [(reason["code"], reason["check"]) for reason in review.reasons] == [
        ("unreadable", None),
        ("finding", "files.original.missing"),
    ]


def test_a_review_about_another_check_is_closed_when_its_finding_is_gone(scene: Scene) -> None:
    gid = scene.plan("meta-title").gid
    scene.conn.execute(
        "INSERT INTO artwork_indexer.needs_manual_review (audit_entity_id, review_reason, reasons)"
        """ VALUES (%s, 'x', '[{"code": "finding", "check": "item.dark"}]')""",
        (scene.id(gid),),
    )
    scene.audit(gid, policy=MAJOR_ONLY)
    assert scene.status(gid) == "clean"
    assert [review.status for review in scene.reviews(gid)] == ["resolved"]


# -- learning which repairs hold -----------------------------------------------------------------


def _tally(scene: Scene, check: str) -> Any:
    [row] = scene.rows("SELECT * FROM artwork_indexer.repair_tally WHERE check_name = %s", check)
    return (row.held, row.not_held, row.not_held_in_a_row)


def _complete_all(scene: Scene) -> None:
    scene.finish(*[event.id for event in scene.events() if event.state == "queued"])
    scene.conn.execute(
        "UPDATE artwork_indexer.event_queue SET last_updated = now() - interval '1 minute',"
        " created = now() - interval '1 hour'"
    )


def test_a_repair_is_proved_once_by_the_audit_after_it(scene: Scene) -> None:
    gid = scene.plan("meta-title").gid
    scene.audit(gid)
    _complete_all(scene)
    scene.audit(gid)
    scene.audit(gid)
    assert _tally(scene, "meta.title") == (0, 1, 1)


def test_checks_whose_repairs_never_hold_are_given_up_until_one_holds(scene: Scene) -> None:
    gids = [scene.plan("meta-title", skip=skip).gid for skip in range(2)]
    scene.conn.execute(
        "INSERT INTO artwork_indexer.repair_tally VALUES ('meta.title', 3, %s, %s)",
        (PROOFS - 1, PROOFS - 1),
    )
    scene.audit(gids[0])
    _complete_all(scene)
    scene.audit(gids[0])
    assert _tally(scene, "meta.title") == (3, PROOFS, PROOFS)

    scene.conn.execute("UPDATE artwork_indexer.audit_entity SET status = 'unchecked'")
    scene.only(gids[1])
    report = scene.run()
    assert (scene.status(gids[1]), scene.events(gids[1])) == ("manual_review", [])
    [step] = [step for step in report.next_steps if step.startswith("meta.title")]
    assert f"3 held and {PROOFS} did not" in step

    scene.conn.execute("UPDATE artwork_indexer.repair_tally SET not_held_in_a_row = 0")
    scene.audit(gids[1])
    assert scene.status(gids[1]) == "repair_queue"


def test_a_repair_that_holds_ends_the_row(scene: Scene) -> None:
    gid = scene.plan("meta-title").gid
    scene.conn.execute("INSERT INTO artwork_indexer.repair_tally VALUES ('meta.title', 0, 9, 9)")
    scene.audit(gid)
    _complete_all(scene)
    document = scene.archive.document(gid)
    document["metadata"]["title"] = scene.world.facts(scene.world.number(gid) or 0).title
    scene.archive.answers[gid] = lambda: document
    scene.audit(gid)
    assert scene.status(gid) == "clean"
    assert _tally(scene, "meta.title") == (1, 9, 0)


def test_what_an_audit_did_not_compare_proves_no_repair(scene: Scene) -> None:
    gid = scene.plan("xml-malformed").gid
    scene.audit(gid)
    _complete_all(scene)
    # The file is as it was, but an audit that asks the tables instead does not look at it.
    for _ in range(2):
        scene.audit(gid, screen=True)
        assert scene.status(gid) == "clean"
    assert scene.value("SELECT count(*) FROM artwork_indexer.repair_tally") == 0
    scene.audit(gid)
    assert scene.status(gid) == "manual_review"
    assert "repair did not hold: xml.malformed" in scene.reviews(gid)[0].review_reason
    assert _tally(scene, "xml.malformed") == (0, 1, 1)


def test_a_repair_is_proved_by_a_later_audit_where_the_first_could_not_judge_it(
    scene: Scene,
) -> None:
    gid = scene.plan("index-value").gid
    scene.audit(gid)
    _complete_all(scene)
    whole = scene.archive.document(gid)
    without_index = [file for file in whole["files"] if file["name"] != "index.json"]
    scene.archive.answers[gid] = lambda: {
        **whole,
        "files": without_index,
        "files_count": len(without_index),
    }
    scene.audit(gid)
    assert scene.value("SELECT count(*) FROM artwork_indexer.repair_tally") == 0
    _complete_all(scene)
    del scene.archive.answers[gid]
    scene.audit(gid)
    assert "repair did not hold: index.image.value" in scene.reviews(gid)[0].review_reason
    assert _tally(scene, "files.index.missing") == (1, 0, 0)


def test_the_catalogue_is_shown_with_the_remedies_in_force_and_how_repairs_held(
    scene: Scene,
) -> None:
    scene.conn.execute(
        "INSERT INTO artwork_indexer.repair_tally VALUES ('meta.title', 3, 12, 12),"
        " ('meta.date', 5, 1, 1)"
    )
    options = ["checks", "--json", "--proofs", "--remedy", "item.*=index"]
    environment = {"MUSICBRAINZ_DATABASE_URL": scene.dsn}
    result = CliRunner().invoke(main, options, env=environment, catch_exceptions=False)
    shown = {check["name"]: check for check in json.loads(result.stdout)}
    remedies = {name: check["remedy"] for name, check in shown.items()}
    assert (remedies["item.noindex"], remedies["item.missing"]) == ("index", "review")
    assert (remedies["meta.title"], remedies["meta.date"]) == ("late review", "index")
    assert (shown["meta.title"]["held"], shown["meta.title"]["not_held"]) == (3, 12)


# -- never round in circles ----------------------------------------------------------------------


def test_a_failed_event_does_not_matter_once_an_identical_one_has_completed(scene: Scene) -> None:
    gid = scene.plan("index-missing").gid
    scene.queue(gid, state="failed", age="40 days")
    scene.queue(gid, state="completed", age="30 days")
    scene.audit(gid)
    assert scene.status(gid) == "repair_queue"


def test_a_failed_event_matters_when_the_completed_one_came_before(scene: Scene) -> None:
    gid = scene.plan("index-missing").gid
    scene.queue(gid, state="completed", age="40 days")
    scene.queue(gid, state="failed", age="30 days")
    scene.audit(gid)
    assert scene.status(gid) == "manual_review"


def test_rolling_a_run_back_does_not_turn_its_repairs_into_reviews(scene: Scene) -> None:
    gids = [scene.plan("index-missing", skip=skip).gid for skip in range(2)]
    scene.audit(*gids)
    # As README has it.
    scene.conn.execute(
        "DELETE FROM artwork_indexer.event_queue WHERE state = 'queued' AND id IN ("
        " SELECT unnest(event_ids) FROM artwork_indexer.audit_result WHERE run_id = %s)",
        (scene.run_id,),
    )
    scene.audit(*gids)
    assert {scene.status(gid) for gid in gids} == {"repair_queue"}


# -- audits that fail ----------------------------------------------------------------------------


def _refuse(scene: Scene, gid: str) -> None:
    """Let the database refuse every result of an entity for a reason that none has foreseen."""
    scene.conn.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.audit_entity_id = {scene.id(gid)} AND NEW.outcome = 'repair_queue' THEN"
        " RAISE EXCEPTION 'index row requires 8191 bytes' USING ERRCODE = '54000';"
        " END IF; RETURN NEW; END $$"
    )
    scene.conn.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON artwork_indexer.audit_result"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )


def test_a_row_that_the_database_refuses_fails_alone_and_is_reviewed_in_the_end(
    own_scene: Scene,
) -> None:
    scene = own_scene
    refused, fine = scene.plan("index-missing").gid, scene.plan("index-missing", skip=1).gid
    scene.only(refused, fine)
    _refuse(scene, refused)
    for number in range(1, STREAK_LIMIT + 1):
        report = scene.run()
        assert report.totals["failed"] == 1, report.problems
        assert scene.status(fine) == "repair_queue"
        assert scene.status(refused) == ("unchecked" if number < STREAK_LIMIT else "manual_review")
    [review] = scene.reviews(refused)
    assert "SQLSTATE 54000" in review.review_reason
    assert scene.run().totals["scanned"] == 0


def test_the_auditor_does_not_take_a_refused_row_again_and_again(
    own_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = own_scene
    refused, next_one = scene.plan("index-missing").gid, scene.plan("index-value").gid
    scene.only(refused, next_one)
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET priority = 300 WHERE gid = %s", (refused,)
    )
    _refuse(scene, refused)
    services = scene.services()
    monkeypatch.setattr(
        "artwork_backfill.jobs.audit_batch.auditor.Services.from_settings",
        lambda *_, **__: services,
    )
    with Auditor(scene.settings()) as auditor:
        first, second = auditor.audit(), auditor.audit()
    assert first.counts["failed"] == 1
    assert "54000" in first.problems[0]
    assert (second.counts["audited"], scene.status(next_one)) == (1, "repair_queue")


def test_a_failure_of_what_somebody_else_has_taken_over_is_not_counted(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.only(gid)
    [claim] = scene.claim()
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET last_audit_at = now() WHERE gid = %s", (gid,)
    )
    writing.fail(scene.conn, [(claim, "trouble")], scene.run_id)
    assert scene.value("SELECT count(*) FROM artwork_indexer.audit_streak") == 0


# -- just before the write -----------------------------------------------------------------------


def _deletion(scene: Scene) -> tuple[str, Any, str]:
    """An orphan, its audit that deletes an image, and the image's owner."""
    gid = scene.plan("orphan-image").gid
    scene.only(gid)
    [audit] = scene.examine(scene.claim())
    [event] = [event for event in audit.outcome.events if event.action == "delete_image"]  # type: ignore[union-attr]
    assert event.owner is not None
    return gid, audit, event.owner


@pytest.mark.parametrize("action", ["copy_image", "delete_image", "deindex"])
def test_an_event_of_the_owner_since_the_look_defers_the_deletion(
    scene: Scene, action: str
) -> None:
    gid, audit, owner = _deletion(scene)
    scene.queue(owner, action=action)
    assert scene.write([audit]).counts[f"deferred: {Reason.OWNER_BUSY}"] == 1
    assert scene.status(gid) == "unchecked"
    assert len(scene.events()) == 1


def test_an_image_that_changed_hands_since_the_look_is_not_deleted(own_scene: Scene) -> None:
    scene = own_scene
    gid, audit, _ = _deletion(scene)
    scene.conn.execute(
        "UPDATE cover_art_archive.cover_art SET release = ("
        " SELECT id FROM musicbrainz.release ORDER BY id DESC LIMIT 1)"
    )
    # What that has queued was carried out since, and is forgotten.
    scene.conn.execute("TRUNCATE artwork_indexer.event_queue CASCADE")
    assert scene.write([audit]).counts[f"deferred: {Reason.OWNER_CHANGED}"] == 1
    assert (scene.status(gid), scene.events()) == ("unchecked", [])


def test_two_deletions_that_rely_on_each_other_are_never_both_queued(own_scene: Scene) -> None:
    scene = own_scene
    gids = [scene.plan("foreign-owned", skip=skip).gid for skip in range(2)]
    scene.only(*gids)
    first, second = scene.examine(scene.claim(2), Policy(delete_from_live=True))
    crossed = [_relying_on(scene, first, second), _relying_on(scene, second, first)]
    written = scene.write(crossed)
    assert written.counts["repair_queue"] == 1
    assert written.counts[f"deferred: {Reason.OWNER_BUSY}"] == 1


def _relying_on(scene: Scene, audit: Any, other: Any) -> Any:
    """The same audit, whose images are the other entity's."""
    owner = other.claim.entity.gid
    events = tuple(
        replace(event, owner=owner) if event.action == "delete_image" else event
        for event in audit.outcome.events
    )
    scene.conn.execute(
        "UPDATE cover_art_archive.cover_art SET release = ("
        " SELECT id FROM musicbrainz.release WHERE gid = %s) WHERE id = ANY (%s::bigint[])",
        (owner, [event.artwork_id for event in events if event.owner]),
    )
    scene.conn.execute("TRUNCATE artwork_indexer.event_queue CASCADE")
    return replace(audit, outcome=replace(audit.outcome, events=events))
