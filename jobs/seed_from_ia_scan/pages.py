"""Pages of a collection's identifiers, from archive.org's scrape API or an exported list.

This module handles the faults of the enumeration; the job decides what to do with the gids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Final, Protocol
from uuid import UUID

from artwork_backfill.jobs.seed_from_ia_scan.distinct import number_of
from artwork_backfill.shared.audit.archives import ArtArchive
from artwork_backfill.shared.clients.archive_org import (
    ArchiveOrgClient,
    CursorRefused,
    ScrapeError,
    ScrapePage,
)
from artwork_backfill.shared.clients.http import CredentialsRefused, ServiceDown, Unreadable
from artwork_backfill.shared.engine.job import Partition, RunFailed, StopRun
from artwork_backfill.shared.id_set import IdSet
from artwork_backfill.shared.lines import DamagedInput, read_blocks
from artwork_backfill.shared.seeding import gid_of, share

#: How often an implausible page is requested, and the delay between, in seconds.
_ATTEMPTS: Final = 4
PAUSE_S: Final = 1.0

#: A page of at least this many identifiers, none of an entity, answers another query.
_TELLING: Final = 20

_RETRY: Final = "retry later or pass an exported list with --from-list"

#: The number of foreign identifiers of a page that are kept as examples.
_SHOWN: Final = 5

#: A longer line of a list is not an identifier, and is truncated to this many bytes.
_LONGEST_LINE: Final = 100

#: This many pages in a row without a new gid end an enumeration, which might never end otherwise.
_MOST_BARREN: Final = 20

#: Gids are remembered as one of this many numbers each, in at most 16 MiB. Of four million gids, a
#: few per cent seem to be known although they are new, but never a whole page.
_REMEMBERED: Final = 1 << 27

# The start of an identifier, or what a file system leaves of a file that was not fully written.
_CUT_OFF: Final = re.compile(r"m|mb|mbi|mbid|mbid-[0-9a-f-]{0,35}|\0+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """The content of one page, and its position in the enumeration.

    Parameters
    ----------
    number
        Counted from 1 at the start of the enumeration.
    gids
        Packed, distinct, of our partition.
    identifiers, foreign
        The number of identifiers, and of those that belong to no entity; `examples` are some of
        these.
    cursor
        Leads to the next page; `None` after the last.
    total
        The size of the collection according to the service.
    gid_numbers, other_numbers
        The numbers (`distinct.number_of`) of the gids and of all other identifiers.
    is_part
        Whether more of the page follows, so that its cursor is not due yet.
    """

    collection: str
    number: int
    gids: frozenset[bytes]
    identifiers: int
    foreign: int
    examples: tuple[str, ...] = ()
    cursor: str | None = None
    total: int | None = None
    gid_numbers: frozenset[int] = frozenset()
    other_numbers: frozenset[int] = frozenset()
    is_part: bool = False

    def __str__(self) -> str:
        gids = [str(UUID(bytes=gid)) for gid in islice(self.gids, 1)]
        return f"{self.collection}, page {self.number}: {', '.join(gids)}"

    @property
    def rows(self) -> int:
        return len(self.gids)

    def halves(self) -> tuple[Page, ...]:
        """Return the two halves of the page, or nothing if it holds a single gid."""
        gids = sorted(self.gids)
        if len(gids) < 2:
            return ()
        first, rest = frozenset(gids[: len(gids) // 2]), frozenset(gids[len(gids) // 2 :])
        # The cursor belongs to the part that is written last.
        return (
            replace(self, gids=first, examples=(), is_part=True),
            replace(self, gids=rest),
        )


class Pages(Protocol):
    """An enumeration in progress; `finished` after the last page was returned."""

    finished: bool

    def next_page(self, size: int) -> Page:
        """Return the next page, of about `size` identifiers if the size can be chosen."""


class ScrapedPages:
    """An enumeration through the scrape API, page after page by cursor.

    `after` is the number of pages that an earlier run has read, and the cursor of the next one.
    """

    def __init__(
        self,
        client: ArchiveOrgClient,
        archive: ArtArchive,
        partition: Partition,
        stop_flag: Event,
        after: tuple[int, str | None] = (0, None),
    ) -> None:
        self.finished = False
        self._client = client
        self._archive = archive
        self._partition = partition
        self._stop_flag = stop_flag
        self._number, self._cursor = after
        #: Marks of the cursors and pages seen so far; a collection has thousands of pages.
        self._seen = _marks(self._cursor)
        self._known = IdSet()
        self._barren = 0
        self._may_start_over = self._cursor is not None

    def next_page(self, size: int) -> Page:
        """Request the next page; the service decides its size.

        Raises
        ------
        StopRun
            The service does not answer.
        RunFailed
            The service refuses the keys, answers with an error, or repeats pages.
        """
        answer = self._answer()
        self._seen |= _marks(answer.cursor, answer.identifiers)
        self._number += 1
        self._cursor = answer.cursor
        self.finished = answer.cursor is None
        self._look_for_new(answer)
        return _page(
            self._archive,
            answer.identifiers,
            self._number,
            self._partition,
            answer.cursor,
            answer.total,
        )

    def _look_for_new(self, answer: ScrapePage) -> None:
        gids = filter(None, map(gid_of, answer.identifiers))
        numbers = {hash(gid) % _REMEMBERED for gid in gids}
        is_barren = all(number in self._known for number in numbers)
        self._known.update(numbers)
        self._barren = self._barren + 1 if is_barren else 0
        if self._barren == _MOST_BARREN and not self.finished:
            raise RunFailed(
                f"archive.org returned {_MOST_BARREN} pages of {self._archive.collection} in a row"
                f" without a new item, up to page {self._number}; {_RETRY}"
            )

    def _answer(self) -> ScrapePage:
        before: tuple[str, ...] | None = None
        for _ in range(_ATTEMPTS):
            answer = self._ask()
            is_repeated = self._is_repeated(answer)
            # An unusual page may be right, but then a second request returns the same page.
            is_ours = not _is_of_another_query(answer) or answer.identifiers == before
            if is_ours and not is_repeated:
                return answer
            before = answer.identifiers
            self._stop_flag.wait(PAUSE_S)
        wrong = "repeats an earlier one" if is_repeated else "answers another query"
        raise RunFailed(
            f"archive.org returned an inconsistent page (page {self._number + 1} of"
            f" {self._archive.collection} {wrong}); {_RETRY}"
        )

    def _ask(self) -> ScrapePage:
        try:
            return self._client.scrape(self._archive.collection, self._cursor)
        except CredentialsRefused as error:
            raise RunFailed(str(error)) from error
        except CursorRefused as error:
            if not self._may_start_over:
                raise RunFailed(str(error)) from error
            return self._start_over()
        except ScrapeError as error:
            raise RunFailed(
                f"{error}. Run again later: the scan continues at page {self._number + 1}"
            ) from error
        except (ServiceDown, Unreadable) as error:
            raise StopRun(str(error)) from error

    def _start_over(self) -> ScrapePage:
        """Start over after a cursor has expired; gids that already have a row cost little."""
        self._may_start_over = False
        self._number, self._cursor = 0, None
        self._seen = set()
        self._known = IdSet()
        return self._ask()

    def _is_repeated(self, answer: ScrapePage) -> bool:
        return not self._seen.isdisjoint(_marks(answer.cursor, answer.identifiers))


class ListedPages:
    """The identifiers in a file, one per line, plain or compressed.

    The size of a list is unknown, and no position is stored.
    """

    def __init__(self, path: Path, archive: ArtArchive, partition: Partition) -> None:
        self.finished = False
        #: Why and where the reading of the list ended early.
        self.damage: str | None = None
        self._path = path
        self._archive = archive
        self._partition = partition
        self._number = 0
        self._lines = self._read()

    def next_page(self, size: int) -> Page:
        """Return the next `size` identifiers."""
        identifiers = list(islice(self._lines, size))
        self.finished = len(identifiers) < size
        self._number += 1
        return _page(self._archive, identifiers, self._number, self._partition)

    def _read(self) -> Iterator[str]:
        last = ""
        try:
            with self._path.open("rb") as file:
                for block in read_blocks(file):
                    for line in block.lines:
                        # Copied, so that a page does not keep the whole block in memory.
                        if text := line.strip()[:_LONGEST_LINE]:
                            last = text.decode("utf-8", "replace")
                            yield last
            if _CUT_OFF.fullmatch(last):
                self.damage = f"{self._path}: it is cut off in its last line"
        except DamagedInput as error:
            self.damage = f"{self._path}:{error.line}: {error}"
        except OSError as error:
            self.damage = f"{self._path}: {error.strerror}"


def _page(
    archive: ArtArchive,
    identifiers: Sequence[str],
    number: int,
    partition: Partition,
    cursor: str | None = None,
    total: int | None = None,
) -> Page:
    all_gids: set[bytes] = set()
    foreign: list[str] = []
    for identifier in identifiers:
        if (gid := gid_of(identifier)) is not None:
            all_gids.add(gid)
        else:
            foreign.append(identifier)
    gids = frozenset(share(all_gids, partition))
    others = {identifier.encode("utf-8", "surrogatepass") for identifier in foreign}
    return Page(
        archive.collection,
        number,
        gids,
        len(identifiers),
        len(foreign),
        tuple(foreign[:_SHOWN]),
        cursor,
        total,
        frozenset(map(number_of, gids)),
        frozenset(map(number_of, others | (all_gids - gids))),
    )


def _marks(cursor: str | None, identifiers: Sequence[str] = ()) -> set[int]:
    """Return marks that identify a page, in whatever order, and its cursor."""
    marks = set() if cursor is None else {hash(("cursor", cursor))}
    return marks | ({hash(frozenset(identifiers))} if identifiers else set())


def _is_of_another_query(answer: ScrapePage) -> bool:
    identifiers = answer.identifiers
    return len(identifiers) >= _TELLING and not any(map(gid_of, identifiers))
