"""Whether this process runs in our image, and which files outlive the container."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: Set by our own image. Other containers do not count, because people work in them, too.
VARIABLE: Final = "ARTWORK_BACKFILL_CONTAINER"

_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
#: File systems that disappear with the container although they are mounted.
_IN_MEMORY: Final = ("tmpfs", "ramfs")


def in_container(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process runs in a container of our image."""
    return bool(environ.get(VARIABLE))


def vanishes(path: Path, mounts: str | None = None) -> bool:
    """Return whether a file is in the container itself and is deleted together with it.

    `mounts` is the text of /proc/self/mountinfo (see proc_pid_mountinfo(5)), and read from there.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text()
        except OSError:
            return False
    place, found, kind = path.resolve(), Path("/"), ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        mount = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        # A later mount hides an earlier one at the same path.
        if place.is_relative_to(mount) and len(mount.parts) >= len(found.parts):
            found, kind = mount, fields[fields.index("-") + 1]
    return found == Path("/") or kind in _IN_MEMORY
