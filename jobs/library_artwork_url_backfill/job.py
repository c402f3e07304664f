"""The backfill of the library's artwork URLs as a job."""

from __future__ import annotations

import html
import logging
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from artwork_backfill.jobs.library_artwork_url_backfill import attempts, library, summary
from artwork_backfill.jobs.library_artwork_url_backfill.changes import ChangesFile, Decided, Fate
from artwork_backfill.jobs.library_artwork_url_backfill.choice import (
    Rules,
    choose,
    choose_metadata,
)
from artwork_backfill.jobs.library_artwork_url_backfill.decisions import Decisions
from artwork_backfill.jobs.library_artwork_url_backfill.library import Candidates, Census
from artwork_backfill.jobs.library_artwork_url_backfill.lookups import (
    Answer,
    LookupFailed,
    Lookups,
    WrongAddress,
)
from artwork_backfill.jobs.library_artwork_url_backfill.models import (
    Found,
    Ground,
    Match,
    Miss,
    NotReady,
    Reason,
    Row,
)
from artwork_backfill.jobs.library_artwork_url_backfill.pace import Pace
from artwork_backfill.jobs.library_artwork_url_backfill.writes import Writes
from artwork_backfill.shared.clients import lml
from artwork_backfill.shared.clients.http import CredentialsRefused, Interrupted, ServiceDown
from artwork_backfill.shared.clients.lml import LmlClient, LmlQuery
from artwork_backfill.shared.engine.db import Table
from artwork_backfill.shared.engine.job import (
    Counts,
    Database,
    Job,
    Problem,
    Run,
    Section,
    ServiceStats,
    StopRun,
    Verification,
)
from artwork_backfill.shared.settings import Settings, SettingsError
from psycopg import Connection

log = logging.getLogger(__name__)

