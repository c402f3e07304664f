"""The page: the script that Streamlit runs for every visitor, and again at every click."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import pandas as pd
import streamlit as st
from artwork_backfill.dashboard import access, queries, show
from artwork_backfill.dashboard.config import Config
from artwork_backfill.dashboard.desk import Desk, Trouble
from artwork_backfill.dashboard.tabs import checks, entities, failed_events, overview, reviews
from artwork_backfill.dashboard.worklist import Done, journal
from artwork_backfill.shared.settings import SettingsError

TABS: Final[Mapping[str, Callable[[Desk], None]]] = {
    "Overview": overview.show_tab,
    "Reviews": reviews.show_tab,
    "Failed events": failed_events.show_tab,
    "Entities": entities.show_tab,
    "Checks": checks.show_tab,
}

#: How often the page looks whether what was done has come to something, in seconds.
_LOOK_EVERY_S: Final = 3

#: What an entity or event is not yet through with.
_UNDER_WAY: Final = ("unchecked", "audit_in_progress", "queued", "running")

# Room for the toolbar that Streamlit lays over the top, and no more; figures that can be compared.
_STYLE: Final = """
<style>
.block-container { padding-top: 3.5rem; padding-bottom: 3rem; }
[data-testid="stMetricValue"] { font-size: 1.5rem; font-variant-numeric: tabular-nums; }
</style>
"""


def main() -> None:
    """Draw the page for whoever may see it."""
    st.set_page_config(page_title="artwork-backfill", layout="wide")
    st.html(_STYLE)
    try:
        config = Config.from_environ(os.environ)
        login = access.login_is_configured()
        access.check(
            st.get_option("server.address"),
            login=login,
            allowed=config.allowed,
            read_only=config.read_only,
        )
    except (SettingsError, access.AccessError) as error:
        show.text(str(error))
        return
    desk = Desk(config, lambda: _who(config))
    if login and not _has_entered(desk):
        return
    _head(desk, login=login)
    tabs = st.tabs(list(TABS), key="tab", on_change="rerun", bind="query-params")
    for tab, draw in zip(tabs, TABS.values(), strict=True):
        if tab.open:
            with tab:
                _draw(desk, draw)


def _who(config: Config) -> str:
    """Return who acts at this moment; raises `access.NotAllowed` when nobody may."""
    if not access.login_is_configured():
        return config.by
    if not st.user.get("is_logged_in"):
        raise access.NotAllowed("You are not logged in any more.")
    return access.may_enter(st.user.to_dict(), config.allowed)


def _has_entered(desk: Desk) -> bool:
    """Tell whether the visitor may see the page; say why and how to go on when not."""
    if not st.user.get("is_logged_in"):
        st.header("artwork-backfill", anchor=False)
        st.button("Log in", on_click=st.login, type="primary")
        return False
    try:
        desk.who()
    except access.NotAllowed as refusal:
        show.text(str(refusal))
        st.button("Log out", on_click=st.logout)
        return False
    return True


def _head(desk: Desk, *, login: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header("artwork-backfill", anchor=False, width="stretch")
        if desk.config.read_only:
            st.badge("read only", color="orange")
        else:
            show.text(desk.who(), stretch=False)
        if login:
            st.button("Log out", on_click=st.logout)


def _draw(desk: Desk, draw: Callable[[Desk], None]) -> None:
    try:
        draw(desk)
        _journal(desk)
    except Trouble as trouble:
        st.error("The page could not be drawn.")
        show.text(str(trouble))


def _journal(desk: Desk) -> None:
    """Show what was done here and what has come of it, looking again as long as it may change."""
    done = journal()
    if not done:
        return
    under_way = any(now in _UNDER_WAY for now in _outcomes(desk, done))
    st.fragment(_show_journal, run_every=_LOOK_EVERY_S if under_way else None)(desk)


def _show_journal(desk: Desk) -> None:
    done = journal()
    st.subheader("What you have done", anchor=False)
    frame = pd.DataFrame(
        [
            (entry.at, entry.what, entry.entity_type.value, str(entry.gid or ""), now)
            for entry, now in zip(done, _outcomes(desk, done), strict=True)
        ],
        columns=["at", "what", "entity_type", "gid", "now"],
    )
    show.table(
        frame,
        {
            "at": show.moment("When"),
            "what": show.words("What", 260),
            "entity_type": show.words("Type", 70),
            "gid": show.words("Gid", 290),
            "now": show.words("Now it is", 330),
        },
        name="What you have done",
        key="journal.table",
        rows=6,
    )


def _outcomes(desk: Desk, done: list[Done]) -> list[str]:
    """Return where the entities and events that were acted upon stand now."""
    entities = [(entry.entity_type, entry.gid) for entry in done if entry.gid is not None]
    events = [entry.event_id for entry in done if entry.event_id is not None]
    with desk.reading() as conn:
        standings = queries.standings(conn, entities)
        states = queries.states(conn, events)
    return [_outcome(entry, standings, states) for entry in done]


def _outcome(entry: Done, standings: Mapping[Any, str], states: Mapping[int, str]) -> str:
    if entry.event_id is not None:
        return states.get(entry.event_id, "gone")
    return standings.get((entry.entity_type, entry.gid), "gone")


if __name__ == "__main__":
    main()
