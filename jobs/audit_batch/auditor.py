"""The audit without a command line, for a daemon that audits a little whenever it is idle.

It claims, examines and writes with the code and the rules of the job. It never waits: if it may not
audit now, it returns at once and says why.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Self
from uuid import UUID, uuid4

import psycopg
from psycopg import Connection

from artwork_backfill.jobs.audit_batch import claims
from artwork_backfill.jobs.audit_batch.guardrails import Guardrails, Limits
from artwork_backfill.jobs.audit_batch.writing import Writer, count_dead, fail, queues
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.auditing.examination import Examiner, deferral
from artwork_backfill.shared.auditing.expectation import add_expectations
from artwork_backfill.shared.auditing.models import Audit, BadRow, Claim, Reason
from artwork_backfill.shared.auditing.owners import OwnerReader
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.clients.http import Interrupted
from artwork_backfill.shared.engine import session as db
from artwork_backfill.shared.engine.errors import EngineError, StopRun
from artwork_backfill.shared.engine.job import Wait
from artwork_backfill.shared.engine.runs import RunRecord
from artwork_backfill.shared.engine.sources import Claims, Partition
from artwork_backfill.shared.seeding import count_refused
from artwork_backfill.shared.settings import Settings

#: The job name of its runs, by which they can be held.
NAME: Final = "auditor"

#: Entities that were audited within this time are skipped even if they are unchecked: otherwise
#: every call would audit an entity whose item is busy.
REVISIT_AFTER: Final = timedelta(hours=1)

#: The delay after which another call is worthwhile if nothing better is known, in seconds.
_LOOK_AGAIN_S: Final = 60.0

#: How often a call checks whether it has to end, and how long it then waits for its thread, in
#: seconds.
_POLL_S: Final = 0.05
_GRACE_S: Final = 0.1

#: How long a transaction is retried while the database fails, in seconds.
_DATABASE_PATIENCE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """The result of one call.

    Parameters
    ----------
    counts
        Entities by result: `clean`, `repair_queue`, `manual_review`, `legacy`, `deferred`,
        `postponed` and others, as in the report of audit-batch; also `events`.
    problems
        One line for each entity that could not be audited.
    waits_for
        Why no more was audited; `None` if there is no reason to wait.
    retry_after
        Seconds until another call may do more.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    waits_for: str | None = None
    retry_after: float = 0.0

    @property
    def audited(self) -> int:
        """How many entities were decided."""
        return self.counts.get("audited", 0)


