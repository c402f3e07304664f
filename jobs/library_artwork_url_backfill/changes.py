"""The changes file: what a run did with every album, one JSON object per line.

| key             | meaning                                                                        |
|-----------------|--------------------------------------------------------------------------------|
| run_id          | the run                                                                        |
| library_id      | the row, with `artist` and `title` as they were                                |
| outcome         | `written`, `would_write` (dry run), or why not: `raced`, `changed`, `busy`,    |
|                 | `gone`, `refused` or `failed`                                                  |
| url             | of the cover, or of the refused picture; null if there was none                |
| ground          | why the cover was accepted: `release_id`, `names`, `metadata`, `first`         |
| reason, detail  | why it was refused: a code, and an explanation                                 |
| release_id, artwork_artist, artwork_album, confidence: what LML says about the picture           |

`--undo FILE` empties the rows with the outcome `written`. These lines are written before the
transaction ends, so a run that is killed leaves at most one line too many and never one too few. A
row that does not hold the URL of its line is not changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from artwork_backfill.jobs.library_artwork_url_backfill.models import Found, Match

#: No line of a changes file is longer.
_LONGEST_LINE: Final = 64 * 1024


class BadChangesFile(Exception):
    """A file is not a changes file. The message names the file and the line."""


class Fate(StrEnum):
    """The result for a row in this run. The values are codes that do not change."""

    WRITTEN = "written"
    WOULD_WRITE = "would_write"
    RACED = "raced"
    CHANGED = "changed"
    BUSY = "busy"
    GONE = "gone"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Decided:
    """What was found for a row, and the result."""

    found: Found
    fate: Fate


class ChangesFile:
    """A file to which lines are appended without buffering; it may hold lines of earlier runs.

    Its methods raise `OSError` if the file cannot be written.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self._run_id = run_id
        self._file = path.open("a", encoding="utf-8")
        self._added: set[int] = set()

    def add(self, decided: Iterable[Decided]) -> None:
        """Append a line for each row, and pass them to the operating system at once."""
        for each in decided:
            # A retried transaction must not add its rows twice.
            if each.found.row.id not in self._added:
                self._added.add(each.found.row.id)
                self._file.write(json.dumps(_line(each, self._run_id), ensure_ascii=False) + "\n")
        self._file.flush()

    def end_batch(self) -> None:
        """Forget the rows of the batch, because they do not come again."""
        self._added.clear()


@dataclass(frozen=True, slots=True)
class WrittenCover:
    """A line that says that a cover was written."""

    library_id: int
    url: str

    def __str__(self) -> str:
        return f"library row {self.library_id}"


def read_written(path: Path) -> Iterator[WrittenCover]:
    """Yield the covers that the runs of a file have written, line by line.

    The last line may be truncated if a run was killed.

    Raises
    ------
    BadChangesFile
        A line does not belong to a changes file.
    OSError
        The file cannot be read.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        number = 0
        while line := lines.readline(_LONGEST_LINE):
            number += 1
            if not line.strip() or not line.endswith("\n"):
                continue
            cover = _read(line)
            if isinstance(cover, str):
                raise BadChangesFile(
                    f"{path}, line {number}: {cover}; pass a file that --changes has written"
                )
            if cover is not None:
                yield cover


def _line(decided: Decided, run_id: str) -> dict[str, Any]:
    found, row = decided.found, decided.found.row
    artwork = found.artwork
    return {
        "run_id": run_id,
        "library_id": row.id,
        "artist": row.artist,
        "title": row.title,
        "outcome": str(decided.fate),
        "url": found.url if isinstance(found, Match) else artwork and artwork.url,
        "ground": str(found.ground) if isinstance(found, Match) else None,
        "reason": None if isinstance(found, Match) else str(found.reason),
        "detail": None if isinstance(found, Match) else found.detail or None,
        "release_id": artwork and artwork.release_id,
        "artwork_artist": artwork and artwork.artist,
        "artwork_album": artwork and artwork.album,
        "confidence": artwork and artwork.confidence,
    }


def _read(line: str) -> WrittenCover | str | None:
    """Return the cover of a line, `None` if it wrote none, or what is wrong with the line."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return "not a line of JSON"
    if not isinstance(document, dict) or "outcome" not in document:
        return "not a line of a changes file"
    if document["outcome"] != Fate.WRITTEN:
        return None
    library_id, url = document.get("library_id"), document.get("url")
    if type(library_id) is not int or not 0 < library_id < 1 << 63 or not isinstance(url, str):
        return "a written cover without library_id or url"
    return None if "\0" in url else WrittenCover(library_id, url)
