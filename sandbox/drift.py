"""The kinds of drift that a world can plant, each with the findings that an audit should have.

A drift is planted into a `Draft`: what archive.org holds for an entity, before it is turned into
files. One planted fault often shows in several checks: archive.org extracts the metadata from the
XML, so an outdated title in the XML is an outdated title in the metadata, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any
from xml.etree import ElementTree

from sandbox.entities import Entity, EntityType, Facts, Status
from sandbox.formats import (
    ARCHIVES,
    THUMBNAIL_SIZES,
    Metadata,
    entity_xml,
    extracted,
    image_name,
    index_document,
    index_json,
    item_name,
    xml_name,
)
from sandbox.items import CREATED, File, Item

HUGE_INDEX_BYTES = 64_000_000
"""The listed size of an index.json that must not be downloaded."""


class Subject(Enum):
    """The sort of entity that a drift needs."""

    ART = auto()
    NO_ART = auto()
    ORPHAN = auto()


class Owner(Enum):
    """The entity whose artwork a drift borrows, by its drift; nothing for a healthy one."""

    HAS_IT = ""
    LACKS_IT = "original-missing"
    HAS_OTHER_SUFFIX = "original-other-suffix"
    HAS_IT_EMPTY = "original-empty"
    HAS_IT_PRIVATE = "original-private"
    IS_ABSENT = "item-missing"
    IS_DARK = "item-dark"


@dataclass(slots=True)
class Draft:
    """What archive.org holds for an entity.

    `index` is the document of index.json, or its bytes; `xml` the facts in mb_metadata.xml, or its
    bytes. `images` maps artwork id and suffix to the sizes of thumbnails. `foreign` is a foreign
    image, for drifts that need one. `changes` are applied to the finished item.
    """

    entity: Entity
    variant: int
    facts: Facts
    foreign: tuple[int, str]
    index: dict[str, Any] | bytes | None = None
    xml: Facts | bytes | None = None
    images: dict[tuple[int, str], tuple[int, ...]] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=dict)
    changes: list[Callable[[Item], None]] = field(default_factory=list)
    absent: bool = False
    dark: bool = False
    huge_index: bool = False

    @property
    def document(self) -> dict[str, Any]:
        """The document of index.json, which drifts change in place."""
        assert isinstance(self.index, dict)
        return self.index

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The images of index.json."""
        images: list[dict[str, Any]] = self.document["images"]
        return images

    @property
    def first_image(self) -> tuple[int, str]:
        artwork = self.entity.artwork[0]
        return artwork.id, artwork.suffix

    @property
    def xml_bytes(self) -> bytes:
        """Return mb_metadata.xml as it should be."""
        entity = self.entity
        return entity_xml(entity.entity_type, entity.gid, self.facts, len(entity.artwork))

    def tell(self, **changes: Any) -> None:
        """Put other facts into the XML and into the metadata extracted from it."""
        stale = replace(self.facts, **changes)
        self.xml = stale
        self.metadata.update(extracted(self.entity.entity_type, self.entity.gid, stale))

    def item(self) -> Item | None:
        """Turn the draft into an item."""
        if self.absent:
            return None
        entity = self.entity
        item = Item(entity.gid, self.metadata, dark=self.dark)
        if self.dark:
            return item
        if self.index is not None:
            document = self.index
            item.add_text(
                "index.json", document if isinstance(document, bytes) else index_json(document)
            )
        for (artwork_id, suffix), sizes in self.images.items():
            item.add_image(artwork_id, suffix, sizes)
        if self.xml is not None:
            item.add_text(xml_name(entity.gid), self._serialised_xml(self.xml))
        if self.huge_index:
            item.files["index.json"] = item.files["index.json"]._replace(
                size=HUGE_INDEX_BYTES, md5="f" * 32
            )
        item.add_own_files()
        for change in self.changes:
            change(item)
        return item

    def _serialised_xml(self, xml: Facts | bytes) -> bytes:
        if isinstance(xml, bytes):
            return xml
        entity = self.entity
        return entity_xml(entity.entity_type, entity.gid, xml, len(entity.artwork))


