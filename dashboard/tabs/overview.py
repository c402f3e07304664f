"""The progress of the audit: figures, charts over time, findings, and the outcome of repairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import Any, Final

import altair as alt
import pandas as pd
import streamlit as st
from psycopg import Connection

from artwork_backfill.dashboard import address, queries, show, words
from artwork_backfill.dashboard.address import Field
from artwork_backfill.dashboard.database import DashboardDb
from artwork_backfill.dashboard.latest import Counted, Latest
from artwork_backfill.dashboard.memory import Visit
from artwork_backfill.dashboard.queries import Wrong
from artwork_backfill.dashboard.tabs.entities import QUERY as ENTITIES_QUERY
from artwork_backfill.dashboard.tabs.entities import STATUS as ENTITIES_STATUS
from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.durations import in_words
from artwork_backfill.shared.review import runs
from artwork_backfill.shared.review import status as audit_status
from artwork_backfill.shared.review.questions import RepairTally, list_repairs
from artwork_backfill.shared.review.status import AuditStatus, QueueCount

PERIODS: Final = {
    "24 hours": timedelta(days=1),
    "7 days": timedelta(days=7),
    "30 days": timedelta(days=30),
    "a year": timedelta(days=365),
}

#: Statuses and outcomes with their colours, in the order in which charts stack them. The colours
#: can be distinguished on light and dark backgrounds and with colour blindness.
COLOURS: Final = {
    "clean": "#2a9d8f",
    "legacy": "#8d99ae",
    "repair_queue": "#4c78d0",
    "manual_review": "#e9a03b",
    "audit_in_progress": "#b07aa1",
    "unchecked": "#c9ced6",
}
_BY_WORDS: Final = {words.status(name): colour for name, colour in COLOURS.items()}
SEVERITIES: Final = {"critical": "#d1495b", "major": "#e9a03b", "minor": "#8d99ae"}

#: The greatest age of the figures in seconds; the page shows their age.
KEEP_S: Final = 15

#: Seconds until the page looks again for the first result of a count.
_SOON_S: Final = 1

#: Statuses of entities that an audit has decided about; the others wait for an audit.
AUDITED: Final = ("clean", "repair_queue", "manual_review", "legacy")

_PERIOD: Final = "overview.period"
_WRONG: Final = "overview.wrong"

FIELDS: Final = (Field("period", _PERIOD, "7 days", PERIODS),)

_QUEUE_STATES: Final = ("queued", "running", "failed", "completed")


def show_tab(visit: Visit) -> None:
    """Draw the tab."""
    counted = _latest(visit.config.dsn, visit).get()
    first = counted.value is None

    def draw() -> None:
        _show_present(visit, first=first)

    show.refreshed(draw, _SOON_S if first else KEEP_S)
    st.divider()
    period = st.segmented_control(
        "Period", list(PERIODS), required=True, key=_PERIOD, persist_state="session"
    )
    with visit.reading() as conn:
        _course(conn, counted, PERIODS[str(period)])
        _findings(conn, PERIODS[str(period)])
        estimate = runs.latest_run(conn, "estimate") if runs.may_read(conn) else None
    if estimate is not None and estimate.report:
        _estimate(estimate.report, words.age(estimate.finished, datetime.now(UTC)))


def _show_present(database: DashboardDb, *, first: bool) -> None:
    """Show the current state; this part redraws itself."""
    counted = _latest(database.config.dsn, database).get()
    status = counted.value
    if first and status is not None:
        st.rerun()
    with database.reading() as conn:
        rate, wrong, proofs, now = _read_present(database.config.dsn, conn)
    st.caption(
        f"Read at {words.clock(now)}, again every {KEEP_S} seconds."
        + (f" Entities were counted at {words.clock(counted.at)}." if counted.at else "")
    )
    if counted.trouble:
        show.text(f"The entities could not be counted. {counted.trouble}")
    elif status is None:
        st.info("The entities are being counted. Everything else is ready.")
    if status is not None:
        count = counts(status)
        if sum(count.values()):
            _bar(count)
        else:
            st.info("No entities yet: seed-from-mb and the other seeding jobs bring them in.")
        _figures(status, count, rate)
    left, right = st.columns([3, 2], gap="large")
    with left:
        _wrong(wrong, now)
    with right:
        _repairs(status, proofs)


@st.cache_resource(max_entries=2, show_spinner=False)
def _latest(dsn: str, _database: DashboardDb) -> Latest[AuditStatus]:
    """Return the count of a database's entities, which takes seconds with millions of rows.

    One count serves all visitors, and none of them waits for it.
    """
    del dsn

    def count() -> AuditStatus:
        with _database.reading(timeout="120s") as conn:
            return audit_status.read(conn)

    return Latest(count, keep_s=KEEP_S)


@st.cache_data(ttl=KEEP_S, max_entries=2, show_spinner=False)
def _read_present(
    dsn: str, _conn: Connection
) -> tuple[float | None, list[Wrong], list[RepairTally], datetime]:
    """Return the rate, the open problems, the outcome of repairs, and the time of reading."""
    del dsn
    return (
        queries.audits_per_hour(_conn),
        queries.wrong_now(_conn),
        list_repairs(_conn),
        datetime.now(UTC),
    )


def _bar(count: Mapping[str, int]) -> None:
    """Show the progress of the audit as one bar."""
    total = sum(count.values())
    audited = sum(count[name] for name in AUDITED)
    st.markdown(f"**{audited:,} of {total:,} entities audited: {_percent(audited, total)}**")
    present = [(name, count[name]) for name in COLOURS if count[name]]
    parts = "".join(
        f'<div style="width:{100 * entities / total:.4f}%;background:{COLOURS[name]}"'
        f' title="{words.status(name)}: {entities:,}"></div>'
        for name, entities in present
    )
    legend = "".join(
        f'<span><i style="background:{COLOURS[name]}"></i>'
        f"{words.status(name)}: {entities:,} ({_percent(entities, total)})</span>"
        for name, entities in present
    )
    st.html(f'<div class="bar" aria-hidden="true">{parts}</div><div class="legend">{legend}</div>')


def _percent(part: int, total: int) -> str:
    if part == total:
        return "100 %"
    share = min(99.99, 100 * part / total)
    return f"{share:.2f} %" if share < 1 or share > 99 else f"{share:.0f} %"


def _figures(status: AuditStatus, count: Mapping[str, int], rate: float | None) -> None:
    events = {row.state: row for row in status.queue}
    failed = events["failed"].events if "failed" in events else 0
    waiting = sum(events[state].events for state in ("queued", "running") if state in events)
    left = count["unchecked"] + count["audit_in_progress"]
    oldest = "" if status.oldest_review_s is None else words.short(status.oldest_review_s)
    # fmt: off
    with st.container(horizontal=True, key="overview-boxes"):
        _box("Open reviews", f"{status.open_reviews:,}", "Reviews that wait for a decision.",
             f"The oldest: {oldest}" if oldest else "There is none.", "Reviews")
        _box("Failed events", f"{failed:,}", "Events that artwork-indexer no longer retries.",
             _oldest(events, "failed"), "Failed events")
        _box("Repairs queued", f"{count['repair_queue']:,}",
             "Entities whose repair artwork-indexer has to carry out.",
             f"{status.repairs.to_prove:,} carried out, to prove",
             "Entities", {ENTITIES_STATUS: "repair_queue", ENTITIES_QUERY: ""})
        _box("Indexer's queue", f"{waiting:,}",
             "All events that are queued or running, those of MusicBrainz included.",
             _oldest(events, "queued", "running"))
        _box("Left to audit", f"{left:,}", "Entities that are unchecked or being audited.",
             remaining(left, sum(count.values()), rate),
             "Entities", {ENTITIES_STATUS: "unchecked", ENTITIES_QUERY: ""})
        _box("Audits per hour", "none" if rate is None else f"{rate:,.0f}",
             "Within the last two hours, while an audit is at work.",
             "in the last two hours" if rate is not None else "no audit is at work", "Runs")
    # fmt: on


def _box(
    label: str,
    value: str,
    help_text: str,
    below: str,
    tab: str | None = None,
    values: Mapping[str, str] | None = None,
) -> None:
    """Show a figure with its explanation, and a link to a tab with values for its filters."""
    with st.container(border=True, width=170, height="stretch", gap="small"):
        st.metric(label, value, help=help_text)
        st.caption(below)
        if tab is not None:
            st.button(
                f"Open {tab.lower()}",
                key=f"overview.open.{label}",
                type="tertiary",
                on_click=address.go,
                args=(tab,),
                kwargs=dict(values or {}),
            )


def _oldest(events: Mapping[str, QueueCount], *states: str) -> str:
    ages = [events[state].oldest_s for state in states if state in events]
    return f"The oldest: {words.short(max(ages))}" if ages else "There is none."


def counts(status: AuditStatus) -> dict[str, int]:
    """Return the number of entities by status."""
    count = dict.fromkeys(COLOURS, 0)
    for row in status.entities:
        count[row.status] = count.get(row.status, 0) + row.entities
    return count


def remaining(left: int, total: int, rate: float | None) -> str:
    """Return in words the time that `left` of `total` entities take at `rate` audits per hour."""
    if not total:
        return "nothing is seeded"
    if not left:
        return "nothing is left"
    if rate is None:
        return "no audit is at work"
    return f"about {in_words(left / rate * 3600)} at this rate"


def _wrong(wrong: Sequence[Wrong], now: datetime) -> None:
    """Show what waits for a person or for a repair, by kind."""
    st.subheader("Wrong now", anchor=False)
    if not wrong:
        st.caption("Nothing waits for a person or for a repair.")
        return
    show.table(
        (
            (words.kind(each.kind), each.in_review, each.in_repair, words.age(each.oldest, now),
             words.remedy(CHECKS[each.kind].remedy) if each.kind in CHECKS
             else "a person decides")
            for each in wrong
        ),
        {
            "means": show.words("What"),
            "in_review": show.number("In review", "small"),
            "in_repair": show.number("In repair", "small"),
            "age": show.words("Oldest", "small"),
            "remedy": show.words("What is done"),
        },
        name="Wrong now",
        key=_WRONG,
        selection="single-row",
        rows=12,
        on_select=partial(_open_kind, [each.kind for each in wrong]),
    )  # fmt: skip
    st.caption("Select one to open its reviews.")


def _open_kind(kinds: Sequence[str]) -> None:
    chosen = show.selected(_WRONG)
    if chosen and chosen[0] < len(kinds):
        # The tick belongs to this visit of the tab, which ends here.
        address.go("Reviews", **{"reviews.kind": kinds[chosen[0]], "reviews.reason": ""})


def _course(conn: Connection, counted: Counted[AuditStatus], period: timedelta) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Entities by status", anchor=False)
        past = queries.statuses_over_time(conn, period)
        if not past:
            st.caption("Audits keep count of this every hour; none has in this period.")
        else:
            if counted.value is not None and counted.at is not None:
                past += [(counted.at, name, n) for name, n in counts(counted.value).items()]
            _area([(at, words.outcome(status), n) for at, status, n in past], period)
    with right:
        st.subheader("Audits by outcome", anchor=False)
        audits = queries.audits_over_time(conn, period)
        if not audits:
            st.caption("No audits in this period.")
        else:
            _bars([(*when, words.outcome(name), n) for *when, name, n in audits], period)


def _area(past: list[tuple[Any, ...]], period: timedelta) -> None:
    frame = pd.DataFrame(past, columns=["taken_at", "status", "entities"])
    names = _present(frame["status"])
    chart = alt.Chart(frame.assign(rank=frame["status"].map(names.index)))
    _chart(
        chart.mark_area(interpolate="step-after").encode(
            x=alt.X("taken_at:T", **_time_axis(period)),
            y=alt.Y("entities:Q", **_count_axis()),
            color=_colour("status", names),
            order=alt.Order("rank:Q"),
            tooltip=["status:N", alt.Tooltip("entities:Q", format=",")],
        ),
        sorted(past, key=itemgetter(0), reverse=True),
        {
            "taken_at": show.moment("At"),
            "status": show.words("Entities are"),
            "entities": show.number("Entities"),
        },
        name="Entities by status",
        description="Entities by status over time",
    )


def _bars(audits: list[tuple[Any, ...]], period: timedelta) -> None:
    frame = pd.DataFrame(audits, columns=["since", "until", "outcome", "audits"])
    names = _present(frame["outcome"])
    # Vega does not stack bars over intervals.
    stacked = frame.assign(rank=frame["outcome"].map(names.index)).sort_values("rank")
    stacked["top"] = stacked.groupby("since")["audits"].cumsum()
    stacked["bottom"] = stacked["top"] - stacked["audits"]
    _chart(
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
        [(since, *rest) for since, _, *rest in sorted(audits, key=itemgetter(0), reverse=True)],
        {
            "since": show.moment("Since"),
            "outcome": show.words("Outcome"),
            "audits": show.number("Audits"),
        },
        name="Audits by outcome",
        description="Audits by outcome over time",
    )


def _chart(
    chart: alt.Chart,
    rows: Iterable[Sequence[object]],
    columns: Mapping[str, Any],
    *,
    name: str,
    description: str,
    height: int = 300,
) -> None:
    """Show a chart, and its figures as a table for those who cannot see it."""
    st.altair_chart(chart, height=height, alt=description)
    with st.expander(f"{name} as a table"):
        show.table(rows, columns, name=description)


def _present(kinds: pd.Series[str]) -> list[str]:
    """Return the kinds that occur, in the order in which charts stack them."""
    there = set(kinds)
    return [words.status(name) for name in COLOURS if words.status(name) in there]


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
        scale=alt.Scale(domain=names, range=[_BY_WORDS[name] for name in names]),
        legend=alt.Legend(orient="bottom", columns=3, symbolType="square", offset=4),
    )


def _findings(conn: Connection, period: timedelta) -> None:
    st.subheader("Findings by check", anchor=False)
    rows = sorted(
        (
            (check, CHECKS[check].severity.label, *found)
            for check, found in queries.findings(conn, period).items()
            if check in CHECKS
        ),
        key=lambda row: (-row[2], row[0]),
    )
    if not rows:
        st.caption("No findings in this period.")
        return
    frame = pd.DataFrame(rows, columns=["check", "severity", "entities", "findings"])
    _chart(
        alt.Chart(frame)
        .mark_bar()
        .encode(
            x=alt.X("entities:Q", title="audits that found it", axis=alt.Axis(format="~s")),
            y=alt.Y(
                "check:N", title=None, sort=None, axis=alt.Axis(labelLimit=260, labelOverlap=False)
            ),
            color=alt.Color(
                "severity:N",
                title=None,
                scale=alt.Scale(domain=list(SEVERITIES), range=list(SEVERITIES.values())),
                legend=alt.Legend(orient="top"),
            ),
            tooltip=[
                "check:N",
                "severity:N",
                alt.Tooltip("entities:Q", format=",", title="audits"),
                alt.Tooltip("findings:Q", format=","),
            ],
        ),
        rows,
        {
            "check": show.words("Check"),
            "severity": show.words("Severity"),
            "entities": show.number("Audits"),
            "findings": show.number("Findings"),
        },
        name="Findings by check",
        description="Audits that found each check",
        height=80 + 22 * len(rows),
    )


def _repairs(status: AuditStatus | None, proofs: Sequence[RepairTally]) -> None:
    if status is not None:
        repairs = status.repairs
        st.subheader("Repairs", anchor=False)
        show.table(
            [
                ("queued or running", repairs.under_way),
                ("carried out, next audit to prove them", repairs.to_prove),
                ("proved by an audit", repairs.proved),
                ("in review: failed, or did not hold", repairs.in_review),
            ],
            {
                "repairs": show.words("Entities whose repair is"),
                "entities": show.number("Entities", 100),
            },
            name="Repairs",
        )
    if proofs:
        show.table(
            (
                (tally.check, tally.held, tally.not_held,
                 "left to people" if tally.is_given_up else "repaired")
                for tally in proofs
            ),
            {
                "check": show.words("How repairs hold"),
                "held": show.number("Held", 62),
                "not_held": show.number("Did not", 62),
                "now": show.words("Now", 90),
            },
            name="How repairs hold",
        )  # fmt: skip
    if status is not None:
        _queue({row.state: row for row in status.queue})


def _queue(events: Mapping[str, QueueCount]) -> None:
    st.subheader("artwork-indexer's queue", anchor=False)
    rows = [(state, events[state].events, in_words(events[state].oldest_s))
            for state in _QUEUE_STATES if state in events]  # fmt: skip
    if rows:
        show.table(
            rows,
            {
                "state": show.words("State"),
                "events": show.number("Events", 100),
                "oldest": show.words("Oldest", 110),
            },
            name="Events by state",
        )
    else:
        st.caption("The queue is empty.")


def _estimate(report: Mapping[str, Any], age: str) -> None:
    """Show what a full audit would find according to the latest estimate."""
    st.subheader("The latest estimate", anchor=False)
    st.caption(
        f"Made {age} ago from {report['sampled']:,} of {report['population']:,} entities."
        f" A full audit takes at least {in_words(report['audit_s'])}, artwork-indexer then"
        f" {in_words(report['indexer_s'])}. The command estimate makes a new one."
    )
    lines = [
        *((words.outcome(name), found) for name, found in report["outcomes"].items()),
        *(
            (check, found)
            for check, found in sorted(
                report["checks"].items(), key=lambda item: -item[1]["estimate"]
            )
        ),
        ("events for artwork-indexer", report["events"]),
        ("of these, images deleted", report["deletions"]),
    ]
    show.table(
        ((what, found["estimate"], found["low"], found["high"]) for what, found in lines),
        {
            "what": show.words("What a full audit would find"),
            "estimate": show.number("About", 110),
            "low": show.number("At least", 110),
            "high": show.number("At most", 110),
        },
        name="The latest estimate",
        rows=12,
    )
