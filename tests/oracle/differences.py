"""In what index.json, mb_metadata.xml and what archive.org extracted differ from what is due.

Each function returns checks with their severities.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from sandbox.entities import EntityType
from sandbox.formats import NAMESPACE, extract, index_document, index_json
from tests.oracle.musicbrainz import Known

#: Far above any size limit; what is that large is never downloaded.
HUGE_BYTES = 50_000_000

Differences = dict[str, str]
"""Checks, each with the severity of its gravest difference."""


def _note(found: Differences, check: str, severity: str = "major") -> None:
    grave = ("minor", "major", "critical")
    found[check] = max(found.get(check, "minor"), severity, key=grave.index)


def of_index(
    entity: Known, content: bytes, size: int, ids_with_files: frozenset[int]
) -> Differences:
    """Compare index.json with what is due.

    Parameters:
        size: as listed.
        ids_with_files: the artwork ids that the item has an original of.
    """
    due = index_document(entity.entity_type, entity.gid, entity.images)
    found: Differences = {}
    if content == index_json(due) and size < HUGE_BYTES:
        return found
    try:
        document = json.loads(content.decode())
    except ValueError:
        document = None
    if not isinstance(document, dict) or size >= HUGE_BYTES:
        return {"index.malformed": "critical"}
    kind = str(entity.entity_type)
    if document.keys() != {"images", kind}:
        _note(found, "index.shape")
    if kind in document and document[kind] != due[kind]:
        _note(found, "index.entity_url", _url_severity(document[kind], due[kind]))
    _compare_images(found, document["images"], due["images"], ids_with_files)
    return found


def _compare_images(
    found: Differences,
    listed: Sequence[dict[str, Any]],
    due: Sequence[dict[str, Any]],
    ids_with_files: frozenset[int],
) -> None:
    due_ids = [image["id"] for image in due]
    listed_ids = [int(image["id"]) for image in listed]
    if set(due_ids) - set(listed_ids):
        _note(found, "index.image.missing", "critical")
    if set(listed_ids) - set(due_ids) - ids_with_files:
        _note(found, "index.image.extra")
    if len(set(listed_ids)) < len(listed_ids):
        _note(found, "index.image.duplicate")
    in_common = [number for number in dict.fromkeys(listed_ids) if number in due_ids]
    if in_common != [number for number in due_ids if number in in_common]:
        _note(found, "index.image.order")
    by_id = {image["id"]: image for image in due}
    for image, number in zip(listed, listed_ids, strict=True):
        if number in by_id:
            _compare_image(found, image, by_id[number])


def _compare_image(found: Differences, image: dict[str, Any], due: dict[str, Any]) -> None:
    thumbnails, due_thumbnails = image.get("thumbnails", {}), due["thumbnails"]
    for keys, due_keys in (
        (image.keys(), due.keys()),
        (thumbnails.keys(), due_thumbnails.keys()),
    ):
        if due_keys - keys:
            _note(found, "index.image.field_missing")
        if keys - due_keys:
            _note(found, "index.image.field_unexpected")
    for key in thumbnails.keys() & due_thumbnails.keys():
        _compare_url(found, thumbnails[key], due_thumbnails[key])
    if "image" in image:
        _compare_url(found, image["image"], due["image"])
    for key in image.keys() & due.keys() - {"image", "thumbnails"}:
        value, due_value = image[key], due[key]
        if key == "types":
            value, due_value = set(value), set(due_value)
        if value == due_value and type(value) is type(due_value):
            continue
        same_but_for_type = str(value) == str(due_value)
        _note(found, "index.image.type" if same_but_for_type else "index.image.value")


def _compare_url(found: Differences, url: str, due: str) -> None:
    if url != due:
        _note(found, "index.image.url", _url_severity(url, due))


def _url_severity(url: str, due: str) -> str:
    return "minor" if url.replace("http://", "https://", 1) == due else "major"


def of_xml(entity: Known, content: bytes) -> Differences:
    """Compare mb_metadata.xml with what the web service answers."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return {"xml.malformed": "critical"}
    shown = root.find(f"{{{NAMESPACE}}}{entity.entity_type}")
    if shown is None or shown.get("id") != entity.gid:
        return {"xml.malformed": "critical"}
    due = ElementTree.fromstring(entity.xml).find(f"{{{NAMESPACE}}}{entity.entity_type}")
    assert due is not None
    found: Differences = {}
    if _fields(shown) != _fields(due):
        _note(found, "xml.field")
    if _rest(shown) != _rest(due):
        _note(found, "xml.other", "minor")
    return found


_FIELDS = {
    f"{{{NAMESPACE}}}{name}"
    for name in ("title", "artist-credit", "date", "text-representation", "barcode", "asin", "name")
}


def _fields(element: ElementTree.Element) -> list[object]:
    return [_structure(child) for child in element if child.tag in _FIELDS]


def _rest(element: ElementTree.Element) -> list[object]:
    return [_structure(child) for child in element if child.tag not in _FIELDS]


def _structure(element: ElementTree.Element) -> tuple[object, ...]:
    text = (element.text or "").strip()
    children = tuple(_structure(child) for child in element)
    return element.tag, tuple(sorted(element.attrib.items())), text, children


def of_metadata(entity: Known, metadata: dict[str, Any]) -> Differences:
    """Compare what archive.org extracted with what it should have; releases only."""
    if entity.entity_type is not EntityType.RELEASE:
        return {}
    due = extract(entity.xml)
    found: Differences = {}
    for key in ("title", "creator", "date", "language", "external-identifier"):
        if key == "date" and b"?" in _date(entity.xml):
            continue
        if _as_set(metadata.get(key)) != _as_set(due.get(key)):
            _note(found, f"meta.{key.replace('-', '_')}", "minor")
    return found


def _date(xml: bytes) -> bytes:
    date = ElementTree.fromstring(xml).findtext(f"{{{NAMESPACE}}}release/{{{NAMESPACE}}}date")
    return (date or "").encode()


def _as_set(value: str | list[str] | None) -> set[str]:
    if value is None:
        return set()
    return {value} if isinstance(value, str) else set(value)
