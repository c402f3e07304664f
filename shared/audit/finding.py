"""A difference between the two states, in a form that can be stored and shown.

`catalogue` lists the kinds of differences; `compare` finds them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from artwork_backfill.shared.audit.actual import OriginalImage
from artwork_backfill.shared.audit.catalogue import CHECKS, Severity

TEXT_LIMIT: Final = 300
"""The maximum length of a subject or value, in characters; longer texts end with an ellipsis."""

# PostgreSQL's JSONB and text reject NUL, and a lone surrogate has no UTF-8 form.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference.

    `subject` names what differs within the entity: an artwork id and field, a file, a path in the
    XML; it is empty if the check says it all. `expected` and `actual` are texts for people, None
    for nothing. All three can be stored in JSONB and have at most `TEXT_LIMIT` characters if made
    by `found`. `image` is set for findings whose remedy depends on the image's owner.
    """

    check: str
    severity: Severity
    subject: str = ""
    expected: str | None = None
    actual: str | None = None
    image: OriginalImage | None = None

    def to_json(self) -> dict[str, str | None]:
        """Return the finding as stored: check, severity (as a word), subject, expected, actual."""
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
    """Return a finding of the catalogue, with texts of any origin made storable and short.

    Parameters
    ----------
    severity
        By default, the usual one of the check.

    Raises
    ------
    KeyError
        The catalogue does not have the check.
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
    """Return `text` truncated to `TEXT_LIMIT`, without characters that PostgreSQL cannot store."""
    if len(text) > TEXT_LIMIT:
        text = text[: TEXT_LIMIT - 1] + "…"
    return _UNSTORABLE.sub("\ufffd", text)
