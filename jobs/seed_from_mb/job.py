"""Copies gids from MusicBrainz's tables into artwork_indexer.audit_entity, inside the server.

A batch is a page: a range of a source's key. No gid ever travels to this process, and memory does
not depend on the size of the tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final
from uuid import UUID

from artwork_backfill.jobs.seed_from_mb.sources import SOURCES, Key, Kind, Source
from artwork_backfill.shared.engine.db import Table
from artwork_backfill.shared.engine.job import Counts, Job, Run, Stop, Verification, Wait
from psycopg import Connection
from psycopg.sql import SQL, Composed

# What comes later than this is not the run's concern.
_SNAPSHOT: Final = """
SELECT (SELECT coalesce(max(id), 0) FROM musicbrainz.release) AS last_release,
       (SELECT coalesce(max(id), 0) FROM musicbrainz.event) AS last_event,
       now() AS started
"""

# How many gids a source has up to a key, and how many of them have a row.
_COUNT: Final = """
SELECT count(*), count(audit_entity.id) FILTER (WHERE NOT ({is_stale}))
FROM ({rows}) source
LEFT JOIN artwork_indexer.audit_entity
       ON entity_type = %(entity_type)s AND audit_entity.gid = source.gid
WHERE (%(partitions)s = 1 OR mod(shard, %(partitions)s) = %(partition)s)
AND key <= %(last)s
"""

# The first key whose gid has no row, and how many keys there are from there on.
_FIRST_MISSING: Final = """
WITH first AS (
    SELECT key
    FROM ({rows}) source
    WHERE (%(partitions)s = 1 OR mod(shard, %(partitions)s) = %(partition)s)
    AND NOT EXISTS (
        SELECT FROM artwork_indexer.audit_entity
        WHERE entity_type = %(entity_type)s AND audit_entity.gid = source.gid
        AND NOT ({is_stale})
    )
    ORDER BY key
    LIMIT 1
)
SELECT (SELECT key FROM first), count(*)
FROM ({rows}) source
WHERE (%(partitions)s = 1 OR mod(shard, %(partitions)s) = %(partition)s)
AND key >= (SELECT key FROM first)
"""

_NEXT_PAGE: Final = """
WITH page AS (
    SELECT key
    FROM ({rows}) source
    WHERE key > %(after)s
    AND (%(partitions)s = 1 OR mod(shard, %(partitions)s) = %(partition)s)
    ORDER BY key
    LIMIT %(size)s
)
SELECT (SELECT key FROM page ORDER BY key DESC LIMIT 1), (SELECT count(*) FROM page)
"""

# In the order of the unique index, of which a page then touches each part once.
_INSERT_PAGE: Final = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority)
SELECT %(entity_type)s, gid, priority
FROM ({rows}) source
WHERE key > %(after)s AND key <= %(last)s
AND (%(partitions)s = 1 OR mod(shard, %(partitions)s) = %(partition)s)
AND {is_wanted}
ORDER BY gid
ON CONFLICT (entity_type, gid) {on_conflict}
"""

_HAS_NO_ROW: Final = """
NOT EXISTS (
    SELECT FROM artwork_indexer.audit_entity
    WHERE entity_type = %(entity_type)s AND audit_entity.gid = source.gid
    AND NOT ({is_stale})
)
"""

# Clean when it was live, or before that was recorded, and merged or deleted since.
_WAS_LIVE: Final = "audit_entity.status = 'clean' AND audit_entity.was_live IS NOT FALSE"

_NEVER: Final = "FALSE"

_MAKE_UNCHECKED: Final = """
DO UPDATE SET status = 'unchecked', priority = greatest(audit_entity.priority, excluded.priority)
WHERE audit_entity.status = 'clean' AND audit_entity.was_live IS NOT FALSE
"""

# The planner would rather build a hash of the whole audit table for every page.
_PROBE_THE_INDEX: Final = """
SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)
"""


