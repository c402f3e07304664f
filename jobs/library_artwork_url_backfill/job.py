"""The backfill of the library's artwork URLs as a job."""

from __future__ import annotations

import html
import logging
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from psycopg import Connection

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
    Pace,
    WrongAddress,
)
from artwork_backfill.jobs.library_artwork_url_backfill.models import (
    Found,
    Ground,
    Match,
    Miss,
    Reason,
    Row,
)
from artwork_backfill.jobs.library_artwork_url_backfill.writes import Writes
from artwork_backfill.shared.clients.http import CredentialsRefused, Interrupted, ServiceDown
from artwork_backfill.shared.clients.lml import LmlClient, LmlQuery
from artwork_backfill.shared.engine.errors import DatabaseError, RunFailed
from artwork_backfill.shared.engine.job import (
    Job,
    Left,
    Note,
    Problem,
    Run,
    RunResult,
    Section,
    StopRun,
    Verification,
    Written,
)
from artwork_backfill.shared.engine.session import Session
from artwork_backfill.shared.engine.sources import Keyset
from artwork_backfill.shared.settings import Settings, SettingsError

log = logging.getLogger(__name__)

#: The maximum batch size. A batch is written in milliseconds, because the live site waits for it.
BATCH_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Options:
    """The options of this job; see the help of the command.

    Rates are per second, `None` for no limit; durations are in seconds.
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


@dataclass(frozen=True, slots=True)
class _Decided(Written):
    """The result of a transaction, with the result of every row."""

    decided: Sequence[Decided] = ()


class LibraryArtworkUrlBackfill(Job[Row, Found]):
    """Look up every candidate once, and fill it if the artwork is certainly its cover."""

    name: ClassVar[str] = "library-artwork-url-backfill"
    database = Settings.wxyc_database
    tables = staticmethod(lambda settings: library.tables(settings.wxyc_schema()))
    optional_tables = (attempts.TABLE,)
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
        # A verification needs no settings of LML.
        self._lookups = None if run.verify_only else _open_lookups(run, self._options, client)
        self._pace = Pace(self._options.write_rate, run.stop_flag)
        self._changes = None if run.verify_only else _open_changes(run, self._options)
        self._summary = summary.Summary()
        self._written_ids = array("q")
        self._before: Census | None = None
        # Before any request or change, in dry runs as well.
        self._library = run.session().look(
            lambda conn: _Library.open(conn, run, self._options, self._changes)
        )

    def source(self) -> Keyset[Row]:
        return _Source(self._page, lambda row: row.id, self._count, on_fail=self._failed)

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

    def write(self, conn: Connection, results: Sequence[Found]) -> _Decided:
        return _tally(self._library.decisions.write(conn, results))

    def preview(self, conn: Connection, results: Sequence[Found]) -> _Decided:
        return _tally(self._library.decisions.preview(conn, results))

    def committed(self, written: _Decided) -> None:
        self._library.decisions.committed(written.decided)
        self._summary.add(written.decided)
        for each in written.decided:
            _tell(each)
        ids = [each.found.row.id for each in written.decided if each.fate is Fate.WRITTEN]
        self._written_ids.extend(ids)
        self._pace.used(len(ids))
        self._rest(self._options.pause_between if ids else 0.0)

    def verify(
        self, conn: Connection, run: RunResult | None
    ) -> Iterable[Verification | Note | Left]:
        if run is not None:
            emptied = self._library.writes.count_empty(conn, self._written_ids)
            yield Verification.equal("rows written by this run that are empty again", 0, emptied)
        last = self._before.last if self._before else None
        now = self._library.candidates.take_census(conn, last=last)
        yield Note("rows with artwork", now.with_artwork)
        resting = f"{now.resting:,} of them not yet due for another lookup" if now.resting else ""
        yield Note("candidates left", now.candidates, resting)
        yield Left(now.candidates)

    def sections(self) -> Iterable[Section]:
        return self._summary.sections()

    # -- parts -----------------------------------------------------------------------------------

    def _count(self, conn: Connection) -> int:
        self._before = self._library.candidates.take_census(conn)
        return self._before.candidates - self._before.resting

    def _page(self, conn: Connection, after: int | None, size: int) -> Sequence[Row]:
        last = self._before.last if self._before else 0
        return self._library.candidates.read_page(
            conn, after=after or 0, last=last, size=min(size, BATCH_MAX)
        )

    def _failed(self, rows: Sequence[Row]) -> None:
        self._library.decisions.failed(rows)

    def _ask(self, rows: Sequence[Row]) -> Sequence[Answer]:
        if self._lookups is None:
            raise TypeError("a verification looks nothing up")
        queries = [LmlQuery(_as_text(row.artist), _as_text(row.title)) for row in rows]
        try:
            return self._lookups.ask(queries)
        except ServiceDown as down:
            raise StopRun(str(down)) from down
        except (CredentialsRefused, WrongAddress) as refusal:
            raise RunFailed(str(refusal)) from refusal

    def _rest(self, seconds: float) -> None:
        """Wait for the write rate and the pause between batches, with no transaction open."""
        with suppress(Interrupted):
            self._pace.wait()
        self.run.stop_flag.wait(seconds)


class _Source(Keyset[Row]):
    """The candidates; `on_fail` is called with the rows that the database has refused."""

    def __init__(
        self,
        rows: Callable[[Connection, Any, int], Sequence[Row]],
        key: Callable[[Row], Any],
        count: Callable[[Connection], int | None],
        *,
        on_fail: Callable[[Sequence[Row]], None],
    ) -> None:
        super().__init__(rows, key, count)
        self._on_fail = on_fail

    def fail(self, session: Session, failed: Sequence[tuple[Row, str]]) -> None:
        self._on_fail([row for row, _ in failed])


@dataclass(frozen=True, slots=True)
class _Library:
    """The parts of a run that depend on the kind of database."""

    candidates: Candidates
    writes: Writes
    decisions: Decisions

    @classmethod
    def open(
        cls, conn: Connection, run: Run, options: Options, changes: ChangesFile | None
    ) -> _Library:
        """Examine the database, and check that the role may do everything that the run will do.

        Raises
        ------
        DatabaseError
            A table or a right is missing.
        """
        shape = library.read_shape(conn, run.settings.wxyc_schema())
        if not run.verify_only:
            library.check_rights(conn, shape, read_only=run.options.dry_run)
        if options.from_metadata and not shape.has("album_metadata", "album_id", "artwork_url"):
            raise DatabaseError(
                f"{shape.schema}.album_metadata does not exist or may not be read: omit"
                " --from-metadata"
            )
        if options.attempts_table:
            attempts.check(conn, read_only=run.verify_only or run.options.dry_run)
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


def _open_lookups(run: Run, options: Options, client: LmlClient | None) -> Lookups:
    client = client or LmlClient.from_settings(
        run.settings,
        stop_flag=run.stop_flag,
        concurrency=run.options.concurrency,
        bulk_size=options.bulk_size,
        quick=options.quick,
    )
    return Lookups(
        run.use(client),
        discogs=Pace(options.discogs_rate, run.stop_flag),
        stop_flag=run.stop_flag,
    )


def _open_changes(run: Run, options: Options) -> ChangesFile | None:
    if options.changes is None:
        return None
    try:
        return ChangesFile(options.changes, str(run.id))
    except OSError as error:
        raise SettingsError(
            f"{options.changes} cannot be written: {error.strerror or error}; choose another file"
        ) from None


def _as_text(name: str) -> str:
    """Return a name for LML, without HTML entities and surrounding spaces."""
    return html.unescape(name).strip()


def _tell(decided: Decided) -> None:
    """Log why a row got no cover; the runner logs failed rows."""
    row, fate = decided.found.row, decided.fate
    if isinstance(decided.found, Match):
        if fate not in (Fate.WRITTEN, Fate.WOULD_WRITE):
            log.info("%s: %s", row, fate, extra={"fields": _fields(row, fate)})
    elif fate is Fate.REFUSED:
        reason = decided.found.reason
        said = summary.found_instead(decided.found) or summary.MEANINGS[reason]
        log.info("%s: %s (%s)", row, reason, said, extra={"fields": _fields(row, reason)})


def _fields(row: Row, reason: Reason | Fate) -> dict[str, object]:
    return {"library_id": row.id, "reason": str(reason)}


def _tally(decided: Sequence[Decided]) -> _Decided:
    """Count a batch: every row is written, skipped, deferred or failed.

    As in every job, failed rows count as `failed`. Rows that were locked count as `deferred`,
    because a later run writes them. Every row that is not written also counts under its reason.
    """
    counts: Counter[str] = Counter()
    problems: list[Problem] = []
    for each in decided:
        found = each.found
        if isinstance(found, Miss):
            counts[str(found.reason)] += 1
            counts["failed" if each.fate is Fate.FAILED else "skipped"] += 1
            if each.fate is Fate.FAILED:
                said = summary.found_instead(found) or summary.MEANINGS[found.reason]
                problems.append(Problem(str(found), said, _fields(found.row, found.reason)))
        elif each.fate in (Fate.WRITTEN, Fate.WOULD_WRITE):
            counts["written"] += 1
            counts["from_metadata"] += found.ground is Ground.METADATA
        else:
            counts[str(each.fate)] += 1
            counts["deferred" if each.fate is Fate.BUSY else "skipped"] += 1
    return _Decided(+counts, problems, decided)
