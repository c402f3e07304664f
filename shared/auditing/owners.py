"""Database reads about owners of images, and events that may change the owner's copy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from threading import Lock
from typing import Final, NamedTuple

from psycopg import Connection

from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType
from artwork_backfill.shared.engine.session import Session, holds

_OWNERS: Final = """
SELECT art.id, entity.gid::text
FROM {art}_archive.{art} art
JOIN musicbrainz.{entity} entity ON entity.id = art.{entity}
WHERE art.id = ANY (%(artwork_ids)s::bigint[])
"""

# An `index` of the owner removes no image.
_BUSY: Final = """
SELECT DISTINCT named.gid
FROM artwork_indexer.event_queue event
CROSS JOIN LATERAL unnest(
    ARRAY[event.message->>'gid', event.message->>'old_gid', event.message->>'new_gid']
) AS named (gid)
WHERE event.state IN ('queued', 'running')
AND event.action IN ('copy_image', 'delete_image', 'deindex')
AND event.entity_type::text = %(entity_type)s
AND named.gid = ANY (%(gids)s::text[])
"""


class OwnerRows(NamedTuple):
    """The owners' gids by artwork id, and those of them that an event is about to change."""

    gids: Mapping[int, str]
    busy: frozenset[str]


#: Reads the owners of images by artwork id.
ReadOwners = Callable[[EntityType, Collection[int]], OwnerRows]


def read_owners(
    conn: Connection, entity_type: EntityType, artwork_ids: Collection[int]
) -> OwnerRows:
    """Return the owners of images; ids without an owner are omitted."""
    gids = _owners(conn, entity_type, artwork_ids)
    return OwnerRows(gids, busy_gids(conn, entity_type, set(gids.values())))


def look_up_owners(
    conn: Connection, entity_type: EntityType, artwork_ids: Collection[int]
) -> OwnerRows:
    """Return the same from a database that may lack artwork-indexer's queue, like a mirror."""
    if holds(conn, "SELECT to_regclass('artwork_indexer.event_queue') IS NOT NULL"):
        return read_owners(conn, entity_type, artwork_ids)
    return OwnerRows(_owners(conn, entity_type, artwork_ids), frozenset())


def _owners(
    conn: Connection, entity_type: EntityType, artwork_ids: Collection[int]
) -> dict[int, str]:
    query = ART_ARCHIVES[entity_type].query(_OWNERS)
    return dict(conn.execute(query.encode(), {"artwork_ids": sorted(artwork_ids)}).fetchall())


def busy_gids(conn: Connection, entity_type: EntityType, gids: Collection[str]) -> frozenset[str]:
    """Return those of `gids` from which a queued or running event may remove an image."""
    if not gids:
        return frozenset()
    values = {"entity_type": entity_type.value, "gids": sorted(gids)}
    return frozenset(gid for (gid,) in conn.execute(_BUSY, values))


def looking_up(connect: Callable[[], AbstractContextManager[Connection]]) -> ReadOwners:
    """Return a function that reads owners, each time on a connection that `connect` opens."""

    def read(entity_type: EntityType, artwork_ids: Collection[int]) -> OwnerRows:
        with connect() as conn:
            return look_up_owners(conn, entity_type, artwork_ids)

    return read


class OwnerReader:
    """Read owners for threads that share one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = Lock()

    def read(self, entity_type: EntityType, artwork_ids: Collection[int]) -> OwnerRows:
        """Return the result of `read_owners`, in a transaction of its own."""
        with self._lock:
            return self._session.transaction(
                lambda conn: read_owners(conn, entity_type, artwork_ids), read_only=True
            )
