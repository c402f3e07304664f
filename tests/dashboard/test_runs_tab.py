"""Runs on the page: what is at work, and what people ask of it."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb
from streamlit.testing.v1 import AppTest

from artwork_backfill.dashboard.tabs import runs as runs_tab
from artwork_backfill.dashboard.tabs.runs import command
from artwork_backfill.jobs.cli.main import JOBS, load_job
from artwork_backfill.shared.review import runs
from artwork_backfill.shared.review.actions import Refused
from artwork_backfill.shared.settings import Settings
from tests.dashboard.app import Open, run
from tests.dashboard.dashboard_rows import Rows


@pytest.fixture
def tab(rows: Rows, page: Open) -> Open:
    """Opens the tab of runs."""
    rows.conn.execute("TRUNCATE artwork_indexer.backfill_run, artwork_indexer.backfill_hold")
    return partial(page, tab="Runs")


def _start(
    rows: Rows,
    *,
    silent_s: int = 0,
    outcome: str | None = None,
    report: dict[str, object] | None = None,
) -> UUID:
    id_ = uuid4()
    rows.conn.execute(
        "INSERT INTO artwork_indexer.backfill_run (id, job, version, host, who, options, started,"
        " heartbeat, finished, outcome, totals, report)"
        " VALUES (%s, 'audit-batch', '1.0', 'vm1', 'anna', %s, now() - interval '1 hour',"
        "         now() - make_interval(secs => %s), %s, %s, %s, %s)",
        (
            id_,
            Jsonb({"limit": 5, "dry_run": True, "ignore": ["meta.*"], "report": None}),
            silent_s,
            datetime.now(UTC) if outcome else None,
            outcome,
            Jsonb({"audited": 1800, "failed": 2}),
            None if report is None else Jsonb(report),
        ),
    )
    return id_


def _shown(app: AppTest) -> str:
    return "\n".join(text.value for text in app.text)


def _asked(rows: Rows, run_id: UUID) -> tuple[Any, ...]:
    row = rows.conn.execute(
        "SELECT requested, requested_by, requested_why FROM artwork_indexer.backfill_run"
        " WHERE id = %s",
        (run_id,),
    ).fetchone()
    assert row is not None
    return row


def test_what_is_at_work_is_said_on_every_page(tab: Open, rows: Rows) -> None:
    _start(rows)
    app = tab(tab="Checks")
    assert "At work: audit-batch, at work since 1 h, by anna" in _shown(app)
    rows.conn.execute(
        "UPDATE artwork_indexer.backfill_run SET heartbeat = now() - interval '2 min'"
    )
    assert "No run is at work." in _shown(run(app))


def test_runs_are_listed_with_what_they_did_and_how_fast(tab: Open, rows: Rows) -> None:
    _start(rows, outcome="verified")
    _start(rows, silent_s=120)
    _start(rows)
    table = tab().dataframe[0].value
    assert table["state"].tolist()[-1] == "verified"
    assert set(table["state"]) == {"at work", "no heartbeat", "verified"}
    assert table["done"].tolist()[0] == "1,800 audited, 2 failed"
    assert table["rate"].tolist()[0] in ("1,799", "1,800")


@pytest.mark.parametrize(
    ("button", "requested"), [("Pause", "pause"), ("Stop", "stop"), ("Resume", None)]
)
def test_a_run_is_asked_with_a_name_and_a_reason(
    tab: Any, rows: Rows, button: str, requested: str | None
) -> None:
    id_ = _start(rows)
    app = tab(run=str(id_))
    app.text_input(key="runs.why").set_value("a release at MusicBrainz")
    app.button(key=f"runs.{button}").click()
    run(app)
    why = "a release at MusicBrainz" if requested else None
    assert _asked(rows, id_) == (requested, "me", why)


def test_nothing_is_asked_without_a_reason(tab: Open, rows: Rows) -> None:
    id_ = _start(rows)
    app = tab(run=str(id_))
    app.button(key="runs.Stop").click()
    run(app)
    assert _asked(rows, id_) == (None, None, None)
    assert "write the reason first" in app.warning[0].value


def test_a_run_that_has_ended_is_shown_with_its_report(tab: Open, rows: Rows) -> None:
    check = {"name": "claims", "expected": 0, "actual": 1, "ok": False, "detail": "one is left"}
    report = {"totals": {"audited": 7}, "verification": [check]}
    app = tab(run=str(_start(rows, outcome="unverified", report=report)))
    assert not [button for button in app.button if button.label == "Stop"]
    verification = next(df.value for df in app.dataframe if "detail" in df.value)
    assert verification["detail"].tolist() == ["one is left"]
    program, job, *options = shlex.split(app.code[0].value)
    assert (program, job) == ("artwork-backfill", "audit-batch")
    assert sorted(options) == ["--dry-run", "--ignore", "--limit", "5", "meta.*"]


def test_a_job_is_held_and_let_go_again(tab: Open, rows: Rows) -> None:
    app = tab()
    app.text_input(key="runs.hold.why").set_value("archive.org asked us to")
    app.button(key="runs.hold").click()
    run(app)
    (hold,) = runs.list_holds(rows.conn)
    assert (hold.job, hold.who, hold.why) == ("audit-batch", "me", "archive.org asked us to")
    assert "audit-batch is held by me" in _shown(app)
    with pytest.raises(Refused, match="held already"):
        runs.hold(rows.conn, "audit-batch", by="another", why="why")
    app.button(key="runs.hold").click()
    run(app)
    assert runs.list_holds(rows.conn) == []


@pytest.mark.parametrize("query", ["nonsense", "0a1b2c3d-0000-4000-8000-000000000000"])
def test_a_run_that_does_not_exist_is_said(tab: Open, query: str) -> None:
    assert f"there is no run {query}" in _shown(tab(run=query))


def test_a_run_that_has_ended_is_not_asked_anything(rows: Rows) -> None:
    id_ = _start(rows, outcome="verified")
    with pytest.raises(Refused, match="has ended"):
        runs.request(rows.conn, id_, "stop", by="me", why="why")


def test_the_command_of_a_run_can_be_pasted(rows: Rows) -> None:
    found = runs.find_run(rows.conn, str(_start(rows)))
    assert command(found).startswith("artwork-backfill audit-batch --")
    assert found.is_at_work
    silent = runs.find_run(rows.conn, str(_start(rows, silent_s=120)))
    assert not silent.is_at_work


def test_exactly_the_jobs_with_records_of_runs_can_be_held() -> None:
    recorded = {
        name for name in JOBS if load_job(name).job.database is Settings.musicbrainz_database
    }
    assert set(runs_tab.JOBS) == recorded | {"auditor"}
