"""What people queue goes the same way: under the handshake, and it can be withdrawn."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from artwork_backfill.shared.audit.actual import Item, classify
from artwork_backfill.shared.auditing.queueing import EventToQueue, sweep
from artwork_backfill.shared.review import actions, questions, requeueing
from artwork_backfill.shared.review.actions import Refused
from artwork_backfill.shared.review.requeueing import Requeued
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
)


class Listings:
    """archive.org, where the orphan and the owner both hold the image."""

    def read(self, wanted: str, *, again: bool = False) -> Item:
        names = [f"mbid-{wanted}_meta.xml", f"mbid-{wanted}_files.xml"]
        files: list[dict[str, str]] = [{"name": name, "source": "original"} for name in names]
        if wanted in (gid(ORPHAN), gid(OWNER)):
            files.append(
                {
                    "name": f"mbid-{wanted}-{IMAGE}.jpg",
                    "source": "original",
                    "format": "JPEG",
                    "size": "5",
                    "md5": "5d41402abc4b2a76b9719d911017c592",
                }
            )
        document: dict[str, Any] = {
            "files": files,
            "files_count": len(files),
            "metadata": {"identifier": f"mbid-{wanted}", "collection": "coverartarchive"},
        }
        return classify(document, wanted)


LISTINGS: Any = Listings()


def review(place: Place) -> questions.Review:
    """An open review of the orphan."""
    place.claim(ORPHAN)
    place.edit(
        "UPDATE artwork_indexer.audit_entity SET status = 'manual_review';"
        "INSERT INTO artwork_indexer.needs_manual_review (audit_entity_id, review_reason)"
        " SELECT id, 'only copy' FROM artwork_indexer.audit_entity"
    )
    found = questions.REVIEWS.find(place.ours, 1)
    assert found is not None
    return found


def purge(place: Place, seen: questions.Review) -> int:
    return actions.purge(
        place.ours, seen, artwork_id=IMAGE, listings=LISTINGS, by="alice", note="spam"
    )


def test_a_purge_is_refused_while_an_edit_of_the_entity_is_open(place: Place) -> None:
    seen = review(place)
    with place.editor.transaction(force_rollback=True):
        place.foreign("deindex", {"gid": gid(ORPHAN)})
        with pytest.raises(Refused, match="MusicBrainz is changing it"):
            purge(place, seen)
    purge(place, seen)


def test_a_purge_is_withdrawn_when_somebody_else_queues_an_event(place: Place) -> None:
    ours = purge(place, review(place))
    place.foreign("index", {"gid": gid(ORPHAN)})
    assert ours not in {event.id for event in place.events()}


@pytest.fixture
def failed(place: Place) -> list[int]:
    """A deletion of the orphan's image that artwork-indexer has given up, and its dependant."""
    ids = place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0), run_id=uuid4())
    place.edit("UPDATE artwork_indexer.event_queue SET state = 'failed', attempts = 5")
    return ids


def requeue(place: Place, ids: list[int]) -> list[Requeued]:
    again = requeueing.requeue(place.ours, ids, by="alice", listings=LISTINGS)
    return [event.outcome for event in again]


def test_events_are_not_requeued_while_an_edit_of_the_owner_is_open(
    place: Place, failed: list[int]
) -> None:
    with place.editor.transaction(force_rollback=True):
        place.merge(OWNER, BYSTANDER)
        assert requeue(place, failed[:1]) == [Requeued.BUSY, Requeued.PARENT_FAILED]
    assert requeue(place, failed[:1]) == [Requeued.REQUEUED] * 2
    assert [event.state for event in place.events()] == ["queued"] * 2
    assert place.entity(ORPHAN).status == "repair_queue"


def test_requeued_events_are_withdrawn_when_somebody_else_queues_one(
    place: Place, failed: list[int]
) -> None:
    requeue(place, failed[:1])
    place.merge(OWNER, BYSTANDER)
    assert not set(failed) & {event.id for event in place.events()}


@pytest.fixture
def given_up(place: Place) -> list[int]:
    """The same, where artwork-indexer has given up the deletion alone because it took too long."""
    ids = place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
    place.run(ids[0], ends="failed")
    return ids


