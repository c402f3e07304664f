"""Writing audits: statuses, reviews and results to our tables, repairs to the event queue.

All of a batch happens in one transaction. Only entities that this run still holds are changed. An
entity is deferred if an event or MusicBrainz has changed it since the claim, because its findings
may be out of date.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from artwork_backfill.jobs.audit_batch import tallies
from artwork_backfill.jobs.audit_batch.claims import TABLE
from artwork_backfill.shared.audit.decide import (
    Decision,
    QueuedAction,
    ReasonCode,
    ReviewReason,
    Status,
)
from artwork_backfill.shared.audit.finding import storable
from artwork_backfill.shared.auditing.expectation import changed
from artwork_backfill.shared.auditing.models import (
    NOT_COMPARED,
    STREAK_LIMIT,
    STREAKS,
    UNREADABLE,
    Audit,
    Claim,
    Deferral,
    FindingCount,
    Reason,
    Streak,
)
from artwork_backfill.shared.auditing.owners import read_owners
from artwork_backfill.shared.auditing.queueing import (
    EventToQueue,
    Obstacle,
    QueueRequest,
    queue_events,
)
from artwork_backfill.shared.engine.job import Written
from artwork_backfill.shared.engine.session import begin, is_committed, plain_array, roll_back

# Ordered by id, as all runs lock rows, so that two runs cannot deadlock.
_LOCK_HELD: Final = """
SELECT entity.id
FROM artwork_indexer.audit_entity entity
JOIN unnest(%(ids)s::bigint[], %(claimed_at)s::timestamptz[]) AS held (id, claimed_at)
  ON held.id = entity.id AND held.claimed_at = entity.last_audit_at
WHERE entity.status = 'audit_in_progress'
ORDER BY entity.id
FOR UPDATE OF entity
"""

# An event that was completed since the claim was created after it; otherwise the claim would have
# found it queued. `created` is the start of the transaction that queued it, hence the margin. There
# are many finished events, and only these two columns are indexed. An event that had failed by then
# and was requeued is older, so it is looked up by its id.
_EVENTS_SINCE: Final = """
WITH since AS (
    SELECT entity_type, message, 'infinity' AS last_updated
    FROM artwork_indexer.event_queue
    WHERE state IN ('queued', 'running')
    UNION ALL
    SELECT entity_type, message, last_updated
    FROM artwork_indexer.event_queue
    WHERE state IN ('completed', 'failed')
    AND created >= %(oldest)s - interval '15 minutes'
    UNION ALL
    SELECT entity_type, message, last_updated
    FROM artwork_indexer.event_queue
    WHERE id = ANY (%(failed)s::bigint[]) AND state = 'completed'
)
SELECT wanted.id
FROM (
    SELECT entity_type::text, last_updated,
           unnest(ARRAY[message->>'gid', message->>'old_gid', message->>'new_gid']) AS gid
    FROM since
) AS event
JOIN unnest(%(ids)s::bigint[], %(entity_types)s::text[], %(gids)s::text[],
            %(claimed_at)s::timestamptz[])
     AS wanted (id, entity_type, gid, claimed_at)
  ON wanted.gid = event.gid AND wanted.entity_type = event.entity_type
WHERE event.last_updated >= wanted.claimed_at
"""

# An open review keeps its reasons for checks that this audit skipped: their findings still exist,
# and would be forgotten. An audit that compared nothing has skipped every check.
_OPEN_REVIEWS: Final = """
INSERT INTO artwork_indexer.needs_manual_review AS review (audit_entity_id, review_reason, reasons)
SELECT * FROM unnest(%(ids)s::bigint[], %(texts)s::text[], %(reasons)s::jsonb[])
ON CONFLICT (audit_entity_id) WHERE status = 'open'
DO UPDATE SET (review_reason, reasons) = (
    SELECT concat_ws('; ', excluded.review_reason,
                     string_agg(coalesce(kept.reason->>'text',
                                         concat_ws(': ', kept.reason->>'check',
                                                   nullif(kept.reason->>'subject', ''))),
                                '; ')),
           excluded.reasons || coalesce(jsonb_agg(kept.reason), '[]')
    FROM jsonb_array_elements(review.reasons) AS kept (reason)
    WHERE coalesce(%(passed)s::jsonb->review.audit_entity_id::text ? (kept.reason->>'check'),
                   kept.reason->>'check' IS NOT NULL)
    AND NOT excluded.reasons @> jsonb_build_array(kept.reason))
