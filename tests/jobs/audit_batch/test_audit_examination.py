"""Examining one entity: what is asked, and what becomes of answers of every kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from artwork_backfill.shared.audit.archives import INDEX_NAME, xml_name
from artwork_backfill.shared.audit.decide import Decision, Policy, Status
from artwork_backfill.shared.auditing.examination import Examiner
from artwork_backfill.shared.auditing.models import (
    STREAK_LIMIT,
    Audit,
    BadRow,
    Deferral,
    Reason,
)
from artwork_backfill.shared.auditing.owners import OwnerRows
from artwork_backfill.shared.clients.http import NotFound, ServiceDown
from artwork_backfill.shared.engine.job import StopRun
from sandbox.entities import Plan
from tests.jobs.audit_batch.audit_scene import Scene, unreadable


def _examine(scene: Scene, *gids: str) -> list[Audit]:
    scene.only(*gids)
    return scene.examine(scene.claim(len(gids)))


def _deferral(audit: Audit) -> Deferral:
    assert isinstance(audit.outcome, Deferral)
    return audit.outcome


def _decision(audit: Audit) -> Decision:
    assert isinstance(audit.outcome, Decision)
    return audit.outcome


def _plans(scene: Scene, drift: str, number: int) -> list[Plan]:
    return [scene.plan(drift, skip=skip) for skip in range(number)]


def test_a_clean_entity_costs_one_request_to_each_service(scene: Scene) -> None:
    clean = [
        plan.gid
        for plan in scene.world.plans()
        if plan.drift is None and scene.world.entity(scene.world.number(plan.gid) or 0).artwork
    ]
    tidy = [gid for gid in clean if "d2" in scene.archive.document(gid)]
    _examine(scene, *tidy)
    assert len(tidy) > 50
    assert set(scene.musicbrainz.asked.values()) == {1}
    assert set(scene.archive.asked.values()) == {1}
    # Some differ in form and not in meaning; those have to be read.
    assert len(scene.archive.downloaded) < len(tidy) / 20


def test_an_orphan_costs_one_request(scene: Scene) -> None:
    gid = scene.plan("orphan-leftover").gid
    _examine(scene, gid)
    assert (scene.archive.asked.total(), scene.musicbrainz.asked.total()) == (1, 0)


def test_what_is_busy_is_not_asked_about(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.queue(gid)
    [audit] = _examine(scene, gid)
    assert _deferral(audit).reason is Reason.EVENT_QUEUED
    assert scene.archive.asked.total() == 0


def test_both_items_are_read_once_more_for_a_deletion(scene: Scene) -> None:
    gid = scene.plan("orphan-image").gid
    [audit] = _examine(scene, gid)
    assert _decision(audit).status is Status.REPAIR_QUEUE
    [owner] = set(scene.archive.asked) - {gid}
    assert scene.archive.asked == {gid: 2, owner: 2}


def test_an_absence_costs_a_second_request_only_where_something_hangs_on_it(scene: Scene) -> None:
    orphan, missing = scene.plan("orphan-leftover").gid, scene.plan("item-missing").gid
    [without_art] = [
        plan.gid
        for plan in scene.world.plans()
        if plan.drift is None
        and plan.entity_type == "release"
        and plan.status == "clean"
        and not scene.world.entity(scene.world.number(plan.gid) or 0).artwork
    ][:1]
    for gid in (orphan, missing, without_art):
        scene.archive.answers[gid] = list
    audits = _examine(scene, orphan, missing, without_art)
    statuses = {audit.claim.entity.gid: _decision(audit).status for audit in audits}
    assert statuses == {orphan: "legacy", missing: "manual_review", without_art: "clean"}
    assert scene.archive.asked == {orphan: 2, missing: 2, without_art: 1}
    assert +scene.archive.second_looks == {orphan: 1, missing: 1}


@pytest.mark.parametrize("nothing", [[], {}, {"errcode": 104}], ids=repr)
def test_one_empty_answer_is_not_believed(scene: Scene, nothing: object) -> None:
    gid = scene.plan("orphan-unknown-image").gid
    answers = iter([nothing])
    scene.archive.answers[gid] = lambda: next(answers, scene.archive.document(gid))
    [audit] = _examine(scene, gid)
    assert [finding.check for finding in audit.findings] == ["orphan.image", "orphan.index"]


@pytest.mark.parametrize("second", [{"errcode": 102}, {"errcode": "105"}, {"errcode": 101}])
def test_what_the_second_look_shows_counts(scene: Scene, second: object) -> None:
    gid = scene.plan("orphan-leftover").gid
    answers = iter([[], second])
    scene.archive.answers[gid] = lambda: next(answers)
    reason = Reason.TASKS_PENDING if second == {"errcode": 101} else Reason.UNREADABLE
    assert _deferral(_examine(scene, gid)[0]).reason is reason


def test_an_absent_owner_is_looked_at_twice_as_well(scene: Scene) -> None:
    gid, owner = _orphan_and_owner(scene, "orphan-image")
    answers = iter([{}])
    scene.archive.answers[owner] = lambda: next(answers, scene.archive.document(owner))
    [audit] = _examine(scene, gid)
    assert _decision(audit).status is Status.REPAIR_QUEUE
    scene.archive.answers[owner] = dict
    [audit] = _again(scene, gid)
    assert [reason.code for reason in _decision(audit).review_reasons] == ["only_copy"]


def test_the_second_look_comes_some_seconds_after_the_first_or_never(scene: Scene) -> None:
    gid = scene.plan("orphan-leftover").gid
    scene.only(gid)
    waits: list[float | None] = []

    class Watch(Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return is_stopping

    now = 1_000.0
    is_stopping = False

    def answer() -> list[object]:
        nonlocal now
        now += 20.0  # as after a few attempts
        return []

    scene.archive.answers[gid] = answer
    services = replace(scene.services(), second_look_after=3.0)
    examiner = Examiner(
        services,
        lambda *_: OwnerRows({}, frozenset()),
        Policy(),
        stop_flag=Watch(),
        clock=lambda: now,
    )
    audit = examiner.examine(scene.claim()[0])
    assert waits == []
    # Counted from the answer.
    assert audit.ready_at == 1_023.0
    now += 1.0
    examiner.look_again([audit])
    assert waits == [2.0]
    now = 1_022.0
    # A run that stops has no time to wait, and confirms no absence without.
    is_stopping = True
    asked = scene.archive.asked[gid]
    assert examiner.look_again([audit]) == [None]
    assert waits == [2.0, 1.0]
    assert scene.archive.asked[gid] == asked
    now = 1_023.0
    assert isinstance(examiner.look_again([audit])[0], Audit)
    assert waits == [2.0, 1.0]


def _orphan_and_owner(scene: Scene, drift: str) -> tuple[str, str]:
    """An orphan whose image is another entity's, and that one; both as if never asked about."""
    gid = scene.plan(drift).gid
    _examine(scene, gid)
    [owner] = set(scene.archive.asked) - {gid}
    _reset(scene)
    return gid, owner


