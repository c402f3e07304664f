"""From findings to a decision: events for artwork-indexer, a review by a person, or nothing.

Pure: who owns an image and what happened at earlier audits is looked up by the caller, and writing
the decision down is the caller's business too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from artwork_backfill.shared.audit.catalogue import CHECKS, Remedy, Severity
from artwork_backfill.shared.audit.expected import Expected
from artwork_backfill.shared.audit.finding import Finding, ForeignImage


class Status(StrEnum):
    """What an audit makes of an entity; the values are those of `audit_entity_status`."""

    CLEAN = "clean"
    REPAIR_QUEUE = "repair_queue"
    MANUAL_REVIEW = "manual_review"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True)
class ImageOwner:
    """Whose image an artwork id is.

    `gid` is the entity on whose row the id stands, None when it is nobody's. `has_original` says
    whether that entity's item lists an original with the id; None when it is nobody's.
    """

    gid: str | None
    has_original: bool | None = None


Action = Literal["index", "delete_image", "deindex"]
"""The actions of artwork-indexer that a repair makes use of."""


@dataclass(frozen=True, slots=True)
class QueuedAction:
    """One event to be put into artwork-indexer's queue.

    `artwork_id` and `suffix` are set for `delete_image` only. `depends_on` holds the positions, in
    `Decision.events`, of the events that have to be completed before.
    """

    action: Action
    gid: str
    artwork_id: int | None = None
    suffix: str | None = None
    depends_on: tuple[int, ...] = ()

    @property
    def message(self) -> dict[str, str | int]:
        """The event's message, as artwork-indexer reads it."""
        message: dict[str, str | int] = {"gid": self.gid}
        if self.artwork_id is not None and self.suffix is not None:
            message["artwork_id"] = self.artwork_id
            message["suffix"] = self.suffix
        return message


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """An event of this gid that artwork-indexer has given up."""

    id: int
    action: str
    message: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class History:
    """What came before.

    `repaired` are the checks that led to events at the entity's previous audit (`Decision.causes`),
    empty when it led to none or when those events have not all completed. `failed` are the entity's
    events in state `failed`.
    """

    repaired: frozenset[str] = frozenset()
    failed: tuple[FailedEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """Which findings are acted upon; the others are recorded only."""

    ignored: frozenset[str] = frozenset()
    min_severity: Severity = Severity.MINOR


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about an entity.

    `events` is empty unless the status is `REPAIR_QUEUE`, `review_reasons` unless it is
    `MANUAL_REVIEW`. `causes` are the checks that led to the events.
    """

    status: Status
    events: tuple[QueuedAction, ...] = ()
    review_reasons: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()


def decide(
    expected: Expected,
    findings: Sequence[Finding],
    owners: Mapping[int, ImageOwner],
    history: History,
    policy: Policy,
) -> Decision:
    """What to do about an entity with these findings.

    `owners` has to tell of every image that a finding is about (`compare.foreign_images`), by
    artwork id. Raises ValueError when it does not, or when an owner's item has not been looked at:
    such an entity cannot be decided now.
    """
    relevant = [finding for finding in findings if _is_acted_upon(finding, policy)]
    events, causes = _repairs(expected, relevant, owners)
    reasons = (
        *_reviews(relevant),
        *_doubtful_images(expected, relevant, owners),
        *_repairs_not_held(causes, history),
        *_failed_before(events, history),
    )
    if reasons:
        return Decision(Status.MANUAL_REVIEW, review_reasons=reasons)
    if events:
        return Decision(Status.REPAIR_QUEUE, events=events, causes=causes)
    late_reasons = tuple(
        _describe(finding)
        for finding in relevant
        if CHECKS[finding.check].remedy is Remedy.LATE_REVIEW
    )
    if late_reasons:
        return Decision(Status.MANUAL_REVIEW, review_reasons=late_reasons)
    # An orphan with findings that are not acted upon still has something left on archive.org.
    return Decision(Status.CLEAN if expected.is_live or findings else Status.LEGACY)


def _is_acted_upon(finding: Finding, policy: Policy) -> bool:
    return finding.check not in policy.ignored and finding.severity >= policy.min_severity


def _repairs(
    expected: Expected, findings: Sequence[Finding], owners: Mapping[int, ImageOwner]
) -> tuple[tuple[QueuedAction, ...], tuple[str, ...]]:
    """The events that the findings call for, and the checks that call for them."""
    causes: dict[str, None] = {}
    deletions: dict[ForeignImage, QueuedAction] = {}
    action: Action | None = None
    for finding in findings:
        remedy = CHECKS[finding.check].remedy
        if remedy is Remedy.INDEX:
            action = "index"
        elif remedy is Remedy.DEINDEX:
            action = "deindex"
        elif finding.image and _is_held_by_owner(expected, finding.image, owners):
            deletions[finding.image] = _deletion(expected.gid, finding.image)
        else:
            continue
        causes[finding.check] = None
    events = list(deletions.values())
    if expected.is_live and deletions:
        action = "index"
    if action is not None:
        events.append(QueuedAction(action, expected.gid, depends_on=tuple(range(len(events)))))
    return tuple(events), tuple(causes)


def _deletion(gid: str, image: ForeignImage) -> QueuedAction:
    return QueuedAction("delete_image", gid, image.artwork_id, image.suffix)


def _owner(image: ForeignImage, owners: Mapping[int, ImageOwner]) -> ImageOwner:
    owner = owners.get(image.artwork_id)
    if owner is None:
        raise ValueError(f"nobody has looked up whose image {image.name} is")
    if owner.gid is not None and owner.has_original is None:
        raise ValueError(f"nobody has looked whether {owner.gid} holds the original {image.name}")
    return owner


def _is_held_by_owner(
    expected: Expected, image: ForeignImage, owners: Mapping[int, ImageOwner]
) -> bool:
    """Whether the image is a leftover of a merge or move: safe elsewhere, and not wanted here."""
    owner = _owner(image, owners)
    return owner.gid not in (None, expected.gid) and owner.has_original is True


def _reviews(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        if CHECKS[finding.check].remedy is Remedy.REVIEW:
            yield _describe(finding)


def _doubtful_images(
    expected: Expected, findings: Sequence[Finding], owners: Mapping[int, ImageOwner]
) -> Iterator[str]:
    for finding in findings:
        if finding.image and not _is_held_by_owner(expected, finding.image, owners):
            owner = _owner(finding.image, owners)
            yield f"{_describe(finding)}: {_doubt(expected, owner)}"


def _doubt(expected: Expected, owner: ImageOwner) -> str:
    if owner.gid is None:
        return "unknown image: preserve or purge?"
    if owner.gid == expected.gid:
        return "it has become this entity's own during the audit"
    return f"only copy: it belongs to {expected.entity_type} {owner.gid}, whose item lacks it"


def _repairs_not_held(causes: Sequence[str], history: History) -> Iterator[str]:
    for check in causes:
        if check in history.repaired:
            yield f"repair did not hold: {check}"


def _failed_before(events: Sequence[QueuedAction], history: History) -> Iterator[str]:
    for event in events:
        for failed in history.failed:
            if failed.action == event.action and failed.message == event.message:
                yield f"event {failed.id} has failed: {event.action} {_message_text(event)}"


def _message_text(event: QueuedAction) -> str:
    return ", ".join(f"{key} {value}" for key, value in event.message.items())


def _describe(finding: Finding) -> str:
    """A finding in words, for the person who reviews it."""
    text = f"{finding.check}: {finding.subject or CHECKS[finding.check].summary}"
    details = [
        f"{label} {value}"
        for label, value in (("expected", finding.expected), ("found", finding.actual))
        if value is not None
    ]
    return f"{text} ({', '.join(details)})" if details else text
