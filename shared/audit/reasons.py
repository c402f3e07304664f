"""Reasons of reviews: codes that are stored, and the texts made from them.

No decision depends on the text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.audit.copies import CopyState
from artwork_backfill.shared.audit.finding import Finding


class ReasonCode(StrEnum):
    """Why an entity is in review, apart from the states of an image's copy."""

    FINDING = "finding"
    """A difference that no event can repair."""
    UNKNOWN_IMAGE = "unknown_image"
    """An image that belongs to no entity, or has no artwork id in its name."""
    BECAME_OWN = "became_own"
    """The image became the entity's own during the audit."""
    LEFTOVER_ON_LIVE = "leftover_on_live"
    """The owner has the image, but the entity is live: see `Policy.delete_from_live`."""
    NOT_HELD = "repair_did_not_hold"
    """A completed repair did not remove the difference."""
    EVENT_FAILED = "event_failed"
    """artwork-indexer has given up the same event."""
    UNREADABLE = "unreadable"
    """A service did not answer in several audits in a row."""
    STUCK = "stuck_task"
    """archive.org has not finished a task of the item for a long time."""
    INCOMPARABLE = "cannot_be_compared"
    """Two copies had nothing in common to compare in several audits in a row."""
    WITHDRAWN = "withdrawn"
    """Its events were withdrawn several times in a row."""
    REFUSED = "refused"
    """The entity's rows violate an assumption, or the database refuses to store its audit."""


@dataclass(frozen=True, slots=True)
class ReviewReason:
    """One reason: its code, its text, and its subject.

    `code` is a value of `ReasonCode` or of `copies.CopyState`. `check` is the check that led to it,
    None if no finding did.
    """

    code: str
    text: str
    check: str | None = None
    subject: str = ""

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, str | None]:
        """Return the reason as stored."""
        return {
            "code": self.code,
            "check": self.check,
            "subject": self.subject,
            "text": self.text,
        }


def of_finding(finding: Finding) -> ReviewReason:
    """Return the reason for a finding without further doubts."""
    return ReviewReason(ReasonCode.FINDING, describe(finding), finding.check, finding.subject)


def of_image(finding: Finding, code: str, words: str) -> ReviewReason:
    """Return the reason why an image stays where it is."""
    return ReviewReason(code, f"{describe(finding)}: {words}", finding.check, finding.subject)


def copy_words(state: CopyState, owner: str) -> str:
    """Return why an image is not deleted; `owner` is an entity such as `release GID`."""
    match state:
        case CopyState.ONLY_COPY:
            return f"only copy: it belongs to {owner}, whose item lacks it"
        case CopyState.ANOTHER_FILE:
            return f"another file: {owner}, whose image it is, has other bytes or another suffix"
        case CopyState.EMPTY:
            return f"the copy of its owner {owner} has no bytes"
        case CopyState.PRIVATE:
            return f"the copy of its owner {owner} is private"
        case CopyState.DARK:
            return f"the owner's item is dark: {owner}"
        case CopyState.OTHER_ARCHIVE:
            return f"the owner's item is of the other archive: {owner}"
        case CopyState.SAME:
            return f"a leftover of {owner}"
        case CopyState.INCOMPARABLE | CopyState.UNKNOWN:
            return f"cannot be compared with the copy of its owner {owner}"


def describe(finding: Finding) -> str:
    """Return a finding as text for the person who reviews it."""
    text = f"{finding.check}: {finding.subject or CHECKS[finding.check].summary}"
    details = [
        f"{label} {value}"
        for label, value in (("expected", finding.expected), ("found", finding.actual))
        if value is not None
    ]
    return f"{text} ({', '.join(details)})" if details else text


REASONS_OF_A_KIND: Final = 50
"""The number of reasons of one check and code that are listed, before a count of the rest: an item
may have thousands of files."""


def few(reasons: Iterable[ReviewReason]) -> tuple[ReviewReason, ...]:
    """Return the reasons in their order, at most `REASONS_OF_A_KIND` of each kind."""
    kept: list[ReviewReason] = []
    counts: Counter[tuple[str | None, str]] = Counter()
    for reason in reasons:
        kind = reason.check, reason.code
        counts[kind] += 1
        if counts[kind] <= REASONS_OF_A_KIND:
            kept.append(reason)
    return (
        *kept,
        *(
            ReviewReason(code, f"{check or code}: {count - REASONS_OF_A_KIND:,} more", check)
            for (check, code), count in counts.items()
            if count > REASONS_OF_A_KIND
        ),
    )
