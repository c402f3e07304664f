"""Hostile data in the database, in answers and in files: stored or refused, never acted upon."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tests.faults.fault_processes import JobProcess, leaks
from tests.faults.fault_scenes import Launch
from tests.faults.fault_servers import Served, serve

COMMAND: Final = Path(sys.executable).with_name("artwork-backfill")

#: Longer than any name, any URL and any line has a right to be.
LONG: Final = 1_000_000

HOSTILE: Final = {
    "quotes": "'; DROP TABLE artwork_indexer.audit_entity; --",
    "double quotes": '"); SELECT pg_sleep(60); --\\',
    "shell": "$(touch MARKER) `touch MARKER` ; touch MARKER | touch MARKER",
    "markup": "[bold red]on sale[/] [link=file:///etc/passwd]x[/link] [/oops]",
    "markdown": "</td><script>alert(1)</script> ![x](http://evil.example) | a | b |",
    "formula": '=HYPERLINK("http://evil.example","click")',
    "formula of commands": "@SUM(1+1)*cmd|' /C calc'!A0",
    "terminal": "\x1b[2J\x1b]0;owned\x07\x1b[31m\x9b31m",
    "controls": "a\x01\x08\x7f\x85b",
    "directions": "\u202egnp.exe\u2066\u200f\u061c",
    "lines": 'x\r\n{"level": "error", "message": "forged"}\u2028\u2029',
    "formats": "%s %(gid)s {0} {gid} %n",
    "NUL": "a\x00b",
    "surrogate": "a\ud800b",
    "long": "x" * LONG,
    "long and wide": "\U0001f3b5" * (LONG // 4),
}
IN_A_DATABASE: Final = {
    name: text for name, text in HOSTILE.items() if name not in ("NUL", "surrogate")
}


def on_a_terminal(environ: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal that knows no escape sequences; return its exit code and output.

    On such a terminal rich sends none itself, so that any that come are somebody else's.
    """
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [str(COMMAND), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env={**environ, "TERM": "dumb", "COLUMNS": "120", "PATH": os.environ["PATH"]},
    )
    os.close(terminal)
    chunks: list[bytes] = []
    try:
        while chunk := os.read(controller, 65_536):
            chunks.append(chunk)
    except OSError:
        # What Linux says when nobody is at the other end any more.
        pass
    os.close(controller)
    return process.wait(), b"".join(chunks).decode()


def raw(text: str) -> set[str]:
    """Return the characters of a text that may drive a terminal or turn a line around."""
    return {char for char in text if unicodedata.category(char)[0] == "C" and char not in "\r\n\t"}


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[str]:
    """A file that would be there if a shell had read what it should not."""
    path = tmp_path / "executed"
    yield str(path)
    assert not path.exists()
    assert not Path("MARKER").exists()


# -- audits --------------------------------------------------------------------------------------


def hostile_item(gid: str, text: str, artwork_id: int) -> dict[str, bytes]:
    """Return the answers about an item that is hostile all over, by path."""
    image = {
        "types": [text],
        "front": text,
        "back": False,
        "comment": text,
        "image": f"javascript:{text}",
        "thumbnails": {text: text},
        "approved": True,
        "edit": text,
        "id": artwork_id,
        text: text,
    }
    index = json.dumps({"images": [image], "release": text, text: 1}).encode()
    xml = (
        f'<metadata xmlns="http://musicbrainz.org/ns/mmd-2.0#"><release id="{gid}">'
        f"<title>{text}</title></release></metadata>"
    ).encode("utf-8", "replace")
    xml_name = f"mbid-{gid}_mb_metadata.xml"
    names = {
        "index.json": index,
        xml_name: xml,
        # Without these, archive.org's list would not be a complete one.
        f"mbid-{gid}_meta.xml": b"",
        f"mbid-{gid}_files.xml": b"",
        text: b"",
        f"../../{text}": b"",
        f"mbid-{gid}-{artwork_id}.{text}": b"",
        f"mbid-{gid}-77777.jpg": b"",
    }
    listing = {
        "files": [
            {
                "name": name,
                "source": "original",
                "size": str(len(content)),
                "md5": md5(content).hexdigest(),
                "format": text,
            }
            for name, content in names.items()
        ],
        "metadata": {
            **dict.fromkeys(("collection", "mediatype", "title", "creator", "date"), text),
            "external-identifier": [text, text],
            "identifier": f"mbid-{gid}",
        },
        "d1": text,
        "d2": "evil.example",
        "dir": f"/1/items/mbid-{gid}/../../{text}",
        "item_last_updated": text,
    }
    return {
        f"/metadata/mbid-{gid}": json.dumps(listing).encode(),
        f"/download/mbid-{gid}/index.json": index,
        f"/download/mbid-{gid}/{xml_name}": xml,
    }


