"""The tables that a job needs and the privileges on them, checked before any change."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

from psycopg import Connection
from psycopg.types.json import Jsonb

from artwork_backfill.shared.engine.errors import DatabaseError
from artwork_backfill.shared.engine.session import holds, only_row


@dataclass(frozen=True, slots=True)
class Table:
    """A table that a job uses, by its qualified name, and the privileges it needs on it.

    `updated` names the columns that UPDATE is needed on; if empty, on all of them. A job works
    without an `optional` table, and checks itself whether it exists and may be used.
    """

    name: str
    privileges: tuple[str, ...] = ("SELECT",)
    updated: tuple[str, ...] = ()
    optional: bool = False

    @property
    def schema(self) -> str:
        return self.name.partition(".")[0]

    @property
    def quoted(self) -> str:
        """The qualified name as an SQL identifier, whatever characters it has."""
        return ".".join(f'"{part}"' for part in self.name.split("."))


# For each table: whether its schema exists and may be used, whether the table exists, the missing
# privileges, and its sequence if USAGE of it is missing. Looking for a table in a schema without
# USAGE is an error. A right on a table includes one on each of its columns.
_LOOK: Final = """
SELECT name, has_schema, may_use, found IS NOT NULL,
       ARRAY(
           SELECT privilege
           FROM unnest(privileges) AS privilege
           WHERE NOT CASE
               WHEN privilege = 'UPDATE' AND updated <> '{}' THEN (
                   SELECT bool_and(has_column_privilege(attrelid, attnum, 'UPDATE'))
                   FROM pg_attribute
                   WHERE attrelid = found AND attname = ANY (updated))
               ELSE has_table_privilege(found, privilege)
           END),
       (SELECT sequence
        FROM pg_attribute
        CROSS JOIN LATERAL pg_get_serial_sequence(visible, attname) AS sequence
        WHERE attrelid = found AND attname = 'id' AND 'INSERT' = ANY (privileges)
        AND NOT has_sequence_privilege(sequence, 'USAGE'))
FROM (
    SELECT wanted.*, oid IS NOT NULL AS has_schema, may_use,
           CASE WHEN may_use THEN quoted END AS visible,
           CASE WHEN may_use THEN to_regclass(quoted) END AS found
    FROM jsonb_to_recordset(%s)
         AS wanted (name text, schema text, quoted text, privileges text[], updated text[])
    LEFT JOIN pg_namespace ON nspname = schema
    CROSS JOIN LATERAL (SELECT has_schema_privilege(oid, 'USAGE')) AS allowed (may_use)
) AS looked
"""


def check_tables(
    conn: Connection, tables: Iterable[Table], *, command: str = "", read_only: bool = False
) -> None:
    """Check that a database has what a job needs, before the job changes anything.

    Raises `DatabaseError`, which names everything that is missing, with the remedy. `command` is
    the name for `artwork-backfill grants`. With `read_only`, SELECT suffices.
    """
    wanted = [table for table in merge(tables) if not table.optional]
    if read_only:
        wanted = [Table(table.name) for table in wanted]
    missing, lacking = _look(conn, wanted)
    problems = list(_missing(missing))
    if lacking:
        problems.append(_no_rights(conn, lacking, command))
    is_to_write = any(set(table.privileges) - {"SELECT"} for table in wanted)
    if is_to_write and holds(conn, "SELECT current_setting('transaction_read_only') = 'on'"):
        problems.append(
            "the server takes no writes: it is a replica, or default_transaction_read_only is on;"
            " name the primary in the database URL"
        )
    if problems:
        raise DatabaseError("; ".join(problems))


def merge(tables: Iterable[Table]) -> list[Table]:
    """Return each table once, with all privileges that are needed on it."""
    merged: dict[str, Table] = {}
    for table in tables:
        before = merged.get(table.name, Table(table.name, (), optional=True))
        privileges = dict.fromkeys((*before.privileges, *table.privileges))
        updates = [t.updated for t in (before, table) if "UPDATE" in t.privileges]
        # UPDATE on the whole table includes each of its columns.
        columns = dict.fromkeys(c for updated in updates for c in updated) if all(updates) else ()
        merged[table.name] = Table(
            table.name, tuple(privileges), tuple(columns), before.optional and table.optional
        )
    return list(merged.values())


def check_may_create(conn: Connection, schema: str) -> None:
    """Check that the role may create tables in an existing schema; raise `DatabaseError` if not."""
    if not holds(conn, "SELECT has_schema_privilege(%s, 'CREATE')", (schema,)):
        raise DatabaseError(_no_rights(conn, {("CREATE", "SCHEMA "): [schema]}, "migrate"))


#: Objects by the missing privileges and by their kind, both as in GRANT.
_Lacking = dict[tuple[str, str], list[str]]


def _look(conn: Connection, wanted: list[Table]) -> tuple[list[Table], _Lacking]:
    """Return the tables that do not exist, and the rights that the role lacks."""
    values = [asdict(table) | {"schema": table.schema, "quoted": table.quoted} for table in wanted]
    rows = conn.execute(_LOOK, (Jsonb(values),))
    by_name = {name: looked for name, *looked in rows}
    missing: list[Table] = []
    lacking: _Lacking = {}
    for table in wanted:
        has_schema, may_use, has_table, privileges, sequence = by_name[table.name]
        if has_schema and not may_use:
            schemas = lacking.setdefault(("USAGE", "SCHEMA "), [])
            schemas += [] if table.schema in schemas else [table.schema]
        elif not has_table:
            missing.append(table)
        if privileges:
            names = ", ".join(privileges)
            if table.updated:
                names = names.replace("UPDATE", f"UPDATE ({', '.join(table.updated)})")
            lacking.setdefault((names, ""), []).append(table.name)
        if sequence:
            lacking.setdefault(("USAGE", "SEQUENCE "), []).append(sequence)
    return missing, lacking


def _missing(tables: list[Table]) -> Iterator[str]:
    """Explain which tables do not exist, once for each remedy."""
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
    if table.schema == "artwork_backfill":
        return "run `artwork-backfill migrate --database wxyc` first, or omit --attempts-table"
    return (
        "check that the database URL names the right database, and for the library that"
        " WXYC_SCHEMA_NAME names its schema"
    )


def _no_rights(conn: Connection, lacking: _Lacking, command: str) -> str:
    (role,) = only_row(conn, "SELECT current_user")
    statements = [
        f"GRANT {privileges} ON {kind}{', '.join(objects)} TO {role}"
        for (privileges, kind), objects in lacking.items()
    ]
    text = f"role {role} may not use all that is needed: ask the owner to {'; '.join(statements)}"
    if command:
        text += f"; `artwork-backfill grants {shlex.quote(str(role))} {command}` prints everything"
    return text
