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
| artist: "*", a number of Discogs on one side  | same   | Harbor (2), Harbor*                     |
| artist: two numbers of Discogs                | differ | Harbor (2), Harbor (3)                  |
| guests on one side: "feat." and a name        | same   | Wren feat. Otto, Wren                   |
| what follows the guests                       | differ | Tide feat. Otto, Vol. 2; Tide           |
| "ft" after a number, which is a length        | differ | Ten Ft. Hedge, Ten Ft. Wall             |
| volume words                                  | same   | Vol. 2, Volume 2, Vol. II, Volume Two   |
| a numeral at the end                          | same   | Tides III, Tides 3                      |
| self-titled                                   | same   | S/T, the artist's name                  |
| a note that names an edition                  | alike  | Low Tide (Remastered 2011), Low Tide    |
| numbers of remasters, reissues, anniversaries | alike  | Low Tide (20th Anniversary), Low Tide   |
| years of other editions, on both sides        | differ | (2011 Deluxe), (2012 Deluxe)            |
| any other number in a note                    | differ | Low Tide (CD 12), Low Tide              |
| "EP" or "LP" at the end or in a last note     | alike  | Low Tide EP, Low Tide                   |
| "EP" and "LP"                                 | differ | Low Tide (EP), Low Tide (LP)            |
| a record that came as a bonus                 | differ | Low Tide (Bonus EP), Low Tide           |
| any other note                                | differ | Harbor (Live), Harbor; Box (1994), Box  |
| another number, word or letter                | differ | Vol. 1, Vol. 2; Wand Ash, Wanda Ash     |

"Alike" applies to albums of the same artist; compilations of various artists must be the same.

Names that are neither the same nor alike may still be spellings that these rules do not know: of
another script, or an alias. They *contradict* each other only where records surely differ:

| what differs                                  | example                                         |
|-----------------------------------------------|-------------------------------------------------|
| the number of a volume or part, or another    | Singles Vol. 2, Singles Vol. 1; Tides, Tides 2  |
| live, remixes, demos, ... on one side only    | Harbor (Live), Harbor                           |
| the year, or "EP" and "LP"                    | Box 1994, Box 1996                              |
| many letters, in the same script              | Slow River, First Light                         |
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
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

_DISCOGS_NUMBER: Final = re.compile(r"\s*\((\d{1,4})\)$")
# "Feat" without a dot may be a word: there is "Little Feat & Friends".
_GUESTS: Final = re.compile(
    r"(?:\s*[(\[]\s*(?i:feat|ft|featuring)\b\.?|\s+(?:(?i:feat\.|ft\.|featuring)|feat|ft))\s+"
    r"(?P<guests>.+)$"
)
# In titles only if it cannot mean anything else: there is "Six Ft. Under".
_NOTED_GUESTS: Final = re.compile(
    r"\s*[(\[]\s*(?:feat|ft|featuring)\b(?!\.?\s+of\b)\.?(?P<guests>[^()\[\]]*)[)\]]", re.IGNORECASE
)
_GUESTS_OF_TITLE: Final = re.compile(
    r"\s+feat\.\s+(?P<guests>(?:(?!\s*[()\[\]{}<>,;:/]|\s[-\N{EN DASH}\N{EM DASH}]\s).)+)",
    re.IGNORECASE,
)
_LAST_FIRST: Final = re.compile(r"(?P<last>[^,]+),\s*(?P<first>[^,]+)")
# Catalogues append the shelf, as in "Various Artists - Rock - B".
_VARIOUS: Final = re.compile(r"various|va|variousartists.*")
_SELF_TITLED: Final = frozenset({"st", "selftitled", "selftitle", "eponymous"})

_NOTE: Final = re.compile(r"\s*[(\[{<]([^()\[\]{}<>]*)[)\]}>]\s*$")
_TAIL: Final = re.compile(r"(?:\s+[-\N{EN DASH}\N{EM DASH}]|[:,])\s+([^-:,]+)$")
_COUNT_SIGN: Final = re.compile(r"#\s*(?=\d)")
_CARRIER_COUNT: Final = re.compile(
    r"\b\d{1,2}\s?(?:x\s?|-)?(?:(?:cds?|lps?|dvds?|discs?|inch)\b|\")", re.IGNORECASE
)
_FORMATS: Final = frozenset({"ep", "lp"})

