"""What an answer of archive.org's metadata API means, and what its listing shows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from tests.oracle.state import ItemState


class Meaning(Enum):
    """The classes of answers."""

    LISTED = auto()
    ABSENT = auto()
    DARK = auto()
    UNFINISHED = auto()
    UNAVAILABLE = auto()


NO_ITEM = b"[]"

_ERRCODES = {104: Meaning.ABSENT, 101: Meaning.UNFINISHED}
_UNFINISHED_KEYS = ("pending_tasks", "has_redrow", "tasks", "nodownload")

_IMAGE_SUFFIXES = {"jpg", "jpeg", "png", "gif", "pdf"}
_IMAGE_FORMATS = {"JPEG", "PNG", "GIF", "Image Container PDF"}

_OWN_ENDINGS = (
    "_meta.xml",
    "_meta.sqlite",
    "_files.xml",
    "_archive.torrent",
    "_reviews.xml",
    "_rules.conf",
)
_PDF_ENDINGS = (
    "_jp2.zip",
    "_text.pdf",
    "_chocr.html.gz",
    "_hocr_searchtext.txt.gz",
    "_page_numbers.json",
    "_scandata.xml",
)


@dataclass(frozen=True, slots=True)
class Look:
    """An answer that is believed; `document` is its content where it is listed or dark."""

    meaning: Meaning
    document: dict[str, Any]


def meaning(answer: bytes) -> Meaning:
    """Class one answer by itself."""
    try:
        document = json.loads(answer)
    except ValueError:
        return Meaning.UNAVAILABLE
    if document in ([], {}):
        return Meaning.ABSENT
    if not isinstance(document, dict):
        return Meaning.UNAVAILABLE
    if document.get("is_dark"):
        return Meaning.DARK
    if "errcode" in document:
        return _ERRCODES.get(document["errcode"], Meaning.UNAVAILABLE)
    if any(document.get(key) for key in _UNFINISHED_KEYS):
        return Meaning.UNFINISHED
    if "error" in document or not _is_complete(document):
        return Meaning.UNAVAILABLE
    return Meaning.LISTED


def _is_complete(document: dict[str, Any]) -> bool:
    files = document.get("files")
    identifier = document.get("metadata", {}).get("identifier")
    if not isinstance(files, list) or int(document.get("files_count", len(files))) != len(files):
        return False
    names = {file["name"] for file in files}
    return {f"{identifier}_meta.xml", f"{identifier}_files.xml"} <= names


def look(item: ItemState | None, *, believes_at_once: bool = False) -> Look:
    """Return what an audit that begins with the first answer has to believe.

    An absence takes a second look, unless nothing hangs on it; what that shows counts.
    """
    answers = item.answers if item is not None else [NO_ITEM]
    first, second = answers[0], answers[min(1, len(answers) - 1)]
    answer = first if believes_at_once or meaning(first) is not Meaning.ABSENT else second
    found = meaning(answer)
    document = json.loads(answer) if found in (Meaning.LISTED, Meaning.DARK) else {}
    return Look(found, document)


def files(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The files of a listing by name."""
    return {file["name"]: file for file in document["files"]}


def is_own(name: str, file: dict[str, Any], gid: str) -> bool:
    """Whether a file is archive.org's own, which nobody outside can remove."""
    return (
        name == "__ia_thumb.jpg"
        or name.startswith("history/")
        or bool(file.get("old_version"))
        or name in [f"mbid-{gid}{ending}" for ending in _OWN_ENDINGS]
        or (name.startswith(f"mbid-{gid}") and name.endswith(_PDF_ENDINGS))
    )


def is_image(name: str, file: dict[str, Any], gid: str) -> bool:
    """Whether a file is an image that somebody uploaded, whatever its name."""
    if file["source"] != "original" or is_own(name, file, gid):
        return False
    has_suffix = name.rpartition(".")[2].lower() in _IMAGE_SUFFIXES
    return has_suffix or file.get("format") in _IMAGE_FORMATS


def artwork_of(name: str, gid: str) -> tuple[int, str] | None:
    """The artwork id and suffix that a file's name tells; None where it tells none."""
    match = re.fullmatch(rf"mbid-{gid}-([0-9]+)\.(\w+)", name)
    return (int(match[1]), match[2]) if match else None
