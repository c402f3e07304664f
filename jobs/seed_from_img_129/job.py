"""The seed-from-img-129 job: give the items that the audit of 2021 found faulty a priority.

The files are streamed: a batch is a part of a source with a limited number of distinct gids.
`formats` and `checks` know the meaning of lines; this module writes and verifies the rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from psycopg import Connection

from artwork_backfill.jobs.seed_from_img_129.ledger import Entry, Ledger
from artwork_backfill.jobs.seed_from_img_129.reading import Chunk, Reading
from artwork_backfill.jobs.seed_from_img_129.sources import Source
from artwork_backfill.shared import seeding
from artwork_backfill.shared.engine.job import (
    Job,
    Note,
    Problem,
    Run,
    RunResult,
    Verification,
    Written,
)
from artwork_backfill.shared.engine.session import only_row
from artwork_backfill.shared.engine.sources import Stream
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.settings import Settings

#: The audit of 2021 covered only releases.
_ENTITY_TYPE: Final = "release"

#: The number of gids of a chunk when sources are read only to verify them.
_VERIFIED_CHUNK: Final = 10_000

#: The number of gids that are looked up at once.
_LOOKED_UP: Final = 4_000

# A row that is no longer unchecked has been or is being audited, so its priority no longer matters.
# OFFSET keeps the array in one place; an index then finds all of it at once.
_LOOK_UP: Final = """
SELECT present.rows,
       present.prioritised,
       (SELECT count(*) FROM musicbrainz.release WHERE gid = ANY (seed.gids)),
       (SELECT count(*) FROM musicbrainz.release_gid_redirect WHERE gid = ANY (seed.gids)),
       (SELECT count(*) FROM musicbrainz.deleted_entity
        WHERE gid = ANY (seed.gids) AND data->>'entity_type' = 'release')
