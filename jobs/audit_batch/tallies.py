"""Counts of findings over time, and of repairs that held.

The counts are kept by hour and run, so that runs that work at the same time never wait for each
other's rows. The findings of each entity are in `audit_result`, which `writing` fills.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from threading import Thread
from typing import Final
from uuid import UUID

import psycopg
from psycopg import Connection

from artwork_backfill.shared.audit.decide import PROOFS, Decision, Status
from artwork_backfill.shared.auditing.models import Audit
from artwork_backfill.shared.engine.job import StopRun
from artwork_backfill.shared.engine.session import Session, explain, holds, plain_array

log = logging.getLogger(__name__)

_HOUR_S: Final = 3600.0

#: The time limit of a count of the statuses.
_COUNT_TIMEOUT: Final = "2min"

#: The number of entities of each batch and check that are kept as examples.
EXAMPLES: Final = 5

_ADD_AUDITS: Final = """
INSERT INTO artwork_indexer.audit_tally AS tally (run_id, hour, outcome, audits, events)
SELECT %(run_id)s, date_trunc('hour', now()), batch.*
FROM unnest(%(outcomes)s::text[], %(audits)s::bigint[], %(events)s::bigint[]) AS batch
ON CONFLICT (run_id, hour, outcome) DO UPDATE
SET audits = tally.audits + excluded.audits,
    events = tally.events + excluded.events,
    last_at = now()
"""

# An array of arrays must be rectangular, so the examples are text.
_ADD_FINDINGS: Final = """
INSERT INTO artwork_indexer.finding_tally AS tally
    (run_id, hour, check_name, entities, findings, examples)
SELECT %(run_id)s, date_trunc('hour', now()), check_name, entities, findings, examples::bigint[]
FROM unnest(%(checks)s::text[], %(entities)s::bigint[], %(findings)s::bigint[],
            %(examples)s::text[])
     AS batch (check_name, entities, findings, examples)
ON CONFLICT (run_id, hour, check_name) DO UPDATE
SET entities = tally.entities + excluded.entities,
    findings = tally.findings + excluded.findings,
    examples = excluded.examples
"""

# A repair that holds ends the series of those that did not.
_ADD_PROOFS: Final = """
INSERT INTO artwork_indexer.repair_tally AS tally (check_name, held, not_held, not_held_in_a_row)
SELECT * FROM unnest(%(checks)s::text[], %(held)s::bigint[], %(not_held)s::bigint[],
                     %(in_a_row)s::bigint[])
ON CONFLICT (check_name) DO UPDATE
SET held = tally.held + excluded.held,
    not_held = tally.not_held + excluded.not_held,
    not_held_in_a_row = excluded.not_held_in_a_row
        + CASE WHEN excluded.held = 0 THEN tally.not_held_in_a_row ELSE 0 END,
    last_at = now()
"""

_REPAIRS: Final = """
SELECT check_name, held, not_held
FROM artwork_indexer.repair_tally
WHERE not_held_in_a_row >= %(proofs)s
ORDER BY check_name
"""

_IS_RECENT: Final = """
SELECT EXISTS (
    SELECT
    FROM artwork_indexer.audit_status_history
    WHERE taken_at > now() - interval '1 hour')
