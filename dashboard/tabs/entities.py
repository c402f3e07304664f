"""One entity, looked up by its gid or by an address that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import click
import streamlit as st
from artwork_backfill.dashboard import show
from artwork_backfill.dashboard.desk import Desk, Trouble
from artwork_backfill.dashboard.tabs import case
from artwork_backfill.dashboard.worklist import Done, Worklist, record
from artwork_backfill.jobs.cli.review import GidType
from artwork_backfill.shared.review import actions
from artwork_backfill.shared.review.actions import Retried
from artwork_backfill.shared.review.questions import EntityRow

#: The key of the field that the other tabs fill in to open an entity.
QUERY: Final = "entities.query"

_LIST: Final[Worklist[EntityRow]] = Worklist("entities")
_SEEN: Final = "entities.seen"


def show_tab(desk: Desk) -> None:
    """Draw the tab."""
    query = st.text_input(
        "Gid, archive.org identifier or URL",
        key=QUERY,
        placeholder="https://musicbrainz.org/release/...",
        persist_state="session",
    )
    _LIST.show_notice()
    if not query.strip():
        st.caption("Anything that holds a gid will do.")
        return
    try:
        gid = GidType().convert(query, None, None)
    except click.BadParameter as error:
        show.text(error.message)
        return
    if not desk.config.read_only:
        st.button(
            "Audit again",
            key="entities.retry",
            help="Before all others.",
            on_click=_retry,
            args=(desk, gid),
        )
    cases = case.show_gid(desk, gid)
    st.session_state[_SEEN] = tuple(found.entity for found in cases)
    if not cases:
        show.text(f"{gid} {Retried.UNKNOWN}")


def _retry(desk: Desk, gid: UUID) -> None:
    seen: Sequence[EntityRow] = st.session_state.get(_SEEN, ())
    try:
        retried = desk.act(lambda conn, by: actions.retry(conn, [gid], by=by, seen=seen))
    except Trouble as trouble:
        _LIST.notify("Nothing was changed.", [str(trouble)])
        return
    now = datetime.now(UTC)
    record(
        Done(now, "to be audited again", entry.entity_type, entry.gid)
        for entry in retried
        if entry.entity_type and entry.outcome is Retried.RETRIED
    )
    _LIST.notify("Audit again:", [f"{entry.gid} {entry.outcome}" for entry in retried])
