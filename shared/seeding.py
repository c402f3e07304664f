"""Inserting gids into artwork_indexer.audit_entity, for jobs that read them from outside.

An existing row keeps its status; its priority is raised while it waits for an audit, and never
lowered. Nothing is queued for artwork-indexer. A gid that is live, merged or deleted as the other
entity type is refused, because items of both archives have names of the same form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Final, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.errors import UniqueViolation
from psycopg.pq import Format

from artwork_backfill.shared.engine.runs import RUN_TABLES
from artwork_backfill.shared.engine.session import count, holds, only_row
from artwork_backfill.shared.engine.sources import Partition
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.id_set import IdSet

_CREATE_SEED: Final = """
CREATE TEMPORARY TABLE seed (gid UUID NOT NULL, priority SMALLINT NOT NULL)
"""

# The binary format of PostgreSQL's COPY documentation: a header, records, and -1 after the last
# record. It avoids formatting and parsing gids digit by digit.
_COPY_SEED: Final = "COPY pg_temp.seed (gid, priority) FROM STDIN (FORMAT binary)"
_COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_RECORD: Final = Struct("!hi16sih")
_COPY_TRAILER: Final = b"\xff\xff"

# The gids of the other entity type. By an array, because for a join the planner may read a whole
# table of MusicBrainz.
_OF_OTHER_TYPE: Final = """
SELECT known.gid FROM musicbrainz.{other} known
WHERE known.gid = ANY ({gids})
UNION
SELECT merged.gid FROM musicbrainz.{other}_gid_redirect merged
WHERE merged.gid = ANY ({gids})
UNION
SELECT deleted.gid FROM musicbrainz.deleted_entity deleted
WHERE deleted.gid = ANY ({gids})
AND deleted.data->>'entity_type' = '{other}'
"""

_REFUSE: Final = "DELETE FROM pg_temp.seed WHERE gid IN ({refused})"
_COUNT_REFUSED: Final = "SELECT count(*) FROM ({refused}) refused"

_OTHER: Final[Mapping[str, str]] = {"release": "event", "event": "release"}

#: The tables of every job that seeds.
TABLES: Final = (
    Table("musicbrainz.release"),
    Table("musicbrainz.event"),
    Table("musicbrainz.release_gid_redirect"),
    Table("musicbrainz.event_gid_redirect"),
    Table("musicbrainz.deleted_entity"),
    Table("artwork_indexer.event_queue"),
    Table("artwork_indexer.audit_entity", ("SELECT", "INSERT", "UPDATE")),
    *RUN_TABLES,
)

_DROP_SEED: Final = "DROP TABLE pg_temp.seed"

# A sample of a hundred gids represents the others: usually all, many or none of them have a row.
_SOME_ARE_PRESENT: Final = """
SELECT EXISTS (
    SELECT FROM artwork_indexer.audit_entity
    WHERE entity_type = %(entity_type)s
    AND gid = ANY (ARRAY (SELECT gid FROM pg_temp.seed LIMIT 100))
)
"""

_INSERT_ALL: Final = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority)
SELECT %(entity_type)s, gid, priority FROM pg_temp.seed
"""
# DO NOTHING looks up each gid without locking a row; DO UPDATE would lock the rows of all gids that
# have one, even if it changes nothing. The ids that it uses up do not matter.
_INSERT_NEW: Final = f"{_INSERT_ALL} ON CONFLICT (entity_type, gid) DO NOTHING"

# By priorities, of which there are few, because an index finds an array at once; for a join, the
# planner may read the whole audit table.
_RAISE_PRIORITY: Final = """
UPDATE artwork_indexer.audit_entity
SET priority = %(priority)s
WHERE entity_type = %(entity_type)s
AND gid = ANY (ARRAY (SELECT gid FROM pg_temp.seed WHERE priority = %(priority)s))
AND status = 'unchecked' AND priority < %(priority)s
"""

# A read-only session may not create a table, not even a temporary one.
_PREVIEW_SEED: Final = """
SELECT count(*) FILTER (WHERE is_done IS NULL), count(*) FILTER (WHERE NOT is_done)
FROM (
    SELECT (
        SELECT present.status <> 'unchecked' OR present.priority >= seed.priority
        FROM artwork_indexer.audit_entity present
        WHERE present.entity_type = %(entity_type)s AND present.gid = seed.gid
    ) AS is_done
    FROM unnest(%(gids)s::uuid[], %(priorities)s::smallint[]) AS seed (gid, priority)
) seed
"""

_ROW_IDS: Final = """
SELECT id
FROM artwork_indexer.audit_entity
WHERE entity_type = ANY (%(entity_types)s::artwork_indexer.indexable_entity_type[])
AND gid = ANY (%(gids)s::uuid[])
"""

_COUNT_ROWS: Final = """
SELECT count(*) FROM artwork_indexer.audit_entity WHERE id = ANY (%(ids)s::bigint[])
"""

#: Priorities of gids that are live in MusicBrainz, and of all others.
LIVE: Final = 100
GONE: Final = 150


_IDENTIFIER: Final = re.compile(
    r"mbid-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE | re.ASCII
)


def gid_of(identifier: str) -> bytes | None:
    """Return the gid, as its 16 bytes, in an archive.org identifier; `None` if it has none."""
    match = _IDENTIFIER.fullmatch(identifier)
    return None if match is None else bytes.fromhex(match[1].replace("-", ""))


def share(gids: Iterable[bytes], partition: Partition) -> Iterable[bytes]:
    """Return the gids, each as its 16 bytes, that belong to a partition."""
    if partition.count == 1:
        return gids
    index, shares = partition.index, partition.count
    return [gid for gid in gids if int.from_bytes(gid[:4]) % shares == index]


