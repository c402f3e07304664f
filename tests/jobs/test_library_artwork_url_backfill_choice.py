"""Which result of a lookup is the album asked for, and which URLs may be written."""

from __future__ import annotations

import pytest
from artwork_backfill.jobs.library_artwork_url_backfill.choice import (
    Match,
    Miss,
    Reason,
    choose,
    is_usable_url,
)
from artwork_backfill.jobs.library_artwork_url_backfill.library import Row
from artwork_backfill.jobs.library_artwork_url_backfill.names import normal_form, same_artist
from artwork_backfill.shared.clients.lml import LookupAnswer, LookupResult

COVER = "https://i.discogs.com/abc/rs:fit/R-1.jpeg"
OTHER_COVER = "https://i.discogs.com/def/rs:fit/R-2.jpeg"
SPACER = "https://st.discogs.com/images/spacer.gif"


def row(artist: str = "Stereolab", title: str = "Dots and Loops", legacy: int | None = 10) -> Row:
    return Row(1, artist, title, legacy)


def result(
    artist: str | None = "Stereolab",
    title: str | None = "Dots and Loops",
    item: int | None = 99,
    url: str | None = COVER,
) -> LookupResult:
    return LookupResult(item, title, artist, url)


def chosen(row: Row, *results: LookupResult, accept_first: bool = False) -> str | Reason:
    """The URL that is chosen, or the reason why none is."""
    choice = choose(row, LookupAnswer(results), accept_first=accept_first)
    assert choice.row is row
    return choice.url if isinstance(choice, Match) else choice.reason


# -- artists and titles ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Stereolab", "STEREOLAB"),
        ("Stereolab", "  Stereolab "),
        ("Sigur Rós", "Sigur Ros"),
        ("Sigur Rós", "Sigur Ro\N{COMBINING ACUTE ACCENT}s"),
        ("Motörhead", "motorhead"),
        ("Röyksopp", "Royksopp"),
        ("Mø", "MO"),
        ("Łona", "Lona"),
        ("Æther", "Aether"),
        ("Straße", "STRASSE"),
        ("Ёлка", "елка"),
        ("R.E.M.", "REM"),
        ("R.E.M.", "R. E. M."),
        ("AC/DC", "ACDC"),
        ("Jay-Z", "Jay Z"),
        ("Guns N' Roses", "Guns N\N{RIGHT SINGLE QUOTATION MARK} Roses"),
        ("Simon & Garfunkel", "Simon and Garfunkel"),
        ("The Beatles", "Beatles"),
        ("The Beatles", "Beatles, The"),
        ("Beatles , the", "the beatles"),
        ("The The", "the THE"),
        ("!!!", "!!!"),
        ("灰野敬二", "灰野敬二"),
        ("Кино", "КИНО"),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER U}2", "U2"),
        ("Various", "Various Artists"),
        ("V/A", "Various Artists"),
        ("Various Artists - Rock - B", "Various"),
    ],
)
def test_these_name_the_same_artist(one: str, other: str) -> None:
    assert same_artist(one, other)
    assert same_artist(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", ""),
        (" ", ""),
        ("!!!", "???"),
        ("!!!", ""),
        ("灰野敬二", "坂本龍一"),
        ("Кино", "Kino"),
        # Marks of other scripts make other letters.
        ("ハハ", "パパ"),
        ("की", "का"),
        ("Theatre", "atre"),
        ("The", "Beatles"),
        ("Nirvana", "Nirvana (2)"),
        ("Various Artists", "Stereolab"),
        ("Various", "Various Blonde"),
        ("Stereolab & Nurse With Wound", "Stereolab"),
    ],
)
def test_these_name_different_artists(one: str, other: str) -> None:
    assert not same_artist(one, other)
    assert not same_artist(other, one)