def _reset(scene: Scene) -> None:
    scene.archive.asked.clear()
    scene.conn.execute("UPDATE artwork_indexer.audit_entity SET status = 'unchecked'")


def _again(scene: Scene, gid: str) -> list[Audit]:
    _reset(scene)
    return _examine(scene, gid)


@pytest.mark.parametrize("flag", ["pending_tasks", "has_redrow", "nodownload"])
def test_nothing_is_decided_while_archive_org_works_on_the_owners_item(
    scene: Scene, flag: str
) -> None:
    gid, owner = _orphan_and_owner(scene, "orphan-image")
    scene.archive.answers[owner] = lambda: {**scene.archive.document(owner), flag: True}
    [audit] = _examine(scene, gid)
    assert _deferral(audit).reason is Reason.TASKS_PENDING
    assert owner in _deferral(audit).detail


@pytest.mark.parametrize("action", ["copy_image", "delete_image", "deindex"])
@pytest.mark.parametrize("drift", ["orphan-image", "orphan-only-copy"])
def test_nothing_is_decided_while_an_event_may_change_the_owners_item(
    scene: Scene, drift: str, action: str
) -> None:
    gid, owner = _orphan_and_owner(scene, drift)
    scene.queue(owner, action=action, message={"old_gid": owner, "new_gid": "x"})
    [audit] = _examine(scene, gid)
    assert _deferral(audit).reason is Reason.OWNER_BUSY
    assert owner in _deferral(audit).detail


def test_an_index_of_the_owner_takes_no_image_away(scene: Scene) -> None:
    gid, owner = _orphan_and_owner(scene, "orphan-image")
    scene.queue(owner)
    assert _decision(_examine(scene, gid)[0]).status is Status.REPAIR_QUEUE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"md5": "0" * 32}, Reason.OWNER_CHANGED),
        ({"size": "0"}, Reason.OWNER_CHANGED),
        ({"private": "true"}, Reason.OWNER_CHANGED),
    ],
)
def test_the_owner_is_not_believed_on_what_it_held_before(
    scene: Scene, change: dict[str, str], reason: Reason
) -> None:
    gid, owner = _orphan_and_owner(scene, "orphan-image")
    before = scene.archive.document(owner)
    after = {**before, "files": [_changed(file, change) for file in before["files"]]}
    answers = iter([before])
    scene.archive.answers[owner] = lambda: next(answers, after)
    assert _deferral(_examine(scene, gid)[0]).reason is reason


