"""The checks that a comparison has judged: only for these does an absent finding mean anything.

The next audit that judges the check of a repair proves the repair. In doubt, a check counts as not
judged.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Final

from artwork_backfill.shared.audit.actual import Actual, ItemState
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.audit.entity_xml import parse_entity_xml
from artwork_backfill.shared.audit.expected import Expected, index_json, md5
from artwork_backfill.shared.audit.finding import Finding
from artwork_backfill.shared.audit.metadata import is_date_comparable

INCONCLUSIVE: Final = frozenset({"item.missing", "item.dark", "item.archive"})
"""Checks that leave the rest of the item uncompared."""

_HIDDEN: Final = {
    **dict.fromkeys(INCONCLUSIVE, ("*",)),
    "files.original.missing": ("files.original.empty", "files.thumbnail.*"),
    "files.original.empty": ("files.thumbnail.*",),
    "files.index.missing": ("index.*",),
    "files.xml.missing": ("xml.*",),
    "index.malformed": ("index.*",),
    "index.shape": ("index.image.*",),
    "index.image.missing": (
        "index.image.order",
        "index.image.field_*",
        "index.image.type",
        "index.image.value",
        "index.image.url",
    ),
    "index.image.field_missing": ("index.image.type", "index.image.value", "index.image.url"),
    "xml.malformed": ("xml.*",),
    "orphan.image": ("orphan.leftover",),
    "orphan.index": ("orphan.leftover",),
}
"""The checks that a finding of another one keeps from being judged, at least in part; globs."""


def judged(
    checks: Iterable[str], expected: Expected, actual: Actual, findings: Sequence[Finding]
) -> frozenset[str]:
    """Return those of `checks` that were compared, whether they were found or not.

    `findings` is the result of `compare` for the two states.
    """
    found = {finding.check for finding in findings}
    hidden = [glob for check in found for glob in _HIDDEN.get(check, ())]
    return frozenset(
        check
        for check in checks
        if check in found
        or (
            not any(fnmatch.fnmatchcase(check, glob) for glob in hidden)
            and _is_compared(check, expected, actual)
        )
    )


def _is_compared(check: str, expected: Expected, actual: Actual) -> bool:
    """Return whether the comparison could have found a check that it did not find."""
    if check not in CHECKS or CHECKS[check].applies == ("orphan" if expected.is_live else "live"):
        return False
    item = actual.item
    if not expected.is_live:
        # Nothing is left in an item that does not exist, which a second request has confirmed.
        return item.state in (ItemState.LISTED, ItemState.ABSENT)
    if item.state is not ItemState.LISTED:
        return False
    has_art = bool(expected.artwork)
    match check.split("."):
        case ["item", _] if check not in INCONCLUSIVE:
            return has_art
        case ["files", "index", _]:
            return has_art or item.index is not None
        case ["index", *_]:
            # Without art, a listing in another form may be empty, and is then not compared.
            return item.index is not None and (
                has_art or item.index.md5 == md5(index_json(expected))
            )
        case ["files", "xml", _]:
            return has_art
        case ["xml", _]:
            # If MusicBrainz's tables were read instead, the file itself was not examined.
            return has_art and expected.xml is not None
        case ["meta", field]:
            is_compared = has_art and expected.entity_type is EntityType.RELEASE
            return is_compared and (field != "date" or _is_date_compared(expected))
    return True


def _is_date_compared(expected: Expected) -> bool:
    if expected.xml is not None:
        return is_date_comparable(
            parse_entity_xml(expected.xml, expected.entity_type, expected.gid)
        )
    return expected.facts is not None and all(date.is_comparable for date in expected.facts.dates)
