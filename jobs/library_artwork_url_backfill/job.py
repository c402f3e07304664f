"""The backfill of the library's artwork URLs as a job: its five verbs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

from artwork_backfill.jobs.library_artwork_url_backfill import library, verification
from artwork_backfill.jobs.library_artwork_url_backfill.choice import Match, Miss, Reason, choose
from artwork_backfill.jobs.library_artwork_url_backfill.library import Census, Filling, Library, Row
from artwork_backfill.jobs.library_artwork_url_backfill.lookup import LookupFailed, Lookups
from artwork_backfill.jobs.library_artwork_url_backfill.verification import Fate
from artwork_backfill.shared.clients import lml
from artwork_backfill.shared.clients.lml import LmlClient, LmlQuery, LookupAnswer
from artwork_backfill.shared.engine.db import Table
from artwork_backfill.shared.engine.job import (
    Counts,
    Database,
    Job,
    Problem,
    Run,
    ServiceStats,
    Verification,
)
from artwork_backfill.shared.settings import Settings, SettingsError
from psycopg import Connection


class LibraryArtworkUrlBackfill(Job[Row, Match | Miss]):
    """Every candidate is looked up once, and filled where the result is surely its cover.

    Parameters
    ----------
    accept_first
        Take LML's first result, whatever album it is.
    """

    name: ClassVar[str] = "library-artwork-url-backfill"
    database: ClassVar[Database] = Database.WXYC
    #: Never more, so that a batch is written in milliseconds: the live site updates the same rows.
    batch_size: ClassVar[int] = 800
    max_batch_size: ClassVar[int] = 800
    concurrency: ClassVar[int] = 4
    fetch_size: ClassVar[int] = lml.BULK_MAX

    def __init__(self, run: Run, *, accept_first: bool = False) -> None:
        super().__init__(run)
        self._accept_first = accept_first
        self._library = Library(run.settings.wxyc_schema(), run.options.partition)
        self._client = _connect_lml(run)
        self._lookups = Lookups(self._client)
        self._before: Census | None = None
        self._position = 0
        self._claimed_all = False
        self._fates: dict[int, Fate] = {}
        self._new_fates: dict[int, Fate] = {}
        self._problems: list[Problem] = []

    @classmethod
    def tables_for(cls, settings: Settings) -> tuple[Table, ...]:
        return library.tables(settings.wxyc_schema())

    # -- the five verbs ------------------------------------------------------------------------

    def count(self, conn: Connection) -> int:
        self._before = self._library.take_census(conn)
        self._fates = dict.fromkeys(self._before.candidates, Fate.NOT_REACHED)
        return len(self._fates)

    def claim(self, conn: Connection, size: int) -> Sequence[Row]:
        page = self._library.read_page(
            conn,
            after=self._position,
            last=self._start().last,
            size=min(size, self.max_batch_size),
        )
        self._claimed_all = not page
        return page

    def fetch(self, items: Sequence[Row]) -> Sequence[Match | Miss]:
        queries = {row.id: LmlQuery(row.artist.strip(), row.title.strip()) for row in items}
        askable = {id_: query for id_, query in queries.items() if query.artist and query.album}
        answers = dict(zip(askable, self._lookups.ask(list(askable.values())), strict=True))
        return [self._judge(row, answers.get(row.id)) for row in items]

    def write(self, conn: Connection, results: Sequence[Match | Miss]) -> Counts:
        filling = self._library.fill(conn, _urls(results))
        filled = filling.written | filling.raced
        self._new_fates = (
            dict.fromkeys((result.row.id for result in results), Fate.LEFT)
            | dict.fromkeys(filled, Fate.FILLED)
            | dict.fromkeys(filling.gone, Fate.GONE)
        )
        return _tally(filling, results)

    def verify(self, conn: Connection) -> Sequence[Verification]:
        if self._before is None:
            return verification.describe(self._library.take_census(conn))
        after = self._library.take_census(conn, last=self._before.last)
        filled = {id_ for id_, fate in self._fates.items() if fate is Fate.FILLED}
        _, lost = self._library.look(conn, filled - after.with_artwork)
        return verification.compare(
            self._before, after, self._fates, lost=lost, finished=self._claimed_all
        )

    # -- the rest of a run -----------------------------------------------------------------------

    def preview(self, conn: Connection, results: Sequence[Match | Miss]) -> Counts:
        raced, empty = self._library.look(conn, _urls(results))
        gone = _urls(results).keys() - raced - empty
        return _tally(Filling(empty, raced, gone=frozenset(gone)), results)

    def claimed(self, items: Sequence[Row]) -> None:
        self._position = items[-1].id

    def committed(self, results: Sequence[Match | Miss]) -> None:
        self._fates.update(self._new_fates)
        self._problems += [
            Problem(str(result.row), result.detail)
            for result in results
            if isinstance(result, Miss) and result.reason is Reason.FAILED
        ]

    def release(self, conn: Connection, items: Sequence[Row]) -> None:
        # Nothing was taken: they stay candidates, which is what is noted here.
        self._fates.update((row.id, Fate.LEFT) for row in items)

    def describe(self, result: Row | Match | Miss) -> str:
        return str(result if isinstance(result, Row) else result.row)

    def problems(self) -> Sequence[Problem]:
        problems, self._problems = self._problems, []
        return problems

    def requests(self) -> Mapping[str, ServiceStats]:
        return {"LML": self._client.stats()}

    def close(self) -> None:
        self._client.close()

    def _judge(self, row: Row, answer: LookupAnswer | LookupFailed | None) -> Match | Miss:
        match answer:
            case None:
                return Miss(row, Reason.NO_NAME)
            case LookupFailed(reason):
                return Miss(row, Reason.FAILED, reason)
            case _:
                return choose(row, answer, accept_first=self._accept_first)

    def _start(self) -> Census:
        if self._before is None:
            raise RuntimeError("count comes before claim: it notes what there was to begin with")
        return self._before


def _connect_lml(run: Run) -> LmlClient:
    service = run.settings.lml()
    try:
        return lml.connect(
            base_url=service.base_url,
            rate=service.rate,
            contact=run.settings.contact(),
            api_key=run.settings.get("LML_API_KEY"),
            concurrency=run.options.concurrency,
            stopping=run.stopping,
        )
    except ValueError as problem:
        raise SettingsError(str(problem)) from None


def _urls(results: Sequence[Match | Miss]) -> dict[int, str]:
    return {result.row.id: result.url for result in results if isinstance(result, Match)}


def _tally(filling: Filling, results: Sequence[Match | Miss]) -> Counts:
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
    return counts
