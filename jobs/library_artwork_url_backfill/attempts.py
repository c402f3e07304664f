"""The table of attempts: which rows were looked up without a result, and when.

It is ours, in a schema of its own beside the library's, and `migrate --database wxyc` creates it
(`sql/wxyc`). Rows without a result are not looked up again until later. A row is always looked up
again if LML gave no answer for it, or if it was renamed since.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from psycopg import Connection

from artwork_backfill.jobs.library_artwork_url_backfill.models import Found, Miss, Reason
from artwork_backfill.shared.engine.tables import Table

#: A run without --attempts-table works without it.
TABLE: Final = Table(
    "artwork_backfill.library_attempt", ("SELECT", "INSERT", "UPDATE"), optional=True
)

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


def note(conn: Connection, schema: str, found: Sequence[Found]) -> None:
    """Store which rows were looked up without a result."""
    noted = [
        each for each in found if isinstance(each, Miss) and each.reason not in _ALWAYS_ASKED_AGAIN
    ]
    if not noted:
        return
    values = {
        "schema": schema,
        "ids": [miss.row.id for miss in noted],
        "artists": [miss.row.artist for miss in noted],
        "titles": [miss.row.title for miss in noted],
        "reasons": [str(miss.reason) for miss in noted],
    }
    conn.execute(_NOTE, values)
