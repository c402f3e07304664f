"""Reading a web service answer about one entity, and comparing two of them by structure.

The expected and the archived file have one form: `metadata/release` or `metadata/event` in the
namespace of MusicBrainz's web service, version 2. Here it becomes texts by path, in which neither
attribute order nor namespace prefixes nor white space between elements are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.finding import Finding, found

NAMESPACE: Final = "{http://musicbrainz.org/ns/mmd-2.0#}"

MAX_DEPTH: Final = 64
"""Deepest nesting of elements that is read; the web service's answers stay below 20."""

MAX_ELEMENTS: Final = 50_000
MAX_PATHS: Final = 1_000
MAX_PATH_LENGTH: Final = 1_000
"""How many elements are read, how many paths are told apart, and how long one may be in characters.
The web service's answers have some ten elements for each artist and less than a hundred paths. With
these, what is kept of a document is in proportion to its size, and none takes long."""


class UnreadableXml(ValueError):
    """XML that is no web service answer about the entity in question; the message says why."""


_CREDIT: Final = "/artist-credit/name-credit"
_NAME_CREDIT: Final = f"release{_CREDIT}"
CREDITED_NAME: Final = f"{_NAME_CREDIT}/name"
ARTIST_NAME: Final = f"{_NAME_CREDIT}/artist/name"
ARTIST_ID: Final = f"{_NAME_CREDIT}/artist/@id"
TITLE: Final = "release/title"
DATE: Final = "release/date"
LANGUAGE: Final = "release/text-representation/language"
BARCODE: Final = "release/barcode"
ASIN: Final = "release/asin"

# What makes artwork-indexer refresh the file; anything else goes stale normally and harmlessly.
_FIELDS: Final[Mapping[EntityType, tuple[str, ...]]] = {
    EntityType.RELEASE: (
        TITLE,
        CREDITED_NAME,
        ARTIST_NAME,
        f"{_NAME_CREDIT}/artist/sort-name",
        ARTIST_ID,
        DATE,
        LANGUAGE,
        BARCODE,
        ASIN,
    ),
    EntityType.EVENT: ("event/name",),
}


@dataclass(frozen=True, slots=True)
class EntityXml:
    """The texts of an entity's XML by path, in the order of the document.

    A path starts below the root element and ends with an element that has a text or is empty
    (`release/title`) or with an attribute (`release/artist-credit/name-credit/artist/@id`).
    Elements of other namespaces keep theirs in braces.
    """

    entity_type: EntityType
    texts: Mapping[str, tuple[str, ...]]

    def texts_at(self, path: str) -> tuple[str, ...]:
        """Every text at `path`; empty when there is none."""
        return self.texts.get(path, ())


def parse_entity_xml(content: bytes, entity_type: EntityType, gid: str) -> EntityXml:
    """Read a web service answer about the entity `gid` (lower case).

    Raises `UnreadableXml` for what is not well-formed, declares a document type (and so could
    declare entities that grow without bounds), is nested deeper or has more elements than any
    answer, or is not about this entity (MusicBrainz answers with the target for a gid that has been
    merged).
    """
    texts = _Texts(entity_type)
    parser = DefusedXMLParser(target=texts, forbid_dtd=True)
    try:
        parser.feed(content)
        parser.close()
    except DefusedXmlException as error:
        raise UnreadableXml("declares a document type") from error
    except UnreadableXml:
        raise
    except (ParseError, ValueError, LookupError) as error:  # the latter two for odd encodings
        raise UnreadableXml(f"not well-formed: {error}") from error
    if texts.entity_id is _NO_ENTITY:
        raise UnreadableXml(f"no {entity_type} element")
    if texts.entity_id != gid:
        raise UnreadableXml(f"about another {entity_type}: {texts.entity_id}")
    found = {path: tuple(values) for path, values in texts.by_path.items()}
    if texts.credited_names:
        found[CREDITED_NAME] = tuple(texts.credited_names)
    return EntityXml(entity_type, found)


_NO_ENTITY: Final = object()


