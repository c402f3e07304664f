"""Entities that a narrower policy has skipped and that a wider one acts on.

An entity whose findings were recorded without acting on them is clean under that policy only (see
`audit_passed`). It comes after all unchecked entities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from psycopg import Connection

from artwork_backfill.shared.audit.catalogue import CHECKS, Remedy
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.engine.job import Partition
from artwork_backfill.shared.engine.session import count
from artwork_backfill.shared.reaudit import LEFT_AS_IS

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
    """The entities of a partition that this policy acts on and a narrower one has skipped."""

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
