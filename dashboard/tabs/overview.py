"""How far the audit has come: figures, their course, what is found, and how repairs go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import altair as alt
import pandas as pd
import streamlit as st
from artwork_backfill.dashboard import queries, show
from artwork_backfill.dashboard.desk import Desk
from artwork_backfill.shared.review import status as audit_status
from artwork_backfill.shared.review.status import AuditStatus
from psycopg import Connection

PERIODS: Final = {
    "24 hours": timedelta(days=1),
    "7 days": timedelta(days=7),
    "30 days": timedelta(days=30),
    "a year": timedelta(days=365),
}

#: Statuses and outcomes with their colours, which can be told apart on light and dark ground and by
#: eyes that see few colours; in the order in which they are stacked.
COLOURS: Final = {
    "clean": "#2a9d8f",
    "legacy": "#8d99ae",
    "repair_queue": "#4c78d0",
    "manual_review": "#e9a03b",
    "audit_in_progress": "#b07aa1",
    "unchecked": "#c9ced6",
}
SEVERITIES: Final = {"critical": "#d1495b", "major": "#e9a03b", "minor": "#8d99ae"}

#: How old the figures may be that are shown, in seconds; the page says how old they are.
KEEP_S: Final = 15

#: What an audit has decided about; the others wait for one.
AUDITED: Final = ("clean", "repair_queue", "manual_review", "legacy")

_QUEUE_STATES: Final = ("queued", "running", "failed", "completed")


def show_tab(desk: Desk) -> None:
    """Draw the tab."""
    with desk.reading() as conn:
        status, now = _status(desk.config.dsn, conn)
        rate = queries.audits_per_hour(conn)
        _figures(status, rate)
        period = st.segmented_control(
            "Period",
            list(PERIODS),
            default="7 days",
            required=True,
            key="overview.period",
            persist_state="session",
        )
        _course(conn, status, PERIODS[period], now)
        left, right = st.columns([3, 2], gap="large")
        with left:
            _findings(conn, PERIODS[period])
        with right:
            _repairs(status)
    st.caption(f"As of {show.clock(now)}.")


@st.cache_data(ttl=KEEP_S, max_entries=2, show_spinner=False)
def _status(dsn: str, _conn: Connection) -> tuple[AuditStatus, datetime]:
    """Return the status of a database and when it was read.

    Counting millions of entities takes about a second of two processors: it is done once for all
    visitors, and for all clicks of one.
    """
    del dsn
    return audit_status.read(_conn), datetime.now(UTC)


def _figures(status: AuditStatus, rate: float | None) -> None:
    count = counts(status)
    figures = {
        "Audited": sum(count[name] for name in AUDITED),
        "Clean": count["clean"],
        "Queued for repair": count["repair_queue"],
        "In review": count["manual_review"],
        "Legacy": count["legacy"],
        "Unchecked": count["unchecked"],
    }
    for column, (label, entities) in zip(st.columns(6), figures.items(), strict=True):
        column.metric(label, f"{entities:,}", border=True)
    left = count["unchecked"] + count["audit_in_progress"]
    facts = {
        "Audits per hour, of late": "none" if rate is None else f"{rate:,.0f}",
        "The rest takes": remaining(left, rate),
        "Oldest claim": _age(status.oldest_claim_s),
        "Oldest open review": _age(status.oldest_review_s),
    }
    for column, (label, fact) in zip(st.columns(4), facts.items(), strict=True):
        column.metric(label, fact, border=True)


def counts(status: AuditStatus) -> dict[str, int]:
    """Return how many entities have each status."""
    count = dict.fromkeys(COLOURS, 0)
    for row in status.entities:
        count[row.status] = count.get(row.status, 0) + row.entities
    return count


def remaining(left: int, rate: float | None) -> str:
    """Return in words how long `left` entities take at `rate` audits per hour."""
    if not left:
        return "nothing is left"
    if rate is None:
        return "unknown"
    return show.duration(left / rate * 3600)


def _age(seconds: float | None) -> str:
    return "none" if seconds is None else show.duration(seconds)


def _course(conn: Connection, status: AuditStatus, period: timedelta, now: datetime) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Entities by status", anchor=False)
        past = queries.statuses_over_time(conn, period)
        if not len(past):
            st.caption("Audits keep count of this every hour; none has in this period.")
        else:
            # The present is always known.
            present = pd.DataFrame(
                [(now, name, entities) for name, entities in counts(status).items()],
                columns=past.columns,
            )
            _area(pd.concat([past, present]), period)
    with right:
        st.subheader("Audits by outcome", anchor=False)
        audits = queries.audits_over_time(conn, period)
        if not len(audits):
            st.caption("No audits in this period.")
        else:
            _bars(audits, period)


def _area(past: pd.DataFrame, period: timedelta) -> None:
    names = _present(past["status"])
    chart = alt.Chart(past.assign(rank=past["status"].map(names.index)))
    st.altair_chart(
        chart.mark_area(interpolate="step-after").encode(
            x=alt.X("taken_at:T", **_time_axis(period)),
            y=alt.Y("entities:Q", **_count_axis()),
            color=_colour("status", names),
            order=alt.Order("rank:Q"),
            tooltip=["status:N", alt.Tooltip("entities:Q", format=",")],
        ),
        height=300,
    )


def _bars(audits: pd.DataFrame, period: timedelta) -> None:
    names = _present(audits["outcome"])
    # Bars over stretches of time are not stacked by Vega itself.
    stacked = audits.assign(rank=audits["outcome"].map(names.index)).sort_values("rank")
    stacked["top"] = stacked.groupby("since")["audits"].cumsum()
    stacked["bottom"] = stacked["top"] - stacked["audits"]
    st.altair_chart(
        alt.Chart(stacked)
        .mark_rect()
        .encode(
            x=alt.X("since:T", **_time_axis(period)),
            x2="until:T",
            y=alt.Y("bottom:Q", **_count_axis()),
            y2="top:Q",
            color=_colour("outcome", names),
            tooltip=["outcome:N", alt.Tooltip("audits:Q", format=",")],
        ),
        height=300,
    )


def _present(kinds: pd.Series[str]) -> list[str]:
    """Return the kinds that there are, in the order in which they are stacked."""
    there = set(kinds)
    return [name for name in COLOURS if name in there]


def _time_axis(period: timedelta) -> dict[str, Any]:
    days = period > timedelta(days=1)
    axis = alt.Axis(format="%d %b" if days else "%H:%M", tickCount=6, labelOverlap=True)
    return {"title": None, "scale": alt.Scale(type="utc"), "axis": axis}


def _count_axis() -> dict[str, Any]:
    return {"title": None, "axis": alt.Axis(format="~s")}


def _colour(field: str, names: list[str]) -> alt.Color:
    return alt.Color(
        f"{field}:N",
        title=None,
        scale=alt.Scale(domain=names, range=[COLOURS[name] for name in names]),
        legend=alt.Legend(orient="bottom", columns=3, symbolType="square", offset=4),
    )


def _findings(conn: Connection, period: timedelta) -> None:
    st.subheader("Findings by check", anchor=False)
    found = queries.findings_by_check(conn, period)
    if not len(found):
        st.caption("No findings in this period.")
        return
    names = list(SEVERITIES)
    st.altair_chart(
        alt.Chart(found)
        .mark_bar()
        .encode(
            x=alt.X("entities:Q", title="audits that found it", axis=alt.Axis(format="~s")),
            y=alt.Y(
                "check:N", title=None, sort=None, axis=alt.Axis(labelLimit=260, labelOverlap=False)
            ),
            color=alt.Color(
                "severity:N",
                title=None,
                scale=alt.Scale(domain=names, range=list(SEVERITIES.values())),
                legend=alt.Legend(orient="top"),
            ),
            tooltip=[
                "check:N",
                "severity:N",
                alt.Tooltip("entities:Q", format=",", title="audits"),
                alt.Tooltip("findings:Q", format=","),
            ],
        ),
        height=80 + 22 * len(found),
    )


def _repairs(status: AuditStatus) -> None:
    st.subheader("Repairs", anchor=False)
    repairs = status.repairs
    show.table(
        pd.DataFrame(
            [
                ("queued or running", repairs.under_way),
                ("carried out, next audit to prove them", repairs.to_prove),
                ("proved by an audit", repairs.proved),
                ("in review: failed, or did not hold", repairs.in_review),
            ],
            columns=["repairs", "entities"],
        ),
        {
            "repairs": show.words("Entities whose repair is"),
            "entities": show.number("Entities", 100),
        },
        name="Repairs",
    )
    st.subheader("artwork-indexer's queue", anchor=False)
    events = {row.state: row for row in status.queue}
    rows = [(state, events[state].events, show.duration(events[state].oldest_s))
            for state in _QUEUE_STATES if state in events]  # fmt: skip
    if rows:
        show.table(
            pd.DataFrame(rows, columns=["state", "events", "oldest"]),
            {
                "state": show.words("Events, of everybody"),
                "events": show.number("Events", 100),
                "oldest": show.words("Oldest", 110),
            },
            name="Events by state",
        )
    else:
        st.caption("The queue is empty.")
