"""What commands print fits a terminal of 80 columns."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import click
import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType

from artwork_backfill.jobs.cli import run_views
from artwork_backfill.jobs.cli.main import main
from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.engine.job import Problem, Verification
from artwork_backfill.shared.engine.report import Outcome, Report, to_terminal
from artwork_backfill.shared.review.runs import Run

WIDTH = 80
MOMENT = datetime(2026, 11, 27, 8, 30, tzinfo=UTC)
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


def _printed(renderable: RenderableType) -> str:
    console = Console(width=WIDTH, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_a_table_of_runs_fits_without_breaking_names() -> None:
    run = Run(
        id=UUID("1f0c3287-6cda-33eb-8e9a-044b5e15ffdd"),
        job="seed-from-ia-changes",
        version="1",
        host="backfill-host-17",
        who="operator",
        options={},
        started=MOMENT,
        heartbeat=MOMENT,
        finished=MOMENT + timedelta(seconds=810),
        outcome="interrupted",
        exit_code=75,
        totals={"scanned": 1_000_000},
        requested=None,
        requested_by=None,
        requested_why=None,
        progress={
            "total": 5_900_000,
            "said": "artwork-indexer has 40 events to work on: waiting for artwork-indexer",
        },
        seen=MOMENT,
    )

    shown = _printed(run_views.runs_table([run]))

    assert _too_wide(shown) == []
    for word in ("1f0c3287", "seed-from-ia-changes", "11-27 08:30", "interrupted"):
        assert word in shown


def test_a_report_fits_without_breaking_a_gid() -> None:
    gid = "76df3287-6cda-33eb-8e9a-044b5e15ffdd"
    report = Report(
        run_id="1f0c3287-6cda-33eb-8e9a-044b5e15ffdd",
        job="seed-from-ia-changes",
        version="1.0.0.post301+g3af2cac94",
        started_at=MOMENT,
        finished_at=MOMENT,
        reason="the verification does not hold (rows left as they were)",
        outcome=Outcome.UNVERIFIED,
        exit_code=3,
        dry_run=False,
        options={"batch_size": 200, "concurrency": 16, "remedies": ["item.*=index"] * 5},
        totals={"scanned": 123_456_789, "deferred: an event of it is queued or running": 17},
        requests={},
        verification=[Verification.equal("gids against entities with art", 10**7, 10**6, "no")],
        problems=[Problem(f"release {gid}", "a reason that takes several lines " * 5)],
    )

    shown = _printed(to_terminal(report))

    assert _too_wide(shown) == []
    assert gid in shown
