"""seed-from-ia-changes: what archive.org changed is audited again, and no page is lost."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event
from typing import Any
from uuid import UUID

import pytest

from artwork_backfill.jobs.seed_from_ia_changes import checkpoint as checkpoints
from artwork_backfill.jobs.seed_from_ia_changes import types
from artwork_backfill.jobs.seed_from_ia_changes.checkpoint import Checkpoint
from artwork_backfill.jobs.seed_from_ia_changes.job import SeedFromIaChanges
from artwork_backfill.jobs.seed_from_ia_changes.pages import Pages
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient
from artwork_backfill.shared.clients.http import (
    CredentialsRefused,
    Interrupted,
    ServiceDown,
)
from artwork_backfill.shared.clients.ia_changes import ChangesClient, ChangesError, ChangesPage
from artwork_backfill.shared.engine.job import Partition, StopRun
from artwork_backfill.shared.engine.report import Outcome, Report
from artwork_backfill.shared.service_stats import ServiceStats
from tests.tiny import driver, execute, query

#: In seconds; the job's own is longer.
SECOND_LOOK_AFTER_S = 0.2

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def gid(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def named(*numbers: int) -> tuple[str, ...]:
    return (*(f"mbid-{gid(number)}" for number in numbers), "concert-of-1977", "mbid-test")


class Scripted:
    """A Changes API whose pages are given; token N leads to page N. What is asked is kept."""

    name = "archive.org's Changes API"

    def __init__(self, *pages: tuple[str, ...]) -> None:
        self.pages = list(pages)
        self.asked: list[str | None] = []
        #: What to raise or answer by the number of the page, in place of the proper answer.
        self.instead: dict[int, Exception | ChangesPage] = {}
        #: The number of the first page of a start from a date; a cold start begins with page 0.
        self.first = 0

    def page(self, *, token: str | None = None, start_date: str | None = None) -> ChangesPage:
        self.asked.append(token or start_date)
        number = int(token) if token else 0 if start_date == "0" else self.first
        instead = self.instead.pop(number, None)
        if isinstance(instead, Exception):
            raise instead
        if instead is not None:
            return instead
        names = self.pages[number] if number < len(self.pages) else ()
        left = len(self.pages) - number - 1
        return ChangesPage(names, str(min(number + 1, len(self.pages))), left <= 0, max(0, left))

    def stats(self) -> ServiceStats:
        return ServiceStats(len(self.asked), 0, 0, 1.0, 1.0)

    def close(self) -> None:
        pass


class Archive:
    """The metadata API: what it answers by gid, else that there is no such item."""

    name = "archive.org"

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.asked_at: dict[str, list[float]] = defaultdict(list)

    def metadata(self, gid: str, *, extended_err: bool = False) -> object:
        self.asked.append(gid)
        self.asked_at[gid].append(time.monotonic())
        return self.answers.get(gid, {"errcode": 104} if extended_err else [])

    def stats(self) -> ServiceStats:
        return ServiceStats(len(self.asked), 0, 0, 1.0, 1.0)

    def close(self) -> None:
        pass


# Entities by number: 1 clean, 2 legacy, 3 in review, 4 waiting, 5 clean and merged since, 6 clean
# and audited after the page was asked for; without a row: 11 live release, 12 live event, 13 merged
# release, 14 deleted event.
ENTITIES = f"""
INSERT INTO musicbrainz.release (id, gid, name, artist_credit)
    VALUES (1, '{gid(1)}', 'x', 1), (6, '{gid(6)}', 'x', 1), (11, '{gid(11)}', 'x', 1);
INSERT INTO musicbrainz.event (id, gid, name) VALUES (12, '{gid(12)}', 'x');
INSERT INTO musicbrainz.release_gid_redirect (gid, new_id) VALUES ('{gid(13)}', 1);
INSERT INTO musicbrainz.deleted_entity (gid, data)
    VALUES ('{gid(14)}', '{{"entity_type": "event"}}');
INSERT INTO artwork_indexer.audit_entity
    (id, entity_type, gid, status, priority, last_audit_at, was_live) VALUES
    (101, 'release', '{gid(1)}', 'clean', 100, now() - interval '1 hour', TRUE),
    (102, 'event', '{gid(2)}', 'legacy', 150, now() - interval '1 hour', FALSE),
    (103, 'release', '{gid(3)}', 'manual_review', 100, now() - interval '1 hour', TRUE),
    (104, 'release', '{gid(4)}', 'unchecked', 100, NULL, NULL),
    (105, 'release', '{gid(5)}', 'clean', 100, now() - interval '1 hour', TRUE),
    (106, 'release', '{gid(6)}', 'clean', 100, now() + interval '2 hours', TRUE);
