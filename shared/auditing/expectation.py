"""What the database says about claimed entities: expected state, events and previous audits.

A batch of any size takes a constant number of queries. Rows that violate an assumption set
`Claim.bad_row` of their entity, and do not affect the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from psycopg import Connection
from psycopg.rows import namedtuple_row

from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType
from artwork_backfill.shared.audit.compare import INCONCLUSIVE
from artwork_backfill.shared.audit.decide import (
    PROOFS,
    FailedEvent,
    PreviousAudits,
    ReasonCode,
    Status,
)
from artwork_backfill.shared.audit.expected import Artwork, Expected, Presence
from artwork_backfill.shared.auditing.facts import release_facts
from artwork_backfill.shared.auditing.models import (
    NOT_COMPARED,
    BadRow,
    Claim,
    Entity,
    Streak,
    StreakLength,
)
from artwork_backfill.shared.engine.session import plain_array
from artwork_backfill.shared.engine.tables import Table

#: MusicBrainz's tables that `read_presence` reads.
PRESENCE_TABLES: Final = (
    Table("musicbrainz.release"),
    Table("musicbrainz.release_meta"),
    Table("musicbrainz.release_gid_redirect"),
    Table("musicbrainz.event"),
    Table("musicbrainz.event_meta"),
    Table("musicbrainz.event_gid_redirect"),
    Table("musicbrainz.deleted_entity"),
)

#: What of MusicBrainz's own has to be readable.
TABLES: Final = (
    *PRESENCE_TABLES,
    Table("cover_art_archive.cover_art"),
    Table("cover_art_archive.index_listing"),
    Table("cover_art_archive.image_type"),
    Table("event_art_archive.event_art"),
    Table("event_art_archive.index_listing"),
)

#: Further tables that `look_at` reads, if they exist.
RECORD_TABLES: Final = (
    Table("artwork_indexer.event_queue"),
    Table("artwork_indexer.audit_entity"),
    Table("artwork_indexer.audit_result"),
    Table("artwork_indexer.audit_streak"),
    Table("artwork_indexer.needs_manual_review"),
    Table("artwork_indexer.repair_tally"),
)

_ENTITIES: Final = """
SELECT wanted.gid::text,
       entity.id IS NOT NULL AS is_live,
       redirect.gid IS NOT NULL AS is_merged,
       deleted.gid IS NOT NULL AS is_deleted,
       coalesce(meta.{art}_presence::text = 'darkened', false) AS is_dark
FROM unnest(%(gids)s::uuid[]) AS wanted (gid)
LEFT JOIN musicbrainz.{entity} entity ON entity.gid = wanted.gid
LEFT JOIN musicbrainz.{entity}_meta meta ON meta.id = entity.id
LEFT JOIN musicbrainz.{entity}_gid_redirect redirect ON redirect.gid = wanted.gid
LEFT JOIN musicbrainz.deleted_entity deleted
       ON deleted.gid = wanted.gid AND deleted.data->>'entity_type' = '{entity}'
"""

# As artwork-indexer reads it, except that an image without an image_type is not skipped.
_ARTWORK: Final = """
SELECT entity.gid::text, listing.id, listing.mime_type, image_type.suffix, listing.types,
       listing.is_front, {is_back} AS is_back, listing.comment, listing.approved, listing.edit,
       listing.ordering
FROM unnest(%(gids)s::uuid[]) AS wanted (gid)
JOIN musicbrainz.{entity} entity ON entity.gid = wanted.gid
JOIN {art}_archive.index_listing listing ON listing.{entity} = entity.id
LEFT JOIN cover_art_archive.image_type ON image_type.mime_type = listing.mime_type
ORDER BY listing.ordering, listing.id
"""

# A merge's copy_image event concerns two entities. The queue holds few events in these states, and
# they have an index.
_EVENTS_OF_ENTITIES: Final = """
SELECT wanted.id AS entity_id, event.id, event.state::text, event.action::text, event.message
FROM (
    SELECT id, state, entity_type::text, action, message,
           unnest(ARRAY[message->>'gid', message->>'old_gid', message->>'new_gid']) AS gid
    FROM artwork_indexer.event_queue
    WHERE state IN ('queued', 'running', 'failed')
) AS event
JOIN unnest(%(ids)s::bigint[], %(entity_types)s::text[], %(gids)s::text[])
     AS wanted (id, entity_type, gid)
  ON wanted.gid = event.gid AND wanted.entity_type = event.entity_type
