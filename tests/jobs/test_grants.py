"""`grants`: a role that has what it prints, and nothing else, can run the commands."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from artwork_backfill.jobs.cli.main import JOBS
from sandbox import schema, surroundings
from sandbox.library import LibrarySpec
from sandbox.surroundings import Surroundings
from sandbox.world import Spec
from tests import programs

PROJECT = Path(__file__).resolve().parents[2]
URLS = ("MUSICBRAINZ_DATABASE_URL", "WXYC_DATABASE_URL")
SOURCES = {
    "seed-from-img-129": [str(PROJECT / "tests/data/img-129")],
    "seed-from-ia-changes": ["--from-beginning"],
}


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    """A world with everything in it, seeded by the owner."""
    with surroundings.start(Spec(size=60), LibrarySpec(size=20)) as around:
        _expect(["migrate"], around.environment)
        _expect(["seed-from-mb"], around.environment)
        yield around


def _expect(arguments: list[str], environ: Mapping[str, str], code: int = 0) -> str:
    ran = programs.run(arguments, environ)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@contextmanager
def _role(around: Surroundings, *commands: str) -> Iterator[dict[str, str]]:
    """A role with the rights that `grants` prints; yields the settings with which it connects."""
    # With letters that have to be quoted.
    role = f"Back fill {uuid.uuid4().hex[:8]}"
    printed = _expect(["grants", role, *commands], around.environment)
    with _owner(around.musicbrainz_dsn) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    environ = dict(around.environment)
    for part in printed.strip().split("\n\n"):
        (variable,) = (name for name in URLS if name in part.splitlines()[0])
        with _owner(environ[variable]) as conn:
            conn.execute(part.encode())
    for variable in URLS:
        environ[variable] = _as(role, environ[variable])
    try:
        yield environ
    finally:
        for variable in URLS:
            with _owner(around.environment[variable]) as conn:
                conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
        with _owner(around.musicbrainz_dsn) as conn:
            conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def _owner(url: str) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True)


def _as(role: str, url: str) -> str:
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role.replace(' ', '%20')}@{address}"))


@pytest.mark.parametrize("job", JOBS)
def test_a_role_with_the_rights_of_a_job_can_run_and_verify_it(
    around: Surroundings, job: str
) -> None:
    with _role(around, job) as environ:
        _expect([job, *SOURCES.get(job, [])], environ)
        _expect(["verify", job, *SOURCES.get(job, [])], environ)


@pytest.mark.parametrize("job", JOBS)
def test_a_role_that_may_only_read_can_run_a_job_dry(around: Surroundings, job: str) -> None:
    with _role(around, job, "--read-only") as environ:
        _expect([job, *SOURCES.get(job, []), "--dry-run"], environ)


def test_a_role_with_the_rights_of_the_library_job_can_store_attempts(around: Surroundings) -> None:
    job = "library-artwork-url-backfill"
    _expect(["migrate", "--database", "wxyc"], around.environment)
    with _role(around, job) as environ:
        _expect([job, "--attempts-table"], environ)
    with _role(around, "seed-from-mb") as environ:
        with _owner(around.environment["WXYC_DATABASE_URL"]) as conn:
            conn.execute("GRANT USAGE ON SCHEMA wxyc_schema TO PUBLIC")
            conn.execute("GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA wxyc_schema TO PUBLIC")
        lacking = _expect([job, "--attempts-table"], environ, code=2)
        assert "GRANT USAGE ON SCHEMA artwork_backfill" in lacking


def test_a_role_that_may_only_read_can_look_at_everything(around: Surroundings) -> None:
    with _role(around, "status", "review", "events", "--read-only") as environ:
        _expect(["status"], environ)
        _expect(["review", "list"], environ)
        _expect(["events", "failed"], environ)


def test_a_role_that_may_only_read_can_know_first(around: Surroundings) -> None:
    with _role(around, "estimate", "explain", "--read-only") as environ:
        _expect(["estimate", "--sample", "40"], environ)
        _expect(["explain", "76df3287-6cda-33eb-8e9a-044b5e15ffdd"], environ)


def test_a_role_with_the_rights_of_migrate_can_create_the_tables(around: Surroundings) -> None:
    with _owner(around.server.create_database("without")) as conn:
        schema.create_musicbrainz(conn)
    url = around.server.dsn("without")
    role = f"migrator_{os.getpid()}"
    with _owner(url) as conn:
        conn.execute(f"CREATE ROLE {role} LOGIN".encode())
        conn.execute(_expect(["grants", role, "migrate"], {}).encode())

    _expect(["migrate"], {"MUSICBRAINZ_DATABASE_URL": _as(role, url)})


def test_all_missing_rights_are_named_with_the_command_that_prints_them(
    around: Surroundings,
) -> None:
    with _role(around, "status", "--read-only") as environ:
        said = " ".join(_expect(["audit-batch"], environ, code=2).split())

    for missing in ("musicbrainz", "INSERT", "artwork_indexer.event_queue", "cover_art_archive"):
        assert missing in said
    assert "artwork-backfill grants" in said
    assert "audit-batch" in said


def test_a_right_on_one_column_is_enough(around: Surroundings) -> None:
    printed = _expect(["grants", "x", "library-artwork-url-backfill"], around.environment)

    assert 'GRANT SELECT, UPDATE (artwork_url) ON wxyc_schema.library TO "x";' in printed


def test_every_sequence_that_an_insert_needs_is_granted(around: Surroundings) -> None:
    printed = " ".join(_expect(["grants", "x"], around.environment).split())
    inserted = re.findall(r"GRANT [^;]*?\bINSERT\b[^;]*? ON (artwork_indexer\.\S+)", printed)
    assert inserted

    with _owner(around.musicbrainz_dsn) as conn:
        for name in inserted:
            columns = conn.execute(
                "SELECT pg_get_serial_sequence(%s, attname) FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                (name, name),
            )
            for sequence in filter(None, (found for (found,) in columns)):
                assert f'GRANT USAGE ON SEQUENCE {sequence} TO "x";' in printed


def test_statements_are_printed_without_asking_a_database() -> None:
    printed = _expect(["grants", "backfill"], {})

    assert "MUSICBRAINZ_DATABASE_URL" in printed
    assert "WXYC_DATABASE_URL" in printed
    assert all(len(line) <= 80 for line in printed.splitlines())
