"""The command as people start it: in a process of its own, against the sandbox's LML."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from sandbox import schema
from sandbox.library import Library, LibrarySpec, load_library
from sandbox.services import Services
from tests.timing import LIMIT_S
from tests.tiny import wait_for

COMMAND = (str(Path(sys.executable).with_name("artwork-backfill")), "library-artwork-url-backfill")
SPEC = LibrarySpec(seed=7, size=400)
LIBRARY = Library(SPEC)
CANDIDATES = [
    row.id for row in LIBRARY.rows() if row.artwork_url is None and not row.discogs_unavailable
]
EXPECTED = {row.id: row.expected for row in LIBRARY.rows()}
EMPTY_AT_FIRST = [row.id for row in LIBRARY.rows() if row.artwork_url is None]
WRONG_KEY = "wr0ng-key-of-lml"


@pytest.fixture(scope="module")
def running_services() -> Iterator[Services]:
    with Services(library=SPEC) as services:
        services.control("lml", lookup_s=0)
        services.control("old_lml", lookup_s=0)
        yield services


@pytest.fixture
def services(running_services: Services) -> Iterator[Services]:
    running_services.control("lml", reset_stats=True)
    running_services.control("old_lml", reset_stats=True)
    yield running_services
    running_services.control("lml", faults=[], lookup_s=0, uncached_s=0, gone=False, log=False)


@pytest.fixture
def database(wxyc_database: str) -> str:
    """URL of a database with the sandbox's library in it."""
    with psycopg.connect(wxyc_database, autocommit=True) as conn:
        load_library(conn, LIBRARY)
    return wxyc_database