Plant = Callable[[Draft], None]
"""Plants a drift into the draft of a healthy entity."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One kind of drift.

    Parameters
    ----------
    plant
        Changes the draft of a healthy entity (of an orphan: of an item with nothing left).
    checks
        What an audit should find; for events, less what only releases are compared in.
    status
        What it should decide.
    repaired
        What it should decide after the events were carried out.
    types
        The entity types that can have it.
    images
        The minimum number of images.
    owner
        The owner of the artwork `Draft.foreign`; None for no owner.
    keeps_originals
        Whether the item proves that it holds the first image's original, so that a copy elsewhere
        is a leftover.
    """

    name: str
    subject: Subject
    plant: Plant
    checks: frozenset[str]
    status: Status
    repaired: Status
    types: tuple[EntityType, ...] = (EntityType.RELEASE, EntityType.EVENT)
    images: int = 1
    owner: Owner | None = None
    keeps_originals: bool = True

    def expected_checks(self, entity_type: EntityType) -> frozenset[str]:
        """Return what an audit should find in an entity of this type."""
        if entity_type is EntityType.RELEASE:
            return self.checks
        return frozenset(check for check in self.checks if not check.startswith("meta."))


def _with(**changes: Any) -> Plant:
    """Return a plant that sets these attributes of a draft."""

    def plant(draft: Draft) -> None:
        for name, value in changes.items():
            setattr(draft, name, value)

    return plant


def _telling(**facts: Any) -> Plant:
    """Return a plant that puts other facts into the XML and the extracted metadata."""
    return lambda draft: draft.tell(**facts)


def _without(key: str, value: str) -> Plant:
    """Return a plant that removes a key of the metadata, or replaces its value."""

    def plant(draft: Draft) -> None:
        if draft.variant % 2:
            draft.metadata[key] = value
        else:
            del draft.metadata[key]

    return plant


def _in_turn(*plants: Plant) -> Plant:
    """Return a plant that applies several drifts."""

    def plant(draft: Draft) -> None:
        for each in plants:
            each(draft)

    return plant


# Drifts of the item as a whole.


def _of_other_archive(draft: Draft) -> None:
    (other,) = (kind for kind in EntityType if kind is not draft.entity.entity_type)
    draft.metadata["collection"] = ARCHIVES[other].collection


# Drifts of its files.


def _no_original(draft: Draft) -> None:
    del draft.images[draft.first_image]


def _original_of_other_suffix(draft: Draft) -> None:
    artwork_id, suffix = draft.first_image
    del draft.images[artwork_id, suffix]
    draft.images[artwork_id, _other_suffix(suffix)] = THUMBNAIL_SIZES


def _original_empty(draft: Draft) -> None:
    _change_file(draft, draft.first_image, size=0, md5=hashlib.md5(b"").hexdigest())


def _original_private(draft: Draft) -> None:
    _change_file(draft, draft.first_image, private=True)


def _change_file(draft: Draft, image: tuple[int, str], **changes: Any) -> None:
    name = image_name(draft.entity.gid, *image)

    def change(item: Item) -> None:
        item.files[name] = item.files[name]._replace(**changes)

    draft.changes.append(change)


def _two_originals(draft: Draft) -> None:
    artwork_id, suffix = draft.first_image
    # Both have derivatives of the same names; those of the right one are last and stay.
    draft.images = {(artwork_id, _other_suffix(suffix)): THUMBNAIL_SIZES, **draft.images}


def _other_suffix(suffix: str) -> str:
    return "png" if suffix != "png" else "jpg"


def _foreign_image(draft: Draft) -> None:
    draft.images[draft.foreign] = THUMBNAIL_SIZES


def _unnamed_image(draft: Draft) -> None:
    gid = draft.entity.gid
    name, kind = (
        (f"mbid-{gid}-front.jpg", "JPEG"),
        (image_name(f"{gid[:-12]}{draft.foreign[0]:012}", *draft.foreign), "JPEG"),
        ("cover.jpg", "JPEG"),
        ("Booklet (scan).pdf", "Image Container PDF"),
        (f"mbid-{gid}-{draft.foreign[0]}", "PNG"),
    )[draft.variant % 5]
    draft.changes.append(
        lambda item: item.add_file(File(name, "original", kind, 400_000, "a" * 32))
    )


