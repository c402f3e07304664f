"""library-artwork-url-backfill on the command line."""

from __future__ import annotations

from artwork_backfill.jobs.command import job_command, option
from artwork_backfill.jobs.library_artwork_url_backfill.job import LibraryArtworkUrlBackfill
from artwork_backfill.shared.engine.job import Run


@job_command(LibraryArtworkUrlBackfill)
@option(
    "--accept-first",
    is_flag=True,
    envvar="BACKFILL_ACCEPT_FIRST",
    help="Take the first result of each lookup, even where it is another album of the artist.",
)
def command(run: Run, *, accept_first: bool) -> LibraryArtworkUrlBackfill:
    """Give rows of the WXYC library the cover that Discogs has for them.

    Rows without artwork whose artist Discogs knows are looked up in Library Metadata Lookup. A
    cover is written only where the result is the row's own album; rows that the live site fills
    meanwhile stay as they are.

    Example: artwork-backfill library-artwork-url-backfill --dry-run --limit 500 --report library.md
    """
    return LibraryArtworkUrlBackfill(run, accept_first=accept_first)
