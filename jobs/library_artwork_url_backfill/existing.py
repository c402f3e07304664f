"""--check-existing: covers in the library that are not covers, or may not be.

Changes nothing. A person can decide what to do, because the live site writes covers by the same
search.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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


#: Why a cover may not be one. The values are codes that do not change.
_SUSPICIONS: Final = {
    Picture.ARTIST: "photo",
    Picture.LABEL: "logo",
    Picture.PLACEHOLDER: "placeholder",
}
_SHARED: Final = "shared"


@dataclass(frozen=True, slots=True)
class Cover:
    """A URL, and the rows that hold it: their ids, artists and titles."""

    url: str
    albums: tuple[tuple[int, str, str], ...]

    def __str__(self) -> str:
        return self.url

    @property
    def rows(self) -> int:
        """The number of rows that hold it."""
        return len(self.albums)

    @property
    def suspicion(self) -> str | None:
        """Why this may not be a cover, or `None`.

        Copies of one album, such as a CD and an LP, may share one.
        """
        albums = {(normal_form(artist), album_key(title)) for _, artist, title in self.albums}
        return _SUSPICIONS.get(picture_of(self.url), _SHARED if len(albums) > 1 else None)

    @property
    def names(self) -> str:
        """The first of its albums, for people."""
        names = "; ".join(
            f"library row {id_} ({artist} - {title})"
            for id_, artist, title in self.albums[:_ALBUMS]
        )
        more = self.rows - _ALBUMS
        return f"{names}; and {more:,} more" if more > 0 else names


@dataclass(frozen=True, slots=True)
class _Checked(Written):
    """Counts, and the suspicious covers."""

    suspicious: Mapping[str, Sequence[Cover]] = field(default_factory=dict)


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
        self._examples: defaultdict[str, list[Cover]] = defaultdict(list)

    def source(self) -> Keyset[Cover]:
        return Keyset(self._page, lambda cover: cover.url, self._count)

    def write(self, conn: Connection, results: Sequence[Cover]) -> _Checked:
        counts: Counter[str] = Counter()
        suspicious: defaultdict[str, list[Cover]] = defaultdict(list)
        for cover in results:
            suspicion = cover.suspicion
            counts[suspicion or "unsuspicious"] += cover.rows
            if suspicion is not None:
                suspicious[suspicion].append(cover)
        return _Checked(counts, suspicious=suspicious)

    def preview(self, conn: Connection, results: Sequence[Cover]) -> _Checked:
        return self.write(conn, results)

    def committed(self, written: _Checked) -> None:
        for suspicion, covers in written.suspicious.items():
            examples = self._examples[suspicion]
            examples += covers[: _EXAMPLES - len(examples)]

    def verify(self, conn: Connection, run: RunResult | None) -> Iterable[Verification]:
        return ()

    def sections(self) -> Iterable[Section]:
        rows = tuple(
            (suspicion, cover.url, cover.names)
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
        return [
            Cover(url, tuple(zip(*albums, strict=True)))
            for url, *albums in conn.execute(self._statement(_PAGE), values)
        ]

    def _statement(self, template: str) -> Composed:
        return SQL(template).format(
            library=Identifier(self._schema, "library"), artists=Identifier(self._schema, "artists")
        )
