"""Choosing the cover of a row among LML's pictures: the right one, or none. Pure.

LML searches fuzzily, and `library_item` in its answer is only the row that was asked for. What
counts is whose release the artwork is. A wrong cover is worse than none.

| the artwork                                              | decision                          |
|----------------------------------------------------------|-----------------------------------|
| its release or its picture's master is the one that the  | certain: accepted, unless the     |
| catalogue names (`canonical_entity_id` and others)       | names contradict (see `names`)    |
| artist is neither the row's nor its alternate name       | `other_artist`                    |
| album is another one                                     | `other_album`                     |
| various artists, and the album is not exactly the same   | `other_album`                     |
| artist and album are the row's (see `names`)             | accepted; equal before similar    |
| confidence below --min-confidence, or missing            | `low_confidence`                  |
| no picture                                               | `no_artwork`                      |
| the placeholder (`spacer.gif`)                           | `placeholder`                     |
| a photo of the artist or a label's logo (`pictures`)     | `not_a_cover`, always             |
| a URL that the catalogue must not hold                   | `bad_url`                         |

| the answer                                               | decision                          |
|----------------------------------------------------------|-----------------------------------|
| several acceptable artworks                              | certain, then equal, then similar |
| no acceptable one, and LML timed out or was cut off      | `could_not_say`                   |
| no result                                                | `no_match`                        |

An equal id is no proof by itself. WXYC's own jobs fill `canonical_entity_id` with the release of
LML's first result and a constant confidence, so LML's answer may be compared with itself. Hence an
equal id makes up for names that are not recognised (another spelling or script, an alias, none at
all), but not for names that contradict: other numbers, a live album for a studio album, or both a
clearly different artist and a clearly different album. An id that only `canonical_entity_id` has
must also have --min-confidence, and its picture must not be that of another album of the artist.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from artwork_backfill.jobs.library_artwork_url_backfill.models import (
    DiscogsId,
    Found,
    Ground,
    Match,
    Miss,
    Reason,
    Row,
)
from artwork_backfill.jobs.library_artwork_url_backfill.names import (
    Title,
    alike_title,
    clearly_differ,
    contradict,
    is_various,
    same_artist,
    same_title,
)
from artwork_backfill.jobs.library_artwork_url_backfill.pictures import (
    DEFAULT_HOSTS,
    Picture,
    is_usable,
    master_of,
    picture_of,
    release_of,
)
from artwork_backfill.shared.clients.lml import Artwork, LookupAnswer


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules that the operator can choose.

    Parameters
    ----------
    min_confidence
        The minimum confidence of LML, from 0 to 1, for artwork that is identified by its names or
        by `canonical_entity_id`.
    accept_first
        Whether to accept the first result, of any album, except for photos and logos.
    hosts
        The hosts that covers may come from.
    """

    min_confidence: float = 0.0
    accept_first: bool = False
    hosts: tuple[str, ...] = DEFAULT_HOSTS


class _Likeness(IntEnum):
    """How certain it is that artwork belongs to the row's album; larger is more certain."""

    ALIKE = 1
    SAME = 2
    CERTAIN = 3


_Judged = tuple[_Likeness, Artwork]


def choose(row: Row, answer: LookupAnswer, rules: Rules) -> Found:
    """Return the cover of a row, or the reason why there is none."""
    found = _first(row, answer, rules) if rules.accept_first else _best(row, answer, rules)
    if isinstance(found, Miss) and answer.unsure is not None:
        return Miss(row, Reason.COULD_NOT_SAY, detail=answer.unsure)
    return found


def choose_metadata(row: Row, rules: Rules) -> Match | None:
    """Return the cover that the site's own enrichment has, if it passes all possible checks.

    The same fuzzy search has found it, but its names are unknown. Therefore Discogs's artist id
    must agree if both sides have one, and so must the release if the catalogue or the picture names
    one.
    """
    metadata = row.metadata
    if metadata is None or metadata.artwork_url == metadata.artist_image_url:
        return None
    ids = {metadata.discogs_artist_id, row.discogs_artist_id} - {None}
    if len(ids) > 1:
        return None
    url = metadata.artwork_url
    # Its columns are filled at different times, and often only the picture names the release.
    release = metadata.release_id or release_of(url)
    artwork = Artwork(None, None, release, url, None)
    trusted = _is_trusted(row, artwork)
    if row.ids and release and not trusted:
        return None
    if release_of(url) not in (release, None):
        return None
    if _refusal(url, rules) is not None:
        return None
    return Match(row, artwork, url, Ground.RELEASE_ID if trusted else Ground.METADATA)


def refuse_shared(found: Sequence[Found]) -> list[Found]:
    """Refuse the same picture for two albums of one artist, unless the catalogue names the release.

    Two copies of one album, such as a CD and an LP, may share it.
    """
    albums: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
    for each in found:
        if isinstance(each, Match):
            albums[each.row.artist_id, each.url].add(album_key(each.row.title))
    return [
        shared_url(each, "another album of the artist in this batch would get it as well")
        if isinstance(each, Match)
        and not is_certain(each)
        and len(albums[each.row.artist_id, each.url]) > 1
        else each
        for each in found
    ]


def is_certain(match: Match) -> bool:
    """Return whether an id confirms the cover, other than one that LML may have supplied itself."""
    return match.ground is Ground.RELEASE_ID and not _is_stamped(match.row, match.artwork)


