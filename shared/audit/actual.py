"""The actual state of one item, read out of archive.org's metadata answer.

An answer is either taken for a state as a whole or refused as a whole (`UnreadableItem`): what
could not be read is never taken for missing. Fetching the answer is the caller's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from artwork_backfill.shared.audit.archives import INDEX_NAME, item_name, xml_name


class UnreadableItem(ValueError):
    """An answer that cannot be taken for the state of the item that was asked for."""


class ItemState(StrEnum):
    """What archive.org shows of an item."""

    ABSENT = "absent"
    DARK = "dark"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class ItemFile:
    """One file of an item's listing.

    `md5` is lower-case hexadecimal and `size` is in bytes; either is None when archive.org does not
    tell it in a usable form. `original` names the file that a derivative was made from.
    """

    name: str
    source: str
    md5: str | None = None
    size: int | None = None
    original: str | None = None
    old_version: bool = False


@dataclass(frozen=True, slots=True)
class ItemMetadata:
    """The metadata of an item that an audit looks at.

    archive.org gives a field with several values as a list. Where one value is meant, several
    different ones are joined with `; `, so that they equal no single value.
    """

    collections: tuple[str, ...] = ()
    mediatype: str | None = None
    noindex: str | None = None
    title: str | None = None
    creators: tuple[str, ...] = ()
    date: str | None = None
    language: str | None = None
    external_identifiers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OriginalImage:
    """An image as it was uploaded, with what its file name tells."""

    artwork_id: int
    suffix: str
    file: ItemFile


@dataclass(frozen=True, slots=True)
class Item:
    """What archive.org holds for one gid.

    `pending` says that work is under way (or stuck): what the item shows is not its final state.
    `last_updated` is in epoch seconds. `d1`, `d2` and `dir` say where the files are stored; they
    are as archive.org sent them and have to be checked before use.
    """

    gid: str
    state: ItemState
    files: tuple[ItemFile, ...] = ()
    metadata: ItemMetadata = ItemMetadata()
    last_updated: int | None = None
    pending: bool = False
    d1: str | None = None
    d2: str | None = None
    dir: str | None = None
    _by_name: Mapping[str, ItemFile] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {file.name: file for file in self.files if not file.old_version}
        object.__setattr__(self, "_by_name", by_name)

    def file(self, name: str) -> ItemFile | None:
        """The current file of that name, None when the item does not list one."""
        return self._by_name.get(name)

    @property
    def index(self) -> ItemFile | None:
        """The image listing."""
        return self.file(INDEX_NAME)

    @property
    def xml(self) -> ItemFile | None:
        """The web service's XML as it was when the entity was last indexed."""
        return self.file(xml_name(self.gid))

    def originals(self) -> tuple[OriginalImage, ...]:
        """The images as they were uploaded, in the order of the listing.

        Only files named after this item's gid count: a merge copies images under the new name, and
        artwork-indexer can delete no others. Anything else is among the `leftovers`.
        """
        return tuple(self._originals())

    def _originals(self) -> Iterator[OriginalImage]:
        prefix = f"{item_name(self.gid)}-"
        for file in self._by_name.values():
            if file.source != "original" or not file.name.startswith(prefix):
                continue
            match = _IMAGE_TAIL.fullmatch(file.name, len(prefix))
            if match and (artwork_id := int(match["id"])) <= _BIGINT_MAX:
                yield OriginalImage(artwork_id, match["suffix"], file)

    def leftovers(self) -> tuple[ItemFile, ...]:
        """The files that are neither index.json nor an original image nor archive.org's own."""
        accounted = {original.file.name for original in self._originals()} | {INDEX_NAME}
        return tuple(
            file
            for file in self._by_name.values()
            if file.name not in accounted and not _is_archive_orgs(file.name, self.gid)
        )


@dataclass(frozen=True, slots=True)
class Actual:
    """An item and the content of those of its files that had to be read.

    `index` and `xml` are None when `compare.downloads_needed` does not name them.
    """

    item: Item
    index: bytes | None = None
    xml: bytes | None = None


# An artwork id is a BIGINT, written without leading zeros.
_IMAGE_TAIL: Final = re.compile(r"(?P<id>0|[1-9][0-9]{0,18})\.(?P<suffix>[A-Za-z0-9]+)")
_BIGINT_MAX: Final = 2**63 - 1
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")

# Nobody outside archive.org can remove these, and they say nothing about drift.
_ARCHIVE_ORGS_NAMES: Final = frozenset({"__ia_thumb.jpg"})
_ARCHIVE_ORGS_TAILS: Final = frozenset(
    {
        "_meta.xml",
        "_meta.sqlite",
        "_files.xml",
        "_archive.torrent",
        "_reviews.xml",
        "_rules.conf",
    }
)
_HISTORY: Final = "history/"


