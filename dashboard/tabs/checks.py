"""The catalogue of checks with the frequency of each, and examples to open."""

from __future__ import annotations

from typing import Final

import streamlit as st

from artwork_backfill.dashboard import address, queries, show, words
from artwork_backfill.dashboard.address import Field
from artwork_backfill.dashboard.memory import Visit
from artwork_backfill.dashboard.tabs import case
from artwork_backfill.dashboard.tabs.entities import QUERY
from artwork_backfill.dashboard.tabs.overview import PERIODS
from artwork_backfill.shared.audit.catalogue import CHECKS

_TABLE: Final = "checks.table"
_CHECK: Final = "checks.check"
_PERIOD: Final = "checks.period"

FIELDS: Final = (Field("within", _PERIOD, "30 days", PERIODS), Field("check", _CHECK, "", CHECKS))


def show_tab(visit: Visit) -> None:
    """Draw the tab."""
    period = st.segmented_control(
        "Found within", list(PERIODS), required=True, key=_PERIOD, persist_state="session"
    )
    with visit.reading() as conn:
        found = queries.findings(conn, PERIODS[str(period)])
    show.table(
        (
            (check.name, *found.get(check.name, queries.Findings()), check.severity.label,
             words.remedy(check.remedy),
             f"{check.summary} ({check.note})" if check.note else check.summary, check.applies)
            for check in CHECKS.values()
        ),
        {
            "check": show.words("Check"),
            "entities": show.number("Audits", "small"),
            "findings": show.number("Findings", "small"),
            "severity": show.words("Severity", "small"),
            "remedy": show.words("What is done"),
            "what": show.words("What differs"),
            "applies": show.words("Entity", "small"),
        },
        name="Checks",
        key=_TABLE,
        selection="single-row",
        rows=14,
        on_select=_choose,
    )  # fmt: skip
    st.caption(
        "Audits counts the audits that found it in this period: an entity audited twice counts"
        " twice. Select a check to see examples."
    )
    chosen = st.session_state.get(_CHECK)
    if chosen in CHECKS:
        _examples(visit, str(chosen))


def _choose() -> None:
    chosen = show.selected(_TABLE)
    st.session_state[_CHECK] = list(CHECKS)[chosen[0]] if chosen else ""


def _examples(visit: Visit, check: str) -> None:
    st.subheader(f"Examples of {check}", anchor=False)
    show.text(CHECKS[check].summary)
    st.button(
        "Open reviews of it",
        key="checks.reviews",
        on_click=address.go,
        args=("Reviews",),
        kwargs={"reviews.reason": check},
    )
    with visit.reading() as conn:
        found = queries.examples(conn, check)
    if not found:
        st.caption("No audit has kept an example of it.")
        return
    chosen = show.entity_table(found, name="Examples", key=f"checks.examples.{check}", rows=8)
    if chosen is not None:
        st.button(
            "Open in Entities",
            key="checks.open",
            on_click=address.go,
            args=("Entities",),
            kwargs={QUERY: str(chosen.gid)},
        )
        case.show_gid(visit, chosen.gid)
