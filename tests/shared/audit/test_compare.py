"""What `compare` finds, as a table: one damage to a healthy item, and all that it shows as."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from artwork_backfill.shared.audit.actual import Actual, Item, ItemState, classify
from artwork_backfill.shared.audit.archives import (
    image_name,
    item_name,
    other_archive,
    thumbnail_name,
    xml_name,
)
from artwork_backfill.shared.audit.catalogue import CHECKS, Severity
from artwork_backfill.shared.audit.compare import (
    INDEX_MAX_BYTES,
    XML_MAX_BYTES,
    compare,
    downloads_needed,
    foreign_images,
    needs_xml,
)
from artwork_backfill.shared.audit.compare_xml import UnreadableXml
from artwork_backfill.shared.audit.expected import Expected, Presence
from tests.shared.audit.audit_states import (
    BACK,
    BOTH,
    EVENT,
    EVENT_GID,
    FOREIGN,
    FRONT,
    OTHER_GID,
    RELEASE,
    RELEASE_GID,
    SAMPLES,
    FakeItem,
    findings_of,
    healthy,
    summary,
)
from tests.shared.audit.test_compare_index import INDEX_EDITS

Damage = Callable[[FakeItem], object]
Found = list[tuple[str, str, str]]
ORPHANS = (Presence.MERGED, Presence.DELETED, Presence.UNKNOWN)


def without_art(expected: Expected) -> Expected:
    return replace(expected, artwork=(), xml=None)


def orphan(expected: Expected, presence: Presence) -> Expected:
    return replace(without_art(expected), presence=presence)


def original(expected: Expected, position: int) -> str:
    artwork = expected.artwork[position]
    return image_name(expected.gid, artwork.id, artwork.suffix)


def set_index(content: bytes) -> Damage:
    return lambda item: item.originals.update({"index.json": content})


def set_xml(content: bytes) -> Damage:
    return lambda item: item.originals.update({xml_name(item.gid): content})


def set_metadata(**fields: object) -> Damage:
    return lambda item: item.metadata.update(fields)


def drop_metadata(*names: str) -> Damage:
    return lambda item: [item.metadata.pop(name) for name in names]


def rename_to_other_suffix(item: FakeItem) -> None:
    item.originals[f"mbid-{item.gid}-{FRONT}.tiff"] = item.originals.pop(original(RELEASE, 0))


def use_old_form(item: FakeItem) -> None:
    item.originals["index.json"] = (SAMPLES / "index-old-form.json").read_bytes()


OLD_FORM: Found = [
    ("index.entity_url", "minor", ""),
    *[
        each
        for artwork_id in (FRONT, BACK)
        for each in (
            ("index.image.field_missing", "major", f"{artwork_id} thumbnails"),
            ("index.image.type", "major", f"{artwork_id} id"),
            ("index.image.url", "minor", f"{artwork_id} image"),
            ("index.image.url", "minor", f"{artwork_id} thumbnails"),
        )
    ],
]

# Damage to an item of either archive: what it is called, done by, found as.
FOR_BOTH: list[tuple[str, Damage, Callable[[Expected], Found]]] = [
    ("nothing", lambda item: None, lambda e: []),
    (
        "not in the collection",
        set_metadata(collection="opensource"),
        lambda e: [("item.collection", "major", "")],
    ),
    ("in no collection", drop_metadata("collection"), lambda e: [("item.collection", "major", "")]),
    (
        "wrong mediatype",
        set_metadata(mediatype="texts"),
        lambda e: [("item.mediatype", "major", "")],
    ),
    ("no mediatype", drop_metadata("mediatype"), lambda e: [("item.mediatype", "major", "")]),
    ("noindex off", set_metadata(noindex="false"), lambda e: [("item.noindex", "major", "")]),
    ("no noindex", drop_metadata("noindex"), lambda e: [("item.noindex", "major", "")]),
    (
        "no index",
        lambda item: item.remove("index.json"),
        lambda e: [("files.index.missing", "critical", "index.json")],
    ),
    (
        "no XML",
        lambda item: item.remove(xml_name(item.gid)),
        lambda e: [("files.xml.missing", "major", xml_name(e.gid))],
    ),
    (
        "a second original with an expected id",
        lambda item: item.originals.update({f"mbid-{item.gid}-{FRONT}.gif": b""}),
        lambda e: [("files.original.duplicate", "major", str(FRONT))],
    ),
    (
        "a foreign original",
        lambda item: item.add_image(FOREIGN, "jpg"),
        lambda e: [("files.original.extra", "major", image_name(e.gid, FOREIGN, "jpg"))],
    ),
    (
        "a foreign image, both held and listed",
        lambda item: (
            item.add_image(FOREIGN, "jpg"),
            item.edit_index(lambda d: d["images"].append({**d["images"][0], "id": FOREIGN})),
        ),
        lambda e: [("files.original.extra", "major", image_name(e.gid, FOREIGN, "jpg"))],
    ),
    (
        "files with other names",
        lambda item: item.originals.update(
            {f"mbid-{OTHER_GID}-1.jpg": b"", "scan.jpg": b"", f"mbid-{item.gid}-x.jpg": b""}
        ),
        lambda e: [
            ("files.original.extra", "major", name)
            for name in (f"mbid-{OTHER_GID}-1.jpg", f"mbid-{e.gid}-x.jpg", "scan.jpg")
        ],
    ),
    (
        "an original without bytes, with thumbnails missing",
        lambda item: (
            item.sizes.update({f"mbid-{item.gid}-{BACK}.{suffix}": 0 for suffix in ("jpg", "pdf")}),
            item.remove(thumbnail_name(item.gid, BACK, 500)),
        ),
        lambda e: [("files.original.empty", "critical", original(e, 1))],
    ),
    (
        "two thumbnails of one image gone",
        lambda item: item.remove(
            thumbnail_name(item.gid, FRONT, 250), thumbnail_name(item.gid, FRONT, 1200)
        ),
        lambda e: [("files.thumbnail.missing", "minor", str(FRONT))],
    ),
    (
        "malformed index",
        set_index(b"<html>"),
        lambda e: [("index.malformed", "critical", "index.json")],
    ),
    (
        "index over the size limit",
        lambda item: (
            item.sizes.update({"index.json": INDEX_MAX_BYTES + 1}) or item.edit_index(dict.clear)
        ),
        lambda e: [("index.malformed", "critical", "index.json")],
    ),
    (
        "malformed XML",
        set_xml(b"<metadata>"),
        lambda e: [("xml.malformed", "critical", xml_name(e.gid))],
    ),
    (
        "XML over the size limit",
        lambda item: (
            item.sizes.update({xml_name(item.gid): XML_MAX_BYTES + 1})
            or item.edit_xml("<metadata", "<metadata ")
        ),
        lambda e: [("xml.malformed", "critical", xml_name(e.gid))],
    ),
]


@pytest.mark.parametrize("expected", BOTH, ids=lambda e: e.entity_type)
@pytest.mark.parametrize(
    ("damage", "found"), [case[1:] for case in FOR_BOTH], ids=[case[0] for case in FOR_BOTH]
)
def test_damage_to_either_kind_of_item(expected, damage, found):
    item = healthy(expected)
    damage(item)
    assert summary(findings_of(expected, item)) == sorted(found(expected))


# Damage to a release's item.
FOR_RELEASES: list[tuple[str, Damage, Found]] = [
    ("index in an old form", use_old_form, OLD_FORM),
    (
        "an original gone",
        lambda item: item.remove(original(RELEASE, 0)),
        [("files.original.missing", "critical", original(RELEASE, 0))],
    ),
    (
        "an original under another suffix",
        rename_to_other_suffix,
        [("files.original.missing", "critical", original(RELEASE, 0))],
    ),
    (
        "two originals under other suffixes",
        lambda item: (
            rename_to_other_suffix(item),
            item.originals.update({f"mbid-{RELEASE_GID}-{FRONT}.bmp": b""}),
        ),
        [
            ("files.original.duplicate", "major", str(FRONT)),
            ("files.original.missing", "critical", original(RELEASE, 0)),
        ],
    ),
    (
        "stale title in the XML, not extracted anew",
        lambda item: item.edit_xml("<title>Ruined Subjects", "<title>Ruined"),
        [("xml.field", "major", "release/title")],
    ),
    (
        "stale title in the XML and the metadata",
        lambda item: (
            item.edit_xml("<title>Ruined Subjects", "<title>Ruined"),
            item.metadata.update(title="Ruined"),
        ),
        [("meta.title", "minor", ""), ("xml.field", "major", "release/title")],
    ),
    (
        "stale status and a stale quality",
        lambda item: (
            item.edit_xml(">Official<", ">Bootleg<"),
            item.edit_xml("<quality>normal</quality>", ""),
        ),
        [
            ("xml.other", "minor", "release/quality"),
            ("xml.other", "minor", "release/status"),
        ],
    ),
    ("title absent", drop_metadata("title"), [("meta.title", "minor", "")]),
    ("title twice", set_metadata(title=["Ruined Subjects", "x"]), [("meta.title", "minor", "")]),
    ("title as a list", set_metadata(title=["Ruined Subjects"]), []),
    ("title with other white space", set_metadata(title=" Ruined\n Subjects"), []),
    (
        "only one creator",
        set_metadata(creator="JT Bruce"),
        [("meta.creator", "minor", "")],
    ),
    ("date", set_metadata(date="2011"), [("meta.date", "minor", "")]),
    ("language", set_metadata(language="deu"), [("meta.language", "minor", "")]),
    (
        "external identifiers of every kind",
        set_metadata(
            **{
                "external-identifier": [
                    f"urn:mb_release_id:{OTHER_GID}",
                    "urn:mb_artist_id:ae859a2d-5754-4e88-9af0-6df263345535",
                    "urn:upc:1",
                ]
            }
        ),
        [
            ("meta.external_identifier", "minor", "urn:asin"),
            ("meta.external_identifier", "minor", "urn:mb_artist_id"),
            ("meta.external_identifier", "minor", "urn:mb_release_id"),
            ("meta.external_identifier", "minor", "urn:upc"),
        ],
    ),
]


@pytest.mark.parametrize(
    ("damage", "found"),
    [case[1:] for case in FOR_RELEASES],
    ids=[case[0] for case in FOR_RELEASES],
)
def test_damage_to_the_item_of_a_release(damage, found):
    item = healthy(RELEASE)
    damage(item)
    assert summary(findings_of(RELEASE, item)) == sorted(found)


def test_of_an_event_nothing_that_archive_org_extracts_is_compared():
    item = healthy(EVENT)
    item.metadata.update(title="x", creator="x", date="x", language="x")
    assert findings_of(EVENT, item) == ()


def test_how_a_character_is_composed_means_nothing_in_the_metadata():
    expected = replace(RELEASE, xml=(RELEASE.xml or b"").replace(b"Ruined", "Rüined".encode()))
    item = healthy(expected)
    item.metadata["title"] = "Ru\u0308ined Subjects"
    assert findings_of(expected, item) == ()


def test_a_release_without_barcode_asin_date_and_language_has_none_extracted():
    xml = RELEASE.xml or b""
    for element in (
        b"<asin>B005GXO1GU</asin>",
        b"<date>2011-08-09</date><country>XW</country>",
        b"<language>eng</language>",
    ):
        assert element in xml
        xml = xml.replace(element, b"")
    expected = replace(RELEASE, xml=xml.replace(b">859705506019<", b"><"))
    item = healthy(expected)
    assert {each.check for each in findings_of(expected, item)} == {
        "meta.date",
        "meta.language",
        "meta.external_identifier",
    }
    for name in ("date", "language"):
        del item.metadata[name]
    item.metadata["external-identifier"] = item.metadata["external-identifier"][1:-2]
    assert findings_of(expected, item) == ()


def test_the_finding_of_another_suffix_says_what_is_there_instead():
    item = healthy(RELEASE)
    rename_to_other_suffix(item)
    [finding] = findings_of(RELEASE, item)
    assert finding.actual == image_name(RELEASE_GID, FRONT, "tiff")
    assert foreign_images(RELEASE, item.actual(RELEASE).item) == ()


def test_a_missing_thumbnail_names_the_sizes():
    item = healthy(RELEASE)
    item.remove(thumbnail_name(RELEASE_GID, BACK, 250), thumbnail_name(RELEASE_GID, BACK, 1200))
    [finding] = findings_of(RELEASE, item)
    assert finding.expected == "250, 1200"


@pytest.mark.parametrize("expected", BOTH, ids=lambda e: e.entity_type)
class TestItemStates:
    def test_art_without_an_item(self, expected):
        absent = Actual(Item(expected.gid, ItemState.ABSENT))
        assert summary(compare(expected, absent)) == [
            ("item.missing", "critical", item_name(expected.gid))
        ]

    def test_neither_art_nor_an_item(self, expected):
        absent = Actual(Item(expected.gid, ItemState.ABSENT))
        assert compare(without_art(expected), absent) == ()

    def test_a_dark_item_that_musicbrainz_does_not_know_to_be_dark(self, expected):
        dark = Actual(Item(expected.gid, ItemState.DARK))
        for entity in (expected, without_art(expected)):
            assert summary(compare(entity, dark)) == [
                ("item.dark", "critical", item_name(expected.gid))
            ]

    def test_a_dark_item_that_musicbrainz_knows_to_be_dark(self, expected):
        dark = Actual(Item(expected.gid, ItemState.DARK))
        assert compare(replace(expected, dark=True), dark) == ()

    def test_the_item_of_another_gid_is_not_compared(self, expected):
        with pytest.raises(ValueError, match=OTHER_GID):
            compare(expected, Actual(Item(OTHER_GID, ItemState.ABSENT)))


# An entity without art whose item is there: what the item is like, and what is found.
WITHOUT_ART: list[tuple[str, Damage, Callable[[Expected], Found]]] = [
    ("an empty listing", lambda item: None, lambda e: []),
    (
        "an empty listing in an old form, and everything else wrong",
        lambda item: (
            item.originals.update({"index.json": b'{"images": [], "release": "http://x"}'}),
            item.originals.update({xml_name(item.gid): b"?"}),
            item.metadata.clear(),
        ),
        lambda e: [],
    ),
    (
        "no index",
        lambda item: item.remove("index.json"),
        lambda e: [],
    ),
    (
        "an image listed that has no file",
        lambda item: item.edit_index(lambda d: d["images"].append({"id": FOREIGN})),
        lambda e: [("index.image.extra", "major", str(FOREIGN))],
    ),
    (
        "a foreign original",
        lambda item: item.add_image(FOREIGN, "png"),
        lambda e: [("files.original.extra", "major", image_name(e.gid, FOREIGN, "png"))],
    ),
    (
        "a listing that cannot be read",
        set_index(b"{"),
        lambda e: [("index.malformed", "critical", "index.json")],
    ),
    (
        "no list of images",
        lambda item: item.edit_index(lambda d: d.update(images=None)),
        lambda e: [("index.shape", "major", "images")],
    ),
]


@pytest.mark.parametrize("expected", BOTH, ids=lambda e: e.entity_type)
@pytest.mark.parametrize(
    ("damage", "found"),
    [case[1:] for case in WITHOUT_ART],
    ids=[case[0] for case in WITHOUT_ART],
)
def test_an_entity_without_art(expected, damage, found):
    expected = without_art(expected)
    item = healthy(expected)
    damage(item)
    assert summary(findings_of(expected, item)) == found(expected)


# What is left of an entity that is not live, and what is found.
LEFT_BEHIND: list[tuple[str, Damage, Callable[[str], Found]]] = [
    ("archive.org's own files", lambda item: item.originals.clear(), lambda gid: []),
    (
        "an index",
        lambda item: None,
        lambda gid: [("orphan.index", "major", "index.json")],
    ),
    (
        "an index and the XML",
        lambda item: item.originals.update({xml_name(item.gid): b""}),
        lambda gid: [("orphan.index", "major", "index.json")],
    ),
    (
        "images and the index",
        lambda item: (item.add_image(FOREIGN, "jpg"), item.add_image(FRONT, "pdf")),
        lambda gid: [
            ("orphan.image", "major", f"mbid-{gid}-{FRONT}.pdf"),
            ("orphan.image", "major", f"mbid-{gid}-{FOREIGN}.jpg"),
            ("orphan.index", "major", "index.json"),
        ],
    ),
    (
        "an image",
        lambda item: (item.originals.clear(), item.add_image(FOREIGN, "jpg")),
        lambda gid: [("orphan.image", "major", f"mbid-{gid}-{FOREIGN}.jpg")],
    ),
    (
        "the XML and its log",
        lambda item: (
            item.originals.clear(),
            item.originals.update({xml_name(item.gid): b""}),
            item.derivatives.update({f"mbid-{item.gid}_mb_metadata_meta.log": xml_name(item.gid)}),
        ),
        lambda gid: [],
    ),
    (
        "images of other names",
        lambda item: (
            item.originals.clear(),
            item.originals.update({f"mbid-{item.gid}-front.jpg": b"x", "cover.jpg": b"x"}),
        ),
        lambda gid: [
            ("orphan.image", "major", "cover.jpg"),
            ("orphan.image", "major", f"mbid-{gid}-front.jpg"),
        ],
    ),
    (
        "derivatives",
        lambda item: (
            item.add_image(FOREIGN, "jpg"),
            item.originals.clear(),
        ),
        lambda gid: [("orphan.leftover", "minor", item_name(gid))],
    ),
]


@pytest.mark.parametrize("presence", ORPHANS)
@pytest.mark.parametrize("expected", BOTH, ids=lambda e: e.entity_type)
@pytest.mark.parametrize(
    ("left", "found"),
    [case[1:] for case in LEFT_BEHIND],
    ids=[case[0] for case in LEFT_BEHIND],
)
def test_an_entity_that_is_not_live(expected, presence, left, found):
    expected = orphan(expected, presence)
    item = healthy(expected)
    left(item)
    assert summary(findings_of(expected, item)) == sorted(found(expected.gid))
    assert downloads_needed(expected, item.actual(expected).item) == ()


@pytest.mark.parametrize("collections", ["{other}", ["extra", "{other}"]], ids=repr)
@pytest.mark.parametrize("presence", [Presence.LIVE, *ORPHANS])
@pytest.mark.parametrize("expected", BOTH, ids=lambda e: e.entity_type)
def test_of_an_item_of_the_other_archive_nothing_else_is_compared(expected, presence, collections):
    entity = expected if presence is Presence.LIVE else orphan(expected, presence)
    item = healthy(expected)
    item.add_image(FOREIGN, "jpg")
    name = other_archive(expected.archive).collection
    item.metadata["collection"] = json.loads(json.dumps(collections).replace("{other}", name))
    item.remove("index.json")
    assert summary(findings_of(entity, item)) == [
        ("item.archive", "critical", item_name(expected.gid))
    ]
    assert not needs_xml(entity, item.actual(entity).item)


def test_an_item_in_both_collections_is_ours():
    item = healthy(RELEASE)
    item.metadata["collection"] = ["coverartarchive", "eventartarchive"]
    assert findings_of(RELEASE, item) == ()


@pytest.mark.parametrize("date", ["????-05-12", "1999-??-12"])
def test_a_date_that_is_known_in_part_is_not_compared_with_the_extracted_one(date):
    xml = RELEASE.xml.replace(b"<date>2011-08-09</date>", f"<date>{date}</date>".encode())
    expected = replace(RELEASE, xml=xml)
    assert date.encode() in xml
    assert findings_of(expected, healthy(expected)) == ()


@pytest.mark.parametrize("swapped", [False, True])
def test_two_front_images_of_equal_ordering_may_be_listed_either_way_round(swapped):
    first, second = (
        replace(artwork, types=("Front",), front=is_front, back=False, ordering=1)
        for artwork, is_front in zip(RELEASE.artwork, (True, False), strict=True)
    )
    expected = replace(RELEASE, artwork=(first, second))
    listed = (replace(second, front=True), replace(first, front=False))
    item = healthy(replace(expected, artwork=listed) if swapped else expected)
    item.originals["index.json"] += b" "
    assert findings_of(expected, item) == ()


def test_of_two_front_images_of_equal_ordering_one_is_the_front():
    first, second = (
        replace(artwork, types=("Front",), front=is_front, back=False, ordering=1)
        for artwork, is_front in zip(RELEASE.artwork, (True, False), strict=True)
    )
    item = healthy(replace(RELEASE, artwork=(first, replace(second, front=True))))
    found = summary(findings_of(replace(RELEASE, artwork=(first, second)), item))
    assert found == [("index.image.value", "major", f"{BACK} front")]


@pytest.mark.parametrize("presence", ORPHANS)
@pytest.mark.parametrize("state", [ItemState.ABSENT, ItemState.DARK])
def test_nothing_is_found_of_an_orphan_whose_item_shows_nothing(presence, state):
    assert compare(orphan(RELEASE, presence), Actual(Item(RELEASE_GID, state))) == ()


class TestForeignImages:
    def test_those_of_a_live_entity_are_all_but_its_own(self):
        item = healthy(RELEASE)
        item.add_image(FOREIGN, "png")
        [image] = foreign_images(RELEASE, item.actual(RELEASE).item)
        assert (image.artwork_id, image.suffix) == (FOREIGN, "png")
        assert image.name == image_name(RELEASE_GID, FOREIGN, "png")

    def test_those_of_an_orphan_are_all(self):
        images = foreign_images(
            replace(RELEASE, presence=Presence.MERGED), healthy(RELEASE).actual(RELEASE).item
        )
        assert [image.artwork_id for image in images] == [FRONT, BACK]

    def test_the_findings_carry_them_for_the_decision(self):
        item = healthy(RELEASE)
        item.add_image(FOREIGN, "png")
        images = foreign_images(RELEASE, item.actual(RELEASE).item)
        assert tuple(each.image for each in findings_of(RELEASE, item)) == images


@pytest.mark.parametrize("expected", BOTH, ids=lambda e: e.entity_type)
class TestWhatHasToBeRead:
    def test_nothing_of_a_clean_item(self, expected):
        assert downloads_needed(expected, healthy(expected).actual(expected).item) == ()

    def test_what_differs_by_md5(self, expected):
        item = healthy(expected)
        item.originals["index.json"] += b" "
        item.originals[xml_name(expected.gid)] += b" "
        parsed = classify(item.document(), expected.gid)
        assert downloads_needed(expected, parsed) == ("index.json", xml_name(expected.gid))

    def test_what_is_listed_without_md5_and_size(self, expected):
        document = healthy(expected).document()
        for file in document["files"]:
            file.pop("md5", None)
            file.pop("size", None)
        parsed = classify(document, expected.gid)
        assert downloads_needed(expected, parsed) == ("index.json", xml_name(expected.gid))

    def test_nothing_over_the_size_limit(self, expected):
        item = healthy(expected)
        item.originals["index.json"] += b" "
        item.sizes = {"index.json": INDEX_MAX_BYTES + 1, xml_name(item.gid): XML_MAX_BYTES + 1}
        assert downloads_needed(expected, classify(item.document(), expected.gid)) == ()

    def test_a_file_may_have_just_the_size_limit(self, expected):
        item = healthy(expected)
        item.originals["index.json"] += b" "
        item.sizes = {"index.json": INDEX_MAX_BYTES}
        parsed = classify(item.document(), expected.gid)
        assert downloads_needed(expected, parsed) == ("index.json",)

    def test_the_index_of_an_entity_without_art_but_never_its_xml(self, expected):
        item = healthy(expected)
        item.originals[xml_name(expected.gid)] += b" "
        bare = replace(expected, artwork=())
        parsed = classify(item.document(), expected.gid)
        assert downloads_needed(bare, parsed) == ("index.json",)

    def test_the_web_service_is_asked_about_art_in_a_visible_item(self, expected):
        present = classify(healthy(expected).document(), expected.gid)
        assert needs_xml(expected, present)
        assert not needs_xml(without_art(expected), present)
        assert not needs_xml(replace(expected, presence=Presence.MERGED), present)
        for state in (ItemState.ABSENT, ItemState.DARK):
            assert not needs_xml(expected, Item(expected.gid, state))

    def test_what_was_not_read_is_never_taken_for_missing(self, expected):
        item = healthy(expected)
        item.originals["index.json"] += b" "
        item.originals[xml_name(expected.gid)] += b" "
        actual = item.actual(expected)
        with pytest.raises(ValueError, match=r"index\.json"):
            compare(expected, replace(actual, index=None))
        with pytest.raises(ValueError, match=r"mb_metadata\.xml"):
            compare(expected, replace(actual, xml=None))
        with pytest.raises(ValueError, match="web service"):
            compare(replace(expected, xml=None), actual)

    def test_content_over_the_size_limit_is_not_parsed(self, expected):
        item = healthy(expected)
        item.originals["index.json"] = b"[" * (INDEX_MAX_BYTES + 1)
        item.sizes = {"index.json": 1}
        assert summary(findings_of(expected, item)) == [
            ("index.malformed", "critical", "index.json")
        ]


@pytest.mark.parametrize(
    "xml",
    [b"", b"<html/>", (SAMPLES / "musicbrainz-event.xml").read_bytes()],
    ids=["empty", "HTML", "another entity"],
)
def test_an_expected_xml_that_is_not_about_the_entity_stops_the_audit(xml):
    with pytest.raises(UnreadableXml):
        compare(replace(RELEASE, xml=xml), healthy(RELEASE).actual(RELEASE))


def test_an_expected_xml_about_the_target_of_a_merge_names_the_target():
    xml = (RELEASE.xml or b"").replace(RELEASE_GID.encode(), OTHER_GID.encode())
    with pytest.raises(UnreadableXml, match=OTHER_GID):
        compare(replace(RELEASE, xml=xml), healthy(RELEASE).actual(RELEASE))


def test_one_file_can_add_only_so_many_findings_and_the_gravest_counts():
    item = healthy(RELEASE)
    item.edit_index(lambda d: d.update({f"key {number}": 1 for number in range(60)}, images={}))
    findings = findings_of(RELEASE, item)
    assert len(findings) == 51
    assert findings[-1].subject == "(11 more)"
    assert findings[-1].severity is Severity.CRITICAL


def test_reviews_are_never_cut_short():
    artwork = tuple(replace(RELEASE.artwork[0], id=number) for number in range(1, 81))
    expected = replace(RELEASE, artwork=artwork)
    item = healthy(expected)
    item.remove(*[image_name(RELEASE_GID, each.id, each.suffix) for each in artwork])
    assert len(findings_of(expected, item)) == 80


def test_every_check_of_the_catalogue_can_be_found_and_no_other():
    emitted = {"item.missing", "item.dark"}  # in TestItemStates
    emitted |= {"item.archive"}  # in a test of its own
    for expected in BOTH:
        emitted |= {check for _, _, found in FOR_BOTH for check, _, _ in found(expected)}
        emitted |= {check for _, _, found in WITHOUT_ART for check, _, _ in found(expected)}
    emitted |= {check for _, _, found in FOR_RELEASES for check, _, _ in found}
    emitted |= {check for _, _, found in LEFT_BEHIND for check, _, _ in found(EVENT_GID)}
    emitted |= {check for _, _, found in INDEX_EDITS for check, _, _ in found}
    assert emitted == set(CHECKS)
