"""Database access of the dashboard: queries in a read-only session, changes in one of their own.

Other modules know the queries and changes; this one knows the visitor, the time limits, and the
messages for a database that does not answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import psycopg
from psycopg import Connection
from psycopg.errors import LockNotAvailable, QueryCanceled, ReadOnlySqlTransaction

from artwork_backfill.dashboard.access import NotAllowed
from artwork_backfill.dashboard.config import Config
from artwork_backfill.shared.engine import session as db
from artwork_backfill.shared.review.actions import Refused
from artwork_backfill.shared.settings import SettingsError

T = TypeVar("T")

#: A person waits for the page: a query that takes longer is too broad.
STATEMENT_TIMEOUT: Final = "10s"

_COMMAND: Final = re.compile(r":[^:`]*`[^`]*`[^`]*$")

_APPLICATION: Final = "artwork-backfill dashboard"


class Trouble(Exception):
    """The database did not do what was requested. The message explains it to a visitor."""


@dataclass(frozen=True, slots=True)
class DashboardDb:
    """The database of a visitor.

    `who` returns the name of the present visitor, for the notes; it raises `access.NotAllowed` if
    the visitor may not act.
    """

    config: Config
    who: Callable[[], str]

    @contextmanager
    def reading(self, *, timeout: str = STATEMENT_TIMEOUT) -> Iterator[Connection]:
        """Open a session for queries; it can change nothing, even if the dashboard may.

        Raises
        ------
        Trouble
            The database failed within the block.
        """
        with self._session(read_only=True, timeout=timeout) as conn:
            yield conn

    def act(self, change: Callable[[Connection, str], T]) -> T:
        """Make a change and return its result.

        `change` gets a connection and the person's name. It opens its own transaction, so that it
        can read archive.org before.

        Raises
        ------
        Trouble
            The visitor may not act any more, or the database refuses the change, for example
            because the dashboard is read only.
        """
        try:
            by = self.who()
        except NotAllowed as refusal:
            raise Trouble(without_commands(str(refusal))) from None
        with self._session(read_only=self.config.read_only) as conn:
            return change(conn, by)

    @contextmanager
    def _session(
        self, *, read_only: bool, timeout: str = STATEMENT_TIMEOUT
    ) -> Iterator[Connection]:
        try:
            with closing(
                db.open_standalone(
                    self.config.dsn,
                    _APPLICATION,
                    read_only=read_only,
                    statement_timeout=timeout,
                )
            ) as conn:
                yield conn
        except psycopg.Error as error:
            raise Trouble(self.config.redactor.text(_explain(error, timeout))) from None
        except (Refused, SettingsError) as refusal:
            raise Trouble(without_commands(str(refusal))) from None


def without_commands(refusal: str) -> str:
    """Return a refusal without the command that it may end with, because the page has buttons."""
    return _COMMAND.sub("", refusal)


def _explain(error: psycopg.Error, timeout: str) -> str:
    if isinstance(error, QueryCanceled):
        return (
            f"The database took longer than {timeout} to answer: narrow the question"
            " down with a filter."
        )
    if isinstance(error, LockNotAvailable):
        return "Someone else is changing these rows: try again in a moment."
    if isinstance(error, ReadOnlySqlTransaction):
        return "This dashboard is read only: nothing was changed."
    if error.sqlstate in ("42P01", "3F000"):
        return f"{db.explain(error)}: run `artwork-backfill migrate` first."
    return f"The database cannot be used: {db.explain(error)}"