def test_an_orphans_own_listing_is_read_again_too(scene: Scene) -> None:
    gid, _ = _orphan_and_owner(scene, "orphan-image")
    before = scene.archive.document(gid)
    after = {**before, "files": [_changed(file, {"size": "7"}) for file in before["files"]]}
    answers = iter([before])
    scene.archive.answers[gid] = lambda: next(answers, after)
    assert _deferral(_examine(scene, gid)[0]).reason is Reason.ITEM_CHANGED


def _changed(file: dict[str, Any], change: dict[str, str]) -> dict[str, Any]:
    is_image = file["source"] == "original" and file["name"].endswith((".jpg", ".png", ".gif"))
    return {**file, **change} if is_image else file


def test_copies_that_cannot_be_compared_become_a_review_in_the_end(scene: Scene) -> None:
    gid, owner = _orphan_and_owner(scene, "orphan-image")
    document = scene.archive.document(owner)
    bare = [
        {key: value for key, value in file.items() if key not in ("md5", "sha1")}
        for file in document["files"]
    ]
    scene.archive.answers[owner] = lambda: {**document, "files": bare}
    for _ in range(STREAK_LIMIT - 1):
        assert scene.audit(gid).counts[f"deferred: {Reason.INCOMPARABLE}"] == 1
        assert scene.status(gid) == "unchecked"
    scene.audit(gid)
    assert scene.status(gid) == "manual_review"
    [review] = scene.reviews(gid)
    assert "cannot be compared" in review.review_reason
    assert [reason["code"] for reason in review.reasons] == ["cannot_be_compared"]


def test_a_task_that_is_stuck_for_two_weeks_becomes_a_review(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.archive.answers[gid] = lambda: {**scene.archive.document(gid), "has_redrow": True}
    for _ in range(STREAK_LIMIT + 2):
        scene.audit(gid)
        assert scene.status(gid) == "unchecked"
    scene.conn.execute("UPDATE artwork_indexer.audit_streak SET since = since - interval '14 days'")
    scene.audit(gid)
    assert scene.status(gid) == "manual_review"
    assert "a task is stuck" in scene.reviews(gid)[0].review_reason


def test_a_task_that_ended_in_between_starts_the_two_weeks_again(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.archive.answers[gid] = lambda: {**scene.archive.document(gid), "has_redrow": True}
    scene.audit(gid)
    del scene.archive.answers[gid]
    scene.audit(gid)
    assert scene.value("SELECT count(*) FROM artwork_indexer.audit_streak") == 0


@pytest.mark.parametrize("flag", ["pending_tasks", "has_redrow", "nodownload", "tasks"])
def test_an_item_under_work_is_left_alone(scene: Scene, flag: str) -> None:
    gid = scene.plan("index-missing").gid
    scene.archive.answers[gid] = lambda: {**scene.archive.document(gid), flag: True}
    assert _deferral(_examine(scene, gid)[0]).reason is Reason.TASKS_PENDING


@pytest.mark.parametrize(
    "document",
    [
        {"error": "Couldn't locate item"},
        {"servers_unavailable": True},
        {"metadata": {"identifier": "mbid-00000000-0000-4000-8000-000000000001"}, "files": []},
        {"files": []},
        {"is_dark": False},
        {"errcode": 102},
        None,
        "<html>",
    ],
)
def test_an_answer_that_is_no_state_is_never_taken_for_one(scene: Scene, document: object) -> None:
    gid = scene.plan("index-missing").gid
    scene.archive.answers[gid] = lambda: document
    assert _deferral(_examine(scene, gid)[0]).reason is Reason.UNREADABLE


def _not_found() -> Any:
    raise NotFound("HTTP 404", service="somebody")


def _xml_of_another(scene: Scene) -> bytes:
    other = scene.plan(None, skip=3)
    answer = scene.world.xml(other.entity_type, other.gid)
    assert answer is not None
    return answer[1]


_BOMB = (
    b'<!DOCTYPE z [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    b'<metadata xmlns="http://musicbrainz.org/ns/mmd-2.0#">&b;</metadata>'
)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda _: _not_found(), id="gone"),
        pytest.param(lambda _: unreadable(), id="unreadable"),
        pytest.param(_xml_of_another, id="merged"),
        pytest.param(lambda _: b"<html><body>502</body></html>", id="html"),
        pytest.param(lambda _: b"<metadata", id="cut"),
        pytest.param(lambda _: _BOMB, id="bomb"),
    ],
)
@pytest.mark.parametrize("drift", [None, "xml-title"])
def test_without_the_entity_in_the_web_services_answer_nothing_is_decided(
    scene: Scene, drift: str | None, answer: Callable[[Scene], bytes]
) -> None:
    gid = scene.plan(drift).gid
    scene.musicbrainz.answers[gid] = lambda: answer(scene)
    assert _deferral(_examine(scene, gid)[0]).reason is Reason.UNREADABLE


