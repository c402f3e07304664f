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
from artwork_backfill.jobs.library_artwork_url_backfill.models import (
    DiscogsId,
    Match,
    Metadata,
    Row,
)
from artwork_backfill.shared.engine.errors import DatabaseError
from artwork_backfill.shared.engine.session import only_row
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

_RIGHTS: Final = """
SELECT has_column_privilege(library, 'artwork_url', 'UPDATE'),
       has_table_privilege(watermark, 'SELECT') AND has_table_privilege(watermark, 'UPDATE'),
       current_user
FROM to_regclass(format('%%I.library', %(schema)s::text)) library,
     to_regclass(format('%%I.library_watermark', %(schema)s::text)) watermark
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

# As documents, in which a column that this database lacks is a missing key.
_PAGE: Final = """
SELECT artist.artist_name, artist.discogs_artist_id, to_jsonb(library), {identity}, {metadata}
""" + _CANDIDATES + """
AND library.id > %(after)s
AND NOT ({is_resting})
ORDER BY library.id
LIMIT %(size)s
"""  # fmt: skip

_CENSUS: Final = """
SELECT coalesce(max(id), 0), count(artwork_url) FROM {library} library
"""

_COUNT_EMPTY: Final = """
SELECT count(*) FROM {library} library WHERE id = ANY (%(ids)s::bigint[]) AND artwork_url IS NULL
"""

_OTHERS_WITH: Final = """
SELECT found.id, other.id, coalesce(other.album_title, '')
FROM unnest(%(ids)s::bigint[], %(artist_ids)s::bigint[], %(urls)s::text[])
    AS found (id, artist_id, url)
JOIN {library} other
ON other.artist_id = found.artist_id AND other.artwork_url = found.url AND other.id <> found.id
ORDER BY found.id, other.id
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

    def statement(self, template: str, **parts: Composable) -> Composed:
        """Return a statement with the names of the tables and `is_available` filled in."""
        has_mark = self.has("library", "discogs_unavailable")
        return SQL(template).format(
            library=Identifier(self.schema, "library"),
            artists=Identifier(self.schema, "artists"),
            watermark=Identifier(self.schema, _WATERMARK),
            is_available=SQL("library.discogs_unavailable IS NOT TRUE" if has_mark else "true"),
            **parts,
        )


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
    if not shape.has_watermark:
        return
    may_write, may_touch, role = only_row(conn, _RIGHTS, {"schema": shape.schema})
    if not may_touch and (may_write or not read_only):
        name = f"{shape.schema}.{_WATERMARK}"
        raise DatabaseError(
            f"role {role} may not use {name}, which a trigger updates with each write to the"
            f" library: ask the owner to GRANT SELECT, UPDATE ON {name} TO {role}"
        )


@dataclass(frozen=True, slots=True)
class Census:
    """The state of the library at one moment; `candidates` are those of this partition."""

    #: The id of the newest row.
    last: int
    with_artwork: int
    candidates: int
    #: Candidates that are not yet due for another lookup.
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
        self._values = {
            **partition.values,
            "schema": shape.schema,
            "retry_after_s": retry_after_s,
        }
        self._parts: dict[str, Composable] = {
            "identity": SQL("NULL"),
            "metadata": SQL("NULL"),
            "is_resting": SQL("false" if retry_after_s is None else attempts.IS_RESTING),
        }
        joins: list[Composable] = []
        if shape.has("library_identity", "library_id"):
            joins.append(_join(shape, "library_identity", "identity", "library_id"))
            self._parts["identity"] = SQL("to_jsonb(identity)")
        if from_metadata:
            joins.append(_join(shape, "album_metadata", "metadata", "album_id"))
            self._parts["metadata"] = SQL("to_jsonb(metadata)")
        self._parts["joins"] = SQL("\n").join(joins)

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

    def count_empty(self, conn: Connection, ids: Sequence[int]) -> int:
        """Return how many of these rows have no artwork."""
        return int(self._execute(conn, _COUNT_EMPTY, {"ids": list(ids)})[0][0])

    def others_with(
        self, conn: Connection, matches: Sequence[Match]
    ) -> dict[int, list[tuple[int, str]]]:
        """Return the other rows of the same artist that have a URL, as ids and titles."""
        others: dict[int, list[tuple[int, str]]] = {match.row.id: [] for match in matches}
        values = {
            "ids": list(others),
            "artist_ids": [match.row.artist_id for match in matches],
            "urls": [match.url for match in matches],
        }
        if matches:
            for id_, other, title in self._execute(conn, _OTHERS_WITH, values):
                others[id_].append((other, title))
        return others

    def _execute(
        self, conn: Connection, template: str, values: Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        statement = self._shape.statement(template, **self._parts)
        return conn.execute(statement, {**self._values, **values}).fetchall()


def _join(shape: Shape, table: str, alias: str, key: str) -> Composed:
    return SQL("LEFT JOIN {} {} ON {} = library.id").format(
        Identifier(shape.schema, table), Identifier(alias), Identifier(alias, key)
    )


#: The columns of a row by name.
_Columns = Mapping[str, Any]


def _row(
    artist: str | None,
    discogs_artist_id: int | None,
    library: _Columns,
    identity: _Columns | None,
    metadata: _Columns | None,
) -> Row:
    entities = [f"discogs:release:{library.get('discogs_release_id')}"]
    if identity and _is_trusted(identity.get("confidence")):
        entities += [
            f"discogs:{kind}:{identity.get(f'discogs_{kind}_id')}" for kind in ("release", "master")
        ]
    sure_ids = _ids(entities)
    stamp, confidence = map(library.get, ("canonical_entity_id", "canonical_entity_confidence"))
    stamps = [stamp] if stamp and (confidence is None or _is_trusted(confidence)) else []
    return Row(
        id=library["id"],
        artist_id=library["artist_id"],
        artist=artist or "",
        title=library["album_title"] or "",
        alternate_artist=library.get("alternate_artist_name") or "",
        discogs_artist_id=discogs_artist_id,
        sure_ids=sure_ids,
        stamped_ids=_ids(stamps) - sure_ids,
        metadata=_metadata(metadata) if metadata and metadata["artwork_url"] else None,
    )


def _metadata(columns: _Columns) -> Metadata:
    release = _RELEASE_URL.search(columns.get("discogs_url") or "")
    return Metadata(
        columns["artwork_url"],
        int(release[1]) if release else None,
        columns.get("discogs_artist_id"),
        columns.get("artist_image_url"),
    )


def _is_trusted(confidence: float | str | None) -> bool:
    # PostgreSQL's NaN is a string in JSON.
    return confidence is not None and float(confidence) >= TRUSTED_CONFIDENCE


def _ids(entities: Sequence[str]) -> frozenset[DiscogsId]:
    """Return the Discogs ids among entities; an id without a kind is that of a release."""
    matches = filter(None, map(_ENTITY.fullmatch, entities))
    # 0 means no release.
    return frozenset((m["kind"] or "release", int(m["id"])) for m in matches if int(m["id"]))