"""

# Identical events that completed since do not count against a repair that is needed now. The queue
# is unique, so an identical event was hardly created before the failed one; the margin allows for
# one that was already running.
#
# Completed events have no index on their entity, and an event may have failed long ago. Therefore
# only the latest ones are read, which takes 50 ms, and those that the audit itself has queued. If
# an older one is missed, the failed event becomes a review.
_COMPLETED_SINCE: Final = """
WITH failed AS MATERIALIZED (
    SELECT id, entity_type, action, message, created, last_updated
    FROM artwork_indexer.event_queue
    WHERE id = ANY (%(event_ids)s::bigint[])
), done AS MATERIALIZED (
    (SELECT entity_type, action, message, created, last_updated
     FROM artwork_indexer.event_queue
     WHERE state = 'completed'
     AND created >= (SELECT min(created) - interval '2 days' FROM failed)
     ORDER BY created DESC
     LIMIT 20000)
    UNION ALL
    (SELECT entity_type, action, message, created, last_updated
     FROM artwork_indexer.event_queue
     WHERE state = 'completed' AND id = ANY (%(ours)s::bigint[]))
)
SELECT failed.id
FROM failed
WHERE EXISTS (
    SELECT
    FROM done
    WHERE done.created >= failed.created - interval '2 days'
    AND done.last_updated >= failed.last_updated
    AND done.entity_type = failed.entity_type
    AND done.action = failed.action
    AND done.message = failed.message)
"""

# Audits that decided; the latest of each entity comes first.
_PAST_AUDITS: Final = """
SELECT result.audit_entity_id AS entity_id, result.outcome, result.event_ids,
       ARRAY(SELECT DISTINCT finding->>'check'
             FROM jsonb_array_elements(result.findings) AS finding) AS found,
       ARRAY(SELECT DISTINCT finding->>'check'
             FROM jsonb_array_elements(result.findings) AS finding
             WHERE finding->>'repair' = 'true') AS repaired,
       ARRAY(SELECT finding->>'subject'
             FROM jsonb_array_elements(result.findings) AS finding
             WHERE finding->>'check' = %(not_compared)s) AS not_compared
FROM artwork_indexer.audit_result result
WHERE result.audit_entity_id = ANY (%(ids)s::bigint[])
AND result.outcome IN ('clean', 'manual_review', 'repair_queue', 'legacy')
ORDER BY result.audit_entity_id, result.id DESC
"""

# An id alone proves nothing, because ids are reused after a TRUNCATE. A missing event was
# completed, withdrawn or rolled back, and only the first counts.
_COMPLETED: Final = """
SELECT event.id
FROM artwork_indexer.event_queue event
JOIN unnest(%(event_ids)s::bigint[], %(entity_types)s::text[], %(gids)s::text[])
     AS ours (id, entity_type, gid)
  ON ours.id = event.id
 AND ours.entity_type = event.entity_type::text
 AND ours.gid = event.message->>'gid'
WHERE event.state = 'completed'
AND event.action IN ('index', 'delete_image', 'deindex')
"""

# One row for each entity and streak. A review without a check counts as one about any check.
_RECORDS: Final = """
SELECT wanted.id AS entity_id, streak.kind, streak.audits, streak.since,
       CASE WHEN review.id IS NOT NULL THEN
           ARRAY(SELECT DISTINCT coalesce(reason->>'check', '')
                 FROM jsonb_array_elements(
                     CASE WHEN reasons = '[]' THEN '[{}]'::jsonb ELSE reasons END) AS reason)
       END AS in_review,
       ARRAY(SELECT check_name
             FROM artwork_indexer.repair_tally
             WHERE not_held_in_a_row >= %(proofs)s) AS distrusted
FROM unnest(%(ids)s::bigint[]) AS wanted (id)
LEFT JOIN artwork_indexer.audit_streak streak ON streak.audit_entity_id = wanted.id
LEFT JOIN artwork_indexer.needs_manual_review review
       ON review.audit_entity_id = wanted.id AND review.status = 'open'
