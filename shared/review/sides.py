"""What archive.org holds of one entity now, beside what it should hold: for people to compare.

Nothing is decided here, and nothing remembered. The requests are made without a connection to the
database.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg import Connection

from artwork_backfill.shared.audit.actual import Item, ItemState
from artwork_backfill.shared.audit.archives import INDEX_NAME, xml_name
from artwork_backfill.shared.audit.compare import INDEX_MAX_BYTES, XML_MAX_BYTES
from artwork_backfill.shared.audit.expected import Expected, index_json
from artwork_backfill.shared.auditing.expectation import add_expectations
from artwork_backfill.shared.auditing.listing import Listings
from artwork_backfill.shared.auditing.models import Claim, Entity
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.clients.http import Interrupted, NotFound, ServiceError
from artwork_backfill.shared.review.questions import EntityRow


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One original image as an item lists it; size in bytes."""

    artwork_id: int | None
    name: str
    size: int | None
    md5: str | None
    format: str | None


@dataclass(frozen=True, slots=True)
class ItemSide:
    """What archive.org says of the item of one gid; `problem` says why it is not known."""

    gid: str
    state: str
    problem: str
    images: tuple[ImageFile, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it should be and as it is; `None` where there is none.

    `problem` says why one of them is not known.
    """

    name: str
    expected: str | None
    found: str | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of an entity; `items` begins with its own."""

    items: tuple[ItemSide, ...]
    documents: tuple[Document, ...]


def read_expected(conn: Connection, entity: EntityRow) -> Expected | None:
    """Return what MusicBrainz says of an entity, `None` where its rows make no sense."""
    claim = Claim(Entity(entity.id, entity.entity_type, str(entity.gid)), datetime.now(UTC), None)
    (completed,) = add_expectations(conn, [claim])
    return completed.expected


def look(services: Services, expected: Expected, others: Sequence[str]) -> Sides:
    """Return what archive.org holds of an entity, and which images the items of `others` list.

    What a service does not answer becomes the `problem` of its part.
    """
    listings = Listings(lambda: services.archive)
    own = _read(listings, expected.gid)
    items = [_side(expected.gid, own)]
    items += [_side(gid, _read(listings, gid)) for gid in others]
    documents = (_index(services, expected, own), _xml(services, expected, own))
    return Sides(tuple(items), tuple(document for document in documents if document is not None))


def _read(listings: Listings, gid: str) -> Item | str:
    """Return an item, or why it could not be read."""
    try:
        return listings.read(gid)
    except (ServiceError, Interrupted) as error:
        return str(error)


def _side(gid: str, item: Item | str) -> ItemSide:
    if isinstance(item, str):
        return ItemSide(gid, "not read", item, ())
    images = tuple(
        ImageFile(image.artwork_id, image.name, image.file.size, image.file.md5, image.file.format)
        for image in item.originals()
    )
    return ItemSide(gid, item.state.value, item.problem, images)


def _index(services: Services, expected: Expected, item: Item | str) -> Document | None:
    wanted = _pretty_json(index_json(expected)) if expected.is_live else None
    return _document(services, INDEX_NAME, wanted, item, expected.gid, INDEX_MAX_BYTES)


def _xml(services: Services, expected: Expected, item: Item | str) -> Document | None:
    name = xml_name(expected.gid)
    if not expected.is_live:
        return _document(services, name, None, item, expected.gid, XML_MAX_BYTES)
    try:
        content = services.musicbrainz.entity_xml(expected.entity_type.value, expected.gid)
    except (ServiceError, Interrupted) as error:
        return Document(name, None, None, f"MusicBrainz: {error}")
    wanted = _lines(content.decode("utf-8", "replace"))
    return _document(services, name, wanted, item, expected.gid, XML_MAX_BYTES)


def _document(
    services: Services, name: str, expected: str | None, item: Item | str, gid: str, limit: int
) -> Document | None:
    """Return a document of an item beside what it should be; `None` where there is neither."""
    if isinstance(item, str):
        return Document(name, expected, None, item)
    if item.state not in (ItemState.LISTED, ItemState.ABSENT):
        return Document(name, expected, None, f"the item is {item.state}")
    if item.file(name) is None:
        return Document(name, expected, None) if expected is not None else None
    try:
        content = services.archive.download(
            gid, name, max_bytes=limit, d1=item.d1, d2=item.d2, dir=item.dir
        )
    except NotFound:
        return Document(name, expected, None, "listed, but not there")
    except (ServiceError, Interrupted) as error:
        return Document(name, expected, None, str(error))
    found = (
        _pretty_json(content) if name == INDEX_NAME else _lines(content.decode("utf-8", "replace"))
    )
    return Document(name, expected, found)


def _pretty_json(content: bytes) -> str:
    """Return a JSON document in lines that can be compared; as it is where it is none."""
    try:
        return json.dumps(json.loads(content), indent=2, sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")


def _lines(xml: str) -> str:
    """Return XML with one element a line."""
    return xml.replace("><", ">\n<")
