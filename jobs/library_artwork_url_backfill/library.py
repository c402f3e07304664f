"""Reading the library: the kind of database, and the candidates for a cover.

The columns and tables were added over the years, so their existence is checked, except for the
first six columns. Writing is in `writes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection
from psycopg.sql import SQL, Composable, Composed, Identifier

from artwork_backfill.jobs.library_artwork_url_backfill import attempts
from artwork_backfill.jobs.library_artwork_url_backfill.models import Metadata, Row
from artwork_backfill.shared.engine.errors import DatabaseError
from artwork_backfill.shared.engine.session import holds, only_row
from artwork_backfill.shared.engine.sources import Partition
from artwork_backfill.shared.engine.tables import Table

#: Below this confidence, the catalogue's id of an album is itself the guess of a fuzzy search.
TRUSTED_CONFIDENCE: Final = 0.9

_WATERMARK: Final = "library_watermark"

# Tables that the role may not read count as missing; only the existence of the watermark matters.
_COLUMNS: Final = """
SELECT class.relname, attribute.attname
FROM pg_class class
JOIN pg_attribute attribute ON attribute.attrelid = class.oid
WHERE class.relnamespace = to_regnamespace(quote_ident(%(schema)s))
AND class.relname IN ('library', 'album_metadata', 'library_identity', 'library_watermark')
AND attribute.attnum > 0
AND NOT attribute.attisdropped
AND (class.relname = 'library_watermark' OR has_table_privilege(class.oid, 'SELECT'))
"""

_MAY_TOUCH_WATERMARK: Final = """
SELECT has_table_privilege(to_regclass(%(table)s), 'SELECT')
       AND has_table_privilege(to_regclass(%(table)s), 'UPDATE'),
       current_user
"""

_CANDIDATES: Final = """
FROM {library} library
JOIN {artists} artist ON artist.id = library.artist_id
{joins}
WHERE library.artwork_url IS NULL
AND artist.discogs_artist_id IS NOT NULL
AND {is_available}
AND library.id <= %(last)s
AND (%(partitions)s = 1 OR mod(library.id, %(partitions)s) = %(partition)s)
"""

_COUNT: Final = """
SELECT count(*), count(*) FILTER (WHERE {is_resting})
""" + _CANDIDATES  # fmt: skip

_PAGE: Final = """
SELECT library.id, library.artist_id, artist.artist_name, library.album_title,
       {alternate_artist}, artist.discogs_artist_id, {stamp}, {entities},
       {metadata}
""" + _CANDIDATES + """
AND library.id > %(after)s
AND NOT ({is_resting})
ORDER BY library.id
LIMIT %(size)s
"""  # fmt: skip

_CENSUS: Final = """
SELECT coalesce(max(id), 0), count(artwork_url) FROM {library} library
"""

_ENTITY: Final = re.compile(r"discogs:(?:(?P<kind>release|master):)?(?P<id>\d{1,10})")
_RELEASE_URL: Final = re.compile(r"discogs\.com/(?:[a-z]{2}/)?release/(\d{1,10})")


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of the library's tables, by table; a missing table has none."""

    schema: str
    columns: Mapping[str, frozenset[str]]

    def has(self, table: str, *columns: str) -> bool:
        """Return whether a table with these columns exists."""
        return table in self.columns and self.columns[table].issuperset(columns)

    @property
    def has_watermark(self) -> bool:
        """Whether writing to the library updates a watermark."""
        return _WATERMARK in self.columns

    def identifier(self, table: str) -> Identifier:
        """Return the qualified name of a table."""
        return Identifier(self.schema, table)


def tables(schema: str) -> tuple[Table, ...]:
    """Return the tables that the job needs, in this schema."""
    return (
        Table(f"{schema}.library", ("SELECT", "UPDATE"), ("artwork_url",)),
        Table(f"{schema}.artists"),
        Table(f"{schema}.album_metadata", optional=True),
        Table(f"{schema}.library_identity", optional=True),
        Table(f"{schema}.{_WATERMARK}", ("SELECT", "UPDATE"), optional=True),
    )


