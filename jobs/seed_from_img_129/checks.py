"""The priority of an entity, by the checks of the 2021 audit that it failed.

The names are those of the CAA Auditor: `Category::...`, phrased as what should be true, so that
`DeletedItem::index is absent` in a list of failures means that there is an index.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

#: The index is missing or malformed, or an image is missing, unexpected or has no original.
URGENT: Final = 300
#: Any other failure, and items that the audit of 2021 skipped.
OTHER: Final = 200
#: Nothing was wrong in 2021; the priority of a live entity of MusicBrainz.
PASSED: Final = 100

#: Only items of entities with art: what is left of others can wait. A missing item has neither an
#: index nor images.
URGENT_CHECKS: Final = frozenset(
    {
        b"Item::exists",
        b"Item::CAAIndex::is present",
        b"Item::CAAIndex::is well-formed",
        b"Item::CAAIndex::Image::missing image",
        b"Item::CAAIndex::Image::unexpected image",
        b"Item::Files::index.json exists",
        b"Item::Files::original image exists",
    }
)

#: `InternalError` means that the auditor itself failed and skipped the item.
CATEGORIES: Final = frozenset(
    {b"Item", b"EmptyItem", b"DeletedItem", b"MergedItem", b"InternalError"}
)

#: Items that archive.org's staff or the auditor's author created for experiments.
_TEST_ITEM: Final = b"::test item"


class Note(Enum):
    """What to count about a line in addition to its priority, and to report with its meaning."""

    DAMAGED = "damaged", "damaged line, skipped"
    UNKNOWN_CHECK = "unknown_checks", "unknown check"
    NO_FAILURE = "without_failure", "item without a failed check, skipped"
    # Expected, and therefore only counted.
    TEST_ITEM = "test_items", ""

    def __init__(self, counted_as: str, meaning: str) -> None:
        self.counted_as = counted_as
        self.meaning = meaning


class Verdict(NamedTuple):
    """The meaning of a line for its entity; priority 0 seeds nothing.

    A named tuple, because one is unpacked for each of millions of lines.
    """

    priority: int
    note: Note | None = None


DAMAGED: Final = Verdict(0, Note.DAMAGED)


def judge(check: bytes) -> Verdict:
    """Return the meaning of a check that an item failed, or that made the auditor skip it."""
    if check in URGENT_CHECKS:
        return Verdict(URGENT)
    if check.endswith(_TEST_ITEM):
        return Verdict(0, Note.TEST_ITEM)
    category, _, rest = check.partition(b"::")
    if category in CATEGORIES and rest and check.isascii():
        return Verdict(OTHER)
    return Verdict(OTHER, Note.UNKNOWN_CHECK)


def gravest(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict of several checks together: the highest priority, the first note."""
    if not verdicts:
        return DAMAGED
    notes = [verdict.note for verdict in verdicts if verdict.note]
    return Verdict(max(verdict.priority for verdict in verdicts), notes[0] if notes else None)
