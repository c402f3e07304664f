"""Puts gids into artwork_indexer.audit_entity, for jobs that read them from outside the database.

A row that is there keeps its status; its priority is raised while it waits for an audit, and never
lowered. Nothing is queued for artwork-indexer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from psycopg import Connection

_CREATE_SEED: Final = """
CREATE TEMPORARY TABLE seed (gid UUID NOT NULL, priority SMALLINT NOT NULL)
"""

_COPY_SEED: Final = "COPY pg_temp.seed (gid, priority) FROM STDIN"

_DROP_SEED: Final = "DROP TABLE pg_temp.seed"

# DO NOTHING looks each gid up and locks nobody's row; DO UPDATE would lock the rows of every gid
# that has one, even where it then changes nothing. The ids that it uses up do not matter.
_INSERT_SEED: Final = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority)
SELECT %(entity_type)s, gid, priority FROM pg_temp.seed
ON CONFLICT (entity_type, gid) DO NOTHING
RETURNING id
"""

# By priorities, of which there are few, because an index finds an array in one go; for a join, the
# planner may rather read the whole audit table.
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


class Seeded(NamedTuple):
    """What became of gids: new rows, rows whose priority was raised, rows left as they were.

    `new_ids` are the ids of the new rows; a preview makes none.
    """

    written: int
    raised: int
    skipped: int
    new_ids: Sequence[int] = ()

    @property
    def counts(self) -> dict[str, int]:
        """The three numbers by name."""
        return {"written": self.written, "raised": self.raised, "skipped": self.skipped}


def seed(conn: Connection, entity_type: str, priorities: Mapping[bytes, int]) -> Seeded:
    """Give every gid a row of at least its priority, in the transaction that is open.

    Parameters
    ----------
    entity_type
        A value of `indexable_entity_type`.
    priorities
        Priority by gid, as its 16 bytes.
    """
    conn.execute(_CREATE_SEED)
    with conn.cursor().copy(_COPY_SEED) as copy:
        # All in one order: two runs that insert the same gids at once then never deadlock.
        ends = {priority: f"\t{priority}\n" for priority in set(priorities.values())}
        copy.write("".join([gid.hex() + ends[priorities[gid]] for gid in sorted(priorities)]))
    inserted = conn.execute(_INSERT_SEED, {"entity_type": entity_type})
    new_ids = [id_ for (id_,) in inserted]
    written, raised = len(new_ids), 0
    if written < len(priorities):
        for priority in ends:
            values = {"entity_type": entity_type, "priority": priority}
            raised += conn.execute(_RAISE_PRIORITY, values).rowcount
    conn.execute(_DROP_SEED)
    return Seeded(written, raised, len(priorities) - written - raised, new_ids)


def preview(conn: Connection, entity_type: str, priorities: Mapping[bytes, int]) -> Seeded:
    """Return what `seed` would do, reading only."""
    values = {
        "entity_type": entity_type,
        "gids": uuid_array(priorities),
        "priorities": list(priorities.values()),
    }
    written, raised = conn.execute(_PREVIEW_SEED, values).fetchone() or (0, 0)
    return Seeded(written, raised, len(priorities) - written - raised)


def uuid_array(gids: Iterable[bytes]) -> str:
    """Return gids as the text of a PostgreSQL array, which takes less time than UUID objects."""
    return "{" + ",".join(gid.hex() for gid in gids) + "}"
