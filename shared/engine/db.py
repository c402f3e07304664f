"""Connections to PostgreSQL: opening them, telling passing trouble from bad data, and a session
that repeats a transaction when the database went away under it.

No SQL of a job lives here. Only `Session` opens transactions; only `shared.engine.runner` uses it
to write.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import Final, TypeVar

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

log = logging.getLogger(__name__)

T = TypeVar("T")

#: A transaction that writes must not keep others waiting, so it gives up early; a count over
#: millions of rows holds no lock that anybody waits for, and may take its time.
WRITE_TIMEOUT: Final = "30s"
READ_TIMEOUT: Final = "15min"
LOCK_TIMEOUT: Final = "5s"
IDLE_TIMEOUT: Final = "60s"

#: For how long a transaction is repeated before the run fails, in seconds.
PATIENCE_S: Final = 300.0
#: The same once the run has been asked to end: whoever asked will not wait for long.
ENDING_PATIENCE_S: Final = 3.0

# A server that vanishes without a word is noticed within a minute, not after two hours, which is
# what most systems take. A connection string that says otherwise has its way.
_CONNECTION_DEFAULTS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
_FIRST_BACKOFF_S: Final = 0.1
_LONGEST_BACKOFF_S: Final = 10.0


class DatabaseError(Exception):
    """The database cannot be used for this job. The message says why, and what to do."""


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


def connect(dsn: str, application_name: str, *, read_only: bool = False) -> Connection:
    """Open a connection in autocommit mode, with the time-outs that every session has.

    Statements are never prepared on the server: plans then fit the values at hand, and a
    connection pool between us and the server does no harm.

    Raises `psycopg.OperationalError` when the server cannot be reached.
    """
    conn = psycopg.connect(
        make_conninfo("", **{**_CONNECTION_DEFAULTS, **conninfo_to_dict(dsn)}),
        autocommit=True,
        application_name=application_name,
        prepare_threshold=None,
    )
    try:
        conn.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('lock_timeout', %s, false),"
            " set_config('idle_in_transaction_session_timeout', %s, false),"
            " set_config('timezone', 'UTC', false)",
            (READ_TIMEOUT, LOCK_TIMEOUT, IDLE_TIMEOUT),
        )
        if read_only:
            conn.execute("SET default_transaction_read_only = on")
    except BaseException:
        conn.close()
        raise
    return conn


def is_passing(error: psycopg.Error) -> bool:
    """Tell whether the same transaction may well succeed a little later.

    By SQLSTATE, see PostgreSQL's appendix on error codes: lost connections (class 08 and no code
    at all), a server that stops or starts (57P), serialization failure and deadlock (40), lock
    time-out (55P03), statement time-out (57014), a full disk or too many connections (53), an
    input/output error (58), and a server that is read only for the moment, as during a failover
    (25006).
    """
    code = error.sqlstate
    if code is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return code[:2] in ("08", "40", "53", "58") or code in (
        "57P01",
        "57P02",
        "57P03",
        "57P05",
        "57014",
        "55P03",
        "25006",
        "25P03",
    )


def explain(error: psycopg.Error) -> str:
    """Return an error as one line, without the parts that quote rows or statements."""
    text = error.diag.message_primary or str(error) or type(error).__name__
    code = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return f"{' '.join(text.split())}{code}"


class Session:
    """A connection that comes back, and the transactions on it.

    Parameters
    ----------
    open_connection
        Opens a connection, see `connect`.
    on_connect
        Prepares each new connection, for example by taking a session-level lock.
    ending
        When set, the process is about to end and a transaction is only repeated for a moment.
    patience
        For how long a transaction is repeated, in seconds.
    """

    def __init__(
        self,
        open_connection: Callable[[], Connection],
        *,
        on_connect: Callable[[Connection], None] = lambda _: None,
        ending: Event | None = None,
        patience: float = PATIENCE_S,
    ) -> None:
        self._open = open_connection
        self._on_connect = on_connect
        self._ending = ending or Event()
        self._patience = patience
        self._conn: Connection | None = None

    def transaction(self, work: Callable[[Connection], T], *, read_only: bool = False) -> T:
        """Run `work` in one transaction, and repeat all of it after passing trouble.

        `work` may thus run several times, and once more after a commit whose answer was lost: it
        must rest on the state of the data alone.

        Raises
        ------
        psycopg.Error
            Trouble that does not pass, or that did not pass in time.
        """
        return self._repeat(lambda: self._once(work, read_only=read_only), read_only=read_only)

    def look(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads, with a transaction for each of its statements.

        They see different moments, and no transaction is open for longer than a statement takes.
        Otherwise as `transaction`.
        """
        return self._repeat(lambda: self._look(work), read_only=True)

    def _repeat(self, attempt: Callable[[], T], *, read_only: bool) -> T:
        deadline = time.monotonic() + self._patience
        backoff = _FIRST_BACKOFF_S
        while True:
            try:
                return attempt()
            except psycopg.Error as error:
                # In a transaction that we made read only ourselves, 25006 is a mistake of the job.
                is_ours = read_only and error.sqlstate == "25006"
                if is_ours or not is_passing(error) or time.monotonic() >= deadline:
                    raise
                log.warning("the database did not answer, trying again: %s", explain(error))
                self._drop_if_broken()
                # Jitter, so that containers that lost the same server do not return at once.
                pause = random.uniform(0.5, 1.0) * backoff
                if self._ending.wait(pause):
                    deadline = min(deadline, time.monotonic() + ENDING_PATIENCE_S)
                    time.sleep(_FIRST_BACKOFF_S)
                backoff = min(backoff * 2, _LONGEST_BACKOFF_S)

    def close(self) -> None:
        """Close the connection; the next transaction opens another."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _once(self, work: Callable[[Connection], T], *, read_only: bool) -> T:
        conn = self._connection()
        with conn.transaction():
            if read_only:
                conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            else:
                conn.execute("SELECT set_config('statement_timeout', %s, true)", (WRITE_TIMEOUT,))
            return work(conn)

    def _look(self, work: Callable[[Connection], T]) -> T:
        # On a connection of its own, since this one shall never write.
        with closing(self._open()) as conn:
            conn.execute("SET default_transaction_read_only = on")
            return work(conn)

    def _connection(self) -> Connection:
        if self._conn is None or self._conn.closed:
            conn = self._open()
            try:
                self._on_connect(conn)
            except BaseException:
                conn.close()
                raise
            self._conn = conn
        return self._conn

    def _drop_if_broken(self) -> None:
        if self._conn is not None and (self._conn.broken or self._conn.closed):
            self.close()


def check_tables(conn: Connection, tables: tuple[Table, ...]) -> None:
    """Check that a database has what a job needs, before the job touches anything.

    Raises
    ------
    DatabaseError
        Names the first thing that is missing and says how to get it.
    """
    for table in tables:
        _check_schema(conn, table)
        if not _one(conn, "SELECT to_regclass(%s) IS NOT NULL", table.quoted):
            raise DatabaseError(_missing(table))
        for privilege in table.privileges:
            if not _one(conn, "SELECT has_table_privilege(%s, %s)", table.quoted, privilege):
                raise _no_right(conn, privilege, table.name)
        if "INSERT" in table.privileges:
            _check_sequence(conn, table)


def check_may_create(conn: Connection, schema: str) -> None:
    """Check that the role may create tables in a schema that exists, or raise `DatabaseError`."""
    if not _one(conn, "SELECT has_schema_privilege(%s, 'CREATE')", schema):
        raise _no_right(conn, "CREATE", f"SCHEMA {schema}")


def _check_schema(conn: Connection, table: Table) -> None:
    if not _one(conn, "SELECT to_regnamespace(quote_ident(%s)) IS NOT NULL", table.schema):
        raise DatabaseError(_missing(table))
    if not _one(conn, "SELECT has_schema_privilege(%s, 'USAGE')", table.schema):
        raise _no_right(conn, "USAGE", f"SCHEMA {table.schema}")


def _check_sequence(conn: Connection, table: Table) -> None:
    sequence = _one(
        conn,
        "SELECT pg_get_serial_sequence(%s, attname) FROM pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attname = 'id'",
        table.quoted,
        table.quoted,
    )
    if sequence and not _one(conn, "SELECT has_sequence_privilege(%s, 'USAGE')", sequence):
        raise _no_right(conn, "USAGE", f"SEQUENCE {sequence}")


def _missing(table: Table) -> str:
    if table.schema == "artwork_indexer":
        if table.name == "artwork_indexer.event_queue":
            return (
                "the database has no table artwork_indexer.event_queue: install artwork-indexer's"
                " own schema first (its sql/create_schema.sql)"
            )
        return f"the database has no table {table.name}: run `artwork-backfill migrate` first"
    return (
        f"the database has no table {table.name}: check that the database URL names the right"
        " database, and for the library that WXYC_SCHEMA_NAME names its schema"
    )


def _no_right(conn: Connection, privilege: str, on: str) -> DatabaseError:
    role = _one(conn, "SELECT current_user")
    return DatabaseError(
        f"role {role} may not use {on}: ask the owner to GRANT {privilege} ON {on} TO {role}"
    )


def _one(conn: Connection, query: str, *values: object) -> object:
    row = conn.execute(query.encode(), values).fetchone()
    return None if row is None else row[0]
