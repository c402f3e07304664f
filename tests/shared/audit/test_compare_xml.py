"""What counts as a difference between two answers of the web service, as a table of edits."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.compare_xml import UnreadableXml, compare_xml, parse_entity_xml
from artwork_backfill.shared.audit.expected import Expected
from tests.shared.audit.audit_states import EVENT, EVENT_GID, OTHER_GID, RELEASE, RELEASE_GID

RELEASE_XML = (RELEASE.xml or b"").decode()
EVENT_XML = (EVENT.xml or b"").decode()
CREDIT = "release/artist-credit/name-credit"
NS = "http://musicbrainz.org/ns/mmd-2.0#"


def differences(expected: Expected, *edits: tuple[str, str]) -> list[tuple[str, str]]:
    """Check and path of what differs after the edits of the archived file."""
    text = (expected.xml or b"").decode()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    archived = parse_entity_xml(text.encode(), expected.entity_type, expected.gid)
    wanted = parse_entity_xml(expected.xml or b"", expected.entity_type, expected.gid)
    return [(each.check, each.subject) for each in compare_xml(wanted, archived)]


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("<title>Ruined Subjects<", "<title>Ruined<", "release/title"),
        ("<title>Ruined Subjects</title>", "", "release/title"),
        ("<title>", "<title>Another</title><title>", "release/title"),
        ("<name>Friends<", "<name>Foes<", f"{CREDIT}/name"),
        ("<name>The Friends<", "<name>The Foes<", f"{CREDIT}/artist/name"),
        ("<sort-name>Bruce, JT<", "<sort-name>JT<", f"{CREDIT}/artist/sort-name"),
        (
            "fbb941cc-6891-4c8f-8697-1e464aaa8c78",
            "00000000-6891-4c8f-8697-1e464aaa8c78",
            f"{CREDIT}/artist/@id",
        ),
        ("</artist-credit><date>2011-08-09", "</artist-credit><date>2012", "release/date"),
        (">eng<", ">deu<", "release/text-representation/language"),
        ("<language>eng</language>", "", "release/text-representation/language"),
        ("<barcode>859705506019<", "<barcode><", "release/barcode"),
        ("<barcode>859705506019</barcode>", "", "release/barcode"),
        ("<asin>B005GXO1GU</asin>", "", "release/asin"),
    ],
)
def test_what_archive_org_shows_of_a_release_is_a_field(old, new, path):
    assert differences(RELEASE, (old, new)) == [("xml.field", path)]


def test_the_name_of_an_event_is_a_field():
    edit = ("<name>1987-06-07: Rock am Ring", "<name>Rock am Ring")
    assert differences(EVENT, edit) == [("xml.field", "event/name")]


def test_the_order_of_an_artist_credit_matters():
    credits_ = RELEASE_XML[
        RELEASE_XML.index("<name-credit") : RELEASE_XML.index("</artist-credit>")
    ]
    first, second = credits_.split("</name-credit>")[:2]
    swapped = f"{second}</name-credit>{first}</name-credit>"
    found = differences(RELEASE, (credits_, swapped))
    assert found == [
        ("xml.field", f"{CREDIT}/{path}")
        for path in ("name", "artist/name", "artist/sort-name", "artist/@id")
    ]


def test_a_credit_without_a_name_stands_for_the_artists_own():
    own_name = ('<name-credit joinphrase=" &amp; "><name>JT Bruce</name>', "<name-credit>")
    assert differences(RELEASE, own_name) == [("xml.other", f"{CREDIT}/@joinphrase")]


@pytest.mark.parametrize(
    ("expected", "old", "new", "path"),
    [
        (RELEASE, ">Official<", ">Promotion<", "release/status"),
        (RELEASE, '<status id="4e', '<status id="5e', "release/status/@id"),
        (RELEASE, "<quality>normal</quality>", "", "release/quality"),
        (
            RELEASE,
            "<quality>",
            "<disambiguation>x</disambiguation><quality>",
            "release/disambiguation",
        ),
        (RELEASE, "<script>Latn<", "<script>Cyrl<", "release/text-representation/script"),
        (RELEASE, 'joinphrase=" &amp; "', 'joinphrase=" x "', f"{CREDIT}/@joinphrase"),
        (
            RELEASE,
            "<release-event><date>2011-08-09<",
            "<release-event><date>2011<",
            "release/release-event-list/release-event/date",
        ),
        (RELEASE, "<count>2<", "<count>3<", "release/cover-art-archive/count"),
        (RELEASE, "<metadata ", '<metadata created="x" ', "@created"),
        (RELEASE, "</release>", "</release><release-list/>", "release-list"),
        (RELEASE, "</asin>", '</asin><x xmlns="urn:x"/>', "release/{urn:x}x"),
        (EVENT, '<event type="Concert"', '<event type="Festival"', "event/@type"),
        (EVENT, "<end>1987-06-07<", "<end>1987-06-08<", "event/life-span/end"),
        (
            EVENT,
            "<name>Nürburgring<",
            "<name>Ring<",
            "event/relation-list/relation/place/name",
        ),
    ],
)
def test_anything_else_is_recorded_only(expected, old, new, path):
    assert differences(expected, (old, new)) == [("xml.other", path)]


@pytest.mark.parametrize(
    ("expected", "edits"),
    [
        (RELEASE, [("><", ">\n  <")]),
        (RELEASE, [("<title>Ruined Subjects<", "<title>\n Ruined Subjects\n <")]),
        (RELEASE, [("<title>", "<!-- a comment --><?and an instruction?><title>")]),
        (RELEASE, [("<title>Ruined Subjects<", "<title><![CDATA[Ruined]]> &#83;ubjects<")]),
        (RELEASE, [(f'<release id="{RELEASE_GID}"', f"<release id='{RELEASE_GID}'")]),
        (RELEASE, [('<?xml version="1.0" encoding="UTF-8"?>\n', "")]),
        (EVENT, [(f'type="Concert" id="{EVENT_GID}"', f'id="{EVENT_GID}" type="Concert"')]),
        (
            EVENT,
            [
                ("<metadata xmlns=", "<m:metadata xmlns:m="),
                ("</metadata>", "</m:metadata>"),
                ("<event ", f'<event xmlns="{NS}" '),
            ],
        ),
        (
            RELEASE,
            [
                ("<quality>normal</quality>", ""),
                ("</asin>", "</asin><quality>normal</quality>"),
            ],
        ),
    ],
    ids=[
        "white space between elements",
        "white space around a text",
        "comments and instructions",
        "CDATA and character references",
        "quotes",
        "no XML declaration",
        "order of attributes",
        "a namespace prefix",
        "order of elements",
    ],
)
def test_what_means_nothing_is_no_difference(expected, edits):
    assert differences(expected, *edits) == []


def test_the_order_of_an_unordered_list_means_nothing():
    place = EVENT_XML[EVENT_XML.index("<relation-list") : EVENT_XML.index("</event>")]
    artist = '<relation-list target-type="artist"><relation type="x"/></relation-list>'
    wanted = EVENT_XML.replace(place, place + artist)
    archived = EVENT_XML.replace(place, artist + place)
    parsed = [
        parse_entity_xml(text.encode(), EntityType.EVENT, EVENT_GID) for text in (wanted, archived)
    ]
    assert parsed[0] != parsed[1]
    assert list(compare_xml(*parsed)) == []


def test_a_difference_shows_both_values():
    wanted = parse_entity_xml(RELEASE_XML.encode(), EntityType.RELEASE, RELEASE_GID)
    archived = parse_entity_xml(
        RELEASE_XML.replace("The Friends", "x").replace("<asin>B005GXO1GU</asin>", "").encode(),
        EntityType.RELEASE,
        RELEASE_GID,
    )
    assert [(each.expected, each.actual) for each in compare_xml(wanted, archived)] == [
        ("JT Bruce; The Friends", "JT Bruce; x"),
        ("B005GXO1GU", None),
    ]


BOMB = (
    '<!DOCTYPE metadata [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    f'<metadata xmlns="{NS}"><release id="{RELEASE_GID}"><title>&b;</title></release></metadata>'
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not well-formed"),
        (b"\x00", "not well-formed"),
        (b'{"images": []}', "not well-formed"),
        (RELEASE_XML.encode()[:-20], "not well-formed"),
        (RELEASE_XML.encode("latin-1", "replace") + b"\xff", "not well-formed"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "not well-formed"),
        (b'<?xml version="1.0" encoding="utf-7"?><a/>', "not well-formed"),
        (BOMB.encode(), "declares a document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "declares a document type"),
        (b"<html/>", "no release element"),
        (RELEASE_XML.replace("mmd-2.0", "mmd-1.0").encode(), "no release element"),
        (
            RELEASE_XML.replace("<metadata", "<m").replace("</metadata", "</m").encode(),
            "no release",
        ),
        (f'<metadata xmlns="{NS}"/>'.encode(), "no release element"),
        (EVENT_XML.encode(), "no release element"),
        (f'<metadata xmlns="{NS}"><release/></metadata>'.encode(), "about another release"),
        (RELEASE_XML.replace(RELEASE_GID, OTHER_GID).encode(), f"about another .*{OTHER_GID}"),
        (
            RELEASE_XML.replace("</asin>", "</asin>" + "<a>" * 20_000 + "</a>" * 20_000).encode(),
            "nested too deeply",
        ),
    ],
)
def test_what_is_no_answer_about_this_entity_is_refused(content, reason):
    with pytest.raises(UnreadableXml, match=reason):
        parse_entity_xml(content, EntityType.RELEASE, RELEASE_GID)


HEAD = f'<metadata xmlns="{NS}"><release id="{RELEASE_GID}">'
TAIL = "</release></metadata>"
MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (HEAD + "<a/>" * (MEBIBYTE // 4) + TAIL, "more elements"),
        (HEAD + "".join(f"<a{n}/>" for n in range(2_000)) + TAIL, "more kinds of elements"),
        (HEAD + "<a" + "".join(f" a{n}='x'" for n in range(2_000)) + "/>" + TAIL, "more kinds"),
        (HEAD + "<a>" * (MEBIBYTE // 3), "nested too deeply"),
        (HEAD + f"<{'x' * 100_000}>" + "<a/>" * 10_000, "nested too deeply"),
        (HEAD + ("<b>" * 30 + "</b>" * 30) * 10_000 + TAIL, "more elements"),
    ],
    ids=["many elements", "many names", "many attributes", "depth", "a long name", "bushes"],
)
def test_xml_that_no_service_sends_takes_neither_memory_nor_time(content, reason):
    data = content.encode()
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(UnreadableXml, match=reason):
            parse_entity_xml(data, EntityType.RELEASE, RELEASE_GID)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * MEBIBYTE
    assert time.process_time() - began < 20


@given(st.integers(1, 60), st.integers(1, 200))
def test_what_is_kept_of_xml_is_in_proportion_to_it(depth, width):
    """Paths grew with the square of the depth."""
    tree = "<bush>" * depth + "<leaf>x</leaf>" * width + "</bush>" * depth
    data = (HEAD + tree * 20 + TAIL).encode()
    parsed = parse_entity_xml(data, EntityType.RELEASE, RELEASE_GID)
    kept = sum(len(path) + sum(map(len, texts)) for path, texts in parsed.texts.items())
    assert kept < 2 * len(data)
