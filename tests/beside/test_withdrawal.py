"""An event of ours is withdrawn the moment anybody else queues one for its entity."""

from __future__ import annotations

import pytest

from tests.beside.rows import (
    BYSTANDER,
    IMAGE,
    LIVE,
    ORPHAN,
    OWNER,
    Place,
    deindex,
    deletion,
    gid,
    index,
    is_waiting_for_lock,
    meanwhile,
    wait_until,
)
from tests.timing import at_most

CLAUSES = [
    "",
    "ON CONFLICT DO NOTHING",
    (
        "ON CONFLICT (entity_type, action, message) WHERE state = 'queued'"
        " DO UPDATE SET depends_on = coalesce(queued.depends_on, '{}') || 7::bigint"
    ),
]


@pytest.mark.parametrize("clause", CLAUSES)
@pytest.mark.parametrize("event", [deletion(ORPHAN), deindex(ORPHAN), index(LIVE)])
def test_an_identical_event_of_somebody_else_takes_the_place_of_ours(
    place: Place, event: object, clause: str
) -> None:
    number = LIVE if event == index(LIVE) else ORPHAN
    (ours,) = place.queued(number, event)  # type: ignore[arg-type]
    theirs = place.foreign(event.action, dict(event.message), clause)  # type: ignore[attr-defined]
    assert theirs not in (None, ours)
    assert [(event.id, event.depends_on) for event in place.events()] == [(theirs, None)]


def test_the_removal_of_an_image_succeeds_while_our_deletion_of_it_is_queued(place: Place) -> None:
    place.merge(OWNER, BYSTANDER)
    place.edit("TRUNCATE artwork_indexer.event_queue CASCADE")
    # Queued when the image was another's, by a version of the audit without these triggers.
    place.edit("ALTER TABLE artwork_indexer.event_queue DISABLE TRIGGER audit_withdraw")
    place.queued(LIVE, deletion(LIVE, owner=BYSTANDER), index(LIVE, 0))
    place.edit(f"UPDATE cover_art_archive.cover_art SET release = {LIVE} WHERE id = {IMAGE}")
    place.edit("ALTER TABLE artwork_indexer.event_queue ENABLE TRIGGER audit_withdraw")
    place.edit(f"DELETE FROM cover_art_archive.cover_art WHERE id = {IMAGE}")
    deletions = place.events(action="delete_image")
    assert [event.message["gid"] for event in deletions].count(gid(LIVE)) == 1


def test_an_upload_does_not_wait_for_our_deletions(place: Place) -> None:
    place.queued(LIVE, deletion(LIVE), index(LIVE, 0))
    place.upload(LIVE)
    (event,) = place.events()
    assert (event.action, event.depends_on) == ("index", None)


@pytest.mark.parametrize("target", [ORPHAN, LIVE])
def test_a_merge_into_the_entity_withdraws_its_deletion(place: Place, target: int) -> None:
    place.queued(target, deletion(target), (deindex if target == ORPHAN else index)(target, 0))
    image = {"artwork_id": IMAGE, "suffix": "jpg", "old_gid": gid(OWNER), "new_gid": gid(target)}
    copy = place.foreign("copy_image", image)
    assert [event.id for event in place.events()] == [copy]


@pytest.mark.parametrize(
    "edit",
    [
        f"UPDATE cover_art_archive.cover_art SET release = {BYSTANDER} WHERE id = {IMAGE}",
        f"DELETE FROM cover_art_archive.cover_art WHERE id = {IMAGE}",
        f"DELETE FROM musicbrainz.release WHERE id = {OWNER}",
    ],
    ids=["moved", "removed", "entity deleted"],
)
def test_a_change_of_the_owners_copy_withdraws_the_deletion_that_relies_on_it(
    place: Place, edit: str
) -> None:
    ours = place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
    place.edit(edit)
    assert not set(ours) & {event.id for event in place.events()}


def test_an_index_of_the_owner_changes_no_copy(place: Place) -> None:
    ours = place.queued(ORPHAN, deletion(ORPHAN))
    place.edit(f"UPDATE musicbrainz.release SET name = 'renamed' WHERE id = {OWNER}")
    assert set(ours) < {event.id for event in place.events()}


