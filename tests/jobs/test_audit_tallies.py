"""What audits leave behind for questions about the past."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from threading import Event
from uuid import UUID, uuid4

import psycopg
import pytest

from artwork_backfill.jobs.audit_batch import tallies
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.decide import Decision, QueuedAction, Status
from artwork_backfill.shared.audit.finding import found
from artwork_backfill.shared.auditing.models import Audit, Claim, Deferral, Entity, Reason
from artwork_backfill.shared.engine.session import Session

RUN = UUID(int=1)


@pytest.fixture
def conn(migrated_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(migrated_database, autocommit=True) as conn:
        yield conn


def _audit(id_: int, status: Status, *checks: str, events: int = 0) -> Audit:
    gid = str(UUID(int=id_))
    return Audit(
        Claim(Entity(id_, EntityType.RELEASE, gid), datetime.now(UTC), None),
        Decision(status, events=(QueuedAction("index", gid),) * events),
        tuple(found(check) for check in checks),
    )


def _deferred(id_: int) -> Audit:
    claim = Claim(Entity(id_, EntityType.RELEASE, str(UUID(int=id_))), datetime.now(UTC), None)
    return Audit(claim, Deferral(Reason.TASKS_PENDING))


def test_batches_of_a_run_add_up(conn: psycopg.Connection) -> None:
    tallies.add(conn, [_audit(1, Status.CLEAN), _audit(2, Status.CLEAN), _deferred(3)], RUN)
    tallies.add(conn, [_audit(4, Status.CLEAN), _audit(5, Status.REPAIR_QUEUE, events=2)], RUN)
    assert conn.execute(
        "SELECT outcome, sum(audits), sum(events) FROM artwork_indexer.audit_tally"
        " WHERE run_id = %s GROUP BY outcome ORDER BY outcome",
        (RUN,),
    ).fetchall() == [("clean", 3, 0), ("repair_queue", 1, 2)]


def test_findings_are_counted_by_entity_and_one_by_one_with_the_latest_as_examples(
    conn: psycopg.Connection,
) -> None:
    tallies.add(conn, [_audit(1, Status.REPAIR_QUEUE, "xml.field", "xml.field")], RUN)
    many = [_audit(id_, Status.REPAIR_QUEUE, "xml.field") for id_ in range(2, 5 + tallies.EXAMPLES)]
    tallies.add(conn, [*many, _audit(99, Status.MANUAL_REVIEW, "item.dark")], RUN)
    rows = conn.execute(
        "SELECT check_name, entities, findings, examples FROM artwork_indexer.finding_tally"
        " ORDER BY check_name"
    ).fetchall()
    assert rows == [("item.dark", 1, 1, [99]), ("xml.field", 9, 10, [5, 6, 7, 8, 9])]


def test_runs_at_work_at_the_same_time_do_not_wait_for_each_other(
    conn: psycopg.Connection, migrated_database: str
) -> None:
    conn.execute("SET lock_timeout = '1s'")
    with psycopg.connect(migrated_database) as other:
        tallies.add(other, [_audit(1, Status.REPAIR_QUEUE, "xml.field")], uuid4())
        tallies.add(conn, [_audit(2, Status.REPAIR_QUEUE, "xml.field")], uuid4())


def test_a_batch_that_decided_nothing_leaves_nothing(conn: psycopg.Connection) -> None:
    tallies.add(conn, [_deferred(1)], RUN)
    assert conn.execute("SELECT count(*) FROM artwork_indexer.audit_tally").fetchone() == (0,)


class Clock:
    """A clock that stands still until it is told otherwise."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _history(connect: Callable[[], psycopg.Connection], clock: Clock) -> tallies.StatusHistory:
    return tallies.StatusHistory(lambda: Session(connect, patience=0.0), clock)


def test_statuses_are_kept_once_an_hour(conn: psycopg.Connection, migrated_database: str) -> None:
    conn.execute(
        "INSERT INTO artwork_indexer.audit_entity (entity_type, gid)"
        " VALUES ('release', gen_random_uuid()), ('event', gen_random_uuid())"
    )
    clock = Clock()

    def connect() -> psycopg.Connection:
        return psycopg.connect(migrated_database)

    for history in (_history(connect, clock), _history(connect, clock)):
        history.keep()
        history.wait(30)
    assert _kept(conn) == [("unchecked", 2)]
    conn.execute(
        "UPDATE artwork_indexer.audit_status_history SET taken_at = taken_at - interval '61 min'"
    )
    conn.execute("UPDATE artwork_indexer.audit_entity SET status = 'clean'")
    clock.now += 3600
    history.keep()
    history.wait(30)
    assert _kept(conn) == [("unchecked", 2), ("clean", 2)]


def test_statuses_that_cannot_be_counted_hold_up_nothing_and_are_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    may_fail = Event()
    attempts: list[bool] = []

    def connect() -> psycopg.Connection:
        attempts.append(may_fail.wait(30))
        raise psycopg.OperationalError("the statement timed out")

    clock = Clock()
    history = _history(connect, clock)
    history.keep()
    assert not may_fail.is_set()
    may_fail.set()
    history.wait(30)
    assert "the numbers of entities by status were not stored" in caplog.text
    # Not again within the hour.
    history.keep()
    assert attempts == [True]
    clock.now += 3600
    history.keep()
    history.wait(30)
    assert attempts == [True, True]


def _kept(conn: psycopg.Connection) -> list[tuple[str, int]]:
    return conn.execute(
        "SELECT status::text, entities FROM artwork_indexer.audit_status_history ORDER BY taken_at"
    ).fetchall()
