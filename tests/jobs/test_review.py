"""What people do about reviews and failed events, and what they get to see, on a real database."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.types.json import Jsonb

from artwork_backfill.jobs.cli.review import events_group, review_group
from artwork_backfill.shared.engine import session as db
from artwork_backfill.shared.review import actions, questions, requeueing
from artwork_backfill.shared.review import export as staff
from artwork_backfill.shared.review.actions import Refused
from artwork_backfill.shared.review.lists import Page
from artwork_backfill.shared.review.questions import EventFilter, ReviewFilter
from sandbox.postgres import Cluster

GID = UUID("76df3287-6cda-33eb-8e9a-044b5e15ffdd")
OTHER_GID = UUID("0a3e3c8c-1c9a-4a4e-8a34-4cbb2c9b8f11")
RUN = UUID("11111111-2222-4333-8444-555555555555")


@pytest.fixture(scope="module")
def database(postgres: Cluster, migrated_template: str) -> Iterator[str]:
    """URL of a migrated database that all tests here share, one after another."""
    name = f"artwork_backfill_test_{uuid4().hex}"
    yield postgres.create_database(name, template=migrated_template)
    postgres.drop_database(name)


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "TRUNCATE artwork_indexer.audit_entity, artwork_indexer.event_queue"
            " RESTART IDENTITY CASCADE"
        )
        yield connection


@dataclass(frozen=True)
class Tables:
    """Puts rows in, and reads them back."""

    conn: psycopg.Connection

    def entity(
        self, gid: UUID = GID, status: str = "manual_review", entity_type: str = "release"
    ) -> int:
        return self._id(
            "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status)"
            " VALUES (%s, %s, %s) RETURNING id",
            entity_type,
            gid,
            status,
        )

    def review(
        self,
        entity: int,
        reason: str = "only copy",
        status: str = "open",
        age: str = "0",
        check: str | None = None,
    ) -> int:
        return self._id(
            "INSERT INTO artwork_indexer.needs_manual_review"
            " (audit_entity_id, review_reason, status, created_at, reasons)"
            " VALUES (%s, %s, %s, now() - %s::interval, %s) RETURNING id",
            entity,
            reason,
            status,
            age,
            Jsonb([{"code": "finding", "check": check, "subject": ""}]),
        )

    def audit(self, entity: int, *findings: dict[str, object], events: tuple[int, ...] = ()) -> int:
        return self._id(
            "INSERT INTO artwork_indexer.audit_result"
            " (audit_entity_id, run_id, outcome, findings, event_ids)"
            " VALUES (%s, %s, 'manual_review', %s, %s) RETURNING id",
            entity,
            RUN,
            Jsonb(list(findings)),
            list(events),
        )

    def event(
        self,
        action: str = "index",
        state: str = "failed",
        gid: UUID | str = GID,
        depends_on: tuple[int, ...] | None = None,
        failure: str | None = None,
    ) -> int:
        """Put an event in as it stands, without what its way there would have set off."""
        message = {"gid": str(gid)}
        if action == "delete_image":
            message |= {"artwork_id": "5", "suffix": "jpg"}
        id_ = self._id(
            "INSERT INTO artwork_indexer.event_queue"
            " (state, entity_type, action, message, depends_on, attempts)"
            " VALUES (%s, 'release', %s, %s, %s, 5) RETURNING id",
            state,
            action,
            Jsonb(message),
            list(depends_on) if depends_on is not None else None,
        )
        if failure is not None:
            self.conn.execute(
                "INSERT INTO artwork_indexer.event_failure_reason (event, failure_reason)"
                " VALUES (%s, %s)",
                (id_, failure),
            )
        return id_

    def status(self, entity: int) -> str:
        return str(
            self._one("SELECT status FROM artwork_indexer.audit_entity WHERE id = %s", entity)
        )

    def notes(self, review: int) -> str:
        return str(
            self._one(
                "SELECT resolution_notes FROM artwork_indexer.needs_manual_review WHERE id = %s",
                review,
            )
        )

    def event_state(self, event: int) -> tuple[str, int]:
        row = self.conn.execute(
            "SELECT state::text, attempts FROM artwork_indexer.event_queue WHERE id = %s", (event,)
        ).fetchone()
        assert row is not None
        return row

    def broken_invariants(self) -> list[Any]:
        """Entities in review that have another number of open reviews than one."""
        return self.conn.execute(
            "SELECT entity.gid FROM artwork_indexer.audit_entity entity"
            " WHERE status = 'manual_review' AND 1 <> ("
            "   SELECT count(*) FROM artwork_indexer.needs_manual_review review"
            "   WHERE review.audit_entity_id = entity.id AND review.status = 'open')"
        ).fetchall()

    def _id(self, query: Any, *values: object) -> int:
        return int(self._one(query, *values))

    def _one(self, query: Any, *values: object) -> Any:
        row = self.conn.execute(query, values).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture
def tables(conn: psycopg.Connection) -> Tables:
    return Tables(conn)


Command = Callable[..., Result]


@pytest.fixture
def review(conn: psycopg.Connection, database: str) -> Command:
    del conn  # empties the tables
    return _command(review_group, database)


@pytest.fixture
def events(conn: psycopg.Connection, database: str) -> Command:
    del conn  # empties the tables
    return _command(events_group, database)


def _command(group: Any, database: str) -> Command:
    environ = {"MUSICBRAINZ_DATABASE_URL": database, "BACKFILL_BY": "alice"}

    def run(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(group, [str(argument) for argument in arguments], env=environ)
        assert result.exit_code == code, result.output
        return result

    return run


def _ids(result: Result) -> list[int]:
    return [row["id"] for row in json.loads(result.stdout)]


# -- lists -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["old", "event", "new"]),
        (["--status", "resolved"], ["resolved"]),
        (["--status", "open", "--status", "resolved"], ["resolved", "old", "event", "new"]),
        (["--status", "wont_fix"], []),
        (["--reason", "ONLY COPY"], ["old"]),
        (["--reason", "100%"], ["new"]),
        (["--entity", "event"], ["event"]),
        (["--older-than", "3d"], ["old"]),
        (["--newer-than", "12h"], ["new"]),
        (["--limit", "1"], ["old"]),
        (["--limit", "1", "--offset", "1"], ["event"]),
    ],
)
def test_reviews_are_listed_by_filters_the_oldest_first(
    tables: Tables, review: Command, arguments: list[str], expected: list[str]
) -> None:
    first, second = tables.entity(), tables.entity(OTHER_GID)
    event = tables.entity(GID, entity_type="event")
    ids = {
        "resolved": tables.review(second, status="resolved", age="9 days"),
        "old": tables.review(first, reason="file x: Only copy: of B", age="5 days"),
        "event": tables.review(event, reason="event 5 has failed", age="1 day"),
        "new": tables.review(second, reason="100% sure"),
    }
    names = {id_: name for name, id_ in ids.items()}

    found = review("list", "--json", *arguments)

    assert [names[id_] for id_ in _ids(found)] == expected


def test_a_table_shows_what_came_from_outside_as_plain_text(
    tables: Tables, review: Command
) -> None:
    tables.review(tables.entity(), reason="[red]file\x1b[2J[/red] \u202eevil")

    shown = review("list").stdout

    assert "[red]file\\x1b[2J[/red] \\u202eevil" in " ".join(shown.split())
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize("reason", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)"])
def test_no_csv_cell_is_a_formula(tables: Tables, review: Command, reason: str) -> None:
    tables.review(tables.entity(), reason=reason)

    rows = list(csv.DictReader(io.StringIO(review("list", "--csv").stdout)))

    assert [row["reason"] for row in rows] == [f"'{reason}"]
    assert rows[0]["gid"] == str(GID)


def test_csv_of_nothing_still_has_its_header(review: Command) -> None:
    assert review("list", "--csv").stdout.startswith("id,entity_type,gid,")


# As it is after years: most of it is settled, and a person asks for the little that is not.
_MANY_ROWS = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status)
SELECT 'release', gen_random_uuid(), 'clean' FROM generate_series(1, 20000);

INSERT INTO artwork_indexer.needs_manual_review (audit_entity_id, review_reason, status)
SELECT id, 'only copy', CASE WHEN id % 1000 = 0 THEN 'open' ELSE 'resolved' END
       ::artwork_indexer.manual_review_status
FROM artwork_indexer.audit_entity;

INSERT INTO artwork_indexer.audit_result (audit_entity_id, run_id, outcome)
SELECT id, gen_random_uuid(), 'clean' FROM artwork_indexer.audit_entity;

INSERT INTO artwork_indexer.event_queue (state, entity_type, action, message)
SELECT CASE WHEN number % 1000 = 0 THEN 'failed' ELSE 'completed' END::artwork_indexer.event_state,
       'release', 'index', jsonb_build_object('gid', gen_random_uuid())
FROM generate_series(1, 20000) AS number;

ANALYZE artwork_indexer.audit_entity, artwork_indexer.needs_manual_review,
        artwork_indexer.audit_result, artwork_indexer.event_queue;
"""