def test_all_or_none_of_an_entitys_events_are_withdrawn(place: Place) -> None:
    place.queued(ORPHAN, deletion(ORPHAN), deletion(ORPHAN, 72, owner=None), deindex(ORPHAN, 0, 1))
    other = place.queued(BYSTANDER, index(BYSTANDER))
    theirs = place.foreign("index", {"gid": gid(ORPHAN)})
    assert [event.id for event in place.events()] == [*other, theirs]


def test_a_gid_in_capitals_names_the_same_entity(place: Place) -> None:
    lower, upper = gid(ORPHAN).replace("8000", "abcd"), gid(ORPHAN).replace("8000", "ABCD")
    place.edit(
        "INSERT INTO artwork_indexer.audit_entity (entity_type, gid)"
        f" VALUES ('release', '{lower}');"
        "INSERT INTO artwork_indexer.event_queue (id, entity_type, action, message)"
        f" VALUES (5, 'release', 'index', jsonb_build_object('gid', '{lower}'));"
        "INSERT INTO artwork_indexer.audit_event (event_id, entity_type, gid, action, message)"
        " SELECT id, entity_type, (message->>'gid')::uuid, action, message"
        " FROM artwork_indexer.event_queue"
    )
    theirs = place.foreign("index", {"gid": upper})
    assert [event.id for event in place.events()] == [theirs]


@pytest.mark.parametrize("message", [{}, {"gid": "x"}, {"gid": 5}, [], "text", None])
def test_a_message_that_names_no_entity_is_let_through(place: Place, message: object) -> None:
    ours = place.queued(ORPHAN, deletion(ORPHAN))
    theirs = place.foreign("delete_image", message)  # type: ignore[arg-type]
    assert [event.id for event in place.events()] == [*ours, theirs]


def test_an_id_that_came_back_is_not_ours(place: Place) -> None:
    (ours,) = place.queued(ORPHAN, deletion(ORPHAN))
    place.edit("TRUNCATE artwork_indexer.event_queue RESTART IDENTITY CASCADE")
    place.edit(f"SELECT setval('artwork_indexer.event_queue_id_seq', {ours}, false)")
    theirs = place.foreign("delete_image", {"gid": gid(ORPHAN), "artwork_id": 8, "suffix": "jpg"})
    assert theirs == ours
    place.foreign("index", {"gid": gid(ORPHAN)})
    assert theirs in {event.id for event in place.events()}


@pytest.mark.parametrize("state", ["running", "completed", "failed"])
def test_only_queued_events_are_withdrawn(place: Place, state: str) -> None:
    (ours,) = place.queued(ORPHAN, deletion(ORPHAN))
    place.edit(f"UPDATE artwork_indexer.event_queue SET state = '{state}'")
    place.foreign("index", {"gid": gid(ORPHAN)})
    assert ours in {event.id for event in place.events()}


def test_an_identical_event_waits_while_the_indexer_takes_ours(place: Place) -> None:
    event = deletion(ORPHAN)
    (ours,) = place.queued(ORPHAN, event)
    with place.taken(ours) as indexer:
        editor = place.editor.info.backend_pid
        with meanwhile(lambda: place.foreign(event.action, dict(event.message))):
            wait_until(lambda: is_waiting_for_lock(place.dsn, editor))
            indexer.execute("UPDATE artwork_indexer.event_queue SET state = 'running'")
            indexer.commit()
    assert [event.state for event in place.events()] == ["running", "queued"]


def test_no_other_event_that_the_indexer_takes_is_waited_for(place: Place) -> None:
    first, _ = place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
    with place.taken(first), at_most(0.2):
        theirs = place.foreign("index", {"gid": gid(ORPHAN)})
    assert [event.id for event in place.events()] == [first, theirs]


def test_an_edit_does_not_wait_for_a_run_that_holds_the_entitys_row(place: Place) -> None:
    place.queued(ORPHAN, deletion(ORPHAN))
    with place.ours.transaction():
        place.ours.execute("SELECT FROM artwork_indexer.audit_entity FOR UPDATE")
        with at_most(0.2):
            place.foreign("index", {"gid": gid(ORPHAN)})
    assert place.entity(ORPHAN).status == "repair_queue"


def test_an_edit_that_is_rolled_back_leaves_our_events(place: Place) -> None:
    ours = place.queued(ORPHAN, deletion(ORPHAN))
    with place.editor.transaction(force_rollback=True):
        place.foreign("index", {"gid": gid(ORPHAN)})
    assert [event.id for event in place.events()] == ours
