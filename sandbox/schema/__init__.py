"""The schemas of the outside databases, as far as the jobs use them.

They contain only columns that the jobs use, with their real types. The data is in `sandbox.world`
and `sandbox.library`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Final

from psycopg import Connection, sql

# The tables whose triggers queue events for artwork-indexer.
_EDITED: Final = (
    "musicbrainz.release",
    "musicbrainz.event",
    "cover_art_archive.cover_art",
    "cover_art_archive.cover_art_type",
    "event_art_archive.event_art",
    "event_art_archive.event_art_type",
)


def create_musicbrainz(conn: Connection) -> None:
    """Create MusicBrainz's schemas and artwork-indexer's in an empty database."""
    for name in ("musicbrainz.sql", "artwork_indexer.sql", "artwork_triggers.sql"):
        conn.execute(_read(name))


@contextmanager
def without_triggers(conn: Connection) -> Iterator[None]:
    """Load rows as from a backup: within the block, no edit queues an event.

    Use it inside a transaction.
    """
    for table in _EDITED:
        conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    yield
    for table in _EDITED:
        conn.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def create_wxyc(conn: Connection, schema: str = "wxyc_schema", *, is_old: bool = False) -> None:
    """Create the library's tables.

    Parameters
    ----------
    schema
        The name of their schema.
    is_old
        Whether the library only has its first six columns, and no trigger.
    """
    conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    with conn.transaction():
        conn.execute("SELECT set_config('search_path', quote_ident(%s), true)", (schema,))
        conn.execute(_read("wxyc.sql"))
        if not is_old:
            conn.execute(_read("wxyc_today.sql"))


def _read(name: str) -> bytes:
    return resources.files(__name__).joinpath(name).read_bytes()
