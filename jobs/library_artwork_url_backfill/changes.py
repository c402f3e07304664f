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
transaction ends, so a run that is killed leaves at most one batch too many and never one too few.
If the transaction fails, another line says what became of the row: the last line of a run about a
row counts. A row that does not hold the URL of its line is not changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from artwork_backfill.jobs.library_artwork_url_backfill.models import Decided, Match, RowOutcome
from artwork_backfill.shared.engine.errors import RunFailed
from artwork_backfill.shared.settings import SettingsError

#: No line of a changes file is longer, because its few texts are truncated.
_LONGEST_LINE: Final = 64 * 1024
_LONGEST_TEXT: Final = 1_000
#: The beginning of each line, also of one that was truncated when its run was killed.
_LINE_BEGINS: Final = '{"run_id": '


class ChangesFile:
    """A file to which lines are appended; it may hold lines of earlier runs.

    Every method passes its lines to the operating system at once.

    Raises
    ------
    SettingsError
        The file cannot be opened.
    RunFailed
        A line cannot be written.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self._path = path
        self._run_id = run_id
        try:
            # Services may send half of a surrogate pair, which JSON can represent, but not UTF-8.
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
            if _is_cut_short(path):
                self._file.write("\n")
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be written: {error.strerror or error}; choose another file"
            ) from None
        #: The lines of rows whose transaction has not ended yet.
        self._open: dict[int, Decided] = {}

    def begin(self, decided: Iterable[Decided]) -> None:
        """Append a line for each row that is about to be written, before its transaction ends.

        A retried transaction adds a line only for a row with another result.
        """
        self._add(
            each
            for each in decided
            if each.outcome is RowOutcome.WRITTEN or each.row.id in self._open
        )

    def end(self, decided: Sequence[Decided]) -> None:
        """Append a line for each row without one, after its transaction has ended."""
        self._add(decided)
        for each in decided:
            self._open.pop(each.row.id, None)

    def take_back(self, ids: Iterable[int]) -> None:
        """Append a line for each row whose transaction has failed after its line was written."""
        self._add(
            Decided(self._open[id_].found, RowOutcome.FAILED)
            for id_ in ids
            if id_ in self._open and self._open[id_].outcome is RowOutcome.WRITTEN
        )

    def _add(self, decided: Iterable[Decided]) -> None:
        lines: list[str] = []
        for each in decided:
            before = self._open.get(each.row.id)
            if before is None or before.outcome is not each.outcome:
                self._open[each.row.id] = each
                lines.append(json.dumps(_line(each, self._run_id), ensure_ascii=False) + "\n")
        try:
            self._file.writelines(lines)
            self._file.flush()
        except OSError as error:
            raise RunFailed(
                f"{self._path} cannot be written: {error.strerror or error}; make room or choose"
                " another file for --changes, and run again"
            ) from error


@dataclass(frozen=True, slots=True, order=True)
class WrittenCover:
    """A cover that a run has written."""

    library_id: int
    url: str

    def __str__(self) -> str:
        return f"library row {self.library_id}"


def read_written(path: Path) -> list[WrittenCover]:
    """Return the covers that the runs of a file have written, each once.

    The last line of a run about a row counts. Lines that were truncated because a run was killed
    are skipped.

    Raises
    ------
    SettingsError
        The file cannot be read, or a line does not belong to a changes file.
    """
    last: dict[tuple[str, int], WrittenCover | None] = {}
    number = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            while line := lines.readline(_LONGEST_LINE):
                number += 1
                if line.strip() and line.endswith("\n"):
                    last |= _read(line)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror or error}; pass the file that --changes has"
            " written"
        ) from None
    except ValueError as problem:
        raise SettingsError(
            f"{path}, line {number}: {problem}; pass a file that --changes has written"
        ) from None
    return list(dict.fromkeys(filter(None, last.values())))


def _is_cut_short(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _line(decided: Decided, run_id: str) -> dict[str, Any]:
    found, row = decided.found, decided.row
    artwork = found.artwork
    values = {
        "run_id": run_id,
        "library_id": row.id,
        "artist": row.artist,
        "title": row.title,
        "outcome": str(decided.outcome),
        "url": found.url if isinstance(found, Match) else artwork and artwork.url,
        "ground": str(found.ground) if isinstance(found, Match) else None,
        "reason": None if isinstance(found, Match) else str(found.reason),
        "detail": None if isinstance(found, Match) else found.detail or None,
        "release_id": artwork and artwork.release_id,
        "artwork_artist": artwork and artwork.artist,
        "artwork_album": artwork and artwork.album,
        "confidence": artwork and artwork.confidence,
    }
    return {
        name: value[:_LONGEST_TEXT] if isinstance(value, str) else value
        for name, value in values.items()
    }


def _read(line: str) -> dict[tuple[str, int], WrittenCover | None]:
    """Return the run and the row of a line, with the cover if it was written; or nothing.

    Raises `ValueError` if it is not a line of a changes file.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        if line.startswith(_LINE_BEGINS):
            return {}
        raise ValueError("not a line of JSON") from None
    if not isinstance(document, dict) or "outcome" not in document:
        raise ValueError("not a line of a changes file")
    library_id: Any = document.get("library_id")
    url: Any = document.get("url")
    is_written = document["outcome"] == RowOutcome.WRITTEN
    is_row = type(library_id) is int and 0 < library_id < 1 << 63
    if is_written and not (is_row and isinstance(url, str)):
        raise ValueError("a written cover without library_id or url")
    if not is_row:
        return {}
    is_cover = is_written and _can_be_stored(url)
    key = str(document.get("run_id")), library_id
    return {key: WrittenCover(library_id, url) if is_cover else None}


def _can_be_stored(url: str) -> bool:
    try:
        return b"\0" not in url.encode()
    except UnicodeEncodeError:
        return False
