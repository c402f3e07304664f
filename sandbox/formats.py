"""The outside formats, defined independently: index.json, web service XML, extracted metadata.

The sandbox is the reference for the jobs' idea of these formats, so it shares no code with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from sandbox.entities import Artist, EntityType, Facts

NAMESPACE = "http://musicbrainz.org/ns/mmd-2.0#"

THUMBNAIL_SIZES = (250, 500, 1200)

Metadata = dict[str, Any]
"""The `metadata` object of archive.org's metadata API: strings, and lists of strings."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The archive for the art of one entity type."""

    collection: str
    domain: str
    type_names: tuple[str, ...]


ARCHIVES: Mapping[EntityType, Archive] = {
    EntityType.RELEASE: Archive(
        "coverartarchive",
        "coverartarchive.org",
        ("Front", "Back", "Booklet", "Medium", "Obi", "Spine", "Track", "Other"),
    ),
    EntityType.EVENT: Archive(
        "eventartarchive",
        "eventartarchive.org",
        ("Poster", "Flyer", "Ticket", "Banner", "Setlist", "Program", "Map", "Other"),
    ),
}


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of the view index_listing; `back` is None for events, which have no such column."""

    id: int
    suffix: str
    types: tuple[str, ...]
    front: bool
    back: bool | None
    comment: str
    approved: bool
    edit: int


def item_name(gid: str) -> str:
    return f"mbid-{gid}"


def image_name(gid: str, artwork_id: int, suffix: str) -> str:
    return f"mbid-{gid}-{artwork_id}.{suffix}"


def xml_name(gid: str) -> str:
    return f"mbid-{gid}_mb_metadata.xml"


def xml_log_name(gid: str) -> str:
    """Return the name of archive.org's log of what it extracted from the XML."""
    return f"mbid-{gid}_mb_metadata_meta.log"


def entity_url(entity_type: EntityType, gid: str) -> str:
    return f"https://musicbrainz.org/{entity_type}/{gid}"


def index_document(entity_type: EntityType, gid: str, images: Iterable[Listed]) -> dict[str, Any]:
    """Return the content of a current index.json, as plain JSON values."""
    return {
        "images": [index_image(entity_type, gid, image) for image in images],
        str(entity_type): entity_url(entity_type, gid),
    }


def index_image(entity_type: EntityType, gid: str, image: Listed) -> dict[str, Any]:
    """Return the entry of an image in a current index.json."""
    base = f"https://{ARCHIVES[entity_type].domain}/{entity_type}/{gid}/{image.id}"
    entry: dict[str, Any] = {
        "types": list(image.types),
        "front": image.front,
        "comment": image.comment,
        "image": f"{base}.{image.suffix}",
        "thumbnails": {
            "small": f"{base}-250.jpg",
            "large": f"{base}-500.jpg",
            "250": f"{base}-250.jpg",
            "500": f"{base}-500.jpg",
            "1200": f"{base}-1200.jpg",
        },
        "approved": image.approved,
        "edit": image.edit,
        "id": image.id,
    }
    if image.back is not None:
        entry["back"] = image.back
    return entry


def index_json(document: object) -> bytes:
    """Serialise as the indexer does."""
    return json.dumps(document, sort_keys=True).encode()


def entity_xml(entity_type: EntityType, gid: str, facts: Facts, images: int) -> bytes:
    """Return the web service's answer for an entity with that many images."""
    if entity_type is EntityType.EVENT:
        body = _event_element(gid, facts)
    else:
        body = _release_element(gid, facts, images)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<metadata xmlns="{NAMESPACE}">{body}</metadata>'
    ).encode()


def _release_element(gid: str, facts: Facts, images: int) -> str:
    language = f"<language>{facts.language}</language>" if facts.language else ""
    credit = "".join(
        f'<name-credit joinphrase="{", " if artist is not facts.artists[-1] else ""}">'
        f"<name>{escape(artist.credited)}</name>"
        f'<artist id="{artist.gid}"><name>{escape(artist.name)}</name>'
        f"<sort-name>{escape(artist.sort_name)}</sort-name></artist></name-credit>"
        for artist in facts.artists
    )
    date = f"<date>{facts.date}</date>" if facts.date else ""
    barcode = f"<barcode>{facts.barcode}</barcode>" if facts.barcode else ""
    asin = f"<asin>{facts.asin}</asin>" if facts.asin else ""
    has_art = "true" if images else "false"
    return (
        f'<release id="{gid}"><title>{escape(facts.title)}</title>'
        '<status id="4e304316-386d-3409-af2e-78857eec5cfe">Official</status>'
        f"<quality>normal</quality><packaging>{facts.packaging}</packaging>"
        f"<text-representation>{language}<script>Latn</script></text-representation>"
        f"<artist-credit>{credit}</artist-credit>{date}<country>{facts.country}</country>"
        f'<release-event-list count="1"><release-event>{date}'
        f"<area><name>{facts.country}</name></area></release-event></release-event-list>"
        f"{barcode}{asin}<cover-art-archive><artwork>{has_art}</artwork>"
        f"<count>{images}</count><front>{has_art}</front></cover-art-archive></release>"
    )


