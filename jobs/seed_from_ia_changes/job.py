"""The seed-from-ia-changes job: make changed entities unchecked, and seed unknown ones.

A batch is a page of changes. Its rows and the token of the next page are written in one
transaction, so that the next run continues where this one stopped, whatever stopped it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Final

from psycopg import Connection

from artwork_backfill.jobs.seed_from_ia_changes import checkpoint as checkpoints
from artwork_backfill.jobs.seed_from_ia_changes import types
from artwork_backfill.jobs.seed_from_ia_changes.checkpoint import Checkpoint
from artwork_backfill.jobs.seed_from_ia_changes.pages import Page, Pages
from artwork_backfill.jobs.seed_from_ia_changes.types import Looked
from artwork_backfill.shared import reaudit, seeding
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.auditing.services import SECOND_LOOK_AFTER_S
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient
from artwork_backfill.shared.clients.ia_changes import FROM_BEGINNING, ChangesClient
from artwork_backfill.shared.engine.errors import WrongUsage
from artwork_backfill.shared.engine.job import (
    Job,
    Note,
    Problem,
    Run,
    RunResult,
    Verification,
    Written,
)
from artwork_backfill.shared.engine.session import count, only_row
from artwork_backfill.shared.engine.sources import Stream
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.id_set import IdSet
from artwork_backfill.shared.settings import Settings

_COUNT_STALE: Final = (
    """
