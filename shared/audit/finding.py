"""One difference between the two states, in a form that can be stored and shown.

Which differences there are stands in `catalogue`; they are found in `compare`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from artwork_backfill.shared.audit.actual import OriginalImage
from artwork_backfill.shared.audit.catalogue import CHECKS, Severity

TEXT_LIMIT: Final = 300
"""Longest subject or value of a finding, in characters; what is longer ends with an ellipsis."""

# PostgreSQL's JSONB and text refuse NUL, and a lone surrogate has no UTF-8 form.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference.

    `subject` names what differs within the entity: an artwork id and field, a file, a path in the
    XML; it is empty when the check says it all. `expected` and `actual` are texts for people, None
    for nothing. All three are storable in JSONB and at most `TEXT_LIMIT` characters long when made
    by `found`. `image` is set for the findings whose remedy depends on whose image it is.
    """

    check: str
    severity: Severity
    subject: str = ""
    expected: str | None = None
    actual: str | None = None
    image: OriginalImage | None = None

    def to_json(self) -> dict[str, str | None]:
        """The finding as it is stored: check, severity (as a word), subject, expected, actual."""
        return {
            "check": self.check,
            "severity": self.severity.label,
            "subject": self.subject,
            "expected": self.expected,
            "actual": self.actual,
        }


def found(
    check: str,
    subject: str = "",
    *,
    expected: str | None = None,
    actual: str | None = None,
    severity: Severity | None = None,
    image: OriginalImage | None = None,
) -> Finding:
    """A finding of the catalogue, with texts of any origin made storable and short.

    Without `severity` it has the check's usual one. Raises KeyError for a check that the catalogue
    does not have.
    """
    return Finding(
        check,
        CHECKS[check].severity if severity is None else severity,
        storable(subject),
        None if expected is None else storable(expected),
        None if actual is None else storable(actual),
        image,
    )


def storable(text: str) -> str:
    """`text` cut to `TEXT_LIMIT` and without what PostgreSQL cannot store."""
    if len(text) > TEXT_LIMIT:
        text = text[: TEXT_LIMIT - 1] + "…"
    return _UNSTORABLE.sub("\ufffd", text)
