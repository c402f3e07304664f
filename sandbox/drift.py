"""The kinds of drift that a world can plant, each with the findings that an audit should have.

A drift is planted into a `Draft`: what archive.org holds for an entity, before it is turned into
files. One planted fault often shows in several checks: archive.org extracts the metadata from the
XML, so an outdated title in the XML is an outdated title in the metadata, too.

The tables of drifts are at the end, after the functions that plant them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar
from xml.etree import ElementTree

from sandbox.entities import Entity, EntityType, Facts, Status
from sandbox.formats import (
    ARCHIVES,
    THUMBNAIL_SIZES,
    Listed,
    Metadata,
    entity_xml,
    extracted,
    image_name,
    index_document,
    index_image,
    index_json,
    item_name,
    xml_name,
)
from sandbox.items import CREATED, File, Item

HEALTHY = ""
"""The owner of a borrowed artwork, if that is an entity without drift."""

_T = TypeVar("_T")


class Subject(Enum):
    """The sort of entity that a drift needs."""

    ART = auto()
    NO_ART = auto()
    ORPHAN = auto()


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
    changes: list[Callable[[Item], object]] = field(default_factory=list)
    absent: bool = False
    dark: bool = False

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

    def pick(self, *variants: _T) -> _T:
        """Return one of the variants of a drift; they take turns."""
        return variants[self.variant % len(variants)]

    def written(self, facts: Facts) -> bytes:
        """Return mb_metadata.xml with these facts."""
        entity = self.entity
        return entity_xml(entity.entity_type, entity.gid, facts, len(entity.artwork))

    def tell(self, **changes: Any) -> None:
        """Put other facts into the XML and into the metadata extracted from it."""
        self.xml = replace(self.facts, **changes)
        self.metadata.update(extracted(self.entity.entity_type, self.entity.gid, self.xml))

    def change_file(self, name: str, **changes: Any) -> None:
        """Change the entry of a file in the finished item's listing."""
        self.changes.append(lambda item: item.change_file(name, **changes))

    def change_image(self, image: tuple[int, str], **changes: Any) -> None:
        self.change_file(image_name(self.entity.gid, *image), **changes)

    def add_file(self, file: File) -> None:
        """Add a file to the finished item as it is."""
        self.changes.append(lambda item: item.add_file(file))

    def item(self) -> Item | None:
        """Turn the draft into an item."""
        if self.absent:
            return None
        item = Item(self.entity.gid, self.metadata, dark=self.dark)
        if self.dark:
            return item
        if self.index is not None:
            index = self.index if isinstance(self.index, bytes) else index_json(self.index)
            item.add_text("index.json", index)
        for (artwork_id, suffix), sizes in self.images.items():
            item.add_image(artwork_id, suffix, sizes)
        if self.xml is not None:
            xml = self.xml if isinstance(self.xml, bytes) else self.written(self.xml)
            item.add_text(xml_name(item.gid), xml)
        item.add_own_files()
        for change in self.changes:
            change(item)
        return item


Plant = Callable[[Draft], object]
"""Plants a drift into the draft of a healthy entity."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One kind of drift.

    Parameters
    ----------
    plant
        Changes the draft of a healthy entity (of an orphan: of an item with nothing left).
    checks
        What an audit should find, separated by spaces; for events, less what only releases are
        compared in.
    status
        What it should decide.
    types
        The entity types that can have it.
    images
        The minimum number of images.
    owner
        The owner of the artwork `Draft.foreign`: the name of the owner's drift, or `HEALTHY`; None
        for no owner.
    keeps_originals
        Whether the item proves that it holds the first image's original, so that a copy elsewhere
        is a leftover.
    """

    name: str
    plant: Plant
    checks: str
    status: Status = "repair_queue"
    subject: Subject = Subject.ART
    types: tuple[EntityType, ...] = (EntityType.RELEASE, EntityType.EVENT)
    images: int = 1
    owner: str | None = None
    keeps_originals: bool = True

    @property
    def repaired(self) -> Status:
        """What an audit should decide after the events were carried out."""
        if self.status != "repair_queue":
            return self.status
        return "legacy" if self.subject is Subject.ORPHAN else "clean"

    def expected_checks(self, entity_type: EntityType) -> frozenset[str]:
        """Return what an audit should find in an entity of this type."""
        is_release = entity_type is EntityType.RELEASE
        return frozenset(
            check for check in self.checks.split() if is_release or not check.startswith("meta.")
        )


# Plants with parameters.


