"""seed-from-ia-scan: every identifier is seen, and a scan that cannot have seen all says so."""

from __future__ import annotations

import collections
import gzip
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import Connection

from artwork_backfill.jobs.seed_from_ia_scan import pages as pages_module
from artwork_backfill.jobs.seed_from_ia_scan.distinct import Distinct, number_of
from artwork_backfill.jobs.seed_from_ia_scan.job import SeedFromIaScan
from artwork_backfill.jobs.seed_from_ia_scan.pages import ListedPages, Page, ScrapedPages
from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType
from artwork_backfill.shared.clients.archive_org import (
    ArchiveOrgClient,
    CursorRefused,
    ScrapeError,
    ScrapePage,
)
from artwork_backfill.shared.clients.http import (
    CredentialsRefused,
    ServiceDown,
    Unreadable,
)
from artwork_backfill.shared.engine.job import Partition, Run, RunFailed, RunResult, Verification
from artwork_backfill.shared.engine.report import Outcome, Report
from artwork_backfill.shared.service_stats import ServiceStats
from sandbox.load import load
from sandbox.services import Services
from sandbox.world import EntityType as WorldType
from sandbox.world import Spec, World
from tests import programs
from tests.tiny import driver, execute, query, wait_for

PROGRAM = str(Path(sys.executable).with_name("artwork-backfill"))
CAA, EAA = "coverartarchive", "eventartarchive"
RELEASES, EVENTS = ART_ARCHIVES[EntityType.RELEASE], ART_ARCHIVES[EntityType.EVENT]

ROWS = "SELECT gid::text, priority FROM artwork_indexer.audit_entity WHERE status = 'unchecked'"
STANDING = (
    "SELECT cursor, pages, identifiers, foreign_identifiers, gids FROM artwork_indexer.ia_scan"
)


def gid(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def identifiers(*numbers: int) -> list[str]:
    return [f"mbid-{gid(number)}" for number in numbers]


class Archive:
    """A scripted scrape API: pages by collection, cursors `1`, `2`, ..., and what to raise."""

    def __init__(self, **pages: Sequence[Sequence[str]]) -> None:
        self.pages = pages
        self.name = "archive.org"
        self.has_credentials = True
        #: What it says is the size of a collection, in place of the number of its items.
        self.total: int | None = None
        self.asked: list[tuple[str, str | None]] = []
        #: Answers or errors by request number, counted from 1, in place of the proper answer.
        self.instead: dict[int, Exception | ScrapePage] = {}

    def scrape(self, collection: str, cursor: str | None = None) -> ScrapePage:
        self.asked.append((collection, cursor))
        instead = self.instead.get(len(self.asked))
        if isinstance(instead, Exception):
            raise instead
        return instead or self.page(collection, int(cursor or 0))

    def page(self, collection: str, number: int) -> ScrapePage:
        pages = self.pages.get(collection, [[]])
        following = str(number + 1) if number + 1 < len(pages) else None
        total = len(set().union(*pages)) if self.total is None else self.total
        return ScrapePage(tuple(pages[number]), following, total)

    def stats(self) -> ServiceStats:
        return ServiceStats(len(self.asked), 0, 0, 1.0, 1.0)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_module, "PAUSE_S", 0.0)


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Archive:
    """Sixty releases on six pages; nothing in the other collection."""
    scripted = Archive(**{CAA: [identifiers(*range(n, n + 10)) for n in range(0, 60, 10)]})
    monkeypatch.setattr(ArchiveOrgClient, "from_settings", lambda *_, **__: scripted)
    return scripted


@pytest.fixture
def database(migrated_database: str) -> str:
    """URL of a database in which all but every fifth of the sixty releases are live with art."""
    values = ",".join(f"({n}, '{gid(n)}', 'x', 1)" for n in range(60) if n % 5)
    execute(
        migrated_database,
        f"INSERT INTO musicbrainz.release (id, gid, name, artist_credit) VALUES {values};"
        "INSERT INTO musicbrainz.release_meta (id, cover_art_presence)"
        " SELECT id, 'present' FROM musicbrainz.release",
    )
    return migrated_database


def job(**options: Any) -> type[SeedFromIaScan]:
    class Bound(SeedFromIaScan):
        def __init__(self, run: Run) -> None:
            super().__init__(run, **{"archives": [RELEASES], **options})

    return Bound


