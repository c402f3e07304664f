"""The report's three forms say the same, and nothing from outside can act in them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from artwork_backfill.shared.engine.job import Note, Problem, Section, Verification
from artwork_backfill.shared.engine.report import (
    Outcome,
    Report,
    headline,
    save,
    to_json,
    to_markdown,
    to_terminal,
)
from artwork_backfill.shared.service_stats import ServiceStats

WILD = "a|b\n# c <script>`x`</script> [click](javascript:x) *d* _e_ \x1b[31m \u202eelif \ud800"

BEGAN = datetime(2026, 8, 1, 12, 0, 0, tzinfo=UTC)
REPORT = Report(
    run_id="7d1b4b2e-0000-4000-8000-000000000000",
    job="audit-batch",
    version="1.2.3",
    started_at=BEGAN,
    finished_at=BEGAN + timedelta(seconds=90.1234),
    reason="nothing is left to do",
    outcome=Outcome.VERIFIED,
    exit_code=0,
    dry_run=False,
    options={"limit": None, "batch_size": 100},
    totals={"scanned": 2000, "written": 1990, "skipped": 10, "failed": 0, "audited": 2000},
    requests={"archive.org": ServiceStats(2000, 3, 1, 41.3, 180.0)},
    sections=[
        Section(
            "findings",
            "Findings",
            ("Check", "Entities", "Findings", "Share of audited"),
            (("index.malformed", "20", "25", "1.0%"),),
            {"index.malformed": {"entities": 20, "findings": 25}},
        )
    ],
    notes=[Note("live gids", 7)],
    verification=[Verification.equal("rows", 5, 5), Verification.equal("gaps", 0, 1, WILD)],
    problems=[Problem(WILD, WILD)],
)


def test_the_json_has_the_documented_shape() -> None:
    assert json.loads(to_json(replace(REPORT, problems=[], verification=[]))) == {
        "run_id": REPORT.run_id,
        "job": "audit-batch",
        "version": "1.2.3",
        "started_at": "2026-08-01T12:00:00+00:00",
        "finished_at": "2026-08-01T12:01:30.123400+00:00",
        "duration_s": 90.123,
        "outcome": "verified",
        "exit_code": 0,
        "reason": "nothing is left to do",
        "dry_run": False,
        "options": {"limit": None, "batch_size": 100},
        "totals": {"scanned": 2000, "written": 1990, "skipped": 10, "failed": 0, "audited": 2000},
        "requests": {
            "archive.org": {
                "requests": 2000,
                "retries": 3,
                "errors": 1,
                "p50_ms": 41.3,
                "p95_ms": 180.0,
            }
        },
        "findings": {"index.malformed": {"entities": 20, "findings": 25}},
        "verification": [],
        "notes": [{"name": "live gids", "value": 7, "detail": ""}],
        "problems": [],
    }


def test_each_verification_and_problem_is_listed() -> None:
    report = json.loads(to_json(replace(REPORT, problems=[Problem("row 3", "is bad")])))
    assert report["verification"][0] == {
        "name": "rows",
        "expected": 5,
        "actual": 5,
        "ok": True,
        "detail": "",
    }
    assert report["verification"][1]["ok"] is False
    assert report["problems"] == [{"what": "row 3", "detail": "is bad"}]


def test_markdown_is_safe_whatever_stands_in_a_row() -> None:
    text = to_markdown(REPORT)
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| a\\|b")]
    # Two columns, whatever bars the cells hold.
    assert row.replace("\\|", "").count("|") == 3
    for active in ("`x`", "*d*", "_e_", "[click]"):
        assert active not in row


def test_a_terminal_shows_every_section_and_obeys_nothing_in_it() -> None:
    output = io.StringIO()
    console = Console(file=output, width=160, force_terminal=True, color_system=None)
    console.print(to_terminal(REPORT))
    text = output.getvalue()
    for part in (
        *("Totals", "Verification", "For information", "Findings", "Requests", "Problems"),
        *("1.0%", "✓", "✗"),
    ):
        assert part in text
    assert "\x1b[31m" not in text
    assert "[click](javascript:x)" in text


@pytest.mark.parametrize("suffix", ["json", "md"])
def test_a_report_is_saved_whole_whatever_it_says(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"report.{suffix}"
    path.write_text("what was here before")
    save(REPORT, path)
    assert "audit-batch" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        save(REPORT, tmp_path / "gone" / "report.json")


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"outcome": Outcome.VERIFIED}, "running it again is safe"),
        ({"outcome": Outcome.VERIFIED, "totals": {"deferred": 3}}, "later for the deferred rows"),
        ({"outcome": Outcome.INTERRUPTED}, "again later to continue with the remaining rows"),
        ({"outcome": Outcome.VERIFIED, "dry_run": True}, "without --dry-run"),
        ({"outcome": Outcome.STOPPED}, "again to continue with the remaining rows"),
        ({"outcome": Outcome.UNVERIFIED}, "lines marked ✗"),
        ({"outcome": Outcome.FAILED}, "committed work stays"),
    ],
    ids=str,
)
def test_every_outcome_says_how_to_go_on(changes: dict[str, Any], advice: str) -> None:
    report = replace(REPORT, **changes)
    (line,) = [line for line in to_markdown(report).splitlines() if line.startswith("- next: ")]
    assert advice in line


def test_a_job_says_what_else_is_to_be_done() -> None:
    report = replace(REPORT, next_steps=["2 entities wait for a person."])
    assert "- next: 2 entities wait for a person.\n" in to_markdown(report)
    # Nothing was done yet that a person could follow up.
    assert "wait for a person" not in to_markdown(replace(report, dry_run=True))


def test_options_are_those_that_were_chosen() -> None:
    options = {
        "limit": None,
        "dry_run": False,
        "ignored": [],
        "max_queue_depth": 0,
        "reports": ["/tmp/a.md"],
    }
    text = to_markdown(replace(REPORT, options=options))
    assert "- options: max\\_queue\\_depth=0\n" in text


def test_details_are_aligned_as_text() -> None:
    assert "| --- | --- | --: | --: | --- |" in to_markdown(REPORT)


def test_the_headline_is_one_line() -> None:
    assert headline(replace(REPORT, dry_run=True)) == (
        "audit-batch: verified (dry run: nothing was changed), nothing is left to do after 90.1 s"
    )


def test_a_report_that_was_kept_reads_as_it_did() -> None:
    section = Section("findings", "Findings", ("Check", "Findings"), (("item.dark", "3"),), {})
    report = replace(
        REPORT,
        problems=[Problem("row 3", "is bad")],
        sections=[replace(section, data={"item.dark": {"entities": 2, "findings": 3000}})],
    )
    kept = Report.from_dict(json.loads(to_json(report)))

    assert kept.as_dict() == report.as_dict()
    assert "| item.dark | 2 | 3,000 |" in to_markdown(kept)


@pytest.mark.parametrize("data", [[], {}, 3, "text", [1, 2], [{"a": 1}, {"b": None}], {"a": [1]}])
def test_any_data_of_a_section_can_be_shown(data: object) -> None:
    report = {**REPORT.as_dict(), "more": data}

    assert Report.from_dict(json.loads(json.dumps(report))).as_dict() == report
    to_markdown(Report.from_dict(report))