def _with(**changes: Any) -> Plant:
    """Return a plant that sets these attributes of a draft."""

    def plant(draft: Draft) -> None:
        for name, value in changes.items():
            setattr(draft, name, value)

    return plant


def _changed(change: Callable[[Item], object]) -> Plant:
    """Return a plant that changes the finished item."""
    return lambda draft: draft.changes.append(change)


def _showing(*variants: dict[str, Any]) -> Plant:
    """Return a plant that adds keys to the answers about the item."""

    def plant(draft: Draft) -> None:
        keys = draft.pick(*variants)
        draft.changes.append(lambda item: item.shown.update(keys))

    return plant


def _telling(**facts: Any) -> Plant:
    """Return a plant that puts other facts into the XML and the extracted metadata."""
    return lambda draft: draft.tell(**facts)


def _telling_of_artist(fact: str, pattern: str) -> Plant:
    """Return a plant that puts another fact about the first artist there; `pattern` has the old."""

    def plant(draft: Draft) -> None:
        first, *others = draft.facts.artists
        changed = replace(first, **{fact: pattern.format(getattr(first, fact))})
        draft.tell(artists=(changed, *others))

    return plant


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


# Drifts of the item as a whole, and of its files.


def _of_other_archive(draft: Draft) -> None:
    (other,) = (kind for kind in EntityType if kind is not draft.entity.entity_type)
    draft.metadata["collection"] = ARCHIVES[other].collection


def _original_of_other_suffix(draft: Draft) -> None:
    artwork_id, suffix = draft.first_image
    del draft.images[artwork_id, suffix]
    draft.images[artwork_id, _other_suffix(suffix)] = THUMBNAIL_SIZES


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
    name, kind = draft.pick(
        (f"mbid-{gid}-front.jpg", "JPEG"),
        (image_name(f"{gid[:-12]}{draft.foreign[0]:012}", *draft.foreign), "JPEG"),
        ("cover.jpg", "JPEG"),
        ("Booklet (scan).pdf", "Image Container PDF"),
        (f"mbid-{gid}-{draft.foreign[0]}", "PNG"),
    )
    draft.add_file(File(name, "original", kind, 400_000, "a" * 32))


def _no_thumbnail(draft: Draft) -> None:
    gone = draft.pick(*THUMBNAIL_SIZES)
    draft.images[draft.first_image] = tuple(size for size in THUMBNAIL_SIZES if size != gone)


# Drifts of index.json.


def _malformed_index(draft: Draft) -> None:
    good = index_json(draft.document)
    draft.index = draft.pick(good[:-20], good + b"\xff\xfe", b"[" + good + b"]", b"", b"\x00" * 64)


def _wrong_entity_url(draft: Draft) -> None:
    kind = str(draft.entity.entity_type)
    url: str = draft.document[kind]
    draft.document[kind] = draft.pick(_unsafe(url), url[:-12] + "0" * 12)


def _image_not_listed(draft: Draft) -> None:
    del draft.listed[draft.variant % len(draft.listed)]


def _listed_without_file(draft: Draft) -> None:
    draft.listed.append(_foreign_entry(draft))


def _foreign_entry(draft: Draft) -> dict[str, Any]:
    """Return an entry for a foreign image, as written when that belonged to this entity."""
    entity_type = draft.entity.entity_type
    back = False if entity_type is EntityType.RELEASE else None
    image = Listed(draft.foreign[0], "jpg", (), False, back, "", True, 1)
    return index_image(entity_type, draft.entity.gid, image)


def _field_missing(draft: Draft) -> None:
    image = draft.listed[0]
    keys, key = draft.pick((image, "comment"), (image["thumbnails"], "1200"))
    del keys[key]


def _unexpected_field(draft: Draft) -> None:
    image = draft.listed[0]
    thumbnails = image["thumbnails"]
    keys, key, value = draft.pick(
        (image, "is_front", image["front"]), (thumbnails, "2500", thumbnails["1200"])
    )
    keys[key] = value


def _wrong_type(draft: Draft) -> None:
    key = draft.pick("id", "edit")
    for image in draft.listed:
        image[key] = str(image[key])


def _wrong_value(draft: Draft) -> None:
    image = draft.listed[-1]
    image |= draft.pick(
        {"comment": f"{image['comment']} (early)"},
        {"types": [*image["types"], "Raw/Unedited"]},
        {"front": not image["front"]},
        {"approved": not image["approved"]},
        {"edit": image["edit"] + 1},
    )


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
    good = draft.written(draft.facts)
    gid = draft.entity.gid
    another = good.replace(gid.encode(), f"{gid[:-12]}000000000000".encode())
    draft.xml = draft.pick(good[:-15], another, b"", b"<html><body>502</body></html>")


