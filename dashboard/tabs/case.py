"""All that is known about one entity: its reviews, events and images, the findings of its audits.

Not a tab of its own: the reviews, the failed events and the entities show it beneath.
"""

from __future__ import annotations

from uuid import UUID

import streamlit as st
from artwork_backfill.dashboard import queries, show
from artwork_backfill.dashboard.desk import Desk
from artwork_backfill.shared.review import questions
from artwork_backfill.shared.review.questions import Case, PastAudit
from psycopg import Connection


def show_gid(desk: Desk, gid: UUID) -> list[Case]:
    """Show the entities that have a gid, as they are now, and return them."""
    with desk.reading() as conn:
        cases = questions.find_cases(conn, gid)
        for case in cases:
            _show(conn, case)
    return cases


def _show(conn: Connection, case: Case) -> None:
    entity = case.entity
    st.subheader(f"{entity.entity_type.value.capitalize()} {entity.gid}", anchor=False)
    audited = (
        f"last audited {entity.last_audit_at:%Y-%m-%d %H:%M} UTC"
        if entity.last_audit_at
        else "never audited"
    )
    show.text(f"{entity.status}, priority {entity.priority}, {audited}")
    show.entity_links(entity)
    for audit in case.audits:
        _audit(audit)
    if not case.audits:
        st.caption("No audit of it has found anything.")
    _reviews(case)
    _events(case)
    _artwork(conn, case)


def _audit(audit: PastAudit) -> None:
    st.markdown(f"**Audit of {audit.audited_at:%Y-%m-%d %H:%M:%S} UTC**")
    queued = f", queued events {', '.join(map(str, audit.event_ids))}" if audit.event_ids else ""
    show.text(f"{audit.outcome}{queued} (run {audit.run_id})")
    if not audit.findings:
        return
    show.table(
        queries.findings(audit),
        {
            "check": show.words("Check", 195),
            "severity": show.words("Severity", 72),
            "subject": show.words("Subject", 205),
            "expected": show.words("Expected", 290),
            "found": show.words("Found", 290),
            "repair": show.words("Repair", 66),
        },
        name="Findings",
        rows=6,
        tall=True,
    )


def _reviews(case: Case) -> None:
    if not case.reviews:
        return
    st.markdown("**Reviews**")
    for review in case.reviews:
        show.text(f"{review.id}, {review.status.value}: {review.reason}")
        if review.notes:
            with st.container(border=True):
                show.text(review.notes)


def _events(case: Case) -> None:
    if not case.events:
        return
    st.markdown("**Events**")
    show.table(
        queries.events(case),
        {
            "id": show.number("Event", 62, grouped=False),
            "state": show.words("State", 80),
            "created": show.moment("Created", 128),
            "action": show.words("Action", 95),
            "message": show.words("Message", 300),
            "attempts": show.number("Attempts", 72),
            "failure": show.words("Latest failure", 300),
            "depends_on": show.words("Waits for", 80),
        },
        name="Events",
        rows=6,
        tall=True,
    )


def _artwork(conn: Connection, case: Case) -> None:
    images = queries.artwork(conn, case.entity.entity_type, case.entity.gid)
    if not len(images):
        return
    st.markdown("**Images in MusicBrainz**")
    show.table(
        images,
        {
            "id": show.number("Artwork", 120, grouped=False),
            "types": show.words("Types", 200),
            "comment": show.words("Comment", 420),
            "image": show.link("Image", "open", 80),
        },
        name="Images",
        rows=6,
    )
