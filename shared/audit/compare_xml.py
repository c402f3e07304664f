"""Comparison of mb_metadata.xml, and of what archive.org extracts from it, with what is expected.

The expected and the archived file have one form: `metadata/release` or `metadata/event` in the
namespace of MusicBrainz's web service, version 2. Parsed, they are texts by path, without attribute
order, namespace prefixes, and white space between elements.

Every listing contains the fields that archive.org extracted from a release's file. They are
compared with the web service's XML (`compare_metadata`) or, to save that request, with
MusicBrainz's own tables (`agrees`). The latter cannot see what archive.org does not show: credited
names, the order of artists, a partial date (`????-05-12`), a file that was damaged after its fields
were extracted, and every element that becomes outdated without harm.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from artwork_backfill.shared.audit.actual import ItemMetadata
from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.expected import PartialDate, ReleaseFacts
from artwork_backfill.shared.audit.finding import Finding, found

NAMESPACE: Final = "{http://musicbrainz.org/ns/mmd-2.0#}"

MAX_DEPTH: Final = 64
"""The maximum nesting of elements; the web service's answers stay below 20."""

MAX_ELEMENTS: Final = 50_000
MAX_PATHS: Final = 1_000
MAX_PATH_LENGTH: Final = 1_000
"""The maximum number of elements and of distinct paths, and the maximum length of a path.
The web service's answers have about ten elements for each artist and less than a hundred paths.
These limits keep the memory in proportion to a document's size, and bound the time."""


class UnreadableXml(ValueError):
    """The XML is not a web service answer about the entity; the message says why."""


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

# Elements for which artwork-indexer refreshes the file; others become outdated without harm.
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
        """Return every text at `path`; none if it does not exist."""
        return self.texts.get(path, ())


def parse_entity_xml(content: bytes, entity_type: EntityType, gid: str) -> EntityXml:
    """Parse a web service answer about the entity `gid` (lower case).

    Raises
    ------
    UnreadableXml
        The document is not well-formed, declares a document type (and so could declare entities
        that grow without bounds), is nested deeper or has more elements than any answer, or is not
        about this entity. (For a merged gid, MusicBrainz answers with the target.)
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
    """The target of the parser: texts by path, without building a tree.

    `by_path` has the path and text of every leaf, text and attribute, in document order.
    `entity_id` is that of the first element of the entity's type below the root. `credited_names`
    are the names as credited there; a name-credit without a name means the artist's own name.
    """

    def __init__(self, entity_type: EntityType) -> None:
        self.by_path: dict[str, list[str]] = {}
        self.entity_id: object = _NO_ENTITY
        self.credited_names: list[str] = []
        self._root_tag = f"{NAMESPACE}metadata"
        self._entity_tag = f"{NAMESPACE}{entity_type}"
        self._credit_path = f"{entity_type}{_CREDIT}"
        self._open: list[_Element] = []
        self._elements = 0
        self._credit: dict[str, str] | None = None

    # The parser calls these four methods by name.

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Handle the start of an element."""
        path, in_entity, depth = "", False, len(self._open)
        if depth:
            parent = self._open[-1]
            if parent.text is not None:
                self._end_text(parent, has_child=True)
            name = tag.removeprefix(NAMESPACE)
            path = f"{parent.path}/{name}" if parent.path else name
            in_entity = parent.in_entity
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise UnreadableXml("more elements than any answer has")
        if depth > MAX_DEPTH or len(path) > MAX_PATH_LENGTH:
            raise UnreadableXml("nested too deeply")
        is_in_root = depth == 1 and self._open[0].tag == self._root_tag
        if is_in_root and tag == self._entity_tag and self.entity_id is _NO_ENTITY:
            self.entity_id = attributes.get("id")
            in_entity = True
        for key, value in attributes.items():
            attribute = f"@{key.removeprefix(NAMESPACE)}"
            self._keep(f"{path}/{attribute}" if path else attribute, value)
        self._open.append(_Element(tag, path, in_entity))
        if in_entity and path == self._credit_path:
            self._credit = {}

    def data(self, text: str) -> None:
        """Handle characters of the innermost open element."""
        if self._open and self._open[-1].text is not None:
            self._open[-1].text.append(text)

    def end(self, _tag: str) -> None:
        """Handle the end of an element."""
        element = self._open.pop()
        if element.text is not None:
            self._end_text(element, has_child=False)
        if element.in_entity and element.path == self._credit_path:
            credit = self._credit or {}
            self._credit = None
            self.credited_names.append(credit.get("/name") or credit.get("/artist/name") or "")

    def close(self) -> None:
        """Handle the end of the document."""

    def _end_text(self, element: _Element, *, has_child: bool) -> None:
        """Store the text of an element, which ends at its first child."""
        text = "".join(element.text or ()).strip()
        element.text = None
        if text or not has_child:
            self._keep(element.path, text)
        if self._credit is not None:
            self._credit.setdefault(element.path.removeprefix(self._credit_path), text)

    def _keep(self, path: str, text: str) -> None:
        values = self.by_path.get(path)
        if values is None:
            if len(self.by_path) == MAX_PATHS or len(path) > MAX_PATH_LENGTH:
                raise UnreadableXml("more kinds of elements than any answer has")
            values = self.by_path[path] = []
        values.append(text)


