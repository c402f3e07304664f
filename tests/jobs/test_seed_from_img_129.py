"""seed-from-img-129: every readable gid gets a row, everything unreadable gets reported."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection

from artwork_backfill.jobs.seed_from_img_129.job import SeedFromImg129
from artwork_backfill.jobs.seed_from_img_129.reading import Chunk, Reading
from artwork_backfill.jobs.seed_from_img_129.sources import Source, SourceError, find
from artwork_backfill.shared.engine.job import Partition, Run, RunResult, StopRun
from artwork_backfill.shared.engine.report import Outcome, Report
from tests.timing import at_most
from tests.tiny import Driver, driver, execute, query, wait_for

DATA = Path(__file__).parents[1] / "data" / "img-129"
PROGRAM = str(Path(sys.executable).with_name("artwork-backfill"))

ROWS = """
SELECT gid::text, priority
FROM artwork_indexer.audit_entity
WHERE entity_type = 'release' AND status = 'unchecked' AND last_audit_at IS NULL
"""

NOBODY = UUID(int=7)


def gid(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def job(*places: Path | str, **options: Any) -> type[SeedFromImg129]:
    """Return the job with its own options bound, as the command line would build it."""

    class Bound(SeedFromImg129):
        def __init__(self, run: Run) -> None:
            sources, passed_over = find([str(place) for place in places], run.stop_flag)
            super().__init__(run, sources, passed_over=passed_over, **options)

    return Bound


def seed(
    dsn: str, *places: Path | str, run: dict[str, Any] | None = None, **options: Any
) -> Report:
    return _driver_run(driver(dsn), job(*places, **options), **(run or {}))


def _driver_run(with_driver: Driver, job_type: type[SeedFromImg129], **options: Any) -> Report:
    return with_driver.run(job_type, **{"concurrency": 1, **options})


def rows(dsn: str) -> dict[str, int]:
    return dict(query(dsn, ROWS))


def wrong(report: Report) -> dict[str, tuple[int, int]]:
    return {v.name: (v.expected, v.actual) for v in report.verification if not v.ok}


def verified(report: Report, name: str) -> int:
    (check,) = [check for check in report.verification if check.name == name]
    assert check.ok, check
    return check.actual


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 60 items, of which every third is urgent."""
    path = tmp_path / "failed_checks.log"
    checks = ("Item::exists", "Item::darkened", "MergedItem::index is absent")
    path.write_text("".join(f"{gid(n)}\t{checks[n % 3]}\n" for n in range(60)))
    return path


# -- what is seeded -------------------------------------------------------------------------------


def test_a_folder_is_seeded_with_each_item_once(migrated_database: str) -> None:
    report = seed(migrated_database, DATA)
    texts = {
        path.name: (
            gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        )
        for path in DATA.iterdir()
    }
    expected = {
        line[:36].decode()
        for text in texts.values()
        for line in text.splitlines()
        if re.match(rb"[0-9a-f-]{36}", line) and not line.endswith((b"PASSED", b"test item"))
    }
    seeded = rows(migrated_database)
    assert (report.outcome, wrong(report)) == (Outcome.VERIFIED, {})
    assert set(seeded) == expected
    urgent = {line[:36].decode() for line in texts["reindex_high_prioriy"].splitlines()}
    assert urgent <= {gid for gid, priority in seeded.items() if priority == 300}
    assert seeded["b5c318e9-fb34-4cc5-95f5-4a5c1b1c3f27"] == 200
    assert report.totals["test_items"] == 2
    assert report.totals["written"] == len(expected)
    assert query(migrated_database, "SELECT * FROM artwork_indexer.event_queue") == []


def test_sources_and_priorities_are_verified_one_by_one(migrated_database: str) -> None:
    names = ("bad_items.csv", "reindex_high_prioriy", "darkened_items")
    report = seed(migrated_database, *(DATA / name for name in names))
    assert verified(report, "gids in audit_entity") == 18
    assert [verified(report, f"gids of {DATA / name}") for name in names] == [11, 6, 4]
    assert sum(verified(report, f"gids of priority {p}") for p in (300, 200)) == 18


