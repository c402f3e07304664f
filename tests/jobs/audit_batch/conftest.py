"""Databases with a small world in them, every entity of which waits for an audit."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from artwork_backfill.shared.migrations import migrate
from sandbox.load import build_database
from sandbox.postgres import Cluster
from sandbox.world import World
from tests.jobs.audit_batch.audit_scene import (
    DEAD_AFTER_S,
    SPEC,
    FakeArchive,
    FakeMusicBrainz,
    Scene,
)
from tests.tiny import wait_for

_SEED = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid)
SELECT * FROM unnest(%s::artwork_indexer.indexable_entity_type[], %s::uuid[])
"""

_RESET = """
TRUNCATE artwork_indexer.audit_entity, artwork_indexer.event_queue, artwork_indexer.audit_tally,
         artwork_indexer.finding_tally, artwork_indexer.audit_status_history,
         artwork_indexer.backfill_run, artwork_indexer.repair_tally
RESTART IDENTITY CASCADE
"""


_IS_OLD = "SELECT pg_postmaster_start_time() < now() - make_interval(secs => %s)"


def seed(conn: psycopg.Connection, world: World) -> None:
    """Let every gid of the world wait for an audit, unknown ones included."""
    plans = list(world.plans())
    conn.execute(_SEED, ([str(plan.entity_type) for plan in plans], [plan.gid for plan in plans]))


@pytest.fixture(scope="session")
def world() -> World:
    return World(SPEC)


@pytest.fixture(scope="session")
def audit_template(postgres: Cluster, world: World) -> Iterator[str]:
    """Name of a database with the world, our tables, and an unchecked row for every gid."""
    name = _fresh_name()
    dsn = postgres.create_database(name)
    build_database(dsn, world)
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
        seed(conn, world)
        # A server that has just started takes no run for dead.
        wait_for(lambda: conn.execute(_IS_OLD, (DEAD_AFTER_S,)).fetchone() == (True,))
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def shared_database(postgres: Cluster, audit_template: str) -> Iterator[str]:
    """URL of a database like `audit_template`, whose audit and queue are reset for every test."""
    yield from _copy(postgres, audit_template)


@pytest.fixture
def own_database(postgres: Cluster, audit_template: str) -> Iterator[str]:
    """URL of a database like `audit_template`, for a test that changes more than that."""
    yield from _copy(postgres, audit_template)


@pytest.fixture
def scene(shared_database: str, world: World) -> Iterator[Scene]:
    """A world in which everything waits for an audit and nothing is in the queue."""
    with psycopg.connect(shared_database, autocommit=True) as conn:
        conn.execute(_RESET)
        seed(conn, world)
        yield _scene(shared_database, world, conn)


@pytest.fixture
def own_scene(own_database: str, world: World) -> Iterator[Scene]:
    """The same, for a test that changes MusicBrainz's tables or any schema."""
    with psycopg.connect(own_database, autocommit=True) as conn:
        yield _scene(own_database, world, conn)


def _scene(dsn: str, world: World, conn: psycopg.Connection) -> Scene:
    return Scene(dsn, world, conn, FakeArchive(world), FakeMusicBrainz(world), uuid.uuid4())


def _copy(postgres: Cluster, template: str) -> Iterator[str]:
    name = _fresh_name()
    yield postgres.create_database(name, template=template)
    postgres.drop_database(name)


def _fresh_name() -> str:
    return f"artwork_backfill_test_{uuid.uuid4().hex}"
