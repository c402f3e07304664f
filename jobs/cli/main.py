"""The entry point of the command line: every job, and the commands that are not jobs."""

from __future__ import annotations

from collections import UserDict
from pkgutil import resolve_name
from typing import Any, Final

import click

from artwork_backfill.jobs.command import JobCommand, LoggedGroup
from artwork_backfill.shared.version import VERSION

#: Every job. The package `jobs/seed_from_mb` has `command` in its module `command`.
JOBS: Final = (
    "seed-from-mb",
    "seed-from-img-129",
    "seed-from-ia-scan",
    "seed-from-ia-changes",
    "audit-batch",
    "reaudit",
    "library-artwork-url-backfill",
)


def load_job(name: str) -> JobCommand:
    """Import the commands of a job."""
    command: JobCommand = resolve_name(f"{module_of(name)}:command")
    return command


def module_of(job: str) -> str:
    """Return the name of the module with a job's commands."""
    return f"artwork_backfill.jobs.{job.replace('-', '_')}.command"


class _Commands(UserDict[str, Any]):
    """Commands by name. One that is the name of an object is imported on first use.

    Importing every job would take as long as many runs of one.
    """

    def __getitem__(self, name: str) -> click.Command:
        command = super().__getitem__(name)
        loaded: click.Command = resolve_name(command) if isinstance(command, str) else command
        return loaded


_JOBS: Final = {name: f"{module_of(name)}:command.run" for name in JOBS}
_VERIFICATIONS: Final = {name: f"{module_of(name)}:command.verify" for name in JOBS}
_OTHERS: Final = {
    "migrate": f"{__package__}.migrate:command",
    "status": f"{__package__}.status:command",
    "checks": f"{__package__}.checks:command",
    "estimate": f"{__package__}.estimate:command",
    "explain": f"{__package__}.explain:command",
    "review": f"{__package__}.review:review_group",
    "runs": f"{__package__}.runs:runs_group",
    "events": f"{__package__}.review:events_group",
    "dashboard": f"{__package__}.dashboard:command",
    "grants": f"{__package__}.grants:command",
}


@click.group(
    cls=LoggedGroup,
    name="artwork-backfill",
    commands=_Commands(_JOBS | _OTHERS),
    context_settings={
        "token_normalize_func": str.lower,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 80,
    },
)
@click.version_option(VERSION)
def main() -> None:
    """Keep cover-art data consistent with one-shot, batched, restartable jobs.

    Example: artwork-backfill seed-from-mb --dry-run
    """


@main.group(name="verify", commands=_Commands(_VERIFICATIONS))
def verify_group() -> None:
    """Repeat only the verification of a job.

    Example: artwork-backfill verify seed-from-mb
    """
