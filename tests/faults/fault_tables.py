"""What the jobs have brought about, as rows that two databases can be compared by.

Ids and times differ between any two runs; everything else may not. Rows of `audit_entity` and all
that hangs on them are kept by gid, so that a test can also tell which entities are half done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import psycopg

#: Every row that belongs to a gid, in a fixed order.
ByGid = dict[str, tuple[tuple[Any, ...], ...]]

_RUN_ID: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

_ROWS: Final = {
    "entity": """
        SELECT gid::text, entity_type::text, status::text, priority, last_audit_at IS NULL
        FROM artwork_indexer.audit_entity
    """,
    # What an event waits for, in words: ids are another database's.
    "event": """
        SELECT coalesce(message->>'gid', message->>'new_gid'), event.entity_type::text,
               event.action::text, event.message::text, event.state::text, event.attempts,
               (SELECT array_agg(parent.action::text || parent.message ORDER BY parent.message)
                FROM artwork_indexer.event_queue parent
                WHERE parent.id = ANY (event.depends_on))
        FROM artwork_indexer.event_queue event
    """,
    "review": f"""
        SELECT entity.gid::text, review.review_reason, review.status::text,
               regexp_replace(review.resolution_notes, '{_RUN_ID}', 'RUN'),
               review.resolved_at IS NULL
        FROM artwork_indexer.needs_manual_review review
        JOIN artwork_indexer.audit_entity entity ON entity.id = review.audit_entity_id
    """,
    "result": """
        SELECT entity.gid::text, result.outcome, result.findings::text,
               (SELECT array_agg(event.action::text || event.message::text ORDER BY event.message)
                FROM artwork_indexer.event_queue event
                WHERE event.id = ANY (result.event_ids)),
               cardinality(result.event_ids)
        FROM artwork_indexer.audit_result result
        JOIN artwork_indexer.audit_entity entity ON entity.id = result.audit_entity_id
    """,
}

_SCANS: Final = """
SELECT collection, has_rights, cursor, pages, identifiers, foreign_identifiers, gids, total
FROM artwork_indexer.ia_scan
"""

_UNTOUCHED: Final = ("unchecked", "audit_in_progress")


def audit_tables(dsn: str) -> ByGid:
    """Return every row of our tables and of the queue, by gid.

    Left out are audits that found a service without an answer, or whose run died, which leave a row
    behind and change nothing else, and the later ones that then found the entity clean.
    """
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    with psycopg.connect(dsn) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for table, query in _ROWS.items():
            for gid, *values in conn.execute(query.encode()):
                if table != "result" or not _is_of_trouble(*values):
                    found[gid].append((table, *values))
    return {gid: tuple(sorted(rows, key=repr)) for gid, rows in found.items()}


def _is_of_trouble(outcome: str, findings: str, *_: object) -> bool:
    return outcome == "unreadable" or (outcome in ("clean", "legacy") and findings == "[]")


def scan_tables(dsn: str) -> ByGid:
    """Return `audit_tables`, and where the scans of collections stand."""
    with psycopg.connect(dsn) as conn:
        scans = conn.execute(_SCANS.encode()).fetchall()
    return audit_tables(dsn) | {collection: (tuple(values),) for collection, *values in scans}


def library_rows(dsn: str) -> ByGid:
    """Return the artwork of every row of the library, by row id."""
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("SELECT id::text, artwork_url FROM wxyc_schema.library").fetchall()
    return {id_: ((url,),) for id_, url in rows}


def assert_same(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> None:
    """Fail with the first few differences, unless both hold the same rows."""
    wrong = [gid for gid in expected.keys() | actual.keys() if expected.get(gid) != actual.get(gid)]
    _fail_if(wrong, expected, actual, "other rows than an undisturbed run leaves")


def assert_nothing_is_half_done(expected: ByGid, actual: ByGid) -> None:
    """Fail unless every entity is either untouched or has all that an undisturbed run gives it."""
    wrong = [
        gid
        for gid, rows in actual.items()
        if _status(rows) not in _UNTOUCHED and rows != expected[gid]
    ]
    wrong += [gid for gid, rows in actual.items() if _status(rows) in _UNTOUCHED and len(rows) > 1]
    _fail_if(wrong, expected, actual, "half of what belongs to them")


def statuses(tables: ByGid) -> dict[str, int]:
    """Return how many entities have each status."""
    counts: dict[str, int] = defaultdict(int)
    for rows in tables.values():
        counts[_status(rows)] += 1
    return dict(counts)


def _status(rows: Iterable[tuple[Any, ...]]) -> str:
    return next(str(row[2]) for row in rows if row[0] == "entity")


def _fail_if(
    wrong: list[str], expected: Mapping[str, Any], actual: Mapping[str, Any], what: str
) -> None:
    shown = "\n".join(
        f"{gid}:\n  expected {expected.get(gid)}\n  found    {actual.get(gid)}"
        for gid in sorted(wrong)[:3]
    )
    assert not wrong, f"{len(wrong)} of {len(actual)} have {what}:\n{shown}"
