"""Making audited entities unchecked again, for jobs that find them due.

Only clean and legacy entities: those that wait for an audit, a repair or a person are not done yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from psycopg import Connection
from psycopg.sql import SQL, Composable

from artwork_backfill.shared.audit.decide import Status
from artwork_backfill.shared.engine.session import only_row
from artwork_backfill.shared.engine.tables import Table

#: The statuses of entities that are not audited again by themselves.
DONE: Final = (Status.CLEAN, Status.LEGACY)

#: Priorities of entities that were audited before, and of those merged or deleted since.
AGAIN: Final = 50
GONE: Final = 150

TABLES: Final = (
    Table("musicbrainz.release"),
    Table("musicbrainz.event"),
    Table("artwork_indexer.event_queue"),
    Table("artwork_indexer.audit_entity", ("SELECT", "UPDATE")),
)

# Live at its audit, or audited before that was recorded.
_IS_GONE: Final = """
entity.status = 'clean' AND entity.was_live IS NOT FALSE
AND CASE entity.entity_type
    WHEN 'release' THEN NOT EXISTS (
        SELECT FROM musicbrainz.release live WHERE live.gid = entity.gid)
    WHEN 'event' THEN NOT EXISTS (
        SELECT FROM musicbrainz.event live WHERE live.gid = entity.gid)
    END
"""

# In the order of ids, so that two simultaneous runs do not deadlock.
_MAKE_UNCHECKED: Final = """
WITH due AS (
    SELECT entity.id, {is_gone} AS is_gone
    FROM artwork_indexer.audit_entity entity
    WHERE {which}
    AND entity.status = ANY (%(statuses)s::artwork_indexer.audit_entity_status[])
    AND entity.last_audit_at < %(before)s
    ORDER BY entity.id
    FOR UPDATE
), changed AS (
    UPDATE artwork_indexer.audit_entity entity
    SET status = 'unchecked',
        priority = CASE WHEN due.is_gone THEN %(gone)s ELSE %(again)s END
    FROM due
    WHERE entity.id = due.id
    RETURNING due.is_gone
)
SELECT count(*), count(*) FILTER (WHERE is_gone) FROM changed
"""

_COUNT: Final = """
SELECT count(*), count(*) FILTER (WHERE {is_gone})
FROM artwork_indexer.audit_entity entity
WHERE {which}
AND entity.status = ANY (%(statuses)s::artwork_indexer.audit_entity_status[])
AND entity.last_audit_at < %(before)s
"""

_BY_ID: Final = SQL("entity.id = ANY (%(which)s::bigint[])")
_BY_GID: Final = SQL(
    "entity.entity_type = ANY (enum_range(NULL::artwork_indexer.indexable_entity_type))"
    " AND entity.gid = ANY (%(which)s::uuid[])"
)


class Due(NamedTuple):
    """How many entities became unchecked, and how many of them are gone from MusicBrainz."""

    entities: int
    gone: int


def make_unchecked(
    conn: Connection, ids: Sequence[int], before: datetime, statuses: Sequence[str] = DONE
) -> Due:
    """Make entities unchecked whose last audit was before a time, in the open transaction."""
    return _apply(conn, _MAKE_UNCHECKED, _BY_ID, ids, before, statuses)


def make_gids_unchecked(conn: Connection, gids: object, before: datetime) -> Due:
    """Do the same for gids of either entity type; `gids` is made by `seeding.uuid_array`."""
    return _apply(conn, _MAKE_UNCHECKED, _BY_GID, gids, before, DONE)


def count(
    conn: Connection, ids: Sequence[int], before: datetime, statuses: Sequence[str] = DONE
) -> Due:
    """Return what `make_unchecked` would do, reading only."""
    return _apply(conn, _COUNT, _BY_ID, ids, before, statuses)


def count_gids(conn: Connection, gids: object, before: datetime) -> Due:
    """Return what `make_gids_unchecked` would do, reading only."""
    return _apply(conn, _COUNT, _BY_GID, gids, before, DONE)


def _apply(
    conn: Connection,
    statement: str,
    which: Composable,
    values: object,
    before: datetime,
    statuses: Sequence[str],
) -> Due:
    query = SQL(statement).format(which=which, is_gone=SQL(_IS_GONE))
    parameters = {
        "which": values,
        "before": before,
        "statuses": list(statuses),
        "gone": GONE,
        "again": AGAIN,
    }
    return Due(*only_row(conn, query, parameters))
