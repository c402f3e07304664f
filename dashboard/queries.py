"""One function per query of the page: a connection and filters in, a DataFrame out.

Lists and cases come from `shared.review.questions`, as for the command line. This module adds the
queries of the page only: figures over time, and rows by their ids. Paging and sums are done in SQL,
whatever the size of the tables. Texts are those of the database; `dashboard.show` makes them safe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pandas as pd
from psycopg import Connection

from artwork_backfill.dashboard import words
from artwork_backfill.shared.audit.actual import OriginalImage
from artwork_backfill.shared.audit.archives import EntityType, entity_url, image_url, item_name
from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.review import runs
from artwork_backfill.shared.review.questions import (
    Case,
    Event,
    Review,
    StoredFinding,
    list_repairs,
)

#: The number of points of a chart; more cannot be distinguished on a screen.
_POINTS: Final = 200

#: The number of examples of a check or a status that are read and shown.
EXAMPLES: Final = 25

#: The parts of a failure that lists omit, so that the status after them is visible.
_ADDRESS: Final = re.compile(r"https?://[^\s'\"]+")

#: An audit that has written nothing for this long is not working.
_AT_WORK: Final = timedelta(minutes=10)

#: The number of characters of a text that a list shows.
_LONGEST: Final = 300

# The last count in each period. Counts are sets of six rows, at most one set an hour.
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

# Runs write their tallies batch by batch: the time since the first batch of the last two hours is
# the time that these audits took. Without a batch in the last minutes, no audit is working.
_RATE: Final = """
SELECT sum(audits)::bigint, extract(epoch FROM now() - min(first_at))::float8
FROM artwork_indexer.audit_tally
WHERE hour >= date_trunc('hour', now()) - interval '1 hour'
HAVING max(last_at) > now() - %(at_work)s
"""

_FINDINGS: Final = """
SELECT check_name, sum(entities)::bigint, sum(findings)::bigint
FROM artwork_indexer.finding_tally
WHERE hour > now() - %(period)s::interval
GROUP BY check_name
"""

# The latest hours in which the check was found name more examples than needed.
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

# Only events that have not completed can still wait for another event, and there are few.
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

_RELEASE: Final = "SELECT name FROM musicbrainz.release WHERE gid = %(gid)s"
_EVENT: Final = "SELECT name FROM musicbrainz.event WHERE gid = %(gid)s"

_MERGED_RELEASE: Final = """
SELECT release.name, release.gid
FROM musicbrainz.release_gid_redirect redirect
JOIN musicbrainz.release ON release.id = redirect.new_id
WHERE redirect.gid = %(gid)s
"""

_MERGED_EVENT: Final = """
SELECT event.name, event.gid
FROM musicbrainz.event_gid_redirect redirect
JOIN musicbrainz.event ON event.id = redirect.new_id
WHERE redirect.gid = %(gid)s
"""

_ARTIST: Final = """
SELECT string_agg(credit.name || credit.join_phrase, '' ORDER BY credit.position)
FROM musicbrainz.release
JOIN musicbrainz.artist_credit_name credit USING (artist_credit)
WHERE release.gid = %(gid)s
"""

_YEAR: Final = """
SELECT min(event.date_year)
FROM musicbrainz.release
JOIN musicbrainz.release_event event ON event.release = release.id
WHERE release.gid = %(gid)s
"""

# Some queries need more rights than the jobs do; they run only if the dashboard's role has them.
_MAY_READ: Final = """
SELECT has_table_privilege(oid, 'SELECT') FROM pg_class WHERE oid = to_regclass(%(table)s)
"""

_COVER_ART_OWNERS: Final = """
SELECT art.id, release.gid
FROM cover_art_archive.cover_art art
JOIN musicbrainz.release ON release.id = art.release
WHERE art.id = ANY (%(ids)s::bigint[])
"""

_EVENT_ART_OWNERS: Final = """
SELECT art.id, event.gid
FROM event_art_archive.event_art art
JOIN musicbrainz.event ON event.id = art.event
WHERE art.id = ANY (%(ids)s::bigint[])
"""

# Each status uses an index, or the first rows of the table; rare ones are counted anyway and cost
# one scan of the table.
_ENTITIES_OF: Final = """
SELECT entity_type::text, gid, priority, last_audit_at
FROM artwork_indexer.audit_entity
WHERE status = %(status)s::artwork_indexer.audit_entity_status
LIMIT %(limit)s
"""

# Entities in review by the kind of their reason, and those in repair by the checks of their latest
# audit. Few are in repair at a time, because audit-batch keeps the queue short.
_WRONG_NOW: Final = """
SELECT kind, sum(in_review)::bigint, sum(in_repair)::bigint, min(since)
FROM (
    SELECT DISTINCT ON (review.id, kind)
           CASE reason->>'code' WHEN 'finding' THEN reason->>'check'
                                ELSE reason->>'code' END AS kind,
           1 AS in_review, 0 AS in_repair, review.created_at AS since
    FROM artwork_indexer.needs_manual_review review
    CROSS JOIN LATERAL jsonb_array_elements(review.reasons) AS reason
    WHERE review.status = 'open'
    UNION ALL
    SELECT DISTINCT ON (entity.id, finding->>'check')
           finding->>'check', 0, 1, latest.audited_at
    FROM (
        SELECT id FROM artwork_indexer.audit_entity
        WHERE status = 'repair_queue'
        ORDER BY last_audit_at DESC
        LIMIT 2000
    ) AS entity
    CROSS JOIN LATERAL (
        SELECT audited_at, findings
        FROM artwork_indexer.audit_result result
        WHERE result.audit_entity_id = entity.id
        ORDER BY result.id DESC
        LIMIT 1
    ) AS latest
    CROSS JOIN LATERAL jsonb_array_elements(latest.findings) AS finding
    WHERE (finding->>'repair')::boolean
) AS wrong
GROUP BY kind
ORDER BY sum(in_review) + sum(in_repair) DESC, kind
LIMIT 40
"""

# Whether runs have records depends on migration 0005.
_RUNS_AT_WORK: Final = """
SELECT count(*) FROM artwork_indexer.backfill_run
WHERE finished IS NULL AND heartbeat > now() - interval '60 s'
"""

_COUNTS: Final = """
SELECT (SELECT count(*) FROM artwork_indexer.needs_manual_review WHERE status = 'open'),
       (SELECT count(*) FROM artwork_indexer.event_queue WHERE state = 'failed')
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
    """Return the number of entities by status over time: `taken_at`, `status`, `entities`."""
    rows = conn.execute(_STATUSES_OVER_TIME, _stretches(period)).fetchall()
    return _frame(rows, "taken_at", "status", "entities")


