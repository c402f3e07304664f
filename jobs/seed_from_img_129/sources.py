"""Where the results of the 2021 audit come from: files, folders, standard input, URLs.

What can be opened more than once is recognised before the run begins, so that a mistyped path costs
nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import requests
import urllib3
from artwork_backfill.jobs.seed_from_img_129.formats import Kind, recognise
from artwork_backfill.shared.engine.job import Problem
from artwork_backfill.shared.lines import DamagedInput, Readable, read_blocks

STDIN: Final = "-"

UNKNOWN_KIND: Final = (
    "it is of no known kind: it should be a CSV with a header line `mbid,...`, a log, an action"
    " list, a list of gids, or a results cache"
)

#: Seconds for a connection, and for each silence while an answer is read.
_TIMEOUTS: Final = (10.0, 60.0)


class SourceError(Exception):
    """A source cannot be used. The message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input: its place as it was given, and its kind, `None` until it is read.

    A pipe can be read only once, so nobody has looked at it before.
    """

    place: str
    kind: Kind | None

    def __str__(self) -> str:
        """Return the place, without what in a URL may be secret."""
        if self.place == STDIN:
            return "standard input"
        if not _is_url(self.place):
            return self.place
        parts = urlsplit(self.place)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def file_name(self) -> str:
        """The last part of the place, which may tell the kind."""
        return Path(urlsplit(self.place).path if _is_url(self.place) else self.place).name

    @contextmanager
    def open(self) -> Iterator[Readable]:
        """Open the source. Opening it and reading from it raise `OSError` when that fails."""
        if self.place == STDIN:
            yield sys.stdin.buffer
        elif _is_url(self.place):
            with closing(_Download(self.place)) as download:
                yield download
        else:
            with Path(self.place).open("rb") as file:
                yield file


def find(arguments: Sequence[str]) -> tuple[list[Source], list[Problem]]:
    """Find the sources that the command line names, each once, in its order.

    Returns them with the files in folders that are none.

    Raises
    ------
    SourceError
        One does not exist, cannot be read, or is of no known kind.
    """
    sources: dict[str, Source] = {}
    passed_over: list[Problem] = []
    for argument in arguments:
        if not _is_folder(argument):
            sources.setdefault(_identity(argument), _recognised(argument))
            continue
        for path in _files(Path(argument)):
            try:
                sources.setdefault(_identity(path), _recognised(path))
            except SourceError as error:
                passed_over.append(Problem("file passed over", str(error)))
    if not sources:
        raise SourceError(
            f"{', '.join(arguments)}: there is no file of the 2021 audit, such as bad_items.csv or"
            " failed_checks.log"
        )
    return list(sources.values()), passed_over


def explain(error: OSError) -> str:
    """Return why a source cannot be read, without the URL, which may hold a password."""
    match error:
        case requests.HTTPError():
            return f"the server answers HTTP {error.response.status_code}"
        case requests.Timeout():
            return "the server does not answer in time"
        case requests.ConnectionError():
            return "the server cannot be reached"
        case requests.RequestException():
            return f"the download fails ({type(error).__name__})"
    return error.strerror or str(error) or type(error).__name__


def _recognised(place: str) -> Source:
    source = Source(place, None)
    try:
        if place == STDIN or not (_is_url(place) or _is_file(place)):
            return source
        kind = recognise(_first_lines(source), source.file_name)
    except OSError as error:
        raise SourceError(f"{source} cannot be read: {explain(error)}") from error
    except DamagedInput as error:
        raise SourceError(f"{source} cannot be read: {error}") from error
    if kind is None:
        raise SourceError(f"{source} cannot be used: {UNKNOWN_KIND}")
    return Source(place, kind)


def _first_lines(source: Source) -> list[bytes]:
    with source.open() as stream:
        return next((block.lines for block in read_blocks(stream)), [])


def _files(folder: Path) -> list[str]:
    try:
        return sorted(
            str(path)
            for path in folder.iterdir()
            if path.is_file() and not path.name.startswith(".")
        )
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {explain(error)}") from error


class _Download:
    """The bytes behind a URL; a gzipped file stays gzipped."""

    def __init__(self, url: str) -> None:
        self._session = requests.Session()
        try:
            self._response = self._session.get(
                url, stream=True, timeout=_TIMEOUTS, headers={"Accept-Encoding": "identity"}
            )
            self._response.raise_for_status()
        except BaseException:
            self._session.close()
            raise

    def read(self, size: int, /) -> bytes:
        try:
            # Decoded nevertheless, for servers that compress whatever is asked for.
            return bytes(self._response.raw.read(size, decode_content=True))
        except urllib3.exceptions.HTTPError as error:
            raise OSError(f"the download broke off ({type(error).__name__})") from error

    def close(self) -> None:
        self._response.close()
        self._session.close()


def _is_url(place: str) -> bool:
    return place.lower().startswith(("http://", "https://"))


def _is_folder(place: str) -> bool:
    return place != STDIN and not _is_url(place) and Path(place).is_dir()


def _is_file(place: str) -> bool:
    """Tell a regular file from a pipe; raises `FileNotFoundError` where there is nothing."""
    path = Path(place)
    path.stat()
    return path.is_file()


def _identity(place: str) -> str:
    """Return what tells inputs apart, however their places are written."""
    return place if place == STDIN or _is_url(place) else str(Path(place).resolve())
