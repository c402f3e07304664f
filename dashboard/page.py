"""The page: the script that Streamlit runs for every visitor, and again at every click."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import streamlit as st
from psycopg import Connection

from artwork_backfill.dashboard import access, address, memory, queries, show, style, words
from artwork_backfill.dashboard.config import Config
from artwork_backfill.dashboard.database import DashboardDb, Trouble
from artwork_backfill.dashboard.memory import Done, Visit
from artwork_backfill.dashboard.tabs import (
    checks,
    entities,
    failed_events,
    overview,
    reviews,
    runs,
)
from artwork_backfill.shared.review.questions import EntityRow
from artwork_backfill.shared.settings import SettingsError


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab: the function that draws it, and its fields in the address."""

    draw: Callable[[Visit], None]
    fields: tuple[address.Field, ...] = ()


TABS: Final[Mapping[str, Tab]] = {
    "Overview": Tab(overview.show_tab, overview.FIELDS),
    "Reviews": Tab(reviews.show_tab, reviews.FIELDS),
    "Failed events": Tab(failed_events.show_tab, failed_events.FIELDS),
    "Entities": Tab(entities.show_tab, entities.FIELDS),
    "Checks": Tab(checks.show_tab, checks.FIELDS),
    "Runs": Tab(runs.show_tab, runs.FIELDS),
}
FIELDS: Final = {name: tab.fields for name, tab in TABS.items()}
FIRST: Final = next(iter(TABS))

_GLOSSARY: Final = "https://github.com/artwork-backfill/artwork-backfill/blob/main/docs/glossary.md"

_HELP: Final = """
**Keys**: `j` and `k` next and previous in the list, `u` reload the list; `Alt+E` resolve,
`Alt+W` won't fix, `Alt+A` audit again, `Alt+N` add note, `Alt+O` reopen, `Alt+Q` requeue.

**Lists** stay as they were read until you reload them, change a filter or act. A column's header
sorts the rows of this page only; the list itself is sorted by age, the oldest first.

**Links**: the address holds the tab, its filters and what is open. Copy it to show a colleague
the same.

The question mark beside a figure says what it counts. The glossary explains the terms.
"""

#: Seconds between two looks at the outcome of the person's actions.
_LOOK_EVERY_S: Final = 3

#: States in which an entity or event will still change by itself.
_UNDER_WAY: Final = (
    words.STATUSES["unchecked"],
    words.STATUSES["audit_in_progress"],
    "queued",
    "running",
)

#: The key of the field that reveals a browser whose session has been replaced.
_SESSION: Final = "session.token"


def main() -> None:
    """Draw the page for a visitor, within their access."""
    st.set_page_config(page_title="artwork-backfill", layout="wide")
    st.html(style.CSS)
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
    if login and not _has_entered(config):
        return
    visit = Visit(config, partial(_who, config), memory.of(_who(config)))
    if login:
        address.restore(memory.of("").address)
        memory.of("").address = {}
    address.adopt(FIELDS, FIRST)
    _head(visit, login=login)
    with suppress(Trouble):  # the tab says so
        _count_in_tabs(visit)
    _tabs(visit)
    address.publish(FIELDS, FIRST)


def _tabs(visit: Visit) -> None:
    _say_when_read_again()
    # Draw tabs whatever happens: Streamlit forgets the state of a tab that is not drawn.
    tabs = st.tabs(list(TABS), key=address.TAB, on_change="rerun")
    for tab, (name, content) in zip(tabs, TABS.items(), strict=True):
        if tab.open:
            with tab:
                try:
                    content.draw(visit)
                    _journal(visit)
                except Trouble as trouble:
                    st.error(f"{name} could not be drawn.")
                    show.text(str(trouble))
                    st.button("Try again", key="again", type="primary")


def _who(config: Config) -> str:
    """Return the name of the person who acts now.

    Raises
    ------
    access.NotAllowed
        If the visitor has no access any more.
    """
    if not access.login_is_configured():
        return config.by
    if not st.user.get("is_logged_in"):
        raise access.NotAllowed("You are not logged in any more.")
    return access.may_enter(st.user.to_dict(), config.allowed)


def _has_entered(config: Config) -> bool:
    """Return whether the visitor has access; if not, say why and what to do."""
    if not st.user.get("is_logged_in"):
        st.header("artwork-backfill", anchor=False)
        st.button("Log in", on_click=_log_in, type="primary")
        return False
    try:
        _who(config)
    except access.NotAllowed as refusal:
        show.text(str(refusal))
        st.button("Log out", on_click=st.logout)
        return False
    return True


