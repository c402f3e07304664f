"""The stored position in the Changes API, in `artwork_indexer.ia_changes`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final

from psycopg import Connection
from psycopg.rows import class_row

from artwork_backfill.shared.engine.job import Partition, RunFailed

_LOAD: Final = """
SELECT {columns}
FROM artwork_indexer.ia_changes
WHERE partition_index = %(partition)s AND partition_count = %(partitions)s
"""

# Absolute numbers, so that a retried transaction counts nothing twice. A run that starts from a
# date starts over; otherwise no other run may have moved the position in the meantime.
_STORE: Final = """
INSERT INTO artwork_indexer.ia_changes AS known (
    partition_index, partition_count, {columns})
VALUES (%(partition)s, %(partitions)s, {values})
ON CONFLICT (partition_index, partition_count) DO UPDATE
SET ({columns}) = ROW ({excluded}), last_page_at = now()
WHERE %(is_first)s
OR known.token IS NOT DISTINCT FROM %(before)s
OR (known.token, known.pages) IS NOT DISTINCT FROM (%(token)s, %(pages)s)
"""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A position in the changes of archive.org.

    Parameters
    ----------
    started_at
        When this was started, from a date or from the beginning.
    token, start_date
        What to request next; one of them is set. See `ChangesClient.page`.
    is_cold
        Whether the pages still list every item.
    pages, identifiers, gids
        What has been read since the start, and how many of the identifiers were gids.
    caught_up_at
        When the service last said that no more changes were available.
    """

    started_at: datetime
    token: str | None = None
    start_date: str | None = None
    is_cold: bool = False
    pages: int = 0
    identifiers: int = 0
    gids: int = 0
    caught_up_at: datetime | None = None


def load(conn: Connection, partition: Partition) -> Checkpoint | None:
    """Return the position at which an earlier run stopped, or None if there was none."""
    query = _LOAD.format(columns=", ".join(_COLUMNS))
    with conn.cursor(row_factory=class_row(Checkpoint)) as cursor:
        return cursor.execute(query.encode(), partition.values).fetchone()


def store(conn: Connection, partition: Partition, before: Checkpoint, after: Checkpoint) -> None:
    """Store the position, in the transaction of the rows that it covers.

    Raises
    ------
    RunFailed
        Another run has moved the position in the meantime.
    """
    query = _STORE.format(
        columns=", ".join(_COLUMNS),
        values=", ".join(f"%({name})s" for name in _COLUMNS),
        excluded=", ".join(f"excluded.{name}" for name in _COLUMNS),
    )
    values = {name: getattr(after, name) for name in _COLUMNS}
    values |= partition.values | {"before": before.token, "is_first": before.pages == 0}
    if not conn.execute(query.encode(), values).rowcount:
        raise RunFailed(
            "another run follows archive.org's changes from the same position: wait until one of"
            " them has ended, and run this again"
        )


def day(moment: datetime) -> str:
    """Return a day (in UTC) in the format of the service."""
    return moment.astimezone(UTC).strftime("%Y%m%d")


_COLUMNS: Final = tuple(field.name for field in fields(Checkpoint))
