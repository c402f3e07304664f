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
        assert process.wait(20) == 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(environment["MUSICBRAINZ_DATABASE_URL"])


def _exports(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if line.startswith("#"):
            return
        (assignment,) = shlex.split(line)[1:]
        name, _, value = assignment.partition("=")
        yield name, value
