"""The two art archives and the names they give to items, files and URLs.

Names only: what a file contains is the business of `expected`, what an item holds that of `actual`.
The forms are those of artwork-indexer, which writes the files, and of archive.org, which derives
the thumbnails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

INDEX_NAME: Final = "index.json"
"""The image listing of an item."""

THUMBNAIL_SIZES: Final = (250, 500, 1200)
"""Widths in pixels of the thumbnails that the archives' web services hand out."""


class EntityType(StrEnum):
    """A kind of entity that has art; the values are those of `indexable_entity_type`."""

    RELEASE = "release"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class ArtArchive:
    """What tells the Cover Art Archive and the Event Art Archive apart.

    `has_back` says whether an image in index.json carries the key `back`. `art` is what
    MusicBrainz's tables and columns of the archive are named by: `{art}_archive.{art}`.
    """

    entity_type: EntityType
    collection: str
    domain: str
    has_back: bool
    art: str

    def query(self, template: str, **more: str) -> str:
        """Return SQL with the archive's names in place of `{entity}` and `{art}`."""
        return template.format(entity=self.entity_type, art=self.art, **more)


ART_ARCHIVES: Final[Mapping[EntityType, ArtArchive]] = MappingProxyType(
    {
        EntityType.RELEASE: ArtArchive(
            EntityType.RELEASE,
            "coverartarchive",
            "coverartarchive.org",
            has_back=True,
            art="cover_art",
        ),
        EntityType.EVENT: ArtArchive(
            EntityType.EVENT,
            "eventartarchive",
            "eventartarchive.org",
            has_back=False,
            art="event_art",
        ),
    }
)


def other_archive(archive: ArtArchive) -> ArtArchive:
    """The archive of the other entity type, whose items have names of the same form."""
    return next(other for other in ART_ARCHIVES.values() if other is not archive)


def item_name(gid: str) -> str:
    """The archive.org identifier of an entity's item."""
    return f"mbid-{gid}"


def xml_name(gid: str) -> str:
    """The file that keeps the web service's XML as it was when the entity was last indexed."""
    return f"mbid-{gid}_mb_metadata.xml"


def xml_log_name(gid: str) -> str:
    """The log that archive.org keeps of what it extracted from the XML."""
    return f"mbid-{gid}_mb_metadata_meta.log"


def image_name(gid: str, artwork_id: int, suffix: str) -> str:
    """The file of an image as it was uploaded."""
    return f"mbid-{gid}-{artwork_id}.{suffix}"


def thumbnail_name(gid: str, artwork_id: int, size: int) -> str:
    """The file of a thumbnail; archive.org makes a JPEG whatever the original is."""
    return f"mbid-{gid}-{artwork_id}_thumb{size}.jpg"


def entity_url(entity_type: EntityType, gid: str) -> str:
    """The entity's address at MusicBrainz, as index.json names it."""
    return f"https://musicbrainz.org/{entity_type}/{gid}"


def image_url(entity_type: EntityType, gid: str, artwork_id: int, suffix: str) -> str:
    """The address of an original image, as index.json names it."""
    return f"https://{ART_ARCHIVES[entity_type].domain}/{entity_type}/{gid}/{artwork_id}.{suffix}"


def thumbnail_url(entity_type: EntityType, gid: str, artwork_id: int, size: int) -> str:
    """The address of a thumbnail, as index.json names it."""
    domain = ART_ARCHIVES[entity_type].domain
    return f"https://{domain}/{entity_type}/{gid}/{artwork_id}-{size}.jpg"
