"""The library world: its rows are in the database, and find themselves again."""

from __future__ import annotations

import psycopg
import pytest

from sandbox import schema
from sandbox.library import Library, LibrarySpec, load_library

SPEC = LibrarySpec(
    seed=5,
    size=500,
    timeout_share=0.03,
    degraded_share=0.03,
    error_share=0.03,
    stranger_share=0.2,
)


def test_every_outcome_occurs_and_only_some_lead_to_artwork() -> None:
    rows = list(Library(SPEC).rows())
    known = [row for row in rows if row.discogs_artist_id is not None]
    with_artwork = {row.outcome for row in known if row.expected is not None}
    assert with_artwork == {"filled", "match", "match_second"}
    assert {row.outcome for row in rows} - with_artwork == {
        "placeholder",
        "no_artwork",
        "photo",
        "logo",
        "other_album",
        "other_artist",
        "no_match",
        "timeout",
        "degraded",
        "error",
    }


def test_albums_of_artists_whom_discogs_does_not_know_stay_as_they_are() -> None:
    strangers = [row for row in Library(SPEC).rows() if row.discogs_artist_id is None]
    assert strangers
    assert all(row.expected == row.artwork_url for row in strangers)


def test_a_row_is_found_by_its_artist_and_album() -> None:
    library = Library(SPEC)
    for row in library.rows():
        assert library.find(row.artist, row.album) == row


@pytest.mark.parametrize(
    ("artist", "album"),
    [("Nobody", "Foolish, vol. 1"), ("Superchunk 1", "Foolish"), ("Superchunk 1", "vol. 501")],
)
def test_what_the_library_does_not_have_is_not_found(artist: str, album: str) -> None:
    assert Library(SPEC).find(artist, album) is None


@pytest.mark.parametrize("newer", [True, False])
def test_the_rows_are_loaded_into_newer_and_older_libraries(
    empty_database: str, newer: bool
) -> None:
    library = Library(SPEC)
    with psycopg.connect(empty_database) as conn:
        schema.create_wxyc(conn, "radio", is_old=not newer)
        load_library(conn, library, "radio")
        rows = conn.execute(
            "SELECT library.id, artist_name, discogs_artist_id, album_title, artwork_url,"
            " legacy_release_id"
            " FROM radio.library JOIN radio.artists ON artists.id = artist_id ORDER BY 1"
        ).fetchall()
        if newer:
            flags = conn.execute("SELECT discogs_unavailable FROM radio.library ORDER BY id")
            assert [flag for (flag,) in flags] == [r.discogs_unavailable for r in library.rows()]
    assert rows == [
        (
            row.id,
            row.artist,
            row.discogs_artist_id,
            row.album,
            row.artwork_url,
            row.legacy_release_id,
        )
        for row in library.rows()
    ]
