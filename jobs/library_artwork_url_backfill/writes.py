"""Writing to the library so that its users never wait for us.

A write to `library` updates the catalogue's watermark, a single row that stays locked until the
commit: a writer that holds it makes all others wait. Therefore the watermark is locked first and
without waiting, rows that are locked by others are skipped, and nothing waits while a lock is held.
If there is nothing to write, no statement is sent, because even one that changes no row updates the
watermark.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection
from psycopg.sql import SQL, Composed

from artwork_backfill.jobs.library_artwork_url_backfill.library import Shape, is_available
from artwork_backfill.jobs.library_artwork_url_backfill.models import Match

# Fails at once if another open transaction has written to the library; the runner then retries all
# of it later. This locks the same rows as the trigger's UPDATE.
_TAKE_WATERMARK: Final = "SELECT FROM {watermark} FOR NO KEY UPDATE NOWAIT"

# Rows that are still as they were when LML was asked about them.
_LOCK: Final = """
SELECT library.id
FROM unnest(%(ids)s::bigint[], %(artists)s::text[], %(titles)s::text[])
    AS asked (id, artist, title)
JOIN {library} library ON library.id = asked.id
JOIN {artists} artist ON artist.id = library.artist_id
WHERE library.artwork_url IS NULL
AND coalesce(library.album_title, '') = asked.title
AND coalesce(artist.artist_name, '') = asked.artist
AND {is_available}
FOR NO KEY UPDATE OF library SKIP LOCKED
"""

_FILL: Final = """
UPDATE {library} library
SET artwork_url = found.url
FROM unnest(%(ids)s::bigint[], %(urls)s::text[]) AS found (id, url)
WHERE library.id = found.id AND library.artwork_url IS NULL
RETURNING library.id
"""

_LOOK: Final = """
SELECT library.id,
       library.artwork_url IS NOT NULL,
       coalesce(library.album_title, '') = asked.title
       AND coalesce(artist.artist_name, '') = asked.artist
       AND {is_available}
FROM unnest(%(ids)s::bigint[], %(artists)s::text[], %(titles)s::text[])
    AS asked (id, artist, title)
JOIN {library} library ON library.id = asked.id
JOIN {artists} artist ON artist.id = library.artist_id
"""

_LOCK_FILLED: Final = """
SELECT library.id
FROM unnest(%(ids)s::bigint[], %(urls)s::text[]) AS noted (id, url)
JOIN {library} library ON library.id = noted.id
WHERE library.artwork_url = noted.url
FOR NO KEY UPDATE OF library SKIP LOCKED
"""

_EMPTY: Final = """
UPDATE {library} library
SET artwork_url = NULL
FROM unnest(%(ids)s::bigint[], %(urls)s::text[]) AS noted (id, url)
WHERE library.id = noted.id AND library.artwork_url = noted.url
RETURNING library.id
"""

_LOOK_AT_URLS: Final = """
SELECT library.id, library.artwork_url IS NOT DISTINCT FROM noted.url
FROM unnest(%(ids)s::bigint[], %(urls)s::text[]) AS noted (id, url)
JOIN {library} library ON library.id = noted.id
"""

_OTHERS_WITH: Final = """
SELECT found.id, other.id, other.album_title
FROM unnest(%(ids)s::bigint[], %(artist_ids)s::bigint[], %(urls)s::text[])
    AS found (id, artist_id, url)
