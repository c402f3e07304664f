"""The queries that only the page makes; it shares the others with the command line.

Each takes a connection and returns typed rows. Paging and sums are done in SQL, whatever the size
of the tables. Texts are those of the database; `dashboard.show` makes them safe. The command line
imports this module for `grants`, so it needs neither pandas nor Streamlit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType, image_url
from artwork_backfill.shared.auditing import expectation
from artwork_backfill.shared.engine.session import holds
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.review import actions, questions, runs
from artwork_backfill.shared.review.questions import FAILED_EVENTS, KIND, EntityRow, find_entities

#: The tables that the page reads.
TABLES: Final = (
    *questions.TABLES,
    *questions.REPAIR_TABLES,
    *runs.LOOK,
    Table("artwork_indexer.audit_tally"),
    Table("artwork_indexer.finding_tally"),
    Table("artwork_indexer.audit_status_history"),
    *expectation.TABLES,
    *expectation.RECORD_TABLES,
)

#: The tables that people change on the page.
CHANGED: Final = (*actions.TABLES, *actions.DELETION_TABLES, *runs.TABLES)

#: The number of points of a chart; more cannot be distinguished on a screen.
_POINTS: Final = 200

#: The number of examples of a check or a status that are read and shown.
EXAMPLES: Final = 25

#: An audit that has written nothing for this long is not working.
_AT_WORK: Final = timedelta(minutes=10)

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
SELECT entity.id, entity.entity_type::text, entity.gid, entity.status::text, entity.priority,
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

_ARTWORK: Final = """
SELECT listing.id, suffix, types, comment
FROM {art}_archive.index_listing listing
JOIN cover_art_archive.image_type USING (mime_type)
WHERE {entity} = (SELECT id FROM musicbrainz.{entity} WHERE gid = %(gid)s)
ORDER BY ordering
"""

# The title of an entity, or else of the one that it was merged into.
_TITLE: Final = """
SELECT name, gid FROM musicbrainz.{entity} WHERE gid = %(gid)s
UNION ALL
SELECT {entity}.name, {entity}.gid
FROM musicbrainz.{entity}_gid_redirect redirect
JOIN musicbrainz.{entity} ON {entity}.id = redirect.new_id
WHERE redirect.gid = %(gid)s
"""

_ARTIST: Final = """
SELECT string_agg(credit.name || credit.join_phrase, '' ORDER BY credit.position)
FROM musicbrainz.release
JOIN musicbrainz.artist_credit_name credit USING (artist_credit)
WHERE release.gid = %(gid)s
"""

_YEAR: Final = """
SELECT min(event.date_year)::text
FROM musicbrainz.release
JOIN musicbrainz.release_event event ON event.release = release.id
WHERE release.gid = %(gid)s
"""

#: Facts about a release, each with a table that the role of a dashboard may not be able to read.
_FACTS: Final = (
    ("musicbrainz.artist_credit_name", _ARTIST),
    ("musicbrainz.release_event", _YEAR),
)

_MAY_READ: Final = """
SELECT EXISTS (
    SELECT FROM pg_class
    WHERE oid = to_regclass(%(table)s) AND has_table_privilege(oid, 'SELECT'))