SELECT count(*)
FROM artwork_indexer.audit_entity entity
WHERE entity.id = ANY (%(ids)s::bigint[])
AND entity.status IN ('clean', 'legacy') AND entity.last_audit_at < %(since)s
AND """
    + reaudit.MAY_BE_AUDITED
)


@dataclass(frozen=True, slots=True)
class SeenPage:
    """A page, and what is known about those of its gids that have no row yet."""

    item: Page
    looked: Looked

    def __str__(self) -> str:
        return str(self.item)

    @property
    def rows(self) -> int:
        return self.item.rows

    def halves(self) -> tuple[SeenPage, ...]:
        """Return parts of the page; the findings about its items belong to the last part."""
        return tuple(
            SeenPage(part, self.looked.of(part.gids, with_items=not part.is_part))
            for part in self.item.halves()
        )


@dataclass(frozen=True, slots=True)
class _Followed(Written):
    """The result of a page, and the rows of its gids."""

    page: Page = field(kw_only=True)
    ids: Sequence[int] = field(kw_only=True)


class SeedFromIaChanges(Job[Page, SeenPage]):
    """Make clean and legacy entities unchecked that a page names, unless audited since.

    Parameters
    ----------
    since
        Start from this day (in UTC) instead of the position of an earlier run.
    from_beginning
        Start with the list of everything that archive.org has, or continue such a start.
    """

    name: ClassVar[str] = "seed-from-ia-changes"
    database = Settings.musicbrainz_database
    tables: ClassVar[tuple[Table, ...]] = (
        *seeding.TABLES,
        Table("artwork_indexer.needs_manual_review"),
        Table("artwork_indexer.ia_changes", ("SELECT", "INSERT", "UPDATE")),
    )
    one_snapshot: ClassVar[bool] = False
    batch_size: ClassVar[int] = 5_000
    max_batch_size: ClassVar[int] = 10_000
    # Each page leads to the next, so only one can be requested at a time.
    concurrency: ClassVar[int] = 1
    #: In seconds.
    second_look_after: ClassVar[float] = SECOND_LOOK_AFTER_S

    def __init__(
        self, run: Run, *, since: datetime | None = None, from_beginning: bool = False
    ) -> None:
        super().__init__(run)
        self._since = since
        self._from_beginning = from_beginning
        self._changes = run.use(ChangesClient.from_settings(run.settings, stop_flag=run.stop_flag))
        self._archive = run.use(
            ArchiveOrgClient.from_settings(
                run.settings, concurrency=types.CONCURRENCY, stop_flag=run.stop_flag
            )
        )
        self._reads = run.session()
        self._first_asked_at: datetime | None = None
        self._reached: Checkpoint | None = None
        self._ids = IdSet()
        #: Those that pages named as changed, not only as existing.
        self._changed = IdSet()

    def source(self) -> Stream[Page]:
        return Stream(self._open)

    def fetch(self, items: Sequence[Page]) -> Sequence[SeenPage]:
        return [self._see(page) for page in items]

    def write(self, conn: Connection, results: Sequence[SeenPage]) -> _Followed:
        return self._apply(conn, results)

    def preview(self, conn: Connection, results: Sequence[SeenPage]) -> _Followed:
        return self._apply(conn, results, preview=True)

    def committed(self, written: _Followed) -> None:
        page = written.page
        if self._first_asked_at is None:
            self._first_asked_at = page.asked_at
        if not page.before.is_cold:
            self._changed.update(written.ids)
        if not page.is_part:
            self._reached = page.after
        self._ids.update(written.ids)

    def verify(self, conn: Connection, run: RunResult | None) -> Iterator[Verification | Note]:
        stored = checkpoints.load(conn, self.run.options.partition)
        if run is not None and not self.run.options.dry_run:
            yield from self._verify_rows(conn)
            if self._reached is not None:
                pages = stored.pages if stored is not None else 0
                yield Verification.equal("pages followed", self._reached.pages, pages)
        if stored is None:
            yield Note("pages followed", 0, "no run has followed archive.org's changes yet")
        else:
            yield Note("identifiers read", stored.identifiers, _words(stored))

    # -- pages -----------------------------------------------------------------------------------

    def _open(self, conn: Connection) -> Callable[[int], Page | None]:
        (now,) = only_row(conn, "SELECT now()")
        start = self._start(checkpoints.load(conn, self.run.options.partition), now)
        pages = Pages(
            self._changes, start, self.run.options.partition, now, stop_flag=self.run.stop_flag
        )
        return pages.next_page

    def _start(self, stored: Checkpoint | None, now: datetime) -> Checkpoint:
        if self._since is not None:
            return Checkpoint(now, start_date=checkpoints.day(self._since))
        if self._from_beginning and (stored is None or not stored.is_cold):
            return Checkpoint(now, start_date=FROM_BEGINNING, is_cold=True)
        if stored is None:
            raise WrongUsage(
                "no run has followed archive.org's changes yet: pass --since DATE, such as the day"
                " on which the first audit began, or --from-beginning"
            )
        return stored

    # -- looking and writing ---------------------------------------------------------------------

    def _see(self, page: Page) -> SeenPage:
        looked, unknown = self._reads.look(lambda conn: types.ask_musicbrainz(conn, page.gids))
        types.ask_archive_org(
            self._archive,
            unknown,
            looked,
            second_look_after=self.second_look_after,
            stop_flag=self.run.stop_flag,
        )
        return SeenPage(page, looked)

    def _apply(
        self, conn: Connection, results: Sequence[SeenPage], *, preview: bool = False
    ) -> _Followed:
        # A batch of a stream is one page.
        (result,) = results
        page, looked = result.item, result.looked
        counts: Counter[str] = Counter()
        for entity_type, priorities in looked.priorities.items():
            if priorities:
                seeded = seeding.seed(conn, entity_type, priorities, preview=preview)
                counts.update(written=seeded.written, seeded=seeded.written)
        if not page.before.is_cold:
            gids = seeding.uuid_array(page.gids)
            due = reaudit.make_gids_unchecked(conn, gids, page.asked_at, preview=preview)
            counts.update(written=due.entities, unchecked=due.entities, gone=due.gone)
        ids = seeding.row_ids(conn, EntityType, page.gids)
        counts.update(absent=looked.absent, dark=looked.dark, of_neither_archive=looked.foreign)
        counts["failed"] = len(looked.unclear)
        if not page.is_part:
            counts["identifiers"] = page.after.identifiers - page.before.identifiers
            if not preview:
                checkpoints.store(conn, self.run.options.partition, page.before, page.after)
        counts["skipped"] = max(0, page.rows - counts["written"] - counts["failed"])
        problems = [
            Problem(identifier, f"not seeded, because its collection is unknown: {reason}")
            for identifier, reason in looked.unclear
        ]
        return _Followed(+counts, problems, page=page, ids=ids)

    def _verify_rows(self, conn: Connection) -> Iterator[Verification]:
        present = seeding.count_rows(conn, self._ids)
        yield Verification.equal("named entities in audit_entity", len(self._ids), present)
        stale = sum(
            count(conn, _COUNT_STALE, {"ids": ids, "since": self._first_asked_at})
            for ids in self._changed.chunks()
        )
        yield Verification.equal("changed entities that wait for no audit", 0, stale)


def _words(stored: Checkpoint) -> str:
    pages = f"{stored.gids:,} of them gids, on {stored.pages:,} pages"
    if stored.caught_up_at is not None:
        return f"{pages}; caught up {stored.caught_up_at.isoformat(timespec='seconds')}"
    where = "the list of all items" if stored.is_cold else "the changes"
    return f"{pages}; {where} not yet read to the end"
