"""What the database says about claimed entities: their expected state, events and past audits.

A constant number of queries for a batch of any size. Rows that do not fit our assumptions make a
`Claim.bad_row` of their entity, and leave the others alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.decide import FailedEvent, History, Status
from artwork_backfill.shared.audit.expected import Artwork, Expected, Presence
from artwork_backfill.shared.auditing.models import (
    UNREADABLE,
    UNREADABLE_LIMIT,
    BadRow,
    Claim,
    Past,
)
from psycopg import Connection
from psycopg.rows import namedtuple_row

_RELEASES: Final = """
SELECT wanted.gid::text,
       release.id IS NOT NULL AS is_live,
       redirect.gid IS NOT NULL AS is_merged,
       deleted.gid IS NOT NULL AS is_deleted,
       coalesce(meta.cover_art_presence::text = 'darkened', false) AS is_dark
FROM unnest(%(gids)s::uuid[]) AS wanted (gid)
LEFT JOIN musicbrainz.release ON release.gid = wanted.gid
LEFT JOIN musicbrainz.release_meta meta ON meta.id = release.id
LEFT JOIN musicbrainz.release_gid_redirect redirect ON redirect.gid = wanted.gid
LEFT JOIN musicbrainz.deleted_entity deleted
       ON deleted.gid = wanted.gid AND deleted.data->>'entity_type' = 'release'
"""

_EVENTS: Final = """
SELECT wanted.gid::text,
       event.id IS NOT NULL AS is_live,
       redirect.gid IS NOT NULL AS is_merged,
       deleted.gid IS NOT NULL AS is_deleted,
       coalesce(meta.event_art_presence::text = 'darkened', false) AS is_dark
FROM unnest(%(gids)s::uuid[]) AS wanted (gid)
LEFT JOIN musicbrainz.event ON event.gid = wanted.gid
LEFT JOIN musicbrainz.event_meta meta ON meta.id = event.id
LEFT JOIN musicbrainz.event_gid_redirect redirect ON redirect.gid = wanted.gid
LEFT JOIN musicbrainz.deleted_entity deleted
       ON deleted.gid = wanted.gid AND deleted.data->>'entity_type' = 'event'
"""

# As artwork-indexer reads it, except that an image without an image_type is not passed over.
_COVER_ART: Final = """
SELECT release.gid::text, listing.id, listing.mime_type, image_type.suffix, listing.types,
       listing.is_front, listing.is_back, listing.comment, listing.approved, listing.edit,
       listing.ordering
FROM unnest(%(gids)s::uuid[]) AS wanted (gid)
JOIN musicbrainz.release ON release.gid = wanted.gid
JOIN cover_art_archive.index_listing listing ON listing.release = release.id
LEFT JOIN cover_art_archive.image_type ON image_type.mime_type = listing.mime_type
ORDER BY listing.ordering, listing.id
"""

_EVENT_ART: Final = """
SELECT event.gid::text, listing.id, listing.mime_type, image_type.suffix, listing.types,
       listing.is_front, NULL AS is_back, listing.comment, listing.approved, listing.edit,
       listing.ordering
