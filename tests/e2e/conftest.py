"""Worlds for the tests from the command line."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest

from artwork_backfill.shared.migrations import migrate
from sandbox.load import build_database
from sandbox.postgres import Cluster
from sandbox.services import Services
from sandbox.world import Spec, World
from tests.e2e.place import SEED, Place


@pytest.fixture
def place(postgres: Cluster) -> Iterator[Callable[[Spec], Place]]:
    """Builds the world of a specification, with all that is needed to audit it."""
    undo: list[Callable[[], None]] = []

    def build(spec: Spec) -> Place:
        name = f"artwork_backfill_test_{uuid.uuid4().hex}"
        dsn = postgres.create_database(name)
        undo.append(lambda: postgres.drop_database(name))
        world = World(spec)
        build_database(dsn, world)
        services = Services(spec)
        services.__enter__()
        undo.append(lambda: services.__exit__(None, None, None))
        conn = psycopg.connect(dsn, autocommit=True)
        undo.append(conn.close)
        migrate(conn)
        plans = {plan.gid: plan for plan in world.plans()}
        types = [str(plan.entity_type) for plan in plans.values()]
        conn.execute(SEED, (types, list(plans)))
        return Place(dsn, world, services, conn, plans)

    yield build
    for step in reversed(undo):
        step()
