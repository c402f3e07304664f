"""A run on a real PostgreSQL, with others writing to the library, and a scripted LML."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from artwork_backfill.jobs.library_artwork_url_backfill import library as library_module
from artwork_backfill.jobs.library_artwork_url_backfill.job import LibraryArtworkUrlBackfill
from artwork_backfill.jobs.library_artwork_url_backfill.library import Library
from artwork_backfill.shared.clients.http import ServiceDown, ServiceStats, Unreadable
from artwork_backfill.shared.clients.lml import (
    BulkAnswer,
    LmlClient,
    LmlQuery,
    LookupAnswer,
    LookupResult,
)
from artwork_backfill.shared.engine import session as db
from artwork_backfill.shared.engine.job import Partition, Run, RunOptions
from artwork_backfill.shared.engine.log import Redactor, RunLog
from artwork_backfill.shared.engine.progress import Progress
from artwork_backfill.shared.engine.report import Outcome, Report
from artwork_backfill.shared.engine.runner import Runner
from artwork_backfill.shared.engine.stop import Stopping
from artwork_backfill.shared.engine.tables import check_tables
from artwork_backfill.shared.settings import Settings
from psycopg import Connection

from sandbox import schema

SPACER = "https://st.discogs.com/images/spacer.gif"
SITE_URL = "https://site.example/cover.jpg"
#: How long anybody else may wait for a row, at most.
PATIENCE = "100ms"


def url_of(album: str) -> str:
    return f"https://i.discogs.com/{album.replace(' ', '-')}.jpeg"


class FakeLml:
    """Knows every album, but for those whose title says otherwise."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.before_answer: Callable[[Sequence[LmlQuery]], None] = lambda _: None

    def lookup_bulk(self, queries: Sequence[LmlQuery]) -> tuple[BulkAnswer, ...]:
        self.asked.update(query.album for query in queries)
        self.before_answer(queries)
        return tuple(self._answer(index, query) for index, query in enumerate(queries))

    def lookup(self, query: LmlQuery) -> LookupAnswer:
        self.asked[query.album] += 1
        self.before_answer([query])
        if "error" in query.album:
            raise Unreadable("HTTP 500", service="LML")
        return LookupAnswer(self._results(query))

    name = "LML"

    def stats(self) -> ServiceStats:
        return ServiceStats(0, 0, 0, 0.0, 0.0)

    def close(self) -> None:
        pass

    def _answer(self, index: int, query: LmlQuery) -> BulkAnswer:
        if "error" in query.album:
            return BulkAnswer(index, "error", None, "TimeoutError")
        results = self._results(query)
        answer = LookupAnswer(results) if results else None
        return BulkAnswer(index, "match" if results else "no_match", answer, None)

    def _results(self, query: LmlQuery) -> tuple[LookupResult, ...]:
        kind, url = query.album.split()[0], url_of(query.album)
        match kind:
            case "unknown":
                return ()
            case "other":
                return (LookupResult(5, "Something else", query.artist, url),)
            case "bare":
                return (LookupResult(5, query.album, query.artist, None),)
            case "spacer":
                return (LookupResult(5, query.album, query.artist, SPACER),)
            case "bad":
                return (LookupResult(5, query.album, query.artist, "ftp://img.example/1"),)
            case _:
                return (LookupResult(5, query.album, query.artist, url),)


@pytest.fixture
def lml(monkeypatch: pytest.MonkeyPatch) -> FakeLml:
    fake = FakeLml()
    monkeypatch.setattr(LmlClient, "from_settings", lambda *_, **__: fake)
    return fake


