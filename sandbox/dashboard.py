"""The dashboard on a small world: audited, partly repaired, with failed events and a past.

`prepare` makes such a world, also for the tests. `main` serves the dashboard on it while an indexer
and audits are working, so that actions on the page show results within seconds.
"""

from __future__ import annotations

import os
import subprocess
import threading

import psycopg

from sandbox import demo, surroundings
from sandbox.indexer import Indexer
from sandbox.surroundings import COMMAND, Surroundings

#: The number of entities whose repairs archive.org refuses until their events are given up.
REFUSED = 9

AUDIT_EVERY_S = 2.0

_WAITING = """
SELECT EXISTS (SELECT FROM artwork_indexer.audit_entity WHERE status = 'unchecked')
"""

# A past in which everything was unchecked a week ago and reached its present status hour by hour,
# with the findings of today's audits spread over the hours.
_MAKE_UP_STATUSES = """
WITH present AS (
    SELECT status, count(*) AS entities FROM artwork_indexer.audit_entity GROUP BY status
), past AS (
    SELECT hour, status, round(entities * (1 - hour / 168.0) ^ 1.4) AS entities
    FROM present CROSS JOIN generate_series(2, 168) AS hour
    WHERE status <> 'unchecked'
)
INSERT INTO artwork_indexer.audit_status_history (taken_at, status, entities)
SELECT now() - make_interval(hours => hour), status, entities FROM past
UNION ALL
SELECT now() - make_interval(hours => hour), 'unchecked',
       (SELECT sum(entities) FROM present) - sum(entities)
FROM past
GROUP BY hour
"""

_MAKE_UP_AUDITS = """
INSERT INTO artwork_indexer.audit_tally (run_id, hour, outcome, audits, events, first_at, last_at)
SELECT run_id, hour - make_interval(hours => ago), outcome,
       greatest(1, round(audits * (0.6 + 0.4 * sin(ago / 6.0)) / 4)), events, first_at, last_at
FROM artwork_indexer.audit_tally CROSS JOIN generate_series(2, 167) AS ago
ON CONFLICT DO NOTHING
"""

_MAKE_UP_FINDINGS = """
INSERT INTO artwork_indexer.finding_tally (run_id, hour, check_name, entities, findings, examples)
SELECT run_id, hour - make_interval(hours => ago), check_name, entities, findings, examples
FROM artwork_indexer.finding_tally CROSS JOIN generate_series(2, 167, 12) AS ago
ON CONFLICT DO NOTHING
"""


def prepare(around: Surroundings) -> None:
    """Seed and audit a world, carry out its repairs, let some of them fail, and audit again.

    Raises `subprocess.CalledProcessError` if a job fails.
    """
    for job in ("migrate", "seed-from-mb", "seed-from-ia-scan"):
        around.run(job)
    # No indexer is working yet, so the audit must not wait for it.
    around.run("audit-batch", "--max-queue-depth", "0")
    refused = [plan.gid for plan in around.world.drifted() if plan.status == "repair_queue"]
    fault = {"kind": "refuse", "paths": ["s3"], "gids": refused[:REFUSED]}
    around.services.control("archive", faults=[fault])
    Indexer(
        around.musicbrainz_dsn,
        around.services.archive_url,
        around.services.musicbrainz_url,
        retry_delay_s=0.0,
    ).run_until_idle()
    around.services.control("archive", faults=[])
    around.run("audit-batch")
    with psycopg.connect(around.musicbrainz_dsn) as conn:
        for statement in (_MAKE_UP_STATUSES, _MAKE_UP_AUDITS, _MAKE_UP_FINDINGS):
            conn.execute(statement)


def main(port: int) -> int:
    """Serve the dashboard until Ctrl-C; return the exit code."""
    stop_flag = surroundings.stop_flag()
    print("Starting a small world, and auditing it ...", flush=True)
    with surroundings.start(demo.SPEC, demo.LIBRARY_SPEC) as around:
        prepare(around)
        auditor = threading.Thread(target=_audit_now_and_then, args=(around, stop_flag))
        with around.indexing(seconds_per_event=0.5):
            auditor.start()
            try:
                return _serve(around, port, stop_flag)
            finally:
                stop_flag.set()
                auditor.join()


def _serve(around: Surroundings, port: int, stop_flag: threading.Event) -> int:
    # Its own session: a Ctrl-C reaches this process, which ends the other in an orderly way.
    page = subprocess.Popen(
        [str(COMMAND), "dashboard", "--port", str(port), "--by", "you"],
        env={**os.environ, **around.environment},
        start_new_session=True,
    )
    print(f"The dashboard is at http://127.0.0.1:{port}; Ctrl-C ends it.", flush=True)
    while not stop_flag.wait(0.2):
        if page.poll() is not None:
            return page.returncode
    page.terminate()
    page.wait()
    return 0


def _audit_now_and_then(around: Surroundings, stop_flag: threading.Event) -> None:
    with psycopg.connect(around.musicbrainz_dsn, autocommit=True) as conn:
        while not stop_flag.wait(AUDIT_EVERY_S):
            row = conn.execute(_WAITING).fetchone()
            if row is not None and row[0]:
                around.run("audit-batch")
