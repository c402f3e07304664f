"""The catalogue of checks with the frequency of each, and examples to open."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final
from uuid import UUID

import streamlit as st

from artwork_backfill.dashboard import address, queries, show
from artwork_backfill.dashboard.address import Field
from artwork_backfill.dashboard.database import DashboardDb
from artwork_backfill.dashboard.memory import Memory
from artwork_backfill.dashboard.tabs import case
from artwork_backfill.dashboard.tabs.entities import QUERY
from artwork_backfill.dashboard.tabs.overview import PERIODS
from artwork_backfill.shared.audit.catalogue import CHECKS

_TABLE: Final = "checks.table"
_CHECK: Final = "checks.check"
_PERIOD: Final = "checks.period"

FIELDS: Final = (Field("within", _PERIOD, "30 days", PERIODS), Field("check", _CHECK, "", CHECKS))


def show_tab(database: DashboardDb, kept: Memory) -> None:
    """Draw the tab."""
    period = st.segmented_control(
        "Found within", list(PERIODS), required=True, key=_PERIOD, persist_state="session"
    )
    with database.reading() as conn:
        catalogue = queries.checks(conn, PERIODS[str(period)])
    show.table(
        catalogue,
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
        on_select=partial(_choose, catalogue["check"].tolist()),
    )
    st.caption(
        "Audits counts the audits that found it in this period: an entity audited twice counts"
        " twice. Select a check to see examples."
    )
    chosen = st.session_state.get(_CHECK)
    if chosen in CHECKS:
        _examples(database, kept, str(chosen))


def _choose(checks: Sequence[str]) -> None:
    chosen = show.selected(_TABLE)
    st.session_state[_CHECK] = checks[chosen[0]] if chosen else ""


def _examples(database: DashboardDb, kept: Memory, check: str) -> None:
    st.subheader(f"Examples of {check}", anchor=False)
    show.text(CHECKS[check].summary)
    st.button(
        "Open reviews of it",
        key="checks.reviews",
        on_click=address.go,
        args=("Reviews",),
        kwargs={"reviews.reason": check},
    )
    with database.reading() as conn:
        found = queries.examples(conn, check)
    if not len(found):
        st.caption("No audit has kept an example of it.")
        return
    key = f"checks.examples.{check}"
    show.table(
        found,
        {
            "gid": show.words("Gid"),
            "status": show.words("Entity is"),
            "entity_type": show.words("Type", "small"),
            "priority": show.number("Priority", "small"),
            "last_audit_at": show.moment("Last audit"),
            "musicbrainz": show.link("MusicBrainz", "open", "small"),
            "item": show.link("archive.org", "open", "small"),
        },
        name="Examples",
        key=key,
        selection="single-row",
        rows=8,
    )
    chosen = show.selected(key)
    if chosen and chosen[0] < len(found):
        gid = str(found["gid"].iloc[chosen[0]])
        st.button(
            "Open in Entities",
            key="checks.open",
            on_click=address.go,
            args=("Entities",),
            kwargs={QUERY: gid},
        )
        case.show_gid(database, kept, UUID(gid))
