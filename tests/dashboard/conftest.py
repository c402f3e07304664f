"""A database that the dashboard's tests share, rows in it, and the page on it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import streamlit as st
from streamlit import config as streamlit_config
from streamlit.testing.v1 import AppTest

from artwork_backfill.dashboard import serve
from sandbox.postgres import Cluster
from tests.dashboard.app import Open, run
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


@pytest.fixture
def listening() -> Iterator[Callable[[str], None]]:
    """Says where the page's server listens: on this machine only, unless told otherwise."""
    before = streamlit_config.get_option("server.address")

    def listen(address: str) -> None:
        streamlit_config.set_option("server.address", address)

    listen("127.0.0.1")
    yield listen
    streamlit_config.set_option("server.address", before)


@pytest.fixture
def page(
    rows: Rows,
    database: str,
    listening: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Open:
    """Opens a tab of the page for another visitor."""
    monkeypatch.setenv("MUSICBRAINZ_DATABASE_URL", database)
    monkeypatch.setenv("BACKFILL_BY", "me")
    st.cache_data.clear()
    st.cache_resource.clear()

    def open_page(tab: str = "Overview", **query: str) -> AppTest:
        app = AppTest.from_file(str(Path(serve.PAGE)), default_timeout=60)
        app.query_params["tab"] = tab
        app.query_params.update(query)
        return run(app)

    return open_page
