"""The catalogue of checks: every kind of difference an audit can find, as data.

`compare` can only report the checks listed here, `decide` reads their remedies, and the table in
the documentation is generated from them. `compare` knows how to recognise a difference.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final, Literal


class Severity(IntEnum):
    """How severe a difference is; larger is more severe, so that severities can be compared."""

    MINOR = 1
    """The same meaning in an old form."""
    MAJOR = 2
    """Wrong data is shown."""
    CRITICAL = 3
    """Art is unreachable or unreadable."""

    @property
    def label(self) -> str:
        """The word for people and for stored findings: `minor`, `major` or `critical`."""
        return self.name.lower()


class Remedy(StrEnum):
    """What is done about a finding."""

    INDEX = "index"
    """artwork-indexer writes index.json and mb_metadata.xml again."""
    DEINDEX = "deindex"
    """artwork-indexer removes index.json, after the images' deletion."""
    IMAGE = "image"
    """Depends on the image's owner: the image is deleted here, or a person decides."""
    REVIEW = "review"
    """A person decides; nothing else happens to the entity before."""
    LATE_REVIEW = "late review"
    """A person decides, but only if there is nothing else to do."""
    RECORD = "record"
    """The finding is stored, but never acted on."""


OVERRIDES: Final = (Remedy.INDEX, Remedy.REVIEW, Remedy.RECORD)
"""The remedies that an operator may choose for a check instead of the catalogue's."""


@dataclass(frozen=True, slots=True)
class Check:
    """One kind of difference.

    `severity` is the usual one; `note` says when a single finding has another severity, and gives
    further remarks for the table. `applies` says whether the entity is live in MusicBrainz or an
    orphan (merged, deleted or unknown there).
    """

    name: str
    severity: Severity
    summary: str
    remedy: Remedy
    applies: Literal["live", "orphan", "any"] = "live"
    note: str = ""
    index_may_help: bool = False

    @property
    def overrides(self) -> tuple[Remedy, ...]:
        """The remedies that may be chosen for this check."""
        may_index = self.index_may_help or self.remedy is Remedy.INDEX
        return OVERRIDES if may_index else OVERRIDES[1:]


class UnknownCheck(ValueError):
    """A name or glob matches no check of the catalogue. The message names the nearest one."""


_RELEASES_ONLY: Final = "releases only: what archive.org extracts for events is not documented"
_MINOR_WHEN_HTTP: Final = "minor when only http and https differ"

_NEW_ITEMS_ONLY: Final = "archive.org applies what artwork-indexer sends to new items only"

