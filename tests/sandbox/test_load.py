"""Loading: the database says of a world what the world says of itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from sandbox import load
from sandbox.entities import EntityType, Presence
from sandbox.formats import Listed
from sandbox.postgres import Cluster
from sandbox.world import Spec, World

LISTINGS = {
    EntityType.RELEASE: """
        SELECT release, index_listing.id, suffix, types, is_front, is_back, comment, approved, edit
          FROM cover_art_archive.index_listing
          JOIN cover_art_archive.image_type USING (mime_type) ORDER BY ordering""",
    EntityType.EVENT: """
        SELECT event, index_listing.id, suffix, types, is_front, NULL, comment, approved, edit
          FROM event_art_archive.index_listing
          JOIN cover_art_archive.image_type USING (mime_type) ORDER BY ordering""",
}

ENTITIES = {
    EntityType.RELEASE: """
        SELECT id, gid::text, name, cover_art_presence::text
          FROM musicbrainz.release JOIN musicbrainz.release_meta USING (id)""",
    EntityType.EVENT: """
        SELECT id, gid::text, name, event_art_presence::text
          FROM musicbrainz.event JOIN musicbrainz.event_meta USING (id)""",
}

REDIRECTS = {
    EntityType.RELEASE: "SELECT gid::text, new_id FROM musicbrainz.release_gid_redirect",
    EntityType.EVENT: "SELECT gid::text, new_id FROM musicbrainz.event_gid_redirect",
}

DELETED = """
SELECT gid::text, data->>'entity_type', data->>'last_known_name' FROM musicbrainz.deleted_entity
"""

RECENT = """
SELECT id FROM musicbrainz.release_meta WHERE date_added > now() - interval '1 day'
UNION ALL
SELECT event FROM musicbrainz.edit_event JOIN musicbrainz.edit ON edit.id = edit
 WHERE open_time > now() - interval '1 day'
"""


@pytest.fixture(scope="module")
def loaded(postgres: Cluster) -> Iterator[tuple[World, psycopg.Connection]]:
    world = World(Spec(seed=11, size=900, dark_share=0.05, recent_share=0.05))
    name = f"loaded_{uuid.uuid4().hex}"
    dsn = postgres.create_database(name)
    load.build_database(dsn, world)
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield world, conn
    postgres.drop_database(name)


@pytest.mark.parametrize("entity_type", list(EntityType))
def test_entities_and_their_presence(
    loaded: tuple[World, psycopg.Connection], entity_type: EntityType
) -> None:
    world, conn = loaded
    planned = {
        (entity.row_id, entity.gid, entity.title, _presence(entity.dark, bool(entity.artwork)))
        for entity in map(world.entity, range(world.spec.size))
        if entity.presence is Presence.LIVE and entity.entity_type is entity_type
    }
    assert set(conn.execute(ENTITIES[entity_type]).fetchall()) == planned


def _presence(dark: bool, has_art: bool) -> str:
    if dark:
        return "darkened"
    return "present" if has_art else "absent"


@pytest.mark.parametrize("entity_type", list(EntityType))
def test_listings(loaded: tuple[World, psycopg.Connection], entity_type: EntityType) -> None:
    world, conn = loaded
    found: dict[int, list[Listed]] = {}
    for row_id, artwork_id, suffix, types, *rest in conn.execute(LISTINGS[entity_type]):
        found.setdefault(row_id, []).append(Listed(artwork_id, suffix, tuple(types), *rest))
    planned = {
        entity.row_id: world.listing(entity)
        for entity in map(world.entity, range(world.spec.size))
        if entity.artwork and entity.entity_type is entity_type
    }
    assert planned
    assert found == planned


def test_who_is_gone(loaded: tuple[World, psycopg.Connection]) -> None:
    world, conn = loaded
    merged, deleted = set(), set()
    for entity in map(world.entity, range(world.spec.size)):
        heir = world.merged_into(entity)
        if heir is not None:
            merged.add((entity.entity_type, entity.gid, heir.row_id))
        elif entity.presence is Presence.DELETED:
            deleted.add((entity.gid, str(entity.entity_type), entity.title))
    found = {
        (entity_type, *row)
        for entity_type, query in REDIRECTS.items()
        for row in conn.execute(query).fetchall()
    }
    assert merged
    assert found == merged
    assert deleted
    assert set(conn.execute(DELETED).fetchall()) == deleted


def test_recent_entities_were_added_within_a_day(
    loaded: tuple[World, psycopg.Connection],
) -> None:
    world, conn = loaded
    recent = {
        number + 1
        for number in range(world.spec.size)
        if world.is_recent(number) and world.entity(number).presence is Presence.LIVE
    }
    assert recent
    assert {row[0] for row in conn.execute(RECENT)} == recent


def test_a_world_can_be_loaded_into_a_database_with_indexes(musicbrainz_database: str) -> None:
    world = World(Spec(size=300))
    with psycopg.connect(musicbrainz_database) as conn:
        load.load(conn, world)
        (releases,) = conn.execute("SELECT count(*) FROM musicbrainz.release").fetchone() or (0,)
    live = [
        entity
        for entity in map(world.entity, range(300))
        if entity.presence is Presence.LIVE and entity.entity_type is EntityType.RELEASE
    ]
    assert releases == len(live)
