"""The audit as a job: claims entities, examines them, writes what was decided."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from threading import Lock
from typing import Any, ClassVar, Final

from artwork_backfill.jobs.audit_batch import claims, history, narrowing, verification, writing
from artwork_backfill.jobs.audit_batch.guardrails import Guardrails, Limits
from artwork_backfill.jobs.audit_batch.writing import Writer
from artwork_backfill.shared.audit.decide import Policy, Status
from artwork_backfill.shared.auditing.examination import Examiner
from artwork_backfill.shared.auditing.expectation import add_expectations
from artwork_backfill.shared.auditing.models import Audit, Claim
from artwork_backfill.shared.auditing.owners import OwnerReader
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.engine.db import Session, Table
from artwork_backfill.shared.engine.job import (
    Counts,
    FindingCount,
    Job,
    Run,
    ServiceStats,
    Stop,
    Verification,
    Wait,
)
from artwork_backfill.shared.id_set import IdSet
from psycopg import Connection

#: How often a run looks for the claims of dead ones, in seconds.
_TAKE_BACK_EVERY_S: Final = 60.0

#: How long reading the entities of a batch may take at the rate that is allowed, in seconds.
_BATCH_S: Final = 60.0


class AuditBatch(Job[Claim, Audit]):
    """Every unchecked entity is audited once.

    Parameters
    ----------
    limits
        How much of artwork-indexer's queue and time the audit may take.
    policy
        Which findings are acted upon.
    services
        Where to ask; unless given, those of the settings.
    """

    name: ClassVar[str] = "audit-batch"
    tables: ClassVar[tuple[Table, ...]] = (
        Table("musicbrainz.release"),
        Table("musicbrainz.release_meta"),
        Table("musicbrainz.release_gid_redirect"),
        Table("musicbrainz.event"),
        Table("musicbrainz.event_meta"),
        Table("musicbrainz.event_gid_redirect"),
        Table("musicbrainz.deleted_entity"),
        Table("cover_art_archive.cover_art"),
        Table("cover_art_archive.index_listing"),
        Table("cover_art_archive.image_type"),
        Table("event_art_archive.event_art"),
        Table("event_art_archive.index_listing"),
        Table("artwork_indexer.event_queue", ("SELECT", "INSERT", "UPDATE")),
        Table("artwork_indexer.audit_entity", ("SELECT", "UPDATE")),
        Table("artwork_indexer.needs_manual_review", ("SELECT", "INSERT", "UPDATE")),
        Table("artwork_indexer.audit_result", ("SELECT", "INSERT")),
        Table("artwork_indexer.audit_streak", ("SELECT", "INSERT", "UPDATE", "DELETE")),
        Table("artwork_indexer.audit_passed", ("SELECT", "INSERT", "DELETE")),
        Table("artwork_indexer.repair_tally", ("SELECT", "INSERT", "UPDATE")),
        Table("artwork_indexer.audit_tally", ("SELECT", "INSERT", "UPDATE")),
        Table("artwork_indexer.finding_tally", ("SELECT", "INSERT", "UPDATE")),
        Table("artwork_indexer.audit_status_history", ("SELECT", "INSERT")),
    )
    batch_size: ClassVar[int] = 200
    max_batch_size: ClassVar[int] = 500
    concurrency: ClassVar[int] = 16

    def __init__(
        self, run: Run, limits: Limits, policy: Policy, services: Services | None = None
    ) -> None:
        super().__init__(run)
        self._guardrails = Guardrails(limits)
        self._services = services or Services.connect(
            run.settings, concurrency=run.options.concurrency, stopping=run.stopping
        )
        self._reads = Session(run.open_connection, ending=run.stopping)
        self._policy = policy
        owners = OwnerReader(self._reads)
        self._examiner = Examiner(self._services, owners.read, policy, stopping=run.stopping)
        self._given_up: list[str] = []
        self._writer = Writer(run.id, limits.max_queue_depth)
        self._lookout = claims.Lookout(run.options.partition) if run.options.dry_run else None
        self._run_started: datetime | None = None
        self._looks_for_dead_at = 0.0
        # What the last claim took, until its commit is certain.
        self._unconfirmed: list[Claim] = []
        # Claims of this run by token: how many of each are still in hand, and all there ever were.
        self._lock = Lock()
        self._in_hand: Counter[datetime] = Counter()
        self._tokens: list[datetime] = []
        self._decided: dict[Status, IdSet] = {}
        self._findings: dict[str, FindingCount] = {}

    # -- the five verbs ------------------------------------------------------------------------

    def count(self, conn: Connection) -> int:
        partition = self.run.options.partition
        row = conn.execute(
            claims.COUNT_UNCHECKED, {"partition": partition.index, "partitions": partition.count}
        ).fetchone()
        unchecked = int(row[0]) if row is not None else 0
        if self.run.options.dry_run:
            return unchecked
        return unchecked + narrowing.count(conn, self._policy, partition)

    def claim(self, conn: Connection, size: int) -> Sequence[Claim] | Wait | Stop:
        if self._lookout is not None:
            return add_expectations(conn, self._lookout.look(conn, size))
        self._give_back_unconfirmed(conn)
        if time.monotonic() >= self._looks_for_dead_at:
            history.keep_statuses(conn)
            self._take_back(conn)
        room = self._guardrails.room(conn, min(size, self._most_at_once()))
        if isinstance(room, Wait | Stop):
            return room
        claimed = self._claim(conn, room)
        if not claimed and (self._take_back(conn) or self._take_up(conn, room)):
            claimed = self._claim(conn, room)
        self._unconfirmed = claimed
        return add_expectations(conn, claimed)

    def claimed(self, items: Sequence[Claim]) -> None:
        if self._lookout is not None:
            self._lookout.go_on()
            return
        self._unconfirmed = []
        self._guardrails.claimed(len(items))
        with self._lock:
            self._in_hand[items[0].claimed_at] += len(items)
            self._tokens.append(items[0].claimed_at)

    def fetch(self, items: Sequence[Claim]) -> Sequence[Audit]:
        return [self._examiner.examine(claim) for claim in items]

    def confirm(self, results: Sequence[Audit]) -> Sequence[Audit | None]:
        return self._examiner.confirm(results)

    def write(self, conn: Connection, results: Sequence[Audit]) -> Counts:
        return self._writer.write(conn, results).counts

    def verify(self, conn: Connection) -> Sequence[Verification]:
        checks = list(verification.verify_repairs_and_reviews(conn))
        self._given_up = history.repairs_given_up(conn)
        if self._run_started is None:
            return [verification.verify_no_stale_claims(conn, claims.STALE_AFTER), *checks]
        decided = verification.verify_decisions(
            conn, self._decided, run_id=self.run.id, run_started=self._run_started
        )
        return [verification.verify_claims(conn, self._tokens), *decided, *checks]

    # -- the rest of a run -----------------------------------------------------------------------

    def on_connect(self, conn: Connection) -> None:
        if self._run_started is None:
            self._run_started = _now(conn)
        if self._lookout is None:
            claims.hold_run_lock(conn)
            with conn.transaction():
                claims.take_settled(conn)
                self._take_back(conn)

    def preview(self, conn: Connection, results: Sequence[Audit]) -> Counts:
        return self._writer.preview(conn, results).counts

    def committed(self, results: Sequence[Audit]) -> None:
        self._let_go([audit.claim for audit in results])
        written = self._writer.committed()
        if written.postponed:
            self._guardrails.postponed(written.postponed)
        for status, ids in written.decided.items():
            self._decided.setdefault(status, IdSet()).update(ids)
        for check, count in written.findings.items():
            before = self._findings.get(check, FindingCount(0, 0))
            self._findings[check] = FindingCount(
                before.entities + count.entities, before.findings + count.findings
            )

    def release(self, conn: Connection, items: Sequence[Claim]) -> None:
        claims.release(conn, items, keep_place=self.run.stopping.is_set())
        self._let_go(items)

    def failed(self, conn: Connection, items: Sequence[tuple[Claim, str]]) -> None:
        writing.fail(conn, items, self.run.id)
        self._let_go([claim for claim, _ in items])

    def describe(self, result: Claim | Audit) -> str:
        claim = result.claim if isinstance(result, Audit) else result
        return str(claim.entity)

    def requests(self) -> Mapping[str, ServiceStats]:
        return self._services.stats()

    def findings(self) -> Mapping[str, FindingCount]:
        return dict(sorted(self._findings.items()))

    def next_steps(self) -> Sequence[str]:
        steps = list(self._given_up)
        if warning := self._examiner.listings.warning():
            steps.append(warning)
        if repairs := self._decided.get(Status.REPAIR_QUEUE):
            steps.append(
                f"{len(repairs):,} entities are in repair: once artwork-indexer has worked, another"
                " run proves it."
            )
        if reviews := self._decided.get(Status.MANUAL_REVIEW):
            steps.append(
                f"{len(reviews):,} entities wait for a person: `artwork-backfill review list` shows"
                " them."
            )
        return steps

    def close(self) -> None:
        self._services.close()
        self._reads.close()

    # -- claims in hand --------------------------------------------------------------------------

    def _most_at_once(self) -> int:
        """Return how many entities are read in a minute or so at the rate that is allowed.

        Larger batches would be claimed for so long that other runs took them for dead.
        """
        rate = self._services.rate
        return sys.maxsize if rate is None else max(1, int(rate * _BATCH_S))

    def _claim(self, conn: Connection, size: int) -> list[Claim]:
        return claims.claim(
            conn, size, run_started=self._started(), partition=self.run.options.partition
        )

    def _give_back_unconfirmed(self, conn: Connection) -> None:
        """Undo a claim whose commit was answered by nothing, in case that it went through."""
        if self._unconfirmed:
            claims.release(conn, self._unconfirmed, keep_place=True)

    def _take_back(self, conn: Connection) -> int:
        with self._lock:
            in_hand = list(self._in_hand)
        taken = claims.take_back(conn, run_started=self._started(), in_hand=in_hand)
        self._looks_for_dead_at = time.monotonic() + _TAKE_BACK_EVERY_S
        return taken

    def _take_up(self, conn: Connection, size: int) -> int:
        return narrowing.take_up(conn, self._policy, self.run.options.partition, size)

    def _let_go(self, items: Sequence[Claim]) -> None:
        with self._lock:
            self._in_hand.subtract(claim.claimed_at for claim in items)
            self._in_hand = +self._in_hand

    def _started(self) -> datetime:
        if self._run_started is None:
            raise RuntimeError("a run notes when it began on connecting")
        return self._run_started


def _now(conn: Connection) -> datetime:
    row: Any = conn.execute("SELECT now()").fetchone()
    started: datetime = row[0]
    return started