def shared_url(match: Match, detail: str) -> Miss:
    """Return the refusal of a picture that another album of the artist has."""
    return Miss(match.row, Reason.SHARED_URL, match.artwork, detail)


def album_key(title: str) -> str:
    """Return a key that copies of one album share, and different albums of an artist do not."""
    return Title.of(title).key


# -- one answer ------------------------------------------------------------------------------------


def _first(row: Row, answer: LookupAnswer, rules: Rules) -> Found:
    if not answer.results:
        return Miss(row, Reason.NO_MATCH)
    artwork = answer.results[0]
    if artwork is None:
        return Miss(row, Reason.NO_ARTWORK)
    refusal = _refusal(artwork.url, rules)
    if refusal is None and artwork.url is not None:
        return Match(row, artwork, artwork.url, Ground.FIRST)
    return Miss(row, refusal or Reason.NO_ARTWORK, artwork)


def _best(row: Row, answer: LookupAnswer, rules: Rules) -> Found:
    if not answer.results:
        return Miss(row, Reason.NO_MATCH)
    judged: list[_Judged] = []
    misses: list[Miss] = []
    for artwork in answer.results:
        match None if artwork is None else _likeness(row, artwork):
            case None:
                misses.append(Miss(row, Reason.NO_ARTWORK))
            case Reason() as reason if artwork is not None:
                detail = _CONTRADICTION if _is_trusted(row, artwork) else ""
                misses.append(Miss(row, reason, artwork, detail))
            case _Likeness() as likeness if artwork is not None:
                judged.append((likeness, artwork))
    # A stable sort: LML's order decides among equals.
    judged.sort(key=lambda each: -each[0])
    refused: list[Miss] = []
    for likeness, artwork in judged:
        refusal = _refusal(artwork.url, rules) or _doubt(row, likeness, artwork, rules)
        if refusal is None and artwork.url is not None:
            by_id = likeness is _Likeness.CERTAIN
            return Match(row, artwork, artwork.url, Ground.RELEASE_ID if by_id else Ground.NAMES)
        refused.append(Miss(row, refusal or Reason.NO_ARTWORK, artwork))
    return [*refused, *sorted(misses, key=lambda miss: _TELLING.index(miss.reason))][0]


_CONTRADICTION: Final = "the catalogue names this release, but the names contradict"
_TELLING: Final = (Reason.OTHER_ALBUM, Reason.OTHER_ARTIST, Reason.NO_ARTWORK)


def _likeness(row: Row, artwork: Artwork) -> _Likeness | Reason:
    """Return how similar the artwork's album is to the row's, or why it is another one."""
    by_names = _likeness_of_names(row, artwork)
    if not _is_trusted(row, artwork):
        return by_names
    if isinstance(by_names, Reason) and _names_contradict(row, artwork):
        return by_names
    return _Likeness.CERTAIN


def _likeness_of_names(row: Row, artwork: Artwork) -> _Likeness | Reason:
    if artwork.url is None and not (artwork.artist or artwork.album):
        return Reason.NO_ARTWORK
    artist, album = artwork.artist or "", artwork.album or ""
    names = [name for name in row.artists if same_artist(name, artist)]
    if not names:
        return Reason.OTHER_ARTIST
    if same_title(row.title, album, artists=names):
        return _Likeness.SAME
    # Many compilations share a title, so theirs must be exactly the same.
    if alike_title(row.title, album) and not all(map(is_various, names)):
        return _Likeness.ALIKE
    return Reason.OTHER_ALBUM


def _names_contradict(row: Row, artwork: Artwork) -> bool:
    artist, album = artwork.artist or "", artwork.album or ""
    if contradict(row.title, album):
        return True
    return clearly_differ(row.title, album) and all(
        clearly_differ(name, artist) for name in row.artists
    )


def _is_trusted(row: Row, artwork: Artwork) -> bool:
    return _is_among(artwork, row.ids)


def _is_stamped(row: Row, artwork: Artwork) -> bool:
    """Return whether only `canonical_entity_id` names the artwork's release or master."""
    return _is_among(artwork, row.stamped_ids) and not _is_among(artwork, row.sure_ids)


def _is_among(artwork: Artwork, ids: frozenset[DiscogsId]) -> bool:
    # 0 means no release.
    if artwork.release_id and ("release", artwork.release_id) in ids:
        return True
    return artwork.url is not None and ("master", master_of(artwork.url)) in ids


def _doubt(row: Row, likeness: _Likeness, artwork: Artwork, rules: Rules) -> Reason | None:
    is_sure = likeness is _Likeness.CERTAIN and not _is_stamped(row, artwork)
    if is_sure or not rules.min_confidence:
        return None
    return Reason.LOW_CONFIDENCE if (artwork.confidence or 0.0) < rules.min_confidence else None


def _refusal(url: str | None, rules: Rules) -> Reason | None:
    """Return why a picture cannot be a cover of any album, or None."""
    if url is None:
        return Reason.NO_ARTWORK
    picture = picture_of(url)
    if picture is Picture.PLACEHOLDER:
        return Reason.PLACEHOLDER
    if picture.is_no_cover:
        return Reason.NOT_A_COVER
    return None if is_usable(url, rules.hosts) else Reason.BAD_URL