"""

# Stored in place of findings for an audit that compared nothing.
_NOTHING_COMPARED: Final = INCONCLUSIVE | {
    ReasonCode.UNREADABLE,
    ReasonCode.STUCK,
    ReasonCode.INCOMPARABLE,
    ReasonCode.REFUSED,
}

_IDS: Final = """
SELECT gid::text, id
FROM artwork_indexer.audit_entity
WHERE entity_type::text = %(entity_type)s AND gid = ANY (%(gids)s::uuid[])
"""


class _PastAudit(NamedTuple):
    """An audit that decided: the checks it found, and those that led to its events.

    `not_compared` are checks that it could not judge.
    """

    outcome: str
    found: frozenset[str]
    repaired: frozenset[str]
    not_compared: frozenset[str]
    event_ids: frozenset[int]


class _Repairs(NamedTuple):
    """The checks that previous audits have repaired, in the form of `PreviousAudits`."""

    unfixed: frozenset[str]
    repaired: frozenset[str]
    unproved: frozenset[str]


class _OnRecord(NamedTuple):
    """What the audit's own tables say about an entity, in the form of a `Claim`."""

    previous: PreviousAudits = PreviousAudits()
    streaks: Mapping[Streak, StreakLength] = MappingProxyType({})
    was_uneventful: bool = True


@dataclass(slots=True)
class _Events:
    """An entity's events that are not completed."""

    is_busy: bool = False
    failed: list[FailedEvent] = field(default_factory=list)


def add_expectations(
    conn: Connection, claims: Sequence[Claim], *, screen: bool = False
) -> list[Claim]:
    """Return the claims, in order, with everything that the database says about their entities.

    Parameters
    ----------
    screen
        Whether to also read what archive.org shows of a release's XML; see `Expected.facts`.
    """
    completed = _add_expectations(conn, claims, _Tables(queue=True, audit=True))
    return _with_facts(conn, completed) if screen else completed


def _with_facts(conn: Connection, claims: Sequence[Claim]) -> list[Claim]:
    releases = [
        claim.entity.gid
        for claim in claims
        if claim.entity.entity_type is EntityType.RELEASE
        and claim.expected is not None
        and claim.expected.artwork
    ]
    facts = release_facts(conn, releases) if releases else {}
    return [
        replace(claim, expected=replace(claim.expected, facts=facts[claim.entity.gid]))
        if claim.expected is not None
        and claim.entity.entity_type is EntityType.RELEASE
        and claim.entity.gid in facts
        else claim
        for claim in claims
    ]


def look_at(conn: Connection, entity_type: EntityType, gids: Sequence[str]) -> list[Claim]:
    """Return the same for unclaimed entities, by gids (lower case), in order.

    They need not be in the audit table, and the database may lack artwork-indexer's tables or ours,
    like a mirror of MusicBrainz: then no events or previous audits are known. An entity without a
    row has an id below 0. These claims may only be read.
    """
    tables = _Tables(
        queue=_exists(conn, "artwork_indexer.event_queue"),
        audit=_exists(conn, "artwork_indexer.audit_streak"),
    )
    ids: dict[str, int] = {}
    if tables.audit:
        rows = _rows(conn, _IDS, entity_type=entity_type.value, gids=list(gids))
        ids = {row.gid: row.id for row in rows}
    now = _rows(conn, "SELECT now() AS now")[0].now
    claims = [
        Claim(Entity(ids.get(gid, -position), entity_type, gid), now, None)
        for position, gid in enumerate(gids, 1)
    ]
    return _add_expectations(conn, claims, tables)


class _Tables(NamedTuple):
    """Which tables besides MusicBrainz's own the database has."""

    queue: bool
    audit: bool


def _exists(conn: Connection, table: str) -> bool:
    rows = _rows(conn, "SELECT to_regclass(%(name)s) IS NOT NULL AS found", name=table)
    return bool(rows[0].found)


def _add_expectations(conn: Connection, claims: Sequence[Claim], tables: _Tables) -> list[Claim]:
    if not claims:
        return []
    expected: dict[tuple[EntityType, str], Expected | BadRow] = {}
    for entity_type, gids in _gids(claims).items():
        expected.update(_expected(conn, entity_type, gids))
    events = _events(conn, claims) if tables.queue else defaultdict(_Events)
    records = _on_record(conn, claims, events) if tables.audit else defaultdict(_OnRecord)
    return [
        _complete(
            claim,
            expected[claim.entity.entity_type, claim.entity.gid],
            events[claim.entity.id].is_busy,
            records[claim.entity.id],
        )
        for claim in claims
    ]


