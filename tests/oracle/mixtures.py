"""Random mixtures of faults: a small world each, which follows from a seed and a number.

A mixture is about one entity, live or gone, and the owners of the images that are left in its
item. Several things may be wrong at once with each of them: in MusicBrainz's rows, in archive.org's
answers and in the queue. Every entity of a mixture is audited, the owners as well.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sandbox.drift import DRIFTS, Draft, Drift, Subject
from sandbox.entities import Artist, Artwork, Entity, EntityType, Facts, Presence
from sandbox.formats import (
    ARCHIVES,
    THUMBNAIL_SIZES,
    Listed,
    entity_xml,
    extracted,
    image_name,
    index_document,
    index_json,
    xml_name,
)
from sandbox.items import File, Item
from tests.oracle.musicbrainz import MIME_TYPES, Known
from tests.oracle.place import Key
from tests.oracle.state import ItemState, QueuedBefore, World

FIRST_ARTWORK_ID = 20_000_000_000
UNKNOWN_ARTWORK_ID = 95_000_000_000
PER_MIXTURE = 100

_EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"

_NOTHING = (b"[]", b"[]", b"{}", b'{"errcode": 104, "error": "no such item"}')

_UNFINISHED: tuple[dict[str, Any], ...] = (
    {"pending_tasks": True},
    {"has_redrow": True},
    {"tasks": [{"cmd": "archive.php"}]},
    {"nodownload": True},
    {"errcode": 101, "error": "pending"},
)

_UNAVAILABLE: tuple[dict[str, Any], ...] = (
    {"error": "the server of this item is down"},
    {"errcode": 102, "error": "unavailable"},
    {"errcode": 105},
)

_UNREADABLE = (b"<html>gateway time-out</html>", b"null", b"[1]", b'{"created": 1}', b'"dark"')

# Faults of one item, as worlds plant them; what concerns owners is mixed here.
_LIVE_FAULTS = tuple(
    drift
    for drift in DRIFTS
    if drift.subject is Subject.ART
    and drift.owner is None
    and drift.name not in ("item-missing", "item-dark", "item-other-archive")
)
# Those that leave an owner's images alone.
_OWNER_FAULTS = tuple(
    drift for drift in _LIVE_FAULTS if drift.name.startswith(("index-", "xml-", "meta-"))
)


@dataclass(slots=True)
class Mixture:
    """One small world, and what is to be audited in it.

    `things` are the items themselves that can be listed, from which the answers are made.
    """

    number: int
    world: World
    keys: list[Key] = field(default_factory=list)
    things: dict[str, Item] = field(default_factory=dict)


def make(seed: int, number: int, node: str) -> Mixture:
    """Make a mixture; `node` is the host and port that archive.org's answers name."""
    return _Maker(random.Random(f"{seed} {number}"), number, node).make()


