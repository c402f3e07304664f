"""Deterministic worlds: what MusicBrainz has, what archive.org holds, and what an audit should say.

Everything about an entity follows from the world's parameters and the entity's number, so that a
world of millions takes no memory: rows, items and answers are computed on demand. `sandbox.load`
puts a world into a database, `sandbox.services` serves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

from sandbox.drift import DRIFTS, HEALTHY, PASSING, UNTIDY, Draft, Drift, Subject, empty_item
from sandbox.entities import Artist, Artwork, Entity, EntityType, Facts, Plan, Presence, Status
from sandbox.formats import (
    ARCHIVES,
    THUMBNAIL_SIZES,
    Listed,
    entity_xml,
    extracted,
    index_document,
)
from sandbox.items import Item

FIRST_ARTWORK_ID = 10_000_000_000
UNKNOWN_ARTWORK_ID = 90_000_000_000
ARTWORK_IDS_PER_ENTITY = 64

_MASK = (1 << 64) - 1
_NODE_MASK = (1 << 48) - 1
_FIELD = (1 << 20) - 1

# How far to look for a neighbour before giving up.
_SEARCH = 5_000

_GONE = (Presence.MERGED, Presence.DELETED, Presence.UNKNOWN)
_COUNTS = (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 7)
_FIRST_TYPES: tuple[tuple[int, ...], ...] = ((1,), (1,), (1,), (1, 2))
_TYPES: tuple[tuple[int, ...], ...] = ((2,), (2, 6), (3,), (4,), (1,), (8,), (), (3, 8))

_ADJECTIVES = (
    "Silent", "Electric", "Ruined", "Große", "Naïve", "Velvet", "Broken", "Último", "Вечный",
    "静かな", "Paper", "Golden", "Señor", "Hollow", "Cosmic", "Rock & Roll",
)  # fmt: skip
_NOUNS = (
    "Subjects", "Harbour", "Étoiles", "Machine", "Sessions", "Übermut", "Gardens", "ночь", "花火",
    "Ketchup", "Loops", "Letters", "Tapes <live>", "Horizon", "Weather", "\"Quoted\"",
)  # fmt: skip
_FIRST_NAMES = ("JT", "Björk", "Ana", "Сергей", "美咲", "Emma", "O'Neil", "Zoë")
_LAST_NAMES = ("Bruce", "Guðmundsdóttir", "Sousa", "Иванов", "田中", "Watson", "Sons", "Müller")
_COMMENTS = ("", "", "", "", "matrix / runout", "Rückseite — 裏面 🎵", 'with "obi" & sticker', "b2")
_COUNTRIES = ("GB", "DE", "JP", "XW", "US", "BR", "PT", "FR")
LANGUAGES = ("eng", "deu", "jpn", "spa", "rus", "fra", "por", "zxx")
"""In the order of their ids in MusicBrainz, from 1."""

_MIME_TYPES = (
    *[("image/jpeg", "jpg")] * 11,
    *[("image/png", "png")] * 3,
    ("image/gif", "gif"),
    ("application/pdf", "pdf"),
)


@dataclass(frozen=True, slots=True)
class Spec:
    """The parameters of a world; equal parameters make equal worlds.

    Parameters
    ----------
    seed
        Any integer.
    size
        How many gids there are, live and gone.
    drift_rate
        The share of gids with a planted drift; they take turns in `drifts`.
    drifts
        Names of the drifts to plant (see `sandbox.drift`); all of `DRIFTS` unless given.
    event_share
        The share of events; without drift. Drifts go by turns to releases and events, and to
        releases only when this is 0.
    art_share
        The share of entities with art among those in MusicBrainz.
    orphan_share
        The share of gids that are merged, deleted or unknown to MusicBrainz.
    dark_share
        The share of entities with art whose item is dark, as MusicBrainz knows.
    untidy_share
        The share of clean items whose files differ in form but not in meaning, so that an audit
        must download them to know.
    recent_share
        The share of entities added to MusicBrainz within the last day.
    """

    seed: int = 1
    size: int = 2_000
    drift_rate: float = 0.12
    drifts: Sequence[str] = tuple(drift.name for drift in DRIFTS)
    event_share: float = 0.04
    art_share: float = 0.66
    orphan_share: float = 0.03
    dark_share: float = 0.005
    untidy_share: float = 0.02
    recent_share: float = 0.01


class _Shape(NamedTuple):
    """The sort of entity that a number stands for."""

    entity_type: EntityType
    presence: Presence
    has_art: bool
    drift: Drift | None = None
    variant: int = 0


class World:
    """One world. See the module's docstring.

    Raises
    ------
    ValueError
        The parameters contradict each other or name an unknown drift.
    """

    def __init__(self, spec: Spec) -> None:
        known = {drift.name: drift for drift in (*DRIFTS, *PASSING)}
        unknown = sorted(set(spec.drifts) - known.keys())
        if unknown:
            raise ValueError(f"unknown drift {', '.join(unknown)}; known: {', '.join(known)}")
        self.spec = spec
        self._drifts = tuple(drift for name, drift in known.items() if name in spec.drifts)
        self._drifted = round(spec.size * spec.drift_rate) if self._drifts else 0
        # Owners come before the entities that borrow from them, so that each borrower has one.
        self._places = {drift.name: place for place, drift in enumerate(self._drifts)}
        for drift in self._drifts:
            if drift.owner not in {None, HEALTHY, *self._places}:
                raise ValueError(f"{drift.name} borrows from {drift.owner}: plant that as well")
        self._salt = _mix(spec.seed & _MASK)
        # An affine permutation distributes the numbers; the first ranks are those with drift.
        self._stride = _coprime(spec.size, self._salt >> 20)
        self._unstride = pow(self._stride, -1, spec.size)
        self._scramble = (self._salt | 1) & _NODE_MASK
        self._unscramble = pow(self._scramble, -1, _NODE_MASK + 1)
        self._orphans = _threshold(spec.orphan_share)
        self._events = _threshold(spec.event_share)
        self._with_art = _threshold(spec.art_share)
        self._dark = _threshold(spec.dark_share)
        self._recent = _threshold(spec.recent_share)
        self._untidy = _threshold(spec.untidy_share)

    # Entities.

    def gid(self, number: int) -> str:
        """Return the gid of an entity: a UUID whose last part contains the number."""
        h = _mix(number ^ self._salt)
        node = (number * self._scramble + self._salt) & _NODE_MASK
        return (
            f"{h >> 32:08x}-{h >> 16 & 0xFFFF:04x}-4{h >> 4 & 0xFFF:03x}"
            f"-{'89ab'[h & 3]}{h >> 2 & 0xFFF:03x}-{node:012x}"
        )

    def number(self, gid: str) -> int | None:
        """Return the number of a gid, or None if it is not of this world."""
        try:
            number = (int(gid[-12:], 16) - self._salt) * self._unscramble & _NODE_MASK
        except ValueError:
            return None
        return number if number < self.spec.size and self.gid(number) == gid else None

    def entity(self, number: int) -> Entity:
        """Return the entity of a number from 0 to size - 1."""
        return self._entity(number, self._shape(number))

    def is_recent(self, number: int) -> bool:
        """Return whether an entity was added to MusicBrainz within the last day."""
        return _mix(number ^ self._salt ^ 4 << 50) & _FIELD < self._recent

    def merged_into(self, entity: Entity) -> Entity | None:
        """Return the target of a merged entity; None for others."""
        if entity.presence is not Presence.MERGED:
            return None
        number = self._heir(entity.number, self._shape(entity.number))
        assert number is not None
        return self.entity(number)

    def listing(self, entity: Entity) -> list[Listed]:
        """Return the entity's rows of index_listing, in order."""
        types = ARCHIVES[entity.entity_type].type_names
        has_back = entity.entity_type is EntityType.RELEASE
        fronts = [artwork.id for artwork in entity.artwork if 1 in artwork.type_ids]
        backs = [artwork.id for artwork in entity.artwork if 2 in artwork.type_ids]
        return [
            Listed(
                id=artwork.id,
                suffix=artwork.suffix,
                types=tuple([types[type_id - 1] for type_id in artwork.type_ids]),
                front=artwork.id in fronts[:1],
                back=artwork.id in backs[:1] if has_back else None,
                comment=artwork.comment,
                approved=entity.approved,
                edit=entity.edit_id,
            )
            for artwork in entity.artwork
        ]

    # Answers of the services.

    def xml(self, entity_type: EntityType, gid: str) -> tuple[str, bytes] | None:
        """Return the web service's answer: the gid of the answering entity, and its XML.

        The gid differs from the requested one if that was merged. None if there is no such entity.
        """
        number = self.number(gid)
        if number is None:
            return None
        entity = self.entity(number)
        if entity.presence is Presence.MERGED:
            target = self.merged_into(entity)
            assert target is not None
            entity = target
        if entity.presence is not Presence.LIVE or entity.entity_type is not entity_type:
            return None
        images = len(entity.artwork)
        return entity.gid, entity_xml(entity_type, entity.gid, self.facts(entity.number), images)

    def item(self, gid: str) -> Item | None:
        """Return the item that archive.org holds, or None."""
        number = self.number(gid)
        if number is None:
            return None
        shape = self._shape(number)
        entity = self._entity(number, shape)
        draft = self._draft(entity, shape)
        if shape.drift is not None:
            shape.drift.plant(draft)
        return draft.item()

    def collected(self, entity_type: EntityType, start: int, count: int) -> tuple[list[str], int]:
        """Return some gids whose items are found in a collection, and the next number.

        The search starts at the entity with the number `start` and ends with `count` gids, or at
        the end of the world.
        """
        found: list[str] = []
        number = start
        while number < self.spec.size and len(found) < count:
            shape = self._shape(number)
            if shape.entity_type is entity_type and self._is_collected(number, shape):
                found.append(self.gid(number))
            number += 1
        return found, number

    # Expected results of audits.

    def plan(self, number: int) -> Plan:
        """Return what an audit of an entity should find and decide."""
        shape = self._shape(number)
        entity_type, drift = shape.entity_type, shape.drift
        if drift is None:
            status: Status = "clean" if shape.presence is Presence.LIVE else "legacy"
            return Plan(entity_type, self.gid(number), None, frozenset(), status, status)
        checks = drift.expected_checks(entity_type)
        return Plan(entity_type, self.gid(number), drift.name, checks, drift.status, drift.repaired)

    def plans(self) -> Iterator[Plan]:
        """Yield the plan of every gid, in the order of numbers."""
        return map(self.plan, range(self.spec.size))

    def drifted(self) -> Iterator[Plan]:
        """Yield the plan of every gid with drift; fast also in large worlds."""
        return (self.plan(self._at_rank(rank)) for rank in range(self._drifted))

    # Everything follows from a number.

    def _shape(self, number: int) -> _Shape:
        rank = number * self._stride % self.spec.size
        if rank < self._drifted:
            return self._drifted_shape(rank)
        h = _mix(number + self._salt)
        entity_type = EntityType.EVENT if h & _FIELD < self._events else EntityType.RELEASE
        if h >> 20 & _FIELD < self._orphans:
            presence = _GONE[(h >> 40) % len(_GONE)]
            shape = _Shape(entity_type, presence, has_art=False)
            if presence is Presence.MERGED and self._heir(number, shape) is None:
                return _Shape(entity_type, Presence.DELETED, has_art=False)
            return shape
        return _Shape(entity_type, Presence.LIVE, has_art=h >> 40 & _FIELD < self._with_art)

    def _drifted_shape(self, rank: int) -> _Shape:
        turn, place = divmod(rank, len(self._drifts))
        drift = self._drifts[place]
        both = len(drift.types) > 1 and self._events > 0
        entity_type = EntityType.EVENT if both and turn % 2 else EntityType.RELEASE
        variant = turn // 2 if both else turn
        orphan = drift.subject is Subject.ORPHAN
        presence = _GONE[(turn + place) % len(_GONE)] if orphan else Presence.LIVE
        return _Shape(entity_type, presence, drift.subject is Subject.ART, drift, variant)

    def _entity(self, number: int, shape: _Shape) -> Entity:
        h = self._chance(number)
        return Entity(
            number=number,
            gid=self.gid(number),
            entity_type=shape.entity_type,
            presence=shape.presence,
            title=f"{_ADJECTIVES[h & 15]} {_NOUNS[h >> 4 & 15]} {number}",
            artwork=self._artwork(number, shape, h >> 8) if shape.has_art else (),
            approved=h >> 32 & 31 != 0 or shape.drift is not None,
            dark=self._is_dark(shape, h),
        )

    def _chance(self, number: int) -> int:
        """Return the random bits that decide about the details of an entity."""
        return _mix(number ^ self._salt ^ 1 << 50)

    def _is_dark(self, shape: _Shape, h: int) -> bool:
        healthy = shape.drift is None and shape.has_art
        return healthy and (h >> 40 & _FIELD) < self._dark

    def _artwork(self, number: int, shape: _Shape, h: int) -> tuple[Artwork, ...]:
        count = _COUNTS[h & 15]
        if shape.drift is not None:
            count = max(count, shape.drift.images)
        first_id = FIRST_ARTWORK_ID + number * ARTWORK_IDS_PER_ENTITY
        artwork = []
        for place in range(count):
            mime_type, suffix = _MIME_TYPES[h >> (4 + place) & 15]
            types = _TYPES[h >> place & 7] if place else _FIRST_TYPES[h >> 12 & 3]
            comment = _COMMENTS[(h >> 14) + place & 7]
            artwork.append(Artwork(first_id + place, mime_type, suffix, types, comment))
        return tuple(artwork)

    def facts(self, number: int) -> Facts:
        """Return what the web service says about an entity."""
        shape = self._shape(number)
        return self._facts(self._entity(number, shape), shape)

    def _facts(self, entity: Entity, shape: _Shape) -> Facts:
        number = entity.number
        h = _mix(number ^ self._salt ^ 2 << 50)
        # An entity with drift has every field, so that each may have drifted.
        full = shape.drift is not None
        return Facts(
            title=entity.title,
            artists=tuple([_artist(_mix(h + place)) for place in range(1 + (h & 7 == 0))]),
            date=_date(h, full),
            place=f"Saal {h % 97}",
            country=_COUNTRIES[h >> 8 & 7],
            language=LANGUAGES[h >> 12 & 7] if full or h & 32 else None,
            barcode=f"{4_000_000_000_000 + number}" if full or h & 64 else None,
            asin=f"B{number:09}" if full or h & 128 else None,
            packaging="None",
        )

    def _draft(self, entity: Entity, shape: _Shape) -> Draft:
        facts = self._facts(entity, shape)
        draft = Draft(entity, shape.variant, facts, self._foreign(entity.number, shape))
        draft.metadata = {
            "collection": ARCHIVES[entity.entity_type].collection,
            "mediatype": "image",
            "noindex": "true",
            "uploader": "caa@musicbrainz.org",
            **extracted(entity.entity_type, entity.gid, facts),
        }
        if entity.artwork:
            draft.index = index_document(entity.entity_type, entity.gid, self.listing(entity))
            draft.xml = facts
            draft.images = {(a.id, a.suffix): THUMBNAIL_SIZES for a in entity.artwork}
            draft.dark = entity.dark
        if shape.drift is None:
            self._vary(draft)
        return draft

    def _vary(self, draft: Draft) -> None:
        """Vary a healthy item."""
        number = draft.entity.number
        if draft.entity.artwork:
            h = self._fate(number)
            if h & _FIELD < self._untidy:
                UNTIDY[(h >> 20) % len(UNTIDY)](draft)
        elif draft.entity.presence is Presence.LIVE:
            draft.absent = self._never_had_art(number)
            if self._fate(number) & 8:
                empty_item(draft)
        else:
            draft.xml = draft.facts
            draft.absent = self._left_nothing(number)
            draft.dark = self._left_darkness(number)

    def _fate(self, number: int) -> int:
        return _mix(number ^ self._salt ^ 3 << 50)

    def _never_had_art(self, number: int) -> bool:
        return self._fate(number) & 7 != 0

    def _left_nothing(self, number: int) -> bool:
        return self._fate(number) & 3 > 1

    def _left_darkness(self, number: int) -> bool:
        return self._fate(number) & 3 == 1

    def _is_collected(self, number: int, shape: _Shape) -> bool:
        """Return whether a search of the collection finds the item."""
        if shape.drift is not None:
            item = self.item(self.gid(number))
            collection = ARCHIVES[shape.entity_type].collection
            return (
                item is not None
                and not item.dark
                and collection in item.metadata.get("collection", ())
            )
        if shape.has_art:
            return not self._is_dark(shape, self._chance(number))
        if shape.presence is Presence.LIVE:
            return not self._never_had_art(number)
        return not self._left_nothing(number) and not self._left_darkness(number)

    def _foreign(self, number: int, shape: _Shape) -> tuple[int, str]:
        """Return an artwork that is not this entity's."""
        if shape.drift is None or shape.drift.owner is None:
            return UNKNOWN_ARTWORK_ID + number, "jpg"
        owner = self._owner(number, shape)
        artwork = self.entity(owner).artwork[0]
        return artwork.id, artwork.suffix

    def _heir(self, number: int, shape: _Shape) -> int | None:
        """Return the target of a merged entity: the owner of its image, or a neighbour."""
        if shape.drift is not None and shape.drift.owner is not None:
            return self._owner(number, shape)
        return self._neighbour(number, shape.entity_type, with_original=False)

    def _owner(self, number: int, shape: _Shape) -> int:
        assert shape.drift is not None
        assert shape.drift.owner is not None
        if shape.drift.owner != HEALTHY:
            # All drifts of one turn have the same entity type.
            rank = number * self._stride % self.spec.size
            place = self._places[shape.drift.owner]
            return self._at_rank(rank - rank % len(self._drifts) + place)
        owner = self._neighbour(number, shape.entity_type, with_original=True)
        if owner is None:
            raise ValueError(
                f"no {shape.entity_type} has art that {shape.drift.name} could borrow: "
                "make the world larger or the drift rate smaller"
            )
        return owner

    def _neighbour(self, number: int, entity_type: EntityType, with_original: bool) -> int | None:
        """Return the next entity in MusicBrainz, or the next whose item has its first original."""
        for step in range(1, min(self.spec.size, _SEARCH)):
            other = (number + step) % self.spec.size
            if self._is_live(other, entity_type, with_original):
                return other
        return None

    def _is_live(self, number: int, entity_type: EntityType, with_original: bool) -> bool:
        if self._is_healthy_orphan(number):
            # Determining its shape would search for its target in turn.
            return False
        shape = self._shape(number)
        if shape.entity_type is not entity_type or shape.presence is not Presence.LIVE:
            return False
        if not with_original:
            return True
        keeps = shape.drift is None or shape.drift.keeps_originals
        return shape.has_art and keeps and not self._entity(number, shape).dark

    def _is_healthy_orphan(self, number: int) -> bool:
        healthy = number * self._stride % self.spec.size >= self._drifted
        return healthy and _mix(number + self._salt) >> 20 & _FIELD < self._orphans

    def _at_rank(self, rank: int) -> int:
        return rank * self._unstride % self.spec.size


