"""Durations are read as people write them, and nothing else is taken for one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from artwork_backfill.shared.durations import LONGEST, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        (" 2H ", 7200),
        ("5d", 432_000),
        ("2w", 1_209_600),
        ("1w1d1h1m1s", 694_861),
        ("0h5s", 5),
        ("3650d", 315_360_000),
    ],
)
def test_a_duration_has_units(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "90",
        "0s",
        "-5m",
        "5 m",
        "1.5h",
        "30m1h",
        "5x",
        "1h 30m",
        "\N{ARABIC-INDIC DIGIT FIVE}m",
        "nan",
        "inf",
        "1e3s",
    ],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 90s, 30m, 1h30m or 5d"):
        parse_duration(text)


@given(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(r"\A(?:[0-9]{1,30}[wdhms]){1,6}\Z"),
    )
)
@example("99999999999h")
@example("999999999w999999999d")
@example("9" * 5000 + "s")
def test_every_text_is_a_bounded_duration_or_refused(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError as refusal:
        message = str(refusal)
        assert len(message) < 600
    else:
        assert timedelta(0) < duration <= LONGEST
