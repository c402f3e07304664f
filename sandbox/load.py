"""Loading of a world into a MusicBrainz database by COPY: millions of entities take seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import psycopg

from sandbox import schema
from sandbox.entities import Entity, EntityType, Presence
from sandbox.world import LANGUAGES, Spec, World

# The number of entities sent at once: enough to be fast, few enough to keep memory constant.
_CHUNK = 10_000

# The number of entities that justify a process of their own.
_WORTH_A_PROCESS = 50_000

_ART_COLUMNS = "edit, ordering, comment, mime_type"

# More than the number of artists in any credit.
_MOST_ARTISTS = 4

# NULL in COPY's text format.
_NULL = r"\N"

# The directory from which the package can be imported.
_ROOT = Path(__file__).resolve().parent.parent

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
    EntityType.RELEASE: "musicbrainz.release_gid_redirect (gid, new_id)",
    EntityType.EVENT: "musicbrainz.event_gid_redirect (gid, new_id)",
}

# The special characters of COPY's text format.
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})

_DATES = tuple(
    (datetime(2005, 1, 1, tzinfo=UTC) + timedelta(hours=7 * step)).isoformat()
    for step in range(1 << 14)
)


def build_database(dsn: str, world: World, processes: int | None = None) -> None:
    """Create the outside schemas in an empty database and load a world, as fast as possible.

    Several processes load large worlds, because making the rows takes longer than storing them; as
    many as the machine has processors unless `processes` is given.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        schema.create_musicbrainz_tables(conn)
        size = world.spec.size
        processes = processes or min(os.cpu_count() or 1, size // _WORTH_A_PROCESS)
        if processes > 1:
            bounds = [size * part // processes for part in range(processes + 1)]
            _load_in_processes(dsn, world, list(pairwise(bounds)))
        else:
            load(conn, world)
        schema.create_musicbrainz_indexes(conn)
        conn.execute("ANALYZE")


def _load_in_processes(dsn: str, world: World, parts: list[tuple[int, int]]) -> None:
    command = [sys.executable, "-m", __name__, world.spec.to_json()]
    environment = {**os.environ, "PGDSN": dsn}
    running = [
        subprocess.Popen([*command, str(start), str(stop)], env=environment, cwd=_ROOT)
        for start, stop in parts
    ]
    exit_codes = [process.wait() for process in running]
    if any(exit_codes):
        raise RuntimeError("a process that loads a part of the world failed; see its output above")


def load(conn: psycopg.Connection, world: World) -> None:
    """Load a world into a database that has the outside schemas, with or without indexes."""
    with conn.transaction(), schema.without_triggers(conn):
        _load_part(conn, world, 0, world.spec.size)


def _load_part(conn: psycopg.Connection, world: World, start: int, stop: int) -> None:
    loader = _Loader(world)
    with conn.transaction():
        for first in range(start, stop, _CHUNK):
            for number in range(first, min(first + _CHUNK, stop)):
                loader.add(world.entity(number))
            for name, target in _TABLES.items():
                _copy(conn, target, loader.take(name))
        for entity_type, target in _REDIRECTS.items():
            _copy(conn, target, "".join(loader.redirects[entity_type]))


def _copy(conn: psycopg.Connection, target: str, text: str) -> None:
    if text:
        with conn.cursor().copy(f"COPY {target} FROM STDIN") as copy:
            copy.write(text)


class _Loader:
    """Turn entities into lines of COPY's text format, by table."""

    def __init__(self, world: World) -> None:
        self._world = world
        now = datetime.now(UTC)
        self._recent_dates = tuple((now - timedelta(hours=1 + h)).isoformat() for h in range(20))
        self._lines: dict[str, list[str]] = {name: [] for name in _TABLES}
        self.redirects: dict[EntityType, list[str]] = {kind: [] for kind in EntityType}

    def take(self, name: str) -> str:
        """Return the lines for a table since the last call."""
        lines = self._lines[name]
        text = "".join(lines)
        lines.clear()
        return text

    def add(self, entity: Entity) -> None:
        if entity.presence is Presence.LIVE:
            added = self._added(entity.number)
            if entity.entity_type is EntityType.RELEASE:
                self._add_release(entity, added)
            else:
                self._add_event(entity, added)
            if entity.artwork:
                self._add_artwork(entity, added)
        elif entity.presence is Presence.MERGED:
            heir = self._world.merged_into(entity)
            assert heir is not None
            self.redirects[entity.entity_type].append(f"{entity.gid}\t{heir.row_id}\n")
        elif entity.presence is Presence.DELETED:
            data = {"entity_type": str(entity.entity_type), "last_known_name": entity.title}
            text = json.dumps(data).translate(_ESCAPES)
            deleted_at = self._added(entity.number)
            self._lines["deleted"].append(f"{entity.gid}\t{text}\t{deleted_at}\n")

    def _add_release(self, entity: Entity, added: str) -> None:
        row_id = entity.row_id
        if not entity.artwork:
            # Its facts matter for no comparison, and there are millions of such entities.
            self._lines["release"].append(
                f"{row_id}\t{entity.gid}\t{entity.title}\t{row_id}\t\\N\t\\N\n"
            )
            self._lines["release_meta"].append(f"{row_id}\t{added}\tabsent\t\\N\n")
            return
        facts = self._world.facts(entity.number)
        language = _NULL if facts.language is None else LANGUAGES.index(facts.language) + 1
        self._lines["release"].append(
            f"{row_id}\t{entity.gid}\t{entity.title}\t{row_id}\t{language}"
            f"\t{facts.barcode or _NULL}\n"
        )
        self._lines["release_meta"].append(
            f"{row_id}\t{added}\t{_art_presence(entity)}\t{facts.asin or _NULL}\n"
        )
        if facts.date is not None:
            parts = [_NULL if "?" in part else str(int(part)) for part in facts.date.split("-")]
            year, month, day = (*parts, _NULL, _NULL)[:3]
            self._lines["release_date"].append(f"{row_id}\t{year}\t{month}\t{day}\n")
        for place, artist in enumerate(facts.artists):
            artist_id = row_id * _MOST_ARTISTS + place
            self._lines["artist"].append(
                f"{artist_id}\t{artist.gid}\t{artist.name}\t{artist.sort_name}\n"
            )
            self._lines["artist_credit"].append(
                f"{row_id}\t{place}\t{artist_id}\t{artist.credited}\n"
            )

    def _add_event(self, entity: Entity, added: str) -> None:
        row_id = entity.row_id
        # MusicBrainz stores only the edit that added an event, not the time.
        edit_id = self._world.spec.size + entity.edit_id
        self._lines["event"].append(f"{row_id}\t{entity.gid}\t{entity.title}\n")
        self._lines["event_meta"].append(f"{row_id}\t{_art_presence(entity)}\n")
        self._lines["edit"].append(f"{edit_id}\t{added}\t{added}\n")
        self._lines["edit_event"].append(f"{edit_id}\t{row_id}\n")

    def _add_artwork(self, entity: Entity, opened: str) -> None:
        if entity.entity_type is EntityType.RELEASE:
            art, types = self._lines["release_art"], self._lines["release_art_type"]
        else:
            art, types = self._lines["event_art"], self._lines["event_art_type"]
        row_id, edit_id = entity.row_id, entity.edit_id
        closed = opened if entity.approved else r"\N"
        self._lines["edit"].append(f"{edit_id}\t{opened}\t{closed}\n")
        for place, (artwork_id, mime_type, _, type_ids, comment) in enumerate(entity.artwork, 1):
            art.append(f"{artwork_id}\t{row_id}\t{edit_id}\t{place}\t{comment}\t{mime_type}\n")
            for type_id in type_ids:
                types.append(f"{artwork_id}\t{type_id}\n")

    def _added(self, number: int) -> str:
        if self._world.is_recent(number):
            return self._recent_dates[number % len(self._recent_dates)]
        return _DATES[number % len(_DATES)]


def _art_presence(entity: Entity) -> str:
    if entity.dark:
        return "darkened"
    return "present" if entity.artwork else "absent"


def _main() -> None:
    """Load one part of a world: its parameters, the first number, and the one after the last."""
    spec, start, stop = sys.argv[1:]
    with psycopg.connect(os.environ["PGDSN"]) as conn:
        _load_part(conn, World(Spec.from_json(spec)), int(start), int(stop))


if __name__ == "__main__":
    _main()
