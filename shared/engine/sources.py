"""Sources: where the batches of a job come from. Three kinds serve every job.

| source   | for                                                                | cursor       |
|----------|--------------------------------------------------------------------|--------------|
| `Keyset` | rows that still need work, in the order of a key; `Query` is one   | in memory    |
| `Stream` | pages that come from outside, in their own order                   | the stream's |
| `Claims` | rows shared among runs: FOR UPDATE SKIP LOCKED and a token         | in the table |

A source opens its own transactions on the given session, and moves its cursor only after they are
committed: a transaction that got no answer is repeated from the position of the cursor.

Threads: `prepare` and `count` are called first, on the main thread. After that the claiming thread
calls `next`, and the main thread calls `give_back`, at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier, Literal

from artwork_backfill.shared.engine.runs import RUNS, RunRecord, Wait
from artwork_backfill.shared.engine.session import Session, count, only_row

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Partition:
    """The share of rows of this container: those whose id modulo `count` is `index`."""

    index: int = 0
    count: int = 1

    @property
    def values(self) -> dict[str, int]:
        """The share as parameters of a query: `partition` and `partitions`."""
        return {"partition": self.index, "partitions": self.count}


class Source(Generic[Item]):
    """The source of a job's batches. Exceptions of `next` end the run, see `errors`.

    A source whose items are not claimed has nothing to give back: the next run reads them again.
    """

    #: Whether items are claimed: what a run gives back is claimed again by any run.
    is_shared: ClassVar[bool] = False

    def prepare(self, session: Session) -> None:
        """Prepare the source. May write, but not in a dry run."""

    def count(self, session: Session) -> int | None:
        """Return how many rows the run is expected to process, `None` if that is unknown."""
        return None

    def upkeep(self, session: Session) -> None:
        """Do periodic work, also while nothing is claimed; not called in a dry run.

        The claiming thread calls it at least every few seconds.
        """

    def next(self, session: Session, size: int) -> Sequence[Item] | Wait:
        """Return the next items, about `size` rows of them; none if there are no more."""
        raise NotImplementedError

    def give_back(self, session: Session, items: Sequence[Item]) -> None:
        """Give back items that will not be written; they keep their place in the order.

        Items that were written after all stay as they are.
        """

    def fail(self, session: Session, failed: Sequence[tuple[Item, str]]) -> None:
        """Give back items that failed, each with the reason; they come after all others."""


class Keyset(Source[Item]):
    """Items in the order of a key. Nothing is marked as taken: written rows leave the query.

    `rows` returns the first items after a key (`None`: from the start), in its order, about as many
    rows of them as its last argument says; `key` an item's key; `count` the expected rows.
    """

    def __init__(
        self,
        rows: Callable[[Connection, Any, int], Sequence[Item]],
        key: Callable[[Item], Any],
        count: Callable[[Connection], int | None],
    ) -> None:
        self._rows = rows
        self._key = key
        self._count = count
        self._after: Any = None

    def count(self, session: Session) -> int | None:
        return session.look(self._count)

    def next(self, session: Session, size: int) -> Sequence[Item]:
        items = session.transaction(
            lambda conn: self._rows(conn, self._after, size), read_only=True
        )
        if items:
            self._after = self._key(items[-1])
        return items


class Query(Keyset[Item]):
    """The keyset of a query whose first column, `key`, is an integer.

    `rows` is the query, without an ORDER BY; `values` are its parameters. Its items are tuples, or
    values if it has one column. The key orders the rows, and shares them among partitions.
    """

    def __init__(
        self,
        rows: str,
        key: str,
        *,
        partition: Partition | None = None,
        values: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(self._page, _first, self.left)
        names = {"rows": SQL(rows), "key": Identifier(key)}
        source = SQL(
            "FROM ({rows}) AS source"
            " WHERE (%(partitions)s = 1 OR mod({key}, %(partitions)s) = %(partition)s)"
        ).format(**names)
        self._select = SQL(
            "SELECT source.* {source} AND ({key} > %(after)s OR %(after)s::bigint IS NULL)"
            " ORDER BY {key} LIMIT %(size)s"
        ).format(source=source, **names)
        self._select_left = SQL(
            "SELECT count(*) {source} AND ({key} <= %(last)s OR %(last)s::bigint IS NULL)"
        ).format(source=source, **names)
        self._values = {**(values or {}), **(partition or Partition()).values}

    def left(self, conn: Connection, last: Item | None = None) -> int:
        """Return how many rows of the query are left, up to an item if one is given."""
        key = None if last is None else _first(last)
        return count(conn, self._select_left, {**self._values, "last": key})

    def _page(self, conn: Connection, after: Any, size: int) -> list[Any]:
        rows = conn.execute(self._select, {**self._values, "after": after, "size": size}).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]


def _first(item: Any) -> Any:
    return item[0] if isinstance(item, tuple) else item


class Stream(Source[Item]):
    """Pages that come from outside, such as files or the answers of a service.

    `open`, in a read-only transaction, returns a function that returns the next page, of about the
    requested number of rows if that can be chosen, and `None` after the last. That function is
    called outside of any transaction, and may wait for a service. `count` counts the expected rows.

    If a run must continue where an earlier one stopped, `open` reads the checkpoint, and the job's
    `write` stores the page's cursor in the page's own transaction.
    """

    def __init__(
        self,
        open: Callable[[Connection], Callable[[int], Item | None]],  # noqa: A002 - what it does
        count: Callable[[Connection], int | None] = lambda _: None,
    ) -> None:
        self._open = open
        self._count = count
        self._next: Callable[[int], Item | None]

    def prepare(self, session: Session) -> None:
        self._next = session.transaction(self._open, read_only=True)

    def count(self, session: Session) -> int | None:
        return session.look(self._count)

    def next(self, session: Session, size: int) -> Sequence[Item]:
        page = self._next(size)
        return [] if page is None else [page]


# -- claims --------------------------------------------------------------------------------------

#: The time after which the claims of a run without a record are reclaimed.
_STALE_AFTER: Final = "15 minutes"

#: How often a run looks for claims of dead runs, as a fraction of the time after which a run is
#: dead; it also looks when nothing else is left.
_RECLAIM_PART: Final = 6

# The order is that of a partial index, so that the claim reads as many index entries as it returns.
# A row that this run has given back has a later token than the run's start, and is not taken a
# second time. Written with coalesce, that condition does not make the planner collect all matches
# and sort them, whatever it knows about a table that was just filled.
CLAIM: Final = """
WITH next AS (
    SELECT id, last_audit_at AS before
    FROM {table} entity
    WHERE status = {waiting}
    AND coalesce(last_audit_at, '-infinity') < %(started)s
    AND ({due})
    AND (%(partitions)s = 1 OR mod(id, %(partitions)s) = %(partition)s)
    ORDER BY {order}
    LIMIT %(size)s
    FOR UPDATE SKIP LOCKED
)
UPDATE {table} entity
SET status = {claimed}, last_audit_at = now(), claimed_by = %(run)s
FROM next
WHERE entity.id = next.id
RETURNING entity.id, entity.last_audit_at, next.before, {columns}
"""

_GIVE_BACK: Final = """
UPDATE {table} entity
SET status = {waiting}, claimed_by = NULL, last_audit_at = held.before
FROM unnest(%(ids)s::bigint[], %(tokens)s::timestamptz[], %(before)s::timestamptz[])
     AS held (id, token, before)