def test_it_says_how_musicbrainz_knows_the_gids(migrated_database: str, log: Path) -> None:
    execute(
        migrated_database,
        f"INSERT INTO musicbrainz.release (id, gid, name, artist_credit) VALUES"
        f" (1, '{gid(1)}', 'a', 1), (2, '{gid(2)}', 'b', 1), (3, '{NOBODY}', 'c', 1);"
        f"INSERT INTO musicbrainz.release_gid_redirect VALUES"
        f" ('{gid(3)}', 1), ('{gid(4)}', 1), ('{gid(5)}', 1);"
        f"INSERT INTO musicbrainz.deleted_entity (gid, data) VALUES"
        f" ('{gid(6)}', '{{\"entity_type\": \"release\"}}'),"
        f" ('{gid(7)}', '{{\"entity_type\": \"artist\"}}')",
    )
    report = seed(migrated_database, log)
    standings = ("live", "merged", "deleted", "unknown")
    notes = {note.name: note.value for note in report.notes}
    found = [notes[f"gids {standing} in MusicBrainz"] for standing in standings]
    assert found == [2, 3, 1, 54]


def test_the_highest_priority_wins_over_files(migrated_database: str, tmp_path: Path) -> None:
    low, high = tmp_path / "darkened_items", tmp_path / "failed_checks.log"
    low.write_text(f"{gid(1)}\n{gid(2)}\n")
    high.write_text(f"{gid(1)}\tItem::exists\n{gid(3)}\tItem::exists\n")
    report = seed(migrated_database, low, high, low)
    assert rows(migrated_database) == {gid(1): 300, gid(2): 200, gid(3): 300}
    assert (report.totals["written"], report.totals["raised"]) == (3, 1)
    assert verified(report, "gids in audit_entity") == 3
    assert verified(report, "gids of priority 300") == 2


def test_rows_keep_their_status_and_are_only_raised_while_unchecked(
    migrated_database: str, log: Path
) -> None:
    execute(
        migrated_database,
        "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status, priority) VALUES"
        f" ('release', '{gid(0)}', 'clean', 10), ('release', '{gid(3)}', 'audit_in_progress', 10),"
        f" ('release', '{gid(6)}', 'unchecked', 10), ('release', '{gid(9)}', 'unchecked', 301),"
        f" ('release', '{gid(1)}', 'unchecked', 200), ('event', '{gid(2)}', 'unchecked', 10)",
    )
    table = "SELECT xmin, * FROM artwork_indexer.audit_entity WHERE priority <> 300 ORDER BY id"
    before = [row for row in query(migrated_database, table) if str(row[3]) != gid(6)]
    report = seed(migrated_database, log)
    assert query(migrated_database, table)[: len(before)] == before
    assert rows(migrated_database)[gid(6)] == 300
    counts = [report.totals[name] for name in ("written", "raised", "skipped")]
    assert counts == [55, 1, 4]
    assert report.outcome is Outcome.VERIFIED


def test_a_second_run_changes_nothing(migrated_database: str, log: Path) -> None:
    seed(migrated_database, log)
    table = "SELECT xmin, xmax, * FROM artwork_indexer.audit_entity ORDER BY id"
    before = query(migrated_database, table)
    report = seed(migrated_database, log)
    assert (report.outcome, report.totals["skipped"]) == (Outcome.VERIFIED, 60)
    assert query(migrated_database, table) == before


def test_passed_items_are_seeded_on_demand(migrated_database: str, tmp_path: Path) -> None:
    cache = tmp_path / "results_cache.gz"
    lines = (f"{gid(n)}\tItem::exists\t{'FAILED' if n == 3 else 'PASSED'}\n" for n in range(9))
    cache.write_bytes(gzip.compress("".join(lines).encode()))
    assert seed(migrated_database, cache).totals["written"] == 1
    assert seed(migrated_database, cache, include_passed=True).totals["written"] == 8
    assert sorted(rows(migrated_database).values()) == [100] * 8 + [300]


