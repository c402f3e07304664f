"""Deciding about a batch of rows: from what was found to what is written.

The last checks before a write need the database: whether another album of the artist has the same
picture, and whether the row is still as it was when LML was asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import Connection

from artwork_backfill.jobs.library_artwork_url_backfill import attempts
from artwork_backfill.jobs.library_artwork_url_backfill.changes import ChangesFile, Decided, Fate
from artwork_backfill.jobs.library_artwork_url_backfill.choice import (
    album_key,
    is_certain,
    refuse_shared,
    shared_url,
)
from artwork_backfill.jobs.library_artwork_url_backfill.models import (
    Found,
    Match,
    Miss,
    Row,
)
from artwork_backfill.jobs.library_artwork_url_backfill.writes import Filling, Writes


class Decisions:
    """Decide about batches, and write the decisions.

    Parameters
    ----------
    attempts_of
        The library's schema, under which attempts are stored; `None` to store none.
    changes
        The file that gets a line for each row.
    """

    def __init__(
        self, writes: Writes, *, attempts_of: str | None = None, changes: ChangesFile | None = None
    ) -> None:
        self._writes = writes
        self._attempts_of = attempts_of
        self._changes = changes
        # In a dry run, what would have been written: picture and artist, with the album's title.
        self._would_write: dict[tuple[int, str], tuple[int, str]] = {}

    def write(self, conn: Connection, found: Sequence[Found]) -> list[Decided]:
        """Write the covers of a batch in the open transaction; return the result of every row."""
        try:
            decided = self._fill(conn, found)
        except psycopg.Error:
            # Existing lines about these rows belong to an earlier, failed transaction.
            self.failed([each.row for each in found])
            raise
        if self._changes is not None:
            self._changes.begin(decided)
        return decided

    def preview(self, conn: Connection, found: Sequence[Found]) -> list[Decided]:
        """Return the results that `write` would have, reading only."""
        checked = self._refuse_shared(conn, found)
        return _decide(checked, self._writes.look(conn, _matches(checked)), Fate.WOULD_WRITE)

    def committed(self, decided: Sequence[Decided]) -> None:
        """Record what is certain after the commit."""
        for each in decided:
            if each.fate is Fate.WOULD_WRITE and isinstance(each.found, Match):
                row = each.found.row
                self._would_write[row.artist_id, each.found.url] = (row.id, row.title)
        if self._changes is not None:
            self._changes.end(decided)

    def failed(self, rows: Sequence[Row]) -> None:
        """Record that the transaction of these rows was rolled back."""
        if self._changes is not None:
            self._changes.take_back(row.id for row in rows)

    def _fill(self, conn: Connection, found: Sequence[Found]) -> list[Decided]:
        checked = self._refuse_shared(conn, found)
        filling = self._writes.fill(conn, _matches(checked))
        if self._attempts_of is not None:
            misses = [each for each in checked if isinstance(each, Miss)]
            attempts.note(conn, self._attempts_of, misses)
        return _decide(checked, filling, Fate.WRITTEN)

    def _refuse_shared(self, conn: Connection, found: Sequence[Found]) -> list[Found]:
        checked = refuse_shared(found)
        others = self._writes.others_with(conn, _matches(checked))
        for place, each in enumerate(checked):
            if not isinstance(each, Match) or is_certain(each):
                continue
            having = list(others.get(each.row.id, ()))
            if planned := self._would_write.get((each.row.artist_id, each.url)):
                having.append(planned)
            for id_, title in having:
                if album_key(title) != album_key(each.row.title):
                    checked[place] = shared_url(each, f"library row {id_} ({title}) has it")
                    break
        return checked


def _matches(found: Sequence[Found]) -> list[Match]:
    return [each for each in found if isinstance(each, Match)]


def _decide(found: Sequence[Found], filling: Filling, done: Fate) -> list[Decided]:
    fates = {
        **dict.fromkeys(filling.written, done),
        **dict.fromkeys(filling.raced, Fate.RACED),
        **dict.fromkeys(filling.changed, Fate.CHANGED),
        **dict.fromkeys(filling.busy, Fate.BUSY),
        **dict.fromkeys(filling.gone, Fate.GONE),
    }
    return [
        Decided(each, fates[each.row.id])
        if isinstance(each, Match)
        else Decided(each, Fate.FAILED if each.reason.is_failure else Fate.REFUSED)
        for each in found
    ]
