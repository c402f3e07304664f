"""The albums without a cover in the report: reasons, examples, links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from artwork_backfill.jobs.library_artwork_url_backfill.changes import Decided
from artwork_backfill.jobs.library_artwork_url_backfill.models import Miss, Reason, Row
from artwork_backfill.shared.engine.job import Section

#: The number of examples of each reason in the report; the changes file has all of them.
EXAMPLES: Final = 5

_COLUMNS: Final = ("Reason", "Albums", "Example", "Found", "Search")

MEANINGS: Final[Mapping[Reason, str]] = {
    Reason.NO_NAME: "the row has no artist or no title",
    Reason.NO_MATCH: "LML found nothing",
    Reason.OTHER_ARTIST: "LML found only artwork of other artists",
    Reason.OTHER_ALBUM: "LML found only artwork of other albums",
    Reason.NO_ARTWORK: "the album has no picture",
    Reason.PLACEHOLDER: "the picture is Discogs's placeholder",
    Reason.NOT_A_COVER: "the picture is a photo of the artist or a label's logo",
    Reason.BAD_URL: "the catalogue must not hold the picture's URL",
    Reason.LOW_CONFIDENCE: "LML's confidence is below --min-confidence",
    Reason.SHARED_URL: "another album of the artist has the same picture",
    Reason.COULD_NOT_SAY: "LML gave no answer; the next run asks again",
}


@dataclass(slots=True)
class Summary:
    """Count reasons, and keep the first examples of each."""

    counts: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, list[Miss]] = field(default_factory=dict)

    def add(self, decided: Iterable[Decided]) -> None:
        """Count the results of a batch."""
        for each in decided:
            if isinstance(each.found, Miss):
                reason = each.found.reason
                self.counts[reason] += 1
                kept = self.examples.setdefault(reason, [])
                if len(kept) < EXAMPLES:
                    kept.append(each.found)

    def sections(self) -> list[Section]:
        """Return the table of the report; none if every album got its cover."""
        if not self.counts:
            return []
        title = "Albums without a cover"
        return [Section("reasons", title, _COLUMNS, tuple(self.rows()), self.data())]

    def rows(self) -> Sequence[tuple[str, ...]]:
        """Return the rows of the table: reason, albums, example, what was found, a link."""
        lines: list[tuple[str, ...]] = []
        for reason, count in self.counts.most_common():
            for position, miss in enumerate(self.examples[reason]):
                head = (f"{reason}: {MEANINGS[reason]}", f"{count:,}") if not position else ("", "")
                lines.append((*head, str(miss.row), found_instead(miss), discogs_search(miss.row)))
        return lines

    def data(self) -> object:
        """Return the table as JSON data."""
        return [
            {
                "reason": str(reason),
                "albums": count,
                "examples": [
                    {
                        "library_id": miss.row.id,
                        "artist": miss.row.artist,
                        "title": miss.row.title,
                        "found": found_instead(miss),
                        "search": discogs_search(miss.row),
                    }
                    for miss in self.examples[reason]
                ],
            }
            for reason, count in self.counts.most_common()
        ]


def found_instead(miss: Miss) -> str:
    """Return what was found for a row without a cover."""
    artwork = miss.artwork
    names = f"{artwork.artist} - {artwork.album}" if artwork and artwork.album else ""
    return "; ".join(filter(None, (names, miss.detail)))


def discogs_search(row: Row) -> str:
    """Return the URL of a search for the album at Discogs."""
    query = urlencode({"q": f"{row.artist} {row.title}", "type": "release"})
    return f"https://www.discogs.com/search/?{query}"