# These words name the same album at another time, whatever their numbers.
_RELEASED_AGAIN: Final = frozenset(
    {"anniversary", "reissue", "reissued", "remaster", "remastered", "remasters"}
)
# A note names an edition if all its words are in these sets, and at least one is in the first.
_EDITION_WORDS: Final = _RELEASED_AGAIN | frozenset(
    {"bonus", "deluxe", "edition", "expanded", "limited", "special", "clean", "explicit"}
    | {"cd", "digital", "import", "mono", "stereo", "promo", "vinyl", "soundtrack", "ost"}
)
# "2011 Edition" alone is more likely a record of a yearly series.
_DATED_EDITIONS: Final = frozenset({"deluxe", "expanded"})
# A bonus record has its own sleeve, unlike an album that includes one, or bonus tracks.
_CARRIERS: Final = _FORMATS | {"cd", "vinyl"}
# After a dash, colon or comma, one of these words is required.
_SURE_EDITION_WORDS: Final = frozenset(
    {"anniversary", "deluxe", "edition", "expanded", "reissue", "remaster", "remastered"}
)
_EDITION_FILLERS: Final = frozenset(
    {"the", "a", "of", "with", "and", "version", "release", "track", "tracks", "collectors"}
    | {"super", "year", "years", "original", "motion", "picture", "film", "television", "series"}
    | {"digitally", "copy"}
)
_YEAR: Final = re.compile(r"(?:19|20)\d\d")
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
_NUMBER_WORDS: Final = frozenset(name for name in _NUMERALS if set(name) - set("ivx"))
# Before "ft", these make it a length.
_LENGTHS: Final = _NUMBER_WORDS | {"twenty", "thirty", "forty", "fifty", "hundred", "thousand"}

# Words that distinguish recordings of the same songs.
_VERSIONS: Final = {
    "live": "live", "vivo": "live", "concert": "live", "unplugged": "live",
    "remix": "remix", "remixes": "remix", "remixed": "remix", "rmx": "remix", "remixs": "remix",
    "reworks": "remix", "reworked": "remix", "megamix": "remix", "mixes": "remix", "mix": "remix",
    "demo": "demo", "demos": "demo", "outtakes": "demo", "rehearsals": "demo",
    "instrumental": "instrumental", "instrumentals": "instrumental", "karaoke": "instrumental",
    "acoustic": "acoustic", "dub": "dub", "acapella": "acapella", "acappella": "acapella",
    "acapellas": "acapella", "session": "session", "sessions": "session", "tribute": "tribute",
    "covers": "tribute", "rarities": "rarities", "bsides": "rarities", "sampler": "sampler",
    "interview": "interview", "edit": "edit", "edits": "edit", "bootleg": "bootleg",
    "rerecorded": "rerecorded", "orchestral": "orchestral", "symphonic": "orchestral",
}  # fmt: skip

#: Names in the same script whose letters agree less than this are not spellings of each other.
_SPELLING: Final = 0.75


@dataclass(frozen=True, slots=True)
class Title:
    """A title in its normal form, with and without what only names an edition or a format.

    `whole` is the whole title; two albums with equal `whole` are the same. `bare` excludes notes
    that name an edition, and "EP" or "LP" at the end, which is the `format`; `bare_text` is its
    text. `years` are those of the excluded notes, unless the album was only released again;
    `guests` belong to neither.
    """

    whole: str
    bare: str
    bare_text: str
    format: str
    years: frozenset[str]
    guests: str

    @classmethod
    def of(cls, text: str) -> Title:
        """Parse a title; `whole` and `bare` are empty only for blank text."""
        whole, guests = _split_guests_of_title(_legible(text))
        bare, notes = _split_editions(whole)
        bare, format_ = _without_format(bare)
        words = [set(_words(_fold(note))) for note in notes]
        formats = {format_, *(_FORMATS & set().union(*words))} - {""}
        years = {
            word
            for note in words
            if not note & _RELEASED_AGAIN
            for word in note
            if _YEAR.fullmatch(word)
        }
        return cls(
            _title_form(whole),
            _title_form(bare),
            bare,
            " ".join(sorted(formats)),
            frozenset(years),
            guests,
        )

    @property
    def key(self) -> str:
        """The album, regardless of its edition; an EP is a different album."""
        return f"{self.bare} {self.format}"

    def is_alike(self, other: Title) -> bool:
        """Return whether both differ only by the edition, or one of them has a format."""
        return (
            _same(self.bare, other.bare)
            and _agree(self.format, other.format)
            and _agree(self.years, other.years)
            and _agree(self.guests, other.guests)
        )


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
    mine, theirs = _Artist.of(one), _Artist.of(other)
    return (
        not mine.forms.isdisjoint(theirs.forms)
        and _agree(mine.number, theirs.number)
        and _agree(mine.guests, theirs.guests)
    )


