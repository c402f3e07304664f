"""Loading of a world into a MusicBrainz database by COPY: a million entities take half a minute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from sandbox import schema
from sandbox.entities import Entity, EntityType, Presence
from sandbox.world import LANGUAGES, World

# The number of entities sent at once: enough to be fast, few enough to keep memory constant.
_CHUNK = 10_000

# More than the number of artists in any credit.
_MOST_ARTISTS = 4

_ART_COLUMNS = "edit, ordering, comment, mime_type"

# In an order in which every row finds the rows that it refers to.
_TABLES = {
    "release": "musicbrainz.release (id, gid, name, artist_credit, language, barcode)",
    "release_meta": "musicbrainz.release_meta (id, date_added, cover_art_presence, amazon_asin)",
    "release_date": (
        "musicbrainz.release_unknown_country (release, date_year, date_month, date_day)"
    ),
    "artist": "musicbrainz.artist (id, gid, name, sort_name)",
    "artist_credit": "musicbrainz.artist_credit_name (artist_credit, position, artist, name)",
    "event": "musicbrainz.event (id, gid, name)",
    "event_meta": "musicbrainz.event_meta (id, event_art_presence)",
    "edit": "musicbrainz.edit (id, open_time, close_time)",
    "edit_event": "musicbrainz.edit_event (edit, event)",
    "deleted": "musicbrainz.deleted_entity (gid, data, deleted_at)",
    "release_art": f"cover_art_archive.cover_art (id, release, {_ART_COLUMNS})",
    "release_art_type": "cover_art_archive.cover_art_type (id, type_id)",
    "event_art": f"event_art_archive.event_art (id, event, {_ART_COLUMNS})",
    "event_art_type": "event_art_archive.event_art_type (id, type_id)",
}

# Filled at the end, because a merged entity may come before its target.
_REDIRECTS = {
    "release_redirect": "musicbrainz.release_gid_redirect (gid, new_id)",
    "event_redirect": "musicbrainz.event_gid_redirect (gid, new_id)",
}

_FIRST_DATE = datetime(2005, 1, 1, tzinfo=UTC)
_DATES = 1 << 14

_Rows = dict[str, list[tuple[Any, ...]]]


def build_database(dsn: str, world: World) -> None:
    """Create the outside schemas in an empty database and load a world."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        schema.create_musicbrainz(conn)
        load(conn, world)
        conn.execute("ANALYZE")


def load(conn: psycopg.Connection, world: World) -> None:
    """Load a world into a database that has the outside schemas."""
    now = datetime.now(UTC)
    rows: _Rows = {table: [] for table in (*_TABLES, *_REDIRECTS)}
    with conn.transaction(), schema.without_triggers(conn):
        for number in range(world.spec.size):
            for table, *row in _rows(world, world.entity(number), now):
                rows[table].append(tuple(row))
            if number % _CHUNK == 0:
                _send(conn, rows, _TABLES)
        _send(conn, rows, _TABLES)
        _send(conn, rows, _REDIRECTS)


def _send(conn: psycopg.Connection, rows: _Rows, targets: dict[str, str]) -> None:
    for table, target in targets.items():
        with conn.cursor().copy(f"COPY {target} FROM STDIN") as copy:
            for row in rows[table]:
                copy.write_row(row)
        rows[table].clear()


def _rows(world: World, entity: Entity, now: datetime) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of an entity, each after the name of its table."""
    number, kind = entity.number, entity.entity_type
    if world.is_recent(number):
        added = now - timedelta(hours=1 + number % 20)
    else:
        added = _FIRST_DATE + timedelta(hours=7 * (number % _DATES))
    if entity.presence is Presence.LIVE:
        if kind is EntityType.RELEASE:
            yield from _release_rows(world, entity, added)
        else:
            # MusicBrainz stores only the edit that added an event, not the time.
            edit_id = world.spec.size + entity.edit_id
            yield "event", entity.row_id, entity.gid, entity.title
            yield "event_meta", entity.row_id, _art_presence(entity)
            yield "edit", edit_id, added, added
            yield "edit_event", edit_id, entity.row_id
        if entity.artwork:
            yield from _artwork_rows(entity, added)
    elif entity.presence is Presence.MERGED:
        heir = world.merged_into(entity)
        assert heir is not None
        yield f"{kind}_redirect", entity.gid, heir.row_id
    elif entity.presence is Presence.DELETED:
        data = {"entity_type": str(kind), "last_known_name": entity.title}
        yield "deleted", entity.gid, json.dumps(data), added


def _release_rows(world: World, entity: Entity, added: datetime) -> Iterator[tuple[Any, ...]]:
    row_id = entity.row_id
    if not entity.artwork:
        # Its facts matter for no comparison, and there are millions of such entities.
        yield "release", row_id, entity.gid, entity.title, row_id, None, None
        yield "release_meta", row_id, added, "absent", None
        return
    facts = world.facts(entity.number)
    language = None if facts.language is None else LANGUAGES.index(facts.language) + 1
    yield "release", row_id, entity.gid, entity.title, row_id, language, facts.barcode
    yield "release_meta", row_id, added, _art_presence(entity), facts.asin
    if facts.date is not None:
        yield (
            "release_date",
            row_id,
            *(None if "?" in part else int(part) for part in facts.date.split("-")),
        )
    for place, artist in enumerate(facts.artists):
        artist_id = row_id * _MOST_ARTISTS + place
        yield "artist", artist_id, artist.gid, artist.name, artist.sort_name
        yield "artist_credit", row_id, place, artist_id, artist.credited


def _artwork_rows(entity: Entity, opened: datetime) -> Iterator[tuple[Any, ...]]:
    kind, row_id, edit_id = entity.entity_type, entity.row_id, entity.edit_id
    yield "edit", edit_id, opened, opened if entity.approved else None
    for place, artwork in enumerate(entity.artwork, 1):
        own = (edit_id, place, artwork.comment, artwork.mime_type)
        yield f"{kind}_art", artwork.id, row_id, *own
        for type_id in artwork.type_ids:
            yield f"{kind}_art_type", artwork.id, type_id


def _art_presence(entity: Entity) -> str:
    if entity.dark:
        return "darkened"
    return "present" if entity.artwork else "absent"
