"""The tables that a job needs and the privileges on them, checked before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from artwork_backfill.shared.engine.errors import DatabaseError
from psycopg import Connection


@dataclass(frozen=True, slots=True)
class Table:
    """A table that a job uses, by its qualified name, and the privileges it needs on it."""

    name: str
    privileges: tuple[str, ...] = ("SELECT",)

    @property
    def schema(self) -> str:
        return self.name.partition(".")[0]

    @property
    def quoted(self) -> str:
        """The qualified name as SQL spells it, whatever letters it is made of."""
        return ".".join(f'"{part}"' for part in self.name.split("."))


# What there is of each table. A sequence belongs to it where rows are inserted with a serial id. To
# look for a table in a schema that one may not use is an error.
_LOOK: Final = """
SELECT name, has_schema, may_use, to_regclass(visible) IS NOT NULL,
       (SELECT pg_get_serial_sequence(visible, attname)
        FROM pg_attribute
        WHERE attrelid = to_regclass(visible) AND attname = 'id')
FROM (
    SELECT name, oid IS NOT NULL AS has_schema, may_use,
           CASE WHEN may_use THEN quoted END AS visible
    FROM unnest(%(names)s::text[], %(schemas)s::text[], %(quoted)s::text[])
         AS wanted (name, schema, quoted)
    LEFT JOIN pg_namespace ON nspname = schema
    CROSS JOIN LATERAL (SELECT has_schema_privilege(oid, 'USAGE')) AS allowed (may_use)
) AS looked
"""

_LACKS: Final = """
SELECT privilege
FROM unnest(%(privileges)s::text[]) AS wanted (privilege)
WHERE NOT has_table_privilege(%(table)s, privilege)
"""


def check_tables(conn: Connection, tables: Iterable[Table]) -> None:
    """Check that a database has what a job needs, before the job touches anything.

    Raises
    ------
    DatabaseError
        Names everything that is missing and says how to get it.
    """
    problems = list(dict.fromkeys(_problems(conn, tuple(tables))))
    if problems:
        raise DatabaseError("; ".join(problems))


def check_may_create(conn: Connection, schema: str) -> None:
    """Check that the role may create tables in a schema that exists, or raise `DatabaseError`."""
    if not _one(conn, "SELECT has_schema_privilege(%s, 'CREATE')", schema):
        raise DatabaseError(_no_right(conn, "CREATE", f"SCHEMA {schema}"))


def _problems(conn: Connection, tables: tuple[Table, ...]) -> Iterator[str]:
    wanted = {table.name: table for table in tables}
    rows = conn.execute(
        _LOOK,
        {
            "names": list(wanted),
            "schemas": [table.schema for table in wanted.values()],
            "quoted": [table.quoted for table in wanted.values()],
        },
    ).fetchall()
    missing: list[Table] = []
    order = list(wanted)
    for name, has_schema, may_use, has_table, sequence in sorted(
        rows, key=lambda row: order.index(row[0])
    ):
        table = wanted[name]
        if has_schema and not may_use:
            yield _no_right(conn, "USAGE", f"SCHEMA {table.schema}")
        elif not has_table:
            missing.append(table)
        else:
            yield from _lacking(conn, table, sequence)
    yield from _missing(missing)


def _lacking(conn: Connection, table: Table, sequence: str | None) -> Iterator[str]:
    values = {"table": table.quoted, "privileges": list(table.privileges)}
    lacking = [privilege for (privilege,) in conn.execute(_LACKS, values).fetchall()]
    if lacking:
        yield _no_right(conn, ", ".join(lacking), table.name)
    inserts = "INSERT" in table.privileges and sequence
    if inserts and not _one(conn, "SELECT has_sequence_privilege(%s, 'USAGE')", sequence):
        yield _no_right(conn, "USAGE", f"SEQUENCE {sequence}")


def _missing(tables: list[Table]) -> Iterator[str]:
    """Explain, once for each remedy, which tables do not exist."""
    remedies: dict[str, list[str]] = {}
    for table in tables:
        remedies.setdefault(_remedy(table), []).append(table.name)
    for remedy, names in remedies.items():
        noun = "table" if len(names) == 1 else "tables"
        yield f"the database has no {noun} {', '.join(names)}: {remedy}"


def _remedy(table: Table) -> str:
    if table.name == "artwork_indexer.event_queue":
        return "install artwork-indexer's own schema first (its sql/create_schema.sql)"
    if table.schema == "artwork_indexer":
        return "run `artwork-backfill migrate` first"
    return (
        "check that the database URL names the right database, and for the library that"
        " WXYC_SCHEMA_NAME names its schema"
    )


def _no_right(conn: Connection, privileges: str, on: str) -> str:
    role = _one(conn, "SELECT current_user")
    return f"role {role} may not use {on}: ask the owner to GRANT {privileges} ON {on} TO {role}"


def _one(conn: Connection, query: str, *values: object) -> object:
    row = conn.execute(query.encode(), values).fetchone()
    return None if row is None else row[0]
