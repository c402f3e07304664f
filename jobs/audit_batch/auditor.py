"""The audit without a command line: for a daemon that audits a little whenever it is idle.

It claims, examines and writes with the code of the job, and by the same rules. It never waits for
its turn: where nothing may be audited just now, it says so and returns.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Self
from uuid import UUID, uuid4

import psycopg
from artwork_backfill.jobs.audit_batch import claims, narrowing
from artwork_backfill.jobs.audit_batch.guardrails import Guardrails, Limits
from artwork_backfill.jobs.audit_batch.writing import Writer, count_dead, fail
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.auditing.examination import Examiner
from artwork_backfill.shared.auditing.expectation import add_expectations
from artwork_backfill.shared.auditing.models import Audit, BadRow, Claim
from artwork_backfill.shared.auditing.owners import OwnerReader
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.clients.http import Interrupted
from artwork_backfill.shared.engine import session as db
from artwork_backfill.shared.engine.job import StopRun, Wait
from artwork_backfill.shared.engine.runs import RunRecord
from artwork_backfill.shared.engine.sources import Claims, Partition
from artwork_backfill.shared.settings import Settings
from psycopg import Connection

#: What its runs are called, and held by.
NAME: Final = "auditor"

#: What was audited less than this ago is left alone even if it is unchecked: an entity whose item
#: is busy would otherwise be looked at by every call.
REVISIT_AFTER: Final = timedelta(hours=1)

#: When a call is worth while again where nobody can know, in seconds.
_LOOK_AGAIN_S: Final = 60.0

#: For how long a transaction is repeated while the database is in trouble, in seconds.
_DATABASE_PATIENCE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """What one call has done.

    Parameters
    ----------
    counts
        By what became of the entities: `clean`, `repair_queue`, `manual_review`, `legacy`,
        `deferred`, `postponed` and others, as in the report of audit-batch; also `events`.
    problems
        What is wrong with entities that could not be audited, one line each.
    waits_for
        Why nothing more was audited, `None` when there is no reason to wait.
    retry_after
        When a further call may do more, in seconds from now.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    waits_for: str | None = None
    retry_after: float = 0.0

    @property
    def audited(self) -> int:
        """How many entities were decided on."""
        return self.counts.get("audited", 0)


