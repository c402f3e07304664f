"""Expected and found side by side, for a person who wants to see what an audit has compared.

Value by value (`sides`) and as whole documents (`documents`). Everything is shown, whether it
differs or not; `compare` decides what counts as a difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from artwork_backfill.shared.audit.actual import Actual, Item, ItemFile, ItemState
from artwork_backfill.shared.audit.archives import (
    INDEX_NAME,
    THUMBNAIL_SIZES,
    image_name,
    thumbnail_name,
    xml_name,
)
from artwork_backfill.shared.audit.compare_index import MalformedIndex, listed_id, parse_index
from artwork_backfill.shared.audit.compare_xml import UnreadableXml, parse_entity_xml
from artwork_backfill.shared.audit.expected import Expected, index_json, md5
from artwork_backfill.shared.audit.finding import storable


class Part(StrEnum):
    """The part of an item that a line is about."""

    ITEM = "item"
    FILES = "files"
    INDEX = INDEX_NAME
    XML = "mb_metadata.xml"


@dataclass(frozen=True, slots=True)
class Side:
    """One value as expected and as found; None if there is none."""

    part: Part
    what: str
    expected: str | None
    found: str | None

    @property
    def differs(self) -> bool:
        """Whether the two texts differ."""
        return self.expected != self.found


@dataclass(frozen=True, slots=True)
class Document:
    """A document as expected and as found, in lines; None if there is none.

    `problem` says why the found one is unknown.
    """

    name: str
    expected: str | None
    found: str | None
    problem: str = ""


def sides(expected: Expected, actual: Actual) -> tuple[Side, ...]:
    """Return all that was compared, in the order item, files, index.json, XML.

    Texts are truncated as in findings. An entity that is not live is expected to have nothing.
    """
    if actual.item.state is not ItemState.LISTED:
        wanted = ItemState.LISTED if expected.artwork else None
        return (Side(Part.ITEM, "state", wanted, actual.item.state),)
    lines = [*_item(expected, actual.item), *_files(expected, actual.item)]
    lines += [*_index(expected, actual), *_xml(expected, actual)]
    return tuple(lines)


def documents(expected: Expected, actual: Actual) -> tuple[Document, ...]:
    """Return the index.json and the XML of an entity, if there are any."""
    item = actual.item
    has_index = expected.is_live and (bool(expected.artwork) or item.index is not None)
    index = index_json(expected) if has_index else None
    both = (
        _document(INDEX_NAME, item.index, index, actual.index, _pretty_json),
        _document(xml_name(item.gid), item.xml, expected.xml, actual.xml, _pretty_xml),
    )
    return tuple(document for document in both if document is not None)


def _document(
    name: str,
    file: ItemFile | None,
    expected: bytes | None,
    content: bytes | None,
    pretty: Callable[[bytes], str],
) -> Document | None:
    if file is None and expected is None:
        return None
    problem = ""
    if file is not None and content is None:
        # A file that need not be read is as expected, or is removed whatever it contains.
        if expected is not None and file.md5 == md5(expected):
            content = expected
        else:
            problem = f"not read: {_described(file)}"
    return Document(
        name,
        None if expected is None else pretty(expected),
        None if content is None else pretty(content),
        problem,
    )


def _pretty_json(content: bytes) -> str:
    """Return a JSON document in lines that can be compared, or the text itself if it is no JSON."""
    try:
        return json.dumps(json.loads(content), indent=2, sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")


def _pretty_xml(content: bytes) -> str:
    """Return XML with one element per line."""
    return content.decode("utf-8", "replace").replace("><", ">\n<")


def _item(expected: Expected, item: Item) -> Iterator[Side]:
    metadata = item.metadata
    wanted = bool(expected.artwork)
    collections = metadata.collections
    own = expected.archive.collection
    yield Side(
        Part.ITEM,
        "collection",
        own if wanted else None,
        own if own in collections else "; ".join(collections) or None,
    )
    yield Side(Part.ITEM, "mediatype", "image" if wanted else None, metadata.mediatype)
    yield Side(Part.ITEM, "noindex", "true" if wanted else None, metadata.noindex)


def _files(expected: Expected, item: Item) -> Iterator[Side]:
    expected_names: list[str] = []
    if expected.artwork:
        expected_names += [INDEX_NAME, xml_name(item.gid)]
    for artwork in expected.artwork:
        expected_names.append(image_name(item.gid, artwork.id, artwork.suffix))
        expected_names += [thumbnail_name(item.gid, artwork.id, size) for size in THUMBNAIL_SIZES]
    for name in expected_names:
        file = item.file(name)
        found = None if file is None else "listed" if file.size != 0 else "listed, without bytes"
        yield Side(Part.FILES, name, "listed", found)
    others = {image.name: image.file for image in item.originals()}
    others |= {file.name: file for file in (item.index, item.xml) if file is not None}
    for name in sorted(others.keys() - set(expected_names)):
        yield Side(Part.FILES, name, None, _described(others[name]))


def _described(file: ItemFile) -> str:
    size = "unknown size" if file.size is None else f"{file.size:,} bytes"
    return f"{size}, MD5 {file.md5 or 'unknown'}"


def _index(expected: Expected, actual: Actual) -> Iterator[Side]:
    file = actual.item.index
    if file is None and not expected.artwork:
        return
    wanted_bytes = index_json(expected)
    wanted = _flat(json.loads(wanted_bytes)) if expected.is_live else {}
    if file is None:
        found: Mapping[str, str] = {}
    elif actual.index is None and file.md5 == md5(wanted_bytes):
        found = wanted
    elif actual.index is None:
        # An orphan's is not read, because it is removed whatever it contains.
        yield Side(Part.INDEX, "content", None, _described(file))
        return
    else:
        try:
            found = _flat(parse_index(actual.index).document)
        except MalformedIndex as problem:
            yield Side(Part.INDEX, "content", "a JSON object", f"malformed: {problem}")
            return
    yield from _by_key(Part.INDEX, wanted, found)


def _flat(document: Mapping[str, Any]) -> dict[str, str]:
    """Return every value of an index.json as text, by a path that names images by artwork id."""
    flat: dict[str, str] = {}
    for key, value in document.items():
        if key != "images" or not isinstance(value, list):
            flat[key] = _text(value)
            continue
        for position, image in enumerate(value):
            number = listed_id(image) if isinstance(image, dict) else None
            name = f"image {number}" if number is not None else f"images[{position}]"
            if not isinstance(image, dict):
                flat[name] = _text(image)
                continue
            for field, content in image.items():
                flat[f"{name} {field}"] = _field(field, content)
    return flat


def _field(field: str, content: object) -> str:
    # Types have no order.
    if field == "types" and isinstance(content, list):
        return _text(sorted(content, key=str))
    return _text(content)


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return storable(text)


def _xml(expected: Expected, actual: Actual) -> Iterator[Side]:
    if expected.xml is None:
        return
    wanted = parse_entity_xml(expected.xml, expected.entity_type, expected.gid)
    file = actual.item.xml
    if file is None:
        return
    if actual.xml is None:
        found = wanted if file.md5 == md5(expected.xml) else None
    else:
        try:
            found = parse_entity_xml(actual.xml, expected.entity_type, expected.gid)
        except UnreadableXml as problem:
            yield Side(Part.XML, "content", "the web service's XML", f"unreadable: {problem}")
            return
    if found is None:
        yield Side(Part.XML, "content", "the web service's XML", _described(file))
        return
    yield from _by_key(Part.XML, _joined(wanted.texts), _joined(found.texts))


def _joined(texts: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {path: storable("; ".join(values)) for path, values in texts.items()}


def _by_key(part: Part, wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Side]:
    for key in dict.fromkeys((*wanted, *found)):
        yield Side(part, key, wanted.get(key), found.get(key))
