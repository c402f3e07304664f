"""--undo: emptying the rows that runs have written, as listed in their changes file."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

from psycopg import Connection

from artwork_backfill.jobs.library_artwork_url_backfill import library, writes
from artwork_backfill.jobs.library_artwork_url_backfill.changes import WrittenCover, read_written
from artwork_backfill.jobs.library_artwork_url_backfill.job import BATCH_MAX
from artwork_backfill.jobs.library_artwork_url_backfill.library import Shape
from artwork_backfill.jobs.library_artwork_url_backfill.lookups import Pace
from artwork_backfill.jobs.library_artwork_url_backfill.models import RowOutcome
from artwork_backfill.jobs.library_artwork_url_backfill.writes import Change
from artwork_backfill.shared.clients.http import Interrupted
from artwork_backfill.shared.engine.job import Job, Run, RunResult, Verification, Written
from artwork_backfill.shared.engine.sources import Keyset
from artwork_backfill.shared.settings import Settings

#: The names of the totals in the report.
_TOTALS: Final = {
    RowOutcome.WRITTEN: "written",
    RowOutcome.RACED: "other_url",
    RowOutcome.BUSY: "busy",
    RowOutcome.GONE: "gone",
}


class Undo(Job[WrittenCover, WrittenCover]):
    """Empty the rows that a changes file lists as written and that still hold the URL.

    Raises
    ------
    SettingsError
        The file is not a changes file.
    """

    name: ClassVar[str] = "library-artwork-url-backfill"
    database = Settings.wxyc_database
    batch_size: ClassVar[int] = BATCH_MAX
    max_batch_size: ClassVar[int] = BATCH_MAX

    def __init__(
        self, run: Run, path: Path, *, write_rate: float | None = None, pause_between: float = 0.0
    ) -> None:
        super().__init__(run)
        self._path = path
        self._pause_between = pause_between
        self._pace = Pace(write_rate, run.stop_flag)
        self._shape = run.session().look(self._open)
        partition = run.options.partition
        self._covers = sorted(
            cover
            for cover in read_written(path)
            if cover.library_id % partition.count == partition.index
        )

    def source(self) -> Keyset[WrittenCover]:
        return Keyset(self._page, lambda cover: cover, lambda _: len(self._covers))

    def write(self, conn: Connection, results: Sequence[WrittenCover]) -> Written:
        return _tally(writes.write(conn, self._shape, _changes(results)).values())

    def preview(self, conn: Connection, results: Sequence[WrittenCover]) -> Written:
        return _tally(writes.look(conn, self._shape, _changes(results)).values())

    def committed(self, written: Written) -> None:
        if self.run.options.dry_run:
            return
        self._pace.used(written.counts["written"])
        with suppress(Interrupted):
            self._pace.wait()
        self.run.stop_flag.wait(self._pause_between)

    def verify(self, conn: Connection, run: RunResult | None) -> Iterable[Verification]:
        if run is None or not run.is_complete:
            return
        outcomes = writes.look(conn, self._shape, _changes(self._covers)).values()
        held = Counter(outcomes)[RowOutcome.WRITTEN]
        yield Verification.equal(f"rows that still hold a URL of {self._path.name}", 0, held)

    def _open(self, conn: Connection) -> Shape:
        shape = library.read_shape(conn, self.run.settings.wxyc_schema())
        library.check_rights(conn, shape, read_only=self.run.options.dry_run)
        return shape

    def _page(
        self, conn: Connection, after: WrittenCover | None, size: int
    ) -> Sequence[WrittenCover]:
        first = 0 if after is None else bisect_right(self._covers, after)
        return self._covers[first : first + min(size, BATCH_MAX)]


def _changes(covers: Iterable[WrittenCover]) -> list[Change]:
    return [Change(cover.library_id, cover.url, None) for cover in covers]


def _tally(outcomes: Iterable[RowOutcome]) -> Written:
    counts = Counter(_TOTALS[outcome] for outcome in outcomes)
    return Written(
        {**counts, "written": counts["written"], "skipped": counts.total() - counts["written"]}
    )
