"""reaudit: what is done becomes unchecked, the oldest audits first, and nothing else is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artwork_backfill.jobs.reaudit.job import Reaudit
from artwork_backfill.shared.engine.job import Partition
from artwork_backfill.shared.engine.report import Outcome, Report
from tests.tiny import driver, execute, query

PROGRAM = str(Path(sys.executable).with_name("artwork-backfill"))
DAY = 86_400.0

# Entity N was audited N * 10 days ago.
ENTITIES = """
INSERT INTO musicbrainz.release (id, gid, name, artist_credit)
    SELECT n, ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'release', 1
    FROM generate_series(1, 60) n WHERE n <> 50;
INSERT INTO artwork_indexer.audit_entity
    (id, entity_type, gid, status, priority, last_audit_at, was_live)
    SELECT n, 'release', ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid,
           (CASE n % 6 WHEN 0 THEN 'manual_review' WHEN 1 THEN 'legacy' WHEN 2 THEN 'repair_queue'
            ELSE 'clean' END)::artwork_indexer.audit_entity_status,
           CASE n % 2 WHEN 0 THEN 100 ELSE 300 END, now() - n * interval '10 days', n % 6 <> 1
    FROM generate_series(1, 60) n;
"""

UNCHECKED = """
SELECT id, priority FROM artwork_indexer.audit_entity WHERE status = 'unchecked' ORDER BY id
"""


@pytest.fixture
def database(migrated_database: str) -> str:
    execute(migrated_database, ENTITIES)
    return migrated_database


def reaudit(dsn: str, run: dict[str, Any] | None = None, **options: Any) -> Report:
    class Bound(Reaudit):
        def __init__(self, run: Any) -> None:
            super().__init__(run, **options)

    return driver(dsn).run(Bound, **(run or {}))


def done(*, over: int, status: tuple[int, ...] = (1, 3, 4, 5)) -> list[int]:
    return [n for n in range(over, 61) if n % 6 in status]


def test_what_was_audited_long_ago_becomes_unchecked_behind_everything_else(database: str) -> None:
    report = reaudit(database)
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    due = done(over=37)
    assert report.totals["written"] == len(due)
    assert dict(query(database, UNCHECKED)) == dict.fromkeys(due, 50)
    assert reaudit(database).totals["scanned"] == 0


def test_what_is_gone_since_its_audit_comes_earlier(database: str) -> None:
    # 50 would be in review; 52 is merged away meanwhile, and of 53 it is not known what it was.
    execute(
        database,
        "DELETE FROM musicbrainz.release WHERE id IN (52, 53, 55);"
        "UPDATE artwork_indexer.audit_entity SET was_live = NULL WHERE id = 53",
    )
    report = reaudit(database)
    assert report.totals["gone"] == 2
    assert {n for n, priority in query(database, UNCHECKED) if priority == 150} == {52, 53}


def test_what_a_person_left_as_it_is_stays_so_until_it_is_gone(database: str) -> None:
    execute(
        database,
        "INSERT INTO artwork_indexer.needs_manual_review"
        " (audit_entity_id, review_reason, status, resolved_at)"
        " SELECT n, 'x', 'wont_fix', now() - CASE n WHEN 57 THEN interval '2 years'"
        "        ELSE interval '1 day' END FROM generate_series(51, 58) n;"
        "DELETE FROM musicbrainz.release WHERE id IN (51, 52, 53);"
        "UPDATE artwork_indexer.audit_entity SET was_live = NULL WHERE id = 53",
    )
    report = reaudit(database)
    assert report.outcome is Outcome.VERIFIED
    # Of 53 it is not known whether it was live then, and 57 was audited after the decision.
    assert {n for n, _ in query(database, UNCHECKED) if 51 <= n <= 58} == {51, 52, 57}


def test_the_oldest_audits_come_first(database: str) -> None:
    report = reaudit(database, {"limit": 5, "batch_size": 2}, older_than=100 * DAY)
    assert report.outcome is Outcome.STOPPED
    assert [n for n, _ in query(database, UNCHECKED)] == done(over=11)[-5:]
    assert all(verification.ok for verification in report.verification)


def test_statuses_and_partitions_are_chosen(database: str) -> None:
    reaudit(database, {"partition": Partition(1, 2)}, statuses=["legacy"])
    assert [n for n, _ in query(database, UNCHECKED)] == [
        n for n in done(over=37, status=(1,)) if n % 2
    ]


def test_findings_that_a_policy_left_alone_are_taken_up_whatever_their_age(database: str) -> None:
    execute(
        database,
        "INSERT INTO artwork_indexer.audit_passed VALUES"
        " (3, 'meta.title', 1, FALSE), (4, 'meta.date', 1, FALSE), (6, 'meta.title', 1, FALSE)",
    )
    reaudit(database, older_than=0.0, checks=["meta.title"])
    assert [n for n, _ in query(database, UNCHECKED)] == [3]


def test_a_dry_run_counts_and_changes_nothing(database: str) -> None:
    report = reaudit(database, {"dry_run": True})
    assert report.totals["written"] == len(done(over=37))
    assert query(database, UNCHECKED) == []


def test_an_audit_that_came_in_between_counts(database: str) -> None:
    class Slow(Reaudit):
        def write(self, conn: Any, results: Any) -> Any:
            execute(
                database,
                "UPDATE artwork_indexer.audit_entity SET last_audit_at = now() WHERE id = 57",
            )
            return super().write(conn, results)

    report = driver(database).run(Slow)
    assert 57 not in [n for n, _ in query(database, UNCHECKED)]
    assert report.outcome is Outcome.VERIFIED


def test_the_command_line_says_which(database: str) -> None:
    execute(database, "INSERT INTO artwork_indexer.audit_passed VALUES (3, 'meta.title', 1, FALSE)")

    def run(*arguments: str) -> int:
        return subprocess.run(
            [PROGRAM, "reaudit", *arguments],
            env={**os.environ, "MUSICBRAINZ_DATABASE_URL": database},
            capture_output=True,
            check=False,
        ).returncode

    assert run("--check", "no.such.check") == 2
    assert run("--check", "meta.*") == 0
    assert [n for n, _ in query(database, UNCHECKED)] == [3]
    assert run("--older-than", "590d", "--status", "clean") == 0
    assert [n for n, _ in query(database, UNCHECKED)] == [3, 59]