def audits_over_time(conn: Connection, period: timedelta) -> pd.DataFrame:
    """Return the number of audits by outcome over time: `since`, `until`, `outcome`, `audits`."""
    stretches = _stretches(period)
    rows = [
        (since, since + stretches["width"], outcome, audits)
        for since, outcome, audits in conn.execute(_AUDITS_OVER_TIME, stretches)
    ]
    return _frame(rows, "since", "until", "outcome", "audits")


def audits_per_hour(conn: Connection) -> float | None:
    """Return the rate of audits within the last two hours, `None` if no audit is working."""
    row = conn.execute(_RATE, {"at_work": _AT_WORK}).fetchone()
    if row is None or not row[0] or row[1] < 1:
        return None
    return float(row[0]) / float(row[1]) * 3600


def wrong_now(conn: Connection) -> pd.DataFrame:
    """Return what waits for people or for a repair, most frequent kind first.

    Columns: `kind`, `in_review`, `in_repair`, `oldest`, `remedy`.
    """
    return _frame(
        [
            (kind, in_review, in_repair, oldest, _remedy(kind))
            for kind, in_review, in_repair, oldest in conn.execute(_WRONG_NOW)
        ],
        *("kind", "in_review", "in_repair", "oldest", "remedy"),
    )


def _remedy(kind: str) -> str:
    check = CHECKS.get(kind)
    return words.REMEDIES.get(check.remedy.value, "") if check else "a person decides"


def repairs_by_check(conn: Connection) -> pd.DataFrame:
    """Return how often repairs hold: `check`, `held`, `not_held`, `now`."""
    return _frame(
        [
            (
                tally.check,
                tally.held,
                tally.not_held,
                "left to people" if tally.is_given_up else "repaired",
            )
            for tally in list_repairs(conn)
        ],
        *("check", "held", "not_held", "now"),
    )


def findings_by_check(conn: Connection, period: timedelta) -> pd.DataFrame:
    """Return what the audits of a period found, most frequent check first.

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
    """Return the catalogue with the frequency of each check, in the catalogue's order.

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
                words.REMEDIES.get(check.remedy.value, check.remedy.value),
                *found.get(check.name, (0, 0)),
            )
            for check in CHECKS.values()
        ],
        *("check", "severity", "applies", "what", "remedy", "entities", "findings"),
    )


