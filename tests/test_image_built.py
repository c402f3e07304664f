"""The image, built by buildah on a base made by debootstrap, and its jobs run in it over TCP.

No registry is needed: the base is Debian's own Python of the release that the Dockerfile names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import certifi
import pytest

from sandbox import surroundings
from sandbox.library import LibrarySpec
from sandbox.world import Spec
from tests.image_base import PATH, PROJECT, CannotMakeBase, base_files, missing_tools

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers are built as root here"),
    pytest.mark.skipif(
        bool(missing_tools()), reason=f"not installed: {', '.join(missing_tools())}"
    ),
]

# What one argument of a program may hold on Linux, less some room for the rest of it.
ARGUMENT_LIMIT = 120_000
REVISION = "0123abc"
VERSION = f"1.2.3.post4+g{REVISION}"
ANYBODY = "4321:0"


class Engine:
    """buildah, with images and containers below a folder of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for self._driver in ("overlay", "vfs"):
            if self._try("from", "--name", "probe", "scratch").returncode == 0:
                self("rm", "probe")
                return
        pytest.skip("buildah cannot store images here")

    def __call__(self, *arguments: str) -> str:
        done = self._try(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def run(
        self, container: str, *command: str, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container, on the network of this machine."""
        return self._try(
            "run", "--isolation", "oci", "--network", "host", *options, container, "--", *command
        )

    def _try(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        folders = ("--root", str(self._root / "store"), "--runroot", str(self._root / "run"))
        return subprocess.run(
            ["buildah", "--storage-driver", self._driver, *folders, *arguments],
            cwd=PROJECT,
            env={**os.environ, "PATH": PATH},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    root = tmp_path_factory.mktemp("containers")
    yield (engine := Engine(root))
    for kind in ("rm", "rmi"):
        engine(kind, "--all")
    shutil.rmtree(root, ignore_errors=True)


def _make_base(engine: Engine) -> None:
    container = engine("from", "scratch")
    try:
        files = base_files()
    except CannotMakeBase as error:
        pytest.skip(f"debootstrap cannot make the base: {error}")
    engine("add", "--quiet", container, str(files), "/")
    probe = engine.run(container, "true")
    if probe.returncode != 0:
        pytest.skip(f"runc cannot start containers here: {probe.stderr[-300:]}")
    # As in the base that the Dockerfile names, python and pip are not those of Debian.
    assert engine.run(container, "python3", "-m", "venv", "/usr/local").returncode == 0
    engine("commit", "--quiet", "--rm", container, "base")


def _certificates_of_a_proxy() -> str:
    """Return the certificates that this machine trusts and pip does not know."""

    def read(path: str) -> set[str]:
        pattern = r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----"
        return set(re.findall(pattern, Path(path).read_text(), re.DOTALL))

    trusted = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if not trusted:
        return ""
    known = {"".join(text.split()) for text in read(certifi.where())}
    found = "\n".join(text for text in read(trusted) if "".join(text.split()) not in known)
    if len(found) > ARGUMENT_LIMIT:
        pytest.skip("this machine trusts more certificates than fit into a build argument")
    return found


def _build(engine: Engine) -> dict[str, Any]:
    """Build the Dockerfile; return the settings of the image."""
    arguments = {"VERSION": VERSION, "REVISION": REVISION, "CREATED": "2026-01-02T03:04:05Z"}
    arguments |= {"SOURCE": "https://git.example/artwork-backfill"}
    if index := os.environ.get("PIP_INDEX_URL"):
        arguments["PIP_INDEX_URL"] = index
    if certificates := _certificates_of_a_proxy():
        arguments["CA_CERTIFICATE"] = certificates
    given = [
        word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")
    ]
    engine(
        *("build", "--isolation", "oci", "--network", "host", "--from", "localhost/base"),
        *(*given, "--tag", "artwork-backfill", "."),
    )
    settings: dict[str, Any] = json.loads(engine("inspect", "--type", "image", "artwork-backfill"))
    config: dict[str, Any] = settings["OCIv1"]["config"]
    return config


JOBS = (
    ("migrate",),
    ("seed-from-mb",),
    ("seed-from-img-129", "/data"),
    ("seed-from-ia-scan",),
    ("audit-batch", "--limit", "40"),
    ("library-artwork-url-backfill",),
)


def test_every_job_runs_in_the_image_as_any_user_against_the_sandbox(
    engine: Engine, tmp_path: Path
) -> None:
    _make_base(engine)
    config = _build(engine)
    container = engine("from", "artwork-backfill")

    assert config["Entrypoint"] == ["artwork-backfill"]
    assert config["Labels"]["org.opencontainers.image.version"] == VERSION
    assert config["Labels"]["org.opencontainers.image.revision"] == REVISION
    assert config["Labels"]["org.opencontainers.image.created"] == "2026-01-02T03:04:05Z"
    assert VERSION in engine.run(container, "artwork-backfill", "--version").stdout

    reports = tmp_path / "reports"
    reports.mkdir()
    os.chown(reports, *map(int, ANYBODY.split(":")))
    with surroundings.start(Spec(size=60), LibrarySpec(size=20), tcp=True) as around:
        options = ["--user", ANYBODY, "--cap-drop", "all"]
        options += [f"--env={name}={value}" for name, value in around.environment.items()]
        mounts = [f"--volume={reports}:/reports", f"--volume={PROJECT}/tests/data/img-129:/data:ro"]
        for command in JOBS:
            name = command[0]
            report = () if name == "migrate" else ("--report", f"{name}.json")
            ran = engine.run(
                *(container, "artwork-backfill", *command, *report), options=[*options, *mounts]
            )
            assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr
            if report:
                assert json.loads((reports / report[1]).read_text())["job"] == name
                assert "is deleted together with the container" not in ran.stdout

        _expect_a_warning_about_an_unmounted_report(engine, container, options)


def _expect_a_warning_about_an_unmounted_report(
    engine: Engine, container: str, options: list[str]
) -> None:
    ran = engine.run(
        *(container, "artwork-backfill", "seed-from-mb", "--report", "lost.md"), options=options
    )

    # The folder in the image is writable for any user of group 0, so the report is written.
    assert ran.returncode == 0, ran.stdout
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    warned = [line for line in lines if "lost.md is deleted together" in line["message"]]
    assert [line["level"] for line in warned] == ["warning"]
