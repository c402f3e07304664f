"""Writes audits: statuses, reviews and results into our tables, repairs into the event queue.

Everything of a batch happens in one transaction. Only entities that this run still holds are
touched, and nothing is decided about those that an event or MusicBrainz has changed since the
claim: what was found may be out of date.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from artwork_backfill.jobs.audit_batch import history
from artwork_backfill.jobs.audit_batch.claims import release
from artwork_backfill.shared.audit.decide import Decision, QueuedAction, Status
from artwork_backfill.shared.auditing.expectation import changed
from artwork_backfill.shared.auditing.models import (
    UNREADABLE,
    Audit,
    Claim,
    Deferral,
    FindingCount,
    Reason,
)
from artwork_backfill.shared.engine.job import Written
from psycopg import Connection
from psycopg.errors import SerializationFailure
from psycopg.types.json import Jsonb

# In order of id, as every run locks them, so that two runs never wait for each other in a circle.
_LOCK_HELD: Final = """
SELECT entity.id
FROM artwork_indexer.audit_entity entity
JOIN unnest(%(ids)s::bigint[], %(claimed_at)s::timestamptz[]) AS held (id, claimed_at)
  ON held.id = entity.id AND held.claimed_at = entity.last_audit_at
WHERE entity.status = 'audit_in_progress'
ORDER BY entity.id
FOR UPDATE OF entity
"""

# An event that was completed since the claim was created after it, or it would have been found
# queued then; `created` is the start of the transaction that queued it, hence the margin. Finished
# events are many, and only these two columns are indexed. What had failed by then and was queued
# anew is older, so it is looked up by its id.
_EVENTS_SINCE: Final = """
WITH since AS (
    SELECT entity_type, message, 'infinity' AS last_updated
    FROM artwork_indexer.event_queue
    WHERE state IN ('queued', 'running')
    UNION ALL
    SELECT entity_type, message, last_updated
    FROM artwork_indexer.event_queue
    WHERE state IN ('completed', 'failed')
    AND created >= %(oldest)s - interval '15 minutes'
    UNION ALL
    SELECT entity_type, message, last_updated
    FROM artwork_indexer.event_queue
    WHERE id = ANY (%(failed)s::bigint[]) AND state = 'completed'
)
SELECT wanted.id
FROM (
    SELECT entity_type::text, last_updated,
           unnest(ARRAY[message->>'gid', message->>'old_gid', message->>'new_gid']) AS gid
    FROM since
) AS event
JOIN unnest(%(ids)s::bigint[], %(entity_types)s::text[], %(gids)s::text[],
            %(claimed_at)s::timestamptz[])
     AS wanted (id, entity_type, gid, claimed_at)
  ON wanted.gid = event.gid AND wanted.entity_type = event.entity_type
WHERE event.last_updated >= wanted.claimed_at
"""

#: "queue" in ASCII; held while events are counted and queued, so that runs do not do so at once.
_QUEUE_LOCK: Final = 0x7175657565

_QUEUE_DEPTH: Final = """
SELECT count(*) FROM artwork_indexer.event_queue WHERE state IN ('queued', 'running')
"""

# Somebody may queue the same event at this very moment: then that one serves.
_QUEUE_EVENTS: Final = """
INSERT INTO artwork_indexer.event_queue (entity_type, action, message)
SELECT entity_type::artwork_indexer.indexable_entity_type,
       action::artwork_indexer.event_queue_action, message
FROM unnest(%(entity_types)s::text[], %(actions)s::text[], %(messages)s::jsonb[])
     WITH ORDINALITY AS event (entity_type, action, message, position)
ORDER BY position
ON CONFLICT (entity_type, action, message) WHERE state = 'queued' DO NOTHING
"""

_QUEUED_IDS: Final = """
SELECT event.position, queued.id
FROM unnest(%(entity_types)s::text[], %(actions)s::text[], %(messages)s::jsonb[])
     WITH ORDINALITY AS event (entity_type, action, message, position)
