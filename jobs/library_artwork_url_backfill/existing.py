"""--check-existing: covers in the library that are not covers, or may not be.

Changes nothing. A person can decide what to do, because the live site writes covers by the same
search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier

from artwork_backfill.jobs.library_artwork_url_backfill.choice import album_key
from artwork_backfill.jobs.library_artwork_url_backfill.names import normal_form
from artwork_backfill.jobs.library_artwork_url_backfill.pictures import Picture, picture_of
from artwork_backfill.shared.engine.job import (
    Job,
    Run,
    RunResult,
    Section,
    Verification,
    Written,
)
from artwork_backfill.shared.engine.session import count
from artwork_backfill.shared.engine.sources import Keyset
from artwork_backfill.shared.settings import Settings, SettingsError

_COUNT: Final = """
SELECT count(*) FROM {library} WHERE artwork_url IS NOT NULL
"""

_PAGE: Final = """
SELECT artwork_url, array_agg(library.id ORDER BY library.id),
       array_agg(coalesce(artist.artist_name, '') ORDER BY library.id),
       array_agg(coalesce(library.album_title, '') ORDER BY library.id)
FROM {library} library
LEFT JOIN {artists} artist ON artist.id = library.artist_id
WHERE artwork_url > %(after)s
GROUP BY artwork_url
ORDER BY artwork_url
LIMIT %(size)s
"""

#: The number of covers of each suspicion that the report shows, and of albums of each cover.
_EXAMPLES: Final = 20
_ALBUMS: Final = 4


class Suspicion(StrEnum):
    """Why a cover may not be one. The values are codes that do not change."""

    PHOTO = "photo"
    LOGO = "logo"
    PLACEHOLDER = "placeholder"
    SHARED = "shared"


_OF_PICTURES: Final = {
    Picture.ARTIST: Suspicion.PHOTO,
    Picture.LABEL: Suspicion.LOGO,
    Picture.PLACEHOLDER: Suspicion.PLACEHOLDER,
}


@dataclass(frozen=True, slots=True)
class Album:
    """A row of the library with a cover."""

    id: int
    artist: str
    title: str

    def __str__(self) -> str:
        return f"library row {self.id} ({self.artist} - {self.title})"


@dataclass(frozen=True, slots=True)
class Cover:
    """A URL, and the rows that hold it."""

    url: str
    albums: tuple[Album, ...]

    def __str__(self) -> str:
        return self.url

    @property
    def rows(self) -> int:
        """The number of rows that hold it."""
        return len(self.albums)

    def halves(self) -> Sequence[Cover]:
        """Return nothing: nothing is written, so no bad row has to be found."""
        return ()

    def suspicion(self) -> Suspicion | None:
        """Return why this may not be a cover, or `None`.

        Copies of one album, such as a CD and an LP, may share one.
        """
        if (known := _OF_PICTURES.get(picture_of(self.url))) is not None:
            return known
        albums = {(normal_form(a.artist), album_key(a.title)) for a in self.albums}
        return Suspicion.SHARED if len(albums) > 1 else None


@dataclass(frozen=True, slots=True)
class _Looked(Written):
    """Counts, and the suspicious covers."""

    covers: Sequence[Cover] = ()


class CheckExisting(Job[Cover, Cover]):
    """Check every cover in the library, without changing anything."""

    name: ClassVar[str] = "library-artwork-url-backfill"
    database = Settings.wxyc_database

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        if run.options.partition.count > 1:
            raise SettingsError(
                "--check-existing compares all rows with each other: omit --partition,"
                " PARTITION_COUNT and PARTITION_INDEX"
            )
        self._schema = run.settings.wxyc_schema()
        self._examples: dict[Suspicion, list[Cover]] = {}

    def source(self) -> Keyset[Cover]:
        return Keyset(self._page, lambda cover: cover.url, self._count)

    def write(self, conn: Connection, results: Sequence[Cover]) -> _Looked:
        counts: Counter[str] = Counter()
        for cover in results:
            suspicion = cover.suspicion()
            counts["unsuspicious" if suspicion is None else str(suspicion)] += cover.rows
        return _Looked(counts, (), results)

    def preview(self, conn: Connection, results: Sequence[Cover]) -> _Looked:
        return self.write(conn, results)

    def committed(self, written: _Looked) -> None:
        for cover in written.covers:
            if (suspicion := cover.suspicion()) is not None:
                kept = self._examples.setdefault(suspicion, [])
                if len(kept) < _EXAMPLES:
                    kept.append(cover)

    def verify(self, conn: Connection, run: RunResult | None) -> Iterable[Verification]:
        return ()

    def sections(self) -> Iterable[Section]:
        rows = tuple(
            (str(suspicion), cover.url, _names(cover))
            for suspicion, covers in self._examples.items()
            for cover in covers
        )
        data = [dict(zip(("suspicion", "url", "albums"), row, strict=True)) for row in rows]
        columns = ("Suspicion", "Cover", "Albums")
        return [Section("covers", "Covers to check", columns, rows, data)] if rows else []

    def _count(self, conn: Connection) -> int:
        return count(conn, self._statement(_COUNT))

    def _page(self, conn: Connection, after: str | None, size: int) -> Sequence[Cover]:
        values = {"after": after or "", "size": size}
        return [_cover(*row) for row in conn.execute(self._statement(_PAGE), values)]

    def _statement(self, template: str) -> Composed:
        return SQL(template).format(
            library=Identifier(self._schema, "library"), artists=Identifier(self._schema, "artists")
        )


def _names(cover: Cover) -> str:
    names = "; ".join(map(str, cover.albums[:_ALBUMS]))
    more = cover.rows - _ALBUMS
    return f"{names}; and {more:,} more" if more > 0 else names


def _cover(url: str, ids: list[int], artists: list[str], titles: list[str]) -> Cover:
    albums = (Album(*columns) for columns in zip(ids, artists, titles, strict=True))
    return Cover(url, tuple(albums))