FROM (SELECT %(gids)s::uuid[] AS gids OFFSET 0) seed
CROSS JOIN LATERAL (
    SELECT count(*) AS rows,
           count(*) FILTER (WHERE status <> 'unchecked' OR priority >= %(priority)s) AS prioritised
    FROM artwork_indexer.audit_entity
    WHERE entity_type = 'release' AND gid = ANY (seed.gids)
) present
"""


@dataclass(frozen=True, slots=True)
class _Seeded(Written):
    """The result of a chunk."""

    chunk: Chunk = field(kw_only=True)


#: Numbers of gids: in all (`gids`), with a row, with their priority, and by state in MusicBrainz.
_Found = Counter[str]
_LOOKED_UP_AS: Final = ("present", "prioritised", "live", "merged", "deleted")


class SeedFromImg129(Job[Chunk, Chunk]):
    """Give every valid gid of the sources a row in audit_entity with at least its priority.

    `passed_over` are files in folders that are not sources, to be reported; for the other options
    see the command.
    """

    name: ClassVar[str] = "seed-from-img-129"
    database = Settings.musicbrainz_database
    tables: ClassVar[tuple[Table, ...]] = seeding.TABLES
    one_snapshot: ClassVar[bool] = False
    verifies_dry_runs: ClassVar[bool] = True
    batch_size: ClassVar[int] = 10_000
    # Up to three batches are in memory, and larger ones are hardly written faster.
    max_batch_size: ClassVar[int] = 10_000

    def __init__(
        self,
        run: Run,
        sources: Sequence[Source],
        *,
        passed_over: Sequence[Problem] = (),
        include_passed: bool = False,
        allow_damaged: bool = False,
        priority: int | None = None,
    ) -> None:
        super().__init__(run)
        self._sources = sources
        self._reading = Reading(
            sources,
            include_passed=include_passed,
            priority=priority,
            partition=run.options.partition,
            stop_flag=run.stop_flag,
            problems=passed_over,
        )
        self._allow_damaged = allow_damaged
        self._ledger = Ledger()
        self._counts: Counter[str] = Counter()
        # For a verification without a run.
        self._problems: list[Problem] = []

    def source(self) -> Stream[Chunk]:
        return Stream(lambda _: self._reading.next_chunk)

    def write(self, conn: Connection, results: Sequence[Chunk]) -> _Seeded:
        return _seed(conn, results)

    def preview(self, conn: Connection, results: Sequence[Chunk]) -> _Seeded:
        return _seed(conn, results, preview=True)

    def committed(self, written: _Seeded) -> None:
        self._take_note(written.chunk)

    def verify(
        self, conn: Connection, run: RunResult | None
    ) -> Iterator[Verification | Note | Problem]:
        if run is None:
            # Resumes where it was if the connection is lost in the meantime.
            while chunk := self._reading.next_chunk(_VERIFIED_CHUNK):
                self._take_note(chunk)
                self._problems += chunk.problems
            yield from self._problems
        is_complete = run is None or run.is_complete
        if not self.run.options.dry_run:
            yield from self._verify_gids(_look_up(conn, self._ledger), is_complete)
        yield from self._verify_readable()

    def _take_note(self, chunk: Chunk) -> None:
        self._ledger.add(chunk.seeds, chunk.source)
        self._counts.update(chunk.counts)

    # -- verification ----------------------------------------------------------------------------

    def _verify_gids(
        self, found: Mapping[Entry, _Found], is_complete: bool
    ) -> Iterator[Verification | Note]:
        everything = sum(found.values(), _Found())
        known = everything["live"] + everything["merged"] + everything["deleted"]
        detail = "" if is_complete else "as far as this run got"
        yield _present("gids in audit_entity", everything, detail)
        for position, source in enumerate(self._sources):
            of_source = sum(
                (f for entry, f in found.items() if position in entry.sources), _Found()
            )
            yield _present(f"gids of {source}", of_source, source.kind or "")
        for priority in sorted({entry.priority for entry in found}, reverse=True):
            of_priority = sum(
                (f for entry, f in found.items() if entry.priority == priority), _Found()
            )
            yield Verification.equal(
                f"gids of priority {priority}",
                of_priority["gids"],
                of_priority["prioritised"],
                "at least of this priority, or no longer unchecked",
            )
        for state in ("live", "merged", "deleted"):
            yield Note(f"gids {state} in MusicBrainz", everything[state])
        yield Note("gids unknown in MusicBrainz", everything["gids"] - known)

    def _verify_readable(self) -> Iterator[Verification]:
        for name, count in (
            ("lines and files that could not be read", self._counts["damaged"]),
            ("sources without a usable line", self._counts["empty_sources"]),
        ):
            detail = "accepted" if self._allow_damaged else "--allow-damaged accepts them"
            ok = self._allow_damaged or not count
            yield Verification(name, 0, count, detail, ok=ok)


def _seed(conn: Connection, results: Sequence[Chunk], *, preview: bool = False) -> _Seeded:
    # A batch of a stream is one chunk.
    (chunk,) = results
    counts = Counter(seeding.seed(conn, _ENTITY_TYPE, chunk.seeds, preview=preview).counts)
    counts.update(chunk.counts)
    return _Seeded(counts, chunk.problems, chunk=chunk)


def _look_up(conn: Connection, ledger: Ledger) -> dict[Entry, _Found]:
    """Return what the database knows about the gids of a ledger, by entry."""
    found: defaultdict[Entry, _Found] = defaultdict(Counter)
    waiting: defaultdict[Entry, list[bytes]] = defaultdict(list)

    def look_up(entry: Entry) -> None:
        gids = waiting.pop(entry)
        values = {"gids": seeding.uuid_array(gids), "priority": entry.priority}
        refused = seeding.count_refused(conn, _ENTITY_TYPE, gids)
        row = only_row(conn, _LOOK_UP, values)
        found[entry].update(dict(zip(_LOOKED_UP_AS, row, strict=True)), gids=len(gids) - refused)

    for gid, entry in ledger.entries():
        waiting[entry].append(gid)
        if len(waiting[entry]) >= _LOOKED_UP:
            look_up(entry)
    for entry in list(waiting):
        look_up(entry)
    return found


def _present(name: str, found: _Found, detail: str = "") -> Verification:
    return Verification.equal(name, found["gids"], found["present"], detail)