def test_a_given_priority_takes_the_place_of_the_rule(migrated_database: str, log: Path) -> None:
    report = seed(migrated_database, log, priority=120)
    assert set(rows(migrated_database).values()) == {120}
    assert verified(report, "gids of priority 120") == 60


# -- how it runs ----------------------------------------------------------------------------------


def test_a_limit_counts_entities(migrated_database: str, log: Path) -> None:
    report = seed(migrated_database, log, run={"limit": 25})
    assert (report.outcome, report.exit_code) == (Outcome.STOPPED, 0)
    assert len(rows(migrated_database)) == report.totals["scanned"] == 25
    (check, *_) = report.verification
    assert (check.expected, check.detail) == (25, "as far as this run got")
    assert seed(migrated_database, log).totals["written"] == 35


def test_partitions_share_the_gids(migrated_database: str, log: Path) -> None:
    reports = [
        seed(migrated_database, log, run={"partition": Partition(index, 3)}) for index in range(3)
    ]
    assert [report.outcome for report in reports] == [Outcome.VERIFIED] * 3
    assert [report.totals["written"] for report in reports] == [20, 20, 20]
    assert len(rows(migrated_database)) == 60


def test_a_dry_run_counts_and_changes_nothing(migrated_database: str, log: Path) -> None:
    execute(
        migrated_database,
        "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority) VALUES"
        f" ('release', '{gid(0)}', 10), ('release', '{gid(1)}', 300)",
    )
    before = query(migrated_database, "SELECT xmin, * FROM artwork_indexer.audit_entity")
    report = seed(migrated_database, log, run={"dry_run": True})
    counts = [report.totals[name] for name in ("written", "raised", "skipped")]
    assert counts == [58, 1, 1]
    assert query(migrated_database, "SELECT xmin, * FROM artwork_indexer.audit_entity") == before


def test_a_lost_connection_loses_and_doubles_nothing(migrated_database: str, log: Path) -> None:
    lost = iter([False, True])

    class Loses(job(log)):
        def write(self, conn: Connection, results: Sequence[Chunk]) -> Any:
            written = super().write(conn, results)
            if next(lost, False):
                conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            return written

    report = _driver_run(driver(migrated_database), Loses)
    assert (report.outcome, report.totals["written"]) == (Outcome.VERIFIED, 60)
    assert len(rows(migrated_database)) == 60


def test_a_gid_that_is_refused_is_isolated(migrated_database: str, log: Path) -> None:
    execute(
        migrated_database,
        f"ALTER TABLE artwork_indexer.audit_entity ADD CHECK (gid <> '{gid(33)}')",
    )
    report = seed(migrated_database, log)
    assert (report.exit_code, report.totals["written"], report.totals["failed"]) == (3, 59, 1)
    assert [problem.what for problem in report.problems] == [f"{log}: {gid(33)}"]
    assert report.totals["lines"] == 60


def test_a_row_that_vanishes_is_found_by_the_verification(
    migrated_database: str, log: Path
) -> None:
    class Sabotaged(job(log, DATA / "darkened_items")):
        def verify(self, conn: Connection, run: RunResult | None) -> Any:
            execute(
                migrated_database,
                f"DELETE FROM artwork_indexer.audit_entity WHERE gid = '{gid(0)}';"
                f"UPDATE artwork_indexer.audit_entity SET priority = 7 WHERE gid = '{gid(1)}'",
            )
            return list(super().verify(conn, run))

    report = _driver_run(driver(migrated_database), Sabotaged)
    assert report.exit_code == 3
    assert wrong(report) == {
        "gids in audit_entity": (64, 63),
        f"gids of {log}": (60, 59),
        "gids of priority 300": (20, 19),
        "gids of priority 200": (44, 43),
    }


def test_verification_alone_reads_the_sources_again(migrated_database: str, log: Path) -> None:
    def verify() -> Report:
        return driver(migrated_database).runner(job(log), concurrency=1).verify()

    before = verify()
    assert before.exit_code == 3
    assert wrong(before)["gids in audit_entity"] == (60, 0)
    seed(migrated_database, log)
    assert wrong(verify()) == {}