def _listed_foreign_image(draft: Draft) -> None:
    _foreign_image(draft)
    draft.listed.append(_listed_copy(draft, draft.foreign[0]))


def _no_thumbnail(draft: Draft) -> None:
    gone = THUMBNAIL_SIZES[draft.variant % 3]
    draft.images[draft.first_image] = tuple(size for size in THUMBNAIL_SIZES if size != gone)


# Drifts of index.json.


def _malformed_index(draft: Draft) -> None:
    good = index_json(draft.document)
    broken = (good[:-20], good + b"\xff\xfe", b"[" + good + b"]", b"", b"\x00" * 64)
    draft.index = broken[draft.variant % len(broken)]


def _other_shape(draft: Draft) -> None:
    draft.document["generator"] = "caa-indexer"


def _wrong_entity_url(draft: Draft) -> None:
    kind = str(draft.entity.entity_type)
    url: str = draft.document[kind]
    if draft.variant % 2:
        draft.document[kind] = url[:-12] + "0" * 12
    else:
        draft.document[kind] = _unsafe(url)


def _image_not_listed(draft: Draft) -> None:
    del draft.listed[draft.variant % len(draft.listed)]


def _listed_without_file(draft: Draft) -> None:
    draft.listed.append(_listed_copy(draft, draft.foreign[0]))


def _listed_copy(draft: Draft, artwork_id: int) -> dict[str, Any]:
    """Return an entry for another image, as written when that image belonged to this entity."""
    archive = ARCHIVES[draft.entity.entity_type]
    base = f"https://{archive.domain}/{draft.entity.entity_type}/{draft.entity.gid}/{artwork_id}"
    entry = {
        "id": artwork_id,
        "image": f"{base}.jpg",
        "thumbnails": {
            "small": f"{base}-250.jpg",
            "large": f"{base}-500.jpg",
            "250": f"{base}-250.jpg",
            "500": f"{base}-500.jpg",
            "1200": f"{base}-1200.jpg",
        },
        "types": [],
        "front": False,
        "comment": "",
        "approved": True,
        "edit": 1,
    }
    if draft.entity.entity_type is EntityType.RELEASE:
        entry["back"] = False
    return entry


def _field_missing(draft: Draft) -> None:
    image = draft.listed[0]
    if draft.variant % 2:
        del image["thumbnails"]["1200"]
    else:
        del image["comment"]


def _unexpected_field(draft: Draft) -> None:
    image = draft.listed[0]
    if draft.variant % 2:
        image["thumbnails"]["2500"] = image["thumbnails"]["1200"]
    else:
        image["is_front"] = image["front"]


def _wrong_type(draft: Draft) -> None:
    key = ("id", "edit")[draft.variant % 2]
    for image in draft.listed:
        image[key] = str(image[key])


def _wrong_value(draft: Draft) -> None:
    image = draft.listed[-1]
    key = ("comment", "types", "front", "approved", "edit")[draft.variant % 5]
    image[key] = {
        "comment": f"{image['comment']} (early)",
        "types": [*image["types"], "Raw/Unedited"],
        "front": not image["front"],
        "approved": not image["approved"],
        "edit": image["edit"] + 1,
    }[key]


def _wrong_url(draft: Draft) -> None:
    image = draft.listed[0]
    if draft.variant % 2:
        image["image"] = image["image"].rpartition(".")[0] + ".tiff"
    else:
        _use_unsafe_urls(image)


def _old_form(draft: Draft) -> None:
    kind = str(draft.entity.entity_type)
    draft.document[kind] = _unsafe(draft.document[kind])
    for image in draft.listed:
        _use_unsafe_urls(image)
        image["id"] = str(image["id"])
        for size in THUMBNAIL_SIZES:
            del image["thumbnails"][str(size)]
    draft.index = json.dumps(draft.document).encode()


