"""In a container every message is JSON; on a terminal times are ISO 8601."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from artwork_backfill.shared.engine.container import vanishes

COMMAND = Path(sys.executable).with_name("artwork-backfill")
IN_CONTAINER = {"PATH": os.environ["PATH"], "ARTWORK_BACKFILL_CONTAINER": "1"}


def _run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env={**IN_CONTAINER, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "tool", "said"),
    [
        (["migrate"], "migrate", "MUSICBRAINZ_DATABASE_URL is not set"),
        (["status"], "status", "MUSICBRAINZ_DATABASE_URL is not set"),
        (["audit-batch"], "audit-batch", "MUSICBRAINZ_DATABASE_URL is not set"),
        (["audit-batch", "--limit", "x"], "audit-batch", "'x' is not a valid integer range"),
        (["audit-all"], "artwork-backfill", "No such command"),
    ],
)
def test_an_error_is_one_line_of_json(arguments: list[str], tool: str, said: str) -> None:
    refused = _run(*arguments)

    assert refused.returncode == 2
    assert refused.stdout == ""
    (line,) = map(json.loads, refused.stderr.splitlines())
    assert (line["level"], line["tool"], line["step"]) == ("error", tool, "failed")
    assert said in line["message"]


def test_migrations_are_logged_as_json(musicbrainz_database: str) -> None:
    applied = _run("migrate", MUSICBRAINZ_DATABASE_URL=musicbrainz_database)
    again = _run("migrate", MUSICBRAINZ_DATABASE_URL=musicbrainz_database)

    lines = [json.loads(line) for line in applied.stdout.splitlines()]
    assert lines
    assert all(line["message"].startswith("applied 0") for line in lines)
    assert {line["tool"] for line in lines} == {"migrate"}
    assert json.loads(again.stdout)["message"] == "nothing to apply"


def test_a_report_that_ends_with_the_container_is_warned_about(
    migrated_database: str, tmp_path: Path
) -> None:
    if not vanishes(tmp_path):
        pytest.skip("the folder of the test is mounted")
    ran = _run(
        *("seed-from-mb", "--report", str(tmp_path / "report.md")),
        MUSICBRAINZ_DATABASE_URL=migrated_database,
    )

    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    warned = [line for line in lines if "is deleted together with" in line["message"]]
    assert [line["level"] for line in warned] == ["warning"]
    assert (tmp_path / "report.md").exists()


def test_times_on_a_terminal_are_iso_8601_with_the_zone(migrated_database: str) -> None:
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [COMMAND, "seed-from-mb", "--log-level", "debug"],
        env={
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
            "TZ": "Asia/Kolkata",
            "MUSICBRAINZ_DATABASE_URL": migrated_database,
        },
        stdout=terminal,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(main, 65_536):
                shown += part
        except OSError:
            pass  # Linux says so when the last process has closed the terminal.
        assert process.wait() == 0, shown.decode()
    os.close(main)

    assert re.search(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+05:30", shown), shown.decode()
