"""The image without a container engine: the steps of the Dockerfile, in folders of a test.

The COPY and RUN instructions of the build stage are carried out as they stand, with every path put
below a temporary root, and commands are run from what the last stage would hold. What only a
container shows (users, mounts, signals) is in `test_image_built`, where buildah can be had.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from artwork_backfill.jobs.cli.main import main
from artwork_backfill.shared.migrations import available

pytestmark = pytest.mark.timeout(300)

PROJECT = Path(__file__).resolve().parent.parent
JOBS = sorted(main.commands)
VERSION = "1.2.3.post4+g0123abc"


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, with its continuation lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def _stages() -> list[list[Instruction]]:
    text = re.sub(r"^\s*#.*\n", "", (PROJECT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            if name == "FROM":
                stages.append([])
            stages[-1].append(Instruction(name, rest.strip()))
    return stages


BASE, BUILD, FINAL = _stages()


def _one(stage: list[Instruction], name: str) -> str:
    (instruction,) = (found for found in stage if found.name == name)
    return instruction.text


def _ignored(path: Path) -> bool:
    """Return whether .dockerignore keeps a path of the project out of the build."""
    relative = path.relative_to(PROJECT)
    is_out = False
    for line in (PROJECT / ".dockerignore").read_text().splitlines():
        pattern, is_exception = line.strip().removeprefix("!"), line.startswith("!")
        if not pattern or pattern.startswith("#"):
            continue
        names = [relative, *relative.parents][:-1]
        if pattern.startswith("**/"):
            matches = any(fnmatch(name.name, pattern[3:]) for name in names)
        else:
            matches = any(fnmatch(str(name), pattern) for name in names)
        if matches:
            is_out = not is_exception
    return is_out


class Image:
    """What the build leaves behind, below a root of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.copied: list[Path] = []

    def build(self) -> None:
        folder = self.root
        tools = self.root / "usr-local"
        subprocess.run([sys.executable, "-m", "venv", tools], check=True)
        for step in BUILD:
            match step.name:
                case "WORKDIR":
                    folder = self._inside(step.text)
                    folder.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self._copy(*step.words, folder=folder)
                case "RUN":
                    self._run(step.text, folder, tools)
                case "FROM" | "ARG":
                    pass
                case other:
                    raise AssertionError(f"the test does not know {other}")

    def command(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the image's entry point, as the container would."""
        program, *first = json.loads(_one(FINAL, "ENTRYPOINT"))
        return self._start(program, *first, *arguments, **environ)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the image's interpreter."""
        return self._start("python", *arguments)

    def _start(
        self, program: str, *arguments: str, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        path = self.root / "opt/artwork-backfill/bin"
        return subprocess.run(
            [path / program, *arguments],
            env={"PATH": str(path), "LANG": "C.UTF-8", **environ},
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )

    def _inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _copy(self, *words: str, folder: Path) -> None:
        *sources, target = words
        for name in sources:
            source = PROJECT / name
            assert not _ignored(source), f".dockerignore keeps {name} out"
            place = folder if target == "./" else folder / target
            if source.is_dir():
                shutil.copytree(source, place, ignore=_ignore)
                self.copied += [path.relative_to(folder) for path in place.rglob("*")]
            else:
                shutil.copy(source, place)

    def _run(self, command: str, folder: Path, tools: Path) -> None:
        path = f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["/bin/sh", "-c", command.replace("/opt/", f"{self.root}/opt/")],
            cwd=folder,
            # Not compiled ahead: that takes seconds, and what is tested is what is there.
            env={**os.environ, "PATH": path, "PIP_NO_COMPILE": "1", "VERSION": VERSION},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _ignore(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if _ignored(Path(folder) / name)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    root = tmp_path_factory.mktemp("image")
    image = Image(root)
    image.build()
    yield image
    shutil.rmtree(root)


# One process for all: each would import everything anew.
_EXPLAIN = """
import contextlib
import sys
from artwork_backfill.jobs.cli.main import main
for name in sys.argv[1:]:
    with contextlib.suppress(SystemExit):
        main.main([name, "--help"], prog_name="artwork-backfill")
"""


def test_every_command_explains_itself(image: Image) -> None:
    shown = image.python("-c", _EXPLAIN, *JOBS)

    assert shown.returncode == 0, shown.stderr
    explained = shown.stdout.split("Usage: artwork-backfill ")[1:]
    assert [text.split()[0] for text in explained] == JOBS
    for text in explained:
        assert "Example:" in text or text.startswith("verify")


def test_the_image_knows_its_version(image: Image) -> None:
    assert image.command("--version").stdout.split()[-1] == VERSION


def test_the_image_has_the_migrations(image: Image, musicbrainz_database: str) -> None:
    shown = image.command("migrate", "--status", MUSICBRAINZ_DATABASE_URL=musicbrainz_database)

    assert shown.stdout.splitlines() == [f"pending  {found.name}" for found in available()]


@pytest.mark.parametrize("module", ["sandbox", "tests", "bench", "pytest", "pip", "streamlit"])
def test_the_image_has_nothing_that_no_job_needs(image: Image, module: str) -> None:
    assert image.python("-c", f"import {module}").returncode != 0


def test_only_what_is_needed_is_copied(image: Image) -> None:
    assert {path.parts[0] for path in image.copied} == {"dashboard", "jobs", "shared", "sql"}
    assert not [path for path in image.copied if path.name == "__pycache__"]


def test_missing_settings_are_named_before_anything_else(image: Image) -> None:
    refused = image.command("audit-batch")

    assert refused.returncode == 2
    assert "MUSICBRAINZ_DATABASE_URL is not set" in refused.stderr


def test_the_job_is_process_1_and_not_root() -> None:
    user, group = _one(FINAL, "USER").split(":")

    assert json.loads(_one(FINAL, "ENTRYPOINT")) == ["artwork-backfill"]
    assert _one(FINAL, "STOPSIGNAL") == "SIGTERM"
    assert int(user) > 0
    # The group as which OpenShift and `docker run --user` run users that the image does not know.
    assert int(group) == 0


def test_the_base_is_named_once_with_system_and_python() -> None:
    assert re.match(r"python:3\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})? AS base", BASE[0].text)
    assert [stage[0].text.split()[0] for stage in (BUILD, FINAL)] == ["base", "base"]
    assert BASE[0].text.split()[0].split("@")[0] in _one(FINAL, "LABEL")


def test_nothing_is_imported_from_the_folder_of_reports() -> None:
    assert "PYTHONSAFEPATH=1" in _one(FINAL, "ENV").split()


def test_everything_installed_is_pinned() -> None:
    installs = [step.text for step in BUILD if "pip" in step.text]

    assert installs
    for words in (shlex.split(part) for text in installs for part in text.split("&&")):
        if "install" in words:
            assert "--require-hashes" in words or "--no-deps" in words
        if "wheel" in words:
            assert {"--no-deps", "--no-build-isolation"} <= set(words)


@pytest.mark.parametrize("name", ["version", "revision", "created", "source"])
def test_the_image_says_what_it_was_built_from(name: str) -> None:
    assert f'org.opencontainers.image.{name}="${{{name.upper()}}}"' in _one(FINAL, "LABEL")
    assert f"--build-arg {name.upper()}=$({name.upper()})" in (PROJECT / "Makefile").read_text()
