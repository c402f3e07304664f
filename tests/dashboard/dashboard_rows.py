"""Rows for the dashboard's tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from artwork_backfill.shared.review import questions
from artwork_backfill.shared.review.lists import Page
from artwork_backfill.shared.review.questions import Review, ReviewFilter, ReviewStatus

HOSTILE = "**bold** <img src=x onerror=alert(1)> [link](javascript:alert(1)) :red[red] $x$ \u202e"
RUN = UUID("11111111-2222-4333-8444-555555555555")


@dataclass(frozen=True)
class Rows:
    """Puts rows in, and reads them back."""

    conn: psycopg.Connection

    def entity(
        self,
        gid: UUID | None = None,
        status: str = "manual_review",
        entity_type: str = "release",
        priority: int = 100,
    ) -> int:
        return self.value(
            "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status, priority)"
            " VALUES (%s, %s, %s, %s) RETURNING id",
            *(entity_type, gid or uuid4(), status, priority),
        )

    def review(
        self,
        reason: str = "item.dark: the item is dark",
        *,
        entity: int | None = None,
        status: str = "open",
        kind: str | None = None,
        **of_entity: Any,
    ) -> Review:
        """A review as a person sees it, with an entity of its own unless given."""
        id_ = self.value(
            "INSERT INTO artwork_indexer.needs_manual_review"
            " (audit_entity_id, review_reason, status, reasons)"
            " VALUES (%s, %s, %s, %s) RETURNING id",
            *(entity or self.entity(**of_entity), reason, status),
            Jsonb([{"code": kind or "finding", "check": reason.partition(": ")[0], "subject": ""}]),
        )
        return self.seen(id_)

    def seen(self, review_id: int) -> Review:
        review = questions.REVIEWS.find(self.conn, review_id)
        assert review is not None
        return review

    def reviews(self) -> list[Review]:
        every = ReviewFilter(statuses=tuple(ReviewStatus))
        return questions.REVIEWS.page(self.conn, every, Page(10_000))

    def audit(self, entity: int, *findings: dict[str, object]) -> int:
        return self.value(
            "INSERT INTO artwork_indexer.audit_result (audit_entity_id, run_id, outcome, findings)"
            " VALUES (%s, %s, 'manual_review', %s) RETURNING id",
            *(entity, RUN, Jsonb(list(findings))),
        )

    def event(
        self,
        gid: UUID | None = None,
        *,
        action: str = "index",
        state: str = "failed",
        depends_on: list[int] | None = None,
        failure: str | None = None,
    ) -> int:
        id_ = self.value(
            "INSERT INTO artwork_indexer.event_queue"
            " (state, entity_type, action, message, depends_on, attempts)"
            " VALUES (%s, 'release', %s, %s, %s, 5) RETURNING id",
            *(state, action, Jsonb({"gid": str(gid or uuid4())}), depends_on),
        )
        if failure is not None:
            self.conn.execute(
                "INSERT INTO artwork_indexer.event_failure_reason (event, failure_reason)"
                " VALUES (%s, %s)",
                (id_, failure),
            )
        return id_

    def value(self, query: str, *values: object) -> Any:
        row = self.conn.execute(query.encode(), values).fetchone()
        assert row is not None
        return row[0]
