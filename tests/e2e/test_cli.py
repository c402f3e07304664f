"""The command line as people meet it: help, names, exit codes, and databases that are not right.

Every command runs in a process of its own, as in the image.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import click
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from artwork_backfill.jobs.cli.main import JOBS, load_job, main
from sandbox.postgres import Cluster
from tests import programs
from tests.tiny import execute, query

ON_MUSICBRAINZ = [["seed-from-mb"], ["verify", "seed-from-mb"], ["audit-batch"], ["status"]]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program with nothing but these variables set."""
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return programs.run(arguments, environ | variables)


def assert_one_clear_line(
    done: subprocess.CompletedProcess[str], *parts: str, exit_code: int = 2
) -> None:
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    line, logged = done.stderr.splitlines()
    assert line.startswith("Error: ")
    error = json.loads(logged)
    assert (error["level"], error["step"]) == ("error", "failed")
    for part in parts:
        assert part in line
        assert part in error["message"]


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


ALL = [pytest.param(path, command, id=" ".join(path)) for path, command in commands(main)]


# -- help and names --------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "command"), ALL)
def test_every_command_explains_itself_with_an_example(
    path: tuple[str, ...], command: click.Command
) -> None:
    text = command.help or ""
    assert text.strip()
    if path[0] != "verify" or len(path) == 1:
        assert "Example: artwork-backfill " + " ".join(path) in " ".join(text.split())


@pytest.mark.parametrize("name", JOBS)
def test_every_option_says_what_it_does(name: str) -> None:
    job = load_job(name)
    assert job.run.name == job.verify.name == name
    for command in (job.run, job.verify):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{command.name} {parameter.opts[0]}"


def test_help_and_version_end_well_without_any_setting() -> None:
    for arguments in (["--help"], ["-h"], ["--version"], ["audit-batch", "--help"]):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert done.stdout


@pytest.mark.parametrize("name", ["seed-from-MB", "SEED-FROM-MB", "Seed-From-Mb"])
def test_names_are_matched_without_regard_to_case(name: str) -> None:
    assert run(name, "--help").returncode == 0
    assert run("verify", name, "--help").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["seed-form-mb"], "seed-from-mb"),
        (["audit-bach"], "audit-batch"),
        (["verify", "audit-bach"], "audit-batch"),
        (["seed-from-mb", "--dry-rnu"], "--dry-run"),
    ],
)
def test_what_is_misspelt_gets_the_nearest_suggested(arguments: list[str], suggestion: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error: No such ")]
    assert suggestion in error


# -- databases that are not right ------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [*ON_MUSICBRAINZ, ["migrate"]], ids=" ".join)
def test_without_a_database_url_the_setting_is_named(arguments: list[str]) -> None:
    done = run(*arguments)
    assert_one_clear_line(done, "MUSICBRAINZ_DATABASE_URL is not set", "postgresql://")


@pytest.mark.parametrize("arguments", [*ON_MUSICBRAINZ, ["migrate"]], ids=" ".join)
def test_a_server_that_is_down_is_said_to_be(arguments: list[str], tmp_path: Path) -> None:
    dsn = f"postgresql://someone:hunter22@/musicbrainz_db?host={tmp_path}"
    done = run(*arguments, MUSICBRAINZ_DATABASE_URL=dsn)
    assert_one_clear_line(done, "the database cannot be used", "No such file or directory")
    assert "hunter22" not in done.stderr


@pytest.mark.parametrize("arguments", [*ON_MUSICBRAINZ, ["migrate"]], ids=" ".join)
def test_a_database_that_does_not_exist_is_named(postgres: Cluster, arguments: list[str]) -> None:
    done = run(*arguments, MUSICBRAINZ_DATABASE_URL=postgres.dsn("no_such_database"))
    assert_one_clear_line(done, 'database "no_such_database" does not exist')


@pytest.mark.parametrize("arguments", ON_MUSICBRAINZ[:3], ids=" ".join)
def test_the_wrong_database_is_recognised(empty_database: str, arguments: list[str]) -> None:
    done = run(*arguments, MUSICBRAINZ_DATABASE_URL=empty_database)
    assert_one_clear_line(done, "the database has no table ")


@pytest.mark.parametrize("arguments", [["status"], ["migrate"], ["seed-from-mb"]], ids=" ".join)
def test_without_artwork_indexers_schema_it_says_what_to_install(
    musicbrainz_database: str, arguments: list[str]
) -> None:
    execute(musicbrainz_database, "DROP SCHEMA artwork_indexer CASCADE")
    done = run(*arguments, MUSICBRAINZ_DATABASE_URL=musicbrainz_database)
    assert_one_clear_line(done, "install artwork-indexer's own schema first")


@pytest.mark.parametrize("arguments", ON_MUSICBRAINZ, ids=" ".join)
def test_without_our_migrations_it_says_how_to_apply_them(
    musicbrainz_database: str, arguments: list[str]
) -> None:
    done = run(*arguments, MUSICBRAINZ_DATABASE_URL=musicbrainz_database)
    assert_one_clear_line(done, "run `artwork-backfill migrate` first")


@pytest.fixture
def poor_database(migrated_database: str) -> Iterator[str]:
    """URL of a complete database, for a role that may look at everything and change nothing."""
    role = f"poor_{uuid.uuid4().hex}"
    name = sql.Identifier(role)
    with psycopg.connect(migrated_database, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'hunter22'").format(name))
        for schema in ("musicbrainz", "cover_art_archive", "event_art_archive", "artwork_indexer"):
            conn.execute(
                sql.SQL(
                    "GRANT USAGE ON SCHEMA {0} TO {1};"
                    "GRANT SELECT ON ALL TABLES IN SCHEMA {0} TO {1}"
                ).format(sql.Identifier(schema), name)
            )
        try:
            fields = conninfo_to_dict(migrated_database) | {"user": role, "password": "hunter22"}
            yield make_conninfo("", **{key: str(value) for key, value in fields.items()})
        finally:
            conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))


