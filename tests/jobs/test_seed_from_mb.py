"""seed-from-mb: every gid of every source gets one row, and nothing that is there is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from artwork_backfill.jobs.seed_from_mb.gids import GIDS, Kind
from artwork_backfill.jobs.seed_from_mb.job import Page, SeedFromMb
from artwork_backfill.shared.engine.job import Partition, RunResult, Written
from artwork_backfill.shared.engine.report import Outcome, Report
from tests.timing import LIMIT_S
from tests.tiny import driver, execute, query, wait_for

SEEDED = """
SELECT entity_type::text, priority, count(*)
FROM artwork_indexer.audit_entity
GROUP BY 1, 2
ORDER BY 1, 2
"""

MANY = """
INSERT INTO musicbrainz.release (id, gid, name, artist_credit)
    SELECT i * 3, gen_random_uuid(), 'release ' || i, 1 FROM generate_series(1, 40) i;
INSERT INTO musicbrainz.release_meta (id, date_added)
    SELECT id, CASE WHEN id <= 9 THEN now() - interval '89 days'
                    WHEN id = 12 THEN NULL
                    ELSE now() - interval '91 days' END
    FROM musicbrainz.release WHERE id <> 15;
INSERT INTO musicbrainz.event (id, gid, name)
    SELECT i, gen_random_uuid(), 'event ' || i FROM generate_series(1, 20) i;
INSERT INTO musicbrainz.edit (id, open_time)
    SELECT i, now() - i * interval '30 days' FROM generate_series(1, 5) i;
INSERT INTO musicbrainz.edit_event (edit, event)
    VALUES (1, 1), (2, 1), (2, 2), (4, 3), (1, 3), (5, 4);
INSERT INTO musicbrainz.release_gid_redirect (gid, new_id)
    SELECT gen_random_uuid(), 3 FROM generate_series(1, 8);
INSERT INTO musicbrainz.event_gid_redirect (gid, new_id)
    SELECT gen_random_uuid(), 3 FROM generate_series(1, 4);
INSERT INTO musicbrainz.deleted_entity (gid, data)
    SELECT gen_random_uuid(), jsonb_build_object('entity_type', kind)
    FROM (VALUES ('release'), ('release'), ('release'), ('event'), ('event'), ('artist')) t (kind);
