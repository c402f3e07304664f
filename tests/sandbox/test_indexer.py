"""The stand-in for artwork-indexer: order, states, attempts, dependencies, and what it repairs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sandbox.entities import EntityType
from sandbox.formats import ARCHIVES, extract, index_document, index_json, xml_name
from sandbox.indexer import MAX_ATTEMPTS, Indexer, advance
from sandbox.load import load
from sandbox.postgres import Cluster
from sandbox.services import Services
from sandbox.world import Spec, World
from tests.timing import LIMIT_S

SPEC = Spec(seed=21, size=700, drift_rate=0.2)

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

QUEUE = """
INSERT INTO artwork_indexer.event_queue (entity_type, action, message, depends_on, created)
VALUES ('release', %s, %s, %s, now() - make_interval(secs => %s)) RETURNING id
"""


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with Services(SPEC) as services:
        yield services


@pytest.fixture
def indexer(musicbrainz_database: str, services: Services) -> Indexer:
    return Indexer(
        musicbrainz_database,
        services.archive_url,
        services.musicbrainz_url,
        retry_delay_s=0,
        taking_s=0,
    )


@pytest.fixture
def conn(musicbrainz_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(musicbrainz_database, autocommit=True) as conn:
        yield conn


def queue(
    conn: psycopg.Connection,
    action: str,
    message: dict[str, Any],
    *,
    after: list[int] | None = None,
    age_s: float = 0,
) -> int:
    row = conn.execute(QUEUE, (action, json.dumps(message), after, age_s)).fetchone()
    assert row is not None
    return int(row[0])


def states(conn: psycopg.Connection) -> dict[int, tuple[str, int]]:
    rows = conn.execute("SELECT id, state::text, attempts FROM artwork_indexer.event_queue")
    return {event: (state, attempts) for event, state, attempts in rows}


def reasons(conn: psycopg.Connection) -> list[tuple[int, str]]:
    return conn.execute(
        "SELECT event, failure_reason FROM artwork_indexer.event_failure_reason"
    ).fetchall()


def test_events_run_in_order_of_creation(conn: psycopg.Connection, indexer: Indexer) -> None:
    newer = queue(conn, "noop", {"n": 1})
    older = queue(conn, "noop", {"n": 2}, age_s=60)
    assert indexer.run_one(conn)
    assert states(conn) == {newer: ("queued", 0), older: ("completed", 1)}
    assert indexer.run_until_idle() == 1
    assert states(conn)[newer] == ("completed", 1)


def test_an_event_fails_for_good_when_its_attempts_are_used_up(
    conn: psycopg.Connection, indexer: Indexer
) -> None:
    event = queue(conn, "noop", {"fail": True})
    assert indexer.run_one(conn)
    assert states(conn) == {event: ("queued", 1)}
    assert indexer.run_until_idle() == MAX_ATTEMPTS - 1
    assert states(conn) == {event: ("failed", MAX_ATTEMPTS)}
    assert [found for found, _ in reasons(conn)] == [event] * MAX_ATTEMPTS


def test_a_failed_attempt_is_not_repeated_at_once(
    conn: psycopg.Connection, musicbrainz_database: str, services: Services
) -> None:
    event = queue(conn, "noop", {"fail": True})
    urls = services.archive_url, services.musicbrainz_url
    indexer = Indexer(musicbrainz_database, *urls, taking_s=0)
    assert indexer.run_until_idle() == 1
    assert states(conn) == {event: ("queued", 1)}


def test_a_failed_attempt_fails_for_good_when_an_identical_event_waits(
    conn: psycopg.Connection, indexer: Indexer, services: Services
) -> None:
    message = {"gid": str(uuid.uuid4())}
    first = queue(conn, "index", message)
    services.control("musicbrainz", latency_s=0.5)
    worker = threading.Thread(target=_run_one, args=(indexer, conn.info.dsn))
    worker.start()
    _wait_until(conn, first, "running")
    second = queue(conn, "index", message)
    worker.join(LIMIT_S)
    services.control("musicbrainz", latency_s=0)
    assert states(conn) == {first: ("failed", 1), second: ("queued", 0)}


def _run_one(indexer: Indexer, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        indexer.run_one(conn)


def test_each_failed_attempt_makes_the_wait_an_hour_longer(
    conn: psycopg.Connection, musicbrainz_database: str, services: Services
) -> None:
    urls = services.archive_url, services.musicbrainz_url
    indexer = Indexer(musicbrainz_database, *urls, taking_s=0)
    event = queue(conn, "noop", {"fail": True})
    for attempts in range(1, MAX_ATTEMPTS):
        assert indexer.run_until_idle() == 1
        assert states(conn) == {event: ("queued", attempts)}
        advance(conn, timedelta(hours=attempts, minutes=-1))
        assert indexer.run_until_idle() == 0
        advance(conn, timedelta(minutes=1))
    assert indexer.run_until_idle() == 1
    assert states(conn) == {event: ("failed", MAX_ATTEMPTS)}


def test_an_event_is_locked_for_a_quarter_of_a_second_before_it_runs(
    conn: psycopg.Connection, musicbrainz_database: str, services: Services
) -> None:
    indexer = Indexer(musicbrainz_database, services.archive_url, services.musicbrainz_url)
    event = queue(conn, "noop", {})
    worker = threading.Thread(target=_run_one, args=(indexer, conn.info.dsn))
    started = time.monotonic()
    worker.start()
    lock = "SELECT id FROM artwork_indexer.event_queue FOR UPDATE SKIP LOCKED"
    while conn.execute(lock).fetchall():
        assert time.monotonic() < started + 30
    assert states(conn) == {event: ("queued", 0)}
    worker.join(LIMIT_S)
    assert states(conn) == {event: ("completed", 1)}
    assert time.monotonic() - started >= 0.25


def test_an_idle_indexer_fails_what_began_too_late(
    conn: psycopg.Connection, indexer: Indexer
) -> None:
    late = queue(conn, "noop", {"n": 1}, age_s=160)
    early = queue(conn, "noop", {"n": 2}, age_s=140)
    conn.execute("UPDATE artwork_indexer.event_queue SET state = 'running'")
    assert indexer.run_until_idle() == 0
    assert states(conn) == {late: ("failed", 0), early: ("running", 0)}
    assert [event for event, _ in reasons(conn)] == [late]


def test_completed_events_are_kept_for_90_days(
    conn: psycopg.Connection, musicbrainz_database: str, services: Services
) -> None:
    urls = services.archive_url, services.musicbrainz_url
    indexer = Indexer(musicbrainz_database, *urls, taking_s=0, clean_up_every_s=0)
    queue(conn, "noop", {})
    assert indexer.run_until_idle() == 1
    advance(conn, timedelta(days=89))
    indexer.run_until_idle()
    assert len(states(conn)) == 1
    advance(conn, timedelta(days=2))
    indexer.run_until_idle()
    assert states(conn) == {}


def test_a_parent_that_is_gone_holds_nothing_up(conn: psycopg.Connection, indexer: Indexer) -> None:
    parent = queue(conn, "noop", {"n": 1})
    child = queue(conn, "noop", {"n": 2}, after=[parent])
    conn.execute("DELETE FROM artwork_indexer.event_queue WHERE id = %s", (parent,))
    assert indexer.run_until_idle() == 1
    assert states(conn) == {child: ("completed", 1)}


def test_an_event_waits_for_those_it_depends_on(conn: psycopg.Connection, indexer: Indexer) -> None:
    parent = queue(conn, "noop", {"n": 1})
    child = queue(conn, "noop", {"n": 2}, after=[parent], age_s=60)
    assert indexer.run_one(conn)
    assert states(conn) == {parent: ("completed", 1), child: ("queued", 0)}
    assert indexer.run_until_idle() == 1
    assert states(conn)[child] == ("completed", 1)


def test_an_event_fails_with_one_that_it_depends_on(
    conn: psycopg.Connection, indexer: Indexer
) -> None:
    parent = queue(conn, "noop", {"fail": True})
    child = queue(conn, "noop", {"n": 2}, after=[parent])
    grandchild = queue(conn, "noop", {"n": 3}, after=[child])
    indexer.run_until_idle()
    indexer.run_until_idle()
    assert states(conn) == {
        parent: ("failed", MAX_ATTEMPTS),
        child: ("failed", 0),
        grandchild: ("failed", 0),
    }
    assert {event for event, _ in reasons(conn)} == {parent, child, grandchild}


def test_several_indexers_share_the_queue(conn: psycopg.Connection, indexer: Indexer) -> None:
    events = [queue(conn, "noop", {"n": number}) for number in range(30)]
    with psycopg.connect(conn.info.dsn) as other:
        taken = other.execute(
            "SELECT id FROM artwork_indexer.event_queue ORDER BY created, id LIMIT 1 FOR UPDATE"
        ).fetchone()
        assert taken is not None
        assert indexer.run_until_idle() == 29
    assert states(conn)[taken[0]] == ("queued", 0)
    assert {state for event, (state, _) in states(conn).items() if event != taken[0]} == {
        "completed"
    }
    assert set(states(conn)) == set(events)


def test_an_image_that_is_still_to_be_copied_is_not_deleted(
    conn: psycopg.Connection, indexer: Indexer
) -> None:
    gid, other = str(uuid.uuid4()), str(uuid.uuid4())
    image = {"artwork_id": 5, "suffix": "jpg"}
    deletion = queue(conn, "delete_image", {**image, "gid": gid}, age_s=60)
    copy = queue(conn, "copy_image", {**image, "old_gid": gid, "new_gid": other})
    assert indexer.run_one(conn)
    assert states(conn)[deletion] == ("queued", 1)
    assert str(copy) in reasons(conn)[0][1]


def test_an_event_that_cannot_be_understood_fails(
    conn: psycopg.Connection, indexer: Indexer
) -> None:
    event = queue(conn, "index", {"mbid": "x"})
    indexer.run_until_idle()
    assert states(conn) == {event: ("failed", MAX_ATTEMPTS)}


def test_an_entity_that_musicbrainz_does_not_know_cannot_be_indexed(
    conn: psycopg.Connection, indexer: Indexer
) -> None:
    queue(conn, "index", {"gid": str(uuid.uuid4())})
    assert indexer.run_one(conn)
    assert "404" in reasons(conn)[0][1]


@pytest.fixture(scope="module")
def repaired(postgres: Cluster, musicbrainz_template: str, services: Services) -> Iterator[World]:
    """A world after every live entity that can be repaired has been indexed."""
    world = World(SPEC)
    name = f"repaired_{uuid.uuid4().hex}"
    dsn = postgres.create_database(name, template=musicbrainz_template)
    with psycopg.connect(dsn, autocommit=True) as conn:
        load(conn, world)
        conn.cursor().executemany(
            "INSERT INTO artwork_indexer.event_queue (entity_type, action, message)"
            " VALUES (%s, 'index', jsonb_build_object('gid', %s::text))",
            [
                (str(plan.entity_type), plan.gid)
                for plan in world.drifted()
                if plan.repaired == "clean"
            ],
        )
        Indexer(dsn, services.archive_url, services.musicbrainz_url, taking_s=0).run_until_idle()
        assert {state for state, _ in states(conn).values()} == {"completed"}
    yield world
    postgres.drop_database(name)


@pytest.mark.parametrize("entity_type", list(EntityType))
def test_indexing_brings_an_item_back_to_what_it_should_hold(
    repaired: World, services: Services, entity_type: EntityType
) -> None:
    compared = 0
    for plan in repaired.drifted():
        number = repaired.number(plan.gid)
        assert number is not None
        entity = repaired.entity(number)
        if plan.repaired != "clean" or not entity.artwork or plan.entity_type != entity_type:
            continue
        document = metadata(services, plan.gid)
        sums = {file["name"]: file["md5"] for file in document["files"]}
        index = index_json(index_document(entity_type, plan.gid, repaired.listing(entity)))
        assert sums["index.json"] == hashlib.md5(index).hexdigest()
        answer = repaired.xml(entity_type, plan.gid)
        assert answer is not None
        assert sums[xml_name(plan.gid)] == hashlib.md5(answer[1]).hexdigest()
        assert document["metadata"].items() >= extract(answer[1]).items()
        assert document["metadata"]["collection"] == ARCHIVES[entity_type].collection
        assert document["metadata"]["mediatype"] == "image"
        assert document["metadata"]["noindex"] == "true"
        compared += 1
    assert compared > 10


def metadata(services: Services, gid: str) -> Any:
    with DIRECT.open(f"{services.archive_url}/metadata/mbid-{gid}") as response:
        return json.load(response)


def test_deindexing_removes_only_the_listing(
    conn: psycopg.Connection, indexer: Indexer, services: Services
) -> None:
    world = World(SPEC)
    gid = next(plan.gid for plan in world.drifted() if plan.drift == "orphan-index-with-xml")
    queue(conn, "deindex", {"gid": gid})
    assert indexer.run_until_idle() == 1
    names = {file["name"] for file in metadata(services, gid)["files"]}
    assert "index.json" not in names
    assert f"mbid-{gid}_mb_metadata.xml" in names


def test_copying_an_image_puts_it_with_its_derivatives_into_the_other_item(
    conn: psycopg.Connection, indexer: Indexer, services: Services
) -> None:
    world = World(SPEC)
    entity = next(
        entity
        for number, plan in enumerate(world.plans())
        if plan.drift is None and (entity := world.entity(number)).artwork and not entity.dark
    )
    image, new_gid = entity.artwork[0], str(uuid.uuid4())
    message = {"artwork_id": image.id, "suffix": image.suffix, "old_gid": entity.gid}
    queue(conn, "copy_image", {**message, "new_gid": new_gid})
    assert indexer.run_until_idle() == 1
    names = {file["name"] for file in metadata(services, new_gid)["files"]}
    stem = f"mbid-{new_gid}-{image.id}"
    assert {f"{stem}.{image.suffix}", f"{stem}_thumb250.jpg"} <= names


def test_an_indexer_works_until_it_is_stopped(conn: psycopg.Connection, indexer: Indexer) -> None:
    worker = threading.Thread(target=indexer.run, kwargs={"poll_s": 0.01})
    worker.start()
    event = queue(conn, "noop", {})
    _wait_until(conn, event, "completed")
    indexer.stop()
    worker.join(LIMIT_S)
    assert not worker.is_alive()


def test_an_indexer_can_be_a_process(
    conn: psycopg.Connection, musicbrainz_database: str, services: Services
) -> None:
    urls = [services.archive_url, services.musicbrainz_url]
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox.indexer", musicbrainz_database, *urls],
        cwd=Path(__file__).parents[2],
    )
    _wait_until(conn, queue(conn, "noop", {}), "completed")
    process.terminate()
    assert process.wait(LIMIT_S) == 0


def _wait_until(conn: psycopg.Connection, event: int, state: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while states(conn)[event][0] != state:
        assert time.monotonic() < deadline
        time.sleep(0.01)
