"""The table of attempts: which rows were looked up without a result, and when.

It is ours, in a schema of its own beside the library's, and `migrate --database wxyc` creates it
(`sql/wxyc`). Rows without a result are not looked up again until later. A row is always looked up
again if LML gave no answer for it, or if it was renamed since.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from psycopg import Connection

from artwork_backfill.jobs.library_artwork_url_backfill.models import Miss, Reason
from artwork_backfill.shared.engine.errors import DatabaseError
from artwork_backfill.shared.engine.session import holds, only_row
from artwork_backfill.shared.engine.tables import Table

#: A run without --attempts-table works without it.
TABLE: Final = Table(
    "artwork_backfill.library_attempt", ("SELECT", "INSERT", "UPDATE"), optional=True
)
_RIGHTS_OF_READING: Final = ("SELECT",)

# Looking for a table in a schema without USAGE is an error.
_MAY_LOOK: Final = """
SELECT current_user,
       (SELECT has_schema_privilege(oid, 'USAGE')
        FROM pg_namespace WHERE nspname = 'artwork_backfill')
"""

#: The condition that a row of `library` with its `artist` is not yet due for another lookup.
IS_RESTING: Final = """EXISTS (
    SELECT
    FROM artwork_backfill.library_attempt attempt
    WHERE attempt.library_schema = %(schema)s
    AND attempt.library_id = library.id
    AND attempt.artist = artist.artist_name
    AND attempt.title = library.album_title
    AND attempt.attempted_at > now() - make_interval(secs => %(retry_after_s)s)
)"""

_NOTE: Final = """
INSERT INTO artwork_backfill.library_attempt
    (library_schema, library_id, artist, title, reason, attempted_at)
SELECT %(schema)s, id, artist, title, reason, now()
FROM unnest(%(ids)s::bigint[], %(artists)s::text[], %(titles)s::text[], %(reasons)s::text[])
    AS missed (id, artist, title, reason)
ON CONFLICT (library_schema, library_id) DO UPDATE
SET artist = excluded.artist, title = excluded.title,
    reason = excluded.reason, attempted_at = excluded.attempted_at
"""

#: Reasons that may differ the next time.
_ALWAYS_ASKED_AGAIN: Final = frozenset({Reason.COULD_NOT_SAY, Reason.NO_NAME})


def check(conn: Connection, *, read_only: bool = False) -> None:
    """Check that the table exists and the role may use it; raise `DatabaseError` otherwise."""
    rights = _RIGHTS_OF_READING if read_only else TABLE.privileges
    role, may_look = only_row(conn, _MAY_LOOK)
    if may_look is False:
        raise DatabaseError(
            f"role {role} may not use {TABLE.name}: ask the owner to GRANT USAGE ON SCHEMA"
            f" {TABLE.schema} TO {role}; GRANT {', '.join(rights)} ON {TABLE.name} TO {role}"
        )
    if not may_look or not holds(conn, "SELECT to_regclass(%s) IS NOT NULL", (TABLE.name,)):
        raise DatabaseError(
            f"there is no table {TABLE.name}: run `artwork-backfill migrate --database wxyc` first,"
            " or omit --attempts-table"
        )
    may_use = "SELECT bool_and(has_table_privilege(%s, name)) FROM unnest(%s::text[]) name"
    if not holds(conn, may_use, (TABLE.name, list(rights))):
        raise DatabaseError(
            f"role {role} may not use {TABLE.name}: ask the owner to GRANT {', '.join(rights)}"
            f" ON {TABLE.name} TO {role}"
        )


def note(conn: Connection, schema: str, misses: Sequence[Miss]) -> None:
    """Store which rows were looked up without a result."""
    noted = [miss for miss in misses if miss.reason not in _ALWAYS_ASKED_AGAIN]
    if not noted:
        return
    conn.execute(
        _NOTE,
        {
            "schema": schema,
            "ids": [miss.row.id for miss in noted],
            "artists": [miss.row.artist for miss in noted],
            "titles": [miss.row.title for miss in noted],
            "reasons": [str(miss.reason) for miss in noted],
        },
    )