class _Maker:
    def __init__(self, luck: random.Random, number: int, node: str) -> None:
        self._luck = luck
        self._number = number
        self._node = node
        self._ids = number * PER_MIXTURE
        self._mixture = Mixture(number, World())

    @property
    def _world(self) -> World:
        return self._mixture.world

    def make(self) -> Mixture:
        luck = self._luck
        entity_type = luck.choices(list(EntityType), (4, 1))[0]
        chance = luck.random()
        if chance < 0.04:
            self._held_as_other_type(entity_type)
        elif chance < 0.12:
            self._live(entity_type, images=0)
        elif chance < 0.45:
            self._live(entity_type, images=luck.choice((1, 1, 2, 3)))
        else:
            self._orphan(entity_type)
        return self._mixture

    # The entities of a mixture.

    def _held_as_other_type(self, entity_type: EntityType) -> None:
        (other,) = (kind for kind in EntityType if kind is not entity_type)
        gid = self._live(other, images=self._luck.choice((0, 1, 2)))
        self._audited(entity_type, gid)
        # Both ask for the one item, in any order.
        state = self._world.items[gid]
        state.answers = state.answers[-1:]

    def _live(self, entity_type: EntityType, *, images: int) -> str:
        draft = self._draft(entity_type, images)
        if not images and self._luck.random() < 0.5:
            draft.index = index_document(entity_type, draft.entity.gid, ())
        faults = _LIVE_FAULTS if images else _EMPTY_FAULTS
        for _ in range(self._luck.choices((0, 1, 2, 3), (30, 35, 20, 15))[0]):
            draft = self._planted(draft, self._luck.choice(faults))
        item = draft.item()
        assert item is not None
        if self._luck.random() < 0.15:
            self._add_foreign(item, entity_type)
        self._vary(item)
        gid = draft.entity.gid
        self._know(draft, darkened=self._luck.random() < 0.02)
        self._audited(entity_type, gid)
        # Where nothing is expected, one answer that there is nothing is enough.
        wrong_at_first = not images and self._luck.random() < 0.2
        self._answer(item, "absent once" if wrong_at_first else None)
        self._queue_events(entity_type, item, ("index", {"gid": gid}))
        return gid

    def _orphan(self, entity_type: EntityType) -> None:
        luck = self._luck
        gid = self._gid()
        facts = self._facts()
        item = Item(gid, self._metadata(entity_type, gid, facts))
        item.add_own_files()
        if luck.random() < 0.6:
            item.add_text(xml_name(gid), entity_xml(entity_type, gid, facts, 1))
        if luck.random() < 0.4:
            listing = [index_json({"images": []}), b"", b'{"images": [{"id": 1}]}', b"\xff"]
            item.add_text("index.json", luck.choice(listing))
        for _ in range(luck.choices((0, 1, 2, 3), (25, 45, 20, 10))[0]):
            self._add_foreign(item, entity_type)
        if luck.random() < 0.1:
            self._add_leftover(item)
        if luck.random() < 0.04:
            item.metadata["collection"] = _other_archive(entity_type).collection
        self._vary(item)
        self._become_orphan(entity_type, gid)
        self._audited(entity_type, gid)
        self._answer(item)
        self._queue_events(entity_type, item, *_possible_events(item))

    def _become_orphan(self, entity_type: EntityType, gid: str) -> None:
        presence = self._luck.choice((Presence.MERGED, Presence.DELETED, Presence.UNKNOWN))
        heir = None
        if presence is Presence.MERGED:
            heirs = [
                key[1]
                for key, known in self._world.known.items()
                if key[0] is entity_type and known.presence is Presence.LIVE
            ]
            heir = self._luck.choice(heirs) if heirs else self._healthy(entity_type)
        if presence is not Presence.UNKNOWN:
            self._world.known[entity_type, gid] = Known(entity_type, gid, presence, heir=heir)

    def _healthy(self, entity_type: EntityType) -> str:
        draft = self._draft(entity_type, 0)
        self._know(draft)
        return draft.entity.gid

    def _know(self, draft: Draft, *, darkened: bool = False) -> None:
        entity = draft.entity
        xml = entity_xml(entity.entity_type, entity.gid, draft.facts, len(entity.artwork))
        self._world.known[entity.entity_type, entity.gid] = Known(
            entity.entity_type,
            entity.gid,
            Presence.LIVE,
            self._listing(entity),
            xml,
            darkened=darkened and bool(entity.artwork),
        )

    def _audited(self, entity_type: EntityType, gid: str) -> None:
        self._mixture.keys.append((entity_type, gid))

    # What a healthy one looks like.

    def _draft(self, entity_type: EntityType, images: int) -> Draft:
        gid, facts = self._gid(), self._facts()
        artwork = tuple(self._artwork(place) for place in range(images))
        entity = Entity(self._number, gid, entity_type, Presence.LIVE, "", artwork, True, False)
        unknown = UNKNOWN_ARTWORK_ID + self._next_id(), "jpg"
        draft = Draft(entity, self._luck.randrange(60), facts, unknown)
        draft.metadata = self._metadata(entity_type, gid, facts)
        if images:
            draft.index = index_document(entity_type, gid, self._listing(entity))
            draft.xml = facts
            draft.images = {(image.id, image.suffix): THUMBNAIL_SIZES for image in artwork}
        return draft

    def _metadata(self, entity_type: EntityType, gid: str, facts: Facts) -> dict[str, Any]:
        return {
            "collection": ARCHIVES[entity_type].collection,
            "mediatype": "image",
            "noindex": "true",
            **extracted(entity_type, gid, facts),
        }

    def _artwork(self, place: int) -> Artwork:
        suffix = self._luck.choice(("jpg", "jpg", "jpg", "png", "gif", "pdf"))
        types: tuple[int, ...] = (1,) if place == 0 else self._luck.choice(((2,), (3, 8), ()))
        comment = self._luck.choice(("", "", "recto 裏", "b & w"))
        return Artwork(
            FIRST_ARTWORK_ID + self._next_id(), MIME_TYPES[suffix], suffix, types, comment
        )

    def _listing(self, entity: Entity) -> tuple[Listed, ...]:
        names = ARCHIVES[entity.entity_type].type_names
        fronts = [image.id for image in entity.artwork if 1 in image.type_ids]
        backs = [image.id for image in entity.artwork if 2 in image.type_ids]
        is_release = entity.entity_type is EntityType.RELEASE
        return tuple(
            Listed(
                id=image.id,
                suffix=image.suffix,
                types=tuple(names[type_id - 1] for type_id in image.type_ids),
                front=image.id in fronts[:1],
                back=image.id in backs[:1] if is_release else None,
                comment=image.comment,
                approved=image.id % 7 != 0,
                edit=image.id - FIRST_ARTWORK_ID + 1,
            )
            for image in entity.artwork
        )

    def _facts(self) -> Facts:
        luck = self._luck
        artist = Artist(self._gid(), "Jo Lane", "Lane, Jo", luck.choice(("Jo Lane", "Jo")))
        other = Artist(self._gid(), "Mäx & Co", "Mäx", "Mäx & Co")
        return Facts(
            title=f"Title & Sons {self._number}",
            artists=luck.choice(((artist,), (artist, other))),
            date=luck.choice(("1999-05-12", "1999", "????-05-12", "1999-??-12")),
            place="Hall",
            country="GB",
            language="eng",
            barcode="4006381333931",
            asin="B000002J09",
            packaging="None",
        )

    def _gid(self) -> str:
        return str(uuid.UUID(int=self._luck.getrandbits(128), version=4))

    def _next_id(self) -> int:
        self._ids += 1
        assert self._ids < (self._number + 1) * PER_MIXTURE
        return self._ids

    # What is wrong with an item's files.

    def _planted(self, draft: Draft, drift: Drift) -> Draft:
        """Plant a drift, where that can be done after what is planted already."""
        entity = draft.entity
        if entity.entity_type not in drift.types or len(entity.artwork) < drift.images:
            return draft
        changed = copy.deepcopy(draft)
        changed.variant = self._luck.randrange(60)
        try:
            drift.plant(changed)
            changed.item()
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError):
            return draft
        return changed

    def _vary(self, item: Item) -> None:
        """Change what means nothing."""
        luck = self._luck
        if luck.random() < 0.1:
            item.numbers = True
        if luck.random() < 0.1:
            item.shown["servers_unavailable"] = True
        if luck.random() < 0.1:
            old = File("history/files/index.json.~1~", "original", "JSON", 300, "c" * 32)
            item.add_file(old._replace(old_version=True))
        if luck.random() < 0.05:
            name = f"history/files/mbid-{item.gid}-1.jpg.~1~"
            item.add_file(File(name, "original", "JPEG", 300, "c" * 32, old_version=True))
        if luck.random() < 0.05:
            item.add_file(File(f"mbid-{item.gid}_reviews.xml", "original", "Metadata", 9, "c" * 32))

    def _add_leftover(self, item: Item) -> None:
        stem = f"mbid-{item.gid}-{UNKNOWN_ARTWORK_ID}"
        file = self._luck.choice(
            (
                File(f"{stem}_thumb500.jpg", "derivative", "JPEG Thumb", 9, "c" * 32, "gone.jpg"),
                File("notes.txt", "original", "Text", 9, "c" * 32),
                # What archive.org makes of a PDF is its own, and stays when the PDF is gone.
                File(f"{stem}_text.pdf", "original", "Additional Text PDF", 9, "c" * 32),
                File(f"{stem}_jp2.zip", "derivative", "Single Page Processed JP2 ZIP", 9, "c" * 32),
            )
        )
        item.add_file(file)

    # Images that are another entity's, or nobody's.

    def _add_foreign(self, item: Item, entity_type: EntityType) -> None:
        kind = self._luck.choices(list(_FOREIGN), list(_FOREIGN.values()))[0]
        if kind == "unnamed":
            self._add_unnamed(item)
            return
        if kind == "unknown":
            item.add_image(UNKNOWN_ARTWORK_ID + self._next_id(), "jpg")
            return
        if kind == "of other type":
            entity_type = next(other for other in EntityType if other is not entity_type)
        draft = self._draft(entity_type, self._luck.choice((1, 1, 2)))
        if self._luck.random() < 0.25:
            draft = self._planted(draft, self._luck.choice(_OWNER_FAULTS))
        artwork = draft.entity.artwork[0]
        held = draft.item()
        assert held is not None
        item.add_image(artwork.id, artwork.suffix)
        if kind == "proved":
            # One owner of several images.
            for other in draft.entity.artwork[1:]:
                item.add_image(other.id, other.suffix)
        pair = _Copies(self._luck, item, held, artwork)
        if kind in _COPIES:
            _COPIES[kind](pair)
        self._know(draft, darkened=kind == "owner dark" and self._luck.random() < 0.5)
        self._add_owner(kind, held, entity_type, artwork)

    def _add_owner(self, kind: str, held: Item, entity_type: EntityType, artwork: Artwork) -> None:
        gid = held.gid
        if kind == "owner of other archive":
            held.metadata["collection"] = _other_archive(entity_type).collection
        if kind == "owner busy":
            self._queue_busy(entity_type, held, artwork)
        if kind == "owner merged":
            self._merge_into(entity_type, held, artwork)
        if self._luck.random() < 0.1:
            held.numbers = True
        self._answer(held, _OWNER_STATES.get(kind, "listed"))
        if kind not in ("owner absent once", "owner changes"):
            # Whose answers come in turn is asked by one audit only.
            self._audited(entity_type, gid)

    def _merge_into(self, entity_type: EntityType, heir: Item, artwork: Artwork) -> None:
        """Let the image have come to its owner by a merge, which may not be carried out yet."""
        merged = Item(self._gid(), self._metadata(entity_type, heir.gid, self._facts()))
        merged.add_image(artwork.id, artwork.suffix)
        merged.add_own_files()
        gid = merged.gid
        self._world.known[entity_type, gid] = Known(
            entity_type, gid, Presence.MERGED, heir=heir.gid
        )
        if self._luck.random() < 0.7:
            del heir.files[image_name(heir.gid, artwork.id, artwork.suffix)]
        if self._luck.random() < 0.5:
            image = {"artwork_id": artwork.id, "suffix": artwork.suffix}
            moved = {"old_gid": gid, "new_gid": heir.gid, **image}
            self._queue(self._luck.choice(("queued", "running")), entity_type, "copy_image", moved)
        self._audited(entity_type, gid)
        self._answer(merged, "listed")

    def _add_unnamed(self, item: Item) -> None:
        other = self._gid()
        name, kind = self._luck.choice(
            (
                (f"mbid-{item.gid}-front.jpg", "JPEG"),
                (f"mbid-{other}-{UNKNOWN_ARTWORK_ID}.jpg", "JPEG"),
                ("cover.jpg", "JPEG"),
                ("Scan.PDF", "Image Container PDF"),
                (f"mbid-{item.gid}-{self._next_id()}", "PNG"),
                ("IMG_0001.png", "PNG"),
            )
        )
        item.add_file(File(name, "original", kind, 400_000, "e" * 32))

    # What archive.org answers.

    def _answer(self, item: Item, state: str | None = None) -> None:
        luck = self._luck
        if state is None:
            state = luck.choices(list(_STATES), list(_STATES.values()))[0]
        gid = item.gid
        answers: list[bytes]
        match state:
            case "absent":
                answers = [luck.choice(_NOTHING), luck.choice(_NOTHING)]
            case "dark":
                item.dark = True
                answers = [item.document(self._node)]
            case "unfinished":
                item.shown |= luck.choice(_UNFINISHED)
                answers = [item.document(self._node)]
            case "unavailable":
                answers = [self._unavailable(item)]
            case "cut":
                self._cut(item)
                answers = [item.document(self._node)]
            case "absent once":
                self._mixture.things[gid] = item
                answers = [luck.choice(_NOTHING), item.document(self._node)]
            case "absent, then dark":
                dark = replace(item, dark=True)
                answers = [luck.choice(_NOTHING), dark.document(self._node)]
            case "changes":
                self._mixture.things[gid] = item
                answers = [item.document(self._node), self._changed(item)]
            case "absent, then unfinished":
                item.shown |= luck.choice(_UNFINISHED)
                answers = [luck.choice(_NOTHING), item.document(self._node)]
            case "absent, then unavailable":
                answers = [luck.choice(_NOTHING), self._unavailable(item)]
            case _:
                answers = [item.document(self._node)]
                self._mixture.things[gid] = item
        self._world.items[gid] = ItemState(answers, dict(item.contents))

    def _changed(self, item: Item) -> bytes:
        """What is answered once something has happened to an item that was read already."""
        gid = item.gid
        changed = replace(item, files=dict(item.files), shown=dict(item.shown))
        images = [
            name
            for name, file in item.files.items()
            if file.source == "original" and name.startswith(f"mbid-{gid}-")
        ]
        kind = self._luck.choice(("gone", "other bytes", "private", "dark", "unfinished", "absent"))
        changed.updated += 60
        for name in images:
            if kind == "gone":
                changed.files.pop(name, None)
            elif kind == "other bytes":
                changed.files[name] = changed.files[name]._replace(md5="9" * 32)
            elif kind == "private":
                changed.files[name] = changed.files[name]._replace(private=True)
        if kind == "absent":
            return self._luck.choice(_NOTHING)
        if kind == "unfinished":
            changed.shown |= self._luck.choice(_UNFINISHED)
        changed.dark = kind == "dark"
        if not changed.dark and kind != "unfinished":
            self._mixture.things[gid] = changed
        return changed.document(self._node)

    def _unavailable(self, item: Item) -> bytes:
        chance = self._luck.random()
        if chance < 0.2:
            return item.document(self._node)[:-40]
        if chance < 0.4:
            return self._luck.choice(_UNREADABLE)
        shown = {**item.shown, **self._luck.choice(_UNAVAILABLE)}
        return replace(item, shown=shown).document(self._node)

    def _cut(self, item: Item) -> None:
        kind = self._luck.randrange(4)
        if kind < 2:
            item.cut = (0, len(item.files) - 1)[kind]
        else:
            del item.files[f"mbid-{item.gid}_{('meta', 'files')[kind - 2]}.xml"]

    # What is in the queue.

    def _queue_events(
        self, entity_type: EntityType, item: Item, *possible: tuple[str, Mapping[str, Any]]
    ) -> None:
        luck = self._luck
        chance = luck.random()
        if chance < 0.08:
            state = luck.choice(("queued", "running"))
            self._queue(state, entity_type, *luck.choice(_any_event(item.gid, self._gid())))
        elif chance < 0.2 and possible:
            event = luck.choice(possible)
            states = luck.choice(
                (["failed"], ["completed"], ["failed", "completed"], ["completed", "failed"])
            )
            for state in states:
                self._queue(state, entity_type, *event)

    def _queue_busy(self, entity_type: EntityType, held: Item, artwork: Artwork) -> None:
        gid, other = held.gid, self._gid()
        image = {"artwork_id": artwork.id, "suffix": artwork.suffix}
        events: tuple[tuple[str, dict[str, Any]], ...] = (
            ("copy_image", {"old_gid": gid, "new_gid": other, **image}),
            ("copy_image", {"old_gid": other, "new_gid": gid, **image}),
            ("delete_image", {"gid": gid, **image}),
            ("deindex", {"gid": gid}),
            ("index", {"gid": gid}),
        )
        state = self._luck.choice(("queued", "running", "queued", "completed", "failed"))
        self._queue(state, entity_type, *self._luck.choice(events))

    def _queue(
        self, state: Any, entity_type: EntityType, action: str, message: Mapping[str, Any]
    ) -> None:
        queue = self._world.queue
        queue.append(QueuedBefore(len(queue), state, entity_type, action, message))


