"""`grants`: the SQL that gives a role what commands need, and no more.

Each command says which tables it uses and how; here that becomes statements. No database is asked:
the one who prints them need not be the one who may run them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from artwork_backfill.shared.engine.db import Table

#: Tables of MusicBrainz's database whose `id` is taken from a sequence when a row is inserted.
_NUMBERED: Final = frozenset(
    f"artwork_indexer.{name}"
    for name in ("event_queue", "audit_entity", "needs_manual_review", "audit_result")
)

_ORDER: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True, slots=True)
class Needs:
    """What commands need in one database.

    `variable` is the setting that names the database; `more` are statements beside those on tables,
    with `{role}` for the role.
    """

    variable: str
    tables: tuple[Table, ...]
    more: tuple[str, ...] = ()


def to_sql(role: str, needs: Iterable[Needs], *, read_only: bool) -> str:
    """Return the statements for all databases, each database under a comment that names it."""
    by_database: dict[str, list[Needs]] = {}
    for need in needs:
        by_database.setdefault(need.variable, []).append(need)
    parts = []
    for variable, found in by_database.items():
        tables = [table for need in found for table in need.tables]
        statements = list(_statements(_quote(role), tables, read_only=read_only))
        if not read_only:
            more = dict.fromkeys(line for need in found for line in need.more)
            statements += [line.format(role=_quote(role)) for line in more]
        lines = "\n".join(statements)
        parts.append(f"-- In the database of {variable}, as the owner of the tables:\n{lines}")
    return "\n\n".join(parts)


def _statements(role: str, tables: Sequence[Table], *, read_only: bool) -> Iterator[str]:
    schemas = sorted({table.schema for table in tables})
    yield f"GRANT USAGE ON SCHEMA {', '.join(map(_quote, schemas))} TO {role};"
    merged = _merge(tables)
    for name in sorted(merged):
        privileges = merged[name]
        wanted = ["SELECT"] if read_only else _spelled(privileges)
        yield f"GRANT {', '.join(wanted)} ON {_qualified(name)} TO {role};"
    if not read_only:
        for name in sorted(merged):
            if "INSERT" in merged[name] and name in _NUMBERED:
                yield f"GRANT USAGE ON SEQUENCE {_qualified(name + '_id_seq')} TO {role};"


def _merge(tables: Iterable[Table]) -> dict[str, dict[str, frozenset[str]]]:
    """Return the privileges on each table, and their columns where they are not on all of it."""
    merged: dict[str, dict[str, frozenset[str]]] = {}
    for table in tables:
        privileges = merged.setdefault(table.name, {})
        for privilege in table.privileges:
            columns = frozenset(table.updated if privilege == "UPDATE" else ())
            before = privileges.get(privilege, columns)
            # All of a table includes each of its columns.
            privileges[privilege] = before | columns if before and columns else frozenset()
    return merged


def _spelled(privileges: dict[str, frozenset[str]]) -> list[str]:
    return [
        f"{privilege} ({', '.join(map(_quote, sorted(privileges[privilege])))})"
        if privileges[privilege]
        else privilege
        for privilege in sorted(privileges, key=_ORDER.index)
    ]


def _qualified(name: str) -> str:
    return ".".join(_quote(part) for part in name.split("."))


def _quote(name: str) -> str:
    """Return an identifier as SQL spells it, without quotes where none are needed."""
    if name.isidentifier() and name == name.lower() and name.isascii():
        return name
    return '"' + name.replace('"', '""') + '"'
