from __future__ import annotations

import json

import pytest
from artwork_backfill.shared.audit.actual import ItemState, UnreadableItem, parse_item
from artwork_backfill.shared.audit.archives import image_name, item_name, thumbnail_name, xml_name

from tests.shared.audit.audit_states import OTHER_GID, RELEASE_GID, SAMPLES

LISTING = {"files": [], "metadata": {"identifier": item_name(RELEASE_GID)}}


def sample(name: str) -> object:
    return json.loads((SAMPLES / name).read_bytes())


def listing(*files: dict[str, object], **changes: object) -> dict[str, object]:
    return {**LISTING, "files": list(files), **changes}


def file(name: str, source: str = "original", **fields: object) -> dict[str, object]:
    return {"name": name, "source": source, **fields}


def test_a_healthy_item_is_read_as_a_whole():
    item = parse_item(sample("archive-org-metadata.json"), OTHER_GID)
    assert item.state is ItemState.PRESENT
    assert len(item.files) == 56
    assert item.index is not None
    assert (item.index.md5, item.index.size) == ("4199a0a94f446993b08d890e695d769a", 6215)
    assert item.xml is not None
    assert [image.artwork_id for image in item.originals()] == list(range(10**10, 10**10 + 8))
    assert {image.suffix for image in item.originals()} == {"jpg"}
    thumbnail = item.file(thumbnail_name(OTHER_GID, 10**10, 250))
    assert thumbnail is not None
    assert thumbnail.original == image_name(OTHER_GID, 10**10, "jpg")
    assert item.metadata.collections == ("coverartarchive",)
    assert (item.metadata.title, item.metadata.creators) == ("Title 0 & co", ("Artist 0",))
    assert len(item.metadata.external_identifiers) == 3
    assert (item.last_updated, item.pending) == (1_700_000_000, False)
    assert (item.d1, item.d2) == ("ia600001.us.archive.org", "ia800001.us.archive.org")
    assert item.dir == f"/0/items/{item_name(OTHER_GID)}"


def test_an_empty_object_is_an_absent_item():
    document = sample("archive-org-metadata-missing.json")
    assert parse_item(document, RELEASE_GID).state is ItemState.ABSENT


def test_a_dark_item_has_no_files_to_be_missing():
    item = parse_item(sample("archive-org-metadata-dark.json"), RELEASE_GID)
    assert item.state is ItemState.DARK
    assert item.files == ()


def test_a_dark_answer_need_not_name_the_item():
    assert parse_item({"is_dark": True}, RELEASE_GID).state is ItemState.DARK


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "",
        "{}",
        0,
        False,
        {"error": "no such server"},
        {**LISTING, "error": ""},
        {**LISTING, "servers_unavailable": True},
        {"metadata": LISTING["metadata"]},
        {"files": []},
        {"files": [], "dir": f"/0/items/{item_name(OTHER_GID)}", "metadata": {}},
        {"files": [], "metadata": {"identifier": item_name(OTHER_GID)}},
        {"is_dark": True, "metadata": {"identifier": item_name(OTHER_GID)}},
        {"is_dark": True, "dir": f"/0/items/{item_name(OTHER_GID)}"},
        {"files": [], "metadata": [], "dir": f"/0/items/{item_name(RELEASE_GID)}"},
        {**LISTING, "files": None},
        {**LISTING, "files": {}},
        {**LISTING, "files": ["index.json"]},
        {**LISTING, "files": [{}]},
        {**LISTING, "files": [{"name": "index.json"}]},
        {**LISTING, "files": [{"name": 1, "source": "original"}]},
        {**LISTING, "files": [{"name": "", "source": "original"}]},
        {**LISTING, "files": [{"name": "index.json", "source": None}]},
    ],
    ids=repr,
)
def test_what_is_no_state_of_this_item_is_refused(document):
    with pytest.raises(UnreadableItem, match=item_name(RELEASE_GID)):
        parse_item(document, RELEASE_GID)


def test_the_directory_names_the_item_when_the_metadata_do_not():
    document = {"files": [], "metadata": {}, "dir": f"/0/items/{item_name(RELEASE_GID)}"}
    assert parse_item(document, RELEASE_GID).state is ItemState.PRESENT


@pytest.mark.parametrize(
    ("flags", "pending"),
    [
        ({}, False),
        ({"pending_tasks": False, "has_redrow": None}, False),
        ({"pending_tasks": "false"}, False),
        ({"pending_tasks": True}, True),
        ({"pending_tasks": "true"}, True),
        ({"pending_tasks": [{"task_id": 1}]}, True),
        ({"has_redrow": True}, True),
    ],
)
def test_an_item_with_work_under_way_is_pending(flags, pending):
    assert parse_item(listing(**flags), RELEASE_GID).pending is pending


def test_a_dark_item_can_be_pending_too():
    assert parse_item({"is_dark": True, "pending_tasks": True}, RELEASE_GID).pending