"""

_WITH_OPEN_REVIEW: Final = """
SELECT audit_entity_id
FROM artwork_indexer.needs_manual_review
WHERE status = 'open' AND audit_entity_id = ANY (%(ids)s::bigint[])
"""

# Notes of people are kept.
_RESOLVE_REVIEWS: Final = """
UPDATE artwork_indexer.needs_manual_review
SET status = 'resolved', resolved_at = now(),
    resolution_notes = concat_ws(E'\\n', resolution_notes, %(note)s::text)
WHERE status = 'open' AND audit_entity_id = ANY (%(ids)s::bigint[])
"""

_RECORD: Final = """
INSERT INTO artwork_indexer.audit_result (audit_entity_id, run_id, outcome, findings, event_ids)
VALUES (%s, %s, %s, %s, %s)
"""

# A decision without events ends the series of withdrawals; a deferral (unchecked) does not.
_SET_STATUS: Final = """
UPDATE artwork_indexer.audit_entity entity
SET status = decided.status::artwork_indexer.audit_entity_status, last_audit_at = now(),
    was_live = coalesce(decided.was_live, entity.was_live),
    withdrawals = CASE decided.status WHEN 'unchecked' THEN entity.withdrawals ELSE 0 END,
    not_before = CASE decided.status WHEN 'unchecked' THEN entity.not_before END
FROM unnest(%(ids)s::bigint[], %(statuses)s::text[], %(were_live)s::boolean[])
     AS decided (id, status, was_live)
WHERE entity.id = decided.id
"""

_ADD_TO_STREAKS: Final = """
INSERT INTO artwork_indexer.audit_streak AS streak (audit_entity_id, kind, audits)
SELECT id, kind, 1 FROM unnest(%(ids)s::bigint[], %(kinds)s::text[]) AS deferred (id, kind)
ON CONFLICT (audit_entity_id, kind) DO UPDATE SET audits = streak.audits + 1
RETURNING audit_entity_id, audits
"""

_END_STREAKS: Final = """
DELETE FROM artwork_indexer.audit_streak WHERE audit_entity_id = ANY (%(ids)s::bigint[])
"""

_FORGET_PASSED: Final = """
DELETE FROM artwork_indexer.audit_passed WHERE audit_entity_id = ANY (%(ids)s::bigint[])
"""

_KEEP_PASSED: Final = """
INSERT INTO artwork_indexer.audit_passed (audit_entity_id, check_name, severity, is_deletion)
SELECT *
FROM unnest(%(ids)s::bigint[], %(checks)s::text[], %(severities)s::smallint[],
            %(are_deletions)s::boolean[])
