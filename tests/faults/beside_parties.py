"""Who works at once in one test: editors, indexers, audits, a killer, and who watches them."""

from __future__ import annotations

import json
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Thread
from typing import Any, Final

import psycopg
from psycopg import errors

from sandbox.entities import EntityType
from sandbox.indexer import Indexer
from sandbox.services import Services
from sandbox.world import World
from tests.faults.fault_processes import JobProcess
from tests.timing import Metronome

_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))

#: What sessions are called in pg_stat_activity: those of editors, and those of the test itself.
EDITOR: Final = "editor"
OURS: Final = "artwork-backfill test"

_COPY: Final = """
SELECT redirect.gid::text, release.gid::text, art.id
FROM (SELECT * FROM musicbrainz.release_gid_redirect ORDER BY random() LIMIT 1) AS redirect
CROSS JOIN (SELECT * FROM cover_art_archive.cover_art ORDER BY random() LIMIT 1) AS art
JOIN musicbrainz.release ON release.id = art.release
"""

# As what archive.org says of its own changes would have it.
_LOOK_AGAIN: Final = """
UPDATE artwork_indexer.audit_entity SET status = 'unchecked'
WHERE gid = %s AND status IN ('clean', 'legacy')
"""

# Who waits for a lock that a session of ours holds, and since when.
_WAITING_FOR_US: Final = """
SELECT waiting.pid, waiting.application_name, waiting.query, blocking.query
FROM pg_stat_activity waiting
CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocker (pid)
JOIN pg_stat_activity blocking ON blocking.pid = blocker.pid
WHERE waiting.datname = current_database()
AND waiting.wait_event_type = 'Lock'
AND waiting.application_name IN ('editor', 'artwork-indexer')
AND blocking.application_name LIKE 'artwork-backfill%'
"""


