"""Widgets of the page: texts, tables, differences and links.

Titles, comments, reasons and error messages come from outside, and Streamlit interprets most
strings as Markdown. Show every text that this project has not written with `text`, `table`,
`differences` or `line_differences`: they show it literally. Build links from gids, never from data.
"""

from __future__ import annotations

import difflib
import html
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from typing import Any, Final, Literal
from uuid import UUID

import pandas as pd
import streamlit as st
from streamlit.column_config import DatetimeColumn, LinkColumn, NumberColumn, TextColumn

from artwork_backfill.dashboard import words as plain_words
from artwork_backfill.dashboard.database import Trouble
from artwork_backfill.dashboard.memory import Memory
from artwork_backfill.shared.audit.archives import EntityType, entity_url, item_name
from artwork_backfill.shared.engine.log import plain
from artwork_backfill.shared.review.lists import Group
from artwork_backfill.shared.review.questions import EntityRow

Selection = Literal["single-row", "multi-row"]
Width = Literal["small", "medium", "large"] | int | None

#: Height in pixels of a table's row, and of a row in which long texts may take three lines.
#: Streamlit wraps texts in rows that are more than twice as high as usual.
ROW_HEIGHT: Final = 35
TALL_ROW_HEIGHT: Final = 74

#: Characters of a text that are compared side by side; the rest is cut off.
_LONGEST: Final = 20_000


def text(content: str, *, stretch: bool = True) -> None:
    """Show text from any source literally."""
    st.text(plain(content), width="stretch" if stretch else "content")


def table(
    data: Iterable[Sequence[object]],
    columns: Mapping[str, Any],
    *,
    name: str,
    key: str | None = None,
    selection: Selection | None = None,
    rows: int = 10,
    tall: bool = False,
    on_select: Callable[[], None] | Literal["rerun"] = "rerun",
) -> None:
    """Show a table whose texts are shown literally.

    Parameters
    ----------
    data
        The rows, each with a cell for each column.
    columns
        The format of each column, from `words`, `number`, `moment` or `link`.
    name
        The accessible name of the table.
    key, selection
        With both, rows can be selected: `multi-row` or `single-row`. See `selected`.
    rows
        The number of rows visible at once.
    tall
        Whether long texts may take several lines.
    on_select
        Called when the selection changes, before the page is drawn again.
    """
    shown = pd.DataFrame([list(map(_cell, row)) for row in data], columns=list(columns))
    row_height = TALL_ROW_HEIGHT if tall else ROW_HEIGHT
    options: dict[str, Any] = {}
    if selection is not None:
        options = {"on_select": on_select, "selection_mode": selection}
    st.dataframe(
        shown,
        key=key,
        hide_index=True,
        column_config=dict(columns),
        height=ROW_HEIGHT + 4 + row_height * max(1, min(len(shown), rows)),
        row_height=row_height,
        placeholder="",
        alt=name,
        **options,
    )


def _cell(value: object) -> object:
    if value is None or isinstance(value, int | float | datetime):
        return value
    return plain(str(value))


def entity_table(
    entities: Sequence[EntityRow], *, name: str, key: str, rows: int
) -> EntityRow | None:
    """Show entities with links, and return the one that is selected."""
    table(
        (
            (each.gid, plain_words.status(each.status), each.entity_type, each.priority,
             each.last_audit_at, entity_url(each.entity_type, str(each.gid)),
             item_url(each.gid))
            for each in entities
        ),
        {
            "gid": words("Gid"),
            "status": words("Entity is"),
            "entity_type": words("Type", "small"),
            "priority": number("Priority", "small"),
            "last_audit_at": moment("Last audit"),
            "musicbrainz": link("MusicBrainz", "open", "small"),
            "item": link("archive.org", "open", "small"),
        },
        name=name,
        key=key,
        selection="single-row",
        rows=rows,
    )  # fmt: skip
    return next((entities[i] for i in selected(key) if i < len(entities)), None)


def selected(key: str) -> list[int]:
    """Return the positions of the rows selected in a table."""
    state = st.session_state.get(key)
    return sorted(state["selection"]["rows"]) if state else []


def words(label: str, width: Width = None) -> Any:
    """Return a column of text, as wide as its content if no width is given."""
    return TextColumn(label, width=width)


def number(label: str, width: Width = None, *, grouped: bool = True) -> Any:
    """Return a column of whole numbers; pass `grouped=False` for ids."""
    return NumberColumn(label, width=width, format="localized" if grouped else "%d")


def moment(label: str, width: Width = 130) -> Any:
    """Return a column of points in time, in UTC."""
    return DatetimeColumn(f"{label} (UTC)", width=width, format="YYYY-MM-DD HH:mm", timezone="UTC")


def link(label: str, display: str, width: Width = None) -> Any:
    """Return a column of addresses that this project has built, each shown as one word."""
    return LinkColumn(label, display_text=display, width=width)


def entity_links(entity: EntityRow) -> None:
    """Show links to an entity, its item, and the item's files and history."""
    item = item_name(str(entity.gid))
    addresses = {
        "MusicBrainz": entity_url(entity.entity_type, str(entity.gid)),
        "archive.org": item_url(entity.gid),
        "Files of the item": f"https://archive.org/download/{item}/",
        "History of the item": f"https://archive.org/history/{item}",
    }
    with st.container(horizontal=True):
        for label, address in addresses.items():
            st.link_button(label, address)


def item_url(gid: UUID) -> str:
    """Return the URL of an entity's item at archive.org."""
    return f"https://archive.org/details/{item_name(str(gid))}"


