"""A database, stand-ins and the command line, and what an audit has left behind in them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from sandbox.entities import EntityType
from sandbox.services import Services
from tests import programs

Key = tuple[EntityType, str]
"""Names an entity: its type and gid."""

_SEED = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid)
SELECT * FROM unnest(%s::artwork_indexer.indexable_entity_type[], %s::uuid[])
"""

_STATUSES = """
SELECT entity_type::text, gid::text, status::text, coalesce(last_audit_at >= %s, false)
FROM artwork_indexer.audit_entity
"""

_EVENTS = """
SELECT id, entity_type::text, action::text, message, coalesce(depends_on, '{}')
FROM artwork_indexer.event_queue WHERE id <> ALL (%s) ORDER BY id
"""

_REVIEWS = """
SELECT entity_type::text, gid::text, review_reason
FROM artwork_indexer.needs_manual_review review
JOIN artwork_indexer.audit_entity entity ON entity.id = review.audit_entity_id
WHERE review.status = 'open'
"""

_CHECKS = """
SELECT entity_type::text, gid::text, finding->>'check'
FROM artwork_indexer.audit_result result
JOIN artwork_indexer.audit_entity entity ON entity.id = result.audit_entity_id
CROSS JOIN jsonb_array_elements(findings) AS finding
WHERE result.id > %s
"""


@dataclass(frozen=True, slots=True)
class Queued:
    """An event as far as an audit decides about it. `after` are the events it depends on."""

    action: str
    gid: str
    artwork_id: int | None = None
    suffix: str | None = None
    after: frozenset[Queued] = frozenset()

    def __str__(self) -> str:
        image = f" {self.artwork_id}.{self.suffix}" if self.artwork_id else ""
        after = f" after {len(self.after)}" if self.after else ""
        return f"{self.action}{image}{after}"


@dataclass(slots=True)
class Found:
    """What a run has left of one entity; `audited` says whether it has audited it."""

    status: str
    audited: bool
    events: set[Queued] = field(default_factory=set)
    reason: str | None = None
    checks: set[str] = field(default_factory=set)


class Place:
    """Where audits are run.

    Parameters:
        dsn: a migrated database.
        services: the stand-ins.
    """

    def __init__(self, dsn: str, services: Services) -> None:
        self.conn = psycopg.connect(dsn, autocommit=True)
        self._environment = {"MUSICBRAINZ_DATABASE_URL": dsn, **services.environment}

    def seed(self, keys: Iterable[Key]) -> None:
        """Let some entities wait for an audit."""
        pairs = [(str(entity_type), gid) for entity_type, gid in keys]
        types, gids = ([pair[place] for pair in pairs] for place in (0, 1))
        self.conn.execute(_SEED, (types, gids))

    def audit(self, *options: str, seconds: float = 900) -> tuple[dict[Key, Found], dict[str, Any]]:
        """Run audit-batch to its end, which must be a good one.

        Return what it has left of every entity, and its report.
        """
        before = [row[0] for row in self.conn.execute(_EVENTS, ([],))]
        results = "SELECT coalesce(max(id), 0) FROM artwork_indexer.audit_result"
        (last,) = self.conn.execute(results).fetchone() or (0,)
        (began,) = self.conn.execute("SELECT clock_timestamp()").fetchone() or (None,)
        ran = programs.run(
            ["audit-batch", "--max-queue-depth", "0", "--batch-size", "1000", *options],
            self._environment,
            seconds=seconds,
        )
        assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
        report = json.loads(ran.stdout.splitlines()[-1])["report"]
        return self._found(began, before, last), report

    def _found(
        self, began: datetime | None, before: list[int], last_result: int
    ) -> dict[Key, Found]:
        found = {
            (EntityType(kind), gid): Found(status, audited)
            for kind, gid, status, audited in self.conn.execute(_STATUSES, (began,))
        }
        queued: dict[int, Queued] = {}
        for event, kind, action, message, depends_on in self.conn.execute(_EVENTS, (before,)):
            after = frozenset(queued[other] for other in depends_on)
            assert message.keys() <= {"gid", "artwork_id", "suffix"}, message
            gid, artwork_id = message["gid"], message.get("artwork_id")
            queued[event] = Queued(action, gid, artwork_id, message.get("suffix"), after)
            found[EntityType(kind), gid].events.add(queued[event])
        for kind, gid, reason in self.conn.execute(_REVIEWS):
            found[EntityType(kind), gid].reason = reason
        for kind, gid, check in self.conn.execute(_CHECKS, (last_result,)):
            found[EntityType(kind), gid].checks.add(check)
        return found

    def close(self) -> None:
        self.conn.close()
