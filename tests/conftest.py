"""Databases for tests: a private PostgreSQL, or the server that TEST_DATABASE_URL names.

Each kind of database is built once per test process and then copied, which takes some 20 ms. And
how property tests choose their examples.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from artwork_backfill.shared.migrations import migrate
from sandbox import schema
from sandbox.postgres import Cluster, start_server

# The same examples every time, however long they take: a gate that fails by chance is no gate.
settings.register_profile(
    "repeatable",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests that take minutes, too")


#: Where the longest tests are. They come first, so that at the end all processes have work left to
#: share: of a test that takes a minute, one process does everything.
LONGEST_FIRST = (
    "tests/test_image_built.py",
    "tests/dashboard/test_browser.py",
    "tests/faults",
    "tests/e2e",
    "tests/test_docs.py",
    "tests/test_image.py",
)


def _place(item: pytest.Item) -> int:
    places = (n for n, path in enumerate(LONGEST_FIRST) if item.nodeid.startswith(path))
    return next(places, len(LONGEST_FIRST))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_place)
    if config.getoption("--long"):
        return
    too_long = [item for item in items if item.get_closest_marker("long")]
    if too_long:
        config.hook.pytest_deselected(items=too_long)
        items[:] = [item for item in items if item not in too_long]


WXYC_SCHEMA = "wxyc_schema"

Build = Callable[[psycopg.Connection], None]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A server on which tests may create databases."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        with closing(Cluster(given)) as cluster:
            yield cluster
        return
    # Not in pytest's own directory: each pytest that starts closes that to all other users, among
    # them the one whom PostgreSQL runs as when we are root.
    with start_server() as server:
        yield server


@pytest.fixture(scope="session")
def musicbrainz_template(postgres: Cluster) -> Iterator[str]:
    """Name of a database with the outside schemas of MusicBrainz, to be copied."""
    yield from _template(postgres, schema.create_musicbrainz)


@pytest.fixture(scope="session")
def migrated_template(postgres: Cluster) -> Iterator[str]:
    """Name of a database with the outside schemas and our migrations, to be copied."""

    def build(conn: psycopg.Connection) -> None:
        schema.create_musicbrainz(conn)
        migrate(conn)

    yield from _template(postgres, build)


@pytest.fixture(scope="session")
def wxyc_template(postgres: Cluster) -> Iterator[str]:
    """Name of a database with the library's schema, to be copied."""
    yield from _template(postgres, lambda conn: schema.create_wxyc(conn, WXYC_SCHEMA))


@pytest.fixture
def musicbrainz_database(postgres: Cluster, musicbrainz_template: str) -> Iterator[str]:
    """URL of a fresh database with MusicBrainz's and artwork-indexer's schemas, empty."""
    yield from _copy(postgres, musicbrainz_template)


@pytest.fixture
def migrated_database(postgres: Cluster, migrated_template: str) -> Iterator[str]:
    """URL of a fresh database like `musicbrainz_database`, with our migrations applied."""
    yield from _copy(postgres, migrated_template)


@pytest.fixture
def wxyc_database(postgres: Cluster, wxyc_template: str) -> Iterator[str]:
    """URL of a fresh library database, empty, with the column discogs_unavailable."""
    yield from _copy(postgres, wxyc_template)


@pytest.fixture
def empty_database(postgres: Cluster) -> Iterator[str]:
    """URL of a fresh database with nothing in it."""
    yield from _copy(postgres, None)


def _template(postgres: Cluster, build: Build) -> Iterator[str]:
    name = _fresh_name()
    with psycopg.connect(postgres.create_database(name), autocommit=True) as conn:
        build(conn)
    yield name
    postgres.drop_database(name)


def _copy(postgres: Cluster, template: str | None) -> Iterator[str]:
    name = _fresh_name()
    yield postgres.create_database(name, template=template)
    postgres.drop_database(name)


def _fresh_name() -> str:
    # Unique, because parallel test processes may share a server.
    return f"artwork_backfill_test_{uuid.uuid4().hex}"
