"""Verification of an audit, counted from the tables alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared.audit.decide import Status
from artwork_backfill.shared.auditing import queueing
from artwork_backfill.shared.engine.job import Problem, Verification
from artwork_backfill.shared.engine.session import count, only_row
from artwork_backfill.shared.id_set import IdSet

# Later changes by others are correct, too: a completed repair makes an entity unchecked, a failed
# one makes a review, a person may request another audit, decide not to fix it or requeue its
# events, and another run may have audited it. That leaves no result if there was nothing to find
# both times, before and after MusicBrainz has merged, deleted or added the entity.
_AS_DECIDED: Final = """
SELECT count(*)
FROM artwork_indexer.audit_entity entity
WHERE id = ANY (%(ids)s::bigint[])
AND (status::text = %(status)s
     OR status IN ('unchecked', 'audit_in_progress', 'manual_review')
     OR EXISTS (
        SELECT
        FROM artwork_indexer.audit_result result
        WHERE result.audit_entity_id = entity.id
        AND result.run_id <> %(run_id)s
        AND result.audited_at >= %(run_started)s)
     OR status IN ('clean', 'legacy') AND %(status)s IN ('clean', 'legacy')
        AND (status = 'clean') = was_live
     OR status = 'clean' AND EXISTS (
        SELECT
        FROM artwork_indexer.needs_manual_review review
        WHERE review.audit_entity_id = entity.id
        AND review.status = 'wont_fix'
        AND review.resolved_at >= %(run_started)s)
     OR status = 'repair_queue' AND EXISTS (
        SELECT
        FROM artwork_indexer.audit_event ours
        WHERE ours.entity_type = entity.entity_type AND ours.gid = entity.gid))
"""

# Withdrawn events stay recorded until the next sweep makes their entity unchecked.
_REPAIRS: Final = """
SELECT count(*), count(*) FILTER (WHERE EXISTS (
    SELECT
    FROM artwork_indexer.audit_result result
    JOIN artwork_indexer.event_queue event
      ON event.id = ANY (result.event_ids) AND event.message->>'gid' = entity.gid::text
    WHERE result.audit_entity_id = entity.id)
    OR EXISTS (
    SELECT
    FROM artwork_indexer.audit_event ours
    WHERE ours.entity_type = entity.entity_type AND ours.gid = entity.gid))
FROM artwork_indexer.audit_entity entity
WHERE status = 'repair_queue'
"""

_REVIEWS: Final = """
SELECT count(*), count(*) FILTER (WHERE (
    SELECT count(*)
    FROM artwork_indexer.needs_manual_review review
    WHERE review.audit_entity_id = entity.id AND review.status = 'open') = 1)
FROM artwork_indexer.audit_entity entity
WHERE status = 'manual_review'
"""


def verify_decisions(
    conn: Connection, decided: Mapping[Status, IdSet], *, run_id: UUID, run_started: datetime
) -> Iterator[Verification]:
    """Check that every entity that this run decided has the decided status."""
    values = {"run_id": run_id, "run_started": run_started}
    for status, ids in decided.items():
        found = sum(
            count(conn, _AS_DECIDED, values | {"ids": chunk, "status": status.value})
            for chunk in ids.chunks()
        )
        yield Verification.equal(f"entities decided to be {status}", len(ids), found)


def verify_repairs_and_reviews(conn: Connection) -> Iterator[Verification]:
    """Check that every repair has an event, and every review an open row."""
    yield _compare(conn, "entities in repair with an event, or one withdrawn", _REPAIRS)
    yield _compare(conn, "entities in review with one open review", _REVIEWS)


def missing_triggers(conn: Connection) -> Iterator[Problem]:
    """Yield the triggers that the audit relies on and that are missing or disabled."""
    for name, meaning in queueing.missing_triggers(conn).items():
        yield Problem(f"trigger {name} is missing or disabled", meaning)


def _compare(conn: Connection, name: str, query: str) -> Verification:
    expected, actual = only_row(conn, query)
    return Verification.equal(name, expected, actual)
