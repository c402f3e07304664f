"""The seed-from-ia-scan job: give every entity that archive.org has an item for a row.

A batch is a page. Its rows and the cursor of the next page are written in one transaction, so that
the next run continues an interrupted scan where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final
from uuid import UUID

from psycopg import Connection
from psycopg.sql import SQL, Identifier

from artwork_backfill.jobs.seed_from_ia_scan import scan as scans
from artwork_backfill.jobs.seed_from_ia_scan import verification
from artwork_backfill.jobs.seed_from_ia_scan.pages import ListedPages, Page, ScrapedPages
from artwork_backfill.jobs.seed_from_ia_scan.scan import Checkpoint, Scan
from artwork_backfill.shared import seeding
from artwork_backfill.shared.audit.archives import ArtArchive, item_name, other_archive
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient
from artwork_backfill.shared.engine.job import (
    Job,
    Note,
    Problem,
    Run,
    RunResult,
    Verification,
    Written,
)
from artwork_backfill.shared.engine.sources import Stream
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.settings import Settings

#: The number of foreign identifiers of a collection that are reported one by one.
_REPORTED: Final = 5

#: How often a page is asked for, and within how many seconds: nothing comes after a page that is
#: missing, so a service that refuses for a minute must not end the scan.
_ATTEMPTS: Final = 10
_PATIENCE_S: Final = 240.0

# A page may answer another query, such as that for the other collection. An index finds
# a whole array at once; without MATERIALIZED, the planner may read the whole table, or
# look up each gid separately.
_NOT_LIVE: Final = """
WITH live AS MATERIALIZED (SELECT gid FROM {own} WHERE gid = ANY (%(gids)s))
SELECT seed.gid, (SELECT TRUE FROM {other} other WHERE other.gid = seed.gid)
FROM unnest(%(gids)s) AS seed (gid)
LEFT JOIN live USING (gid)
WHERE live.gid IS NULL
"""


@dataclass(frozen=True, slots=True)
class _Seeded(Written):
    """The result of a page: the position of the scan after it, and its rows."""

    page: Page = field(kw_only=True)
    checkpoint: Checkpoint = field(kw_only=True)
    ids: Sequence[int] = field(kw_only=True)
    #: The number of skipped identifiers that could be reported.
    passed_over: int = field(kw_only=True)


class SeedFromIaScan(Job[Page, Page]):
    """Give every gid among a collection's identifiers a row in audit_entity.

    Parameters
    ----------
    archives
        The collections to scan, in this order.
    listed
        A file with the identifiers of the only collection, instead of archive.org's answers.
    restart
        Whether to scan from the beginning even if an earlier scan was interrupted.
    accept_total
        Whether to accept that archive.org's total is larger than what was seen.
    """

    name: ClassVar[str] = "seed-from-ia-scan"
    database = Settings.musicbrainz_database
    tables: ClassVar[tuple[Table, ...]] = (
        *seeding.TABLES,
        Table("musicbrainz.release_meta"),
        Table("musicbrainz.event_meta"),
        Table("artwork_indexer.ia_scan", ("SELECT", "INSERT", "UPDATE")),
    )
    one_snapshot: ClassVar[bool] = False
    verifies_dry_runs: ClassVar[bool] = True
    batch_size: ClassVar[int] = 10_000
    max_batch_size: ClassVar[int] = 20_000

    def __init__(
        self,
        run: Run,
        archives: Sequence[ArtArchive],
        *,
        listed: Path | None = None,
        restart: bool = False,
        accept_total: bool = False,
    ) -> None:
        super().__init__(run)
        self._archives = archives
        self._accept_total = accept_total
        self._source = listed or run.use(
            ArchiveOrgClient.from_settings(
                run.settings,
                concurrency=1,
                attempts=_ATTEMPTS,
                call_s=_PATIENCE_S,
                stop_flag=run.stop_flag,
            )
        )
        self._restart = restart
        self._scans: dict[str, Scan] = {}
        self._reported: Counter[str] = Counter()

    def source(self) -> Stream[Page]:
        return Stream(self._open, self._count)

    def write(self, conn: Connection, results: Sequence[Page]) -> _Seeded:
        return self._apply(conn, results)

    def preview(self, conn: Connection, results: Sequence[Page]) -> _Seeded:
        return self._apply(conn, results, preview=True)

    def committed(self, written: _Seeded) -> None:
        page = written.page
        self._scans[page.collection].take(page, written.checkpoint, written.ids)
        self._reported[page.collection] += written.passed_over

    def verify(self, conn: Connection, run: RunResult | None) -> Iterator[Verification | Note]:
        partition, accept_total = self.run.options.partition, self._accept_total
        if run is None and not isinstance(self._source, Path):
            yield from verification.of_earlier_scans(
                conn, self._archives, partition, accept_total=accept_total
            )
            return
        if run is None:
            scan = self._begin(conn, self._archives[0])
            self._scans = {scan.archive.collection: scan}
            verification.look_up_list(conn, scan, self.run.stop_flag)
        for scan in self._scans.values():
            if scan.has_begun:
                yield from verification.of_scan(
                    conn,
                    scan,
                    partition,
                    seeded=not self.run.options.dry_run,
                    accept_total=accept_total,
                )

    # -- pages -----------------------------------------------------------------------------------

    def _open(self, conn: Connection) -> Callable[[int], Page | None]:
        # Otherwise, runs with a limit would only ever scan the first collection.
        archives = sorted(self._archives, key=lambda archive: self._is_finished(conn, archive))
        self._scans = {each.collection: self._begin(conn, each) for each in archives}
        return self._next_page

    def _is_finished(self, conn: Connection, archive: ArtArchive) -> bool:
        if isinstance(self._source, Path):
            return False
        checkpoint = scans.load(conn, archive.collection, self.run.options.partition)
        return checkpoint is not None and checkpoint.is_finished

    def _next_page(self, size: int) -> Page | None:
        for scan in self._scans.values():
            if not scan.pages.finished:
                return scan.pages.next_page(size)
        return None

    def _count(self, conn: Connection) -> int | None:
        if isinstance(self._source, Path):
            return None
        partition = self.run.options.partition
        return sum(
            max(0, verification.count_with_art(conn, scan.archive, partition) - scan.gids_before)
            for scan in self._scans.values()
        )

    def _begin(self, conn: Connection, archive: ArtArchive) -> Scan:
        """Return a scan from the beginning, or from the position of an interrupted one."""
        partition = self.run.options.partition
        if isinstance(self._source, Path):
            pages = ListedPages(self._source, archive, partition)
            return Scan(archive, pages, Checkpoint(has_rights=True))
        checkpoint = scans.load(conn, archive.collection, partition)
        has_rights = self._source.has_credentials
        if checkpoint is None or self._restart or not checkpoint.may_continue(has_rights):
            checkpoint = Checkpoint(has_rights)
        after = checkpoint.pages, checkpoint.cursor
        scraped = ScrapedPages(self._source, archive, partition, self.run.stop_flag, after)
        return Scan(archive, scraped, checkpoint, gids_before=checkpoint.gids)

    # -- writing ---------------------------------------------------------------------------------

    def _apply(
        self, conn: Connection, results: Sequence[Page], *, preview: bool = False
    ) -> _Seeded:
        # A batch of a stream is one page.
        (page,) = results
        scan = self._scans[page.collection]
        entity_type, partition = scan.archive.entity_type, self.run.options.partition
        gone, others = _not_live(conn, scan.archive, page.gids)
        priorities = {
            gid: seeding.GONE if gid in gone else seeding.LIVE
            for gid in page.gids
            if gid not in others
        }
        seeded = seeding.seed(conn, entity_type, priorities, preview=preview)
        if preview:
            # Without rows, gids are distinguished by their numbers.
            ids, new = [], len(priorities)
        else:
            ids = seeding.row_ids(conn, [entity_type], priorities)
            new = scan.count_new(ids)
        checkpoint = scan.after(page, new)
        counts = Counter(seeded.counts)
        counts.update(not_live=len(gone), of_another_type=len(others))
        if not page.is_part:
            counts.update(identifiers=page.identifiers, foreign=page.foreign)
            if not preview and not isinstance(self._source, Path):
                scans.store(conn, page.collection, partition, checkpoint)
        problems = [] if any(s.has_begun for s in self._scans.values()) else self._missing()
        texts = _passed_over(scan.archive, page, others)
        left = max(0, _REPORTED - self._reported[page.collection])
        problems += [
            Problem(f"identifier in {page.collection}", f"skipped, {text}") for text in texts[:left]
        ]
        return _Seeded(
            +counts,
            problems,
            page=page,
            checkpoint=checkpoint,
            ids=ids,
            passed_over=len(texts),
        )

    def _missing(self) -> list[Problem]:
        if isinstance(self._source, Path) or self._source.has_credentials:
            return []
        return [
            Problem(
                "ARCHIVE_ORG_ACCESS_KEY and ARCHIVE_ORG_SECRET_KEY",
                "not set: without them archive.org shows hardly any item of these collections",
            )
        ]


def _passed_over(archive: ArtArchive, page: Page, others: Collection[bytes]) -> list[str]:
    """Return why some of the skipped identifiers of a page were skipped."""
    return [
        *(f"not an entity's: {name}" for name in page.examples),
        *(
            f"not the identifier of a {archive.entity_type}: {item_name(str(UUID(bytes=gid)))}"
            for gid in sorted(others)
        ),
    ]


def _not_live(
    conn: Connection, archive: ArtArchive, gids: Collection[bytes]
) -> tuple[set[bytes], set[bytes]]:
    """Return the gids that MusicBrainz has no entity for, and those of the other entity type."""
    query = SQL(_NOT_LIVE).format(
        own=Identifier("musicbrainz", archive.entity_type),
        other=Identifier("musicbrainz", other_archive(archive).entity_type),
    )
    gone: set[bytes] = set()
    others: set[bytes] = set()
    for gid, is_other in conn.execute(query, {"gids": seeding.uuid_array(gids)}):
        (others if is_other else gone).add(gid.bytes)
    return gone, others
