"""Application of the SQL files in `sql`: plain SQL, forward only, each in a transaction.

`sql/migrations` is for the MusicBrainz database, `sql/wxyc` for the library's. Applied files are
recorded with a checksum in the table `backfill_migration`, in the same schema as our other tables.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from artwork_backfill.shared.engine.errors import DatabaseError
from artwork_backfill.shared.engine.session import LOCK_TIMEOUT, explain, holds
from artwork_backfill.shared.engine.tables import Table, check_may_create, check_tables

#: Serialises migrations; any number that no other program uses ("artwork" in ASCII).
_LOCK_KEY: Final = 0x617274776F726B

# Beside the package in a checkout, and in the image as well, because the wheel contains it.
_SQL: Final = Path(__file__).resolve().parent.parent / "sql"

_CREATE_RECORD: Final = """
CREATE TABLE IF NOT EXISTS {schema}.backfill_migration (
    name        TEXT PRIMARY KEY,
    checksum    TEXT NOT NULL,
    applied_at  TIMESTAMPTZ NOT NULL DEFAULT now()
)
"""


# Later migrations alter the tables of earlier ones, which only their owner may do.
_FOREIGN_OWNER: Final = """
SELECT oid::regclass::text, pg_get_userbyid(relowner), current_user
FROM pg_class
WHERE oid IN (SELECT to_regclass(name) FROM unnest(%(names)s::text[]) AS name)
AND NOT pg_has_role(relowner, 'USAGE')
ORDER BY oid
"""


class Target(StrEnum):
    """The databases that have migrations."""

    MUSICBRAINZ = "musicbrainz"
    WXYC = "wxyc"

    @property
    def schema(self) -> str:
        """The schema of our tables: artwork-indexer's, or our own in WXYC's database."""
        return "artwork_indexer" if self is Target.MUSICBRAINZ else "artwork_backfill"

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return _SQL / ("migrations" if self is Target.MUSICBRAINZ else "wxyc")


#: The rights that migrations in the MusicBrainz database, and our triggers, need on tables of
#: others. The triggers run with the rights of the role that applies the migrations. Without one of
#: these, a migration fails after others were applied, or a trigger does nothing.
RIGHTS: Final = (Table("artwork_indexer.event_queue", ("SELECT", "UPDATE", "DELETE", "TRIGGER")),)


class MigrationFailed(Exception):
    """A migration could not be applied, and was rolled back. The message says why."""


class State(StrEnum):
    """The state of a migration, by its file and its record."""

    PENDING = "pending"
    APPLIED = "applied"
    CHANGED = "changed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file; `checksum` is the SHA-256 of its bytes."""

    name: str
    sql: bytes

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql).hexdigest()


def available(target: Target = Target.MUSICBRAINZ) -> list[Migration]:
    """Return the migrations of this version for a database, in order."""
    return [Migration(path.name, path.read_bytes()) for path in sorted(target.folder.glob("*.sql"))]


def status(conn: Connection, target: Target = Target.MUSICBRAINZ) -> list[tuple[str, State]]:
    """Return every migration by name with its state, reading only."""
    _check_schema(conn, target)
    applied = _applied(conn, target)
    known = {migration.name: migration.checksum for migration in available(target)}

    def state(name: str) -> State:
        if name not in applied or name not in known:
            return State.PENDING if name in known else State.UNKNOWN
        return State.APPLIED if applied[name] == known[name] else State.CHANGED

    return [(name, state(name)) for name in (*known, *sorted(applied.keys() - known.keys()))]


def migrate(conn: Connection, target: Target = Target.MUSICBRAINZ) -> list[str]:
    """Apply the pending migrations and return their names, in order.

    `conn` is in autocommit mode, as a role that may create tables in the target's schema, and
    triggers on artwork-indexer's queue. Raises `DatabaseError` if a schema or a right is missing,
    or if an applied file has changed since, and `MigrationFailed` if a file could not be applied;
    those before it were.
    """
    _check_schema(conn, target)
    if target is Target.WXYC:
        _create_schema(conn, target.schema)
    check_may_create(conn, target.schema)
    if target is Target.MUSICBRAINZ:
        check_tables(conn, RIGHTS)
    _check_owns_tables(conn, target)
    names: list[str] = []
    while (name := _apply_next(conn, target)) is not None:
        names.append(name)
    return names


def _apply_next(conn: Connection, target: Target) -> str | None:
    """Apply the first pending migration and return its name; `None` if there is none."""
    with conn.transaction():
        _wait_for_other_migrations(conn)
        conn.execute(SQL(_CREATE_RECORD).format(schema=Identifier(target.schema)))
        states = status(conn, target)
        for name, state in states:
            if state is State.CHANGED:
                raise DatabaseError(
                    f"migration {name} has changed since it was applied: restore the file, and put"
                    " the change into a new migration"
                )
        pending = next((name for name, state in states if state is State.PENDING), None)
        if pending is not None:
            _apply(conn, Migration(pending, (target.folder / pending).read_bytes()), target)
        return pending


def _check_schema(conn: Connection, target: Target) -> None:
    # Our tables refer to types of artwork-indexer's schema.
    if target is Target.MUSICBRAINZ:
        check_tables(conn, (Table("artwork_indexer.event_queue"),))


def _check_owns_tables(conn: Connection, target: Target) -> None:
    names = [f"{target.schema}.{table}" for table in ("audit_entity", "backfill_migration")]
    foreign = conn.execute(_FOREIGN_OWNER, {"names": names}).fetchone()
    if foreign is not None:
        table, owner, role = foreign
        raise DatabaseError(
            f"table {table} belongs to role {owner}, and role {role} may not change it: run"
            f" migrate as {owner}, as before"
        )


def _wait_for_other_migrations(conn: Connection) -> None:
    # Without a limit; the lock time-out is for locks that keep others waiting.
    conn.execute("SET LOCAL lock_timeout = 0")
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
    conn.execute("SELECT set_config('lock_timeout', %s, true)", (LOCK_TIMEOUT,))


def _create_schema(conn: Connection, schema: str) -> None:
    """Create a schema of our own, if it does not exist."""
    if holds(conn, "SELECT to_regnamespace(quote_ident(%s)) IS NOT NULL", (schema,)):
        return
    try:
        conn.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(schema)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseError(
            f"the role may not create the schema {schema}: ask the owner of the database to"
            f" CREATE SCHEMA {schema} AUTHORIZATION the role"
        ) from error


def _apply(conn: Connection, migration: Migration, target: Target) -> None:
    try:
        conn.execute(migration.sql)
        conn.execute(
            SQL("INSERT INTO {}.backfill_migration (name, checksum) VALUES (%s, %s)").format(
                Identifier(target.schema)
            ),
            (migration.name, migration.checksum),
        )
    except psycopg.Error as error:
        raise MigrationFailed(
            f"migration {migration.name} failed and was rolled back: {explain(error)}. Fix the"
            " cause, and run migrate again"
        ) from error


def _applied(conn: Connection, target: Target) -> dict[str, str]:
    record = f"{target.schema}.backfill_migration"
    if not holds(conn, "SELECT to_regclass(%s) IS NOT NULL", (record,)):
        return {}
    query = SQL("SELECT name, checksum FROM {}.backfill_migration ORDER BY name")
    return dict(conn.execute(query.format(Identifier(target.schema))).fetchall())
