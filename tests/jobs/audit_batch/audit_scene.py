"""A small world in a database, with services that answer in this process, for tests of the audit.

`Scene` lets a test take the steps of an audit one by one, and look at the tables in between.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event, Lock
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import namedtuple_row

from artwork_backfill.jobs.audit_batch import claims
from artwork_backfill.jobs.audit_batch.guardrails import Limits
from artwork_backfill.jobs.audit_batch.job import AuditBatch
from artwork_backfill.jobs.audit_batch.writing import AuditsWritten, Writer, queues
from artwork_backfill.shared.audit.decide import Policy, Status
from artwork_backfill.shared.auditing.examination import Examiner
from artwork_backfill.shared.auditing.expectation import add_expectations
from artwork_backfill.shared.auditing.models import Audit, Claim, FindingCount
from artwork_backfill.shared.auditing.owners import OwnerReader
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.clients.http import NotFound, Unreadable
from artwork_backfill.shared.engine import session as db
from artwork_backfill.shared.engine.job import Partition, Run, RunOptions
from artwork_backfill.shared.engine.log import Redactor, RunLog
from artwork_backfill.shared.engine.progress import Progress
from artwork_backfill.shared.engine.report import Report
from artwork_backfill.shared.engine.runner import Runner
from artwork_backfill.shared.engine.runs import RunRecord
from artwork_backfill.shared.engine.sources import Claims
from artwork_backfill.shared.engine.stop import StopFlag
from artwork_backfill.shared.service_stats import ServiceStats
from artwork_backfill.shared.settings import Settings
from sandbox.entities import Plan
from sandbox.world import Spec, World

Answer = Callable[[], Any]

#: A world with every drift several times over.
SPEC = Spec(seed=7, size=500, drift_rate=0.6)

NODE = "node.archive.org"

#: Short, because all runs count as alive for as long after the start of the server.
DEAD_AFTER_S = 2.0


class FakeArchive:
    """archive.org as the world has it; `answers` replaces what it says of single gids."""

    name = "archive.org"

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = Lock()
        self.answers: dict[str, Answer] = {}
        self.downloads: dict[tuple[str, str], Answer] = {}
        self.asked: Counter[str] = Counter()
        self.second_looks: Counter[str] = Counter()
        self.downloaded: list[tuple[str, str]] = []

    def document(self, gid: str) -> dict[str, Any]:
        """What the world's archive.org says of an item."""
        item = self._world.item(gid)
        document: dict[str, Any] = json.loads(item.document(NODE)) if item else {}
        return document

    def metadata(self, gid: str, *, extended_err: bool = False) -> object:
        with self._lock:
            self.asked[gid] += 1
            self.second_looks[gid] += extended_err
        return self.answers[gid]() if gid in self.answers else self.document(gid)

    def download(self, gid: str, name: str, **_: object) -> bytes:
        with self._lock:
            self.downloaded.append((gid, name))
        if (gid, name) in self.downloads:
            content: bytes = self.downloads[gid, name]()
            return content
        item = self._world.item(gid)
        content_or_none = item.content(name) if item else None
        if content_or_none is None:
            raise NotFound("no such file", service="archive.org")
        return content_or_none

    def stats(self) -> ServiceStats:
        return ServiceStats(sum(self.asked.values()), 0, 0, 0.0, 0.0)

    def close(self) -> None:
        pass


class FakeMusicBrainz:
    """The web service as the world has it; `answers` replaces what it says of single gids."""

    name = "MusicBrainz"

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = Lock()
        self.answers: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()

    def entity_xml(self, entity_type: str, gid: str) -> bytes:
        with self._lock:
            self.asked[gid] += 1
        if gid in self.answers:
            content: bytes = self.answers[gid]()
            return content
        answer = self._world.xml(self._world.plan(self._number(gid)).entity_type, gid)
        if answer is None:
            raise NotFound("no such entity", service="MusicBrainz")
        return answer[1]

    def stats(self) -> ServiceStats:
        return ServiceStats(sum(self.asked.values()), 0, 0, 0.0, 0.0)

    def close(self) -> None:
        pass

    def _number(self, gid: str) -> int:
        number = self._world.number(gid)
        assert number is not None
        return number


def _sum(parts: Sequence[AuditsWritten]) -> AuditsWritten:
    counts: Counter[str] = Counter()
    decided: dict[Status, list[int]] = {}
    findings: dict[str, FindingCount] = {}
    for part in parts:
        counts.update(part.counts)
        for status, ids in part.decided.items():
            decided.setdefault(status, []).extend(ids)
        for check, count in part.findings.items():
            findings[check] = findings.get(check, FindingCount(0, 0)) + count
    postponed = max((part.postponed for part in parts), default=0)
    return AuditsWritten(counts, (), decided, findings, postponed)


