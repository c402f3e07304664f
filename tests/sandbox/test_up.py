"""``python -m sandbox up``: it says how to reach everything, and ends without a trace."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.timing import LIMIT_S

ROOT = Path(__file__).parents[2]

COUNT_RELEASES = "SELECT count(*) > 0 FROM musicbrainz.release"
COUNT_ALBUMS = "SELECT count(*) FROM wxyc_schema.library"


def test_up_prints_the_environment_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "up", "--size", "300", "--library-size", "50"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
    )
    with process:
        assert process.stdout is not None
        environment = dict(_exports(process.stdout))
        for name, query, expected in (
            ("MUSICBRAINZ_DATABASE_URL", COUNT_RELEASES, True),
            ("WXYC_DATABASE_URL", COUNT_ALBUMS, 50),
        ):
            with psycopg.connect(environment[name]) as conn:
                assert conn.execute(query).fetchone() == (expected,)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(environment["MUSICBRAINZ_DATABASE_URL"])


def test_up_writes_an_env_file_that_works_over_tcp(tmp_path: Path) -> None:
    env_file = tmp_path / "sandbox.env"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "sandbox", "up", "--size", "50", "--library-size", "5"),
            *("--tcp", "--env-file", str(env_file)),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
    )
    with process:
        assert process.stdout is not None
        assert str(env_file) in process.stdout.readline()
        assert env_file.stat().st_mode & 0o077 == 0
        environment = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        url = environment["WXYC_DATABASE_URL"]
        assert "@127.0.0.1:" in url
        with psycopg.connect(url) as conn:
            assert conn.execute(COUNT_ALBUMS).fetchone() == (5,)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url, password="another", connect_timeout=5)
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
    assert not list(tmp_path.iterdir())


def _exports(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if line.startswith("#"):
            return
        (assignment,) = shlex.split(line)[1:]
        name, _, value = assignment.partition("=")
        yield name, value