class _Explaining:
    """A connection that keeps the plan of everything it runs."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn
        self.plans: list[str] = []

    def execute(self, query: Any, values: Any = None) -> psycopg.Cursor:
        plan = self._conn.execute("EXPLAIN " + query, values).fetchall()
        self.plans.append("\n".join(line for (line,) in plan))
        return self._conn.execute(query, values)


def test_nobody_reads_whole_tables_to_answer_a_question(tables: Tables) -> None:
    tables.conn.execute(_MANY_ROWS)
    row = tables.conn.execute("SELECT gid FROM artwork_indexer.audit_entity LIMIT 1").fetchone()
    assert row is not None
    conn = _Explaining(tables.conn)
    asking = cast("psycopg.Connection", conn)

    questions.REVIEWS.page(asking, ReviewFilter(), Page())
    questions.REVIEWS.find(asking, 1)
    questions.find_cases(asking, row[0])
    questions.FAILED_EVENTS.page(asking, EventFilter(), Page())
    list(staff.instructions(asking))

    for table in ("audit_entity", "needs_manual_review", "audit_result", "event_queue"):
        assert [plan for plan in conn.plans if re.search(rf"Seq Scan on {table}\b", plan)] == []


def test_who_acts_must_be_known(
    tables: Tables, review: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    id_ = tables.review(tables.entity())

    assert "--by NAME" in review("resolve", id_, "--note", "n", "--by", " ", code=2).output


# -- one entity --------------------------------------------------------------------------------


def test_a_case_shows_findings_events_failures_and_links(tables: Tables, review: Command) -> None:
    entity = tables.entity()
    tables.review(entity, reason="event has failed")
    done = tables.event(state="completed")
    failed = tables.event("deindex", failure="archive.org said 503")
    tables.event("deindex", gid=OTHER_GID, failure="of somebody else")
    tables.audit(
        entity,
        {
            "check": "index.image.value",
            "severity": "major",
            "subject": "5 comment",
            "expected": "a",
            "actual": "b",
            "repair": True,
        },
        events=(done,),
    )

    case = json.loads(review("show", GID, "--json").stdout)[0]
    shown = review("show", f"https://archive.org/details/mbid-{GID}").stdout

    assert [event["id"] for event in case["events"]] == [failed, done]
    assert case["events"][0]["failure"] == "archive.org said 503"
    assert case["audits"][0]["findings"][0]["subject"] == "5 comment"
    for text in (
        f"https://musicbrainz.org/release/{GID}",
        f"https://archive.org/details/mbid-{GID}",
        "archive.org said 503",
        "index.image.value",
        "event has failed",
    ):
        assert text in shown
    assert "of somebody else" not in shown


def test_an_audit_that_could_not_be_read_is_shown(tables: Tables, review: Command) -> None:
    tables.audit(tables.entity(), {"check": "unreadable", "subject": "503", "repair": False})

    assert "unreadable" in review("show", GID).stdout


@pytest.mark.parametrize("gid", ["no-gid", f"{GID} {OTHER_GID}"])
def test_what_is_no_gid_is_refused(review: Command, gid: str) -> None:
    assert "holds no gid" in review("show", gid, code=2).output


def test_an_unknown_gid_says_how_to_seed_it(review: Command) -> None:
    assert "seed it first" in review("show", GID, code=1).output


# -- settling reviews --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "before", "after", "status"),
    [
        ("resolve", "manual_review", "unchecked", "resolved"),
        ("resolve", "repair_queue", "repair_queue", "resolved"),
        ("wont-fix", "manual_review", "clean", "wont_fix"),
        ("wont-fix", "unchecked", "clean", "wont_fix"),
    ],
)
def test_a_review_is_closed_and_its_entity_follows(
    tables: Tables, review: Command, command: str, before: str, after: str, status: str
) -> None:
    entity = tables.entity(status=before)
    id_ = tables.review(entity)

    said = review(command, id_, "--note", "as agreed").stdout

    assert said == f"review {id_} is {status}; release {GID} is {after}\n"
    assert tables.status(entity) == after
    assert tables.notes(id_).endswith(f"UTC, alice: {status}: as agreed")
    assert tables.broken_invariants() == []


@pytest.mark.parametrize("status", ["resolved", "wont_fix"])
def test_a_closed_review_is_reopened_and_keeps_its_notes(
    tables: Tables, review: Command, status: str
) -> None:
    entity = tables.entity()
    id_ = tables.review(entity)
    review("resolve" if status == "resolved" else "wont-fix", id_, "--note", "first")

    review("reopen", id_, "--note", "second", "--by", "bob")

    assert tables.status(entity) == "manual_review"
    first, second = tables.notes(id_).splitlines()
    assert "alice" in first
    assert second.endswith("bob: open: second")
    assert tables.broken_invariants() == []


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("resolve", "resolved", "is resolved already"),
        ("wont-fix", "resolved", "is resolved already"),
        ("reopen", "open", "is open already"),
    ],
)
def test_a_review_that_stands_otherwise_is_left_alone(
    tables: Tables, review: Command, command: str, status: str, message: str
) -> None:
    id_ = tables.review(tables.entity(), status=status)

    assert message in review(command, id_, "--note", "n", code=1).output


def test_a_review_is_not_reopened_beside_an_open_one(tables: Tables, review: Command) -> None:
    entity = tables.entity()
    closed = tables.review(entity, status="resolved")
    tables.review(entity)

    assert "another open review" in review("reopen", closed, "--note", "n", code=1).output
    assert tables.broken_invariants() == []


def test_an_entity_under_audit_is_left_alone(tables: Tables, review: Command) -> None:
    entity = tables.entity(status="audit_in_progress")
    id_ = tables.review(entity)

    assert "being audited just now" in review("resolve", id_, "--note", "n", code=1).output
    assert tables.status(entity) == "audit_in_progress"


def test_a_review_that_changed_since_it_was_seen_is_left_alone(tables: Tables) -> None:
    entity = tables.entity()
    id_ = tables.review(entity, reason="only copy")
    seen = questions.REVIEWS.find(tables.conn, id_)
    assert seen is not None
    tables.conn.execute(
        "UPDATE artwork_indexer.needs_manual_review SET review_reason = 'item.dark'"
    )

    with pytest.raises(Refused, match="changed meanwhile"):
        actions.resolve(tables.conn, seen, by="alice", note="n")

    assert tables.status(entity) == "manual_review"
    assert tables.notes(id_) == "None"


def test_rows_that_somebody_holds_are_not_waited_for_for_long(
    tables: Tables, review: Command, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "LOCK_TIMEOUT", "50ms")
    id_ = tables.review(tables.entity())
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM artwork_indexer.audit_entity FOR UPDATE")

        said = review("resolve", id_, "--note", "n", code=1).output

    assert "another transaction is changing these rows" in said


def test_an_unknown_review_is_refused(review: Command) -> None:
    assert "there is no review 7" in review("resolve", 7, "--note", "n", code=1).output


# -- auditing again ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before", ["clean", "manual_review", "repair_queue", "legacy", "unchecked"]
)
def test_a_retried_entity_is_audited_before_all_others(
    tables: Tables, review: Command, before: str
) -> None:
    entity = tables.entity(status=before)

    review("retry", f"mbid-{GID}")

    row = tables.conn.execute(
        "SELECT status, priority FROM artwork_indexer.audit_entity"
    ).fetchone()
    assert row == ("unchecked", 300)
    assert tables.status(entity) == "unchecked"


@pytest.mark.parametrize("command", [["retry", str(GID)], ["resolve", "{review}", "--note", "x"]])
def test_what_a_person_wants_audited_does_not_wait_for_its_withdrawals(
    tables: Tables, review: Command, command: list[str]
) -> None:
    entity = tables.entity()
    id_ = tables.review(entity)
    tables.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET not_before = now() + interval '6 hours'"
    )
    result = review(*(word.format(review=id_) for word in command))
    assert result.exit_code == 0, result.output
    row = tables.conn.execute(
        "SELECT status::text, not_before FROM artwork_indexer.audit_entity"
    ).fetchone()
    assert row == ("unchecked", None)


def test_a_retry_is_noted_with_the_open_review(tables: Tables, review: Command) -> None:
    id_ = tables.review(tables.entity())

    review("retry", GID)

    assert tables.notes(id_).endswith("alice: to be audited again")


def test_gids_that_cannot_be_retried_do_not_keep_the_others(
    tables: Tables, review: Command
) -> None:
    unknown = UUID(int=1)
    tables.entity(OTHER_GID, status="audit_in_progress")
    entity = tables.entity(GID, status="clean")

    said = review("retry", GID, OTHER_GID, unknown, code=1).output

    assert f"release {GID} is unchecked now" in said
    assert f"release {OTHER_GID} is being audited just now" in said
    assert f"{unknown} is not in the audit table" in said
    assert tables.status(entity) == "unchecked"


# -- events ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["index", "deindex"]),
        (["--action", "deindex"], ["deindex"]),
        (["--reason", "slow down"], ["index"]),
        (["--entity", "event"], []),
        (["--offset", "1"], ["deindex"]),
    ],
)
def test_failed_events_are_listed_with_their_failure(
    tables: Tables, events: Command, arguments: list[str], expected: list[str]
) -> None:
    tables.event("index", failure="503 Slow Down")
    tables.event("deindex", failure="no such item")
    tables.event("index", state="queued", gid=OTHER_GID)

    found = json.loads(events("failed", "--json", *arguments).stdout)

    assert [event["action"] for event in found] == expected
    assert "503 Slow Down" in events("failed").stdout


def test_a_requeued_event_starts_anew_and_takes_its_dependants_along(
    tables: Tables, events: Command
) -> None:
    parent = tables.event("delete_image")
    child = tables.event("deindex", depends_on=(parent,))
    grandchild = tables.event("index", depends_on=(child,))
    bystander = tables.event("deindex", gid=OTHER_GID)
    id_ = tables.review(tables.entity(), reason="event has failed")

    said = events("requeue", "--any", parent).stdout

    assert f"event {child} is queued again (it depends on one of these)" in said
    for event in (parent, child, grandchild):
        assert tables.event_state(event) == ("queued", 0)
    assert tables.event_state(bystander) == ("failed", 5)
    assert tables.notes(id_).endswith(f"events requeued: {parent}, {child}, {grandchild}")


@pytest.mark.parametrize("state", ["queued", "running", "completed"])
def test_only_failed_events_are_requeued(tables: Tables, events: Command, state: str) -> None:
    event = tables.event(state=state)

    assert "is not failed" in events("requeue", "--any", event, code=1).output
    assert tables.event_state(event) == (state, 5)


def test_an_event_whose_twin_is_queued_stays_as_it_is(tables: Tables, events: Command) -> None:
    failed, twin = tables.event(), tables.event(state="queued")
    child = tables.event("deindex", depends_on=(failed,))
    other = tables.event(gid=OTHER_GID)

    said = events("requeue", "--any", failed, other, code=1).output

    assert f"event {failed} has an identical event" in said
    assert f"event {child} depends on an event that stays failed" in said
    assert tables.event_state(failed)[0] == "failed"
    assert tables.event_state(child)[0] == "failed"
    assert tables.event_state(twin) == ("queued", 5)
    assert tables.event_state(other) == ("queued", 0)


def test_of_two_failed_twins_one_is_requeued(tables: Tables, events: Command) -> None:
    first, second = tables.event(), tables.event()

    assert (
        f"event {second} has an identical event"
        in events("requeue", "--any", first, second, code=1).output
    )
    assert tables.event_state(first)[0] == "queued"
    assert tables.event_state(second)[0] == "failed"


def test_a_twin_that_is_not_committed_yet_is_not_waited_for(tables: Tables, database: str) -> None:
    failed = tables.event()

    def requeued() -> list[requeueing.Requeued]:
        with psycopg.connect(database, autocommit=True) as conn:
            again = requeueing.requeue(conn, [failed], by="alice", any_event=True)
        return [event.outcome for event in again]

    with psycopg.connect(database) as other:
        Tables(other).event(state="queued")
        assert requeued() == [requeueing.Requeued.BUSY]
    assert requeued() == [requeueing.Requeued.DUPLICATE]
    assert tables.event_state(failed)[0] == "failed"


def test_a_dependant_is_not_requeued_without_its_parent(tables: Tables, events: Command) -> None:
    parent = tables.event("delete_image")
    child = tables.event("deindex", depends_on=(parent,))

    assert (
        "depends on an event that stays failed" in events("requeue", "--any", child, code=1).output
    )
    assert tables.event_state(child)[0] == "failed"


def test_an_unknown_event_is_named(events: Command) -> None:
    assert "event 99 does not exist" in events("requeue", "--any", 99, code=1).output


def test_a_message_without_a_gid_does_not_stop_a_requeue(tables: Tables, events: Command) -> None:
    event = tables.event(gid="not a uuid")

    events("requeue", "--any", event)

    assert tables.event_state(event) == ("queued", 0)


# -- for archive.org ---------------------------------------------------------------------------


def _finding(check: str) -> dict[str, object]:
    return {"check": check, "severity": "major", "subject": "", "repair": False}


@pytest.mark.parametrize(
    ("checks", "in_review", "expected"),
    [
        (["item.dark"], "item.dark", ["make the item visible again, or say why it is dark"]),
        (["item.missing"], "item.missing", ["restore the item, or confirm that it is gone"]),
        (
            ["files.thumbnail.missing", "files.thumbnail.missing"],
            "files.thumbnail.missing",
            ["derive the item again: thumbnails are missing"],
        ),
        (
            ["orphan.leftover"],
            "orphan.leftover",
            ["remove the item: MusicBrainz does not have the entity any more"],
        ),
        (["item.noindex"], "item.noindex", ["set noindex to true"]),
        (
            ["item.collection", "item.mediatype"],
            "item.collection",
            ["set collection to coverartarchive", "set mediatype to image"],
        ),
        (["meta.title"], "xml.field", []),
        (["meta.title"], "meta.title", ["set title to that of mb_metadata.xml"]),
        (["index.image.value"], "index.image.value", []),
    ],
)
def test_the_staff_is_told_what_only_it_can_repair(
    tables: Tables, review: Command, checks: list[str], in_review: str, expected: list[str]
) -> None:
    entity = tables.entity()
    tables.review(entity, reason="in other words", check=in_review)
    tables.audit(entity, _finding("item.dark"))
    tables.audit(entity, *map(_finding, checks))

    lines = review("export", "--for", "archive.org").stdout.splitlines()

    assert lines == [f"mbid-{GID}\t{what}" for what in expected]


def test_the_staff_is_not_told_of_closed_reviews(tables: Tables, review: Command) -> None:
    entity = tables.entity()
    tables.review(entity, status="wont_fix")
    tables.audit(entity, _finding("item.dark"))

    assert review("export", "--for", "archive.org").stdout == ""


# -- settings ----------------------------------------------------------------------------------


def test_a_database_without_our_tables_says_how_to_get_them(musicbrainz_database: str) -> None:
    result = CliRunner().invoke(
        review_group, ["list"], env={"MUSICBRAINZ_DATABASE_URL": musicbrainz_database}
    )

    assert result.exit_code == 2
    assert "run `artwork-backfill migrate` first" in result.output
