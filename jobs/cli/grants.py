"""The grants command: SQL that gives a role the rights that commands need.

Each command declares the tables it uses and how; this module turns that into GRANT statements. It
connects to no database, so that a person without rights can print the statements as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

import click

from artwork_backfill.dashboard import queries as dashboard
from artwork_backfill.jobs.cli.main import JOBS, load_job
from artwork_backfill.jobs.command import usage_errors
from artwork_backfill.shared import migrations
from artwork_backfill.shared.auditing import expectation
from artwork_backfill.shared.engine.redaction import Redactor
from artwork_backfill.shared.engine.tables import Table, merge
from artwork_backfill.shared.review import actions, questions, runs, status
from artwork_backfill.shared.settings import Settings

#: Tables of MusicBrainz's database that take their `id` from a sequence.
_NUMBERED: Final = frozenset(
    f"artwork_indexer.{name}"
    for name in ("event_queue", "audit_entity", "needs_manual_review", "audit_result")
)

#: Commands that are not jobs, with their tables in MusicBrainz's database.
_OTHERS: Final = {
    "estimate": (*expectation.TABLES, *expectation.RECORD_TABLES),
    "explain": (*expectation.TABLES, *expectation.RECORD_TABLES, *questions.TABLES),
    "status": (*status.TABLES, *runs.LOOK),
    "checks": questions.REPAIR_TABLES,
    "review": (*questions.TABLES, *actions.TABLES, *actions.DELETION_TABLES),
    "events": (*questions.TABLES, *actions.TABLES, *actions.DELETION_TABLES),
    "runs": runs.TABLES,
    "dashboard": (*dashboard.TABLES, *dashboard.CHANGED),
    "migrate": (
        *migrations.RIGHTS,
        Table("artwork_indexer.event_failure_reason", ("SELECT", "TRIGGER")),
    ),
}
_MUSICBRAINZ: Final = "MUSICBRAINZ_DATABASE_URL"

_WIDTH: Final = 80
_ORDER: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRIGGER")


def _statements(role: str, tables: Sequence[Table], *, read_only: bool) -> Iterator[str]:
    """Yield the GRANT statements for the tables of one database."""
    always = {table.schema for table in tables if not table.optional}
    for schema in sorted({table.schema for table in tables}):
        statement = _grant("USAGE", f"SCHEMA {_quote(schema)}", role)
        yield statement if schema in always else _where("to_regnamespace", schema, statement)
    needed = sorted(merge(tables), key=lambda table: table.name)
    for table in needed:
        privileges = ["SELECT"] if read_only else _spelled(table)
        statement = _grant(", ".join(privileges), _qualified(table.name), role)
        yield _where("to_regclass", table.name, statement) if table.optional else statement
    if not read_only:
        for table in needed:
            if "INSERT" in table.privileges and table.name in _NUMBERED:
                yield _grant("USAGE", f"SEQUENCE {_qualified(table.name + '_id_seq')}", role)


def _grant(privileges: str, on: str, role: str) -> str:
    line = f"GRANT {privileges} ON {on} TO {role};"
    return line if len(line) <= _WIDTH else f"GRANT {privileges}\n    ON {on}\n    TO {role};"


def _where(look: str, name: str, statement: str) -> str:
    """Return a statement that takes effect only where the function `look` finds the object."""
    found = _qualified(name).replace("'", "''")
    return f"DO $$ BEGIN\nIF {look}('{found}') IS NOT NULL THEN\n{statement}\nEND IF; END $$;"


def _spelled(table: Table) -> list[str]:
    columns = ", ".join(map(_quote, sorted(table.updated)))
    return [
        f"UPDATE ({columns})" if privilege == "UPDATE" and columns else privilege
        for privilege in sorted(table.privileges, key=_ORDER.index)
    ]


def _qualified(name: str) -> str:
    return ".".join(_quote(part) for part in name.split("."))


def _quote(name: str) -> str:
    """Return the name of a schema, table or column as an SQL identifier."""
    if name.isidentifier() and name == name.lower() and name.isascii():
        return name
    return '"' + name.replace('"', '""') + '"'


@click.command()
@click.argument("role")
@click.argument(
    "commands",
    nargs=-1,
    metavar="[JOB]...",
    type=click.Choice([*JOBS, *_OTHERS], case_sensitive=False),
)
@click.option("--read-only", is_flag=True, help="Only the rights for dry runs, status and metrics.")
def command(role: str, commands: tuple[str, ...], *, read_only: bool) -> None:
    """Print the SQL that gives ROLE the rights that commands need, and no more.

    JOB is a job, or estimate, explain, status, checks, review, events, dashboard or migrate.
    Without JOB, ROLE gets the rights for all of them except migrate. Run the statements as the
    owner of the tables, and again after each upgrade.

    Example: artwork-backfill grants backfill audit-batch review > grants.sql
    """
    settings = Settings(os.environ)
    # Always quoted: a role may be called user.
    role = '"' + role.replace('"', '""') + '"'
    chosen = commands or tuple(name for name in (*JOBS, *_OTHERS) if name != "migrate")
    needed: dict[str, list[Table]] = {}
    with usage_errors(Redactor.of_process(settings)):
        for name in dict.fromkeys(chosen):
            variable, tables = _needs(name, settings)
            needed.setdefault(variable, []).extend(tables)
    parts = []
    for variable, all_tables in needed.items():
        statements = list(_statements(role, all_tables, read_only=read_only))
        if variable == _MUSICBRAINZ and "migrate" in chosen and not read_only:
            statements.append(f"GRANT CREATE ON SCHEMA artwork_indexer TO {role};")
        lines = "\n".join(statements)
        parts.append(f"-- In the database of {variable}, as the owner of the tables:\n{lines}")
    click.echo("\n\n".join(parts))


def _needs(name: str, settings: Settings) -> tuple[str, tuple[Table, ...]]:
    """Return the setting that names the database of a command, and its tables there."""
    if name in _OTHERS:
        return _MUSICBRAINZ, _OTHERS[name]
    job = load_job(name).job
    is_library = job.database is Settings.wxyc_database
    tables = (*job.tables_for(settings), *job.optional_tables)
    return ("WXYC_DATABASE_URL" if is_library else _MUSICBRAINZ), tables
