"""Lists as groups: the number and age of reviews and failed events of each kind.

The kind of a review is the code of a reason, or the check if the reason is a plain finding. The
kind of a failed event is its action and its failure without the parts that differ from event to
event.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from psycopg import Connection

from artwork_backfill.shared.review.questions import (
    EVENT_CONDITIONS,
    REVIEW_CONDITIONS,
    WITH_FAILURES,
    EventFilter,
    ReviewFilter,
    event_values,
    review_values,
)


@dataclass(frozen=True, slots=True)
class Extent:
    """The length of a list, and the largest id in it: later rows do not belong to it."""

    count: int
    last_id: int


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one kind; `text` and `action` are for the filter of failed events."""

    kind: str
    count: int
    oldest: datetime
    text: str = ""
    action: str | None = None


#: The number of groups that are shown, largest first.
GROUPS: Final = 12

_COUNT_REVIEWS: Final = f"""
SELECT count(*), coalesce(max(review.id), 0)
FROM artwork_indexer.needs_manual_review review
JOIN artwork_indexer.audit_entity entity ON entity.id = review.audit_entity_id
WHERE {REVIEW_CONDITIONS}
"""  # noqa: S608

_COUNT_EVENTS: Final = f"""
SELECT count(*), coalesce(max(event.id), 0)
FROM {WITH_FAILURES}
WHERE {EVENT_CONDITIONS}
"""  # noqa: S608

# A review with reasons of several kinds is in the group of each.
_REVIEW_GROUPS: Final = f"""
SELECT kind, count(*), min(created_at)
FROM (
    SELECT DISTINCT review.id, review.created_at,
           CASE reason->>'code' WHEN 'finding' THEN reason->>'check'
                                ELSE reason->>'code' END AS kind
    FROM artwork_indexer.needs_manual_review review
    JOIN artwork_indexer.audit_entity entity ON entity.id = review.audit_entity_id
    CROSS JOIN LATERAL jsonb_array_elements(review.reasons) AS reason
    WHERE {REVIEW_CONDITIONS}
) AS review
GROUP BY kind
ORDER BY count(*) DESC, kind
LIMIT %(groups)s
"""  # noqa: S608

# URLs, ids and numbers differ from event to event; a status of three digits stays.
_EVENT_GROUPS: Final = f"""
SELECT action, kind, count(*), min(created)
FROM (
    SELECT event.action::text, event.created,
           left(regexp_replace(regexp_replace(regexp_replace(
               coalesce(failed.failure, 'no reason kept'),
               'https?://[^[:space:]]+', '…', 'g'),
               '[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}', '…', 'gi'),
               '[0-9]{{4,}}', '…', 'g'), 80) AS kind
    FROM {WITH_FAILURES}
    WHERE {EVENT_CONDITIONS}
) AS event
GROUP BY action, kind
ORDER BY count(*) DESC, action, kind
LIMIT %(groups)s
"""  # noqa: S608


def count_reviews(conn: Connection, wanted: ReviewFilter) -> Extent:
    """Return the number of reviews in a list."""
    ((count, last_id),) = conn.execute(_COUNT_REVIEWS, review_values(wanted)).fetchall()
    return Extent(count, last_id)


def count_failed_events(conn: Connection, wanted: EventFilter) -> Extent:
    """Return the number of failed events in a list."""
    ((count, last_id),) = conn.execute(_COUNT_EVENTS, event_values(wanted)).fetchall()
    return Extent(count, last_id)


def group_reviews(conn: Connection, wanted: ReviewFilter) -> list[Group]:
    """Return the kinds of reviews in a list, regardless of its own kind, most frequent first."""
    values = review_values(replace(wanted, kind=None)) | {"groups": GROUPS}
    return [
        Group(kind, count, oldest, kind)
        for kind, count, oldest in conn.execute(_REVIEW_GROUPS, values)
    ]


def group_failed_events(conn: Connection, wanted: EventFilter) -> list[Group]:
    """Return the kinds of failed events in a list, most frequent first."""
    values = event_values(wanted) | {"groups": GROUPS}
    return [
        Group(kind, count, oldest, max(kind.split("…"), key=len).strip(), action)
        for action, kind, count, oldest in conn.execute(_EVENT_GROUPS, values)
    ]