JOIN artwork_indexer.event_queue queued
  ON queued.entity_type = event.entity_type::artwork_indexer.indexable_entity_type
 AND queued.action = event.action::artwork_indexer.event_queue_action
 AND queued.message = event.message
WHERE queued.state = 'queued'
ORDER BY event.position
"""

_WAIT_FOR: Final = """
UPDATE artwork_indexer.event_queue
SET depends_on = (
    SELECT array_agg(DISTINCT parent ORDER BY parent)
    FROM unnest(coalesce(depends_on, '{}') || %(parents)s::bigint[]) AS parent
)
WHERE id = %(id)s AND state = 'queued'
"""

_OPEN_REVIEWS: Final = """
INSERT INTO artwork_indexer.needs_manual_review (audit_entity_id, review_reason)
SELECT * FROM unnest(%(ids)s::bigint[], %(reasons)s::text[])
ON CONFLICT (audit_entity_id) WHERE status = 'open'
DO UPDATE SET review_reason = excluded.review_reason
"""

# What people have noted stays.
_RESOLVE_REVIEWS: Final = """
UPDATE artwork_indexer.needs_manual_review
SET status = 'resolved', resolved_at = now(),
    resolution_notes = concat_ws(E'\\n', resolution_notes, %(note)s::text)
WHERE status = 'open' AND audit_entity_id = ANY (%(ids)s::bigint[])
"""

_RECORD: Final = """
INSERT INTO artwork_indexer.audit_result (audit_entity_id, run_id, outcome, findings, event_ids)
VALUES (%s, %s, %s, %s, %s)
"""

_SET_STATUS: Final = """
UPDATE artwork_indexer.audit_entity entity
SET status = decided.status::artwork_indexer.audit_entity_status, last_audit_at = now()
FROM unnest(%(ids)s::bigint[], %(statuses)s::text[]) AS decided (id, status)
WHERE entity.id = decided.id
"""


# Somebody's event was in the way of ours, and artwork-indexer has just begun with it. When the
# transaction is repeated, the entity is found overtaken.
_TAKEN_UP: Final = "an event was taken up while it was being queued"


@dataclass(frozen=True, slots=True)
class AuditsWritten(Written):
    """What one transaction did.

    `decided` holds the ids of entities by the status that they now have. `postponed` is how many
    places in the queue the largest of the repairs needs for which there was no room.
    """

    decided: Mapping[Status, Sequence[int]] = field(default_factory=dict)
    findings: Mapping[str, FindingCount] = field(default_factory=dict)
    postponed: int = 0


@dataclass(frozen=True, slots=True)
class _Decided:
    audit: Audit
    decision: Decision

    @property
    def id(self) -> int:
        return self.audit.claim.entity.id


@dataclass(slots=True)
class _Sorted:
    """The audits of a batch by what is to become of them."""

    deferred: list[tuple[Audit, Deferral]] = field(default_factory=list)
    decided: list[_Decided] = field(default_factory=list)
    postponed: list[_Decided] = field(default_factory=list)


class Writer:
    """Writes the batches of one run, each in the transaction that the caller opens for it.

    Where there is no room in the queue for the repairs of an entity, its claim is given back as if
    it had not been audited. `max_queue_depth` is in events, 0 for no limit.
    """

    def __init__(self, run_id: UUID, max_queue_depth: int = 0) -> None:
        self._run_id = run_id
        self._max_queue_depth = max_queue_depth

    def write(self, conn: Connection, audits: Sequence[Audit]) -> AuditsWritten:
        """Write what is still true of these audits."""
        held = _lock_held(conn, audits)
        audits_held = [audit for audit in audits if audit.claim.entity.id in held]
        batch = _sort(conn, audits_held)
        if self._max_queue_depth:
            _postpone(conn, batch, self._max_queue_depth)
        event_ids = _queue_events(conn, batch.decided)
        _write_reviews(conn, batch.decided, self._run_id)
        _record(conn, batch, event_ids, self._run_id)
        history.add(conn, [entry.audit for entry in batch.decided], self._run_id)
        _set_statuses(conn, batch)
        if batch.postponed:
            release(conn, [entry.audit.claim for entry in batch.postponed], keep_place=True)
        return _summary(batch, lost=len(audits) - len(audits_held))

    def preview(self, conn: Connection, audits: Sequence[Audit]) -> AuditsWritten:
        """Return what `write` would do, changing nothing."""
        return _summary(_sort(conn, audits), lost=0)


def _sort(conn: Connection, audits: Sequence[Audit]) -> _Sorted:
    batch = _Sorted()
    claims = [audit.claim for audit in audits if isinstance(audit.outcome, Decision)]
    overtaken = _overtaken(conn, claims) if claims else frozenset()
    gone = changed(conn, claims) if claims else frozenset()
    for audit in audits:
        id_ = audit.claim.entity.id
        if isinstance(audit.outcome, Deferral):
            batch.deferred.append((audit, audit.outcome))
        elif id_ in overtaken:
            batch.deferred.append((audit, Deferral(Reason.EVENT_SINCE)))
        elif id_ in gone:
            batch.deferred.append((audit, Deferral(Reason.ENTITY_CHANGED)))
        else:
            batch.decided.append(_Decided(audit, audit.outcome))
    return batch


def _postpone(conn: Connection, batch: _Sorted, limit: int) -> None:
    """Set aside the entities whose events would make the queue longer than `limit`."""
    if not any(entry.decision.events for entry in batch.decided):
        return
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_QUEUE_LOCK,))
    depth = _value(conn, _QUEUE_DEPTH)
    candidates, batch.decided = batch.decided, []
    for entry in candidates:
        events = len(entry.decision.events)
        # One that needs more than the limit gets an empty queue for itself.
        if events and depth and depth + events > limit:
            batch.postponed.append(entry)
        else:
            depth += events
            batch.decided.append(entry)


def _summary(batch: _Sorted, *, lost: int) -> AuditsWritten:
    counts: Counter[str] = Counter(
        audited=len(batch.decided),
        written=len(batch.decided),
        skipped=len(batch.deferred),
        deferred=len(batch.deferred),
        postponed=len(batch.postponed),
        lost=lost,
    )
    decided: dict[Status, list[int]] = {}
    entities: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    for _, deferral in batch.deferred:
        counts[f"deferred: {deferral.reason}"] += 1
    for entry in batch.decided:
        status = entry.decision.status
        counts[status.value] += 1
        counts["events"] += len(entry.decision.events)
        decided.setdefault(status, []).append(entry.id)
        checks = [finding.check for finding in entry.audit.findings]
        findings.update(checks)
        entities.update(set(checks))
    return AuditsWritten(
        counts=+counts,
        decided=decided,
        findings={check: FindingCount(entities[check], findings[check]) for check in findings},
        postponed=max((len(entry.decision.events) for entry in batch.postponed), default=0),
    )


def _lock_held(conn: Connection, audits: Sequence[Audit]) -> frozenset[int]:
    rows = conn.execute(
        _LOCK_HELD,
        {
            "ids": [audit.claim.entity.id for audit in audits],
            "claimed_at": [audit.claim.claimed_at for audit in audits],
        },
    ).fetchall()
    return frozenset(id_ for (id_,) in rows)


def _overtaken(conn: Connection, claims: Sequence[Claim]) -> frozenset[int]:
    rows = conn.execute(
        _EVENTS_SINCE,
        {
            "ids": [claim.entity.id for claim in claims],
            "entity_types": [claim.entity.entity_type.value for claim in claims],
            "gids": [claim.entity.gid for claim in claims],
            "claimed_at": [claim.claimed_at for claim in claims],
            "oldest": min(claim.claimed_at for claim in claims),
            "failed": [event.id for claim in claims for event in claim.past.history.failed],
        },
    ).fetchall()
    return frozenset(id_ for (id_,) in rows)


def _queue_events(conn: Connection, decided: Sequence[_Decided]) -> dict[int, list[int]]:
    """Queue every event and return the ids of each entity's, in the order of its decision."""
    wanted = [(entry, event) for entry in decided for event in entry.decision.events]
    if not wanted:
        return {}
    ids = _insert_events(conn, wanted)
    event_ids: dict[int, list[int]] = {}
    for (entry, _), id_ in zip(wanted, ids, strict=True):
        event_ids.setdefault(entry.id, []).append(id_)
    for entry, event in wanted:
        if event.depends_on:
            own = event_ids[entry.id]
            position = entry.decision.events.index(event)
            parents = [own[parent] for parent in event.depends_on]
            if not conn.execute(_WAIT_FOR, {"id": own[position], "parents": parents}).rowcount:
                raise SerializationFailure(_TAKEN_UP)
    return event_ids


