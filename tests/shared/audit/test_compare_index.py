"""Differences inside an index.json, as a table: one edit of a clean file, and what it shows as."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from artwork_backfill.shared.audit.compare_index import MalformedIndex, parse_index
from tests.shared.audit.audit_states import (
    BACK,
    BOTH,
    EVENT,
    FOREIGN,
    FRONT,
    OTHER_GID,
    RELEASE,
    RELEASE_GID,
    findings_of,
    healthy,
    is_storable,
    summary,
)

Edit = Callable[[dict[str, Any]], object]

CAA = f"https://coverartarchive.org/release/{RELEASE_GID}"


def image(edit: Edit) -> Edit:
    """An edit of the front image."""
    return lambda document: edit(document["images"][0])


def thumbnails(edit: Edit) -> Edit:
    return image(lambda front: edit(front["thumbnails"]))


def value(key: str, new: object) -> Edit:
    return image(lambda front: front.update({key: new}))


def insecure(front: dict[str, Any]) -> None:
    front["image"] = front["image"].replace("https:", "http:")


INDEX_EDITS: list[tuple[str, Edit, list[tuple[str, str, str]]]] = [
    # The whole
    ("an unknown key", lambda d: d.update(x=1), [("index.shape", "major", "x")]),
    ("an event's key", lambda d: d.update(event=1), [("index.shape", "major", "event")]),
    ("no entity URL", lambda d: d.pop("release"), [("index.shape", "major", "release")]),
    ("no images", lambda d: d.pop("images"), [("index.shape", "critical", "images")]),
    (
        "images as an object",
        lambda d: d.update(images={}),
        [("index.shape", "critical", "images")],
    ),
    (
        "an image as a list",
        lambda d: d["images"].insert(1, []),
        [("index.shape", "major", "images[1]")],
    ),
    (
        "thumbnails as a list",
        value("thumbnails", []),
        [("index.shape", "major", f"{FRONT} thumbnails")],
    ),
    (
        "entity URL with http",
        lambda d: d.update(release=f"http://musicbrainz.org/release/{RELEASE_GID}"),
        [("index.entity_url", "minor", "")],
    ),
    (
        "another entity's URL",
        lambda d: d.update(release=f"https://musicbrainz.org/release/{OTHER_GID}"),
        [("index.entity_url", "major", "")],
    ),
    (
        "another entity's URL with http",
        lambda d: d.update(release=f"http://musicbrainz.org/release/{OTHER_GID}"),
        [("index.entity_url", "major", "")],
    ),
    ("entity URL null", lambda d: d.update(release=None), [("index.entity_url", "major", "")]),
    # Which images
    (
        "an image not listed",
        lambda d: d["images"].pop(0),
        [("index.image.missing", "critical", str(FRONT))],
    ),
    (
        "no image listed",
        lambda d: d["images"].clear(),
        [
            ("index.image.missing", "critical", str(FRONT)),
            ("index.image.missing", "critical", str(BACK)),
        ],
    ),
    (
        "a foreign image",
        lambda d: d["images"].append({**d["images"][0], "id": FOREIGN}),
        [("index.image.extra", "major", str(FOREIGN))],
    ),
    (
        "a foreign image listed twice",
        lambda d: d["images"].extend([{"id": FOREIGN}, {"id": str(FOREIGN)}]),
        [
            ("index.image.duplicate", "major", str(FOREIGN)),
            ("index.image.extra", "major", str(FOREIGN)),
        ],
    ),
    (
        "images that nothing identifies",
        lambda d: d["images"].extend([{}, {"id": None, "image": "x"}, {"id": True, "image": 1}]),
        [("index.image.extra", "major", f"images[{n}]") for n in (2, 3, 4)],
    ),
    (
        "an image listed three times",
        lambda d: d["images"].extend([d["images"][0], d["images"][0]]),
        [("index.image.duplicate", "major", str(FRONT))],
    ),
    (
        "the images in another order",
        lambda d: d["images"].reverse(),
        [("index.image.order", "major", "")],
    ),
    (
        "a foreign image does not disturb the order",
        lambda d: d["images"].insert(0, {"id": FOREIGN}),
        [("index.image.extra", "major", str(FOREIGN))],
    ),
    # Which keys
    (
        "a key gone",
        image(lambda front: front.pop("comment")),
        [("index.image.field_missing", "major", f"{FRONT} comment")],
    ),
    (
        "no id, but a URL that tells it",
        image(lambda front: front.pop("id")),
        [("index.image.field_missing", "major", f"{FRONT} id")],
    ),
    (
        "no thumbnails",
        image(lambda front: front.pop("thumbnails")),
        [("index.image.field_missing", "major", f"{FRONT} thumbnails")],
    ),
    (
        "thumbnails of today's sizes gone",
        thumbnails(lambda urls: [urls.pop(size) for size in ("250", "500", "1200")]),
        [("index.image.field_missing", "major", f"{FRONT} thumbnails")],
    ),
    (
        "an unknown key of an image",
        value("rating", 5),
        [("index.image.field_unexpected", "major", f"{FRONT} rating")],
    ),
    (
        "an unknown size",
        thumbnails(lambda urls: urls.update(huge="x")),
        [("index.image.field_unexpected", "major", f"{FRONT} thumbnails")],
    ),
    # Right values in wrong types
    *[
        (f"{key} as {new!r}", value(key, new), [("index.image.type", "major", f"{FRONT} {key}")])
        for key, new in [
            ("id", str(FRONT)),
            ("id", float(FRONT)),
            ("edit", "87832752"),
            ("edit", 87832752.0),
            ("front", "true"),
            ("front", "True"),
            ("front", 1),
            ("back", 0),
            ("back", "false"),
            ("approved", 1),
            ("comment", None),
            ("comment", []),
            ("types", "Front"),
        ]
    ],
    # Wrong values
    *[
        (f"{key} = {new!r}", value(key, new), [("index.image.value", "major", f"{FRONT} {key}")])
        for key, new in [
            ("id", "x"),
            ("id", None),
            ("edit", 1),
            ("edit", "1"),
            ("edit", True),
            ("edit", None),
            ("front", False),
            ("front", "false"),
            ("front", None),
            ("back", True),
            ("back", 2),
            ("approved", False),
            ("comment", "x"),
            ("comment", 1),
            ("types", []),
            ("types", None),
            ("types", "Back"),
            ("types", ["front"]),
            ("types", ["Front", "Back"]),
            ("types", ["Front", 1]),
            ("types", [["Front"]]),
            ("types", {"Front": 1}),
        ]
    ],
    # URLs
    ("image with http", image(insecure), [("index.image.url", "minor", f"{FRONT} image")]),
    *[
        (
            f"image at {url!r}",
            value("image", url),
            [("index.image.url", "major", f"{FRONT} image")],
        )
        for url in [
            f"{CAA}/{BACK}.jpg",
            f"{CAA}/{FRONT}.png",
            f"http://archive.org/download/mbid-{RELEASE_GID}/x.jpg",
            f"//coverartarchive.org/release/{RELEASE_GID}/{FRONT}.jpg",
            None,
            {},
            "",
        ]
    ],
    (
        "an id that is a float, and a URL that tells nothing",
        image(lambda front: front.update(id=float(FRONT), image="x")),
        [
            ("index.image.type", "major", f"{FRONT} id"),
            ("index.image.url", "major", f"{FRONT} image"),
        ],
    ),
    (
        "a thumbnail with http",
        thumbnails(lambda urls: urls.update(small=f"http{CAA[5:]}/{FRONT}-250.jpg")),
        [("index.image.url", "minor", f"{FRONT} thumbnails")],
    ),
    (
        "one thumbnail with http, another elsewhere",
        thumbnails(lambda urls: urls.update({"250": f"http{CAA[5:]}/{FRONT}-250.jpg", "500": "x"})),
        [("index.image.url", "major", f"{FRONT} thumbnails")],
    ),
    (
        "a thumbnail null",
        thumbnails(lambda urls: urls.update({"250": None})),
        [("index.image.url", "major", f"{FRONT} thumbnails")],
    ),
    # Meaning nothing
    ("types in another order", lambda d: d["images"][1]["types"].reverse(), []),
    ("a type twice", lambda d: d["images"][1]["types"].append("Spine"), []),
]


@pytest.mark.parametrize(
    ("edit", "found"), [case[1:] for case in INDEX_EDITS], ids=[case[0] for case in INDEX_EDITS]
)
def test_an_edit_of_a_clean_index(edit, found):
    item = healthy(RELEASE)
    item.edit_index(edit)
    assert summary(findings_of(RELEASE, item)) == sorted(found)


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (
            lambda d: d["images"][0].update(back=False),
            [("index.image.field_unexpected", "major", f"{FRONT} back")],
        ),
        (lambda d: d.update(release="x"), [("index.shape", "major", "release")]),
        (lambda d: d.pop("event"), [("index.shape", "major", "event")]),
        (
            lambda d: d.update(event=d["event"].replace("https", "http")),
            [("index.entity_url", "minor", "")],
        ),
        (
            lambda d: d["images"][1].update(types=None),
            [("index.image.type", "major", f"{BACK} types")],
        ),
        (
            lambda d: d["images"][0].update(comment="crowd"),
            [("index.image.value", "major", f"{FRONT} comment")],
        ),
        (
            lambda d: d["images"][0].update(image=d["images"][0]["image"].replace("event", "x")),
            [("index.image.url", "major", f"{FRONT} image")],
        ),
    ],
)
def test_an_edit_of_a_clean_index_of_an_event(edit, found):
    item = healthy(EVENT)
    item.edit_index(edit)
    assert summary(findings_of(EVENT, item)) == found


@pytest.mark.parametrize("expected", BOTH, ids=lambda e: e.entity_type)
@pytest.mark.parametrize(
    "form",
    [
        lambda d: json.dumps(d, indent=2),
        lambda d: json.dumps(dict(reversed(d.items()))),
        lambda d: f" {json.dumps(d)}\n",
    ],
    ids=["indented", "keys in another order", "white space around it"],
)
def test_the_same_listing_in_other_bytes_is_no_difference(expected, form):
    item = healthy(expected)
    before = item.originals["index.json"]
    item.originals["index.json"] = form(json.loads(before)).encode()
    assert item.originals["index.json"] != before
    assert findings_of(expected, item) == ()


def test_a_comment_need_not_be_escaped():
    item = healthy(EVENT)
    text = item.originals["index.json"].decode().replace(r"\u2728", "✨")
    item.originals["index.json"] = text.encode()
    assert not text.isascii()
    assert findings_of(EVENT, item) == ()


def test_a_number_beyond_all_bounds_is_a_wrong_value():
    item = healthy(RELEASE)
    text = item.originals["index.json"].decode()
    item.originals["index.json"] = text.replace('"edit": 87832752', '"edit": 1e999', 1).encode()
    assert summary(findings_of(RELEASE, item)) == [("index.image.value", "major", f"{FRONT} edit")]


def test_images_that_share_a_position_stand_in_any_order():
    first, second = RELEASE.artwork
    item = healthy(RELEASE)
    item.edit_index(lambda document: document["images"].reverse())
    for ordering, found in [((1, 1), []), ((1, 2), [("index.image.order", "major", "")])]:
        artwork = (replace(first, ordering=ordering[0]), replace(second, ordering=ordering[1]))
        expected = replace(RELEASE, artwork=artwork)
        assert summary(findings_of(expected, item)) == found


def test_a_wrong_order_names_both_orders():
    item = healthy(RELEASE)
    item.edit_index(lambda document: document["images"].reverse())
    [finding] = findings_of(RELEASE, item)
    assert (finding.expected, finding.actual) == (f"{FRONT}, {BACK}", f"{BACK}, {FRONT}")


def test_a_wrong_type_shows_in_the_finding():
    item = healthy(RELEASE)
    item.edit_image(lambda front: front.update(id=str(FRONT)))
    [finding] = findings_of(RELEASE, item)
    assert (finding.expected, finding.actual) == (str(FRONT), f'"{FRONT}"')


def test_a_key_given_twice_is_a_fault_wherever_it_stands():
    item = healthy(RELEASE)
    text = item.originals["index.json"].decode()
    text = text.replace('"front": true', '"front": false, "front": true', 1)
    item.originals["index.json"] = text.replace('"release"', '"release": 1, "release"', 1).encode()
    # The URLs contain /release/ too, but only the key stands in quotes.
    assert summary(findings_of(RELEASE, item)) == [
        ("index.shape", "major", "front"),
        ("index.shape", "major", "release"),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"images": NaN}', "not JSON: NaN"),
        (b'{"images": -Infinity}', "not JSON: -Infinity"),
        ("\ufeff{}".encode(), "not JSON"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'{"x": "\xff"}', "not UTF-8"),
        (b'{"x": "\xed\xa0\x80"}', "not UTF-8"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b'"index"', "not an object"),
        (b'{"x":' * 100_000, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"x": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_malformed_index_says_why(content, reason):
    with pytest.raises(MalformedIndex, match=f"^{reason}"):
        parse_index(content)


@pytest.mark.parametrize(
    "content", ["\x00", "\ud800", "x" * 10_000], ids=["NUL", "lone surrogate", "very long"]
)
def test_a_finding_is_storable_whatever_the_file_holds(content):
    item = healthy(RELEASE)
    item.edit_index(lambda document: document.update({content: content}))
    item.edit_image(lambda front: front.update({content: 1, "comment": content, "id": content}))
    findings = findings_of(RELEASE, item)
    assert len(findings) == 4
    for finding in findings:
        assert all(map(is_storable, finding.to_json().values()))
