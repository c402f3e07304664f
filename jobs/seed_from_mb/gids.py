"""Queries for the gids that MusicBrainz knows or knew, and the order in which they are seeded.

Each of `GIDS` is a query for rows `(key, shard, gid, priority)`: `key` orders them and has an
index, `shard` is the number that partitions are made by.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from uuid import UUID

#: The sort key of gids: a row id, or the gid itself if there is no id.
Key = int | UUID


class Kind(StrEnum):
    """How MusicBrainz knows a gid."""

    LIVE = "live"
    MERGED = "merged"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Gids:
    """The gids of one entity type and one kind."""

    entity_type: str
    kind: Kind
    rows: str
    #: Sort before and after every key.
    origin: Key
    end: Key
    #: Finds the art of an entity; only live entities have any.
    has_art: str | None = None
    is_with_art: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.entity_type}s{' with art' if self.is_with_art else ''}"

    def with_art(self) -> Gids:
        """Return only the gids with art; merged and deleted ones are all included."""
        if self.has_art is None:
            return self
        return replace(self, rows=f"{self.rows}AND EXISTS ({self.has_art})\n", is_with_art=True)


# Entities that were added within the last 90 days are audited last: the indexer has just indexed
# them.
_LIVE_RELEASES: Final = """
SELECT release.id AS key, release.id AS shard, release.gid,
       CASE WHEN meta.date_added > now() - interval '90 days' THEN 10 ELSE 100 END AS priority
FROM musicbrainz.release
LEFT JOIN musicbrainz.release_meta meta ON meta.id = release.id
WHERE release.id <= %(last_release)s
"""

# Events have no date of addition; the date of their first edit serves instead.
_LIVE_EVENTS: Final = """
SELECT event.id AS key, event.id AS shard, event.gid,
       CASE WHEN (SELECT min(edit.open_time)
                  FROM musicbrainz.edit_event
                  JOIN musicbrainz.edit ON edit.id = edit_event.edit
                  WHERE edit_event.event = event.id) > now() - interval '90 days'
            THEN 10 ELSE 100 END AS priority
FROM musicbrainz.event
WHERE event.id <= %(last_event)s
"""

# archive.org's search hides these items, so their gids must come from here. The nil UUID is not the
# gid of an entity, and no key sorts before it.
_MERGED: Final = """
SELECT gid AS key, ('x' || left(gid::text, 8))::bit(32)::bigint AS shard, gid, 150 AS priority
FROM musicbrainz.{entity}_gid_redirect
WHERE gid <> '00000000-0000-0000-0000-000000000000'
"""

_DELETED: Final = """
SELECT gid AS key, ('x' || left(gid::text, 8))::bit(32)::bigint AS shard, gid, 150 AS priority
FROM musicbrainz.deleted_entity
WHERE data->>'entity_type' = '{entity}' AND deleted_at <= %(started)s
AND gid <> '00000000-0000-0000-0000-000000000000'
"""

_COVER_ART: Final = "SELECT FROM cover_art_archive.cover_art art WHERE art.release = release.id"
_EVENT_ART: Final = "SELECT FROM event_art_archive.event_art art WHERE art.event = event.id"

_IDS: Final = (-(2**31), 2**31 - 1)
_GIDS: Final = (UUID(int=0), UUID(int=2**128 - 1))

#: Live entities come first, so that one that is merged in the meantime already has its row.
GIDS: Final = (
    Gids("release", Kind.LIVE, _LIVE_RELEASES, *_IDS, _COVER_ART),
    Gids("event", Kind.LIVE, _LIVE_EVENTS, *_IDS, _EVENT_ART),
    Gids("release", Kind.MERGED, _MERGED.format(entity="release"), *_GIDS),
    Gids("event", Kind.MERGED, _MERGED.format(entity="event"), *_GIDS),
    Gids("release", Kind.DELETED, _DELETED.format(entity="release"), *_GIDS),
    Gids("event", Kind.DELETED, _DELETED.format(entity="event"), *_GIDS),
)