@dataclass
class Finished:
    """A run that has ended: its exit code, its log lines, and all it printed."""

    exit_code: int
    output: str
    lines: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = []
        for line in self.output.splitlines():
            with suppress(json.JSONDecodeError):
                self.lines.append(json.loads(line))

    @property
    def report(self) -> dict[str, Any]:
        reports: list[dict[str, Any]] = [
            line["report"] for line in self.lines if line["step"] == "report"
        ]
        assert len(reports) == 1
        return reports[0]

    @property
    def totals(self) -> dict[str, int]:
        return dict(self.report["totals"])


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(services: Services) -> Iterator[Start]:
    """Start the command on a database; what still runs at the end of the test is killed."""
    processes: list[subprocess.Popen[str]] = []

    def begin(dsn: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        settings = {
            "PATH": os.environ["PATH"],
            "WXYC_DATABASE_URL": dsn,
            "LIBRARY_METADATA_URL": services.lml_url,
            "LML_API_KEY": str(services.lml_api_key),
            "BACKFILL_WRITE_RATE": "0",
        }
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=settings | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> Finished:
    output, _ = process.communicate(timeout=LIMIT_S)
    return Finished(process.returncode, output)


def artwork(dsn: str, schema_name: str = "wxyc_schema") -> dict[int, str | None]:
    table = sql.Identifier(schema_name, "library")
    with psycopg.connect(dsn) as conn:
        return dict(conn.execute(sql.SQL("SELECT id, artwork_url FROM {}").format(table)))


def empty_rows(dsn: str) -> list[int]:
    return sorted(id_ for id_, url in artwork(dsn).items() if url is None)


def test_every_row_ends_as_planned(database: str, start: Start, tmp_path: Path) -> None:
    changes = tmp_path / "changes.jsonl"
    finished = finish(start(database, "--changes", str(changes)))
    assert finished.exit_code == 0
    assert artwork(database) == EXPECTED
    assert finished.report["outcome"] == "verified"
    assert finished.totals["scanned"] == len(CANDIDATES)
    planned: Counter[str] = Counter(LIBRARY.row(id_).outcome for id_ in CANDIDATES)
    assert finished.totals["written"] == planned["match"] + planned["match_second"]
    assert finished.totals["not_a_cover"] == planned["photo"] + planned["logo"]
    for reason in ("no_match", "other_album", "other_artist", "no_artwork", "placeholder"):
        assert finished.totals[reason] == planned[reason]
    assert len(changes.read_text().splitlines()) == len(CANDIDATES)
    # And all of it can be taken back.
    undone = finish(start(database, "--undo", str(changes)))
    assert undone.exit_code == 0
    assert undone.totals["written"] == finished.totals["written"]
    assert empty_rows(database) == EMPTY_AT_FIRST


def test_every_log_line_says_where_it_comes_from(database: str, start: Start) -> None:
    finished = finish(start(database, "--batch-size", "100", "--fixed-batch-size"))
    lines = finished.lines
    assert {line["repo"] for line in lines} == {"artwork-backfill"}
    assert {line["tool"] for line in lines} == {"library-artwork-url-backfill"}
    assert len({line["run_id"] for line in lines}) == 1
    steps = list(dict.fromkeys(line["step"] for line in lines))
    batches = -(-len(CANDIDATES) // 100)
    expected = [f"batch-{number}" for number in range(1, batches + 1)]
    assert steps == ["started", *expected, "verify", "report"]
    refused = {line["library_id"] for line in lines if "library_id" in line}
    assert refused == {id_ for id_ in CANDIDATES if EXPECTED[id_] is None}


def test_killed_at_any_moment_it_continues_where_it_was(
    database: str, start: Start, tmp_path: Path
) -> None:
    changes = tmp_path / "changes.jsonl"
    process = start(database, "--batch-size", "20", "--changes", str(changes))
    wait_for(lambda: any(artwork(database)[id_] for id_ in CANDIDATES))
    process.send_signal(signal.SIGKILL)
    process.wait()
    urls = artwork(database)
    filled = [id_ for id_ in CANDIDATES if urls[id_] is not None]
    assert 0 < len(filled) < len(CANDIDATES)
    finished = finish(start(database, "--changes", str(changes)))
    assert finished.exit_code == 0
    assert artwork(database) == EXPECTED
    assert finished.totals["scanned"] == len(CANDIDATES) - len(filled)
    # The file has the lines of both runs.
    undone = finish(start(database, "--undo", str(changes)))
    assert undone.exit_code == 0
    assert empty_rows(database) == EMPTY_AT_FIRST


def test_two_partitions_run_at_once(database: str, start: Start) -> None:
    both = [start(database, "--partition", f"{index}/2") for index in range(2)]
    finished = [finish(process) for process in both]
    assert [run.exit_code for run in finished] == [0, 0]
    assert sum(run.totals["scanned"] for run in finished) == len(CANDIDATES)
    assert all(run.totals["scanned"] > 0 for run in finished)
    assert artwork(database) == EXPECTED


def test_an_older_lml_is_asked_for_one_album_at_a_time(
    database: str, start: Start, services: Services
) -> None:
    finished = finish(start(database, LIBRARY_METADATA_URL=services.old_lml_url))
    assert finished.exit_code == 0
    assert artwork(database) == EXPECTED
    assert services.stats("old_lml").paths["lookup"] == len(CANDIDATES)


def test_an_older_library_in_a_schema_of_another_name(empty_database: str, start: Start) -> None:
    with psycopg.connect(empty_database, autocommit=True) as conn:
        schema.create_wxyc(conn, "Radio", is_old=True)
        load_library(conn, LIBRARY, "Radio")
    finished = finish(start(empty_database, WXYC_SCHEMA_NAME="Radio"))
    assert finished.exit_code == 0
    assert artwork(empty_database, "Radio") == EXPECTED
    # Nothing says here that Discogs does not have them.
    assert finished.totals["scanned"] == sum(row.artwork_url is None for row in LIBRARY.rows())


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_costs_time_and_nothing_else(
    database: str, start: Start, services: Services, status: int
) -> None:
    fault = {"kind": "refuse", "times": 2, "status": status, "retry_after": "0"}
    services.control("lml", faults=[fault], log=True)
    finished = finish(start(database, "--limit", "50"))
    assert finished.exit_code == 0
    assert finished.report["requests"]["LML"]["retries"] == 2
    stats = services.stats("lml")
    assert stats.paths == {"bulk": 12}
    # Never a budget, always a reason, and always beyond the cache.
    assert {entry["headers"]["x-caller-reason"] for entry in stats.log} == {COMMAND[1]}
    assert all("x-caller-budget-ms" not in entry["headers"] for entry in stats.log)
    assert all("allow_release_resolution_fallback=true" in e["target"] for e in stats.log)


def test_a_redeployment_costs_time_and_no_row(
    database: str, start: Start, services: Services
) -> None:
    process = start(database, "--fixed-batch-size", "--batch-size", "20")
    assert process.stdout is not None
    wait_for(lambda: any(artwork(database)[id_] for id_ in CANDIDATES))
    services.control("lml", gone=True)
    while "LML refuses" not in process.stdout.readline():
        assert process.poll() is None
    services.control("lml", gone=False)
    finished = finish(process)
    assert finished.exit_code == 0
    assert artwork(database) == EXPECTED
    assert "lookup" not in services.stats("lml").paths


def test_what_is_not_cached_is_looked_up_once_and_at_the_rate_of_discogs(
    wxyc_database: str, start: Start
) -> None:
    spec = LibrarySpec(seed=7, size=40, uncached_share=0.25)
    library = Library(spec)
    with psycopg.connect(wxyc_database, autocommit=True) as conn:
        load_library(conn, library)
    with Services(library=spec) as services:
        services.control("lml", lookup_s=0, uncached_s=0.2)
        url = services.lml_url
        began = time.monotonic()
        finished = finish(start(wxyc_database, "--discogs-rate", "240", LIBRARY_METADATA_URL=url))
        seconds = time.monotonic() - began
        counts = services.stats("lml").counts
    assert finished.exit_code == 0
    assert artwork(wxyc_database) == {row.id: row.expected for row in library.rows()}
    assert counts["asked_again"] == 0
    assert counts["discogs"] >= 5
    # At four a second; the last ones have nothing to wait for.
    assert seconds >= (counts["discogs"] - 5) / 4


def test_the_environment_of_wxycs_own_jobs_will_do(database: str, start: Start) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(database)
    environment = {
        "WXYC_DATABASE_URL": "",
        "DB_HOST": str(parts["host"]),
        "DB_PORT": str(parts.get("port") or ""),
        "DB_NAME": str(parts["dbname"]),
        "DB_USERNAME": str(parts["user"]),
        "DB_PASSWORD": str(parts.get("password") or "unused"),
        "DRY_RUN": "true",
    }
    before = artwork(database)
    finished = finish(start(database, "--limit", "50", **environment))
    assert finished.exit_code == 0
    assert finished.report["dry_run"] is True
    assert finished.totals["written"] > 0
    assert artwork(database) == before


def test_existing_covers_are_checked_without_asking_anybody(
    database: str, start: Start, services: Services
) -> None:
    finished = finish(start(database, "--check-existing"))
    assert finished.exit_code == 0
    assert finished.totals["unsuspicious"] == sum(
        row.artwork_url is not None for row in LIBRARY.rows()
    )
    assert services.stats("lml").requests == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--check-existing", "--quick"),
        ("--undo", __file__, "--changes", "x.jsonl"),
        ("--undo", __file__, "--check-existing"),
    ],
)
def test_options_without_effect_are_refused(
    database: str, start: Start, arguments: tuple[str, ...]
) -> None:
    finished = finish(start(database, *arguments))
    assert finished.exit_code == 2
    assert "has no effect together with" in finished.output