class Seeded(NamedTuple):
    """The result for gids: new rows, rows whose priority was raised, and unchanged rows.

    `refused` counts gids of the other entity type, which are among the skipped ones.
    """

    written: int
    raised: int
    skipped: int
    refused: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """The numbers by name; that of refused gids only if there are any."""
        counts = {"written": self.written, "raised": self.raised, "skipped": self.skipped}
        return counts | ({"refused": self.refused} if self.refused else {})


def seed(
    conn: Connection,
    entity_type: str,
    priorities: Mapping[bytes, int],
    *,
    preview: bool = False,
) -> Seeded:
    """Give every gid a row of at least its priority, in the open transaction.

    Parameters
    ----------
    entity_type
        A value of `indexable_entity_type`.
    priorities
        Priority by gid, as its 16 bytes.
    preview
        Whether to only count, reading only.
    """
    if preview:
        return _preview(conn, entity_type, priorities)
    _fill_table(conn, priorities)
    refuse = _of_other_type(_REFUSE, entity_type, "ARRAY (SELECT gid FROM pg_temp.seed)")
    refused = conn.execute(refuse.encode()).rowcount
    written = _insert(conn, entity_type)
    raised = 0
    if written < len(priorities):
        for priority in set(priorities.values()):
            values = {"entity_type": entity_type, "priority": priority}
            raised += conn.execute(_RAISE_PRIORITY, values).rowcount
    conn.execute(_DROP_SEED)
    return Seeded(written, raised, len(priorities) - written - raised, refused)


def _fill_table(conn: Connection, priorities: Mapping[bytes, int]) -> None:
    conn.execute(_CREATE_SEED)
    pack = _COPY_RECORD.pack
    # All in one order, so that two runs that insert the same gids cannot deadlock.
    records = [pack(2, 16, gid, 2, priorities[gid]) for gid in sorted(priorities)]
    with conn.cursor().copy(_COPY_SEED) as copy:
        copy.write(b"".join([_COPY_HEADER, *records, _COPY_TRAILER]))


def _insert(conn: Connection, entity_type: str) -> int:
    """Insert gids without a row; return the number of new rows.

    If no gid has a row, which is usual in a first run, inserting without ON CONFLICT takes a third
    less time.
    """
    values = {"entity_type": entity_type}
    if not holds(conn, _SOME_ARE_PRESENT, values):
        try:
            with conn.transaction():
                return conn.execute(_INSERT_ALL, values).rowcount
        except UniqueViolation:
            # One of the others has a row, or another session was faster.
            pass
    return conn.execute(_INSERT_NEW, values).rowcount


def _preview(conn: Connection, entity_type: str, priorities: Mapping[bytes, int]) -> Seeded:
    values = {
        "entity_type": entity_type,
        "gids": uuid_array(priorities),
        "priorities": list(priorities.values()),
    }
    written, raised = only_row(conn, _PREVIEW_SEED, values)
    refused = count_refused(conn, entity_type, priorities)
    written -= refused
    return Seeded(written, raised, len(priorities) - written - raised, refused)


def count_refused(conn: Connection, entity_type: str, gids: Iterable[bytes]) -> int:
    """Return how many of `gids` are live, merged or deleted as the other entity type."""
    query = _of_other_type(_COUNT_REFUSED, entity_type, "%(gids)s::uuid[]")
    return count(conn, query, {"gids": uuid_array(gids)})


def _of_other_type(statement: str, entity_type: str, gids: str) -> str:
    refused = _OF_OTHER_TYPE.format(other=_OTHER[entity_type], gids=gids)
    return statement.format(refused=refused)


def row_ids(conn: Connection, entity_types: Iterable[str], gids: Iterable[bytes]) -> list[int]:
    """Return the ids of the rows that gids have as one of these entity types."""
    values = {"entity_types": list(entity_types), "gids": uuid_array(gids)}
    return [id_ for (id_,) in conn.execute(_ROW_IDS, values)]


def count_rows(conn: Connection, ids: IdSet) -> int:
    """Return how many of these rows exist."""
    # As text, which psycopg need not convert number by number.
    arrays = (f"{{{','.join(map(str, chunk))}}}" for chunk in ids.chunks())
    return sum(count(conn, _COUNT_ROWS, {"ids": array}) for array in arrays)


class UuidArray(bytes):
    """A parameter of type `uuid[]`, in the binary format of PostgreSQL's protocol."""


class _UuidArrayDumper(Dumper):
    format = Format.BINARY
    oid = psycopg.postgres.types["uuid"].array_oid

    def dump(self, obj: UuidArray) -> bytes:
        return obj


psycopg.adapters.register_dumper(UuidArray, _UuidArrayDumper)

_ARRAY_HEADER: Final = Struct("!iii")
_ARRAY_DIMENSION: Final = Struct("!ii")
_UUID_LENGTH: Final = Struct("!i").pack(16)


def uuid_array(gids: Iterable[bytes]) -> UuidArray:
    """Return gids, each as its 16 bytes, as one parameter.

    UUID objects or text would take longer than many of the queries.
    """
    packed = list(gids)
    # One dimension that counts from 1, or none; no NULLs; and the type of the elements.
    header = _ARRAY_HEADER.pack(bool(packed), 0, psycopg.postgres.types["uuid"].oid)
    dimension = _ARRAY_DIMENSION.pack(len(packed), 1) if packed else b""
    return UuidArray(b"".join([header, dimension, *(_UUID_LENGTH + gid for gid in packed)]))
