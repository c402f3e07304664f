"""What an audit may take of memory, whatever services answer with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import psycopg
import pytest

COMMAND: Final = Path(sys.executable).with_name("artwork-backfill")

ENTITIES: Final = 200
MOST_BYTES: Final = 256 * 1024 * 1024
MEBIBYTE: Final = 1024 * 1024
#: Where most answers name their entity.
_HEAD_BYTES: Final = 4096

#: Builds an answer about an item from its gid.
Answer = Callable[[str], bytes]


def gid_of(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def padded(start: str, piece: str, end: str, size: int) -> bytes:
    """Return an answer of about a size that consists of one piece many times."""
    room = size - len((start + end).encode()) - 100
    return (start + piece * (room // len(piece.encode())) + end).encode()


def listing(gid: str, files: str) -> str:
    own = "".join(
        f'{{"name":"mbid-{gid}_{name}","source":"metadata"}},' for name in ("meta.xml", "files.xml")
    )
    xml = f'{{"name":"mbid-{gid}_mb_metadata.xml","source":"original"}},'
    return (
        f'{{"dir":"/1/items/mbid-{gid}","metadata":{{"identifier":"mbid-{gid}",'
        f'"collection":"coverartarchive","mediatype":"image","noindex":"true"}},'
        f'"files":[{own}{xml}{{"name":"index.json","source":"original"}}{files}'
    )


def whole_listing(gid: str) -> bytes:
    return (listing(gid, "") + "]}").encode()


def of_many_files(gid: str) -> bytes:
    files = (
        f',{{"name":"mbid-{gid}-{n}.jpg","source":"original","md5":"{n:032x}"}}'
        for n in range(1, 3 * MEBIBYTE // 140)
    )
    return (listing(gid, "".join(files)) + "]}").encode()


def of_wide_names(gid: str) -> bytes:
    name = "\U0001f3b5" * 1000
    files = (f',{{"name":"{n}{name}","source":"original"}}' for n in range(1000))
    return (listing(gid, "".join(files)) + "]}").encode()


HEAD: Final = '<metadata xmlns="http://musicbrainz.org/ns/mmd-2.0#"><release id="%s">'
TAIL: Final = "</release></metadata>"


def index_of(_: str) -> bytes:
    return b'{"images":[]}'


def xml_of(gid: str) -> bytes:
    return (HEAD % gid + "<title>x</title>" + TAIL).encode()


#: What archive.org says of an item and its index.json, and both services of its XML.
HOSTILE: Final[dict[str, tuple[Answer, Answer, Answer]]] = {
    "lists in the listing": (
        lambda gid: padded(f'{{"dir":"/1/items/mbid-{gid}","a":[', "[],", "0]}", 3 * MEBIBYTE),
        index_of,
        xml_of,
    ),
    "objects in the listing": (
        lambda _: padded('{"a":[', '{"a":{}},', "0]}", 3 * MEBIBYTE),
        index_of,
        xml_of,
    ),
    "a listing that is too large": (
        lambda _: padded('{"a":[', "[],", "0]}", 20 * MEBIBYTE),
        index_of,
        xml_of,
    ),
    "many files": (of_many_files, index_of, xml_of),
    "wide names": (of_wide_names, index_of, xml_of),
    "objects in the index": (
        whole_listing,
        lambda _: padded('{"images":[', '{"a":{}},', "0]}", 3 * MEBIBYTE),
        xml_of,
    ),
    "wide text in the index": (
        whole_listing,
        lambda _: padded('{"images":["', "\U0001f3b5", '"]}', 3 * MEBIBYTE),
        xml_of,
    ),
    "elements in the XML": (
        whole_listing,
        index_of,
        lambda gid: padded(HEAD % gid, "<a>\u00e91</a>", TAIL, 2 * MEBIBYTE),
    ),
    "depth in the XML": (
        whole_listing,
        index_of,
        lambda gid: padded(HEAD % gid, "<abcdefgh>", "", 2 * MEBIBYTE),
    ),
    "text in the XML": (
        whole_listing,
        index_of,
        lambda gid: padded(HEAD % gid + "<title>", "\U0001f3b5\n", "</title>" + TAIL, 2 * MEBIBYTE),
    ),
}


@pytest.fixture
def archive() -> Iterator[str]:
    """Both services on loopback; each entity has one kind of hostile answers, by its number."""
    stand_in = gid_of(0xABCDEF)
    answers = [[answer(stand_in) for answer in kind] for kind in HOSTILE.values()]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            (gid,) = set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", self.path))
            listing, index, xml = answers[int(gid[:8], 16) % len(answers)]
            body = listing if "/metadata/" in self.path else index if "index" in self.path else xml
            few = _HEAD_BYTES if body.count(stand_in.encode(), _HEAD_BYTES) == 0 else len(body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:few].replace(stand_in.encode(), gid.encode()))
            self.wfile.write(memoryview(body)[few:])

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def entities(migrated_database: str) -> str:
    """URL of a database with releases to audit, each with one image."""
    with psycopg.connect(migrated_database) as conn, conn.cursor() as cursor:
        values = [(n, gid_of(n)) for n in range(1, ENTITIES + 1)]
        cursor.executemany(
            "INSERT INTO musicbrainz.release (id, gid, name, artist_credit)"
            " VALUES (%s, %s, 'x', 1)",
            values,
        )
        cursor.execute(
            "INSERT INTO musicbrainz.release_meta (id, cover_art_presence)"
            " SELECT id, 'present' FROM musicbrainz.release;"
            "INSERT INTO musicbrainz.edit (id, open_time) VALUES (1, now());"
            "INSERT INTO cover_art_archive.image_type (mime_type, suffix)"
            " VALUES ('image/jpeg', 'jpg') ON CONFLICT DO NOTHING;"
            "INSERT INTO cover_art_archive.cover_art (id, release, mime_type, edit, ordering)"
            " SELECT id + 1000000, id, 'image/jpeg', 1, 1 FROM musicbrainz.release;"
            "INSERT INTO artwork_indexer.audit_entity (entity_type, gid)"
            " SELECT 'release', gid FROM musicbrainz.release;"
            # What MusicBrainz's triggers have queued would put every audit off.
            "DELETE FROM artwork_indexer.event_queue"
        )
    return migrated_database


def peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process to end, and return the most memory that it took."""
    peak = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.02)
    process.wait()
    return peak * 1024


@pytest.mark.timeout(400)
def test_audits_stay_within_their_memory_whatever_they_are_answered(
    entities: str, archive: str, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [COMMAND, "audit-batch", "--max-queue-depth", "0"],
            stdout=file,
            stderr=file,
            env={
                "PATH": os.environ["PATH"],
                "MUSICBRAINZ_DATABASE_URL": entities,
                "ARCHIVE_ORG_URL": archive,
                "ARCHIVE_ORG_RATE": "unlimited",
                "MUSICBRAINZ_URL": archive,
                "MUSICBRAINZ_RATE": "unlimited",
            },
        )
        try:
            peak = peak_bytes(process)
        finally:
            process.kill()
            process.wait()
    text = log.read_text()
    with psycopg.connect(entities) as conn:
        ((audits,),) = conn.execute("SELECT count(*) FROM artwork_indexer.audit_result").fetchall()
    assert audits == ENTITIES, text[-3000:]
    figure(f"peak memory of 200 hostile audits: {peak / MEBIBYTE:.0f} MiB")
    assert peak < MOST_BYTES, text[-3000:]