def test_a_run_that_is_killed_is_completed_by_the_next(migrated_database: str, log: Path) -> None:
    environ = os.environ | {"MUSICBRAINZ_DATABASE_URL": migrated_database}
    command = [PROGRAM, "seed-from-img-129", str(log), "--batch-size", "10"]
    # It cannot get past the row that this session holds.
    with psycopg.connect(migrated_database) as holder:
        holder.execute(
            "INSERT INTO artwork_indexer.audit_entity (entity_type, gid) VALUES ('release', %s)",
            (gid(35),),
        )
        process = subprocess.Popen(
            [*command, "--fixed-batch-size"], env=environ, stdout=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: len(rows(migrated_database)) == 30)
        finally:
            process.kill()
            process.wait()
        holder.rollback()
    assert subprocess.run(command, env=environ, stdout=subprocess.DEVNULL).returncode == 0
    assert len(rows(migrated_database)) == 60


# -- what cannot be read --------------------------------------------------------------------------

DAMAGED_LOG = (
    f"\ufeff{gid(1)}\tItem::exists\r\n"
    f"nonsense\r\n"
    f"{gid(2)}x\tItem::exists\r\n"
    f"{gid(3)}\tNonsense::check\r\n"
    f"\r\n"
    f"{gid(4)}\tItem::darkened\r\n"
)


def test_damage_is_reported_with_file_and_line_and_the_rest_seeded(
    migrated_database: str, tmp_path: Path
) -> None:
    path = tmp_path / "skipped_items.log"
    path.write_bytes(DAMAGED_LOG.encode() + f"{gid(5)}\tItem::caf\xe9\n".encode("latin-1"))
    report = seed(migrated_database, path)
    assert set(rows(migrated_database)) == {gid(1), gid(3), gid(4), gid(5)}
    assert (report.outcome, report.exit_code) == (Outcome.UNVERIFIED, 3)
    assert wrong(report) == {"lines and files that could not be read": (0, 2)}
    assert [(problem.what, problem.detail) for problem in report.problems] == [
        (f"{path}:2", "damaged line, skipped: nonsense"),
        (f"{path}:3", f"damaged line, skipped: {gid(2)}x\tItem::exists"),
        (f"{path}:4", f"unknown check: {gid(3)}\tNonsense::check"),
        (f"{path}:7", f"unknown check: {gid(5)}\tItem::café"),
    ]
    assert (report.totals["damaged"], report.totals["unknown_checks"]) == (2, 2)
    assert seed(migrated_database, path, allow_damaged=True).exit_code == 0


