"""The claim of audit-batch on two million waiting entities, before and after ANALYZE.

All have the same priority, which is the worst case: only the index knows the order.
"""

from __future__ import annotations

import statistics
import time
from typing import Final
from uuid import uuid4

from psycopg import Connection
from psycopg.sql import SQL

from artwork_backfill.jobs.audit_batch import claims
from artwork_backfill.jobs.audit_batch.job import AuditBatch
from artwork_backfill.shared.engine.runs import RunRecord
from artwork_backfill.shared.engine.sources import CLAIM, Claims
from bench.commands import musicbrainz_database
from sandbox.postgres import DURABLE

ENTITIES: Final = 2_000_000
#: What a run claims at a time with its default limits, and the first batch without a limit.
SIZE: Final = 25
LARGE_SIZE: Final = AuditBatch.batch_size
CLAIMS: Final = 200

TARGET_MS: Final = 5
INDEX: Final = "audit_entity_idx_unchecked"

_FILL: Final = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid)
SELECT 'release', gen_random_uuid()
FROM generate_series(1, %(entities)s)
"""


def run() -> None:
    """Measure and print one line."""
    # No statistics before this benchmark wants them.
    with musicbrainz_database({**DURABLE, "autovacuum": "off"}) as (_, conn):
        conn.execute(_FILL, {"entities": ENTITIES})
        _check_plan(conn)
        before = _median_ms(conn, SIZE)
        conn.execute("ANALYZE")
        _check_plan(conn)
        after = _median_ms(conn, SIZE)
        large = _median_ms(conn, LARGE_SIZE)
    print(
        f"claim: {SIZE} of {ENTITIES:,} entities of one priority in {after:.1f} ms, right after"
        f" filling the table, without statistics, in {before:.1f} ms (target {TARGET_MS} ms);"
        f" {LARGE_SIZE} in {large:.1f} ms; all read the index and sort nothing"
    )


def _median_ms(conn: Connection, size: int) -> float:
    run = Claims(claims.TABLE, RunRecord(uuid4()), claims.claim)
    times = []
    for _ in range(CLAIMS):
        began = time.monotonic()
        with conn.transaction():
            run.take(conn, size)
        times.append(time.monotonic() - began)
    return 1000 * statistics.median(times)


def _check_plan(conn: Connection) -> None:
    """Raise `RuntimeError` if the claim would sort, or would not read the index."""
    run = Claims(claims.TABLE, RunRecord(uuid4()), claims.claim)
    values = {"size": LARGE_SIZE, "started": run.started(conn), "run": run.record.id}
    statement = SQL("EXPLAIN ") + claims.TABLE.format(CLAIM)
    rows = conn.execute(statement, values | run.partition.values).fetchall()
    plan = "\n".join(line for (line,) in rows)
    if INDEX not in plan or "Sort" in plan:
        raise RuntimeError(f"the claim does not read {INDEX} in order:\n{plan}")
