"""Reading a web service answer about one entity, and comparing two of them by structure.

The expected and the archived file have one form: `metadata/release` or `metadata/event` in the
namespace of MusicBrainz's web service, version 2. Here it becomes texts by path, in which neither
attribute order nor namespace prefixes nor white space between elements are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.finding import Finding, found
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

NAMESPACE: Final = "{http://musicbrainz.org/ns/mmd-2.0#}"

MAX_DEPTH: Final = 64
"""Deepest nesting of elements that is read; the web service's answers stay below 20."""


class UnreadableXml(ValueError):
    """XML that is no web service answer about the entity in question; the message says why."""


_NAME_CREDIT: Final = "release/artist-credit/name-credit"
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
    declare entities that grow without bounds), is nested deeper than `MAX_DEPTH`, or is not about
    this entity (MusicBrainz answers with the target for a gid that has been merged).
    """
    try:
        root: Element = fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        raise UnreadableXml("declares a document type") from error
    except (ParseError, ValueError, LookupError) as error:  # the latter two for odd encodings
        raise UnreadableXml(f"not well-formed: {error}") from error
    entity = root.find(NAMESPACE + entity_type) if root.tag == f"{NAMESPACE}metadata" else None
    if entity is None:
        raise UnreadableXml(f"no {entity_type} element")
    if entity.get("id") != gid:
        raise UnreadableXml(f"about another {entity_type}: {entity.get('id')}")
    texts: dict[str, list[str]] = {}
    for path, text in _walk(root):
        texts.setdefault(path, []).append(text)
    if credited_names := _credited_names(entity):
        texts[CREDITED_NAME] = credited_names
    return EntityXml(entity_type, {path: tuple(values) for path, values in texts.items()})


def _walk(root: Element) -> Iterator[tuple[str, str]]:
    """Path and text of every leaf, text and attribute, in document order."""
    waiting = [(root, "", 0)]
    while waiting:
        element, path, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise UnreadableXml("nested too deeply")
        prefix = f"{path}/" if path else ""
        for name, value in element.items():
            yield f"{prefix}@{name.removeprefix(NAMESPACE)}", value
        text = (element.text or "").strip()
        if text or not len(element):
            yield path, text
        waiting.extend(
            (child, prefix + child.tag.removeprefix(NAMESPACE), depth + 1)
            for child in reversed(element)
        )


def _credited_names(entity: Element) -> list[str]:
    """The names as credited; a name-credit without one stands for the artist's own name."""
    own = f"{NAMESPACE}artist/{NAMESPACE}name"
    return [
        (credit.findtext(f"{NAMESPACE}name") or credit.findtext(own) or "").strip()
        for credit in entity.iterfind(f"{NAMESPACE}artist-credit/{NAMESPACE}name-credit")
    ]


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
