"""What people queue goes the same way: under the handshake, and it can be withdrawn."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from artwork_backfill.shared.audit.actual import Item, classify
from artwork_backfill.shared.review import actions, questions
from artwork_backfill.shared.review.actions import Refused, Requeued
from tests.beside.rows import BYSTANDER, IMAGE, ORPHAN, OWNER, Place, deindex, deletion, gid


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
    found = questions.find_review(place.ours, 1)
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
    again = actions.requeue(place.ours, ids, by="alice", listings=LISTINGS)
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
