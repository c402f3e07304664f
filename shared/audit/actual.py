"""Classification of archive.org's answers about items: one function for every metadata answer.

It serves an entity's own item and those of images' owners alike. An answer is accepted as a whole
or not at all: what could not be read is never taken for missing. The caller sends the requests, and
a second one before it believes an absence. `compare_copies` compares an image with its owner's copy
by size and checksum: the artwork id in a file name proves nothing, because copies were found that
were empty, truncated, private or had another suffix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from artwork_backfill.shared.audit.archives import (
    INDEX_NAME,
    ArtArchive,
    image_name,
    item_name,
    other_archive,
    xml_log_name,
    xml_name,
)


class ItemState(StrEnum):
    """The class of an answer of the metadata API."""

    LISTED = "listed"
    """A complete list of the item's files."""
    ABSENT = "absent"
    """No such item. A single answer proves nothing: ask again."""
    DARK = "dark"
    """The item exists, but archive.org hides its content."""
    UNFINISHED = "unfinished"
    """archive.org is working on the item or stuck: it does not show its final state."""
    UNAVAILABLE = "unavailable"
    """The answer says nothing about the item."""


@dataclass(frozen=True, slots=True)
class ItemFile:
    """One file in an item's listing.

    `md5` and `sha1` are lower-case hexadecimal, `size` is in bytes; each is None if archive.org
    does not give it in a usable form. `original` names the file that a derivative was made from.
    """

    name: str
    source: str
    md5: str | None = None
    size: int | None = None
    original: str | None = None
    old_version: bool = False
    sha1: str | None = None
    format: str | None = None
    private: bool = False


@dataclass(frozen=True, slots=True)
class ItemMetadata:
    """The metadata of an item that an audit uses.

    archive.org gives a field with several values as a list. If a field should have one value,
    several different ones are joined with `; `, so that they equal no single value.
    """

    collections: tuple[str, ...] = ()
    mediatype: str | None = None
    noindex: str | None = None
    title: str | None = None
    creators: tuple[str, ...] = ()
    #: The artists' sort names.
    creators_alt_script: tuple[str, ...] = ()
    date: str | None = None
    language: str | None = None
    external_identifiers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OriginalImage:
    """An image as uploaded, with the parts of its file name.

    `artwork_id` is None if the name is not of the form `mbid-{gid}-{artwork_id}.{suffix}`.
    """

    artwork_id: int | None
    suffix: str
    file: ItemFile

    @property
    def name(self) -> str:
        """The file's name."""
        return self.file.name