def _other_archive(entity_type: EntityType) -> Any:
    return next(archive for kind, archive in ARCHIVES.items() if kind is not entity_type)


def _any_event(gid: str, other: str) -> list[tuple[str, dict[str, Any]]]:
    image = {"artwork_id": UNKNOWN_ARTWORK_ID, "suffix": "jpg"}
    return [
        ("index", {"gid": gid}),
        ("deindex", {"gid": gid}),
        ("delete_image", {"gid": gid, **image}),
        ("copy_image", {"old_gid": gid, "new_gid": other, **image}),
        ("copy_image", {"old_gid": other, "new_gid": gid, **image}),
    ]


def _possible_events(item: Item) -> list[tuple[str, dict[str, Any]]]:
    """The events that might be queued for an orphan's item."""
    events: list[tuple[str, dict[str, Any]]] = [("deindex", {"gid": item.gid})]
    for name, file in item.files.items():
        artwork_id, _, suffix = name.removeprefix(f"mbid-{item.gid}-").partition(".")
        if file.source == "original" and artwork_id.isdecimal() and suffix:
            message = {"gid": item.gid, "artwork_id": int(artwork_id), "suffix": suffix}
            events.append(("delete_image", message))
    return events


# Copies of one picture.


@dataclass(slots=True)
class _Copies:
    """An image in two items, and what may differ between the two."""

    luck: random.Random
    item: Item
    held: Item
    artwork: Artwork

    def name(self, item: Item) -> str:
        return image_name(item.gid, self.artwork.id, self.artwork.suffix)

    def change(self, item: Item, **changes: Any) -> None:
        name = self.name(item)
        item.files[name] = item.files[name]._replace(**changes)

    def remove(self) -> None:
        self.held.delete(self.name(self.held))


