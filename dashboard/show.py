"""What stands on the page: text, tables, links and downloads.

Titles, comments, reasons and error messages come from outside, and Streamlit takes most strings for
Markdown. So whatever is not written in this project is shown by `text` or `table` and by nothing
else: both show it letter by letter. Links are built from gids, never taken from data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import pandas as pd
import streamlit as st
from artwork_backfill.jobs.cli.views import links, to_csv
from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType
from artwork_backfill.shared.engine.log import plain
from artwork_backfill.shared.review.questions import EntityRow
from streamlit.column_config import DatetimeColumn, LinkColumn, NumberColumn, TextColumn

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Selection = Literal["single-row", "multi-row"]

#: Pixels of a table's row, and of one in which long texts may take three lines: Streamlit wraps
#: them in rows that are more than twice as high as usual.
ROW_HEIGHT: Final = 35
TALL_ROW_HEIGHT: Final = 74

#: Rows that a download holds at most.
CSV_ROWS: Final = 10_000

_LINK_LABELS: Final = ("MusicBrainz", "archive.org", "Files of the item")


def text(content: str, *, stretch: bool = True) -> None:
    """Show text from anywhere, letter by letter."""
    st.text(plain(content), width="stretch" if stretch else "content")


def table(
    frame: pd.DataFrame,
    columns: Mapping[str, Any],
    *,
    name: str,
    key: str | None = None,
    selection: Selection | None = None,
    rows: int = 10,
    tall: bool = False,
) -> None:
    """Show a table in which every text is nothing but text.

    Parameters
    ----------
    columns
        How to show which columns, see `words`, `number`, `moment` and `link`; others are left out.
    name
        What the table is, for those who cannot see it.
    key, selection
        With both, rows can be selected: `multi-row` or `single-row`; see `selected`.
    rows
        How many rows are seen at once.
    tall
        Whether long texts take several lines.
    """
    shown = frame[list(columns)].copy()
    for column in shown:
        if shown[column].dtype == object or pd.api.types.is_string_dtype(shown[column]):
            shown[column] = [
                "" if value is None or value is pd.NA or value != value else plain(str(value))
                for value in shown[column]
            ]
    row_height = TALL_ROW_HEIGHT if tall else ROW_HEIGHT
    common: dict[str, Any] = {
        "hide_index": True,
        "column_config": dict(columns),
        "height": ROW_HEIGHT + 3 + row_height * max(1, min(len(shown), rows)),
        "row_height": row_height,
        "placeholder": "",
        "alt": name,
    }
    if selection is None:
        st.dataframe(shown, key=key, **common)
    else:
        st.dataframe(shown, key=key, on_select="rerun", selection_mode=selection, **common)


def selected(key: str) -> list[int]:
    """Return the positions of the rows that are selected in a table."""
    state = st.session_state.get(key)
    return sorted(state["selection"]["rows"]) if state else []


def words(label: str, width: int | None = None) -> Any:
    """A column of text; widths are in pixels."""
    return TextColumn(label, width=width)


def number(label: str, width: int | None = None, *, grouped: bool = True) -> Any:
    """A column of whole numbers; ids are not grouped by thousands."""
    return NumberColumn(label, width=width, format="localized" if grouped else "%d")


def moment(label: str, width: int | None = 130) -> Any:
    """A column of points in time, in UTC."""
    return DatetimeColumn(f"{label} (UTC)", width=width, format="YYYY-MM-DD HH:mm", timezone="UTC")


def link(label: str, display: str, width: int | None = None) -> Any:
    """A column of addresses that this project has made, shown as one word."""
    return LinkColumn(label, display_text=display, width=width)


def entity_links(entity: EntityRow) -> None:
    """Show where people can look at an entity, its item, its files and its front image."""
    archive = ART_ARCHIVES[entity.entity_type]
    front = f"https://{archive.domain}/{entity.entity_type}/{entity.gid}/front"
    addresses = [
        *zip(_LINK_LABELS, links(entity.entity_type, entity.gid), strict=True),
        ("Front image", front),
    ]
    with st.container(horizontal=True):
        for label, address in addresses:
            st.link_button(label, address)


def download(
    name: str, row_type: type[DataclassInstance], load: Callable[[], Sequence[DataclassInstance]]
) -> None:
    """Offer rows as CSV, safe to be opened as a spreadsheet; they are loaded when it is clicked."""
    st.download_button(
        "Download CSV",
        lambda: to_csv(row_type, load()),
        file_name=f"{name}.csv",
        mime="text/csv",
        on_click="ignore",
        help=f"The first {CSV_ROWS:,} rows that the filters let through.",
    )


def entity_type_filter(key: str) -> EntityType | None:
    """Let a person choose an entity type, or all."""
    chosen = st.selectbox(
        "Entity type", ["all", *(t.value for t in EntityType)], key=key, persist_state="session"
    )
    return None if chosen == "all" else EntityType(chosen)


def clock(at: datetime) -> str:
    """A time of the day for people."""
    return f"{at:%H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """A length of time in the largest unit that says enough, such as 3 days or 12 minutes."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"
