"""The case page: everything known about one entity, so that a person can decide about it.

It is not a tab of its own: the tabs Reviews, Failed events and Entities show it below their lists.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import streamlit as st

from artwork_backfill.dashboard import address, outside, pictures, queries, show, words
from artwork_backfill.dashboard.database import DashboardDb
from artwork_backfill.dashboard.memory import Done, Visit
from artwork_backfill.dashboard.notices import Notices
from artwork_backfill.dashboard.tabs import comparison
from artwork_backfill.shared.audit.archives import EntityType, image_name, item_name, thumbnail_name
from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.auditing.owners import read_owners
from artwork_backfill.shared.review import actions, questions
from artwork_backfill.shared.review.questions import Case, PastAudit, Review, StoredFinding

_PURGE_NUMBER: Final = "case.purge.number"
_PURGE_NOTICES: Final = Notices("case.purge")

#: Findings whose two sides are shown one below the other; the table shows the others.
_COMPARED: Final = 8

#: The name of an original image: `mbid-GID-NUMBER.SUFFIX`.
_IMAGE: Final = re.compile(r"mbid-(?P<gid>[0-9a-f-]{36})-(?P<id>[0-9]{1,18})\.(?P<suffix>\w{1,8})")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that a case is about, parsed from its file name; `owner` is a gid."""

    artwork_id: int
    suffix: str
    owner: str | None


def show_entity(
    visit: Visit,
    entity_type: EntityType,
    gid: UUID,
    review: Review | None = None,
) -> None:
    """Show the current state of an entity, and the question of one of its reviews."""
    with visit.reading() as conn:
        cases = questions.find_cases(conn, gid)
    for case in cases:
        if case.entity.entity_type is entity_type:
            _show(visit, case, review)
            return
    show.text(f"{entity_type} {gid} is not in the audit table.")


def show_gid(visit: Visit, gid: UUID) -> list[Case]:
    """Show the current state of the entities with a gid, and return them."""
    with visit.reading() as conn:
        cases = questions.find_cases(conn, gid)
    for case in cases:
        is_open = [review for review in case.reviews if review.status == "open"]
        _show(visit, case, is_open[0] if is_open else None)
    return cases


def question(kinds: Sequence[str]) -> str:
    """Return the decision that a person has to make, in one sentence."""
    for kind, asked in words.QUESTIONS.items():
        if kind in kinds:
            return asked
    known = next((CHECKS[kind] for kind in kinds if kind in CHECKS), None)
    summary = f"{known.summary[:1].upper()}{known.summary[1:]}: what" if known else "What"
    return f"{summary} is to be done?"


def _show(visit: Visit, case: Case, review: Review | None) -> None:
    entity = case.entity
    now = datetime.now(UTC)
    with visit.reading() as conn:
        about = queries.about(conn, entity.entity_type, entity.gid)
    with st.container(key=f"case-title-{entity.entity_type}"):
        show.text(about.title or f"Not in MusicBrainz: {entity.entity_type} {entity.gid}")
    line = [entity.entity_type.value, str(entity.gid), *about.facts]
    show.text(" · ".join(line))
    audited = (
        f"last audited {words.age(entity.last_audit_at, now)} ago"
        if entity.last_audit_at
        else "never audited"
    )
    show.text(f"{words.status(entity.status)}, priority {entity.priority}, {audited}")
    show.entity_links(entity)
    if review is not None:
        _question(review, now)
    images = _images(visit, case, review)
    _pictures(visit, case, images)
    # In a container of its own: expanders after it stay open or closed when the notice appears.
    with st.container():
        _PURGE_NOTICES.show()
        _PURGE_NOTICES.forget()
    if review is not None and review.status == "open" and not visit.config.read_only:
        foreign = [image for image in images if image.owner != str(entity.gid)]
        if foreign:
            _purge(visit, review, foreign)
    comparison.offer(visit, entity)
    if case.audits:
        _latest(case.audits[0], now)
    else:
        st.caption("No audit has found a difference.")
    _folded(visit, case, review, now)


def _question(review: Review, now: datetime) -> None:
    with st.container(key="case-question"):
        if review.status == "open":
            st.markdown(f"**{question(review.kinds)}**")
        show.text(
            f"Review {review.id}, {words.REVIEWS[review.status]},"
            f" since {words.age(review.created_at, now)}: {review.reason}"
        )
    if review.notes:
        with st.container(border=True):
            show.text(review.notes)