def scan(dsn: str, run: dict[str, Any] | None = None, **options: Any) -> Report:
    return driver(dsn).run(job(**options), **{"concurrency": 1, **(run or {})})


def rows(dsn: str) -> dict[str, int]:
    return dict(query(dsn, ROWS))


def consume(pages: Iterator[Page]) -> None:
    collections.deque(pages, maxlen=0)


def checks(report: Report) -> dict[str, Verification]:
    return {check.name: check for check in report.verification}


def coverage(report: Report, name: str = CAA) -> Verification:
    return checks(report)[f"gids of {name} against entities with art in MusicBrainz"]


# -- a whole scan ---------------------------------------------------------------------------------


def test_every_gid_is_seeded_and_those_that_are_not_live_come_first(
    database: str, archive: Archive
) -> None:
    report = scan(database)
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    assert rows(database) == {gid(n): 100 if n % 5 else 150 for n in range(60)}
    assert query(database, STANDING) == [(None, 6, 60, 0, 60)]
    assert report.totals["not_live"] == 12
    present = checks(report)[f"gids of {CAA} in audit_entity"]
    assert (present.expected, present.actual) == (60, 60)
    assert (coverage(report).expected, coverage(report).actual) == (48, 60)
    assert report.as_dict()["requests"]["archive.org"]["requests"] == 6


def test_both_collections_are_scanned_in_turn(database: str, archive: Archive) -> None:
    archive.pages[EAA] = [identifiers(100, 101), identifiers(102)]
    report = scan(database, archives=[RELEASES, EVENTS])
    assert report.exit_code == 0
    assert query(
        database,
        "SELECT entity_type::text, count(*) FROM artwork_indexer.audit_entity"
        " GROUP BY 1 ORDER BY 1",
    ) == [("event", 3), ("release", 60)]
    assert archive.asked[-2:] == [(EAA, None), (EAA, "1")]


def test_foreign_identifiers_are_counted_and_some_of_them_shown(
    database: str, archive: Archive
) -> None:
    foreign = [CAA, "mbid-test", f"mbid-{gid(7).upper()[:-1]}", f"mbid-{gid(8)}-1", "", "x\n", "ü"]
    archive.pages[CAA][2] += foreign
    report = scan(database)
    assert (report.exit_code, len(rows(database))) == (0, 60)
    assert (report.totals["identifiers"], report.totals["foreign"]) == (67, 7)
    assert query(database, STANDING) == [(None, 6, 67, 7, 60)]
    assert [problem.what for problem in report.problems] == [f"identifier in {CAA}"] * 5
    assert report.problems[0].detail == f"skipped, not an entity's: {CAA}"


def test_gids_of_the_other_entity_type_are_passed_over(database: str, archive: Archive) -> None:
    execute(database, f"INSERT INTO musicbrainz.event (gid, name) VALUES ('{gid(500)}', 'x')")
    archive.pages[CAA][0] += identifiers(500)
    report = scan(database)
    assert (report.exit_code, len(rows(database))) == (0, 60)
    assert report.totals["of_another_type"] == 1
    assert f"mbid-{gid(500)}" in report.problems[0].detail


def test_gids_that_come_twice_are_counted_once(database: str, archive: Archive) -> None:
    archive.pages[CAA][3] += identifiers(0, 1, 30, 30)
    report = scan(database)
    assert checks(report)[f"gids of {CAA} in audit_entity"].expected == 60
    assert query(database, STANDING) == [(None, 6, 64, 0, 60)]


def test_rows_keep_their_status_and_their_higher_priority(database: str, archive: Archive) -> None:
    execute(
        database,
        "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status, priority) VALUES"
        f" ('release', '{gid(1)}', 'clean', 10), ('release', '{gid(2)}', 'unchecked', 300),"
        f" ('release', '{gid(3)}', 'unchecked', 10)",
    )
    report = scan(database)
    assert [report.totals[name] for name in ("written", "raised", "skipped")] == [57, 1, 2]
    assert (rows(database)[gid(2)], rows(database)[gid(3)]) == (300, 100)
    assert gid(1) not in rows(database)


def test_partitions_share_the_gids(database: str, archive: Archive) -> None:
    reports = [scan(database, {"partition": Partition(index, 3)}) for index in range(3)]
    assert [report.exit_code for report in reports] == [0, 0, 0]
    assert [report.totals["written"] for report in reports] == [20, 20, 20]
    assert [coverage(report).expected for report in reports] == [16, 16, 16]