@pytest.mark.parametrize("option", ["--changes", "--undo"])
def test_a_report_never_replaces_the_changes_file(
    database: str, start: Start, tmp_path: Path, option: str
) -> None:
    changes = tmp_path / "library.json"
    changes.write_text("")
    finished = finish(start(database, option, str(changes), "--report", str(changes)))
    assert finished.exit_code == 2
    assert "would replace" in finished.output


@pytest.mark.parametrize(
    ("path", "problem"),
    [(__file__, "line 1: not a line of JSON"), ("/nowhere.jsonl", "cannot be read: No such file")],
)
def test_a_file_that_is_none_of_changes_is_refused(
    database: str, start: Start, path: str, problem: str
) -> None:
    finished = finish(start(database, "--undo", path))
    assert finished.exit_code == 2
    assert problem in finished.output


def test_a_refused_key_stops_at_once_and_is_not_shown(database: str, start: Start) -> None:
    before = artwork(database)
    finished = finish(start(database, LML_API_KEY=WRONG_KEY))
    assert finished.exit_code == 1
    assert "LML refused LML_API_KEY" in finished.report["reason"]
    assert WRONG_KEY not in finished.output
    assert artwork(database) == before


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LIBRARY_METADATA_URL": ""}, "LIBRARY_METADATA_URL is not set"),
        ({"LIBRARY_METADATA_URL": "lml.example"}, "LIBRARY_METADATA_URL is not an http"),
        ({"LML_API_KEY": f"{WRONG_KEY}\N{EURO SIGN}"}, "LML_API_KEY cannot be sent in a header"),
        ({"WXYC_DATABASE_URL": ""}, "WXYC_DATABASE_URL is not set"),
        ({"WXYC_SCHEMA_NAME": "a b"}, "WXYC_SCHEMA_NAME is not a plain schema name"),
        ({"WXYC_SCHEMA_NAME": "nowhere"}, "no tables nowhere.library, nowhere.artists: check"),
    ],
)
def test_settings_that_cannot_work_are_named_before_anything_is_touched(
    database: str, start: Start, services: Services, environment: dict[str, str], message: str
) -> None:
    finished = finish(start(database, **environment))
    assert finished.exit_code == 2
    assert message in finished.output
    assert WRONG_KEY not in finished.output
    assert services.stats("lml").requests == 0


