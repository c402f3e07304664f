"""Values of this job: rows, and what was found for them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from artwork_backfill.shared.clients.lml import Artwork


class Reason(StrEnum):
    """Why a row got no cover, and the meaning. The values are codes that do not change."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> Reason:
        reason = str.__new__(cls, code)
        reason._value_ = code
        reason.meaning = meaning
        return reason

    NO_NAME = "no_name", "the row has no artist or no title"
    NO_MATCH = "no_match", "LML found nothing"
    OTHER_ARTIST = "other_artist", "LML found only artwork of other artists"
    OTHER_ALBUM = "other_album", "LML found only artwork of other albums"
    NO_ARTWORK = "no_artwork", "the album has no picture"
    PLACEHOLDER = "placeholder", "the picture is Discogs's placeholder"
    NOT_A_COVER = "not_a_cover", "the picture is a photo of the artist or a label's logo"
    BAD_URL = "bad_url", "the catalogue must not hold the picture's URL"
    LOW_CONFIDENCE = "low_confidence", "LML's confidence is below --min-confidence"
    SHARED_URL = "shared_url", "another album of the artist has the same picture"
    COULD_NOT_SAY = "could_not_say", "LML gave no answer; the next run asks again"


class RowOutcome(StrEnum):
    """What became of a row in a run. The values are codes that do not change."""

    WRITTEN = "written"
    WOULD_WRITE = "would_write"  # in a dry run
    RACED = "raced"  # another writer has changed its artwork
    CHANGED = "changed"  # renamed, or marked as unavailable, since it was looked up
    BUSY = "busy"  # locked
    GONE = "gone"
    REFUSED = "refused"  # it got no cover, for a `Reason`
    FAILED = "failed"  # LML gave no answer, or the database refused the row


class Ground(StrEnum):
    """Why a picture is accepted as the cover of a row."""

    RELEASE_ID = "release_id"  # the artwork's release is the one that the catalogue names
    NAMES = "names"  # the artwork's artist and album are those of the row
    METADATA = "metadata"  # the site's own enrichment has it
    FIRST = "first"  # it was the first result (--accept-first)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the site's own enrichment (`album_metadata`) has for a row."""

    artwork_url: str
    release_id: int | None = None
    discogs_artist_id: int | None = None
    artist_image_url: str | None = None


#: The kind, "release" or "master", and the number.
DiscogsId = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate: a library row without artwork, whose artist Discogs knows.

    `artist` and `title` are those of the tables, empty if missing. `sure_ids` are Discogs ids that
    the catalogue has for the album. `stamped_ids` are those that only `canonical_entity_id` has:
    WXYC's jobs fill it with LML's own first result, so LML's answer may be compared with itself.
    """

    id: int
    artist_id: int
    artist: str
    title: str
    alternate_artist: str = ""
    discogs_artist_id: int | None = None
    sure_ids: frozenset[DiscogsId] = frozenset()
    stamped_ids: frozenset[DiscogsId] = frozenset()
    metadata: Metadata | None = None

    def __str__(self) -> str:
        return f"library row {self.id} ({self.artist} - {self.title})"

    @property
    def ids(self) -> frozenset[DiscogsId]:
        """All Discogs ids of the album."""
        return self.sure_ids | self.stamped_ids

    @property
    def artists(self) -> tuple[str, ...]:
        """The names under which the artist may be found."""
        return tuple(filter(str.strip, (self.artist, self.alternate_artist)))


@dataclass(frozen=True, slots=True)
class _OfRow:
    """What was found for a row."""

    row: Row

    def __str__(self) -> str:
        return str(self.row)

    @property
    def item(self) -> Row:
        """The candidate, under the name that the runner uses."""
        return self.row


@dataclass(frozen=True, slots=True)
class Match(_OfRow):
    """The cover of a row, and how it was found."""

    artwork: Artwork
    url: str
    ground: Ground


@dataclass(frozen=True, slots=True)
class Miss(_OfRow):
    """Why a row stays as it is.

    `artwork` is the refused artwork, if there was any; `detail` explains the reason.
    """

    reason: Reason
    artwork: Artwork | None = None
    detail: str = ""

    @property
    def explanation(self) -> str:
        """What was found instead of the cover, and why it was refused; empty if nothing was."""
        artwork = self.artwork
        names = f"{artwork.artist} - {artwork.album}" if artwork and artwork.album else ""
        return "; ".join(filter(None, (names, self.detail)))


Found = Match | Miss


@dataclass(frozen=True, slots=True)
class Decided:
    """What was found for a row, and what became of it."""

    found: Found
    outcome: RowOutcome

    @property
    def row(self) -> Row:
        return self.found.row
