"""The backfill of the library's artwork URLs as a job: its five verbs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from artwork_backfill.jobs.library_artwork_url_backfill import library, verification
from artwork_backfill.jobs.library_artwork_url_backfill.choice import Match, Miss, Reason, choose
from artwork_backfill.jobs.library_artwork_url_backfill.library import Census, Filling, Library, Row
from artwork_backfill.jobs.library_artwork_url_backfill.lookup import LookupFailed, Lookups
from artwork_backfill.jobs.library_artwork_url_backfill.verification import Fate
from artwork_backfill.shared.clients import lml
from artwork_backfill.shared.clients.lml import LmlClient, LmlQuery, LookupAnswer
from artwork_backfill.shared.engine.job import (
    Job,
    Note,
    Problem,
    Run,
    RunResult,
    Verification,
    Written,
)
from artwork_backfill.shared.engine.sources import Keyset
from artwork_backfill.shared.settings import Settings
from psycopg import Connection


@dataclass(frozen=True, slots=True)
class _Filled(Written):
    """What was written, and what became of the rows."""

    fates: Mapping[int, Fate] = field(default_factory=dict)


class LibraryArtworkUrlBackfill(Job[Row, Match | Miss]):
    """Every candidate is looked up once, and filled where the result is surely its cover.

    Parameters
    ----------
    accept_first
        Take LML's first result, whatever album it is.
    """

    name: ClassVar[str] = "library-artwork-url-backfill"
    database = Settings.wxyc_database
    tables = staticmethod(lambda settings: library.tables(settings.wxyc_schema()))
    #: Never more, so that a batch is written in milliseconds: the live site updates the same rows.
    batch_size: ClassVar[int] = 800
    max_batch_size: ClassVar[int] = 800
    concurrency: ClassVar[int] = 4
    fetch_size: ClassVar[int] = lml.BULK_MAX

    def __init__(self, run: Run, *, accept_first: bool = False) -> None:
        super().__init__(run)
        self._accept_first = accept_first
        self._library = Library(run.settings.wxyc_schema(), run.options.partition)
        client = run.use(
            LmlClient.from_settings(
                run.settings, concurrency=run.options.concurrency, stopping=run.stopping
            )
        )
        self._lookups = Lookups(client)
        self._before: Census | None = None
        self._fates: dict[int, Fate] = {}

    def source(self) -> Keyset[Row]:
        return Keyset(self._page, lambda row: row.id, self._count)

    def fetch(self, items: Sequence[Row]) -> Sequence[Match | Miss]:
        queries = {row.id: LmlQuery(row.artist.strip(), row.title.strip()) for row in items}
        askable = {id_: query for id_, query in queries.items() if query.artist and query.album}
        answers = dict(zip(askable, self._lookups.ask(list(askable.values())), strict=True))
        return [self._judge(row, answers.get(row.id)) for row in items]

    def write(self, conn: Connection, results: Sequence[Match | Miss]) -> _Filled:
        filling = self._library.fill(conn, _urls(results))
        return _filled(filling, results)

    def preview(self, conn: Connection, results: Sequence[Match | Miss]) -> _Filled:
        raced, empty = self._library.look(conn, _urls(results))
        gone = _urls(results).keys() - raced - empty
        return _filled(Filling(empty, raced, gone=frozenset(gone)), results)

    def committed(self, written: _Filled) -> None:
        self._fates.update(written.fates)

    def verify(self, conn: Connection, run: RunResult | None) -> Sequence[Verification | Note]:
        if run is None or self._before is None:
            return verification.describe(self._library.take_census(conn))
        after = self._library.take_census(conn, last=self._before.last)
        filled = {id_ for id_, fate in self._fates.items() if fate is Fate.FILLED}
        _, lost = self._library.look(conn, filled - after.with_artwork)
        return verification.compare(
            self._before, after, self._fates, lost=lost, finished=run.is_complete
        )

    def _count(self, conn: Connection) -> int:
        self._before = self._library.take_census(conn)
        self._fates = dict.fromkeys(self._before.candidates, Fate.NOT_REACHED)
        return len(self._fates)

    def _page(self, conn: Connection, after: int | None, size: int) -> Sequence[Row]:
        last = 0 if self._before is None else self._before.last
        size = min(size, self.max_batch_size)
        return self._library.read_page(conn, after=after or 0, last=last, size=size)

    def _judge(self, row: Row, answer: LookupAnswer | LookupFailed | None) -> Match | Miss:
        match answer:
            case None:
                return Miss(row, Reason.NO_NAME)
            case LookupFailed(reason):
                return Miss(row, Reason.FAILED, reason)
            case _:
                return choose(row, answer, accept_first=self._accept_first)


def _urls(results: Sequence[Match | Miss]) -> dict[int, str]:
    return {result.row.id: result.url for result in results if isinstance(result, Match)}


def _filled(filling: Filling, results: Sequence[Match | Miss]) -> _Filled:
    """Count a batch: every row is written, skipped or failed, and has one reason why not written.

    What failed counts as `failed`, as in every job; the other reasons are parts of `skipped`.
    """
    counts = Counter(str(result.reason) for result in results if isinstance(result, Miss))
    counts.update(
        written=len(filling.written),
        raced=len(filling.raced),
        busy=len(filling.busy),
        gone=len(filling.gone),
    )
    counts["skipped"] = len(results) - counts["written"] - counts["failed"]
    problems = [
        Problem(str(result.row), result.detail)
        for result in results
        if isinstance(result, Miss) and result.reason is Reason.FAILED
    ]
    fates = (
        dict.fromkeys((result.row.id for result in results), Fate.LEFT)
        | dict.fromkeys(filling.written | filling.raced, Fate.FILLED)
        | dict.fromkeys(filling.gone, Fate.GONE)
    )
    return _Filled(counts, problems, fates)
