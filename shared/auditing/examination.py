"""Examination of a claimed entity: read what archive.org holds, compare, and decide.

All requests of an audit are sent here, from several threads at once, and no transaction is open. A
clean entity costs one request to archive.org and one to MusicBrainz. Requests that a single answer
must not decide are repeated before the audit is written: for an absence by `Examiner.look_again`,
and for both items of every image to delete by `Examiner.confirm_deletions`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Final

import psycopg

from artwork_backfill.shared.audit.actual import (
    Actual,
    CopyState,
    Item,
    ItemState,
    OriginalImage,
    compare_copies,
)
from artwork_backfill.shared.audit.archives import ART_ARCHIVES, INDEX_NAME, xml_name
from artwork_backfill.shared.audit.compare import (
    INDEX_MAX_BYTES,
    XML_MAX_BYTES,
    absence_counts,
    capped,
    compare,
    downloads_needed,
    judged,
    needs_xml,
)
from artwork_backfill.shared.audit.compare_xml import UnreadableXml
from artwork_backfill.shared.audit.decide import (
    Decision,
    ImageOwner,
    Policy,
    QueuedAction,
    ReasonCode,
    ReviewReason,
    Status,
    decide,
    images_in_question,
    proofs,
)
from artwork_backfill.shared.audit.expected import Expected, md5
from artwork_backfill.shared.audit.finding import storable
from artwork_backfill.shared.auditing.models import (
    STREAK_LIMIT,
    STUCK_AFTER,
    Audit,
    BadRow,
    Claim,
    Deferral,
    Evidence,
    Failure,
    Reason,
    Streak,
)
from artwork_backfill.shared.auditing.owners import ReadOwners
from artwork_backfill.shared.auditing.services import Listings, Services
from artwork_backfill.shared.clients.http import Interrupted, NotFound, ServiceDown, Unreadable
from artwork_backfill.shared.engine.errors import EngineError, StopRun
from artwork_backfill.shared.engine.session import is_passing

#: How often a second look may contradict an audit before the audit is deferred.
_MOST_LOOKS: Final = 3


class _Deferred(Exception):
    """The entity cannot be decided now, for the given reason."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class _Look:
    """The items of one audit; `known` are those of a second look."""

    listings: Listings
    clock: Callable[[], float]
    known: Mapping[str, Item] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    #: When the latest answer came, in monotonic seconds.
    read_at: float = -math.inf

    def item(self, gid: str) -> Item:
        """Return an item whose state is known; raise `_Deferred` for any other."""
        if gid not in self.items:
            self.items[gid] = self.known.get(gid) or self._read(gid)
        return _usable(self.items[gid])

    def _read(self, gid: str) -> Item:
        item = self.listings.read(gid)
        self.read_at = self.clock()
        return item

    def absent_once(self) -> frozenset[str]:
        return frozenset(
            gid
            for gid, item in self.items.items()
            if item.state is ItemState.ABSENT and gid not in self.known
        )


def _usable(item: Item) -> Item:
    if item.state is ItemState.UNFINISHED:
        raise _Deferred(Reason.TASKS_PENDING, f"mbid-{item.gid}")
    if item.state is ItemState.UNAVAILABLE:
        raise _Deferred(Reason.UNREADABLE, f"mbid-{item.gid}: {item.problem}")
    return item


@dataclass(frozen=True, slots=True)
class Inspection:
    """An audit with everything it rests on.

    `expected` has the web service's XML if that was requested. `actual` is None if the item could
    not be read. `owners` has every image whose owner mattered, and `items` the entity's own item
    and those of the owners.
    """

    expected: Expected
    audit: Audit
    actual: Actual | None = None
    owners: Mapping[OriginalImage, ImageOwner] = field(default_factory=dict)
    items: tuple[Item, ...] = ()