def _only_old_version(pair: _Copies) -> None:
    # `delete` keeps an old version in the item's history, which is no copy.
    pair.remove()


def _lacks(pair: _Copies) -> None:
    pair.remove()
    pair.held.files = {name: file for name, file in pair.held.files.items() if not file.old_version}


def _empty_there(pair: _Copies) -> None:
    pair.change(pair.held, size=0, md5=_EMPTY_MD5)


def _empty_both(pair: _Copies) -> None:
    _empty_there(pair)
    pair.change(pair.item, size=0, md5=_EMPTY_MD5)


def _other_bytes(pair: _Copies) -> None:
    pair.change(pair.held, md5="1" * 32)


def _cut_short(pair: _Copies) -> None:
    pair.change(pair.held, size=4_000, md5="2" * 32)


def _other_size_only(pair: _Copies) -> None:
    pair.change(pair.held, size=9_001)


def _private(pair: _Copies) -> None:
    pair.change(pair.held, private=True)


def _other_suffix(pair: _Copies) -> None:
    name = pair.name(pair.held)
    file = pair.held.files.pop(name)
    suffix = "png" if pair.artwork.suffix != "png" else "jpg"
    name = image_name(pair.held.gid, pair.artwork.id, suffix)
    pair.held.files[name] = file._replace(name=name)


