"""The backfill of the library's artwork URLs as a job."""

from __future__ import annotations

import html
import logging
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from psycopg import Connection

from artwork_backfill.jobs.library_artwork_url_backfill import attempts, library, writes
from artwork_backfill.jobs.library_artwork_url_backfill.changes import ChangesFile
from artwork_backfill.jobs.library_artwork_url_backfill.choice import (
    Rules,
    album_key,
    choose,
    choose_metadata,
    is_certain,
    refuse_shared,
    shared_url,
)
from artwork_backfill.jobs.library_artwork_url_backfill.library import Candidates, Census, Shape
from artwork_backfill.jobs.library_artwork_url_backfill.lookups import (
    Answer,
    LookupFailed,
    Lookups,
    Pace,
    WrongAddress,
)
from artwork_backfill.jobs.library_artwork_url_backfill.models import (
    Decided,
    Found,
    Ground,
    Match,
    Miss,
    Reason,
    Row,
    RowOutcome,
)
from artwork_backfill.jobs.library_artwork_url_backfill.summary import Summary
from artwork_backfill.jobs.library_artwork_url_backfill.writes import Change
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
from artwork_backfill.shared.settings import Settings

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
class _Written(Written):
    """The result of a transaction, with what became of every row."""

    decided: Sequence[Decided] = ()


class _Candidates(Keyset[Row]):
    """The rows to look up; the changes file learns which of them the database has refused."""

    changes: ChangesFile | None = None

    def fail(self, session: Session, failed: Sequence[tuple[Row, str]]) -> None:
        if self.changes is not None:
            self.changes.take_back(row.id for row, _ in failed)


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
        if self._options.attempts_table:
            self.more_tables = (replace(attempts.TABLE, optional=False),)
        self.fetch_size = self._options.bulk_size
        self._rules = Rules(
            self._options.min_confidence,
            self._options.accept_first,
            run.settings.artwork_hosts(),
        )
        # A verification needs no settings of LML.
        self._lookups = None if run.verify_only else _open_lookups(run, self._options, client)
        self._pace = Pace(self._options.write_rate, run.stop_flag)
        path = None if run.verify_only else self._options.changes
        self._changes = None if path is None else ChangesFile(path, str(run.id))
        self._summary = Summary()
        self._written_ids = array("q")
        # In a dry run, what would have been written: picture and artist, with the row.
        self._would_write: dict[tuple[int, str], tuple[int, str]] = {}
        self._before: Census | None = None
        # Before any request or change, in dry runs as well.
        self._shape = run.session().look(self._examine)
        self._library = Candidates(
            self._shape,
            run.options.partition,
            from_metadata=self._options.from_metadata,
            retry_after_s=self._options.retry_after if self._options.attempts_table else None,
        )

    def source(self) -> Keyset[Row]:
        candidates = _Candidates(self._page, lambda row: row.id, self._count)
        candidates.changes = self._changes
        return candidates

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

    def write(self, conn: Connection, results: Sequence[Found]) -> _Written:
        found = self._refuse_shared(conn, results)
        outcomes = writes.write(conn, self._shape, [*map(_change, _matches(found))])
        if self._options.attempts_table:
            attempts.note(conn, self._shape.schema, found)
        written = _tally(found, outcomes)
        if self._changes is not None:
            self._changes.begin(written.decided)
        return written

    def preview(self, conn: Connection, results: Sequence[Found]) -> _Written:
        found = self._refuse_shared(conn, results)
        outcomes = writes.look(conn, self._shape, [*map(_change, _matches(found))])
        return _tally(found, outcomes, RowOutcome.WOULD_WRITE)

    def committed(self, written: _Written) -> None:
        if self._changes is not None:
            self._changes.end(written.decided)
        self._summary.add(written.decided)
        ids = []
        for each in written.decided:
            _log(each)
            if each.outcome is RowOutcome.WRITTEN:
                ids.append(each.row.id)
            elif each.outcome is RowOutcome.WOULD_WRITE and isinstance(each.found, Match):
                key = each.row.artist_id, each.found.url
                self._would_write[key] = each.row.id, each.row.title
        self._written_ids.extend(ids)
        self._pace.used(len(ids))
        # No transaction is open.
        with suppress(Interrupted):
            self._pace.wait()
        if ids:
            self.run.stop_flag.wait(self._options.pause_between)

    def verify(
        self, conn: Connection, run: RunResult | None
    ) -> Iterable[Verification | Note | Left]:
        if run is not None:
            emptied = self._library.count_empty(conn, self._written_ids)
            yield Verification.equal("rows written by this run that are empty again", 0, emptied)
        last = self._before.last if self._before else None
        now = self._library.take_census(conn, last=last)
        yield Note("rows with artwork", now.with_artwork)
        resting = f"{now.resting:,} of them not yet due for another lookup" if now.resting else ""
        yield Note("candidates left", now.candidates, resting)
        yield Left(now.candidates)

    def sections(self) -> Iterable[Section]:
        return self._summary.sections()

    # -- parts -----------------------------------------------------------------------------------

    def _examine(self, conn: Connection) -> Shape:
        """Examine the database, and check that the role may do everything that the run will do.

        Raises
        ------
        DatabaseError
            A table or a right is missing.
        """
        run, options = self.run, self._options
        shape = library.read_shape(conn, run.settings.wxyc_schema())
        if not run.verify_only:
            library.check_rights(conn, shape, read_only=run.options.dry_run)
        if options.from_metadata and not shape.has("album_metadata", "album_id", "artwork_url"):
            raise DatabaseError(
                f"{shape.schema}.album_metadata does not exist or may not be read: omit"
                " --from-metadata"
            )
        return shape

    def _count(self, conn: Connection) -> int:
        self._before = self._library.take_census(conn)
        return self._before.candidates - self._before.resting

    def _page(self, conn: Connection, after: int | None, size: int) -> Sequence[Row]:
        last = self._before.last if self._before else 0
        return self._library.read_page(conn, after=after or 0, last=last, size=min(size, BATCH_MAX))

    def _ask(self, rows: Sequence[Row]) -> Sequence[Answer]:
        if self._lookups is None:
            raise TypeError("a verification looks nothing up")
        # Without HTML entities, which the older system has left in names.
        queries = [
            LmlQuery(html.unescape(row.artist).strip(), html.unescape(row.title).strip())
            for row in rows
        ]
        try:
            return self._lookups.ask(queries)
        except ServiceDown as down:
            raise StopRun(str(down)) from down
        except (CredentialsRefused, WrongAddress) as refusal:
            raise RunFailed(str(refusal)) from refusal

    def _refuse_shared(self, conn: Connection, found: Sequence[Found]) -> list[Found]:
        """Refuse pictures that another album of the artist has, or would get as well."""
        checked = refuse_shared(found)
        others = self._library.others_with(conn, _matches(checked))
        for place, each in enumerate(checked):
            if not isinstance(each, Match) or is_certain(each):
                continue
            having = others[each.row.id]
            if planned := self._would_write.get((each.row.artist_id, each.url)):
                having.append(planned)
            for id_, title in having:
                if album_key(title) != album_key(each.row.title):
                    checked[place] = shared_url(each, f"library row {id_} ({title}) has it")
                    break
        return checked


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