def test_an_address_where_there_is_no_lml_is_named(
    database: str, start: Start, services: Services
) -> None:
    url = f"{services.lml_url}/elsewhere"
    finished = finish(start(database, LIBRARY_METADATA_URL=url))
    assert finished.exit_code == 1
    assert "check LIBRARY_METADATA_URL" in finished.report["reason"]


@pytest.fixture
def watcher(database: str) -> Iterator[str]:
    """The name of a role that may only read the library."""
    name = f"watcher_{time.monotonic_ns()}"
    role, tables = sql.Identifier(name), ("library", "artists")
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        conn.execute(sql.SQL("GRANT USAGE ON SCHEMA wxyc_schema TO {}").format(role))
        for table in tables:
            grant = sql.SQL("GRANT SELECT ON {} TO {}")
            conn.execute(grant.format(sql.Identifier("wxyc_schema", table), role))
        yield name
        conn.execute(sql.SQL("DROP OWNED BY {}").format(role))
        conn.execute(sql.SQL("DROP ROLE {}").format(role))


def test_verify_needs_neither_the_rights_nor_the_settings_of_a_run(
    database: str, watcher: str
) -> None:
    process = subprocess.run(
        [COMMAND[0], "verify", COMMAND[1]],
        env={
            "PATH": os.environ["PATH"],
            "WXYC_DATABASE_URL": psycopg.conninfo.make_conninfo(database, user=watcher),
        },
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    finished = Finished(process.returncode, process.stdout)
    assert finished.exit_code == 0
    assert [note["value"] for note in finished.report["notes"]] == [
        SPEC.size - sum(row.artwork_url is None for row in LIBRARY.rows()),
        len(CANDIDATES),
    ]
