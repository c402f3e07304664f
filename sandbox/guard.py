"""Cleanup after a PostgreSQL server whose owner process is gone.

Run as a program: ``python guard.py DATA_DIRECTORY [DIRECTORY ...]``. It reads standard input until
the end, which comes when the owner closes the pipe or dies; then it stops the server of
DATA_DIRECTORY and removes the directories. It imports only the standard library, so that it starts
quickly and stays small.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

STOP_TIMEOUT_S = 20.0


def stop_at_once(data: Path) -> None:
    """Shut the server of `data` down without a checkpoint; return when it has ended."""
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
        os.kill(pid, signal.SIGQUIT)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return
    deadline = time.monotonic() + STOP_TIMEOUT_S
    # The postmaster removes this file as its last act. Its process id proves nothing: where
    # process 1 reaps no orphans, the id of an ended server stays in use by a zombie.
    while pid_file.exists():
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.01)


def main() -> None:
    """Wait for the end of standard input, then clean up."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    data, *others = (Path(argument) for argument in sys.argv[1:])
    sys.stdin.buffer.read()
    stop_at_once(data)
    for directory in (data, *others):
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