def _matches(found: Sequence[Found]) -> list[Match]:
    return [each for each in found if isinstance(each, Match)]


def _change(match: Match) -> Change:
    return Change(match.row.id, None, match.url, match.row.artist, match.row.title)


def _log(decided: Decided) -> None:
    """Log why a row got no cover; the runner logs failed rows."""
    row, outcome = decided.row, decided.outcome
    if isinstance(decided.found, Match):
        if outcome not in (RowOutcome.WRITTEN, RowOutcome.WOULD_WRITE):
            log.info("%s: %s", row, outcome, extra={"fields": _fields(row, outcome)})
    elif outcome is RowOutcome.REFUSED:
        reason = decided.found.reason
        said = decided.found.explanation or reason.meaning
        log.info("%s: %s (%s)", row, reason, said, extra={"fields": _fields(row, reason)})


def _fields(row: Row, reason: Reason | RowOutcome) -> dict[str, object]:
    return {"library_id": row.id, "reason": str(reason)}


def _tally(
    found: Sequence[Found],
    outcomes: Mapping[Change, RowOutcome],
    if_written: RowOutcome = RowOutcome.WRITTEN,
) -> _Written:
    """Count a batch: every row is written, skipped, deferred or failed.

    As in every job, failed rows count as `failed`. Rows that were locked count as `deferred`,
    because a later run writes them. Every row that is not written also counts under its reason.
    """
    counts: Counter[str] = Counter()
    problems: list[Problem] = []
    decided: list[Decided] = []
    for each in found:
        if isinstance(each, Match):
            outcome = outcomes[_change(each)]
            if outcome is RowOutcome.WRITTEN:
                outcome = if_written
                counts["written"] += 1
                counts["from_metadata"] += each.ground is Ground.METADATA
            else:
                counts[str(outcome)] += 1
                counts["deferred" if outcome is RowOutcome.BUSY else "skipped"] += 1
        else:
            counts[str(each.reason)] += 1
            if each.reason is Reason.COULD_NOT_SAY:
                outcome = RowOutcome.FAILED
                said = each.explanation or each.reason.meaning
                problems.append(Problem(str(each), said, _fields(each.row, each.reason)))
                counts["failed"] += 1
            else:
                outcome = RowOutcome.REFUSED
                counts["skipped"] += 1
        decided.append(Decided(each, outcome))
    return _Written(+counts, problems, decided)
