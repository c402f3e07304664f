"""The stored position of a scan, in artwork_indexer.ia_scan, from which the next run continues."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from psycopg import Connection
from psycopg.rows import class_row

from artwork_backfill.jobs.seed_from_ia_scan.pages import Page
from artwork_backfill.shared.engine.job import Partition, RunFailed

_LOAD: Final = """
SELECT has_rights, cursor, pages, identifiers, foreign_identifiers, gids, total
FROM artwork_indexer.ia_scan
WHERE collection = %(collection)s
AND partition_index = %(partition)s AND partition_count = %(partitions)s
"""

# Absolute numbers, so that a retried transaction counts nothing twice. If another run has taken
# over the scan in the meantime, its checkpoint stays.
_STORE: Final = """
INSERT INTO artwork_indexer.ia_scan AS scan (
    collection, partition_index, partition_count, has_rights,
    cursor, pages, identifiers, foreign_identifiers, gids, total)
VALUES (
    %(collection)s, %(partition)s, %(partitions)s, %(has_rights)s,
    %(cursor)s, %(pages)s, %(identifiers)s, %(foreign_identifiers)s, %(gids)s, %(total)s)
ON CONFLICT (collection, partition_index, partition_count) DO UPDATE
SET has_rights = excluded.has_rights,
    cursor = excluded.cursor,
    pages = excluded.pages,
    identifiers = excluded.identifiers,
    foreign_identifiers = excluded.foreign_identifiers,
    gids = excluded.gids,
    total = excluded.total,
    started_at = CASE WHEN excluded.pages = 1 THEN now() ELSE scan.started_at END,
    last_page_at = now()
WHERE %(pages)s = 1 OR scan.pages IN (%(pages)s, %(pages)s - 1)
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """The position and the counts of a scan.

    Parameters
    ----------
    has_rights
        Whether the scan uses the keys of an account.
    cursor
        Leads to the next page; `None` before the first and after the last.
    gids
        The number of distinct gids. Each run of an interrupted scan counts its own.
    total
        The size of the collection according to archive.org.
    """

    has_rights: bool
    cursor: str | None = None
    pages: int = 0
    identifiers: int = 0
    foreign_identifiers: int = 0
    gids: int = 0
    total: int | None = None

    @property
    def is_finished(self) -> bool:
        return self.pages > 0 and self.cursor is None

    def may_go_on(self, has_rights: bool) -> bool:
        """Return whether the next run may continue here, because it sees the same items."""
        return self.cursor is not None and self.has_rights == has_rights

    def after(self, page: Page, gids: int) -> Standing:
        """Return the position after a page, with `gids` distinct gids in all."""
        # An enumeration whose cursor had expired starts over.
        before = Standing(self.has_rights) if page.number == 1 else self
        return Standing(
            has_rights=self.has_rights,
            cursor=page.cursor,
            pages=page.number,
            identifiers=before.identifiers + page.identifiers,
            foreign_identifiers=before.foreign_identifiers + page.foreign,
            gids=gids,
            total=page.total if page.total is not None else before.total,
        )


def load(conn: Connection, collection: str, partition: Partition) -> Standing | None:
    """Return the position of the last scan of a collection, or None."""
    with conn.cursor(row_factory=class_row(Standing)) as cursor:
        return cursor.execute(_LOAD, _key(collection, partition)).fetchone()


def store(conn: Connection, collection: str, partition: Partition, standing: Standing) -> None:
    """Store the position of a scan.

    Raises
    ------
    RunFailed
        Another run has scanned the same partition in the meantime.
    """
    if not conn.execute(_STORE, _key(collection, partition) | asdict(standing)).rowcount:
        raise RunFailed(
            f"another run is scanning {collection} from another position: wait until one of them"
            " has ended, and run this again"
        )


def _key(collection: str, partition: Partition) -> dict[str, object]:
    return {
        "collection": collection,
        "partition": partition.index,
        "partitions": partition.count,
    }