@pytest.fixture
def hostile_audits(
    seeded: str, copy: Callable[[str], str], marker: str
) -> Iterator[tuple[str, Served]]:
    """A database with an entity for every hostile text, and an archive that answers with it."""
    dsn = copy(seeded)
    answers: dict[str, bytes] = {}
    with psycopg.connect(dsn) as conn:
        releases = conn.execute(
            "SELECT DISTINCT ON (release.gid) release.gid::text, art.id"
            " FROM cover_art_archive.cover_art art"
            " JOIN musicbrainz.release ON release.id = art.release"
            " JOIN artwork_indexer.audit_entity USING (gid) ORDER BY release.gid, art.id"
        ).fetchmany(len(HOSTILE))
        for (gid, artwork_id), (name, text) in zip(releases, HOSTILE.items(), strict=True):
            text = text.replace("MARKER", marker)
            answers |= hostile_item(gid, text, artwork_id)
            if name in IN_A_DATABASE:
                conn.execute(
                    "UPDATE cover_art_archive.cover_art SET comment = %s WHERE id = %s",
                    (text[::-1], artwork_id),
                )
                conn.execute("UPDATE musicbrainz.release SET name = %s WHERE gid = %s", (text, gid))
        # What MusicBrainz's triggers have queued meanwhile would put every audit off.
        conn.execute("DELETE FROM artwork_indexer.event_queue")
        conn.execute(
            "DELETE FROM artwork_indexer.audit_entity WHERE NOT gid = ANY (%s::uuid[])",
            ([gid for gid, _ in releases],),
        )
    with serve(lambda path, _: (200, answers[path]) if path in answers else (404, b"")) as served:
        yield dsn, served


def test_audits_of_hostile_items_end_with_findings(
    hostile_audits: tuple[str, Served], launch: Launch, tmp_path: Path
) -> None:
    dsn, archive = hostile_audits
    reports = [tmp_path / "report.json", tmp_path / "report.md"]
    options = [option for report in reports for option in ("--report", str(report))]
    process = launch("audit-batch", *options, musicbrainz=dsn, ARCHIVE_ORG_URL=archive.url)
    assert process.wait() == 0, process.output[-3000:]
    totals = process.report["totals"]
    deferred = totals.get("deferred", 0)
    assert totals["audited"] + deferred == len(HOSTILE), process.output[-3000:]
    assert totals["audited"] > len(HOSTILE) / 2, totals
    assert_every_line_is_safe(process)
    assert json.loads(reports[0].read_text())["outcome"] == "verified"
    assert raw(reports[1].read_text()) == set()
    with psycopg.connect(dsn) as conn:
        sizes = conn.execute(
            "SELECT max(length(findings::text)), count(*) FROM artwork_indexer.audit_result"
        ).fetchone()
        reasons = conn.execute(
            "SELECT max(length(review_reason)) FROM artwork_indexer.needs_manual_review"
        ).fetchone()
    assert sizes is not None
    assert reasons is not None
    assert sizes[1] >= len(HOSTILE) - deferred
    assert max(sizes[0], reasons[0] or 0) < 100_000
    asked = {path.split("/")[1] for path, _ in archive.visits}
    assert asked <= {"metadata", "download"}