WHERE entity.id = held.id AND entity.status = {claimed} AND entity.last_audit_at = held.token
"""

# Just before this run's start: after all waiting rows, and yet claimable by this run.
_RECLAIM: Final = """
WITH dead AS (
    SELECT entity.id
    FROM {table} entity
    LEFT JOIN {runs} run ON run.id = entity.claimed_by
    WHERE entity.status = {claimed}
    AND (run.finished IS NOT NULL
         OR (run.id IS NULL AND entity.last_audit_at < now() - %(stale_after)s::interval))
    AND entity.claimed_by IS DISTINCT FROM %(run)s
    FOR UPDATE OF entity SKIP LOCKED
)
UPDATE {table} entity
SET status = {waiting}, claimed_by = NULL,
    last_audit_at = least(last_audit_at, %(started)s - interval '1 microsecond')
FROM dead
WHERE entity.id = dead.id
RETURNING entity.id
"""

# The same for this run itself.
_RELEASE: Final = """
UPDATE {table} entity
SET status = {waiting}, claimed_by = NULL,
    last_audit_at = least(last_audit_at, %(started)s - interval '1 microsecond')
WHERE entity.status = {claimed} AND entity.claimed_by = %(run)s
"""

_COUNT: Final = """
SELECT count(*)
FROM {table} entity
WHERE status = {waiting}
AND (%(later)s OR ({due}))
AND (%(partitions)s = 1 OR mod(id, %(partitions)s) = %(partition)s)
"""

_COUNT_DEAD: Final = """
SELECT count(*)
FROM {table} entity
LEFT JOIN {runs} run ON run.id = entity.claimed_by
WHERE entity.status = {claimed}
AND (run.finished IS NOT NULL
     OR run.heartbeat < now() - make_interval(secs => %(dead_after)s)
     OR (run.id IS NULL AND entity.last_audit_at < now() - %(stale_after)s::interval))
