"""Entities of MusicBrainz that are written down one by one, and their rows in a database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg

from sandbox.entities import EntityType, Presence
from sandbox.formats import Listed

MIME_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "pdf": "application/pdf",
}

_TABLES = {
    EntityType.RELEASE: (
        "musicbrainz.release (id, gid, name, artist_credit)",
        "musicbrainz.release_meta (id, cover_art_presence)",
        "musicbrainz.release_gid_redirect (gid, new_id)",
        "cover_art_archive.cover_art (id, release, edit, ordering, comment, mime_type)",
        "cover_art_archive.cover_art_type (id, type_id)",
    ),
    EntityType.EVENT: (
        "musicbrainz.event (id, gid, name)",
        "musicbrainz.event_meta (id, event_art_presence)",
        "musicbrainz.event_gid_redirect (gid, new_id)",
        "event_art_archive.event_art (id, event, edit, ordering, comment, mime_type)",
        "event_art_archive.event_art_type (id, type_id)",
    ),
}


@dataclass(frozen=True, slots=True)
class Known:
    """What MusicBrainz knows of one gid.

    Parameters:
        images: of a live entity, in order, as its listing has them.
        xml: of a live entity: what the web service answers.
        heir: the gid of the entity that a merged one went into.
        darkened: whether MusicBrainz knows the item of a live entity to be dark.
    """

    entity_type: EntityType
    gid: str
    presence: Presence
    images: tuple[Listed, ...] = ()
    xml: bytes = b""
    heir: str | None = None
    darkened: bool = False


def load(conn: psycopg.Connection, known: Iterable[Known], *, first_row: int = 1) -> None:
    """Write the rows of some entities, with ids from `first_row` on, in one transaction.

    Every heir must be among them.
    """
    rows: dict[str, list[tuple[object, ...]]] = {}
    ids: dict[str, int] = {}
    known = list(known)
    type_ids = _type_ids(conn, known)
    for row_id, entity in enumerate(known, first_row):
        ids[entity.gid] = row_id
        if entity.presence is Presence.LIVE:
            _add_live(rows, row_id, entity, type_ids[entity.entity_type])
        elif entity.presence is Presence.DELETED:
            data = f'{{"entity_type": "{entity.entity_type}", "last_known_name": "gone"}}'
            rows.setdefault("musicbrainz.deleted_entity (gid, data)", []).append((entity.gid, data))
    for entity in known:
        if entity.presence is Presence.MERGED:
            assert entity.heir is not None
            table = _TABLES[entity.entity_type][2]
            rows.setdefault(table, []).append((entity.gid, ids[entity.heir]))
    with conn.transaction():
        # These rows are no edits: MusicBrainz's triggers would queue events, which put audits off.
        conn.execute("SET LOCAL session_replication_role = replica")
        for target, lines in rows.items():
            with conn.cursor().copy(f"COPY {target} FROM STDIN".encode()) as copy:
                for line in lines:
                    copy.write_row(line)


def _type_ids(conn: psycopg.Connection, known: Iterable[Known]) -> dict[EntityType, dict[str, int]]:
    """The ids of the types of images, with those that MusicBrainz has added since."""
    ids: dict[EntityType, dict[str, int]] = {}
    for entity_type, tables in _TABLES.items():
        table = f"{tables[3].partition('.')[0]}.art_type"
        images = [image for e in known if e.entity_type is entity_type for image in e.images]
        names = sorted({name for image in images for name in image.types})
        conn.execute(
            f"INSERT INTO {table} (name)"
            f" SELECT unnest(%s::text[]) EXCEPT SELECT name FROM {table}".encode(),
            (names,),
        )
        ids[entity_type] = dict(conn.execute(f"SELECT name, id FROM {table}".encode()).fetchall())
    return ids


def _add_live(
    rows: dict[str, list[tuple[object, ...]]],
    row_id: int,
    entity: Known,
    type_ids: dict[str, int],
) -> None:
    tables = _TABLES[entity.entity_type]
    is_release = entity.entity_type is EntityType.RELEASE
    presence = "darkened" if entity.darkened else "present" if entity.images else "absent"
    credit = (row_id,) if is_release else ()
    rows.setdefault(tables[0], []).append((row_id, entity.gid, f"Title {row_id}", *credit))
    rows.setdefault(tables[1], []).append((row_id, presence))
    edits = {image.edit: image.approved for image in entity.images}
    for edit, approved in edits.items():
        closed = "2020-01-02" if approved else None
        rows.setdefault("musicbrainz.edit (id, open_time, close_time)", []).append(
            (edit, "2020-01-01", closed)
        )
    for place, image in enumerate(entity.images, 1):
        mime_type = MIME_TYPES[image.suffix]
        rows.setdefault(tables[3], []).append(
            (image.id, row_id, image.edit, place, image.comment, mime_type)
        )
        for name in image.types:
            rows.setdefault(tables[4], []).append((image.id, type_ids[name]))


def answers(known: Iterable[Known]) -> dict[str, dict[str, str] | None]:
    """What the web service answers for some entities, to be planted; every heir among them."""
    by_gid = {entity.gid: entity for entity in known}
    planted: dict[str, dict[str, str] | None] = {}
    for entity in by_gid.values():
        answering = by_gid[entity.heir] if entity.heir else entity
        key = f"{entity.entity_type}/{entity.gid}"
        live = answering.presence is Presence.LIVE
        planted[key] = {"gid": answering.gid, "xml": answering.xml.decode()} if live else None
    return planted