#: Rows of a batch at most, so that it is written in milliseconds: the live site waits meanwhile.
BATCH_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen for this job alone; see the command's help.

    Rates are per second, `None` for none; durations are in seconds.
    """

    accept_first: bool = False
    min_confidence: float = 0.0
    from_metadata: bool = False
    bulk_size: int = 5
    quick: bool = False
    discogs_rate: float | None = 20 / 60
    write_rate: float | None = 50.0
    pause_between: float = 0.0
    changes: Path | None = None
    attempts_table: bool = False
    retry_after: float = 14 * 86_400.0


class LibraryArtworkUrlBackfill(Job[Row, Found]):
    """Every candidate is looked up once, and filled where the artwork is surely its cover."""

    name: ClassVar[str] = "library-artwork-url-backfill"
    database: ClassVar[Database] = Database.WXYC
    batch_size: ClassVar[int] = BATCH_MAX
    max_batch_size: ClassVar[int] = BATCH_MAX
    concurrency: ClassVar[int] = 1

    def __init__(
        self, run: Run, options: Options | None = None, *, client: LmlClient | None = None
    ) -> None:
        super().__init__(run)
        self._options = options or Options()
        self.fetch_size = self._options.bulk_size
        self._rules = Rules(
            self._options.min_confidence,
            self._options.accept_first,
            run.settings.artwork_hosts(),
        )
        self._client = client or _connect_lml(run, self._options)
        self._lookups = Lookups(
            self._client,
            discogs=Pace(self._options.discogs_rate, run.stopping),
            stopping=run.stopping,
        )
        self._pace = Pace(self._options.write_rate, run.stopping)
        self._changes = _open_changes(run, self._options)
        self._summary = summary.Summary()
        self._written_ids = array("q")
        self._problems: list[Problem] = []
        self._position = 0
        self._opened: _Library | None = None
        self._before: Census | None = None
        self._decided: list[Decided] = []

    @classmethod
    def tables_for(cls, settings: Settings) -> tuple[Table, ...]:
        return library.tables(settings.wxyc_schema())

    # -- the five verbs ------------------------------------------------------------------------

    def count(self, conn: Connection) -> int:
        self._before = self._library(conn).candidates.take_census(conn)
        return self._before.candidates - self._before.resting

    def claim(self, conn: Connection, size: int) -> Sequence[Row]:
        last = self._before.last if self._before else 0
        return self._library(conn).candidates.read_page(
            conn, after=self._position, last=last, size=min(size, BATCH_MAX)
        )

    def fetch(self, items: Sequence[Row]) -> Sequence[Found]:
        found: dict[int, Found] = {}
        for row in items:
            if (cover := choose_metadata(row, self._rules)) is not None:
                found[row.id] = cover
            elif not row.artist.strip() or not row.title.strip():
                found[row.id] = Miss(row, Reason.NO_NAME)
        asked = [row for row in items if row.id not in found]
        for row, answer in zip(asked, self._ask(asked), strict=True):
            match answer:
                case LookupFailed(reason):
                    found[row.id] = Miss(row, Reason.COULD_NOT_SAY, detail=reason)
                case _:
                    found[row.id] = choose(row, answer, self._rules)
        return [found[row.id] for row in items]

    def write(self, conn: Connection, results: Sequence[Found]) -> Counts:
        self._decided = self._library(conn).decisions.write(conn, results)
        return _tally(self._decided)

    def preview(self, conn: Connection, results: Sequence[Found]) -> Counts:
        self._decided = self._library(conn).decisions.preview(conn, results)
        return _tally(self._decided)

    def verify(self, conn: Connection) -> Sequence[Verification]:
        opened = self._library(conn)
        last = self._before.last if self._before else None
        now = opened.candidates.take_census(conn, last=last)
        left = f"{now.candidates:,} candidates are left"
        if now.resting:
            left += f", {now.resting:,} of them not due to be asked for again"
        return [
            Verification.equal(
                "rows written by this run that are empty again",
                0,
                opened.writes.count_empty(conn, self._written_ids),
                f"{now.with_artwork:,} rows of the library have artwork, {left}",
            )
        ]

    # -- the rest of a run -----------------------------------------------------------------------

    def claimed(self, items: Sequence[Row]) -> None:
        self._position = items[-1].id

    def committed(self, results: Sequence[Found]) -> None:
        if self._opened is not None:
            self._opened.decisions.committed(self._decided)
        self._summary.add(self._decided)
        for each in self._decided:
            self._tell(each)
        written = [each.found.row.id for each in self._decided if each.fate is Fate.WRITTEN]
        self._written_ids.extend(written)
        self._pace.used(len(written))
        self._rest(self._options.pause_between if written else 0.0)

    def sections(self) -> Sequence[Section]:
        return self._summary.sections()

    def describe(self, result: Row | Found) -> str:
        return str(result if isinstance(result, Row) else result.row)

    def problems(self) -> Sequence[Problem]:
        problems, self._problems = self._problems, []
        return problems

    def requests(self) -> Mapping[str, ServiceStats]:
        return {"LML": self._client.stats()}

    def close(self) -> None:
        self._client.close()
        if self._changes is not None:
            self._changes.close()

    # -- parts -----------------------------------------------------------------------------------

    def _library(self, conn: Connection) -> _Library:
        if self._opened is None:
            try:
                self._opened = _Library.open(conn, self.run, self._options, self._changes)
            except NotReady as problem:
                raise SettingsError(str(problem)) from None
        return self._opened

    def _ask(self, rows: Sequence[Row]) -> Sequence[Answer]:
        queries = [LmlQuery(_as_text(row.artist), _as_text(row.title)) for row in rows]
        try:
            return self._lookups.ask(queries)
        except ServiceDown as down:
            raise StopRun(str(down)) from down
        except (CredentialsRefused, WrongAddress) as refusal:
            raise SettingsError(str(refusal)) from refusal

    def _tell(self, decided: Decided) -> None:
        """Log what was not written, row by row."""
        found, fate = decided.found, decided.fate
        if isinstance(found, Match):
            if fate not in (Fate.WRITTEN, Fate.WOULD_WRITE):
                log.info("%s: %s", found.row, fate, extra=_fields(found.row, str(fate)))
            return
        said = summary.found_instead(found) or summary.MEANINGS[found.reason]
        if fate is Fate.FAILED:
            fields = _fields(found.row, str(found.reason))["fields"]
            self._problems.append(Problem(str(found.row), said, fields))
        else:
            log.info(
                "%s: %s (%s)", found.row, found.reason, said, extra=_fields(found.row, found.reason)
            )

    def _rest(self, seconds: float) -> None:
        """Keep to the pace of writes, and pause between batches, with no transaction open."""
        with suppress(Interrupted):
            self._pace.wait()
        self.run.stopping.wait(seconds)


@dataclass(frozen=True, slots=True)
class _Library:
    """The parts of a run that depend on what kind of database it is."""

    candidates: Candidates
    writes: Writes
    decisions: Decisions

    @classmethod
    def open(
        cls, conn: Connection, run: Run, options: Options, changes: ChangesFile | None
    ) -> _Library:
        """Look at the database, and check that all may be done there that the run will do.

        Raises `NotReady`.
        """
        shape = library.read_shape(conn, run.settings.wxyc_schema())
        if options.from_metadata and not shape.has("album_metadata", "album_id", "artwork_url"):
            raise NotReady(
                f"{shape.schema}.album_metadata does not exist or may not be read: leave out"
                " --from-metadata"
            )
        if options.attempts_table:
            attempts.check(conn)
        writes = Writes(shape)
        return cls(
            Candidates(
                shape,
                run.options.partition,
                from_metadata=options.from_metadata,
                retry_after_s=options.retry_after if options.attempts_table else None,
            ),
            writes,
            Decisions(
                writes,
                attempts_of=shape.schema if options.attempts_table else None,
                changes=changes,
            ),
        )


def _connect_lml(run: Run, options: Options) -> LmlClient:
    service = run.settings.lml()
    try:
        return lml.connect(
            base_url=service.base_url,
            rate=service.rate,
            contact=run.settings.contact(),
            api_key=run.settings.get("LML_API_KEY"),
            concurrency=run.options.concurrency,
            bulk_size=options.bulk_size,
            quick=options.quick,
            stopping=run.stopping,
        )
    except ValueError as problem:
        raise SettingsError(str(problem)) from None


def _open_changes(run: Run, options: Options) -> ChangesFile | None:
    if options.changes is None:
        return None
    try:
        return ChangesFile(options.changes, str(run.id))
    except OSError as error:
        raise SettingsError(
            f"{options.changes} cannot be written: {error.strerror or error}"
        ) from None


def _as_text(name: str) -> str:
    """Return a name as LML should get it: without HTML entities and outer spaces."""
    return html.unescape(name).strip()


def _fields(row: Row, reason: str) -> dict[str, dict[str, object]]:
    return {"fields": {"library_id": row.id, "reason": str(reason)}}


def _tally(decided: Sequence[Decided]) -> Counts:
    """Count a batch: every row is written, skipped or failed, and has one reason why not written.

    What failed counts as `failed`, as in every job; the other reasons are parts of `skipped`.
    """
    counts: Counter[str] = Counter()
    for each in decided:
        found = each.found
        if isinstance(found, Miss):
            counts[str(found.reason)] += 1
            counts["failed" if each.fate is Fate.FAILED else "skipped"] += 1
        elif each.fate in (Fate.WRITTEN, Fate.WOULD_WRITE):
            counts["written"] += 1
            counts["from_metadata"] += found.ground is Ground.METADATA
        else:
            counts[str(each.fate)] += 1
            counts["skipped"] += 1
    return +counts
