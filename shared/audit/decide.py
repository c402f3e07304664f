"""Decisions from findings: events for artwork-indexer, a review by a person, or nothing.

Pure: the caller looks up who owns an image, what the owner's item holds, and what previous audits
found, and writes the decision. Reasons of reviews have codes, which are stored, and texts made from
them, on which no decision depends.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from artwork_backfill.shared.audit.actual import CopyState, OriginalImage
from artwork_backfill.shared.audit.catalogue import CHECKS, Remedy, Severity
from artwork_backfill.shared.audit.expected import Expected
from artwork_backfill.shared.audit.finding import Finding

PROOFS: Final = 10
"""A check is no longer repaired if its repairs failed to hold in this many proofs in a row."""

STILL_TRIED: Final = 1000
"""One entity in this many is repaired nevertheless, to notice a change at archive.org."""


REASONS_OF_A_KIND: Final = 50
"""The number of reasons of one check and code that are listed, before a count of the rest: an item
may have thousands of files."""


class Status(StrEnum):
    """The status of an entity; the values are those of `audit_entity_status`."""

    #: Waits for an audit.
    UNCHECKED = "unchecked"
    #: Claimed by a run.
    IN_PROGRESS = "audit_in_progress"
    #: No difference that the policy acts on.
    CLEAN = "clean"
    #: Events were queued.
    REPAIR_QUEUE = "repair_queue"
    #: Has an open review.
    MANUAL_REVIEW = "manual_review"
    #: Not in MusicBrainz, and nothing is left at archive.org.
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True)
class ImageOwner:
    """The owner of an image.

    `gid` is the entity of the same type whose row has the artwork id, None if there is none. `copy`
    is what that entity's item holds of the image; it means nothing if `gid` is None.
    """

    gid: str | None
    copy: CopyState = CopyState.UNKNOWN


Action = Literal["index", "delete_image", "deindex"]
"""The actions of artwork-indexer that repairs use."""


@dataclass(frozen=True, slots=True)
class QueuedAction:
    """One event to put into artwork-indexer's queue.

    `artwork_id` and `suffix` are set only for `delete_image`, and so is `owner`, the gid of the
    entity whose item keeps the image. `depends_on` holds the positions, in `Decision.events`, of
    the events that have to be completed before.
    """

    action: Action
    gid: str
    artwork_id: int | None = None
    suffix: str | None = None
    depends_on: tuple[int, ...] = ()
    owner: str | None = None

    @property
    def message(self) -> dict[str, str | int]:
        """The event's message, in the format of artwork-indexer."""
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
class PreviousAudits:
    """What previous audits and events say about an entity.

    Attributes
    ----------
    unfixed
        Checks that led to events at a previous audit, and that no later audit has judged and found
        fixed.
    repaired
        Those of them whose events have all completed.
    unproved
        Those of the repaired ones that no audit has judged yet.
    failed
        The entity's events in state `failed` without an identical one completed since.
    distrusted
        Checks whose repairs do not hold in any entity.
    in_review
        The checks of the entity's open review, None without an open review; a review that is about
        no check has the member "".
    """

    unfixed: frozenset[str] = frozenset()
    repaired: frozenset[str] = frozenset()
    unproved: frozenset[str] = frozenset()
    failed: tuple[FailedEvent, ...] = ()
    distrusted: frozenset[str] = frozenset()
    in_review: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """Which findings to act on, and how; the others are only recorded.

    `remedies` replace those of the catalogue. Without `deletions`, no `delete_image` is queued.
    With `delete_from_live`, leftovers are also deleted from the items of live entities.
    """

    ignored: frozenset[str] = frozenset()
    min_severity: Severity = Severity.MINOR
    remedies: Mapping[str, Remedy] = field(default_factory=dict)
    deletions: bool = True
    delete_from_live: bool = False

    def remedy(self, check: str) -> Remedy:
        """Return the remedy in force for a check; `RECORD` if it is ignored."""
        if check in self.ignored:
            return Remedy.RECORD
        return self.remedies.get(check, CHECKS[check].remedy)

    def acts_on(self, finding: Finding) -> bool:
        """Return whether a finding leads to an event or a review."""
        is_grave_enough = finding.severity >= self.min_severity
        return is_grave_enough and self.remedy(finding.check) is not Remedy.RECORD


