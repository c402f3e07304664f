"""A deterministic WXYC library: its rows, the lookup service's answers, and the result of a run.

As in `sandbox.world`, everything follows from a seed and a number.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import psycopg
from psycopg import sql

Outcome = Literal[
    "filled",  # the row has artwork already
    "match",  # the first result is the album
    "match_second",  # the album comes second, after another album of the artist
    "placeholder",  # the artwork is Discogs's spacer.gif
    "no_artwork",  # the album is known, its artwork is not
    "photo",  # the album, with a photo of the artist instead of a cover
    "logo",  # the album, with the label's logo instead of a cover
    "other_album",  # the artwork is that of another volume
    "other_artist",  # the artwork is that of an artist of nearly the same name
    "timeout",  # the lookup gives up every time: HTTP 200, nothing found
    "degraded",  # Discogs cannot be asked: HTTP 200, no artwork
    "error",  # the service fails for this album every time
    "no_match",  # nothing is found
]
#: The outcomes that say nothing about the album.
COULD_NOT_SAY: frozenset[Outcome] = frozenset({"timeout", "degraded", "error"})

_ARTISTS = (
    "Stereolab",
    "Superchunk",
    "Sigur Rós",
    "Caetano Veloso",
    "Кино",
    "Mdou Moctar",
    "灰野敬二",
)
_TITLES = ("Emperor Tomato Ketchup", "Foolish", "Ágætis byrjun", "Transa", "Afrique Victime", "O/A")
_ROWS_PER_ARTIST = 8

_COLUMN_EXISTS = """
SELECT 1 FROM information_schema.columns
 WHERE table_schema = %s AND table_name = %s AND column_name = %s
"""


@dataclass(frozen=True, slots=True)
class LibrarySpec:
    """The parameters of a library; the shares are of all rows, and the rest is no match.

    The defaults are close to the real library's, where some 18,500 of 64,000 rows can be resolved.
    `stranger_share` is the share of artists that Discogs does not know, whose albums are not looked
    up. `uncached_share` is the share of rows for which LML has to ask Discogs.
    """

    seed: int = 1
    size: int = 1_000
    filled_share: float = 0.10
    match_share: float = 0.25
    match_second_share: float = 0.03
    placeholder_share: float = 0.02
    no_artwork_share: float = 0.03
    photo_share: float = 0.03
    logo_share: float = 0.01
    other_album_share: float = 0.06
    other_artist_share: float = 0.04
    timeout_share: float = 0.0
    degraded_share: float = 0.0
    error_share: float = 0.0
    stranger_share: float = 0.0
    uncached_share: float = 0.0


@dataclass(frozen=True, slots=True)
class LibraryRow:
    """One row, with the artwork_url that it should have after a run in `expected`.

    `is_cached` says whether LML knows the answer without asking Discogs.
    """

    id: int
    artist_id: int
    artist: str
    discogs_artist_id: int | None
    album: str
    legacy_release_id: int
    artwork_url: str | None
    discogs_unavailable: bool
    outcome: Outcome
    is_cached: bool
    expected: str | None


class Library:
    """One library. See the module's docstring."""

    def __init__(self, spec: LibrarySpec) -> None:
        self.spec = spec
        self._outcomes: tuple[Outcome, ...] = get_args(Outcome)
        shares = [getattr(spec, f"{outcome}_share") for outcome in self._outcomes[:-1]]
        self._weights = [*shares, max(0.0, 1 - sum(shares))]

    def row(self, number: int) -> LibraryRow:
        """Return the row with a number from 1 to size."""
        dice = random.Random(self.spec.seed << 32 | number)
        outcome = dice.choices(self._outcomes, self._weights)[0]
        artist_id = 1 + number // _ROWS_PER_ARTIST
        discogs_artist_id = self.discogs_artist_id(artist_id)
        url = artwork_url(number)
        findable = discogs_artist_id is not None and outcome in ("match", "match_second")
        return LibraryRow(
            id=number,
            artist_id=artist_id,
            artist=self.artist(artist_id),
            discogs_artist_id=discogs_artist_id,
            album=f"{dice.choice(_TITLES)}, vol. {number}",
            legacy_release_id=1_000_000 + number,
            artwork_url=url if outcome == "filled" else None,
            discogs_unavailable=outcome == "no_match" and dice.random() < 0.2,
            outcome=outcome,
            is_cached=dice.random() >= self.spec.uncached_share,
            expected=url if findable or outcome == "filled" else None,
        )

    def rows(self) -> Iterator[LibraryRow]:
        """Yield every row in the order of ids."""
        return map(self.row, range(1, self.spec.size + 1))

    def artist(self, artist_id: int) -> str:
        return f"{_ARTISTS[artist_id % len(_ARTISTS)]} {artist_id}"

    def discogs_artist_id(self, artist_id: int) -> int | None:
        """Return the artist's id at Discogs, or None if Discogs does not know the artist."""
        dice = random.Random(-(self.spec.seed << 32 | artist_id))
        return None if dice.random() < self.spec.stranger_share else 700_000 + artist_id

    def find(self, artist: str, album: str) -> LibraryRow | None:
        """Return the row of an album, or None if the library does not have it."""
        number = album.rpartition(" ")[2]
        if not number.isdecimal() or not 1 <= int(number) <= self.spec.size:
            return None
        row = self.row(int(number))
        return row if (row.artist, row.album) == (artist, album) else None


def artwork_url(number: int, letter: str = "R") -> str:
    """Return the URL of a picture at Discogs: R release, M master, A artist, L label."""
    name = f"s3://discogs-database-images/{letter}-{number}-1234567890-1234.jpeg"
    encoded = base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
    return f"https://i.discogs.com/{number:08x}/rs:fit/g:sm/q:90/h:600/w:600/{encoded}.jpeg"


def load_library(conn: psycopg.Connection, library: Library, schema: str = "wxyc_schema") -> None:
    """Load a library into the tables of `sandbox.schema.create_wxyc`."""
    columns = ["id", "artist_id", "album_title", "artwork_url", "legacy_release_id"]
    newer = conn.execute(_COLUMN_EXISTS, (schema, "library", "discogs_unavailable")).fetchone()
    if newer is not None:
        columns.append("discogs_unavailable")
    with conn.transaction(), conn.cursor() as cursor:
        artists = _copy_statement(schema, "artists", ["id", "artist_name", "discogs_artist_id"])
        with cursor.copy(artists) as copy:
            for artist_id in range(1, 2 + library.spec.size // _ROWS_PER_ARTIST):
                copy.write_row(
                    (
                        artist_id,
                        library.artist(artist_id),
                        library.discogs_artist_id(artist_id),
                    )
                )
        with cursor.copy(_copy_statement(schema, "library", columns)) as copy:
            for row in library.rows():
                values = (row.id, row.artist_id, row.album, row.artwork_url, row.legacy_release_id)
                copy.write_row((*values, row.discogs_unavailable) if newer else values)


def _copy_statement(schema: str, table: str, columns: list[str]) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(schema, table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
