"""The command as people start it: in a process of its own, against the sandbox's LML."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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
from tests.tiny import wait_for

COMMAND = (str(Path(sys.executable).with_name("artwork-backfill")), "library-artwork-url-backfill")
SPEC = LibrarySpec(seed=7, size=900)
LIBRARY = Library(SPEC)
CANDIDATES = [
    row.id for row in LIBRARY.rows() if row.artwork_url is None and not row.discogs_unavailable
]
EXPECTED = {row.id: row.expected for row in LIBRARY.rows()}
WRONG_KEY = "wr0ng-key-of-lml"


@pytest.fixture(scope="module")
def running_services() -> Iterator[Services]:
    with Services(library=SPEC) as services:
        yield services


@pytest.fixture
def services(running_services: Services) -> Iterator[Services]:
    running_services.control("lml", reset_stats=True)
    yield running_services
    running_services.control("lml", faults=[], bulk=True, lookup_s=0.02)


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
    output, _ = process.communicate(timeout=60)
    return Finished(process.returncode, output)


def artwork(dsn: str, schema_name: str = "wxyc_schema") -> dict[int, str | None]:
    table = sql.Identifier(schema_name, "library")
    with psycopg.connect(dsn) as conn:
        return dict(conn.execute(sql.SQL("SELECT id, artwork_url FROM {}").format(table)))


def test_every_row_ends_as_planned(database: str, start: Start) -> None:
    finished = finish(start(database, "--batch-size", "300"))
    assert finished.exit_code == 0
    assert artwork(database) == EXPECTED
    assert finished.report["outcome"] == "verified"
    assert finished.totals["scanned"] == len(CANDIDATES)
    planned: Counter[str] = Counter(LIBRARY.row(id_).outcome for id_ in CANDIDATES)
    assert finished.totals["written"] == planned["match"] + planned["match_second"]
    for reason in ("no_match", "other_album", "no_artwork", "placeholder"):
        assert finished.totals[reason] == planned[reason]


def test_every_log_line_tells_where_it_comes_from(database: str, start: Start) -> None:
    lines = finish(start(database, "--batch-size", "300", "--fixed-batch-size")).lines
    assert {line["repo"] for line in lines} == {"artwork-backfill"}
    assert {line["tool"] for line in lines} == {"library-artwork-url-backfill"}
    assert len({line["run_id"] for line in lines}) == 1
    assert [line["step"] for line in lines] == [
        "started",
        "batch-1",
        "verify",
        "verify",
        "report",
    ]


def test_killed_at_any_moment_it_goes_on_where_it_was(database: str, start: Start) -> None:
    process = start(database, "--batch-size", "100", "--concurrency", "1")
    wait_for(lambda: any(artwork(database)[id_] for id_ in CANDIDATES))
    process.send_signal(signal.SIGKILL)
    process.wait()
    urls = artwork(database)
    filled = [id_ for id_ in CANDIDATES if urls[id_] is not None]
    assert 0 < len(filled) < len(CANDIDATES) / 2
    finished = finish(start(database))
    assert finished.exit_code == 0
    assert artwork(database) == EXPECTED
    assert finished.totals["scanned"] == len(CANDIDATES) - len(filled)


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
    services.control("lml", bulk=False, lookup_s=0.001)
    finished = finish(start(database, "--concurrency", "2"))
    assert finished.exit_code == 0
    assert artwork(database) == EXPECTED
    assert services.stats("lml").paths["lookup"] == len(CANDIDATES)


def test_an_older_library_in_a_schema_of_another_name(empty_database: str, start: Start) -> None:
    with psycopg.connect(empty_database, autocommit=True) as conn:
        schema.create_wxyc(conn, "Radio", discogs_unavailable=False)
        load_library(conn, LIBRARY, "Radio")
    finished = finish(start(empty_database, WXYC_SCHEMA_NAME="Radio"))
    assert finished.exit_code == 0
    assert artwork(empty_database, "Radio") == EXPECTED
    # Nothing says here that Discogs does not have them.
    assert finished.totals["scanned"] == sum(row.artwork_url is None for row in LIBRARY.rows())


def test_a_passing_refusal_costs_time_and_nothing_else(
    database: str, start: Start, services: Services
) -> None:
    fault = {"kind": "refuse", "times": 2, "retry_after": "0"}
    services.control("lml", faults=[fault])
    finished = finish(start(database))
    assert finished.exit_code == 0
    assert finished.report["requests"]["LML"]["retries"] == 2
    assert artwork(database) == EXPECTED


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


def test_verify_counts_without_asking_anybody(
    database: str, start: Start, services: Services
) -> None:
    process = subprocess.run(
        [COMMAND[0], "verify", COMMAND[1]],
        env={
            "PATH": os.environ["PATH"],
            "WXYC_DATABASE_URL": database,
            "LIBRARY_METADATA_URL": services.lml_url,
        },
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    finished = Finished(process.returncode, process.stdout)
    assert finished.exit_code == 0
    assert [note["value"] for note in finished.report["notes"]] == [
        SPEC.size - sum(row.artwork_url is None for row in LIBRARY.rows()),
        len(CANDIDATES),
    ]
    assert services.stats("lml").requests == 0
