"""The progress of the audit: entities, claims, reviews, repairs, and artwork-indexer's queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from psycopg import Connection

from artwork_backfill.shared.audit.decide import Status
from artwork_backfill.shared.auditing.queueing import missing_triggers
from artwork_backfill.shared.engine.tables import Table

TABLES: Final = (
    Table("artwork_indexer.event_queue"),
    Table("artwork_indexer.audit_entity"),
    Table("artwork_indexer.needs_manual_review"),
    Table("artwork_indexer.audit_result"),
)

_ENTITIES: Final = """
SELECT entity_type::text, status::text, priority, count(*)
FROM artwork_indexer.audit_entity
GROUP BY entity_type, status, priority
ORDER BY entity_type DESC, priority DESC, status
"""

_OLDEST_CLAIM: Final = """
SELECT extract(epoch FROM now() - min(last_audit_at))::float8
FROM artwork_indexer.audit_entity
WHERE status = 'audit_in_progress'
"""

_OPEN_REVIEWS: Final = """
SELECT count(*), extract(epoch FROM now() - min(created_at))::float8
FROM artwork_indexer.needs_manual_review
WHERE status = 'open'
"""

# The states of the entities for which audits have queued events.
_REPAIRED: Final = """
SELECT status::text, count(*)
FROM artwork_indexer.audit_entity entity
WHERE EXISTS (
    SELECT
    FROM artwork_indexer.audit_result result
    WHERE result.audit_entity_id = entity.id AND result.event_ids <> '{}'
)
GROUP BY status
"""

_QUEUE: Final = """
SELECT state::text, count(*), extract(epoch FROM now() - min(created))::float8
FROM artwork_indexer.event_queue
GROUP BY event_queue.state
ORDER BY event_queue.state
"""


@dataclass(frozen=True, slots=True)
class EntityCount:
    """The number of entities of a type with a status and a priority."""

    entity_type: str
    status: str
    priority: int
    entities: int


@dataclass(frozen=True, slots=True)
class Repairs:
    """The entities for which events were ever queued, by the progress of their repair.

    `under_way`: events are queued or running. `to_prove`: completed, the next audit shows whether
    the repair holds. `proved`: an audit has found the entity clean since. `in_review`: a person has
    to decide.
    """

    under_way: int
    to_prove: int
    proved: int
    in_review: int


@dataclass(frozen=True, slots=True)
class QueueCount:
    """The number of artwork-indexer's events in a state, and the age of the oldest."""

    state: str
    events: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """Everything that `status` shows; ages are in seconds, `None` if there is none."""

    entities: tuple[EntityCount, ...]
    oldest_claim_s: float | None
    open_reviews: int
    oldest_review_s: float | None
    repairs: Repairs
    queue: tuple[QueueCount, ...]
    #: Triggers that the audit relies on and that do not fire, with the effect.
    missing_triggers: Mapping[str, str] = field(default_factory=dict)


def read(conn: Connection) -> AuditStatus:
    """Read the status from one consistent snapshot of the database."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        ((oldest_claim_s,),) = conn.execute(_OLDEST_CLAIM).fetchall()
        ((open_reviews, oldest_review_s),) = conn.execute(_OPEN_REVIEWS).fetchall()
        return AuditStatus(
            entities=tuple(EntityCount(*row) for row in conn.execute(_ENTITIES)),
            oldest_claim_s=oldest_claim_s,
            open_reviews=open_reviews,
            oldest_review_s=oldest_review_s,
            repairs=_repairs(dict(conn.execute(_REPAIRED).fetchall())),
            queue=tuple(QueueCount(*row) for row in conn.execute(_QUEUE)),
            missing_triggers=missing_triggers(conn),
        )


def _repairs(entities: dict[str, int]) -> Repairs:
    count = Counter(entities)
    return Repairs(
        under_way=count[Status.REPAIR_QUEUE],
        to_prove=count[Status.UNCHECKED] + count[Status.IN_PROGRESS],
        proved=count[Status.CLEAN] + count[Status.LEGACY],
        in_review=count[Status.MANUAL_REVIEW],
    )
