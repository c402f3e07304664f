"""Invented albums, each with what LML answers and whether that is the right cover.

The answers are of the kinds that the real service gives: the album under another spelling, an
edition of it, another volume, a live album, an artist of nearly the same name, a photo, a logo,
nothing. Some are hopeless on purpose (a misspelt title, two artists of one name), because such
rows exist: a rule that takes them all takes wrong covers as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from artwork_backfill.jobs.library_artwork_url_backfill.models import Row
from artwork_backfill.shared.clients.lml import Artwork, LookupAnswer
from sandbox.library import artwork_url


@dataclass(frozen=True, slots=True)
class Found:
    """Artwork in an answer: of which album, by whom, and which picture."""

    artist: str | None
    album: str | None
    picture: str = "R"
    confidence: float | None = 0.9
    release_id: int | None = None


@dataclass(frozen=True, slots=True)
class Album:
    """A row, its answer, and the place of the right cover in it, if it is there."""

    artist: str
    title: str
    found: tuple[Found | None, ...]
    right: int | None
    alternate: str = ""
    releases: frozenset[int] = frozenset()
    masters: frozenset[int] = field(default_factory=frozenset)
    stamped: frozenset[int] = field(default_factory=frozenset)
    unsure: str | None = None


def right(artist: str, title: str, *found: Found | None, at: int = 0, **row: object) -> Album:
    return Album(artist, title, found, at, **row)  # type: ignore[arg-type]


def wrong(artist: str, title: str, *found: Found | None, **row: object) -> Album:
    return Album(artist, title, found, None, **row)  # type: ignore[arg-type]


F = Found

ALBUMS: Final = (
    # The very same names, in one writing or another.
    right("Delft Choir", "Lantern Songs", F("Delft Choir", "Lantern Songs")),
    right("DELFT CHOIR", "lantern songs", F("Delft Choir", "Lantern Songs")),
    right("The Belier Four", "Été Noir", F("Belier Four", "Ete Noir")),
    right("Belier Four, The", "Noir", F("The Bélier Four", "Noir")),
    right("Moss & Fern", "Salt", F("Moss And Fern", "Salt")),
    right("Moss + Fern", "Salt II", F("Moss & Fern", "Salt 2")),
    right("Moss &amp; Fern", "Rock &amp; Reel", F("Moss & Fern", "Rock And Reel")),
    right("Fj&ouml;rd", "Is&aacute;", F("Fjörd", "Isá")),
    right("M.O.S.S.", "Green", F("MOSS", "Green")),
    right("Jay-Nine", "Up-Tempo", F("Jay Nine", "Up Tempo")),
    right("Ida Quill's Band", "Don't Ask", F("Ida Quills Band", "Dont Ask")),
    right("Øre", "Blå", F("Ore", "Bla")),
    right("Кедр", "Снег", F("КЕДР", "снег")),
    right("灯台", "夜", F("灯台", "夜")),
    right("???", "!!!", F("???", "!!!")),
    right("Straße", "Weiß", F("STRASSE", "WEISS")),
    # The artist's name.
    right("Sade Lux", "Harbor", F("Sade Lux (2)", "Harbor")),
    right("Sade Lux", "Harbor Two", F("Sade Lux*", "Harbor Two")),
    right("Pike, Aurora", "Northern", F("Aurora Pike", "Northern")),
    right("Aurora Pike", "Southern", F("Pike, Aurora", "Southern")),
    right("Wren feat. Otto Lind", "Low", F("Wren", "Low")),
    right("Wren", "Lower", F("Wren Featuring Otto Lind", "Lower")),
    right("Wren ft. Otto", "Lowest", F("Wren", "Lowest")),
    right("Plough", "Field", F("Plough Trio", "Field"), alternate="Plough Trio"),
    right("Plough", "Furrow", F("Otto Lind", "Furrow"), alternate="Lind, Otto"),
    right("Tarn (3)", "Deep", F("Tarn", "Deep")),
    # Volumes and numerals.
    right("Kettle Mob", "Demos Vol. 2", F("Kettle Mob", "Demos Volume 2")),
    right("Kettle Mob", "Demos Volume Two", F("Kettle Mob", "Demos, Vol. 2")),
    right("Kettle Mob", "Demos Vol. III", F("Kettle Mob", "Demos Vol 3")),
    right("Kettle Mob", "Part One", F("Kettle Mob", "Pt. 1")),
    right("Kettle Mob", "No. 4", F("Kettle Mob", "#4")),
    right("Kettle Mob", "Number 5", F("Kettle Mob", "No. 5")),
    right("Kettle Mob", "Tides III", F("Kettle Mob", "Tides 3")),
    right("Kettle Mob", "Chapter Six", F("Kettle Mob", "Chapter VI")),
    right("Kettle Mob", "Book 07", F("Kettle Mob", "Book 7")),
    # Editions.
    right("Wren", "Low Tide", F("Wren", "Low Tide (Remastered 2011)")),
    right("Wren", "High Tide", F("Wren", "High Tide [Deluxe Edition]")),
    right("Wren", "Ebb (Expanded)", F("Wren", "Ebb")),
    right("Wren", "Flow", F("Wren", "Flow (2003 Digital Remaster)")),
    right("Wren", "Slack", F("Wren", "Slack - Deluxe Edition")),
    right("Wren", "Neap", F("Wren", "Neap: 20th Anniversary Edition")),
    right("Wren", "Spring", F("Wren", "Spring (Limited Edition) [Bonus Tracks]")),
    right("Wren", "Surge [Mono]", F("Wren", "Surge (Stereo)")),
    right("Wren", "Bore (Promo)", F("Wren", "Bore")),
    right("Wren", "Wave", F("Wren", "Wave (Original Motion Picture Soundtrack)")),
    right("Wren", "Current EP", F("Wren", "Current")),
    right("Wren", "Eddy", F("Wren", "Eddy E.P.")),
    right("Wren", "Rip LP", F("Wren", "Rip")),
    right("Wren", "Swell (feat. Otto)", F("Wren", "Swell")),
    right("Wren", "S/T", F("Wren", "Wren")),
    right("Stone Archive", "Self-Titled", F("Stone Archive", "Stone Archive")),
    right("Moss Field", "Moss Field", F("Moss Field", "Moss Field (Reissue)")),
    # Notes that both sides have.
    right("Plough", "Harbor Lights (Live)", F("Plough", "Harbor Lights [Live]")),
    right("Plough", "Harbor Lights (Remixes)", F("Plough", "Harbor Lights Remixes")),
    right("Plough", "Plough (Blue Album)", F("Plough", "Plough (Blue Album)")),
    right("Plough", "Box (1994)", F("Plough", "Box (1994)")),
    # The right one among others.
    right("Otto", "Pine", F("Otto", "Oak"), F("Otto", "Pine"), at=1),
    right("Otto", "Ash", F("Ottoline", "Ash"), F("Otto", "Ash"), at=1),
    right("Otto", "Elm", F("Otto", "Elm (Live)"), F("Otto", "Elm"), at=1),
    right("Otto", "Fir", None, F("Otto", "Fir"), at=1),
    right("Otto", "Yew", F("Otto", "Yew", "A"), F("Otto", "Yew"), at=1),
    right("Otto", "Box", F("Otto", "Box EP"), F("Otto", "Box"), at=1),
    right("Otto", "Larch", F("Otto", "Larch Vol. 2"), F("Otto", "Larch"), at=1),
    right("Otto", "Beech", F("Otto", "Beech (Deluxe)", "M")),
    right("Otto", "Holly", F("Otto", "Holly", confidence=0.3)),
    right("Otto", "Hazel", F("Otto", "Hazel", confidence=None)),
    right("Otto", "Alder", F("Otto", "Alder"), unsure="LML gave up looking (timeout)"),
    # What the catalogue knows by its id.
    right("Otto", "Rowan", F("Somebody", "Rowan", release_id=77), releases=frozenset({77})),
    right("Otto", "Maple", F("Otto L.", "Maples", release_id=78), releases=frozenset({78})),
    right("Otto", "Lime", F("Otto", "Lime", release_id=79), releases=frozenset({80})),
    right("Otto", "Осина", F("Otto Lind", "Osina", release_id=81), stamped=frozenset({81})),
    right("Otto", "Sorb", F(None, None, release_id=82), stamped=frozenset({82})),
    right("Various Artists", "Hits", F("Various", "Hits")),
    right("V/A", "Bay Sounds", F("Various Artists", "Bay Sounds")),
    right("Various Artists - Rock - B", "Basement", F("Various", "Basement")),
    right("Thaw", "Ice", F("Thaw", "Ice", "apple", release_id=0)),
    right("Thaw", "Six Ft. Under", F("Thaw", "Six Ft Under")),
    # Hopeless: misspelt, shortened, or told apart by more than names.
    right("Thaw", "Winter Recieved", F("Thaw", "Winter Received")),
    right("Thaw", "Collected Songs", F("Thaw", "Collected Songs: The Early Years")),
    right("Thaw w/ Otto", "Melt", F("Thaw", "Melt")),
    right("Thaw", "Split", F("Thaw / Otto", "Split")),
    # Another volume, part or number.
    wrong("Delft Choir", "Singles Vol. 2", F("Delft Choir", "Singles Vol. 1", confidence=0.2)),
    wrong("Delft Choir", "Singles Vol. 2", F("Delft Choir", "Singles")),
    wrong("Delft Choir", "Singles", F("Delft Choir", "Singles Vol. 1")),
    wrong("Delft Choir", "Part II", F("Delft Choir", "Part III")),
    wrong("Delft Choir", "Tides 3", F("Delft Choir", "Tides IV")),
    wrong("Delft Choir", "No. 4", F("Delft Choir", "No. 5")),
    wrong("Delft Choir", "Anthology (Disc 1)", F("Delft Choir", "Anthology (Disc 2)")),
    wrong("Delft Choir", "Hits 1-2", F("Delft Choir", "Hits 12")),
    wrong("Delft Choir", "1987", F("Delft Choir", "1988")),
    # Live, remixes, demos, colours, years.
    wrong("Plough", "Harbor Lights", F("Plough", "Harbor Lights (Live)", confidence=1.0)),
    wrong("Plough", "Harbor Lights (Live)", F("Plough", "Harbor Lights")),
    wrong("Plough", "Harbor Lights", F("Plough", "Harbor Lights Live")),
    wrong("Plough", "Harbor Lights", F("Plough", "Harbor Lights (Remixes)")),
    wrong("Plough", "Harbor Lights", F("Plough", "Harbor Lights (Demos)")),
    wrong("Plough", "Harbor Lights", F("Plough", "Harbor Lights (Instrumentals)")),
    wrong("Plough", "Harbor Lights", F("Plough", "Harbor Lights (Live) [Deluxe Edition]")),
    wrong("Plough", "Harbor Lights", F("Plough", "Harbor Lights (Live Deluxe)")),
    wrong("Plough", "Harbor Lights", F("Plough", "Harbor Lights: The B-Sides")),
    wrong("Plough", "Plough", F("Plough", "Plough (Blue Album)")),
    wrong("Plough", "Plough (Blue Album)", F("Plough", "Plough (Green Album)")),
    wrong("Plough", "Box", F("Plough", "Box (1994)")),
    wrong("Plough", "Box (1994)", F("Plough", "Box (1996)")),
    wrong("Plough", "Current EP", F("Plough", "Current LP")),
    wrong("Plough", "Lights", F("Plough", "Lights Out")),
    wrong("Plough", "Harbor", F("Plough", "Harbour Master")),
    # Another artist.
    wrong("Wand Ash", "Slow River", F("Wanda Ash", "Slow River", confidence=0.5)),
    wrong("Wand Ash", "Slow River", F("Wand", "Slow River")),
    wrong("Wand Ash", "Slow River", F("Wand Ash & Otto", "Slow River")),
    wrong("Wand Ash", "Slow River", F("The Wand Ash Tribute", "Slow River")),
    wrong("Wand Ash", "Slow River", F("Various", "Slow River")),
    wrong("Wand Ash", "Slow River", F(None, "Slow River")),
    wrong("Wand Ash", "Slow River", F("", "")),
    wrong("Various Artists", "Slow River", F("Wand Ash", "Slow River")),
    wrong("Various Artists", "Hits", F("Various", "Hits (Deluxe)")),
    wrong("Various Artists", "Hits", F("Various", "Hits 2")),
    wrong("Moss Field", "First Light", F("Stone Archive", "Other Light", confidence=1.0)),
    wrong("Ash, Wand", "Slow River", F("Ash", "Slow River")),
    wrong("Tarn", "Deep", F("Tarns", "Deep")),
    wrong("Tarn", "S/T", F("Tarn", "Deep")),
    wrong("Кедр", "Снег", F("Kedr", "Sneg")),
    # What the catalogue names by an id that may be LML's own first result.
    wrong("Otto", "Bay Vol. 2", F("Otto", "Bay Vol. 1", release_id=83), stamped=frozenset({83})),
    wrong("Otto", "Cedar", F("Otto", "Cedar (Live)", release_id=84), stamped=frozenset({84})),
    wrong("Otto", "Gorse", F("Somebody", "Else", release_id=85), stamped=frozenset({85})),
    wrong("Otto", "Broom EP", F("Otto", "Broom LP", release_id=86), stamped=frozenset({86})),
    wrong(
        *("Moss Field", "First Light"),
        F("Stone Archive", "Other Light", release_id=87),
        stamped=frozenset({87}),
    ),
    # Pictures that are no cover.
    wrong("Aurora Pike", "Northern", F("Aurora Pike", "Northern", "A", 1.0)),
    wrong("Boreal", "Southern", F("Boreal", "Southern", "L", 1.0)),
    wrong("Boreal", "Eastern", F("Boreal", "Eastern", "spacer")),
    wrong("Boreal", "Western", F("Boreal", "Western", "none")),
    wrong("Boreal", "Central", F("Boreal", "Central", "elsewhere")),
    wrong("Boreal", "Outer", F("Boreal", "Outer", "A", release_id=5), releases=frozenset({5})),
    wrong("Boreal", "Inner", F("Boreal", "Inner", "http")),
    # No answer, or none of use.
    wrong("Thaw", "Cold One", unsure="LML gave up looking (timeout)"),
    wrong("Thaw", "Cold Two", None, unsure="LML could not look everywhere (deadline_exceeded)"),
    wrong("Thaw", "Cold Three"),
    wrong("Thaw", "Cold Four", None),
    wrong("Thaw", "Cold Five", F("Thaw", "Cold Six"), F("Thaw", "Cold Seven"), None),
    wrong("Thaw", "Cold Eight", F("Thaw", "Cold Eight", "A"), unsure="cut off"),
    wrong("Thaw", "Zero", F("Otto", "Nought", release_id=0), releases=frozenset()),
    # Hopeless: two artists of one name with an album of one title.
    wrong("Sade Lux", "Mirror", F("Sade Lux (7)", "Mirror")),
)

_URLS: Final = {
    "spacer": "https://st.discogs.com/images/spacer.gif",
    "elsewhere": "https://img.example/cover.jpg",
    "http": "http://i.discogs.com/R-1-1.jpeg",
    "apple": "https://is1-ssl.mzstatic.com/image/thumb/Music/v4/{}/source/600x600bb.jpg",
}


def row_of(number: int, album: Album) -> Row:
    return Row(
        id=number,
        artist_id=number,
        artist=album.artist,
        title=album.title,
        alternate_artist=album.alternate,
        sure_ids=frozenset(
            {("release", id_) for id_ in album.releases}
            | {("master", id_) for id_ in album.masters}
        ),
        stamped_ids=frozenset(("release", id_) for id_ in album.stamped),
    )


def url_of(number: int, place: int, found: Found) -> str | None:
    if found.picture == "none":
        return None
    known = _URLS.get(found.picture)
    return known.format(number) if known else artwork_url(number * 10 + place, found.picture)


def answer_of(number: int, album: Album) -> LookupAnswer:
    return LookupAnswer(
        tuple(
            found
            and Artwork(
                found.artist or None,
                found.album or None,
                number * 10 + place if found.release_id is None else found.release_id,
                url_of(number, place, found),
                found.confidence,
            )
            for place, found in enumerate(album.found)
        ),
        album.unsure,
    )
