"""Whether two spellings name the same artist or the same album. Pure functions over text.

The library's catalogue and Discogs differ in spelling where it means nothing, and agree where
records differ. These are the rules; the examples are tests.

| what differs                                  | same?  | example                                 |
|-----------------------------------------------|--------|-----------------------------------------|
| case, accents, punctuation, spaces            | same   | Sigur Rós, sigur ros; R.E.M., REM       |
| HTML entities                                 | same   | Rock &amp; Roll, Rock & Roll            |
| "and", "&", "+" between words                 | same   | Salt & Pepper, Salt + Pepper            |
| a leading "The", also after a comma           | same   | The Fall, Fall, The                     |
| artist: last name first                       | same   | Davis, Miles, Miles Davis               |
| artist: the number that Discogs appends, "*"  | same   | Harbor (2), Harbor*                     |
| guests: "feat." and the following words       | same   | Wren feat. Otto, Wren                   |
| volume words                                  | same   | Vol. 2, Volume 2, Vol. II, Volume Two   |
| a numeral at the end                          | same   | Tides III, Tides 3                      |
| self-titled                                   | same   | S/T, the artist's name                  |
| a note that names an edition                  | alike  | Low Tide (Remastered 2011), Low Tide    |
| "EP" or "LP" at the end                       | alike  | Low Tide EP, Low Tide                   |
| any other note                                | differ | Harbor (Live), Harbor; Box (1994), Box  |
| another number, word or letter                | differ | Vol. 1, Vol. 2; Wand Ash, Wanda Ash     |

"Alike" applies to albums of the same artist; compilations of various artists must be the same.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

#: `library.album_title` is a varchar(128), so titles of this length may be truncated.
TITLE_MAX: Final = 128

# Accents of Latin, Greek and Cyrillic letters. In other scripts, marks make different letters.
_ACCENTS: Final = range(0x0300, 0x0370)
# Letters that Unicode does not decompose, although catalogues spell them either way.
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
# In titles only if it cannot mean anything else: there is "Six Ft. Under".
_GUESTS_OF_TITLE: Final = re.compile(
    r"\s*[(\[]\s*(?:feat|ft|featuring)\b[^)\]]*[)\]]|\s+feat\.\s.*$", re.IGNORECASE
)
_LAST_FIRST: Final = re.compile(r"(?P<last>[^,]+),\s*(?P<first>[^,]+)")
# Catalogues append the shelf, as in "Various Artists - Rock - B".
_VARIOUS: Final = re.compile(r"various|va|variousartists.*")
_SELF_TITLED: Final = frozenset({"st", "selftitled", "selftitle", "eponymous"})

_NOTE: Final = re.compile(r"\s*[(\[{<]([^()\[\]{}<>]*)[)\]}>]\s*$")
_TAIL: Final = re.compile(r"(?:\s+[-\N{EN DASH}\N{EM DASH}]|[:,])\s+([^-:,]+)$")
_COUNT_SIGN: Final = re.compile(r"#\s*(?=\d)")
_FORMATS: Final = frozenset({"ep", "lp"})

# A note names an edition if all its words are in these sets, and at least one is in the first.
_EDITION_WORDS: Final = frozenset(
    {"anniversary", "bonus", "deluxe", "edition", "expanded", "limited", "special", "reissue"}
    | {"reissued", "remaster", "remastered", "remasters", "clean", "explicit", "mono", "stereo"}
    | {"cd", "digital", "import", "lp", "ep", "promo", "vinyl", "soundtrack", "ost"}
)
# After a dash, colon or comma, one of these words is required.
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
# At the end of a title these are nearly always numerals, not words or initials.
_SURE_NUMERALS: Final = frozenset({"ii", "iii", "iv", "vi", "vii", "viii", "ix", "xi", "xii"})


@dataclass(frozen=True, slots=True)
class Title:
    """A title in its normal form, with and without what only names an edition or a format.

    `whole` is the whole title; two albums with equal `whole` are the same. `bare` excludes notes
    that name an edition, and "EP" or "LP" at the end, which is the `format`.
    """

    whole: str
    bare: str
    format: str

    @classmethod
    def of(cls, text: str) -> Title:
        """Parse a title; all fields are empty only for blank text."""
        text = _legible(text)
        text = _GUESTS_OF_TITLE.sub("", text) or text
        bare, format_ = _without_format(_without_editions(text))
        return cls(_title_form(text), _title_form(bare), format_)

    @property
    def key(self) -> str:
        """The album, regardless of its edition; an EP is a different album."""
        return f"{self.bare} {self.format}"

    def is_alike(self, other: Title) -> bool:
        """Return whether both differ only by the edition, or one of them has a format."""
        formats = {self.format, other.format} - {""}
        return _same(self.bare, other.bare) and len(formats) < 2


def normal_form(text: str) -> str:
    """Return a name without case, accents, punctuation, spaces and "The".

    The result is empty only for blank text: a name without letters and digits, such as "!!!",
    stands for itself.
    """
    plain = _fold(_legible(text))
    return _join(_without_the(_words(_spell_out_and(plain)), plain)) or "".join(plain.split())


def same_artist(one: str, other: str) -> bool:
    """Return whether two texts name the same artist."""
    if is_various(one):
        return is_various(other)
    return not _artist_forms(one).isdisjoint(_artist_forms(other))


def is_various(artist: str) -> bool:
    """Return whether an artist is only a name for compilations, such as Various Artists."""
    return _VARIOUS.fullmatch(normal_form(artist)) is not None


def same_title(ours: str, found: str, *, artists: Iterable[str] = ()) -> bool:
    """Return whether the title of a row and a found title are the same, including notes.

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
    """Return whether two titles differ only by an edition or a format."""
    return Title.of(ours).is_alike(Title.of(found))


def _is_self_titled(mine: str, theirs: str, artists: Iterable[str]) -> bool:
    names = set().union(*map(_artist_forms, artists))
    return (mine in _SELF_TITLED and theirs in names) or (theirs in _SELF_TITLED and mine in names)


def _same(one: str, other: str) -> bool:
    return bool(one) and one == other


# -- artists ---------------------------------------------------------------------------------------


def _artist_forms(artist: str) -> frozenset[str]:
    """Return the normal forms under which an artist may be listed; none for blank text."""
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
    """Unify volume words and the numerals after them or at the end."""
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
    """Remove final notes that name an edition, in brackets or after a dash, colon or comma."""
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
    """Return a title without a final "EP" or "LP", and the removed format."""
    words = text.split()
    last = normal_form(words[-1]) if len(words) > 1 else ""
    return (" ".join(words[:-1]), last) if last in _FORMATS else (text, "")


# -- letters ---------------------------------------------------------------------------------------


def _legible(text: str) -> str:
    """Return text with single spaces, truncated to a length that any name fits.

    The patterns of this module take quadratic time on very long white space.
    """
    return " ".join(html.unescape(text[:_LONGEST_NAME]).split())


def _fold(text: str) -> str:
    # Decomposed a second time, because case folding may compose letters.
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    bare = "".join(char for char in folded if ord(char) not in _ACCENTS)
    return bare.translate(_PLAIN_LETTERS).translate(_APOSTROPHES)


def _spell_out_and(plain: str) -> str:
    return plain.replace("&", " and ").replace(" + ", " and ")


def _words(folded: str) -> list[str]:
    """Return the sequences of letters, marks and digits."""
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
    """Join words without spaces, so that "R.E.M." becomes "REM", but "1-2" does not become "12"."""
    joined = ""
    for word in words:
        separator = " " if joined and joined[-1].isdigit() and word[0].isdigit() else ""
        joined += separator + word
    return joined