@pytest.mark.parametrize(
    ("ours", "found"),
    [
        ("Dots and Loops", "Dots & Loops"),
        ("Dots and Loops", "dots and loops (Expanded Edition)"),
        ("Dots and Loops [Remastered]", "Dots and Loops"),
        ("Dots and Loops [Remastered]", "Dots and Loops (Deluxe Edition)"),
        ("Dots and Loops", "Dots and Loops (Deluxe Edition) [2019 Remaster]"),
        ("Dots and Loops", "Dots and Loops {Vinyl}  "),
        ("The White Album", "White Album, The"),
        ("(What's the Story) Morning Glory?", "What's The Story Morning Glory"),
        ("( )", "()"),
        ("(III)", "III"),
        ("★", "★ (Deluxe)"),
        ("Weezer (Blue Album)", "Weezer"),
        ("Weezer (Blue Album)", "Weezer [Blue Album]"),
        ("Vol. 2", "Vol.2"),
        ("Ágætis byrjun", "Agaetis Byrjun"),
        ("A" * 128, "A" * 128),
        ("A" * 128, "A" * 150),
        ("Dots " * 25 + "(Ex", "Dots " * 25 + "(Expanded Edition)"),
    ],
)
def test_these_name_the_same_album(ours: str, found: str) -> None:
    assert chosen(row(title=ours), result(title=found)) == COVER


@pytest.mark.parametrize(
    ("ours", "found"),
    [
        ("Dots and Loops", "Emperor Tomato Ketchup"),
        ("Dots and Loops", "Dots and Loops Live"),
        ("Weezer (Blue Album)", "Weezer (Green Album)"),
        ("Crystal Castles (II)", "Crystal Castles (III)"),
        ("Anthology (Disc 1)", "Anthology (Disc 2)"),
        ("Hits 1-2", "Hits 12"),
        ("+", "\N{MULTIPLICATION SIGN}"),
        ("(Deluxe)", "(Remastered)"),
        ("A" * 127, "A" * 128),
        ("A" * 128, "A" * 127 + "B" * 23),
        ("Dots and Loops", None),
        ("Dots and Loops", ""),
    ],
)
def test_these_name_different_albums(ours: str, found: str | None) -> None:
    assert chosen(row(title=ours), result(title=found)) is Reason.OTHER_ALBUM


def test_only_blank_names_have_an_empty_normal_form() -> None:
    assert normal_form(" \t") == ""
    assert all(map(normal_form, ["!", "( )", "…", "♥", "\N{COMBINING ENCLOSING CIRCLE}", "The"]))


# -- which result ----------------------------------------------------------------------------------


def test_the_result_with_the_rows_id_is_chosen_wherever_it_stands() -> None:
    results = (result(url=OTHER_COVER), result("Another", "Name", item=10, url=COVER))
    assert chosen(row(), *results) == COVER


def test_without_such_an_id_the_result_of_the_same_name_is_chosen() -> None:
    results = (result(title="Emperor Tomato Ketchup", url=OTHER_COVER), result(url=COVER))
    assert chosen(row(), *results) == COVER
    assert chosen(row(legacy=None), *results) == COVER


def test_no_id_is_not_the_same_as_no_id() -> None:
    assert chosen(row(legacy=None), result(title="Other", item=None)) is Reason.OTHER_ALBUM


def test_another_artists_album_of_that_title_is_not_chosen() -> None:
    assert chosen(row(), result(artist="Superchunk")) is Reason.OTHER_ALBUM


def test_the_very_same_title_goes_before_one_with_a_note() -> None:
    noted = result(title="Dots and Loops (Live)", url=OTHER_COVER)
    assert chosen(row(), noted, result(url=COVER)) == COVER
    edition = result(title="Dots and Loops (Deluxe)", url=COVER)
    assert chosen(row(), noted, edition) == COVER


