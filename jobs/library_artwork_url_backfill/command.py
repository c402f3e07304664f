"""The library-artwork-url-backfill command."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from artwork_backfill.jobs.command import (
    MOST_AT_ONCE,
    DurationType,
    FiniteRange,
    job_command,
    option,
)
from artwork_backfill.jobs.library_artwork_url_backfill.existing import CheckExisting
from artwork_backfill.jobs.library_artwork_url_backfill.job import (
    LibraryArtworkUrlBackfill,
    Options,
)
from artwork_backfill.jobs.library_artwork_url_backfill.undo import Undo
from artwork_backfill.shared.clients import lml
from artwork_backfill.shared.engine.job import Job, Run

#: The options of runs that write no covers, in addition to those of every job.
_OF_UNDO: Final = frozenset({"undo", "write_rate", "pause_between"})
_OF_CHECK: Final = frozenset({"check_existing"})
_OF_EVERY_JOB: Final = frozenset(
    {"batch_size", "fixed_batch_size", "limit", "max_duration", "dry_run", "reports", "log_level"}
)


@job_command(LibraryArtworkUrlBackfill)
@option(
    "--from-metadata",
    is_flag=True,
    envvar="BACKFILL_FROM_METADATA",
    help="First take covers from the site's own album_metadata, without asking LML, if its columns"
    " show that they are right.",
)
@option(
    "--accept-first",
    is_flag=True,
    envvar="BACKFILL_ACCEPT_FIRST",
    help="Accept the first result of each lookup, even if it is another album. Artist photos and"
    " logos are still refused.",
)
@option(
    "--min-confidence",
    type=FiniteRange(0, 1),
    default=0.0,
    envvar="BACKFILL_MIN_CONFIDENCE",
    help="Minimum confidence of LML (0.2 to 1) for artwork that is identified by its names or by"
    " canonical_entity_id.",
)
@option(
    "--bulk-size",
    type=click.IntRange(1, lml.BULK_MAX),
    default=5,
    envvar="BACKFILL_BULK_SIZE",
    help="Albums per request to LML. It looks up five at a time for all its callers, including the"
    " live site.",
)
@option(
    "--concurrency",
    type=click.IntRange(1, 16),
    default=1,
    envvar="BACKFILL_CONCURRENCY",
    help="The maximum number of simultaneous requests to LML. More than one gains nothing and makes"
    " the live site wait.",
)
@option(
    "--discogs-rate",
    type=FiniteRange(0, MOST_AT_ONCE),
    default=20.0,
    envvar="BACKFILL_DISCOGS_RATE",
    help="Lookups at Discogs per minute that LML may do for this run; 0 for no limit. Albums in"
    " LML's cache need none.",
)
@option(
    "--quick",
    is_flag=True,
    envvar="BACKFILL_QUICK",
    help="Let LML give up on an album after about 4 s. It then finds less.",
)
@option(
    "--write-rate",
    type=FiniteRange(0, MOST_AT_ONCE),
    default=50.0,
    envvar="BACKFILL_WRITE_RATE",
    help="Rows written per second at most, because each write notifies the live site's listeners;"
    " 0 for no limit.",
)
@option(
    "--pause-between",
    type=DurationType(),
    envvar="BACKFILL_PAUSE_BETWEEN",
    help="Pause after each batch that wrote something, for example 2s.",
)
@option(
    "--changes",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="BACKFILL_CHANGES",
    help="Append a JSON line for each album to this file: its cover, or why it got none. Also in"
    " dry runs.",
)
@option(
    "--attempts-table",
    is_flag=True,
    envvar="BACKFILL_ATTEMPTS_TABLE",
    help="Store albums without a result in a table, and do not look them up again at once. `migrate"
    " --database wxyc` creates the table.",
)
@option(
    "--retry-after",
    type=DurationType(),
    default="14d",
    envvar="BACKFILL_RETRY_AFTER",
    help="With --attempts-table: when to look up an album without a result again.",
)
@option(
    "--undo",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Look nothing up; empty the rows that this changes file lists as written and that still"
    " hold the same URL.",
)
@option(
    "--check-existing",
    is_flag=True,
    help="Look nothing up and change nothing; report covers that are artist photos, logos or"
    " placeholders, or that several albums share.",
)
def command(run: Run, *, undo: Path | None, check_existing: bool, **chosen: Any) -> Job[Any, Any]:
    """Give rows of the WXYC library the cover that Discogs has for them.

    Looks up rows without artwork whose artist Discogs knows in Library Metadata Lookup (LML).
    Writes a cover only if the artwork's own artist and album are those of the row. Rows that the
    live site fills, renames or marks in the meantime stay as they are.

    Example: artwork-backfill library-artwork-url-backfill --dry-run --changes library.jsonl
    """
    paces: dict[str, Any] = {
        "write_rate": chosen["write_rate"] or None,
        "pause_between": chosen["pause_between"] or 0.0,
    }
    if undo is not None:
        _refuse_others("--undo", _OF_UNDO)
        return Undo(run, undo, **paces)
    if check_existing:
        _refuse_others("--check-existing", _OF_CHECK)
        return CheckExisting(run)
    chosen["discogs_rate"] = chosen["discogs_rate"] / 60 or None
    return LibraryArtworkUrlBackfill(run, Options(**chosen | paces))


def _refuse_others(mode: str, taken: frozenset[str]) -> None:
    """Refuse options without effect. Variables are ignored instead; they are for other runs."""
    context = click.get_current_context()
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name not in taken | _OF_EVERY_JOB and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{param.opts[0]} has no effect together with {mode}: omit it")