def test_a_cut_gzip_is_seeded_as_far_as_it_goes(migrated_database: str, tmp_path: Path) -> None:
    path = tmp_path / "failed_checks.log.gz"
    packed = gzip.compress("".join(f"{gid(n * 7919)}\tItem::x\n" for n in range(3_000)).encode())
    path.write_bytes(packed[: len(packed) * 2 // 3])
    report = seed(migrated_database, path, run={"batch_size": 1_000})
    seeded = len(rows(migrated_database))
    assert 500 < seeded < 3_000
    assert report.exit_code == 3
    assert [(problem.what, problem.detail) for problem in report.problems] == [
        (f"{path}:{seeded + 1}", "unreadable from here on: the gzip data is cut off")
    ]


def test_many_damaged_lines_are_counted_and_few_are_listed(
    migrated_database: str, tmp_path: Path
) -> None:
    path = tmp_path / "list"
    path.write_text(f"{gid(1)}\n" * 200 + "nonsense\n" * 5_000)
    report = seed(migrated_database, path)
    assert report.totals["damaged"] == 5_000
    assert len(report.problems) == 20
    assert report.problems[-1].detail.endswith("only counted")


def test_an_item_without_a_failure_is_reported_and_not_seeded(
    migrated_database: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad_items.csv"
    path.write_text(f"mbid,Item::exists\n{gid(1)},0\n{gid(2)},1\n")
    report = seed(migrated_database, path)
    assert (report.exit_code, list(rows(migrated_database))) == (0, [gid(2)])
    assert report.totals["without_failure"] == 1
    assert [problem.what for problem in report.problems] == [f"{path}:2"]


# -- where sources are ----------------------------------------------------------------------------


def test_files_in_a_folder_that_are_no_sources_are_passed_over(
    migrated_database: str, log: Path
) -> None:
    (log.parent / "notes.txt").write_text("Dear diary,\n")
    (log.parent / ".hidden").write_text("Dear diary,\n")
    (log.parent / "folder").mkdir()
    (log.parent / "ia_set_noindex").touch()
    report = seed(migrated_database, log.parent)
    assert (report.exit_code, len(rows(migrated_database))) == (0, 60)
    assert [problem.what for problem in report.problems] == ["file skipped"]
    assert str(log.parent / "notes.txt") in report.problems[0].detail


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "No such file"),
        (b"<html>not found</html>\n", "kind is unknown"),
        (b"\x1f\x8bnonsense", "gzip data is damaged"),
        (b"uuid,Item::exists\n", "kind is unknown"),
    ],
)
def test_a_source_that_cannot_be_one_is_refused_before_anything_is_touched(
    tmp_path: Path, content: bytes | None, what: str
) -> None:
    path = tmp_path / "bad_items.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=what) as caught:
        find([str(path)], threading.Event())
    assert str(path) in str(caught.value)


def test_a_folder_without_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file of the 2021 audit"):
        find([str(tmp_path)], threading.Event())


