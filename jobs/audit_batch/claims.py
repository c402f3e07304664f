"""Taking entities to audit, giving them back, and taking back those of runs that died.

A claim is a row in status `audit_in_progress` whose `last_audit_at` is the time of the claim, the
token by which its run knows it again. Every run holds a session-level advisory lock in shared mode
as long as it holds claims; a run that can take that lock alone knows that all others are dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.auditing.models import Claim, Entity
from artwork_backfill.shared.engine.job import Partition
from psycopg import Connection

#: A claim older than this belongs to a run that died, whoever else is alive.
STALE_AFTER: Final = "15 minutes"

#: "audit" in ASCII; held by every audit run on the session that it claims with.
_RUN_LOCK: Final = 0x6175646974

# The order is that of the partial index audit_entity_idx_unchecked, so that the claim reads as many
# index entries as it returns. What this run has put back has a later last_audit_at than the run's
# start, and is not taken a second time; written with coalesce, that condition is no reason for the
# planner to collect all matches and sort them, whatever it knows of a table that was just filled.
CLAIM: Final = """
WITH next AS (
    SELECT id, last_audit_at
    FROM artwork_indexer.audit_entity
    WHERE status = 'unchecked'
    AND coalesce(last_audit_at, '-infinity') < %(run_started)s
    AND (%(partitions)s = 1 OR mod(id, %(partitions)s) = %(partition)s)
    ORDER BY priority DESC, last_audit_at NULLS FIRST, id
    LIMIT %(size)s
    FOR UPDATE SKIP LOCKED
)
UPDATE artwork_indexer.audit_entity entity
SET status = 'audit_in_progress', last_audit_at = now()
FROM next
WHERE entity.id = next.id
RETURNING entity.id, entity.entity_type::text, entity.gid::text, entity.last_audit_at,
          next.last_audit_at
"""

# What an audit is asked for by name, in whatever status it is; not what another run holds.
_ADD: Final = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority)
VALUES (%(entity_type)s, %(gid)s, 10)
ON CONFLICT (entity_type, gid) DO NOTHING
"""

_CLAIM_ONE: Final = """
WITH wanted AS (
    SELECT id, last_audit_at
    FROM artwork_indexer.audit_entity
    WHERE entity_type = %(entity_type)s
    AND gid = %(gid)s
    AND status <> 'audit_in_progress'
    FOR UPDATE SKIP LOCKED
)
UPDATE artwork_indexer.audit_entity entity
SET status = 'audit_in_progress', last_audit_at = now()
FROM wanted
WHERE entity.id = wanted.id
RETURNING entity.id, entity.entity_type::text, entity.gid::text, entity.last_audit_at,
          wanted.last_audit_at
"""

# A dry run may not mark what it has seen, so it remembers how far it came. Three ranges of the
# index lie behind that place: the rest of those never audited at the same priority, then those
# audited before, then everything of a lower priority. Each is a range scan in the index's order, as
# one condition on all three columns would not be.
_LOOK: Final = """
WITH waiting AS NOT MATERIALIZED (
    SELECT id, entity_type, gid, last_audit_at, priority
    FROM artwork_indexer.audit_entity
    WHERE status = 'unchecked'
    AND (%(partitions)s = 1 OR mod(id, %(partitions)s) = %(partition)s)
)
SELECT id, entity_type::text, gid::text, now(), last_audit_at, priority
FROM (
    (SELECT * FROM waiting
     WHERE priority = %(priority)s
     AND last_audit_at IS NULL
     AND %(last_audit_at)s::timestamptz IS NULL
     AND id > %(id)s
     ORDER BY priority DESC, last_audit_at NULLS FIRST, id
     LIMIT %(size)s)
    UNION ALL
    (SELECT * FROM waiting
     WHERE priority = %(priority)s
     AND (last_audit_at, id) > (coalesce(%(last_audit_at)s::timestamptz, '-infinity'), %(id)s)
     ORDER BY priority DESC, last_audit_at NULLS FIRST, id
     LIMIT %(size)s)
    UNION ALL
    (SELECT * FROM waiting
     WHERE priority < %(priority)s
     ORDER BY priority DESC, last_audit_at NULLS FIRST, id
     LIMIT %(size)s)
) AS behind
ORDER BY priority DESC, last_audit_at NULLS FIRST, id
LIMIT %(size)s
"""

COUNT_UNCHECKED: Final = """
SELECT count(*)
FROM artwork_indexer.audit_entity
WHERE status = 'unchecked'
AND (%(partitions)s = 1 OR mod(id, %(partitions)s) = %(partition)s)
"""

# Given back at the end of a run, an entity stands where it stood; given back because something is
# wrong with it, it goes to the end of its class, or it would be claimed again and again.
_RELEASE: Final = """
UPDATE artwork_indexer.audit_entity entity
SET status = 'unchecked',
    last_audit_at = CASE WHEN %(keep_place)s THEN held.audited_before ELSE entity.last_audit_at END
FROM unnest(%(ids)s::bigint[], %(claimed_at)s::timestamptz[], %(audited_before)s::timestamptz[])
     AS held (id, claimed_at, audited_before)
WHERE entity.id = held.id
AND entity.status = 'audit_in_progress'
AND entity.last_audit_at = held.claimed_at
"""

