"""Metrics of the audit and artwork-indexer's queue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from psycopg import Connection

from artwork_backfill.shared.engine.job import Metric
from artwork_backfill.shared.engine.tables import Table

TABLES: Final = (
    Table("artwork_indexer.event_queue"),
    Table("artwork_indexer.audit_entity"),
    Table("artwork_indexer.needs_manual_review"),
)

# In one pass over millions of rows.
_ENTITIES: Final = """
SELECT entity_type::text, status::text, count(*),
       extract(epoch FROM now() - min(last_audit_at)
               FILTER (WHERE status = 'audit_in_progress'))::float8
FROM artwork_indexer.audit_entity
GROUP BY entity_type, status
ORDER BY entity_type, status
"""

_QUEUE: Final = """
SELECT state::text, count(*), extract(epoch FROM now() - min(created))::float8
FROM artwork_indexer.event_queue
WHERE state <> 'completed'
GROUP BY state
ORDER BY state
"""

_REVIEWS: Final = """
SELECT count(*) FROM artwork_indexer.needs_manual_review WHERE status = 'open'
"""

#: The states of events that are not completed.
_WAITING: Final = ("queued", "running", "failed")


def read(conn: Connection) -> Iterable[Metric]:
    """Return the metrics, reading only; an age is 0 if there is nothing to measure."""
    entities = conn.execute(_ENTITIES).fetchall()
    queue = {state: (events, age) for state, events, age in conn.execute(_QUEUE)}
    ((reviews,),) = conn.execute(_REVIEWS).fetchall()
    yield Metric(
        "entities",
        "Entities in the audit table.",
        [
            ({"entity_type": entity_type, "status": status}, count)
            for entity_type, status, count, _ in entities
        ],
    )
    yield Metric(
        "oldest_claim_age_seconds",
        "Age of the oldest claim of a run.",
        [({}, max((age for *_, age in entities if age is not None), default=0.0))],
    )
    yield Metric(
        "queue_events",
        "Events in artwork-indexer's queue that are not completed.",
        [({"state": state}, queue.get(state, (0, 0.0))[0]) for state in _WAITING],
    )
    yield Metric(
        "queue_oldest_age_seconds",
        "Age of the oldest event in artwork-indexer's queue.",
        [({"state": state}, queue.get(state, (0, 0.0))[1]) for state in _WAITING],
    )
    yield Metric("open_reviews", "Reviews that wait for a person.", [({}, reviews)])
