"""The sources of the results of the 2021 audit: files, folders, standard input, URLs.

The kind of a source that can be opened more than once is determined before the run begins, so that
a mistyped path is noticed at once.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final
from urllib.parse import urlsplit

import requests

from artwork_backfill.jobs.seed_from_img_129.formats import Kind, recognise
from artwork_backfill.shared.clients.download import Download
from artwork_backfill.shared.engine.job import Problem
from artwork_backfill.shared.lines import (
    DamagedInput,
    Part,
    Readable,
    read_blocks,
    read_parts,
)

STDIN: Final = "-"

UNKNOWN_KIND: Final = (
    "its kind is unknown: use a CSV with a header line `mbid,...`, a log, an action list, a list of"
    " gids, or a results cache"
)

#: How often the stop flag is checked while nothing arrives in a pipe, in seconds.
_LOOK_EVERY_S: Final = 0.2


class SourceError(Exception):
    """A source cannot be used. The message names it and says what to do."""


class UnreadableSource(SourceError):
    """A source exists but cannot be read, so nothing is known about its content."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input: its place as given, and its kind, `None` until it is read.

    A pipe can be read only once, so its kind is determined during the run.
    """

    place: str
    kind: Kind | None

    def __str__(self) -> str:
        """Return the place without the parts of a URL that may be secret."""
        if self.place == STDIN:
            return "standard input"
        if not _is_url(self.place):
            # The name of a file may be any bytes.
            return os.fsencode(self.place).decode("utf-8", "replace")
        parts = urlsplit(self.place)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def file_name(self) -> str:
        """The last part of the place, which may show the kind."""
        return Path(urlsplit(self.place).path if _is_url(self.place) else self.place).name

    @contextmanager
    def open(self, stop_flag: Event) -> Iterator[Readable]:
        """Open the source. Opening and reading raise `OSError` on failure.

        When `stop_flag` is set, every wait ends.
        """
        if self.place == STDIN:
            yield _File(sys.stdin.fileno(), stop_flag)
        elif _is_url(self.place):
            with closing(Download(self.place, stop_flag)) as download:
                yield download
        else:
            # Opening a pipe without a writer would block for ever.
            descriptor = os.open(self.place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb"):  # noqa: PTH123 - it is open already
                yield _File(descriptor, stop_flag)

    @contextmanager
    def parts(self, stop_flag: Event) -> Iterator[Iterator[Part]]:
        """Open the source, and yield the files in it: one, unless it is an archive."""
        with self.open(stop_flag) as stream:
            yield read_parts(stream)


class _File:
    """Read from a file or a pipe until the run stops."""

    def __init__(self, descriptor: int, stop_flag: Event) -> None:
        self._descriptor = descriptor
        self._stop_flag = stop_flag

    def read(self, size: int, /) -> bytes:
        while not self._stop_flag.is_set():
            if select.select([self._descriptor], [], [], _LOOK_EVERY_S)[0]:
                return os.read(self._descriptor, size)
        raise InterruptedError("the run is stopping")


def find(arguments: Sequence[str], stop_flag: Event) -> tuple[list[Source], list[Problem]]:
    """Find the sources that the command line names, each once, in its order.

    Returns them together with the problems of files in folders that are not sources. An unreadable
    file in a folder is a source nevertheless: reading it fails, and is reported as damage.

    Raises
    ------
    SourceError
        A source does not exist, cannot be read, or is of an unknown kind.
    """
    sources: dict[str, Source] = {}
    passed_over: list[Problem] = []
    for argument in arguments:
        if not argument.strip():
            raise SourceError("a SOURCE is empty: name a file, a folder or a URL, or - for a pipe")
        if not _is_folder(argument):
            sources.setdefault(_identity(argument), _recognised(argument, stop_flag))
            continue
        for path in _files(Path(argument)):
            try:
                sources.setdefault(_identity(path), _recognised(path, stop_flag))
            except UnreadableSource:
                sources.setdefault(_identity(path), Source(path, None))
            except SourceError as error:
                passed_over.append(Problem("file skipped", str(error)))
    if not sources:
        raise SourceError(
            f"{', '.join(arguments)}: found no file of the 2021 audit; pass its files, such as"
            " bad_items.csv or failed_checks.log"
        )
    return list(sources.values()), passed_over


def explain(error: OSError) -> str:
    """Return why a source cannot be read, without the URL, which may hold a password."""
    match error:
        case requests.Timeout():
            return "the server does not answer in time"
        case requests.ConnectionError():
            return "the server cannot be reached"
        case requests.RequestException():
            return f"the download fails ({type(error).__name__})"
    return error.strerror or str(error) or type(error).__name__


def _recognised(place: str, stop_flag: Event) -> Source:
    source = Source(place, None)
    try:
        if place == STDIN or not (_is_url(place) or _is_file(place)):
            return source
        with source.parts(stop_flag) as parts:
            part = next(parts, None)
            if part is None or part.name:
                # Each file of an archive has its own kind.
                return source
            first_lines = next((block.lines for block in read_blocks(part.stream)), [])
    except OSError as error:
        raise UnreadableSource(f"{source} cannot be read: {explain(error)}") from error
    except DamagedInput as error:
        raise UnreadableSource(f"{source} cannot be read: {error}") from error
    kind = recognise(first_lines, source.file_name)
    if kind is None:
        raise SourceError(f"{source} cannot be used: {UNKNOWN_KIND}")
    return Source(place, kind)


def _files(folder: Path) -> list[str]:
    try:
        return sorted(
            str(path)
            for path in folder.iterdir()
            if path.is_file() and not path.name.startswith(".")
        )
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {explain(error)}") from error


def _is_url(place: str) -> bool:
    return place.lower().startswith(("http://", "https://"))


def _is_folder(place: str) -> bool:
    return place != STDIN and not _is_url(place) and Path(place).is_dir()


def _is_file(place: str) -> bool:
    """Return whether a place is a regular file; raise `FileNotFoundError` if it does not exist."""
    path = Path(place)
    path.stat()
    return path.is_file()


def _identity(place: str) -> str:
    """Return a key that identifies an input, however its place is written."""
    return place if place == STDIN or _is_url(place) else str(Path(place).resolve())
