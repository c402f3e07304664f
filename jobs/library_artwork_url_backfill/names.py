"""When two spellings name the same artist or album. Pure functions over text.

The library's catalogue and LML spell alike, but not always: by case, accents, punctuation, a
leading "The", and notes in brackets behind an album's title. Everything else that differs makes
another name, because a wrong cover is worse than none.
"""

from __future__ import annotations

import re
import unicodedata
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

_NOTE: Final = re.compile(r"\s*[(\[{<]([^()\[\]{}<>]*)[)\]}>]\s*$")
# Words of notes that tell editions of an album apart. Other notes, such as those of "Weezer (Blue
# Album)" and "Weezer (Green Album)", tell albums apart.
_EDITION_WORDS: Final = frozenset(
    {"anniversary", "bonus", "deluxe", "edition", "expanded", "limited", "special"}
    | {"reissue", "reissued", "remaster", "remastered", "clean", "explicit", "mono", "stereo"}
    | {"cd", "digital", "import", "lp", "promo", "vinyl"}
)

# Catalogues add the shelf, as in "Various Artists - Rock - B".
_VARIOUS: Final = re.compile(r"various|va|variousartists.*")


def normal_form(text: str) -> str:
    """Return what is left of a name without case, accents, punctuation, spaces and "The".

    Empty only for blank text: a name without any letter or digit, such as "!!!", stands for
    itself.
    """
    plain = _fold(text)
    words = _words(plain.replace("&", " and "))
    if not words:
        return "".join(plain.split())
    if len(words) > 1:
        if words[0] == "the":
            del words[0]
        elif words[-1] == "the" and re.search(r",\s*the\s*$", plain):
            del words[-1]
    return _join(words)


def same_artist(one: str, other: str) -> bool:
    """Tell whether two texts name the same artist."""
    if is_various(one):
        return is_various(other)
    return _same(normal_form(one), normal_form(other))


def is_various(artist: str) -> bool:
    """Tell whether an artist is only a name for compilations, which says nothing of the album."""
    return _VARIOUS.fullmatch(normal_form(artist)) is not None


def same_title(ours: str, found: str) -> bool:
    """Tell whether the title of a row and one that was found are the same, notes included."""
    mine, theirs = normal_form(ours), normal_form(found)
    if len(ours) == TITLE_MAX and mine:
        return theirs.startswith(mine)
    return _same(mine, theirs)


@dataclass(frozen=True, slots=True)
class NotedTitle:
    """A title apart from the notes in brackets behind it; both in their normal form.

    `note` is empty where the notes only name an edition.
    """

    title: str
    note: str

    @classmethod
    def of(cls, text: str) -> NotedTitle:
        """Take a title apart; one that is all in brackets stays whole."""
        notes: list[str] = []
        while (match := _NOTE.search(text)) and text[: match.start()].strip():
            notes.insert(0, match[1])
            text = text[: match.start()]
        others = [note for note in notes if _EDITION_WORDS.isdisjoint(_words(_fold(note)))]
        return cls(normal_form(text), " ".join(map(normal_form, others)))

    def is_like(self, other: NotedTitle) -> bool:
        """Tell whether both are the same but for notes that do not contradict each other."""
        agree = self.note == other.note or not (self.note and other.note)
        return agree and _same(self.title, other.title)


def _same(one: str, other: str) -> bool:
    return bool(one) and one == other


def _fold(text: str) -> str:
    # Taken apart a second time, because folding the case may put letters together.
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    bare = "".join(char for char in folded if ord(char) not in _ACCENTS)
    return bare.translate(_PLAIN_LETTERS)


def _words(folded: str) -> list[str]:
    """Return the runs of letters, marks and digits."""
    return "".join(
        char if unicodedata.category(char)[0] in "LMN" else " " for char in folded
    ).split()


def _join(words: list[str]) -> str:
    """Put words together without spaces, as "R.E.M." is "REM", but not "1-2" into "12"."""
    joined = ""
    for word in words:
        separator = " " if joined and joined[-1].isdigit() and word[0].isdigit() else ""
        joined += separator + word
    return joined
