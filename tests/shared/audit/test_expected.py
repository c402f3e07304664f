from __future__ import annotations

import json
from dataclasses import replace

import pytest

from artwork_backfill.shared.audit.expected import index_json, md5
from tests.shared.audit.audit_states import BACK, EVENT, FRONT, RELEASE, SAMPLES


def test_the_bytes_of_a_current_index_are_reproduced_exactly():
    sample = (SAMPLES / "index-current.json").read_bytes()
    assert index_json(RELEASE) == sample
    assert md5(index_json(RELEASE)) == "0ccbd62a5f013c4b77b6c0bb170c9b7e"


def test_an_event_has_its_own_archive_and_no_back():
    document = json.loads(index_json(EVENT))
    assert document["event"] == f"https://musicbrainz.org/event/{EVENT.gid}"
    poster = document["images"][0]
    assert "back" not in poster
    assert poster["image"] == f"https://eventartarchive.org/event/{EVENT.gid}/{FRONT}.png"
    assert poster["thumbnails"]["1200"] == (
        f"https://eventartarchive.org/event/{EVENT.gid}/{FRONT}-1200.jpg"
    )


def test_characters_beyond_ascii_are_escaped_as_the_indexer_does():
    assert rb'"comment": "crowd \u2728"' in index_json(EVENT)


def test_the_images_stand_in_listing_order():
    swapped = replace(RELEASE, artwork=RELEASE.artwork[::-1])
    assert [image["id"] for image in json.loads(index_json(swapped))["images"]] == [BACK, FRONT]


@pytest.mark.parametrize("expected", [RELEASE, EVENT], ids=["release", "event"])
def test_without_art_the_list_is_empty(expected):
    assert json.loads(index_json(replace(expected, artwork=())))["images"] == []
