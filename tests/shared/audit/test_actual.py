from __future__ import annotations

import json

import pytest

from artwork_backfill.shared.audit.actual import ItemState, classify
from artwork_backfill.shared.audit.archives import image_name, item_name, thumbnail_name, xml_name
from tests.shared.audit.audit_states import OTHER_GID, RELEASE_GID, SAMPLES

OWN_FILES = [
    {"name": f"{item_name(RELEASE_GID)}_meta.xml", "source": "original"},
    {"name": f"{item_name(RELEASE_GID)}_files.xml", "source": "metadata"},
]
LISTING = {"files": OWN_FILES, "metadata": {"identifier": item_name(RELEASE_GID)}}


def sample(name: str) -> object:
    return json.loads((SAMPLES / name).read_bytes())


def listing(*files: dict[str, object], **changes: object) -> dict[str, object]:
    return {**LISTING, "files": [*files, *OWN_FILES], **changes}


def file(name: str, source: str = "original", **fields: object) -> dict[str, object]:
    return {"name": name, "source": source, **fields}


def test_a_healthy_item_is_read_as_a_whole():
    item = classify(sample("archive-org-metadata.json"), OTHER_GID)
    assert item.state is ItemState.LISTED
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
    assert item.last_updated == 1_700_000_000
    assert (item.d1, item.d2) == ("ia600001.us.archive.org", "ia800001.us.archive.org")
    assert item.dir == f"/0/items/{item_name(OTHER_GID)}"


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"errcode": 104},
        {"errcode": "104", "error": "item not found"},
        {"errcode": 104, "pending_tasks": True},
    ],
    ids=repr,
)
def test_every_form_of_nothing_is_an_absence(document):
    assert classify(document, RELEASE_GID).state is ItemState.ABSENT


def test_a_dark_item_has_no_files_to_be_missing():
    item = classify(sample("archive-org-metadata-dark.json"), RELEASE_GID)
    assert item.state is ItemState.DARK
    assert item.files == ()


@pytest.mark.parametrize("more", [{}, {"pending_tasks": True}, {"errcode": 104}, {"error": "x"}])
def test_dark_comes_first_and_need_not_name_the_item(more):
    assert classify({"is_dark": True, **more}, RELEASE_GID).state is ItemState.DARK


@pytest.mark.parametrize(
    "flags",
    [
        {"pending_tasks": True},
        {"pending_tasks": "true"},
        {"has_redrow": True},
        {"tasks": [{"task_id": 1}]},
        {"nodownload": True},
        {"errcode": 101},
        {"nodownload": True, "error": "no"},
    ],
    ids=repr,
)
def test_an_item_with_work_under_way_is_unfinished(flags):
    assert classify(listing(**flags), RELEASE_GID).state is ItemState.UNFINISHED


@pytest.mark.parametrize(
    "flags",
    [
        {"pending_tasks": False, "has_redrow": None, "tasks": [], "nodownload": "false"},
        {"servers_unavailable": True},
        {"files_count": 2},
        {"files_count": "2"},
    ],
    ids=repr,
)
def test_a_complete_listing_is_listed(flags):
    assert classify(listing(**flags), RELEASE_GID).state is ItemState.LISTED


def test_a_file_that_is_listed_twice_alike_is_one():
    item = classify(listing(file("a.jpg"), file("a.jpg")), RELEASE_GID)
    assert [image.name for image in item.originals()] == ["a.jpg"]


def test_old_versions_are_counted_in_files_count():
    old = file("history/files/index.json.~1~", old_version="true")
    document = listing(old, files_count="3")
    assert classify(document, RELEASE_GID).state is ItemState.LISTED


@pytest.mark.parametrize(
    "document",
    [
        listing(files_count=7),
        listing(files_count="1"),
        listing(files_count=None),
        {**LISTING, "files": []},
        {**LISTING, "files": OWN_FILES[:1]},
        {**LISTING, "files": OWN_FILES[1:]},
        {**LISTING, "files": [], "files_count": 0},
        {**LISTING, "files": [{**each, "old_version": "true"} for each in OWN_FILES]},
    ],
    ids=repr,
)
def test_a_listing_that_was_cut_says_nothing(document):
    item = classify(document, RELEASE_GID)
    assert (item.state, item.is_incomplete, item.files) == (ItemState.UNAVAILABLE, True, ())


@pytest.mark.parametrize(
    "document",
    [
        None,
        "",
        "{}",
        0,
        False,
        [{}],
        {"error": "no such server"},
        {**LISTING, "error": ""},
        {"errcode": 102},
        {"errcode": "105"},
        {"errcode": 999},
        {"servers_unavailable": True},
        {"metadata": LISTING["metadata"]},
        {"files": OWN_FILES},
        {**LISTING, "dir": f"/0/items/{item_name(OTHER_GID)}", "metadata": {}},
        {**LISTING, "metadata": {"identifier": item_name(OTHER_GID)}},
        {"is_dark": True, "metadata": {"identifier": item_name(OTHER_GID)}},
        {"is_dark": True, "dir": f"/0/items/{item_name(OTHER_GID)}"},
        {**LISTING, "metadata": [], "dir": f"/0/items/{item_name(RELEASE_GID)}"},
        {**LISTING, "files": None},
        {**LISTING, "files": {}},
        {**LISTING, "files": ["index.json"]},
        {**LISTING, "files": [{}]},
        {**LISTING, "files": [{"name": "index.json"}]},
        {**LISTING, "files": [{"name": 1, "source": "original"}]},
        {**LISTING, "files": [{"name": "", "source": "original"}]},
        {**LISTING, "files": [{"name": "index.json", "source": None}]},
        listing(file("a.jpg", size="0"), file("a.jpg", size="5")),
        listing(file("a.jpg"), file("a.jpg", private="true")),
    ],
    ids=repr,
)
def test_what_is_no_state_of_this_item_is_unavailable(document):
    item = classify(document, RELEASE_GID)
    assert (item.state, item.is_incomplete) == (ItemState.UNAVAILABLE, False)
    assert item.problem


