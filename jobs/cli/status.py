"""The status of the audit as tables and JSON; `shared.review.status` does the counting."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from psycopg import Connection
from rich.console import Group, RenderableType
from rich.text import Text

from artwork_backfill.jobs.cli import run_views, views
from artwork_backfill.shared.audit.decide import Status
from artwork_backfill.shared.review import runs
from artwork_backfill.shared.review.runs import Hold, Run
from artwork_backfill.shared.review.status import AuditStatus, EntityCount

#: The maximum number of working runs to show.
_MOST_RUNS: Final = 1000

#: The statuses in the order in which an entity passes through them, with their column headings.
_STATUSES: Final = {
    Status.UNCHECKED: "unchecked",
    Status.IN_PROGRESS: "claimed",
    Status.CLEAN: "clean",
    Status.REPAIR_QUEUE: "repair",
    Status.MANUAL_REVIEW: "review",
    Status.LEGACY: "legacy",
}


def read_at_work(conn: Connection) -> tuple[list[Run], list[Hold]]:
    """Return the working runs and the held jobs; none if the role may not read them."""
    if not runs.may_read(conn):
        return [], []
    return runs.list_runs(conn, _MOST_RUNS, ended=False), runs.list_holds(conn)


def to_json(status: AuditStatus, at_work: Sequence[Run], holds: Sequence[Hold]) -> str:
    """Return the status as a JSON document."""
    shown = asdict(status) | {
        "runs": list(map(run_views.to_dict, at_work)),
        "holds": list(map(asdict, holds)),
    }
    return json.dumps(shown, indent=2, default=str)


def to_terminal(
    status: AuditStatus, at_work: Sequence[Run], holds: Sequence[Hold]
) -> RenderableType:
    """Return the status as tables for a terminal."""
    repairs = status.repairs
    claims = sum(count.entities for count in status.entities if count.status == Status.IN_PROGRESS)
    return Group(
        _entities_table(status.entities),
        _counts_table(
            "Repairs",
            ("State", "Entities"),
            [
                ("queued or running", f"{repairs.under_way:,}"),
                ("completed, to be proved by an audit", f"{repairs.to_prove:,}"),
                ("proved", f"{repairs.proved:,}"),
                ("in review", f"{repairs.in_review:,}"),
            ],
        ),
        _counts_table(
            "Waiting for people",
            ("What", "Number", "Oldest"),
            [
                ("open reviews", f"{status.open_reviews:,}", _age(status.oldest_review_s)),
                ("claims of runs", f"{claims:,}", _age(status.oldest_claim_s)),
            ],
        ),
        _counts_table(
            "artwork-indexer's queue",
            ("State", "Events", "Oldest"),
            [(count.state, f"{count.events:,}", _age(count.oldest_s)) for count in status.queue],
        ),
        *_trigger_warnings(status.missing_triggers),
        Text("\nRuns", style="bold"),
        run_views.runs_table(at_work),
        *([run_views.holds_table(holds)] if holds else []),
    )


def _entities_table(entities: Sequence[EntityCount]) -> RenderableType:
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
    return _counts_table("Entities", ("Type", "Prio", *_STATUSES.values(), "all"), rows)


def _counts(counts: Counter[str]) -> list[str]:
    """Return the cells of a row: a number per status, and the sum."""
    numbers = [*(counts[status] for status in _STATUSES), counts.total()]
    return [f"{number:,}" if number else "" for number in numbers]


def _trigger_warnings(missing: Mapping[str, str]) -> list[str]:
    return [
        f"\nWarning: trigger {name} is missing or disabled: {meaning}."
        " Run `artwork-backfill migrate`,"
        f" or ALTER TABLE artwork_indexer.event_queue ENABLE TRIGGER {name}."
        for name, meaning in missing.items()
    ]


def _counts_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> RenderableType:
    return views.table(columns, rows, title=title, has_numbers=True)


def _age(seconds: float | None) -> str:
    """Return an age, rounded to minutes, hours or days."""
    if seconds is None:
        return "none"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} s"