def read_shape(conn: Connection, schema: str) -> Shape:
    """Determine the kind of database."""
    columns: dict[str, set[str]] = {}
    for table, column in conn.execute(_COLUMNS, {"schema": schema}):
        columns.setdefault(table, set()).add(column)
    return Shape(schema, {table: frozenset(names) for table, names in columns.items()})


def check_rights(conn: Connection, shape: Shape, *, read_only: bool) -> None:
    """Check the rights on the watermark that writing to the library needs.

    With `read_only`, the rights are checked only if the role may write to the library: a role that
    may not is meant for dry runs, while one that may would lack the right on the watermark in its
    first real run.

    Raises
    ------
    DatabaseError
        Writing would fail, because the watermark's trigger runs with the rights of the role that
        writes.
    """
    schema = shape.schema
    if shape.has_watermark and (not read_only or _may_write(conn, schema)):
        _check_watermark(conn, f"{schema}.{_WATERMARK}", f'"{schema}"."{_WATERMARK}"')


def _may_write(conn: Connection, schema: str) -> bool:
    question = "SELECT has_column_privilege(%s, 'artwork_url', 'UPDATE')"
    return holds(conn, question, (f'"{schema}"."library"',))


def _check_watermark(conn: Connection, name: str, quoted: str) -> None:
    may_touch, role = only_row(conn, _MAY_TOUCH_WATERMARK, {"table": quoted})
    if not may_touch:
        raise DatabaseError(
            f"role {role} may not use {name}, which a trigger updates with each write to the"
            f" library: ask the owner to GRANT SELECT, UPDATE ON {name} TO {role}"
        )


@dataclass(frozen=True, slots=True)
class Census:
    """The state of the library at one moment.

    Parameters
    ----------
    last
        The id of the newest row.
    with_artwork
        The number of rows with artwork, in all partitions.
    candidates, resting
        The number of candidates in this partition, and of those not yet due for another lookup.
    """

    last: int
    with_artwork: int
    candidates: int
    resting: int


