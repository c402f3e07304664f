"""An item of archive.org: its files, their content, and the effect of uploads."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sandbox.formats import (
    EXTRACTED_KEYS,
    THUMBNAIL_SIZES,
    Metadata,
    extract,
    image_name,
    item_name,
    xml_log_name,
    xml_name,
)

CREATED = 1_700_000_000
"""The upload time of every file of a fresh world, in epoch seconds."""

IMAGE_FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "pdf": "Image Container PDF"}

IMAGE_BYTES = b"no picture: the sandbox keeps image files by name only\n"
"""The content of every image file."""


#: What archive.org derives from a PDF, by the end of the file's name. It calls some of it original.
PDF_DERIVATIVES = (
    ("_jp2.zip", "derivative", "Single Page Processed JP2 ZIP"),
    ("_text.pdf", "original", "Additional Text PDF"),
    ("_chocr.html.gz", "derivative", "chOCR"),
    ("_hocr_searchtext.txt.gz", "derivative", "OCR Search Text"),
    ("_page_numbers.json", "original", "Page Numbers JSON"),
    ("_scandata.xml", "original", "Scandata"),
)


class File(NamedTuple):
    """One entry of an item's listing. A tuple, because millions of them are made.

    `lacks` names keys that the entry does not have although others do, such as ``md5``.
    """

    name: str
    source: str
    format: str
    size: int
    md5: str
    original: str | None = None
    old_version: bool = False
    private: bool = False
    lacks: tuple[str, ...] = ()


@dataclass(slots=True)
class Item:
    """An existing item.

    Parameters
    ----------
    contents
        The bytes of index.json and mb_metadata.xml.
    updated
        The time of the last change, in epoch seconds.
    shown
        Further keys of its answers, such as ``pending_tasks``.
    cut
        How many files its answers list; by default all. ``files_count`` counts them all.
    numbers
        Whether sizes and times are numbers in its answers, not strings.
    first_answers
        What the metadata API answers before it gives the right answer.
    answer
        What it answers then, if that does not follow from the rest.
    """

    gid: str
    metadata: Metadata
    files: dict[str, File] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    dark: bool = False
    updated: int = CREATED
    shown: dict[str, Any] = field(default_factory=dict)
    cut: int | None = None
    numbers: bool = False
    first_answers: Sequence[bytes] = ()
    answer: bytes | None = None

    @property
    def directory(self) -> str:
        return f"/{int(self.gid[:2], 16) % 20}/items/{item_name(self.gid)}"

    def document(self, node: str) -> bytes:
        """Return the answer of the metadata API, with `node` as d1, d2 and server."""
        if self.answer is not None:
            return self.answer
        place = f'"created":{self.updated},"d1":"{node}","dir":"{self.directory}","server":"{node}"'
        if self.dark:
            return f'{{{place},"is_dark":true,"uniq":{self.updated}}}'.encode()
        listed = list(self.files.values())[: self.cut]
        files = ",".join([_file_json(file) for file in listed])
        if self.numbers:
            files = _NUMBERS.sub(r'"\1":\2', files)
        metadata = json.dumps({"identifier": item_name(self.gid), **self.metadata})
        more = "".join([f',"{key}":{json.dumps(value)}' for key, value in self.shown.items()])
        return (
            f'{{{place},"d2":"{node}","files":[{files}],"files_count":{len(self.files)},'
            f'"item_last_updated":{self.updated},"metadata":{metadata},"uniq":{self.updated},'
            f'"workable_servers":["{node}"]{more}}}'
        ).encode()

    def content(self, name: str) -> bytes | None:
        """Return the bytes of a file, or None if it does not exist."""
        if name in self.contents:
            return self.contents[name]
        return IMAGE_BYTES if name in self.files else None

    def add_file(self, file: File) -> None:
        """Add a file as it is."""
        self.files[file.name] = file

    def change_file(self, name: str, **changes: Any) -> None:
        """Change the entry of a file in the listing."""
        self.files[name] = self.files[name]._replace(**changes)

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
        """Add an image with what archive.org derives from it.

        The same artwork id always has the same picture, and so the same checksums.
        """
        name = image_name(self.gid, artwork_id, suffix)
        self._add(name, "original", IMAGE_FORMATS[suffix], content=f"{artwork_id}")
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
            for tail, source, kind in PDF_DERIVATIVES:
                self._add(f"{stem}{tail}", source, kind, name)

    def add_text(self, name: str, content: bytes) -> None:
        """Add index.json, or mb_metadata.xml with the log of its extraction."""
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        kind = "JSON" if name == "index.json" else "MusicBrainz Metadata"
        self.files[name] = File(name, "original", kind, len(content), digest)
        self.contents[name] = content
        if name == xml_name(self.gid):
            self._add(xml_log_name(self.gid), "derivative", "MusicBrainz Metadata Log", name)

    def upload(self, name: str, content: bytes) -> None:
        """Do what an upload does: keep the old version, and extract the metadata of an XML file."""
        self._keep_old_version(name)
        if name.endswith((".json", ".xml")):
            self.add_text(name, content)
        else:
            suffix = name.rpartition(".")[2]
            picture = content.decode("latin-1") or name
            self._add(name, "original", IMAGE_FORMATS.get(suffix, "Unknown"), content=picture)
            self.add_derivatives(name)
        if name == xml_name(self.gid):
            for key in EXTRACTED_KEYS:
                self.metadata.pop(key, None)
            self.metadata.update(extract(content))
        self._touch()

    def copy(self, name: str, file: File) -> None:
        """Do what an upload does that copies `file` of another item."""
        self._keep_old_version(name)
        self.files[name] = file._replace(name=name)
        self.add_derivatives(name)
        self._touch()

    def delete(self, name: str) -> None:
        """Delete a file with its derivatives, keeping the old version; ignore a missing file."""
        self._keep_old_version(name)
        self.files.pop(name, None)
        self.contents.pop(name, None)
        for derivative in [file for file in self.files.values() if file.original == name]:
            del self.files[derivative.name]
        self._touch()

    def _add(
        self,
        name: str,
        source: str,
        kind: str,
        original: str | None = None,
        content: str | None = None,
    ) -> None:
        # Without content, the name stands in for it: different files have different checksums.
        text = name if content is None else content
        digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
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
        # Clients compare this to notice that the item changed while it was being read.
        self.updated = max(int(time.time()), self.updated + 1)


_NUMBERS = re.compile(r'"(size|mtime)":"(\d+)"')


def _file_json(file: File) -> str:
    name, source, kind, size, md5, original, old_version, private, lacks = file
    more = f',"original":"{original}"' if original else ""
    if old_version:
        more += ',"old_version":"true"'
    if private:
        more += ',"private":"true"'
    text = (
        f'{{"name":"{name}","source":"{source}","format":"{kind}","mtime":"{CREATED}",'
        f'"size":"{size}","md5":"{md5}","crc32":"{md5[:8]}","sha1":"{md5}{md5[:8]}"{more}}}'
    )
    if not lacks:
        return text
    return json.dumps({key: value for key, value in json.loads(text).items() if key not in lacks})
