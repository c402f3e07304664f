"""Writing to the library so that its users never wait for us.

A write to `library` updates the catalogue's watermark, a single row that stays locked until the
commit: a writer that holds it makes all others wait. Therefore the watermark is locked first and
without waiting, rows that are locked by others are skipped, and nothing waits while a lock is held.
If there is nothing to write, no statement is sent, because even one that changes no row updates the
watermark.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection
from psycopg.sql import SQL

from artwork_backfill.jobs.library_artwork_url_backfill.library import Shape
from artwork_backfill.jobs.library_artwork_url_backfill.models import RowOutcome

# Fails at once if another open transaction has written to the library; the runner then retries all
# of it later. This locks the same rows as the trigger's UPDATE.
_TAKE_WATERMARK: Final = "SELECT FROM {watermark} FOR NO KEY UPDATE NOWAIT"

_CHANGES: Final = """
unnest(%(ids)s::bigint[], %(before)s::text[], %(after)s::text[],
       %(artists)s::text[], %(titles)s::text[])
    WITH ORDINALITY AS change (id, before, after, artist, title, position)
"""

_IS_AS_LOOKED_UP: Final = """
(change.title IS NULL
 OR (coalesce(library.album_title, '') = change.title
     AND coalesce(artist.artist_name, '') = change.artist
     AND {is_available}))
"""

_LOOK: Final = """
SELECT CASE
       WHEN library.id IS NULL THEN 'gone'
       WHEN library.artwork_url IS DISTINCT FROM change.before THEN 'raced'
       WHEN NOT {is_as_looked_up} THEN 'changed'
       ELSE 'written'
       END
FROM {changes}
LEFT JOIN {library} library ON library.id = change.id
LEFT JOIN {artists} artist ON artist.id = library.artist_id
ORDER BY change.position
"""

_LOCK: Final = """
SELECT library.id
FROM {changes}
JOIN {library} library ON library.id = change.id
JOIN {artists} artist ON artist.id = library.artist_id
WHERE library.artwork_url IS NOT DISTINCT FROM change.before
AND {is_as_looked_up}
FOR NO KEY UPDATE OF library SKIP LOCKED
"""

_WRITE: Final = """
UPDATE {library} library
SET artwork_url = change.after
FROM {changes}
WHERE library.id = change.id AND library.artwork_url IS NOT DISTINCT FROM change.before
RETURNING library.id
"""

#: How long to wait for a locked row, in seconds; it is usually free again by then. The other rows
#: of the batch and the watermark stay locked by us during that time.
_PAUSE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Change:
    """The artwork of a row before and after, `None` for none.

    If `artist` and `title` are given, the row must still have them and be available at Discogs.
    """

    library_id: int
    before: str | None
    after: str | None
    artist: str | None = None
    title: str | None = None


def write(conn: Connection, shape: Shape, changes: Collection[Change]) -> dict[Change, RowOutcome]:
    """Make those changes whose rows are still as they were.

    Raises
    ------
    psycopg.errors.LockNotAvailable
        Another open transaction has written to the library: retry later.
    """
    # Most rows that will not be written are known without a lock.
    outcomes = look(conn, shape, changes)
    wanted = [change for change in changes if outcomes[change] is RowOutcome.WRITTEN]
    if not wanted:
        return outcomes
    if shape.has_watermark:
        conn.execute(shape.statement(_TAKE_WATERMARK))
    written = _write_unlocked(conn, shape, wanted)
    if len(written) < len(wanted):
        time.sleep(_PAUSE_S)
        written |= _write_unlocked(conn, shape, [each for each in wanted if each not in written])
    outcomes |= look(conn, shape, [each for each in changes if each not in written])
    return {
        change: RowOutcome.BUSY
        if outcome is RowOutcome.WRITTEN and change not in written
        else outcome
        for change, outcome in outcomes.items()
    }


def look(conn: Connection, shape: Shape, changes: Collection[Change]) -> dict[Change, RowOutcome]:
    """Return the outcomes that `write` would have, reading only."""
    rows = _execute(conn, shape, _LOOK, changes)
    return {change: RowOutcome(code) for change, (code,) in zip(changes, rows, strict=True)}


def _write_unlocked(conn: Connection, shape: Shape, changes: Collection[Change]) -> set[Change]:
    locked = {id_ for (id_,) in _execute(conn, shape, _LOCK, changes)}
    changes = [change for change in changes if change.library_id in locked]
    written = {id_ for (id_,) in _execute(conn, shape, _WRITE, changes)}
    return {change for change in changes if change.library_id in written}


def _execute(
    conn: Connection, shape: Shape, template: str, changes: Collection[Change]
) -> list[tuple[Any, ...]]:
    if not changes:
        return []
    values: Mapping[str, object] = {
        "ids": [change.library_id for change in changes],
        "before": [change.before for change in changes],
        "after": [change.after for change in changes],
        "artists": [change.artist for change in changes],
        "titles": [change.title for change in changes],
    }
    statement = shape.statement(
        template, changes=SQL(_CHANGES), is_as_looked_up=shape.statement(_IS_AS_LOOKED_UP)
    )
    return conn.execute(statement, values).fetchall()