def test_what_hostile_items_leave_is_shown_without_harm(
    hostile_audits: tuple[str, Served], launch: Launch, environ: dict[str, str]
) -> None:
    dsn, archive = hostile_audits
    here = {**environ, "MUSICBRAINZ_DATABASE_URL": dsn, "ARCHIVE_ORG_URL": archive.url}
    code, shown = on_a_terminal(here, "audit-batch")
    assert (code, raw(shown)) == (0, set())
    with psycopg.connect(dsn) as conn:
        gids = [gid for (gid,) in conn.execute(_GIDS)]
        # An indexer's message may hold the answer of an archive.
        for text in IN_A_DATABASE.values():
            conn.execute(_FAILED_EVENT, {"text": text[:5_000], "gid": gids[0]})
    for arguments in (
        ("status",),
        ("review", "list"),
        ("review", "show", gids[0]),
        ("events", "failed"),
    ):
        code, shown = on_a_terminal(here, *arguments)
        assert (code, raw(shown)) == (0, set()), arguments
    for arguments in (("review", "list", "--csv"), ("events", "failed", "--csv")):
        process = launch(*arguments, musicbrainz=dsn)
        assert process.wait() == 0, process.output
        cells = [cell for row in csv.reader(io.StringIO(process.stdout)) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        assert raw(process.stdout) == set()


_GIDS: Final = "SELECT gid::text FROM artwork_indexer.audit_entity ORDER BY gid"
_FAILED_EVENT: Final = """
WITH event AS (
    INSERT INTO artwork_indexer.event_queue (state, entity_type, action, message)
    VALUES ('failed', 'release', 'index', jsonb_build_object('gid', %(gid)s::text))
    RETURNING id)
INSERT INTO artwork_indexer.event_failure_reason (event, failure_reason)
SELECT id, %(text)s FROM event
"""


# -- the library -----------------------------------------------------------------------------------

#: What a URL of a cover looks like, and what does not: only the first may be written.
URLS: Final = {
    "https://i.discogs.com/abc/rs:fit/R-1.jpeg": True,
    "javascript:alert(1)": False,
    "data:text/html,<script>alert(1)</script>": False,
    "https://i.discogs.com/" + "x" * LONG: False,
    "https://i.discogs.com/a\x00b": False,
    "https://i.discogs.com/\x1b[2J": False,
    "https://i.discogs.com/\u202egnp": False,
    "https://i.discogs.com/a b\r\nSet-Cookie: x": False,
    "https://user:password@i.discogs.com/x": False,
    "'; DROP TABLE wxyc_schema.library; --": False,
    "file:///etc/passwd": False,
    "https://i.discogs.com/a\ud800": False,
}


def test_only_a_url_of_a_cover_gets_into_the_library(
    shelved: str, copy: Callable[[str], str], launch: Launch
) -> None:
    dsn = copy(shelved)
    urls = list(URLS)
    with psycopg.connect(dsn) as conn:
        conn.execute("DELETE FROM wxyc_schema.library WHERE id > %s", (len(urls),))
        conn.execute(
            "UPDATE wxyc_schema.library SET artwork_url = NULL, discogs_unavailable = false"
        )

    def answer(path: str, body: bytes) -> tuple[int, bytes]:
        if path.partition("?")[0] != "/api/v1/lookup/bulk":
            return 404, b"{}"
        queries = json.loads(body)["items"]
        results = [
            {"index": i, "status": "match", "lookup": lookup(urls, query)}
            for i, query in enumerate(queries)
        ]
        return 200, json.dumps({"results": results}).encode()

    with serve(answer) as lml:
        process = launch("library-artwork-url-backfill", wxyc=dsn, LIBRARY_METADATA_URL=lml.url)
        assert process.wait() == 0, process.output[-3000:]
    assert_every_line_is_safe(process)
    with psycopg.connect(dsn) as conn:
        written = dict(conn.execute("SELECT id, artwork_url FROM wxyc_schema.library").fetchall())
    expected = {id_: url if URLS[url] else None for id_, url in enumerate(urls, 1)}
    assert written == expected


def lookup(urls: list[str], query: dict[str, str]) -> dict[str, Any]:
    """Return the very album that is asked for, with the URL of its row."""
    number = int(query["album"].rpartition(" ")[2])
    item = {"id": 1_000_000 + number, "title": query["album"], "artist": query["artist"]}
    artwork = {**query, "release_id": 1, "artwork_url": urls[number - 1], "confidence": 1.0}
    return {"results": [{"library_item": item, "artwork": artwork}], "search_type": "direct"}


def test_hostile_names_in_the_library_are_asked_for_and_shown_without_harm(
    shelved: str, copy: Callable[[str], str], environ: dict[str, str], marker: str
) -> None:
    dsn = copy(shelved)
    with psycopg.connect(dsn) as conn:
        for id_, text in enumerate(IN_A_DATABASE.values(), 1):
            title = text.replace("MARKER", marker)[:128]
            conn.execute(
                "UPDATE wxyc_schema.library SET artwork_url = NULL, album_title = %s,"
                " discogs_unavailable = false WHERE id = %s",
                (title, id_),
            )
    with serve(lambda *_: (500, b"no")) as lml:
        here = {**environ, "WXYC_DATABASE_URL": dsn, "LIBRARY_METADATA_URL": lml.url}
        arguments = ("library-artwork-url-backfill", "--limit", "3", "--max-duration", "1s")
        code, shown = on_a_terminal(here, *arguments)
    assert (code, raw(shown)) == (0, set()), shown
    assert leaks(shown) == []


# -- files -----------------------------------------------------------------------------------------


def test_hostile_lines_of_files_are_damaged_lines(
    unseeded: str,
    copy: Callable[[str], str],
    launch: Launch,
    environ: dict[str, str],
    tmp_path: Path,
) -> None:
    dsn = copy(unseeded)
    good = "8745795a-190f-4be5-84fd-a8cfe5365cc6"
    path = tmp_path / "failed_checks.log"
    lines = [f"{good}\tItem::indexJson::exists", *HOSTILE.values()]
    lines += [f"{text}\tItem::indexJson::exists" for text in HOSTILE.values()]
    lines += [f"{good}\t{text}" for text in HOSTILE.values()]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    process = launch("seed-from-img-129", str(path), musicbrainz=dsn)
    assert process.wait() in (0, 3), process.output[-3000:]
    assert_every_line_is_safe(process)
    with psycopg.connect(dsn) as conn:
        gids = [gid for (gid,) in conn.execute(_GIDS)]
    assert gids == [good]
    here = {**environ, "MUSICBRAINZ_DATABASE_URL": dsn}
    for command in (
        ("seed-from-img-129", str(path)),
        ("seed-from-ia-scan", "--from-list", str(path)),
    ):
        code, shown = on_a_terminal(here, *command)
        assert code in (0, 3), shown
        assert raw(shown) == set()


def test_hostile_identifiers_of_a_scan_are_passed_over(
    unseeded: str, copy: Callable[[str], str], launch: Launch
) -> None:
    dsn = copy(unseeded)
    good = "8745795a-190f-4be5-84fd-a8cfe5365cc6"
    identifiers = [f"mbid-{good}", *HOSTILE.values()]
    identifiers += [f"mbid-{good}{text}" for text in HOSTILE.values()]
    page = {"items": [{"identifier": text} for text in identifiers], "total": 1 << 80}
    body = json.dumps(page).encode()
    with serve(lambda *_: (200, body)) as archive:
        process = launch(
            "seed-from-ia-scan", "--collection", "caa", musicbrainz=dsn, ARCHIVE_ORG_URL=archive.url
        )
        assert process.wait() == 3, process.output[-3000:]
    assert_every_line_is_safe(process)
    with psycopg.connect(dsn) as conn:
        assert [gid for (gid,) in conn.execute(_GIDS)] == [good]


def assert_every_line_is_safe(process: JobProcess) -> None:
    """Every line is one JSON object of ASCII, so that it neither forges another nor drives."""
    for line in process.output.splitlines():
        assert line.isascii()
        assert json.loads(line)["repo"] == "artwork-backfill"
        assert len(line) < 200_000
    assert raw(process.output) == set()
