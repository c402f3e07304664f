"""--undo: emptying the rows that runs have written, as listed in their changes file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar, Final

from psycopg import Connection

from artwork_backfill.jobs.library_artwork_url_backfill import library
from artwork_backfill.jobs.library_artwork_url_backfill.changes import (
    BadChangesFile,
    WrittenCover,
    read_written,
)
from artwork_backfill.jobs.library_artwork_url_backfill.lookups import Pace
from artwork_backfill.jobs.library_artwork_url_backfill.writes import Emptying, Writes
from artwork_backfill.shared.clients.http import Interrupted
from artwork_backfill.shared.engine.job import Job, Run, RunResult, Verification, Written
from artwork_backfill.shared.engine.session import Session
from artwork_backfill.shared.engine.sources import Source
from artwork_backfill.shared.settings import Settings, SettingsError

#: The maximum number of rows of a batch, as for filling.
BATCH_MAX: Final = 100
#: The number of covers that are compared with the table at once.
_LOOK_SIZE: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Emptied(Written):
    """The emptied rows, and their number."""

    emptied: int = 0


class _Covers(Source[WrittenCover]):
    """The written covers of a changes file."""

    def __init__(self, covers: Iterator[WrittenCover], count: int) -> None:
        self._covers = covers
        self._count = count

    def count(self, session: Session) -> int:
        return self._count

    def next(self, session: Session, size: int) -> Sequence[WrittenCover]:
        return list(islice(self._covers, min(size, BATCH_MAX)))


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
        schema = run.settings.wxyc_schema()
        dry_run = run.options.dry_run
        self._writes = run.session().look(
            lambda conn: _open_writes(conn, schema, read_only=dry_run)
        )
        # Read the whole file first: an invalid file must not be half undone.
        self._count = sum(1 for _ in self._read())

    def source(self) -> _Covers:
        return _Covers(self._read(), self._count)

    def write(self, conn: Connection, results: Sequence[WrittenCover]) -> _Emptied:
        return _tally(self._writes.empty(conn, _urls(results)), results)

    def preview(self, conn: Connection, results: Sequence[WrittenCover]) -> _Emptied:
        return _tally(self._writes.look_at_urls(conn, _urls(results)), results)

    def committed(self, written: _Emptied) -> None:
        if self.run.options.dry_run:
            return
        self._pace.used(written.emptied)
        with suppress(Interrupted):
            self._pace.wait()
        self.run.stop_flag.wait(self._pause_between)

    def verify(self, conn: Connection, run: RunResult | None) -> Iterable[Verification]:
        if run is None or not run.is_complete:
            return
        covers, held = self._read(), 0
        while page := list(islice(covers, _LOOK_SIZE)):
            held += len(self._writes.look_at_urls(conn, _urls(page)).emptied)
        yield Verification.equal(f"rows that still hold a URL of {self._path.name}", 0, held)

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
            raise SettingsError(
                f"{self._path} cannot be read: {error.strerror or error}; pass the file that"
                " --changes has written"
            ) from None


def _open_writes(conn: Connection, schema: str, *, read_only: bool) -> Writes:
    shape = library.read_shape(conn, schema)
    library.check_rights(conn, shape, read_only=read_only)
    return Writes(shape)


def _tally(emptying: Emptying, results: Sequence[WrittenCover]) -> _Emptied:
    emptied = len(emptying.emptied)
    counts = {
        "written": emptied,
        "skipped": len(results) - emptied,
        "other_url": len(emptying.other),
        "busy": len(emptying.busy),
        "gone": len(emptying.gone),
    }
    return _Emptied({name: count for name, count in counts.items() if count}, (), emptied)


def _urls(covers: Sequence[WrittenCover]) -> dict[int, str]:
    # The last line of a row is the latest.
    return {cover.library_id: cover.url for cover in covers}
