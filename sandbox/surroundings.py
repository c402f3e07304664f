"""Everything that the jobs need: databases with a world in them, and the services."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg

from sandbox import schema
from sandbox.indexer import Indexer
from sandbox.library import Library, LibrarySpec, load_library
from sandbox.load import build_database
from sandbox.postgres import FAST, Server, start_server
from sandbox.services import Services
from sandbox.world import Spec, World

WXYC_SCHEMA = "wxyc_schema"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What `start` has started. `world` and `library` say what the jobs should do."""

    server: Server
    services: Services
    world: World
    library: Library
    musicbrainz_dsn: str
    wxyc_dsn: str

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which the jobs find all this."""
        return {
            "MUSICBRAINZ_DATABASE_URL": self.musicbrainz_dsn,
            "WXYC_DATABASE_URL": self.wxyc_dsn,
            "WXYC_SCHEMA_NAME": WXYC_SCHEMA,
            **self.services.environment,
            "BACKFILL_CONTACT": "sandbox@localhost",
        }

    def indexer(self, *, seconds_per_event: float = 0.0) -> Indexer:
        """Return a stand-in for artwork-indexer, not yet running, without the real pauses."""
        return Indexer(
            self.musicbrainz_dsn,
            self.services.archive_url,
            self.services.musicbrainz_url,
            seconds_per_event=seconds_per_event,
            taking_s=0,
        )


@contextlib.contextmanager
def start(
    spec: Spec | None = None,
    library_spec: LibrarySpec | None = None,
    *,
    settings: Mapping[str, str] = FAST,
    tcp: bool = False,
) -> Iterator[Surroundings]:
    """Start everything, for the duration of the ``with`` block.

    Parameters
    ----------
    settings
        Of PostgreSQL; see `sandbox.postgres`.
    tcp
        Whether the URLs of the databases name a TCP port, for containers.
    """
    world = World(spec or Spec())
    library = Library(library_spec or LibrarySpec())
    with (
        start_server(settings=settings, tcp=tcp) as server,
        Services(world.spec, library.spec) as services,
    ):
        musicbrainz_dsn = server.create_database("musicbrainz")
        build_database(musicbrainz_dsn, world)
        wxyc_dsn = server.create_database("wxyc")
        if tcp:
            musicbrainz_dsn, wxyc_dsn = server.tcp_dsn("musicbrainz"), server.tcp_dsn("wxyc")
        with psycopg.connect(wxyc_dsn) as conn:
            schema.create_wxyc(conn, WXYC_SCHEMA)
            load_library(conn, library, WXYC_SCHEMA)
        yield Surroundings(server, services, world, library, musicbrainz_dsn, wxyc_dsn)
