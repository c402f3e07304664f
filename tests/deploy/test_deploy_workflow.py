"""The steps of the workflow that deploys by hand, run with stand-ins for docker, ssh and aws.

The stand-in of ssh runs what it is told to on this machine, as a host would. That of docker notes
down its arguments, one per line, and what it is given to read; it has one container, which runs
until a file says that it has exited.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from artwork_backfill.jobs.cli.main import JOBS
from tests.timing import LIMIT_S

PROJECT = Path(__file__).resolve().parent.parent.parent
WORKFLOW = yaml.safe_load((PROJECT / ".github/workflows/deploy-manual.yml").read_text())
DEPLOY = WORKFLOW["jobs"]["deploy"]
STEPS = {step["name"]: step for step in DEPLOY["steps"]}
# YAML 1.1, which this parser speaks, reads the key `on` as true.
INPUTS = WORKFLOW[True]["workflow_dispatch"]["inputs"]

DIGEST = "sha256:" + "7" * 64
IMAGE = "ghcr.io/example/artwork-backfill"
FOLLOW = "run it and follow it"

DOCKER = """#!/bin/bash
config=
if [ "$1" = --config ]; then config=$2; shift 2; fi
printf '%s\\n' "$@" > "$LOG/docker-$1"
printf '%s' "$config" > "$LOG/config-$1"
case $1 in
    login) cat > "$LOG/password-of-$(basename "${config:-runner}" | cut -c1-6)";;
    run)
        for word in "$@"; do
            case $word in (*:/reports) echo "${word%%:*}" > "$LOG/folder";; esac
        done
        touch "$LOG/running";;
    logs)
        echo '{"message": "batch 1 written"}'
        if [ "$2" = --follow ]; then
            while [ -e "$LOG/running" ]; do sleep 0.05; done
            if [ -e "$LOG/drop" ]; then rm "$LOG/drop"; touch "$LOG/running"; exit 255; fi
        fi;;
    stop)
        if [ -e "$LOG/running" ]; then echo 143 > "$LOG/status"; fi
        rm -f "$LOG/running"
        echo '# the report' > "$(cat "$LOG/folder")/report.md";;
    inspect)
        if [ -z "$3" ]; then [ -e "$LOG/folder" ]; exit; fi
        case $3 in
            (*RepoDigests*) echo "${4%:*}@$DIGEST";;
            (*Running*) if [ -e "$LOG/running" ]; then echo true; else echo false; fi;;
            (*ExitCode*) cat "$LOG/status";;
        esac;;