"""


@dataclass(frozen=True, slots=True)
class AuditsWritten(Written):
    """The result of one transaction.

    `decided` holds the ids of entities by their new status. `postponed` is the number of events of
    the largest repair that found no room in the queue. `unreadable` is the number of audits that
    could not read what they needed, those that became reviews for it included.
    """

    decided: Mapping[Status, Sequence[int]] = field(default_factory=dict)
    findings: Mapping[str, FindingCount] = field(default_factory=dict)
    postponed: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class _Decided:
    audit: Audit
    decision: Decision

    @property
    def id(self) -> int:
        return self.audit.claim.entity.id


@dataclass(slots=True)
class _Sorted:
    """The audits of a batch, sorted by what to write."""

    deferred: list[tuple[Audit, Deferral]] = field(default_factory=list)
    decided: list[_Decided] = field(default_factory=list)
    postponed: list[_Decided] = field(default_factory=list)


class _Recent:
    """Whether the latest audits of a run could read what they needed, by entity."""

    _MOST: Final = 100

    def __init__(self) -> None:
        self._unreadable: dict[int, bool] = {}

    def add(self, audits: Sequence[Audit]) -> None:
        """Record audits; the same ones again if a transaction is repeated."""
        for audit in audits[-self._MOST :]:
            self._unreadable.pop(audit.claim.id, None)
            self._unreadable[audit.claim.id] = _is_unreadable(audit.outcome)
        for id_ in list(self._unreadable)[: -self._MOST]:
            del self._unreadable[id_]

    def excuse(self, audit: Audit) -> Audit:
        """Return an audit, or a deferral instead of a review if most others were unreadable, too.

        That is an outage then, and not the fault of the entity.
        """
        if not isinstance(audit.outcome, Decision) or not _is_unreadable(audit.outcome):
            return audit
        others = [each for id_, each in self._unreadable.items() if id_ != audit.claim.id]
        if sum(others) * 2 <= len(others):
            return audit
        detail = "; ".join(map(str, audit.outcome.review_reasons))
        return replace(audit, outcome=Deferral(Reason.UNREADABLE, detail))


def _is_unreadable(outcome: Decision | Deferral) -> bool:
    if isinstance(outcome, Deferral):
        return outcome.reason is Reason.UNREADABLE
    return any(reason.code == ReasonCode.UNREADABLE for reason in outcome.review_reasons)


class Writer:
    """Write the batches of one run, each in the transaction that the caller opens.

    If the queue has no room for the repairs of an entity, its claim is given back as if it had not
    been audited. `max_depth` returns how long the queue may be after a number of events was added,
    0 for no limit.
    """

    def __init__(self, run_id: UUID, max_depth: Callable[[int], int] = lambda _: 0) -> None:
        self._run_id = run_id
        self._max_depth = max_depth
        self._recent = _Recent()
        # An audit whose transaction after the events may have been committed without an answer.
        self._unanswered: tuple[Audit, str, AuditsWritten] | None = None

    def write(self, conn: Connection, audits: Sequence[Audit]) -> AuditsWritten:
        """Write these audits, except for entities that have changed since."""
        held = _lock_claims(conn, [audit.claim for audit in audits])
        audits_held = [audit for audit in audits if audit.claim.entity.id in held]
        batch = self._sort(conn, audits_held)
        _record(conn, batch, self._run_id)
        self._remember(conn, batch)
        _set_statuses(conn, batch)
        return _summary(batch, lost=len(audits) - len(audits_held))

    def queue(self, conn: Connection, audit: Audit) -> AuditsWritten:
        """Queue the events of an audit, and then write the rest of it.

        One statement queues the events, sets the status and stores the result. If it meets an
        obstacle, it does nothing, and the claim is given back.

        Parameters
        ----------
        conn
            In autocommit mode, with no transaction open.
        """
        if self._unanswered is not None:
            before, xid, written = self._unanswered
            if before is audit and is_committed(conn, xid):
                return written
        obstacle = queue_events(conn, self._request(audit)).obstacle
        begun = begin(conn, with_id=True)
        try:
            written = self._finish(conn, audit, obstacle)
            self._unanswered = (audit, str(begun), written)
            conn.commit()
        except BaseException:
            roll_back(conn)
            raise
        self._unanswered = None
        return written

    def _finish(self, conn: Connection, audit: Audit, obstacle: Obstacle | None) -> AuditsWritten:
        match obstacle:
            case None:
                batch = _Sorted(decided=[_Decided(audit, _decision(audit))])
                self._remember(conn, batch)
                return _summary(batch, lost=0)
            case Obstacle.LOST:
                return _summary(_Sorted(), lost=1)
            case Obstacle.NO_ROOM:
                batch = _Sorted(postponed=[_Decided(audit, _decision(audit))])
                TABLE.give_back(conn, [audit.claim])
                return _summary(batch, lost=0)
            case _:
                deferred = replace(audit, outcome=Deferral(_REASONS[obstacle]))
                return self.write(conn, [deferred])

    def _request(self, audit: Audit) -> QueueRequest:
        decision, expected = _decision(audit), audit.claim.expected
        return QueueRequest(
            audit.claim.entity.id,
            self._run_id,
            [
                EventToQueue(event.action, event.message, event.depends_on, event.owner)
                for event in decision.events
            ],
            claimed_at=audit.claim.claimed_at,
            is_live=expected.is_live if expected is not None else None,
            result=decision.status.value,
            findings=_findings(_Decided(audit, decision)),
            max_depth=self._max_depth(len(decision.events)),
        )

    def _remember(self, conn: Connection, batch: _Sorted) -> None:
        """Write what is kept of audits in addition to status, result and events."""
        _write_reviews(conn, batch.decided, self._run_id)
        tallies.add(conn, [entry.audit for entry in batch.decided], self._run_id)
        tallies.add_proofs(conn, [entry.audit.proofs for entry in batch.decided])
        _keep_streaks(conn, batch)
        _keep_passed(conn, batch)

    def preview(self, conn: Connection, audits: Sequence[Audit]) -> AuditsWritten:
        """Return what `write` and `queue` would do, without changing anything."""
        return _summary(self._sort(conn, audits), lost=0)

    def _sort(self, conn: Connection, audits: Sequence[Audit]) -> _Sorted:
        self._recent.add(audits)
        return _sort(conn, [self._recent.excuse(audit) for audit in audits])


_REASONS: Final[Mapping[Obstacle, Reason]] = {
    Obstacle.BUSY: Reason.EDIT_OPEN,
    Obstacle.EVENT_QUEUED: Reason.EVENT_SINCE,
    Obstacle.EVENT_SINCE: Reason.EVENT_SINCE,
    Obstacle.ENTITY_CHANGED: Reason.ENTITY_CHANGED,
    Obstacle.OWNER_CHANGED: Reason.OWNER_CHANGED,
    Obstacle.OWNER_BUSY: Reason.OWNER_BUSY,
}
"""The reason of the deferral for each obstacle to queueing."""


def queues(audit: Audit) -> bool:
    """Return whether an audit is written by `Writer.queue` rather than `Writer.write`."""
    return isinstance(audit.outcome, Decision) and bool(audit.outcome.events)


def _decision(audit: Audit) -> Decision:
    if not isinstance(audit.outcome, Decision):
        raise TypeError("a deferral queues nothing")
    return audit.outcome


def fail(conn: Connection, failed: Sequence[tuple[Claim, str]], run_id: UUID) -> None:
    """Give back claims whose audit failed, each with the reason.

    They go to the end of their priority, and become reviews after several failures in a row.
    """
    held = _lock_claims(conn, [claim for claim, _ in failed])
    messages = {claim.entity.id: message for claim, message in failed if claim.entity.id in held}
    if not messages:
        return
    lengths = _add_to_streaks(conn, [(id_, Streak.FAILED) for id_ in sorted(messages)])
    _give_up(
        conn,
        {
            id_: ReviewReason(
                ReasonCode.REFUSED,
                f"{STREAK_LIMIT} audits in a row failed, the last because:"
                f" {storable(messages[id_])}",
            )
            for id_, audits in lengths.items()
            if audits >= STREAK_LIMIT
        },
        run_id,
        others=messages,
    )


def count_dead(conn: Connection, ids: Sequence[int], run_id: UUID) -> None:
    """Count that a run died while it audited these entities.

    One of them may be the cause, and would end every other run. After several times in a row each
    of them becomes a review.
    """
    lengths = _add_to_streaks(conn, [(id_, Streak.UNREADABLE) for id_ in ids])
    reason = ReviewReason(
        ReasonCode.UNREADABLE,
        f"{STREAK_LIMIT} audits in a row could not be read, and the last run ended while it audited"
        " the entity",
    )
    hopeless = [id_ for id_, audits in lengths.items() if audits >= STREAK_LIMIT]
    _give_up(conn, dict.fromkeys(hopeless, reason), run_id)


def _give_up(
    conn: Connection,
    reasons: Mapping[int, ReviewReason],
    run_id: UUID,
    others: Iterable[int] = (),
) -> None:
    """Make reviews of entities, and give back the others."""
    statuses = dict.fromkeys(others, Status.UNCHECKED) | dict.fromkeys(
        reasons, Status.MANUAL_REVIEW
    )
    if reasons:
        _open_reviews(conn, {id_: [reason] for id_, reason in sorted(reasons.items())})
        conn.execute(_END_STREAKS, {"ids": sorted(reasons)})
        with conn.cursor() as cursor:
            cursor.executemany(
                _RECORD,
                [
                    (
                        id_,
                        run_id,
                        Status.MANUAL_REVIEW,
                        Jsonb(_not_read(reason.code, reason.text)),
                        [],
                    )
                    for id_, reason in reasons.items()
                ],
            )
    if statuses:
        _update_statuses(conn, statuses, {})


def _sort(conn: Connection, audits: Sequence[Audit]) -> _Sorted:
    batch = _Sorted()
    claims = [audit.claim for audit in audits if isinstance(audit.outcome, Decision)]
    overtaken = _overtaken(conn, claims) if claims else frozenset()
    gone = changed(conn, claims) if claims else frozenset()
    unsafe = _unsafe(conn, audits)
    reviewed = _with_open_review(conn, audits)
    for audit in audits:
        id_ = audit.claim.entity.id
        if isinstance(audit.outcome, Deferral):
            batch.deferred.append((audit, audit.outcome))
        elif id_ in overtaken:
            batch.deferred.append((audit, Deferral(Reason.EVENT_SINCE)))
        elif id_ in gone:
            batch.deferred.append((audit, Deferral(Reason.ENTITY_CHANGED)))
        elif id_ in unsafe:
            batch.deferred.append((audit, unsafe[id_]))
        elif audit.outcome.keeps_review and id_ not in reviewed:
            decision = replace(audit.outcome, status=Status.CLEAN, keeps_review=False)
            batch.decided.append(_Decided(audit, decision))
        else:
            batch.decided.append(_Decided(audit, audit.outcome))
    return batch


def _deletions(audit: Audit) -> list[QueuedAction]:
    events = audit.outcome.events if isinstance(audit.outcome, Decision) else ()
    return [event for event in events if event.action == "delete_image"]


def _unsafe(conn: Connection, audits: Sequence[Audit]) -> dict[int, Deferral]:
    """Return the entities whose deletions rest on facts that have changed, by the database.

    The owners of the images are read again, and the events that will change their items. No two
    deletions of a batch may rely on each other.
    """
    unsafe: dict[int, Deferral] = {}
    losing: set[str] = set()
    relied_on: set[str] = set()
    for audit in audits:
        if not (deletions := _deletions(audit)):
            continue
        entity = audit.claim.entity
        ids = [event.artwork_id for event in deletions if event.artwork_id is not None]
        rows = read_owners(conn, entity.entity_type, ids)
        owners = {event.owner for event in deletions if event.owner is not None}
        moved = [
            str(event.artwork_id)
            for event in deletions
            if event.artwork_id is None or rows.gids.get(event.artwork_id) != event.owner
        ]
        if moved:
            unsafe[entity.id] = Deferral(Reason.OWNER_CHANGED, f"artwork {', '.join(moved)}")
        elif busy := owners & (rows.busy | losing):
            unsafe[entity.id] = Deferral(Reason.OWNER_BUSY, ", ".join(sorted(busy)))
        elif entity.gid in relied_on:
            unsafe[entity.id] = Deferral(Reason.OWNER_BUSY, entity.gid)
        else:
            losing.add(entity.gid)
            relied_on |= owners
    return unsafe


def _with_open_review(conn: Connection, audits: Sequence[Audit]) -> frozenset[int]:
    ids = [
        audit.claim.entity.id
        for audit in audits
        if isinstance(audit.outcome, Decision) and audit.outcome.keeps_review
    ]
    if not ids:
        return frozenset()
    return frozenset(id_ for (id_,) in conn.execute(_WITH_OPEN_REVIEW, {"ids": ids}))


def _summary(batch: _Sorted, *, lost: int) -> AuditsWritten:
    counts: Counter[str] = Counter(
        audited=len(batch.decided),
        written=len(batch.decided),
        skipped=len(batch.deferred),
        deferred=len(batch.deferred),
        postponed=len(batch.postponed),
        lost=lost,
    )
    decided: dict[Status, list[int]] = {}
    entities: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    for _, deferral in batch.deferred:
        counts[f"deferred: {deferral.reason}"] += 1
    for entry in batch.decided:
        status = entry.decision.status
        counts[status.value] += 1
        counts["events"] += len(entry.decision.events)
        decided.setdefault(status, []).append(entry.id)
        checks = [finding.check for finding in entry.audit.findings]
        findings.update(checks)
        entities.update(set(checks))
    return AuditsWritten(
        counts=+counts,
        decided=decided,
        findings={check: FindingCount(entities[check], findings[check]) for check in findings},
        postponed=max((len(entry.decision.events) for entry in batch.postponed), default=0),
        unreadable=sum(_is_unreadable(deferral) for _, deferral in batch.deferred)
        + sum(_is_unreadable(entry.decision) for entry in batch.decided),
    )


def _lock_claims(conn: Connection, claims: Sequence[Claim]) -> frozenset[int]:
    rows = conn.execute(
        _LOCK_HELD,
        {
            "ids": plain_array(claim.entity.id for claim in claims),
            "claimed_at": plain_array(claim.claimed_at for claim in claims),
        },
    ).fetchall()
    return frozenset(id_ for (id_,) in rows)


def _overtaken(conn: Connection, claims: Sequence[Claim]) -> frozenset[int]:
    rows = conn.execute(
        _EVENTS_SINCE,
        {
            "ids": plain_array(claim.entity.id for claim in claims),
            "entity_types": plain_array(claim.entity.entity_type for claim in claims),
            "gids": plain_array(claim.entity.gid for claim in claims),
            "claimed_at": plain_array(claim.claimed_at for claim in claims),
            "oldest": min(claim.claimed_at for claim in claims),
            "failed": plain_array(event.id for claim in claims for event in claim.previous.failed),
        },
    ).fetchall()
    return frozenset(id_ for (id_,) in rows)


def _write_reviews(conn: Connection, decided: Sequence[_Decided], run_id: UUID) -> None:
    """Open and update reviews; resolve those of entities found clean."""
    reviews = {
        entry.id: entry.decision.review_reasons
        for entry in decided
        if entry.decision.review_reasons
    }
    if reviews:
        passed = {
            entry.id: sorted({each.check for each in entry.decision.passed})
            for entry in decided
            if entry.audit.findings
        }
        _open_reviews(conn, reviews, passed)
    # While an entity is claimed, no review of it is opened.
    resolved = [
        entry.id
        for entry in decided
        if entry.decision.status in (Status.CLEAN, Status.LEGACY)
        and entry.audit.claim.previous.in_review is not None
    ]
    if resolved:
        note = f"audit {run_id} found it clean"
        conn.execute(_RESOLVE_REVIEWS, {"ids": resolved, "note": note})


def _open_reviews(
    conn: Connection,
    reviews: Mapping[int, Sequence[ReviewReason]],
    passed: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Open reviews, or give new reasons to open ones.

    `passed` are the checks that were passed over, by entity; without any for an audit that compared
    nothing.
    """
    conn.execute(
        _OPEN_REVIEWS,
        {
            "ids": list(reviews),
            "texts": ["; ".join(map(str, reasons)) for reasons in reviews.values()],
            "reasons": [
                Jsonb([reason.to_json() for reason in reasons]) for reasons in reviews.values()
            ],
            "passed": Jsonb(dict(passed)),
        },
    )


