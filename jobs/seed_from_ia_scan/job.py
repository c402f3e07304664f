"""Gives every entity that archive.org has an item for a row in the audit table.

A batch is a page. Its rows and the cursor that leads on are written in one transaction, so that a
scan that is interrupted goes on where it stood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import ClassVar, Final
from uuid import UUID

from artwork_backfill.jobs.seed_from_ia_scan import standing as standings
from artwork_backfill.jobs.seed_from_ia_scan import verification
from artwork_backfill.jobs.seed_from_ia_scan.pages import ListedPages, Page, ScrapedPages
from artwork_backfill.jobs.seed_from_ia_scan.scan import Scan
from artwork_backfill.jobs.seed_from_ia_scan.standing import Standing
from artwork_backfill.shared import seeding
from artwork_backfill.shared.audit.archives import ArtArchive, EntityType, item_name
from artwork_backfill.shared.clients import archive_org
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient
from artwork_backfill.shared.engine.db import Table
from artwork_backfill.shared.engine.job import (
    Counts,
    Job,
    Problem,
    Run,
    RunFailed,
    ServiceStats,
    Stop,
    Verification,
    Wait,
)
from artwork_backfill.shared.settings import SettingsError
from psycopg import Connection
from psycopg.sql import SQL

#: Either of the two functions of `shared.seeding`.
Seed = Callable[[Connection, str, Mapping[bytes, int]], seeding.Seeded]

#: Priorities of gids that are live in MusicBrainz, and of all others.
LIVE: Final = 100
GONE: Final = 150

#: Foreign identifiers of a collection that are reported one by one.
_REPORTED: Final = 5

#: How often a page is asked for, about two minutes with the pauses between: nothing comes after a
#: page that is missing, so a service that refuses for a minute must not end the scan.
_ATTEMPTS: Final = 10

# A page may answer somebody else's query, such as the one for the other collection. An index finds
# a whole array in one go; without MATERIALIZED, the planner may rather read the whole table, or
# look each gid up by itself.
_NOT_LIVE: Final = """
WITH live AS MATERIALIZED (SELECT gid FROM {own} WHERE gid = ANY (%(gids)s))
SELECT seed.gid, (SELECT TRUE FROM {other} other WHERE other.gid = seed.gid)
FROM unnest(%(gids)s) AS seed (gid)
LEFT JOIN live USING (gid)
WHERE live.gid IS NULL
"""

_TABLES: Final[Mapping[EntityType, str]] = {
    EntityType.RELEASE: "musicbrainz.release",
    EntityType.EVENT: "musicbrainz.event",
}
_OTHER: Final[Mapping[EntityType, EntityType]] = {
    EntityType.RELEASE: EntityType.EVENT,
    EntityType.EVENT: EntityType.RELEASE,
}


@dataclass(frozen=True, slots=True)
class Turn:
    """Leave to fetch a page of about `size` identifiers of a scan, by its position."""

    scan: int
    size: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """A page of a scan. With `is_part`, more of the page follows, and its cursor is not due yet."""

    scan: int
    page: Page
    is_part: bool = False


@dataclass(frozen=True, slots=True)
class _Written:
    """What a transaction did that is to be remembered once it is committed."""

    fetched: Fetched
    standing: Standing
    ids: Sequence[int]
    others: Collection[bytes]


class SeedFromIaScan(Job[Turn, Fetched]):
    """Every gid among a collection's identifiers has a row in audit_entity.

    Parameters
    ----------
    archives
        The collections to scan, in this order.
    listed
        A file with the identifiers of the only collection, in place of archive.org's own answers.
    restart
        Scan from the start although an earlier scan was interrupted.
    """

    name: ClassVar[str] = "seed-from-ia-scan"
    tables: ClassVar[tuple[Table, ...]] = (
        *seeding.TABLES,
        Table("musicbrainz.release_meta"),
        Table("musicbrainz.event_meta"),
        Table("artwork_indexer.event_queue"),
        Table("artwork_indexer.audit_entity", ("SELECT", "INSERT", "UPDATE")),
        Table("artwork_indexer.ia_scan", ("SELECT", "INSERT", "UPDATE")),
    )
    one_snapshot: ClassVar[bool] = False
    batch_size: ClassVar[int] = 10_000
    max_batch_size: ClassVar[int] = 20_000
    concurrency: ClassVar[int] = 1

    def __init__(
        self,
        run: Run,
        archives: Sequence[ArtArchive],
        *,
        listed: Path | None = None,
        restart: bool = False,
    ) -> None:
        super().__init__(run)
        self._archives = archives
        self._source = listed or _connect(run)
        self._restart = restart
        self._scans: list[Scan] = []
        self._awaited: Turn | None = None
        self._written: list[_Written] = []
        self._problems: list[Problem] = []
        self._reported: Counter[int] = Counter()

    def count(self, conn: Connection) -> int | None:
        self._scans = [self._begin(conn, archive) for archive in self._archives]
        if isinstance(self._source, Path):
            return None
        if not self._source.has_credentials:
            self._problems.append(
                Problem(
                    "ARCHIVE_ORG_ACCESS_KEY and ARCHIVE_ORG_SECRET_KEY",
                    "not set: archive.org shows hardly any item of these collections then",
                )
            )
        partition = self.run.options.partition
        return sum(
            max(0, verification.count_with_art(conn, scan.archive, partition) - scan.gids_before)
            for scan in self._scans
        )

    def claim(self, conn: Connection, size: int) -> Sequence[Turn] | Wait | Stop:
        if self._awaited is not None:
            raise RunFailed("a page could not be taken in, and the next cannot be known without it")
        for position, scan in enumerate(self._scans):
            if not scan.pages.finished:
                return [Turn(position, size)]
        return []

    def claimed(self, items: Sequence[Turn]) -> None:
        (self._awaited,) = items

    def fetch(self, items: Sequence[Turn]) -> Sequence[Fetched]:
        (turn,) = items
        page = self._scans[turn.scan].pages.next_page(turn.size)
        self._awaited = None
        return [Fetched(turn.scan, page)]

    def write(self, conn: Connection, results: Sequence[Fetched]) -> Counts:
        seed = partial(seeding.seed, with_ids=True)
        return self._apply(conn, results, seed, stores=not isinstance(self._source, Path))

    def preview(self, conn: Connection, results: Sequence[Fetched]) -> Counts:
        return self._apply(conn, results, seeding.preview, stores=False)

    def committed(self, results: Sequence[Fetched]) -> None:
        for written in self._written:
            scan = self._scans[written.fetched.scan]
            scan.ids.update(written.ids)
            if not written.fetched.is_part:
                scan.take(written.fetched.page, written.standing)
            self._report(written)

    def verify(self, conn: Connection) -> Sequence[Verification]:
        partition = self.run.options.partition
        if self._scans:
            scans = [scan for scan in self._scans if scan.has_begun]
            return [c for scan in scans for c in verification.of_scan(conn, scan, partition)]
        if isinstance(self._source, Path):
            scan = self._begin(conn, self._archives[0])
            return list(verification.of_list(conn, scan, partition))
        return list(verification.of_earlier_scans(conn, self._archives, partition))

    def rows(self, item: Turn | Fetched) -> int:
        return item.size if isinstance(item, Turn) else len(item.page.gids)

    def split(self, result: Fetched) -> Sequence[Fetched]:
        gids = sorted(result.page.gids)
        if len(gids) < 2:
            return ()
        first, rest = frozenset(gids[: len(gids) // 2]), frozenset(gids[len(gids) // 2 :])
        # The cursor goes with what is written last.
        return (
            Fetched(result.scan, replace(result.page, gids=first, examples=()), is_part=True),
            replace(result, page=replace(result.page, gids=rest)),
        )

    def describe(self, result: Turn | Fetched) -> str:
        collection = self._archives[result.scan].collection
        if isinstance(result, Turn):
            return f"a page of {collection}"
        gids = [str(UUID(bytes=gid)) for gid in islice(result.page.gids, 1)]
        return f"{collection}, page {result.page.number}: {', '.join(gids)}"

    def problems(self) -> Sequence[Problem]:
        taken, self._problems = self._problems, []
        return taken

    def requests(self) -> Mapping[str, ServiceStats]:
        return {} if isinstance(self._source, Path) else {"archive.org": self._source.stats()}

    def close(self) -> None:
        if not isinstance(self._source, Path):
            self._source.close()

    # -- the parts of the verbs ------------------------------------------------------------------

    def _begin(self, conn: Connection, archive: ArtArchive) -> Scan:
        """Return a scan that starts at the beginning, or where an interrupted one stands."""
        partition = self.run.options.partition
        if isinstance(self._source, Path):
            return Scan(archive, ListedPages(self._source, partition), Standing(has_rights=True))
        standing = standings.load(conn, archive.collection, partition)
        has_rights = self._source.has_credentials
        if standing is None or self._restart or not standing.may_go_on(has_rights):
            standing = Standing(has_rights)
        after = standing.pages, standing.cursor
        pages = ScrapedPages(self._source, archive, partition, self.run.stopping, after)
        return Scan(archive, pages, standing, gids_before=standing.gids)

    def _apply(
        self, conn: Connection, results: Sequence[Fetched], seed: Seed, *, stores: bool
    ) -> Counts:
        self._written = []
        counts: Counter[str] = Counter()
        for fetched in results:
            scan, page = self._scans[fetched.scan], fetched.page
            entity_type = scan.archive.entity_type
            gone, others = _not_live(conn, entity_type, page.gids)
            priorities = {
                gid: GONE if gid in gone else LIVE for gid in page.gids if gid not in others
            }
            seeded = seed(conn, entity_type, priorities)
            counts.update(seeded.counts)
            # Nobody can have come across rows that are made only now.
            ids, new = seeded.new_ids, seeded.written
            if new < len(priorities):
                ids = verification.look_up(conn, entity_type, priorities)
                new = scan.count_new(ids)
            standing = scan.after(page, new)
            if stores and not fetched.is_part:
                partition = self.run.options.partition
                standings.store(conn, scan.archive.collection, partition, standing)
            counts.update(not_live=len(gone), of_another_type=len(others))
            if not fetched.is_part:
                counts.update(identifiers=page.identifiers, foreign=page.foreign)
            self._written.append(_Written(fetched, standing, ids, others))
        return +counts

    def _report(self, written: _Written) -> None:
        """Report some of the identifiers that were passed over."""
        position = written.fetched.scan
        archive = self._archives[position]
        passed_over = [
            *(f"not an entity's: {name}" for name in written.fetched.page.examples),
            *(
                f"not the identifier of a {archive.entity_type}: {item_name(str(UUID(bytes=gid)))}"
                for gid in sorted(written.others)
            ),
        ]
        left = _REPORTED - self._reported[position]
        self._reported[position] += len(passed_over)
        self._problems += [
            Problem(f"identifier in {archive.collection}", f"passed over, {text}")
            for text in passed_over[: max(0, left)]
        ]


def _not_live(
    conn: Connection, entity_type: EntityType, gids: Collection[bytes]
) -> tuple[set[bytes], set[bytes]]:
    """Return the gids that MusicBrainz has no entity for, and those of the other entity type."""
    query = SQL(_NOT_LIVE).format(
        own=SQL(_TABLES[entity_type]), other=SQL(_TABLES[_OTHER[entity_type]])
    )
    gone: set[bytes] = set()
    others: set[bytes] = set()
    for gid, is_other in conn.execute(query, {"gids": seeding.uuid_array(gids)}):
        (others if is_other else gone).add(gid.bytes)
    return gone, others


def _connect(run: Run) -> ArchiveOrgClient:
    service, keys = run.settings.archive_org(), run.settings.archive_org_keys()
    try:
        return archive_org.connect(
            base_url=service.base_url,
            rate=service.rate,
            contact=run.settings.contact(),
            access_key=keys[0] if keys else None,
            secret_key=keys[1] if keys else None,
            concurrency=1,
            attempts=_ATTEMPTS,
            stopping=run.stopping,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error