# Just before this run's start: behind all that was waiting, and yet open to this run. What is being
# written just now is not dead, however old.
_TAKE_BACK: Final = """
WITH dead AS (
    SELECT id
    FROM artwork_indexer.audit_entity
    WHERE status = 'audit_in_progress'
    AND (%(alone)s OR last_audit_at < now() - %(stale_after)s::interval)
    AND NOT last_audit_at = ANY (%(in_hand)s::timestamptz[])
    FOR UPDATE SKIP LOCKED
)
UPDATE artwork_indexer.audit_entity entity
SET status = 'unchecked',
    last_audit_at = least(last_audit_at, %(run_started)s - interval '1 microsecond')
FROM dead
WHERE entity.id = dead.id
"""

# The trigger on the queue gives up rather than hold up artwork-indexer. What it missed is made up
# for here: the next audit finds the repair done, or its event failed.
_TAKE_SETTLED: Final = """
WITH settled AS (
    SELECT id
    FROM artwork_indexer.audit_entity entity
    WHERE status = 'repair_queue'
    AND NOT EXISTS (
        SELECT
        FROM artwork_indexer.audit_result result
        JOIN artwork_indexer.event_queue event ON event.id = ANY (result.event_ids)
        WHERE result.audit_entity_id = entity.id
        AND event.state IN ('queued', 'running'))
    FOR UPDATE SKIP LOCKED
)
UPDATE artwork_indexer.audit_entity entity
SET status = 'unchecked'
FROM settled
WHERE entity.id = settled.id
"""


def hold_run_lock(conn: Connection) -> None:
    """Show that a run is alive, until `let_run_lock_go` or as long as this session lasts."""
    conn.execute("SELECT pg_advisory_lock_shared(%s)", (_RUN_LOCK,))


def let_run_lock_go(conn: Connection) -> None:
    """Undo `hold_run_lock`, however often it was called: a repeated transaction locks again."""
    conn.execute("SELECT pg_advisory_unlock_all()")


def claim(
    conn: Connection, size: int, *, run_started: datetime, partition: Partition
) -> list[Claim]:
    """Take up to `size` entities, those of the highest priority first.

    Entities whose last audit is not from before `run_started` are left alone.
    """
    rows = conn.execute(
        CLAIM,
        {
            "size": size,
            "run_started": run_started,
            "partition": partition.index,
            "partitions": partition.count,
        },
    )
    return [_claim(*row) for row in rows]


def claim_one(conn: Connection, entity_type: EntityType, gid: str) -> list[Claim]:
    """Take one given entity, whatever its status; nothing when another run holds it.

    An entity that was not there is added.
    """
    wanted = {"entity_type": entity_type.value, "gid": gid}
    conn.execute(_ADD, wanted)
    return [_claim(*row) for row in conn.execute(_CLAIM_ONE, wanted)]


class Lookout:
    """Shows a dry run the entities that a real one would claim, in the same order, once each."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._place: tuple[int, datetime | None, int] = (2**15 - 1, None, 0)
        self._next_place = self._place

    def look(self, conn: Connection, size: int) -> list[Claim]:
        """Return up to `size` entities without touching them; the same again until `go_on`."""
        priority, last_audit_at, last_id = self._place
        rows = conn.execute(
            _LOOK,
            {
                "size": size,
                "priority": priority,
                "last_audit_at": last_audit_at,
                "id": last_id,
                "partition": self._partition.index,
                "partitions": self._partition.count,
            },
        ).fetchall()
        if rows:
            id_, *_, last_audit_at, priority = rows[-1]
            self._next_place = (priority, last_audit_at, id_)
        return [_claim(*row[:5]) for row in rows]

    def go_on(self) -> None:
        """Look behind what was returned last."""
        self._place = self._next_place


def release(conn: Connection, claims: Sequence[Claim], *, keep_place: bool) -> None:
    """Give back claims that will not be written, as far as this run still holds them."""
    conn.execute(
        _RELEASE,
        {
            "ids": [claim.entity.id for claim in claims],
            "claimed_at": [claim.claimed_at for claim in claims],
            "audited_before": [claim.audited_before for claim in claims],
            "keep_place": keep_place,
        },
    )


def take_back(conn: Connection, *, run_started: datetime, in_hand: Sequence[datetime]) -> int:
    """Return the claims of dead runs to `unchecked`; tell how many there were.

    `in_hand` are the tokens of this run's own claims.
    """
    return conn.execute(
        _TAKE_BACK,
        {
            "run_started": run_started,
            "alone": _is_alone(conn),
            "stale_after": STALE_AFTER,
            "in_hand": list(in_hand),
        },
    ).rowcount


def take_settled(conn: Connection) -> int:
    """Return entities to `unchecked` whose repairs have ended unnoticed; tell how many."""
    return conn.execute(_TAKE_SETTLED).rowcount


def _claim(
    id_: int,
    entity_type: str,
    gid: str,
    claimed_at: datetime,
    audited_before: datetime | None,
) -> Claim:
    return Claim(Entity(id_, EntityType(entity_type), gid), claimed_at, audited_before)


def _is_alone(conn: Connection) -> bool:
    row = conn.execute("SELECT pg_try_advisory_xact_lock(%s)", (_RUN_LOCK,)).fetchone()
    return row is not None and bool(row[0])