class Auditor:
    """Audits a few entities per call, one call at a time.

    Parameters
    ----------
    rate
        How many entities may be audited per second, on average; `None` for no limit.
    time_limit
        How long a call may take, in seconds: what is not examined by then is given back. One
        request that is under way is still waited for, a minute at most.
    limits, policy
        As the options of audit-batch; by default, nothing is done unless artwork-indexer is idle.
    clock
        Monotonic seconds.

    Example
    -------
    Audit at most one entity every ten seconds, and only while artwork-indexer is idle::

        with Auditor.from_environment(rate=0.1) as auditor:
            while not stopping.is_set():
                if has_work():
                    work()
                    continue
                summary = auditor.audit(limit=1)  # in asyncio: await asyncio.to_thread(...)
                if summary.waits_for:
                    print("not auditing:", summary.waits_for)
                stopping.wait(max(1.0, summary.retry_after))
    """

    def __init__(
        self,
        settings: Settings,
        *,
        rate: float | None = None,
        time_limit: float = 30.0,
        limits: Limits | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if rate is not None and rate <= 0:
            raise ValueError("rate is in entities per second and must be above 0, or None")
        self._interval = 1 / rate if rate else 0.0
        self._time_limit = time_limit
        limits = limits or Limits(only_when_idle=True)
        self._guardrails = Guardrails(limits, clock)
        self._record = RunRecord(uuid4())
        self._writer = Writer(self._record.id, limits.max_queue_depth)
        self._clock = clock
        self._next_turn = -math.inf
        self._one_call = threading.Lock()
        self._interrupt = threading.Event()
        self._closed = False
        dsn = settings.musicbrainz_database()
        policy = policy or Policy()
        self._session = _session(dsn, self._record)
        self._reads = _session(dsn, self._record)
        self._claims = Claims(
            claims.TABLE,
            self._record,
            claims.claim,
            room=self._guardrails.room,
            complete=add_expectations,
            taken=self._taken,
            failed=lambda conn, failed: fail(conn, failed, self._record.id),
            reclaimed=lambda conn, ids: count_dead(conn, ids, self._record.id),
            reserve=narrowing.Reserve(policy, Partition()),
            revisit_after=REVISIT_AFTER.total_seconds(),
        )
        self._services = Services.from_settings(settings, concurrency=1, stopping=self._interrupt)
        owners = OwnerReader(self._reads)
        self._examiner = Examiner(self._services, owners.read, policy, stopping=self._interrupt)

    @classmethod
    def from_environment(
        cls,
        *,
        rate: float | None = None,
        time_limit: float = 30.0,
        limits: Limits | None = None,
        policy: Policy | None = None,
    ) -> Self:
        """Return an auditor with the settings of the environment.

        Raises `SettingsError` where one is missing or malformed.
        """
        settings = Settings(os.environ)
        return cls(settings, rate=rate, time_limit=time_limit, limits=limits, policy=policy)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End a call that is under way in another thread, and close all connections."""
        self._closed = True
        self._interrupt.set()
        with self._one_call:
            self._services.close()
            with suppress(psycopg.Error):
                self._record.finish(self._session, "stopped", 0, {})
            self._session.close()
            self._reads.close()

    def audit(self, limit: int = 1) -> AuditSummary:
        """Audit up to `limit` of the entities that wait longest, those of high priority first.

        Raises
        ------
        psycopg.Error
            The database is in trouble. What is still claimed then is given back, or, when not even
            that is possible, taken back by a later call or by audit-batch.
        """

        return self._audit(
            lambda: self._claims.next(self._session, limit), otherwise="nothing is left to audit"
        )

    def audit_entity(self, entity_type: str, gid: str) -> AuditSummary:
        """Audit one given `release` or `event`, whatever its status and whenever it last was.

        It is added when the audit does not know it. Guardrails and rate apply.

        Raises
        ------
        ValueError
            There is no such type of entity, or `gid` is no UUID.
        psycopg.Error
            As `audit`.
        """
        wanted, key = EntityType(entity_type), str(UUID(gid))

        def claim(conn: Connection) -> list[Claim] | Wait:
            room = self._guardrails.room(conn, 1)
            if isinstance(room, Wait):
                return room
            return claims.claim_one(conn, wanted, key, self._record.id)

        return self._audit(
            lambda: self._claims.claim_with(self._session, claim),
            otherwise="another run is auditing it",
        )

    def _audit(
        self, claim: Callable[[], Sequence[Claim] | Wait], *, otherwise: str
    ) -> AuditSummary:
        with self._one_call:
            if self._closed:
                raise RuntimeError("the auditor is closed")
            until_turn = self._next_turn - self._clock()
            if until_turn > 0:
                return AuditSummary(waits_for="the rate that was asked for", retry_after=until_turn)
            # Between two calls it has no heartbeat, and may count as dead: it holds nothing then.
            self._record.begin(self._session, NAME, {})
            try:
                # What people ask of it keeps it from auditing, not its caller from working.
                claimed = self._record.ask(self._session) or claim()
            except StopRun as stop:
                return AuditSummary(waits_for=str(stop), retry_after=_LOOK_AGAIN_S)
            if isinstance(claimed, Wait):
                return AuditSummary(waits_for=claimed.reason, retry_after=claimed.seconds)
            if not claimed:
                return AuditSummary(waits_for=otherwise, retry_after=_LOOK_AGAIN_S)
            return self._work(list(claimed))

    def _taken(self, entities: int) -> None:
        self._guardrails.claimed(entities)
        self._next_turn = self._clock() + entities * self._interval

    def _work(self, claimed: list[Claim]) -> AuditSummary:
        """Examine and write one entity after another; give back what is left in the end."""
        counts: Counter[str] = Counter()
        problems: list[str] = []
        waits_for = None
        left = deque(claimed)
        try:
            with self._timer():
                while left:
                    try:
                        [audit] = self._examiner.confirm([self._examiner.examine(left[0])])
                        if audit is None:
                            raise Interrupted("the second look was interrupted")
                        counts.update(self._write(audit))
                    except (BadRow, psycopg.Error) as error:
                        if isinstance(error, psycopg.Error) and db.is_passing(error):
                            raise
                        reason = _reason(error)
                        problems.append(f"{left[0].entity}: {reason}")
                        counts["failed"] += 1
                        self._claims.fail(self._session, [(left[0], reason)])
                    left.popleft()
        except Interrupted:
            waits_for = f"the time limit of {self._time_limit:g} s was reached"
        except StopRun as stop:
            waits_for = str(stop)
        finally:
            self._claims.give_back(self._session, list(left))
        retry_after = _LOOK_AGAIN_S if waits_for else 0.0
        return AuditSummary(counts, tuple(problems), waits_for, retry_after)

    def _write(self, audit: Audit) -> Mapping[str, int]:
        written = self._session.transaction(
            lambda conn: self._writer.write(conn, [audit]), once=True
        )
        if written.postponed:
            self._guardrails.postponed(written.postponed)
        return written.counts

    @contextmanager
    def _timer(self) -> Iterator[None]:
        """Interrupt all waiting for services when the time limit is reached."""
        timer = threading.Timer(self._time_limit, self._interrupt.set)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            if not self._closed:
                self._interrupt.clear()


def _reason(error: BadRow | psycopg.Error) -> str:
    return db.explain(error) if isinstance(error, psycopg.Error) else str(error)


def _session(dsn: str, record: RunRecord) -> db.Session:
    return db.Session(
        lambda: db.connect(dsn, "artwork-backfill auditor"),
        guard=record.guard,
        patience=_DATABASE_PATIENCE_S,
    )