@dataclass(frozen=True, slots=True)
class Item:
    """What archive.org says about the item of one gid.

    Files and metadata are empty unless the state is `LISTED`. `problem` says why the item cannot be
    compared (`UNFINISHED`, `UNAVAILABLE`); `is_incomplete` marks an incomplete listing.
    `last_updated` is in epoch seconds. `d1`, `d2` and `dir` say where the files are stored; they
    are as archive.org sent them, and must be checked before use.
    """

    gid: str
    state: ItemState
    files: tuple[ItemFile, ...] = ()
    metadata: ItemMetadata = ItemMetadata()
    last_updated: int | None = None
    d1: str | None = None
    d2: str | None = None
    dir: str | None = None
    problem: str = ""
    is_incomplete: bool = False
    _by_name: Mapping[str, ItemFile] = field(init=False, repr=False, compare=False)
    _originals: tuple[OriginalImage, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {file.name: file for file in self.files if not file.old_version}
        object.__setattr__(self, "_by_name", by_name)
        # Once, because each of thousands of images may be looked up among thousands.
        object.__setattr__(self, "_originals", tuple(self._find_originals()))

    def file(self, name: str) -> ItemFile | None:
        """Return the current file of that name, or None if the item does not list one."""
        return self._by_name.get(name)

    @property
    def index(self) -> ItemFile | None:
        """The image listing."""
        return self.file(INDEX_NAME)

    @property
    def xml(self) -> ItemFile | None:
        """The web service's XML as of the last indexing of the entity."""
        return self.file(xml_name(self.gid))

    def originals(self) -> tuple[OriginalImage, ...]:
        """Return the images as uploaded, whatever their names, in listing order.

        These are the files of source `original` with an image or PDF suffix or format, without
        archive.org's own files and old versions.
        """
        return self._originals

    def _find_originals(self) -> Iterator[OriginalImage]:
        prefix = f"{item_name(self.gid)}-"
        for file in self._by_name.values():
            if file.source != "original" or _is_archive_orgs(file.name, self.gid):
                continue
            suffix = file.name.rpartition(".")[2]
            if file.name.startswith(prefix):
                match = _IMAGE_TAIL.fullmatch(file.name, len(prefix))
                if match and (artwork_id := int(match["id"])) <= _BIGINT_MAX:
                    yield OriginalImage(artwork_id, match["suffix"], file)
                    continue
            if suffix.lower() in _IMAGE_SUFFIXES or _IMAGE_FORMAT.search(file.format or ""):
                yield OriginalImage(None, suffix, file)

    def leftovers(self) -> tuple[ItemFile, ...]:
        """Return files that neither belong to an orphan's item nor are archive.org's own.

        mb_metadata.xml and its log normally remain after a merge or deletion.
        """
        accounted = {original.file.name for original in self._originals}
        accounted |= {INDEX_NAME, xml_name(self.gid), xml_log_name(self.gid)}
        return tuple(
            file
            for file in self._by_name.values()
            if file.name not in accounted and not _is_archive_orgs(file.name, self.gid)
        )


@dataclass(frozen=True, slots=True)
class Actual:
    """An item, and the content of those of its files that had to be read.

    `index` and `xml` are None if `compare.downloads_needed` does not name them.
    """

    item: Item
    index: bytes | None = None
    xml: bytes | None = None


# An artwork id is a BIGINT, written without leading zeros.
_IMAGE_TAIL: Final = re.compile(r"(?P<id>0|[1-9][0-9]{0,18})\.(?P<suffix>[A-Za-z0-9]+)")
_BIGINT_MAX: Final = 2**63 - 1
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_SHA1: Final = re.compile(r"[0-9a-f]{40}")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")

_IMAGE_SUFFIXES: Final = frozenset(
    {"avif", "bmp", "gif", "heic", "heif", "jfif", "jp2", "jpe", "jpeg", "jpg", "pdf", "png"}
    | {"svg", "tif", "tiff", "webp"}
)
_IMAGE_FORMAT: Final = re.compile(
    r"\b(avif|bitmap|bmp|gif|hei[cf]|image|jpe?g|jpeg 2000|pdf|png|svg|tiff?|webp)\b", re.IGNORECASE
)

# Only archive.org can remove these, and they say nothing about differences.
_ARCHIVE_ORGS_NAMES: Final = frozenset({"__ia_thumb.jpg"})
_ARCHIVE_ORGS_TAILS: Final = (
    "_meta.xml",
    "_meta.sqlite",
    "_files.xml",
    "_archive.torrent",
    "_reviews.xml",
    "_rules.conf",
)
_OF_PDFS: Final = (
    "_jp2.zip",
    "_text.pdf",
    "_chocr.html.gz",
    "_hocr_searchtext.txt.gz",
    "_hocr_pageindex.json.gz",
    "_page_numbers.json",
    "_scandata.xml",
)
_HISTORY: Final = "history/"


def _is_archive_orgs(name: str, gid: str) -> bool:
    item = item_name(gid)
    if name in _ARCHIVE_ORGS_NAMES or name.startswith(_HISTORY):
        return True
    if not name.startswith(item):
        return False
    rest = name.removeprefix(item)
    if rest in _ARCHIVE_ORGS_TAILS or name == xml_log_name(gid):
        return True
    tail = next((tail for tail in _OF_PDFS if rest.endswith(tail)), None)
    return tail is not None and re.fullmatch(r"(-[0-9]+)?", rest.removesuffix(tail)) is not None


class _Unusable(ValueError):
    """The answer does not describe a state of the item. The message says why."""


class _Incomplete(_Unusable):
    """The answer is an incomplete listing."""


# The codes of extended_err=1.
_NO_SUCH_ITEM: Final = 104
_PENDING: Final = 101


def classify(document: object, gid: str) -> Item:
    """Return what a parsed answer of the metadata API means for the item of `gid` (lower case).

    The first applicable class counts, in this order: dark, an errcode, unfinished, unavailable,
    listed, absent. An answer of any other form is unavailable. Never raises.

    Parameters
    ----------
    document
        The parsed JSON answer, of any type.
    gid
        The entity's MBID, lower case.
    """
    if document in ({}, []):
        return Item(gid, ItemState.ABSENT)
    try:
        if not isinstance(document, dict):
            raise _Unusable("the metadata answer is not an object")
        _refuse_other_item(document, gid)
        state = _state(document)
        if state is ItemState.LISTED:
            return _listed(document, gid)
        return Item(gid, state, problem=_SAYS[state])
    except _Unusable as problem:
        return Item(
            gid,
            ItemState.UNAVAILABLE,
            problem=str(problem),
            is_incomplete=isinstance(problem, _Incomplete),
        )


def collections_of(document: object, gid: str) -> tuple[str, ...]:
    """Return the collections that an answer names, or nothing.

    Collections are set when an item is created, so even an answer that is useless for an audit
    shows them.
    """
    if not isinstance(document, dict):
        return ()
    metadata = document.get("metadata")
    try:
        _refuse_other_item(document, gid)
        return _parse_metadata(metadata).collections if isinstance(metadata, dict) else ()
    except _Unusable:
        return ()


_SAYS: Final = {
    ItemState.ABSENT: "",
    ItemState.DARK: "",
    ItemState.UNFINISHED: "archive.org is still working on the item",
}


def _state(document: Mapping[str, object]) -> ItemState:
    if _is_set(document.get("is_dark")):
        return ItemState.DARK
    if (code := document.get("errcode")) is not None:
        number = _number(code)
        if number == _NO_SUCH_ITEM:
            return ItemState.ABSENT
        if number == _PENDING:
            return ItemState.UNFINISHED
        raise _Unusable(f"archive.org answers with errcode {str(code)[:40]}")
    if any(map(_is_set, map(document.get, ("pending_tasks", "has_redrow", "tasks", "nodownload")))):
        return ItemState.UNFINISHED
    if "error" in document:
        raise _Unusable("archive.org answers with an error")
    return ItemState.LISTED


def _listed(document: Mapping[str, object], gid: str) -> Item:
    files = _parse_files(document)
    _refuse_incomplete(document, files, gid)
    return Item(
        gid,
        ItemState.LISTED,
        files=files,
        metadata=_parse_metadata(document.get("metadata")),
        last_updated=_number(document.get("item_last_updated")),
        d1=_text(document.get("d1")),
        d2=_text(document.get("d2")),
        dir=_text(document.get("dir")),
    )


def _refuse_incomplete(
    document: Mapping[str, object], files: tuple[ItemFile, ...], gid: str
) -> None:
    """Reject a truncated or contradictory listing; `files_count` also counts old versions."""
    if "files_count" in document and _number(document["files_count"]) != len(files):
        count = str(document["files_count"])[:40]
        raise _Incomplete(f"the listing has {len(files)} files, and files_count says {count}")
    current: dict[str, ItemFile] = {}
    for file in files:
        if file.old_version:
            continue
        known = current.setdefault(file.name, file)
        if known is not file and known != file:
            raise _Unusable(f"the listing contradicts itself about {file.name}")
    for tail in ("_meta.xml", "_files.xml"):
        if item_name(gid) + tail not in current:
            raise _Incomplete(f"the listing lacks the item's {tail}")


def _refuse_other_item(document: Mapping[str, object], gid: str) -> None:
    """Reject an answer about another item."""
    metadata = document.get("metadata")
    identifier = metadata.get("identifier") if isinstance(metadata, dict) else None
    if identifier is None and (directory := _text(document.get("dir"))):
        identifier = directory.rpartition("/")[2]
    if identifier is not None and identifier not in (item_name(gid), [item_name(gid)]):
        raise _Unusable("the answer is not about this item")


def _parse_files(document: Mapping[str, object]) -> tuple[ItemFile, ...]:
    files = document.get("files")
    if not isinstance(files, list):
        raise _Unusable("the answer has no list of files")
    return tuple(map(_parse_file, files))


def _parse_file(file: object) -> ItemFile:
    if not isinstance(file, dict):
        raise _Unusable("a file in the listing is not an object")
    name, source = file.get("name"), file.get("source")
    if not isinstance(name, str) or not isinstance(source, str) or not name:
        raise _Unusable("a file in the listing has no name or no source")
    return ItemFile(
        name,
        source,
        _digest(file.get("md5"), _MD5),
        _number(file.get("size")),
        _text(file.get("original")),
        _is_set(file.get("old_version")) or name.startswith(_HISTORY),
        _digest(file.get("sha1"), _SHA1),
        _text(file.get("format")),
        _is_set(file.get("private")),
    )


def _digest(value: object, form: re.Pattern[str]) -> str | None:
    if not isinstance(value, str):
        return None
    digest = value.lower()
    return digest if form.fullmatch(digest) else None


def _parse_metadata(metadata: object) -> ItemMetadata:
    if not isinstance(metadata, dict):
        raise _Unusable("the answer has no metadata")
    return ItemMetadata(
        collections=_values(metadata.get("collection")),
        mediatype=_single(metadata.get("mediatype")),
        noindex=_single(metadata.get("noindex")),
        title=_single(metadata.get("title")),
        creators=_values(metadata.get("creator")),
        creators_alt_script=_values(metadata.get("creator-alt-script")),
        date=_single(metadata.get("date")),
        language=_single(metadata.get("language")),
        external_identifiers=_values(metadata.get("external-identifier")),
    )


def _values(value: object) -> tuple[str, ...]:
    """Return one value or a list of values as texts; objects and null are not values."""
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
    """Return whether a flag is set; for safety, anything but a plain denial counts as set."""
    return bool(value) and value not in ("false", "0")


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
    return CopyState.ANOTHER_FILE if theirs is None else _compare_files(image.file, theirs)


def _compare_files(ours: ItemFile, theirs: ItemFile) -> CopyState:
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
