"""The two art archives, and the names they give to items, files and URLs.

Only names: `expected` knows what a file contains, `actual` what an item holds. The forms are those
of artwork-indexer, which writes the files, and of archive.org, which derives the thumbnails.
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
"""Widths in pixels of the thumbnails that the archives' web services offer."""


class EntityType(StrEnum):
    """A type of entity that has art; the values are those of `indexable_entity_type`."""

    RELEASE = "release"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class ArtArchive:
    """The properties in which the Cover Art Archive and the Event Art Archive differ.

    `has_back` says whether an image in index.json has the key `back`. `art` is what
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
    """Return the archive of the other entity type, whose items have names of the same form."""
    return next(other for other in ART_ARCHIVES.values() if other is not archive)


def item_name(gid: str) -> str:
    """Return the archive.org identifier of an entity's item."""
    return f"mbid-{gid}"


def xml_name(gid: str) -> str:
    """Return the name of the web service's XML as of the last indexing of the entity."""
    return f"mbid-{gid}_mb_metadata.xml"


def xml_log_name(gid: str) -> str:
    """Return the name of the log of what archive.org extracted from the XML."""
    return f"mbid-{gid}_mb_metadata_meta.log"


def image_name(gid: str, artwork_id: int, suffix: str) -> str:
    """Return the name of an image file as uploaded."""
    return f"mbid-{gid}-{artwork_id}.{suffix}"


def thumbnail_name(gid: str, artwork_id: int, size: int) -> str:
    """Return the name of a thumbnail; archive.org makes a JPEG of any original."""
    return f"mbid-{gid}-{artwork_id}_thumb{size}.jpg"


def entity_url(entity_type: EntityType, gid: str) -> str:
    """Return the entity's URL at MusicBrainz, as in index.json."""
    return f"https://musicbrainz.org/{entity_type}/{gid}"


def image_url(entity_type: EntityType, gid: str, artwork_id: int, suffix: str) -> str:
    """Return the URL of an original image, as in index.json."""
    return f"https://{ART_ARCHIVES[entity_type].domain}/{entity_type}/{gid}/{artwork_id}.{suffix}"


def thumbnail_url(entity_type: EntityType, gid: str, artwork_id: int, size: int) -> str:
    """Return the URL of a thumbnail, as in index.json."""
    domain = ART_ARCHIVES[entity_type].domain
    return f"https://{domain}/{entity_type}/{gid}/{artwork_id}-{size}.jpg"
