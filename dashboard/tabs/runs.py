"""The runs of all jobs: which are at work, how the others ended, and how to pause or stop them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import streamlit as st
from psycopg import Connection

from artwork_backfill.dashboard import show, words
from artwork_backfill.dashboard.address import Field
from artwork_backfill.dashboard.database import DashboardDb, Trouble
from artwork_backfill.dashboard.memory import Done, Visit
from artwork_backfill.dashboard.notices import Notices
from artwork_backfill.shared.review import runs
from artwork_backfill.shared.review.runs import Request, Run

#: The jobs whose runs have records, and so can be held; `auditor` is the audit within a daemon.
JOBS: Final = (
    "audit-batch",
    "auditor",
    "reaudit",
    "seed-from-mb",
    "seed-from-img-129",
    "seed-from-ia-scan",
    "seed-from-ia-changes",
)

_RUN: Final = "runs.run"
_TABLE: Final = "runs.table"
_WHY: Final = "runs.why"
_HOLD_WHY: Final = "runs.hold.why"
_NOTICES: Final = Notices("runs")
_SHOWN: Final = 50
_EVERY_S: Final = 5

#: Figures of the totals for the list, in order of preference: a run shows the first that it has.
_COUNTS: Final = ("audited", "written", "seeded", "inserted", "scanned")

FIELDS: Final = (Field("run", _RUN),)


def at_work(conn: Connection) -> list[Run] | None:
    """Return the runs at work, `None` if the database keeps no records of runs."""
    if not runs.may_read(conn):
        return None
    return [run for run in runs.list_runs(conn, _SHOWN, ended=False) if run.is_at_work]


def describe(working: Sequence[Run], now: datetime) -> str:
    """Return a line about the runs at work, for the top of every page."""
    if not working:
        return "No run is at work."
    return "At work: " + "; ".join(
        f"{run.job}, {run.state} since {words.age(run.started, now)}, by {run.who}"
        for run in working
    )


def show_tab(visit: Visit) -> None:
    """Draw the tab."""
    _NOTICES.show()

    def draw() -> None:
        _show_list(visit)

    show.refreshed(draw, _EVERY_S)
    chosen = st.session_state.get(_RUN)
    if chosen:
        _show_run(visit, chosen)
    if not visit.config.read_only:
        _show_holds(visit)
    st.caption(
        "The dashboard starts no runs: a person or a scheduler does, with a command like the one"
        " shown for each run."
    )


def _show_list(database: DashboardDb) -> None:
    now = datetime.now(UTC)
    with database.reading() as conn:
        if not runs.may_read(conn):
            st.info("This database keeps no records of runs: apply the migrations.")
            return
        found = runs.list_runs(conn, _SHOWN)
        holds = runs.list_holds(conn)
    st.caption(f"Read at {words.clock(now)}, again every {_EVERY_S} seconds.")
    for hold in holds:
        show.text(
            f"{hold.job} is held by {hold.who} since {words.age(hold.since, now)}: {hold.why}"
        )
    if not found:
        st.info("No run has left a record yet.")
        return
    show.table(
        (
            (run.job, run.state, f"{words.age(run.started, now)} ago",
             words.short(run.duration_s), _done(run), _rate(run), run.request, run.who, run.host)
            for run in found
        ),
        {
            "job": show.words("Job"),
            "state": show.words("State"),
            "started": show.words("Started", "small"),
            "took": show.words("For", "small"),
            "done": show.words("Done"),
            "rate": show.words("Per hour", "small"),
            "waits": show.words("Asked for"),
            "who": show.words("By"),
            "host": show.words("Host"),
        },
        name="Runs",
        key=_TABLE,
        selection="single-row",
        rows=12,
        on_select=partial(_open, [str(run.id) for run in found]),
    )  # fmt: skip


def _open(ids: Sequence[str]) -> None:
    chosen = show.selected(_TABLE)
    st.session_state[_RUN] = ids[chosen[0]] if chosen and chosen[0] < len(ids) else ""


def _first(totals: Mapping[str, Any]) -> tuple[str, int] | None:
    return next(
        ((name, totals[name]) for name in (*_COUNTS, *totals) if isinstance(totals.get(name), int)),
        None,
    )


def _done(run: Run) -> str:
    """Return how many rows a run has processed, and of how many if it knows."""
    done, total = run.progress.get("done"), run.progress.get("total")
    first = _first(run.totals)
    if isinstance(done, int) and isinstance(total, int) and total:
        said = f"{done:,} of {total:,}"
    else:
        said = f"{first[1]:,} {first[0]}" if first else ""
    failed = run.totals.get("failed")
    return said + (f", {failed:,} failed" if isinstance(failed, int) and failed else "")


def _rate(run: Run) -> str:
    """Return the rows per hour: the run's own figure, or the average since it started."""
    rate = run.progress.get("rate")
    if run.is_at_work and isinstance(rate, int | float):
        return f"{rate * 3600:,.0f}"
    first = _first(run.totals)
    if first is None or not first[1] or run.duration_s < 1:
        return ""
    return f"{first[1] / run.duration_s * 3600:,.0f}"