def _log_in() -> None:
    # The login returns to the address without its query.
    kept = memory.of("")
    kept.address = {name: st.query_params.get_all(name) for name in st.query_params}
    st.login()


def _head(database: DashboardDb, *, login: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="head"):
        st.header("artwork-backfill", anchor=False, width="stretch")
        if database.config.read_only:
            st.badge("read only", color="orange")
        else:
            show.text(database.who(), stretch=False)
        _help()
        if login:
            st.button("Log out", on_click=st.logout)


def _help() -> None:
    with st.popover("Help"):
        st.markdown(_HELP)
        st.link_button("Glossary", _GLOSSARY)


def _say_when_read_again() -> None:
    """Say that the lists were read again if the browser still shows those of an earlier session.

    Streamlit discards a session some time after its connection is lost. A browser that reconnects
    sends the values of its fields, including that of this hidden field.
    """
    own = st.session_state.setdefault("session.own", secrets.token_hex(8))
    with st.container(key="session-token"):
        brought = st.text_input("Session", own, key=_SESSION, label_visibility="collapsed")
    if brought != st.session_state.setdefault("session.known", own):
        st.session_state["session.known"] = brought
        st.session_state["session.lost"] = True
    if st.session_state.get("session.lost"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.warning(
                "The connection was lost for some time. The lists have been read again, and nothing"
                " is selected."
            )
            st.button("OK", key="session.ok", on_click=_forget_loss)


def _forget_loss() -> None:
    st.session_state["session.lost"] = False


def _count_in_tabs(database: DashboardDb) -> None:
    """Show the runs at work, and in the names of the tabs how much work waits for people."""
    with database.reading() as conn:
        open_reviews, failed_events = _counts(database.config.dsn, conn)
        working = runs.at_work(conn)
    with st.container(key="at-work"):
        if working is not None:
            show.text(runs.describe(working, datetime.now(UTC)))
    counts = {
        "Reviews": open_reviews,
        "Failed events": failed_events,
        "Runs": len(working or ()),
    }
    st.html(style.counts([counts.get(tab, 0) for tab in TABS]))


@st.cache_data(ttl=5, max_entries=2, show_spinner=False)
def _counts(dsn: str, _conn: Connection) -> tuple[int, int]:
    del dsn
    return queries.counts(_conn)


# -- what was done -------------------------------------------------------------------------------


def _journal(visit: Visit) -> None:
    """Show the person's actions and their outcomes; look again while these may change."""
    if not visit.kept.journal:
        return
    under_way = any(now in _UNDER_WAY for now in _outcomes(visit, visit.kept.journal))

    def draw() -> None:
        _show_journal(visit)

    show.refreshed(draw, _LOOK_EVERY_S if under_way else None)


def _show_journal(visit: Visit) -> None:
    done = visit.kept.journal
    st.subheader("What you have done", anchor=False)
    now = datetime.now(UTC)
    show.table(
        (
            (entry.what, outcome, f"{words.age(entry.at, now)} ago", entry.entity_type, entry.gid)
            for entry, outcome in zip(done, _outcomes(visit, done), strict=True)
        ),
        {
            "what": show.words("What"),
            "now": show.words("Now it is"),
            "at": show.words("When"),
            "entity_type": show.words("Type"),
            "gid": show.words("Gid"),
        },
        name="What you have done",
        key="journal.table",
        rows=6,
    )


def _outcomes(database: DashboardDb, done: list[Done]) -> list[str]:
    """Return the current state of the entities and events that the actions concern."""
    events = [entry.event_id for entry in done if entry.event_id is not None]
    with database.reading() as conn:
        standings = queries.standings(conn, {entry.gid for entry in done if entry.gid})
        states = queries.states(conn, events)
    return [_outcome(entry, standings, states) for entry in done]


def _outcome(entry: Done, standings: Mapping[Any, EntityRow], states: Mapping[int, str]) -> str:
    if entry.event_id is not None:
        return states.get(entry.event_id, "gone")
    if entry.gid is None:
        return ""
    entity = standings.get((entry.entity_type, entry.gid))
    if entity is None:
        return "gone"
    said = words.status(entity.status)
    if entity.status in ("unchecked", "audit_in_progress") or entity.last_audit_at is None:
        return said
    return f"{said}, audited {entity.last_audit_at:%Y-%m-%d %H:%M:%S}"


if __name__ == "__main__":
    main()
