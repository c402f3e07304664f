"""The library's tables: which rows are candidates for a cover, and how its URL gets into one.

All the job's SQL is here. The catalogue's search writes `artwork_url` too, at any moment; its users
must not wait for us, so no statement here ever waits for a row lock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from artwork_backfill.shared.engine.job import Partition
from artwork_backfill.shared.engine.tables import Table
from psycopg import Connection
from psycopg.sql import SQL, Composable, Identifier

#: `library.artwork_url` is a varchar(512).
URL_MAX: Final = 512

# Libraries that are new enough mark the albums that Discogs is known not to have.
_HAS_MARK: Final = """
SELECT EXISTS (
    SELECT
    FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attname = 'discogs_unavailable' AND NOT attisdropped
)
"""
_NOT_MARKED: Final = SQL("library.discogs_unavailable = false")
_NO_MARKS: Final = SQL("true")

_ROWS: Final = """
SELECT library.id, artist.artist_name, library.album_title, library.legacy_release_id,
       library.artwork_url IS NOT NULL AS has_artwork,
       library.artwork_url IS NULL
       AND artist.discogs_artist_id IS NOT NULL
       AND {not_unavailable} AS is_candidate
FROM {library} library
LEFT JOIN {artists} artist ON artist.id = library.artist_id
"""

# A run's share of the library, up to the newest row there was when it began.
_CENSUS: Final = """
SELECT coalesce(max(id), 0),
       coalesce(array_agg(id) FILTER (WHERE has_artwork), '{{}}'),
       coalesce(array_agg(id) FILTER (WHERE is_candidate), '{{}}')
FROM ({rows}) shelf
WHERE (%(last)s::bigint IS NULL OR id <= %(last)s)
AND (%(partitions)s = 1 OR mod(id, %(partitions)s) = %(partition)s)
"""

_PAGE: Final = """
SELECT id, artist_name, album_title, legacy_release_id
FROM ({rows}) shelf
WHERE is_candidate
AND id > %(after)s AND id <= %(last)s
AND (%(partitions)s = 1 OR mod(id, %(partitions)s) = %(partition)s)
ORDER BY id
LIMIT %(size)s
"""

# Waiting for one locked row would keep the others locked meanwhile: hence SKIP LOCKED.
_FILL: Final = """
WITH empty AS (
    SELECT library.id, found.url
    FROM unnest(%(ids)s::bigint[], %(urls)s::text[]) AS found (id, url)
    JOIN {library} library ON library.id = found.id
    WHERE library.artwork_url IS NULL
    FOR NO KEY UPDATE OF library SKIP LOCKED
)
UPDATE {library} library
SET artwork_url = empty.url
FROM empty
WHERE library.id = empty.id AND library.artwork_url IS NULL
RETURNING library.id
"""

_LOOK: Final = """
SELECT id, artwork_url IS NOT NULL
FROM {library} library
WHERE id = ANY (%(ids)s::bigint[])
"""

# A row that is locked just now, by a write that takes milliseconds, is free when asked again. All
# the pauses together are short, because the batch's other rows are locked by us meanwhile.
_PAUSES_S: Final = (0.0, 0.01, 0.03)


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate: a library row without artwork, whose artist Discogs knows.

    `artist` and `title` are as they are in the tables, empty where there is none.
    """

    id: int
    artist: str
    title: str
    legacy_release_id: int | None

    def __str__(self) -> str:
        return f"library row {self.id} ({self.artist} - {self.title})"


@dataclass(frozen=True, slots=True)
class Census:
    """What a share of the library looked like at one moment: row ids, and the newest of them."""

    last: int
    with_artwork: frozenset[int]
    candidates: frozenset[int]


@dataclass(frozen=True, slots=True)
class Filling:
    """What became of the rows that were to be filled, by id.

    `raced` got artwork from somebody else first, `busy` were locked all the time, `gone` do not
    exist any more.
    """

    written: frozenset[int]
    raced: frozenset[int]
    busy: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()


def tables(schema: str) -> tuple[Table, ...]:
    """Return the tables that the job needs, in the schema of that name."""
    return (Table(f"{schema}.library", ("SELECT", "UPDATE")), Table(f"{schema}.artists"))


class Library:
    """The share of one library that belongs to a partition."""

    def __init__(self, schema: str, partition: Partition) -> None:
        self._names: dict[str, Composable] = {
            "library": Identifier(schema, "library"),
            "artists": Identifier(schema, "artists"),
        }
        self._table = tables(schema)[0].quoted
        self._partition = {"partition": partition.index, "partitions": partition.count}
        self._not_unavailable: Composable | None = None

    def take_census(self, conn: Connection, *, last: int | None = None) -> Census:
        """Return what the share looks like now, without what is newer than the row `last`."""
        values: dict[str, int | None] = {"last": last, **self._partition}
        newest, with_artwork, candidates = self._fetch(conn, _CENSUS, values)[0]
        return Census(newest, frozenset(with_artwork), frozenset(candidates))

    def read_page(self, conn: Connection, *, after: int, last: int, size: int) -> list[Row]:
        """Return the first candidates, up to `size`, whose id is above `after`, in its order."""
        values = {"after": after, "last": last, "size": size}
        return [
            Row(id_, artist or "", title or "", legacy_release_id)
            for id_, artist, title, legacy_release_id in self._fetch(
                conn, _PAGE, values | self._partition
            )
        ]

    def fill(self, conn: Connection, urls: Mapping[int, str]) -> Filling:
        """Write URLs by row id, where there is no artwork yet. Never waits for a lock."""
        written: set[int] = set()
        raced: frozenset[int] = frozenset()
        empty = frozenset(urls)
        for pause in _PAUSES_S:
            time.sleep(pause)
            written |= self._fill_unlocked(conn, {id_: urls[id_] for id_ in empty})
            raced, empty = self.look(conn, urls.keys() - written)
            if not empty:
                break
        gone = urls.keys() - written - raced - empty
        return Filling(frozenset(written), raced, busy=empty, gone=frozenset(gone))

    def look(self, conn: Connection, ids: Iterable[int]) -> tuple[frozenset[int], frozenset[int]]:
        """Return which of the rows have artwork, and which have none; the rest is gone."""
        wanted = list(ids)
        if not wanted:
            return frozenset(), frozenset()
        rows = self._fetch(conn, _LOOK, {"ids": wanted})
        return (
            frozenset(id_ for id_, has_artwork in rows if has_artwork),
            frozenset(id_ for id_, has_artwork in rows if not has_artwork),
        )

    def _fill_unlocked(self, conn: Connection, urls: Mapping[int, str]) -> set[int]:
        values = {"ids": list(urls), "urls": list(urls.values())}
        return {id_ for (id_,) in self._fetch(conn, _FILL, values)}

    def _fetch(
        self, conn: Connection, template: str, values: Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        rows = SQL(_ROWS).format(not_unavailable=self._mark(conn), **self._names)
        statement = SQL(template).format(rows=rows, **self._names)
        return conn.execute(statement, values).fetchall()

    def _mark(self, conn: Connection) -> Composable:
        """Return the condition that rows are not marked as unavailable at Discogs."""
        if self._not_unavailable is None:
            found = conn.execute(_HAS_MARK, (self._table,)).fetchone()
            self._not_unavailable = _NOT_MARKED if found and found[0] else _NO_MARKS
        return self._not_unavailable
