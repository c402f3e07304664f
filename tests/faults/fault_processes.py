"""Runs of the command line in processes that tests may stop, kill and read.

Every run gets the secrets below, and none of its output may hold one.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from urllib.parse import quote

from tests import programs
from tests.timing import LIMIT_S

#: What no output may hold, by variable. The database's password has characters that URLs escape.
SECRETS: Final[Mapping[str, str]] = {
    "database password": "marker@database/7f3a",
    "ARCHIVE_ORG_SECRET_KEY": "marker-archive-c21d",
    "LML_API_KEY": "marker-lml-9e04",
}
SENTRY_KEY: Final = "5e9c7a11d00d4c0f8a5bfeedc0de0001"

_POLL_S: Final = 0.004


class WaitedInVain(AssertionError):
    """A condition did not come about in time."""


#: After how many seconds without a heartbeat a run of these tests is dead.
DEAD_AFTER_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Haste:
    """How a run is made less patient than it is in production, so that tests need not wait.

    `speed` is how many times as fast the services' clients think that time passes: their back-off
    and their patience shrink by it. `database_s` and `lock_timeout` are how long a transaction is
    repeated, in seconds, and how long it waits for a lock; `dead_after`, when a run is dead;
    `second_look_after`, after how many seconds the audit asks about an absence again.
    """

    speed: float | None = 60.0
    database_s: float | None = None
    lock_timeout: str | None = None
    dead_after: float = DEAD_AFTER_S
    second_look_after: float = 0.2

    def begin(self) -> None:
        """Change this process."""
        from artwork_backfill.jobs.library_artwork_url_backfill import lookups
        from artwork_backfill.jobs.seed_from_ia_scan import pages
        from artwork_backfill.shared.auditing.services import Services
        from artwork_backfill.shared.clients import http
        from artwork_backfill.shared.clients._pacing import Pace
        from artwork_backfill.shared.engine import job, runner
        from artwork_backfill.shared.engine import session as db

        _set_default(job.Run, dead_after=self.dead_after)
        _set_default(Services, second_look_after=self.second_look_after)
        if self.lock_timeout is not None:
            defaults = (self.lock_timeout,)
            patch.object(db.transaction_settings, "__defaults__", defaults).start()
        if self.database_s is not None:
            patch.object(db, "ENDING_PATIENCE_S", self.database_s).start()
            _set_default(db.Session, patience=self.database_s)
            _set_default(runner.Runner, patience=self.database_s)
        if self.speed is None:
            return
        speed = self.speed

        def pause(pace: Pace, seconds: float) -> None:
            patiently(pace, seconds / speed)

        patiently = Pace.pause
        patch.object(Pace, "pause", pause).start()
        patch.object(pages, "PAUSE_S", pages.PAUSE_S / speed).start()
        _set_default(http.HttpClient, clock=lambda: time.monotonic() * speed)
        # Exchanges take as long as ever, so a call may too.
        check = http.Service.__post_init__

        def with_time(service: http.Service) -> None:
            object.__setattr__(service, "call_s", service.call_s * speed)
            check(service)

        patch.object(http.Service, "__post_init__", with_time).start()
        for name in ("PATIENCE_S", "FIRST_WAIT_S", "LONGEST_WAIT_S"):
            patch.object(lookups, name, getattr(lookups, name) / speed).start()


def _set_default(kind: type, **values: object) -> None:
    """Give a parameter of a class another default."""
    patch.dict(kind.__init__.__kwdefaults__, **values).start()


#: For runs at once: however busy the machine is, none takes another that is alive for dead.
PATIENT: Final = Haste(speed=None, dead_after=10.0)


class JobProcess:
    """One run of the command line.

    Parameters
    ----------
    arguments
        As on the command line, without the program's name.
    environ
        All of its environment.
    directory
        Where its output goes.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        directory: Path,
        haste: Haste | None = None,
    ) -> None:
        self.arguments = tuple(arguments)
        directory.mkdir()
        self._out, self._err = directory / "out", directory / "err"
        before = (haste or Haste(speed=None)).begin
        self._process = programs.start(arguments, environ, self._out, self._err, before=before)
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self.peak_bytes = 0

    @property
    def is_running(self) -> bool:
        self._note_memory()
        return self._process.is_alive()

    def send(self, signum: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self._process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill(self) -> bool:
        """End the process at once; return whether it was still running."""
        self.send(signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def wait(self, seconds: float = LIMIT_S) -> int:
        """Wait for the end and return the exit code, negative for a signal."""
        wait_for(lambda: not self.is_running, seconds, self)
        self._process.join()
        leaked = leaks(self.output)
        assert not leaked, f"{self.arguments} shows the secret {leaked}:\n{self.output[-4000:]}"
        assert self._process.exitcode is not None
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        return _read(self._out)

    @property
    def stderr(self) -> str:
        return _read(self._err)

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log so far: every line on stdout that is complete."""
        return [
            json.loads(line) for line in self.stdout.splitlines(keepends=True) if line[-1:] == "\n"
        ]

    @property
    def run_id(self) -> str | None:
        """The run's id, `None` before its first line."""
        return self.lines[0]["run_id"] if self.lines else None

    @cached_property
    def report(self) -> dict[str, Any]:
        """The report of a process that has ended."""
        last = self.lines[-1]
        assert last["step"] == "report", self.output[-4000:]
        report: dict[str, Any] = last["report"]
        return report

    def totals(self) -> dict[str, int]:
        """The run's counts as its latest batch line has them."""
        for line in reversed(self.lines):
            if "totals" in line:
                return dict(line["totals"])
        return {}

    def resident_bytes(self) -> int:
        """How much memory the process has in use now."""
        return _status_kilobytes(self.pid, "VmRSS") * 1024

    def _note_memory(self) -> None:
        self.peak_bytes = max(self.peak_bytes, _status_kilobytes(self.pid, "VmHWM") * 1024)


def wait_for(
    condition: Callable[[], object], seconds: float = LIMIT_S, process: JobProcess | None = None
) -> None:
    """Return when the condition holds; fail when it does not in time, with the process's output."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            output = f"; {process.arguments} says:\n{process.output[-6000:]}" if process else ""
            raise WaitedInVain(f"waited {seconds:g} s in vain{output}")
        time.sleep(_POLL_S)


def leaks(text: str) -> list[str]:
    """Return the names of the secrets that a text holds, as they are or percent-encoded."""
    known = {**SECRETS, "SENTRY_DSN": SENTRY_KEY}
    return [
        name
        for name, secret in known.items()
        if secret in text or quote(secret, safe="") in text or secret.encode().hex() in text
    ]


def with_password(dsn: str) -> str:
    """Return a connection URL with the secret password, where the server asks for none."""
    scheme, _, rest = dsn.partition("://")
    user, _, place = rest.partition("@")
    if ":" in user:
        return dsn
    return f"{scheme}://{user}:{quote(SECRETS['database password'], safe='')}@{place}"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _status_kilobytes(pid: int, name: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in status.splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0