def test_a_dry_run_changes_nothing_and_forgets_where_it_was(
    database: str, archive: Archive
) -> None:
    report = scan(database, {"dry_run": True})
    assert report.totals["written"] == 60
    assert (report.exit_code, coverage(report).actual) == (0, 60)
    assert (rows(database), query(database, STANDING)) == ({}, [])


# -- scans that see too little --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has_credentials", "text"),
    [
        (False, "set ARCHIVE_ORG_ACCESS_KEY and ARCHIVE_ORG_SECRET_KEY"),
        (True, "seems to have no rights on coverartarchive"),
    ],
)
def test_an_implausibly_small_scan_says_what_is_missing(
    database: str, archive: Archive, has_credentials: bool, text: str
) -> None:
    archive.has_credentials = has_credentials
    archive.pages[CAA] = [identifiers(1, 2, 3)]
    report = scan(database)
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    assert not coverage(report).ok
    for part in (text, "--from-list", "seed-from-mb --source merged --source deleted"):
        assert part in coverage(report).detail
    assert any("ACCESS_KEY" in problem.what for problem in report.problems) is not has_credentials


def test_items_that_are_missing_here_and_there_are_plausible(
    database: str, archive: Archive
) -> None:
    archive.pages[CAA] = [identifiers(*(n for n in range(48) if n % 16))]
    assert scan(database).exit_code == 0


# -- stopping and going on ------------------------------------------------------------------------


def test_a_limit_is_rounded_up_to_whole_pages_and_the_next_run_goes_on(
    database: str, archive: Archive
) -> None:
    report = scan(database, {"limit": 15})
    assert (report.outcome, report.exit_code) == (Outcome.STOPPED, 0)
    assert len(rows(database)) == 20
    assert query(database, STANDING) == [("2", 2, 20, 0, 20)]
    (note,) = report.notes
    assert (note.value, note.detail.partition(";")[0]) == (20, "of 48")
    assert "the scan has not reached its end" in note.detail
    report = scan(database)
    assert [cursor for _, cursor in archive.asked] == [None, "1", "2", "3", "4", "5"]
    assert report.outcome is Outcome.VERIFIED
    assert (report.totals["written"], coverage(report).actual) == (40, 60)
    assert query(database, STANDING) == [(None, 6, 60, 0, 60)]


def test_runs_with_a_limit_reach_the_second_collection(database: str, archive: Archive) -> None:
    archive.pages[EAA] = [identifiers(100, 101)]
    for _ in range(3):
        scan(database, {"limit": 30}, archives=[RELEASES, EVENTS])
    assert [collection for collection, _ in archive.asked[:7]] == [*[CAA] * 6, EAA]


def test_after_its_end_a_scan_begins_anew(database: str, archive: Archive) -> None:
    scan(database)
    report = scan(database)
    assert (report.outcome, report.totals["skipped"]) == (Outcome.VERIFIED, 60)
    assert query(database, STANDING) == [(None, 6, 60, 0, 60)]


def test_restart_forgets_where_the_scan_stood(database: str, archive: Archive) -> None:
    scan(database, {"limit": 15})
    report = scan(database, restart=True)
    assert [cursor for _, cursor in archive.asked[2:]] == [None, "1", "2", "3", "4", "5"]
    assert query(database, STANDING) == [(None, 6, 60, 0, 60)]
    assert coverage(report).actual == 60


def test_a_scan_made_without_rights_is_not_gone_on_with(database: str, archive: Archive) -> None:
    archive.has_credentials = False
    scan(database, {"limit": 15})
    archive.has_credentials = True
    scan(database)
    assert [cursor for _, cursor in archive.asked[2:]][:2] == [None, "1"]


def test_an_expired_cursor_starts_over_harmlessly(database: str, archive: Archive) -> None:
    scan(database, {"limit": 15})
    archive.instead[3] = CursorRefused("cursor is not valid", service="archive.org")
    report = scan(database)
    assert [cursor for _, cursor in archive.asked[2:]] == ["2", None, "1", "2", "3", "4", "5"]
    assert (report.outcome, coverage(report).actual) == (Outcome.VERIFIED, 60)
    assert query(database, STANDING) == [(None, 6, 60, 0, 60)]


