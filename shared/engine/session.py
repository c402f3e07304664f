"""Connections to PostgreSQL and the transactions on them.

No setting is ever made for a session: behind PgBouncer in transaction mode a setting, a
session-level lock or a prepared statement would stay on a connection that another client's next
transaction gets. So every transaction begins with its own settings, sent together with BEGIN in one
message. `application_name` and the encoding come with the connection, because PgBouncer keeps those
apart by client.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any, Final, TypeVar, cast

import psycopg
from psycopg import ClientCursor, Connection, Cursor, Transaction
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Composed

from artwork_backfill.shared.engine.errors import StopRun

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The parameters of a query, by name or in order.
Values = Mapping[str, object] | Sequence[object]

#: Why a run ends that others have declared dead, see `runs`.
TAKEN_FOR_DEAD: Final = (
    "this run did not reach the database for so long that another run declared it dead; run it"
    " again"
)

#: A writing transaction must not keep others waiting, so it gives up early. A count over millions
#: of rows holds no lock that others wait for, and may take longer.
WRITE_TIMEOUT_S: Final = 30.0
WRITE_TIMEOUT: Final = f"{WRITE_TIMEOUT_S:g}s"
READ_TIMEOUT: Final = "15min"
LOCK_TIMEOUT: Final = "5s"
IDLE_TIMEOUT: Final = "60s"

#: How long a transaction is retried before the run fails, in seconds.
PATIENCE_S: Final = 300.0
#: The same once the run has been asked to end: a container is killed soon after.
ENDING_PATIENCE_S: Final = 3.0

# Notice the silent loss of a server within a minute, not after two hours, the default of most
# systems. An explicit connection parameter takes precedence.
_CONNECTION_DEFAULTS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "client_encoding": "UTF8",
}
_FIRST_BACKOFF_S: Final = 0.1
_LONGEST_BACKOFF_S: Final = 10.0
_CANCEL_TIMEOUT_S: Final = 2.0

#: The formats of dates and intervals that the code relies on, whatever the defaults of the server,
#: the database or the role are.
_FORMS: Final = {"DateStyle": "ISO", "IntervalStyle": "postgres", "TimeZone": "UTC"}

_READ_ONLY: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# Not READ WRITE: if the server is read only for the moment, as in a failover, so are we.
_WRITE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"


def connect(dsn: str, application_name: str) -> Connection:
    """Open a connection in autocommit mode. Statements are never prepared on the server."""
    return psycopg.connect(**_parameters(dsn, application_name))


def _parameters(dsn: str, application_name: str) -> dict[str, Any]:
    return {
        "conninfo": make_conninfo("", **{**_CONNECTION_DEFAULTS, **conninfo_to_dict(dsn)}),
        "autocommit": True,
        "application_name": application_name,
        "prepare_threshold": None,
    }


class Standalone(Connection[Any]):
    """A connection for commands that are not runs, opened by `open_standalone`.

    Each transaction, and each statement outside of one, begins with its own settings.
    """

    only_reads = False
    statement_timeout = READ_TIMEOUT

    @contextmanager
    def transaction(self, *arguments: Any, **named: Any) -> Iterator[Transaction]:
        is_outermost = self.info.transaction_status == TransactionStatus.IDLE
        with super().transaction(*arguments, **named) as transaction:
            if is_outermost:
                access = "SET TRANSACTION READ ONLY; " if self.only_reads else ""
                # SET rather than set_config, which would count as a query before SET TRANSACTION.
                Cursor(self).execute((access + _set_local(self.statement_timeout)).encode())
            yield transaction


def open_standalone(
    dsn: str,
    application_name: str,
    *,
    read_only: bool = False,
    statement_timeout: str = READ_TIMEOUT,
) -> Standalone:
    """Open a connection for a command that is not a run; otherwise as `connect`."""
    conn = Standalone.connect(
        **_parameters(dsn, application_name), cursor_factory=_StandaloneCursor
    )
    conn.only_reads, conn.statement_timeout = read_only, statement_timeout
    return conn


def only_row(
    conn: Connection, query: str | SQL | Composed, values: Values | None = None
) -> tuple[Any, ...]:
    """Return the row of a query that has exactly one."""
    text = query.encode() if isinstance(query, str) else query
    (row,) = conn.execute(text, values).fetchall()
    return row


def count(conn: Connection, query: str | SQL | Composed, values: Values | None = None) -> int:
    """Return the number that a query counts."""
    return int(only_row(conn, query, values)[0])


def holds(conn: Connection, query: str | SQL | Composed, values: Values | None = None) -> bool:
    """Return whether a query returns true; NULL is false."""
    return bool(only_row(conn, query, values)[0])


def plain_array(values: Iterable[object]) -> str:
    """Return an array as PostgreSQL reads it, of values that need no quotes, or None for NULL.

    These are numbers, times, UUIDs and names of enums. psycopg looks at each element of a list,
    which takes ten times as long; a query of a batch may have several.
    """
    return f"{{{','.join('NULL' if value is None else str(value) for value in values)}}}"


class TooSlow(psycopg.errors.QueryCanceled):
    """A statement took too long. The same one would again; one with fewer rows may not."""


def is_passing(error: psycopg.Error) -> bool:
    """Return whether the same transaction may succeed a little later."""
    code = error.sqlstate
    if code is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return not isinstance(error, TooSlow) and code.startswith(_PASSING)


#: SQLSTATEs and their classes, see PostgreSQL's appendix on error codes.
_PASSING: Final = (
    "08",  # lost connections, besides those that have no code
    "40",  # serialization failure and deadlock
    "53",  # a full disk, or too many connections
    "58",  # an input/output error
    *("57P01", "57P02", "57P03", "57P05"),  # a server that stops or starts
    "57014",  # a cancelled statement, but see `TooSlow`
    "55P03",  # a lock that took too long
    "25006",  # a server that is read only for the moment, as during a failover
    "25P03",  # a transaction that was idle for too long
)


def is_unavailable(error: psycopg.Error) -> bool:
    """Return whether the server exists but accepts no connection now: it is starting or full.

    libpq gives no code for an error before the connection is established, hence the texts, which
    are those of the server in English or, behind PgBouncer, of the pooler.
    """
    if error.sqlstate is not None:
        return error.sqlstate in ("57P03", "53300")
    text = str(error)
    return isinstance(error, psycopg.OperationalError) and any(
        words in text for words in _UNAVAILABLE
    )


def is_locked_out(error: psycopg.Error) -> bool:
    """Return whether another session has held a lock for too long."""
    return error.sqlstate == "55P03"


_UNAVAILABLE: Final = (
    "the database system is starting up",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
    "too many clients already",
    "remaining connection slots are reserved",
    "too many connections for",
    "no more connections allowed",
)


def explain(error: psycopg.Error) -> str:
    """Return an error as one line, without the parts that quote rows or statements."""
    text = error.diag.message_primary or str(error) or type(error).__name__
    code = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return f"{' '.join(text.split())}{code}"


def transaction_settings(statement_timeout: str, lock_timeout: str = LOCK_TIMEOUT) -> str:
    """Return a list of SQL expressions that set parameters until the transaction ends."""
    settings = _settings(statement_timeout, lock_timeout).items()
    return ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings)


def _set_local(statement_timeout: str) -> str:
    settings = _settings(statement_timeout, LOCK_TIMEOUT).items()
    return "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in settings)


def _settings(statement_timeout: str, lock_timeout: str) -> dict[str, str]:
    return {
        "statement_timeout": statement_timeout,
        "lock_timeout": lock_timeout,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
        **_FORMS,
    }


def one_statement(
    conn: Connection,
    query: str,
    values: Mapping[str, object] | None = None,
    *,
    statement_timeout: str = "1s",
    lock_timeout: str = "200ms",
) -> list[tuple[Any, ...]]:
    """Execute one statement in a transaction that a single message begins and ends.

    However long this process takes to read the answer, and even if it is stopped for good, no lock
    and no transaction stays open. `conn` must be in autocommit mode, with no transaction open.
    """
    if conn.info.transaction_status != TransactionStatus.IDLE or not conn.autocommit:
        raise ValueError("the connection must be in autocommit mode, with no transaction open")
    settings = transaction_settings(statement_timeout, lock_timeout)
    try:
        with ClientCursor(conn) as cursor:
            cursor.execute(f"{_WRITE}; SELECT {settings}; {query}; COMMIT".encode(), values)
            # The results of BEGIN and of the settings come first.
            cursor.nextset()
            cursor.nextset()
            return cursor.fetchall() if cursor.description else []
    except psycopg.Error:
        # The server has rolled back, and waits for our ROLLBACK.
        roll_back(conn)
        raise


class _LookCursor(Cursor[Any]):
    """Execute each statement outside of a transaction in one of its own, read-only by default."""

    def begin(self) -> None:
        """Begin the transaction of a statement, with its settings."""
        begin(self.connection, read_only=True)

    def execute(self, *arguments: Any, **named: Any) -> Any:
        conn = self.connection
        if conn.info.transaction_status != TransactionStatus.IDLE:
            return super().execute(*arguments, **named)
        try:
            self.begin()
            super().execute(*arguments, **named)
            conn.commit()
        except BaseException:
            roll_back(conn)
            raise
        return self


class _StandaloneCursor(_LookCursor):
    def begin(self) -> None:
        conn = cast("Standalone", self.connection)
        begin(conn, read_only=conn.only_reads, statement_timeout=conn.statement_timeout)


def begin(
    conn: Connection,
    *,
    read_only: bool = False,
    statement_timeout: str | None = None,
    condition: str | None = None,
    with_id: bool = False,
) -> str | None:
    """Begin a transaction with its settings, in a single message; return its id if requested.

    `StopRun` is raised if `condition`, the guard of a run (see `Session`), is not true.
    """
    cursor = Cursor(conn)
    if read_only:
        # Not a query yet, so that the first one of `work` takes the snapshot.
        settings = _set_local(statement_timeout or READ_TIMEOUT)
        cursor.execute(f"{_READ_ONLY}; {settings}".encode())
        return None
    cursor.execute(
        f"{_WRITE}; SELECT ({condition or 'true'}),"
        f" {'pg_current_xact_id()::text' if with_id else 'NULL'},"
        f" {transaction_settings(statement_timeout or WRITE_TIMEOUT)}".encode()
    )
    cursor.nextset()
    holds, xid, *_ = cursor.fetchone() or (False, None)
    if not holds:
        raise StopRun(TAKEN_FOR_DEAD)
    return None if xid is None else str(xid)


def is_committed(conn: Connection, xid: str) -> bool:
    """Return whether a transaction was committed whose commit got no answer."""
    try:
        row = Cursor(conn).execute("SELECT pg_xact_status(%s::xid8)", (xid,)).fetchone()
    except psycopg.errors.InvalidParameterValue:
        # After a failover, the new server may not know it.
        return False
    if row is not None and row[0] == "in progress":
        raise psycopg.OperationalError("the transaction whose answer was lost is still under way")
    return row is not None and row[0] == "committed"


def roll_back(conn: Connection) -> None:
    """Roll back the open transaction of a connection; close the connection if that fails."""
    try:
        conn.rollback()
    except psycopg.Error:
        conn.close()


class Session:
    """A connection that is reopened when lost, and the transactions on it.

    One thread at a time may use it.

    Parameters
    ----------
    read_only
        Whether every transaction is read only, as in a dry run.
    guard
        Returns an SQL expression that must be true in each writing transaction, or `None`:
        whether others still consider the run alive. Otherwise `StopRun` is raised.
    stop_flag
        When it is set, the process is about to end, and a transaction is retried only for a moment.
    patience, write_timeout
        How long a transaction is retried, and how long a statement of a writing one may take, in
        seconds.
    """

    def __init__(
        self,
        open_connection: Callable[[], Connection],
        *,
        read_only: bool = False,
        guard: Callable[[], str | None] = lambda: None,
        stop_flag: Event | None = None,
        patience: float = PATIENCE_S,
        write_timeout: float = WRITE_TIMEOUT_S,
    ) -> None:
        self.read_only = read_only
        self._open = open_connection
        self._guard = guard
        self._stop_flag = stop_flag or Event()
        self._patience = patience
        self._write_timeout = write_timeout
        self._conn: Connection | None = None

    def transaction(
        self,
        work: Callable[[Connection], T],
        *,
        read_only: bool = False,
        statement_timeout: str | None = None,
        once: bool = False,
        may_split: bool = False,
    ) -> T:
        """Run `work` in one transaction, and repeat all of it after a temporary failure.

        `work` may thus run several times, even after a commit that got no answer unless `once` is
        set: it must depend only on the state of the data. With `once`, the server is asked whether
        such a transaction was committed. With `may_split`, for a caller that can write less at
        once, a writing transaction that was too slow is not repeated but raises `TooSlow`.

        Any other `psycopg.Error` is a failure that is not temporary, or that lasted too long.
        """
        reads = read_only or self.read_only
        timeout = statement_timeout or (READ_TIMEOUT if reads else f"{self._write_timeout:g}s")
        unanswered: tuple[str, T] | None = None

        def attempt() -> T:
            nonlocal unanswered
            conn = self._connection()
            if unanswered is not None and is_committed(conn, unanswered[0]):
                return unanswered[1]
            unanswered = None
            began = time.monotonic()
            try:
                xid = begin(
                    conn,
                    read_only=reads,
                    statement_timeout=timeout,
                    condition=None if reads else self._guard(),
                    with_id=once and not reads,
                )
                result = work(conn)
                if conn.info.transaction_status == TransactionStatus.INERROR:
                    # COMMIT would roll back without an error.
                    raise psycopg.errors.InFailedSqlTransaction("an error was ignored")
                if xid is not None:
                    unanswered = (xid, result)
                conn.commit()
            except BaseException as error:
                roll_back(conn)
                # The server's message depends on its language: a statement that a person cancels
                # has hardly ever taken as long as the time-out.
                is_slow = time.monotonic() - began >= self._write_timeout
                if may_split and is_slow and isinstance(error, psycopg.errors.QueryCanceled):
                    raise TooSlow(str(error)) from error
                raise
            return result

        return self._repeat(attempt, read_only=reads)

    def look(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads, with a transaction for each of its statements.

        The statements see different snapshots, and no transaction is open for longer than one of
        them takes. Otherwise as `transaction`.
        """

        def once() -> T:
            conn = self._connection()
            factory = conn.cursor_factory
            conn.cursor_factory = _LookCursor
            try:
                return work(conn)
            finally:
                conn.cursor_factory = factory

        return self._repeat(once, read_only=True)

    def autocommit(self, work: Callable[[Connection], T]) -> T:
        """Run `work` outside of any transaction; it executes statements by `one_statement`.

        Otherwise as `transaction`. The guard is only checked beforehand.
        """

        def attempt() -> T:
            conn = self._connection()
            condition = self._guard()
            if condition and not one_statement(conn, f"SELECT ({condition})")[0][0]:
                raise StopRun(TAKEN_FOR_DEAD)
            return work(conn)

        return self._repeat(attempt, read_only=False)

    def statement(
        self, query: str, values: Mapping[str, object] | None = None, **timeouts: str
    ) -> Sequence[tuple[Any, ...]]:
        """Execute one statement as `one_statement` does, and repeat it after a failure.

        The guard does not apply.
        """
        return self._repeat(
            lambda: one_statement(self._connection(), query, values, **timeouts), read_only=False
        )

    def cancel(self) -> None:
        """Cancel the current statement, if there is one. Safe to call from another thread."""
        conn = self._conn
        if conn is not None and not conn.closed:
            with suppress(psycopg.Error):
                conn.cancel_safe(timeout=_CANCEL_TIMEOUT_S)

    def close(self) -> None:
        """Close the connection; the next transaction opens another."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _repeat(self, attempt: Callable[[], T], *, read_only: bool) -> T:
        deadline = time.monotonic() + self._patience
        pauses = _pauses()
        while True:
            began = time.monotonic()
            try:
                return attempt()
            except psycopg.Error as error:
                if self._stop_flag.is_set():
                    # The attempt may have waited for a lock for longer than that.
                    deadline = min(deadline, began + ENDING_PATIENCE_S)
                # In a transaction that a dry run made read only, 25006 is a bug of the job.
                is_ours = read_only and error.sqlstate == "25006"
                if is_ours or not is_passing(error) or time.monotonic() >= deadline:
                    raise
                if is_locked_out(error):
                    log.warning("another session has a lock, trying again: %s", explain(error))
                else:
                    log.warning("the database did not answer, trying again: %s", explain(error))
                if error.sqlstate == "25006":
                    # It may stay read only: after a failover, its name leads to another server.
                    self.close()
                if self._stop_flag.wait(next(pauses)):
                    time.sleep(_FIRST_BACKOFF_S)

    def _connection(self) -> Connection:
        if self._conn is None or self._conn.closed:
            self._conn = self._open()
        return self._conn


def _pauses() -> Iterator[float]:
    """Yield ever longer pauses between attempts, in seconds, without end."""
    pause = _FIRST_BACKOFF_S
    while True:
        # Jitter, so that containers that lost the same server do not return at once.
        yield random.uniform(0.5, 1.0) * pause
        pause = min(pause * 2, _LONGEST_BACKOFF_S)


def open_patiently(
    open_connection: Callable[[], Connection], *, patience: float = PATIENCE_S
) -> Connection:
    """Open a connection; retry only while the server is starting up or full.

    For the main thread before a run begins, where a signal ends the wait. Raises `StopRun` after
    `patience` seconds.
    """
    deadline = time.monotonic() + patience
    pauses = _pauses()
    while True:
        try:
            return open_connection()
        except psycopg.Error as error:
            if not is_unavailable(error):
                raise
            if time.monotonic() >= deadline:
                raise StopRun(
                    f"the database was not ready for {patience:,.0f} s: {explain(error)}; run again"
                    " later"
                ) from error
            log.warning("the database is not ready, trying again: %s", explain(error))
            time.sleep(next(pauses))