def is_various(artist: str) -> bool:
    """Return whether an artist is only a name for compilations, such as Various Artists."""
    return _VARIOUS.fullmatch(normal_form(artist)) is not None


def same_title(ours: str, found: str, *, artists: Iterable[str] = ()) -> bool:
    """Return whether the title of a row and a found title are the same, including notes.

    `artists` are the names of the row's artist, for self-titled albums.
    """
    mine, theirs = Title.of(ours), Title.of(found)
    if len(ours) == TITLE_MAX and mine.whole and theirs.whole.startswith(mine.whole):
        # The next character may be the second digit of a number.
        return mine.whole == theirs.whole or not contradict(ours, found)
    if not _agree(mine.guests, theirs.guests):
        return False
    return _same(mine.whole, theirs.whole) or _is_self_titled(mine.whole, theirs.whole, artists)


def alike_title(ours: str, found: str) -> bool:
    """Return whether two titles differ only by an edition or a format."""
    return Title.of(ours).is_alike(Title.of(found))


def contradict(ours: str, found: str) -> bool:
    """Return whether two titles differ in a detail that distinguishes records.

    Marks on one side only count if both titles have letters of the same script, because they
    could be missed in another.
    """
    if not ours.strip() or not found.strip():
        return False
    mine, theirs = _Marks.of(ours), _Marks.of(found)
    if not (
        _agree(mine.numbers, theirs.numbers)
        and _agree(mine.years, theirs.years)
        and _agree(mine.format, theirs.format)
    ):
        return True
    if _scripts(ours).isdisjoint(_scripts(found)):
        return False
    return mine.numbers != theirs.numbers or mine.versions != theirs.versions


def clearly_differ(one: str, other: str) -> bool:
    """Return whether two names can be recognised as different, not as spellings of each other."""
    if _scripts(one).isdisjoint(_scripts(other)):
        return False
    mine, theirs = (set(_words(_spell_out_and(_fold(name)))) for name in (one, other))
    if mine <= theirs or theirs <= mine:
        return False
    forms = normal_form(one), normal_form(other)
    return SequenceMatcher(None, *forms, autojunk=False).ratio() < _SPELLING


def _is_self_titled(mine: str, theirs: str, artists: Iterable[str]) -> bool:
    names = set().union(*(_Artist.of(artist).forms for artist in artists))
    return (mine in _SELF_TITLED and theirs in names) or (theirs in _SELF_TITLED and mine in names)


def _same(one: str, other: str) -> bool:
    return bool(one) and one == other


def _agree(one: object, other: object) -> bool:
    """Return whether two details are equal, or one of them is missing."""
    return not one or not other or one == other


# -- artists ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Artist:
    """The parts of an artist's name.

    `forms` are the normal forms under which the artist may be listed, none for blank text;
    `number` is the one that Discogs appends to the second artist of a name.
    """

    forms: frozenset[str]
    number: int | None
    guests: str

    @classmethod
    def of(cls, text: str) -> _Artist:
        name, guests = _split_guests(_legible(text))
        name = name.rstrip("* ") or name
        number = _DISCOGS_NUMBER.search(name)
        if number is not None and number.start():
            name = name[: number.start()].rstrip("* ") or name
        else:
            number = None
        forms = {normal_form(name)}
        if match := _LAST_FIRST.fullmatch(name.strip()):
            forms.add(normal_form(f"{match['first']} {match['last']}"))
        return cls(
            frozenset(forms - {""}),
            int(number[1]) if number else None,
            normal_form(guests.rstrip(")]")),
        )


def _split_guests(text: str) -> tuple[str, str]:
    """Return an artist's name without the guests, and the guests."""
    match = _GUESTS.search(text)
    if match is None or not (name := text[: match.start()].strip()):
        return text, ""
    last = (_words(_fold(name)) or [""])[-1]
    is_length = match[0].strip()[:2].casefold() == "ft" and (last.isdecimal() or last in _LENGTHS)
    return (text, "") if is_length else (name, match["guests"])


