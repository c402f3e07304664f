"""Which files outlive a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from artwork_backfill.shared.engine.container import in_container, vanishes

MOUNTS = """\
800 700 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b
801 800 0:51 / /proc rw - proc proc rw
802 800 0:52 / /tmp rw - tmpfs tmpfs rw
803 800 254:1 /home/anna/reports /reports rw shared:5 - ext4 /dev/vda1 rw
804 800 254:1 /data /with\\040space rw - ext4 /dev/vda1 rw
805 803 0:53 / /reports/memory rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "lost"),
    [
        ("/reports/audit.md", False),
        ("/reports/2026/audit.md", False),
        ("/with space/audit.md", False),
        ("/audit.md", True),
        ("/reports-of-mine/audit.md", True),
        ("/tmp/audit.md", True),
        ("/reports/memory/audit.md", True),
    ],
)
def test_a_file_outlives_the_container_in_a_mounted_folder_only(path: str, lost: bool) -> None:
    assert vanishes(Path(path), MOUNTS) is lost


def test_the_image_says_that_it_is_a_container() -> None:
    assert in_container({"ARTWORK_BACKFILL_CONTAINER": "1"})
    assert not in_container({})