class Watch:
    """Sees how long others wait for us, by looking at the locks again and again.

    What the machine takes for others meanwhile does not count: then all wait for longer.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        #: Seconds by who waited for what.
        self.waits: dict[str, float] = {}

    def run(self, stop_flag: Event) -> None:
        since: dict[int, float] = {}
        with psycopg.connect(self._dsn, autocommit=True) as conn, Metronome() as metronome:
            while not stop_flag.wait(0.01):
                now = time.monotonic() - metronome.allowance_s
                waiting = {
                    pid: f"{name}: {' '.join(query.split())[:200]} WAITS FOR"
                    f" {' '.join(ours.split())[:200]}"
                    for pid, name, query, ours in conn.execute(_WAITING_FOR_US)
                }
                since = {pid: since.get(pid, now) for pid in waiting}
                for pid, what in waiting.items():
                    self.waits[what] = max(self.waits.get(what, 0.0), now - since[pid])

    @property
    def longest(self) -> float:
        return max(self.waits.values(), default=0.0)


@dataclass(slots=True)
class Editor:
    """Edits releases at random, each image and each entity in at most one way that clashes.

    `removed` are the ids of images that it took away on purpose; `lost` are edits that the database
    refused.
    """

    dsn: str
    services: Services
    dice: random.Random
    #: Ids of releases that only this editor merges or deletes; it may rename all.
    own: list[int]
    number: int
    removed: set[int] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    edits: int = 0

    def run(self, stop_flag: Event) -> None:
        with psycopg.connect(self.dsn, application_name=EDITOR) as conn:
            while not stop_flag.is_set():
                edit = self.dice.choices(
                    [self._rename, self._upload, self._remove, self._merge, self._delete],
                    [3, 4, 3, 3, 1],
                )[0]
                self._try(conn, edit)
                stop_flag.wait(self.dice.uniform(0, 1))

    def _try(self, conn: psycopg.Connection, edit: Callable[[psycopg.Connection], None]) -> None:
        try:
            edit(conn)
            # Some edits stay open for as long as it takes to think about them.
            if self.dice.random() < 0.1:
                time.sleep(self.dice.uniform(0.2, 2.5))
            conn.commit()
            self.edits += 1
        except (errors.UniqueViolation, errors.DeadlockDetected, errors.LockNotAvailable) as error:
            self.lost.append(f"{edit.__name__}: {error}")
            conn.rollback()

    def _rename(self, conn: psycopg.Connection) -> None:
        # In order of id, so that editors never wait for each other in a circle.
        ids = sorted(self.dice.sample(self.own, k=min(len(self.own), self.dice.randint(1, 3))))
        for id_ in ids:
            conn.execute("UPDATE musicbrainz.release SET name = name || '!' WHERE id = %s", (id_,))

    def _upload(self, conn: psycopg.Connection) -> None:
        release = self.dice.choice(self.own)
        gid = self._gid(conn, release)
        if gid is None:
            return
        artwork_id = 90_000_000_000 + self.number * 1_000_000 + self.edits
        # Uploads go to archive.org before MusicBrainz hears of them.
        name = f"mbid-{gid}-{artwork_id}.jpg"
        _persist(lambda: self.services.upload(gid, name, b"new image", mediatype="image"))
        conn.execute(
            "INSERT INTO cover_art_archive.cover_art (id, release, edit, ordering, mime_type)"
            " VALUES (%s, %s, 1, 99, 'image/jpeg')",
            (artwork_id, release),
        )

    def _remove(self, conn: psycopg.Connection) -> None:
        row = conn.execute(
            "DELETE FROM cover_art_archive.cover_art WHERE id = ("
            " SELECT id FROM cover_art_archive.cover_art WHERE release = %s ORDER BY id LIMIT 1)"
            " RETURNING id",
            (self.dice.choice(self.own),),
        ).fetchone()
        if row is not None:
            self.removed.add(row[0])

    def _merge(self, conn: psycopg.Connection) -> None:
        if len(self.own) < 10:
            return
        source, target = self.dice.sample(self.own, k=2)
        gid = self._gid(conn, source)
        if gid is None or self._gid(conn, target) is None:
            return
        self.own.remove(source)
        conn.execute(
            "UPDATE cover_art_archive.cover_art SET release = %s WHERE release = %s",
            (target, source),
        )
        conn.execute(
            "UPDATE musicbrainz.release_gid_redirect SET new_id = %s WHERE new_id = %s",
            (target, source),
        )
        conn.execute("DELETE FROM musicbrainz.release WHERE id = %s", (source,))
        conn.execute(
            "INSERT INTO musicbrainz.release_gid_redirect (gid, new_id) VALUES (%s, %s)",
            (gid, target),
        )

    def _delete(self, conn: psycopg.Connection) -> None:
        if len(self.own) < 10:
            return
        release = self.dice.choice(self.own)
        gid = self._gid(conn, release)
        merged = conn.execute(
            "SELECT FROM musicbrainz.release_gid_redirect WHERE new_id = %s", (release,)
        ).fetchall()
        if gid is None or merged:
            return
        self.own.remove(release)
        rows = conn.execute(
            "SELECT id FROM cover_art_archive.cover_art WHERE release = %s", (release,)
        )
        self.removed.update(id_ for (id_,) in rows)
        conn.execute("DELETE FROM musicbrainz.release WHERE id = %s", (release,))
        conn.execute(
            "INSERT INTO musicbrainz.deleted_entity (gid, data)"
            """ VALUES (%s, '{"entity_type": "release", "last_known_name": "x"}')""",
            (gid,),
        )

    def _gid(self, conn: psycopg.Connection, release: int) -> str | None:
        row = conn.execute(
            "SELECT gid::text FROM musicbrainz.release WHERE id = %s", (release,)
        ).fetchone()
        return None if row is None else str(row[0])


def _persist(upload: Callable[[], None]) -> None:
    """Upload again and again while archive.org refuses, as people do."""
    while True:
        try:
            upload()
        except urllib.error.HTTPError:
            time.sleep(0.01)
        else:
            return


class Vandal:
    """Leaves copies of images behind in items of merged releases, as moves that went wrong do."""

    def __init__(self, dsn: str, services: Services, dice: random.Random) -> None:
        self._dsn = dsn
        self._services = services
        self._dice = dice

    def run(self, stop_flag: Event) -> None:
        with psycopg.connect(self._dsn, autocommit=True, application_name=OURS) as conn:
            while not stop_flag.wait(self._dice.uniform(0, 0.6)):
                copy = conn.execute(_COPY).fetchone()
                if copy is None:
                    continue
                orphan, owner, artwork_id = copy
                for name, size in originals(self._services, owner):
                    if size and name.startswith(f"mbid-{owner}-{artwork_id}."):
                        content = self._download(owner, name)
                        left = name.replace(owner, orphan)
                        _persist(partial(self._services.upload, orphan, left, content))
                        conn.execute(_LOOK_AGAIN, (orphan,))

    def _download(self, gid: str, name: str) -> bytes:
        url = f"{self._services.archive_url}/download/mbid-{gid}/{name}"
        with _DIRECT.open(url) as answer:
            content: bytes = answer.read()
        return content


class Audits:
    """Keeps a number of runs at work, and lets a killer loose on them."""

    def __init__(self, launch: Callable[[], JobProcess], dice: random.Random, runs: int) -> None:
        self._launch = launch
        self._dice = dice
        self._runs = runs
        self.ended: list[JobProcess] = []
        self.killed = 0

    def run(self, stop_flag: Event) -> None:
        processes = [self._launch() for _ in range(self._runs)]
        while not stop_flag.wait(self._dice.uniform(0.5, 3.0)):
            for number, process in enumerate(processes):
                if not process.is_running:
                    process.wait()
                    self.ended.append(process)
                    processes[number] = self._launch()
            victim = self._dice.choice(processes)
            match self._dice.choice(["kill", "stop", "spare", "spare"]):
                case "kill":
                    self.killed += victim.kill()
                case "stop":
                    victim.send(signal.SIGSTOP)
                    stop_flag.wait(self._dice.uniform(0.5, 2.0))
                    victim.send(signal.SIGCONT)
        for process in processes:
            process.send(signal.SIGTERM)
            process.wait()
            self.ended.append(process)


def good_copies(services: Services, world: World, gids: list[str]) -> dict[int, set[str]]:
    """Return, by artwork id, the gids whose items hold an original with bytes."""
    copies: dict[int, set[str]] = {}
    for gid in gids:
        for name, size in originals(services, gid):
            stem, _, suffix = name.removeprefix(f"mbid-{gid}-").partition(".")
            if stem.isdigit() and suffix in ("jpg", "png", "gif", "pdf") and size > 0:
                copies.setdefault(int(stem), set()).add(gid)
    return copies


def originals(services: Services, gid: str) -> Iterator[tuple[str, int]]:
    with _DIRECT.open(f"{services.archive_url}/metadata/mbid-{gid}") as answer:
        document: Any = json.load(answer)
    for file in document.get("files", []) if isinstance(document, dict) else []:
        if file.get("source") == "original":
            yield file["name"], int(file.get("size", 0))


def indexer(dsn: str, services: Services, **options: Any) -> Indexer:
    return Indexer(dsn, services.archive_url, services.musicbrainz_url, **options)


def start(work: Callable[[Event], None], stop_flag: Event, errors: list[BaseException]) -> Thread:
    """Work in a thread until `stop_flag` is set; keep what goes wrong."""

    def guarded() -> None:
        try:
            work(stop_flag)
        except BaseException as error:
            errors.append(error)
            stop_flag.set()

    thread = Thread(target=guarded)
    thread.start()
    return thread


RELEASE: Final = EntityType.RELEASE
