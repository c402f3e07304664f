"""Telling passing trouble from bad data, explaining errors, and what a database must have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import Connection, errors
from psycopg.pq import TransactionStatus

from artwork_backfill.shared.engine.errors import DatabaseError, StopRun
from artwork_backfill.shared.engine.session import (
    Session,
    connect,
    explain,
    is_passing,
    one_statement,
    open_patiently,
    open_standalone,
)
from artwork_backfill.shared.engine.tables import Table, check_tables


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (psycopg.OperationalError("server closed the connection unexpectedly"), True),
        (psycopg.InterfaceError("the connection is closed"), True),
        (errors.ConnectionFailure(), True),
        (errors.AdminShutdown(), True),
        (errors.CrashShutdown(), True),
        (errors.CannotConnectNow(), True),
        (errors.IdleSessionTimeout(), True),
        (errors.IdleInTransactionSessionTimeout(), True),
        (errors.SerializationFailure(), True),
        (errors.DeadlockDetected(), True),
        (errors.LockNotAvailable(), True),
        (errors.QueryCanceled(), True),
        (errors.TooManyConnections(), True),
        (errors.DiskFull(), True),
        (errors.IoError(), True),
        (errors.ReadOnlySqlTransaction(), True),
        (errors.UniqueViolation(), False),
        (errors.CheckViolation(), False),
        (errors.NumericValueOutOfRange(), False),
        (errors.InvalidTextRepresentation(), False),
        (errors.RaiseException(), False),
        (errors.WithCheckOptionViolation(), False),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), False),
        (errors.UndefinedTable(), False),
        (errors.InsufficientPrivilege(), False),
        (errors.SyntaxError(), False),
        (errors.InternalError_(), False),
        (psycopg.ProgrammingError("the query has 2 placeholders but 1 parameter"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_pass_by_themselves_or_not(error: psycopg.Error, passing: bool) -> None:
    assert is_passing(error) is passing


def test_an_explanation_is_one_line_and_quotes_no_row(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute("CREATE TABLE one (id INT PRIMARY KEY, secret TEXT)")
        conn.execute("INSERT INTO one VALUES (1, 'hunter22')")
        with pytest.raises(errors.UniqueViolation) as caught:
            conn.execute("INSERT INTO one VALUES (1, 'hunter22')")
    assert explain(caught.value) == (
        'duplicate key value violates unique constraint "one_pkey" (SQLSTATE 23505)'
    )
    assert explain(psycopg.OperationalError("failed:\n\tis the server running?\n")) == (
        "failed: is the server running?"
    )
    assert explain(psycopg.OperationalError()) == "OperationalError"


def test_a_connection_string_may_choose_its_own_time_outs(empty_database: str) -> None:
    with connect(f"{empty_database}&connect_timeout=3&keepalives_idle=5", "tiny") as conn:
        chosen = conn.info.get_parameters()
    assert (chosen["connect_timeout"], chosen["keepalives_idle"]) == ("3", "5")
    with connect(empty_database, "tiny") as conn:
        assert conn.info.get_parameters()["connect_timeout"] == "10"


def test_a_read_only_connection_cannot_write(empty_database: str) -> None:
    with (
        open_standalone(empty_database, "tiny", read_only=True) as conn,
        pytest.raises(errors.ReadOnlySqlTransaction),
    ):
        conn.execute("CREATE TABLE one (id INT)")


@pytest.fixture
def poor(empty_database: str) -> Iterator[Connection]:
    """A session of a role without rights, in a database with two schemas and a table in each."""
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute(
            'CREATE SCHEMA artwork_indexer; CREATE SCHEMA "Mixed";'
            "CREATE TABLE artwork_indexer.audit_entity (id BIGSERIAL PRIMARY KEY);"
            'CREATE TABLE "Mixed".library (id SERIAL);'
            "CREATE ROLE poor"
        )
        try:
            yield conn
        finally:
            conn.execute("RESET ROLE")
            conn.execute("DROP OWNED BY poor")
            conn.execute("DROP ROLE poor")


MAY_LOOK = "GRANT USAGE ON SCHEMA artwork_indexer TO poor;"
ENTITY = Table("artwork_indexer.audit_entity", ("SELECT", "INSERT"))


@pytest.mark.parametrize(
    ("grants", "table", "message"),
    [
        ("", Table("musicbrainz.release"), "no table musicbrainz.release: check that the database"),
        ("", Table("artwork_indexer.event_queue"), "install artwork-indexer's own schema first"),
        ("", Table("artwork_indexer.audit_result"), "run `artwork-backfill migrate` first"),
        ("", ENTITY, "GRANT USAGE ON SCHEMA artwork_indexer TO poor"),
        (
            MAY_LOOK,
            ENTITY,
            "GRANT SELECT, INSERT ON artwork_indexer.audit_entity TO poor",
        ),
        (
            f"{MAY_LOOK} GRANT SELECT ON artwork_indexer.audit_entity TO poor;",
            ENTITY,
            "GRANT INSERT ON artwork_indexer.audit_entity TO poor",
        ),
        (
            f"{MAY_LOOK} GRANT SELECT, INSERT ON artwork_indexer.audit_entity TO poor;",
            ENTITY,
            "GRANT USAGE ON SEQUENCE artwork_indexer.audit_entity_id_seq TO poor",
        ),
    ],
)
def test_what_a_role_lacks_is_named_with_what_to_do(
    poor: Connection, grants: str, table: Table, message: str
) -> None:
    if grants:
        poor.execute(grants.encode())
    if table.name not in ("artwork_indexer.audit_result", "artwork_indexer.event_queue"):
        poor.execute("SET ROLE poor")
    with pytest.raises(DatabaseError) as caught:
        check_tables(poor, (table,))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_missing_is_named_in_one_message(poor: Connection) -> None:
    tables = (
        Table("musicbrainz.release"),
        Table("musicbrainz.event"),
        Table("artwork_indexer.audit_result"),
        ENTITY,
        Table("Mixed.library"),
    )
    poor.execute(MAY_LOOK.encode())
    poor.execute("SET ROLE poor")
    with pytest.raises(DatabaseError) as caught:
        check_tables(poor, tables)
    for part in (
        "no tables musicbrainz.release, musicbrainz.event: check that",
        "no table artwork_indexer.audit_result: run `artwork-backfill migrate` first",
        "GRANT SELECT, INSERT ON artwork_indexer.audit_entity TO poor",
        "GRANT USAGE ON SEQUENCE artwork_indexer.audit_entity_id_seq TO poor",
        "GRANT USAGE ON SCHEMA Mixed TO poor",
    ):
        assert part in str(caught.value)


def test_names_with_capitals_are_found(poor: Connection) -> None:
    check_tables(poor, (Table("Mixed.library", ("SELECT", "INSERT", "UPDATE")),))


STARTING = "connection to server failed: FATAL:  the database system is starting up"
FULL = "connection failed: FATAL:  sorry, too many clients already"
REFUSED = "connection failed: Connection refused\n\tIs the server running on that host?"


@pytest.mark.parametrize("message", [STARTING, FULL])
def test_a_server_that_is_not_ready_is_waited_for(empty_database: str, message: str) -> None:
    troubles = iter([message] * 3)

    def opens() -> Connection:
        if (trouble := next(troubles, None)) is not None:
            raise psycopg.OperationalError(trouble)
        return connect(empty_database, "tiny")

    with open_patiently(opens, patience=20) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_does_not_get_ready_interrupts() -> None:
    def opens() -> Connection:
        raise psycopg.OperationalError(STARTING)

    with pytest.raises(StopRun, match=r"was not ready for 0 s: .* is starting up") as caught:
        open_patiently(opens, patience=0.2)
    assert not caught.value.planned


def test_a_server_that_refuses_is_not_waited_for() -> None:
    def opens() -> Connection:
        raise psycopg.OperationalError(REFUSED)

    with pytest.raises(psycopg.OperationalError, match="refused"):
        open_patiently(opens, patience=60)


def test_one_statement_takes_its_settings_along_and_leaves_none(empty_database: str) -> None:
    with connect(empty_database, "tiny") as conn:
        rows = one_statement(
            conn,
            "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'), %(x)s",
            {"x": "it's"},
        )
        assert rows == [("1s", "200ms", "it's")]
        assert conn.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert conn.info.transaction_status == TransactionStatus.IDLE


def test_a_transaction_asks_for_the_forms_it_relies_on_whatever_the_database_has(
    empty_database: str,
) -> None:
    with psycopg.connect(empty_database, autocommit=True) as conn:
        (name,) = conn.execute("SELECT current_database()").fetchone() or ("",)
        for setting in ("DateStyle = 'German, DMY'", "IntervalStyle = 'sql_standard'"):
            conn.execute(f"ALTER DATABASE {name} SET {setting}".encode())
    query = "SELECT timestamptz '2026-08-01 12:00+02', interval '1 day 2 hours'"
    with closing(Session(lambda: connect(empty_database, "tiny"))) as session:
        for look in (session.transaction, session.look):
            row = look(lambda conn: conn.execute(query).fetchone())
            assert row == (
                datetime(2026, 8, 1, 10, tzinfo=UTC),
                timedelta(days=1, hours=2),
            )


def test_a_server_that_stays_read_only_is_left_for_the_one_that_is_not(empty_database: str) -> None:
    """After a failover, the host name leads to another server, but an open connection does not."""
    places = iter(["-c default_transaction_read_only=on", ""])
    session = Session(lambda: psycopg.connect(empty_database, options=next(places)), patience=20)
    with closing(session):
        session.transaction(lambda conn: conn.execute("CREATE TABLE written ()"))
        assert session.transaction(lambda conn: conn.execute("TABLE written").fetchall()) == []