def _event_element(gid: str, facts: Facts) -> str:
    performers = "".join(
        '<relation type="main performer" type-id="936c7c95-3156-3889-a062-8a0cd57f8946">'
        f'<target>{artist.gid}</target><artist id="{artist.gid}">'
        f"<name>{escape(artist.name)}</name><sort-name>{escape(artist.sort_name)}</sort-name>"
        "</artist></relation>"
        for artist in facts.artists
    )
    span = f"<begin>{facts.date}</begin><end>{facts.date}</end>" if facts.date else ""
    return (
        f'<event type="Concert" id="{gid}"><name>{escape(facts.title)}</name>'
        f"<life-span>{span}</life-span>"
        f'<relation-list target-type="artist">{performers}</relation-list>'
        '<relation-list target-type="place">'
        '<relation type="held at" type-id="e2c6f697-07dc-38b1-be0b-83d740165532">'
        "<target>7643f13a-dcda-4db4-8196-3ffcc1b99ab7</target>"
        '<place id="7643f13a-dcda-4db4-8196-3ffcc1b99ab7">'
        f"<name>{escape(facts.place)}</name></place></relation></relation-list></event>"
    )


def extracted(entity_type: EntityType, gid: str, facts: Facts) -> Metadata:
    """Return what archive.org extracts from the XML of `entity_xml` into an item's metadata.

    For events this is unknown; they get a title, on which nothing may rely.
    """
    if entity_type is EntityType.EVENT:
        return {"title": facts.title}
    return _release_metadata(
        gid, facts.title, facts.artists, facts.date, facts.language, facts.barcode, facts.asin
    )


EXTRACTED_KEYS = (
    "title",
    "creator",
    "creator-alt-script",
    "date",
    "language",
    "external-identifier",
)


def extract(xml: bytes) -> Metadata:
    """Return what archive.org extracts from an uploaded mb_metadata.xml; nothing if unreadable."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return {}
    tag = f"{{{NAMESPACE}}}"
    event = root.find(f"{tag}event")
    if event is not None:
        return {"title": event.findtext(f"{tag}name", "")}
    release = root.find(f"{tag}release")
    if release is None:
        return {}
    artists = [
        Artist(
            artist.get("id", ""),
            artist.findtext(f"{tag}name", ""),
            artist.findtext(f"{tag}sort-name", ""),
            credited="",
        )
        for artist in release.findall(f"{tag}artist-credit/{tag}name-credit/{tag}artist")
    ]
    return _release_metadata(
        release.get("id", ""),
        release.findtext(f"{tag}title", ""),
        artists,
        release.findtext(f"{tag}date"),
        release.findtext(f"{tag}text-representation/{tag}language"),
        release.findtext(f"{tag}barcode"),
        release.findtext(f"{tag}asin"),
    )


def _release_metadata(
    gid: str,
    title: str,
    artists: Sequence[Artist],
    date: str | None,
    language: str | None,
    barcode: str | None,
    asin: str | None,
) -> Metadata:
    identifiers = [
        f"urn:mb_release_id:{gid}",
        *(f"urn:mb_artist_id:{artist.gid}" for artist in artists),
        *([f"urn:upc:{barcode}"] if barcode else []),
        *([f"urn:asin:{asin}"] if asin else []),
    ]
    metadata = {
        "title": title,
        "creator": _unlisted([artist.name for artist in artists]),
        "creator-alt-script": _unlisted([artist.sort_name for artist in artists]),
        "date": _extracted_date(date),
        "language": language,
        "external-identifier": _unlisted(identifiers),
    }
    return {key: value for key, value in metadata.items() if value or key == "title"}


def _extracted_date(date: str | None) -> str:
    """Return the part of a partial date before its first unknown part."""
    return (date or "").partition("?")[0].rstrip("-")


def _unlisted(values: list[str]) -> str | list[str]:
    """Return a list of one as a plain string, as archive.org shows it."""
    return values[0] if len(values) == 1 else values
