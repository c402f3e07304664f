"""A database as it is after a first full audit: 6,000,000 entities, made in SQL within minutes."""

from __future__ import annotations

from typing import Final

import psycopg

ENTITIES: Final = 6_000_000
REVIEWS: Final = 40_000
FAILED_EVENTS: Final = 4_000

#: Every so-many-th entity is in review, in repair, gone; of the others, two in three are audited.
_FILL: Final = """
-- Triggers and keys would be looked up for each of the millions of rows.
SET session_replication_role = replica;
SET synchronous_commit = off;
SET maintenance_work_mem = '512MB';

INSERT INTO artwork_indexer.audit_entity
    (id, entity_type, gid, status, priority, last_audit_at, was_live)
SELECT n, (CASE WHEN n %% 60 = 7 THEN 'event' ELSE 'release' END)
              ::artwork_indexer.indexable_entity_type,
       ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
       (CASE WHEN n %% (%(entities)s / %(reviews)s) = 0 THEN 'manual_review'
             WHEN n %% 3000 = 1 THEN 'repair_queue'
             WHEN n %% 90 = 2 THEN 'legacy'
             WHEN n %% 3 = 0 THEN 'unchecked'
             ELSE 'clean' END)::artwork_indexer.audit_entity_status,
       CASE WHEN n %% 500 = 0 THEN 300 WHEN n %% 40 = 0 THEN 150 ELSE 100 END,
       now() - n %% 600 * interval '1 hour', TRUE
FROM generate_series(1, %(entities)s) AS n;

-- What audits found: an eighth of the entities has been repaired at some time.
INSERT INTO artwork_indexer.audit_result
    (audit_entity_id, run_id, audited_at, outcome, findings, event_ids)
SELECT id, ('11111111-2222-4333-8444-' || lpad((id %% 500)::text, 12, '0'))::uuid,
       coalesce(last_audit_at, now()), 'repair_queue',
       jsonb_build_array(jsonb_build_object(
           'check',
           (ARRAY['index.missing', 'index.stale', 'xml.field', 'xml.missing'])[1 + id %% 4],
           'severity', 'major', 'subject', 'index.json',
           'expected', repeat('expected ', 20), 'actual', repeat('found ', 20), 'repair', TRUE)),
       ARRAY[id]
FROM artwork_indexer.audit_entity
WHERE id %% 8 = 0 OR status = 'repair_queue';

INSERT INTO artwork_indexer.needs_manual_review
    (audit_entity_id, review_reason, reasons, status, created_at, resolved_at, resolution_notes)
SELECT id, code || ': mbid-' || gid || '-' || id || '.jpg',
       CASE WHEN code LIKE '%%.%%'
            THEN jsonb_build_array(jsonb_build_object(
                     'code', 'finding', 'check', code, 'subject', ''))
            ELSE jsonb_build_array(jsonb_build_object(
                     'code', code, 'check', 'orphan.image', 'subject', '')) END,
       status, now() - id %% 5000 * interval '1 hour',
       CASE WHEN status <> 'open' THEN now() END, CASE WHEN status <> 'open' THEN 'done' END
FROM (
    SELECT id, gid, (ARRAY['only_copy', 'only_copy', 'only_copy', 'another_file', 'item.dark',
                           'item.missing', 'files.original.missing', 'files.thumbnail.missing',
                           'repair_did_not_hold', 'unreadable', 'stuck_task',
                           'orphan.leftover'])[1 + id / 150 %% 12] AS code,
           (CASE WHEN entity.status = 'manual_review' THEN 'open' ELSE 'resolved' END)
               ::artwork_indexer.manual_review_status AS status
    FROM artwork_indexer.audit_entity entity
    WHERE entity.status = 'manual_review' OR id %% 300 = 8
) AS reviewed;

INSERT INTO artwork_indexer.event_queue
    (id, state, entity_type, action, message, attempts, created)
SELECT n,
       (CASE WHEN n <= %(failed)s THEN 'failed' WHEN n <= %(failed)s + 300 THEN 'queued'
             ELSE 'completed' END)::artwork_indexer.event_state, 'release', 'index',
       jsonb_build_object(
           'gid', '00000000-0000-4000-8000-' || lpad(to_hex(n * 1500), 12, '0')),
       5, now() - n %% 3000 * interval '10 min'
FROM generate_series(1, %(failed)s + 200000) AS n;

INSERT INTO artwork_indexer.event_failure_reason (event, failure_reason, created)
SELECT n, CASE WHEN n %% 4 = 0 THEN 'curl: (28) Operation timed out after 30001 milliseconds'
               ELSE 'archive.org answered 503 for https://s3.us.archive.org/mbid-' || n END,
       now() - attempt * interval '1 hour'
FROM generate_series(1, %(failed)s) AS n CROSS JOIN generate_series(1, 5) AS attempt;

-- A year of audits, hour by hour.
INSERT INTO artwork_indexer.audit_tally (run_id, hour, outcome, audits, events, first_at, last_at)
SELECT ('11111111-2222-4333-8444-' || lpad((ago / 24)::text, 12, '0'))::uuid,
       date_trunc('hour', now()) - ago * interval '1 hour', outcome, 700, 20,
       now() - ago * interval '1 hour', now() - ago * interval '1 hour'
FROM generate_series(0, 8760) AS ago
CROSS JOIN unnest(ARRAY['clean', 'repair_queue', 'manual_review', 'legacy']) AS outcome;

INSERT INTO artwork_indexer.finding_tally
    (run_id, hour, check_name, entities, findings, examples)
SELECT ('11111111-2222-4333-8444-' || lpad((ago / 24)::text, 12, '0'))::uuid,
       date_trunc('hour', now()) - ago * interval '1 hour', check_name, 9, 12,
       ARRAY[ago, ago + 1, ago + 2]
FROM generate_series(0, 8760) AS ago CROSS JOIN unnest(%(checks)s::text[]) AS check_name;

INSERT INTO artwork_indexer.audit_status_history (taken_at, status, entities)
SELECT now() - ago * interval '1 hour', status, 500 * (8760 - ago)
FROM generate_series(1, 8760) AS ago
CROSS JOIN unnest(enum_range(NULL::artwork_indexer.audit_entity_status)) AS status;

INSERT INTO artwork_indexer.backfill_run
    (id, job, version, host, who, started, heartbeat, finished, outcome, exit_code, totals, report)
SELECT ('11111111-2222-4333-8444-' || lpad(n::text, 12, '0'))::uuid, 'audit-batch', '1.0.0',
       'worker', 'ops', now() - n * interval '1 day', now() - n * interval '1 day',
       now() - n * interval '23 hours', 'verified', 0, '{"audited": 16000}',
       jsonb_build_object('totals', jsonb_build_object('audited', 16000),
                          'problems', repeat('x', 20000))
FROM generate_series(1, 365) AS n;

INSERT INTO artwork_indexer.repair_tally (check_name, held, not_held)
SELECT check_name, 20000, 30 FROM unnest(%(checks)s::text[]) AS check_name;

SELECT setval('artwork_indexer.audit_entity_id_seq', %(entities)s),
       setval('artwork_indexer.event_queue_id_seq', %(failed)s + 200000);
"""