def test_a_cursor_that_is_refused_again_ends_the_run(database: str, archive: Archive) -> None:
    archive.instead[2] = CursorRefused("cursor is not valid", service="archive.org")
    report = scan(database)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert "cursor is not valid" in report.reason


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (ScrapeError("it reports: backend trouble", service="x"), 1, Outcome.FAILED),
        (CredentialsRefused("archive.org refused KEY", service="x"), 1, Outcome.FAILED),
        (ServiceDown("archive.org is down", service="x"), 75, Outcome.INTERRUPTED),
        (Unreadable("archive.org did not answer", service="x"), 75, Outcome.INTERRUPTED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_trouble_ends_the_run_and_the_next_goes_on_at_that_page(
    database: str, archive: Archive, error: Exception, code: int, outcome: Outcome
) -> None:
    archive.instead[4] = error
    report = scan(database)
    assert (report.outcome, report.exit_code) == (outcome, code)
    assert str(error) in report.reason
    assert query(database, STANDING) == [("3", 3, 30, 0, 30)]
    assert scan(database).outcome is Outcome.VERIFIED
    assert archive.asked[4] == (CAA, "3")
    assert len(rows(database)) == 60


def test_a_page_that_breaks_our_code_is_never_skipped(database: str, archive: Archive) -> None:
    archive.instead[3] = TypeError("nobody foresaw this")
    report = scan(database)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert any("nobody foresaw this" in problem.detail for problem in report.problems)
    assert query(database, STANDING) == [("2", 2, 20, 0, 20)]


# -- answers that lead astray ---------------------------------------------------------------------


def test_a_page_that_comes_again_is_asked_for_once_more(database: str, archive: Archive) -> None:
    archive.instead[3] = archive.page(CAA, 1)
    report = scan(database)
    assert (report.outcome, len(rows(database))) == (Outcome.VERIFIED, 60)
    assert [cursor for _, cursor in archive.asked] == [None, "1", "2", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    "page",
    [
        ScrapePage(tuple(identifiers(*range(10))), "9", 60),
        ScrapePage(tuple(identifiers(77)), "1", 60),
        ScrapePage((), "2", 60),
        ScrapePage(tuple(identifiers(*range(10))), None, 60),
        ScrapePage(tuple(identifiers(*reversed(range(10)))), "9", 60),
    ],
    ids=["the first page", "an old cursor", "the same cursor", "the first and last", "shuffled"],
)
def test_answers_that_go_in_circles_end_the_run(
    database: str, archive: Archive, page: ScrapePage
) -> None:
    archive.instead = dict.fromkeys(range(3, 20), page)
    report = scan(database)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert "page 3 of coverartarchive repeats an earlier one" in report.reason
    assert len(archive.asked) == 6
    assert query(database, STANDING) == [("2", 2, 20, 0, 20)]


def test_an_answer_to_somebody_elses_query_is_asked_for_again(
    database: str, archive: Archive
) -> None:
    archive.instead[3] = ScrapePage(tuple(f"concert{n}" for n in range(50)), "elsewhere", 1)
    report = scan(database)
    assert (report.outcome, report.totals.get("foreign", 0)) == (Outcome.VERIFIED, 0)
    assert len(rows(database)) == 60


def test_a_page_without_any_gid_is_believed_once_it_has_come_twice(
    database: str, archive: Archive
) -> None:
    strangers = tuple(f"concert{n}" for n in range(50))
    archive.instead = dict.fromkeys((3, 4), ScrapePage(strangers, "3", 60))
    report = scan(database)
    assert (report.outcome, report.totals["foreign"]) == (Outcome.VERIFIED, 50)


def test_a_page_that_always_answers_another_query_ends_the_run(
    database: str, archive: Archive
) -> None:
    for n in range(3, 20):
        strangers = tuple(f"concert{n * 50 + k}" for k in range(50))
        archive.instead[n] = ScrapePage(strangers, "3", 60)
    report = scan(database)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert "page 3 of coverartarchive answers another query" in report.reason
    assert query(database, STANDING) == [("2", 2, 20, 0, 20)]


@given(st.data())
@settings(max_examples=15)
def test_fresh_cursors_that_bring_nothing_new_end_the_enumeration(data: st.DataObject) -> None:
    """Empty pages, foreign ones, and what was seen already in ever new mixtures."""
    known = identifiers(*range(40))
    pages = st.one_of(
        st.just([]),
        st.lists(st.sampled_from(known), max_size=30),
        st.lists(st.sampled_from([name.upper() for name in known]), max_size=30),
        st.lists(st.text(max_size=5), max_size=19),
    )

    class Endless(Archive):
        def page(self, collection: str, number: int) -> ScrapePage:
            page = data.draw(pages) if number else known
            return ScrapePage(tuple(page), str(number + 1), None)

    endless = Endless()
    scraped = ScrapedPages(endless, RELEASES, Partition(), threading.Event())
    with pytest.raises(RunFailed, match=r"without a new item|repeats an earlier one"):
        consume(scraped.next_page(1) for _ in range(1000))
    assert len(endless.asked) < 200


def test_pages_of_known_items_here_and_there_end_nothing(database: str, archive: Archive) -> None:
    pages = archive.pages[CAA]
    archive.pages = {CAA: [page for each in pages for page in (each, [*each, "mbid-test"])]}
    report = scan(database)
    assert report.totals["written"] == 60
    assert report.exit_code == 0


@pytest.mark.parametrize(("seen", "code"), [(60, 0), (6, 3), (59, 3)])
def test_a_total_that_is_larger_than_what_was_seen_is_not_verified(
    database: str, archive: Archive, seen: int, code: int
) -> None:
    """Although 59 of 60 are enough where MusicBrainz has 48 with art."""
    archive.pages = {CAA: [identifiers(*range(seen))]}
    archive.instead[1] = ScrapePage(tuple(identifiers(*range(seen))), None, 60)
    report = scan(database)
    assert report.exit_code == code
    total = checks(report)[f"identifiers of {CAA} against archive.org's total"]
    assert (total.expected, total.actual, total.ok) == (60, seen, seen == 60)
    assert "--accept-total" in total.detail or total.ok
    verify = driver(database).runner(job(), concurrency=1).verify()
    assert verify.exit_code == code


#: Pages of 88 that begin 80 apart: 920 of 1,000 items, in 1,008 identifiers.
OVERLAPPING = [identifiers(*range(n, min(n + 88, 920))) for n in range(0, 920, 80)]


@pytest.mark.parametrize("partitions", [1, 2])
@pytest.mark.parametrize("runs", ["one run", "a run for each page", "a dry run"])
def test_pages_that_overlap_do_not_make_up_for_those_that_are_missing(
    database: str, archive: Archive, runs: str, partitions: int
) -> None:
    archive.pages = {CAA: OVERLAPPING}
    archive.total = 1_000
    options: dict[str, Any] = {"partition": Partition(0, partitions)}
    if runs == "a run for each page":
        for _ in OVERLAPPING[1:]:
            assert scan(database, {**options, "limit": 1}).exit_code == 0
    report = scan(database, {**options, "dry_run": runs == "a dry run"})
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    total = checks(report)[f"identifiers of {CAA} against archive.org's total"]
    assert (total.expected, total.actual, total.ok) == (1_000, 920, False)
    # Of these gids, a half is in each partition.
    assert coverage(report).actual == 920 // partitions


def test_a_resumed_scan_counts_a_gid_once_that_both_runs_have_met(
    database: str, archive: Archive
) -> None:
    archive.pages[CAA][3] += identifiers(*range(10))
    scan(database, {"limit": 25})
    assert scan(database).outcome is Outcome.VERIFIED
    assert query(database, STANDING) == [(None, 6, 70, 0, 60)]


def test_a_scan_from_before_repeats_were_counted_starts_over(
    database: str, archive: Archive
) -> None:
    scan(database, {"limit": 15})
    execute(database, "UPDATE artwork_indexer.ia_scan SET seen_gids = NULL, seen_others = NULL")
    assert scan(database).exit_code == 0
    assert query(database, STANDING) == [(None, 6, 60, 0, 60)]


@pytest.mark.parametrize("size", [100, 5_000, 1_000_000])
def test_distinct_values_are_counted_in_bounded_memory(size: int) -> None:
    counted = Distinct()
    numbers = [number_of(b"%d" % n) for n in range(size)]
    for start in range(0, size, 50_000):
        counted = Distinct(counted.stored())
        counted.update(numbers[start : start + 50_000])
        # Those are known already.
        counted.update(numbers[:1_000])
    assert counted.count(size) == size
    assert counted.count(2 * size) == pytest.approx(size, rel=0.003)
    assert len(counted.stored()) <= 256 * 1024


def test_a_dry_run_with_keys_that_see_nothing_is_not_verified(
    database: str, archive: Archive
) -> None:
    archive.pages = {CAA: [[]]}
    report = scan(database, {"dry_run": True})
    assert report.exit_code == 3
    assert "seems to have no rights" in coverage(report).detail
    assert (rows(database), query(database, STANDING)) == ({}, [])


def test_a_total_can_be_overruled(database: str, archive: Archive) -> None:
    archive.instead[6] = ScrapePage(tuple(identifiers(*range(50, 60))), None, 5_000_000)
    assert scan(database).exit_code == 3
    archive.instead = {len(archive.asked) + 6: archive.instead[6]}
    assert scan(database, accept_total=True).exit_code == 0


def test_upper_case_gids_are_gids(database: str, archive: Archive) -> None:
    archive.pages = {CAA: [[name.upper() for name in page] for page in archive.pages[CAA]]}
    report = scan(database)
    assert (report.exit_code, len(rows(database))) == (0, 60)


# -- writing --------------------------------------------------------------------------------------


def test_a_page_whose_commit_was_not_heard_of_is_not_counted_twice(
    database: str, archive: Archive
) -> None:
    lost = iter([False, True])

    class Loses(job()):
        def write(self, conn: Connection, results: Sequence[Page]) -> Any:
            counts = super().write(conn, results)
            if next(lost, False):
                conn.execute("COMMIT")
                conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            return counts

    report = driver(database).run(Loses, concurrency=1)
    assert report.outcome is Outcome.VERIFIED
    assert query(database, STANDING) == [(None, 6, 60, 0, 60)]


def test_a_gid_that_is_refused_is_isolated_and_the_scan_goes_on(
    database: str, archive: Archive
) -> None:
    execute(database, f"ALTER TABLE artwork_indexer.audit_entity ADD CHECK (gid <> '{gid(33)}')")
    report = scan(database)
    assert (report.exit_code, report.totals["written"], report.totals["failed"]) == (3, 59, 1)
    assert [problem.what for problem in report.problems] == [f"{CAA}, page 4: {gid(33)}"]
    assert query(database, STANDING)[0][:3] == (None, 6, 60)


def test_a_row_that_vanishes_is_found_by_the_verification(database: str, archive: Archive) -> None:
    class Sabotaged(job()):
        def verify(self, conn: Connection, run: RunResult | None) -> Any:
            execute(database, f"DELETE FROM artwork_indexer.audit_entity WHERE gid = '{gid(4)}'")
            return super().verify(conn, run)

    report = driver(database).run(Sabotaged, concurrency=1)
    present = checks(report)[f"gids of {CAA} in audit_entity"]
    assert (report.exit_code, present.expected, present.actual) == (3, 60, 59)


def test_verification_alone_looks_at_what_is_on_record(database: str, archive: Archive) -> None:
    def verify() -> Report:
        return driver(database).runner(job(), concurrency=1).verify()

    assert (verify().exit_code, "run `artwork-backfill" in str(verify().verification)) == (3, True)
    scan(database)
    assert verify().exit_code == 0
    execute(database, "DELETE FROM artwork_indexer.audit_entity WHERE priority = 150")
    assert verify().exit_code == 3
    assert archive.asked == [(CAA, None), *((CAA, str(n)) for n in range(1, 6))]


# -- lists ----------------------------------------------------------------------------------------


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "identifiers.gz"
    lines = ["coverartarchive", "", *identifiers(*range(30)), "mbid-test\r", *identifiers(5)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_a_list_takes_the_place_of_archive_org(database: str, listed: Path) -> None:
    report = scan(database, listed=listed)
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    assert rows(database) == {gid(n): 100 if n % 5 else 150 for n in range(30)}
    assert (report.totals["identifiers"], report.totals["foreign"]) == (33, 2)
    assert checks(report)[f"gids of {CAA} in audit_entity"].expected == 30
    assert report.as_dict()["requests"] == {}
    assert query(database, STANDING) == []


def test_a_list_of_long_lines_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "list.gz"
    line = f"mbid-{gid(1)}".encode() + b"x" * 60_000
    path.write_bytes(gzip.compress(b"\n".join([line] * 1_000 + [b"mbid-" + gid(2).encode()])))
    pages = ListedPages(path, RELEASES, Partition())
    tracemalloc.start()
    try:
        page = pages.next_page(10_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (page.identifiers, page.foreign, len(page.gids)) == (1_001, 1_000, 1)
    assert max(map(len, page.examples)) == 100
    assert peak < 16_000_000


def test_a_list_can_be_verified_alone(database: str, listed: Path) -> None:
    def verify() -> Report:
        return driver(database).runner(job(listed=listed), concurrency=1).verify()

    assert not checks(verify())[f"gids of {CAA} in audit_entity"].ok
    scan(database, listed=listed)
    assert verify().exit_code == 0


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress("\n".join(identifiers(*range(30))).encode())[:-9], "cut off"),
        ("\n".join(identifiers(*range(30))).encode()[:-20], "cut off"),
        ("\n".join([*identifiers(*range(30)), "mbid-"]).encode(), "cut off"),
        ("\n".join([*identifiers(*range(30)), "\0" * 50]).encode(), "cut off"),
        (b"nonsense\n", "like mbid-GID"),
        ("\n".join(["nonsense"] * 2_000 + identifiers(1)).encode(), "like mbid-GID"),
        ("\n".join(identifiers(*range(30))).encode("utf-16"), "no text in UTF-8"),
        (b"", "like mbid-GID"),
    ],
)
def test_a_list_that_cannot_be_right_is_found_out(
    database: str, tmp_path: Path, content: bytes, what: str
) -> None:
    path = tmp_path / "identifiers"
    path.write_bytes(content)
    report = scan(database, listed=path)
    assert report.exit_code == 3
    assert any(what in check.detail for check in report.verification if not check.ok)


