"""The catalogue of checks with how often each is found, and examples to open."""

from __future__ import annotations

from typing import Final

import streamlit as st
from artwork_backfill.dashboard import queries, show
from artwork_backfill.dashboard.desk import Desk
from artwork_backfill.dashboard.tabs.entities import QUERY
from artwork_backfill.dashboard.tabs.overview import PERIODS

_TABLE: Final = "checks.table"
_EXAMPLES: Final = "checks.examples"


def show_tab(desk: Desk) -> None:
    """Draw the tab."""
    period = st.segmented_control(
        "Found within",
        list(PERIODS),
        default="30 days",
        required=True,
        key="checks.period",
        persist_state="session",
    )
    with desk.reading() as conn:
        catalogue = queries.checks(conn, PERIODS[period])
        show.table(
            catalogue,
            {
                "check": show.words("Check", 200),
                "severity": show.words("Severity", 75),
                "entities": show.number("Audits", 85),
                "findings": show.number("Findings", 85),
                "what": show.words("What differs", 460),
                "remedy": show.words("Remedy", 90),
                "applies": show.words("Entity", 70),
            },
            name="Checks",
            key=_TABLE,
            selection="single-row",
            rows=14,
        )
        st.caption(
            "Audits counts the audits that found it in this period: an entity audited twice counts"
            " twice. Select a check to see examples."
        )
        chosen = show.selected(_TABLE)
        if chosen:
            _examples(desk, str(catalogue["check"].iloc[chosen[0]]))


def _examples(desk: Desk, check: str) -> None:
    st.subheader(f"Examples of {check}", anchor=False)
    with desk.reading() as conn:
        found = queries.examples(conn, check)
    if not len(found):
        st.caption("No audit has kept an example of it.")
        return
    key = f"{_EXAMPLES}.{check}"
    show.table(
        found,
        {
            "entity_type": show.words("Type", 80),
            "gid": show.words("Gid", 300),
            "status": show.words("Entity is", 140),
            "priority": show.number("Priority", 80),
            "last_audit_at": show.moment("Last audit"),
            "musicbrainz": show.link("MusicBrainz", "open", 110),
            "item": show.link("archive.org", "open", 110),
        },
        name="Examples",
        key=key,
        selection="single-row",
        rows=8,
    )
    chosen = show.selected(key)
    st.button(
        "Open in Entities",
        key="checks.open",
        disabled=not chosen,
        on_click=_open,
        args=(str(found["gid"].iloc[chosen[0]]) if chosen else "",),
    )


def _open(gid: str) -> None:
    st.session_state[QUERY] = gid
    st.session_state["tab"] = "Entities"
