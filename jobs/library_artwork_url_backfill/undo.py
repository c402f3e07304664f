"""--undo: taking back what runs have written, as their changes file says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import ClassVar

from artwork_backfill.jobs.library_artwork_url_backfill import library
from artwork_backfill.jobs.library_artwork_url_backfill.changes import (
    BadChangesFile,
    WrittenCover,
    read_written,
)
from artwork_backfill.jobs.library_artwork_url_backfill.models import NotReady
from artwork_backfill.jobs.library_artwork_url_backfill.pace import Pace
from artwork_backfill.jobs.library_artwork_url_backfill.writes import Emptying, Writes
from artwork_backfill.shared.clients.http import Interrupted
from artwork_backfill.shared.engine.job import Counts, Database, Job, Run, Verification
from artwork_backfill.shared.settings import SettingsError
from psycopg import Connection

#: Covers that are compared with the table at once.
_LOOK_SIZE = 1_000


class Undo(Job[WrittenCover, WrittenCover]):
    """Empties the rows that a changes file says were written and that still hold the URL.

    Raises `SettingsError` when the file is not one of changes.
    """

    name: ClassVar[str] = "library-artwork-url-backfill"
    database: ClassVar[Database] = Database.WXYC
    batch_size: ClassVar[int] = 100
    max_batch_size: ClassVar[int] = 100

    def __init__(
        self, run: Run, path: Path, *, write_rate: float | None = None, pause_between: float = 0.0
    ) -> None:
        super().__init__(run)
        self._path = path
        self._pause_between = pause_between
        self._pace = Pace(write_rate, run.stopping)
        # Read to its end first: what is not a file of changes must not be half undone.
        self._covers = sum(1 for _ in self._read())
        self._rest: Iterator[WrittenCover] = self._read()
        self._opened: Writes | None = None
        self._emptied = 0

    def count(self, conn: Connection) -> int:
        self._writes(conn)
        return self._covers

    def claim(self, conn: Connection, size: int) -> Sequence[WrittenCover]:
        return list(islice(self._rest, min(size, self.max_batch_size)))

    def write(self, conn: Connection, results: Sequence[WrittenCover]) -> Counts:
        return self._tally(self._writes(conn).empty(conn, _urls(results)), results)

    def preview(self, conn: Connection, results: Sequence[WrittenCover]) -> Counts:
        return self._tally(self._writes(conn).look_at_urls(conn, _urls(results)), results)

    def committed(self, results: Sequence[WrittenCover]) -> None:
        if self.run.options.dry_run:
            return
        self._pace.used(self._emptied)
        with suppress(Interrupted):
            self._pace.wait()
        self.run.stopping.wait(self._pause_between)

    def verify(self, conn: Connection) -> Sequence[Verification]:
        covers, held = self._read(), 0
        while page := list(islice(covers, _LOOK_SIZE)):
            held += len(self._writes(conn).look_at_urls(conn, _urls(page)).emptied)
        return [Verification.equal(f"rows that still hold what {self._path.name} says", 0, held)]

    def _tally(self, emptying: Emptying, results: Sequence[WrittenCover]) -> Counts:
        self._emptied = len(emptying.emptied)
        counts = {
            "written": len(emptying.emptied),
            "skipped": len(results) - len(emptying.emptied),
            "other_url": len(emptying.other),
            "busy": len(emptying.busy),
            "gone": len(emptying.gone),
        }
        return {name: count for name, count in counts.items() if count}

    def _writes(self, conn: Connection) -> Writes:
        if self._opened is None:
            try:
                self._opened = Writes(library.read_shape(conn, self.run.settings.wxyc_schema()))
            except NotReady as problem:
                raise SettingsError(str(problem)) from None
        return self._opened

    def _read(self) -> Iterator[WrittenCover]:
        """Yield the covers of this partition."""
        partition = self.run.options.partition
        try:
            for cover in read_written(self._path):
                if cover.library_id % partition.count == partition.index:
                    yield cover
        except BadChangesFile as problem:
            raise SettingsError(str(problem)) from None
        except OSError as error:
            raise SettingsError(f"{self._path} cannot be read: {error.strerror or error}") from None


def _urls(covers: Sequence[WrittenCover]) -> dict[int, str]:
    # The last line of a row is the latest.
    return {cover.library_id: cover.url for cover in covers}
