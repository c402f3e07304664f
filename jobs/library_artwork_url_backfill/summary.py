"""The albums without a cover in the report: reasons, examples, links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from artwork_backfill.jobs.library_artwork_url_backfill.models import Decided, Miss, Reason, Row
from artwork_backfill.shared.engine.job import Section

#: The number of examples of each reason in the report; the changes file has all of them.
EXAMPLES: Final = 5

_COLUMNS: Final = ("Reason", "Albums", "Example", "Found", "Search")


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
        rows: list[tuple[str, ...]] = []
        data: list[dict[str, object]] = []
        for reason, count in self.counts.most_common():
            head = (f"{reason}: {reason.meaning}", f"{count:,}")
            examples: list[dict[str, object]] = []
            for miss in self.examples[reason]:
                row, search = miss.row, _discogs_search(miss.row)
                rows.append((*head, str(row), miss.explanation, search))
                head = ("", "")
                examples.append(
                    {
                        "library_id": row.id,
                        "artist": row.artist,
                        "title": row.title,
                        "found": miss.explanation,
                        "search": search,
                    }
                )
            data.append({"reason": str(reason), "albums": count, "examples": examples})
        title = "Albums without a cover"
        return [Section("reasons", title, _COLUMNS, tuple(rows), data)] if rows else []


def _discogs_search(row: Row) -> str:
    """Return the URL of a search for the album at Discogs."""
    query = urlencode({"q": f"{row.artist} {row.title}", "type": "release"})
    return f"https://www.discogs.com/search/?{query}"
