"""The audit as a job: claim entities, examine them, write the decisions."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import partial as bind
from typing import ClassVar, Final

from psycopg import Connection

from artwork_backfill.jobs.audit_batch import claims, tallies, verification, writing
from artwork_backfill.jobs.audit_batch.guardrails import Guardrails, Limits
from artwork_backfill.jobs.audit_batch.writing import AuditsWritten, Writer, queues
from artwork_backfill.shared.audit.decide import Policy, Status
from artwork_backfill.shared.auditing import gauges
from artwork_backfill.shared.auditing.examination import Examiner
from artwork_backfill.shared.auditing.expectation import TABLES, add_expectations
from artwork_backfill.shared.auditing.models import Audit, Claim, Failure, FindingCount
from artwork_backfill.shared.auditing.owners import OwnerReader
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.engine.job import (
    Alone,
    Failed,
    Job,
    Left,
    Metric,
    Note,
    Problem,
    Run,
    RunFailed,
    RunResult,
    Section,
    StopRun,
    Verification,
    Wait,
)
from artwork_backfill.shared.engine.runs import RUN_TABLES
from artwork_backfill.shared.engine.session import Session, holds
from artwork_backfill.shared.engine.sources import Claims
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.id_set import IdSet
from artwork_backfill.shared.settings import Settings

#: How often a run handles what a trigger missed, in seconds.
_TIDY_EVERY_S: Final = 60.0

#: How long the end of a run waits for the counts of statuses, in seconds.
_COUNTS_S: Final = 10.0

#: How long reading the entities of a batch may take at the permitted rate, in seconds.
_BATCH_S: Final = 60.0

_LACKS_EDITS: Final = """
SELECT NOT EXISTS (SELECT FROM musicbrainz.edit)
AND EXISTS (SELECT FROM cover_art_archive.cover_art WHERE edit IS NOT NULL)
"""


class Xml(StrEnum):
    """How the mb_metadata.xml of releases is audited, see `shared.audit.compare_xml`."""

    EXACT = "exact"
    SCREEN = "screen"


class AuditBatch(Job[Claim, Audit]):
    """Audit every unchecked entity once.

    Parameters
    ----------
    limits
        The share of artwork-indexer's queue and time that the audit may take.
    policy
        The findings to act on.
    services
        The services to ask; by default, those of the settings.
    xml
        How to audit the XML of releases.
    """

    name: ClassVar[str] = "audit-batch"
    database = Settings.musicbrainz_database
    tables: ClassVar[tuple[Table, ...]] = (
        *TABLES,
        Table("musicbrainz.edit"),
        Table(
            "artwork_indexer.event_queue",
            ("SELECT", "INSERT", "UPDATE", "DELETE"),
            updated=("state",),
        ),
        Table("artwork_indexer.audit_event", ("SELECT", "INSERT", "UPDATE", "DELETE")),
        Table("artwork_indexer.audit_entity", ("SELECT", "UPDATE")),
        Table("artwork_indexer.needs_manual_review", ("SELECT", "INSERT", "UPDATE")),
        Table("artwork_indexer.audit_result", ("SELECT", "INSERT")),
        Table("artwork_indexer.audit_streak", ("SELECT", "INSERT", "UPDATE", "DELETE")),
        Table("artwork_indexer.audit_passed", ("SELECT", "INSERT", "DELETE")),
        Table("artwork_indexer.repair_tally", ("SELECT", "INSERT", "UPDATE")),
        Table("artwork_indexer.audit_tally", ("SELECT", "INSERT", "UPDATE")),
        Table("artwork_indexer.finding_tally", ("SELECT", "INSERT", "UPDATE")),
        Table("artwork_indexer.audit_status_history", ("SELECT", "INSERT")),
        *RUN_TABLES,
    )
    # For `--xml screen`, see `shared.auditing.facts`.
    optional_tables: ClassVar[tuple[Table, ...]] = (
        Table("musicbrainz.artist"),
        Table("musicbrainz.artist_credit_name"),
        Table("musicbrainz.language"),
        Table("musicbrainz.release_event"),
    )
    batch_size: ClassVar[int] = 200
    max_batch_size: ClassVar[int] = 500
    concurrency: ClassVar[int] = 16

    def __init__(
        self,
        run: Run,
        limits: Limits,
        policy: Policy,
        services: Services | None = None,
        *,
        xml: Xml = Xml.EXACT,
    ) -> None:
        super().__init__(run)
        if xml is Xml.SCREEN:
            self.more_tables = self.optional_tables
        self._guardrails = Guardrails(limits)
        self._services = services or Services.from_settings(
            run.settings, concurrency=run.options.concurrency, stop_flag=run.stop_flag
        )
        run.use(self._services.archive)
        run.use(self._services.musicbrainz)
        run.measure(gauges.read)
        owners = OwnerReader(run.session())
        self._examiner = Examiner(self._services, owners.read, policy, stop_flag=run.stop_flag)
        self._writer = Writer(run.id, self._guardrails.max_depth)
        partition = run.options.partition
        self._claims = Claims(
            claims.TABLE,
            run.record,
            claims.claim,
            room=self._room,
            complete=bind(add_expectations, screen=xml is Xml.SCREEN),
            taken=self._guardrails.claimed,
            tended=self._tidy,
            failed=lambda conn, failed: writing.fail(conn, failed, run.id),
            reclaimed=lambda conn, ids: writing.count_dead(conn, ids, run.id),
            reserve=claims.Reserve(policy, partition),
            partition=partition,
            browse=claims.browse(partition),
        )
        self._statuses = tallies.StatusHistory(
            lambda: Session(run.open_connection, guard=run.record.guard, patience=0.0)
        )
        self._has_edits = False
        self._given_up: list[str] = []
        self._tidies_at = 0.0
        self._decided: dict[Status, IdSet] = {}
        self._findings: dict[str, FindingCount] = {}
        self._audited = 0
        self._deferred = 0
        self._unreadable = 0

    def source(self) -> Claims[Claim]:
        return self._claims

    def fetch(self, items: Sequence[Claim]) -> Sequence[Audit]:
        return [self._examiner.examine(claim) for claim in items]

    def groups(
        self, results: Sequence[Audit]
    ) -> Iterator[Sequence[Audit] | Alone[Audit] | Failed[Audit]]:
        rest: list[Audit] = []
        for audit, seen in zip(results, self._examiner.look_again(results), strict=True):
            # Here and not for all at once: facts that others may change must be read just before
            # the transaction that relies on them.
            confirmed = self._examiner.confirm_deletions(seen) if isinstance(seen, Audit) else seen
            match confirmed:
                case Failure():
                    yield Failed(audit, confirmed.message)
                case Audit() if queues(confirmed):
                    yield Alone([confirmed])
                case Audit():
                    rest.append(confirmed)
        if rest:
            yield rest

    def write(self, conn: Connection, results: Sequence[Audit]) -> AuditsWritten:
        if len(results) == 1 and queues(results[0]):
            return self._writer.queue(conn, results[0])
        return self._writer.write(conn, results)

    def preview(self, conn: Connection, results: Sequence[Audit]) -> AuditsWritten:
        return self._writer.preview(conn, results)

    def committed(self, written: AuditsWritten) -> None:
        if written.postponed:
            self._guardrails.postponed(written.postponed)
        for status, ids in written.decided.items():
            self._decided.setdefault(status, IdSet()).update(ids)
        for check, count in written.findings.items():
            self._findings[check] = self._findings.get(check, FindingCount(0, 0)) + count
        self._audited += written.counts.get("audited", 0)
        self._deferred += written.counts.get("deferred", 0)
        self._unreadable += written.unreadable

    def verify(
        self, conn: Connection, run: RunResult | None
    ) -> Iterator[Verification | Note | Problem | Left]:
        if run is None:
            dead = self._claims.count_dead(conn)
            yield Verification.equal("claims of dead runs", 0, dead, "audit-batch reclaims them")
        else:
            if not self.run.stop_flag.is_set():
                self._statuses.wait(_COUNTS_S)
            left = self._claims.count_held(conn)
            yield Verification.equal("claims of this run left over", 0, left)
            if run.is_complete:
                waiting = self._claims.count_waiting(conn, later=True)
                yield Left(waiting + self._claims.count_held_by_others(conn))
            yield from verification.verify_decisions(
                conn,
                self._decided,
                run_id=self.run.id,
                run_started=self._claims.started(conn),
            )
        yield from verification.verify_repairs_and_reviews(conn)
        yield from verification.missing_triggers(conn)
        self._given_up = tallies.repairs_given_up(conn)
        looked_at = self._audited + self._deferred
        if self._unreadable * 2 > looked_at:
            raise StopRun(
                f"{self._unreadable:,} of {looked_at:,} audits could not read what they needed;"
                " check the problems of the report, and run again later"
            )

    def sections(self) -> Iterator[Section | str]:
        if self._findings:
            yield self._findings_section()
        yield from self._given_up
        if warning := self._examiner.listings.warning():
            yield warning
        yield from self._next_steps()

    def _next_steps(self) -> Iterator[str]:
        repairs = len(self._decided.get(Status.REPAIR_QUEUE, ()))
        reviews = len(self._decided.get(Status.MANUAL_REVIEW, ()))
        if self.run.options.dry_run:
            if repairs or reviews:
                yield f"{repairs:,} entities would be repaired, and {reviews:,} wait for a person."
            return
        if repairs:
            yield (
                f"{repairs:,} entities are in repair; run audit-batch again after"
                " artwork-indexer has worked, to prove the repairs."
            )
        if reviews:
            yield (
                f"{reviews:,} entities wait for a person; `artwork-backfill review list`"
                " shows them."
            )

    def _findings_section(self) -> Section:
        found = sorted(self._findings.items())
        return Section(
            "findings",
            "Findings",
            ("Check", "Entities", "Findings", "Share of audited"),
            tuple(
                (
                    check,
                    f"{count.entities:,}",
                    f"{count.findings:,}",
                    f"{count.entities / self._audited:.1%}",
                )
                for check, count in found
            ),
            {
                check: {"entities": count.entities, "findings": count.findings}
                for check, count in found
            },
            metrics=(
                Metric(
                    "findings",
                    "Findings of this run, by check.",
                    [({"check": check}, count.findings) for check, count in found],
                    is_counter=True,
                ),
                Metric(
                    "finding_entities",
                    "Entities of this run with findings, by check.",
                    [({"check": check}, count.entities) for check, count in found],
                    is_counter=True,
                ),
            ),
        )

    def _tidy(self, session: Session) -> None:
        """Clean up the tables and store the counts of statuses, from time to time."""
        if time.monotonic() >= self._tidies_at:
            claims.tidy(session)
            self._statuses.keep()
            self._tidies_at = time.monotonic() + _TIDY_EVERY_S

    def _room(self, conn: Connection, size: int) -> int | Wait:
        """Return how many entities may be claimed now."""
        if not self._has_edits:
            self._check_edits(conn)
        return self._guardrails.room(conn, min(size, self._most_at_once()))

    def _check_edits(self, conn: Connection) -> None:
        """Ensure that the database shows which images are approved.

        Raises
        ------
        RunFailed
            The database is a replica without MusicBrainz's edits.
        """
        if holds(conn, _LACKS_EDITS):
            raise RunFailed(
                "this database has cover art but no edits, like a replica without the edit tables:"
                " every image would count as not approved; use a database with edits"
            )
        self._has_edits = True

    def _most_at_once(self) -> int:
        """Return how many entities can be read within a minute at the permitted rate.

        Anything read earlier may be out of date when it is written.
        """
        rate = self._services.rate
        return sys.maxsize if rate is None else max(1, int(rate * _BATCH_S))