def changed(conn: Connection, claims: Sequence[Claim]) -> frozenset[int]:
    """Return the ids of entities that were merged, deleted or restored since the claim."""
    now: dict[tuple[EntityType, str], Presence] = {}
    for entity_type, gids in _gids(claims).items():
        rows = _entities(conn, entity_type, gids)
        now.update({(entity_type, row.gid): _presence(row) for row in rows})
    return frozenset(
        claim.entity.id
        for claim in claims
        if claim.expected is not None
        and claim.expected.presence is not now[claim.entity.entity_type, claim.entity.gid]
    )


def read_presence(conn: Connection, entity_type: EntityType, gid: str) -> Presence:
    """Return how MusicBrainz knows a gid (lower case) now."""
    return _presence(_entities(conn, entity_type, [gid])[0])


def _entities(conn: Connection, entity_type: EntityType, gids: list[str]) -> list[Any]:
    return _rows(conn, ART_ARCHIVES[entity_type].query(_ENTITIES), gids=gids)


def _gids(claims: Sequence[Claim]) -> dict[EntityType, list[str]]:
    gids: dict[EntityType, list[str]] = defaultdict(list)
    for claim in claims:
        gids[claim.entity.entity_type].append(claim.entity.gid)
    return gids


def _complete(claim: Claim, expected: Expected | BadRow, is_busy: bool, record: _OnRecord) -> Claim:
    return replace(
        claim,
        expected=None if isinstance(expected, BadRow) else expected,
        bad_row=str(expected) if isinstance(expected, BadRow) else None,
        is_busy=is_busy,
        **record._asdict(),
    )


def _expected(
    conn: Connection, entity_type: EntityType, gids: list[str]
) -> dict[tuple[EntityType, str], Expected | BadRow]:
    archive = ART_ARCHIVES[entity_type]
    listing = archive.query(_ARTWORK, is_back="listing.is_back" if archive.has_back else "NULL")
    artwork: dict[str, list[Artwork]] = defaultdict(list)
    bad: dict[str, BadRow] = {}
    for row in _rows(conn, listing, gids=gids):
        try:
            artwork[row.gid].append(_artwork(entity_type, row))
        except BadRow as error:
            bad[row.gid] = error
    return {
        (entity_type, row.gid): bad.get(row.gid)
        or Expected(
            entity_type,
            row.gid,
            _presence(row),
            artwork=tuple(artwork[row.gid]),
            dark=row.is_dark,
        )
        for row in _entities(conn, entity_type, gids)
    }


def _presence(row: Any) -> Presence:
    if row.is_live:
        return Presence.LIVE
    if row.is_merged:
        return Presence.MERGED
    return Presence.DELETED if row.is_deleted else Presence.UNKNOWN


def _artwork(entity_type: EntityType, row: Any) -> Artwork:
    """Return one image as expected; raise `BadRow` rather than guess, which could do damage."""
    if row.suffix is None:
        raise BadRow(f"artwork {row.id} has the MIME type {row.mime_type!r}, without image_type")
    required = {"ordering": row.ordering, "edit": row.edit, "comment": row.comment}
    for column, value in required.items():
        if value is None:
            raise BadRow(f"artwork {row.id} has no {column}")
    return Artwork(
        id=row.id,
        suffix=row.suffix,
        types=tuple(row.types or ()),
        # The indexer writes NULL as false, too.
        front=bool(row.is_front),
        back=bool(row.is_back) if entity_type is EntityType.RELEASE else None,
        comment=row.comment,
        approved=bool(row.approved),
        edit=row.edit,
        ordering=row.ordering,
    )


def _events(conn: Connection, claims: Sequence[Claim]) -> dict[int, _Events]:
    events: dict[int, _Events] = defaultdict(_Events)
    for row in _rows(
        conn,
        _EVENTS_OF_ENTITIES,
        ids=[claim.entity.id for claim in claims],
        entity_types=[claim.entity.entity_type.value for claim in claims],
        gids=[claim.entity.gid for claim in claims],
    ):
        if row.state == "failed":
            events[row.entity_id].failed.append(FailedEvent(row.id, row.action, row.message))
        else:
            events[row.entity_id].is_busy = True
    return events


