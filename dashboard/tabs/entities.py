"""One entity, found by its gid or a URL that contains it, or the entities with a status."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import streamlit as st

from artwork_backfill.dashboard import queries, show, words
from artwork_backfill.dashboard.address import Field
from artwork_backfill.dashboard.memory import Done, Visit
from artwork_backfill.dashboard.notices import Notices
from artwork_backfill.dashboard.tabs import case
from artwork_backfill.shared.review import actions
from artwork_backfill.shared.review.actions import Retried
from artwork_backfill.shared.review.questions import EntityRow, gids_in

#: The key of the field that other tabs fill in to open an entity.
QUERY: Final = "entities.query"
STATUS: Final = "entities.status"

FIELDS: Final = (Field("entity", QUERY), Field("is", STATUS, "", words.STATUSES))

_NOTICES: Final = Notices("entities")
_SEEN: Final = "entities.seen"


def show_tab(visit: Visit) -> None:
    """Draw the tab."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        query = st.text_input(
            "Gid, archive.org identifier or URL",
            key=QUERY,
            placeholder="https://musicbrainz.org/release/...",
            persist_state="session",
            width=560,
        )
        status = st.selectbox(
            "Or entities that are",
            ["", *words.STATUSES],
            format_func=lambda name: words.STATUSES.get(name, ""),
            key=STATUS,
            persist_state="session",
            width=300,
        )
    _NOTICES.show()
    gids = gids_in(query)
    if len(gids) > 1:
        show.text(f"This text contains {len(gids)} gids: enter one of them.")
    elif gids:
        _entity(visit, gids[0])
    elif query.strip():
        show.text(
            "This text contains no gid. Enter a UUID, an identifier such as mbid-UUID, or the"
            " address of a release or event."
        )
    elif status:
        _of_status(visit, status)
    else:
        st.caption("Enter anything that holds a gid, or choose a status.")


def _entity(visit: Visit, gid: UUID) -> None:
    if not visit.config.read_only:
        st.button(
            "Audit again",
            key="entities.retry",
            help="Audits the entity first.",
            on_click=_retry,
            args=(visit, gid),
        )
    cases = case.show_gid(visit, gid)
    st.session_state[_SEEN] = tuple(found.entity for found in cases)
    if not cases:
        show.text(f"{gid} is not in the audit table: no seeding job has found it.")


def _of_status(visit: Visit, status: str) -> None:
    with visit.reading() as conn:
        found = queries.entities_of(conn, status)
    if not found:
        st.info(f"No entity is {words.status(status)}.")
        return
    name = f"Entities that are {words.status(status)}"
    chosen = show.entity_table(found, name=name, key=f"entities.of.{status}", rows=12)
    if len(found) == queries.EXAMPLES:
        st.caption(f"{queries.EXAMPLES} of them are shown here.")
    if chosen is not None:
        case.show_gid(visit, chosen.gid)


def _retry(visit: Visit, gid: UUID) -> None:
    seen: Sequence[EntityRow] = st.session_state.get(_SEEN, ())
    with _NOTICES.reporting():
        retried = visit.act(lambda conn, by: actions.retry(conn, [gid], by=by, seen=seen))
        now = datetime.now(UTC)
        visit.kept.record(
            Done(now, "to be audited again", entry.entity_type, entry.gid)
            for entry in retried
            if entry.outcome is Retried.RETRIED
        )
        _NOTICES.notify("Audit again:", [f"{entry.gid} {entry.outcome}" for entry in retried])