"""


@pytest.fixture
def musicbrainz(migrated_database: str) -> str:
    """URL of a database with 40 releases, 20 events, and some that were merged or deleted."""
    execute(migrated_database, MANY)
    return migrated_database


def seed(dsn: str, job_type: type[SeedFromMb] = SeedFromMb, **options: Any) -> Report:
    return driver(dsn).run(job_type, **options)


def only_with_art() -> type[SeedFromMb]:
    class WithArt(SeedFromMb):
        def __init__(self, run: Any) -> None:
            super().__init__(run, only_with_art=True)

    return WithArt


def only(entity_types: Sequence[str], kinds: Sequence[Kind]) -> type[SeedFromMb]:
    class Chosen(SeedFromMb):
        def __init__(self, run: Any) -> None:
            super().__init__(run, entity_types, kinds)

    return Chosen


def test_every_gid_is_seeded_with_the_priority_of_its_source(musicbrainz: str) -> None:
    report = seed(musicbrainz)
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    assert report.totals == {"scanned": 77, "written": 77, "skipped": 0, "failed": 0}
    assert query(musicbrainz, SEEDED) == [
        ("event", 10, 2),  # first edited 60 days ago
        ("event", 100, 18),  # first edited 120 days ago, 150 days ago, or nobody knows when
        ("event", 150, 6),
        ("release", 10, 3),
        ("release", 100, 37),
        ("release", 150, 11),
    ]
    assert query(
        musicbrainz,
        "SELECT event.id FROM musicbrainz.event JOIN artwork_indexer.audit_entity USING (gid)"
        " WHERE priority = 10 ORDER BY 1",
    ) == [(1,), (2,)]
    assert query(musicbrainz, "SELECT DISTINCT status::text, last_audit_at FROM"
                 " artwork_indexer.audit_entity") == [("unchecked", None)]  # fmt: skip


def test_a_nil_uuid_among_the_gids_is_no_entity(musicbrainz: str) -> None:
    nil = "00000000-0000-0000-0000-000000000000"
    execute(
        musicbrainz,
        "INSERT INTO musicbrainz.release_gid_redirect"
        f" SELECT '{nil}', min(id) FROM musicbrainz.release;"
        "INSERT INTO musicbrainz.deleted_entity (gid, data)"
        f" VALUES ('{nil}', '{{\"entity_type\": \"event\"}}')",
    )
    report = seed(musicbrainz)
    assert (report.exit_code, report.totals["written"]) == (0, 77)


@pytest.mark.parametrize("source", GIDS, ids=str)
def test_each_source_can_be_seeded_alone(musicbrainz: str, source: Any) -> None:
    report = seed(musicbrainz, only([source.entity_type], [source.kind]))
    expected = {
        "live releases": 40,
        "live events": 20,
        "merged releases": 8,
        "merged events": 4,
        "deleted releases": 3,
        "deleted events": 2,
    }[str(source)]
    assert report.totals["written"] == expected
    assert [check.name for check in report.verification] == [f"{source} in audit_entity"]
    assert report.verification[0].actual == expected


def test_rows_that_are_there_stay_as_they_are(musicbrainz: str) -> None:
    execute(
        musicbrainz,
        "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status, priority)"
        " SELECT 'release', gid, 'clean', 300 FROM musicbrainz.release WHERE mod(id, 2) = 0",
    )
    before = query(musicbrainz, "SELECT xmin, * FROM artwork_indexer.audit_entity ORDER BY id")
    report = seed(musicbrainz)
    assert report.totals["written"] == 57
    assert report.outcome is Outcome.VERIFIED
    after = query(musicbrainz, "SELECT xmin, * FROM artwork_indexer.audit_entity ORDER BY id")
    assert after[: len(before)] == before


@pytest.mark.parametrize("was_live", ["TRUE", "NULL"])
@pytest.mark.parametrize("seeded_before", [True, False])
def test_what_was_clean_while_it_was_live_is_due_again_once_merged_or_deleted(
    musicbrainz: str, was_live: str, seeded_before: bool
) -> None:
    if seeded_before:
        seed(musicbrainz)
    clean = f"""
        INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status, was_live)
        SELECT gone.type::artwork_indexer.indexable_entity_type, gone.gid, 'clean', {was_live}
        FROM (
            SELECT 'release' AS type, gid FROM musicbrainz.release_gid_redirect
            UNION ALL
            SELECT data->>'entity_type', gid FROM musicbrainz.deleted_entity
            WHERE data->>'entity_type' IN ('release', 'event')
        ) gone
        ON CONFLICT (entity_type, gid)
        DO UPDATE SET status = 'clean', was_live = {was_live}, priority = 10
    """
    execute(musicbrainz, clean)
    report = seed(musicbrainz)
    assert report.exit_code == 0
    assert query(
        musicbrainz, "SELECT count(*) FROM artwork_indexer.audit_entity WHERE status = 'clean'"
    ) == [(0,)]
    assert query(musicbrainz, SEEDED)[-1] == ("release", 150, 11)


def test_what_was_decided_of_an_orphan_stays(musicbrainz: str) -> None:
    seed(musicbrainz)
    execute(
        musicbrainz,
        "UPDATE artwork_indexer.audit_entity SET status = 'clean', was_live = FALSE"
        " WHERE priority = 150",
    )
    # Of an older audit that is not known, but a person has decided since.
    execute(
        musicbrainz,
        "UPDATE artwork_indexer.audit_entity SET was_live = NULL, last_audit_at = now()"
        " WHERE id IN (SELECT id FROM artwork_indexer.audit_entity WHERE priority = 150 LIMIT 2);"
        "INSERT INTO artwork_indexer.needs_manual_review"
        " (audit_entity_id, review_reason, status, resolved_at)"
        " SELECT id, 'x', 'wont_fix', now() FROM artwork_indexer.audit_entity"
        " WHERE was_live IS NULL AND status = 'clean'",
    )
    report = seed(musicbrainz)
    assert (report.totals["written"], report.outcome) == (0, Outcome.VERIFIED)
    assert query(
        musicbrainz,
        "SELECT count(*) FROM artwork_indexer.audit_entity"
        " WHERE priority = 150 AND status <> 'clean'",
    ) == [(0,)]


def test_a_second_run_finds_nothing_to_do(musicbrainz: str) -> None:
    seed(musicbrainz)
    report = seed(musicbrainz)
    assert report.totals == {"scanned": 0, "written": 0, "skipped": 0, "failed": 0}
    assert report.outcome is Outcome.VERIFIED


def test_gids_far_behind_those_that_have_rows_are_found(musicbrainz: str) -> None:
    execute(
        musicbrainz,
        "INSERT INTO artwork_indexer.audit_entity (entity_type, gid)"
        " SELECT 'release', gid FROM musicbrainz.release WHERE id NOT IN (6, 9, 111)",
    )
    report = seed(musicbrainz, only(["release"], [Kind.LIVE]), batch_size=2)
    assert (report.outcome, report.totals["written"]) == (Outcome.VERIFIED, 3)


def test_only_what_lies_behind_the_first_gid_without_a_row_is_looked_at(musicbrainz: str) -> None:
    execute(
        musicbrainz,
        "INSERT INTO artwork_indexer.audit_entity (entity_type, gid)"
        " SELECT 'release', gid FROM musicbrainz.release WHERE id NOT IN (54, 111)",
    )
    report = seed(musicbrainz, only(["release"], [Kind.LIVE]))
    # Of every third id up to 120, those from 54 on.
    assert (report.totals["scanned"], report.totals["written"]) == (23, 2)


def test_a_gap_that_somebody_fills_while_it_is_looked_for_is_none(musicbrainz: str) -> None:
    class Overtaken(SeedFromMb):
        def _find_gap(self, conn: Connection, *values: Any) -> Any:
            execute(
                musicbrainz,
                "INSERT INTO artwork_indexer.audit_entity (entity_type, gid)"
                " SELECT 'release', gid FROM musicbrainz.release WHERE id = 54",
            )
            return super()._find_gap(conn, *values)

    execute(
        musicbrainz,
        "INSERT INTO artwork_indexer.audit_entity (entity_type, gid)"
        " SELECT 'release', gid FROM musicbrainz.release WHERE id <> 54",
    )
    report = seed(musicbrainz, Overtaken)
    assert report.outcome is Outcome.VERIFIED
    assert report.totals["written"] == 37
    assert sum(rows for *_, rows in query(musicbrainz, SEEDED)) == 77


def test_a_limit_continues_where_the_last_run_ended(musicbrainz: str) -> None:
    written = []
    while True:
        report = seed(musicbrainz, limit=30)
        assert report.exit_code == 0
        written.append(report.totals["written"])
        if report.outcome is Outcome.VERIFIED:
            break
        assert {check.detail for check in report.verification} >= {"as far as this run got"}
    assert written == [30, 30, 17]


def test_partitions_at_once_share_the_gids(musicbrainz: str) -> None:
    reports: list[Report] = []
    threads = [
        threading.Thread(
            target=lambda index=index: reports.append(
                seed(musicbrainz, partition=Partition(index, 3), batch_size=4)
            )
        )
        for index in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert [report.outcome for report in reports] == [Outcome.VERIFIED] * 3
    assert sum(report.totals["written"] for report in reports) == 77
    assert sum(report.totals["skipped"] for report in reports) == 0
    assert sum(rows for *_, rows in query(musicbrainz, SEEDED)) == 77


def test_a_dry_run_counts_and_changes_nothing_not_even_a_sequence(musicbrainz: str) -> None:
    sequences = "SELECT sequencename, last_value FROM pg_sequences ORDER BY 1"
    before = query(musicbrainz, sequences)
    report = seed(musicbrainz, dry_run=True)
    assert report.totals["written"] == 77
    assert query(musicbrainz, SEEDED) == []
    assert query(musicbrainz, sequences) == before


def test_a_row_that_vanishes_is_found_by_the_verification(musicbrainz: str) -> None:
    class Sabotaged(SeedFromMb):
        def verify(self, conn: Connection, run: RunResult | None) -> Any:
            execute(
                musicbrainz,
                "DELETE FROM artwork_indexer.audit_entity WHERE id IN"
                " (SELECT min(id) FROM artwork_indexer.audit_entity GROUP BY entity_type)",
            )
            return super().verify(conn, run)

    report = seed(musicbrainz, Sabotaged)
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    wrong = {
        check.name: (check.expected, check.actual) for check in report.verification if not check.ok
    }
    assert wrong == {
        "live releases in audit_entity": (40, 39),
        "live events in audit_entity": (20, 19),
    }
    assert seed(musicbrainz).totals["written"] == 2


@pytest.mark.parametrize("table", ["release", "release_gid_redirect"])
def test_a_gid_that_is_refused_is_isolated(musicbrainz: str, table: str) -> None:
    ((gid,),) = query(musicbrainz, f"SELECT gid FROM musicbrainz.{table} ORDER BY 1 LIMIT 1")
    execute(
        musicbrainz,
        f"ALTER TABLE artwork_indexer.audit_entity ADD CHECK (gid <> '{gid}')",
    )
    report = seed(musicbrainz)
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    assert report.totals["written"] == 76
    assert report.totals["failed"] == 1
    assert len(report.problems) == 1
    missing = f"SELECT 1 FROM artwork_indexer.audit_entity WHERE gid = '{gid}'"
    assert query(musicbrainz, missing) == []


def test_a_commit_whose_answer_is_lost_skips_no_page(musicbrainz: str) -> None:
    """Claims move the position only once they are known to be committed."""
    lost = iter([True])

    class Loses(SeedFromMb):
        def _page(self, conn: Connection, after: Any, size: int) -> Any:
            page = super()._page(conn, after, size)
            if next(lost, False):
                conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            return page

    assert seed(musicbrainz, Loses, batch_size=7).totals["written"] == 77


def test_gids_that_are_merged_while_it_runs_are_seeded_once(musicbrainz: str) -> None:
    class Merges(SeedFromMb):
        merged = False

        def committed(self, written: Written) -> None:
            if not self.merged:
                self.merged = True
                # One that has its row already, and the last one, which is still to come.
                execute(
                    musicbrainz,
                    "INSERT INTO musicbrainz.release_gid_redirect (gid, new_id)"
                    " SELECT gid, 3 FROM musicbrainz.release WHERE id IN (6, 120);"
                    "DELETE FROM musicbrainz.release WHERE id IN (6, 120)",
                )

    report = seed(musicbrainz, Merges, batch_size=5)
    assert report.outcome is Outcome.VERIFIED
    assert sum(rows for *_, rows in query(musicbrainz, SEEDED)) == 77


def test_what_musicbrainz_adds_behind_the_run_is_no_fault_of_it(musicbrainz: str) -> None:
    class Late(SeedFromMb):
        def verify(self, conn: Connection, run: RunResult | None) -> Any:
            execute(
                musicbrainz,
                "INSERT INTO musicbrainz.release_gid_redirect VALUES (gen_random_uuid(), 3);"
                "INSERT INTO musicbrainz.release (gid, name, artist_credit)"
                " VALUES (gen_random_uuid(), 'new', 1);"
                "INSERT INTO musicbrainz.deleted_entity (gid, data)"
                ' VALUES (gen_random_uuid(), \'{"entity_type": "event"}\')',
            )
            return super().verify(conn, run)

    assert seed(musicbrainz, Late).outcome is Outcome.VERIFIED


def test_a_run_that_is_killed_is_completed_by_the_next(musicbrainz: str) -> None:
    environ = os.environ | {"MUSICBRAINZ_DATABASE_URL": musicbrainz}
    program = str(Path(sys.executable).with_name("artwork-backfill"))
    command = [program, "seed-from-mb", "--batch-size", "5"]
    # It cannot get past the row that this session holds.
    ((gid,),) = query(musicbrainz, "SELECT gid FROM musicbrainz.release WHERE id = 60")
    with psycopg.connect(musicbrainz) as holder:
        holder.execute(
            "INSERT INTO artwork_indexer.audit_entity (entity_type, gid) VALUES ('release', %s)",
            (gid,),
        )
        process = subprocess.Popen(
            [*command, "--fixed-batch-size"], env=environ, stdout=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: sum(rows for *_, rows in query(musicbrainz, SEEDED)) == 15)
        finally:
            process.kill()
            process.wait()
        holder.rollback()
    assert subprocess.run(command, env=environ, stdout=subprocess.DEVNULL).returncode == 0
    assert query(musicbrainz, "SELECT count(*), count(DISTINCT gid) FROM"
                 " artwork_indexer.audit_entity") == [(77, 77)]  # fmt: skip


def test_a_page_is_halved_down_to_single_keys() -> None:
    live, merged = GIDS[0], GIDS[2]
    for page in (
        Page(0, live, 0, 7, 5, is_fresh=True),
        Page(2, merged, uuid.UUID(int=2**127), uuid.UUID(int=2**127 + 9), 3, is_fresh=False),
    ):
        parts, whole = [page], []
        while parts:
            part = parts.pop()
            halves = part.halves()
            parts += reversed(halves)
            if not halves:
                assert int(part.last) - int(part.after) == 1
                assert part.rows == 1
                whole.append(int(part.last))
        assert whole == list(range(int(page.after) + 1, int(page.last) + 1))


# -- only what has art ----------------------------------------------------------------------------

ART = """
INSERT INTO cover_art_archive.cover_art (id, release, edit, ordering, mime_type)
    SELECT id, id, 1, 1, 'image/jpeg' FROM musicbrainz.release WHERE id <= 30;
INSERT INTO event_art_archive.event_art (id, event, edit, ordering, mime_type)
    SELECT id, id, 1, 1, 'image/jpeg' FROM musicbrainz.event WHERE id <= 5;
"""


def test_what_is_live_without_art_is_left_out_when_asked_for(musicbrainz: str) -> None:
    execute(musicbrainz, ART)
    report = seed(musicbrainz, only_with_art(), batch_size=7)
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    live, gone = 10 + 5, 8 + 4 + 3 + 2
    assert report.totals["written"] == live + gone
    assert query(
        musicbrainz,
        "SELECT count(*) FROM artwork_indexer.audit_entity JOIN musicbrainz.release USING (gid)"
        " WHERE release.id <= 30",
    ) == [(10,)]
    assert "live releases with art in audit_entity" in {v.name for v in report.verification}

    # Without the option, those that were left out come up.
    assert seed(musicbrainz).totals["written"] == 60 - live