_CHECKS: Final = (
    Check(
        "item.missing",
        Severity.CRITICAL,
        "art is expected, but there is no item",
        Remedy.REVIEW,
    ),
    Check(
        "item.dark",
        Severity.CRITICAL,
        "the item is dark, and MusicBrainz does not know it",
        Remedy.REVIEW,
        note="not for an entity whose cover_art_presence or event_art_presence is darkened",
    ),
    Check(
        "item.archive",
        Severity.CRITICAL,
        "the item is of the other archive",
        Remedy.REVIEW,
        "any",
        note="nothing else of the item is compared",
    ),
    Check(
        "item.collection",
        Severity.MAJOR,
        "neither archive's collection is among the item's collections",
        Remedy.LATE_REVIEW,
        note=_NEW_ITEMS_ONLY,
        index_may_help=True,
    ),
    Check(
        "item.mediatype",
        Severity.MAJOR,
        "the item's mediatype is not image",
        Remedy.LATE_REVIEW,
        note=_NEW_ITEMS_ONLY,
        index_may_help=True,
    ),
    Check(
        "item.noindex",
        Severity.MAJOR,
        "the item's noindex is not true",
        Remedy.LATE_REVIEW,
        note=_NEW_ITEMS_ONLY,
        index_may_help=True,
    ),
    Check(
        "files.index.missing",
        Severity.CRITICAL,
        "art is expected, and the item has no index.json",
        Remedy.INDEX,
    ),
    Check("files.xml.missing", Severity.MAJOR, "the item has no mb_metadata.xml", Remedy.INDEX),
    Check(
        "files.original.missing",
        Severity.CRITICAL,
        "an expected image has no original file",
        Remedy.REVIEW,
    ),
    Check(
        "files.original.empty",
        Severity.CRITICAL,
        "an expected image's original has no bytes",
        Remedy.REVIEW,
        note="deriving its thumbnails again cannot help",
    ),
    Check(
        "files.original.duplicate",
        Severity.MAJOR,
        "two originals carry one artwork id",
        Remedy.REVIEW,
    ),
    Check(
        "files.original.extra",
        Severity.MAJOR,
        "a foreign original image, whatever its name",
        Remedy.IMAGE,
    ),
    Check(
        "files.thumbnail.missing",
        Severity.MINOR,
        "the 250, 500 or 1200 thumbnail of an expected image is absent",
        Remedy.LATE_REVIEW,
    ),
    Check(
        "index.malformed",
        Severity.CRITICAL,
        "index.json is not JSON, not UTF-8, not an object, or over the size limit",
        Remedy.INDEX,
    ),
    Check(
        "index.shape",
        Severity.MAJOR,
        "keys other than images and release or event, keys given twice, wrong container types",
        Remedy.INDEX,
        note="critical when no list of images can be read although art is expected",
    ),
    Check(
        "index.entity_url",
        Severity.MAJOR,
        "the entity's URL",
        Remedy.INDEX,
        note=_MINOR_WHEN_HTTP,
    ),
    Check(
        "index.image.missing", Severity.CRITICAL, "an expected image is not listed", Remedy.INDEX
    ),
    Check(
        "index.image.extra",
        Severity.MAJOR,
        "a foreign image is listed and has no file",
        Remedy.INDEX,
        note="one with a file is files.original.extra",
    ),
    Check("index.image.duplicate", Severity.MAJOR, "an image is listed twice", Remedy.INDEX),
    Check("index.image.order", Severity.MAJOR, "the order of the images", Remedy.INDEX),
    Check(
        "index.image.field_missing",
        Severity.MAJOR,
        "a key of an image or of its thumbnails is absent",
        Remedy.INDEX,
    ),
    Check(
        "index.image.field_unexpected",
        Severity.MAJOR,
        "an image or its thumbnails have a key that artwork-indexer no longer writes",
        Remedy.INDEX,
    ),
    Check(
        "index.image.type",
        Severity.MAJOR,
        'the right value in the wrong JSON type ("id": "123")',
        Remedy.INDEX,
    ),
    Check(
        "index.image.value",
        Severity.MAJOR,
        "types (as a set), front, back, comment, approved or edit",
        Remedy.INDEX,
    ),
    Check(
        "index.image.url",
        Severity.MAJOR,
        "the URL of an image or of a thumbnail",
        Remedy.INDEX,
        note=_MINOR_WHEN_HTTP,
    ),
    Check(
        "xml.malformed",
        Severity.CRITICAL,
        "mb_metadata.xml is not well-formed, has no release or event element, has another id, "
        "or is over the size limit",
        Remedy.INDEX,
    ),
    Check(
        "xml.field",
        Severity.MAJOR,
        "an element that archive.org shows: title, artist names, sort names and ids, date, "
        "language, barcode, ASIN, event name",
        Remedy.INDEX,
    ),
    Check(
        "xml.other",
        Severity.MINOR,
        "any other element or attribute",
        Remedy.RECORD,
        index_may_help=True,
    ),
    Check(
        "meta.title",
        Severity.MINOR,
        "the title that archive.org extracted",
        Remedy.INDEX,
        note=_RELEASES_ONLY,
    ),
    Check(
        "meta.creator",
        Severity.MINOR,
        "the artist names that archive.org extracted",
        Remedy.INDEX,
        note=_RELEASES_ONLY,
    ),
    Check(
        "meta.date",
        Severity.MINOR,
        "the date that archive.org extracted",
        Remedy.INDEX,
        note=f"{_RELEASES_ONLY}; partial dates are not compared",
    ),
    Check(
        "meta.language",
        Severity.MINOR,
        "the language that archive.org extracted",
        Remedy.INDEX,
        note=_RELEASES_ONLY,
    ),
    Check(
        "meta.external_identifier",
        Severity.MINOR,
        "the release id, artist ids, barcode or ASIN that archive.org extracted",
        Remedy.INDEX,
        note=f"{_RELEASES_ONLY}; other kinds of identifiers are not compared",
    ),
    Check(
        "orphan.image",
        Severity.MAJOR,
        "an original image survives, whatever its name",
        Remedy.IMAGE,
        "orphan",
    ),
    Check(
        "orphan.index",
        Severity.MAJOR,
        "index.json survives",
        Remedy.DEINDEX,
        "orphan",
        note="never while an image stays",
    ),
    Check(
        "orphan.leftover",
        Severity.MINOR,
        "derivatives or other files survive, but no index.json and no image",
        Remedy.LATE_REVIEW,
        "orphan",
        note="not mb_metadata.xml and its log, which a merge or deletion normally leaves",
    ),
)

CHECKS: Final[Mapping[str, Check]] = MappingProxyType({check.name: check for check in _CHECKS})
"""Every check by its name, in the order of the documentation."""


def match_checks(pattern: str) -> set[str]:
    """Return the names of the checks that match `pattern`, a name or a glob like `index.image.*`.

    Raises
    ------
    UnknownCheck
        No check matches; the message names the nearest.
    """
    matches = {name for name in CHECKS if fnmatch.fnmatchcase(name, pattern)}
    if not matches:
        nearest = difflib.get_close_matches(pattern, CHECKS, n=1, cutoff=0.0)
        raise UnknownCheck(
            f"there is no check {pattern!r}; use a name such as {nearest[0]!r} or a glob such as"
            " 'index.image.*'"
        )
    return matches


def parse_remedies(texts: Iterable[str]) -> dict[str, Remedy]:
    """Return the remedies that `CHECK=index|review|record` choose, by check; the last one counts.

    A glob skips the checks for which the remedy is impossible.

    Raises
    ------
    UnknownCheck
        A text matches no check, or none for which the remedy is possible, or names an unknown
        remedy.
    """
    chosen: dict[str, Remedy] = {}
    for text in texts:
        pattern, _, name = text.partition("=")
        remedy = next((each for each in OVERRIDES if each.value == name), None)
        if remedy is None:
            raise UnknownCheck(
                f"{text!r} is malformed: write CHECK=index, CHECK=review or CHECK=record"
            )
        possible = [check for check in match_checks(pattern) if remedy in CHECKS[check].overrides]
        if not possible:
            raise UnknownCheck(f"indexing again cannot repair {pattern!r}: use review or record")
        chosen |= dict.fromkeys(possible, remedy)
    return chosen
