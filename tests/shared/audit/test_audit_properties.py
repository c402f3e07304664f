"""What holds for any input: nothing crashes an audit, and equal states never lead to an event."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from artwork_backfill.shared.audit.actual import CopyState, Item, ItemState, classify
from artwork_backfill.shared.audit.archives import (
    EntityType,
    image_name,
    item_name,
    thumbnail_name,
    xml_name,
)
from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.audit.compare import compare, downloads_needed, foreign_images
from artwork_backfill.shared.audit.decide import (
    Decision,
    ImageOwner,
    Policy,
    PreviousAudits,
    Status,
    decide,
)
from artwork_backfill.shared.audit.expected import Artwork, Expected, Presence
from artwork_backfill.shared.audit.finding import Finding
from tests.shared.audit.audit_states import (
    BOTH,
    EVENT_GID,
    OTHER_GID,
    RELEASE,
    RELEASE_GID,
    FakeItem,
    healthy,
    is_storable,
)

any_text = st.text(st.characters(exclude_categories=()), max_size=20)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
artwork_ids = st.integers(min_value=1, max_value=2**63 - 1)
known_ids = st.sampled_from([artwork.id for artwork in RELEASE.artwork])
suffixes = st.sampled_from(["jpg", "png", "gif", "pdf"])
presences = st.sampled_from(Presence)
entities = st.sampled_from(BOTH)


@st.composite
def live_entities(draw: st.DrawFn) -> Expected:
    """A live entity of any listing that the database can hold, with its own sample XML."""
    expected = draw(entities)
    is_release = expected.entity_type is EntityType.RELEASE
    rows = draw(st.dictionaries(artwork_ids, suffixes, max_size=5))
    artwork = tuple(
        Artwork(
            artwork_id,
            suffix,
            tuple(draw(st.lists(st.sampled_from(["Front", "Back", "Poster", "雑"]), unique=True))),
            draw(st.booleans()),
            draw(st.booleans()) if is_release else None,
            draw(any_text),
            draw(st.booleans()),
            draw(st.integers(min_value=1, max_value=2**31)),
        )
        for artwork_id, suffix in rows.items()
    )
    return replace(expected, artwork=artwork)


def check_findings(expected: Expected, item: Item, findings: tuple[Finding, ...]) -> Decision:
    """What must hold of any findings, and the decision about them."""
    for finding in findings:
        assert CHECKS[finding.check].applies in ("any", "live" if expected.is_live else "orphan")
        assert all(map(is_storable, finding.to_json().values()))
    owners = {
        image: ImageOwner(None if image.artwork_id is None else OTHER_GID, CopyState.SAME)
        for image in foreign_images(expected, item)
    }
    decision = decide(expected, findings, owners, PreviousAudits(), Policy())
    assert bool(decision.events) == (decision.status is Status.REPAIR_QUEUE)
    assert bool(decision.causes) == bool(decision.events)
    assert bool(decision.review_reasons) == (decision.status is Status.MANUAL_REVIEW)
    for position, event in enumerate(decision.events):
        assert all(earlier < position for earlier in event.depends_on)
    return decision


def audit(expected: Expected, item: FakeItem) -> Decision:
    actual = item.actual(expected)
    return check_findings(expected, actual.item, compare(expected, actual))


@given(live_entities())
def test_equal_states_are_clean_and_need_no_download(expected):
    item = healthy(expected)
    assert downloads_needed(expected, item.actual(expected).item) == ()
    assert audit(expected, item) == Decision(Status.CLEAN)


@given(live_entities(), st.randoms(use_true_random=False))
def test_equal_states_in_other_bytes_are_clean(expected, random):
    item = healthy(expected)
    document = json.loads(item.originals["index.json"])
    for image in document["images"]:
        random.shuffle(image["types"])
    item.originals["index.json"] = json.dumps(document, indent=1).encode()
    item.edit_xml("><", ">\n<")
    assert audit(expected, item) == Decision(Status.CLEAN)


@given(entities, presences, st.binary(max_size=200))
def test_any_bytes_may_stand_in_the_files(expected, presence, content):
    item = healthy(expected)
    item.originals["index.json"] = content
    item.originals[xml_name(expected.gid)] = content
    audit(replace(expected, presence=presence), item)


@given(entities, any_json)
def test_any_json_may_stand_in_the_index(expected, document):
    item = healthy(expected)
    item.originals["index.json"] = json.dumps(document).encode()
    audit(expected, item)


index_keys = st.sampled_from(["images", "release", "event"])
image_keys = st.sampled_from(
    ["id", "types", "front", "back", "comment", "image", "thumbnails", "approved", "edit"]
)


@given(entities, index_keys, any_json)
def test_any_value_may_stand_under_a_key_of_the_index(expected, key, value):
    item = healthy(expected)
    item.edit_index(lambda document: document.update({key: value}))
    audit(expected, item)


@given(entities, st.dictionaries(image_keys, any_json | known_ids, min_size=1), st.booleans())
def test_any_value_may_stand_under_a_key_of_an_image(expected, values, twice):
    item = healthy(expected)
    item.edit_image(lambda image: image.update(values))
    if twice:
        item.edit_index(lambda document: document["images"].append(values))
    audit(expected, item)


tags = st.sampled_from(
    ["release", "event", "title", "name", "artist-credit", "artist", "date", "x"]
)


@st.composite
def elements(draw: st.DrawFn, depth: int = 3) -> str:
    tag = draw(tags)
    attribute = draw(st.sampled_from(["", ' id="1"', f' id="{RELEASE_GID}"', ' xmlns="urn:x"']))
    inner = draw(st.sampled_from(["", "text", "&amp;", "<![CDATA[x]]>"]))
    children = draw(st.lists(elements(depth - 1), max_size=3)) if depth else []
    return f"<{tag}{attribute}>{inner}{''.join(children)}</{tag}>"


@given(entities, elements())
def test_any_element_may_stand_in_the_xml(expected, element):
    item = healthy(expected)
    item.edit_xml("</metadata>", f"{element}</metadata>")
    audit(expected, item)
    item = healthy(expected)
    tag = expected.entity_type.value
    item.edit_xml(f"</{tag}>", f"{element}</{tag}>")
    audit(expected, item)


names = st.one_of(
    any_text.filter(bool),
    st.sampled_from(["index.json", xml_name(RELEASE_GID), "__ia_thumb.jpg"]),
    st.builds(image_name, st.sampled_from([RELEASE_GID, OTHER_GID]), artwork_ids, suffixes),
    st.builds(image_name, st.just(RELEASE_GID), known_ids, suffixes),
    st.builds(thumbnail_name, st.just(RELEASE_GID), known_ids, st.sampled_from([250, 500])),
)
file_fields = st.fixed_dictionaries(
    {"name": names, "source": st.sampled_from(["original", "derivative", "metadata", "?"])},
    optional={"md5": any_json, "size": any_json, "original": any_json, "old_version": any_json},
)


listings = st.lists(file_fields, max_size=12, unique_by=lambda file: file["name"])


@given(presences, st.booleans(), listings, any_json)
def test_any_listing_may_be_met(presence, has_art, files, value):
    expected = replace(RELEASE, presence=presence, artwork=RELEASE.artwork if has_art else ())
    own = [
        {"name": f"{item_name(RELEASE_GID)}{tail}", "source": "original"}
        for tail in ("_meta.xml", "_files.xml")
    ]
    metadata = {
        "identifier": item_name(RELEASE_GID),
        "collection": value,
        "title": value,
        "creator": value,
        "external-identifier": value,
    }
    item = classify({"files": [*files, *own], "metadata": metadata}, RELEASE_GID)
    assert item.state is ItemState.LISTED
    fake = FakeItem(RELEASE_GID)
    needed = downloads_needed(expected, item)
    fake.originals = dict.fromkeys(needed, b"{}")
    actual = replace(
        healthy(RELEASE).actual(RELEASE),
        item=item,
        index=b"{}" if "index.json" in needed else None,
        xml=b"<a/>" if xml_name(RELEASE_GID) in needed else None,
    )
    check_findings(expected, item, compare(expected, actual))


document_keys = st.sampled_from(
    ["files", "metadata", "is_dark", "error", "d1", "dir", "pending_tasks", "item_last_updated"]
)


@given(any_json | st.dictionaries(document_keys, any_json), st.booleans())
def test_any_answer_has_a_class(document, is_named):
    if is_named and isinstance(document, dict):
        document = {"metadata": {"identifier": item_name(EVENT_GID)}, **document}
    item = classify(document, EVENT_GID)
    if item.state is ItemState.ABSENT:
        assert document in ({}, [])
    assert bool(item.files) <= (item.state is ItemState.LISTED)
