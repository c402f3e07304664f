"""The database's codes in words for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

#: The number of characters of a text that a list shows.
_LONGEST: Final = 300

STATUSES: Final[Mapping[str, str]] = {
    "unchecked": "waiting for an audit",
    "audit_in_progress": "being audited",
    "clean": "clean",
    "repair_queue": "repair queued",
    "manual_review": "in review",
    "legacy": "gone from MusicBrainz, nothing left",
}

REVIEWS: Final[Mapping[str, str]] = {
    "open": "open",
    "resolved": "resolved",
    "wont_fix": "won't fix",
}

OUTCOMES: Final[Mapping[str, str]] = {
    **STATUSES,
    "unreadable": "could not be read",
    "deferred": "deferred",
}

ACTIONS: Final[Mapping[str, str]] = {
    "index": "write index and metadata",
    "copy_image": "copy an image",
    "delete_image": "delete an image",
    "deindex": "remove the index",
    "noop": "nothing",
}

REMEDIES: Final[Mapping[str, str]] = {
    "index": "written again",
    "deindex": "index removed",
    "image": "deleted, or a person decides",
    "review": "a person decides",
    "late review": "a person decides, last",
    "record": "only recorded",
}


#: Codes of reviews' reasons; a plain finding has the name of its check.
KINDS: Final[Mapping[str, str]] = {
    "only_copy": "only copy",
    "another_file": "another file at the owner",
    "owner_copy_empty": "the owner's copy is empty",
    "owner_copy_private": "the owner's copy is private",
    "owner_item_dark": "the owner's item is dark",
    "owner_item_of_other_archive": "the owner's item is of the other archive",
    "owner_item_unknown": "the owner's item is not known",
    "cannot_be_compared": "copies cannot be compared",
    "unknown_image": "unknown image",
    "became_own": "became its own image",
    "leftover_on_live": "leftover on a live entity",
    "repair_did_not_hold": "repair did not hold",
    "event_failed": "event failed",
    "unreadable": "could not be read",
    "stuck_task": "stuck at archive.org",
    "refused": "refused",
}

#: The question to the person, by the kind of the reason.
QUESTIONS: Final[Mapping[str, str]] = {
    "only_copy": "This is the only copy of another entity's image: keep, copy or purge it?",
    "another_file": "Its owner has another file under this number: which one is right?",
    "owner_copy_empty": "Its owner's copy has no bytes: is this the one to keep?",
    "owner_copy_private": "Its owner's copy is private: is this one to stay?",
    "owner_item_dark": "What its owner's dark item holds is not known: keep this image?",
    "owner_item_of_other_archive": "Its owner's item is of the other archive: keep this image?",
    "cannot_be_compared": "The two copies cannot be compared: are they the same picture?",
    "unknown_image": "MusicBrainz does not know this image: preserve or purge it?",
    "became_own": "The image became the entity's own: audit it again?",
    "leftover_on_live": "The same picture is safe with its owner: purge it here?",
    "repair_did_not_hold": "The difference is back after its repair: ask archive.org's staff?",
    "event_failed": "artwork-indexer has given up: is the cause gone, so that it can retry?",
    "unreadable": "A service did not answer several times: does it now?",
    "stuck_task": "archive.org has not finished its work for long: ask its staff?",
    "refused": "MusicBrainz's rows of this entity are inconsistent: what is wrong with them?",
    "item.missing": "MusicBrainz has images, and archive.org has no item: can it be restored?",
    "item.dark": "archive.org has darkened the item: is that intended?",
    "files.original.missing": "archive.org lacks a listed image: where is it?",
    "files.original.duplicate": "Two files carry one image's number: which one is right?",
    "files.original.empty": "The image's file has no bytes: can it be uploaded again?",
    "files.thumbnail.missing": "Thumbnails are missing: ask archive.org to derive them again?",
    "orphan.leftover": "The entity is gone, and files are left: may the item be removed?",
}


def kind(name: str) -> str:
    """Return a kind of reviews in words; a check keeps its name."""
    return KINDS.get(name, name)


def remedy(name: str) -> str:
    """Return in words what an audit does about a check."""
    return REMEDIES.get(name, name)


def outcome(name: str) -> str:
    """Return the outcome of an audit in words."""
    return OUTCOMES.get(name, name)


def message(content: Mapping[str, Any]) -> str:
    """Return an event's message on one line."""
    return ", ".join(
        f"{key} {value if isinstance(value, str | int) else json.dumps(value)}"
        for key, value in content.items()
    )


def status(name: str) -> str:
    """Return an entity's status in words."""
    return STATUSES.get(name, name)


def age(since: datetime | None, now: datetime) -> str:
    """Return the age of something, such as `3 h`; `never` if there is no time."""
    if since is None:
        return "never"
    return short((now - since).total_seconds())


def short(seconds: float) -> str:
    """Return a duration in its largest unit, such as `3 h`."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= (2 * length if unit == "days" else length):
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(0, seconds):,.0f} s"


def clock(at: datetime) -> str:
    """Return a time of day."""
    return f"{at:%H:%M:%S} UTC"


def shortened(text: str) -> str:
    """Return as much of a text as a list shows."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
