"""A screen by MusicBrainz's tables finds what the web service's XML would, where it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artwork_backfill.shared.audit.actual import Actual, classify
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.compare import compare, downloads_needed, needs_xml
from artwork_backfill.shared.audit.expected import (
    Artwork,
    Credit,
    Expected,
    PartialDate,
    Presence,
    ReleaseFacts,
)
from sandbox import entities, formats
from sandbox.items import Item

GID = "11111111-1111-4111-8111-111111111111"

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)
ARTISTS = st.builds(
    lambda number, name, sort_name, credited: entities.Artist(
        str(UUID(int=number)), name.strip() or "x", sort_name.strip() or "x", credited
    ),
    st.integers(0, 2**64),
    NAMES,
    NAMES,
    NAMES,
)
FACTS = st.builds(
    entities.Facts,
    title=NAMES.map(lambda text: text.strip() or "x"),
    artists=st.lists(ARTISTS, min_size=1, max_size=3, unique_by=lambda a: a.gid).map(tuple),
    date=st.none() | st.dates().map(str) | st.integers(1900, 2030).map(str),
    place=st.just("hall"),
    country=st.just("DE"),
    language=st.none() | st.sampled_from(["eng", "deu", "zxx"]),
    barcode=st.none() | st.integers(10**12, 10**13 - 1).map(str),
    asin=st.none() | st.integers(0, 10**9 - 1).map(lambda number: f"B{number:09}"),
    packaging=st.just("None"),
)


def _tables(facts: entities.Facts) -> ReleaseFacts:
    """What MusicBrainz's tables hold where the web service tells these facts."""
    date = () if facts.date is None else (PartialDate(*map(int, facts.date.split("-"))),)
    return ReleaseFacts(
        facts.title,
        tuple(Credit(a.gid, a.name, a.sort_name) for a in facts.artists),
        date,
        facts.language,
        facts.barcode,
        facts.asin,
    )


def _item(stale: entities.Facts) -> Item:
    """An item whose XML tells these facts, with what archive.org extracts from it."""
    item = Item(
        GID,
        {
            "collection": "coverartarchive",
            "mediatype": "image",
            "noindex": "true",
            **formats.extracted(entities.EntityType.RELEASE, GID, stale),
        },
    )
    item.add_text(formats.xml_name(GID), _xml(stale))
    item.add_image(1, "jpg")
    item.add_own_files()
    return item


def _xml(facts: entities.Facts) -> bytes:
    return formats.entity_xml(entities.EntityType.RELEASE, GID, facts, 1)


def _checks(expected: Expected, stale: entities.Facts, true: entities.Facts) -> set[str]:
    """What an audit finds in the XML and in what was extracted from it."""
    stored = _item(stale)
    document: Any = json.loads(stored.document("127.0.0.1"))
    item = classify(document, GID)
    if needs_xml(expected, item):
        expected = replace(expected, xml=_xml(true))
    wanted = downloads_needed(expected, item)
    xml = stored.content(formats.xml_name(GID)) if formats.xml_name(GID) in wanted else None
    index = b"{}" if "index.json" in wanted else None
    found = compare(expected, Actual(item, index=index, xml=xml))
    return {each.check for each in found if each.check.startswith(("xml.", "meta."))}


@given(
    true=FACTS,
    stale=FACTS,
    mix=st.sets(st.sampled_from(["title", "artists", "date", "language", "barcode", "asin"])),
)
def test_a_screen_finds_what_the_web_service_would_show(
    true: entities.Facts, stale: entities.Facts, mix: set[str]
) -> None:
    stale = replace(true, **{name: getattr(stale, name) for name in mix})
    exact = Expected(EntityType.RELEASE, GID, Presence.LIVE, artwork=(ARTWORK,))
    screen = replace(exact, facts=_tables(true))

    found = _checks(exact, stale, true)
    screened = _checks(screen, stale, true)

    # Names as credited and the order of artists are not shown by archive.org.
    is_shown = _shown(stale) != _shown(true)
    assert screened == (found if is_shown else set())
    if not is_shown:
        assert not {check for check in found if check.startswith("meta.")}


def _shown(facts: entities.Facts) -> Any:
    extracted = formats.extracted(entities.EntityType.RELEASE, GID, facts)
    return {
        key: sorted({" ".join(text.split()) for text in ([v] if isinstance(v, str) else v)})
        for key, v in extracted.items()
    }


ARTWORK = Artwork(1, "jpg", ("Front",), True, False, "", True, 1)


@pytest.mark.parametrize(
    ("dates", "text"),
    [
        ([(1999, 5, 12)], "1999-05-12"),
        ([(1999, 5, None)], "1999-05"),
        ([(1999, None, None)], "1999"),
        ([(2001, 1, 1), (1999, 5, 12)], "1999-05-12"),
        ([(None, None, None), (1999, None, None)], "1999"),
    ],
)
def test_the_earliest_date_is_expected(
    dates: list[tuple[int | None, int | None, int | None]], text: str
) -> None:
    true = replace(BASE, date=text)
    facts = replace(_tables(true), dates=tuple(PartialDate(*date) for date in dates))
    expected = Expected(EntityType.RELEASE, GID, Presence.LIVE, (ARTWORK,), facts=facts)

    assert not _asks(expected, true)


@pytest.mark.parametrize(
    "dates",
    [
        [(None, 5, 12), (1999, None, None)],
        [(1999, None, 12), (1999, 5, 12)],
        [(1999, None, None), (1999, 5, 12)],
    ],
)
def test_dates_that_cannot_be_ordered_are_left_to_the_web_service(
    dates: list[tuple[int | None, int | None, int | None]],
) -> None:
    facts = replace(_tables(BASE), dates=tuple(PartialDate(*date) for date in dates))
    expected = Expected(EntityType.RELEASE, GID, Presence.LIVE, (ARTWORK,), facts=facts)

    assert _asks(expected, replace(BASE, date="1999"))


def test_a_date_known_in_part_is_not_shown() -> None:
    facts = replace(_tables(BASE), dates=(PartialDate(None, 5, 12),))
    expected = Expected(EntityType.RELEASE, GID, Presence.LIVE, (ARTWORK,), facts=facts)

    assert not _asks(expected, replace(BASE, date="1999"))


def test_a_file_without_bytes_is_read_whatever_was_extracted() -> None:
    expected = Expected(EntityType.RELEASE, GID, Presence.LIVE, (ARTWORK,), facts=_tables(BASE))
    stored = _item(BASE)
    name = formats.xml_name(GID)
    stored.files[name] = stored.files[name]._replace(size=0)

    assert needs_xml(expected, classify(json.loads(stored.document("127.0.0.1")), GID))


BASE = entities.Facts(
    title="Title",
    artists=(entities.Artist(str(UUID(int=7)), "A", "A", "A"),),
    date=None,
    place="",
    country="DE",
    language="eng",
    barcode=None,
    asin=None,
    packaging="None",
)


def _asks(expected: Expected, stored: entities.Facts) -> bool:
    document = json.loads(_item(stored).document("127.0.0.1"))
    return needs_xml(expected, classify(document, GID))