@pytest.mark.parametrize("answer", [_not_found, unreadable, lambda: b"HTTP 500, really"])
def test_a_listed_file_that_cannot_be_read_is_not_taken_for_missing(
    scene: Scene, answer: Callable[[], bytes]
) -> None:
    gid = scene.plan("index-value").gid
    scene.archive.downloads[gid, INDEX_NAME] = answer
    [audit] = _examine(scene, gid)
    assert _deferral(audit).reason is Reason.UNREADABLE
    assert audit.findings == ()


@pytest.mark.parametrize("answer", [_not_found, lambda: b'{"images": []}'])
def test_an_item_that_changes_while_it_is_read_is_left_for_later(
    scene: Scene, answer: Callable[[], bytes]
) -> None:
    gid = scene.plan("index-value").gid
    scene.archive.downloads[gid, INDEX_NAME] = answer
    before = scene.archive.document(gid)
    after = {
        **before,
        "files": [
            {**file, "md5": "0" * 32} if file["name"] == INDEX_NAME else file
            for file in before["files"]
        ],
    }
    answers = iter([before, after])
    scene.archive.answers[gid] = lambda: next(answers)
    assert _deferral(_examine(scene, gid)[0]).reason is Reason.ITEM_CHANGED


def test_what_is_needed_is_read_and_no_more(scene: Scene) -> None:
    index, xml = scene.plan("index-value").gid, scene.plan("xml-title").gid
    _examine(scene, index, xml)
    assert sorted(scene.archive.downloaded) == sorted([(index, INDEX_NAME), (xml, xml_name(xml))])


def test_a_file_far_too_large_is_judged_by_its_listed_size(scene: Scene) -> None:
    gid = scene.plan("index-huge").gid
    [audit] = _examine(scene, gid)
    assert [finding.check for finding in audit.findings] == ["index.malformed"]
    assert scene.archive.downloaded == []


def test_a_service_that_is_down_ends_the_run(scene: Scene) -> None:
    gid = scene.plan(None).gid

    def down() -> object:
        raise ServiceDown("archive.org is down", service="archive.org")

    scene.archive.answers[gid] = down
    with pytest.raises(StopRun, match=r"archive\.org is down"):
        _examine(scene, gid)


def test_bad_rows_are_raised_before_anything_is_asked(own_scene: Scene) -> None:
    gid = own_scene.plan(None).gid
    own_scene.conn.execute("UPDATE cover_art_archive.cover_art SET mime_type = 'image/webp'")
    with pytest.raises(BadRow, match="image/webp"):
        _examine(own_scene, gid)
    assert own_scene.archive.asked.total() == 0


def test_a_fifth_unreadable_audit_in_a_row_asks_a_person(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.archive.answers[gid] = unreadable
    for number in range(1, STREAK_LIMIT):
        scene.audit(gid)
        assert scene.status(gid) == "unchecked", number
    scene.audit(gid)
    assert scene.status(gid) == "manual_review"
    [review] = scene.reviews(gid)
    assert "5 audits in a row could not be read" in review.review_reason
    assert "HTTP 500" in review.review_reason
    assert [result.outcome for result in scene.results(gid)] == [
        *["unreadable"] * 4,
        "manual_review",
    ]


def test_a_readable_audit_in_between_starts_the_count_anew(scene: Scene) -> None:
    gid = scene.plan(None).gid
    for _ in range(2):
        scene.archive.answers[gid] = unreadable
        for _ in range(STREAK_LIMIT - 1):
            scene.audit(gid)
        assert scene.status(gid) == "unchecked"
        del scene.archive.answers[gid]
        scene.audit(gid)
        assert scene.status(gid) == "clean"
