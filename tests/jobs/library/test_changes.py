"""What a run leaves behind for people: the changes file, undo, attempts, the summary."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from artwork_backfill.jobs.library_artwork_url_backfill.changes import read_written
from artwork_backfill.jobs.library_artwork_url_backfill.job import Options
from artwork_backfill.jobs.library_artwork_url_backfill.models import (
    Decided,
    Miss,
    Reason,
    Row,
    RowOutcome,
)
from artwork_backfill.jobs.library_artwork_url_backfill.summary import EXAMPLES, Summary
from artwork_backfill.shared.clients.lml import Artwork, LmlQuery, LookupAnswer
from artwork_backfill.shared.engine.errors import DatabaseError
from artwork_backfill.shared.engine.job import Partition
from artwork_backfill.shared.engine.report import Outcome, to_markdown
from artwork_backfill.shared.engine.session import open_standalone
from artwork_backfill.shared.migrations import State, Target, migrate, status
from artwork_backfill.shared.settings import SettingsError
from sandbox.library import artwork_url
from tests.jobs.library.shelves import SITE_URL, SPACER, FakeLml, Shelves, number_of, url_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "changes.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def noting(path: Path, **more: Any) -> Options:
    return Options(write_rate=None, changes=path, **more)


# -- the changes file ------------------------------------------------------------------------------


def test_the_changes_file_says_what_became_of_every_album(shelves: Shelves, path: Path) -> None:
    shelves.add("1 Album", "other", "timeout", "2 Album")
    shelves.lml.before_answer = lambda _: shelves.execute(
        "UPDATE library SET artwork_url = %s WHERE id = 4", SITE_URL
    )
    report = shelves.run(noting(path))
    found = {line["library_id"]: line for line in lines(path)}
    assert len(lines(path)) == 4
    assert found[1] == {
        "run_id": report.run_id,
        "library_id": 1,
        "artist": "Stereolab",
        "title": "1 Album",
        "outcome": "written",
        "url": url_of("1 Album"),
        "ground": "names",
        "reason": None,
        "detail": None,
        "release_id": number_of("1 Album"),
        "artwork_artist": "Stereolab",
        "artwork_album": "1 Album",
        "confidence": 0.9,
    }
    assert [found[id_]["outcome"] for id_ in (2, 3, 4)] == ["refused", "failed", "raced"]
    assert [found[id_]["reason"] for id_ in (2, 3, 4)] == ["other_album", "could_not_say", None]
    assert found[2]["artwork_album"] == "Something else"
    assert found[3]["detail"] == "LML gave up looking (timeout)"


def test_a_dry_run_writes_down_what_it_would_write(shelves: Shelves, path: Path) -> None:
    shelves.add("1 Album", "unknown")
    shelves.run(noting(path), dry_run=True)
    assert [line["outcome"] for line in lines(path)] == ["would_write", "refused"]
    assert shelves.filled() == {}
    # And there is nothing in it to take back.
    shelves.run(noting(path.with_name("real.jsonl")))
    assert shelves.undo(path).totals["written"] == 0
    assert len(shelves.filled()) == 1


def test_a_line_is_in_the_file_before_its_row_is_committed(shelves: Shelves, path: Path) -> None:
    shelves.add("1 Album")
    # Whatever ends the transaction in the last moment, the file has the line.
    shelves.execute(
        "CREATE FUNCTION fail() RETURNS TRIGGER LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION ''no''; END'"
    )
    shelves.execute(
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON library DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    assert shelves.run(noting(path)).totals["failed"] == 1
    assert shelves.filled() == {}
    # And another line, once it is known that the row stays as it was.
    assert [line["outcome"] for line in lines(path)] == ["written", "failed"]
    shelves.execute("DROP FUNCTION fail CASCADE")
    shelves.execute("UPDATE library SET artwork_url = %s", url_of("1 Album"))
    assert shelves.undo(path).totals["written"] == 0
    assert shelves.filled() == {"1 Album": url_of("1 Album")}


def test_a_cover_that_the_site_wrote_between_two_tries_is_not_undone(
    shelves: Shelves, path: Path
) -> None:
    shelves.add_albums(2)
    tries = 0

    class Drops(Connection[Any]):
        """Loses the first transaction that has written a line; meanwhile the site fills a row."""

        def commit(self) -> None:
            nonlocal tries
            if path.exists() and path.read_text() and not tries:
                tries += 1
                self.close()
                shelves.execute(
                    "UPDATE library SET artwork_url = %s WHERE id = 1", url_of("1 Album")
                )
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            super().commit()

    def connect() -> Connection[Any]:
        return Drops.connect(shelves.dsn, autocommit=True, prepare_threshold=None)

    report = shelves.run(noting(path), connect=connect)
    assert (report.totals["written"], report.totals["raced"]) == (1, 1)
    assert [(line["library_id"], line["outcome"]) for line in lines(path)] == [
        (1, "written"),
        (2, "written"),
        (1, "raced"),
    ]
    assert shelves.undo(path).totals["written"] == 1
    assert shelves.filled() == {"1 Album": url_of("1 Album")}


def test_the_last_line_of_a_run_about_a_row_counts(path: Path) -> None:
    def line(run: str, outcome: str, library_id: int = 1) -> str:
        url = f"https://{run}"
        return json.dumps({"run_id": run, "library_id": library_id, "outcome": outcome, "url": url})

    said = [line("a", "written"), line("a", "failed"), line("a", "written")]
    said += [
        line("b", "written"),
        line("b", "written", 2),
        line("b", "raced"),
        line("a", "busy", 2),
    ]
    path.write_text("".join(f"{each}\n" for each in said))
    assert [(cover.library_id, cover.url) for cover in read_written(path)] == [
        (1, "https://a"),
        (2, "https://b"),
    ]


def test_a_run_that_cannot_write_its_file_fails_and_names_it(shelves: Shelves) -> None:
    shelves.add("1 Album")
    report = shelves.run(noting(Path("/dev/full")))
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert "/dev/full cannot be written: No space left on device" in report.reason
    assert shelves.filled() == {}


def test_whatever_lml_sends_a_line_can_be_read_again(shelves: Shelves, path: Path) -> None:
    shelves.add("1 Album", "2 Album")

    class Sends(FakeLml):
        def _answer(self, query: LmlQuery) -> LookupAnswer:
            album = query.album + " " * 70_000
            return LookupAnswer((Artwork(query.artist, album, 5, url_of(query.album), 0.9),))

    shelves.lml = Sends()
    assert shelves.run(noting(path)).totals["written"] == 2
    assert shelves.undo(path).totals["written"] == 2


def test_half_a_surrogate_pair_from_lml_harms_nothing(shelves: Shelves, path: Path) -> None:
    shelves.add("1 Album", "2 Album", "3 Album")

    class Sends(FakeLml):
        def _answer(self, query: LmlQuery) -> LookupAnswer:
            album = "Else \ud800" if query.album == "2 Album" else query.album
            url = (
                "https://i.discogs.com/\ud800" if query.album == "3 Album" else url_of(query.album)
            )
            return LookupAnswer((Artwork(query.artist, album, 5, url, 0.9),))

    shelves.lml = Sends()
    report = shelves.run(noting(path))
    assert (report.totals["other_album"], report.totals["bad_url"]) == (1, 1)
    assert [line["artwork_album"] for line in lines(path)] == ["1 Album", "Else \ud800", "3 Album"]
    assert shelves.undo(path).totals["written"] == 1


def test_a_transaction_that_is_repeated_is_written_down_once(shelves: Shelves, path: Path) -> None:
    shelves.add_albums(3)
    shelves.execute("CREATE SEQUENCE tries")
    shelves.execute(
        "CREATE FUNCTION fail_once() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN"
        " IF nextval(''wxyc_schema.tries'') = 1 THEN RAISE serialization_failure; END IF;"
        " RETURN NULL; END'"
    )
    shelves.execute(
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON library DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION fail_once()"
    )
    assert shelves.run(noting(path)).totals["written"] == 3
    assert [line["library_id"] for line in lines(path)] == [1, 2, 3]


def test_a_file_that_cannot_be_written_is_missed_at_the_start(shelves: Shelves) -> None:
    shelves.add("1 Album")
    with pytest.raises(SettingsError, match="cannot be written"):
        shelves.run(noting(Path("/nowhere/changes.jsonl")))
    assert shelves.lml.asked == {}


# -- undo ------------------------------------------------------------------------------------------


def test_undo_empties_exactly_the_rows_that_still_hold_the_url(
    shelves: Shelves, path: Path
) -> None:
    shelves.add_albums(6)
    shelves.add("Of the site", url=SITE_URL)
    shelves.run(noting(path))
    shelves.execute("UPDATE library SET artwork_url = %s WHERE id = 2", SITE_URL)
    shelves.execute("UPDATE library SET artwork_url = NULL WHERE id = 3")
    shelves.execute("DELETE FROM library WHERE id = 4")
    before = shelves.filled()
    preview = shelves.undo(path, dry_run=True)
    assert preview.totals["written"] == 3
    assert shelves.filled() == before
    report = shelves.undo(path)
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    assert (report.totals["written"], report.totals["other_url"]) == (3, 2)
    assert report.totals["gone"] == 1
    assert shelves.filled() == {"2 Album": SITE_URL, "Of the site": SITE_URL}
    watermark = shelves.watermark()
    assert shelves.undo(path).totals["written"] == 0
    assert shelves.watermark() == watermark


def test_undo_of_many_rows_takes_all_of_them_in_partitions(shelves: Shelves, path: Path) -> None:
    shelves.add_albums(250)
    shelves.run(noting(path))
    assert shelves.undo(path, partition=Partition(0, 2)).totals["written"] == 125
    assert shelves.undo(path, partition=Partition(1, 2)).totals["written"] == 125
    assert shelves.filled() == {}


@pytest.mark.parametrize("held", [1, 2])
def test_undo_knows_every_url_that_runs_have_written_to_a_row(
    shelves: Shelves, path: Path, held: int
) -> None:
    shelves.add("1 Album", url=artwork_url(held))
    written = [
        {"run_id": run, "library_id": 1, "outcome": "written", "url": artwork_url(number)}
        for run, number in (("a", 1), ("b", 2), ("c", 2))
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in written))
    report = shelves.undo(path)
    assert (report.totals["written"], report.totals["other_url"]) == (1, 1)
    assert shelves.filled() == {}


def test_a_row_that_is_locked_is_left_and_said(shelves: Shelves, path: Path) -> None:
    shelves.add_albums(3)
    shelves.run(noting(path))
    with shelves.session(autocommit=False) as site:
        site.execute("SELECT FROM library WHERE id = 2 FOR UPDATE")
        report = shelves.undo(path)
    assert report.exit_code == 3
    assert (report.totals["written"], report.totals["busy"]) == (2, 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hello\n", "line 1: not a line of JSON"),
        ("[]\n", "line 1: not a line of a changes file"),
        ("{}\n", "line 1: not a line of a changes file"),
        ('{"outcome": "written", "url": "x"}\n', "without library_id or url"),
        ('{"outcome": "written", "url": "x", "library_id": true}\n', "without library_id or url"),
        ('{"outcome": "written", "url": 1, "library_id": 1}\n', "without library_id or url"),
    ],
)
def test_what_is_no_changes_file_is_refused_whole(path: Path, text: str, problem: str) -> None:
    path.write_text(text)
    with pytest.raises(SettingsError, match=problem):
        list(read_written(path))


def test_the_last_line_may_be_cut_short(path: Path) -> None:
    good = '{"outcome": "written", "url": "https://a", "library_id": 1}\n'
    path.write_text(good + '\n{"outcome": "refused"}\n' + good[:30])
    assert [cover.library_id for cover in read_written(path)] == [1]


def test_a_run_begins_a_new_line_after_one_that_was_cut_short(shelves: Shelves, path: Path) -> None:
    shelves.add_albums(2)
    shelves.run(noting(path), limit=1, batch_size=1)
    path.write_text(path.read_text() + path.read_text()[:60])
    shelves.run(noting(path))
    assert [cover.library_id for cover in read_written(path)] == [1, 2]


# -- attempts --------------------------------------------------------------------------------------


@pytest.fixture
def remembering(shelves: Shelves) -> Options:
    with open_standalone(shelves.dsn, "migrate") as conn:
        assert migrate(conn, Target.WXYC) == ["0001_library_attempt.sql"]
        assert migrate(conn, Target.WXYC) == []
        assert status(conn, Target.WXYC) == [("0001_library_attempt.sql", State.APPLIED)]
    return Options(write_rate=None, attempts_table=True)


def test_rows_without_a_result_are_asked_again_only_after_some_time(
    shelves: Shelves, lml: FakeLml, remembering: Options
) -> None:
    shelves.add("unknown", "other", "timeout", "1 Album")
    shelves.run(remembering)
    lml.asked.clear()
    report = shelves.run(remembering)
    # What LML could not say is always asked again.
    assert lml.asked == {"timeout": 1}
    assert "2 of them not yet due" in report.notes[1].detail
    shelves.execute("UPDATE library SET album_title = 'unknown renamed' WHERE id = 1")
    shelves.execute(
        "UPDATE artwork_backfill.library_attempt SET attempted_at = now() - interval '15 days'"
        " WHERE library_id = 2"
    )
    lml.asked.clear()
    shelves.run(remembering)
    assert lml.asked == {"unknown renamed": 1, "other": 1, "timeout": 1}


def test_attempts_are_neither_noted_nor_asked_for_unless_wanted(
    shelves: Shelves, lml: FakeLml, remembering: Options
) -> None:
    shelves.add("unknown")
    shelves.run()
    shelves.run(remembering, dry_run=True)
    shelves.run(remembering)
    shelves.run()
    assert lml.asked == {"unknown": 4}


def test_a_missing_table_of_attempts_is_named_before_the_first_lookup(
    shelves: Shelves, lml: FakeLml
) -> None:
    shelves.add("unknown")
    with pytest.raises(DatabaseError, match="migrate --database wxyc"):
        shelves.run(Options(attempts_table=True))
    assert lml.asked == {}


def test_a_dry_run_needs_no_right_to_note_attempts(shelves: Shelves, remembering: Options) -> None:
    shelves.add("1 Album")
    role = f"reader_{time.monotonic_ns()}"
    shelves.execute(f"CREATE ROLE {role} LOGIN")
    try:
        for schema in ("wxyc_schema", "artwork_backfill"):
            shelves.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
            shelves.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
        dsn = psycopg.conninfo.make_conninfo(shelves.dsn, user=role)
        assert shelves.run(remembering, dsn=dsn, dry_run=True).totals["written"] == 1
        with pytest.raises(DatabaseError, match="GRANT SELECT, UPDATE"):
            shelves.run(remembering, dsn=dsn)
    finally:
        shelves.execute(f"DROP OWNED BY {role}")
        shelves.execute(f"DROP ROLE {role}")


def test_without_the_right_to_create_a_schema_the_migration_says_so(shelves: Shelves) -> None:
    shelves.execute("CREATE ROLE no_creator LOGIN")
    try:
        dsn = psycopg.conninfo.make_conninfo(shelves.dsn, user="no_creator")
        with open_standalone(dsn, "migrate") as conn, pytest.raises(DatabaseError, match="CREATE"):
            migrate(conn, Target.WXYC)
    finally:
        shelves.execute("DROP ROLE no_creator")


# -- the site's own metadata -----------------------------------------------------------------------


def test_covers_of_the_sites_own_metadata_come_first_when_wanted(
    shelves: Shelves, lml: FakeLml
) -> None:
    shelves.add("1 Album", "2 Album", "unknown 3", "4 Album")
    shelves.execute(
        "INSERT INTO album_metadata (album_id, artwork_url, discogs_url, discogs_artist_id) VALUES"
        " (1, %s, 'https://www.discogs.com/release/11-x', 500),"
        " (2, %s, NULL, 501),"  # of another artist
        " (3, %s, NULL, NULL)",
        artwork_url(11),
        artwork_url(12),
        artwork_url(13),
    )
    report = shelves.run(Options(write_rate=None, from_metadata=True))
    assert (report.totals["written"], report.totals["from_metadata"]) == (4, 2)
    assert lml.asked == {"2 Album": 1, "4 Album": 1}
    assert shelves.filled() == {
        "1 Album": artwork_url(11),
        "2 Album": url_of("2 Album"),
        "unknown 3": artwork_url(13),
        "4 Album": url_of("4 Album"),
    }


def test_metadata_is_off_by_default_and_missed_where_there_is_none(shelves: Shelves) -> None:
    shelves.add("unknown")
    shelves.execute(
        "INSERT INTO album_metadata (album_id, artwork_url) VALUES (1, %s)", artwork_url(11)
    )
    assert shelves.run().totals["written"] == 0
    shelves.execute("DROP TABLE album_metadata")
    with pytest.raises(DatabaseError, match="album_metadata"):
        shelves.run(Options(from_metadata=True))


# -- covers that there are already -----------------------------------------------------------------


def test_existing_covers_that_are_none_are_reported_and_left(shelves: Shelves) -> None:
    shelves.add("Good", url=artwork_url(1))
    shelves.add("Copy", "copy (Deluxe)", url=artwork_url(2))
    shelves.add("Photo", url=artwork_url(3, "A"))
    shelves.add("Logo", "Another", url=artwork_url(4, "L"))
    shelves.add("Spacer", url=SPACER)
    shelves.add("Shared", "Shared II", "Shared III", url=artwork_url(5))
    shelves.add("Empty")
    before, watermark = shelves.urls(), shelves.watermark()
    report = shelves.check_existing()
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    assert report.totals == {
        "scanned": 10,
        "written": 0,
        "skipped": 0,
        "failed": 0,
        "unsuspicious": 3,
        "photo": 1,
        "logo": 2,
        "placeholder": 1,
        "shared": 3,
    }
    assert (shelves.urls(), shelves.watermark()) == (before, watermark)
    covers = report.as_dict()["covers"]
    assert [cover["suspicion"] for cover in covers].count("shared") == 1
    assert "Shared II" in to_markdown(report)
    assert [cover["albums"] for cover in covers if cover["suspicion"] == "photo"] == [
        "library row 4 (Stereolab - Photo)"
    ]


def test_all_existing_covers_are_looked_at_in_many_batches(shelves: Shelves) -> None:
    with shelves.session() as conn:
        conn.cursor().executemany(
            "INSERT INTO library (artist_id, album_title, artwork_url) VALUES (1, %s, %s)",
            [(f"{number}", artwork_url(number // 2)) for number in range(100)],
        )
    report = shelves.check_existing(batch_size=7, fixed_batch_size=True)
    assert report.totals["shared"] == 100


def test_existing_covers_are_not_compared_in_partitions(shelves: Shelves) -> None:
    with pytest.raises(SettingsError, match="omit --partition"):
        shelves.check_existing(partition=Partition(0, 2))


# -- the summary -----------------------------------------------------------------------------------


def test_the_summary_groups_reasons_with_examples_and_links() -> None:
    summary = Summary()
    for number in range(EXAMPLES + 2):
        row = Row(number, 1, "Stereolab", f"Dots & Loops {number}")
        found = Artwork("Stereolab", "Emperor", 7, artwork_url(7), 0.5)
        summary.add([Decided(Miss(row, Reason.OTHER_ALBUM, found), RowOutcome.REFUSED)])
    summary.add([Decided(Miss(Row(9, 1, "A", "B"), Reason.NO_MATCH), RowOutcome.REFUSED)])
    (section,) = summary.sections()
    rows = section.rows
    assert len(rows) == EXAMPLES + 1
    assert rows[0] == (
        "other_album: LML found only artwork of other albums",
        str(EXAMPLES + 2),
        "library row 0 (Stereolab - Dots & Loops 0)",
        "Stereolab - Emperor",
        "https://www.discogs.com/search/?q=Stereolab+Dots+%26+Loops+0&type=release",
    )
    assert rows[1][:2] == ("", "")
    data: Any = section.data
    assert [(each["reason"], each["albums"]) for each in data] == [
        ("other_album", EXAMPLES + 2),
        ("no_match", 1),
    ]
    assert len(data[0]["examples"]) == EXAMPLES


def test_the_report_shows_the_summary(shelves: Shelves) -> None:
    shelves.add("1 Album", "other", "unknown")
    report = shelves.run()
    reasons = report.as_dict()["reasons"]
    assert {each["reason"]: each["albums"] for each in reasons} == {"other_album": 1, "no_match": 1}
    assert "Stereolab - Something else" in to_markdown(report)
    assert "https://www.discogs.com/search/?q=Stereolab+other" in to_markdown(report)