def _keep_streaks(conn: Connection, batch: _Sorted) -> None:
    """Count deferrals and failures in a row; any decision ends the count."""
    deferred = [
        (audit.claim.entity.id, STREAKS[deferral.reason])
        for audit, deferral in batch.deferred
        if deferral.reason in STREAKS
    ]
    if deferred:
        _add_to_streaks(conn, deferred)
    ended = [entry.id for entry in batch.decided if entry.audit.claim.streaks]
    if ended:
        conn.execute(_END_STREAKS, {"ids": ended})


def _add_to_streaks(conn: Connection, entries: Sequence[tuple[int, Streak]]) -> dict[int, int]:
    with_kinds = {"ids": [id_ for id_, _ in entries], "kinds": [kind.value for _, kind in entries]}
    return dict(conn.execute(_ADD_TO_STREAKS, with_kinds).fetchall())


def _keep_passed(conn: Connection, batch: _Sorted) -> None:
    """Remember the findings that the policy has skipped; forget those of earlier audits."""
    ids = [entry.id for entry in batch.decided]
    if not ids:
        return
    conn.execute(_FORGET_PASSED, {"ids": plain_array(ids)})
    passed = [(entry.id, each) for entry in batch.decided for each in entry.decision.passed]
    if passed:
        conn.execute(
            _KEEP_PASSED,
            {
                "ids": [id_ for id_, _ in passed],
                "checks": [each.check for _, each in passed],
                "severities": [int(each.severity) for _, each in passed],
                "are_deletions": [each.is_deletion for _, each in passed],
            },
        )