# -- pictures ------------------------------------------------------------------------------------


def _images(database: DashboardDb, case: Case, review: Review | None) -> list[Image]:
    """Return the images named by the reason and the latest findings, with their owners."""
    texts = [review.reason] if review is not None else []
    if case.audits:
        texts += [
            " ".join((finding.subject, finding.expected or "", finding.actual or ""))
            for finding in case.audits[0].findings
            if finding.check.startswith(("files.original", "orphan.image"))
        ]
    own = str(case.entity.gid)
    named = {
        match["id"]: match["suffix"]
        for text in texts
        for match in _IMAGE.finditer(text)
        if match["gid"] == own
    }
    with database.reading() as conn:
        owners = read_owners(conn, case.entity.entity_type, list(map(int, named))).gids
    return [Image(int(id_), suffix, owners.get(int(id_))) for id_, suffix in named.items()]


def _pictures(database: DashboardDb, case: Case, images: Sequence[Image]) -> None:
    """Show the images at issue, from this entity and from their owner, when a person asks."""
    if not images:
        return
    own = str(case.entity.gid)
    st.markdown("**Images at issue**")
    is_shown = database.config.pictures and st.toggle(
        "Show the pictures from archive.org",
        key=f"case.pictures.{own}",
        help="Your browser then asks archive.org for them, without saying where it comes from.",
    )
    if is_shown:
        pictures.measure()
    for image in images:
        here, elsewhere = st.columns(2)
        with here:
            show.text(f"Artwork {image.artwork_id}, here")
            _picture(image, own, is_shown=is_shown)
        if image.owner is None:
            st.caption("No entity of MusicBrainz has an image with this number.")
        elif image.owner != own:
            owner = f"{case.entity.entity_type} {image.owner}"
            with elsewhere:
                show.text(f"Artwork {image.artwork_id}, with its owner, {owner}")
                _picture(image, image.owner, is_shown=is_shown, is_owner=True)


def _picture(image: Image, gid: str, *, is_shown: bool, is_owner: bool = False) -> None:
    """Show links to an image in the item of an entity, and its picture."""
    where = f"https://archive.org/download/{item_name(gid)}"
    original = f"{where}/{image_name(gid, image.artwork_id, image.suffix)}"
    with st.container(horizontal=True):
        st.link_button("Original", original)
        if is_owner:
            st.button(
                "Open its owner",
                key=f"case.owner.{image.artwork_id}",
                on_click=address.go,
                args=("Entities",),
                kwargs={"entities.query": gid},
            )
    if is_shown:
        thumbnail = f"{where}/{thumbnail_name(gid, image.artwork_id, 500)}"
        pictures.show(original, thumbnail, f"Artwork {image.artwork_id} of {gid}")


# -- purging -------------------------------------------------------------------------------------


