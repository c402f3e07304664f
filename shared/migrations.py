"""Applies the SQL files in `sql/migrations`: plain SQL, forward only, each in a transaction.

What was applied is recorded, with a checksum, in `artwork_indexer.backfill_migration`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import psycopg
from artwork_backfill.shared.engine.errors import DatabaseError
from artwork_backfill.shared.engine.session import LOCK_TIMEOUT, explain
from artwork_backfill.shared.engine.tables import Table, check_may_create, check_tables
from psycopg import Connection

#: Serialises migrations; any number does as long as nobody else uses it ("artwork" in ASCII).
_LOCK_KEY: Final = 0x617274776F726B

# Beside the package in a checkout, and in the image as well: the wheel carries it along.
_FOLDER: Final = Path(__file__).resolve().parent.parent / "sql" / "migrations"

# artwork-indexer's own schema comes first: ours adds to it and refers to its types.
_SCHEMA: Final = "artwork_indexer"
_PRECONDITIONS: Final = (Table("artwork_indexer.event_queue"),)

_CREATE_RECORD: Final = b"""
CREATE TABLE IF NOT EXISTS artwork_indexer.backfill_migration (
    name        TEXT PRIMARY KEY,
    checksum    TEXT NOT NULL,
    applied_at  TIMESTAMPTZ NOT NULL DEFAULT now()
)
"""


class MigrationFailed(Exception):
    """A migration could not be applied, and left nothing behind. The message says why."""


class State(StrEnum):
    """What can be said of a migration: there are files, and there are records of them."""

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


def available() -> list[Migration]:
    """Return the migrations that this version of the project has, in order."""
    return [Migration(path.name, path.read_bytes()) for path in sorted(_FOLDER.glob("*.sql"))]


def status(conn: Connection) -> list[tuple[str, State]]:
    """Return every migration by name with its state, reading only."""
    check_tables(conn, _PRECONDITIONS)
    applied = _applied(conn)
    known = {migration.name: migration.checksum for migration in available()}
    states = [
        (
            name,
            State.PENDING
            if name not in applied
            else State.APPLIED
            if applied[name] == checksum
            else State.CHANGED,
        )
        for name, checksum in known.items()
    ]
    return states + [(name, State.UNKNOWN) for name in sorted(applied.keys() - known.keys())]


def migrate(conn: Connection) -> list[str]:
    """Apply what is pending and return the names, in order.

    Parameters
    ----------
    conn
        A connection in autocommit mode, as a role that may create tables in artwork_indexer.

    Raises
    ------
    DatabaseError
        artwork-indexer's schema is missing, the role may not create tables in it, or an applied
        file has changed since.
    MigrationFailed
        A file could not be applied; those before it were.
    """
    check_tables(conn, _PRECONDITIONS)
    check_may_create(conn, _SCHEMA)
    names: list[str] = []
    while (name := _apply_next(conn)) is not None:
        names.append(name)
    return names


def _apply_next(conn: Connection) -> str | None:
    """Apply the first migration that is pending and return its name; `None` where none is."""
    with conn.transaction():
        _wait_for_other_migrations(conn)
        conn.execute(_CREATE_RECORD)
        applied = _applied(conn)
        for migration in available():
            if applied.get(migration.name, migration.checksum) != migration.checksum:
                raise DatabaseError(
                    f"migration {migration.name} has changed since it was applied: restore the"
                    " file, and put the change into a new migration"
                )
        pending = [migration for migration in available() if migration.name not in applied]
        if not pending:
            return None
        _apply(conn, pending[0])
        return pending[0].name


def _wait_for_other_migrations(conn: Connection) -> None:
    # However long they take; the lock time-out is for our own locks, which keep others waiting.
    conn.execute("SET LOCAL lock_timeout = 0")
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
    conn.execute("SELECT set_config('lock_timeout', %s, true)", (LOCK_TIMEOUT,))


def _apply(conn: Connection, migration: Migration) -> None:
    try:
        conn.execute(migration.sql)
        conn.execute(
            "INSERT INTO artwork_indexer.backfill_migration (name, checksum) VALUES (%s, %s)",
            (migration.name, migration.checksum),
        )
    except psycopg.Error as error:
        raise MigrationFailed(
            f"migration {migration.name} failed and was rolled back: {explain(error)}"
        ) from error


def _applied(conn: Connection) -> dict[str, str]:
    row = conn.execute("SELECT to_regclass('artwork_indexer.backfill_migration')").fetchone()
    if row is None or row[0] is None:
        return {}
    query = "SELECT name, checksum FROM artwork_indexer.backfill_migration ORDER BY name"
    return dict(conn.execute(query).fetchall())
