"""Runs of the command line in processes of their own that start in milliseconds.

Each is forked from a server that has imported the command line already: what tests start by the
hundred cannot wait for the imports. What runs is what the installed program runs.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from artwork_backfill.jobs.cli.main import JOBS, module_of
from tests.timing import LIMIT_S

_FORKS = multiprocessing.get_context("forkserver")
# With all that the command line would only import when it is wanted.
_FORKS.set_forkserver_preload(
    ["artwork_backfill.jobs.cli.main", "artwork_backfill.jobs.cli.dashboard", *map(module_of, JOBS)]
)

#: What to run with the arguments, in place of the command line of all jobs.
Main = Callable[[list[str]], object]


def start(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    out: Path,
    err: Path,
    *,
    main: Main | None = None,
    before: Callable[[], object] | None = None,
) -> ForkServerProcess:
    """Start the command line with nothing but this environment; its output goes to two files.

    `before` is called first, in the new process.
    """
    process = _FORKS.Process(
        target=_run,
        args=(list(arguments), dict(environ), str(out), str(err), main or _main, before),
        daemon=True,
    )
    process.start()
    return process


def run(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    main: Main | None = None,
    before: Callable[[], object] | None = None,
    seconds: float = LIMIT_S,
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, as `subprocess.run` does.

    Raises:
        subprocess.TimeoutExpired: it was killed after so many seconds.
    """
    with tempfile.TemporaryDirectory() as directory:
        out, err = Path(directory, "out"), Path(directory, "err")
        process = start(arguments, environ, out, err, main=main, before=before)
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), seconds, out.read_bytes())
        return subprocess.CompletedProcess(
            list(arguments), process.exitcode, out.read_text(), err.read_text()
        )


def _main(arguments: list[str]) -> None:
    from artwork_backfill.jobs.cli.main import main

    main(arguments, prog_name="artwork-backfill")


def _run(
    arguments: list[str],
    environ: dict[str, str],
    out: str,
    err: str,
    main: Main,
    before: Callable[[], object] | None,
) -> None:
    os.environ.clear()
    os.environ.update(environ)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, stream.fileno())
        os.close(file)
    if before is not None:
        before()
    main(arguments)
