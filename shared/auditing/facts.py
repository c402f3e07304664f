"""What MusicBrainz's tables say about releases, as far as archive.org shows it, for screening.

One query for a batch of any size replaces a request to the web service for each release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import namedtuple_row

from artwork_backfill.shared.audit.expected import Credit, PartialDate, ReleaseFacts

# The view also has a row for a release event without a country. The barcode '' means that there is
# none; archive.org shows that in the same way as a barcode that was never entered.
_FACTS: Final = """
SELECT wanted.gid::text,
       release.name AS title,
       release.barcode,
       language.iso_code_3 AS language,
       meta.amazon_asin AS asin,
       ARRAY(
           SELECT ARRAY[artist.gid::text, artist.name, artist.sort_name]
           FROM musicbrainz.artist_credit_name credit
           JOIN musicbrainz.artist ON artist.id = credit.artist
           WHERE credit.artist_credit = release.artist_credit
           ORDER BY credit.position) AS credits,
       ARRAY(
           SELECT ARRAY[event.date_year, event.date_month, event.date_day]::int[]
           FROM musicbrainz.release_event event
           WHERE event.release = release.id) AS dates
FROM unnest(%(gids)s::uuid[]) AS wanted (gid)
JOIN musicbrainz.release ON release.gid = wanted.gid
LEFT JOIN musicbrainz.release_meta meta ON meta.id = release.id
LEFT JOIN musicbrainz.language ON language.id = release.language
"""


def release_facts(conn: Connection, gids: Sequence[str]) -> Mapping[str, ReleaseFacts]:
    """Return what the tables say about each live release, by gid (lower case)."""
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        rows: list[Any] = cursor.execute(_FACTS, {"gids": list(gids)}).fetchall()
    return {row.gid: _facts(row) for row in rows}


def _facts(row: Any) -> ReleaseFacts:
    return ReleaseFacts(
        title=row.title,
        credits=tuple(Credit(*credit) for credit in row.credits),
        dates=tuple(PartialDate(*date) for date in row.dates),
        language=row.language,
        barcode=row.barcode,
        asin=row.asin,
    )
