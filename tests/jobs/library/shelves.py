"""A library database that a test fills, looks at and runs the job on, and a scripted LML."""

from __future__ import annotations

import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from artwork_backfill.jobs.library_artwork_url_backfill.existing import CheckExisting
from artwork_backfill.jobs.library_artwork_url_backfill.job import (
    LibraryArtworkUrlBackfill,
    Options,
)
from artwork_backfill.jobs.library_artwork_url_backfill.undo import Undo
from artwork_backfill.shared.clients.http import Unreadable
from artwork_backfill.shared.clients.lml import Artwork, BulkAnswer, LmlQuery, LookupAnswer
from artwork_backfill.shared.engine import session as db
from artwork_backfill.shared.engine.job import Job, Run, RunOptions
from artwork_backfill.shared.engine.log import Redactor, RunLog
from artwork_backfill.shared.engine.progress import Progress
from artwork_backfill.shared.engine.report import Report
from artwork_backfill.shared.engine.runner import Runner
from artwork_backfill.shared.engine.stop import StopFlag
from artwork_backfill.shared.engine.tables import check_tables
from artwork_backfill.shared.service_stats import ServiceStats
from artwork_backfill.shared.settings import Settings
from sandbox.library import artwork_url

SPACER = "https://st.discogs.com/images/spacer.gif"
SITE_URL = artwork_url(999_999)


def number_of(album: str) -> int:
    return zlib.crc32(album.encode())


def url_of(album: str, picture: str = "R") -> str:
    return artwork_url(number_of(album), picture)


class FakeLml:
    """Knows every album, but for those whose title begins with another word."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.before_answer: Callable[[Sequence[LmlQuery]], None] = lambda _: None

    @property
    def name(self) -> str:
        return "LML"

    def lookup_bulk(self, queries: Sequence[LmlQuery]) -> tuple[BulkAnswer, ...]:
        self.asked.update(query.album for query in queries)
        self.before_answer(queries)
        return tuple(self._bulk_answer(index, query) for index, query in enumerate(queries))

    def lookup(self, query: LmlQuery) -> LookupAnswer:
        self.asked[query.album] += 1
        self.before_answer([query])
        if query.album.startswith("error"):
            raise Unreadable("HTTP 500", service="LML")
        return self._answer(query)

    def stats(self) -> ServiceStats:
        return ServiceStats(0, 0, 0, 0.0, 0.0)

    def close(self) -> None:
        pass

    def _bulk_answer(self, index: int, query: LmlQuery) -> BulkAnswer:
        if query.album.startswith("error"):
            return BulkAnswer(index, "failed", None, "TimeoutError")
        return BulkAnswer(index, "answered", self._answer(query))

    def _answer(self, query: LmlQuery) -> LookupAnswer:
        artist, album, url = query.artist, query.album, url_of(query.album)

        def found(artist: str, album: str, url: str | None) -> LookupAnswer:
            return LookupAnswer((Artwork(artist, album, number_of(query.album), url, 0.9),))

        match album.split()[0]:
            case "unknown":
                return LookupAnswer(())
            case "timeout":
                return LookupAnswer((), unsure="LML gave up looking (timeout)")
            case "other":
                return found(artist, "Something else", url)
            case "stranger":
                return found("Somebody", album, url)
            case "bare":
                return found(artist, album, None)
            case "spacer":
                return found(artist, album, SPACER)
            case "photo":
                return found(artist, album, url_of(album, "A"))
            case "bad":
                return found(artist, album, "ftp://i.discogs.com/1")
            case "shared":
                return found(artist, album, artwork_url(1))
            case _:
                return found(artist, album, url)


class Shelves:
    """A library database. See the module's docstring."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.lml = FakeLml()
        self.job: Job[Any, Any] | None = None
        self.execute(
            "INSERT INTO artists (artist_name, discogs_artist_id)"
            " VALUES ('Stereolab', 500), ('Unheard', NULL), ('  ', 501)"
        )

    @contextmanager
    def session(self, *, autocommit: bool = True) -> Iterator[Connection]:
        options = "-c search_path=wxyc_schema"
        with psycopg.connect(self.dsn, autocommit=autocommit, options=options) as conn:
            yield conn

    def execute(self, statement: str, *values: object) -> None:
        with self.session() as conn:
            conn.execute(statement.encode(), values)

    def add(self, *titles: str, artist: int = 1, url: str | None = None) -> None:
        with self.session() as conn:
            conn.cursor().executemany(
                "INSERT INTO library (artist_id, album_title, artwork_url) VALUES (%s, %s, %s)",
                [(artist, title, url) for title in titles],
            )

    def add_albums(self, count: int) -> None:
        self.add(*(f"{number} Album" for number in range(1, count + 1)))

    def urls(self) -> dict[str, str | None]:
        """The artwork by title."""
        with self.session() as conn:
            return dict(conn.execute("SELECT album_title, artwork_url FROM library").fetchall())

    def filled(self) -> dict[str, str]:
        """The artwork by title, of the rows that have some."""
        return {title: url for title, url in self.urls().items() if url is not None}

    def watermark(self) -> object:
        with self.session() as conn:
            return conn.execute("SELECT last_modified_at FROM library_watermark").fetchone()

    def run(
        self,
        own: Options | None = None,
        *,
        dsn: str | None = None,
        connect: Callable[[], Connection] | None = None,
        **options: Any,
    ) -> Report:
        """Run the job; as fast as possible unless told otherwise."""
        own = own or Options(write_rate=None)
        return self._run(
            lambda run: LibraryArtworkUrlBackfill(run, own, client=self.lml),  # type: ignore[arg-type]
            dsn or self.dsn,
            options,
            connect,
        )

    def undo(self, path: Path, **options: Any) -> Report:
        return self._run(lambda run: Undo(run, path), self.dsn, options)

    def check_existing(self, **options: Any) -> Report:
        return self._run(CheckExisting, self.dsn, options)

    def _run(
        self,
        build: Callable[[Run], Job[Any, Any]],
        dsn: str,
        options: dict[str, Any],
        connect: Callable[[], Connection] | None = None,
    ) -> Report:
        stop_flag = StopFlag()
        chosen = RunOptions(**{"batch_size": 100, **options})
        run = Run(
            uuid.uuid4(),
            chosen,
            Settings({"WXYC_DATABASE_URL": dsn}),
            stop_flag.event,
            connect or (lambda: db.connect(dsn, "test")),
        )
        self.job = build(run)
        with closing(run.open_connection()) as conn:
            check_tables(conn, self.job.more_tables, read_only=chosen.dry_run)
        log = RunLog(self.job.name, run.id, Redactor(()))
        return Runner(
            self.job, run, log=log, progress=Progress(log, None), stop_flag=stop_flag
        ).run()