def _use_unsafe_urls(image: dict[str, Any]) -> None:
    image["image"] = _unsafe(image["image"])
    image["thumbnails"] = {key: _unsafe(url) for key, url in image["thumbnails"].items()}


def _unsafe(url: str) -> str:
    return url.replace("https://", "http://", 1)


# Drifts of mb_metadata.xml, and of what archive.org extracted from it.


def _malformed_xml(draft: Draft) -> None:
    good = draft.xml_bytes
    gid = draft.entity.gid
    another = good.replace(gid.encode(), f"{gid[:-12]}000000000000".encode())
    draft.xml = (good[:-15], another, b"", b"<html><body>502</body></html>")[draft.variant % 4]


def _stale_artist_name(draft: Draft) -> None:
    first, *others = draft.facts.artists
    draft.tell(artists=(replace(first, name=f"{first.name} Ensemble"), *others))


def _stale_sort_name(draft: Draft) -> None:
    first, *others = draft.facts.artists
    draft.tell(artists=(replace(first, sort_name=f"{first.sort_name}, The"), *others))


def _stale_artist_id(draft: Draft) -> None:
    first, *others = draft.facts.artists
    draft.tell(artists=(replace(first, gid=f"{first.gid[:-12]}{0:012}"), *others))


def _stale_barcode(draft: Draft) -> None:
    if draft.variant % 2:
        draft.tell(asin="B000000000")
    else:
        draft.tell(barcode="0000000000000")


def _stale_other(draft: Draft) -> None:
    if draft.entity.entity_type is EntityType.EVENT:
        draft.xml = replace(draft.facts, place=f"{draft.facts.place} (old hall)")
    else:
        draft.xml = replace(draft.facts, packaging="Jewel Case")


# What entities without art may have.


def empty_item(draft: Draft) -> None:
    """Plant what the indexer leaves when the last image is removed, which is no drift."""
    draft.index = index_document(draft.entity.entity_type, draft.entity.gid, ())


# What may be left of entities that are gone.


def _orphan_index(draft: Draft) -> None:
    draft.index = {"images": [_listed_copy(draft, draft.foreign[0])]}


def _orphan_index_with_xml(draft: Draft) -> None:
    _orphan_index(draft)
    draft.xml = draft.facts


def _orphan_image_of_two_suffixes(draft: Draft) -> None:
    artwork_id, suffix = draft.foreign
    draft.images[artwork_id, _other_suffix(suffix)] = THUMBNAIL_SIZES
    _foreign_image(draft)


def _orphan_image_of_other_bytes(draft: Draft) -> None:
    _foreign_image(draft)
    changes: dict[str, Any] = {"size": 8_999} if draft.variant % 2 else {}
    _change_file(draft, draft.foreign, md5="b" * 32, **changes)


def _orphan_image_without_md5(draft: Draft) -> None:
    _foreign_image(draft)
    _change_file(draft, draft.foreign, lacks=("md5",))


def _orphan_leftover(draft: Draft) -> None:
    stem = f"{item_name(draft.entity.gid)}-{draft.foreign[0]}"
    name, kind = (
        (f"{stem}_thumb250.jpg", "JPEG Thumb"),
        (f"{stem}_itemimage.jpg", "JPEG Thumb"),
        ("notes.txt", "Text"),
    )[draft.variant % 3]
    original = f"{stem}.jpg" if name != "notes.txt" else None
    source = "derivative" if original else "original"
    draft.xml = draft.facts
    draft.changes.append(
        lambda item: item.add_file(File(name, source, kind, 9_000, "0" * 32, original))
    )


# Differences in form, not in meaning.


def _shuffled_types(draft: Draft) -> None:
    for image in draft.listed:
        image["types"].reverse()
    draft.index = index_json(draft.document) + b"\n"


def _indented_index(draft: Draft) -> None:
    draft.index = json.dumps(draft.document, indent=1, ensure_ascii=False).encode()


def _indented_xml(draft: Draft) -> None:
    draft.xml = draft.xml_bytes.replace(b"><", b">\n <")