def _stale_other(draft: Draft) -> None:
    if draft.entity.entity_type is EntityType.EVENT:
        draft.xml = replace(draft.facts, place=f"{draft.facts.place} (old hall)")
    else:
        draft.xml = replace(draft.facts, packaging="Jewel Case")


# What entities without art may have, and what may be left of those that are gone.


def empty_item(draft: Draft) -> None:
    """Plant what the indexer leaves when the last image is removed, which is no drift."""
    draft.index = index_document(draft.entity.entity_type, draft.entity.gid, ())


def _orphan_index(draft: Draft) -> None:
    draft.index = {"images": [_foreign_entry(draft)]}


def _orphan_xml(draft: Draft) -> None:
    draft.xml = draft.facts


def _image_of_two_suffixes(draft: Draft) -> None:
    artwork_id, suffix = draft.foreign
    draft.images[artwork_id, _other_suffix(suffix)] = THUMBNAIL_SIZES
    _foreign_image(draft)


def _image_of_other_bytes(draft: Draft) -> None:
    _foreign_image(draft)
    draft.change_image(draft.foreign, md5="b" * 32, **draft.pick({}, {"size": 8_999}))


def _image_without_md5(draft: Draft) -> None:
    _foreign_image(draft)
    draft.change_image(draft.foreign, lacks=("md5",))


def _leftover(draft: Draft) -> None:
    stem = f"{item_name(draft.entity.gid)}-{draft.foreign[0]}"
    name, source, kind, original = draft.pick(
        (f"{stem}_thumb250.jpg", "derivative", "JPEG Thumb", f"{stem}.jpg"),
        (f"{stem}_itemimage.jpg", "derivative", "JPEG Thumb", f"{stem}.jpg"),
        ("notes.txt", "original", "Text", None),
    )
    draft.xml = draft.facts
    draft.add_file(File(name, source, kind, 9_000, "0" * 32, original))


# Differences in form, not in meaning.


def _shuffled_types(draft: Draft) -> None:
    for image in draft.listed:
        image["types"].reverse()
    draft.index = index_json(draft.document) + b"\n"


def _indented_index(draft: Draft) -> None:
    draft.index = json.dumps(draft.document, indent=1, ensure_ascii=False).encode()


def _indented_xml(draft: Draft) -> None:
    draft.xml = draft.written(draft.facts).replace(b"><", b">\n <")


def _prefixed_xml(draft: Draft) -> None:
    root = ElementTree.fromstring(draft.written(draft.facts))
    draft.xml = ElementTree.tostring(root, encoding="utf-8")


def _collection_list(draft: Draft) -> None:
    draft.metadata["collection"] = ["image", draft.metadata["collection"]]


def _nothing_at_first(draft: Draft) -> None:
    nothing = (b"[]", b"{}")[draft.entity.number % 2]
    draft.changes.append(lambda item: setattr(item, "first_answers", (nothing,)))


def _with_old_versions(item: Item) -> None:
    for name in list(item.contents):
        item.upload(name, item.contents[name])
    item.updated = CREATED


UNTIDY: Sequence[Plant] = (
    _shuffled_types,
    _indented_index,
    _indented_xml,
    _prefixed_xml,
    _collection_list,
    _changed(lambda item: setattr(item, "numbers", True)),
    _showing({"servers_unavailable": True}),
    _nothing_at_first,
    _changed(_with_old_versions),
)
"""Forms that a clean item, or an answer about it, may have."""


# Temporary states: an audit now would be too early, or unreliable.


def _cut_listing(draft: Draft) -> None:
    cut = draft.pick(0, 3, None, None)
    draft.changes.append(lambda item: setattr(item, "cut", cut))
    # Without these, it is complete by its own count, but truncated.
    lost = draft.pick(None, None, "meta", "files")
    if lost is not None:
        draft.changes.append(lambda item: item.files.pop(f"{item_name(item.gid)}_{lost}.xml"))


# The tables.

RELEASE_ONLY = (EntityType.RELEASE,)

