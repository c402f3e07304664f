"""Claims: in which order entities are taken, by whom, and how they come back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from artwork_backfill.jobs.audit_batch import claims
from artwork_backfill.jobs.audit_batch.writing import count_dead, fail
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.auditing.models import STREAK_LIMIT, Claim
from artwork_backfill.shared.engine.job import Partition
from artwork_backfill.shared.engine.session import Session, connect
from artwork_backfill.shared.engine.sources import Claims
from tests.jobs.audit_batch.audit_scene import Scene


@pytest.fixture
def other(scene: Scene) -> Iterator[psycopg.Connection]:
    """The session of another run."""
    with psycopg.connect(scene.dsn, autocommit=True) as conn:
        yield conn


def _now(scene: Scene) -> datetime:
    now: datetime = scene.value("SELECT now()")
    return now


def _begun(scene: Scene) -> Claims[Claim]:
    """The claims of another run, whose record has begun."""
    scene.run_id = uuid4()
    run = scene.claims()
    session = Session(lambda: connect(scene.dsn, "test"))
    run.record.begin(session, "audit-batch", {})
    session.close()
    return run


def _in_progress(scene: Scene) -> int:
    return int(
        scene.value(
            "SELECT count(*) FROM artwork_indexer.audit_entity WHERE status = 'audit_in_progress'"
        )
    )


def test_the_highest_priority_comes_first_then_who_was_never_audited_then_who_waits_longest(
    scene: Scene,
) -> None:
    gids = [plan.gid for plan in scene.world.plans()][:5]
    scene.only(*gids)
    for gid, priority, age in zip(gids, (100, 100, 100, 300, 100), (1, 3, None, 1, 2), strict=True):
        scene.conn.execute(
            "UPDATE artwork_indexer.audit_entity"
            " SET priority = %s, last_audit_at = now() - make_interval(days => %s) WHERE gid = %s",
            (priority, age, gid),
        )
    one_by_one = [scene.claim(1)[0].entity.gid for _ in gids]
    assert one_by_one == [gids[3], gids[2], gids[1], gids[4], gids[0]]


def test_a_claim_says_when_it_was_made_and_when_the_last_audit_was(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.only(gid)
    before = _now(scene) - timedelta(days=7)
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET last_audit_at = %s WHERE gid = %s", (before, gid)
    )
    [claim] = scene.claim()
    assert claim.audited_before == before
    assert claim.claimed_at == scene.value(
        "SELECT last_audit_at FROM artwork_indexer.audit_entity WHERE gid = %s", gid
    )


def test_what_another_transaction_is_claiming_is_left_to_it(
    scene: Scene, other: psycopg.Connection
) -> None:
    with other.transaction():
        theirs = scene.claims().take(other, 100)
        ours = scene.claims().take(scene.conn, 500)
    assert len(theirs) == 100
    assert len(theirs) + len(ours) == scene.world.spec.size
    assert not {claim.entity.id for claim in theirs} & {claim.entity.id for claim in ours}


def test_partitions_share_out_everything_once(scene: Scene) -> None:
    shares = [scene.claims(index, 3).take(scene.conn, 500) for index in range(3)]
    ids = [claim.entity.id for share in shares for claim in share]
    assert len(ids) == len(set(ids)) == scene.world.spec.size
    assert all(len(share) > 100 for share in shares)


def test_a_run_does_not_claim_again_what_it_has_put_back(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.only(gid)
    run = scene.claims()
    claimed = run.take(scene.conn, 5)
    fail(scene.conn, [(claim, "no answer") for claim in claimed], scene.run_id)
    assert scene.status(gid) == "unchecked"
    assert run.take(scene.conn, 5) == []
    assert len(scene.claims().take(scene.conn, 5)) == 1


def test_what_keeps_its_place_stands_where_it_stood(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.only(gid)
    claims.TABLE.give_back(scene.conn, scene.claim())
    row = scene.rows(
        "SELECT status::text, last_audit_at FROM artwork_indexer.audit_entity WHERE gid = %s", gid
    )[0]
    assert (row.status, row.last_audit_at) == ("unchecked", None)


def test_a_claim_that_somebody_else_has_taken_over_is_not_given_back(scene: Scene) -> None:
    gid = scene.plan(None).gid
    scene.only(gid)
    claimed = scene.claim()
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET last_audit_at = now() WHERE gid = %s", (gid,)
    )
    claims.TABLE.give_back(scene.conn, claimed)
    assert scene.status(gid) == "audit_in_progress"


def test_claims_of_a_run_that_has_ended_are_taken_back_at_once(scene: Scene) -> None:
    started = _now(scene)
    scene.claim(7)
    scene.record(finished=True)
    run = _begun(scene)
    assert run.reclaim(scene.conn) == 7
    assert _in_progress(scene) == 0
    # Open to this very run, behind all others.
    later = run.take(scene.conn, 500)
    assert len(later) == scene.world.spec.size
    assert started < later[0].claimed_at
    assert run.count_held(scene.conn) == scene.world.spec.size


# One that will beat in an hour counts as alive, however slow the machine is.
@pytest.mark.parametrize(("heartbeat", "taken"), [("-1 hour", 0), ("3 seconds", 7)])
def test_claims_of_a_run_without_a_heartbeat_are_taken_back(
    scene: Scene, heartbeat: str, taken: int
) -> None:
    scene.claim(7)
    scene.record(heartbeat=heartbeat)
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET last_audit_at = now() - interval '2 hours'"
        " WHERE status = 'audit_in_progress'"
    )
    run = _begun(scene)
    assert run.count_dead(scene.conn) == taken
    assert run.reclaim(scene.conn) == taken
    assert _in_progress(scene) == 7 - taken


@pytest.mark.parametrize(("age", "taken"), [("14 minutes", 0), ("16 minutes", 7)])
def test_claims_without_a_record_of_their_run_are_taken_back_when_they_are_old(
    scene: Scene, age: str, taken: int
) -> None:
    scene.claim(7)
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET last_audit_at = now() - %s::interval"
        " WHERE status = 'audit_in_progress'",
        (age,),
    )
    run = _begun(scene)
    assert run.count_dead(scene.conn) == taken
    assert run.reclaim(scene.conn) == taken


def test_a_run_that_died_counts_as_an_audit_that_could_not_be_read(scene: Scene) -> None:
    """It may have died of the entity, and so would all others."""
    gid = scene.plan(None).gid
    scene.only(gid)
    run_id = scene.run_id
    audits = []
    for _ in range(STREAK_LIMIT):
        dead = _begun(scene)
        assert len(scene.claim()) == 1
        session = Session(lambda: connect(scene.dsn, "test"))
        dead.record.finish(session, "stopped", 0, {})
        session.close()
        scene.run_id = uuid4()
        taking_back = replace(
            scene.claims(), reclaimed=lambda conn, ids: count_dead(conn, ids, run_id)
        )
        with scene.conn.transaction():
            assert taking_back.reclaim(scene.conn) == 1
        audits.append(scene.value("SELECT max(audits) FROM artwork_indexer.audit_streak"))
    assert audits == [1, 2, 3, 4, None]
    assert scene.status(gid) == "manual_review"
    assert "the last run ended while it audited the entity" in scene.value(
        "SELECT review_reason FROM artwork_indexer.needs_manual_review"
    )


def test_a_run_never_takes_back_its_own_claims(scene: Scene) -> None:
    scene.claim(7)
    scene.record(heartbeat="1 hour")
    assert scene.claims().reclaim(scene.conn) == 0


def test_claims_that_are_being_written_are_neither_taken_back_nor_waited_for(
    scene: Scene, other: psycopg.Connection
) -> None:
    claimed = scene.claim(7)
    scene.record(finished=True)
    run = _begun(scene)
    with other.transaction():
        other.execute(
            "SELECT FROM artwork_indexer.audit_entity WHERE id = %s FOR UPDATE",
            (claimed[0].entity.id,),
        )
        assert run.reclaim(scene.conn) == 6


def test_a_run_in_the_middle_of_a_transaction_is_not_dead(
    scene: Scene, other: psycopg.Connection
) -> None:
    scene.claim(7)
    scene.record(heartbeat="1 hour")
    run = _begun(scene)
    with other.transaction():
        other.execute("SELECT FROM artwork_indexer.backfill_run FOR KEY SHARE")
        assert run.reclaim(scene.conn) == 0
    assert run.reclaim(scene.conn) == 7


@pytest.mark.parametrize(
    ("states", "is_settled"),
    [
        (["completed"], True),
        (["completed", "failed"], True),
        ([], True),
        (["completed", "queued"], False),
        (["running"], False),
    ],
)
def test_repairs_that_ended_unnoticed_are_audited_again(
    scene: Scene, states: list[str], is_settled: bool
) -> None:
    gid = scene.plan("index-missing").gid
    event_ids = [
        scene.queue(gid, state=state, message={"gid": gid, "artwork_id": number, "suffix": "jpg"})
        for number, state in enumerate(states)
    ]
    scene.conn.execute(
        "INSERT INTO artwork_indexer.audit_result (audit_entity_id, run_id, outcome, event_ids)"
        " VALUES (%s, %s, 'repair_queue', %s)",
        (scene.id(gid), scene.run_id, event_ids or [999_999]),
    )
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET status = 'repair_queue' WHERE gid = %s", (gid,)
    )
    assert claims.recheck_ended_repairs(scene.conn) == is_settled
    assert scene.status(gid) == ("unchecked" if is_settled else "repair_queue")


def test_a_dry_run_looks_at_what_a_real_one_would_claim_in_the_same_order_once_each(
    scene: Scene,
) -> None:
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET priority = 10 + mod(id, 3) * 100,"
        " last_audit_at ="
        "  CASE WHEN mod(id, 4) < 2 THEN now() - make_interval(days => mod(id, 7)::int) END"
    )
    browse = claims.browse(Partition(1, 2))
    seen: list[int] = []
    page, place = browse(scene.conn, None, 7)
    while page:
        seen += [claim.entity.id for claim in page]
        page, place = browse(scene.conn, place, 7)
    claimed = [
        row.id
        for row in scene.rows(
            "SELECT id FROM artwork_indexer.audit_entity WHERE mod(id, 2) = 1"
            " ORDER BY priority DESC, last_audit_at NULLS FIRST, id"
        )
    ]
    assert seen == claimed
    assert _in_progress(scene) == 0


@pytest.mark.parametrize("status", ["unchecked", "clean", "repair_queue", "manual_review"])
def test_a_given_entity_is_claimed_whatever_its_status(scene: Scene, status: str) -> None:
    gid = scene.plan(None).gid
    scene.conn.execute(
        "UPDATE artwork_indexer.audit_entity SET status = %s WHERE gid = %s", (status, gid)
    )
    [claim] = claims.claim_one(scene.conn, EntityType.RELEASE, gid, scene.run_id)
    assert (claim.entity.gid, scene.status(gid)) == (gid, "audit_in_progress")


def test_a_given_entity_that_another_run_holds_is_left_to_it(scene: Scene) -> None:
    gid = scene.plan(None).gid
    assert len(claims.claim_one(scene.conn, EntityType.RELEASE, gid, scene.run_id)) == 1
    assert claims.claim_one(scene.conn, EntityType.RELEASE, gid, scene.run_id) == []


def test_a_given_entity_that_is_not_known_is_added(scene: Scene) -> None:
    gid = "00000000-0000-4000-8000-000000000001"
    [claim] = claims.claim_one(scene.conn, EntityType.EVENT, gid, scene.run_id)
    row = scene.rows("SELECT * FROM artwork_indexer.audit_entity WHERE gid = %s", gid)[0]
    assert (row.id, row.entity_type, row.priority) == (claim.entity.id, "event", 10)
