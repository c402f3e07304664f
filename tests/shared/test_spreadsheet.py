"""CSV that is safe to be opened in a spreadsheet."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from artwork_backfill.shared.review import spreadsheet


@dataclass(frozen=True)
class _Row:
    text: str
    number: int = -1
    at: datetime | None = None


def _cell(text: str) -> str:
    header, row = csv.reader(io.StringIO("".join(spreadsheet.lines(_Row, [_Row(text)]))))
    assert header == ["text", "number", "at"]
    return row[0]


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\n=1", " =1", "＝1", "＋1", "－1", "＠1"],  # noqa: RUF001
)
def test_what_a_spreadsheet_would_calculate_is_text(text: str) -> None:
    assert _cell(text).startswith("'")


@pytest.mark.parametrize("text", ["", "plain", "a=1", "mbid-1", "Ärger\nund Zorn", 'a "quote"'])
def test_other_text_is_left_as_it_is(text: str) -> None:
    assert _cell(text) == text


def test_numbers_and_times_are_written_as_machines_read_them() -> None:
    row = _Row("x", -5, datetime(2026, 8, 1, tzinfo=UTC))
    assert list(spreadsheet.lines(_Row, [row]))[1] == "x,-5,2026-08-01T00:00:00+00:00\n"


def test_rows_are_read_one_at_a_time() -> None:
    def endless() -> object:
        while True:
            yield _Row("x")

    lines = spreadsheet.lines(_Row, endless())  # type: ignore[arg-type]
    assert [next(lines) for _ in range(3)][1:] == ["x,-1,\n"] * 2