@pytest.mark.parametrize(
    ("name", "source", "image"),
    [
        (f"mbid-{RELEASE_GID}-7.jpg", "original", (7, "jpg")),
        (f"mbid-{RELEASE_GID}-7.PDF", "original", (7, "PDF")),
        (f"mbid-{RELEASE_GID}-9223372036854775807.png", "original", (2**63 - 1, "png")),
        (f"mbid-{RELEASE_GID}-9223372036854775808.png", "original", None),
        (f"mbid-{RELEASE_GID}-99999999999999999999.png", "original", None),
        (f"mbid-{RELEASE_GID}-007.jpg", "original", None),
        (f"mbid-{RELEASE_GID}-\u0667.jpg", "original", None),
        (f"mbid-{RELEASE_GID}-7.jpg", "derivative", None),
        (f"mbid-{RELEASE_GID}-7_thumb250.jpg", "original", None),
        (f"mbid-{RELEASE_GID}-7.tar.gz", "original", None),
        (f"mbid-{RELEASE_GID}-7.", "original", None),
        (f"mbid-{RELEASE_GID}-7.jpg\n", "original", None),
        (f"mbid-{RELEASE_GID}-7", "original", None),
        (f"mbid-{OTHER_GID}-7.jpg", "original", None),
        ("7.jpg", "original", None),
        (f"history/files/mbid-{RELEASE_GID}-7.jpg.~1~", "original", None),
    ],
)
def test_an_original_image_is_told_by_its_name_and_source(name, source, image):
    originals = parse_item(listing(file(name, source)), RELEASE_GID).originals()
    assert [(each.artwork_id, each.suffix) for each in originals] == ([image] if image else [])


def test_an_old_version_is_no_file_of_the_item():
    item = parse_item(listing(file("index.json", old_version="true")), RELEASE_GID)
    assert item.files[0].old_version
    assert item.index is None


@pytest.mark.parametrize(
    "name",
    [
        "__ia_thumb.jpg",
        f"mbid-{RELEASE_GID}_meta.xml",
        f"mbid-{RELEASE_GID}_meta.sqlite",
        f"mbid-{RELEASE_GID}_files.xml",
        f"mbid-{RELEASE_GID}_archive.torrent",
        f"mbid-{RELEASE_GID}_reviews.xml",
        f"mbid-{RELEASE_GID}_rules.conf",
        "history/files/index.json.~1~",
        "index.json",
        f"mbid-{RELEASE_GID}-7.jpg",
    ],
)
def test_what_is_archive_orgs_or_told_otherwise_is_no_leftover(name):
    assert parse_item(listing(file(name)), RELEASE_GID).leftovers() == ()


@pytest.mark.parametrize(
    "name",
    [
        xml_name(RELEASE_GID),
        f"mbid-{RELEASE_GID}-7_thumb.jpg",
        f"mbid-{OTHER_GID}-7.jpg",
        f"mbid-{OTHER_GID}_meta.xml",
        "_meta.xml.txt",
        "notes.txt",
    ],
)
def test_anything_else_is_a_leftover(name):
    leftovers = parse_item(listing(file(name)), RELEASE_GID).leftovers()
    assert [each.name for each in leftovers] == [name]


@pytest.mark.parametrize(
    ("fields", "md5", "size"),
    [
        ({"md5": "0" * 32, "size": "12"}, "0" * 32, 12),
        ({"md5": "0" * 32, "size": 12}, "0" * 32, 12),
        ({"md5": "0" * 31, "size": "twelve"}, None, None),
        ({"md5": 0, "size": "-1"}, None, None),
        ({"md5": None, "size": True}, None, None),
        ({"md5": ["0" * 32], "size": "9" * 5000}, None, None),
        ({}, None, None),
    ],
)
def test_an_unusable_md5_or_size_is_none(fields, md5, size):
    index = parse_item(listing(file("index.json", **fields)), RELEASE_GID).index
    assert index is not None
    assert (index.md5, index.size) == (md5, size)


@pytest.mark.parametrize(
    ("value", "single", "several"),
    [
        ("a", "a", ("a",)),
        (["a"], "a", ("a",)),
        (["a", "a"], "a", ("a", "a")),
        (["a", "b"], "a; b", ("a", "b")),
        (1960, "1960", ("1960",)),
        (True, "true", ("true",)),
        (None, None, ()),
        ([], None, ()),
        ([None, {}, ["a"]], None, ()),
        ({"a": "b"}, None, ()),
    ],
)
def test_metadata_come_as_a_value_or_a_list(value, single, several):
    names = ("collection", "mediatype", "noindex", "title", "creator", "date", "language")
    fields = dict.fromkeys((*names, "external-identifier"), value)
    document = listing(metadata={"identifier": item_name(RELEASE_GID), **fields})
    metadata = parse_item(document, RELEASE_GID).metadata
    assert {
        metadata.mediatype,
        metadata.noindex,
        metadata.title,
        metadata.date,
        metadata.language,
    } == {single}
    assert {metadata.collections, metadata.creators, metadata.external_identifiers} == {several}
