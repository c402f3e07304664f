"""The steps of the workflow that deploys by hand, run with stand-ins for docker and ssh.

The stand-in of ssh runs what it is asked to on this machine, as a host would; that of docker writes
down its arguments, one per line, and what it is given to read, and a report where the job would
write one.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from artwork_backfill.jobs.cli.main import main

PROJECT = Path(__file__).resolve().parent.parent.parent
WORKFLOW = yaml.safe_load((PROJECT / ".github/workflows/deploy-manual.yml").read_text())
STEPS = {step["name"]: step for step in WORKFLOW["jobs"]["deploy"]["steps"]}
# YAML 1.1, which this parser speaks, takes the key `on` for true.
INPUTS = WORKFLOW[True]["workflow_dispatch"]["inputs"]

DOCKER = """#!/bin/bash
printf '%s\\n' "$@" > "$LOG/docker-$1"
for word in "$@"; do
    case $word in
        (*:/reports) echo '# the report' > "${word%%:*}/report.md";;
        (--password-stdin) cat > "$LOG/password";;
    esac
done
exit "$DOCKER_STATUS"
"""
SSH = """#!/bin/bash
while [ "$1" != deploy@host.example ]; do shift; done
shift
exec bash -c "$*"
"""


@dataclass(frozen=True)
class Runner:
    """Runs steps in a folder, as the workflow's runner would."""

    folder: Path

    def run(
        self, step: str, *, job: str = "audit-batch", options: str = "", status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[step]["run"]],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder}/bin{os.pathsep}{os.environ['PATH']}",
                "HOME": str(self.folder),
                "LOG": str(self.folder),
                "DOCKER_STATUS": str(status),
                "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
                "JOB": job,
                "OPTIONS": options,
                "IMAGE": "registry.example/team/artwork-backfill",
                "TAGGED": "registry.example/team/artwork-backfill:abc123",
                "ENV_FILE": "/etc/artwork backfill.env",
                "REGISTRY_USERNAME": "alice",
                "REGISTRY_PASSWORD": "secret",
                "SSH_DESTINATION": "deploy@host.example",
                "SSH_KNOWN_HOSTS": "host.example ssh-ed25519 AAAA",
                "SSH_PRIVATE_KEY": "key",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def docker(self, command: str) -> list[str]:
        """The arguments of `docker run`, of `docker push` or of `docker login`, after that word."""
        return (self.folder / f"docker-{command}").read_text().splitlines()[1:]

    @property
    def summary(self) -> str:
        return (self.folder / "summary.md").read_text()


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    (tmp_path / "bin").mkdir()
    for name, text in {"docker": DOCKER, "ssh": SSH}.items():
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    return Runner(tmp_path)


def test_the_jobs_to_choose_from_exist() -> None:
    assert set(INPUTS["job"]["options"]) <= set(main.commands)


def test_the_command_that_is_printed_can_be_pasted(runner: Runner) -> None:
    said = runner.run("Say how to run it", options="--limit 1000 --ignore 'x';rm").stdout

    assert subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {said}"], capture_output=True, text=True, check=True
    ).stdout.splitlines() == [
        "docker",
        "run",
        "--rm",
        "--env-file",
        "/etc/artwork backfill.env",
        "registry.example/team/artwork-backfill:abc123",
        "audit-batch",
        "--limit",
        "1000",
        "--ignore",
        "'x';rm",
    ]
    assert said in runner.summary


def test_the_job_runs_on_the_host_and_its_report_comes_back(runner: Runner) -> None:
    ran = runner.run("Run", options="--limit 10 $(touch hacked) ; touch hacked")

    assert ran.returncode == 0, ran.stderr
    words = runner.docker("run")
    assert words[0] == "--rm"
    image = words.index("registry.example/team/artwork-backfill:abc123")
    assert words[image + 1 :] == [
        "audit-batch",
        *["--limit", "10", "$(touch", "hacked)", ";", "touch", "hacked"],
        "--report",
        "report.md",
        "--report",
        "report.json",
    ]
    assert words[words.index("--env-file") + 1] == "/etc/artwork backfill.env"
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert (runner.folder / "reports/report.md").read_text() == "# the report\n"
    assert "# the report" in runner.summary
    assert not (runner.folder / "hacked").exists()


@pytest.mark.parametrize("status", [1, 3, 143])
def test_the_exit_code_of_the_job_is_that_of_the_step(runner: Runner, status: int) -> None:
    assert runner.run("Run", status=status).returncode == status
    assert (runner.folder / "reports/report.md").exists()


def test_migrate_has_no_report(runner: Runner) -> None:
    assert runner.run("Run", job="migrate").returncode == 0
    assert runner.docker("run")[-1] == "migrate"


def test_nothing_is_left_on_the_host(runner: Runner) -> None:
    runner.run("Run")

    (folder,) = (
        word.partition(":")[0] for word in runner.docker("run") if word.endswith(":/reports")
    )
    assert not Path(folder).exists()


def test_the_password_of_the_registry_is_on_no_command_line(runner: Runner) -> None:
    pushed = runner.run("Push")

    assert pushed.returncode == 0, pushed.stderr
    assert "secret" not in pushed.stdout + pushed.stderr
    assert (runner.folder / "password").read_text() == "secret"
    assert runner.docker("login") == ["--username", "alice", "--password-stdin", "registry.example"]
    assert runner.docker("push") == ["registry.example/team/artwork-backfill:abc123"]


def test_no_input_is_pasted_into_a_script() -> None:
    assert not [name for name, step in STEPS.items() if "${{" in step.get("run", "")]
