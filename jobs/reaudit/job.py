"""The reaudit job: make entities unchecked again, those with the oldest audits first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import ClassVar, Final, NamedTuple

from psycopg import Connection

from artwork_backfill.shared import reaudit
from artwork_backfill.shared.engine.job import Job, Left, Run, RunResult, Verification, Written
from artwork_backfill.shared.engine.runs import RUN_TABLES
from artwork_backfill.shared.engine.session import count, only_row
from artwork_backfill.shared.engine.sources import Keyset
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.settings import Settings

#: The default age after which an audit is due again, in seconds.
OLD_AFTER_S: Final = 365 * 86_400.0

_BEFORE: Final = "SELECT now() - make_interval(secs => %(seconds)s)"

_DUE: Final = (
    """
FROM artwork_indexer.audit_entity entity
WHERE entity.status = ANY (%(statuses)s::artwork_indexer.audit_entity_status[])
AND entity.status IN ('clean', 'legacy')
AND entity.last_audit_at < %(before)s
AND (%(partitions)s = 1 OR mod(entity.id, %(partitions)s) = %(partition)s)
AND (%(checks)s::text[] IS NULL OR EXISTS (
    SELECT
    FROM artwork_indexer.audit_passed passed
    WHERE passed.audit_entity_id = entity.id AND passed.check_name = ANY (%(checks)s::text[])))
AND """
    + reaudit.MAY_BE_AUDITED
)

_AFTER: Final = "AND (entity.last_audit_at, entity.id) > (%(audited_at)s, %(id)s)"

_UP_TO: Final = "AND (entity.last_audit_at, entity.id) <= (%(audited_at)s, %(id)s)"

_FIRST: Final = f"""
SELECT entity.last_audit_at, entity.id
{_DUE} {{after}}
ORDER BY entity.last_audit_at, entity.id
LIMIT %(size)s
"""

_COUNT: Final = f"SELECT count(*) {_DUE} {{up_to}}"


class Old(NamedTuple):
    """An entity that is due again: the time of its last audit, and its row; also the sort key."""

    audited_at: datetime
    id: int

    def __str__(self) -> str:
        return f"row {self.id} of audit_entity"


class Reaudit(Job[Old, Old]):
    """Make clean and legacy entities unchecked, those with the oldest audits first.

    `older_than` is the minimum age of the last audit, in seconds. With `checks`, only entities with
    findings of these checks that a policy has skipped.
    """

    name: ClassVar[str] = "reaudit"
    database = Settings.musicbrainz_database
    tables: ClassVar[tuple[Table, ...]] = (
        *reaudit.TABLES,
        Table("artwork_indexer.audit_passed"),
        *RUN_TABLES,
    )
    one_snapshot: ClassVar[bool] = False
    batch_size: ClassVar[int] = 2_000
    max_batch_size: ClassVar[int] = 5_000

    def __init__(
        self,
        run: Run,
        older_than: float = OLD_AFTER_S,
        statuses: Collection[str] = reaudit.DONE,
        checks: Collection[str] | None = None,
    ) -> None:
        super().__init__(run)
        self._older_than = older_than
        self._statuses = list(statuses)
        self._checks = None if checks is None else list(checks)
        self._before: datetime | None = None

    def source(self) -> Keyset[Old]:
        return Keyset(self._page, lambda old: old, self._count)

    def write(self, conn: Connection, results: Sequence[Old]) -> Written:
        return self._apply(conn, results)

    def preview(self, conn: Connection, results: Sequence[Old]) -> Written:
        return self._apply(conn, results, preview=True)

    def verify(self, conn: Connection, run: RunResult | None) -> Iterator[Verification | Left]:
        name = "entities that are due again"
        if run is None or run.is_complete:
            left = self._count(conn)
            yield Verification.equal(name, 0, left)
            yield Left(left)
        elif run.last is not None:
            left = self._count(conn, run.last)
            yield Verification.equal(name, 0, left, "as far as this run got")

    def _apply(self, conn: Connection, results: Sequence[Old], *, preview: bool = False) -> Written:
        due = reaudit.make_unchecked(
            conn,
            [old.id for old in results],
            self._limit(conn),
            self._statuses,
            preview=preview,
        )
        written = Written.of(due.entities, len(results))
        return Written({**written.counts, "gone": due.gone})

    def _page(self, conn: Connection, after: Old | None, size: int) -> Sequence[Old]:
        query = _FIRST.format(after="" if after is None else _AFTER)
        values = self._values(conn, after) | {"size": size}
        return [Old(*row) for row in conn.execute(query.encode(), values)]

    def _count(self, conn: Connection, last: Old | None = None) -> int:
        query = _COUNT.format(up_to="" if last is None else _UP_TO)
        return count(conn, query, self._values(conn, last))

    def _values(self, conn: Connection, key: Old | None) -> dict[str, object]:
        values = {
            "statuses": self._statuses,
            "checks": self._checks,
            "before": self._limit(conn),
            **self.run.options.partition.values,
        }
        return values | ({} if key is None else key._asdict())

    def _limit(self, conn: Connection) -> datetime:
        """Return the time before which an audit is due again, constant throughout a run."""
        if self._before is None:
            (self._before,) = only_row(conn, _BEFORE, {"seconds": self._older_than})
        return self._before