# -- titles ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Marks:
    """The details that distinguish a record from others of the same name.

    `numbers` are those of volumes and parts, and all others but years.
    """

    numbers: frozenset[str]
    years: frozenset[str]
    versions: frozenset[str]
    format: str

    @classmethod
    def of(cls, text: str) -> _Marks:
        # "2 CD" is a number of discs, not of a volume.
        title = Title.of(_CARRIER_COUNT.sub(" ", _legible(text)))
        words = _words(_COUNT_SIGN.sub(" no ", _fold(title.bare_text)))
        numbers = {_number_at(words, position) for position in range(len(words))} - {""}
        found = {number for word in words for number in re.findall(r"\d+", word)}
        years = {number for number in found if _YEAR.fullmatch(number)}
        numbers |= {str(int(number)) for number in found - years}
        versions = {_VERSIONS[word] for word in words if word in _VERSIONS}
        if "bsides" in "".join(words):
            versions.add("rarities")
        return cls(frozenset(numbers), frozenset(years), frozenset(versions), title.format)


def _number_at(words: Sequence[str], position: int) -> str:
    """Return the number or the letter of a volume that a word denotes, or nothing."""
    word = words[position]
    is_counted = position > 0 and words[position - 1] in _VOLUME_WORDS
    if word in _NUMBER_WORDS | _SURE_NUMERALS or (is_counted and word in _NUMERALS):
        return str(_NUMERALS[word])
    return word if is_counted and len(word) == 1 and word.isalpha() else ""


def _split_guests_of_title(text: str) -> tuple[str, str]:
    """Return a title without its guests, and the guests.

    All that distinguishes records stays, although it may stand among the guests.
    """
    guests: list[str] = []

    def without(match: re.Match[str]) -> str:
        rest = _told_apart(match["guests"])
        if rest and match.re is _NOTED_GUESTS:
            return match[0]
        guests.append(match["guests"].removesuffix(rest))
        return rest

    shorter = _NOTED_GUESTS.sub(without, text) or text
    return _GUESTS_OF_TITLE.sub(without, shorter) or shorter, normal_form(" ".join(guests))


def _told_apart(guests: str) -> str:
    """Return the text after the names of guests, from the first word that distinguishes records."""
    words = guests.split()
    # The first word is always a name: there is "2 Chainz".
    for position, word in enumerate(words[1:], 1):
        parts = set(_words(_fold(word)))
        is_last = position == len(words) - 1
        if (
            parts & (_VOLUME_WORDS.keys() | _VERSIONS.keys() | _FORMATS)
            or (is_last and parts & _NUMERALS.keys())
            or re.search(r"\d", _fold(word))
        ):
            return " " + " ".join(words[position:])
    return ""


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


def _split_editions(text: str) -> tuple[str, list[str]]:
    """Return a title without its final notes that name an edition, and these notes.

    Notes stand in brackets or after a dash, colon or comma.
    """
    notes: list[str] = []
    while True:
        note, tail = _NOTE.search(text), _TAIL.search(text)
        found = note or tail
        if found is None or not text[: found.start()].strip():
            return text, notes
        if not _names_edition(found[1], _EDITION_WORDS | _FORMATS if note else _SURE_EDITION_WORDS):
            return text, notes
        notes.append(found[1])
        text = text[: found.start()]


def _names_edition(note: str, telling: frozenset[str]) -> bool:
    words = set(_words(_fold(note)))
    if not words & telling or ("bonus" in words and words & _CARRIERS and "with" not in words):
        return False
    others = words - _EDITION_WORDS - _EDITION_FILLERS - _FORMATS
    # "Remastered 77" names a year, but "Remastered CD 12" one of several records.
    if words & _RELEASED_AGAIN and not words & _CARRIERS:
        return all(map(_YEAR_OR_COUNT.fullmatch, others))
    is_dated = words & (_DATED_EDITIONS | _RELEASED_AGAIN)
    return not others or (bool(is_dated) and all(map(_YEAR.fullmatch, others)))


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
    # "The The" is another band than "The".
    if len(words) > 1 and set(words) != {"the"}:
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


def _scripts(text: str) -> frozenset[str]:
    """Return the scripts of a name's letters, as Unicode names them, and of its digits."""
    return frozenset(
        unicodedata.name(char, "").partition(" ")[0]
        for char in _fold(_legible(text))
        if unicodedata.category(char)[0] in "LN"
    )