def _one_md5_missing(pair: _Copies) -> None:
    pair.change(pair.luck.choice((pair.item, pair.held)), lacks=("md5",))


def _one_md5_missing_and_another_file(pair: _Copies) -> None:
    pair.change(pair.held, md5="3" * 32, lacks=pair.luck.choice(((), ("md5",))))
    pair.change(pair.item, lacks=("md5",))


def _no_sums(pair: _Copies) -> None:
    pair.change(pair.luck.choice((pair.item, pair.held)), lacks=("md5", "sha1"))


def _is_derivative(pair: _Copies) -> None:
    pair.change(pair.held, source="derivative")


def _two_suffixes(pair: _Copies) -> None:
    suffix = "png" if pair.artwork.suffix != "png" else "jpg"
    pair.item.add_image(pair.artwork.id, suffix)


_COPIES: Mapping[str, Callable[[_Copies], None]] = {
    "only an old version": _only_old_version,
    "lacks it": _lacks,
    "empty there": _empty_there,
    "empty in both": _empty_both,
    "other bytes": _other_bytes,
    "cut short": _cut_short,
    "other size": _other_size_only,
    "private": _private,
    "other suffix": _other_suffix,
    "one md5 missing": _one_md5_missing,
    "one md5 missing, another file": _one_md5_missing_and_another_file,
    "no sums": _no_sums,
    "a derivative": _is_derivative,
    "two suffixes": _two_suffixes,
}