def test_what_waits_for_a_failed_event_does_not_hinder_its_requeue(
    place: Place, given_up: list[int]
) -> None:
    place.edit("UPDATE artwork_indexer.event_queue SET created = now() - interval '3 days'")
    assert requeue(place, given_up[:1]) == [Requeued.REQUEUED]
    assert [(event.id, event.state) for event in place.events()] == [
        (id_, "queued") for id_ in given_up
    ]
    # artwork-indexer gives up what it runs 2.5 minutes after this.
    assert place.rows_of(
        "SELECT max(now() - created) < interval '1 minute' FROM artwork_indexer.event_queue"
    ) == [(True,)]
    sweep(place.ours)
    place.foreign("index", {"gid": gid(ORPHAN)})
    assert not set(given_up) & {event.id for event in place.events()}


def test_a_requeued_event_outlives_what_waits_for_another_failed_one_as_well(place: Place) -> None:
    second = deletion(ORPHAN, 72, owner=None)
    ids = place.queued(ORPHAN, deletion(ORPHAN), second, deindex(ORPHAN, 0, 1))
    for failed in ids[:2]:
        place.run(failed, ends="failed")
    assert requeue(place, ids[:1]) == [Requeued.REQUEUED]
    sweep(place.ours)
    assert [(event.id, event.state) for event in place.events()] == [
        (ids[0], "queued"),
        (ids[1], "failed"),
    ]


def test_what_waits_for_a_failed_event_does_not_hinder_a_purge(
    place: Place, given_up: list[int]
) -> None:
    seen = questions.REVIEWS.find(place.ours, 1)
    assert seen is not None
    ours = purge(place, seen)
    assert [event.id for event in place.events(state="queued")] == [ours]


def test_an_event_of_others_is_requeued_only_if_it_still_is_failed(place: Place) -> None:
    theirs = place.foreign("index", {"gid": gid(ORPHAN)})
    assert theirs is not None
    place.run(theirs, ends="failed")

    class Meanwhile(Listings):
        """archive.org, which takes so long that another person requeues the event first."""

        def read(self, wanted: str, *, again: bool = False) -> Item:
            place.edit(
                f"UPDATE artwork_indexer.event_queue SET state = 'running' WHERE id = {theirs}"
            )
            return super().read(wanted, again=again)

    ids = [*place.queued(ORPHAN, deletion(ORPHAN)), theirs]
    place.run(ids[0], ends="failed")
    listings: Any = Meanwhile()
    again = requeueing.requeue(place.ours, ids, by="alice", listings=listings, any_event=True)
    assert again[0].outcome is Requeued.NOT_FAILED
    assert place.events(id=theirs)[0].state == "running"


def test_a_requeued_event_of_others_withdraws_ours(place: Place) -> None:
    theirs = place.foreign("copy_image", {"old_gid": gid(OWNER), "new_gid": gid(BYSTANDER)})
    assert theirs is not None
    place.run(theirs, ends="failed")
    place.edit("UPDATE artwork_indexer.event_queue SET created = now() - interval '3 days'")
    ours = place.queued(ORPHAN, deletion(ORPHAN), deindex(ORPHAN, 0))
    again = requeueing.requeue(place.ours, [theirs], by="alice", any_event=True)
    assert [event.outcome for event in again] == [Requeued.REQUEUED]
    assert not set(ours) & {event.id for event in place.events()}
    assert place.rows_of(
        "SELECT now() - created < interval '1 minute' FROM artwork_indexer.event_queue"
    ) == [(True,)]


@pytest.mark.parametrize(
    ("number", "event", "change"),
    [
        (LIVE, index(LIVE), f"DELETE FROM musicbrainz.release WHERE id = {LIVE}"),
        (
            ORPHAN,
            deindex(ORPHAN),
            (
                "INSERT INTO musicbrainz.release (id, gid, name, artist_credit)"
                f" VALUES ({ORPHAN}, '{gid(ORPHAN)}', 'restored', 1)"
            ),
        ),
    ],
)
def test_an_event_is_not_requeued_that_does_not_suit_the_entity_any_more(
    place: Place, number: int, event: EventToQueue, change: str
) -> None:
    ids = place.queued(number, event)
    place.run(ids[0], ends="failed")
    place.edit("DELETE FROM cover_art_archive.cover_art; TRUNCATE artwork_indexer.audit_event")
    place.edit(change)
    assert requeue(place, ids) == [Requeued.OUTDATED]
    assert place.events(id=ids[0])[0].state == "failed"