@dataclass(frozen=True, slots=True)
class Passed:
    """A finding that the policy skips, but the catalogue would act on.

    `is_deletion` says that only `Policy.deletions` prevents it.
    """

    check: str
    severity: Severity
    is_deletion: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about an entity.

    Attributes
    ----------
    events
        Empty unless the status is `REPAIR_QUEUE`.
    review_reasons
        Empty unless the status is `MANUAL_REVIEW`.
    causes
        The checks that led to the events.
    passed
        What a wider policy would act on.
    keeps_review
        Whether there is nothing to do but the open review stays as it is, because it is about a
        check that the policy skips.
    """

    status: Status
    events: tuple[QueuedAction, ...] = ()
    review_reasons: tuple[ReviewReason, ...] = ()
    causes: tuple[str, ...] = ()
    passed: tuple[Passed, ...] = ()
    keeps_review: bool = False


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

    `code` is a value of `ReasonCode` or of `CopyState`. `check` is the check that led to it,
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


Owners = Mapping[OriginalImage, ImageOwner]
"""The owner of each foreign image."""


def images_in_question(findings: Sequence[Finding], policy: Policy) -> tuple[OriginalImage, ...]:
    """Return the images whose owners must be known for the decision."""
    return tuple(
        finding.image
        for finding in findings
        if finding.image is not None
        and policy.acts_on(finding)
        and policy.remedy(finding.check) is Remedy.IMAGE
    )


def decide(
    expected: Expected,
    findings: Sequence[Finding],
    owners: Owners,
    previous: PreviousAudits,
    policy: Policy,
) -> Decision:
    """Return what to do about an entity with these findings.

    Parameters
    ----------
    expected
        The expected state.
    findings
        Every difference that `compare` found.
    owners
        The owner of every image in question (see `images_in_question`).
    previous
        What previous audits and events say about the entity.
    policy
        Which findings to act on.

    Raises
    ------
    ValueError
        An owner is missing, or what its item holds is unknown: the entity cannot be decided now.
    """
    case = _Case(expected, owners, previous, policy)
    judged = [(finding, case.remedy(finding)) for finding in findings]
    passed = tuple(dict.fromkeys(case.passed(judged)))
    events, causes = _repairs(expected, judged, case)
    review_reasons = _few(
        (
            *(_of_finding(finding) for finding, remedy in judged if remedy is Remedy.REVIEW),
            *case.doubts(judged),
            *_repairs_not_held(causes, previous),
            *_failed_before(events, previous),
        )
    )
    if review_reasons:
        return Decision(Status.MANUAL_REVIEW, review_reasons=review_reasons, passed=passed)
    if events:
        return Decision(Status.REPAIR_QUEUE, events=events, causes=causes, passed=passed)
    late = _few(_of_finding(finding) for finding, remedy in judged if remedy is Remedy.LATE_REVIEW)
    if late:
        return Decision(Status.MANUAL_REVIEW, review_reasons=late, passed=passed)
    if _keeps_review(passed, previous):
        return Decision(Status.MANUAL_REVIEW, passed=passed, keeps_review=True)
    # An orphan with findings that are not acted on still has something left on archive.org.
    status = Status.CLEAN if expected.is_live or findings else Status.LEGACY
    return Decision(status, passed=passed)


def proofs(
    findings: Sequence[Finding], judged: frozenset[str], previous: PreviousAudits
) -> dict[str, bool]:
    """Return for each unproved repair whose check was judged whether it held."""
    found = {finding.check for finding in findings}
    return {check: check not in found for check in sorted(previous.unproved & judged)}


def is_still_tried(check: str, gid: str) -> bool:
    """Return whether a suspended repair of a check is tried in this entity nevertheless."""
    digest = hashlib.sha256(f"{check}:{gid}".encode()).digest()
    return int.from_bytes(digest[:8]) % STILL_TRIED == 0


@dataclass(frozen=True, slots=True)
class _Case:
    """The decision about one entity, in progress."""

    expected: Expected
    owners: Owners
    previous: PreviousAudits
    policy: Policy

    def remedy(self, finding: Finding) -> Remedy:
        """Return the remedy that applies to a finding."""
        if not self.policy.acts_on(finding):
            return Remedy.RECORD
        remedy = self.policy.remedy(finding.check)
        if (
            remedy in (Remedy.INDEX, Remedy.DEINDEX, Remedy.IMAGE)
            and finding.check in self.previous.distrusted
            and not is_still_tried(finding.check, self.expected.gid)
            and (remedy is not Remedy.IMAGE or self.may_be_deleted(finding))
        ):
            return Remedy.LATE_REVIEW
        return remedy

    def passed(self, judged: Sequence[tuple[Finding, Remedy]]) -> Iterator[Passed]:
        for finding, remedy in judged:
            if remedy is Remedy.RECORD:
                if CHECKS[finding.check].remedy is not Remedy.RECORD:
                    yield Passed(finding.check, finding.severity)
            elif not self.policy.deletions and self.is_deletable(finding, remedy):
                yield Passed(finding.check, finding.severity, is_deletion=True)

    def is_deletable(self, finding: Finding, remedy: Remedy) -> bool:
        return remedy is Remedy.IMAGE and self.may_be_deleted(finding)

    def may_be_deleted(self, finding: Finding) -> bool:
        """Return whether the owner has the same image, and it is not wanted here."""
        if finding.image is None:
            return False
        owner = self.owner(finding.image)
        return (
            owner.gid not in (None, self.expected.gid)
            and owner.copy is CopyState.SAME
            and (not self.expected.is_live or self.policy.delete_from_live)
        )

    def owner(self, image: OriginalImage) -> ImageOwner:
        owner = self.owners.get(image)
        if owner is None:
            raise ValueError(f"the owner of {image.name} has not been looked up")
        if owner.gid is not None and owner.copy in (CopyState.UNKNOWN, CopyState.INCOMPARABLE):
            raise ValueError(f"{image.name} has not been compared with the item of {owner.gid}")
        return owner

    def doubts(self, judged: Sequence[tuple[Finding, Remedy]]) -> Iterator[ReviewReason]:
        for finding, remedy in judged:
            if remedy is not Remedy.IMAGE or self.may_be_deleted(finding):
                continue
            code, words = self.doubt(self.owner(finding.image) if finding.image else _NOBODYS)
            yield _of_image(finding, code, words)

    def doubt(self, owner: ImageOwner) -> tuple[str, str]:
        if owner.gid is None:
            return ReasonCode.UNKNOWN_IMAGE, "unknown image: preserve or purge?"
        if owner.gid == self.expected.gid:
            return ReasonCode.BECAME_OWN, "it has become this entity's own during the audit"
        words = copy_words(owner.copy, f"{self.expected.entity_type} {owner.gid}")
        is_safe = owner.copy is CopyState.SAME
        return ReasonCode.LEFTOVER_ON_LIVE if is_safe else owner.copy, words


_NOBODYS: Final = ImageOwner(None)


def _repairs(
    expected: Expected, judged: Sequence[tuple[Finding, Remedy]], case: _Case
) -> tuple[tuple[QueuedAction, ...], tuple[str, ...]]:
    """Return the events that the findings require, and the checks that require them."""
    causes: dict[str, None] = {}
    deletions: dict[OriginalImage, QueuedAction] = {}
    action: Action | None = None
    image_stays = False
    for finding, remedy in judged:
        if remedy is Remedy.INDEX:
            action = "index"
        elif remedy is Remedy.DEINDEX:
            action = "deindex"
        elif finding.image and case.policy.deletions and case.is_deletable(finding, remedy):
            owner = case.owner(finding.image)
            deletions[finding.image] = _deletion(expected.gid, finding.image, owner)
        else:
            image_stays = image_stays or finding.image is not None
            continue
        causes[finding.check] = None
    if action == "deindex" and image_stays:
        # index.json must be removed after the last image, never before.
        action = None
        causes = {check: None for check in causes if CHECKS[check].remedy is not Remedy.DEINDEX}
    events = list(deletions.values())
    if expected.is_live and deletions:
        action = "index"
    if action is not None:
        events.append(QueuedAction(action, expected.gid, depends_on=tuple(range(len(events)))))
    return tuple(events), tuple(causes)


def _deletion(gid: str, image: OriginalImage, owner: ImageOwner) -> QueuedAction:
    return QueuedAction("delete_image", gid, image.artwork_id, image.suffix, owner=owner.gid)


def _keeps_review(passed: Sequence[Passed], previous: PreviousAudits) -> bool:
    if not passed or previous.in_review is None:
        return False
    checks = {each.check for each in passed}
    return bool(checks & previous.in_review) or "" in previous.in_review


def _repairs_not_held(causes: Sequence[str], previous: PreviousAudits) -> Iterator[ReviewReason]:
    for check in causes:
        if check in previous.repaired:
            yield ReviewReason(ReasonCode.NOT_HELD, f"repair did not hold: {check}", check)


def _failed_before(
    events: Sequence[QueuedAction], previous: PreviousAudits
) -> Iterator[ReviewReason]:
    for event in events:
        for failed in previous.failed:
            if failed.action == event.action and failed.message == event.message:
                text = f"event {failed.id} has failed: {event.action} {_message_text(event)}"
                yield ReviewReason(ReasonCode.EVENT_FAILED, text, subject=str(failed.id))


def _message_text(event: QueuedAction) -> str:
    return ", ".join(f"{key} {value}" for key, value in event.message.items())


def _of_finding(finding: Finding) -> ReviewReason:
    """Return the reason for a finding without further doubts."""
    return ReviewReason(ReasonCode.FINDING, _describe(finding), finding.check, finding.subject)


def _of_image(finding: Finding, code: str, words: str) -> ReviewReason:
    """Return the reason why an image stays where it is."""
    return ReviewReason(code, f"{_describe(finding)}: {words}", finding.check, finding.subject)


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


def _describe(finding: Finding) -> str:
    """Return a finding as text for the person who reviews it."""
    text = f"{finding.check}: {finding.subject or CHECKS[finding.check].summary}"
    details = [
        f"{label} {value}"
        for label, value in (("expected", finding.expected), ("found", finding.actual))
        if value is not None
    ]
    return f"{text} ({', '.join(details)})" if details else text


def _few(reasons: Iterable[ReviewReason]) -> tuple[ReviewReason, ...]:
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