class Examiner:
    """Examine claimed entities, from any number of threads.

    Parameters
    ----------
    stop_flag
        Ends the wait before a second look; audits that needed one are given back.
    clock
        A monotonic clock, in seconds.
    """

    def __init__(
        self,
        services: Services,
        owners: ReadOwners,
        policy: Policy,
        *,
        stop_flag: Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget = services.budget
        self._archive = services.archive
        self._musicbrainz = services.musicbrainz
        self._concurrency = services.concurrency
        self._second_look_after = services.second_look_after
        self._owners = owners
        self._policy = policy
        self._stop_flag = stop_flag or Event()
        self._clock = clock
        self.listings = Listings(lambda: services.archive)

    def examine(self, claim: Claim) -> Audit:
        """Return the audit of a claim, which must be confirmed before it is written.

        Raises
        ------
        BadRow
            MusicBrainz's rows of the entity violate an assumption.
        StopRun
            A service has been failing for so long that the run should end.
        """
        if claim.bad_row is not None or claim.expected is None:
            raise BadRow(claim.bad_row or "nothing is known about it")
        if claim.is_busy:
            return Audit(claim, Deferral(Reason.EVENT_QUEUED))
        expected = claim.expected
        return self._guarded(claim, lambda: self._examine(claim, expected, {}))

    def look_again(self, audits: Sequence[Audit]) -> list[Audit | Failure | None]:
        """Return the audits, in order, after a second look at those with an absence.

        An absence is believed if another answer, some seconds later, agrees; otherwise the entity
        is examined again with that answer. None stands for an audit that was interrupted and must
        be given back. Call this when the audits are ready (`Audit.ready_at`), because it waits
        until they are.

        Raises
        ------
        StopRun
            As for `examine`.
        """
        doubtful = [audit for audit in audits if _has_absence(audit)]
        if not doubtful:
            return list(audits)
        with ThreadPoolExecutor(min(self._concurrency, len(doubtful))) as pool:
            seen = iter(list(pool.map(self._look_again, doubtful)))
        return [next(seen) if _has_absence(audit) else audit for audit in audits]

    def confirm_deletions(self, audit: Audit) -> Audit | Failure | None:
        """Return an audit whose deletions, if any, still hold: both items list the same picture.

        Call it just before the transaction that queues the events opens; otherwise as `look_again`.
        """
        if audit.evidence is None:
            return audit
        return self._isolated(audit, lambda: self._with_deletions_confirmed(audit))

    def confirm(self, audit: Audit) -> Audit | None:
        """Return an audit after `look_again` and `confirm_deletions`.

        Raises what they raise, and the error of an audit that failed.
        """
        (seen,) = self.look_again([audit])
        if isinstance(seen, Audit):
            seen = self.confirm_deletions(seen)
        if isinstance(seen, Failure):
            raise seen.error
        return seen

    def _guarded(self, claim: Claim, work: Callable[[], Audit]) -> Audit:
        """Return the result of `work`, or the deferral that it raised."""
        try:
            with self._budget.scope():
                return work()
        except _Deferred as deferred:
            return deferral(claim, deferred.reason, deferred.detail)
        except ServiceDown as error:
            raise StopRun(str(error)) from error
        except (Unreadable, NotFound, UnreadableXml) as error:
            return deferral(claim, Reason.UNREADABLE, str(error))

    def inspect(self, claim: Claim) -> Inspection:
        """Return what `examine` returns, together with everything it rests on, for people.

        Unlike an audit, this examines entities whose events are queued or running. Raises as
        `examine`.
        """
        if claim.bad_row is not None or claim.expected is None:
            raise BadRow(claim.bad_row or "nothing is known about it")
        expected = claim.expected
        seen: list[Inspection] = []

        def work() -> Audit:
            seen.append(self._inspect(claim, expected, {}))
            return seen[0].audit

        audit = self._guarded(claim, work)
        return seen[0] if seen else Inspection(expected, audit)

    def _examine(self, claim: Claim, expected: Expected, known: Mapping[str, Item]) -> Audit:
        return self._inspect(claim, expected, known).audit

    def _inspect(self, claim: Claim, expected: Expected, known: Mapping[str, Item]) -> Inspection:
        look = _Look(self.listings, self._clock, known)
        item = look.item(expected.gid)
        if needs_xml(expected, item):
            xml = self._musicbrainz.entity_xml(expected.entity_type, expected.gid)
            expected = replace(expected, xml=xml)
        files = {name: self._download(item, name) for name in downloads_needed(expected, item)}
        actual = Actual(item, index=files.get(INDEX_NAME), xml=files.get(xml_name(item.gid)))
        findings = compare(expected, actual)
        images = images_in_question(findings, self._policy)
        owners = self._owners_of(expected, images, look) if images else {}
        decision = decide(expected, findings, owners, claim.previous, self._policy)
        evidence = _evidence(expected, decision, look, self._second_look_after)
        # Everything that is kept until the batch is written is small, whatever the item was.
        seen = judged(claim.previous.unfixed, expected, actual, findings)
        audit = Audit(
            claim,
            decision,
            capped(findings),
            proofs(findings, seen, claim.previous),
            claim.previous.unfixed - seen,
            evidence,
        )
        return Inspection(expected, audit, actual, owners, tuple(look.items.values()))

    def _owners_of(
        self, expected: Expected, images: Sequence[OriginalImage], look: _Look
    ) -> dict[OriginalImage, ImageOwner]:
        ids = {image.artwork_id for image in images if image.artwork_id is not None}
        rows = self._owners(expected.entity_type, ids)
        if busy := rows.busy - {expected.gid}:
            raise _Deferred(Reason.OWNER_BUSY, ", ".join(sorted(busy)))
        owners = {}
        for image in images:
            gid = None if image.artwork_id is None else rows.gids.get(image.artwork_id)
            if gid is None or gid == expected.gid:
                owners[image] = ImageOwner(gid, CopyState.SAME)
                continue
            copy = compare_copies(image, look.item(gid), expected.archive)
            if copy is CopyState.INCOMPARABLE:
                raise _Deferred(Reason.INCOMPARABLE, f"{image.name}, of {gid}")
            owners[image] = ImageOwner(gid, copy)
        return owners

    def _download(self, item: Item, name: str) -> bytes:
        """Return the content of a listed file, or defer the audit if it does not match."""
        problem = f"{name} is listed, but archive.org answers 404"
        try:
            content = self._archive.download(
                item.gid,
                name,
                max_bytes=INDEX_MAX_BYTES if name == INDEX_NAME else XML_MAX_BYTES,
                d1=item.d1,
                d2=item.d2,
                dir=item.dir,
            )
        except NotFound:
            pass
        else:
            listed = item.file(name)
            if listed is None or listed.md5 in (None, md5(content)):
                return content
            problem = f"{name} has another MD5 than archive.org lists"
        now = self.listings.read(item.gid)
        if now.state is ItemState.UNFINISHED or now.file(name) != item.file(name):
            raise _Deferred(Reason.ITEM_CHANGED, name)
        raise _Deferred(Reason.UNREADABLE, problem)

    # -- the second look -----------------------------------------------------------------------

    def _wait_until(self, moment: float) -> None:
        """Wait; raise `Interrupted` if the run is to stop before."""
        seconds = moment - self._clock()
        if seconds > 0 and self._stop_flag.wait(seconds):
            raise Interrupted("the run is stopping")

    def _look_again(self, audit: Audit) -> Audit | Failure | None:
        return self._isolated(audit, lambda: self._with_absences_confirmed(audit))

    def _isolated(self, audit: Audit, work: Callable[[], Audit]) -> Audit | Failure | None:
        """Return the result of `work`; an unforeseen error fails only this audit."""
        try:
            return self._guarded(audit.claim, work)
        except Interrupted:
            return None
        except EngineError:
            raise
        except Exception as error:
            if isinstance(error, psycopg.Error) and is_passing(error):
                raise
            return Failure(audit.claim, error)

    def _with_absences_confirmed(self, audit: Audit) -> Audit:
        known: dict[str, Item] = {}
        for _ in range(_MOST_LOOKS):
            if audit.evidence is None or not audit.evidence.absent_once:
                return audit
            self._wait_until(audit.ready_at)
            seen = {
                gid: self.listings.read(gid, again=True)
                for gid in sorted(audit.evidence.absent_once)
            }
            known |= seen
            if all(item.state is ItemState.ABSENT for item in seen.values()):
                return replace(audit, evidence=replace(audit.evidence, absent_once=frozenset()))
            audit = self._examine(audit.claim, _expected(audit), known)
        raise _Deferred(Reason.ITEM_CHANGED, "two answers disagree whether the item exists")

    def _with_deletions_confirmed(self, audit: Audit) -> Audit:
        """Return the audit, or defer it if its deletions are no longer justified."""
        if audit.evidence is None or not isinstance(audit.outcome, Decision):
            return audit
        deletions = [event for event in audit.outcome.events if event.action == "delete_image"]
        expected = _expected(audit)
        before = audit.evidence.item
        look = _Look(self.listings, self._clock)
        for event in deletions:
            if event.owner is None:
                raise _Deferred(Reason.OWNER_CHANGED, _words(event))
            image = _image(look.item(expected.gid), event)
            if image is None or image != _image(before, event):
                raise _Deferred(Reason.ITEM_CHANGED, _words(event))
            archive = ART_ARCHIVES[expected.entity_type]
            if compare_copies(image, look.item(event.owner), archive) is not CopyState.SAME:
                raise _Deferred(Reason.OWNER_CHANGED, _words(event))
        return replace(audit, evidence=None)


def _has_absence(audit: Audit) -> bool:
    return audit.evidence is not None and bool(audit.evidence.absent_once)


def _evidence(
    expected: Expected, decision: Decision, look: _Look, again_after: float
) -> Evidence | None:
    """Return what needs a second look, or None."""
    absent = look.absent_once()
    if not absence_counts(expected):
        absent -= {expected.gid}
    deletes = any(event.action == "delete_image" for event in decision.events)
    if not absent and not deletes:
        return None
    deleted = [event for event in decision.events if event.action == "delete_image"]
    item = _with_only(look.item(expected.gid), deleted)
    return Evidence(item, absent, look.read_at + again_after) if absent else Evidence(item)


def _with_only(item: Item, deletions: Sequence[QueuedAction]) -> Item:
    """Return the item with only the images to delete."""
    ids = {event.artwork_id for event in deletions}
    files = (image.file for image in item.originals() if image.artwork_id in ids)
    return Item(item.gid, item.state, tuple(files))


def _expected(audit: Audit) -> Expected:
    if audit.claim.expected is None:
        raise BadRow("nothing is known about it")
    return audit.claim.expected


def _image(item: Item, event: QueuedAction) -> OriginalImage | None:
    return next(
        (
            image
            for image in item.originals()
            if (image.artwork_id, image.suffix) == (event.artwork_id, event.suffix)
        ),
        None,
    )


def _words(event: QueuedAction) -> str:
    return f"artwork {event.artwork_id}, of {event.owner}"


def deferral(claim: Claim, reason: Reason, message: str) -> Audit:
    """Return the deferral, or the review that it becomes after too many deferrals."""
    detail = storable(message)
    if reason is Reason.TASKS_PENDING:
        length = claim.streaks.get(Streak.UNFINISHED)
        if length is not None and claim.claimed_at - length.since >= STUCK_AFTER:
            text = (
                f"archive.org has not finished its work on {detail} for {STUCK_AFTER.days} days:"
                " a task is stuck"
            )
            return _review(claim, ReasonCode.STUCK, text)
    elif reason is Reason.UNREADABLE and _is_last(claim, Streak.UNREADABLE):
        text = f"{STREAK_LIMIT} audits in a row could not be read, the last because: {detail}"
        return _review(claim, ReasonCode.UNREADABLE, text)
    elif reason is Reason.INCOMPARABLE and _is_last(claim, Streak.INCOMPARABLE):
        text = f"cannot be compared: {detail}: archive.org lists no size or checksum of one copy"
        return _review(claim, ReasonCode.INCOMPARABLE, text)
    return Audit(claim, Deferral(reason, detail))


def _is_last(claim: Claim, streak: Streak) -> bool:
    return claim.audits_in_a_row(streak) + 1 >= STREAK_LIMIT


def _review(claim: Claim, code: ReasonCode, text: str) -> Audit:
    reason = ReviewReason(code, text)
    return Audit(claim, Decision(Status.MANUAL_REVIEW, review_reasons=(reason,)))