# -- the command, against the stand-in of archive.org ---------------------------------------------


WORLD = World(Spec(seed=12, size=400, event_share=0.2))


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with Services(WORLD.spec) as running:
        running.control("archive", page_size=20)
        yield running


@pytest.fixture
def environ(migrated_database: str, services: Services) -> dict[str, str]:
    with psycopg.connect(migrated_database, autocommit=True) as conn:
        load(conn, WORLD)
    services.control("archive", latency_s=0, reset_stats=True)
    return {
        **os.environ,
        **services.environment,
        "MUSICBRAINZ_DATABASE_URL": migrated_database,
    }


def command(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return programs.run(["seed-from-ia-scan", *arguments], environ)


def seeded(dsn: str) -> set[tuple[str, str]]:
    return set(query(dsn, "SELECT entity_type::text, gid::text FROM artwork_indexer.audit_entity"))


def collected() -> set[tuple[str, str]]:
    return {
        (entity_type.value, gid)
        for entity_type in WorldType
        for gid in WORLD.collected(entity_type, 0, WORLD.spec.size)[0]
    }


def test_a_scan_that_is_killed_is_completed_by_the_next(
    environ: dict[str, str], services: Services
) -> None:
    dsn = environ["MUSICBRAINZ_DATABASE_URL"]
    services.control("archive", latency_s=0.1)
    process = subprocess.Popen(
        [PROGRAM, "seed-from-ia-scan"], env=environ, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: any(pages >= 4 for _, pages, *_ in query(dsn, STANDING)))
    finally:
        process.kill()
        process.wait()
    services.control("archive", latency_s=0, reset_stats=True)
    before = sum(pages for _, pages, *_ in query(dsn, STANDING))
    ended = command(environ)
    assert ended.returncode == 0, ended
    assert seeded(dsn) == collected()
    pages = sum(pages for _, pages, *_ in query(dsn, STANDING))
    assert services.stats("archive").paths["scrape"] == pages - before


def test_without_keys_the_command_ends_with_code_3(environ: dict[str, str]) -> None:
    environ |= {"ARCHIVE_ORG_ACCESS_KEY": "", "ARCHIVE_ORG_SECRET_KEY": ""}
    ended = command(environ)
    assert ended.returncode == 3, ended
    assert "without keys archive.org hides these items" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--from-list", "/no/such/file"), "/no/such/file"),
        (("--from-list", __file__, "--restart"), "--restart has no effect"),
        (("--from-list", __file__, "--collection", "caa", "--collection", "eaa"), "one --coll"),
        (("--collection", "xaa"), "caa"),
    ],
)
def test_bad_usage_is_refused_with_code_2(
    environ: dict[str, str], arguments: tuple[str, ...], text: str
) -> None:
    ended = command(environ, *arguments)
    assert (ended.returncode, text in ended.stderr) == (2, True), ended