class _Texts:
    """What the parser tells of a document, kept as texts by path; a tree is never built.

    `by_path` has the path and text of every leaf, text and attribute, in document order.
    `entity_id` is that of the first element of the entity's type below the root. `credited_names`
    has the names as credited there; a name-credit without one stands for the artist's own name.
    """

    def __init__(self, entity_type: EntityType) -> None:
        self.by_path: dict[str, list[str]] = {}
        self.entity_id: object = _NO_ENTITY
        self.credited_names: list[str] = []
        self._entity_type = entity_type
        self._open: list[_Element] = []
        self._elements = 0
        self._credit: dict[str, str] | None = None

    # The parser calls these four by their names.

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        name, path, in_entity = tag.removeprefix(NAMESPACE), "", False
        if self._open:
            parent = self._open[-1]
            self._end_text(parent, has_child=True)
            path = f"{parent.path}/{name}" if parent.path else name
            in_entity = parent.in_entity
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise UnreadableXml("more elements than any answer has")
        if len(self._open) > MAX_DEPTH or len(path) > MAX_PATH_LENGTH:
            raise UnreadableXml("nested too deeply")
        is_child_of_root = len(self._open) == 1 and self._open[0].tag == f"{NAMESPACE}metadata"
        is_entity = is_child_of_root and tag == f"{NAMESPACE}{self._entity_type}"
        if self.entity_id is _NO_ENTITY and is_entity:
            self.entity_id = attributes.get("id")
            in_entity = True
        for key, value in attributes.items():
            attribute = f"@{key.removeprefix(NAMESPACE)}"
            self._keep(f"{path}/{attribute}" if path else attribute, value)
        self._open.append(_Element(tag, path, in_entity))
        if in_entity and path == f"{self._entity_type}{_CREDIT}":
            self._credit = {}

    def data(self, text: str) -> None:
        """Some characters of the innermost open element."""
        if self._open and self._open[-1].text is not None:
            self._open[-1].text.append(text)

    def end(self, _tag: str) -> None:
        """An element ends."""
        element = self._open.pop()
        self._end_text(element, has_child=False)
        if element.in_entity and element.path == f"{self._entity_type}{_CREDIT}":
            credit = self._credit or {}
            self._credit = None
            self.credited_names.append(credit.get("/name") or credit.get("/artist/name") or "")

    def close(self) -> None:
        """The document ends."""

    def _end_text(self, element: _Element, *, has_child: bool) -> None:
        """Keep the text of an element, which ends where its first child begins."""
        if element.text is None:
            return
        text = "".join(element.text).strip()
        element.text = None
        if text or not has_child:
            self._keep(element.path, text)
        if self._credit is not None:
            below = element.path.removeprefix(f"{self._entity_type}{_CREDIT}")
            self._credit.setdefault(below, text)

    def _keep(self, path: str, text: str) -> None:
        values = self.by_path.get(path)
        if values is None:
            if len(self.by_path) == MAX_PATHS or len(path) > MAX_PATH_LENGTH:
                raise UnreadableXml("more kinds of elements than any answer has")
            values = self.by_path[path] = []
        values.append(text)


class _Element:
    """An open element; its text is None once that has ended."""

    __slots__ = ("in_entity", "path", "tag", "text")

    def __init__(self, tag: str, path: str, in_entity: bool) -> None:
        self.tag = tag
        self.path = path
        self.in_entity = in_entity
        self.text: list[str] | None = []


def compare_xml(expected: EntityXml, actual: EntityXml) -> Iterator[Finding]:
    """The findings `xml.field` and `xml.other`, one for each path that differs.

    The order of the values matters in the elements that archive.org shows (it is that of the artist
    credit) and nowhere else.
    """
    fields = _FIELDS[expected.entity_type]
    for path in fields:
        if expected.texts_at(path) != actual.texts_at(path):
            yield _difference("xml.field", path, expected, actual)
    for path in dict.fromkeys((*expected.texts, *actual.texts)):
        if path not in fields and sorted(expected.texts_at(path)) != sorted(actual.texts_at(path)):
            yield _difference("xml.other", path, expected, actual)


def _difference(check: str, path: str, expected: EntityXml, actual: EntityXml) -> Finding:
    return found(
        check, path, expected=_shown(expected.texts_at(path)), actual=_shown(actual.texts_at(path))
    )


def _shown(texts: tuple[str, ...]) -> str | None:
    return "; ".join(texts) if texts else None