def unreadable() -> Any:
    """An answer that never comes."""
    raise Unreadable("HTTP 500", service="archive.org")


def findings(report: Report) -> dict[str, FindingCount]:
    """What a report says of each check."""
    found = report.as_dict().get("findings", {})
    return {check: FindingCount(**counts) for check, counts in found.items()}


@dataclass(slots=True)
class Scene:
    """The steps of an audit, on one database and one world."""

    dsn: str
    world: World
    conn: psycopg.Connection
    archive: FakeArchive
    musicbrainz: FakeMusicBrainz
    run_id: UUID
    #: Set when an auditor of this scene is to stop waiting.
    interrupt: Event | None = None

    # -- who is there ----------------------------------------------------------------------------

    def plan(self, drift: str | None, *, entity_type: str = "release", skip: int = 0) -> Plan:
        """The plan of an entity with that drift; of one with nothing to find when it is None."""
        plans = (
            plan
            for plan in self.world.plans()
            if plan.drift == drift and plan.entity_type == entity_type and self._has_art(plan)
        )
        return [plan for plan, _ in zip(plans, range(skip + 1), strict=False)][skip]

    def _has_art(self, plan: Plan) -> bool:
        number = self.world.number(plan.gid)
        assert number is not None
        entity = self.world.entity(number)
        return plan.drift is not None or (bool(entity.artwork) and not entity.dark)

    def id(self, gid: str) -> int:
        return int(self.value("SELECT id FROM artwork_indexer.audit_entity WHERE gid = %s", gid))

    def only(self, *gids: str) -> None:
        """Let nothing but these wait for an audit."""
        self.conn.execute(
            "UPDATE artwork_indexer.audit_entity SET status = 'clean', last_audit_at = now()"
            " WHERE gid <> ALL (%s::uuid[])",
            (list(gids),),
        )

    # -- the steps of an audit -------------------------------------------------------------------

    def claim(
        self, size: int = 10, conn: psycopg.Connection | None = None, *, screen: bool = False
    ) -> list[Claim]:
        """Claim and commit."""
        conn = conn or self.conn
        with conn.transaction():
            return add_expectations(conn, self.claims().take(conn, size), screen=screen)

    def claims(self, index: int = 0, count: int = 1) -> Claims[Claim]:
        """The claims of a run that begins now."""
        record = RunRecord(self.run_id, dead_after=DEAD_AFTER_S)
        return Claims(claims.TABLE, record, claims.claim, partition=Partition(index, count))

    def record(self, *, heartbeat: str = "0", finished: bool = False) -> None:
        """Write a row for the run that the steps belong to, which last beat so long ago."""
        self.conn.execute(
            "INSERT INTO artwork_indexer.backfill_run"
            " (id, job, version, host, who, heartbeat, finished)"
            " VALUES (%s, 'audit-batch', '1', 'here', 'me', now() - %s::interval,"
            "         CASE WHEN %s THEN now() END)",
            (self.run_id, heartbeat, finished),
        )

    def examine(self, claimed: Sequence[Claim], policy: Policy | None = None) -> list[Audit]:
        """Examine and confirm."""
        reads = db.Session(lambda: db.connect(self.dsn, "test"))
        examiner = Examiner(self.services(), OwnerReader(reads).read, policy or Policy())
        try:
            seen = examiner.look_again([examiner.examine(claim) for claim in claimed])
            confirmed = [examiner.confirm_deletions(a) if isinstance(a, Audit) else a for a in seen]
        finally:
            reads.close()
        return [audit for audit in confirmed if isinstance(audit, Audit)]

    def write(
        self,
        audits: Sequence[Audit],
        *,
        max_queue_depth: int = 0,
        conn: psycopg.Connection | None = None,
    ) -> AuditsWritten:
        """Write and commit: what queues events one by one, and the rest together."""
        conn = conn or self.conn
        writer = Writer(self.run_id, lambda _: max_queue_depth)
        parts = [writer.queue(conn, audit) for audit in audits if queues(audit)]
        if rest := [audit for audit in audits if not queues(audit)]:
            with conn.transaction():
                parts.append(writer.write(conn, rest))
        return _sum(parts)

    def audit(
        self, *gids: str, policy: Policy | None = None, screen: bool = False
    ) -> AuditsWritten:
        """Audit these entities from claim to write, as a run of their own."""
        self.conn.execute(
            "UPDATE artwork_indexer.audit_entity"
            " SET status = 'unchecked', last_audit_at = NULL WHERE gid = ANY (%s::uuid[])",
            (list(gids),),
        )
        self.only(*gids)
        self.run_id = uuid4()
        return self.write(self.examine(self.claim(len(gids), screen=screen), policy))

    def services(self) -> Services:
        archive: Any = self.archive
        musicbrainz: Any = self.musicbrainz
        return Services(archive, musicbrainz, rate=None, second_look_after=0.0)

    # -- whole runs ------------------------------------------------------------------------------

    def job(
        self,
        *,
        limits: Limits | None = None,
        policy: Policy | None = None,
        stop_flag: StopFlag | None = None,
        rate: float | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> AuditBatch:
        """A job whose services answer in this process, supposedly at that rate.

        With `settings` given, it asks those that they name.
        """
        run = Run(
            uuid4(),
            replace(RunOptions(batch_size=50, concurrency=2), **options),
            settings or self.settings(),
            (stop_flag or StopFlag()).event,
            lambda: db.connect(self.dsn, "test audit"),
            dead_after=DEAD_AFTER_S,
        )
        services = None if settings else replace(self.services(), rate=rate)
        return AuditBatch(
            run,
            limits or Limits(max_queue_depth=0),
            policy or Policy(),
            services,
        )

    def run(self, *, stop_flag: StopFlag | None = None, **options: Any) -> Report:
        """Run audit-batch from start to report."""
        stop_flag = stop_flag or StopFlag()
        job = self.job(stop_flag=stop_flag, **options)
        return Runner(
            job,
            job.run,
            log=self.log(job),
            progress=self.progress(job),
            stop_flag=stop_flag,
        ).run()

    def log(self, job: AuditBatch) -> RunLog:
        return RunLog(job.name, job.run.id, Redactor(frozenset()))

    def progress(self, job: AuditBatch) -> Progress:
        return Progress(self.log(job), None)

    def settings(self) -> Settings:
        return Settings(
            {
                "MUSICBRAINZ_DATABASE_URL": self.dsn,
                "ARCHIVE_ORG_URL": "http://127.0.0.1:9",
                "MUSICBRAINZ_URL": "http://127.0.0.1:9",
            }
        )

    # -- looking at the tables -------------------------------------------------------------------

    def value(self, query: str, *values: object) -> Any:
        row = self.conn.execute(query.encode(), values).fetchone()
        return None if row is None else row[0]

    def rows(self, query: str, *values: object) -> list[Any]:
        with self.conn.cursor(row_factory=namedtuple_row) as cursor:
            return cursor.execute(query.encode(), values).fetchall()

    def status(self, gid: str) -> str:
        return str(
            self.value("SELECT status FROM artwork_indexer.audit_entity WHERE gid = %s", gid)
        )

    def reviews(self, gid: str) -> list[Any]:
        """Every review of an entity, the first one first."""
        return self.rows(
            "SELECT review.* FROM artwork_indexer.needs_manual_review review"
            " JOIN artwork_indexer.audit_entity entity ON entity.id = audit_entity_id"
            " WHERE gid = %s ORDER BY review.id",
            gid,
        )

    def results(self, gid: str) -> list[Any]:
        """Every result of an entity, the first one first."""
        return self.rows(
            "SELECT result.* FROM artwork_indexer.audit_result result"
            " JOIN artwork_indexer.audit_entity entity ON entity.id = audit_entity_id"
            " WHERE gid = %s ORDER BY result.id",
            gid,
        )

    def events(self, gid: str | None = None) -> list[Any]:
        """The events in the queue, of one entity or of all."""
        return self.rows(
            "SELECT * FROM artwork_indexer.event_queue"
            " WHERE %s::text IS NULL OR message->>'gid' = %s ORDER BY id",
            gid,
            gid,
        )

    # -- what others do ---------------------------------------------------------------------------

    def queue(
        self,
        gid: str,
        *,
        state: str = "queued",
        action: str = "index",
        entity_type: str = "release",
        message: Mapping[str, object] | None = None,
        age: str = "0",
    ) -> int:
        """Put an event into the queue, as MusicBrainz does; return its id."""
        return int(
            self.value(
                "INSERT INTO artwork_indexer.event_queue"
                " (state, entity_type, action, message, created, last_updated)"
                " VALUES (%s, %s, %s, %s, now() - %s::interval, now() - %s::interval)"
                " RETURNING id",
                state,
                entity_type,
                action,
                json.dumps(dict(message or {"gid": gid})),
                age,
                age,
            )
        )

    def finish(self, *event_ids: int, state: str = "completed") -> None:
        """Bring events to an end, as artwork-indexer does."""
        for event_id in event_ids:
            self.conn.execute(
                "UPDATE artwork_indexer.event_queue SET state = 'running' WHERE id = %s",
                (event_id,),
            )
            self.conn.execute(
                "UPDATE artwork_indexer.event_queue"
                " SET state = %s::artwork_indexer.event_state WHERE id = %s",
                (state, event_id),
            )