FROM unnest(%(gids)s::uuid[]) AS wanted (gid)
JOIN musicbrainz.event ON event.gid = wanted.gid
JOIN event_art_archive.index_listing listing ON listing.event = event.id
LEFT JOIN cover_art_archive.image_type ON image_type.mime_type = listing.mime_type
ORDER BY listing.ordering, listing.id
"""

# A merge's copy_image event is about two entities. The queue holds few events in these states, and
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

# One more than the limit, to see what came before a row of unreadable audits.
_PAST_AUDITS: Final = """
SELECT wanted.id AS entity_id, past.outcome, past.findings, past.event_ids
FROM unnest(%(ids)s::bigint[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT result.id, result.outcome, result.findings, result.event_ids
    FROM artwork_indexer.audit_result result
    WHERE result.audit_entity_id = wanted.id
    ORDER BY result.id DESC
    LIMIT %(most)s
) AS past
ORDER BY wanted.id, past.id DESC
"""

# An event that is no longer there was completed: artwork-indexer deletes no others.
_NOT_COMPLETED: Final = """
SELECT id FROM artwork_indexer.event_queue
WHERE id = ANY (%(event_ids)s::bigint[]) AND state <> 'completed'
"""

_QUERIES: Final[Mapping[EntityType, tuple[str, str]]] = {
    EntityType.RELEASE: (_RELEASES, _COVER_ART),
    EntityType.EVENT: (_EVENTS, _EVENT_ART),
}


class _PastAudit(NamedTuple):
    outcome: str
    findings: Sequence[Mapping[str, Any]]
    event_ids: Sequence[int]


@dataclass(slots=True)
class _Events:
    """An entity's events that are not completed."""

    is_busy: bool = False
    failed: list[FailedEvent] = field(default_factory=list)


def add_expectations(conn: Connection, claims: Sequence[Claim]) -> list[Claim]:
    """Return the claims, in order, with everything that the database says about their entities."""
    expected: dict[tuple[EntityType, str], Expected | BadRow] = {}
    for entity_type, gids in _gids(claims).items():
        expected.update(_expected(conn, entity_type, gids))
    events = _events(conn, claims)
    pasts = _pasts(conn, claims, events)
    return [
        _complete(
            claim,
            expected[claim.entity.entity_type, claim.entity.gid],
            events[claim.entity.id].is_busy,
            pasts[claim.entity.id],
        )
        for claim in claims
    ]


def changed(conn: Connection, claims: Sequence[Claim]) -> frozenset[int]:
    """Return the ids of entities that MusicBrainz has merged, deleted or restored since."""
    now: dict[tuple[EntityType, str], Presence] = {}
    for entity_type, gids in _gids(claims).items():
        entities, _ = _QUERIES[entity_type]
        rows = _rows(conn, entities, gids=gids)
        now.update({(entity_type, row.gid): _presence(row) for row in rows})
    return frozenset(
        claim.entity.id
        for claim in claims
        if claim.expected is not None
        and claim.expected.presence is not now[claim.entity.entity_type, claim.entity.gid]
    )


def _gids(claims: Sequence[Claim]) -> dict[EntityType, list[str]]:
    gids: dict[EntityType, list[str]] = defaultdict(list)
    for claim in claims:
        gids[claim.entity.entity_type].append(claim.entity.gid)
    return gids


def _complete(claim: Claim, expected: Expected | BadRow, is_busy: bool, past: Past) -> Claim:
    if isinstance(expected, BadRow):
        return replace(claim, past=past, is_busy=is_busy, bad_row=str(expected))
    return replace(claim, past=past, is_busy=is_busy, expected=expected)


def _expected(
    conn: Connection, entity_type: EntityType, gids: Sequence[str]
) -> dict[tuple[EntityType, str], Expected | BadRow]:
    entities, listing = _QUERIES[entity_type]
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
        for row in _rows(conn, entities, gids=gids)
    }


def _presence(row: Any) -> Presence:
    if row.is_live:
        return Presence.LIVE
    if row.is_merged:
        return Presence.MERGED
    return Presence.DELETED if row.is_deleted else Presence.UNKNOWN


def _artwork(entity_type: EntityType, row: Any) -> Artwork:
    """Return one image as expected, or raise `BadRow`: a guess would become a wrong repair."""
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


def _pasts(
    conn: Connection, claims: Sequence[Claim], events: Mapping[int, _Events]
) -> dict[int, Past]:
    ids = [claim.entity.id for claim in claims]
    audits: dict[int, list[_PastAudit]] = defaultdict(list)
    for row in _rows(conn, _PAST_AUDITS, ids=ids, most=UNREADABLE_LIMIT + 1):
        audits[row.entity_id].append(_PastAudit(row.outcome, row.findings, row.event_ids))
    event_ids = [id_ for past in audits.values() for audit in past for id_ in audit.event_ids]
    open_events = (
        {row.id for row in _rows(conn, _NOT_COMPLETED, event_ids=event_ids)} if event_ids else set()
    )
    return {id_: _past(audits.get(id_, []), open_events, tuple(events[id_].failed)) for id_ in ids}


def _past(
    audits: Sequence[_PastAudit], open_events: set[int], failed: tuple[FailedEvent, ...]
) -> Past:
    """Return what the latest audits mean for this one; `audits` has the latest first."""
    unreadable = 0
    while unreadable < len(audits) and audits[unreadable].outcome == UNREADABLE:
        unreadable += 1
    if unreadable == len(audits):
        return Past(History(failed=failed), unreadable, is_settled=not audits)
    last = audits[unreadable]
    is_repaired = bool(last.event_ids) and open_events.isdisjoint(last.event_ids)
    repaired = frozenset(
        str(finding["check"])
        for finding in last.findings
        if is_repaired and finding.get("repair") is True
    )
    is_settled = unreadable == 0 and last.outcome in (Status.CLEAN, Status.LEGACY)
    return Past(History(repaired=repaired, failed=failed), unreadable, is_settled)


def _rows(conn: Connection, query: str, **values: object) -> list[Any]:
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(query.encode(), values).fetchall()
