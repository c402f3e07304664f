"""What the database says about claimed entities, and what it is when the rows are odd."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from artwork_backfill.shared.audit.decide import FailedEvent
from artwork_backfill.shared.audit.expected import Presence
from artwork_backfill.shared.auditing.models import Claim
from tests.jobs.audit_batch.audit_scene import Scene


def _only_claim(scene: Scene, gid: str) -> Claim:
    scene.only(gid)
    [claim] = scene.claim()
    return claim


@pytest.mark.parametrize("entity_type", ["release", "event"])
def test_a_live_entity_has_its_artwork_in_order(scene: Scene, entity_type: str) -> None:
    plan = scene.plan("index-image-order", entity_type=entity_type)
    expected = _only_claim(scene, plan.gid).expected
    number = scene.world.number(plan.gid)
    assert expected is not None
    assert number is not None
    listed = scene.world.listing(scene.world.entity(number))
    assert expected.presence is Presence.LIVE
    assert [(a.id, a.suffix, a.comment, a.front, a.back) for a in expected.artwork] == [
        (a.id, a.suffix, a.comment, a.front, a.back) for a in listed
    ]
    assert [set(artwork.types) for artwork in expected.artwork] == [set(a.types) for a in listed]


@pytest.mark.parametrize("presence", ["merged", "deleted", "unknown"])
def test_an_orphan_is_told_from_a_live_entity(scene: Scene, presence: str) -> None:
    gid = next(
        entity.gid
        for entity in map(scene.world.entity, range(scene.world.spec.size))
        if entity.presence.name.lower() == presence
    )
    expected = _only_claim(scene, gid).expected
    assert expected is not None
    assert (expected.presence, expected.artwork) == (Presence(presence), ())


def test_a_deleted_entity_of_another_type_is_unknown(own_scene: Scene) -> None:
    gid = next(
        entity.gid
        for entity in map(own_scene.world.entity, range(own_scene.world.spec.size))
        if entity.presence.name == "DELETED"
    )
    own_scene.conn.execute(
        """UPDATE musicbrainz.deleted_entity SET data = '{"entity_type": "label"}'"""
    )
    expected = _only_claim(own_scene, gid).expected
    assert expected is not None
    assert expected.presence is Presence.UNKNOWN


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("UPDATE {art} SET mime_type = 'image/webp' WHERE id = {id}", "'image/webp'"),
        ("ALTER TABLE {art} ALTER edit DROP NOT NULL; UPDATE {art} SET edit = NULL", "no edit"),
        (
            "ALTER TABLE {art} ALTER comment DROP NOT NULL; UPDATE {art} SET comment = NULL",
            "no comment",
        ),
        (
            "ALTER TABLE {art} ALTER ordering DROP NOT NULL; UPDATE {art} SET ordering = NULL",
            "no ordering",
        ),
    ],
)
@pytest.mark.parametrize("entity_type", ["release", "event"])
def test_a_row_that_is_not_as_assumed_is_named_and_nothing_is_guessed(
    own_scene: Scene, entity_type: str, damage: str, complaint: str
) -> None:
    gid = own_scene.plan("index-value", entity_type=entity_type).gid
    number = own_scene.world.number(gid)
    assert number is not None
    artwork_ids = [artwork.id for artwork in own_scene.world.entity(number).artwork]
    table = {"release": "cover_art_archive.cover_art", "event": "event_art_archive.event_art"}
    own_scene.conn.execute(damage.format(art=table[entity_type], id=artwork_ids[0]).encode())
    claim = _only_claim(own_scene, gid)
    assert claim.expected is None
    assert claim.bad_row is not None
    assert any(str(artwork_id) in claim.bad_row for artwork_id in artwork_ids)
    assert complaint in claim.bad_row


@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize("key", ["gid", "old_gid", "new_gid"])
def test_an_entity_with_an_event_under_way_is_busy(scene: Scene, key: str, state: str) -> None:
    gid = scene.plan(None).gid
    scene.queue(gid, state=state, action="copy_image", message={key: gid, "artwork_id": 1})
    assert _only_claim(scene, gid).is_busy


def test_events_of_others_and_those_that_have_ended_keep_nobody_busy(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.queue(gid, state="completed")
    scene.queue(gid, entity_type="event")
    scene.queue(scene.plan(None, skip=1).gid)
    assert not _only_claim(scene, gid).is_busy


def test_failed_events_are_remembered(scene: Scene) -> None:
    gid = scene.plan(None).gid
    event_id = scene.queue(gid, state="failed")
    assert _only_claim(scene, gid).previous.failed == (
        FailedEvent(event_id, "index", {"gid": gid}),
    )


def test_what_completed_since_is_found_without_looking_through_all_of_it(scene: Scene) -> None:
    gid = scene.plan(None).gid
    failed = scene.queue(gid, state="failed", age="400 days")
    done = scene.queue(gid, state="completed", age="300 days")

    def failed_events() -> list[int]:
        scene.conn.execute(
            "UPDATE artwork_indexer.audit_entity SET status = 'unchecked', last_audit_at = NULL"
        )
        return [event.id for event in _only_claim(scene, gid).previous.failed]

    assert failed_events() == []
    # More than are looked through, and none of them is about an entity.
    scene.conn.execute(
        "INSERT INTO artwork_indexer.event_queue (state, entity_type, action, message)"
        " SELECT 'completed', 'release', 'noop', '{}' FROM generate_series(1, 20000)"
    )
    assert failed_events() == [failed]
    scene.conn.execute(
        "INSERT INTO artwork_indexer.audit_result (audit_entity_id, run_id, outcome, event_ids)"
        " VALUES (%s, %s, 'repair_queue', %s)",
        (scene.id(gid), scene.run_id, [done]),
    )
    assert failed_events() == []


def test_a_batch_of_any_size_takes_the_same_number_of_queries(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []
    execute = psycopg.Cursor.execute

    def counted(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
        sent.append(query)
        return execute(cursor, query, *args, **options)

    scene.only(*[plan.gid for plan in scene.world.plans() if plan.entity_type == "release"])
    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    numbers = []
    for size in (2, 100):
        sent.clear()
        assert len(scene.claim(size)) == size
        numbers.append(len(sent))
    assert numbers[0] == numbers[1]
