"""A signal ends at once what is no run, and a run that has not begun, also in process 1."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests import programs
from tests.timing import LIMIT_S, at_most
from tests.tiny import wait_for

GID = "00000001-0000-4000-8000-000000000001"

STARTING_UP = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"


class Begun:
    """A command that was started with a database at a port of this machine."""

    def __init__(self, folder: Path, port: int, *arguments: str) -> None:
        self.out, self.err = folder / "out", folder / "err"
        dsn = f"postgresql://somebody@127.0.0.1:{port}/x?connect_timeout=600"
        environ = {
            "PATH": os.environ["PATH"],
            "MUSICBRAINZ_DATABASE_URL": dsn,
            "WXYC_DATABASE_URL": dsn,
            "BACKFILL_CONTACT": "a@b.example",
            "LIBRARY_METADATA_URL": "http://127.0.0.1:1",
        }
        self.process: ForkServerProcess = programs.start(arguments, environ, self.out, self.err)

    def assert_ends(self, signum: signal.Signals) -> None:
        """Send a signal, and expect an end in time with its code, not a death by it.

        Process 1 does not die by a signal that has no handler.
        """
        assert self.process.pid is not None
        with at_most(2):
            os.kill(self.process.pid, signum)
            self.process.join(LIMIT_S)
        assert self.process.exitcode == 128 + signum, self.err.read_text()
        assert "Traceback" not in self.err.read_text()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["migrate"],
        ["status"],
        ["explain", GID],
        ["review", "list"],
        ["seed-from-mb"],
        ["verify", "audit-batch"],
    ],
    ids=" ".join,
)
def test_a_command_that_waits_for_the_database_hears_a_signal(
    tmp_path: Path, arguments: list[str], signum: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(LIMIT_S)
        begun = Begun(tmp_path, silent.getsockname()[1], *arguments)
        conn, _ = silent.accept()
        with conn:
            begun.assert_ends(signum)


def test_a_command_that_is_still_imported_hears_a_signal() -> None:
    program = "from artwork_backfill.jobs.cli.entry import main; main()"
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-c", program, "status"],
        env={"PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        # Each module has a line once it is imported.
        assert any("click.exceptions" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 143


def test_a_run_that_waits_for_a_database_that_starts_up_hears_a_signal(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    conn, _ = server.accept()
                    with conn:
                        while len(conn.recv(4096)) == 8:
                            # No encryption.
                            conn.sendall(b"N")
                        length = struct.pack("!I", len(STARTING_UP) + 4)
                        conn.sendall(b"E" + length + STARTING_UP)

        threading.Thread(target=answer, daemon=True).start()
        begun = Begun(tmp_path, server.getsockname()[1], "seed-from-mb")
        wait_for(lambda: begun.out.exists() and b"is not ready" in begun.out.read_bytes())
        begun.assert_ends(signal.SIGTERM)
