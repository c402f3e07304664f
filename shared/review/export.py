"""What only archive.org's staff can mend, as instructions for them.

The indexer can write files; it cannot make a dark item visible, derive thumbnails anew, remove an
item, or set metadata that archive.org would not take from it. The instructions come from the
latest audit of every entity that waits for a person.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType, item_name
from psycopg import Connection


@dataclass(frozen=True, slots=True)
class Instruction:
    """One thing to do to one item, in words that need no knowledge of the audit."""

    identifier: str
    what: str


#: Instructions by check. What artwork-indexer mends by itself is asked of the staff only once it
#: did not hold.
_ALWAYS: Final[Mapping[str, str]] = {
    "item.missing": "restore the item, or confirm that it is gone",
    "item.dark": "make the item visible again, or say why it is dark",
    "files.thumbnail.missing": "derive the item again: thumbnails are missing",
    "orphan.leftover": "remove the item: MusicBrainz does not have the entity any more",
}
_WHEN_NOT_HELD: Final[Mapping[str, str]] = {
    "item.collection": "set collection to {collection}",
    "item.mediatype": "set mediatype to image",
    "item.noindex": "set noindex to true",
}

_PAGE: Final = 1_000

# The decision's reasons say which repairs did not hold, in these words.
_NOT_HELD: Final = "repair did not hold: {check}"

_NEXT: Final = """
SELECT review.id, entity.entity_type::text, entity.gid, review.review_reason, latest.findings
FROM artwork_indexer.needs_manual_review review
JOIN artwork_indexer.audit_entity entity ON entity.id = review.audit_entity_id
CROSS JOIN LATERAL (
    SELECT findings
    FROM artwork_indexer.audit_result result
    WHERE result.audit_entity_id = entity.id
    ORDER BY result.id DESC
    LIMIT 1
) AS latest
WHERE review.status = 'open'
AND review.id > %(after)s
ORDER BY review.id
LIMIT %(limit)s
"""


def instructions(conn: Connection) -> Iterator[Instruction]:
    """Yield what the staff would have to do, a page of open reviews at a time."""
    after = 0
    while rows := conn.execute(_NEXT, {"after": after, "limit": _PAGE}).fetchall():
        for _, entity_type, gid, reason, findings in rows:
            yield from _for_item(EntityType(entity_type), gid, reason, findings)
        after = rows[-1][0]


def _for_item(
    entity_type: EntityType, gid: UUID, reason: str, findings: Sequence[Mapping[str, Any]]
) -> Iterator[Instruction]:
    found = dict.fromkeys(finding["check"] for finding in findings)
    for check in found:
        what = _ALWAYS.get(check)
        if what is None and _NOT_HELD.format(check=check) in reason:
            what = _WHEN_NOT_HELD.get(check)
        if what is not None:
            collection = ART_ARCHIVES[entity_type].collection
            yield Instruction(item_name(str(gid)), what.format(collection=collection))