@pytest.mark.parametrize("command", ["seed-from-mb", "audit-batch", "migrate"])
def test_a_role_without_rights_is_told_what_to_ask_for(poor_database: str, command: str) -> None:
    done = run(command, MUSICBRAINZ_DATABASE_URL=poor_database)
    assert_one_clear_line(done, "may not use ", "ask the owner to GRANT ")
    assert "hunter22" not in done.stderr


def test_a_role_that_may_only_look_can_see_the_status(poor_database: str) -> None:
    assert run("status", MUSICBRAINZ_DATABASE_URL=poor_database).returncode == 0


# -- the first steps -------------------------------------------------------------------------------


def test_migrations_are_listed_applied_and_applied_once(musicbrainz_database: str) -> None:
    environ = {"MUSICBRAINZ_DATABASE_URL": musicbrainz_database}
    assert run("migrate", "--status", **environ).stdout.startswith("pending  0001_")
    assert run("migrate", **environ).stdout.startswith("applied 0001_")
    assert run("migrate", **environ).stdout == "nothing to apply\n"
    assert run("migrate", "--status", **environ).stdout.startswith("applied  0001_")


def test_a_migration_that_fails_is_exit_code_1(musicbrainz_database: str) -> None:
    execute(musicbrainz_database, "CREATE TABLE artwork_indexer.audit_entity ()")
    done = run("migrate", MUSICBRAINZ_DATABASE_URL=musicbrainz_database)
    assert_one_clear_line(
        done,
        "migration 0001_audit_tables.sql failed and was rolled back",
        'relation "audit_entity" already exists',
        exit_code=1,
    )
    left = query(musicbrainz_database, "SELECT to_regtype('artwork_indexer.audit_entity_status')")
    assert left == [(None,)]


def test_seeding_status_and_verification_follow_one_another(migrated_database: str) -> None:
    execute(
        migrated_database,
        "INSERT INTO musicbrainz.release (gid, name, artist_credit)"
        " SELECT gen_random_uuid(), 'a release', 1 FROM generate_series(1, 12)",
    )
    environ = {"MUSICBRAINZ_DATABASE_URL": migrated_database}
    assert run("verify", "seed-from-mb", **environ).returncode == 3
    assert run("seed-from-mb", "--limit", "5", **environ).returncode == 0
    assert run("verify", "seed-from-mb", **environ).returncode == 3
    assert run("seed-from-mb", **environ).returncode == 0
    assert run("verify", "seed-from-mb", **environ).returncode == 0
    assert '"entities": 12' in run("status", "--json", **environ).stdout