"""

# Each status uses an index, or the first rows of the table; rare ones are counted anyway and cost
# one scan of the table.
_ENTITIES_OF: Final = """
SELECT id, entity_type::text, gid, status::text, priority, last_audit_at
FROM artwork_indexer.audit_entity
WHERE status = %(status)s::artwork_indexer.audit_entity_status
LIMIT %(limit)s
"""

# Entities in review by the kind of their reason, and those in repair by the checks of their latest
# audit. Few are in repair at a time, because audit-batch keeps the queue short.
_WRONG_NOW: Final = f"""
SELECT kind, sum(in_review)::bigint, sum(in_repair)::bigint, min(since)
FROM (
    SELECT DISTINCT ON (review.id, kind)
           {KIND} AS kind,
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
"""  # noqa: S608

_COUNTS: Final = """
SELECT (SELECT count(*) FROM artwork_indexer.needs_manual_review WHERE status = 'open'),
       (SELECT count(*) FROM artwork_indexer.event_queue WHERE state = 'failed')
"""


class Findings(NamedTuple):
    """How many audits of a period found a check, and how often; an entity may be audited twice."""

    entities: int = 0
    findings: int = 0


class Wrong(NamedTuple):
    """The entities of one kind that wait for a person or for their repair."""

    kind: str
    in_review: int
    in_repair: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class About:
    """The title of an entity, `None` if MusicBrainz does not have it, and other facts."""

    title: str | None
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Artwork:
    """An image that MusicBrainz has for an entity; `url` is that of the original."""

    id: int
    types: str
    comment: str
    url: str


# -- overview and checks -----------------------------------------------------------------------


def statuses_over_time(conn: Connection, period: timedelta) -> list[tuple[datetime, str, int]]:
    """Return the number of entities over time, as time, status and number."""
    return conn.execute(_STATUSES_OVER_TIME, _stretches(period)).fetchall()


def audits_over_time(
    conn: Connection, period: timedelta
) -> list[tuple[datetime, datetime, str, int]]:
    """Return the number of audits over time, as beginning, end, outcome and number."""
    stretches = _stretches(period)
    return [
        (since, since + stretches["width"], outcome, audits)
        for since, outcome, audits in conn.execute(_AUDITS_OVER_TIME, stretches)
    ]


def audits_per_hour(conn: Connection) -> float | None:
    """Return the rate of audits within the last two hours, `None` if no audit is working."""
    row = conn.execute(_RATE, {"at_work": _AT_WORK}).fetchone()
    if row is None or not row[0] or row[1] < 1:
        return None
    return float(row[0]) / float(row[1]) * 3600


def wrong_now(conn: Connection) -> list[Wrong]:
    """Return what waits for people or for a repair, most frequent kind first."""
    return [Wrong(*row) for row in conn.execute(_WRONG_NOW)]


def findings(conn: Connection, period: timedelta) -> dict[str, Findings]:
    """Return what the audits of a period found, by check."""
    rows = conn.execute(_FINDINGS, {"period": period})
    return {check: Findings(*counts) for check, *counts in rows}


def examples(conn: Connection, check: str) -> list[EntityRow]:
    """Return some entities in which a check was found recently."""
    return _entities(conn, _EXAMPLES, check=check)


def entities_of(conn: Connection, status: str) -> list[EntityRow]:
    """Return some entities that have a status."""
    return _entities(conn, _ENTITIES_OF, status=status)


def _entities(conn: Connection, query: str, **values: str) -> list[EntityRow]:
    rows = conn.execute(query, values | {"limit": EXAMPLES})
    return [EntityRow(id_, EntityType(entity_type), *rest) for id_, entity_type, *rest in rows]


def counts(conn: Connection) -> tuple[int, int]:
    """Return the numbers of open reviews and of failed events."""
    ((open_reviews, failed_events),) = conn.execute(_COUNTS).fetchall()
    return open_reviews, failed_events


def dependants(conn: Connection, event_ids: Sequence[int]) -> dict[int, int]:
    """Return the number of events that wait for each of these, by id."""
    return dict(conn.execute(_DEPENDANTS, {"ids": list(event_ids)}).fetchall())


# -- one entity --------------------------------------------------------------------------------


def about(conn: Connection, entity_type: EntityType, gid: UUID) -> About:
    """Return what MusicBrainz says about an entity, as far as the role may read it."""
    found = _of_archive(conn, _TITLE, entity_type, gid)
    if not found:
        return About(None)
    title, now = found[0]
    if now != gid:
        return About(None, (f"merged into {title}, {now}",))
    if entity_type is EntityType.EVENT:
        return About(title)
    facts = (
        conn.execute(query, {"gid": gid}).fetchone()
        for table, query in _FACTS
        if holds(conn, _MAY_READ, {"table": table})
    )
    return About(title, tuple(fact[0] for fact in facts if fact and fact[0]))


def artwork(conn: Connection, entity_type: EntityType, gid: UUID) -> list[Artwork]:
    """Return the images that MusicBrainz has for an entity, in their order."""
    return [
        Artwork(id_, ", ".join(types or ()), comment, image_url(entity_type, str(gid), id_, suffix))
        for id_, suffix, types, comment in _of_archive(conn, _ARTWORK, entity_type, gid)
    ]


def _of_archive(
    conn: Connection, template: str, entity_type: EntityType, gid: UUID
) -> list[tuple[Any, ...]]:
    query = ART_ARCHIVES[entity_type].query(template)
    return conn.execute(query.encode(), {"gid": gid}).fetchall()


# -- what has come of actions ------------------------------------------------------------------


def standings(conn: Connection, gids: Collection[UUID]) -> dict[tuple[EntityType, UUID], EntityRow]:
    """Return entities as they are now, by type and gid."""
    return {(entity.entity_type, entity.gid): entity for entity in find_entities(conn, gids)}


def states(conn: Connection, event_ids: Collection[int]) -> dict[int, str]:
    """Return the states of events by id."""
    return {event.id: event.state for event in FAILED_EVENTS.with_ids(conn, event_ids)}


def _stretches(period: timedelta) -> dict[str, timedelta]:
    # Whole hours, the resolution of the tallies.
    hours = max(1, round(period / timedelta(hours=1) / _POINTS))
    return {"period": period, "width": timedelta(hours=hours)}
