"""Comparison of the content of an index.json with what artwork-indexer would write now.

It is needed only if the file's MD5 is not the expected one: old indexers wrote the same listing in
many forms, so different bytes alone are no difference. `compare` checks whether there is a file.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from artwork_backfill.shared.audit.archives import entity_url
from artwork_backfill.shared.audit.catalogue import Severity
from artwork_backfill.shared.audit.expected import Artwork, Expected, image_document
from artwork_backfill.shared.audit.finding import Finding, found

JsonObject = Mapping[str, object]

MAX_IMAGES: Final = 10_000
MAX_OBJECTS: Final = 5 * MAX_IMAGES
MAX_KEYS: Final = 1_000
"""More than any listing has; comparing and describing each odd key takes time."""


class MalformedIndex(ValueError):
    """The content is not a JSON object in UTF-8; the message says why."""


@dataclass(frozen=True, slots=True)
class ParsedIndex:
    """An index.json as an object, and the keys that some object in it has more than once.

    The last value of a repeated key counts, as in most JSON parsers.
    """

    document: JsonObject
    repeated_keys: tuple[str, ...]

    @property
    def lists_nothing(self) -> bool:
        """Whether there is a list of images and it is empty."""
        return self.document.get("images") == []


def parse_index(content: bytes) -> ParsedIndex:
    """Parse an index.json; raise `MalformedIndex` if it is malformed."""
    repeated: list[str] = []
    objects = 0

    def build_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal objects
        objects += 1
        if objects > MAX_OBJECTS or len(pairs) > MAX_KEYS:
            raise MalformedIndex("more objects or keys than any listing has")
        built = dict(pairs)
        if len(built) < len(pairs):
            repeated.extend(key for key, times in Counter(k for k, _ in pairs).items() if times > 1)
        return built

    try:
        document = json.loads(
            content.decode(), object_pairs_hook=build_object, parse_constant=_refuse_constant
        )
    except MalformedIndex:
        raise
    except UnicodeDecodeError as error:
        raise MalformedIndex("not UTF-8") from error
    except RecursionError as error:
        raise MalformedIndex("nested too deeply") from error
    except ValueError as error:  # also for integers of more digits than Python reads
        raise MalformedIndex(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise MalformedIndex("not an object")
    images = document.get("images")
    if isinstance(images, list) and len(images) > MAX_IMAGES:
        raise MalformedIndex(f"lists {len(images):,} images")
    return ParsedIndex(document, tuple(dict.fromkeys(repeated)))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def compare_index(
    expected: Expected, index: ParsedIndex, held_ids: Container[int]
) -> Iterator[Finding]:
    """Yield the findings `index.shape`, `index.entity_url` and `index.image.*`.

    `held_ids` are the artwork ids of the originals in the item: an image that is listed but not
    expected is not a finding of the index while its file exists.
    """
    yield from _shape(expected, index)
    yield from _entity_url(expected, index.document)
    images = index.document.get("images")
    if isinstance(images, list):
        yield from _images(expected, images, held_ids)


def _shape(expected: Expected, index: ParsedIndex) -> Iterator[Finding]:
    wanted = {"images", expected.entity_type.value}
    for key in index.repeated_keys:
        yield found("index.shape", key, expected="once", actual="more than once")
    for key in index.document:
        if key not in wanted:
            yield found("index.shape", key, actual=_text(index.document[key]))
    if expected.entity_type.value not in index.document:
        yield found("index.shape", expected.entity_type.value, expected="a URL")
    images = index.document.get("images")
    if not isinstance(images, list):
        yield found(
            "index.shape",
            "images",
            expected="a list",
            actual=_text(images) if "images" in index.document else None,
            severity=Severity.CRITICAL if expected.artwork else None,
        )
        return
    for position, image in enumerate(images):
        if not isinstance(image, dict):
            yield found(
                "index.shape", f"images[{position}]", expected="an object", actual=_text(image)
            )


def _entity_url(expected: Expected, document: JsonObject) -> Iterator[Finding]:
    key = expected.entity_type.value
    wanted = entity_url(expected.entity_type, expected.gid)
    if key in document and document[key] != wanted:
        yield found(
            "index.entity_url",
            expected=wanted,
            actual=_text(document[key]),
            severity=_url_severity(wanted, document[key]),
        )


def _images(
    expected: Expected, images: list[object], held_ids: Container[int]
) -> Iterator[Finding]:
    listed, repeated, unidentified = _by_artwork_id(images)
    wanted = {artwork.id: artwork for artwork in expected.artwork}
    for artwork_id in wanted:
        if artwork_id not in listed:
            yield found("index.image.missing", str(artwork_id))
    for artwork_id in listed:
        if artwork_id not in wanted and artwork_id not in held_ids:
            yield found("index.image.extra", str(artwork_id), actual=_text(listed[artwork_id]))
    for position in unidentified:
        yield found("index.image.extra", f"images[{position}]", actual=_text(images[position]))
    for artwork_id in repeated:
        yield found("index.image.duplicate", str(artwork_id))
    yield from _order(expected.artwork, [each for each in listed if each in wanted])
    tied = {key: _tied(expected, listed, key) for key in ("front", "back")}
    for artwork in expected.artwork:
        if artwork.id in listed:
            document = image_document(expected, artwork)
            for key, ids in tied.items():
                if key in document and artwork.id in ids:
                    document[key] = listed[artwork.id].get(key, document[key])
            yield from _image(document, listed[artwork.id])


def _tied(expected: Expected, listed: Mapping[int, JsonObject], key: str) -> set[int]:
    """Return the images that may equally be the front (or back), if one of them is listed as such.

    The database takes the first of the Front images by `ordering`, which several may share.
    """
    by_ordering: dict[int, list[Artwork]] = {}
    for artwork in expected.artwork:
        if artwork.ordering is not None and key.capitalize() in artwork.types:
            by_ordering.setdefault(artwork.ordering, []).append(artwork)
    tied: set[int] = set()
    for images in by_ordering.values():
        known = [artwork for artwork in images if artwork.id in listed]
        values = sorted(repr(listed[artwork.id].get(key)) for artwork in known)
        wanted = sorted(repr(bool(getattr(artwork, key))) for artwork in known)
        if any(getattr(artwork, key) for artwork in images) and values == wanted:
            tied |= {artwork.id for artwork in images}
    return tied


def _by_artwork_id(
    images: list[object],
) -> tuple[dict[int, JsonObject], tuple[int, ...], tuple[int, ...]]:
    """Return listed images by artwork id, ids listed twice, and positions of images without id."""
    listed: dict[int, JsonObject] = {}
    repeated: dict[int, None] = {}
    unidentified: list[int] = []
    for position, image in enumerate(images):
        if not isinstance(image, dict):
            continue
        artwork_id = listed_id(image)
        if artwork_id is None:
            unidentified.append(position)
        elif artwork_id in listed:
            repeated[artwork_id] = None
        else:
            listed[artwork_id] = image
    return listed, tuple(repeated), tuple(unidentified)


_ID: Final = re.compile(r"[0-9]{1,19}")
_URL_ID: Final = re.compile(r"/([0-9]{1,19})\.[A-Za-z0-9]+\Z")


def listed_id(image: JsonObject) -> int | None:
    """Return the artwork id of an image, of any type, or else the one in its URL."""
    match image.get("id"):
        case bool():
            pass
        case int(number):
            return number
        case str(text) if _ID.fullmatch(text):
            return int(text)
        case float(number) if number.is_integer():
            return int(number)
    url = image.get("image")
    in_url = _URL_ID.search(url) if isinstance(url, str) else None
    return int(in_url[1]) if in_url else None


def _order(artwork: tuple[Artwork, ...], listed_ids: list[int]) -> Iterator[Finding]:
    rank = {
        each.id: position if each.ordering is None else each.ordering
        for position, each in enumerate(artwork)
    }
    ranks = [rank[artwork_id] for artwork_id in listed_ids]
    if ranks != sorted(ranks):
        in_order = sorted(listed_ids, key=rank.__getitem__)
        yield found("index.image.order", expected=_join(in_order), actual=_join(listed_ids))


def _image(wanted: Mapping[str, object], listed: JsonObject) -> Iterator[Finding]:
    artwork_id = str(wanted["id"])
    for key in wanted:
        if key not in listed:
            yield found(
                "index.image.field_missing", f"{artwork_id} {key}", expected=_text(wanted[key])
            )
    for key in listed:
        if key not in wanted:
            yield found(
                "index.image.field_unexpected", f"{artwork_id} {key}", actual=_text(listed[key])
            )
    for key, value in wanted.items():
        if key not in listed:
            continue
        if key == "thumbnails" and isinstance(value, dict):
            yield from _thumbnails(f"{artwork_id} thumbnails", value, listed[key])
        elif key == "image":
            yield from _image_url(f"{artwork_id} image", value, listed[key])
        else:
            yield from _value(f"{artwork_id} {key}", value, listed[key])


def _thumbnails(subject: str, wanted: Mapping[str, object], listed: object) -> Iterator[Finding]:
    if not isinstance(listed, dict):
        yield found("index.shape", subject, expected="an object", actual=_text(listed))
        return
    if missing := wanted.keys() - listed.keys():
        yield found("index.image.field_missing", subject, expected=_join(sorted(missing)))
    if unexpected := listed.keys() - wanted.keys():
        yield found("index.image.field_unexpected", subject, actual=_join(sorted(unexpected)))
    wrong = [key for key in wanted if key in listed and listed[key] != wanted[key]]
    if wrong:
        yield found(
            "index.image.url",
            subject,
            expected=_join(wanted[key] for key in wrong),
            actual=_join(_text(listed[key]) for key in wrong),
            severity=max(_url_severity(wanted[key], listed[key]) for key in wrong),
        )


def _image_url(subject: str, wanted: object, listed: object) -> Iterator[Finding]:
    if listed != wanted:
        yield found(
            "index.image.url",
            subject,
            expected=_text(wanted),
            actual=_text(listed),
            severity=_url_severity(wanted, listed),
        )


def _value(subject: str, wanted: object, listed: object) -> Iterator[Finding]:
    if type(listed) is type(wanted):
        if not _equal(wanted, listed):
            yield found("index.image.value", subject, expected=_json(wanted), actual=_json(listed))
        return
    check = "index.image.type" if _means(wanted, listed) else "index.image.value"
    yield found(check, subject, expected=_json(wanted), actual=_json(listed))


def _equal(wanted: object, listed: object) -> bool:
    """Return whether two values of one type are equal; types of images have no order."""
    if isinstance(wanted, list) and isinstance(listed, list):
        return all(isinstance(each, str) for each in listed) and set(wanted) == set(listed)
    return wanted == listed


def _means(wanted: object, listed: object) -> bool:
    """Return whether `listed` is the right value in a wrong type."""
    if isinstance(wanted, bool):
        return listed in (int(wanted), str(wanted), str(wanted).lower())
    if isinstance(wanted, int):
        return listed == str(wanted) or (isinstance(listed, float) and listed == wanted)
    if not wanted:
        return listed in (None, "", [])
    return [listed] == wanted or _json(listed) == wanted


def _url_severity(wanted: object, listed: object) -> Severity:
    """Return minor for a URL that would be right with https instead of http, else major."""
    only_scheme = isinstance(listed, str) and re.sub("^http:", "https:", listed) == wanted
    return Severity.MINOR if only_scheme else Severity.MAJOR


def _text(value: object) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply)"


def _join(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
