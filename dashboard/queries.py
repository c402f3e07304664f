"""One helper per question that the page asks: a connection and filters in, a DataFrame out.

Lists and cases come from `shared.review.questions`, as for the command line; what is added here is
only asked by a page: the past, by period, and a few rows by their ids. Pages and sums are made in
SQL, whatever the size of the tables. Texts come as the database has them: making them harmless is
`dashboard.show`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pandas as pd
from artwork_backfill.shared.audit.archives import EntityType, entity_url, image_url, item_name
from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.review.questions import Case, Event, PastAudit, Review
from psycopg import Connection

#: Points of a chart: more than this many cannot be told apart on a screen.
_POINTS: Final = 200

#: Examples of a check that are looked at and shown.
EXAMPLES: Final = 25

# The last count in each stretch of time. Counts are rows of six, at most one set an hour.
_STATUSES_OVER_TIME: Final = """
SELECT DISTINCT ON (stretch, status) taken_at, status::text, entities
FROM (
    SELECT *, date_bin(%(width)s, taken_at, 'epoch') AS stretch
    FROM artwork_indexer.audit_status_history
    WHERE taken_at > now() - %(period)s::interval
) AS history
ORDER BY stretch, status, taken_at DESC
"""

_AUDITS_OVER_TIME: Final = """
SELECT date_bin(%(width)s, hour, 'epoch') AS stretch, outcome, sum(audits)::bigint
FROM artwork_indexer.audit_tally
WHERE hour > now() - %(period)s::interval
GROUP BY stretch, outcome
ORDER BY stretch, outcome
"""

# Runs write their tallies batch by batch: the time from the first batch of the last two hours is
# the time that these audits took.
_RATE: Final = """
SELECT sum(audits)::bigint, extract(epoch FROM now() - min(first_at))::float8
FROM artwork_indexer.audit_tally
WHERE hour >= date_trunc('hour', now()) - interval '1 hour'
"""

_FINDINGS: Final = """
SELECT check_name, sum(entities)::bigint, sum(findings)::bigint
FROM artwork_indexer.finding_tally
WHERE hour > now() - %(period)s::interval
GROUP BY check_name
"""

# The latest hours in which the check was found name more examples than are wanted.
_EXAMPLES: Final = """
SELECT entity.entity_type::text, entity.gid, entity.status::text, entity.priority,
       entity.last_audit_at
