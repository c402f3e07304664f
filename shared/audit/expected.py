"""The expected state of one entity, and the bytes of the index.json that follow from it.

The caller builds it from database rows and the web service's answer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum

from artwork_backfill.shared.audit import archives
from artwork_backfill.shared.audit.archives import (
    ART_ARCHIVES,
    THUMBNAIL_SIZES,
    ArtArchive,
    EntityType,
)


class Presence(StrEnum):
    """How MusicBrainz knows a gid."""

    LIVE = "live"
    MERGED = "merged"
    DELETED = "deleted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Artwork:
    """One row of `index_listing`, with the suffix of its `image_type`.

    `back` is None for events, whose listing has no such column. `ordering` is the column of that
    name: images that share a value may have any order. None leaves the order to the position in
    `Expected.artwork`.
    """

    id: int
    suffix: str
    types: tuple[str, ...]
    front: bool
    back: bool | None
    comment: str
    approved: bool
    edit: int
    ordering: int | None = None


@dataclass(frozen=True, slots=True)
class PartialDate:
    """A date of MusicBrainz, any part of which may be unknown."""

    year: int | None
    month: int | None = None
    day: int | None = None

    @property
    def is_comparable(self) -> bool:
        """Whether the known parts precede the unknown ones: `1999`, `1999-05`, `1999-05-12`."""
        if self.year is None:
            return self.month is None and self.day is None
        return self.month is not None or self.day is None

    def __str__(self) -> str:
        known = []
        for value, width in ((self.year, 4), (self.month, 2), (self.day, 2)):
            if value is None:
                break
            known.append(f"{value:0{width}}")
        return "-".join(known)


@dataclass(frozen=True, slots=True)
class Credit:
    """One artist of a release's artist credit: the artist's own names, and gid (lower case)."""

    gid: str
    name: str
    sort_name: str


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What MusicBrainz's tables say about a release, as far as archive.org shows it.

    `dates` holds the date of every release event. `barcode` is `''` for "none" and None for
    "unknown", which archive.org shows alike.
    """

    title: str
    credits: tuple[Credit, ...]
    dates: tuple[PartialDate, ...] = ()
    language: str | None = None
    barcode: str | None = None
    asin: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """What MusicBrainz says about one gid.

    Attributes
    ----------
    gid
        Lower case.
    artwork
        In listing order; empty unless the entity is live.
    dark
        Whether MusicBrainz itself knows that the item is dark (`cover_art_presence` or
        `event_art_presence` is `darkened`).
    xml
        The web service's answer; None if it was not asked (see `compare.needs_xml`).
    facts
        Those of a release; None if they were not read, and the XML is needed.
    """

    entity_type: EntityType
    gid: str
    presence: Presence
    artwork: tuple[Artwork, ...] = ()
    dark: bool = False
    xml: bytes | None = None
    facts: ReleaseFacts | None = None

    @property
    def archive(self) -> ArtArchive:
        """The art archive that keeps the entity's images."""
        return ART_ARCHIVES[self.entity_type]

    @property
    def is_live(self) -> bool:
        """Whether the gid names an entity in MusicBrainz now."""
        return self.presence is Presence.LIVE


def image_document(expected: Expected, artwork: Artwork) -> dict[str, object]:
    """Return what index.json says about one image, in the form of `json.loads`."""
    entity_type, gid = expected.entity_type, expected.gid
    urls = {
        size: archives.thumbnail_url(entity_type, gid, artwork.id, size) for size in THUMBNAIL_SIZES
    }
    document: dict[str, object] = {
        "approved": artwork.approved,
        "comment": artwork.comment,
        "edit": artwork.edit,
        "front": artwork.front,
        "id": artwork.id,
        "image": archives.image_url(entity_type, gid, artwork.id, artwork.suffix),
        "thumbnails": {
            "small": urls[250],
            "large": urls[500],
            **{str(size): url for size, url in urls.items()},
        },
        "types": list(artwork.types),
    }
    if expected.archive.has_back:
        document["back"] = bool(artwork.back)
    return document


def index_json(expected: Expected) -> bytes:
    """Return the index.json that artwork-indexer would write now, byte for byte.

    With one exception: the indexer reads the types of an image in no particular order, so a file
    that differs only there is correct. The caller then has to compare the content.
    """
    document = {
        "images": [image_document(expected, artwork) for artwork in expected.artwork],
        expected.entity_type.value: archives.entity_url(expected.entity_type, expected.gid),
    }
    return json.dumps(document, sort_keys=True).encode()


def md5(content: bytes) -> str:
    """Return the MD5 of `content` as in archive.org's listings, in lower-case hexadecimal."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