def _insert_events(conn: Connection, wanted: Sequence[tuple[_Decided, QueuedAction]]) -> list[int]:
    values = {
        "entity_types": [entry.audit.claim.entity.entity_type.value for entry, _ in wanted],
        "actions": [event.action for _, event in wanted],
        "messages": [Jsonb(event.message) for _, event in wanted],
    }
    conn.execute(_QUEUE_EVENTS, values)
    ids: dict[int, int] = dict(conn.execute(_QUEUED_IDS, values).fetchall())
    if len(ids) < len(wanted):
        raise SerializationFailure(_TAKEN_UP)
    return [ids[position] for position in range(1, len(wanted) + 1)]


def _write_reviews(conn: Connection, decided: Sequence[_Decided], run_id: UUID) -> None:
    reviews = [entry for entry in decided if entry.decision.status is Status.MANUAL_REVIEW]
    if reviews:
        conn.execute(
            _OPEN_REVIEWS,
            {
                "ids": [entry.id for entry in reviews],
                "reasons": ["; ".join(entry.decision.review_reasons) for entry in reviews],
            },
        )
    clean = [
        entry.id for entry in decided if entry.decision.status in (Status.CLEAN, Status.LEGACY)
    ]
    if clean:
        note = f"audit {run_id} found it clean"
        conn.execute(_RESOLVE_REVIEWS, {"ids": clean, "note": note})


