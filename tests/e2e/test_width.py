"""What commands print fits a terminal of 80 columns."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from artwork_backfill.jobs.cli.main import main
from artwork_backfill.shared.audit.catalogue import CHECKS

WIDTH = 80
COMMAND = Path(sys.executable).with_name("artwork-backfill")


def _walk(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from _walk(command, *path, name)


def _too_wide(text: str) -> list[str]:
    return [line for line in text.splitlines() if len(line) > WIDTH]


@pytest.mark.parametrize("path", [(), *_walk(main)], ids=" ".join)
def test_help_fits(path: tuple[str, ...]) -> None:
    # As wide as it ever becomes, on a terminal of any width.
    shown = CliRunner().invoke(main, [*path, "--help"], terminal_width=None, env={"COLUMNS": "200"})

    assert shown.exit_code == 0
    assert _too_wide(shown.output) == []


def test_checks_fit_without_breaking_words() -> None:
    shown = subprocess.run(
        [COMMAND, "checks"],
        env={**os.environ, "COLUMNS": str(WIDTH)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert _too_wide(shown) == []
    words = " ".join(shown.split())
    for check in CHECKS.values():
        assert check.name in words
        assert " ".join(check.summary.split()) in words


def test_status_fits(migrated_database: str) -> None:
    shown = subprocess.run(
        [COMMAND, "status"],
        env={
            **os.environ,
            "COLUMNS": str(WIDTH),
            "MUSICBRAINZ_DATABASE_URL": migrated_database,
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert _too_wide(shown) == []