"""

# A separate SELECT may use several processes; an INSERT ... SELECT may not.
_COUNT_STATUSES: Final = """
SELECT status::text, count(*) FROM artwork_indexer.audit_entity GROUP BY status
"""

_KEEP_STATUSES: Final = """
INSERT INTO artwork_indexer.audit_status_history (taken_at, status, entities)
SELECT now(), status::artwork_indexer.audit_entity_status, entities
FROM unnest(%(statuses)s::text[], %(entities)s::bigint[]) AS counted (status, entities)
"""


def add(conn: Connection, audits: Sequence[Audit], run_id: UUID) -> None:
    """Count decided audits, in the transaction that writes them."""
    outcomes: Counter[Status] = Counter()
    events: Counter[Status] = Counter()
    findings: Counter[str] = Counter()
    entities: dict[str, list[int]] = {}
    for audit in audits:
        if not isinstance(audit.outcome, Decision):
            continue
        outcomes[audit.outcome.status] += 1
        events[audit.outcome.status] += len(audit.outcome.events)
        checks = [finding.check for finding in audit.findings]
        findings.update(checks)
        for check in set(checks):
            entities.setdefault(check, []).append(audit.claim.entity.id)
    # In a fixed order, because every writer of several rows should lock them in the same order.
    statuses = sorted(outcomes)
    checks = sorted(entities)
    if statuses:
        conn.execute(
            _ADD_AUDITS,
            {
                "run_id": run_id,
                "outcomes": [status.value for status in statuses],
                "audits": [outcomes[status] for status in statuses],
                "events": [events[status] for status in statuses],
            },
        )
    if checks:
        conn.execute(
            _ADD_FINDINGS,
            {
                "run_id": run_id,
                "checks": checks,
                "entities": [len(entities[check]) for check in checks],
                "findings": [findings[check] for check in checks],
                "examples": [plain_array(entities[check][-EXAMPLES:]) for check in checks],
            },
        )


def add_proofs(conn: Connection, proofs: Sequence[Mapping[str, bool]]) -> None:
    """Count whether repairs held, in the order of the audits that proved them."""
    outcomes: dict[str, list[bool]] = {}
    for judged in proofs:
        for check, held in judged.items():
            outcomes.setdefault(check, []).append(held)
    if not outcomes:
        return
    checks = sorted(outcomes)
    conn.execute(
        _ADD_PROOFS,
        {
            "checks": checks,
            "held": [sum(outcomes[check]) for check in checks],
            "not_held": [len(outcomes[check]) - sum(outcomes[check]) for check in checks],
            "in_a_row": [_not_held_at_the_end(outcomes[check]) for check in checks],
        },
    )


def repairs_given_up(conn: Connection) -> list[str]:
    """Return a sentence for each check that is not repaired any more."""
    return [
        f"{check} is not repaired any more, because its repairs do not hold: {held:,} held and"
        f" {not_held:,} did not, including the last {PROOFS}. Its findings are for archive.org's"
        " staff; run `artwork-backfill review export`."
        for check, held, not_held in conn.execute(_REPAIRS, {"proofs": PROOFS})
    ]


def _not_held_at_the_end(outcomes: Sequence[bool]) -> int:
    return next((n for n, held in enumerate(reversed(outcomes)) if held), len(outcomes))


class StatusHistory:
    """Store the number of entities by status, once an hour.

    Counting millions of entities takes time. It uses a thread and a session of its own, so that no
    batch waits for it. A failed count is a warning, and the next one is an hour later.

    Parameters
    ----------
    session
        Opens a session that retries nothing.
    clock
        A monotonic clock, in seconds.
    """

    def __init__(
        self, session: Callable[[], Session], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session = session
        self._clock = clock
        self._due_at = -math.inf
        self._thread: Thread | None = None

    def keep(self) -> None:
        """Start to count, unless this or another run did so within the last hour."""
        if self._clock() < self._due_at or (self._thread and self._thread.is_alive()):
            return
        self._due_at = self._clock() + _HOUR_S
        # A daemon thread: the process can end without waiting for it.
        self._thread = Thread(target=self._keep, name="statuses", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until the latest count is stored, but not for long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _keep(self) -> None:
        try:
            with closing(self._session()) as session:
                counted = session.transaction(
                    _count_statuses, read_only=True, statement_timeout=_COUNT_TIMEOUT
                )
                if counted:
                    session.transaction(lambda conn: _keep_statuses(conn, counted))
        except StopRun:
            # The next transaction of the run finds that out as well.
            log.debug("the numbers of entities by status were not stored: the run was given up")
        except psycopg.Error as error:
            log.warning("the numbers of entities by status were not stored: %s", explain(error))


def _count_statuses(conn: Connection) -> dict[str, int]:
    if holds(conn, _IS_RECENT):
        return {}
    return dict(conn.execute(_COUNT_STATUSES).fetchall())


def _keep_statuses(conn: Connection, counted: Mapping[str, int]) -> None:
    if not holds(conn, _IS_RECENT):
        values = {"statuses": list(counted), "entities": list(counted.values())}
        conn.execute(_KEEP_STATUSES, values)