def _record(
    conn: Connection, batch: _Sorted, event_ids: Mapping[int, Sequence[int]], run_id: UUID
) -> None:
    """Keep every audit that did not simply find the entity clean."""
    rows = [
        (
            entry.id,
            run_id,
            entry.decision.status.value,
            _findings(entry),
            event_ids.get(entry.id, []),
        )
        for entry in batch.decided
        if not _is_no_news(entry)
    ]
    rows += [
        (audit.claim.entity.id, run_id, UNREADABLE, _unreadable(deferral), [])
        for audit, deferral in batch.deferred
        if deferral.reason is Reason.UNREADABLE
    ]
    if rows:
        with conn.cursor() as cursor:
            cursor.executemany(_RECORD, rows)


def _is_no_news(entry: _Decided) -> bool:
    return (
        entry.decision.status in (Status.CLEAN, Status.LEGACY)
        and not entry.audit.findings
        and entry.audit.claim.past.is_settled
    )


def _findings(entry: _Decided) -> Jsonb:
    """Return the findings as stored; `repair` marks those that led to the events."""
    return Jsonb(
        [
            finding.to_json() | {"repair": finding.check in entry.decision.causes}
            for finding in entry.audit.findings
        ]
    )


def _unreadable(deferral: Deferral) -> Jsonb:
    return Jsonb([{"check": UNREADABLE, "subject": deferral.detail, "repair": False}])


def _set_statuses(conn: Connection, batch: _Sorted) -> None:
    statuses = {audit.claim.entity.id: "unchecked" for audit, _ in batch.deferred}
    statuses |= {entry.id: entry.decision.status.value for entry in batch.decided}
    conn.execute(_SET_STATUS, {"ids": list(statuses), "statuses": list(statuses.values())})


def _value(conn: Connection, query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    return None if row is None else row[0]
