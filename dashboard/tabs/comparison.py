"""The current state of one entity in archive.org and MusicBrainz, and what an audit would decide.

A part of the case page. It runs when a person asks for it, keeps the answer for their session, and
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import streamlit as st

from artwork_backfill.dashboard import outside, show, words
from artwork_backfill.dashboard.database import DashboardDb, Trouble
from artwork_backfill.shared.audit.sides import Document
from artwork_backfill.shared.auditing.models import BadRow
from artwork_backfill.shared.engine.errors import StopRun
from artwork_backfill.shared.review.explain import Comparison, Explanation, compare_whole, explain
from artwork_backfill.shared.review.questions import EntityRow
from artwork_backfill.shared.settings import SettingsError

_KEPT: Final = "case.comparison"

Answer = Comparison | Explanation

_QUESTIONS: Final[Mapping[str, tuple[str, str, Callable[..., Answer]]]] = {
    "compare": (
        "Compare with archive.org now",
        "Reads the item, its owner's, index.json and the XML. Nothing is changed.",
        compare_whole,
    ),
    "explain": (
        "Explain what an audit would decide now",
        "Audits it as the command explain does. Nothing is changed.",
        explain,
    ),
}


def offer(database: DashboardDb, entity: EntityRow) -> None:
    """Offer the comparison and the explanation, and show the last answer."""
    with st.container(horizontal=True):
        asked = [
            ask
            for key, (label, help_, ask) in _QUESTIONS.items()
            if st.button(label, key=f"case.{key}", help=help_)
        ]
    with st.container():
        for ask in asked:
            with st.spinner("Asking archive.org and MusicBrainz ..."):
                # Keep one answer at a time: answers may be long.
                st.session_state[_KEPT] = (entity.id, _answer(database, entity, ask))
        about, answer = st.session_state.get(_KEPT, (None, None))
        if about != entity.id:
            return
        if isinstance(answer, Explanation):
            _show_explanation(answer)
        else:
            _show_sides(answer)


def _answer(database: DashboardDb, entity: EntityRow, ask: Callable[..., Answer]) -> Answer:
    try:
        examiner = outside.examiner(database)
        return ask(database.reading, examiner, entity.entity_type, entity.gid)
    except BadRow as problem:
        return Comparison(problem=f"It cannot be audited: {problem}. Correct it in MusicBrainz.")
    except (Trouble, SettingsError, StopRun) as trouble:
        return Comparison(problem=str(trouble))


# -- both sides ----------------------------------------------------------------------------------


def _show_sides(found: Comparison) -> None:
    if found.problem:
        show.text(found.problem)
    for item in found.items:
        show.text(f"Item of {item.gid}: {item.state} {item.problem}".strip())
        if images := item.originals():
            show.table(
                (
                    (image.artwork_id or "none", image.file.size, image.file.md5,
                     image.file.format, image.name)
                    for image in images
                ),
                {
                    "artwork": show.words("Artwork"),
                    "size": show.number("Bytes"),
                    "md5": show.words("MD5"),
                    "format": show.words("Format"),
                    "name": show.words("Name"),
                },
                name=f"Images in the item of {item.gid}",
                rows=6,
            )  # fmt: skip
    for document in found.documents:
        st.markdown(f"**{show.literally(document.name)}**")
        if document.problem:
            show.text(document.problem)
        if document.expected is None or document.found is None:
            show.text(_one_side(document))
        else:
            show.line_differences(document.expected, document.found)


def _one_side(document: Document) -> str:
    if document.expected is None and document.found is None:
        return "Neither side is known."
    return "It should not be there." if document.expected is None else "It is not there."


# -- the decision --------------------------------------------------------------------------------


def _show_explanation(found: Explanation) -> None:
    with st.container(key="case-decision"):
        st.markdown(f"**An audit would decide now: {words.outcome(found.outcome)}**")
        for reason in found.why:
            show.text(f"because {reason}")
        for event in found.events:
            show.text(f"and queue: {event}")
        if found.event_under_way:
            show.text("An event of it is queued or running: audits wait until that is done.")
        show.text(f"{found.presence} in MusicBrainz, {found.images:,} images expected")
    differing = [side for side in found.comparison if side.differs]
    _table(
        "Expected and found",
        ("Where", "What", "Expected", "Found"),
        [(side.part, side.what, side.expected, side.found) for side in differing],
    )
    _table(
        "Findings now",
        ("Check", "Severity", "Subject", "Means", "What is done"),
        [
            (each.check, each.severity, each.subject, each.meaning, words.remedy(each.remedy))
            for each in found.findings
        ],
    )
    _table(
        "Images of other entities",
        ("Image", "Owner", "Verdict"),
        [(image.name, image.owner, image.verdict) for image in found.foreign_images],
    )
    if not differing and not found.findings:
        st.caption("Everything is as expected.")


def _table(name: str, columns: Sequence[str], rows: Sequence[tuple[str | None, ...]]) -> None:
    if rows:
        st.markdown(f"**{name}**")
        formats = {label: show.words(label) for label in columns}
        show.table(rows, formats, name=name, rows=6, tall=True)