def test_albums_that_only_their_notes_tell_apart_leave_no_choice() -> None:
    blue, green = result("Weezer", "Weezer (Blue Album)"), result("Weezer", "Weezer (Green Album)")
    assert chosen(row("Weezer", "Weezer"), blue, green) is Reason.OTHER_ALBUM
    assert chosen(row("Weezer", "Weezer"), blue) == COVER


def test_a_compilation_needs_the_very_same_title() -> None:
    hits = row("Various Artists", "Hits")
    assert chosen(hits, result("Various", "Hits!")) == COVER
    assert chosen(hits, result("Various", "Hits (Country)")) is Reason.OTHER_ALBUM
    assert chosen(hits, result("Various", "Hits (Country)", item=10)) == COVER


def test_accept_first_takes_the_first_result_and_no_other() -> None:
    first = result("Superchunk", "Foolish", url=OTHER_COVER)
    own = result(item=10, url=COVER)
    assert chosen(row(), first, own, accept_first=True) == OTHER_COVER
    empty = result("Superchunk", "Foolish", url=None)
    assert chosen(row(), empty, own, accept_first=True) is Reason.NO_ARTWORK


@pytest.mark.parametrize("accept_first", [False, True])
@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([], Reason.NO_MATCH),
        ([result(url=None)], Reason.NO_ARTWORK),
        ([result(url=SPACER)], Reason.PLACEHOLDER),
        ([result(url="ftp://i.discogs.com/1.jpeg")], Reason.BAD_URL),
        ([result(url=None), result(url=SPACER)], Reason.NO_ARTWORK),
    ],
)
def test_there_is_a_reason_for_every_row_left(
    results: list[LookupResult], reason: Reason, accept_first: bool
) -> None:
    assert choose(row(), LookupAnswer(tuple(results)), accept_first=accept_first) == Miss(
        row(), reason
    )


def test_another_copy_of_the_album_may_have_what_the_first_lacks() -> None:
    copies = [result(url=None), result(url=SPACER), result(url="data:x"), result(url=COVER)]
    assert chosen(row(), *copies) == COVER


# -- which URL -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        COVER,
        "http://img.example/1.jpg",
        "HTTPS://IMG.EXAMPLE/1.jpg",
        "https://img.example:8443/a%20b.jpg?size=500&x=@#top",
        "https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/1.jpg",
        "https://[2001:db8::1]/1.jpg",
        "https://img.example/" + "x" * (512 - 20),
    ],
)
def test_a_usable_url_is_written_as_it_came(url: str) -> None:
    assert chosen(row(), result(url=url)) == url


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "ftp://img.example/1.jpg",
        "//img.example/1.jpg",
        "/1.jpg",
        "img.example/1.jpg",
        "https:img.example/1.jpg",
        "https:///1.jpg",
        "https://",
        "https://user:pass@img.example/1.jpg",
        "https://user@img.example/1.jpg",
        "https://@img.example/1.jpg",
        "https://img.example:port/1.jpg",
        "https://img.example:99999/1.jpg",
        "https://[img.example/1.jpg",
        "https://img.example/1.jpg\n",
        "https://img.exa\nmple/1.jpg",
        "\thttps://img.example/1.jpg",
        "https://img.example/\x00.jpg",
        "https://img.example/\x7f.jpg",
        "https://img.example/\x85.jpg",
        "https://img.example/\N{RIGHT-TO-LEFT OVERRIDE}gpj.1",
        "https://img.example/\N{ZERO WIDTH SPACE}.jpg",
        "https://img.example/\ud800.jpg",
        " https://img.example/1.jpg",
        "https://img.example/1 .jpg",
        "https://img.example/1\N{NO-BREAK SPACE}.jpg",
        "https://img.example\\@evil.example/1.jpg",
        'https://img.example/1.jpg"onload="x',
        "https://img.example/<script>",
        "https://img.example/" + "x" * (513 - 20),
        "",
    ],
)
def test_what_nobody_should_follow_is_not_usable(url: str) -> None:
    assert not is_usable_url(url)
