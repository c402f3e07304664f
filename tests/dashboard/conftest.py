"""A database that the dashboard's tests share, one after another, and rows in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from sandbox.postgres import Cluster
from tests.dashboard.dashboard_rows import Rows


@pytest.fixture(autouse=True)
def _main_module() -> Iterator[None]:
    """Streamlit leaves the page as the main module, which every process forked later would run."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="module")
def database(postgres: Cluster, migrated_template: str) -> Iterator[str]:
    """URL of a migrated database that the tests of a module share."""
    name = f"artwork_backfill_test_{uuid4().hex}"
    yield postgres.create_database(name, template=migrated_template)
    postgres.drop_database(name)


@pytest.fixture
def rows(database: str) -> Iterator[Rows]:
    """An empty database, to put rows into."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(
            "TRUNCATE artwork_indexer.audit_entity, artwork_indexer.event_queue,"
            " artwork_indexer.audit_tally, artwork_indexer.finding_tally,"
            " artwork_indexer.audit_status_history RESTART IDENTITY CASCADE"
        )
        yield Rows(conn)