def examples(conn: Connection, check: str) -> pd.DataFrame:
    """Return some entities in which a check was found recently.

    Columns: `entity_type`, `gid`, `status`, `priority`, `last_audit_at`, `musicbrainz`, `item`;
    the last two are URLs.
    """
    rows = conn.execute(_EXAMPLES, {"check": check, "limit": EXAMPLES}).fetchall()
    return _frame(
        [
            (entity_type, str(gid), words.status(status), *rest,
             entity_url(EntityType(entity_type), str(gid)), item_url(gid))
            for entity_type, gid, status, *rest in rows
        ],
        *("entity_type", "gid", "status", "priority", "last_audit_at", "musicbrainz", "item"),
    )  # fmt: skip


def counts(conn: Connection) -> Mapping[str, int]:
    """Return the numbers of `open_reviews`, `failed_events` and working `runs`."""
    ((open_reviews, failed_events),) = conn.execute(_COUNTS).fetchall()
    working = conn.execute(_RUNS_AT_WORK).fetchone() if runs.exist(conn) else None
    return {
        "open_reviews": open_reviews,
        "failed_events": failed_events,
        "runs": working[0] if working else 0,
    }


def entities_of(conn: Connection, status: str, now: datetime) -> pd.DataFrame:
    """Return some entities that have a status.

    Columns: `entity_type`, `gid`, `priority`, `audited`, `musicbrainz`, `item`.
    """
    rows = conn.execute(_ENTITIES_OF, {"status": status, "limit": EXAMPLES}).fetchall()
    return _frame(
        [
            (entity_type, str(gid), priority, words.age(last_audit_at, now),
             entity_url(EntityType(entity_type), str(gid)), item_url(gid))
            for entity_type, gid, priority, last_audit_at in rows
        ],
        *("entity_type", "gid", "priority", "audited", "musicbrainz", "item"),
    )  # fmt: skip


# -- lists -------------------------------------------------------------------------------------


def reviews(rows: Iterable[Review], now: datetime) -> pd.DataFrame:
    """Return reviews as a table.

    Columns: `id`, `age`, `status`, `priority`, `entity_type`, `gid`, `entity_status`, `reason`,
    `notes`. An ellipsis replaces the gid that reasons repeat in file names. Only the latest note is
    shown. Long texts are truncated; the case page shows them completely.
    """
    return _frame(
        [
            (
                review.id,
                words.age(review.created_at, now),
                words.REVIEWS[review.status.value],
                review.priority,
                review.entity_type.value,
                str(review.gid),
                words.status(review.entity_status),
                _cut(review.reason.replace(str(review.gid), "…")),
                _cut((review.notes or "").rpartition("\n")[2]),
            )
            for review in rows
        ],
        *("id", "age", "status", "priority", "entity_type", "gid", "entity_status"),
        *("reason", "notes"),
    )


def failed_events(conn: Connection, rows: Sequence[Event], now: datetime) -> pd.DataFrame:
    """Return events as a table, with the number of others that wait for each.

    Columns: `id`, `age`, `entity_type`, `action`, `message`, `failures`, `failure`,
    `depends_on`, `dependants`.
    """
    ids = [event.id for event in rows]
    dependants: dict[int, int] = dict(conn.execute(_DEPENDANTS, {"ids": ids}).fetchall())
    return _frame(
        [
            (
                event.id,
                words.age(event.created, now),
                event.entity_type.value,
                event.action,
                _cut(message_text(event.message)),
                event.failures,
                _cut(_ADDRESS.sub("…", event.failure or "no reason kept")),
                ", ".join(map(str, event.depends_on or ())),
                dependants.get(event.id, 0),
            )
            for event in rows
        ],
        *("id", "age", "entity_type", "action", "message", "failures", "failure"),
        *("depends_on", "dependants"),
    )


# -- one entity --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class About:
    """The title of an entity, `None` if MusicBrainz does not have it, and other facts."""

    title: str | None
    facts: tuple[str, ...] = ()