_CHECKS: Final = (
    "index.missing", "index.stale", "index.malformed", "item.missing", "item.dark", "xml.missing",
    "xml.field", "files.original.missing", "files.original.duplicate", "files.thumbnail.missing",
    "orphan.image", "orphan.leftover",
)  # fmt: skip

#: Indexes that are made when the table is full.
_LATE_INDEXES: Final = ("audit_entity_idx_unchecked", "audit_entity_idx_open",
                        "audit_entity_idx_done")  # fmt: skip


def fill(dsn: str, entities: int = ENTITIES) -> None:
    """Fill a migrated, empty database."""
    values = {"entities": entities, "reviews": REVIEWS, "failed": FAILED_EVENTS}
    values |= {"checks": list(_CHECKS)}  # type: ignore[dict-item]
    with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.ClientCursor) as conn:
        made = [
            conn.execute("SELECT pg_get_indexdef(%s::regclass)", (f"artwork_indexer.{name}",))
            for name in _LATE_INDEXES
        ]
        for name in _LATE_INDEXES:
            conn.execute(f"DROP INDEX artwork_indexer.{name}".encode())
        conn.execute(_FILL, values)
        for definition in made:
            row = definition.fetchone()
            assert row is not None
            conn.execute(str(row[0]).encode())
        conn.execute("VACUUM ANALYZE")
