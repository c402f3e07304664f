"""Reading sources one after another, in chunks of gids to seed.

Chunks are bounded, whatever the sources hold. Everything odd is counted and reported with its file
and line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePath
from threading import Event
from typing import Final
from uuid import UUID

from artwork_backfill.jobs.seed_from_img_129.formats import (
    Kind,
    Reader,
    Remark,
    may_be_empty,
    reader_for,
    recognise,
)
from artwork_backfill.jobs.seed_from_img_129.sources import UNKNOWN_KIND, Source, explain
from artwork_backfill.shared.engine.job import Partition, Problem, StopRun
from artwork_backfill.shared.lines import Block, DamagedInput, Part, read_blocks
from artwork_backfill.shared.seeding import share

#: The number of lines of one source that are reported one by one; the counts include all.
_REPORTED_LINES: Final = 20
_SHOWN_BYTES: Final = 100

#: A chunk ends after this many lines even if few of them seed anything, so that progress is shown.
_MOST_LINES: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """Distinct gids of a part of one source.

    `source` is its position and `place` its name, `seeds` the priority by packed gid. `counts` are
    the lines, in all and of each kind of oddity; the first of these are among the `problems`.
    """

    source: int
    place: str
    seeds: Mapping[bytes, int]
    counts: Mapping[str, int]
    problems: tuple[Problem, ...] = ()

    def __str__(self) -> str:
        return ": ".join([self.place, *(str(UUID(bytes=gid)) for gid in islice(self.seeds, 1))])

    @property
    def rows(self) -> int:
        return len(self.seeds)

    def halves(self) -> tuple[Chunk, ...]:
        """Return the two halves of the chunk, or nothing if it holds a single gid."""
        if len(self.seeds) < 2:
            return ()
        seeds, middle = list(self.seeds.items()), len(self.seeds) // 2
        first, rest = dict(seeds[:middle]), dict(seeds[middle:])
        return (replace(self, seeds=first), replace(self, seeds=rest, counts={}, problems=()))


class Reading:
    """One pass over all sources.

    Parameters
    ----------
    include_passed
        Whether to also seed items that passed every check.
    priority
        Replaces every priority, if not `None`.
    partition
        Gids of other partitions are skipped.
    stop_flag
        When it is set, a chunk ends early.
    problems
        Earlier problems, which the first chunk reports.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        include_passed: bool,
        priority: int | None,
        partition: Partition,
        stop_flag: Event,
        problems: Sequence[Problem] = (),
    ) -> None:
        self._sources = sources
        self._include_passed = include_passed
        self._priority = priority
        self._partition = partition
        self._stop_flag = stop_flag
        self._problems = list(problems)
        self._size = 1
        self._chunks = self._read_all()
        #: Whether a source ended because the run is to end.
        self._is_broken_off = False
        #: Whether everything was returned; set one call late if the input ends with a chunk.
        self.finished = False

    def next_chunk(self, size: int) -> Chunk | None:
        """Return the next chunk of at most `size` gids; `None` after the last.

        Raises
        ------
        StopRun
            The stop flag was set before everything was read.
        """
        self._size = size
        is_stopped = self._stop_flag.is_set() and not self.finished
        chunk = None if is_stopped else next(self._chunks, None)
        if is_stopped or (chunk is None and self._is_broken_off):
            raise StopRun("stopped before everything was read: run it again", planned=True)
        self.finished = self.finished or chunk is None
        return chunk

    def _read_all(self) -> Iterator[Chunk]:
        for position, source in enumerate(self._sources):
            yield from self._read(position, source)
            if self._is_broken_off:
                return

    def _read(self, position: int, source: Source) -> Iterator[Chunk]:
        reported = 0
        seeds: dict[bytes, int] = {}
        counts: Counter[str] = Counter()
        usable = 0
        for name, reader, block in self._blocks(source, seeds, counts):
            counts["lines"] += len(block.lines)
            for remark in reader.read(block):
                counts[remark.note.counted_as] += 1
                reported += self._report(name, remark, reported)
            usable += reader.usable
            while len(seeds) >= self._size or self._ends_early(counts):
                yield self._chunk(position, seeds, counts)
        if not usable and not self._is_broken_off and not may_be_empty(source.file_name):
            counts["empty_sources"] += 1
            self._problems.append(Problem(str(source), "it has no usable line"))
        while counts or seeds:
            chunk = self._chunk(position, seeds, counts)
            is_last = source is self._sources[-1] and not self._is_broken_off
            self.finished = not seeds and is_last
            yield chunk

    def _blocks(
        self, source: Source, seeds: dict[bytes, int], counts: Counter[str]
    ) -> Iterator[tuple[str, Reader, Block]]:
        """Yield all blocks of a source with their readers, which fill `seeds`, and their file."""
        try:
            with source.parts(self._stop_flag) as parts:
                for part in parts:
                    name = f"{source}/{part.name}" if part.name else str(source)
                    try:
                        for reader, block in self._read_part(name, part, source.kind, counts):
                            reader.seeds = seeds
                            yield name, reader, block
                    except DamagedInput as error:
                        self._cannot_go_on(f"{name}:{error.line}", str(error), counts)
        except OSError as error:
            self._cannot_go_on(str(source), explain(error), counts)

    def _read_part(
        self, name: str, part: Part, kind: Kind | None, counts: Counter[str]
    ) -> Iterator[tuple[Reader, Block]]:
        reader: Reader | None = None
        for block in read_blocks(part.stream):
            if reader is None:
                kind = kind or recognise(block.lines, PurePath(name).name)
                if kind is None:
                    self._cannot_go_on(f"{name}:1", UNKNOWN_KIND, counts)
                    return
                reader = reader_for(kind, include_passed=self._include_passed)
            yield reader, block

    def _ends_early(self, counts: Counter[str]) -> bool:
        return counts["lines"] >= _MOST_LINES or (self._stop_flag.is_set() and bool(counts))

    def _chunk(self, position: int, seeds: dict[bytes, int], counts: Counter[str]) -> Chunk:
        """Move seeds and counts from what was read to a chunk."""
        # Sorted here, while the last chunk is written, because rows are written in order.
        taken = {gid: seeds.pop(gid) for gid in sorted(islice(seeds, self._size))}
        taken = {gid: taken[gid] for gid in share(taken, self._partition)}
        if self._priority is not None:
            taken = dict.fromkeys(taken, self._priority)
        chunk = Chunk(
            position, str(self._sources[position]), taken, dict(counts), tuple(self._problems)
        )
        counts.clear()
        self._problems.clear()
        return chunk

    # -- reporting -------------------------------------------------------------------------------

    def _report(self, name: str, remark: Remark, reported: int) -> bool:
        """Report a line, unless enough were reported; return whether it was."""
        if not remark.note.meaning or reported == _REPORTED_LINES:
            return False
        detail = f"{remark.note.meaning}: {_shown(remark.text)}"
        if reported == _REPORTED_LINES - 1:
            detail += "; further lines of this file are only counted"
        self._problems.append(Problem(f"{name}:{remark.line}", detail))
        return True

    def _cannot_go_on(self, where: str, reason: str, counts: Counter[str]) -> None:
        if self._stop_flag.is_set():
            # A source that ends because the run ends is not damaged.
            self._is_broken_off = True
            return
        counts["damaged"] += 1
        self._problems.append(Problem(where, f"unreadable from here on: {reason}"))


def _shown(text: bytes) -> str:
    cut = text[:_SHOWN_BYTES]
    try:
        return cut.decode("utf-8")
    except UnicodeDecodeError:
        # Every byte is valid in Latin-1, the encoding of most old files.
        return cut.decode("latin-1")
