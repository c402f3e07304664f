"""The seed-from-mb job: copy gids from MusicBrainz's tables to audit_entity inside the server.

A batch is a page: a range of keys of one kind of gids. No gid is transferred to this process, and
the memory use does not depend on the size of the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed

from artwork_backfill.jobs.seed_from_mb.gids import GIDS, Gids, Key, Kind
from artwork_backfill.shared import seeding
from artwork_backfill.shared.engine.job import Job, Left, Run, RunResult, Verification, Written
from artwork_backfill.shared.engine.session import only_row
from artwork_backfill.shared.engine.sources import Keyset
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.reaudit import LEFT_AS_IS
from artwork_backfill.shared.settings import Settings

# Gids that are added later are left to the next run.
_SNAPSHOT: Final = """
SELECT (SELECT coalesce(max(id), 0) FROM musicbrainz.release) AS last_release,
       (SELECT coalesce(max(id), 0) FROM musicbrainz.event) AS last_event,
       now() AS started
"""

# The gids of this partition.
_SOURCE: Final = """
(SELECT * FROM ({rows}) every
 WHERE %(partitions)s = 1 OR mod(shard, %(partitions)s) = %(partition)s) source
"""

_HAS_NO_ROW: Final = """
NOT EXISTS (
    SELECT FROM artwork_indexer.audit_entity
    WHERE entity_type = %(entity_type)s AND audit_entity.gid = source.gid
    AND NOT ({is_stale})
)
"""

# The number of gids up to a key, and how many of them have a row.
_COUNT: Final = """
SELECT count(*), count(audit_entity.id) FILTER (WHERE NOT ({is_stale}))
FROM {source}
LEFT JOIN artwork_indexer.audit_entity
       ON entity_type = %(entity_type)s AND audit_entity.gid = source.gid
WHERE key <= %(last)s
"""

# The first key whose gid has no row, and the number of keys from there on.
_FIRST_MISSING: Final = """
WITH first AS (SELECT key FROM {source} WHERE {has_no_row} ORDER BY key LIMIT 1)
SELECT (SELECT key FROM first), count(*)
FROM {source}
WHERE key >= (SELECT key FROM first)
"""

_NEXT_PAGE: Final = """
WITH page AS (SELECT key FROM {source} WHERE key > %(after)s ORDER BY key LIMIT %(size)s)
SELECT (SELECT key FROM page ORDER BY key DESC LIMIT 1), (SELECT count(*) FROM page)
"""

# In the order of the unique index, so that a page touches each part of it once.
_INSERT_PAGE: Final = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority)
SELECT %(entity_type)s, gid, priority
FROM {source}
WHERE key > %(after)s AND key <= %(last)s
AND {is_wanted}
ORDER BY gid
ON CONFLICT (entity_type, gid) {on_conflict}
"""

# Found clean while it was live, or before that was recorded, and merged or deleted since. For an
# entity that a person has left as it is, this must be certain.
_WAS_LIVE: Final = f"""
audit_entity.status = 'clean'
AND (audit_entity.was_live IS TRUE
     OR (audit_entity.was_live IS NULL AND NOT {LEFT_AS_IS.format(entity="audit_entity")}))
"""

_NEVER: Final = "FALSE"

_MAKE_UNCHECKED: Final = f"""
DO UPDATE SET status = 'unchecked', priority = greatest(audit_entity.priority, excluded.priority)
WHERE {_WAS_LIVE}
"""

# Otherwise the planner builds a hash of the whole audit table for each page.
_PROBE_THE_INDEX: Final = """
SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)
"""


