"""A world with its services and its database, audited from the command line."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from sandbox.entities import Plan
from sandbox.indexer import Indexer
from sandbox.services import Services
from sandbox.world import World
from tests import programs
from tests.timing import LIMIT_S

COMMAND = Path(sys.executable).with_name("artwork-backfill")

SEED = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid)
SELECT * FROM unnest(%s::artwork_indexer.indexable_entity_type[], %s::uuid[])
"""

_FOUND = """
SELECT gid::text, status::text, coalesce((
    SELECT array_agg(DISTINCT finding->>'check' ORDER BY finding->>'check')
    FROM artwork_indexer.audit_result result, jsonb_array_elements(findings) AS finding
    WHERE result.audit_entity_id = entity.id), '{}')
FROM artwork_indexer.audit_entity entity
"""


@dataclass(slots=True)
class Place:
    """A world with its services and its database, in which every gid waits for an audit."""

    dsn: str
    world: World
    services: Services
    conn: psycopg.Connection
    plans: dict[str, Plan] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if "BACKFILL" not in name},
            "MUSICBRAINZ_DATABASE_URL": self.dsn,
            **self.services.environment,
        }

    def run(self, *options: object, job: str = "audit-batch", code: int = 0) -> dict[str, Any]:
        """Run a job to its end, with the given exit code; return its report."""
        arguments = [job, *map(str, options)]
        result = programs.run(arguments, self.environment, seconds=LIMIT_S)
        assert result.returncode == code, result.stdout + result.stderr
        report: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])["report"]
        return report

    def command(self, *arguments: object, code: int = 0) -> str:
        """Run any command; return what it says."""
        environment = {**self.environment, "BACKFILL_BY": "alice"}
        result = programs.run([*map(str, arguments)], environment, seconds=LIMIT_S)
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr

    def only(self, gid: str) -> None:
        """Let nothing but this gid wait for an audit."""
        self.conn.execute(
            "UPDATE artwork_indexer.audit_entity SET status = 'clean' WHERE gid <> %s", (gid,)
        )

    def event(self, gid: str, action: str = "delete_image") -> tuple[int, dict[str, Any]]:
        """The latest event of an entity: its id and message."""
        row = self.conn.execute(
            "SELECT id, message FROM artwork_indexer.event_queue"
            " WHERE action::text = %s AND message->>'gid' = %s ORDER BY id DESC LIMIT 1",
            (action, gid),
        ).fetchone()
        assert row is not None
        return row

    def found(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """By gid: its status, and every check that was ever found."""
        rows = self.conn.execute(_FOUND).fetchall()
        return {gid: (status, tuple(checks)) for gid, status, checks in rows}

    def value(self, query: str, *parameters: object) -> int:
        row = self.conn.execute(query.encode(), parameters or None).fetchone()
        assert row is not None
        return int(row[0])

    def indexer(self, seconds_per_event: float = 0.0) -> Indexer:
        """Return an indexer without the real one's pauses."""
        return Indexer(
            self.dsn,
            self.services.archive_url,
            self.services.musicbrainz_url,
            seconds_per_event=seconds_per_event,
            taking_s=0,
        )
