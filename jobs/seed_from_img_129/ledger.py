"""Every gid that was read, with its sources and its priority, in a temporary file.

It allows the end of a run to count the gids again. A dictionary of 1.4 million gids would take
hundreds of megabytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from artwork_backfill.shared.engine.job import RunFailed

# Without a key: sorting everything once at the end takes half the time of keeping it sorted. A gid
# that is met again much later takes another 30 bytes.
_CREATE: Final = """
CREATE TABLE seen (gid BLOB NOT NULL, source INTEGER NOT NULL, priority INTEGER NOT NULL)
"""

_ADD: Final = """
INSERT INTO seen VALUES (?, ?, ?)
"""

_ENTRIES: Final = """
SELECT gid, max(priority), group_concat(DISTINCT source) FROM seen GROUP BY gid ORDER BY gid
"""


class Entry(NamedTuple):
    """What is known about a gid: its highest priority, and the positions of its sources."""

    priority: int
    sources: frozenset[int]


class Ledger:
    """A map from packed gids to entries, in an SQLite database, a temporary one by default.

    Raises `RunFailed` if the file cannot grow.
    """

    def __init__(self, file: sqlite3.Connection | None = None) -> None:
        # An empty name means a temporary database.
        self._file = file or sqlite3.connect("", check_same_thread=False)
        # It disappears with the process, so nothing needs to survive a crash.
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", _CREATE):
            self._file.execute(statement)

    def add(self, seeds: Mapping[bytes, int], source: int) -> None:
        """Store gids that were read from a source, each with its priority there."""
        with _full():
            rows = ((gid, source, priority) for gid, priority in seeds.items())
            self._file.executemany(_ADD, rows)

    def entries(self) -> Iterator[tuple[bytes, Entry]]:
        """Yield every gid once."""
        known: dict[tuple[int, str], Entry] = {}
        with _full():
            for gid, *rest in self._file.execute(_ENTRIES):
                priority, sources = key = tuple(rest)
                if key not in known:
                    known[key] = Entry(priority, frozenset(map(int, sources.split(","))))
                yield gid, known[key]

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


@contextmanager
def _full() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise RunFailed(
            f"the temporary file of what was read cannot be used ({error}): free disk space, or set"
            " TMPDIR to a folder that has some, and run again"
        ) from error