def _record(conn: Connection, batch: _Sorted, run_id: UUID) -> None:
    """Store every audit with another result than clean."""
    rows: list[tuple[object, ...]] = [
        (
            entry.id,
            run_id,
            entry.decision.status.value,
            Jsonb(_findings(entry)),
            [],
        )
        for entry in batch.decided
        if not _is_no_news(entry)
    ]
    rows += [
        (
            audit.claim.entity.id,
            run_id,
            UNREADABLE,
            Jsonb(_not_read(UNREADABLE, deferral.detail)),
            [],
        )
        for audit, deferral in batch.deferred
        if deferral.reason is Reason.UNREADABLE
    ]
    if rows:
        with conn.cursor() as cursor:
            cursor.executemany(_RECORD, rows)


def _is_no_news(entry: _Decided) -> bool:
    return (
        entry.decision.status in (Status.CLEAN, Status.LEGACY)
        and not entry.audit.findings
        and entry.audit.claim.was_uneventful
    )


def _findings(entry: _Decided) -> list[dict[str, object]]:
    """Return the findings as stored; `repair` marks those that led to events."""
    if not entry.audit.findings and entry.decision.review_reasons:
        # Nothing was compared, so this audit must not count as one without differences.
        reason = entry.decision.review_reasons[0]
        return _not_read(reason.code, reason.text)
    findings: list[dict[str, object]] = [
        {**finding.to_json(), "repair": finding.check in entry.decision.causes}
        for finding in entry.audit.findings
    ]
    for check in sorted(entry.audit.not_compared):
        findings += _not_read(NOT_COMPARED, check)
    return findings


def _not_read(code: str, text: str) -> list[dict[str, object]]:
    return [{"check": str(code), "subject": storable(text), "repair": False}]


def _set_statuses(conn: Connection, batch: _Sorted) -> None:
    statuses = {audit.claim.entity.id: Status.UNCHECKED for audit, _ in batch.deferred}
    statuses |= {entry.id: entry.decision.status for entry in batch.decided}
    were_live = {
        entry.id: entry.audit.claim.expected.is_live
        for entry in batch.decided
        if entry.audit.claim.expected is not None
    }
    _update_statuses(conn, statuses, were_live)


def _update_statuses(
    conn: Connection, statuses: Mapping[int, Status], were_live: Mapping[int, bool]
) -> None:
    conn.execute(
        _SET_STATUS,
        {
            "ids": plain_array(statuses),
            "statuses": plain_array(statuses.values()),
            "were_live": plain_array(were_live.get(id_) for id_ in statuses),
        },
    )
