"""The version: what git's tags say, the same with and without Python."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("setuptools_scm") is None, reason="setuptools-scm is not installed"
)


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the parts of this one that decide about the version."""
    folder = tmp_path / "checkout"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(PROJECT / ".ci/version", folder / ".ci/version")
    shutil.copy(PROJECT / "pyproject.toml", folder / "pyproject.toml")
    _git(folder, "init", "--quiet")
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "first")
    return folder


def _change(folder: Path) -> None:
    with (folder / "pyproject.toml").open("a") as file:
        file.write("\n")


def _commit(folder: Path) -> None:
    _change(folder)
    _git(folder, "commit", "--quiet", "--all", "--message", "another")


def _tag(folder: Path) -> None:
    _git(folder, "tag", "v1.2.3")


def _tag_and_change(folder: Path) -> None:
    _tag(folder)
    _change(folder)


def _tag_and_commit(folder: Path) -> None:
    _tag(folder)
    _commit(folder)


def _make_shallow(folder: Path) -> None:
    _tag_and_commit(folder)
    shallow = folder.with_name("shallow")
    _git(folder, "clone", "--quiet", "--depth", "1", folder.as_uri(), str(shallow))
    shutil.rmtree(folder)
    shallow.rename(folder)


def _forget_history(folder: Path) -> None:
    shutil.rmtree(folder / ".git")


@pytest.mark.parametrize(
    ("prepare", "beginning"),
    [
        (_commit, "0.0.0.post2+g"),
        (_tag, "1.2.3"),
        (_tag_and_change, "1.2.3.post0+g"),
        (_tag_and_commit, "1.2.3.post1+g"),
        (_make_shallow, "0.0.0.post1+g"),
        (_forget_history, "0.0.0"),
    ],
)
def test_the_version_is_that_of_git(
    checkout: Path, prepare: Callable[[Path], None], beginning: str
) -> None:
    prepare(checkout)
    # A version that is set for the build of an image has no part in this.
    environ = {name: value for name, value in os.environ.items() if "SETUPTOOLS_SCM" not in name}
    environ["GIT_CEILING_DIRECTORIES"] = str(checkout.parent)

    said, installed = (
        subprocess.run(
            command, cwd=checkout, env=environ, capture_output=True, text=True, check=True
        ).stdout.split()[-1]
        for command in ([".ci/version"], [sys.executable, "-m", "setuptools_scm"])
    )

    assert said == installed
    assert said == beginning or (beginning.endswith("+g") and said.startswith(beginning))


def test_all_files_of_requirements_can_be_installed_together() -> None:
    pins: dict[str, list[set[str]]] = {}
    for path in PROJECT.glob("requirements*.txt"):
        found: dict[str, set[str]] = {}
        for name, version in re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE):
            found.setdefault(name, set()).add(version)
        for name, versions in found.items():
            pins.setdefault(name, []).append(versions)

    # One file may pin several versions, for several versions of Python.
    assert [name for name, sets in pins.items() if any(other != sets[0] for other in sets)] == []