_review = partial(Drift, status="manual_review")
_of_release = partial(Drift, types=RELEASE_ONLY)
# Nothing proves that their items hold the original.
_loss = partial(Drift, status="manual_review", keeps_originals=False)
_passing = partial(Drift, checks="", status="unchecked")
_empty = partial(Drift, subject=Subject.NO_ART)
_empty_review = partial(Drift, subject=Subject.NO_ART, status="manual_review")
_orphan = partial(Drift, subject=Subject.ORPHAN)
_orphan_review = partial(Drift, subject=Subject.ORPHAN, status="manual_review")

_STALE_TITLE = _telling(title="Working title")
_OLD_FORM = "index.entity_url index.image.url index.image.type index.image.field_missing"
_EXTRA = "files.original.extra"
_ORPHAN_INDEX_WITH_XML = _in_turn(_orphan_index, _orphan_xml)
_IDENTIFIER = "xml.field meta.external_identifier"

DRIFTS: Sequence[Drift] = (
    # Drifts from which others borrow come first.
    _loss("original-missing", lambda d: d.images.pop(d.first_image), "files.original.missing"),
    _loss("item-missing", _with(absent=True), "item.missing"),
    _loss("item-dark", _with(dark=True), "item.dark"),
    _loss("original-other-suffix", _original_of_other_suffix, "files.original.missing"),
    _loss(
        "original-empty",
        lambda d: d.change_image(d.first_image, size=0, md5=hashlib.md5(b"").hexdigest()),
        "files.original.empty",
    ),
    # Harmless in its right place.
    _loss(
        "original-private",
        lambda d: d.change_image(d.first_image, private=True),
        "",
        status="clean",
    ),
    _review("item-collection", _without("collection", "opensource"), "item.collection"),
    _review("item-mediatype", _without("mediatype", "data"), "item.mediatype"),
    _review("item-noindex", _without("noindex", "false"), "item.noindex"),
    _loss("item-other-archive", _of_other_archive, "item.archive"),
    _review("original-duplicate", _two_originals, "files.original.duplicate"),
    # Images are deleted only from orphans: a merge may make a live entity the owner at any time.
    _review("foreign-owned", _foreign_image, _EXTRA, owner=HEALTHY),
    _review(
        "foreign-owned-listed",
        _in_turn(_foreign_image, _listed_without_file),
        _EXTRA,
        owner=HEALTHY,
    ),
    _review("foreign-only-copy", _foreign_image, _EXTRA, owner="original-missing"),
    _review("foreign-unknown", _foreign_image, _EXTRA),
    _review("foreign-unnamed", _unnamed_image, _EXTRA),
    _review("thumbnail-missing", _no_thumbnail, "files.thumbnail.missing"),
    Drift("index-missing", _with(index=None), "files.index.missing"),
    Drift("index-malformed", _malformed_index, "index.malformed"),
    # Its listed size says that it must not be downloaded.
    Drift(
        "index-huge",
        lambda d: d.change_file("index.json", size=64_000_000, md5="f" * 32),
        "index.malformed",
    ),
    Drift("index-shape", lambda d: d.document.update(generator="caa-indexer"), "index.shape"),
    Drift("index-entity-url", _wrong_entity_url, "index.entity_url"),
    Drift("index-image-missing", _image_not_listed, "index.image.missing"),
    Drift("index-image-extra", _listed_without_file, "index.image.extra"),
    Drift(
        "index-image-duplicate", lambda d: d.listed.append(d.listed[-1]), "index.image.duplicate"
    ),
    Drift("index-image-order", lambda d: d.listed.reverse(), "index.image.order", images=2),
    Drift("index-field-missing", _field_missing, "index.image.field_missing"),
    Drift("index-field-unexpected", _unexpected_field, "index.image.field_unexpected"),
    Drift("index-type", _wrong_type, "index.image.type"),
    Drift("index-value", _wrong_value, "index.image.value"),
    Drift("index-url", _wrong_url, "index.image.url"),
    _of_release("index-old-form", _old_form, _OLD_FORM),
    Drift("xml-missing", _with(xml=None), "files.xml.missing"),
    Drift("xml-malformed", _malformed_xml, "xml.malformed"),
    Drift("xml-title", _STALE_TITLE, "xml.field meta.title"),
    _of_release(
        "xml-artist-name", _telling_of_artist("name", "{} Ensemble"), "xml.field meta.creator"
    ),
    _of_release("xml-sort-name", _telling_of_artist("sort_name", "{}, The"), "xml.field"),
    _of_release("xml-artist-id", _telling_of_artist("gid", "{:.24}000000000000"), _IDENTIFIER),
    # The date is also in the list of release events, which archive.org does not show.
    _of_release("xml-date", _telling(date="1901-02-03"), "xml.field xml.other meta.date"),
    _of_release("xml-language", _telling(language="mul"), "xml.field meta.language"),
    _of_release(
        "xml-barcode-or-asin",
        lambda d: d.tell(**d.pick({"barcode": "0000000000000"}, {"asin": "B000000000"})),
        _IDENTIFIER,
    ),
    Drift("xml-other", _stale_other, "xml.other", "clean"),
    _of_release("meta-title", _without("title", "Untitled"), "meta.title"),
    _of_release("meta-creator", _without("creator", "Somebody Else"), "meta.creator"),
    _of_release("meta-date", _without("date", "1901"), "meta.date"),
    _of_release("meta-language", _without("language", "mul"), "meta.language"),
    _of_release(
        "meta-external-identifier",
        _without("external-identifier", "urn:upc:0000000000000"),
        "meta.external_identifier",
    ),
    Drift(
        "neither-index-nor-xml",
        _with(index=None, xml=None),
        "files.index.missing files.xml.missing",
    ),
    _of_release(
        "old-form-and-title",
        _in_turn(_old_form, _STALE_TITLE),
        f"{_OLD_FORM} xml.field meta.title",
    ),
    _empty("empty-index-malformed", _in_turn(empty_item, _malformed_index), "index.malformed"),
    _empty("empty-lists-an-image", _in_turn(empty_item, _listed_without_file), "index.image.extra"),
    _empty_review(
        "empty-foreign-owned", _in_turn(empty_item, _foreign_image), _EXTRA, owner=HEALTHY
    ),
    _empty_review("empty-foreign-unknown", _in_turn(empty_item, _foreign_image), _EXTRA),
    _empty_review("empty-dark", _with(dark=True), "item.dark"),
    _orphan("orphan-image", _foreign_image, "orphan.image", owner=HEALTHY),
    _orphan(
        "orphan-image-and-index",
        _in_turn(_foreign_image, _ORPHAN_INDEX_WITH_XML),
        "orphan.image orphan.index",
        owner=HEALTHY,
    ),
    _orphan("orphan-image-without-md5", _image_without_md5, "orphan.image", owner=HEALTHY),
    *(
        _orphan_review(f"orphan-{name}", plant, "orphan.image", owner=owner)
        for name, plant, owner in (
            ("only-copy", _foreign_image, "original-missing"),
            ("owner-absent", _foreign_image, "item-missing"),
            ("owner-dark", _foreign_image, "item-dark"),
            ("copy-empty", _foreign_image, "original-empty"),
            ("copy-private", _foreign_image, "original-private"),
            ("copy-other-suffix", _foreign_image, "original-other-suffix"),
            ("copy-other-bytes", _image_of_other_bytes, HEALTHY),
            ("two-suffixes", _image_of_two_suffixes, HEALTHY),
            ("unnamed-image", _unnamed_image, None),
        )
    ),
    _orphan_review(
        "orphan-unknown-image",
        _in_turn(_foreign_image, _ORPHAN_INDEX_WITH_XML),
        "orphan.image orphan.index",
    ),
    _orphan_review("orphan-other-archive", _of_other_archive, "item.archive"),
    _orphan("orphan-index", _orphan_index, "orphan.index"),
    _orphan("orphan-index-with-xml", _ORPHAN_INDEX_WITH_XML, "orphan.index"),
    _orphan_review("orphan-leftover", _leftover, "orphan.leftover"),
)
"""Every kind of permanent drift, in the order in which worlds plant them."""

PASSING: Sequence[Drift] = (
    _passing(
        "unfinished",
        _showing(
            {"pending_tasks": True},
            {"has_redrow": True},
            {"tasks": [{"cmd": "derive.php", "wait_admin": 0}]},
            {"nodownload": True},
            {"errcode": 101, "error": "item is pending"},
        ),
        keeps_originals=False,
    ),
    _passing(
        "unavailable",
        _showing(
            {"error": "the item's server is not responding"},
            {"errcode": 102},
            {"errcode": 105, "error": "no node found"},
        ),
        keeps_originals=False,
    ),
    _passing("cut-listing", _cut_listing, keeps_originals=False),
    _passing(
        "orphan-cut-listing",
        _in_turn(_foreign_image, _cut_listing),
        subject=Subject.ORPHAN,
        owner=HEALTHY,
    ),
)
"""Kinds of drift that an audit can only defer; planted only where named."""
