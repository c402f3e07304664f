"""When two spellings name the same artist, or the same album. Pure functions over text.

The catalogue of the library and Discogs spell differently in ways that mean nothing, and alike
where records differ. These are the rules; the examples are tests.

| what differs                                  | same?  | example                                 |
|-----------------------------------------------|--------|-----------------------------------------|
| case, accents, punctuation, spaces            | same   | Sigur Rós, sigur ros; R.E.M., REM       |
| HTML entities                                 | same   | Rock &amp; Roll, Rock & Roll            |
| "and", "&", "+" between words                 | same   | Salt & Pepper, Salt + Pepper            |
| a leading "The", also behind a comma          | same   | The Fall, Fall, The                     |
| artist: last name first                       | same   | Davis, Miles, Miles Davis               |
| artist: the number that Discogs appends, "*"  | same   | Harbor (2), Harbor*                     |
| guests: "feat." and what follows              | same   | Wren feat. Otto, Wren                   |
| volume words                                  | same   | Vol. 2, Volume 2, Vol. II, Volume Two   |
| a numeral at the end                          | same   | Tides III, Tides 3                      |
| self-titled                                   | same   | S/T, the artist's name                  |
| a note that names an edition                  | alike  | Low Tide (Remastered 2011), Low Tide    |
| "EP" or "LP" at the end                       | alike  | Low Tide EP, Low Tide                   |
| any other note                                | differ | Harbor (Live), Harbor; Box (1994), Box  |
| another number, word or letter                | differ | Vol. 1, Vol. 2; Wand Ash, Wanda Ash     |

"Alike" is for an album of the same artist; compilations of various artists must be the same.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

#: `library.album_title` is a varchar(128): titles of this length may have lost their end.
TITLE_MAX: Final = 128

# Accents of Latin, Greek and Cyrillic letters. The marks of other scripts make other letters.
_ACCENTS: Final = range(0x0300, 0x0370)
# Letters that Unicode does not take apart, although catalogues spell them either way.
_PLAIN_LETTERS: Final = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h"}
    | {"\N{LATIN SMALL LETTER DOTLESS I}": "i"}
)
_APOSTROPHES: Final = str.maketrans(
    dict.fromkeys("'`\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}")
)

_LONGEST_NAME: Final = 1_000

_DISCOGS_NUMBER: Final = re.compile(r"\s*\(\d{1,4}\)\s*$")
_GUESTS: Final = re.compile(r"\s*[(\[]?\s*\b(?:feat|ft|featuring)\b\.?\s.*$", re.IGNORECASE)
# In titles only where it can be nothing else: there is "Six Ft. Under".
_GUESTS_OF_TITLE: Final = re.compile(
    r"\s*[(\[]\s*(?:feat|ft|featuring)\b[^)\]]*[)\]]|\s+feat\.\s.*$", re.IGNORECASE
)
_LAST_FIRST: Final = re.compile(r"(?P<last>[^,]+),\s*(?P<first>[^,]+)")
# Catalogues add the shelf, as in "Various Artists - Rock - B".
_VARIOUS: Final = re.compile(r"various|va|variousartists.*")
_SELF_TITLED: Final = frozenset({"st", "selftitled", "selftitle", "eponymous"})

_NOTE: Final = re.compile(r"\s*[(\[{<]([^()\[\]{}<>]*)[)\]}>]\s*$")
_TAIL: Final = re.compile(r"(?:\s+[-\N{EN DASH}\N{EM DASH}]|[:,])\s+([^-:,]+)$")
_COUNT_SIGN: Final = re.compile(r"#\s*(?=\d)")
_FORMATS: Final = frozenset({"ep", "lp"})

# A note names an edition when all its words are in these sets, and one at least is in the first.
_EDITION_WORDS: Final = frozenset(
    {"anniversary", "bonus", "deluxe", "edition", "expanded", "limited", "special", "reissue"}
    | {"reissued", "remaster", "remastered", "remasters", "clean", "explicit", "mono", "stereo"}
    | {"cd", "digital", "import", "lp", "ep", "promo", "vinyl", "soundtrack", "ost"}
)
# Behind a dash, colon or comma, one of these has to be there.
_SURE_EDITION_WORDS: Final = frozenset(
    {"anniversary", "deluxe", "edition", "expanded", "reissue", "remaster", "remastered"}
)
_EDITION_FILLERS: Final = frozenset(
    {
        "the",
        "a",
        "of",
        "with",
        "and",
        "version",
        "release",
        "track",
        "tracks",
        "collectors",
        "super",
    }
    | {"year", "years"}
    | {"original", "motion", "picture", "film", "television", "series", "digitally", "copy"}
)
_YEAR_OR_COUNT: Final = re.compile(r"(?:19|20)\d\d|\d\d|\d{1,2}(?:st|nd|rd|th)")

_VOLUME_WORDS: Final = {
    "vol": "vol", "vols": "vol", "volume": "vol", "pt": "part", "part": "part",
    "no": "no", "nr": "no", "number": "no", "chapter": "chapter", "book": "book", "disc": "disc",
}  # fmt: skip
_NUMERALS: Final = {
    "i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9, "x": 10,
    "xi": 11, "xii": 12, "xiii": 13, "xiv": 14, "xv": 15,
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12,
}  # fmt: skip
# At the end of a title these are numerals and hardly ever words or initials.
_SURE_NUMERALS: Final = frozenset({"ii", "iii", "iv", "vi", "vii", "viii", "ix", "xi", "xii"})


@dataclass(frozen=True, slots=True)
class Title:
    """A title in its normal form, and apart from what only names an edition or a format.

    `whole` is all of it; two albums whose `whole` is equal are the same. `bare` is without notes
    that name an edition and without "EP" or "LP" at the end, which is the `format`.
    """

    whole: str
    bare: str
    format: str

    @classmethod
    def of(cls, text: str) -> Title:
        """Read a title; all is empty for blank text alone."""
        text = _legible(text)
        text = _GUESTS_OF_TITLE.sub("", text) or text
        bare, format_ = _without_format(_without_editions(text))
        return cls(_title_form(text), _title_form(bare), format_)

    @property
    def key(self) -> str:
        """The album that this is, whatever its edition; an EP is another one than the album."""
        return f"{self.bare} {self.format}"

    def is_alike(self, other: Title) -> bool:
        """Return whether both are the same but for the edition, and for a format of one alone."""
        formats = {self.format, other.format} - {""}
        return _same(self.bare, other.bare) and len(formats) < 2


def normal_form(text: str) -> str:
    """Return what is left of a name without case, accents, punctuation, spaces and "The".

    Empty only for blank text: a name without any letter or digit, such as "!!!", stands for
    itself.
    """
    plain = _fold(_legible(text))
    return _join(_without_the(_words(_spell_out_and(plain)), plain)) or "".join(plain.split())


def same_artist(one: str, other: str) -> bool:
    """Return whether two texts name the same artist."""
    if is_various(one):
        return is_various(other)
    return not _artist_forms(one).isdisjoint(_artist_forms(other))


def is_various(artist: str) -> bool:
    """Return whether an artist is only a name for compilations, which says nothing of the album."""
    return _VARIOUS.fullmatch(normal_form(artist)) is not None


def same_title(ours: str, found: str, *, artists: Iterable[str] = ()) -> bool:
    """Return whether the title of a row and a title that was found are the same, notes included.

    Parameters
    ----------
    artists
        The names of the row's artist, for self-titled albums.
    """
    mine, theirs = Title.of(ours).whole, Title.of(found).whole
    if len(ours) == TITLE_MAX and mine:
        return theirs.startswith(mine)
    return _same(mine, theirs) or _is_self_titled(mine, theirs, artists)


def alike_title(ours: str, found: str) -> bool:
    """Return whether two titles are the same but for what only names an edition or a format."""
    return Title.of(ours).is_alike(Title.of(found))


def _is_self_titled(mine: str, theirs: str, artists: Iterable[str]) -> bool:
    names = set().union(*map(_artist_forms, artists))
    return (mine in _SELF_TITLED and theirs in names) or (theirs in _SELF_TITLED and mine in names)


def _same(one: str, other: str) -> bool:
    return bool(one) and one == other


# -- artists ---------------------------------------------------------------------------------------


def _artist_forms(artist: str) -> frozenset[str]:
    """Return the normal forms under which an artist may be filed; none for blank text."""
    text = _legible(artist)
    text = _DISCOGS_NUMBER.sub("", text).rstrip("* ") or text
    text = _without_guests(text)
    forms = {normal_form(text)}
    if match := _LAST_FIRST.fullmatch(text.strip()):
        forms.add(normal_form(f"{match['first']} {match['last']}"))
    return frozenset(forms - {""})


def _without_guests(text: str) -> str:
    shorter = _GUESTS.sub("", text)
    return shorter if shorter.strip() else text


# -- titles ----------------------------------------------------------------------------------------


def _title_form(text: str) -> str:
    plain = _fold(text)
    words = _without_the(_words(_spell_out_and(_COUNT_SIGN.sub(" no ", plain))), plain)
    return _join(_numbered(words)) or "".join(plain.split())


def _numbered(words: Sequence[str]) -> list[str]:
    """Write volume words and the numerals behind them, or at the end, in one way."""
    written: list[str] = []
    for position, word in enumerate(words):
        is_counted = position > 0 and words[position - 1] in _VOLUME_WORDS
        is_last = position > 0 and position == len(words) - 1
        if (is_counted and word in _NUMERALS) or (is_last and word in _SURE_NUMERALS):
            written.append(str(_NUMERALS[word]))
        elif is_counted and word.isdecimal():
            written.append(str(int(word)))
        else:
            written.append(_VOLUME_WORDS.get(word, word))
    return written


def _without_editions(text: str) -> str:
    """Drop notes at the end that name an edition, in brackets or behind a dash, colon or comma."""
    while True:
        note, tail = _NOTE.search(text), _TAIL.search(text)
        found = note or tail
        if found is None or not text[: found.start()].strip():
            return text
        if not _names_edition(found[1], _EDITION_WORDS if note else _SURE_EDITION_WORDS):
            return text
        text = text[: found.start()]


def _names_edition(note: str, telling: frozenset[str]) -> bool:
    words = set(_words(_fold(note)))
    others = words - _EDITION_WORDS - _EDITION_FILLERS
    return bool(words & telling) and all(map(_YEAR_OR_COUNT.fullmatch, others))


def _without_format(text: str) -> tuple[str, str]:
    """Return a title without "EP" or "LP" at its end, and which of them that was."""
    words = text.split()
    last = normal_form(words[-1]) if len(words) > 1 else ""
    return (" ".join(words[:-1]), last) if last in _FORMATS else (text, "")


# -- letters ---------------------------------------------------------------------------------------


def _legible(text: str) -> str:
    """Return text with one space where there is white space, and no more of it than a name takes.

    The patterns here take the square of the time for white space without end.
    """
    return " ".join(html.unescape(text[:_LONGEST_NAME]).split())


def _fold(text: str) -> str:
    # Taken apart a second time, because folding the case may put letters together.
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    bare = "".join(char for char in folded if ord(char) not in _ACCENTS)
    return bare.translate(_PLAIN_LETTERS).translate(_APOSTROPHES)


def _spell_out_and(plain: str) -> str:
    return plain.replace("&", " and ").replace(" + ", " and ")


def _words(folded: str) -> list[str]:
    """Return the runs of letters, marks and digits."""
    return "".join(
        char if unicodedata.category(char)[0] in "LMN" else " " for char in folded
    ).split()


def _without_the(words: list[str], plain: str) -> list[str]:
    if len(words) > 1:
        if words[0] == "the":
            return words[1:]
        if words[-1] == "the" and re.search(r",\s*the\s*$", plain):
            return words[:-1]
    return words


def _join(words: Sequence[str]) -> str:
    """Put words together without spaces, as "R.E.M." is "REM", but not "1-2" into "12"."""
    joined = ""
    for word in words:
        separator = " " if joined and joined[-1].isdigit() and word[0].isdigit() else ""
        joined += separator + word
    return joined