def about(conn: Connection, entity_type: EntityType, gid: UUID) -> About:
    """Return what MusicBrainz says about an entity, as far as the role may read it."""
    is_release = entity_type is EntityType.RELEASE
    title = _value(conn, _RELEASE if is_release else _EVENT, gid)
    if title is None:
        query = _MERGED_RELEASE if is_release else _MERGED_EVENT
        merged = conn.execute(query.encode(), {"gid": gid}).fetchone()
        return About(None, (f"merged into {merged[0]}, {merged[1]}",) if merged else ())
    facts = []
    if is_release:
        if _may_read(conn, "musicbrainz.artist_credit_name"):
            facts.append(_value(conn, _ARTIST, gid))
        if _may_read(conn, "musicbrainz.release_event"):
            facts.append(_value(conn, _YEAR, gid))
    return About(str(title), tuple(str(fact) for fact in facts if fact))


def owners(
    conn: Connection, entity_type: EntityType, artwork_ids: Sequence[int]
) -> dict[int, UUID]:
    """Return the gids of the entities that own these images, by artwork id."""
    query = _COVER_ART_OWNERS if entity_type is EntityType.RELEASE else _EVENT_ART_OWNERS
    return dict(conn.execute(query, {"ids": list(artwork_ids)}).fetchall())


def _may_read(conn: Connection, table: str) -> bool:
    row = conn.execute(_MAY_READ, {"table": table}).fetchone()
    return row is not None and row[0] is True


def _value(conn: Connection, query: str, gid: UUID) -> Any:
    row = conn.execute(query.encode(), {"gid": gid}).fetchone()
    return None if row is None else row[0]


def findings(rows: Iterable[StoredFinding]) -> pd.DataFrame:
    """Return findings: `check`, `severity`, `subject`, `expected`, `found`, `repair`."""
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
            for finding in rows
        ],
        *("check", "severity", "subject", "expected", "found", "repair"),
    )


def events(case: Case, now: datetime) -> pd.DataFrame:
    """Return the events of an entity.

    Columns: `id`, `state`, `age`, `action`, `message`, `attempts`, `failure`, `depends_on`.
    """
    return _frame(
        [
            (
                event.id,
                event.state,
                words.age(event.created, now),
                event.action,
                message_text(event.message),
                event.attempts,
                event.failure,
                ", ".join(map(str, event.depends_on or ())),
            )
            for event in case.events
        ],
        *("id", "state", "age", "action", "message", "attempts", "failure", "depends_on"),
    )


def artwork(conn: Connection, entity_type: EntityType, gid: UUID) -> pd.DataFrame:
    """Return the images that MusicBrainz has for an entity: `id`, `types`, `comment`, `image`.

    `image` is the URL of the original.
    """
    query = _RELEASE_ARTWORK if entity_type is EntityType.RELEASE else _EVENT_ARTWORK
    return _frame(
        [
            (id_, ", ".join(types or ()), comment, image_url(entity_type, str(gid), id_, suffix))
            for id_, suffix, types, comment in conn.execute(query, {"gid": gid})
        ],
        *("id", "types", "comment", "image"),
    )


def image_files(images: Iterable[OriginalImage]) -> pd.DataFrame:
    """Return images of an item: `artwork`, `name`, `size`, `md5`, `format`."""
    return _frame(
        [
            (
                str(image.artwork_id or "none"),
                image.name,
                image.file.size,
                image.file.md5 or "",
                image.file.format or "",
            )
            for image in images
        ],
        *("artwork", "name", "size", "md5", "format"),
    )


def standings(
    conn: Connection, entities: Sequence[tuple[EntityType, UUID]]
) -> Mapping[tuple[EntityType, UUID], str]:
    """Return the present statuses of entities, as text."""
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
    """Return the states of events by id."""
    return dict(conn.execute(_STATES, {"ids": list(event_ids)}).fetchall())


# -- words -------------------------------------------------------------------------------------


def message_text(message: Mapping[str, Any]) -> str:
    """Return an event's message on one line."""
    return ", ".join(
        f"{key} {value if isinstance(value, str | int) else json.dumps(value)}"
        for key, value in message.items()
    )


def item_url(gid: UUID) -> str:
    """Return the URL of an entity's item at archive.org."""
    return f"https://archive.org/details/{item_name(str(gid))}"


def _standing(status: str, last_audit_at: Any) -> str:
    said = words.status(status)
    if status in ("unchecked", "audit_in_progress") or last_audit_at is None:
        return said
    return f"{said}, audited {last_audit_at:%Y-%m-%d %H:%M:%S}"


def _stretches(period: timedelta) -> dict[str, timedelta]:
    # Whole hours, the resolution of the tallies.
    hours = max(1, round(period / timedelta(hours=1) / _POINTS))
    return {"period": period, "width": timedelta(hours=hours)}


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _frame(rows: Iterable[tuple[Any, ...]], *columns: str) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns))
