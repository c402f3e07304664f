"""Runs and holds as tables, text and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from artwork_backfill.jobs.cli import views
from artwork_backfill.shared.engine import report as reports
from artwork_backfill.shared.engine.log import plain
from artwork_backfill.shared.review import spreadsheet
from artwork_backfill.shared.review.runs import Hold, Run


def to_dict(run: Run) -> dict[str, object]:
    """Return a run as lists show it; `rate` is in rows per second, times are in seconds."""
    return {
        **{name: getattr(run, name) for name in _FIELDS},
        "done": _done(run),
        "total": run.progress.get("total"),
        "rate": _rate(run),
        "eta_s": _eta_s(run),
        "duration_s": round(run.duration_s, 1),
        "last_words": _last_words(run),
    }


_MORE_FIELDS: Final = (
    *("version", "heartbeat", "outcome", "exit_code", "options", "totals"),
    *("requested", "requested_by", "requested_why", "report"),
)
_FIELDS: Final = ("id", "job", "who", "host", "started", "finished", "state")


def _done(run: Run) -> int:
    return int(run.totals.get("scanned", 0))


def _rate(run: Run) -> float | None:
    if run.finished is None:
        return run.progress.get("rate")
    return round(_done(run) / run.duration_s, 2) if run.duration_s else None


def _eta_s(run: Run) -> float | None:
    return run.progress.get("eta_s") if run.finished is None else None


def _last_words(run: Run) -> str:
    """Return the pending request for a run that has not ended, or else its last message."""
    pending = run.request if run.finished is None else ""
    return pending or str(run.progress.get("said") or "")


# -- JSON --------------------------------------------------------------------------------------


def list_to_json(runs: Iterable[Run], holds: Sequence[Hold]) -> str:
    """Return runs and holds as a JSON object."""
    return _json({"runs": list(map(to_dict, runs)), "holds": list(map(asdict, holds))})


def run_to_json(run: Run) -> str:
    """Return everything about a run as a JSON object."""
    return _json(
        {
            **to_dict(run),
            **{name: getattr(run, name) for name in _MORE_FIELDS},
            "requests": run.progress.get("requests", {}),
        }
    )


def _json(value: object) -> str:
    return json.dumps(value, indent=2, default=spreadsheet.text)


# -- terminal output ---------------------------------------------------------------------------


def runs_table(runs: Iterable[Run]) -> RenderableType:
    """Return a table of runs."""
    columns = ("Run", "Job", "Who", "Since", "State", "Done", "Rate", "Last message")
    rows = [
        (
            str(run.id)[:8],
            run.job,
            f"{run.who}@{run.host}",
            f"{run.started:%m-%d %H:%M}",
            run.state,
            _done_of_total(run),
            "" if (rate := _rate(run)) is None else f"{rate:,.{0 if rate > 99 else 1}f}/s",
            # The state of a verified run says it all.
            "" if run.state == "verified" else _last_words(run),
        )
        for run in runs
    ]
    return views.table(columns, rows, whole={"Run", "Job", "Since", "State"})


def _done_of_total(run: Run) -> str:
    total = run.progress.get("total")
    return f"{_done(run):,}" if total is None else f"{_done(run):,} of {total:,}"


def holds_table(holds: Sequence[Hold]) -> RenderableType:
    """Return a table of held jobs."""
    rows = [(hold.job, hold.who, f"{hold.since:%Y-%m-%d %H:%M}", hold.why) for hold in holds]
    return views.table(("Job", "Who", "Since", "Why"), rows, title="Held jobs")


def run_view(run: Run) -> RenderableType:
    """Return everything about a run, with its report if it has one."""
    head: list[RenderableType] = [
        Text(f"{run.job} {run.id}: {run.state}", style="bold"),
        Text(plain(f"by {run.who} on {run.host} since {run.started:%F %T} UTC")),
        Text(plain(_last_words(run))),
    ]
    if run.report and "verification" in run.report:
        return Group(*head, reports.to_terminal(reports.Report.from_dict(run.report)))
    if run.report:  # of a command that is not a job, such as estimate
        return Group(*head, Text(plain(_json(run.report))))
    eta, rate = _eta_s(run), _rate(run)
    at_rate = "" if rate is None else f" at {rate:,.1f}/s"
    left = "" if eta is None else f", {eta:,.0f} s left"
    return Group(
        *head,
        Text(f"{_done_of_total(run)} rows{at_rate}{left}"),
        views.table(
            ("What", "Rows"),
            [(name, f"{number:,}") for name, number in run.totals.items()],
            title="Totals",
        ),
        views.table(
            ("Service", "Requests", "Retries", "Errors"),
            [
                (service, *(f"{counts.get(key, 0):,}" for key in ("requests", "retries", "errors")))
                for service, counts in run.progress.get("requests", {}).items()
            ],
            title="Requests",
        ),
    )
