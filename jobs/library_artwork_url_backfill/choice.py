"""Which of LML's results is the album that a row stands for, and whether its URL can be written.

Pure functions over what was read elsewhere. A wrong cover is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from artwork_backfill.jobs.library_artwork_url_backfill.library import URL_MAX, Row
from artwork_backfill.jobs.library_artwork_url_backfill.names import (
    NotedTitle,
    is_various,
    same_artist,
    same_title,
)
from artwork_backfill.shared.clients.lml import LookupAnswer, LookupResult

# None of them stands in a URL as it is (RFC 3986, section 2).
_NEVER_IN_URLS: Final = frozenset(' "<>\\^`{|}')


class Reason(StrEnum):
    """Why there is nothing to write for a row."""

    NO_NAME = "no_name"  # the row lacks an artist or a title: there is nothing to ask for
    NO_MATCH = "no_match"  # LML found nothing
    OTHER_ALBUM = "other_album"  # only other albums of the artist
    NO_ARTWORK = "no_artwork"  # the album, without artwork
    PLACEHOLDER = "placeholder"  # the album, with the picture that stands for none
    BAD_URL = "bad_url"  # the album, with a URL that nobody should follow
    FAILED = "failed"  # LML could not say, which is no answer


@dataclass(frozen=True, slots=True)
class Match:
    """The URL of a row's cover."""

    row: Row
    url: str


@dataclass(frozen=True, slots=True)
class Miss:
    """Why a row stays as it is; `detail` has the error when the lookup failed."""

    row: Row
    reason: Reason
    detail: str = ""


def choose(row: Row, answer: LookupAnswer, *, accept_first: bool = False) -> Match | Miss:
    """Return the URL to write for a row, or the reason why there is none.

    With `accept_first`, LML's first result counts as the album, whatever it is.
    """
    if not answer.results:
        return Miss(row, Reason.NO_MATCH)
    albums = answer.results[:1] if accept_first else _albums_of(row, answer.results)
    if not albums:
        return Miss(row, Reason.OTHER_ALBUM)
    refusals = [_refusal(album.artwork_url, album.has_artwork) for album in albums]
    for album, refusal in zip(albums, refusals, strict=True):
        if refusal is None and album.artwork_url is not None:
            return Match(row, album.artwork_url)
    return Miss(row, refusals[0] or Reason.NO_ARTWORK)


def is_usable_url(url: str) -> bool:
    """Tell whether a URL may go into the catalogue, whose pages will show what it leads to.

    It is http or https, at most 512 characters long, and has a host, but no spaces, control
    characters, user name or password.
    """
    if len(url) > URL_MAX or not url.isprintable() or not _NEVER_IN_URLS.isdisjoint(url):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _albums_of(row: Row, results: Sequence[LookupResult]) -> Sequence[LookupResult]:
    """Return the results that are the row's album: by their id, else by their names."""
    if row.legacy_release_id is not None:
        own = [result for result in results if result.library_item_id == row.legacy_release_id]
        if own:
            return own
    return _named_alike(row, results)


def _named_alike(row: Row, results: Sequence[LookupResult]) -> Sequence[LookupResult]:
    by_artist = [
        (result, result.title)
        for result in results
        if result.artist and result.title and same_artist(row.artist, result.artist)
    ]
    exact = [result for result, title in by_artist if same_title(row.title, title)]
    # Of compilations there are many with one title: theirs has to be the very same.
    if exact or is_various(row.artist):
        return exact
    ours = NotedTitle.of(row.title)
    noted = [(result, NotedTitle.of(title)) for result, title in by_artist]
    alike = [(result, title) for result, title in noted if ours.is_like(title)]
    same_note = [result for result, title in alike if title.note == ours.note]
    if same_note:
        return same_note
    # Where the notes of several tell them apart, nothing tells which of them is ours.
    return [result for result, _ in alike] if len({title.note for _, title in alike}) == 1 else []


def _refusal(url: str | None, has_artwork: bool) -> Reason | None:
    if url is None:
        return Reason.NO_ARTWORK
    if not has_artwork:
        return Reason.PLACEHOLDER
    return None if is_usable_url(url) else Reason.BAD_URL
