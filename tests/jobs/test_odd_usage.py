"""Odd arguments, settings and places end with one clear line, and with nothing touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from sandbox import schema
from sandbox.postgres import Cluster
from tests import programs

COMMAND = Path(sys.executable).with_name("artwork-backfill")
HUGE = "9" * 30


@pytest.fixture
def environ(migrated_database: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "MUSICBRAINZ_DATABASE_URL": migrated_database,
        "WXYC_DATABASE_URL": migrated_database,
        "LIBRARY_METADATA_URL": "http://127.0.0.1:9",
        "BACKFILL_CONTACT": "ops@example.org",
    }


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["seed-from-mb", "--max-duration", "99999999999h"], "is not a duration"),
        (["seed-from-mb", "--max-duration", "9999d"], "longer than ten years"),
        (["seed-from-mb", "--max-duration", "90"], "is not a duration"),
        (["seed-from-mb", "--batch-size", HUGE], "not in the range"),
        (["seed-from-mb", "--batch-size", "9" * 5000], "is not a valid integer"),
        (["seed-from-mb", "--limit", HUGE], "not in the range"),
        (["seed-from-mb", "--partition", f"0/{HUGE}"], "is not a partition"),
        (["seed-from-mb", "--partition", f"0/{'9' * 5000}"], "is not a partition"),
        (["audit-batch", "--max-queue-depth", HUGE], "not in the range"),
        (["audit-batch", "--max-per-hour", HUGE], "not in the range"),
        (["audit-batch", "--queue-patience", "5000d"], "longer than ten years"),
        (["library-artwork-url-backfill", "--write-rate", "nan"], "is not a number"),
        (["library-artwork-url-backfill", "--min-confidence", "nan"], "is not a number"),
        (["library-artwork-url-backfill", "--discogs-rate", "1e300"], "not in the range"),
        (["review", "list", "--offset", HUGE], "not in the range"),
        (["review", "list", "--older-than", "99999999w"], "longer than ten years"),
        (["review", "list", "--json", "--csv"], "--json and --csv exclude each other"),
        (["review", "list", "--reason", "\udcff"], r"the argument '\udcff' is not UTF-8"),
        (["review", "resolve", HUGE, "--note", "x"], "not in the range"),
        (["review", "resolve", "1", "--note", " "], "the note is empty"),
        (["events", "requeue", HUGE], "not in the range"),
        (["checks", "--json", "--markdown"], "--json and --markdown exclude each other"),
        (["seed-from-img-129", "\udcff"], r"the argument '\udcff' is not UTF-8"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value)[:50],
)
def test_odd_arguments_are_refused(
    environ: dict[str, str], arguments: list[str], text: str
) -> None:
    ended = programs.run(arguments, environ)
    assert ended.returncode == 2, ended
    assert text in ended.stderr.replace("\n", " ")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MUSICBRAINZ_DATABASE_URL", "postgresql://mb:\udce9@db/x"),
        ("ARCHIVE_ORG_RATE", "1e309"),
        ("ARCHIVE_ORG_RATE", "9" * 400),
        ("BACKFILL_CONTACT", "\udcff"),
    ],
)
def test_odd_settings_are_refused(environ: dict[str, str], name: str, value: str) -> None:
    ended = programs.run(["audit-batch"], environ | {name: value})
    assert ended.returncode == 2, ended
    assert name in ended.stderr
    assert "Traceback" not in ended.stderr


def test_output_that_cannot_be_written_is_said_in_one_line(environ: dict[str, str]) -> None:
    for arguments in (["status"], ["status", "--json"], ["checks"], ["review", "list", "--csv"]):
        with Path("/dev/full").open("wb") as full:
            ended = subprocess.run(
                [COMMAND, *arguments],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=full,
                stderr=subprocess.PIPE,
            )
        assert ended.returncode == 1, (arguments, ended)
        assert ended.stderr == (b"Error: cannot write the output: No space left on device\n"), (
            arguments
        )


def test_a_server_that_takes_no_writes_is_said_to_be_one(environ: dict[str, str]) -> None:
    dsn = environ["MUSICBRAINZ_DATABASE_URL"]
    with psycopg.connect(dsn, autocommit=True) as conn:
        name = conn.info.dbname
        conn.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())
    for arguments in (["seed-from-mb"], ["audit-batch"], ["seed-from-img-129", "-"]):
        ended = programs.run(arguments, environ)
        assert ended.returncode == 2, ended
        assert "the server takes no writes" in ended.stderr
    ended = programs.run(["review", "resolve", "1", "--note", "x"], environ)
    assert (ended.returncode != 0, "Traceback" in ended.stderr) == (True, False), ended
    ended = programs.run(["migrate"], environ)
    assert (ended.returncode != 0, "Traceback" in ended.stderr) == (True, False), ended
    assert programs.run(["seed-from-mb", "--dry-run"], environ).returncode == 0
    assert programs.run(["status"], environ).returncode == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard", "TimeZone": "Asia/Kathmandu"},
        {"DateStyle": "German", "IntervalStyle": "postgres_verbose", "bytea_output": "escape"},
        {"client_encoding": "LATIN1", "standard_conforming_strings": "off"},
    ],
    ids=lambda settings: ", ".join(settings.values()),
)
def test_settings_of_the_database_change_nothing(
    environ: dict[str, str], settings: dict[str, str]
) -> None:
    with psycopg.connect(environ["MUSICBRAINZ_DATABASE_URL"], autocommit=True) as conn:
        conn.execute(
            "INSERT INTO musicbrainz.release (id, gid, name, artist_credit)"
            " SELECT n, gen_random_uuid(), 'Größe', 1 FROM generate_series(1, 20) n;"
            "INSERT INTO musicbrainz.release_gid_redirect VALUES (gen_random_uuid(), 1)"
        )
        for name, value in settings.items():
            conn.execute(f"ALTER DATABASE \"{conn.info.dbname}\" SET {name} = '{value}'".encode())
    for arguments in (
        ["seed-from-mb"],
        ["verify", "seed-from-mb"],
        ["status", "--json"],
        ["review", "list", "--json"],
    ):
        ended = programs.run(arguments, environ)
        assert ended.returncode == 0, (arguments, ended)


def test_a_database_without_an_encoding_works_or_says_what_is_wrong(
    environ: dict[str, str], postgres: Cluster
) -> None:
    with psycopg.connect(environ["MUSICBRAINZ_DATABASE_URL"], autocommit=True) as conn:
        name = f"{conn.info.dbname}_ascii"
        conn.execute(
            f"CREATE DATABASE \"{name}\" ENCODING 'SQL_ASCII' TEMPLATE template0"
            " LOCALE_PROVIDER libc LOCALE 'C'".encode()
        )
        url = conn.info.dbname
    dsn = environ["MUSICBRAINZ_DATABASE_URL"].replace(url, name)
    try:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("SET client_encoding = 'UTF8'")
            schema.create_musicbrainz(conn)
            conn.execute(
                "INSERT INTO musicbrainz.release (id, gid, name, artist_credit)"
                " VALUES (1, gen_random_uuid(), 'Größe', 1)"
            )
        here = environ | {"MUSICBRAINZ_DATABASE_URL": dsn}
        for arguments in (["migrate"], ["seed-from-mb"], ["status", "--json"]):
            ended = programs.run(arguments, here)
            assert ended.returncode == 0, (arguments, ended)
    finally:
        postgres.drop_database(name)
