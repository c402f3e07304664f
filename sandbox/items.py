"""An item of archive.org: its files, what it serves of them, and what uploads do to it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sandbox.formats import (
    EXTRACTED_KEYS,
    THUMBNAIL_SIZES,
    Metadata,
    extract,
    image_name,
    item_name,
    xml_name,
)

CREATED = 1_700_000_000
"""When every file of a fresh world was uploaded: epoch seconds."""

IMAGE_FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "pdf": "Image Container PDF"}

IMAGE_BYTES = b"no picture: the sandbox keeps image files by name only\n"
"""What a download of any image file answers."""


class File(NamedTuple):
    """One entry of an item's listing. A tuple, because millions of them are made."""

    name: str
    source: str
    format: str
    size: int
    md5: str
    original: str | None = None
    old_version: bool = False


@dataclass(slots=True)
class Item:
    """An item that exists. `contents` holds the bytes of index.json and mb_metadata.xml."""

    gid: str
    metadata: Metadata
    files: dict[str, File] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    dark: bool = False
    updated: int = CREATED

    @property
    def directory(self) -> str:
        return f"/{int(self.gid[:2], 16) % 20}/items/{item_name(self.gid)}"

    def document(self, node: str) -> bytes:
        """The answer of the metadata API, with `node` (host and port) as d1, d2 and server."""
        place = f'"created":{self.updated},"d1":"{node}","dir":"{self.directory}","server":"{node}"'
        if self.dark:
            name = item_name(self.gid)
            return f'{{{place},"is_dark":true,"metadata":{{"identifier":"{name}"}}}}'.encode()
        files = ",".join([_file_json(file) for file in self.files.values()])
        metadata = json.dumps({"identifier": item_name(self.gid), **self.metadata})
        return (
            f'{{{place},"d2":"{node}","files":[{files}],"files_count":{len(self.files)},'
            f'"item_last_updated":{self.updated},"metadata":{metadata},"uniq":{self.updated},'
            f'"workable_servers":["{node}"]}}'
        ).encode()

    def content(self, name: str) -> bytes | None:
        """The bytes of a file; None when there is no such file."""
        if name in self.contents:
            return self.contents[name]
        return IMAGE_BYTES if name in self.files else None

    def add_own_files(self) -> None:
        """Add the files that archive.org keeps in every item."""
        stem = item_name(self.gid)
        self._add("__ia_thumb.jpg", "original", "Item Tile")
        self._add(f"{stem}_meta.xml", "original", "Metadata")
        self._add(f"{stem}_meta.sqlite", "original", "Metadata")
        self._add(f"{stem}_files.xml", "original", "Metadata")
        self._add(f"{stem}_archive.torrent", "metadata", "Archive BitTorrent")

    def add_image(
        self, artwork_id: int, suffix: str, thumbnail_sizes: tuple[int, ...] = THUMBNAIL_SIZES
    ) -> None:
        """Add an image with what archive.org derives from it."""
        name = image_name(self.gid, artwork_id, suffix)
        self._add(name, "original", IMAGE_FORMATS[suffix])
        self.add_derivatives(name, thumbnail_sizes)

    def add_derivatives(
        self, name: str, thumbnail_sizes: tuple[int, ...] = THUMBNAIL_SIZES
    ) -> None:
        """Add what archive.org derives from the image `name`."""
        stem, _, suffix = name.rpartition(".")
        self._add(f"{stem}_thumb.jpg", "derivative", "JPEG Thumb", name)
        self._add(f"{stem}_itemimage.jpg", "derivative", "JPEG Thumb", name)
        for size in thumbnail_sizes:
            self._add(f"{stem}_thumb{size}.jpg", "derivative", "JPEG Thumb", name)
        if suffix == "pdf":
            self._add(f"{stem}_jp2.zip", "derivative", "Single Page Processed JP2 ZIP", name)

    def add_text(self, name: str, content: bytes) -> None:
        """Add index.json or mb_metadata.xml."""
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        kind = "JSON" if name == "index.json" else "MusicBrainz Metadata"
        self.files[name] = File(name, "original", kind, len(content), digest)
        self.contents[name] = content

    def upload(self, name: str, content: bytes, metadata: Mapping[str, str]) -> None:
        """Do what an upload does: keep the old version, and extract what an XML file tells.

        `metadata` holds what the upload says of the item itself.
        """
        self._keep_old_version(name)
        if name.endswith((".json", ".xml")):
            self.add_text(name, content)
        else:
            suffix = name.rpartition(".")[2]
            self._add(name, "original", IMAGE_FORMATS.get(suffix, "Unknown"))
            self.add_derivatives(name)
        self.metadata.update(metadata)
        if name == xml_name(self.gid):
            for key in EXTRACTED_KEYS:
                self.metadata.pop(key, None)
            self.metadata.update(extract(content))
        self._touch()

    def delete(self, name: str) -> None:
        """Delete a file with its derivatives, keeping the old version; fine when it is gone."""
        self._keep_old_version(name)
        self.files.pop(name, None)
        self.contents.pop(name, None)
        for derivative in [file for file in self.files.values() if file.original == name]:
            del self.files[derivative.name]
        self._touch()

    def _add(self, name: str, source: str, kind: str, original: str | None = None) -> None:
        # The name stands in for the content that there is not: different files, different sums.
        digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
        self.files[name] = File(name, source, kind, 9_000, digest, original)

    def _keep_old_version(self, name: str) -> None:
        file = self.files.get(name)
        if file is None:
            return
        number = 1
        while (kept := f"history/files/{name}.~{number}~") in self.files:
            number += 1
        self.files[kept] = file._replace(name=kept, old_version=True)

    def _touch(self) -> None:
        # A client compares this to learn whether the item changed while it was being read.
        self.updated = max(int(time.time()), self.updated + 1)


def _file_json(file: File) -> str:
    name, source, kind, size, md5, original, old_version = file
    more = f',"original":"{original}"' if original else ""
    if old_version:
        more += ',"old_version":"true"'
    return (
        f'{{"name":"{name}","source":"{source}","format":"{kind}","mtime":"{CREATED}",'
        f'"size":"{size}","md5":"{md5}","crc32":"{md5[:8]}","sha1":"{md5}{md5[:8]}"{more}}}'
    )
