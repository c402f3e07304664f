"""Making audited entities unchecked again, for jobs that find them due.

Only clean and legacy entities: those that wait for an audit, a repair or a person are not done yet.
An entity that a person has left as it is since its audit stays so, unless it was merged or deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from psycopg import Connection
from psycopg.sql import SQL, Composable

from artwork_backfill.shared.audit.decide import Status
from artwork_backfill.shared.engine.session import only_row
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.seeding import GONE

#: The statuses of entities that are not audited again by themselves.
DONE: Final = (Status.CLEAN, Status.LEGACY)

#: The statuses of entities whose items an audit has read, or may be reading.
_READ: Final = (*DONE, Status.IN_PROGRESS)

#: The longest time between the reading of an item and the end of the audit's write.
WRITTEN_WITHIN: Final = timedelta(hours=1)

#: Priorities of entities that were audited before, and of those merged or deleted since.
AGAIN: Final = 50

TABLES: Final = (
    Table("musicbrainz.release"),
    Table("musicbrainz.event"),
    Table("artwork_indexer.event_queue"),
    Table("artwork_indexer.audit_entity", ("SELECT", "UPDATE")),
    Table("artwork_indexer.needs_manual_review"),
)

#: Whether a person has decided, since the audit of an `{entity}`, not to fix what it found.
LEFT_AS_IS: Final = """
EXISTS (
    SELECT
    FROM artwork_indexer.needs_manual_review review
    WHERE review.audit_entity_id = {entity}.id
    AND review.status = 'wont_fix'
    AND review.resolved_at >= coalesce({entity}.last_audit_at, '-infinity'))
"""

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

#: Whether a clean or legacy `entity` may be audited again.
MAY_BE_AUDITED: Final = (
    "(NOT" + LEFT_AS_IS.format(entity="entity") + f"OR (entity.was_live IS TRUE AND {_IS_GONE}))"
)

_DUE: Final = """
SELECT entity.id, {is_gone} AS is_gone
FROM artwork_indexer.audit_entity entity
WHERE {which}
AND entity.status = ANY (%(statuses)s::artwork_indexer.audit_entity_status[])
AND entity.last_audit_at < %(before)s
AND {may_be_audited}
"""

_COUNT: Final = "SELECT count(*), count(*) FILTER (WHERE is_gone) FROM ({due}) due"

# In the order of ids, so that two simultaneous runs do not deadlock.
_MAKE_UNCHECKED: Final = """
WITH due AS (
    {due}
    ORDER BY entity.id
    FOR UPDATE
), changed AS (
    UPDATE artwork_indexer.audit_entity entity
    SET status = 'unchecked', claimed_by = NULL,
        priority = CASE WHEN due.is_gone THEN %(gone)s
                        WHEN entity.status = 'audit_in_progress' THEN entity.priority
                        ELSE %(again)s
                   END
    FROM due
    WHERE entity.id = due.id
    RETURNING due.is_gone
)
SELECT count(*), count(*) FILTER (WHERE is_gone) FROM changed
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
    conn: Connection,
    ids: Sequence[int],
    before: datetime,
    statuses: Sequence[str] = DONE,
    *,
    preview: bool = False,
) -> Due:
    """Make entities unchecked whose last audit was before a time, in the open transaction.

    With `preview`, only count them; nothing is written.
    """
    return _apply(conn, _BY_ID, ids, before, statuses, preview=preview)


def make_gids_unchecked(
    conn: Connection, gids: object, changed_by: datetime, *, preview: bool = False
) -> Due:
    """Make entities of either type unchecked whose items had changed by a time.

    An audit that may have read its item before that time counts as older, however late it was
    written. One in progress loses its claim, so that it writes nothing. `gids` is made by
    `seeding.uuid_array`.
    """
    return _apply(conn, _BY_GID, gids, changed_by + WRITTEN_WITHIN, _READ, preview=preview)


def _apply(
    conn: Connection,
    which: Composable,
    values: object,
    before: datetime,
    statuses: Sequence[str],
    *,
    preview: bool,
) -> Due:
    due = SQL(_DUE).format(which=which, is_gone=SQL(_IS_GONE), may_be_audited=SQL(MAY_BE_AUDITED))
    query = SQL(_COUNT if preview else _MAKE_UNCHECKED).format(due=due)
    parameters = {
        "which": values,
        "before": before,
        "statuses": list(statuses),
        "gone": GONE,
        "again": AGAIN,
    }
    return Due(*only_row(conn, query, parameters))