def _prefixed_xml(draft: Draft) -> None:
    draft.xml = ElementTree.tostring(ElementTree.fromstring(draft.xml_bytes), encoding="utf-8")


def _collection_list(draft: Draft) -> None:
    draft.metadata["collection"] = ["image", draft.metadata["collection"]]


def _sizes_as_numbers(draft: Draft) -> None:
    draft.changes.append(lambda item: setattr(item, "numbers", True))


def _one_server_down(draft: Draft) -> None:
    draft.changes.append(lambda item: item.shown.update(servers_unavailable=True))


def _nothing_at_first(draft: Draft) -> None:
    nothing = (b"[]", b"{}")[draft.entity.number % 2]
    draft.changes.append(lambda item: setattr(item, "first_answers", (nothing,)))


def _old_versions(draft: Draft) -> None:
    def change(item: Item) -> None:
        for name in list(item.contents):
            item.upload(name, item.contents[name])
        item.updated = CREATED

    draft.changes.append(change)


# Temporary states: an audit now would be too early, or unreliable.


def _unfinished(draft: Draft) -> None:
    keys: dict[str, Any] = (
        {"pending_tasks": True},
        {"has_redrow": True},
        {"tasks": [{"cmd": "derive.php", "wait_admin": 0}]},
        {"nodownload": True},
        {"errcode": 101, "error": "item is pending"},
    )[draft.variant % 5]
    draft.changes.append(lambda item: item.shown.update(keys))


def _unavailable(draft: Draft) -> None:
    keys: dict[str, Any] = (
        {"error": "the item's server is not responding"},
        {"errcode": 102},
        {"errcode": 105, "error": "no node found"},
    )[draft.variant % 3]
    draft.changes.append(lambda item: item.shown.update(keys))


def _cut_listing(draft: Draft) -> None:
    gid, variant = draft.entity.gid, draft.variant % 4

    def change(item: Item) -> None:
        if variant < 2:
            item.cut = (0, 3)[variant]
        else:
            # Complete by its own count, but truncated.
            del item.files[f"{item_name(gid)}_{('meta', 'files')[variant - 2]}.xml"]

    draft.changes.append(change)


UNTIDY: Sequence[Plant] = (
    _shuffled_types,
    _indented_index,
    _indented_xml,
    _prefixed_xml,
    _collection_list,
    _sizes_as_numbers,
    _one_server_down,
    _nothing_at_first,
    _old_versions,
)
"""Forms that a clean item, or an answer about it, may have."""


RELEASE_ONLY = (EntityType.RELEASE,)


def _live(name: str, plant: Plant, checks: str, status: Status, **more: Any) -> Drift:
    return Drift(
        name,
        plant=plant,
        checks=frozenset(checks.split()),
        status=status,
        repaired="clean" if status == "repair_queue" else status,
        **{"subject": Subject.ART, **more},
    )


def _repair(name: str, plant: Plant, checks: str, **more: Any) -> Drift:
    return _live(name, plant, checks, "repair_queue", **more)


def _review(name: str, plant: Plant, checks: str, **more: Any) -> Drift:
    return _live(name, plant, checks, "manual_review", **more)


def _meta(key: str, value: str) -> Drift:
    check = f"meta.{key.replace('-', '_')}"
    return _repair(f"meta-{key}", _without(key, value), check, types=RELEASE_ONLY)


def _orphan(
    name: str, plant: Plant, checks: str, status: Status, repaired: Status, owner: Owner | None
) -> Drift:
    return Drift(
        f"orphan-{name}",
        Subject.ORPHAN,
        plant,
        frozenset(checks.split()),
        status,
        repaired,
        owner=owner,
    )


def _orphan_repair(name: str, plant: Plant, checks: str, owner: Owner | None = None) -> Drift:
    return _orphan(name, plant, checks, "repair_queue", "legacy", owner)


def _orphan_review(
    name: str, plant: Plant, owner: Owner | None = None, checks: str = "orphan.image"
) -> Drift:
    return _orphan(name, plant, checks, "manual_review", "manual_review", owner)


