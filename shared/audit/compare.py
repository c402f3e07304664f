"""Comparison of the expected with the actual state of one entity.

`compare` does all of it: two values in, findings out. Before it is called, `needs_xml` says whether
the web service has to be asked, `downloads_needed` which files of the item have to be read, and
`absence_counts` whether a second request has to confirm an absence. Afterwards, `judged` says for
which checks an absent finding means anything.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Final

from artwork_backfill.shared.audit.actual import (
    Actual,
    Item,
    ItemFile,
    ItemState,
    OriginalImage,
    is_of_other_archive,
)
from artwork_backfill.shared.audit.archives import (
    INDEX_NAME,
    THUMBNAIL_SIZES,
    EntityType,
    image_name,
    item_name,
    thumbnail_name,
    xml_name,
)
from artwork_backfill.shared.audit.catalogue import CHECKS, Remedy, Severity
from artwork_backfill.shared.audit.compare_index import MalformedIndex, compare_index, parse_index
from artwork_backfill.shared.audit.compare_xml import (
    EntityXml,
    UnreadableXml,
    agrees,
    compare_metadata,
    compare_xml,
    is_date_comparable,
    parse_entity_xml,
)
from artwork_backfill.shared.audit.expected import Expected, index_json, md5
from artwork_backfill.shared.audit.finding import Finding, found

INDEX_MAX_BYTES: Final = 3 * 1024 * 1024
"""The maximum size of an index.json that is read; a listing takes about 700 bytes per image."""

XML_MAX_BYTES: Final = 2 * 1024 * 1024
"""The maximum size of an mb_metadata.xml that is read; answers have a few kilobytes."""

FINDINGS_PER_CHECK: Final = 50
"""The number of findings of one check that are kept, before a count of the rest."""


def needs_xml(expected: Expected, item: Item) -> bool:
    """Return whether the web service's XML is needed: there are art and an item to hold it.

    It is not needed if MusicBrainz's tables were read instead (`Expected.facts`) and agree with
    everything that archive.org shows of the XML in the item.
    """
    return (
        bool(expected.artwork) and _is_compared(expected, item) and not _is_current(expected, item)
    )


def _is_current(expected: Expected, item: Item) -> bool:
    return (
        expected.facts is not None
        and item.xml is not None
        and item.xml.size != 0
        and agrees(expected.facts, expected.gid, item.metadata)
    )


def absence_counts(expected: Expected) -> bool:
    """Return whether a decision depends on the item's absence, so that one answer is not enough.

    For a live entity without art an error does no harm, and it is audited again some day.
    """
    return not expected.is_live or bool(expected.artwork)


def _is_compared(expected: Expected, item: Item) -> bool:
    return (
        expected.is_live
        and item.state is ItemState.LISTED
        and not is_of_other_archive(item, expected.archive)
    )


def downloads_needed(expected: Expected, item: Item) -> tuple[str, ...]:
    """Return the names of the files to read, index.json first; none for a clean entity.

    A file whose listed MD5 is that of the expected bytes has the expected content, and a file over
    its size limit is malformed anyway. `Expected.xml` must be set before.
    """
    if not _is_compared(expected, item):
        return ()
    names = []
    if _must_read(item.index, index_json(expected), INDEX_MAX_BYTES):
        names.append(INDEX_NAME)
    if expected.artwork and _must_read(item.xml, expected.xml, XML_MAX_BYTES):
        names.append(xml_name(item.gid))
    return tuple(names)


def _must_read(file: ItemFile | None, wanted: bytes | None, limit: int) -> bool:
    if file is None or wanted is None or (file.size or 0) > limit:
        return False
    return file.md5 != md5(wanted)


def foreign_images(expected: Expected, item: Item) -> tuple[OriginalImage, ...]:
    """Return the originals in the item that do not belong to this entity, whatever their names.

    For a merged, deleted or unknown entity these are all originals. An original that has the id of
    an expected image and another suffix is not foreign.
    """
    own_ids = {artwork.id for artwork in expected.artwork} if expected.is_live else frozenset()
    return tuple(image for image in item.originals() if image.artwork_id not in own_ids)


def compare(expected: Expected, actual: Actual) -> tuple[Finding, ...]:
    """Return every difference between the two states, in the order of the catalogue's groups.

    Raises
    ------
    UnreadableXml
        The expected XML is not about this entity.
    ValueError
        The item is that of another gid, unfinished or unavailable; or the web service's XML (see
        `needs_xml`) or the content of a file (see `downloads_needed`) is missing.
    """
    item = actual.item
    if item.gid != expected.gid:
        raise ValueError(f"the item of {item.gid} cannot be compared with {expected.gid}")
    if item.state in (ItemState.UNFINISHED, ItemState.UNAVAILABLE):
        raise ValueError(f"{item_name(item.gid)} cannot be compared: {item.problem}")
    if is_of_other_archive(item, expected.archive):
        collections = "; ".join(item.metadata.collections)
        return (
            found(
                "item.archive",
                item_name(item.gid),
                expected=expected.archive.collection,
                actual=collections,
            ),
        )
    # The remedy of an image depends on its owner, so all of these images are kept.
    depends = {check for check, entry in CHECKS.items() if entry.remedy not in _SAME_FOR_ALL}
    return capped(_live(expected, actual) if expected.is_live else _orphan(expected, item), depends)


_SAME_FOR_ALL: Final = (Remedy.INDEX, Remedy.RECORD)


def capped(
    findings: Iterable[Finding], uncapped: Container[str] = frozenset()
) -> tuple[Finding, ...]:
    """Limit what one hostile item can add to the findings, without losing the highest severity.

    All findings of `uncapped` checks are kept.
    """
    kept: list[Finding] = []
    counts: Counter[str] = Counter()
    gravest: dict[str, Severity] = {}
    for finding in findings:
        counts[finding.check] += 1
        if finding.check in uncapped or counts[finding.check] <= FINDINGS_PER_CHECK:
            kept.append(finding)
        else:
            known = gravest.get(finding.check, finding.severity)
            gravest[finding.check] = max(known, finding.severity)
    kept.extend(
        found(check, f"({counts[check] - FINDINGS_PER_CHECK} more)", severity=severity)
        for check, severity in gravest.items()
    )
    return tuple(kept)


def _live(expected: Expected, actual: Actual) -> Iterator[Finding]:
    item = actual.item
    if item.state is ItemState.ABSENT:
        if expected.artwork:
            yield found("item.missing", item_name(item.gid))
    elif item.state is ItemState.DARK:
        if not expected.dark:
            yield found("item.dark", item_name(item.gid))
    else:
        yield from _present(expected, actual)


def _present(expected: Expected, actual: Actual) -> Iterator[Finding]:
    item, originals = actual.item, actual.item.originals()
    if expected.artwork:
        yield from _item(expected, item)
    yield from _originals(expected, item, originals)
    yield from _index(expected, actual, originals)
    if expected.artwork:
        yield from _xml(expected, actual)


def _item(expected: Expected, item: Item) -> Iterator[Finding]:
    metadata, collection = item.metadata, expected.archive.collection
    if collection not in metadata.collections:
        actual = "; ".join(metadata.collections) or None
        yield found("item.collection", expected=collection, actual=actual)
    if metadata.mediatype != "image":
        yield found("item.mediatype", expected="image", actual=metadata.mediatype)
    if metadata.noindex != "true":
        yield found("item.noindex", expected="true", actual=metadata.noindex)


def _originals(
    expected: Expected, item: Item, originals: tuple[OriginalImage, ...]
) -> Iterator[Finding]:
    names: dict[int, list[str]] = {}
    for image in originals:
        if image.artwork_id is not None:
            names.setdefault(image.artwork_id, []).append(image.name)
    for artwork in expected.artwork:
        name, present = image_name(item.gid, artwork.id, artwork.suffix), names.get(artwork.id, [])
        file = item.file(name)
        if file is None or name not in present:
            yield found("files.original.missing", name, actual=", ".join(present) or None)
        elif file.size == 0:
            yield found("files.original.empty", name)
        else:
            yield from _thumbnails(item, artwork.id)
    for artwork_id, present in names.items():
        if len(present) > 1:
            yield found("files.original.duplicate", str(artwork_id), actual=", ".join(present))
    for foreign in foreign_images(expected, item):
        yield found("files.original.extra", foreign.name, image=foreign)


def _thumbnails(item: Item, artwork_id: int) -> Iterator[Finding]:
    missing = [
        str(size)
        for size in THUMBNAIL_SIZES
        if item.file(thumbnail_name(item.gid, artwork_id, size)) is None
    ]
    if missing:
        yield found("files.thumbnail.missing", str(artwork_id), expected=", ".join(missing))


def _index(
    expected: Expected, actual: Actual, originals: tuple[OriginalImage, ...]
) -> Iterator[Finding]:
    file = actual.item.index
    if file is None:
        if expected.artwork:
            yield found("files.index.missing", INDEX_NAME)
        return
    if file.md5 == md5(index_json(expected)):
        return
    if _is_over(file, actual.index, INDEX_MAX_BYTES):
        yield found("index.malformed", INDEX_NAME, actual=f"over {INDEX_MAX_BYTES} bytes")
        return
    try:
        index = parse_index(_content(actual.item, file, actual.index))
    except MalformedIndex as error:
        yield found("index.malformed", INDEX_NAME, actual=str(error))
        return
    if expected.artwork or not index.lists_nothing:
        held_ids = {image.artwork_id for image in originals if image.artwork_id is not None}
        yield from compare_index(expected, index, held_ids)


def _xml(expected: Expected, actual: Actual) -> Iterator[Finding]:
    if expected.xml is None and not needs_xml(expected, actual.item):
        return
    if expected.xml is None:
        raise ValueError(f"the web service's XML of {expected.gid} is needed for the comparison")
    wanted = parse_entity_xml(expected.xml, expected.entity_type, expected.gid)
    yield from _archived_xml(expected.xml, wanted, actual)
    if expected.entity_type is EntityType.RELEASE:
        yield from compare_metadata(expected.gid, wanted, actual.item.metadata)


def _archived_xml(wanted: bytes, wanted_xml: EntityXml, actual: Actual) -> Iterator[Finding]:
    item, file = actual.item, actual.item.xml
    name = xml_name(item.gid)
    if file is None:
        yield found("files.xml.missing", name)
        return
    if file.md5 == md5(wanted):
        return
    if _is_over(file, actual.xml, XML_MAX_BYTES):
        yield found("xml.malformed", name, actual=f"over {XML_MAX_BYTES} bytes")
        return
    try:
        archived = parse_entity_xml(
            _content(item, file, actual.xml), wanted_xml.entity_type, item.gid
        )
    except UnreadableXml as error:
        yield found("xml.malformed", name, actual=str(error))
        return
    yield from compare_xml(wanted_xml, archived)


def _is_over(file: ItemFile, content: bytes | None, limit: int) -> bool:
    return (file.size or 0) > limit or (content is not None and len(content) > limit)


def _content(item: Item, file: ItemFile, content: bytes | None) -> bytes:
    if content is None:
        raise ValueError(f"{file.name} of {item_name(item.gid)} is needed for the comparison")
    return content


def _orphan(expected: Expected, item: Item) -> Iterator[Finding]:
    images = foreign_images(expected, item)
    for image in images:
        yield found("orphan.image", image.name, image=image)
    if item.index is not None:
        yield found("orphan.index", INDEX_NAME)
    leftovers = item.leftovers()
    if leftovers and not images and item.index is None:
        names = ", ".join(file.name for file in leftovers)
        yield found("orphan.leftover", item_name(item.gid), actual=names)


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

    `findings` is the result of `compare` for the two states. The next audit that judges the check
    of a repair proves the repair; in doubt, a check counts as not judged.
    """
    found = {finding.check for finding in findings}
    hidden = [glob for check in found for glob in _HIDDEN.get(check, ())]
    return frozenset(
        check
        for check in checks
        if check in found
        or (
            not any(fnmatch.fnmatchcase(check, glob) for glob in hidden)
            and _could_find(check, expected, actual)
        )
    )


def _could_find(check: str, expected: Expected, actual: Actual) -> bool:
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