class Shelves:
    """A library database that a test fills, looks at and runs the job on."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.execute(
            "INSERT INTO artists (artist_name, discogs_artist_id)"
            " VALUES ('Stereolab', 500), ('Nobody', NULL), ('  ', 501)"
        )

    @contextmanager
    def session(self, *, autocommit: bool = True) -> Iterator[Connection]:
        options = "-c search_path=wxyc_schema"
        with psycopg.connect(self.dsn, autocommit=autocommit, options=options) as conn:
            yield conn

    def execute(self, statement: str, *values: object) -> None:
        with self.session() as conn:
            conn.execute(statement.encode(), values)

    def add(self, *titles: str, artist: int = 1, url: str | None = None) -> None:
        with self.session() as conn:
            conn.cursor().executemany(
                "INSERT INTO library (artist_id, album_title, artwork_url) VALUES (%s, %s, %s)",
                [(artist, title, url) for title in titles],
            )

    def add_albums(self, count: int) -> None:
        self.add(*(f"Album {number}" for number in range(1, count + 1)))

    def urls(self) -> dict[str, str | None]:
        """The artwork by title."""
        with self.session() as conn:
            return dict(conn.execute("SELECT album_title, artwork_url FROM library").fetchall())

    def run(self, *, accept_first: bool = False, **options: Any) -> Report:
        stopping = Stopping()
        chosen = RunOptions(**{"batch_size": 800, "concurrency": 4, **options})
        run = Run(
            uuid.uuid4(),
            chosen,
            Settings({"WXYC_DATABASE_URL": self.dsn}),
            stopping.event,
            lambda: db.connect(self.dsn, "test"),
        )
        job = LibraryArtworkUrlBackfill(run, accept_first=accept_first)
        log = RunLog(job.name, run.id, Redactor(()))
        return Runner(
            job,
            run,
            log=log,
            progress=Progress(log, None),
            stopping=stopping,
        ).run()


@pytest.fixture
def shelves(wxyc_database: str) -> Shelves:
    return Shelves(wxyc_database)


def ended(report: Report) -> tuple[Outcome, int]:
    return report.outcome, report.exit_code


VERIFIED = (Outcome.VERIFIED, 0)


# -- what is written -------------------------------------------------------------------------------


def test_every_candidate_gets_its_cover_or_a_reason(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add("Album 1", "unknown", "other", "bare", "spacer", "bad", " ", "Album 2")
    shelves.add("Album 3", artist=2)
    shelves.add("Album 4", artist=3)
    shelves.add("Album 5", url=SITE_URL)
    shelves.add("Album 6")
    shelves.execute("UPDATE library SET discogs_unavailable = true WHERE album_title = 'Album 6'")
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert report.totals == {
        "scanned": 9,
        "written": 2,
        "skipped": 7,
        "failed": 0,
        "no_match": 1,
        "other_album": 1,
        "no_artwork": 1,
        "placeholder": 1,
        "bad_url": 1,
        "no_name": 2,
    }
    filled = {title: url for title, url in shelves.urls().items() if url is not None}
    assert filled == {
        "Album 1": url_of("Album 1"),
        "Album 2": url_of("Album 2"),
        "Album 5": SITE_URL,
    }
    assert set(lml.asked.values()) == {1}
    assert lml.asked.keys().isdisjoint({"", " ", "Album 3", "Album 4", "Album 5", "Album 6"})
    assert [(check.name, check.expected, check.actual) for check in report.verification] == [
        ("rows that gained artwork", 2, 2),
        ("candidates left", 7, 7),
    ]


def test_accept_first_takes_another_album(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add("other")
    assert shelves.run(accept_first=True).totals["written"] == 1
    assert shelves.urls() == {"other": url_of("other")}


def test_a_rerun_asks_again_for_what_was_left_and_for_nothing_else(
    shelves: Shelves, lml: FakeLml
) -> None:
    shelves.add("Album 1", "Album 2", "unknown")
    shelves.run()
    lml.asked.clear()
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert (report.totals["scanned"], report.totals["written"]) == (1, 0)
    assert lml.asked == {"unknown": 1}


def test_no_row_is_asked_twice_in_a_run_of_many_batches(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(1050)
    report = shelves.run(batch_size=150)
    assert report.totals["written"] == 1050
    assert len(lml.asked) == 1050
    assert set(lml.asked.values()) == {1}


def test_a_limit_stops_early_and_the_next_run_goes_on(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(30)
    report = shelves.run(limit=20)
    assert ended(report) == (Outcome.STOPPED, 0)
    assert report.totals["written"] == 20
    assert all(check.ok for check in report.verification)
    assert shelves.run().totals["written"] == 10
    assert set(lml.asked.values()) == {1}


def test_a_dry_run_counts_and_changes_nothing(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add("Album 1", "unknown", "error")
    report = shelves.run(dry_run=True)
    assert report.totals["written"] == 1
    assert report.totals["no_match"] == 1
    assert set(shelves.urls().values()) == {None}


def test_partitions_share_the_rows(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(100)
    shares = [shelves.run(partition=Partition(index, 3)) for index in range(3)]
    assert [ended(report) for report in shares] == [VERIFIED] * 3
    assert [report.totals["written"] for report in shares] == [33, 34, 33]
    assert set(lml.asked.values()) == {1}


def test_large_batches_are_cut_down(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(900)
    report = shelves.run(batch_size=100_000)
    assert report.totals["written"] == 900


# -- when LML fails --------------------------------------------------------------------------------


def test_an_album_that_lml_fails_on_is_reported_and_left(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add("Album 1", "error", "Album 2")
    report = shelves.run()
    assert ended(report) == (Outcome.UNVERIFIED, 3)
    assert (report.totals["written"], report.totals["failed"]) == (2, 1)
    assert [(problem.what, problem.detail) for problem in report.problems] == [
        ("library row 2 (Stereolab - error)", "HTTP 500")
    ]
    assert [check.name for check in report.verification if not check.ok] == [
        "rows left as they were"
    ]
    # Once with the others, and once alone.
    assert lml.asked["error"] == 2
    assert shelves.urls()["error"] is None


def test_a_group_without_an_answer_is_asked_one_by_one(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(5)

    def refuse_groups(queries: Sequence[LmlQuery]) -> None:
        if len(queries) > 1:
            raise Unreadable("HTTP 502", service="LML")

    lml.before_answer = refuse_groups
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert report.totals["written"] == 5


def test_lml_going_down_ends_the_run_as_planned_with_the_rest_committed(
    shelves: Shelves, lml: FakeLml
) -> None:
    shelves.add_albums(40)
    seen: list[int] = []

    def go_down(_: Sequence[LmlQuery]) -> None:
        seen.append(1)
        if len(seen) > 2:
            raise ServiceDown("LML is down: HTTP 503", service="LML")

    lml.before_answer = go_down
    report = shelves.run(batch_size=10, fixed_batch_size=True, concurrency=1)
    assert ended(report) == (Outcome.INTERRUPTED, 75)
    assert report.reason == "LML is down: HTTP 503"
    assert report.totals["written"] == 20
    assert sum(url is not None for url in shelves.urls().values()) == 20
    lml.before_answer = lambda _: None
    assert shelves.run().totals["written"] == 20


# -- while others write ----------------------------------------------------------------------------


def test_what_the_live_site_fills_meanwhile_stays_as_it_is(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add("Album 1", "Album 2", "unknown", "Album 3")

    def fill(_: Sequence[LmlQuery]) -> None:
        shelves.execute(
            "UPDATE library SET artwork_url = %s WHERE album_title IN ('Album 2', 'unknown')",
            SITE_URL,
        )

    lml.before_answer = fill
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert (report.totals["written"], report.totals["raced"]) == (2, 1)
    assert shelves.urls() == {
        "Album 1": url_of("Album 1"),
        "Album 2": SITE_URL,
        "unknown": SITE_URL,
        "Album 3": url_of("Album 3"),
    }
    gains = report.verification[0]
    assert (gains.expected, gains.actual) == (3, 4)
    assert "1 filled by the live site" in gains.detail


def test_a_row_that_is_deleted_meanwhile_is_no_row_written(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add("Album 1", "Album 2")
    lml.before_answer = lambda _: shelves.execute("DELETE FROM library WHERE id = 2")
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert (report.totals["written"], report.totals["gone"]) == (1, 1)


def test_a_row_that_is_locked_all_the_time_holds_up_nobody(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(3)
    with shelves.session(autocommit=False) as site:
        site.execute("UPDATE library SET album_title = album_title WHERE id = 2")
        report = shelves.run()
    assert ended(report) == VERIFIED
    assert (report.totals["written"], report.totals["busy"]) == (2, 1)
    assert shelves.run().totals["written"] == 1


def test_a_row_that_is_locked_for_a_moment_is_written(
    shelves: Shelves, lml: FakeLml, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelves.add_albums(3)
    with shelves.session(autocommit=False) as site:
        site.execute("UPDATE library SET album_title = album_title WHERE id = 2")
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 2:
                site.commit()

        monkeypatch.setattr(library_module.time, "sleep", pause)
        report = shelves.run()
    assert report.totals["written"] == 3
    assert sum(pauses) < 0.05


def test_nobody_waits_long_for_a_row(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(6000)
    lml.before_answer = lambda _: None
    finished = threading.Event()
    updates: list[int] = []
    failures: list[psycopg.Error] = []

    def be_the_live_site() -> None:
        with shelves.session() as conn:
            conn.execute(f"SET lock_timeout = '{PATIENCE}'".encode())
            while not finished.is_set():
                try:
                    # In the order in which the job writes, so that both meet again and again.
                    for id_ in range(1, 6001, 7):
                        conn.execute(
                            "UPDATE library SET album_title = album_title WHERE id = %s", (id_,)
                        )
                        updates.append(id_)
                except psycopg.Error as error:
                    failures.append(error)

    site = threading.Thread(target=be_the_live_site)
    site.start()
    try:
        report = shelves.run()
    finally:
        finished.set()
        site.join()
    assert failures == []
    assert len(updates) > 100
    assert ended(report) == VERIFIED
    assert report.totals["written"] + report.totals.get("busy", 0) == 6000


def test_the_site_and_the_job_together_fill_each_row_once(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(2000)
    finished = threading.Event()
    filled_by_site: set[str] = set()

    def be_the_live_site() -> None:
        with shelves.session() as conn:
            for number in range(2000, 0, -3):
                if finished.is_set():
                    return
                filled_by_site.update(
                    title
                    for (title,) in conn.execute(
                        "UPDATE library SET artwork_url = %s WHERE id = %s AND artwork_url IS NULL"
                        " RETURNING album_title",
                        (SITE_URL, number),
                    )
                )

    site = threading.Thread(target=be_the_live_site)
    site.start()
    try:
        report = shelves.run(batch_size=200)
    finally:
        finished.set()
        site.join()
    assert ended(report) == VERIFIED
    for title, url in shelves.urls().items():
        assert url == (SITE_URL if title in filled_by_site else url_of(title))


# -- databases of other kinds ----------------------------------------------------------------------


@pytest.mark.parametrize("schema_name", ["radio", "WxycNew", "order"])
def test_the_library_may_be_in_a_schema_of_any_name(empty_database: str, schema_name: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as conn:
        schema.create_wxyc(conn, schema_name, discogs_unavailable=False)
        check_tables(
            conn,
            LibraryArtworkUrlBackfill.tables_for(Settings({"WXYC_SCHEMA_NAME": schema_name})),
        )
        census = Library(schema_name, Partition()).take_census(conn)
    assert (census.last, census.candidates) == (0, frozenset())


def test_the_library_is_claimed_by_its_primary_key(shelves: Shelves) -> None:
    shelves.add_albums(3000)
    shelves.execute("ANALYZE")
    with shelves.session() as conn:
        library = Library("wxyc_schema", Partition())
        page = library.read_page(conn, after=1000, last=2500, size=800)
        assert [row.id for row in page] == list(range(1001, 1801))
        assert len(library.read_page(conn, after=1800, last=2500, size=800)) == 700
