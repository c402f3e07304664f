"""Claims of entities to audit: their table, and the queries that only the audit needs.

`shared.engine.sources` claims, gives back and reclaims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.catalogue import CHECKS, Remedy
from artwork_backfill.shared.audit.decide import Policy, Status
from artwork_backfill.shared.auditing.models import Claim, Entity
from artwork_backfill.shared.auditing.queueing import sweep
from artwork_backfill.shared.engine.session import Session, count
from artwork_backfill.shared.engine.sources import ClaimTable, Partition
from artwork_backfill.shared.reaudit import LEFT_AS_IS

#: The order of the partial index audit_entity_idx_unchecked.
TABLE: Final = ClaimTable(
    "artwork_indexer.audit_entity",
    waiting=Status.UNCHECKED,
    claimed=Status.IN_PROGRESS,
    order="priority DESC, last_audit_at NULLS FIRST, id",
    columns="entity.entity_type::text, entity.gid::text",
    due="coalesce(not_before, '-infinity') <= now()",
)

# An entity that is audited by name, in any status, unless another run holds it.
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
SET status = 'audit_in_progress', last_audit_at = now(), claimed_by = %(run)s
FROM wanted
WHERE entity.id = wanted.id
RETURNING entity.id, entity.last_audit_at, wanted.last_audit_at, entity.entity_type::text,
          entity.gid::text
"""

# A dry run cannot mark the rows that it has seen, so it remembers its position. Three ranges of the
# index follow the position: the remaining rows of the same priority that were never audited, those
# of that priority that were, and all rows of lower priority. Each is a range scan in the order of
# the index; a single condition on all three columns would not be.
_LOOK: Final = """
WITH waiting AS NOT MATERIALIZED (
    SELECT id, entity_type, gid, last_audit_at, priority
    FROM artwork_indexer.audit_entity
    WHERE status = 'unchecked'
    AND coalesce(not_before, '-infinity') <= now()
    AND (%(partitions)s = 1 OR mod(id, %(partitions)s) = %(partition)s)
)
SELECT id, now(), last_audit_at, entity_type::text, gid::text, priority
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

# The trigger on the queue gives up rather than delay artwork-indexer. These statements handle what
# it missed: the next audit finds the repair done, or its event failed.
_RECHECK_ENDED_REPAIRS: Final = """
WITH ended AS (
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
FROM ended
WHERE entity.id = ended.id
"""


def claim(
    id_: int,
    claimed_at: datetime,
    audited_before: datetime | None,
    entity_type: str,
    gid: str,
) -> Claim:
    """Return the claim of a row of `TABLE`."""
    return Claim(Entity(id_, EntityType(entity_type), gid), claimed_at, audited_before)


def claim_one(conn: Connection, entity_type: EntityType, gid: str, run_id: UUID) -> list[Claim]:
    """Claim one given entity, whatever its status; return nothing if another run holds it.

    An unknown entity is added.
    """
    wanted = {"entity_type": entity_type.value, "gid": gid, "run": run_id}
    conn.execute(_ADD, wanted)
    return [claim(*row) for row in conn.execute(_CLAIM_ONE, wanted)]


def browse(partition: Partition) -> Callable[[Connection, Any, int], tuple[list[Claim], Any]]:
    """Return a function that lists for a dry run what a real run would claim, in the same order."""

    def look(conn: Connection, place: Any, size: int) -> tuple[list[Claim], Any]:
        priority, last_audit_at, last_id = place or (2**15 - 1, None, 0)
        values = {
            "size": size,
            "priority": priority,
            "last_audit_at": last_audit_at,
            "id": last_id,
        }
        rows = conn.execute(_LOOK, values | partition.values).fetchall()
        if rows:
            id_, _, last_audit_at, *_, priority = rows[-1]
            place = (priority, last_audit_at, id_)
        return [claim(*row[:5]) for row in rows], place

    return look


def tidy(session: Session) -> None:
    """Make entities unchecked whose repairs have ended or were withdrawn without notice.

    Also withdraws deletions that have waited too long. One statement at a time: rows of other
    programs are locked for moments only.
    """
    session.autocommit(sweep)
    session.transaction(recheck_ended_repairs)


def recheck_ended_repairs(conn: Connection) -> int:
    """Make entities unchecked whose repairs have ended without notice; return how many."""
    return conn.execute(_RECHECK_ENDED_REPAIRS).rowcount


#: The priority of entities that were audited before and are due again.
_PRIORITY: Final = 50

_ACTED_UPON: Final = f"""
FROM artwork_indexer.audit_passed passed
JOIN artwork_indexer.audit_entity entity ON entity.id = passed.audit_entity_id
WHERE passed.check_name = ANY (%(checks)s::text[])
AND passed.severity >= %(min_severity)s
AND (%(deletions)s OR NOT passed.is_deletion)
AND entity.status = 'clean'
AND NOT {LEFT_AS_IS.format(entity="entity")}
AND (%(partitions)s = 1 OR mod(entity.id, %(partitions)s) = %(partition)s)
"""

_COUNT: Final = "SELECT count(DISTINCT entity.id)" + _ACTED_UPON

_TAKE_UP: Final = (
    "WITH wider AS (SELECT entity.id"
    + _ACTED_UPON
    + """
    LIMIT %(size)s
    FOR UPDATE OF entity SKIP LOCKED
)
UPDATE artwork_indexer.audit_entity entity
SET status = 'unchecked', priority = %(priority)s
FROM wider
WHERE entity.id = wider.id
"""
)


@dataclass(frozen=True, slots=True)
class Reserve:
    """The entities of a partition that this policy acts on and a narrower one has skipped.

    An entity whose findings were recorded without acting on them is clean under that policy only
    (see `audit_passed`). It comes after all unchecked entities.
    """

    policy: Policy
    partition: Partition

    def count(self, conn: Connection) -> int:
        """Return their number."""
        return count(conn, _COUNT, self._values())

    def take_up(self, conn: Connection, size: int) -> int:
        """Make up to `size` of them unchecked; return how many."""
        values = self._values() | {"size": size, "priority": _PRIORITY}
        return conn.execute(_TAKE_UP.encode(), values).rowcount

    def _values(self) -> dict[str, object]:
        policy = self.policy
        return {
            "checks": [check for check in CHECKS if policy.remedy(check) is not Remedy.RECORD],
            "min_severity": int(policy.min_severity),
            "deletions": policy.deletions,
            **self.partition.values,
        }
