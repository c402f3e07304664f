"""What status counts, on a real database, and how it shows it."""

from __future__ import annotations

import io
import json

import psycopg
import pytest
from rich.console import Console

from artwork_backfill.jobs.cli import status as view
from artwork_backfill.shared.auditing.queueing import TRIGGERS
from artwork_backfill.shared.review import status
from artwork_backfill.shared.review.status import AuditStatus, EntityCount, QueueCount, Repairs

_ROWS = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status, priority, last_audit_at)
VALUES ('release', gen_random_uuid(), 'unchecked', 100, NULL),
       ('release', gen_random_uuid(), 'unchecked', 100, NULL),
       ('release', gen_random_uuid(), 'unchecked', 300, NULL),
       ('event', gen_random_uuid(), 'audit_in_progress', 100, now() - interval '5 minutes'),
       ('event', gen_random_uuid(), 'audit_in_progress', 100, now() - interval '1 minute'),
       ('event', gen_random_uuid(), 'manual_review', 100, now());

INSERT INTO artwork_indexer.needs_manual_review (audit_entity_id, review_reason, created_at)
SELECT id, 'only copy', now() - interval '2 days'
FROM artwork_indexer.audit_entity WHERE status = 'manual_review';

INSERT INTO artwork_indexer.event_queue (state, entity_type, action, message, created)
VALUES ('queued', 'release', 'index', '{"gid": "x"}', now() - interval '3 hours'),
       ('completed', 'release', 'index', '{"gid": "x"}', now());
"""

# An entity of each status, audited twice, once with events; and one that never had any.
_REPAIRED = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status)
SELECT 'release', gen_random_uuid(), unnest(enum_range(NULL::artwork_indexer.audit_entity_status));

INSERT INTO artwork_indexer.audit_result (audit_entity_id, run_id, outcome, event_ids)
SELECT id, gen_random_uuid(), 'repair_queue', event_ids
FROM artwork_indexer.audit_entity
CROSS JOIN (VALUES ('{1,2}'::bigint[]), ('{}')) AS audit (event_ids);

INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status)
VALUES ('release', gen_random_uuid(), 'clean');
"""


def test_everything_is_counted(migrated_database: str) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as conn:
        conn.execute(_ROWS)
        found = status.read(conn)

    assert found.entities == (
        EntityCount("release", "unchecked", 300, 1),
        EntityCount("release", "unchecked", 100, 2),
        EntityCount("event", "audit_in_progress", 100, 2),
        EntityCount("event", "manual_review", 100, 1),
    )
    assert found.oldest_claim_s == pytest.approx(300, abs=60)
    assert found.open_reviews == 1
    assert found.oldest_review_s == pytest.approx(2 * 86_400, abs=60)
    assert {count.state: count.events for count in found.queue} == {"queued": 1, "completed": 1}
    assert found.queue[0].oldest_s == pytest.approx(3 * 3_600, abs=60)


def test_an_empty_table_has_no_ages(migrated_database: str) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as conn:
        found = status.read(conn)

    assert found == AuditStatus((), None, 0, None, Repairs(0, 0, 0, 0), ())


def test_repairs_are_counted_by_entity_and_by_how_far_they_are(migrated_database: str) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as conn:
        conn.execute(_REPAIRED)
        found = status.read(conn).repairs

    assert found == Repairs(under_way=1, to_prove=2, proved=2, in_review=1)


_LARGE = AuditStatus(
    entities=(
        EntityCount("release", "unchecked", 100, 3_757_159),
        EntityCount("release", "clean", 100, 1_900_000),
        EntityCount("event", "manual_review", 300, 12_345),
    ),
    oldest_claim_s=61.0,
    open_reviews=12_345,
    oldest_review_s=300_000.0,
    repairs=Repairs(100, 20_000, 900_000, 12_345),
    queue=(QueueCount("completed", 900_000, 7_000_000.0),),
)


def test_millions_are_readable_on_80_columns() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(view.to_terminal(_LARGE, [], []))
    shown = out.getvalue()

    assert "…" not in shown
    assert "release   100  3,757,159           1,900,000" in shown
    assert "5,669,504" in shown  # the sum of all
    assert "1.0 min" in shown
    assert "3.5 d" in shown


def test_machines_get_the_same_as_json() -> None:
    document = json.loads(view.to_json(_LARGE, [], []))

    assert document["entities"][0] == {
        "entity_type": "release",
        "status": "unchecked",
        "priority": 100,
        "entities": 3_757_159,
    }
    assert document["repairs"]["proved"] == 900_000
    assert document["oldest_claim_s"] == 61.0


@pytest.mark.parametrize("change", ["DISABLE TRIGGER {}", "ENABLE REPLICA TRIGGER {}"])
@pytest.mark.parametrize("trigger", list(TRIGGERS))
def test_a_trigger_that_does_not_fire_is_warned_of(
    migrated_database: str, trigger: str, change: str
) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as conn:
        assert status.read(conn).missing_triggers == {}
        statement = f"ALTER TABLE artwork_indexer.event_queue {change.format(trigger)}"
        conn.execute(statement.encode())
        found = status.read(conn)
        conn.execute(f"DROP TRIGGER {trigger} ON artwork_indexer.event_queue".encode())
        assert status.read(conn) == found
    assert found.missing_triggers == {trigger: TRIGGERS[trigger]}
    console = Console(file=io.StringIO(), width=100)
    console.print(view.to_terminal(found, [], []))
    assert f"Warning: trigger {trigger} is missing or disabled" in console.file.getvalue()
