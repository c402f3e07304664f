"""The stored position of a scan, in artwork_indexer.ia_scan, from which the next run continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Final

from psycopg import Connection
from psycopg.rows import class_row

from artwork_backfill.jobs.seed_from_ia_scan.distinct import Distinct
from artwork_backfill.jobs.seed_from_ia_scan.pages import Page, Pages
from artwork_backfill.shared.audit.archives import ArtArchive
from artwork_backfill.shared.engine.job import Partition, RunFailed
from artwork_backfill.shared.id_set import IdSet

_LOAD: Final = """
SELECT {columns}
FROM artwork_indexer.ia_scan
WHERE collection = %(collection)s
AND partition_index = %(partition)s AND partition_count = %(partitions)s
"""

# Absolute numbers, so that a retried transaction counts nothing twice. If another run has taken
# over the scan in the meantime, its checkpoint stays.
_STORE: Final = """
INSERT INTO artwork_indexer.ia_scan AS scan (
    collection, partition_index, partition_count, {columns})
VALUES (%(collection)s, %(partition)s, %(partitions)s, {values})
ON CONFLICT (collection, partition_index, partition_count) DO UPDATE
SET ({columns}) = ROW ({excluded}),
    started_at = CASE WHEN excluded.pages = 1 THEN now() ELSE scan.started_at END,
    last_page_at = now()
WHERE %(pages)s = 1 OR scan.pages IN (%(pages)s, %(pages)s - 1)
"""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The position and the counts of a scan.

    Parameters
    ----------
    has_rights
        Whether the scan uses the keys of an account.
    cursor
        Leads to the next page; `None` before the first and after the last.
    identifiers, foreign_identifiers
        The numbers of identifiers, including repeated ones.
    gids
        The number of distinct gids.
    total
        The size of the collection according to archive.org.
    seen_gids, seen_others
        The counts of distinct gids and of all other identifiers, see `Distinct`. `None` for a scan
        that began before they were stored.
    """

    has_rights: bool
    cursor: str | None = None
    pages: int = 0
    identifiers: int = 0
    foreign_identifiers: int = 0
    gids: int = 0
    total: int | None = None
    seen_gids: bytes | None = b""
    seen_others: bytes | None = b""

    @property
    def distinct_identifiers(self) -> int:
        """The number of distinct identifiers, as far as it is known."""
        if self.seen_gids is None or self.seen_others is None:
            return self.identifiers
        others = Distinct(self.seen_others).count(self.identifiers)
        return others + Distinct(self.seen_gids).count(self.identifiers - others)

    @property
    def is_finished(self) -> bool:
        return self.pages > 0 and self.cursor is None

    def may_continue(self, has_rights: bool) -> bool:
        """Return whether the next run may continue here.

        It must see the same items, and the identifiers seen so far must be known.
        """
        is_known = self.seen_gids is not None and self.seen_others is not None
        return self.cursor is not None and self.has_rights == has_rights and is_known

    def after(self, page: Page, gids: int) -> Checkpoint:
        """Return the position after a page, with at most `gids` distinct gids in all."""
        # An enumeration whose cursor had expired starts over.
        before = Checkpoint(self.has_rights) if page.number == 1 else self
        seen_gids = Distinct(before.seen_gids or b"")
        seen_gids.update(page.gid_numbers)
        seen_others = Distinct(before.seen_others or b"")
        seen_others.update(page.other_numbers)
        return Checkpoint(
            has_rights=self.has_rights,
            cursor=page.cursor,
            pages=page.number,
            identifiers=before.identifiers + page.identifiers,
            foreign_identifiers=before.foreign_identifiers + page.foreign,
            # Each run of an interrupted scan counts its own gids, some of them a second time.
            gids=seen_gids.count(gids),
            total=page.total if page.total is not None else before.total,
            seen_gids=seen_gids.stored(),
            seen_others=seen_others.stored(),
        )


_COLUMNS: Final = tuple(field.name for field in fields(Checkpoint))


def load(conn: Connection, collection: str, partition: Partition) -> Checkpoint | None:
    """Return the position of the last scan of a collection, or None."""
    query = _LOAD.format(columns=", ".join(_COLUMNS))
    with conn.cursor(row_factory=class_row(Checkpoint)) as cursor:
        values = {"collection": collection, **partition.values}
        return cursor.execute(query.encode(), values).fetchone()


def store(conn: Connection, collection: str, partition: Partition, checkpoint: Checkpoint) -> None:
    """Store the position of a scan.

    Raises
    ------
    RunFailed
        Another run has scanned the same partition in the meantime.
    """
    query = _STORE.format(
        columns=", ".join(_COLUMNS),
        values=", ".join(f"%({name})s" for name in _COLUMNS),
        excluded=", ".join(f"excluded.{name}" for name in _COLUMNS),
    )
    values = {"collection": collection, **partition.values, **asdict(checkpoint)}
    if not conn.execute(query.encode(), values).rowcount:
        raise RunFailed(
            f"another run is scanning {collection} from another position: wait until one of them"
            " has ended, and run this again"
        )


@dataclass(slots=True)
class Scan:
    """The scan of one collection. Everything is committed, except for `pages`, which reads ahead.

    Parameters
    ----------
    checkpoint
        The position; at first, that of an interrupted run.
    gids_before
        The number of distinct gids of the interrupted run.
    ids
        Rows of audit_entity that this run has met, one for each distinct gid.
    absent
        The number of gids without a row that a verification has met.
    """

    archive: ArtArchive
    pages: Pages
    checkpoint: Checkpoint
    gids_before: int = 0
    ids: IdSet = field(default_factory=IdSet)
    absent: int = 0

    @property
    def has_begun(self) -> bool:
        return self.checkpoint.pages > 0

    def count_new(self, ids: Sequence[int]) -> int:
        """Return how many rows this run has not met before."""
        return sum(id_ not in self.ids for id_ in ids)

    def after(self, page: Page, new: int) -> Checkpoint:
        """Return the position after a page with `new` new rows is committed."""
        met = len(self.ids)
        if page.number > 1:
            # A dry run has met no rows.
            met = max(self.gids_before + met, self.checkpoint.gids)
        return self.checkpoint.after(page, met + new)

    def take(self, page: Page, checkpoint: Checkpoint, ids: Sequence[int]) -> None:
        """Record that a page, or a part of one, is committed, and the rows that it met."""
        self.ids.update(ids)
        if page.is_part:
            return
        self.checkpoint = checkpoint
        if page.number == 1:
            # The interrupted run's cursor had expired, so its gids are counted again.
            self.gids_before = 0
