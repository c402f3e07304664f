"""Everything that the jobs need: databases with a world in them, and the services."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

from sandbox import schema
from sandbox.indexer import Indexer
from sandbox.library import Library, LibrarySpec, load_library
from sandbox.load import build_database
from sandbox.postgres import FAST, Server, start_server
from sandbox.services import Services
from sandbox.world import Spec, World

WXYC_SCHEMA = "wxyc_schema"
COMMAND = Path(sys.executable).with_name("artwork-backfill")


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

    def run(self, *arguments: str) -> str:
        """Run a command here; return its output.

        Raises `subprocess.CalledProcessError`, with the output as a note, if it fails.
        """
        ended = subprocess.run(
            [str(COMMAND), *arguments],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            ended.check_returncode()
        except subprocess.CalledProcessError as error:
            error.add_note(ended.stdout)
            raise
        return ended.stdout

    @contextlib.contextmanager
    def indexing(self, *, seconds_per_event: float) -> Iterator[None]:
        """Let a stand-in for artwork-indexer work during the ``with`` block."""
        indexer = self.indexer(seconds_per_event=seconds_per_event)
        worker = threading.Thread(target=indexer.run)
        worker.start()
        try:
            yield
        finally:
            indexer.stop()
            worker.join()

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


def stop_flag() -> threading.Event:
    """Return a flag that Ctrl-C and SIGTERM set from now on."""
    flag = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: flag.set())
    return flag