def _show_run(visit: Visit, chosen: str) -> None:
    try:
        with visit.reading() as conn:
            run = runs.find_run(conn, chosen)
    except Trouble as trouble:
        show.text(str(trouble))
        return
    st.divider()
    st.subheader("The run", anchor=False)
    show.text(f"{run.job} {run.version}, run {run.id}")
    show.text(f"{run.state}; by {run.who} on {run.host}, {run.started:%Y-%m-%d %H:%M:%S} UTC")
    if run.request:
        show.text(run.request)
    if run.finished is None and not visit.config.read_only:
        _buttons(visit, run)
    st.markdown("**Its command**")
    st.code(command(run), language=None)
    if run.report:
        _report(run.report)
    elif run.totals:
        _totals(run.totals)


def command(run: Run) -> str:
    """Return the command line that repeats the run; environment variables are not part of it."""
    words_ = ["artwork-backfill", run.job]
    for name, value in run.options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words_.append(option)
        elif isinstance(value, list | tuple):
            for one in value:
                words_ += [option, str(one)]
        elif value not in (None, False, ""):
            words_ += [option, str(value)]
    return shlex.join(words_)


def _report(report: Mapping[str, Any]) -> None:
    verification = report.get("verification") or []
    if verification:
        st.markdown("**Verification**")
        show.table(
            (
                ("yes" if check.get("ok") else "no", check.get("name"),
                 str(check.get("expected")), str(check.get("actual")), check.get("detail"))
                for check in verification
                if isinstance(check, Mapping)
            ),
            {
                "ok": show.words("Holds", "small"),
                "name": show.words("What"),
                "expected": show.words("Expected"),
                "actual": show.words("Counted"),
                "detail": show.words("Detail"),
            },
            name="Verification",
        )  # fmt: skip
    if isinstance(totals := report.get("totals"), Mapping):
        _totals(totals)
    with st.expander("The whole report"):
        show.text(json.dumps(report, indent=2, ensure_ascii=False, default=str)[:50_000])


def _totals(totals: Mapping[str, Any]) -> None:
    st.markdown("**Totals**")
    show.table(
        (
            (name, f"{value:,}" if isinstance(value, int) else str(value))
            for name, value in totals.items()
        ),
        {"name": show.words("What"), "value": show.words("How many")},
        name="Totals",
    )


# -- asking --------------------------------------------------------------------------------------


def _buttons(visit: Visit, run: Run) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        show.draft("Reason, which the run reports", visit.kept, _WHY, max_chars=300)
        for label, (requested, help_text) in _REQUESTS.items():
            ask = partial(_request, run, requested)
            st.button(
                label,
                key=f"runs.{label}",
                on_click=_ask,
                args=(visit, label, f"run of {run.job}", ask),
                help=help_text,
            )


def _request(run: Run, what: Request | None, conn: Connection, by: str, why: str) -> None:
    runs.request(conn, run.id, what, by=by, why=why if what else None)


_REQUESTS: Final[Mapping[str, tuple[Request | None, str]]] = {
    "Pause": (
        "pause",
        "The run claims nothing new, and gives back what it has claimed, until it is resumed.",
    ),
    "Resume": (None, "The run continues."),
    "Stop": ("stop", "The run finishes its batch, verifies, reports and ends."),
}


def _show_holds(visit: Visit) -> None:
    with visit.reading() as conn:
        if not runs.may_read(conn):
            return
        held = {hold.job for hold in runs.list_holds(conn)}
    with st.expander("Hold a job", expanded=bool(held)):
        st.caption("Runs of a held job claim nothing more, and new runs end immediately.")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            job = st.selectbox("Job", JOBS, key="runs.job", width=260)
            show.draft("Reason", visit.kept, _HOLD_WHY, max_chars=300)
            ask: _Ask = (
                (lambda conn, by, why: runs.unhold(conn, job))
                if job in held
                else (lambda conn, by, why: runs.hold(conn, job, by=by, why=why))
            )
            label = "Unhold" if job in held else "Hold"
            st.button(
                label,
                key="runs.hold",
                on_click=_ask,
                args=(visit, label, job, ask, _HOLD_WHY),
            )


_Ask = Callable[[Connection, str, str], None]


def _ask(visit: Visit, label: str, what: str, ask: _Ask, reason_key: str = _WHY) -> None:
    why = " ".join(st.session_state.get(reason_key, "").split())
    if not why and label in ("Pause", "Stop", "Hold"):
        _NOTICES.notify(f"{label}: write the reason first.", ok=False)
        return
    with _NOTICES.reporting():
        visit.act(lambda conn, by: ask(conn, by, why))
        visit.kept.record([Done(datetime.now(UTC), f"{label}: {what}")])
        _NOTICES.notify(f"{label}: asked for.")
        show.write(visit.kept, reason_key, "")