class _Element:
    """An open element; its text is None after its first child."""

    __slots__ = ("in_entity", "path", "tag", "text")

    def __init__(self, tag: str, path: str, in_entity: bool) -> None:
        self.tag = tag
        self.path = path
        self.in_entity = in_entity
        self.text: list[str] | None = []


def compare_xml(expected: EntityXml, actual: EntityXml) -> Iterator[Finding]:
    """Yield the findings `xml.field` and `xml.other`, one for each path that differs.

    The order of values matters only in the elements that archive.org shows, where it is that of the
    artist credit.
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
        check,
        path,
        expected=_in_order(expected.texts_at(path)),
        actual=_in_order(actual.texts_at(path)),
    )


def _in_order(texts: tuple[str, ...]) -> str | None:
    return "; ".join(texts) if texts else None


_KINDS: Final = ("mb_release_id", "mb_artist_id", "upc", "asin")


def compare_metadata(gid: str, wanted: EntityXml, metadata: ItemMetadata) -> Iterator[Finding]:
    """Yield the findings `meta.*` of the release `gid`.

    archive.org may return a list for a single value, and lists in any order.
    """
    for check, path, actual in (
        ("meta.title", TITLE, _one(metadata.title)),
        ("meta.creator", ARTIST_NAME, metadata.creators),
        ("meta.date", DATE, _one(metadata.date)),
        ("meta.language", LANGUAGE, _one(metadata.language)),
    ):
        if path == DATE and not is_date_comparable(wanted):
            continue
        expected = _normalised(wanted.texts_at(path))
        if expected != _normalised(actual):
            yield found(check, expected=_joined(expected), actual=_joined(actual))
    yield from _external_identifiers(gid, wanted, metadata.external_identifiers)


def is_date_comparable(wanted: EntityXml) -> bool:
    """Return whether the date can be compared; archive.org extracts another from a partial one."""
    return not any("?" in date for date in wanted.texts_at(DATE))


def _external_identifiers(
    gid: str, wanted: EntityXml, actual: tuple[str, ...]
) -> Iterator[Finding]:
    for kind, values in zip(
        _KINDS,
        (
            (gid,),
            wanted.texts_at(ARTIST_ID),
            wanted.texts_at(BARCODE),
            wanted.texts_at(ASIN),
        ),
        strict=True,
    ):
        prefix = f"urn:{kind}:"
        expected = {prefix + value for value in _normalised(values)}
        present = _normalised(urn for urn in actual if urn.startswith(prefix))
        if expected != present:
            yield found(
                "meta.external_identifier",
                f"urn:{kind}",
                expected=_joined(expected),
                actual=_joined(present),
            )


def agrees(facts: ReleaseFacts, gid: str, metadata: ItemMetadata) -> bool:
    """Return whether every field that archive.org shows of a release agrees with the tables.

    Also False if this is unknown, for example which of several partial dates is the earliest: the
    web service then has to be asked.
    """
    known = [date for date in facts.dates if date != PartialDate(None)]
    return (
        _is_joined(known, metadata.date)
        and _normalised([facts.title]) == _normalised(_one(metadata.title))
        and _normalised(credit.name for credit in facts.credits) == _normalised(metadata.creators)
        and _normalised(credit.sort_name for credit in facts.credits)
        == _normalised(metadata.creators_alt_script)
        and _normalised(_one(facts.language)) == _normalised(_one(metadata.language))
        and _identifiers(facts, gid) == _shown_identifiers(metadata.external_identifiers)
    )


def _is_joined(known: Sequence[PartialDate], shown: str | None) -> bool:
    """Return whether the date shown is the earliest known one; False if that is uncertain."""
    if len(known) == 1 and not known[0].is_comparable:
        return True  # archive.org extracts something else from it
    if not all(date.is_comparable for date in known):
        return False
    texts = sorted({str(date) for date in known})
    # 1999 may be before or after 1999-05; only the web service knows which of the two it shows.
    if any(text.startswith(texts[0]) for text in texts[1:]):
        return False
    return _normalised(texts[:1]) == _normalised(_one(shown))


def _identifiers(facts: ReleaseFacts, gid: str) -> set[str]:
    values = (
        (gid,),
        (credit.gid for credit in facts.credits),
        _one(facts.barcode),
        _one(facts.asin),
    )
    return {
        f"urn:{kind}:{value}"
        for kind, of_kind in zip(_KINDS, values, strict=True)
        for value in _normalised(of_kind)
    }


def _shown_identifiers(identifiers: Iterable[str]) -> set[str]:
    prefixes = tuple(f"urn:{kind}:" for kind in _KINDS)
    return {urn for urn in _normalised(identifiers) if urn.startswith(prefixes)}


def _one(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


def _normalised(texts: Iterable[str]) -> set[str]:
    """Return the texts in a form that archive.org's handling of metadata does not change.

    White space is collapsed, characters are composed, and empty values are dropped.
    """
    normalised = {" ".join(unicodedata.normalize("NFC", text).split()) for text in texts}
    return normalised - {""}


def _joined(texts: Iterable[str]) -> str | None:
    return "; ".join(sorted(texts)) or None
