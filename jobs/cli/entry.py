"""The entry point of the program. It hears signals while it imports the commands."""

from __future__ import annotations

import signal
import sys

from artwork_backfill.shared.engine.stop import ignore_signals, interrupted_by_signals


def main() -> None:
    """Run the command line."""
    with interrupted_by_signals() as interruption:
        try:
            from artwork_backfill.jobs.cli.main import main as commands

            commands()
        except KeyboardInterrupt:
            sys.exit(128 + (interruption.signal or signal.SIGINT))
        finally:
            # The exit code is decided, and may have been reported.
            ignore_signals()