def _date(h: int, full: bool) -> str | None:
    if not full and not h & 16:
        return None
    year, month, day = f"{1950 + h % 70}", f"0{1 + h % 9}", f"1{h % 10}"
    if not full and h >> 20 & 15 == 0:
        # MusicBrainz may know any part of a date.
        return (f"????-{month}-{day}", f"{year}-??-{day}")[h >> 24 & 1]
    return f"{year}-{month}-{day}"


def _artist(h: int) -> Artist:
    first, last = _FIRST_NAMES[h & 7], _LAST_NAMES[h >> 3 & 7]
    name = f"{first} {last} {h >> 6 & 0xFFF}"
    gid = f"{h >> 32:08x}-0000-4000-8000-{h & 0xFFFFFFFFFFFF:012x}"
    credited = first if h & 64 else name
    return Artist(gid, name, f"{last}, {first} {h >> 6 & 0xFFF}", credited)


def _mix(value: int) -> int:
    """Spread an integer over 64 bits (the finaliser of SplitMix64)."""
    value = value * 0x9E3779B97F4A7C15 & _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def _threshold(share: float) -> int:
    """Return the threshold for a share of the values of a field."""
    return round(share * (_FIELD + 1))


def _coprime(size: int, start: int) -> int:
    """Return a number close to `start` that shares no factor with `size`."""
    stride = start % size or 1
    while gcd(stride, size) != 1:
        stride += 1
    return stride
