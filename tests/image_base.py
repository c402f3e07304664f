"""The files of the base of the image, by debootstrap; `python -m tests.image_base` makes them.

That takes half a minute or more, so they are kept in build/.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
TOOLS: Final = ("buildah", "runc", "debootstrap")
PATH: Final = os.environ["PATH"] + os.pathsep + "/usr/sbin"


class CannotMakeBase(Exception):
    """debootstrap does not work here."""


def missing_tools() -> list[str]:
    """Return the programs that are not installed here."""
    return [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]


def base_files() -> Path:
    """Return an archive of the base's files, made once. Raises `CannotMakeBase`."""
    archive = PROJECT / "build" / f"base-{_release()}.tar"
    if not archive.exists():
        archive.parent.mkdir(exist_ok=True)
        folder, unfinished = archive.with_suffix(".files"), archive.with_suffix(".unfinished")
        shutil.rmtree(folder, ignore_errors=True)
        made = subprocess.run(
            [
                *("debootstrap", "--variant=minbase", "--include=python3,python3-venv"),
                *(_release(), str(folder)),
            ],
            env={**os.environ, "PATH": PATH},
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise CannotMakeBase(made.stdout[-300:])
        subprocess.run(["tar", "-C", folder, "-cf", unfinished, "."], check=True)
        shutil.rmtree(folder)
        unfinished.rename(archive)
    return archive


def _release() -> str:
    found = re.search(r"^FROM python:\S+-slim-(\w+)", (PROJECT / "Dockerfile").read_text(), re.M)
    assert found is not None
    return found[1]


if __name__ == "__main__" and os.geteuid() == 0 and not missing_tools():
    base_files()