def test_the_directory_names_the_item_when_the_metadata_do_not():
    document = listing(metadata={}, dir=f"/0/items/{item_name(RELEASE_GID)}")
    assert classify(document, RELEASE_GID).state is ItemState.LISTED


@pytest.mark.parametrize(
    ("name", "source", "image"),
    [
        (f"mbid-{RELEASE_GID}-7.jpg", "original", (7, "jpg")),
        (f"mbid-{RELEASE_GID}-7.PDF", "original", (7, "PDF")),
        (f"mbid-{RELEASE_GID}-9223372036854775807.png", "original", (2**63 - 1, "png")),
        (f"mbid-{RELEASE_GID}-9223372036854775808.png", "original", (None, "png")),
        (f"mbid-{RELEASE_GID}-99999999999999999999.png", "original", (None, "png")),
        (f"mbid-{RELEASE_GID}-007.jpg", "original", (None, "jpg")),
        (f"mbid-{RELEASE_GID}-\u0667.jpg", "original", (None, "jpg")),
        (f"mbid-{RELEASE_GID}-front.jpg", "original", (None, "jpg")),
        ("cover.JPG", "original", (None, "JPG")),
        ("booklet.pdf", "original", (None, "pdf")),
        (f"mbid-{RELEASE_GID}-7_text.pdf", "original", None),
        (f"mbid-{RELEASE_GID}_text.pdf", "original", None),
        ("cover_text.pdf", "original", (None, "pdf")),
        (f"mbid-{RELEASE_GID}-7.jpg", "derivative", None),
        (f"mbid-{RELEASE_GID}-7_thumb250.jpg", "original", (None, "jpg")),
        (f"mbid-{RELEASE_GID}-7.tar.gz", "original", None),
        (f"mbid-{RELEASE_GID}-7.", "original", None),
        (f"mbid-{RELEASE_GID}-7.jpg\n", "original", None),
        (f"mbid-{RELEASE_GID}-7", "original", None),
        (f"mbid-{OTHER_GID}-7.jpg", "original", (None, "jpg")),
        ("7.jpg", "original", (None, "jpg")),
        ("__ia_thumb.jpg", "original", None),
        (f"history/files/mbid-{RELEASE_GID}-7.jpg.~1~", "original", None),
    ],
)
def test_an_original_image_is_known_by_its_name_and_source(name, source, image):
    originals = classify(listing(file(name, source)), RELEASE_GID).originals()
    assert [(each.artwork_id, each.suffix) for each in originals] == ([image] if image else [])


@pytest.mark.parametrize(
    ("kind", "is_image"),
    [("JPEG", True), ("Image Container PDF", True), ("Text PDF", True), ("Text", False)],
)
def test_an_original_image_is_known_by_its_format_too(kind, is_image):
    originals = classify(listing(file("scan", format=kind)), RELEASE_GID).originals()
    assert [each.name for each in originals] == ["scan"] * is_image


def test_an_old_version_is_no_file_of_the_item():
    item = classify(listing(file("index.json", old_version="true")), RELEASE_GID)
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
        "cover.jpg",
        xml_name(RELEASE_GID),
        f"mbid-{RELEASE_GID}_mb_metadata_meta.log",
        f"mbid-{RELEASE_GID}-7_jp2.zip",
        f"mbid-{RELEASE_GID}-7_hocr_searchtext.txt.gz",
    ],
)
def test_what_is_archive_orgs_or_accounted_for_is_no_leftover(name):
    assert classify(listing(file(name)), RELEASE_GID).leftovers() == ()


@pytest.mark.parametrize(
    "name",
    [
        f"mbid-{OTHER_GID}_meta.xml",
        f"mbid-{OTHER_GID}_mb_metadata.xml",
        "other_jp2.zip",
        "_meta.xml.txt",
        "notes.txt",
    ],
)
def test_anything_else_is_a_leftover(name):
    leftovers = classify(listing(file(name)), RELEASE_GID).leftovers()
    assert [each.name for each in leftovers] == [name]


@pytest.mark.parametrize(
    ("fields", "md5", "size"),
    [
        ({"md5": "0" * 32, "size": "12"}, "0" * 32, 12),
        ({"md5": "0" * 32, "size": 12}, "0" * 32, 12),
        ({"md5": "A" * 32, "size": 12}, "a" * 32, 12),
        ({"md5": "0" * 31, "size": "twelve"}, None, None),
        ({"md5": 0, "size": "-1"}, None, None),
        ({"md5": None, "size": True}, None, None),
        ({"md5": ["0" * 32], "size": "9" * 5000}, None, None),
        ({}, None, None),
    ],
)
def test_an_unusable_md5_or_size_is_none(fields, md5, size):
    index = classify(listing(file("index.json", **fields)), RELEASE_GID).index
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
    metadata = classify(document, RELEASE_GID).metadata
    assert {
        metadata.mediatype,
        metadata.noindex,
        metadata.title,
        metadata.date,
        metadata.language,
    } == {single}
    assert {metadata.collections, metadata.creators, metadata.external_identifiers} == {several}