esac
"""
SSH = """#!/bin/bash
while [ "$1" != deploy@host.example ]; do shift; done
shift
cd "$HOST" && exec bash -c "$*"
"""
AWS = """#!/bin/bash
printf '%s\\n' "$@" > "$LOG/aws-$2"
if [ "$2" = get-login-password ]; then printf secret-of-ecr; fi
"""
MAKE = """#!/bin/bash
printf '%s\\n' "$@" > "$LOG/make"
"""
SLEEP = """#!/bin/bash
exec /bin/sleep 0.05
"""


@dataclass
class Runner:
    """Runs steps one after another in a folder, as the runner of the workflow does."""

    folder: Path
    job: str = "audit-batch"
    options: str = ""
    registry: str = "ghcr"
    exported: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        for line in (self.folder / "env").read_text().splitlines():
            name, _, value = line.partition("=")
            self.exported[name] = value
        return {
            "PATH": f"{self.folder}/bin{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder),
            "HOST": str(self.folder / "host"),
            "LOG": str(self.folder),
            "DIGEST": DIGEST,
            "RUNNER_TEMP": str(self.folder / "temp"),
            "GITHUB_ENV": str(self.folder / "env"),
            "GITHUB_OUTPUT": str(self.folder / "output"),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            "GITHUB_REPOSITORY": "Example/artwork-backfill",
            "GITHUB_SERVER_URL": "https://git.example",
            "GITHUB_ACTOR": "alice",
            "GITHUB_TOKEN": "secret-of-ghcr",
            "REGISTRY": self.registry,
            "ECR_IMAGE": "123.ecr.example/artwork-backfill",
            "JOB": self.job,
            "OPTIONS": self.options,
            "CONTAINER": f"artwork-backfill-{self.job}-1-1",
            "ENV_FILE": "/etc/artwork backfill.env",
            "SSH_DESTINATION": "deploy@host.example",
            "SSH_KNOWN_HOSTS": "host.example ssh-ed25519 AAAA",
            "SSH_PRIVATE_KEY": "key",
            **self.exported,
        }

    def start(self, step: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[step]["run"]],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *steps: str) -> str:
        """Run steps that must succeed; return what they print."""
        printed = ""
        for step in steps:
            status, output = self.finish(self.start(step))
            assert status == 0, f"{step}: {output}"
            printed += output
        return printed

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        output, _ = process.communicate(timeout=LIMIT_S)
        return process.returncode, output

    def docker(self, command: str) -> list[str]:
        """Return the arguments of the last `docker COMMAND`, after that word."""
        return (self.folder / f"docker-{command}").read_text().splitlines()[1:]

    def exit_job(self, status: int) -> None:
        """Let the container end by itself, with its report."""
        report = Path((self.folder / "folder").read_text().strip()) / "report.md"
        report.write_text("# the report\n")
        (self.folder / "status").write_text(str(status))
        (self.folder / "running").unlink()

    @property
    def summary(self) -> str:
        return (self.folder / "summary.md").read_text()


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    for name in ("bin", "temp", "host", ".ci"):
        (tmp_path / name).mkdir()
    (tmp_path / "env").touch()
    (tmp_path / ".ci/version").write_text("#!/bin/sh\necho 1.2.3.post4+gabc\n")
    (tmp_path / ".ci/version").chmod(0o755)
    programs = {"docker": DOCKER, "ssh": SSH, "aws": AWS, "make": MAKE, "sleep": SLEEP}
    for name, text in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    yield Runner(tmp_path)
    (tmp_path / "running").unlink(missing_ok=True)


PUSH = ("Read the options", "Log in to the registry", "Build and push")
START = (*PUSH, "Connect to the host", "Pull the image on the host", "Start the job")
END = ("Stop the job", "Fetch the report", "Forget the passwords")


def test_every_job_can_be_chosen() -> None:
    assert INPUTS["job"]["options"] == ["migrate", *JOBS]


def test_what_is_built_is_what_the_branch_rules_of_the_environment_allow() -> None:
    assert "ref" not in INPUTS
    assert "ref" not in STEPS["Check out"]["with"]
    assert DEPLOY["environment"] == "${{ inputs.environment }}"


def test_no_input_is_pasted_into_a_script() -> None:
    assert not [name for name, step in STEPS.items() if "${{" in step.get("run", "")]


def test_the_token_may_do_what_the_steps_need_and_no_more() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert DEPLOY["permissions"] == {
        "contents": "read",
        "packages": "write",
        "id-token": "write",
        "attestations": "write",
    }


@pytest.mark.parametrize(
    ("registry", "user", "password", "image"),
    [
        ("ghcr", "alice", "secret-of-ghcr", IMAGE),
        ("ecr", "AWS", "secret-of-ecr", "123.ecr.example/artwork-backfill"),
    ],
)
def test_the_image_is_pushed_with_a_password_that_is_on_no_command_line(
    runner: Runner, registry: str, user: str, password: str, image: str
) -> None:
    runner.registry = registry

    printed = runner.run(*PUSH)

    assert "secret" not in printed
    host = image.partition("/")[0]
    assert runner.docker("login") == ["--username", user, "--password-stdin", host]
    assert (runner.folder / "password-of-runner").read_text() == password
    assert runner.docker("push") == [f"{image}:1.2.3.post4-gabc"]
    assert runner.environment()["PINNED"] == f"{image}@{DIGEST}"
    assert f"digest={DIGEST}" in (runner.folder / "output").read_text()
    assert (runner.folder / "temp/password").stat().st_mode & 0o077 == 0


def test_the_command_that_is_printed_can_be_pasted(runner: Runner) -> None:
    runner.options = "--limit 1000 --ignore 'meta.*' --ignore \"a b\" $(touch hacked);touch hacked"

    said = runner.run(*PUSH, "Print the command")

    command = said.strip().splitlines()[-1]
    assert subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    ).stdout.splitlines() == [
        *("docker", "run", "--rm", "--env-file", "/etc/artwork backfill.env"),
        *(f"{IMAGE}:1.2.3.post4-gabc", "audit-batch"),
        *("--limit", "1000", "--ignore", "meta.*", "--ignore", "a b"),
        *("$(touch", "hacked);touch", "hacked"),
    ]
    assert command in runner.summary
    assert not (runner.folder / "hacked").exists()


def test_options_that_cannot_be_read_end_the_workflow_before_anything_is_built(
    runner: Runner,
) -> None:
    runner.options = "--ignore 'meta.*"

    status, output = runner.finish(runner.start("Read the options"))

    assert status == 1
    assert "::error::the options cannot be read: No closing quotation" in output
    names = list(STEPS)
    assert names.index("Read the options") < names.index("Build and push")


def test_the_host_logs_in_before_it_pulls_and_keeps_no_password(runner: Runner) -> None:
    runner.run(*START[:-1])

    config = (runner.folder / "config-login").read_text()
    assert config == (runner.folder / "config-pull").read_text() != ""
    assert not Path(config).exists()
    assert runner.docker("pull")[-1] == f"{IMAGE}@{DIGEST}"


def test_the_job_is_confined_and_runs_detached_from_the_connection(runner: Runner) -> None:
    runner.options = "--limit 10 --ignore 'a b;touch hacked'"

    runner.run(*START)

    words = runner.docker("run")
    image = words.index(f"{IMAGE}@{DIGEST}")
    assert words[image + 1 :] == [
        *("audit-batch", "--limit", "10", "--ignore", "a b;touch hacked"),
        *("--report", "report.md", "--report", "report.json"),
    ]
    assert "--detach" in words[:image]
    assert words[words.index("--name") + 1] == "artwork-backfill-audit-batch-1-1"
    assert words[words.index("--env-file") + 1] == "/etc/artwork backfill.env"
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert {"--read-only", "no-new-privileges", "max-size=10m"} <= set(words[:image])
    assert not list(runner.folder.rglob("hacked"))


def test_migrate_has_no_report(runner: Runner) -> None:
    runner.job = "migrate"

    runner.run(*START)

    assert runner.docker("run")[-1] == "migrate"


@pytest.mark.parametrize("status", [0, 3, 75])
def test_the_exit_code_of_the_job_is_that_of_the_step_and_its_report_is_kept(
    runner: Runner, status: int
) -> None:
    runner.run(*START)
    following = runner.start("Follow the job")
    _wait_for(runner.folder / "docker-logs")
    runner.exit_job(status)

    assert runner.finish(following) == (status, '{"message": "batch 1 written"}\n')

    folder = Path((runner.folder / "folder").read_text().strip())
    runner.run(*END)
    assert (runner.folder / "reports/report.md").read_text() == "# the report\n"
    assert "batch 1 written" in (runner.folder / "reports/log.jsonl").read_text()
    assert "# the report" in runner.summary
    assert not folder.exists()
    assert runner.docker("rm") == ["artwork-backfill-audit-batch-1-1"]
    assert not (runner.folder / "temp/ssh_key").exists()


def test_a_job_is_stopped_by_sigterm_when_the_workflow_is_cancelled(runner: Runner) -> None:
    runner.run(*START)
    following = runner.start("Follow the job")
    _wait_for(runner.folder / "docker-logs")

    _cancel(following)
    runner.run(*END)

    assert runner.docker("stop") == ["--time", "120", "artwork-backfill-audit-batch-1-1"]
    assert (runner.folder / "status").read_text().strip() == "143"
    assert (runner.folder / "reports/report.md").exists()


def test_a_job_outlives_a_connection_that_is_lost(runner: Runner) -> None:
    runner.run(*START)
    (runner.folder / "drop").touch()
    following = runner.start("Follow the job")
    _wait_for(runner.folder / "docker-logs")
    (runner.folder / "running").unlink()
    _wait_for(runner.folder / "running")
    deadline = time.monotonic() + LIMIT_S
    while "--since" not in runner.docker("logs"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    runner.exit_job(0)

    assert runner.finish(following)[0] == 0


def test_the_last_steps_run_also_after_a_failure_or_cancellation() -> None:
    for name in ("Stop the job", "Fetch the report", "Keep the report"):
        assert STEPS[name]["if"].startswith("always() && steps.start.outcome != 'skipped'")
        assert FOLLOW in STEPS[name]["if"]
    # The step ends first, so that there is time left for the others.
    assert STEPS["Follow the job"]["timeout-minutes"] < DEPLOY["timeout-minutes"] - 10


def test_every_action_is_pinned_to_a_commit() -> None:
    used = [step["uses"] for step in DEPLOY["steps"] if "uses" in step]

    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in used)


def _cancel(process: subprocess.Popen[str]) -> None:
    """End a step as the runner does.

    A shell ignores SIGINT where the program that it waits for has just ended by itself.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        os.killpg(process.pid, signum)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
            return
    process.communicate(timeout=LIMIT_S)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
