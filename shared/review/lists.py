"""Lists of rows that a filter selects: their pages, their length, and the kinds of their rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from psycopg import Connection

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    class TableRow(DataclassInstance, Protocol):
        """A row of a table with a primary key."""

        @property
        def id(self) -> int: ...


Filter = TypeVar("Filter", bound="DataclassInstance")
Row = TypeVar("Row", bound="TableRow")

#: The number of groups that are shown, largest first.
GROUPS: Final = 12

#: The number of rows that `walk` reads at a time.
_STRIDE: Final = 1_000

#: No id is larger.
_LAST_ID: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list to return."""

    limit: int = 50
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Extent:
    """The length of a list, and the largest id in it: later rows do not belong to it."""

    count: int
    last_id: int


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one kind; for events also of one action."""

    kind: str
    count: int
    oldest: datetime
    action: str | None = None

    @property
    def text(self) -> str:
        """The longest text that all rows of the kind contain."""
        return max(self.kind.split("…"), key=len).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowList(Generic[Filter, Row]):
    """The queries of one list, put together from its parts.

    Parameters
    ----------
    name, since
        The alias of its table, and the column by which the list is sorted, the oldest first.
    source
        What follows FROM in queries that count.
    rows, columns
        A query for the rows, without WHERE, and what to select from it, for the rows of a page
        only.
    conditions
        The condition on a row; its parameters are the fields of the filter.
    kinds
        Selects `kind`, `action` and `since` of the rows that the conditions let through.
    row, make
        The type of the rows, and a function that makes one of the columns.
    """

    name: str
    since: str
    source: str
    rows: str
    columns: str
    conditions: str
    kinds: str
    row: type[Row]
    make: Callable[..., Row]

    def page(self, conn: Connection, wanted: Filter, page: Page) -> list[Row]:
        """Return a part of the list, the oldest rows first."""
        values = _values(wanted) | asdict(page)
        return self.select(conn, self.conditions, f"{self.since}, id", values)

    def after(
        self, conn: Connection, wanted: Filter, *, after: int, up_to: int, limit: int
    ) -> list[Row]:
        """Return rows in the order of ids, those after `after` up to `up_to`.

        So one can act on all rows of a list, although they leave it in the meantime.
        """
        where = f"{self.conditions} AND {self.name}.id > %(after)s AND {self.name}.id <= %(up_to)s"
        values = _values(wanted) | {"after": after, "up_to": up_to, "limit": limit}
        return self.select(conn, where, "id", values)

    def walk(self, conn: Connection, wanted: Filter) -> Iterator[Row]:
        """Yield all rows in the order of ids, read a thousand at a time."""
        after = 0
        while rows := self.after(conn, wanted, after=after, up_to=_LAST_ID, limit=_STRIDE):
            yield from rows
            after = rows[-1].id

    def with_ids(
        self, conn: Connection, ids: Collection[int], *, limit: int | None = None
    ) -> list[Row]:
        """Return the rows with these ids that exist, in the order of ids, whatever the filter."""
        where = f"{self.name}.id = ANY (%(ids)s::bigint[])"
        return self.select(conn, where, "id", {"ids": list(ids), "limit": limit})

    def find(self, conn: Connection, id_: int) -> Row | None:
        """Return the row with an id, or `None` if there is none."""
        return next(iter(self.with_ids(conn, [id_])), None)

    def extent(self, conn: Connection, wanted: Filter) -> Extent:
        """Return the length of the list."""
        query = f"""
            SELECT count(*), coalesce(max({self.name}.id), 0)
            FROM {self.source}
            WHERE {self.conditions}"""  # noqa: S608
        ((count, last_id),) = conn.execute(query, _values(wanted)).fetchall()
        return Extent(count, last_id)

    def groups(self, conn: Connection, wanted: Filter) -> list[Group]:
        """Return the kinds of the list's rows, whatever kind is wanted, most frequent first."""
        query = f"""
            SELECT kind, count(*), min(since), action
            FROM ({self.kinds} WHERE {self.conditions}) AS row
            GROUP BY action, kind
            ORDER BY count(*) DESC, action, kind
            LIMIT {GROUPS}"""  # noqa: S608
        values = _values(wanted) | {"kind": None}
        return [Group(*row) for row in conn.execute(query, values)]

    def select(
        self, conn: Connection, where: str, order: str, values: Mapping[str, object]
    ) -> list[Row]:
        """Return the rows that fulfil a condition; `values` may have `limit` and `offset`."""
        # Sorted twice: only the rows within are limited, and only those without have all columns.
        query = f"""
            SELECT {self.columns}
            FROM (
                {self.rows}
                WHERE {where}
                ORDER BY {", ".join(f"{self.name}.{column}" for column in order.split(", "))}
                LIMIT %(limit)s OFFSET %(offset)s
            ) AS page
            ORDER BY {order}"""  # noqa: S608
        found = conn.execute(query, {"limit": None, "offset": 0, **values})
        return [self.make(*row) for row in found]


def _values(wanted: DataclassInstance) -> dict[str, object]:
    return {
        name: list(map(str, value)) if isinstance(value, tuple) else value
        for name, value in asdict(wanted).items()
    }
