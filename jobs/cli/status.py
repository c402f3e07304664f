"""How far the audit has come: entities, claims, reviews, repairs, and artwork-indexer's queue."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from artwork_backfill.shared.engine.tables import Table
from psycopg import Connection
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable

TABLES: Final = (
    Table("artwork_indexer.event_queue"),
    Table("artwork_indexer.audit_entity"),
    Table("artwork_indexer.needs_manual_review"),
    Table("artwork_indexer.audit_result"),
)

_ENTITIES: Final = """
SELECT entity_type::text, status::text, priority, count(*)
FROM artwork_indexer.audit_entity
GROUP BY entity_type, status, priority
ORDER BY entity_type DESC, priority DESC, status
"""

_OLDEST_CLAIM: Final = """
SELECT now() - min(last_audit_at)
FROM artwork_indexer.audit_entity
WHERE status = 'audit_in_progress'
"""

_OPEN_REVIEWS: Final = """
SELECT count(*), now() - min(created_at)
FROM artwork_indexer.needs_manual_review
WHERE status = 'open'
"""

# Where the entities stand for which an audit has ever queued events.
_REPAIRED: Final = """
SELECT status::text, count(*)
FROM artwork_indexer.audit_entity entity
WHERE EXISTS (
    SELECT
    FROM artwork_indexer.audit_result result
    WHERE result.audit_entity_id = entity.id AND result.event_ids <> '{}'
)
GROUP BY status
"""

_QUEUE: Final = """
SELECT state::text, count(*), now() - min(created)
FROM artwork_indexer.event_queue
GROUP BY event_queue.state
ORDER BY event_queue.state
"""

#: The statuses in the order in which an entity passes through them, and as headings.
_STATUSES: Final = {
    "unchecked": "unchecked",
    "audit_in_progress": "claimed",
    "clean": "clean",
    "repair_queue": "repair",
    "manual_review": "review",
    "legacy": "legacy",
}


@dataclass(frozen=True, slots=True)
class EntityCount:
    """So many entities of a type have this status and priority."""

    entity_type: str
    status: str
    priority: int
    entities: int


@dataclass(frozen=True, slots=True)
class Repairs:
    """The entities for which events were ever queued, by how far their repair has come.

    `under_way`: events are queued or running. `to_prove`: carried out, the next audit shows whether
    they hold. `proved`: an audit found the entity clean since. `in_review`: a person has to look.
    """

    under_way: int
    to_prove: int
    proved: int
    in_review: int


@dataclass(frozen=True, slots=True)
class QueueCount:
    """So many events of artwork-indexer are in this state, the oldest of them for so long."""

    state: str
    events: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """Everything `status` shows; ages are in seconds, `None` where there is nothing to be old."""

    entities: tuple[EntityCount, ...]
    oldest_claim_s: float | None
    open_reviews: int
    oldest_review_s: float | None
    repairs: Repairs
    queue: tuple[QueueCount, ...]


def read(conn: Connection) -> AuditStatus:
    """Read the status from one consistent snapshot of the database."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        ((claim_age,),) = conn.execute(_OLDEST_CLAIM).fetchall()
        ((open_reviews, review_age),) = conn.execute(_OPEN_REVIEWS).fetchall()
        return AuditStatus(
            entities=tuple(EntityCount(*row) for row in conn.execute(_ENTITIES)),
            oldest_claim_s=_seconds(claim_age),
            open_reviews=open_reviews,
            oldest_review_s=_seconds(review_age),
            repairs=_repairs(dict(conn.execute(_REPAIRED).fetchall())),
            queue=tuple(
                QueueCount(state, events, age.total_seconds())
                for state, events, age in conn.execute(_QUEUE)
            ),
        )


def _repairs(entities: dict[str, int]) -> Repairs:
    count = Counter(entities)
    return Repairs(
        under_way=count["repair_queue"],
        to_prove=count["unchecked"] + count["audit_in_progress"],
        proved=count["clean"] + count["legacy"],
        in_review=count["manual_review"],
    )


def _seconds(age: timedelta | None) -> float | None:
    return None if age is None else age.total_seconds()


# -- shown -------------------------------------------------------------------------------------


def to_json(status: AuditStatus) -> str:
    """Return the status as a JSON document."""
    return json.dumps(asdict(status), indent=2)


def to_terminal(status: AuditStatus) -> RenderableType:
    """Return the status as rich tables."""
    return Group(
        _entities_table(status.entities),
        _table("Repairs", ("How far", "Entities"), _repair_rows(status.repairs)),
        _table("Waiting for people", ("What", "How many", "Oldest"), _waiting_rows(status)),
        _table(
            "artwork-indexer's queue",
            ("State", "Events", "Oldest"),
            [(count.state, f"{count.events:,}", _age(count.oldest_s)) for count in status.queue],
        ),
    )


def _entities_table(entities: Sequence[EntityCount]) -> RichTable:
    """Return the entities with a row per type and priority and a column per status."""
    classes: dict[tuple[str, int], Counter[str]] = {}
    for count in entities:
        row = classes.setdefault((count.entity_type, count.priority), Counter())
        row[count.status] += count.entities
    total: Counter[str] = sum(classes.values(), Counter())
    rows = [
        (entity_type, str(priority), *_counts(counts))
        for (entity_type, priority), counts in classes.items()
    ]
    rows.append(("all", "", *_counts(total)))
    return _table("Entities", ("Type", "Prio", *_STATUSES.values(), "all"), rows)


def _counts(counts: Counter[str]) -> list[str]:
    """Return the cells of a row: a number per status, and their sum."""
    numbers = [*(counts[status] for status in _STATUSES), counts.total()]
    return [f"{number:,}" if number else "" for number in numbers]


def _repair_rows(repairs: Repairs) -> list[tuple[str, str]]:
    return [
        ("under way", f"{repairs.under_way:,}"),
        ("carried out, to be proved by an audit", f"{repairs.to_prove:,}"),
        ("proved", f"{repairs.proved:,}"),
        ("in review", f"{repairs.in_review:,}"),
    ]


def _waiting_rows(status: AuditStatus) -> list[tuple[str, str, str]]:
    claims = sum(count.entities for count in status.entities if count.status == "audit_in_progress")
    return [
        ("open reviews", f"{status.open_reviews:,}", _age(status.oldest_review_s)),
        ("claims of runs", f"{claims:,}", _age(status.oldest_claim_s)),
    ]


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> RichTable:
    table = RichTable(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _age(seconds: float | None) -> str:
    """Return an age as people say it: to the minute, hour or day."""
    if seconds is None:
        return "none"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} s"
