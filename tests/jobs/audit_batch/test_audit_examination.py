"""Examining one entity: what is asked, and what becomes of answers of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from artwork_backfill.shared.audit.archives import INDEX_NAME, xml_name
from artwork_backfill.shared.audit.decide import Decision, Status
from artwork_backfill.shared.auditing.models import (
    UNREADABLE_LIMIT,
    Audit,
    BadRow,
    Deferral,
    Reason,
)
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


def test_owners_of_images_are_asked_about_once_each(scene: Scene) -> None:
    plans = _plans(scene, "foreign-only-copy", 3) + _plans(scene, "orphan-only-copy", 2)
    scene.only(*[plan.gid for plan in plans])
    claimed = scene.claim(len(plans))
    audits = scene.examine(claimed * 3)
    assert {_decision(audit).status for audit in audits} == {Status.MANUAL_REVIEW}
    audited = {plan.gid for plan in plans}
    owners = {gid: asked for gid, asked in scene.archive.asked.items() if gid not in audited}
    assert owners
    assert set(owners.values()) == {1}


def test_the_owner_is_asked_again_after_an_answer_that_could_not_be_read(scene: Scene) -> None:
    gid = scene.plan("foreign-owned").gid
    assert _decision(_examine(scene, gid)[0]).status is Status.REPAIR_QUEUE
    [owner] = set(scene.archive.asked) - {gid}
    failures = iter([True])

    def once_unreadable() -> object:
        return unreadable() if next(failures, False) else scene.archive.document(owner)

    scene.archive.answers[owner] = once_unreadable
    scene.conn.execute("UPDATE artwork_indexer.audit_entity SET status = 'unchecked'")
    scene.only(gid)
    first, second = scene.examine(scene.claim() * 2)
    assert _deferral(first).reason is Reason.UNREADABLE
    assert _decision(second).status is Status.REPAIR_QUEUE


def test_nothing_is_decided_while_archive_org_works_on_the_owners_item(scene: Scene) -> None:
    gid = scene.plan("foreign-owned").gid
    _examine(scene, gid)
    [owner] = set(scene.archive.asked) - {gid}
    scene.archive.answers[owner] = lambda: {**scene.archive.document(owner), "pending_tasks": True}
    scene.conn.execute("UPDATE artwork_indexer.audit_entity SET status = 'unchecked'")
    [audit] = _examine(scene, gid)
    assert _deferral(audit).reason is Reason.TASKS_PENDING
    assert owner in _deferral(audit).detail


@pytest.mark.parametrize("flag", ["pending_tasks", "has_redrow"])
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
        [],
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
    for number in range(1, UNREADABLE_LIMIT):
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
        for _ in range(UNREADABLE_LIMIT - 1):
            scene.audit(gid)
        assert scene.status(gid) == "unchecked"
        del scene.archive.answers[gid]
        scene.audit(gid)
        assert scene.status(gid) == "clean"
