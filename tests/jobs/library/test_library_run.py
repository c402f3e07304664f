"""A run on a real PostgreSQL, with others writing to the library, and a scripted LML."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import Connection

from artwork_backfill.jobs.library_artwork_url_backfill.job import (
    LibraryArtworkUrlBackfill,
    Options,
)
from artwork_backfill.jobs.library_artwork_url_backfill.library import Candidates, read_shape
from artwork_backfill.shared.clients.http import ServiceDown, Unreadable
from artwork_backfill.shared.clients.lml import LmlQuery
from artwork_backfill.shared.engine.errors import DatabaseError
from artwork_backfill.shared.engine.job import Partition
from artwork_backfill.shared.engine.report import Outcome, Report
from artwork_backfill.shared.engine.tables import check_tables
from artwork_backfill.shared.settings import Settings
from sandbox import schema
from tests.jobs.library.shelves import SITE_URL, FakeLml, Shelves, number_of, url_of
from tests.timing import Metronome
from tests.tiny import wait_for

#: How long anybody else may wait for a row, at most.
PATIENCE = "100ms"

#: A machine that keeps a process waiting for this long meanwhile proves nothing about locks.
BUSY_S = 0.02


def ended(report: Report) -> tuple[Outcome, int]:
    return report.outcome, report.exit_code


VERIFIED = (Outcome.VERIFIED, 0)


# -- what is written -------------------------------------------------------------------------------


def test_every_candidate_gets_its_cover_or_a_reason(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add("1 Album", "unknown", "other", "stranger", "bare", "spacer", "photo", "bad", " ")
    shelves.add("2 Album")
    shelves.add("3 Album", artist=2)
    shelves.add("4 Album", artist=3)
    shelves.add("5 Album", url=SITE_URL)
    shelves.add("6 Album")
    shelves.execute("UPDATE library SET discogs_unavailable = true WHERE album_title = '6 Album'")
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert report.totals == {
        "scanned": 11,
        "written": 2,
        "skipped": 9,
        "failed": 0,
        "no_match": 1,
        "other_album": 1,
        "other_artist": 1,
        "no_artwork": 1,
        "placeholder": 1,
        "not_a_cover": 1,
        "bad_url": 1,
        "no_name": 2,
    }
    assert shelves.filled() == {
        "1 Album": url_of("1 Album"),
        "2 Album": url_of("2 Album"),
        "5 Album": SITE_URL,
    }
    assert set(lml.asked.values()) == {1}
    assert lml.asked.keys().isdisjoint({"", " ", "3 Album", "4 Album", "5 Album", "6 Album"})


def test_accept_first_takes_another_album_but_no_photo(shelves: Shelves) -> None:
    shelves.add("other", "photo")
    report = shelves.run(Options(accept_first=True))
    assert (report.totals["written"], report.totals["not_a_cover"]) == (1, 1)
    assert shelves.filled() == {"other": url_of("other")}


def test_html_entities_are_no_part_of_what_is_asked_for(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add("Rock &amp; Roll")
    shelves.run()
    assert lml.asked == {"Rock & Roll": 1}
    assert shelves.filled() == {"Rock &amp; Roll": url_of("Rock & Roll")}


def test_ids_of_the_catalogue_are_trusted_where_they_are_sure(
    shelves: Shelves, lml: FakeLml
) -> None:
    names = [f"other {tree}" for tree in ("ash", "box", "elm", "fir", "oak", "yew")]
    shelves.add(*names)
    entities = [
        (f"discogs:release:{number_of(names[0])}", None),
        (f"discogs:{number_of(names[1])}", 0.95),
        # Found by a fuzzy search, of another source, or of another kind.
        (f"discogs:release:{number_of(names[2])}", 0.5),
        (f"musicbrainz:{number_of(names[3])}", 1.0),
        (f"discogs:master:{number_of(names[4])}", 1.0),
        (None, None),
    ]
    for id_, (entity, confidence) in enumerate(entities, 1):
        shelves.execute(
            "UPDATE library SET canonical_entity_id = %s, canonical_entity_confidence = %s"
            " WHERE id = %s",
            entity,
            confidence,
            id_,
        )
    shelves.run()
    assert shelves.filled().keys() == {names[0], names[1]}


def test_an_id_counts_as_lmls_own_unless_another_column_has_it_too(shelves: Shelves) -> None:
    names = ["other ash", "other box"]
    shelves.add(*names)
    shelves.execute("UPDATE library SET canonical_entity_confidence = 0.95")
    for id_, name in enumerate(names, 1):
        shelves.execute(
            "UPDATE library SET canonical_entity_id = %s WHERE id = %s",
            f"discogs:{number_of(name)}",
            id_,
        )
    shelves.execute(
        "INSERT INTO library_identity (library_id, discogs_release_id, method, confidence)"
        " VALUES (2, %s, 'librarian', 1)",
        number_of(names[1]),
    )
    report = shelves.run(Options(write_rate=None, min_confidence=0.95))
    assert report.totals["low_confidence"] == 1
    assert shelves.filled().keys() == {names[1]}


def test_a_confidence_of_exactly_the_threshold_is_enough(shelves: Shelves) -> None:
    shelves.add("other elm")
    # The column is REAL, in which 0.9 is a little less than the double precision 0.9.
    shelves.execute(
        "INSERT INTO library_identity (library_id, discogs_release_id, confidence)"
        " VALUES (1, %s, 0.9)",
        number_of("other elm"),
    )
    shelves.run()
    assert shelves.filled().keys() == {"other elm"}


def test_a_rerun_asks_again_for_what_was_left_and_for_nothing_else(
    shelves: Shelves, lml: FakeLml
) -> None:
    shelves.add("1 Album", "2 Album", "unknown")
    shelves.run()
    lml.asked.clear()
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert (report.totals["scanned"], report.totals["written"]) == (1, 0)
    assert lml.asked == {"unknown": 1}


def test_no_row_is_asked_twice_in_a_run_of_many_batches(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(450)
    report = shelves.run(batch_size=100_000)
    assert report.totals["written"] == 450
    assert len(lml.asked) == 450
    assert set(lml.asked.values()) == {1}


def test_a_limit_stops_early_and_the_next_run_continues(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(30)
    report = shelves.run(limit=20)
    assert ended(report) == (Outcome.STOPPED, 0)
    assert report.totals["written"] == 20
    assert shelves.run().totals["written"] == 10
    assert set(lml.asked.values()) == {1}


def test_a_dry_run_counts_and_changes_nothing(shelves: Shelves) -> None:
    shelves.add("1 Album", "unknown", "error")
    before = shelves.watermark()
    report = shelves.run(dry_run=True)
    assert report.totals["written"] == 1
    assert report.totals["no_match"] == 1
    assert shelves.filled() == {}
    assert shelves.watermark() == before


def test_partitions_share_the_rows(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(100)
    shares = [shelves.run(partition=Partition(index, 3)) for index in range(3)]
    assert [ended(report) for report in shares] == [VERIFIED] * 3
    assert [report.totals["written"] for report in shares] == [33, 34, 33]
    assert set(lml.asked.values()) == {1}


@pytest.mark.parametrize("dry_run", [False, True])
def test_one_picture_for_two_albums_is_refused_also_across_batches(
    shelves: Shelves, dry_run: bool
) -> None:
    shelves.add("shared 1")
    shelves.add_albums(100)
    shelves.add("shared 2", "shared 1")
    report = shelves.run(dry_run=dry_run)
    # The last two come in one batch; the last is a copy of the first, but may be of the other.
    assert (report.totals["written"], report.totals["shared_url"]) == (101, 2)
    shelves.add("shared 3")
    assert shelves.run().totals["shared_url"] in (2, 3)
    assert not {"shared 2", "shared 3"} & shelves.filled().keys()


def test_a_picture_that_another_album_of_the_artist_has_is_refused(shelves: Shelves) -> None:
    shelves.add("2 Album", url=url_of("1 Album"))
    shelves.add("1 Album")
    report = shelves.run()
    assert report.totals["shared_url"] == 1
    # A copy of the same album, and another artist's, are no reason.
    shelves.execute("UPDATE library SET album_title = '1 album (Deluxe)' WHERE id = 1")
    assert shelves.run().totals["written"] == 1


# -- when LML fails --------------------------------------------------------------------------------


def test_an_album_that_lml_cannot_speak_of_is_reported_and_left(
    shelves: Shelves, lml: FakeLml
) -> None:
    shelves.add("1 Album", "error", "timeout", "2 Album")
    report = shelves.run()
    assert ended(report) == (Outcome.UNVERIFIED, 3)
    assert (report.totals["written"], report.totals["failed"]) == (2, 2)
    assert report.totals["could_not_say"] == 2
    assert [(problem.what, problem.detail) for problem in report.problems] == [
        ("library row 2 (Stereolab - error)", "HTTP 500"),
        ("library row 3 (Stereolab - timeout)", "LML gave up looking (timeout)"),
    ]
    # Once with the others, and once alone.
    assert lml.asked["error"] == 2
    assert shelves.urls()["error"] is None


def test_lookups_that_all_fail_are_no_success_under_a_limit_either(shelves: Shelves) -> None:
    shelves.add(*(f"timeout {number}" for number in range(10)))
    report = shelves.run(limit=5)
    assert report.exit_code == 3
    assert report.totals["failed"] == 5


def test_each_row_that_fails_or_is_refused_has_a_line_with_its_id(
    shelves: Shelves, caplog: pytest.LogCaptureFixture
) -> None:
    shelves.add("1 Album", "timeout", "other")
    with caplog.at_level(logging.INFO):
        shelves.run()
    found = {
        record.fields["library_id"]: (record.levelname, record.fields["reason"])
        for record in caplog.records
        if "library_id" in getattr(record, "fields", {})
    }
    assert found == {2: ("WARNING", "could_not_say"), 3: ("INFO", "other_album")}


def test_a_group_without_an_answer_is_asked_one_by_one(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(5)

    def refuse_groups(queries: Sequence[LmlQuery]) -> None:
        if len(queries) > 1:
            raise Unreadable("HTTP 502", service="LML", status=502)

    lml.before_answer = refuse_groups
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert report.totals["written"] == 5


def test_lml_going_down_ends_the_run_with_the_rest_committed(
    shelves: Shelves, lml: FakeLml
) -> None:
    shelves.add_albums(40)
    seen: list[int] = []

    def go_down(_: Sequence[LmlQuery]) -> None:
        seen.append(1)
        if len(seen) > 4:
            raise ServiceDown("LML is down: HTTP 503", service="LML")

    lml.before_answer = go_down
    report = shelves.run(batch_size=10, fixed_batch_size=True)
    assert ended(report) == (Outcome.INTERRUPTED, 75)
    assert report.reason == "LML is down: HTTP 503"
    assert report.totals["written"] == 20
    assert len(shelves.filled()) == 20
    lml.before_answer = lambda _: None
    assert shelves.run().totals["written"] == 20


# -- while others write ----------------------------------------------------------------------------


def test_what_the_live_site_fills_meanwhile_stays_as_it_is(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add("1 Album", "2 Album", "unknown", "3 Album")
    lml.before_answer = lambda _: shelves.execute(
        "UPDATE library SET artwork_url = %s WHERE album_title IN ('2 Album', 'unknown')", SITE_URL
    )
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert (report.totals["written"], report.totals["raced"]) == (2, 1)
    assert shelves.urls() == {
        "1 Album": url_of("1 Album"),
        "2 Album": SITE_URL,
        "unknown": SITE_URL,
        "3 Album": url_of("3 Album"),
    }


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE library SET album_title = '2 Albums' WHERE id = 2",
        "UPDATE library SET artist_id = 3 WHERE id = 2",
        "UPDATE artists SET artist_name = 'McCarthy' WHERE id = 1",
        "UPDATE library SET discogs_unavailable = true WHERE id = 2",
    ],
)
def test_a_row_that_is_not_as_it_was_asked_for_stays_empty(
    shelves: Shelves, lml: FakeLml, change: str
) -> None:
    shelves.add("1 Album", "2 Album")
    lml.before_answer = lambda _: shelves.execute(change)
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert report.totals["changed"] >= 1
    assert shelves.filled().keys() <= {"1 Album"}


def test_a_row_that_is_deleted_meanwhile_is_no_row_written(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add("1 Album", "2 Album")
    lml.before_answer = lambda _: shelves.execute("DELETE FROM library WHERE id = 2")
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert (report.totals["written"], report.totals["gone"]) == (1, 1)


def test_a_row_that_is_emptied_again_is_noticed(shelves: Shelves, lml: FakeLml) -> None:
    shelves.add_albums(10)

    def empty(queries: Sequence[LmlQuery]) -> None:
        if queries[0].album == "6 Album":
            wait_for(lambda: len(shelves.filled()) == 5)
            shelves.execute("UPDATE library SET artwork_url = NULL WHERE id = 1")

    lml.before_answer = empty
    report = shelves.run(batch_size=5, fixed_batch_size=True)
    assert ended(report) == (Outcome.UNVERIFIED, 3)
    assert report.verification[0].actual == 1


def test_a_row_that_is_locked_all_the_time_holds_up_nobody(shelves: Shelves) -> None:
    shelves.add_albums(3)
    with shelves.session(autocommit=False) as site:
        site.execute("SELECT FROM library WHERE id = 2 FOR UPDATE")
        report = shelves.run()
    assert ended(report) == VERIFIED
    assert (report.totals["written"], report.totals["busy"]) == (2, 1)
    assert report.reason == "1 rows were deferred to a later run"
    assert shelves.run().totals["written"] == 1


def test_nothing_is_left_only_if_no_candidate_is(shelves: Shelves) -> None:
    shelves.add("1 Album", "unknown")
    report = shelves.run()
    assert ended(report) == VERIFIED
    assert report.reason == "all rows were processed, and 1 rows are left"
    shelves.execute("UPDATE library SET album_title = '2 Album' WHERE id = 2")
    assert shelves.run().reason == "nothing is left to do"


@contextmanager
def live_site(shelves: Shelves, work: Callable[[Connection], None]) -> Iterator[list[float]]:
    """Work at something all the time; yield how long each round took. No lock may take long."""
    finished = threading.Event()
    rounds: list[float] = []
    failures: list[psycopg.Error] = []
    metronome = Metronome()

    def be_the_live_site() -> None:
        with shelves.session() as conn:
            conn.execute(f"SET lock_timeout = '{PATIENCE}'".encode())
            while not finished.is_set():
                began, late = time.monotonic(), metronome.late_s
                try:
                    work(conn)
                except psycopg.Error as error:
                    time.sleep(BUSY_S)  # until the metronome has counted a delay
                    # The session that has the lock has waited for the machine as well.
                    if metronome.late_s - late < BUSY_S:
                        failures.append(error)
                rounds.append(time.monotonic() - began)

    site = threading.Thread(target=be_the_live_site)
    with metronome:
        site.start()
        try:
            yield rounds
        finally:
            finished.set()
            site.join()
    assert failures == []


def test_nobody_waits_long_for_a_row_or_the_watermark(shelves: Shelves) -> None:
    shelves.add_albums(2000)
    # Many rounds of a few updates, whatever else this machine has to do.
    ids = itertools.cycle(range(1, 2001, 7))

    def rename(conn: Connection) -> None:
        # In the order in which the job writes, so that both meet again and again.
        for id_ in itertools.islice(ids, 20):
            conn.execute("UPDATE library SET album_title = album_title WHERE id = %s", (id_,))

    with live_site(shelves, rename) as rounds:
        report = shelves.run()
    assert len(rounds) > 1
    assert ended(report) == VERIFIED
    assert report.totals["written"] + report.totals.get("busy", 0) == 2000


@pytest.mark.parametrize("seconds", [1.5, pytest.param(25.0, marks=pytest.mark.long)])
def test_nobody_waits_for_a_batch_that_cannot_have_the_watermark(
    shelves: Shelves, seconds: float
) -> None:
    """A third session keeps a transaction on the library open; a librarian counts plays."""
    shelves.add_albums(300)

    def count_plays(conn: Connection) -> None:
        for id_ in range(1, 301, 3):
            conn.execute("UPDATE library SET plays = plays + 1 WHERE id = %s", (id_,))

    with shelves.session(autocommit=False) as etl, live_site(shelves, count_plays) as rounds:
        etl.execute("UPDATE library SET label = 'Duophonic' WHERE id = 300")
        running = threading.Thread(target=shelves.run)
        running.start()
        time.sleep(seconds)
        assert len(rounds) > 1
        assert shelves.filled() == {}
        etl.commit()
        running.join()
    assert len(shelves.filled()) == 300


def test_the_watermark_moves_only_when_something_is_written(shelves: Shelves) -> None:
    shelves.add("unknown", "photo", "2 Album")
    shelves.execute("UPDATE library SET artwork_url = NULL")
    before = shelves.watermark()
    shelves.lml.before_answer = lambda _: shelves.execute(
        "UPDATE library SET discogs_unavailable = true WHERE album_title = '2 Album'"
    )
    report = shelves.run()
    assert (report.totals["written"], report.totals["changed"]) == (0, 1)
    assert shelves.watermark() == before
    shelves.execute("UPDATE library SET discogs_unavailable = false")
    shelves.lml.before_answer = lambda _: None
    assert shelves.run().totals["written"] == 1
    assert shelves.watermark() != before


def test_rows_are_written_no_faster_than_the_live_site_can_hear_of_them(shelves: Shelves) -> None:
    shelves.add_albums(60)
    began = time.monotonic()
    shelves.run(Options(write_rate=40.0))
    assert time.monotonic() - began >= 1.4


def test_it_pauses_between_batches_that_wrote_something(shelves: Shelves) -> None:
    shelves.add_albums(10)
    began = time.monotonic()
    shelves.run(Options(write_rate=None, pause_between=0.3), batch_size=5, fixed_batch_size=True)
    assert time.monotonic() - began >= 0.6


def test_the_site_and_the_job_together_fill_each_row_once(shelves: Shelves) -> None:
    shelves.add_albums(700)
    filled_by_site: set[str] = set()
    numbers = iter(range(700, 0, -3))

    def fill(conn: Connection) -> None:
        number = next(numbers, 0)
        filled_by_site.update(
            title
            for (title,) in conn.execute(
                "UPDATE library SET artwork_url = %s WHERE id = %s AND artwork_url IS NULL"
                " RETURNING album_title",
                (SITE_URL, number),
            )
        )

    with live_site(shelves, fill):
        report = shelves.run()
    assert ended(report) == VERIFIED
    for title, url in shelves.urls().items():
        assert url in ({SITE_URL} if title in filled_by_site else {url_of(title), None})
    assert len(shelves.filled()) >= 700 - report.totals.get("busy", 0)


# -- databases of other kinds, and rights ----------------------------------------------------------


@pytest.mark.parametrize("schema_name", ["radio", "WxycNew", "order"])
@pytest.mark.parametrize("is_old", [True, False])
def test_the_library_may_be_old_and_in_a_schema_of_any_name(
    empty_database: str, schema_name: str, is_old: bool
) -> None:
    with psycopg.connect(empty_database, autocommit=True) as conn:
        schema.create_wxyc(conn, schema_name, is_old=is_old)
        tables = LibraryArtworkUrlBackfill.tables_for(Settings({"WXYC_SCHEMA_NAME": schema_name}))
        check_tables(conn, tables)
        shape = read_shape(conn, schema_name)
        assert shape.has_watermark is not is_old
        census = Candidates(shape, Partition()).take_census(conn)
    assert (census.last, census.candidates) == (0, 0)


def test_the_library_is_read_by_its_primary_key(shelves: Shelves) -> None:
    shelves.add_albums(300)
    shelves.execute("ANALYZE")
    with shelves.session() as conn:
        candidates = Candidates(read_shape(conn, "wxyc_schema"), Partition())
        page = candidates.read_page(conn, after=100, last=250, size=80)
        assert [row.id for row in page] == list(range(101, 181))
        assert len(candidates.read_page(conn, after=180, last=250, size=80)) == 70


@pytest.fixture
def role(shelves: Shelves) -> Iterator[str]:
    """A role with the rights that a library without a watermark takes; yields its connection."""
    name = f"backfill_{time.monotonic_ns()}"
    statements = (
        f"CREATE ROLE {name} LOGIN",
        f"GRANT USAGE ON SCHEMA wxyc_schema TO {name}",
        f"GRANT SELECT ON artists TO {name}",
        f"GRANT SELECT, UPDATE ON library TO {name}",
    )
    for statement in statements:
        shelves.execute(statement)
    yield name
    shelves.execute(f"DROP OWNED BY {name}")
    shelves.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_right_that_writing_takes_is_missed_before_the_first_lookup(
    shelves: Shelves, lml: FakeLml, role: str, dry_run: bool
) -> None:
    shelves.add("1 Album")
    dsn = psycopg.conninfo.make_conninfo(shelves.dsn, user=role)
    grant = f"GRANT SELECT, UPDATE ON wxyc_schema.library_watermark TO {role}"
    with pytest.raises(DatabaseError, match=grant):
        shelves.run(dsn=dsn, dry_run=dry_run)
    assert lml.asked == {}
    shelves.execute(f"GRANT SELECT, UPDATE ON library_watermark TO {role}")
    assert shelves.run(dsn=dsn, dry_run=dry_run).totals["written"] == 1