@dataclass(frozen=True, slots=True)
class Page:
    """The gids with `after < key <= last`, approximately `rows` of them.

    `position` is the index of `gids` among those of the run. `is_fresh` says that none of them had
    a row when the run began.
    """

    position: int
    gids: Gids
    after: Key
    last: Key
    rows: int
    is_fresh: bool

    def __str__(self) -> str:
        return f"{self.gids}, row {self.last}"

    def halves(self) -> tuple[Page, ...]:
        """Return the two halves of the page, or nothing if it holds a single key."""
        middle = (int(self.after) + int(self.last)) // 2
        if middle == int(self.after):
            return ()
        cut: Key = UUID(int=middle) if isinstance(self.last, UUID) else middle
        half = replace(self, rows=max(1, self.rows // 2))
        return (replace(half, last=cut), replace(half, after=cut))


@dataclass(frozen=True, slots=True)
class _Start:
    """What was found at the start of a run: the number of gids, and the first without a row."""

    known: int
    is_fresh: bool
    is_done: bool
    after: Key


class SeedFromMb(Job[Page, Page]):
    """Give every gid of the chosen kinds that has no row in audit_entity one.

    Entities that were found clean while they were live and are merged or deleted now become
    unchecked again.

    Parameters
    ----------
    entity_types, kinds
        Which gids to seed; an empty sequence means all.
    only_with_art
        Whether to skip live entities without art.
    """

    name: ClassVar[str] = "seed-from-mb"
    database = Settings.musicbrainz_database
    tables: ClassVar[tuple[Table, ...]] = (
        *seeding.TABLES,
        Table("musicbrainz.release_meta"),
        Table("musicbrainz.edit"),
        Table("musicbrainz.edit_event"),
        Table("artwork_indexer.needs_manual_review"),
    )
    # For `--only-with-art`.
    optional_tables: ClassVar[tuple[Table, ...]] = (
        Table("cover_art_archive.cover_art"),
        Table("event_art_archive.event_art"),
    )
    one_snapshot: ClassVar[bool] = False
    batch_size: ClassVar[int] = 50_000
    max_batch_size: ClassVar[int] = 200_000

    def __init__(
        self,
        run: Run,
        entity_types: Iterable[str] = (),
        kinds: Iterable[Kind] = (),
        *,
        only_with_art: bool = False,
    ) -> None:
        super().__init__(run)
        if only_with_art:
            self.more_tables = self.optional_tables
        wanted_types, wanted_kinds = set(entity_types), set(kinds)
        self._gids = [
            gids.with_art() if only_with_art else gids
            for gids in GIDS
            if (not wanted_types or gids.entity_type in wanted_types)
            and (not wanted_kinds or gids.kind in wanted_kinds)
        ]
        self._snapshot: dict[str, Any] = {}
        self._starts: list[_Start] = []

    def source(self) -> Keyset[Page]:
        return Keyset(self._page, lambda page: page, self._count)

    def write(self, conn: Connection, results: Sequence[Page]) -> Written:
        # A batch of this source is one page.
        (page,) = results
        conn.execute(_PROBE_THE_INDEX)
        # If no gid had a row, looking up each of them first would only take time. ON CONFLICT
        # handles rows that another session has inserted in the meantime.
        statement = _format(
            _INSERT_PAGE,
            page.gids,
            is_wanted="true" if page.is_fresh else _HAS_NO_ROW,
            on_conflict="DO NOTHING" if page.gids.kind is Kind.LIVE else _MAKE_UNCHECKED,
        )
        values = self._values(page.gids) | {"after": page.after, "last": page.last}
        written = conn.execute(statement, values).rowcount
        return Written.of(written, max(written, page.rows))

    def verify(self, conn: Connection, run: RunResult | None) -> Iterator[Verification | Left]:
        self._snapshot = self._snapshot or _take_snapshot(conn)
        for position, gids in enumerate(self._gids):
            check = self._verify_gids(conn, position, gids, run)
            yield check
            yield Left(check.expected - check.actual)

    # -- pages -----------------------------------------------------------------------------------

    def _count(self, conn: Connection) -> int:
        self._snapshot = _take_snapshot(conn)
        expected, self._starts = 0, []
        for gids in self._gids:
            known, seeded = self._ask(conn, _COUNT, gids, last=gids.end)
            after, keys = gids.origin, known
            if 0 < seeded < known:
                first, keys = self._find_gap(conn, gids)
                after = _before(first)
            is_done = seeded == known
            self._starts.append(_Start(known, seeded == 0, is_done, after))
            expected += 0 if is_done else keys
        return expected

    def _page(self, conn: Connection, after: Page | None, size: int) -> Sequence[Page]:
        first = 0 if after is None else after.position
        for position in range(first, len(self._gids)):
            gids, start = self._gids[position], self._starts[position]
            if start.is_done:
                continue
            key = after.last if after is not None and position == first else start.after
            last, keys = self._ask(conn, _NEXT_PAGE, gids, after=key, size=size)
            if keys:
                return [Page(position, gids, key, last, keys, start.is_fresh)]
        return []

    def _find_gap(self, conn: Connection, gids: Gids) -> tuple[Key, int]:
        """Return the first key whose gid has no row, and the number of keys from there on."""
        first, keys = self._ask(conn, _FIRST_MISSING, gids)
        # Another session may have filled every gap since the count.
        return (gids.end, 0) if first is None else (first, keys)

    # -- verification ----------------------------------------------------------------------------

    def _verify_gids(
        self, conn: Connection, position: int, gids: Gids, run: RunResult | None
    ) -> Verification:
        name = f"{gids} in audit_entity"
        last = gids.end if run is None else self._reached(position, gids, run)
        known, seeded = self._ask(conn, _COUNT, gids, last=last)
        if last != gids.end:
            return Verification.equal(name, known, seeded, "as far as this run got")
        came = max(0, known - self._starts[position].known) if run is not None else 0
        if 0 < known - seeded <= came:
            # Neither an id nor a date says when a gid was merged; the growth of the table does.
            detail = f"{known - seeded:,} were added during the run and wait for the next one"
            return Verification(name, known, seeded, detail, ok=True)
        return Verification.equal(name, known, seeded)

    def _reached(self, position: int, gids: Gids, run: RunResult) -> Key:
        """Return the key up to which a run has passed the gids of a kind."""
        start, last = self._starts[position], run.last
        if run.is_complete or start.is_done or (last is not None and position < last.position):
            return gids.end
        if last is not None and position == last.position:
            reached: Key = last.last
            return reached
        return start.after

    def _ask(
        self, conn: Connection, template: str, gids: Gids, **values: object
    ) -> tuple[Any, ...]:
        return only_row(conn, _format(template, gids), self._values(gids) | values)

    def _values(self, gids: Gids) -> dict[str, Any]:
        return (
            self._snapshot | {"entity_type": gids.entity_type} | self.run.options.partition.values
        )


def _format(template: str, gids: Gids, **parts: str) -> Composed:
    is_stale = SQL(_NEVER if gids.kind is Kind.LIVE else _WAS_LIVE)
    common = {"source": SQL(_SOURCE).format(rows=SQL(gids.rows)), "is_stale": is_stale}
    common["has_no_row"] = SQL(_HAS_NO_ROW).format(**common)
    own = {name: SQL(part).format(**common) for name, part in parts.items()}
    return SQL(template).format(**common, **own)


def _take_snapshot(conn: Connection) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SNAPSHOT).fetchone() or {}


def _before(key: Key) -> Key:
    return UUID(int=key.int - 1) if isinstance(key, UUID) else key - 1
