"""A visitor's way to the database: what it can never do, and what it says when it cannot."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest

from artwork_backfill.dashboard import database as databases
from artwork_backfill.dashboard.access import NotAllowed
from artwork_backfill.dashboard.config import Config
from artwork_backfill.dashboard.database import DashboardDb, Trouble
from artwork_backfill.shared.review import actions
from artwork_backfill.shared.settings import SettingsError
from tests.dashboard.dashboard_rows import Rows

SECRET = "correct-horse-battery"


def _database(dsn: str, *, read_only: bool = False) -> DashboardDb:
    environ = {"MUSICBRAINZ_DATABASE_URL": dsn, "BACKFILL_BY": "me"}
    if read_only:
        environ["BACKFILL_DASHBOARD_READ_ONLY"] = "1"
    config = Config.from_environ(environ)
    return DashboardDb(config, lambda: config.by)


def test_a_change_is_made_in_the_visitors_name(rows: Rows, database: str) -> None:
    seen = rows.review()
    _database(database).act(lambda conn, by: actions.resolve(conn, seen, by=by, note="fixed"))
    assert "me: resolved: fixed" in str(rows.seen(seen.id).notes)


def test_a_read_only_dashboard_cannot_change_anything(rows: Rows, database: str) -> None:
    seen = rows.review()
    with pytest.raises(Trouble, match="read only: nothing was changed"):
        _database(database, read_only=True).act(
            lambda conn, by: actions.resolve(conn, seen, by=by, note="fixed")
        )
    assert rows.seen(seen.id) == seen


def test_questions_cannot_change_anything_either(rows: Rows, database: str) -> None:
    with pytest.raises(Trouble, match="read only"), _database(database).reading() as conn:
        conn.execute("DELETE FROM artwork_indexer.audit_entity")


def test_no_one_who_is_not_let_in_acts(rows: Rows, database: str) -> None:
    def no_one() -> str:
        raise NotAllowed("You are not logged in any more.")

    seen = rows.review()
    database = DashboardDb(_database(database).config, no_one)
    with pytest.raises(Trouble, match="not logged in any more"):
        database.act(lambda conn, by: actions.resolve(conn, seen, by=by, note="fixed"))
    assert rows.seen(seen.id) == seen


def _sleep(conn: psycopg.Connection) -> None:
    with conn.transaction():
        conn.execute("SET LOCAL statement_timeout = '20ms'")
        conn.execute("SELECT pg_sleep(30)")


def _missing(conn: psycopg.Connection) -> None:
    conn.execute("SELECT FROM artwork_indexer.no_such_table")


@pytest.mark.parametrize(
    ("question", "says"), [(_sleep, "narrow the question down"), (_missing, "migrate")]
)
def test_what_goes_wrong_is_said_in_words(
    database: str, question: Callable[[psycopg.Connection], None], says: str
) -> None:
    with pytest.raises(Trouble, match=says), _database(database).reading() as conn:
        question(conn)


def test_every_question_has_a_time_out(database: str) -> None:
    with _database(database).reading() as conn:
        row = conn.execute("SHOW statement_timeout").fetchone()
    assert row == (databases.STATEMENT_TIMEOUT,)


def test_rows_that_somebody_holds_are_not_waited_for_for_long(
    rows: Rows, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("artwork_backfill.shared.engine.session.LOCK_TIMEOUT", "100ms")
    seen = rows.review()
    with closing(psycopg.connect(database)) as other:
        other.execute("SELECT FROM artwork_indexer.audit_entity FOR UPDATE")
        with pytest.raises(Trouble, match="Someone else is changing these rows"):
            _database(database).act(
                lambda conn, by: actions.resolve(conn, seen, by=by, note="fixed")
            )


def test_no_message_shows_a_password() -> None:
    database = _database(f"postgresql://me:{SECRET}@127.0.0.1:1/{SECRET}")
    with pytest.raises(Trouble) as trouble, database.reading():
        pass
    assert SECRET not in str(trouble.value)
    assert SECRET not in repr(database)


def test_a_missing_database_is_named() -> None:
    with pytest.raises(SettingsError, match="MUSICBRAINZ_DATABASE_URL"):
        Config.from_environ({})