_OWNER_STATES: Mapping[str, str] = {
    "owner dark": "dark",
    "owner absent": "absent",
    "owner absent once": "absent once",
    "owner unfinished": "unfinished",
    "owner unavailable": "unavailable",
    "owner cut": "cut",
    "owner changes": "changes",
}

#: Kinds of foreign images, each with its weight.
_FOREIGN: Mapping[str, int] = {
    "proved": 12,
    "unknown": 2,
    "unnamed": 2,
    "of other type": 1,
    "owner of other archive": 1,
    "owner busy": 3,
    "owner merged": 2,
    **dict.fromkeys(_COPIES, 1),
    **dict.fromkeys(_OWNER_STATES, 1),
}

#: What archive.org may answer for the entity itself, with weights.
_STATES: Mapping[str, float] = {
    "listed": 80,
    "absent once": 5,
    "absent": 4,
    "dark": 3,
    "unfinished": 3,
    "unavailable": 2,
    "cut": 2,
    "changes": 2,
    "absent, then dark": 0.5,
    "absent, then unfinished": 0.5,
    "absent, then unavailable": 0.5,
}

_EMPTY_FAULTS = tuple(
    drift
    for drift in DRIFTS
    if drift.subject is Subject.NO_ART and drift.owner is None and drift.name != "empty-dark"
) + tuple(drift for drift in _LIVE_FAULTS if drift.name.startswith(("item-", "foreign-")))


def planted(state: ItemState) -> dict[str, Any]:
    """An item as the stand-in of archive.org takes it."""
    return {
        "answers": [answer.decode() for answer in state.answers],
        "files": {name: content.decode("latin-1") for name, content in state.contents.items()},
    }
