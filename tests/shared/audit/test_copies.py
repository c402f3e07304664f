"""When two items hold the same picture: same id, suffix, size and checksum, with bytes, public."""

from __future__ import annotations

import time
from typing import Any

import pytest

from artwork_backfill.shared.audit.actual import (
    CopyState,
    Item,
    ItemState,
    OriginalImage,
    classify,
    compare_copies,
)
from artwork_backfill.shared.audit.archives import (
    ART_ARCHIVES,
    EntityType,
    image_name,
    item_name,
)
from tests.shared.audit.audit_states import OTHER_GID, RELEASE_GID

ARCHIVE = ART_ARCHIVES[EntityType.RELEASE]
SUMS = {"md5": "a" * 32, "sha1": "b" * 40}


def item(gid: str, collection: str = "coverartarchive", *images: dict[str, Any]) -> Item:
    own = [
        {"name": f"{item_name(gid)}{tail}", "source": "original"}
        for tail in ("_meta.xml", "_files.xml")
    ]
    files = [{"source": "original", **image} for image in images]
    metadata = {"identifier": item_name(gid), "collection": collection}
    listed = classify({"files": [*own, *files], "metadata": metadata}, gid)
    assert listed.state is ItemState.LISTED
    return listed


def ours(**fields: object) -> OriginalImage:
    values = {"size": "100", **SUMS, **fields}
    name = image_name(RELEASE_GID, 7, "jpg")
    [image] = item(RELEASE_GID, "coverartarchive", {"name": name, **values}).originals()
    return image


def theirs(suffix: str = "jpg", artwork_id: int = 7, **fields: object) -> Item:
    values = {"size": "100", **SUMS, **fields}
    name = image_name(OTHER_GID, artwork_id, suffix)
    return item(OTHER_GID, "coverartarchive", {"name": name, **values})


@pytest.mark.parametrize(
    ("image", "owner", "state"),
    [
        (ours(), theirs(), CopyState.SAME),
        (ours(size=100), theirs(), CopyState.SAME),
        (ours(md5=None), theirs(), CopyState.SAME),
        (ours(), theirs(sha1=None), CopyState.SAME),
        (ours(), theirs(suffix="png"), CopyState.ANOTHER_FILE),
        (ours(), theirs(suffix="JPG"), CopyState.ANOTHER_FILE),
        (ours(), theirs(md5="c" * 32), CopyState.ANOTHER_FILE),
        (ours(md5=None), theirs(sha1="c" * 40), CopyState.ANOTHER_FILE),
        (ours(), theirs(sha1="c" * 40), CopyState.ANOTHER_FILE),
        (ours(), theirs(size="99"), CopyState.ANOTHER_FILE),
        (ours(md5=None, sha1=None), theirs(size="99"), CopyState.ANOTHER_FILE),
        (ours(size=None), theirs(md5="c" * 32), CopyState.ANOTHER_FILE),
        (ours(), theirs(size=0), CopyState.EMPTY),
        (ours(size=0), theirs(size="0"), CopyState.EMPTY),
        (ours(), theirs(private="true"), CopyState.PRIVATE),
        (ours(), theirs(artwork_id=8), CopyState.ONLY_COPY),
        (ours(), theirs(source="derivative"), CopyState.ONLY_COPY),
        (ours(), theirs(old_version="true"), CopyState.ONLY_COPY),
        (ours(), Item(OTHER_GID, ItemState.ABSENT), CopyState.ONLY_COPY),
        (ours(), Item(OTHER_GID, ItemState.DARK), CopyState.DARK),
        (ours(), Item(OTHER_GID, ItemState.UNFINISHED), CopyState.UNKNOWN),
        (ours(), Item(OTHER_GID, ItemState.UNAVAILABLE), CopyState.UNKNOWN),
        (ours(), item(OTHER_GID, "eventartarchive"), CopyState.OTHER_ARCHIVE),
        (ours(md5=None, sha1=None), theirs(), CopyState.INCOMPARABLE),
        (ours(md5=None), theirs(sha1=None), CopyState.INCOMPARABLE),
        (ours(size=None), theirs(), CopyState.INCOMPARABLE),
        (ours(), theirs(size="unknown"), CopyState.INCOMPARABLE),
    ],
)
def test_what_the_owner_holds_of_an_image(image: OriginalImage, owner: Item, state: CopyState):
    assert compare_copies(image, owner, ARCHIVE) is state


def test_thousands_of_images_are_compared_among_thousands():
    def many(gid: str) -> Item:
        names = [image_name(gid, id_, "jpg") for id_ in range(5_000)]
        return item(gid, "coverartarchive", *({"name": n, "size": "9", **SUMS} for n in names))

    owner, images = many(OTHER_GID), many(RELEASE_GID).originals()
    began = time.process_time()
    states = {compare_copies(image, owner, ARCHIVE) for image in images}
    assert states == {CopyState.SAME}
    assert time.process_time() - began < 5
