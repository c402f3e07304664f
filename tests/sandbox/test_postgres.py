"""The private PostgreSQL server: copies of databases, restarts, and that nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psycopg
import pytest

from sandbox.postgres import Cluster, start_server
from tests.timing import LIMIT_S

OWNER = """
import sys, time
from pathlib import Path
from sandbox.postgres import start_server
with start_server(Path(sys.argv[1])) as server:
    print(server.admin_dsn, flush=True)
    time.sleep(60)
"""


def test_a_database_is_a_copy_of_its_template(postgres: Cluster, empty_database: str) -> None:
    with psycopg.connect(empty_database) as conn:
        conn.execute("CREATE TABLE marker AS SELECT 1 AS value")
        name = conn.info.dbname
    copy = postgres.create_database(f"{name}_copy", template=name)
    with psycopg.connect(copy) as conn:
        assert conn.execute("SELECT value FROM marker").fetchall() == [(1,)]
    postgres.drop_database(f"{name}_copy")


def test_dropping_a_database_ends_the_sessions_in_it(postgres: Cluster) -> None:
    name = f"in_use_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.create_database(name)) as conn:
        postgres.drop_database(name)
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")


def test_data_survives_a_restart(tmp_path: Path) -> None:
    with start_server(tmp_path) as server:
        dsn = server.create_database("kept")
        with psycopg.connect(dsn) as conn:
            conn.execute("CREATE TABLE marker AS SELECT 1 AS value")
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn)
        server.start()
        with psycopg.connect(dsn) as conn:
            assert conn.execute("SELECT value FROM marker").fetchall() == [(1,)]
    assert not list(tmp_path.iterdir())


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="no_such_setting"),
        start_server(tmp_path, settings={"no_such_setting": "1"}),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_owner_is_killed(tmp_path: Path, signum: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        dsn = owner.stdout.readline().strip()
        psycopg.connect(dsn).close()
        owner.send_signal(signum)
    deadline = time.monotonic() + LIMIT_S
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list(tmp_path.iterdir())
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)