_STALE_TITLE = _telling(title="Working title")
_OLD_FORM = "index.entity_url index.image.url index.image.type index.image.field_missing"
_EMPTY = {"subject": Subject.NO_ART}
_LOSES_ORIGINALS = {"keeps_originals": False}
_EXTRA = "files.original.extra"

DRIFTS: Sequence[Drift] = (
    # Drifts from which others borrow come first.
    _review("original-missing", _no_original, "files.original.missing", **_LOSES_ORIGINALS),
    _review("item-missing", _with(absent=True), "item.missing", **_LOSES_ORIGINALS),
    _review("item-dark", _with(dark=True), "item.dark", **_LOSES_ORIGINALS),
    _review(
        "original-other-suffix",
        _original_of_other_suffix,
        "files.original.missing",
        **_LOSES_ORIGINALS,
    ),
    _review("original-empty", _original_empty, "files.original.empty", **_LOSES_ORIGINALS),
    # Harmless in its right place.
    _live("original-private", _original_private, "", "clean", **_LOSES_ORIGINALS),
    _review("item-collection", _without("collection", "opensource"), "item.collection"),
    _review("item-mediatype", _without("mediatype", "data"), "item.mediatype"),
    _review("item-noindex", _without("noindex", "false"), "item.noindex"),
    _review("item-other-archive", _of_other_archive, "item.archive", **_LOSES_ORIGINALS),
    _review("original-duplicate", _two_originals, "files.original.duplicate"),
    # Images are deleted only from orphans: a merge may make a live entity the owner at any time.
    _review("foreign-owned", _foreign_image, _EXTRA, owner=Owner.HAS_IT),
    _review("foreign-owned-listed", _listed_foreign_image, _EXTRA, owner=Owner.HAS_IT),
    _review("foreign-only-copy", _foreign_image, _EXTRA, owner=Owner.LACKS_IT),
    _review("foreign-unknown", _foreign_image, _EXTRA),
    _review("foreign-unnamed", _unnamed_image, _EXTRA),
    _review("thumbnail-missing", _no_thumbnail, "files.thumbnail.missing"),
    _repair("index-missing", _with(index=None), "files.index.missing"),
    _repair("index-malformed", _malformed_index, "index.malformed"),
    _repair("index-huge", _with(huge_index=True), "index.malformed"),
    _repair("index-shape", _other_shape, "index.shape"),
    _repair("index-entity-url", _wrong_entity_url, "index.entity_url"),
    _repair("index-image-missing", _image_not_listed, "index.image.missing"),
    _repair("index-image-extra", _listed_without_file, "index.image.extra"),
    _repair(
        "index-image-duplicate",
        lambda draft: draft.listed.append(draft.listed[-1]),
        "index.image.duplicate",
    ),
    _repair(
        "index-image-order", lambda draft: draft.listed.reverse(), "index.image.order", images=2
    ),
    _repair("index-field-missing", _field_missing, "index.image.field_missing"),
    _repair("index-field-unexpected", _unexpected_field, "index.image.field_unexpected"),
    _repair("index-type", _wrong_type, "index.image.type"),
    _repair("index-value", _wrong_value, "index.image.value"),
    _repair("index-url", _wrong_url, "index.image.url"),
    _repair("index-old-form", _old_form, _OLD_FORM, types=RELEASE_ONLY),
    _repair("xml-missing", _with(xml=None), "files.xml.missing"),
    _repair("xml-malformed", _malformed_xml, "xml.malformed"),
    _repair("xml-title", _STALE_TITLE, "xml.field meta.title"),
    _repair("xml-artist-name", _stale_artist_name, "xml.field meta.creator", types=RELEASE_ONLY),
    _repair("xml-sort-name", _stale_sort_name, "xml.field", types=RELEASE_ONLY),
    _repair(
        "xml-artist-id",
        _stale_artist_id,
        "xml.field meta.external_identifier",
        types=RELEASE_ONLY,
    ),
    # The date is also in the list of release events, which archive.org does not show.
    _repair(
        "xml-date",
        _telling(date="1901-02-03"),
        "xml.field xml.other meta.date",
        types=RELEASE_ONLY,
    ),
    _repair(
        "xml-language", _telling(language="mul"), "xml.field meta.language", types=RELEASE_ONLY
    ),
    _repair(
        "xml-barcode-or-asin",
        _stale_barcode,
        "xml.field meta.external_identifier",
        types=RELEASE_ONLY,
    ),
    _live("xml-other", _stale_other, "xml.other", "clean"),
    _meta("title", "Untitled"),
    _meta("creator", "Somebody Else"),
    _meta("date", "1901"),
    _meta("language", "mul"),
    _meta("external-identifier", "urn:upc:0000000000000"),
    _repair(
        "neither-index-nor-xml",
        _with(index=None, xml=None),
        "files.index.missing files.xml.missing",
    ),
    _repair(
        "old-form-and-title",
        _in_turn(_old_form, _STALE_TITLE),
        f"{_OLD_FORM} xml.field meta.title",
        types=RELEASE_ONLY,
    ),
    _repair(
        "empty-index-malformed",
        _in_turn(empty_item, _malformed_index),
        "index.malformed",
        **_EMPTY,
    ),
    _repair(
        "empty-lists-an-image",
        _in_turn(empty_item, _listed_without_file),
        "index.image.extra",
        **_EMPTY,
    ),
    _review(
        "empty-foreign-owned",
        _in_turn(empty_item, _foreign_image),
        _EXTRA,
        owner=Owner.HAS_IT,
        **_EMPTY,
    ),
    _review("empty-foreign-unknown", _in_turn(empty_item, _foreign_image), _EXTRA, **_EMPTY),
    _review("empty-dark", _with(dark=True), "item.dark", **_EMPTY),
    _orphan_repair("image", _foreign_image, "orphan.image", Owner.HAS_IT),
    _orphan_repair(
        "image-and-index",
        _in_turn(_foreign_image, _orphan_index_with_xml),
        "orphan.image orphan.index",
        Owner.HAS_IT,
    ),
    _orphan_repair("image-without-md5", _orphan_image_without_md5, "orphan.image", Owner.HAS_IT),
    _orphan_review("only-copy", _foreign_image, Owner.LACKS_IT),
    _orphan_review("owner-absent", _foreign_image, Owner.IS_ABSENT),
    _orphan_review("owner-dark", _foreign_image, Owner.IS_DARK),
    _orphan_review("copy-empty", _foreign_image, Owner.HAS_IT_EMPTY),
    _orphan_review("copy-private", _foreign_image, Owner.HAS_IT_PRIVATE),
    _orphan_review("copy-other-suffix", _foreign_image, Owner.HAS_OTHER_SUFFIX),
    _orphan_review("copy-other-bytes", _orphan_image_of_other_bytes, Owner.HAS_IT),
    _orphan_review("two-suffixes", _orphan_image_of_two_suffixes, Owner.HAS_IT),
    _orphan_review("unnamed-image", _unnamed_image),
    _orphan_review(
        "unknown-image",
        _in_turn(_foreign_image, _orphan_index_with_xml),
        checks="orphan.image orphan.index",
    ),
    _orphan_review("other-archive", _of_other_archive, checks="item.archive"),
    _orphan_repair("index", _orphan_index, "orphan.index"),
    _orphan_repair("index-with-xml", _orphan_index_with_xml, "orphan.index"),
    _orphan_review("leftover", _orphan_leftover, checks="orphan.leftover"),
)
"""Every kind of permanent drift, in the order in which worlds plant them."""


PASSING: Sequence[Drift] = (
    _live("unfinished", _unfinished, "", "unchecked", **_LOSES_ORIGINALS),
    _live("unavailable", _unavailable, "", "unchecked", **_LOSES_ORIGINALS),
    _live("cut-listing", _cut_listing, "", "unchecked", **_LOSES_ORIGINALS),
    _orphan(
        "cut-listing",
        _in_turn(_foreign_image, _cut_listing),
        "",
        "unchecked",
        "unchecked",
        Owner.HAS_IT,
    ),
)
"""Kinds of drift that an audit can only defer; planted only where named."""