def entity_type_filter(key: str) -> EntityType | None:
    """Show a filter for the entity type and return the choice, `None` for all."""
    chosen = st.selectbox(
        "Entity type",
        ["", *(t.value for t in EntityType)],
        format_func=lambda value: value or "all",
        key=key,
        persist_state="session",
        width=130,
    )
    return EntityType(chosen) if chosen else None


def groups(
    name: str,
    found: Sequence[Group],
    now: datetime,
    narrow: Callable[[Group | None], None],
    *,
    chosen: str | None,
) -> None:
    """Show the kinds of rows in a list as buttons, each of which shows the rows of its kind only.

    `narrow` is called with the chosen kind, `None` for all kinds. `chosen` is the kind by which the
    list is filtered now.
    """
    if len(found) < 2 and chosen is None:
        return
    with st.container(horizontal=True, key=f"{name}-groups"):
        if chosen is not None:
            st.button("All kinds", key=f"{name}.group", on_click=narrow, args=(None,))
        for group in found:
            means = plain_words.kind(group.kind)
            kind = f"{group.action}: {means}" if group.action else means
            age = plain_words.age(group.oldest, now)
            st.button(
                f"{literally(kind)} **{group.count:,}**",
                key=f"{name}.group.{kind}",
                help=f"The oldest is {age} old. Shows these alone.",
                type="primary" if group.kind == chosen else "secondary",
                on_click=narrow,
                args=(group,),
            )


@contextmanager
def action_bar(name: str) -> Iterator[None]:
    """Keep the widgets drawn in the block visible at the lower edge of the window."""
    with st.container(border=True, key=f"{name}-bar", gap="small"):
        yield


def refreshed(draw: Callable[[], None], every_s: float | None) -> None:
    """Draw a part of the page, and redraw it every `every_s` seconds unless that is None.

    If the database fails, show the error in place of the part until the next redraw.
    """

    @wraps(draw)
    def attempt() -> None:
        try:
            draw()
        except Trouble as trouble:
            st.error("This part could not be drawn.")
            text(str(trouble))

    st.fragment(attempt, run_every=every_s)()


def draft(label: str, kept: Memory, key: str, *, max_chars: int, width: int = 320) -> None:
    """Show a text field whose content survives a change of tab, a reload, and a lost session.

    A callback stores the content at the start of the script run that delivers it: the next click
    may interrupt the run before it reaches this field. `write` sets the content.
    """
    # Two windows of one browser have a text each; only a new session takes the latest one.
    own = _own_draft(key)
    known = st.session_state.setdefault(own, kept.drafts.get(key, ""))
    if known and key not in st.session_state:
        st.session_state[key] = known
    st.session_state[own] = st.text_input(
        label, key=key, max_chars=max_chars, width=width, on_change=_keep_draft, args=(kept, key)
    )


def write(kept: Memory, key: str, content: str) -> None:
    """Set the content of a draft; for callbacks."""
    st.session_state[key] = content
    _keep_draft(kept, key)


def _keep_draft(kept: Memory, key: str) -> None:
    # A browser may still send a field that has left the page; its text is already lost then.
    content = st.session_state.get(key)
    if content is None:
        return
    st.session_state[_own_draft(key)] = content
    if content:
        kept.drafts[key] = content
    else:
        kept.drafts.pop(key, None)


def _own_draft(key: str) -> str:
    return f"draft.{key}"


def literally(content: str) -> str:
    """Return text from any source as one line of Markdown that shows it literally."""
    return "".join(
        f"\\{char}" if char in _MARKDOWN else char for char in " ".join(plain(content).split())
    )


#: Characters that Markdown, or Streamlit's extension of it, may interpret.
_MARKDOWN: Final = frozenset("\\`*_{}[]()<>#+-.!|~:$&^=\"'")


def differences(expected: str, found: str, labels: tuple[str, str] = ("Expected", "Found")) -> None:
    """Show two texts side by side and mark where they differ."""
    left, right = _marked(plain(expected)[:_LONGEST], plain(found)[:_LONGEST])
    cells = "".join(
        f"<div><span>{label}</span><pre>{content}</pre></div>"
        for label, content in zip(labels, (left, right), strict=True)
    )
    st.html(f'<div class="differences">{cells}</div>')


def _marked(expected: str, found: str) -> tuple[str, str]:
    """Return both texts as HTML, with `del` and `ins` around the differences."""
    pieces = difflib.SequenceMatcher(None, expected, found, autojunk=False).get_opcodes()
    left, right = [], []
    for kind, from_, to, found_from, found_to in pieces:
        mine, other = html.escape(expected[from_:to]), html.escape(found[found_from:found_to])
        left.append(mine if kind == "equal" or not mine else f"<del>{mine}</del>")
        right.append(other if kind == "equal" or not other else f"<ins>{other}</ins>")
    return "".join(left), "".join(right)


def line_differences(expected: str, found: str) -> None:
    """Show the lines in which two long texts differ, with two lines of context."""
    lines = difflib.unified_diff(
        plain(expected).splitlines(),
        plain(found).splitlines(),
        "expected",
        "found",
        lineterm="",
        n=2,
    )
    kinds = {"-": "del", "+": "ins"}
    shown = [
        f"<{kinds[line[0]]}>{html.escape(line)}</{kinds[line[0]]}>"
        if line[:1] in kinds and not line.startswith(("---", "+++"))
        else html.escape(line)
        for line in lines
    ]
    if not shown:
        st.caption("They are the same.")
        return
    st.html(f'<div class="differences"><div><pre>{"<br>".join(shown[:400])}</pre></div></div>')
