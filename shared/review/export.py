"""Tasks that only archive.org's staff can do, as instructions for them.

The indexer can write files. It cannot make a dark item visible, derive thumbnails again, remove
unknown files, or set metadata of an existing item. The instructions come from the latest audit of
every entity that waits for a person, and from the codes of its review.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType, item_name


@dataclass(frozen=True, slots=True)
class Instruction:
    """One task for one item, in words that need no knowledge of the audit."""

    identifier: str
    what: str


#: Instructions by check.
_ALWAYS: Final[Mapping[str, str]] = {
    "item.missing": "restore the item, or confirm that it is gone",
    "item.dark": "make the item visible again, or say why it is dark",
    "item.collection": "set collection to {collection}",
    "item.mediatype": "set mediatype to image",
    "item.noindex": "set noindex to true",
    "files.thumbnail.missing": "derive the item again: thumbnails are missing",
    "orphan.leftover": "remove the item: MusicBrainz does not have the entity any more",
}

#: For checks that artwork-indexer usually repairs, if the entity's review is about them.
_WHEN_NOT_HELD: Final[Mapping[str, str]] = {
    f"meta.{field}": f"set {name} to that of mb_metadata.xml"
    for field, name in (
        ("title", "title"),
        ("creator", "creator"),
        ("date", "date"),
        ("language", "language"),
        ("external_identifier", "external-identifier"),
    )
}

_PAGE: Final = 1_000

_NEXT: Final = """
SELECT review.id, entity.entity_type::text, entity.gid, review.reasons, latest.findings
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
    """Yield the instructions for the staff, reading a page of open reviews at a time."""
    after = 0
    while rows := conn.execute(_NEXT, {"after": after, "limit": _PAGE}).fetchall():
        for _, entity_type, gid, reasons, findings in rows:
            in_review = {reason.get("check") for reason in reasons}
            yield from _for_item(EntityType(entity_type), gid, in_review, findings)
        after = rows[-1][0]


def _for_item(
    entity_type: EntityType,
    gid: UUID,
    in_review: Collection[str | None],
    findings: Sequence[Mapping[str, Any]],
) -> Iterator[Instruction]:
    found = dict.fromkeys(finding["check"] for finding in findings)
    for check in found:
        what = _ALWAYS.get(check)
        if what is None and check in in_review:
            what = _WHEN_NOT_HELD.get(check)
        if what is not None:
            collection = ART_ARCHIVES[entity_type].collection
            yield Instruction(item_name(str(gid)), what.format(collection=collection))