JOIN {library} other
ON other.artist_id = found.artist_id AND other.artwork_url = found.url AND other.id <> found.id
ORDER BY found.id, other.id
"""

_COUNT_EMPTY: Final = """
SELECT count(*) FROM {library} library WHERE id = ANY (%(ids)s::bigint[]) AND artwork_url IS NULL
"""

#: How long to wait for a locked row, in seconds; it is usually free again by then. The other rows
#: of the batch and the watermark stay locked by us during that time.
_PAUSE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Filling:
    """The results of filling rows, by id; in a dry run, the results it would have.

    `raced` got artwork from another writer first, `changed` were renamed or marked as unavailable
    since they were looked up, `busy` were locked, `gone` do not exist any more.
    """

    written: frozenset[int] = frozenset()
    raced: frozenset[int] = frozenset()
    changed: frozenset[int] = frozenset()
    busy: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Emptying:
    """The results of emptying rows, by id.

    `other` hold another URL now, or none; `busy` were locked; `gone` do not exist any more.
    """

    emptied: frozenset[int] = frozenset()
    other: frozenset[int] = frozenset()
    busy: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()


class Writes:
    """Write covers to one library, and empty rows again."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def fill(self, conn: Connection, matches: Sequence[Match]) -> Filling:
        """Write the covers to those rows that are still as they were when looked up.

        Raises
        ------
        psycopg.errors.LockNotAvailable
            Another open transaction has written to the library: retry later.
        """
        if not matches:
            return Filling()
        # Most rows that will not be written are known without a lock.
        before = self.look(conn, matches)
        if not before.written:
            return before
        self._take_watermark(conn)
        urls = {match.row.id: match.url for match in matches if match.row.id in before.written}
        written = self._fill_unlocked(conn, matches, urls)
        if len(written) < len(urls):
            time.sleep(_PAUSE_S)
            left = {id_: url for id_, url in urls.items() if id_ not in written}
            written |= self._fill_unlocked(conn, matches, left)
        rest = self.look(conn, [match for match in matches if match.row.id not in written])
        return Filling(
            written, rest.raced, rest.changed, busy=frozenset(rest.written), gone=rest.gone
        )

    def look(self, conn: Connection, matches: Sequence[Match]) -> Filling:
        """Return the results that `fill` would have, reading only."""
        if not matches:
            return Filling()
        rows = self._execute(conn, _LOOK, _asked(matches))
        raced = frozenset(id_ for id_, has_artwork, _ in rows if has_artwork)
        changed = frozenset(id_ for id_, _, as_asked in rows if not as_asked) - raced
        there = frozenset(id_ for id_, _, _ in rows)
        gone = frozenset(match.row.id for match in matches) - there
        return Filling(there - raced - changed, raced, changed, gone=gone)

    def empty(self, conn: Connection, urls: Mapping[int, str]) -> Emptying:
        """Empty those rows that still hold the URL. Raises as `fill`."""
        before = self.look_at_urls(conn, urls)
        if not before.emptied:
            return before
        self._take_watermark(conn)
        held = {id_: urls[id_] for id_ in before.emptied}
        locked = [id_ for (id_,) in self._execute(conn, _LOCK_FILLED, _noted(held))]
        emptied: frozenset[int] = frozenset()
        if locked:
            chosen = _noted({id_: urls[id_] for id_ in locked})
            emptied = frozenset(id_ for (id_,) in self._execute(conn, _EMPTY, chosen))
        rest = self.look_at_urls(
            conn, {id_: url for id_, url in urls.items() if id_ not in emptied}
        )
        return Emptying(emptied, rest.other, busy=rest.emptied, gone=rest.gone)

    def look_at_urls(self, conn: Connection, urls: Mapping[int, str]) -> Emptying:
        """Return the results that `empty` would have, reading only."""
        if not urls:
            return Emptying()
        rows = self._execute(conn, _LOOK_AT_URLS, _noted(urls))
        held = frozenset(id_ for id_, is_held in rows if is_held)
        there = frozenset(id_ for id_, _ in rows)
        return Emptying(held, there - held, gone=frozenset(urls) - there)

    def others_with(
        self, conn: Connection, matches: Sequence[Match]
    ) -> dict[int, list[tuple[int, str]]]:
        """Return the other rows of the same artist that have a URL, as ids and titles."""
        if not matches:
            return {}
        values = {
            "ids": [match.row.id for match in matches],
            "artist_ids": [match.row.artist_id for match in matches],
            "urls": [match.url for match in matches],
        }
        others: dict[int, list[tuple[int, str]]] = {}
        for id_, other, title in self._execute(conn, _OTHERS_WITH, values):
            others.setdefault(id_, []).append((other, title or ""))
        return others

    def count_empty(self, conn: Connection, ids: Sequence[int]) -> int:
        """Return how many of these rows have no artwork."""
        count: int = self._execute(conn, _COUNT_EMPTY, {"ids": list(ids)})[0][0]
        return count

    def _take_watermark(self, conn: Connection) -> None:
        if self._shape.has_watermark:
            conn.execute(self._statement(_TAKE_WATERMARK))

    def _fill_unlocked(
        self, conn: Connection, matches: Sequence[Match], urls: Mapping[int, str]
    ) -> frozenset[int]:
        asked = [match for match in matches if match.row.id in urls]
        locked = [id_ for (id_,) in self._execute(conn, _LOCK, _asked(asked))]
        if not locked:
            return frozenset()
        chosen = _noted({id_: urls[id_] for id_ in locked})
        return frozenset(id_ for (id_,) in self._execute(conn, _FILL, chosen))

    def _execute(
        self, conn: Connection, template: str, values: Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        return conn.execute(self._statement(template), values).fetchall()

    def _statement(self, template: str) -> Composed:
        return SQL(template).format(
            library=self._shape.identifier("library"),
            artists=self._shape.identifier("artists"),
            watermark=self._shape.identifier("library_watermark"),
            is_available=is_available(self._shape),
        )


def _asked(matches: Sequence[Match]) -> dict[str, object]:
    return {
        "ids": [match.row.id for match in matches],
        "artists": [match.row.artist for match in matches],
        "titles": [match.row.title for match in matches],
    }


def _noted(urls: Mapping[int, str]) -> dict[str, object]:
    return {"ids": list(urls), "urls": list(urls.values())}
