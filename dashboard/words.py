"""What the database's words mean to people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

STATUSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "unchecked": "waiting for an audit",
        "audit_in_progress": "being audited",
        "clean": "clean",
        "repair_queue": "repair queued",
        "manual_review": "in review",
        "legacy": "gone from MusicBrainz, nothing left",
    }
)

REVIEWS: Final[Mapping[str, str]] = MappingProxyType(
    {"open": "open", "resolved": "resolved", "wont_fix": "won't fix"}
)

OUTCOMES: Final[Mapping[str, str]] = MappingProxyType(
    {**STATUSES, "unreadable": "could not be read", "deferred": "put off"}
)

ACTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "index": "write index and metadata",
        "copy_image": "copy an image",
        "delete_image": "delete an image",
        "deindex": "remove the index",
        "noop": "nothing",
    }
)

REMEDIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "index": "written again",
        "deindex": "index removed",
        "image": "deleted, or a person decides",
        "review": "a person decides",
        "late review": "a person decides, last",
        "record": "only recorded",
    }
)


def status(name: str) -> str:
    """Return what an entity's status means."""
    return STATUSES.get(name, name)


def age(since: datetime | None, now: datetime) -> str:
    """Return how long ago something was, such as `3 h`; `never` where there is no time."""
    if since is None:
        return "never"
    return short((now - since).total_seconds())


def short(seconds: float) -> str:
    """Return a length of time in its largest unit, such as `3 h`."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= (2 * length if unit == "days" else length):
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(0, seconds):,.0f} s"


def duration(seconds: float) -> str:
    """Return a length of time in the largest unit that says enough, such as `12 minutes`."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"


def clock(at: datetime) -> str:
    """Return a time of the day."""
    return f"{at:%H:%M:%S} UTC"