def _on_record(
    conn: Connection, claims: Sequence[Claim], events: Mapping[int, _Events]
) -> dict[int, _OnRecord]:
    ids = [claim.entity.id for claim in claims]
    audits: dict[int, list[_PastAudit]] = defaultdict(list)
    for row in _rows(conn, _PAST_AUDITS, ids=ids, not_compared=NOT_COMPARED):
        audits[row.entity_id].append(
            _PastAudit(
                row.outcome,
                frozenset(row.found),
                frozenset(row.repaired),
                frozenset(row.not_compared),
                frozenset(row.event_ids),
            )
        )
    completed = _completed(conn, claims, audits)
    streaks: dict[int, dict[Streak, StreakLength]] = defaultdict(dict)
    reviews: dict[int, frozenset[str]] = {}
    distrusted: frozenset[str] = frozenset()
    for row in _rows(conn, _RECORDS, ids=ids, proofs=PROOFS):
        distrusted = frozenset(row.distrusted)
        if row.kind is not None:
            streaks[row.entity_id][Streak(row.kind)] = StreakLength(row.audits, row.since)
        if row.in_review is not None:
            reviews[row.entity_id] = frozenset(row.in_review)
    failed = _still_failed(conn, events, completed)
    repairs = {id_: _repairs(audits[id_], completed) for id_ in ids}
    return {
        id_: _OnRecord(
            PreviousAudits(
                **repairs[id_]._asdict(),
                failed=tuple(event for event in events[id_].failed if event.id in failed),
                distrusted=distrusted,
                in_review=reviews.get(id_),
            ),
            streaks[id_],
            was_uneventful=not streaks[id_] and _was_uneventful(audits[id_], repairs[id_]),
        )
        for id_ in ids
    }


def _completed(
    conn: Connection, claims: Sequence[Claim], audits: Mapping[int, Sequence[_PastAudit]]
) -> frozenset[int]:
    """Return the ids of completed events that previous audits queued."""
    ours = [
        (event_id, claim.entity)
        for claim in claims
        for audit in audits.get(claim.entity.id, ())
        for event_id in audit.event_ids
    ]
    if not ours:
        return frozenset()
    rows = _rows(
        conn,
        _COMPLETED,
        event_ids=[event_id for event_id, _ in ours],
        entity_types=[entity.entity_type.value for _, entity in ours],
        gids=[entity.gid for _, entity in ours],
    )
    return frozenset(row.id for row in rows)


def _still_failed(
    conn: Connection, events: Mapping[int, _Events], completed: frozenset[int]
) -> frozenset[int]:
    """Return the ids of failed events without an identical one completed since.

    `completed` are events that previous audits queued.
    """
    ids = {event.id for each in events.values() for event in each.failed}
    if not ids:
        return frozenset()
    rows = _rows(conn, _COMPLETED_SINCE, event_ids=sorted(ids), ours=sorted(completed))
    return frozenset(ids - {row.id for row in rows})


def _repairs(audits: Sequence[_PastAudit], completed: frozenset[int]) -> _Repairs:
    """Return what previous audits have repaired, and with which result."""
    unfixed: set[str] = set()
    repaired: set[str] = set()
    unproved: set[str] = set()
    fixed_since: set[str] = set()
    judged_since: set[str] = set()
    checks = frozenset().union(*(audit.repaired for audit in audits))
    for audit in audits:
        unfixed |= audit.repaired - fixed_since
        if audit.event_ids and audit.event_ids <= completed:
            repaired |= audit.repaired - fixed_since
            unproved |= audit.repaired - judged_since
        if not audit.found & _NOTHING_COMPARED:
            judged_since |= checks - audit.not_compared
            fixed_since |= checks - audit.not_compared - audit.found
    return _Repairs(frozenset(unfixed), frozenset(repaired), frozenset(unproved))


def _was_uneventful(audits: Sequence[_PastAudit], repairs: _Repairs) -> bool:
    """Return whether another audit without findings would prove nothing new."""
    is_clean = not audits or audits[0].outcome in (Status.CLEAN, Status.LEGACY)
    return is_clean and not repairs.unfixed


def _rows(conn: Connection, query: str, **values: object) -> list[Any]:
    """Return the rows of a query; lists among its values are of ids, gids or entity types."""
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = plain_array(value)
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(query.encode(), values).fetchall()