class Auditor:
    """Audit a few entities per call, one call at a time.

    Parameters
    ----------
    rate
        The average number of entities per second; `None` for no limit.
    time_limit
        The maximum duration of a call in seconds, whatever the services do. Entities that are not
        examined by then are given back; one that took the whole call is deferred as unreadable.
    limits, policy
        As the options of audit-batch. By default, it audits only while artwork-indexer is idle.
    clock
        A monotonic clock, in seconds.

    Example
    -------
    Audit at most one entity every ten seconds, and only while artwork-indexer is idle::

        with Auditor.from_environment(rate=0.1) as auditor:
            while not stopping.is_set():
                if not work_that_is_waiting():
                    auditor.audit(limit=1)  # in asyncio: await asyncio.to_thread(...)
                    stopping.wait(1.0)  # the daemon's own pace, whatever the auditor says
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
        self._out_of_time = f"the time limit of {time_limit:g} s was reached"
        limits = limits or Limits(only_when_idle=True)
        self._guardrails = Guardrails(limits, clock)
        self._record = RunRecord(uuid4())
        self._writer = Writer(self._record.id, self._guardrails.max_depth)
        self._clock = clock
        self._next_turn = -math.inf
        self._one_call = threading.Lock()
        self._stop_flag = threading.Event()
        # A plain attribute: a signal handler may set it, but must not acquire a lock.
        self._closed = False
        self._is_open = True
        self._left_behind: _Attempt | None = None
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
            reserve=claims.Reserve(policy, Partition()),
            revisit_after=REVISIT_AFTER.total_seconds(),
        )
        self._services = Services.from_settings(settings, concurrency=1, stop_flag=self._stop_flag)
        owners = OwnerReader(self._reads)
        self._examiner = Examiner(self._services, owners.read, policy, stop_flag=self._stop_flag)

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

        Parameters are those of the class.

        Raises
        ------
        SettingsError
            A setting is missing or malformed.
        """
        settings = Settings(os.environ)
        return cls(settings, rate=rate, time_limit=time_limit, limits=limits, policy=policy)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, now or as soon as the current call has ended.

        May be called from any thread and from a signal handler, and never waits. The current call
        ends within moments and gives back what it has not written.
        """
        self._closed = True
        if self._one_call.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._one_call.release()

    def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._stop_flag.set()
        self._services.close()
        with suppress(psycopg.Error, StopRun):
            self._record.finish(self._session, "stopped", 0, {})
        self._session.close()
        if self._left_behind is None or not self._left_behind.is_running:
            self._reads.close()

    def audit(self, limit: int = 1) -> AuditSummary:
        """Audit up to `limit` unchecked entities, the highest priority first.

        Parameters
        ----------
        limit
            The maximum number of entities.

        Raises
        ------
        psycopg.Error
            The database failed. Entities that are still claimed are given back, or reclaimed by a
            later call or by audit-batch.
        """

        return self._audit(
            lambda: self._claims.next(self._session, limit), otherwise="nothing is left to audit"
        )

    def audit_entity(self, entity_type: str, gid: str) -> AuditSummary:
        """Audit one given entity, whatever its status and the time of its last audit.

        An unknown entity is added. The limits and the rate apply.

        Parameters
        ----------
        entity_type
            `release` or `event`.
        gid
            Its UUID.

        Raises
        ------
        ValueError
            The entity type is unknown or the other one, or `gid` is not a UUID.
        psycopg.Error
            As for `audit`.
        """
        wanted, key = EntityType(entity_type), str(UUID(gid))

        def claim(conn: Connection) -> list[Claim] | Wait:
            room = self._guardrails.room(conn, 1)
            if isinstance(room, Wait):
                return room
            if count_refused(conn, wanted, [UUID(key).bytes]):
                raise ValueError(f"{key} is not of type {wanted}: MusicBrainz has it as the other")
            return claims.claim_one(conn, wanted, key, self._record.id)

        return self._audit(
            lambda: self._claims.claim_with(self._session, claim),
            otherwise="another run is auditing it",
        )

    def _audit(
        self, claim: Callable[[], Sequence[Claim] | Wait], *, otherwise: str
    ) -> AuditSummary:
        deadline = time.monotonic() + self._time_limit
        try:
            with self._one_call:
                return self._call(claim, otherwise, deadline)
        finally:
            if self._closed:
                self.close()

    def _call(
        self, claim: Callable[[], Sequence[Claim] | Wait], otherwise: str, deadline: float
    ) -> AuditSummary:
        if self._closed:
            raise RuntimeError("the auditor is closed")
        if self._left_behind is not None and self._left_behind.is_running:
            return AuditSummary(
                waits_for="a service has not answered a request of an earlier call yet",
                retry_after=_LOOK_AGAIN_S,
            )
        self._left_behind = None
        self._stop_flag.clear()
        until_turn = self._next_turn - self._clock()
        if until_turn > 0:
            return AuditSummary(waits_for="the rate that was asked for", retry_after=until_turn)
        # Between two calls it writes no heartbeat and may be declared dead; it holds no claim then.
        self._record.begin(self._session, NAME, {})
        claims.tidy(self._session)
        try:
            # An earlier call may have failed to reach the database and give back its claims.
            self._claims.release(self._session)
            # A hold or a pause keeps it from auditing, but raises nothing to its caller.
            claimed = self._record.ask(self._session) or claim()
        except StopRun as stop:
            return AuditSummary(waits_for=str(stop), retry_after=_LOOK_AGAIN_S)
        if isinstance(claimed, Wait):
            return AuditSummary(waits_for=claimed.reason, retry_after=claimed.seconds)
        if not claimed:
            return AuditSummary(waits_for=otherwise, retry_after=_LOOK_AGAIN_S)
        return self._work(list(claimed), deadline)

    def _taken(self, entities: int) -> None:
        self._guardrails.claimed(entities)
        self._next_turn = self._clock() + entities * self._interval

    def _work(self, claimed: list[Claim], deadline: float) -> AuditSummary:
        """Examine and write one entity after another; give back the rest at the end."""
        counts: Counter[str] = Counter()
        problems: list[str] = []
        waits_for = None
        left = deque(claimed)
        # Not if other callers or the database took most of it.
        has_time = deadline - time.monotonic() > self._time_limit / 2
        try:
            while left:
                try:
                    counts.update(self._write(self._examine(left[0], deadline)))
                except Interrupted:
                    if not self._closed and len(left) == len(claimed) and has_time:
                        # It took all of the call, and given back it would take the next one, too.
                        late = deferral(left[0], Reason.UNREADABLE, self._out_of_time)
                        counts.update(self._write(late))
                        left.popleft()
                    raise
                except EngineError:
                    raise
                except Exception as error:  # of this entity alone, and counted as such
                    if isinstance(error, psycopg.Error) and db.is_passing(error):
                        raise
                    reason = _reason(error)
                    problems.append(f"{left[0].entity}: {reason}")
                    counts["failed"] += 1
                    self._claims.fail(self._session, [(left[0], reason)])
                left.popleft()
        except Interrupted:
            waits_for = "the auditor was closed" if self._closed else self._out_of_time
        except StopRun as stop:
            waits_for = str(stop)
        finally:
            try:
                self._claims.give_back(self._session, list(left))
            except StopRun as stop:
                # Other runs have declared this one dead, and reclaim what it held.
                waits_for = str(stop)
        retry_after = _LOOK_AGAIN_S if waits_for else 0.0
        return AuditSummary(counts, tuple(problems), waits_for, retry_after)

    def _examine(self, claim: Claim, deadline: float) -> Audit:
        """Examine a claim in a thread, and abandon the thread when the time is up.

        A socket may block a thread for longer than a call may take. Raises `Interrupted`.
        """

        def examine() -> Audit | None:
            return self._examiner.confirm(self._examiner.examine(claim))

        attempt = _Attempt(examine)
        while attempt.is_running:
            left = deadline - time.monotonic()
            if self._closed or left <= 0:
                self._stop_flag.set()
                # A thread that waits for its rate or for a retry ends now.
                attempt.wait(_GRACE_S)
                if attempt.is_running:
                    self._left_behind = attempt
                elif not self._closed:
                    self._stop_flag.clear()
                raise Interrupted("the call has to end")
            attempt.wait(min(left, _POLL_S))
        audit = attempt.result()
        if audit is None:
            raise Interrupted("the second look was interrupted")
        return audit

    def _write(self, audit: Audit) -> Mapping[str, int]:
        if queues(audit):
            written = self._session.autocommit(lambda conn: self._writer.queue(conn, audit))
        else:
            written = self._session.transaction(
                lambda conn: self._writer.write(conn, [audit]), once=True
            )
        if written.postponed:
            self._guardrails.postponed(written.postponed)
        return written.counts


class _Attempt:
    """A function that runs in a thread of its own."""

    def __init__(self, work: Callable[[], Audit | None]) -> None:
        self._work = work
        self._audit: Audit | None = None
        self._error: BaseException | None = None
        # A daemon thread: the process can end without waiting for it.
        self._thread = threading.Thread(target=self._run, name="auditor", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    def result(self) -> Audit | None:
        """Return the result of the function, or raise its exception."""
        if self._error is not None:
            raise self._error
        return self._audit

    def _run(self) -> None:
        try:
            self._audit = self._work()
        except BaseException as error:
            self._error = error


def _reason(error: Exception) -> str:
    if isinstance(error, psycopg.Error):
        return db.explain(error)
    return str(error) if isinstance(error, BadRow) else f"{type(error).__name__}: {error}"


def _session(dsn: str, record: RunRecord) -> db.Session:
    return db.Session(
        lambda: db.connect(dsn, "artwork-backfill auditor"),
        guard=record.guard,
        patience=_DATABASE_PATIENCE_S,
    )