def _purge(visit: Visit, review: Review, images: Sequence[Image]) -> None:
    """Let a person order the deletion of an image."""
    with st.expander("Purge an image"):
        st.caption(
            "artwork-indexer deletes the file permanently. The item must still list it, and no"
            " other event of the entity may be queued or running; a copy elsewhere is not checked"
            " for."
            " Type the artwork number and the reason."
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input("Artwork number", key=_PURGE_NUMBER, width=180)
            show.draft("Why", visit.kept, _purge_why(review), max_chars=1_000)
            st.button(
                "Purge",
                key="case.purge",
                type="primary",
                on_click=_press_purge,
                args=(visit, review, tuple(images)),
            )


def _purge_why(review: Review) -> str:
    """Return the key of the reason field, which belongs to this review alone."""
    return f"case.purge.why.{review.id}"


def _press_purge(visit: Visit, review: Review, images: Sequence[Image]) -> None:
    typed = st.session_state.get(_PURGE_NUMBER, "").strip()
    why = " ".join(st.session_state.get(_purge_why(review), "").split())
    image = next((image for image in images if str(image.artwork_id) == typed), None)
    if image is None:
        numbers = ", ".join(str(image.artwork_id) for image in images)
        said = f"Type the number of an image at issue: {numbers}."
        _PURGE_NOTICES.notify(said, ok=False)
        return
    if not why:
        _PURGE_NOTICES.notify("Purge: write the reason first.", ok=False)
        return
    with _PURGE_NOTICES.reporting():
        event_id = visit.act(
            lambda conn, by: actions.purge(
                conn,
                review,
                artwork_id=image.artwork_id,
                suffix=image.suffix,
                listings=outside.listings(),
                by=by,
                note=why,
            )
        )
        what = f"purge of artwork {image.artwork_id}, event {event_id}"
        visit.kept.record([Done(datetime.now(UTC), what, review.entity_type, review.gid, event_id)])
        _PURGE_NOTICES.notify(
            f"Event {event_id} deletes the image; the review is open until it has."
        )
        st.session_state[_PURGE_NUMBER] = ""
        show.write(visit.kept, _purge_why(review), "")


# -- what the audits found -----------------------------------------------------------------------


def _latest(audit: PastAudit, now: datetime) -> None:
    st.markdown("**What the latest audit found**")
    queued = f", queued events {', '.join(map(str, audit.event_ids))}" if audit.event_ids else ""
    outcome = words.outcome(audit.outcome)
    show.text(f"{words.age(audit.audited_at, now)} ago: {outcome}{queued} (run {audit.run_id})")
    compared = [finding for finding in audit.findings if _has_two_sides(finding)][:_COMPARED]
    for finding in compared:
        show.text(f"{finding.check}, {finding.severity}: {finding.subject}")
        show.differences(finding.expected or "", finding.actual or "")
    rest = [finding for finding in audit.findings if finding not in compared]
    if rest:
        _findings_table(rest, "Findings")


def _has_two_sides(finding: StoredFinding) -> bool:
    return bool(finding.expected) and bool(finding.actual)


def _findings_table(findings: Sequence[StoredFinding], name: str) -> None:
    show.table(
        (
            (each.check, each.subject, each.expected, each.actual, each.severity,
             "queued" if each.repair else None)
            for each in findings
        ),
        {
            "check": show.words("Check"),
            "subject": show.words("Subject"),
            "expected": show.words("Expected"),
            "found": show.words("Found"),
            "severity": show.words("Severity", "small"),
            "repair": show.words("Repair", "small"),
        },
        name=name,
        rows=6,
        tall=True,
    )  # fmt: skip


def _folded(database: DashboardDb, case: Case, review: Review | None, now: datetime) -> None:
    """Show rarely needed details, folded."""
    others = [other for other in case.reviews if review is None or other.id != review.id]
    if others:
        with st.expander(f"Other reviews ({len(others)})"):
            for other in others:
                status = words.REVIEWS[other.status]
                show.text(f"{other.id}, {status}: {other.reason}")
                if other.notes:
                    show.text(other.notes)
    if case.events:
        with st.expander(f"Events ({len(case.events)})"):
            _events(case, now)
    earlier = case.audits[1:]
    if earlier:
        with st.expander(f"Previous audits ({len(earlier)})"):
            for audit in earlier:
                outcome = words.outcome(audit.outcome)
                show.text(f"{audit.audited_at:%Y-%m-%d %H:%M:%S} UTC: {outcome}")
                if audit.findings:
                    _findings_table(audit.findings, f"Findings of {audit.audited_at:%Y-%m-%d}")
    _artwork(database, case)


def _events(case: Case, now: datetime) -> None:
    show.table(
        (
            (event.failure, event.state, words.age(event.created, now), event.action,
             words.message(event.message), event.attempts,
             ", ".join(map(str, event.depends_on or ())), event.id)
            for event in case.events
        ),
        {
            "failure": show.words("Latest failure"),
            "state": show.words("State"),
            "age": show.words("Age", "small"),
            "action": show.words("Action"),
            "message": show.words("Message"),
            "attempts": show.number("Attempts", "small"),
            "depends_on": show.words("Waits for", "small"),
            "id": show.number("Event", "small", grouped=False),
        },
        name="Events",
        rows=6,
        tall=True,
    )  # fmt: skip


def _artwork(database: DashboardDb, case: Case) -> None:
    with database.reading() as conn:
        images = queries.artwork(conn, case.entity.entity_type, case.entity.gid)
    if not images:
        return
    with st.expander(f"Images in MusicBrainz ({len(images)})"):
        show.table(
            map(astuple, images),
            {
                "id": show.number("Artwork", grouped=False),
                "types": show.words("Types"),
                "comment": show.words("Comment"),
                "image": show.link("Image", "open", 80),
            },
            name="Images",
            rows=6,
        )