class Candidates:
    """The rows of a partition that lack a cover, in the order of their ids.

    Parameters
    ----------
    from_metadata
        Whether to also read what `album_metadata` has for a row.
    retry_after_s
        Skip rows that were looked up without a result within this many seconds; needs the table of
        attempts.
    """

    def __init__(
        self,
        shape: Shape,
        partition: Partition,
        *,
        from_metadata: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        self._shape = shape
        self._values: dict[str, object] = {
            "partition": partition.index,
            "partitions": partition.count,
            "schema": shape.schema,
            "retry_after_s": retry_after_s,
            "trusted": TRUSTED_CONFIDENCE,
        }
        self._parts = _parts(shape, from_metadata=from_metadata, rests=retry_after_s is not None)

    def take_census(self, conn: Connection, *, last: int | None = None) -> Census:
        """Count up to the newest row, or up to the row `last`."""
        newest, with_artwork = self._execute(conn, _CENSUS, {})[0]
        last = newest if last is None else last
        candidates, resting = self._execute(conn, _COUNT, {"last": last})[0]
        return Census(last, with_artwork, candidates, resting)

    def read_page(self, conn: Connection, *, after: int, last: int, size: int) -> list[Row]:
        """Return up to `size` candidates with an id above `after`, ordered by id."""
        values = {"after": after, "last": last, "size": size}
        return [_row(*columns) for columns in self._execute(conn, _PAGE, values)]

    def _execute(
        self, conn: Connection, template: str, values: Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        statement = SQL(template).format(**self._parts)
        return conn.execute(statement, {**self._values, **values}).fetchall()


def is_available(shape: Shape) -> Composable:
    """Return the condition that a row is not marked as unavailable at Discogs."""
    if shape.has("library", "discogs_unavailable"):
        return SQL("library.discogs_unavailable IS NOT TRUE")
    return SQL("true")


def _parts(shape: Shape, *, from_metadata: bool, rests: bool) -> dict[str, Composable]:
    joins: list[Composable] = []
    metadata: Composable = SQL("NULL, NULL, NULL, NULL")
    if from_metadata:
        joins.append(
            SQL("LEFT JOIN {} metadata ON metadata.album_id = library.id").format(
                shape.identifier("album_metadata")
            )
        )
        metadata = SQL("metadata.artwork_url, {}, {}, {}").format(
            *(
                SQL(f"metadata.{name}" if shape.has("album_metadata", name) else "NULL")
                for name in ("discogs_url", "discogs_artist_id", "artist_image_url")
            )
        )
    stamp: Composable = SQL("NULL")
    if shape.has("library", "canonical_entity_id"):
        trusted = "true"
        if shape.has("library", "canonical_entity_confidence"):
            trusted = "coalesce(library.canonical_entity_confidence, 1) >= %(trusted)s::real"
        stamp = SQL(f"CASE WHEN {trusted} THEN library.canonical_entity_id END")
    entities: list[Composable] = []
    if shape.has("library", "discogs_release_id"):
        entities.append(SQL("'discogs:release:' || library.discogs_release_id"))
    if shape.has("library_identity", "library_id", "confidence"):
        joins.append(
            SQL(
                "LEFT JOIN {} identity ON identity.library_id = library.id"
                " AND identity.confidence >= %(trusted)s::real"
            ).format(shape.identifier("library_identity"))
        )
        entities += [
            SQL(f"'discogs:{kind}:' || identity.discogs_{kind}_id")
            for kind in ("release", "master")
            if shape.has("library_identity", f"discogs_{kind}_id")
        ]
    has_alternate = shape.has("library", "alternate_artist_name")
    return {
        "library": shape.identifier("library"),
        "artists": shape.identifier("artists"),
        "joins": SQL("\n").join(joins),
        "is_available": is_available(shape),
        "is_resting": SQL(attempts.IS_RESTING) if rests else SQL("false"),
        "alternate_artist": SQL("library.alternate_artist_name" if has_alternate else "NULL"),
        "stamp": stamp,
        "entities": _array(entities),
        "metadata": metadata,
    }


def _array(texts: list[Composable]) -> Composed:
    return SQL("array_remove(ARRAY[{}]::text[], NULL)").format(SQL(", ").join(texts))


def _row(
    id_: int,
    artist_id: int,
    artist: str | None,
    title: str | None,
    alternate_artist: str | None,
    discogs_artist_id: int | None,
    stamp: str | None,
    entities: list[str],
    artwork_url: str | None,
    discogs_url: str | None,
    metadata_artist_id: int | None,
    artist_image_url: str | None,
) -> Row:
    releases, masters = _ids(entities, "release"), _ids(entities, "master")
    stamps = [stamp or ""]
    stamped_releases = _ids(stamps, "release") - releases
    stamped_masters = _ids(stamps, "master") - masters
    release = _RELEASE_URL.search(discogs_url or "")
    return Row(
        id=id_,
        artist_id=artist_id,
        artist=artist or "",
        title=title or "",
        alternate_artist=alternate_artist or "",
        discogs_artist_id=discogs_artist_id,
        trusted_releases=releases | stamped_releases,
        trusted_masters=masters | stamped_masters,
        stamped_releases=stamped_releases,
        stamped_masters=stamped_masters,
        metadata=Metadata(
            artwork_url,
            int(release[1]) if release else None,
            metadata_artist_id,
            artist_image_url,
        )
        if artwork_url
        else None,
    )


def _ids(entities: Sequence[str], kind: str) -> frozenset[int]:
    """Return the Discogs ids of a kind; an id without a kind is that of a release."""
    matches = filter(None, map(_ENTITY.fullmatch, entities))
    # 0 means no release.
    return frozenset(int(m["id"]) for m in matches if (m["kind"] or "release") == kind) - {0}
