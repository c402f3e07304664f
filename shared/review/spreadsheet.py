"""Rows as CSV that is safe to open in a spreadsheet.

Titles, reasons and error texts come from outside. Spreadsheets interpret cells with certain first
characters as formulas, and a formula can send the content of the sheet elsewhere. Such a cell gets
a leading apostrophe.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

from artwork_backfill.shared.engine.log import plain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: Cells that begin with these are formulas, or would be after leading characters are dropped. Some
#: spreadsheets treat the full-width forms like the others.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def lines(row_type: type[DataclassInstance], rows: Iterable[DataclassInstance]) -> Iterator[str]:
    """Yield a header and one line per row, each with its line feed."""
    names = [field.name for field in dataclasses.fields(row_type)]
    yield _line(names)
    for row in rows:
        yield _line([_cell(getattr(row, name)) for name in names])


def text(value: object) -> str:
    """Return a value in a form for machines; the empty string for `None`."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _line(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _cell(value: object) -> str:
    shown = plain(text(value))
    if isinstance(value, str) and shown.lstrip(" ").startswith(_FORMULA_STARTS):
        return f"'{shown}"
    return shown