def test_a_file_is_read_once_however_often_it_is_named(log: Path) -> None:
    sources, _ = find(
        [str(log), str(log.parent), f"{log.parent}/../{log.parent.name}/{log.name}"],
        threading.Event(),
    )
    assert [source.place for source in sources] == [str(log)]


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a body under /bad_items.csv; the declared length and the headers may be others."""
    with contextlib.ExitStack() as stack:

        def start(
            body: bytes, length: int | None = None, seen: list[Any] | None = None, **headers: str
        ) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    if seen is not None:
                        seen.append(self.headers)
                    found = self.path.startswith("/bad_items.csv")
                    self.send_response((302 if "Location" in headers else 200) if found else 404)
                    declared = len(body) if length is None else length
                    self.send_header("Content-Length", str(declared if found else 0))
                    for name, value in headers.items():
                        self.send_header(name.replace("_", "-"), value)
                    self.end_headers()
                    self.wfile.write(body if found else b"")

                def log_message(self, *_: object) -> None:
                    """Keep quiet."""

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            return f"127.0.0.1:{server.server_port}"

        yield start


def test_a_url_is_streamed_and_shown_without_its_secrets(
    migrated_database: str, serve: Serve
) -> None:
    body = gzip.compress((DATA / "bad_items.csv").read_bytes())
    host = serve(body, len(body))
    report = seed(migrated_database, f"http://me:secret@{host}/bad_items.csv?token=secret")
    assert (report.exit_code, len(rows(migrated_database))) == (0, 11)
    assert verified(report, f"gids of http://{host}/bad_items.csv") == 11
    assert "secret" not in str(report.as_dict())


def test_a_download_that_breaks_off_is_damage(migrated_database: str, serve: Serve) -> None:
    lines = "".join(f"{gid(n)}\n" for n in range(20_000)).encode()
    host = serve(lines[: 9_000 * 37 + 5], len(lines))
    url = f"http://{host}/bad_items.csv"
    report = seed(migrated_database, url, run={"batch_size": 5_000})
    assert report.exit_code == 3
    assert 5_000 < len(rows(migrated_database)) <= 9_000
    assert "the download broke off" in report.problems[0].detail


def test_a_gzip_encoded_download_that_ends_too_early_is_damage(
    migrated_database: str, serve: Serve
) -> None:
    """urllib3 would take what is there for the whole file, which ends with a line here."""
    packer = zlib.compressobj(wbits=31)
    half = packer.compress("".join(f"{gid(n)}\n" for n in range(500)).encode())
    half += packer.flush(zlib.Z_FULL_FLUSH)
    url = f"http://{serve(half, Content_Encoding='gzip')}/bad_items.csv"
    report = seed(migrated_database, url)
    assert (report.exit_code, len(rows(migrated_database))) == (3, 500)
    whole = half + packer.compress(f"{gid(500)}\n".encode()) + packer.flush()
    url = f"http://{serve(whole, Content_Encoding='gzip')}/bad_items.csv"
    assert seed(migrated_database, url).exit_code == 0


def test_a_url_gets_its_own_credentials_and_no_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something")
    monkeypatch.setenv("NETRC", str(netrc))
    seen: list[Any] = []
    host = serve(f"{gid(1)}\n".encode(), seen=seen)
    for user in ("", "me:p%40ss@"):
        find([f"http://{user}{host}/bad_items.csv"], threading.Event())
    basic = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert [headers["authorization"] for headers in seen] == [None, basic]


def test_redirects_lead_nowhere_but_to_the_same_host(serve: Serve) -> None:
    seen: list[Any] = []
    elsewhere = serve(f"{gid(1)}\n".encode(), seen=seen)
    host = serve(b"", Location=f"http://{elsewhere}/bad_items.csv")
    with pytest.raises(SourceError, match="redirects to another host"):
        find([f"http://me:secret@{host}/bad_items.csv"], threading.Event())
    assert seen == []
    host = serve(b"", Location="/bad_items.csv")
    with pytest.raises(SourceError, match="redirects more than 5 times"):
        find([f"http://{host}/bad_items.csv"], threading.Event())


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_url_that_drips_ends_with_the_run(part: str) -> None:
    stop_flag = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with contextlib.suppress(OSError):
                conn, _ = server.accept()
                head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n"
                conn.sendall(head + (b"X-Slow: " if part == "headers" else b"\r\n"))
                while True:
                    conn.sendall(b"x")
                    stop_flag.set()
                    time.sleep(0.02)

        threading.Thread(target=drip, daemon=True).start()
        source = Source(f"http://127.0.0.1:{server.getsockname()[1]}/bad_items.csv", None)
        with at_most(2), pytest.raises(StopRun):
            reading(source, stop_flag).next_chunk(1_000)


def test_a_pipe_that_no_one_writes_to_ends_with_the_run(tmp_path: Path) -> None:
    pipe, stop_flag = tmp_path / "pipe", threading.Event()
    os.mkfifo(pipe)
    threading.Timer(0.3, stop_flag.set).start()
    with at_most(2), pytest.raises(StopRun):
        reading(Source(str(pipe), None), stop_flag).next_chunk(1_000)


@pytest.mark.parametrize("ending", ["run", "verify"])
def test_a_pipe_that_a_signal_breaks_off_is_not_taken_for_read(
    migrated_database: str, log: Path, tmp_path: Path, ending: str
) -> None:
    seed(migrated_database, log)
    pipe, driving = tmp_path / "pipe", driver(migrated_database)
    os.mkfifo(pipe)
    # Open for reading too, which keeps the pipe open for both sides.
    with pipe.open("r+b", buffering=0) as writer:
        writer.write(log.read_bytes())
        runner = driving.runner(job(pipe), concurrency=1)
        threading.Timer(0.3, driving.stop_flag.request, ["stopped by SIGTERM", 15]).start()
        report = getattr(runner, ending)()
    assert (report.outcome, report.exit_code) == (Outcome.STOPPED, 143)
    assert report.reason == "stopped by SIGTERM"


def test_a_verification_ends_with_the_chunk_that_a_signal_meets(migrated_database: str) -> None:
    driving = driver(migrated_database)
    verification = driving.runner(endless_job(driving), concurrency=1).verify()
    assert (verification.outcome, verification.exit_code) == (Outcome.STOPPED, 143)


# -- what is no success ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", gzip.compress(b""), b"mbid,Item::exists\n"],
    ids=["empty", "blank", "packed empty", "heading alone"],
)
def test_a_source_without_a_usable_line_is_no_success(
    migrated_database: str, log: Path, content: bytes
) -> None:
    empty = log.parent / "empty.csv"
    empty.write_bytes(content)
    report = seed(migrated_database, log, empty)
    assert wrong(report) == {"sources without a usable line": (0, 1)}
    assert (report.exit_code, len(rows(migrated_database))) == (3, 60)
    assert [problem.what for problem in report.problems] == [str(empty)]
    assert seed(migrated_database, log, empty, allow_damaged=True).exit_code == 0


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"a" * 1000)[:-9], "mbid\n".encode("utf-16"), b"\xfd7zXZ\0nonsense"],
    ids=["cut gzip", "utf-16", "damaged xz"],
)
def test_a_file_in_a_folder_that_cannot_be_read_is_damage(
    migrated_database: str, log: Path, content: bytes
) -> None:
    (log.parent / "skipped_items.log").write_bytes(content)
    report = seed(migrated_database, log.parent)
    assert (report.exit_code, len(rows(migrated_database))) == (3, 60)
    assert "skipped_items.log:1" in report.problems[0].what


def test_a_dry_run_says_what_could_not_be_read(migrated_database: str, tmp_path: Path) -> None:
    path = tmp_path / "failed_checks.log"
    path.write_text(f"{gid(1)}\tItem::exists\nnonsense\n")
    report = seed(migrated_database, path, run={"dry_run": True})
    assert (report.exit_code, rows(migrated_database)) == (3, {})
    assert wrong(report) == {"lines and files that could not be read": (0, 1)}


def test_a_heading_with_a_carriage_return_does_not_end_the_reading(
    migrated_database: str, log: Path
) -> None:
    first = log.parent / "bad_items.csv"
    first.write_bytes(b"mbid,Item::exists\rItem::darkened\n")
    report = seed(migrated_database, first, log)
    assert (report.exit_code, len(rows(migrated_database))) == (3, 60)


# -- as the files of 2021 are published -----------------------------------------------------------


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz"])
def test_an_archive_is_read_like_its_folder(
    migrated_database: str, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "audit.tar"
    (tmp_path / "notes.txt").write_text("Dear diary,\n")
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        tar.add(DATA, "caa-audit")
    report = seed(migrated_database, path)
    assert report.exit_code == 0, report.problems
    seeded = rows(migrated_database)
    execute(migrated_database, "TRUNCATE artwork_indexer.audit_entity CASCADE")
    seed(migrated_database, DATA)
    assert seeded == rows(migrated_database)


def test_an_archive_says_which_of_its_files_is_damaged(
    migrated_database: str, log: Path, tmp_path: Path
) -> None:
    path, cut = tmp_path / "audit.tar.xz", tmp_path / "results_cache.gz"
    cut.write_bytes(gzip.compress(b"a" * 1000)[:-9])
    with tarfile.open(path, "w:xz") as tar:
        tar.add(cut, "caa/results_cache.gz")
        tar.add(log, "caa/failed_checks.log")
    report = seed(migrated_database, path)
    assert (report.exit_code, len(rows(migrated_database))) == (3, 60)
    assert [problem.what for problem in report.problems] == [f"{path}/caa/results_cache.gz:1"]


def test_a_url_that_does_not_answer_is_refused_without_its_secrets(serve: Serve) -> None:
    host = serve(b"", 0)
    with pytest.raises(SourceError, match="HTTP 404") as missing:
        find([f"http://{host}/missing?token=secret"], threading.Event())
    with pytest.raises(SourceError, match="cannot be reached") as down:
        find(["http://me:secret@127.0.0.1:9/x?token=secret"], threading.Event())
    assert "secret" not in str(missing.value) + str(down.value)


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "text"),
    [
        (["-"], f"{gid(1)}\n{gid(2)}\n".encode(), 0, "verified"),
        (["-"], gzip.compress(f"{gid(1)}\tItem::exists\n".encode()), 0, "verified"),
        (["-"], b"", 3, "sources without a usable line"),
        (["-", "--allow-damaged"], b"", 0, "verified"),
        (["/dev/null"], b"", 3, "sources without a usable line"),
        ([""], b"", 2, "a SOURCE is empty"),
        (["-"], b"Dear diary,\n", 3, "kind is unknown"),
        (["/dev/stdin"], f"{gid(1)}\n".encode(), 0, "verified"),
        (["/no/such/file"], b"", 2, "/no/such/file cannot be read: No such file"),
        ([], b"", 2, "Missing argument"),
        (["-", "--priority", "99999"], b"", 2, "32767"),
    ],
    ids=[
        "standard input",
        "gzipped standard input",
        "empty standard input",
        "accepted empty standard input",
        "the null device",
        "an empty name",
        "no kind",
        "a pipe by its path",
        "no file",
        "no source",
        "bad priority",
    ],
)
def test_the_command_line_answers_with_its_exit_code(
    migrated_database: str, arguments: list[str], stdin: bytes, code: int, text: str
) -> None:
    environ = os.environ | {"MUSICBRAINZ_DATABASE_URL": migrated_database}
    ended = subprocess.run(
        [PROGRAM, "seed-from-img-129", *arguments], env=environ, input=stdin, capture_output=True
    )
    assert ended.returncode == code, ended
    assert text in (ended.stdout + ended.stderr).decode()


# -- reading in chunks ----------------------------------------------------------------------------


class Endless(Source):
    """A results cache that goes on for ever, of items that passed everything."""

    on_read: Callable[[], object] = staticmethod(lambda: None)

    def open(self, stop_flag: threading.Event) -> Any:
        on_read = self.on_read

        class Stream(io.RawIOBase):
            def read(self, size: int = -1, /) -> bytes:
                on_read()
                return f"{gid(1)}\tItem::exists\tPASSED\n".encode() * 4_000

        return contextlib.nullcontext(Stream())


def stopping(request: Callable[[], object]) -> Source:
    """Return an endless source; reading from it requests the end of the run."""
    return type("Stopping", (Endless,), {"on_read": staticmethod(request)})("results_cache", None)


def endless_job(driving: Driver) -> type[SeedFromImg129]:
    request = partial(driving.stop_flag.request, "stopped by SIGTERM", 15)

    class Bound(SeedFromImg129):
        def __init__(self, run: Run) -> None:
            super().__init__(run, [stopping(request)])

    return Bound


def reading(source: Source, stop_flag: threading.Event) -> Reading:
    return Reading(
        [source],
        include_passed=False,
        priority=None,
        partition=Partition(),
        stop_flag=stop_flag,
    )


def test_chunks_come_even_where_nothing_is_to_be_seeded() -> None:
    chunk = reading(Endless("results_cache", None), threading.Event()).next_chunk(1_000)
    assert chunk is not None
    assert (chunk.seeds, chunk.counts["lines"] >= 1_000_000) == ({}, True)


def test_a_chunk_ends_when_the_run_is_to_end() -> None:
    stop_flag = threading.Event()
    one_pass = reading(stopping(stop_flag.set), stop_flag)
    chunk = one_pass.next_chunk(1_000)
    assert chunk is not None
    assert chunk.counts["lines"] <= 10_000
    with pytest.raises(StopRun):
        one_pass.next_chunk(1_000)


@pytest.mark.parametrize("size", [1, 7, 59, 60, 61, 1_000])
def test_chunks_are_bounded_and_hold_everything(log: Path, size: int) -> None:
    one_pass = reading(find([str(log)], threading.Event())[0][0], threading.Event())
    chunks = list(iter(lambda: one_pass.next_chunk(size), None))
    assert max(len(chunk.seeds) for chunk in chunks) <= size
    assert len(set().union(*(chunk.seeds for chunk in chunks))) == 60
    assert sum(chunk.counts.get("lines", 0) for chunk in chunks) == 60
    assert one_pass.finished
