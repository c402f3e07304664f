"""The tiny job as a command of its own, for tests that need a process: `python tiny_command.py`.

MODE says how the job behaves. `hold`: fetches wait until the run is to end, from row 15 on.
`hang`: they say so and wait for ever. `noisy`: row 3 logs and raises secrets, and has a wild name.
`raise`: a write raises what nobody foresaw.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Sequence

import click
import psycopg

from artwork_backfill.jobs.command import job_command, option
from artwork_backfill.shared.engine.job import Run, Wait, Written
from tests.tiny import FetchingJob

WILD_NAME = "row of \x1b[31mred\x1b[0m [bold]text[/bold]"


class WildRow(int):
    """A row whose name could do harm on a terminal."""

    def __str__(self) -> str:
        return WILD_NAME


class CommandJob(FetchingJob):
    """Does as MODE says."""

    mode = "plain"

    def fetch(self, items: Sequence[int]) -> Sequence[int]:
        if items[0] >= 15 and self.mode == "hold":
            self.run.stop_flag.wait()
            raise ConnectionError("interrupted")
        if items[0] >= 15 and self.mode == "hang":
            logging.getLogger("tiny").info("a fetch hangs")
            threading.Event().wait()
        if self.mode == "noisy" and items[0] == 3:
            dsn = os.environ["MUSICBRAINZ_DATABASE_URL"]
            logging.getLogger("some.library").warning("connecting to %s", dsn)
            warnings.warn("a library complains", stacklevel=1)
            logging.getLogger("some.library").error("failed", exc_info=ValueError(f"bad {dsn}"))
            raise ValueError(f"no answer, key {os.environ['LML_API_KEY']}")
        return items

    def write(self, conn: psycopg.Connection, results: Sequence[int]) -> Written:
        if self.mode == "raise":
            key = os.environ["LML_API_KEY"]
            raise RuntimeError(f"nobody foresaw {key}")
        return super().write(conn, results)

    def claim(self, conn: psycopg.Connection, size: int) -> Sequence[int] | Wait:
        items = super().claim(conn, size)
        if self.mode != "noisy" or isinstance(items, Wait):
            return items
        return [WildRow(item) if item == 3 else item for item in items]


@job_command(CommandJob)
@option("--mode", type=click.Choice(["plain", "hold", "hang", "noisy", "raise"]), default="plain")
def command(run: Run, mode: str) -> CommandJob:
    """Do tiny things.

    Example: tiny --mode plain
    """
    job = CommandJob(run)
    job.mode = mode
    return job


def main(arguments: list[str]) -> None:
    """Run the job, or its verification alone."""
    chosen = command.verify if "verify-only" in arguments[:1] else command.run
    chosen.main([argument for argument in arguments if argument != "verify-only"])


if __name__ == "__main__":
    main(sys.argv[1:])