@dataclass(frozen=True, slots=True)
class Page:
    """The gids of a source with `after < key <= last`: so many `keys`, or about as many.

    `is_fresh` says that none of them had a row when the run began.
    """

    source: Source
    after: Key
    last: Key
    keys: int
    is_fresh: bool

    def halves(self) -> tuple[Page, ...]:
        """Return the page in two, or nothing when it holds a single key."""
        middle = (int(self.after) + int(self.last)) // 2
        if middle == int(self.after):
            return ()
        cut: Key = UUID(int=middle) if isinstance(self.last, UUID) else middle
        half = replace(self, keys=max(1, self.keys // 2))
        return (replace(half, last=cut), replace(half, after=cut))


@dataclass(slots=True)
class _Progress:
    """How far a source has come, from the `known` gids that it had when the run began."""

    known: int
    is_fresh: bool
    is_done: bool
    claimed: Key
    written: Key


class SeedFromMb(Job[Page, Page]):
    """Every gid of the chosen sources that has no row in audit_entity gets one.

    What is merged or deleted and was found clean while it was live becomes unchecked again.

    Parameters
    ----------
    entity_types, kinds
        Which sources; all of them where empty.
    """

    name: ClassVar[str] = "seed-from-mb"
    tables: ClassVar[tuple[Table, ...]] = (
        Table("musicbrainz.release"),
        Table("musicbrainz.event"),
        Table("musicbrainz.release_meta"),
        Table("musicbrainz.edit"),
        Table("musicbrainz.edit_event"),
        Table("musicbrainz.release_gid_redirect"),
        Table("musicbrainz.event_gid_redirect"),
        Table("musicbrainz.deleted_entity"),
        Table("artwork_indexer.event_queue"),
        Table("artwork_indexer.audit_entity", ("SELECT", "INSERT", "UPDATE")),
    )
    one_snapshot: ClassVar[bool] = False
    batch_size: ClassVar[int] = 50_000
    max_batch_size: ClassVar[int] = 200_000

    def __init__(
        self, run: Run, entity_types: Iterable[str] = (), kinds: Iterable[Kind] = ()
    ) -> None:
        super().__init__(run)
        wanted_types, wanted_kinds = set(entity_types), set(kinds)
        self._sources = [
            source
            for source in SOURCES
            if (not wanted_types or source.entity_type in wanted_types)
            and (not wanted_kinds or source.kind in wanted_kinds)
        ]
        self._snapshot: dict[str, Any] = {}
        self._progress: dict[Source, _Progress] = {}

    def count(self, conn: Connection) -> int:
        self._snapshot = _take_snapshot(conn)
        expected = 0
        for source in self._sources:
            known, seeded = self._ask(conn, _COUNT, source, last=source.end)
            start, keys = source.origin, known
            if 0 < seeded < known:
                first, keys = self._find_gap(conn, source)
                start = _before(first)
            is_done = seeded == known
            self._progress[source] = _Progress(known, seeded == 0, is_done, start, start)
            expected += 0 if is_done else keys
        return expected

    def claim(self, conn: Connection, size: int) -> Sequence[Page] | Wait | Stop:
        for source, progress in self._progress.items():
            if progress.is_done:
                continue
            last, keys = self._ask(conn, _NEXT_PAGE, source, after=progress.claimed, size=size)
            if keys:
                return [Page(source, progress.claimed, last, keys, progress.is_fresh)]
            progress.is_done = True
        return []

    def claimed(self, items: Sequence[Page]) -> None:
        for page in items:
            self._progress[page.source].claimed = page.last

    def write(self, conn: Connection, results: Sequence[Page]) -> Counts:
        conn.execute(_PROBE_THE_INDEX)
        counts: Counter[str] = Counter()
        for page in results:
            # Where no gid had a row, looking each one up first would only cost time: whoever was
            # quicker meanwhile is caught by ON CONFLICT.
            is_wanted = SQL("true") if page.is_fresh else _format(_HAS_NO_ROW, page.source)
            is_live = page.source.kind is Kind.LIVE
            statement = SQL(_INSERT_PAGE).format(
                rows=SQL(page.source.rows),
                is_wanted=is_wanted,
                on_conflict=SQL("DO NOTHING" if is_live else _MAKE_UNCHECKED),
            )
            values = self._values(page.source) | {"after": page.after, "last": page.last}
            inserted = conn.execute(statement, values).rowcount
            counts.update(written=inserted, skipped=max(0, page.keys - inserted))
        return counts

    def committed(self, results: Sequence[Page]) -> None:
        for page in results:
            self._progress[page.source].written = page.last

    def verify(self, conn: Connection) -> Sequence[Verification]:
        self._snapshot = self._snapshot or _take_snapshot(conn)
        return [self._verify_source(conn, source) for source in self._sources]

    def rows(self, item: Page) -> int:
        return item.keys

    def split(self, result: Page) -> Sequence[Page]:
        return result.halves()

    def describe(self, result: Page) -> str:
        return f"{result.source}, row {result.last}"

    def _verify_source(self, conn: Connection, source: Source) -> Verification:
        progress = self._progress.get(source)
        name = f"{source} in audit_entity"
        if progress is not None and not progress.is_done:
            # A run that was stopped answers for what it reached, not for what lies behind that.
            known, seeded = self._ask(conn, _COUNT, source, last=progress.written)
            return Verification.equal(name, known, seeded, "only as far as this run came")
        known, seeded = self._ask(conn, _COUNT, source, last=source.end)
        came = 0 if progress is None else max(0, known - progress.known)
        if 0 < known - seeded <= came:
            # No id and no date tells when a gid was merged away; the growth of the table does.
            detail = f"{known - seeded:,} came during the run and wait for the next one"
            return Verification(name, known, seeded, detail, ok=True)
        return Verification.equal(name, known, seeded)

    def _find_gap(self, conn: Connection, source: Source) -> tuple[Key, int]:
        """Return the first key whose gid has no row, and how many keys there are from there on."""
        first, keys = self._ask(conn, _FIRST_MISSING, source)
        # Since it was counted, somebody may have filled every gap.
        return (source.end, 0) if first is None else (first, keys)

    def _ask(
        self, conn: Connection, template: str, source: Source, **values: object
    ) -> tuple[Any, ...]:
        statement = _format(template, source)
        row = conn.execute(statement, self._values(source) | values).fetchone()
        assert row is not None  # noqa: S101 - an aggregate without GROUP BY has exactly one row
        return row

    def _values(self, source: Source) -> dict[str, Any]:
        partition = self.run.options.partition
        return self._snapshot | {
            "entity_type": source.entity_type,
            "partition": partition.index,
            "partitions": partition.count,
        }


def _format(template: str, source: Source) -> Composed:
    is_stale = _NEVER if source.kind is Kind.LIVE else _WAS_LIVE
    return SQL(template).format(rows=SQL(source.rows), is_stale=SQL(is_stale))


def _take_snapshot(conn: Connection) -> dict[str, Any]:
    row = conn.execute(_SNAPSHOT).fetchone()
    assert row is not None  # noqa: S101 - a query without FROM has exactly one row
    return dict(zip(("last_release", "last_event", "started"), row, strict=True))


def _before(key: Key) -> Key:
    return UUID(int=key.int - 1) if isinstance(key, UUID) else key - 1
