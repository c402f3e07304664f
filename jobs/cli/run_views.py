"""Runs and holds as tables, text and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection
from rich.console import Group, RenderableType
from rich.text import Text

from artwork_backfill.jobs.cli import views
from artwork_backfill.shared.engine import report as reports
from artwork_backfill.shared.engine.log import plain
from artwork_backfill.shared.review import spreadsheet
from artwork_backfill.shared.review.runs import Hold, Run


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as shown in lists; `rate` is in rows per second, times are in seconds."""

    id: UUID
    job: str
    who: str
    host: str
    started: datetime
    finished: datetime | None
    state: str
    done: int
    total: int | None
    rate: float | None
    eta_s: float | None
    duration_s: float
    last_words: str


def read(conn: Connection, runs: Iterable[Run]) -> list[RunView]:
    """Return the state of runs by the clock of the database, which also writes the heartbeats."""
    ((now,),) = conn.execute("SELECT clock_timestamp()").fetchall()
    return [_view(run, now) for run in runs]


def _view(run: Run, now: datetime) -> RunView:
    duration = max(0.0, ((run.finished or now) - run.started).total_seconds())
    done = int(run.totals.get("scanned", 0))
    rate = run.progress.get("rate")
    if run.finished is not None:
        rate = round(done / duration, 2) if duration else None
    return RunView(
        id=run.id,
        job=run.job,
        who=run.who,
        host=run.host,
        started=run.started,
        finished=run.finished,
        state=run.state(now),
        done=done,
        total=run.progress.get("total"),
        rate=rate,
        eta_s=run.progress.get("eta_s") if run.finished is None else None,
        duration_s=round(duration, 1),
        last_words=_last_words(run),
    )


def _last_words(run: Run) -> str:
    """Return the pending request for a run that has not ended, or else its last message."""
    if run.finished is None and run.requested is not None:
        why = f": {run.requested_why}" if run.requested_why else ""
        return f"{run.requested} requested by {run.requested_by}{why}"
    return str(run.progress.get("said") or "")


# -- JSON --------------------------------------------------------------------------------------


def list_to_json(runs: Sequence[RunView], holds: Sequence[Hold]) -> str:
    """Return runs and holds as a JSON object."""
    return _json({"runs": [asdict(run) for run in runs], "holds": [asdict(hold) for hold in holds]})


def run_to_json(view: RunView, run: Run) -> str:
    """Return everything about a run as a JSON object."""
    return _json(
        {
            **asdict(view),
            "version": run.version,
            "heartbeat": run.heartbeat,
            "outcome": run.outcome,
            "exit_code": run.exit_code,
            "options": run.options,
            "totals": run.totals,
            "requests": run.progress.get("requests", {}),
            "requested": run.requested,
            "requested_by": run.requested_by,
            "requested_why": run.requested_why,
            "report": run.report,
        }
    )


def _json(value: object) -> str:
    return json.dumps(value, indent=2, default=spreadsheet.text)


# -- terminal output ---------------------------------------------------------------------------


def runs_table(runs: Sequence[RunView]) -> RenderableType:
    """Return a table of runs."""
    columns = ("Run", "Job", "Who", "Since", "State", "Done", "Rate", "Last message")
    rows = [
        (
            str(run.id)[:8],
            run.job,
            f"{run.who}@{run.host}",
            f"{run.started:%m-%d %H:%M}",
            run.state,
            f"{run.done:,}" if run.total is None else f"{run.done:,} of {run.total:,}",
            ""
            if run.rate is None
            else f"{run.rate:,.0f}/s"
            if run.rate > 99
            else f"{run.rate:.1f}/s",
            # The state of a verified run says it all.
            "" if run.state == "verified" else run.last_words,
        )
        for run in runs
    ]
    return views.table(columns, rows, whole={"Run", "Job", "Since", "State"})


def holds_table(holds: Sequence[Hold]) -> RenderableType:
    """Return a table of held jobs."""
    rows = [(hold.job, hold.who, f"{hold.since:%Y-%m-%d %H:%M}", hold.why) for hold in holds]
    return views.table(("Job", "Who", "Since", "Why"), rows, title="Held jobs")


def run_view(view: RunView, run: Run) -> RenderableType:
    """Return everything about a run, with its report if it has one."""
    head: list[RenderableType] = [
        Text(f"{run.job} {run.id}: {view.state}", style="bold"),
        Text(plain(f"by {run.who} on {run.host} since {run.started:%F %T} UTC")),
        Text(plain(view.last_words)),
    ]
    if run.report:
        return Group(*head, reports.to_terminal(reports.Report.from_dict(run.report)))
    eta = "" if view.eta_s is None else f", {view.eta_s:,.0f} s left"
    rate = "" if view.rate is None else f" at {view.rate:,.1f}/s"
    total = "" if view.total is None else f" of {view.total:,}"
    return Group(
        *head,
        Text(f"{view.done:,}{total} rows{rate}{eta}"),
        views.table(("What", "Rows"), _numbers(run.totals), title="Totals"),
        views.table(
            ("Service", "Requests", "Retries", "Errors"),
            [
                (service, *(f"{counts.get(key, 0):,}" for key in ("requests", "retries", "errors")))
                for service, counts in run.progress.get("requests", {}).items()
            ],
            title="Requests",
        ),
    )


def _numbers(totals: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, f"{number:,}") for name, number in totals.items()]
