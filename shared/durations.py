"""Durations as people write them, 90s, 30m, 1h30m, 5d, 2w, and as they read them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

LONGEST: Final = timedelta(days=3650)

_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_FORM: Final = re.compile(
    "".join(f"(?:(?P<{unit}>[0-9]{{1,9}}){unit})?" for unit in _SECONDS), re.IGNORECASE
)


def parse_duration(text: str) -> timedelta:
    """Return the duration that a text denotes, above zero and up to ten years.

    Raises `ValueError` for other texts; the message says what is possible.
    """
    match = _FORM.fullmatch(text.strip())
    numbers = match.groupdict(default="0") if match else {}
    seconds = sum(int(number) * _SECONDS[unit] for unit, number in numbers.items())
    if not seconds:
        raise ValueError(f"{text[:100]!r} is not a duration: write it like 90s, 30m, 1h30m or 5d")
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"{text[:100]!r} is longer than ten years")
    return timedelta(seconds=seconds)


def in_words(seconds: float) -> str:
    """Return a duration in a suitable unit, such as `12 minutes`."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"