"""

_COUNT_HELD: Final = """
SELECT count(*) FROM {table} entity WHERE status = {claimed} AND claimed_by = %(run)s
"""

_COUNT_HELD_BY_OTHERS: Final = """
SELECT count(*)
FROM {table} entity
WHERE status = {claimed} AND claimed_by IS DISTINCT FROM %(run)s
AND (%(partitions)s = 1 OR mod(id, %(partitions)s) = %(partition)s)
"""


class Claimed(Protocol):
    """The claim of an item of `Claims`: the row, the token, and the value before it."""

    @property
    def id(self) -> int: ...
    @property
    def claimed_at(self) -> datetime: ...
    @property
    def audited_before(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class ClaimTable:
    """A table whose rows are shared among runs.

    It has the columns `id` (BIGINT), `status`, `claimed_by` (UUID, the run) and `last_audit_at`, a
    TIMESTAMPTZ with the time of the claim as long as the claim is valid: its token.

    In the SQL of `columns` and `due`, `entity` is the table.
    """

    name: str
    #: Values of `status`.
    waiting: str
    claimed: str
    #: The order in which rows are claimed, which a partial index on waiting rows serves.
    order: str
    #: Further columns of an item.
    columns: str
    #: A further condition for claiming a row.
    due: str

    def format(self, statement: str) -> Composed:
        """Return a statement with the names of the table filled in."""
        return SQL(statement).format(
            table=Identifier(*self.name.split(".")),
            runs=SQL(RUNS),
            waiting=Literal(self.waiting),
            claimed=Literal(self.claimed),
            order=SQL(self.order),
            columns=SQL(self.columns),
            due=SQL(self.due),
        )

    def give_back(self, conn: Connection, items: Sequence[Claimed]) -> None:
        """Give back claims that the run still holds; they keep their place in the order."""
        if items:
            conn.execute(
                self.format(_GIVE_BACK),
                {
                    "ids": [item.id for item in items],
                    "tokens": [item.claimed_at for item in items],
                    "before": [item.audited_before for item in items],
                },
            )


class Reserve(Protocol):
    """Rows that become claimable when nothing else is left.

    `take_up` makes up to `size` of them claimable, and returns how many.
    """

    def count(self, conn: Connection) -> int: ...
    def take_up(self, conn: Connection, size: int) -> int: ...


ClaimedItem = TypeVar("ClaimedItem", bound=Claimed)


@dataclass
class Claims(Source[ClaimedItem]):
    """Rows that several runs share; each row is claimed by one run at a time.

    A claim is a status, a token and the run that holds it. Claims of dead runs are reclaimed.

    Parameters
    ----------
    item
        Makes an item of the columns `id`, token, previous token, and those of the table.
    room
        Returns how many of `size` rows may be claimed now, or what to wait for. Runs in the
        transaction of the claim, which is repeated if it got no answer.
    complete
        Adds further data from the database to items, in the same transaction.
    taken
        Called with the number of claimed items, after the commit.
    failed
        Gives back items that failed, each with the reason, in the open transaction.
    tended
        Does periodic work, see `Source.upkeep`.
    reclaimed
        Called with the ids of rows that were reclaimed from dead runs, in the same transaction.
    reserve
        Rows that become claimable when nothing else is left.
    revisit_after
        Seconds after which this caller may claim a row again; `None` for never.
    browse
        For a dry run: returns the rows that a real run would claim after a position, and the next
        position; the first position is `None`.
    """

    table: ClaimTable
    record: RunRecord
    item: Callable[..., ClaimedItem]
    room: Callable[[Connection, int], int | Wait] = lambda _, size: size
    complete: Callable[[Connection, list[ClaimedItem]], list[ClaimedItem]] = lambda _, items: items
    taken: Callable[[int], None] = lambda _: None
    failed: Callable[[Connection, Sequence[tuple[ClaimedItem, str]]], None] = lambda _, __: None
    tended: Callable[[Session], None] = lambda _: None
    reclaimed: Callable[[Connection, Sequence[int]], None] = lambda _, __: None
    reserve: Reserve | None = None
    partition: Partition = field(default_factory=Partition)
    revisit_after: float | None = None
    browse: Callable[[Connection, Any, int], tuple[list[ClaimedItem], Any]] | None = None
    is_shared: ClassVar[bool] = True
    _place: Any = field(default=None, init=False)
    _started: datetime | None = field(default=None, init=False)
    _reclaims_at: float = field(default=0.0, init=False)

    def prepare(self, session: Session) -> None:
        if not session.read_only:
            session.transaction(self.reclaim)

    def count(self, session: Session) -> int:
        def work(conn: Connection) -> int:
            waiting = self.count_waiting(conn)
            # A dry run may not make them claimable.
            if self.reserve is None or session.read_only:
                return waiting
            return waiting + self.reserve.count(conn)

        return session.transaction(work, read_only=True)

    def upkeep(self, session: Session) -> None:
        self.tended(session)

    def next(self, session: Session, size: int) -> Sequence[ClaimedItem] | Wait:
        if session.read_only:
            items, self._place = session.transaction(lambda conn: self._browse(conn, size))
            return items

        def claim(conn: Connection) -> list[ClaimedItem] | Wait:
            if self.record.clock() >= self._reclaims_at:
                self.reclaim(conn)
            room = self.room(conn, size)
            if isinstance(room, Wait):
                return room
            items = self.take(conn, room)
            reserve = self.reserve
            if not items and (
                self.reclaim(conn) or (reserve is not None and reserve.take_up(conn, room))
            ):
                items = self.take(conn, room)
            return items

        return self.claim_with(session, claim)

    def claim_with(
        self,
        session: Session,
        claim: Callable[[Connection], list[ClaimedItem] | Wait],
    ) -> Sequence[ClaimedItem] | Wait:
        """Claim in another way; everything else as in `next`."""
        attempt: list[ClaimedItem] = []

        def work(conn: Connection) -> list[ClaimedItem] | Wait:
            # From an earlier attempt whose commit got no answer but succeeded.
            self.table.give_back(conn, attempt)
            items = claim(conn)
            if isinstance(items, Wait):
                return items
            attempt[:] = items
            return self.complete(conn, items)

        items = session.transaction(work)
        if not isinstance(items, Wait) and items:
            self.taken(len(items))
        return items

    def give_back(self, session: Session, items: Sequence[ClaimedItem]) -> None:
        if items:
            session.transaction(lambda conn: self.table.give_back(conn, items))

    def fail(self, session: Session, failed: Sequence[tuple[ClaimedItem, str]]) -> None:
        if failed:
            session.transaction(lambda conn: self.failed(conn, failed))

    def release(self, session: Session) -> None:
        """Give back every claim of this run, for a caller that should hold none."""

        def work(conn: Connection) -> None:
            values = {"run": self.record.id, "started": self.started(conn)}
            conn.execute(self.table.format(_RELEASE), values)

        session.transaction(work)

    def reclaim(self, conn: Connection) -> int:
        """Reclaim the rows of dead runs; return how many there were."""
        self.record.reap(conn)
        self._reclaims_at = self.record.clock() + self.record.dead_after / _RECLAIM_PART
        rows = conn.execute(
            self.table.format(_RECLAIM),
            {"run": self.record.id, "started": self.started(conn), "stale_after": _STALE_AFTER},
        )
        ids = sorted(id_ for (id_,) in rows)
        if ids:
            self.reclaimed(conn, ids)
        return len(ids)

    def count_waiting(self, conn: Connection, *, later: bool = False) -> int:
        """Return how many rows of the partition can be claimed now, or also later."""
        values = {"later": later, **self.partition.values}
        return count(conn, self.table.format(_COUNT), values)

    def count_held(self, conn: Connection) -> int:
        """Return how many rows this run holds."""
        return count(conn, self.table.format(_COUNT_HELD), {"run": self.record.id})

    def count_held_by_others(self, conn: Connection) -> int:
        """Return how many rows of the partition other runs hold, which may have died."""
        values = {"run": self.record.id, **self.partition.values}
        return count(conn, self.table.format(_COUNT_HELD_BY_OTHERS), values)

    def count_dead(self, conn: Connection) -> int:
        """Return how many rows are held by dead runs."""
        values = {"dead_after": self.record.dead_after, "stale_after": _STALE_AFTER}
        return count(conn, self.table.format(_COUNT_DEAD), values)

    def started(self, conn: Connection) -> datetime:
        """Return the time before which a row must have been audited last to be claimed."""
        if self._started is None or self.revisit_after is not None:
            query = "SELECT now() - make_interval(secs => %s)"
            (self._started,) = only_row(conn, query, (self.revisit_after or 0,))
        return self._started

    def _browse(self, conn: Connection, size: int) -> tuple[list[ClaimedItem], Any]:
        if self.browse is None:
            raise RuntimeError("these claims cannot be looked at without claiming")
        items, place = self.browse(conn, self._place, size)
        return self.complete(conn, items), place

    def take(self, conn: Connection, size: int) -> list[ClaimedItem]:
        """Claim up to `size` rows, the first in order, in the open transaction."""
        values = {"size": size, "started": self.started(conn), "run": self.record.id}
        rows = conn.execute(self.table.format(CLAIM), values | self.partition.values)
        return [self.item(*row) for row in rows]