def _is_archive_orgs(name: str, gid: str) -> bool:
    return (
        name in _ARCHIVE_ORGS_NAMES
        or name.startswith(_HISTORY)
        or name.removeprefix(item_name(gid)) in _ARCHIVE_ORGS_TAILS
    )


def parse_item(document: object, gid: str) -> Item:
    """The state of the item of `gid` (lower case) in a parsed answer of the metadata API.

    Raises `UnreadableItem` for anything that is not plainly one of an absent item (exactly `{}`), a
    dark item, or a listing of files and metadata that names the very item that was asked for.
    """
    if not isinstance(document, dict):
        raise UnreadableItem(f"{item_name(gid)}: the metadata answer is not an object")
    if not document:
        return Item(gid, ItemState.ABSENT)
    _refuse_trouble(document, gid)
    metadata = document.get("metadata")
    is_dark = _is_set(document.get("is_dark"))
    _refuse_other_item(document, metadata, gid, may_be_silent=is_dark)
    return Item(
        gid,
        ItemState.DARK if is_dark else ItemState.PRESENT,
        files=() if is_dark else _parse_files(document.get("files"), gid),
        metadata=ItemMetadata() if is_dark else _parse_metadata(metadata, gid),
        last_updated=_number(document.get("item_last_updated")),
        pending=_is_set(document.get("pending_tasks")) or _is_set(document.get("has_redrow")),
        d1=_text(document.get("d1")),
        d2=_text(document.get("d2")),
        dir=_text(document.get("dir")),
    )


def _refuse_trouble(document: Mapping[str, object], gid: str) -> None:
    if "error" in document:
        raise UnreadableItem(f"{item_name(gid)}: archive.org answers with an error")
    if _is_set(document.get("servers_unavailable")):
        raise UnreadableItem(f"{item_name(gid)}: the item's servers are unavailable")


def _refuse_other_item(
    document: Mapping[str, object], metadata: object, gid: str, *, may_be_silent: bool
) -> None:
    """Refuse an answer that names another item, or none where it has to name one."""
    identifier = metadata.get("identifier") if isinstance(metadata, dict) else None
    if identifier is None and (directory := _text(document.get("dir"))):
        identifier = directory.rpartition("/")[2]
    if identifier is None and may_be_silent:
        return
    if identifier not in (item_name(gid), [item_name(gid)]):
        raise UnreadableItem(f"{item_name(gid)}: the answer is not about this item")


def _parse_files(files: object, gid: str) -> tuple[ItemFile, ...]:
    if not isinstance(files, list):
        raise UnreadableItem(f"{item_name(gid)}: the answer has no list of files")
    return tuple(_parse_file(file, gid) for file in files)


def _parse_file(file: object, gid: str) -> ItemFile:
    if not isinstance(file, dict):
        raise UnreadableItem(f"{item_name(gid)}: a file in the listing is not an object")
    name, source = file.get("name"), file.get("source")
    if not isinstance(name, str) or not isinstance(source, str) or not name:
        raise UnreadableItem(f"{item_name(gid)}: a file in the listing has no name or no source")
    digest = file.get("md5")
    return ItemFile(
        name,
        source,
        digest if isinstance(digest, str) and _MD5.fullmatch(digest) else None,
        _number(file.get("size")),
        _text(file.get("original")),
        _is_set(file.get("old_version")),
    )


def _parse_metadata(metadata: object, gid: str) -> ItemMetadata:
    if not isinstance(metadata, dict):
        raise UnreadableItem(f"{item_name(gid)}: the answer has no metadata")
    return ItemMetadata(
        collections=_values(metadata.get("collection")),
        mediatype=_single(metadata.get("mediatype")),
        noindex=_single(metadata.get("noindex")),
        title=_single(metadata.get("title")),
        creators=_values(metadata.get("creator")),
        date=_single(metadata.get("date")),
        language=_single(metadata.get("language")),
        external_identifiers=_values(metadata.get("external-identifier")),
    )


def _values(value: object) -> tuple[str, ...]:
    """One value or a list of them as texts; objects and null are no values."""
    values = value if isinstance(value, list) else [value]
    return tuple(text for each in values if (text := _scalar(each)) is not None)


def _scalar(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return _text(value)


def _single(value: object) -> str | None:
    values = dict.fromkeys(_values(value))
    return "; ".join(values) if values else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    return None


def _is_set(value: object) -> bool:
    """Whether a flag is set; anything but a plain denial counts as set, to be on the safe side."""
    return bool(value) and value not in ("false", "0")
