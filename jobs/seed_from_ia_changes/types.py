"""Which items belong to releases and which to events; identifiers do not show that."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Final, NamedTuple
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared import seeding
from artwork_backfill.shared.audit.actual import ItemState, classify, collections_of
from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType, item_name
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient
from artwork_backfill.shared.clients.http import Interrupted, ServiceDown, Unreadable
from artwork_backfill.shared.engine.job import StopRun

#: The maximum number of simultaneous requests.
CONCURRENCY: Final = 8

# The type of gids without a row, as MusicBrainz knows or knew them: the first that applies.
_UNKNOWN: Final = """
WITH unknown AS MATERIALIZED (
    SELECT seed.gid
    FROM unnest(%(gids)s) AS seed (gid)
    WHERE NOT EXISTS (
        SELECT FROM artwork_indexer.audit_entity entity
        WHERE entity.entity_type = 'release' AND entity.gid = seed.gid)
    AND NOT EXISTS (
        SELECT FROM artwork_indexer.audit_entity entity
        WHERE entity.entity_type = 'event' AND entity.gid = seed.gid)
)
SELECT unknown.gid, coalesce(live.entity_type, gone.entity_type), live.entity_type IS NOT NULL
FROM unknown
LEFT JOIN LATERAL (
    SELECT 'release' AS entity_type FROM musicbrainz.release WHERE release.gid = unknown.gid
    UNION ALL
    SELECT 'event' FROM musicbrainz.event WHERE event.gid = unknown.gid
    LIMIT 1
) AS live ON TRUE
LEFT JOIN LATERAL (
    SELECT 'release' AS entity_type
    FROM musicbrainz.release_gid_redirect WHERE release_gid_redirect.gid = unknown.gid
    UNION ALL
    SELECT 'event'
    FROM musicbrainz.event_gid_redirect WHERE event_gid_redirect.gid = unknown.gid
    UNION ALL
    SELECT data->>'entity_type'
    FROM musicbrainz.deleted_entity
    WHERE deleted_entity.gid = unknown.gid AND data->>'entity_type' IN ('release', 'event')
    LIMIT 1
) AS gone ON TRUE
"""


@dataclass(slots=True)
class Looked:
    """What is known about gids without a row.

    `priorities` has the gids to seed, by type. The others are items that MusicBrainz never knew:
    `absent`, `dark` and `foreign` count those that no longer exist, that archive.org hides, or that
    are in neither art archive: nothing of them can be audited. `unclear` lists identifiers whose
    item could not be read or shows no collection, each with the reason.
    """

    priorities: Mapping[EntityType, dict[bytes, int]] = field(
        default_factory=lambda: {each: {} for each in EntityType}
    )
    absent: int = 0
    dark: int = 0
    foreign: int = 0
    unclear: list[tuple[str, str]] = field(default_factory=list)

    def of(self, gids: Collection[bytes], *, with_items: bool) -> Looked:
        """Return what is known about some of the gids, and about the other items if wanted."""
        priorities = {
            entity_type: {gid: priority for gid, priority in known.items() if gid in gids}
            for entity_type, known in self.priorities.items()
        }
        return replace(self, priorities=priorities) if with_items else Looked(priorities)


def ask_musicbrainz(conn: Connection, gids: Collection[bytes]) -> tuple[Looked, list[bytes]]:
    """Return what MusicBrainz says about gids without a row, and those that it never knew."""
    looked = Looked()
    unknown: list[bytes] = []
    for gid, entity_type, is_live in conn.execute(_UNKNOWN, {"gids": seeding.uuid_array(gids)}):
        if entity_type is None:
            unknown.append(gid.bytes)
        else:
            priority = seeding.LIVE if is_live else seeding.GONE
            looked.priorities[EntityType(entity_type)][gid.bytes] = priority
    return looked, unknown


def ask_archive_org(
    archive: ArchiveOrgClient,
    gids: Iterable[bytes],
    looked: Looked,
    *,
    second_look_after: float,
    stop_flag: Event,
) -> None:
    """Add what the items say, with one request each; an absence is confirmed by a second one.

    The second request comes at least `second_look_after` seconds after the answer to the first; the
    other items are requested in the meantime.

    Raises
    ------
    StopRun
        archive.org is down.
    Interrupted
        The run is stopping.
    """
    names = {gid: str(UUID(bytes=gid)) for gid in gids}
    if not names:
        return
    with ThreadPoolExecutor(min(CONCURRENCY, len(names))) as pool:
        items = list(pool.map(lambda name: _look(archive, name), names.values()))

        def confirm(name: str, item: _Look | Unreadable) -> _Look | Unreadable:
            if isinstance(item, Unreadable) or item.state is not ItemState.ABSENT:
                return item
            if stop_flag.wait(max(0.0, item.read_at + second_look_after - time.monotonic())):
                raise Interrupted("the run is stopping")
            return _look(archive, name, extended_err=True)

        confirmed = list(pool.map(confirm, names.values(), items))
    for (gid, name), item in zip(names.items(), confirmed, strict=True):
        if isinstance(item, Unreadable):
            looked.unclear.append((item_name(name), str(item)))
        elif item.state is ItemState.ABSENT:
            looked.absent += 1
        elif types := [t for t, art in ART_ARCHIVES.items() if art.collection in item.collections]:
            looked.priorities[types[0]][gid] = seeding.GONE
        elif item.collections:
            looked.foreign += 1
        elif item.state is ItemState.DARK:
            looked.dark += 1
        else:
            looked.unclear.append((item_name(name), "archive.org does not show it"))


class _Look(NamedTuple):
    """The content of an item's answer."""

    state: ItemState
    collections: tuple[str, ...]
    #: The time of the answer, in monotonic seconds.
    read_at: float


def _look(archive: ArchiveOrgClient, gid: str, *, extended_err: bool = False) -> _Look | Unreadable:
    """Return what an item says, or why it could not be read."""
    try:
        document = archive.metadata(gid, extended_err=extended_err)
    except ServiceDown as error:
        raise StopRun(str(error)) from error
    except Unreadable as error:
        return error
    state = classify(document, gid).state
    return _Look(state, collections_of(document, gid), time.monotonic())