"""

ROWS = """
SELECT gid::text, entity_type::text, priority
FROM artwork_indexer.audit_entity WHERE status = 'unchecked'
"""

CHECKPOINT = "SELECT token, start_date, is_cold, pages, gids FROM artwork_indexer.ia_changes"


@pytest.fixture
def database(migrated_database: str) -> str:
    execute(migrated_database, ENTITIES)
    return migrated_database


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Archive:
    scripted = Archive()
    monkeypatch.setattr(ArchiveOrgClient, "from_settings", lambda *_, **__: scripted)
    return scripted


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch, archive: Archive) -> Callable[..., Scripted]:
    """Scripts the Changes API."""

    def script(*pages: tuple[str, ...]) -> Scripted:
        scripted = Scripted(*pages)
        monkeypatch.setattr(ChangesClient, "from_settings", lambda *_, **__: scripted)
        return scripted

    return script


def follow(dsn: str, run: dict[str, Any] | None = None, **options: Any) -> Report:
    class Bound(SeedFromIaChanges):
        second_look_after = SECOND_LOOK_AFTER_S

        def __init__(self, run: Any) -> None:
            super().__init__(run, **options)

    return driver(dsn).run(Bound, **{"concurrency": 1, **(run or {})})


def unchecked(dsn: str) -> dict[str, tuple[str, int]]:
    return {gid: (entity_type, priority) for gid, entity_type, priority in query(dsn, ROWS)}


WAITING = {gid(4): ("release", 100)}


# -- what becomes of gids -------------------------------------------------------------------------


def test_what_was_changed_since_its_audit_becomes_unchecked(
    database: str, changes: Callable[..., Scripted]
) -> None:
    changes(named(1, 2, 3, 4, 5, 6))
    report = follow(database, since=NOW)
    assert (report.outcome, report.exit_code) == (Outcome.VERIFIED, 0)
    assert unchecked(database) == WAITING | {
        gid(1): ("release", 50),
        gid(2): ("event", 50),
        gid(5): ("release", 150),
    }
    assert report.totals["unchecked"] == 3
    assert report.totals["gone"] == 1
    assert report.totals["identifiers"] == 8


def test_an_audit_that_may_have_read_the_item_before_its_change_does_not_count(
    database: str, changes: Callable[..., Scripted]
) -> None:
    execute(
        database,
        "UPDATE artwork_indexer.audit_entity SET status = 'audit_in_progress',"
        " last_audit_at = now(), claimed_by = gen_random_uuid() WHERE id = 101;"
        "UPDATE artwork_indexer.audit_entity SET last_audit_at = now() + interval '20 minutes'"
        " WHERE id = 102",
    )
    changes(named(1, 2))
    assert follow(database, since=NOW).outcome is Outcome.VERIFIED
    # What is audited at this moment loses its claim, and keeps its priority.
    assert unchecked(database) == WAITING | {gid(1): ("release", 100), gid(2): ("event", 50)}


def test_unknown_gids_are_seeded_as_what_musicbrainz_or_their_item_says(
    database: str, changes: Callable[..., Scripted], archive: Archive
) -> None:
    archive.answers = {
        gid(21): {"metadata": {"collection": ["eventartarchive", "x"]}, "files": []},
        gid(22): {"metadata": {"collection": "coverartarchive"}, "pending_tasks": True},
        gid(23): {"metadata": {"collection": "test_collection"}, "files": []},
    }
    changes(named(11, 12, 13, 14, 21, 22, 23, 24))
    report = follow(database, since=NOW)
    assert report.outcome is Outcome.VERIFIED
    assert unchecked(database) == WAITING | {
        gid(11): ("release", 100),
        gid(12): ("event", 100),
        gid(13): ("release", 150),
        gid(14): ("event", 150),
        gid(21): ("event", 150),
        gid(22): ("release", 150),
    }
    assert (report.totals["of_neither_archive"], report.totals["absent"]) == (1, 1)
    # An absence is asked for twice, everything else once.
    assert sorted(archive.asked) == sorted([gid(21), gid(22), gid(23), gid(24), gid(24)])


def test_an_absence_is_asked_about_again_some_time_later_and_others_meanwhile(
    database: str, changes: Callable[..., Scripted], archive: Archive
) -> None:
    archive.answers = {gid(23): {"metadata": {"collection": "test_collection"}, "files": []}}
    changes(named(21, 22, 23))
    assert follow(database, since=NOW).totals["absent"] == 2
    times = archive.asked_at
    for number in (21, 22):
        first, second = times[gid(number)]
        assert second - first >= SECOND_LOOK_AFTER_S
        assert max(times[gid(23)]) < second


def test_a_stop_cuts_the_wait_for_a_second_look_short() -> None:
    stop_flag = Event()
    stop_flag.set()
    archive: Any = Archive()
    with pytest.raises(Interrupted):
        types.ask_archive_org(
            archive,
            [UUID(gid(21)).bytes],
            types.Looked(),
            second_look_after=600.0,
            stop_flag=stop_flag,
        )
    assert archive.asked == [gid(21)]


def test_an_item_that_cannot_be_read_is_named_and_not_taken_for_absent(
    database: str, changes: Callable[..., Scripted], archive: Archive
) -> None:
    archive.answers = {gid(21): {"files": []}, gid(22): {"is_dark": True}}
    changes(named(21, 22))
    report = follow(database, since=NOW)
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    assert [problem.what for problem in report.problems] == [f"mbid-{gid(21)}"]
    assert (report.totals["failed"], report.totals["dark"]) == (1, 1)


def test_a_cold_start_seeds_what_is_unknown_and_follows_what_changed_meanwhile(
    database: str, changes: Callable[..., Scripted]
) -> None:
    service = changes(named(1, 11), named(2, 12), named(5))
    service.instead[1] = ChangesPage(named(2, 12), "2", wants_rest=True)
    service.first = 2
    report = follow(database, from_beginning=True)
    assert report.outcome is Outcome.VERIFIED
    today = datetime.now(UTC).strftime("%Y%m%d")
    assert service.asked == ["0", "1", today]
    assert unchecked(database) == WAITING | {
        gid(11): ("release", 100),
        gid(12): ("event", 100),
        gid(5): ("release", 150),
    }
    assert query(database, CHECKPOINT) == [("3", None, False, 3, 5)]


# -- where to start and to continue ---------------------------------------------------------------


def test_the_next_run_continues_where_the_last_one_stopped(
    database: str, changes: Callable[..., Scripted]
) -> None:
    service = changes(named(1), named(2))
    follow(database, since=NOW)
    assert service.asked == ["20261127", "1"]
    service.asked.clear()
    service.pages.append(named(5))
    follow(database)
    assert service.asked == ["2"]
    assert query(database, CHECKPOINT) == [("3", None, False, 3, 3)]
    # From a date, everything is read again; what has been found already costs nothing.
    assert follow(database, since=NOW).totals["written"] == 0


def test_without_a_place_to_start_nothing_is_asked(
    database: str, changes: Callable[..., Scripted]
) -> None:
    service = changes(named(1))
    report = follow(database)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 2)
    assert "--since" in report.reason
    assert service.asked == []


def test_pages_before_a_failure_count(database: str, changes: Callable[..., Scripted]) -> None:
    service = changes(named(1), named(2), named(5))
    service.instead[2] = ServiceDown("archive.org is down", service="archive.org", url="")
    report = follow(database, since=NOW)
    assert (report.outcome, report.exit_code) == (Outcome.INTERRUPTED, 75)
    assert query(database, CHECKPOINT) == [("2", None, False, 2, 2)]
    assert follow(database).outcome is Outcome.VERIFIED
    assert set(unchecked(database)) == {gid(n) for n in (1, 2, 4, 5)}


def test_a_cold_start_that_was_interrupted_is_continued(
    database: str, changes: Callable[..., Scripted]
) -> None:
    service = changes(named(1, 11), named(12), named(13))
    service.instead[1] = ServiceDown("archive.org is down", service="archive.org", url="")
    follow(database, from_beginning=True)
    assert query(database, CHECKPOINT) == [("1", None, True, 1, 2)]
    service.asked.clear()
    follow(database, from_beginning=True)
    assert service.asked[0] == "1"


@pytest.mark.parametrize(
    "error",
    [
        CredentialsRefused("the account lacks a privilege", service="archive.org", url=""),
        ChangesError("the token is not valid: start again with --since", service="", url=""),
    ],
)
def test_a_refusal_ends_the_run_and_says_why(
    database: str, changes: Callable[..., Scripted], error: Exception
) -> None:
    service = changes(named(1))
    service.instead[0] = error
    report = follow(database, since=NOW)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert report.reason is not None
    assert str(error) in report.reason


def test_two_runs_do_not_follow_from_the_same_place(
    database: str, changes: Callable[..., Scripted]
) -> None:
    service = changes(named(1))
    follow(database, since=NOW)
    service.pages += [named(2)]

    class Overtaken(SeedFromIaChanges):
        def write(self, conn: Any, results: Any) -> Any:
            execute(database, "UPDATE artwork_indexer.ia_changes SET token = '9', pages = 9")
            return super().write(conn, results)

    report = driver(database).run(Overtaken, concurrency=1)
    assert report.outcome is Outcome.FAILED
    assert "another run follows" in str(report.reason)
    assert set(unchecked(database)) == {gid(1), gid(4)}


def test_a_row_that_the_database_refuses_does_not_hold_up_the_others(
    database: str, changes: Callable[..., Scripted]
) -> None:
    execute(
        database,
        "ALTER TABLE artwork_indexer.audit_entity ADD CONSTRAINT not_this_one"
        f" CHECK (gid <> '{gid(12)}')",
    )
    service = changes(named(1, 2, 11, 12, 13), named(5))
    report = follow(database, {"batch_size": 1}, since=NOW)
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    assert report.totals["failed"] == 1
    assert set(unchecked(database)) == {gid(n) for n in (1, 2, 4, 5, 11, 13)}
    assert query(database, CHECKPOINT) == [("2", None, False, 2, 6)]
    assert len(service.asked) == 2


def test_a_dry_run_changes_nothing(database: str, changes: Callable[..., Scripted]) -> None:
    changes(named(1, 2, 11))
    report = follow(database, {"dry_run": True}, since=NOW)
    assert report.totals["written"] == 3
    assert unchecked(database) == WAITING
    assert query(database, CHECKPOINT) == []


def test_each_partition_follows_for_itself(database: str, changes: Callable[..., Scripted]) -> None:
    changes(named(1, 2, 5))
    for index in (0, 1):
        report = follow(database, {"partition": Partition(index, 2)}, since=NOW)
        assert report.outcome is Outcome.VERIFIED
    assert set(unchecked(database)) == {gid(n) for n in (1, 2, 4, 5)}
    assert len(query(database, CHECKPOINT)) == 2


# -- pages ----------------------------------------------------------------------------------------


class Rested(Event):
    """A flag that is never set; counts how often it was waited for."""

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        return False


def pages(service: Any, start: Checkpoint | None = None) -> tuple[Pages, Rested]:
    stop_flag = Rested()
    start = start or Checkpoint(NOW, start_date=checkpoints.day(NOW))
    return Pages(service, start, Partition(), NOW, stop_flag=stop_flag), stop_flag


def read(source: Pages, size: int = 1) -> list[set[str]]:
    found = []
    while (page := source.next_page(size)) is not None:
        found.append({page_gid.hex() for page_gid in page.gids})
    return found


def test_a_rest_far_from_the_end_is_taken_and_not_the_end() -> None:
    service = Scripted(named(1), named(2))
    service.instead[0] = ChangesPage(named(1), "1", wants_rest=True, distance=1_000_000)
    source, stop_flag = pages(service)
    assert len(read(source)) == 2
    assert stop_flag.waits == 1


def test_pages_without_ours_are_passed_over_together() -> None:
    service = Scripted(*[named()] * 30, named(1))
    source, _ = pages(service)
    assert [len(page) for page in read(source)] == [0, 1]
    assert len(service.asked) == 31


@pytest.mark.parametrize("circle", [["a", "a"], ["a", "b", "a"], [*"abcdefghij", "c"]])
def test_tokens_that_come_back_end_the_run(circle: list[str]) -> None:
    class Circling:
        def __init__(self) -> None:
            self.asked = 0

        def page(self, *, token: str | None = None, start_date: str | None = None) -> ChangesPage:
            self.asked += 1
            following = circle[0] if token is None else circle[circle.index(token) + 1]
            return ChangesPage(named(), following, wants_rest=False)

    source, _ = pages(Circling())
    with pytest.raises(StopRun, match="cycle"):
        read(source)


def test_the_same_token_at_the_end_means_that_nothing_is_new() -> None:
    service = Scripted()
    source, _ = pages(service, Checkpoint(NOW, token="0", pages=1))
    assert read(source) == [set()]
    assert service.asked == ["0"]