FROM (
    SELECT DISTINCT unnest(examples) AS id
    FROM (
        SELECT examples
        FROM artwork_indexer.finding_tally
        WHERE check_name = %(check)s
        ORDER BY hour DESC
        LIMIT %(limit)s
    ) AS latest
) AS example
JOIN artwork_indexer.audit_entity entity USING (id)
ORDER BY entity.last_audit_at DESC NULLS LAST
LIMIT %(limit)s
"""

# Only what has not completed can still wait for another event, and that is little.
_DEPENDANTS: Final = """
SELECT parent, count(*)
FROM artwork_indexer.event_queue child
CROSS JOIN LATERAL unnest(child.depends_on) AS parent
WHERE child.state IN ('queued', 'failed') AND parent = ANY (%(ids)s::bigint[])
GROUP BY parent
"""

_RELEASE_ARTWORK: Final = """
SELECT listing.id, suffix, types, comment
FROM cover_art_archive.index_listing listing
JOIN cover_art_archive.image_type USING (mime_type)
WHERE release = (SELECT id FROM musicbrainz.release WHERE gid = %(gid)s)
ORDER BY ordering
"""

_EVENT_ARTWORK: Final = """
SELECT listing.id, suffix, types, comment
FROM event_art_archive.index_listing listing
JOIN cover_art_archive.image_type USING (mime_type)
WHERE event = (SELECT id FROM musicbrainz.event WHERE gid = %(gid)s)
ORDER BY ordering
"""

_STANDINGS: Final = """
SELECT entity_type::text, gid, status::text, last_audit_at
FROM artwork_indexer.audit_entity
WHERE (entity_type, gid) IN (
    SELECT entity_type::artwork_indexer.indexable_entity_type, gid
    FROM unnest(%(entity_types)s::text[], %(gids)s::uuid[]) AS wanted (entity_type, gid)
)
"""

_STATES: Final = """
SELECT id, state::text FROM artwork_indexer.event_queue WHERE id = ANY (%(ids)s::bigint[])
"""


# -- overview ----------------------------------------------------------------------------------


def statuses_over_time(conn: Connection, period: timedelta) -> pd.DataFrame:
    """Return how many entities had which status: `taken_at`, `status`, `entities`."""
    rows = conn.execute(_STATUSES_OVER_TIME, _stretches(period)).fetchall()
    return _frame(rows, "taken_at", "status", "entities")


def audits_over_time(conn: Connection, period: timedelta) -> pd.DataFrame:
    """Return how many audits came to which outcome: `since`, `until`, `outcome`, `audits`."""
    stretches = _stretches(period)
    rows = [
        (since, since + stretches["width"], outcome, audits)
        for since, outcome, audits in conn.execute(_AUDITS_OVER_TIME, stretches)
    ]
    return _frame(rows, "since", "until", "outcome", "audits")


def audits_per_hour(conn: Connection) -> float | None:
    """Return the rate of audits within the last two hours, `None` when there is none to tell."""
    ((audits, seconds),) = conn.execute(_RATE).fetchall()
    return None if not audits or seconds < 1 else float(audits) / seconds * 3600


def findings_by_check(conn: Connection, period: timedelta) -> pd.DataFrame:
    """Return what the audits of a period found, the most frequent check first.

    Columns: `check`, `severity`, `entities` (audits that found it), `findings`. An entity that was
    audited twice counts twice.
    """
    rows = conn.execute(_FINDINGS, {"period": period}).fetchall()
    known = [
        (name, CHECKS[name].severity.label, *counts) for name, *counts in rows if name in CHECKS
    ]
    known.sort(key=lambda row: (-row[2], row[0]))
    return _frame(known, "check", "severity", "entities", "findings")


# -- checks ------------------------------------------------------------------------------------


def checks(conn: Connection, period: timedelta) -> pd.DataFrame:
    """Return the catalogue with how often each check was found, in the catalogue's order.

    Columns: `check`, `severity`, `applies`, `what`, `remedy`, `entities`, `findings`.
    """
    found = {
        name: (entities, findings)
        for name, entities, findings in conn.execute(_FINDINGS, {"period": period})
    }
    return _frame(
        [
            (
                check.name,
                check.severity.label,
                check.applies,
                f"{check.summary} ({check.note})" if check.note else check.summary,
                check.remedy.value,
                *found.get(check.name, (0, 0)),
            )
            for check in CHECKS.values()
        ],
        *("check", "severity", "applies", "what", "remedy", "entities", "findings"),
    )


def examples(conn: Connection, check: str) -> pd.DataFrame:
    """Return some entities in which a check was found lately.

    Columns: `entity_type`, `gid`, `status`, `priority`, `last_audit_at`, `musicbrainz`, `item`;
    the last two are addresses.
    """
    rows = conn.execute(_EXAMPLES, {"check": check, "limit": EXAMPLES}).fetchall()
    return _frame(
        [
            (entity_type, str(gid), *rest, entity_url(EntityType(entity_type), str(gid)),
             item_url(gid))
            for entity_type, gid, *rest in rows
        ],
        *("entity_type", "gid", "status", "priority", "last_audit_at", "musicbrainz", "item"),
    )  # fmt: skip


# -- lists -------------------------------------------------------------------------------------


def reviews(rows: Iterable[Review]) -> pd.DataFrame:
    """Return reviews as a table: the columns are the fields of `Review`.

    The reasons of a review repeat its gid in file names; it stands there as an ellipsis.
    """
    return _frame(
        [
            (
                review.id,
                review.created_at,
                review.status.value,
                review.priority,
                review.entity_type.value,
                str(review.gid),
                review.entity_status,
                review.reason.replace(str(review.gid), "…"),
                review.notes,
            )
            for review in rows
        ],
        *("id", "created_at", "status", "priority", "entity_type", "gid", "entity_status"),
        *("reason", "notes"),
    )


def failed_events(conn: Connection, rows: Sequence[Event]) -> pd.DataFrame:
    """Return events as a table, with how many others wait for each.

    Columns: `id`, `created`, `entity_type`, `action`, `message`, `failures`, `failure`,
    `depends_on`, `dependants`.
    """
    ids = [event.id for event in rows]
    dependants: dict[int, int] = dict(conn.execute(_DEPENDANTS, {"ids": ids}).fetchall())
    return _frame(
        [
            (
                event.id,
                event.created,
                event.entity_type.value,
                event.action,
                message_text(event.message),
                event.failures,
                event.failure,
                ", ".join(map(str, event.depends_on or ())),
                dependants.get(event.id, 0),
            )
            for event in rows
        ],
        *("id", "created", "entity_type", "action", "message", "failures", "failure"),
        *("depends_on", "dependants"),
    )


# -- one entity --------------------------------------------------------------------------------


def findings(audit: PastAudit) -> pd.DataFrame:
    """Return the findings of an audit: `check`, `severity`, `subject`, `expected`, `found`,
    `repair`.
    """
    return _frame(
        [
            (
                finding.check,
                finding.severity,
                finding.subject,
                finding.expected,
                finding.actual,
                "queued" if finding.repair else None,
            )
            for finding in audit.findings
        ],
        *("check", "severity", "subject", "expected", "found", "repair"),
    )


def events(case: Case) -> pd.DataFrame:
    """Return the events of an entity: `id`, `state`, `created`, `action`, `message`, `attempts`,
    `failure`, `depends_on`.
    """
    return _frame(
        [
            (
                event.id,
                event.state,
                event.created,
                event.action,
                message_text(event.message),
                event.attempts,
                event.failure,
                ", ".join(map(str, event.depends_on or ())),
            )
            for event in case.events
        ],
        *("id", "state", "created", "action", "message", "attempts", "failure", "depends_on"),
    )


def artwork(conn: Connection, entity_type: EntityType, gid: UUID) -> pd.DataFrame:
    """Return the images that MusicBrainz has for an entity: `id`, `types`, `comment`, `image`.

    `image` is the address of the original.
    """
    query = _RELEASE_ARTWORK if entity_type is EntityType.RELEASE else _EVENT_ARTWORK
    return _frame(
        [
            (id_, ", ".join(types or ()), comment, image_url(entity_type, str(gid), id_, suffix))
            for id_, suffix, types, comment in conn.execute(query, {"gid": gid})
        ],
        *("id", "types", "comment", "image"),
    )


def standings(
    conn: Connection, entities: Sequence[tuple[EntityType, UUID]]
) -> Mapping[tuple[EntityType, UUID], str]:
    """Return where entities stand now, in words."""
    rows = conn.execute(
        _STANDINGS,
        {
            "entity_types": [entity_type.value for entity_type, _ in entities],
            "gids": [gid for _, gid in entities],
        },
    )
    return {
        (EntityType(entity_type), gid): _standing(status, last_audit_at)
        for entity_type, gid, status, last_audit_at in rows
    }


def states(conn: Connection, event_ids: Sequence[int]) -> Mapping[int, str]:
    """Return the states of events by their ids."""
    return dict(conn.execute(_STATES, {"ids": list(event_ids)}).fetchall())


# -- words -------------------------------------------------------------------------------------


def message_text(message: Mapping[str, Any]) -> str:
    """Return an event's message on one line."""
    return ", ".join(
        f"{key} {value if isinstance(value, str | int) else json.dumps(value)}"
        for key, value in message.items()
    )


def item_url(gid: UUID) -> str:
    """Return where archive.org shows an entity's item."""
    return f"https://archive.org/details/{item_name(str(gid))}"


def _standing(status: str, last_audit_at: Any) -> str:
    if status in ("unchecked", "audit_in_progress"):
        return status
    return f"{status}, audited {last_audit_at:%Y-%m-%d %H:%M:%S}" if last_audit_at else status


def _stretches(period: timedelta) -> dict[str, timedelta]:
    # Whole hours: the tallies have nothing finer.
    hours = max(1, round(period / timedelta(hours=1) / _POINTS))
    return {"period": period, "width": timedelta(hours=hours)}


def _frame(rows: Iterable[tuple[Any, ...]], *columns: str) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns))
