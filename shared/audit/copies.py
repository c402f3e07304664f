"""Comparison of two copies of an image, by size and checksum.

An artwork id in a file name proves nothing: copies were found that were empty, truncated, private
or had another suffix.
"""

from __future__ import annotations

from enum import StrEnum

from artwork_backfill.shared.audit.actual import Item, ItemFile, ItemState, OriginalImage
from artwork_backfill.shared.audit.archives import ArtArchive, image_name, other_archive


class CopyState(StrEnum):
    """What another item holds of an image; the values are codes that are stored with reviews."""

    SAME = "same"
    """The same bytes under the same artwork id and suffix."""
    ONLY_COPY = "only_copy"
    """The other item does not hold the image, or does not exist."""
    ANOTHER_FILE = "another_file"
    """It holds other bytes or another suffix under the artwork id."""
    EMPTY = "owner_copy_empty"
    """Its file has no bytes."""
    PRIVATE = "owner_copy_private"
    """Its file is private."""
    DARK = "owner_item_dark"
    """archive.org hides the content of the other item."""
    OTHER_ARCHIVE = "owner_item_of_other_archive"
    """The other item belongs to the other archive."""
    INCOMPARABLE = "cannot_be_compared"
    """The two sides have neither size and MD5 nor size and SHA-1 in common."""
    UNKNOWN = "owner_item_unknown"
    """The other item could not be read, or is changing."""


def is_of_other_archive(item: Item, archive: ArtArchive) -> bool:
    """Return whether a listed item belongs to the other archive than `archive`."""
    collections = item.metadata.collections
    return (
        archive.collection not in collections and other_archive(archive).collection in collections
    )


def compare_copies(image: OriginalImage, item: Item, archive: ArtArchive) -> CopyState:
    """Return what `item`, that of the image's owner in `archive`, holds of `image`."""
    match item.state:
        case ItemState.DARK:
            return CopyState.DARK
        case ItemState.ABSENT:
            return CopyState.ONLY_COPY
        case ItemState.UNFINISHED | ItemState.UNAVAILABLE:
            return CopyState.UNKNOWN
        case ItemState.LISTED:
            pass
    if is_of_other_archive(item, archive):
        return CopyState.OTHER_ARCHIVE
    if image.artwork_id is None:
        return CopyState.ONLY_COPY
    name = image_name(item.gid, image.artwork_id, image.suffix)
    originals = [each for each in item.originals() if each.artwork_id == image.artwork_id]
    if not originals:
        return CopyState.ONLY_COPY
    theirs = next((each.file for each in originals if each.file.name == name), None)
    return CopyState.ANOTHER_FILE if theirs is None else _compare(image.file, theirs)


def _compare(ours: ItemFile, theirs: ItemFile) -> CopyState:
    if theirs.private:
        return CopyState.PRIVATE
    if theirs.size == 0:
        return CopyState.EMPTY
    if None not in (ours.size, theirs.size) and ours.size != theirs.size:
        return CopyState.ANOTHER_FILE
    digests = [(ours.md5, theirs.md5), (ours.sha1, theirs.sha1)]
    usable = [(mine, other) for mine, other in digests if mine is not None and other is not None]
    if any(mine != other for mine, other in usable):
        return CopyState.ANOTHER_FILE
    if not usable or ours.size is None or theirs.size is None:
        return CopyState.INCOMPARABLE
    return CopyState.SAME
