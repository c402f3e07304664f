"""The expected state of one entity, and the bytes of the index.json that it calls for.

Built by the caller from database rows and the web service's answer; no reading happens here.
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
    """What MusicBrainz knows of a gid."""

    LIVE = "live"
    MERGED = "merged"
    DELETED = "deleted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Artwork:
    """One row of `index_listing`, with the suffix of its `image_type`.

    `back` is None for events, whose listing has no such column. `ordering` is the column of that
    name: images that share a value stand in any order. None leaves the order to the position in
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
    """A date of MusicBrainz, each part of which may be unknown."""

    year: int | None
    month: int | None = None
    day: int | None = None

    @property
    def is_comparable(self) -> bool:
        """Whether what is known stands before what is not: `1999`, `1999-05`, `1999-05-12`."""
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
    """What MusicBrainz's tables say of a release, as far as archive.org shows it.

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

    `gid` is lower case. `artwork` stands in listing order and is empty unless the entity is live.
    `dark` says that MusicBrainz itself knows the item to be dark (`cover_art_presence` or
    `event_art_presence` is `darkened`). `xml` is the web service's answer, None when it was not
    asked (see `compare.needs_xml`). `facts` are a release's, None where they were not asked for:
    then the XML is needed.
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
        """Whether the gid names an entity of MusicBrainz today."""
        return self.presence is Presence.LIVE


def image_document(expected: Expected, artwork: Artwork) -> dict[str, object]:
    """What index.json says about one image, as `json.loads` would give it."""
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
    """The index.json that artwork-indexer would write now, byte for byte.

    Except for one thing: the indexer reads the types of an image in no particular order, so a file
    that differs only there is as good. Whoever compares has to look at the content then.
    """
    document = {
        "images": [image_document(expected, artwork) for artwork in expected.artwork],
        expected.entity_type.value: archives.entity_url(expected.entity_type, expected.gid),
    }
    return json.dumps(document, sort_keys=True).encode()


def md5(content: bytes) -> str:
    """The MD5 of `content` in the form of archive.org's file listing, lower-case hexadecimal."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
