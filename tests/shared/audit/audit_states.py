"""Expected states and fake items for the audit's tests: healthy ones, to be damaged by a test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artwork_backfill.shared.audit.actual import Actual, classify
from artwork_backfill.shared.audit.archives import (
    ART_ARCHIVES,
    THUMBNAIL_SIZES,
    EntityType,
    image_name,
    item_name,
    thumbnail_name,
    xml_name,
)
from artwork_backfill.shared.audit.compare import compare, downloads_needed
from artwork_backfill.shared.audit.expected import Artwork, Expected, Presence, index_json
from artwork_backfill.shared.audit.finding import TEXT_LIMIT, Finding

SAMPLES = Path(__file__).parents[2] / "samples"

RELEASE_GID = "8745795a-190f-4be5-84fd-a8cfe5365cc6"
EVENT_GID = "770fb0b4-0ad8-4774-9275-099b66627355"
OTHER_GID = "4a37fa2d-f2d7-440f-8785-9faeecc3f80c"
FRONT, BACK = 31935858269, 31935858270
FOREIGN = 42

RELEASE = Expected(
    EntityType.RELEASE,
    RELEASE_GID,
    Presence.LIVE,
    artwork=(
        Artwork(FRONT, "jpg", ("Front",), True, False, "", True, 87832752),
        Artwork(BACK, "jpg", ("Back", "Spine"), False, True, "", True, 87832752),
    ),
    xml=(SAMPLES / "musicbrainz-release.xml").read_bytes(),
)
EVENT = Expected(
    EntityType.EVENT,
    EVENT_GID,
    Presence.LIVE,
    artwork=(
        Artwork(FRONT, "png", ("Poster",), True, None, "crowd ✨", True, 7),
        Artwork(BACK, "pdf", (), False, None, "", False, 8),
    ),
    xml=(SAMPLES / "musicbrainz-event.xml").read_bytes(),
)
BOTH = (RELEASE, EVENT)

_EXTRACTED = {
    "title": "Ruined Subjects",
    "creator": ["The Friends", "JT Bruce"],
    "date": "2011-08-09",
    "language": "eng",
    "external-identifier": [
        "urn:asin:B005GXO1GU",
        "urn:mb_artist_id:ae859a2d-5754-4e88-9af0-6df263345535",
        "urn:mb_artist_id:fbb941cc-6891-4c8f-8697-1e464aaa8c78",
        f"urn:mb_release_id:{RELEASE_GID}",
        "urn:upc:859705506019",
        "urn:something_else:1",
    ],
}


@dataclass
class FakeItem:
    """An item of archive.org that a test may damage; files are content by name."""

    gid: str
    originals: dict[str, bytes] = field(default_factory=dict)
    derivatives: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Listed sizes that are not those of the content."""

    def remove(self, *names: str) -> None:
        for name in names:
            if name in self.originals:
                del self.originals[name]
            else:
                del self.derivatives[name]

    def edit_index(self, edit: Callable[[dict[str, Any]], object]) -> None:
        document = json.loads(self.originals["index.json"])
        edit(document)
        self.originals["index.json"] = json.dumps(document).encode()

    def edit_image(self, edit: Callable[[dict[str, Any]], object], position: int = 0) -> None:
        self.edit_index(lambda document: edit(document["images"][position]))

    def edit_xml(self, old: str, new: str) -> None:
        name = xml_name(self.gid)
        text = self.originals[name].decode()
        assert old in text
        self.originals[name] = text.replace(old, new, 1).encode()

    def document(self) -> dict[str, Any]:
        """The metadata API's answer."""
        files: list[dict[str, str]] = [
            {"name": "__ia_thumb.jpg", "source": "original", "md5": "0" * 32, "size": "1"},
            {"name": f"{item_name(self.gid)}_meta.xml", "source": "original", "size": "1"},
            {"name": f"{item_name(self.gid)}_files.xml", "source": "original"},
            {"name": "history/files/index.json.~1~", "source": "original", "old_version": "true"},
        ]
        for name, content in self.originals.items():
            md5 = hashlib.md5(content).hexdigest()
            size = str(self.sizes.get(name, len(content)))
            files.append({"name": name, "source": "original", "md5": md5, "size": size})
        for name, original in self.derivatives.items():
            files.append({"name": name, "source": "derivative", "original": original})
        return {
            "files_count": len(files),
            "d1": "ia600001.us.archive.org",
            "d2": "ia800001.us.archive.org",
            "dir": f"/0/items/{item_name(self.gid)}",
            "files": files,
            "item_last_updated": 1_700_000_000,
            "metadata": {"identifier": item_name(self.gid), **self.metadata},
        }

    def actual(self, expected: Expected) -> Actual:
        """What an audit sees of it, with the downloads that the comparison asks for."""
        item = classify(self.document(), self.gid)
        needed = downloads_needed(expected, item)
        return Actual(
            item,
            index=self.originals["index.json"] if "index.json" in needed else None,
            xml=self.originals[xml_name(self.gid)] if xml_name(self.gid) in needed else None,
        )

    def add_image(self, artwork_id: int, suffix: str) -> None:
        original = image_name(self.gid, artwork_id, suffix)
        self.originals[original] = b"image"
        for size in THUMBNAIL_SIZES:
            self.derivatives[thumbnail_name(self.gid, artwork_id, size)] = original


def healthy(expected: Expected) -> FakeItem:
    """The item as it is when nothing has gone wrong; for one without art only the index."""
    item = FakeItem(expected.gid)
    item.metadata = {
        "collection": ["extra", ART_ARCHIVES[expected.entity_type].collection],
        "mediatype": "image",
        "noindex": "true",
    }
    if expected.entity_type is EntityType.RELEASE:
        item.metadata |= _EXTRACTED
    item.originals["index.json"] = index_json(expected)
    if expected.xml is not None:
        item.originals[xml_name(expected.gid)] = expected.xml
    for artwork in expected.artwork:
        item.add_image(artwork.id, artwork.suffix)
    return item


def findings_of(expected: Expected, item: FakeItem) -> tuple[Finding, ...]:
    """The findings of an audit of `item`."""
    return compare(expected, item.actual(expected))


def summary(findings: tuple[Finding, ...]) -> list[tuple[str, str, str]]:
    """Check, severity and subject of each finding, sorted."""
    return sorted((each.check, each.severity.label, each.subject) for each in findings)


def is_storable(text: str | None) -> bool:
    """Whether PostgreSQL can store `text` in JSONB, and it is not too long to be read."""
    if text is None:
        return True
    refused = any(char == "\x00" or "\ud800" <= char <= "\udfff" for char in text)
    return not refused and len(text) <= TEXT_LIMIT
