"""Pages of archive.org's changes: the gids on them, and when to stop.

This module handles the faults of the enumeration; the job decides what to do with the gids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Event
from typing import Final

from artwork_backfill.jobs.seed_from_ia_changes.checkpoint import Checkpoint, day
from artwork_backfill.shared.clients.http import (
    CredentialsRefused,
    Interrupted,
    ServiceDown,
    Unreadable,
)
from artwork_backfill.shared.clients.ia_changes import ChangesClient, ChangesError, ChangesPage
from artwork_backfill.shared.engine.job import Partition, RunFailed, StopRun
from artwork_backfill.shared.seeding import gid_of, share

#: How many pages with few gids are combined, and for how many seconds: nearly all items are not
#: ours, and each transaction has its cost.
_MOST_TOGETHER: Final = 20
_TOGETHER_S: Final = 5.0

#: How long to pause when the service requests it, in seconds.
_REST_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Page:
    """The gids of one or several pages, and their position.

    Parameters
    ----------
    gids
        Packed, distinct, of our partition.
    asked_at
        When the last of the pages was requested, by the database's clock: all changes on them had
        happened by then.
    before, after
        The positions at which they begin and end.
    is_part
        Whether more of the page follows; the position moves only with the last part.
    """

    gids: frozenset[bytes]
    asked_at: datetime
    before: Checkpoint
    after: Checkpoint
    is_part: bool = False

    def __str__(self) -> str:
        return f"page {self.after.pages:,} of archive.org's changes"

    @property
    def rows(self) -> int:
        return len(self.gids)

    def halves(self) -> tuple[Page, ...]:
        """Return parts of the page, or nothing if it holds no gid.

        The final position is a part of its own, so that a gid that cannot be written does not keep
        the run from continuing.
        """
        if not self.gids or (self.is_part and len(self.gids) == 1):
            return ()
        gids = sorted(self.gids)
        middle = len(gids) // 2
        parts = [
            replace(self, gids=frozenset(part), is_part=True)
            for part in (gids[:middle], gids[middle:])
            if part
        ]
        return (*parts, *(() if self.is_part else (replace(self, gids=frozenset()),)))


class Pages:
    """The pages from a checkpoint on, until the service says that the end is near.

    `now` is the database's time when they are opened.
    """

    def __init__(
        self,
        client: ChangesClient,
        start: Checkpoint,
        partition: Partition,
        now: datetime,
        *,
        stop_flag: Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._place = start
        self._partition = partition
        self._opened = now, clock()
        self._stop_flag = stop_flag
        self._clock = clock
        self._is_finished = False
        #: The error that ended the reading, raised after the pages before it.
        self._error: Exception | None = None
        # A cycle of tokens always meets a remembered one if it is replaced at growing intervals.
        self._remembered: str | None = None
        self._asked = 0

    def next_page(self, size: int) -> Page | None:
        """Return the gids of the next pages, about `size` of them; None at the end.

        Raises
        ------
        StopRun
            The service does not answer, or its tokens form a cycle.
        RunFailed
            The service refuses the keys or the token.
        """
        if self._error is not None:
            raise self._error
        if self._is_finished:
            return None
        before, gids = self._place, set[bytes]()
        asked_at, ends_at = self._now(), self._clock() + _TOGETHER_S
        for _ in range(_MOST_TOGETHER):
            now = self._now()
            try:
                ours = self._read(now)
            except (StopRun, RunFailed, Interrupted) as error:
                if self._place is before:
                    raise
                # The pages before it count.
                self._error = error
                break
            asked_at = now
            gids.update(share(ours, self._partition))
            is_enough = len(gids) >= size or self._clock() >= ends_at
            # A cold start is treated differently from the changes that follow it.
            if self._is_finished or is_enough or self._place.is_cold != before.is_cold:
                break
        return Page(frozenset(gids), asked_at, before, self._place)

    def _read(self, asked_at: datetime) -> list[bytes]:
        """Read one page, and move the position behind it."""
        answer = self._ask()
        ours = _gids(answer.identifiers)
        self._move(answer, len(ours), asked_at)
        return ours

    def _ask(self) -> ChangesPage:
        place = self._place
        try:
            return self._client.page(token=place.token, start_date=place.start_date)
        except (CredentialsRefused, ChangesError) as error:
            raise RunFailed(str(error)) from error
        except (ServiceDown, Unreadable) as error:
            raise StopRun(str(error)) from error

    def _move(self, answer: ChangesPage, ours: int, asked_at: datetime) -> None:
        """Move the position behind an answer, and pause if the service requests it."""
        place = replace(
            self._place,
            token=answer.next_token,
            start_date=None,
            pages=self._place.pages + 1,
            identifiers=self._place.identifiers + len(answer.identifiers),
            gids=self._place.gids + ours,
        )
        if answer.is_near_end and place.is_cold:
            # The changes since the start of the list are still to come.
            place = replace(place, token=None, start_date=day(place.started_at), is_cold=False)
        elif answer.is_near_end:
            place = replace(place, caught_up_at=asked_at)
            self._is_finished = True
        else:
            self._refuse_circles(answer.next_token)
            if answer.wants_rest:
                self._stop_flag.wait(_REST_S)
        self._place = place

    def _refuse_circles(self, token: str) -> None:
        if token in (self._place.token, self._remembered):
            raise StopRun(
                "archive.org's Changes API returned the same token twice, so its pages form a"
                " cycle; run again later, and if that does not help, start again with --since DATE"
            )
        self._asked += 1
        if self._asked & (self._asked - 1) == 0:
            self._remembered = token

    def _now(self) -> datetime:
        at, then = self._opened
        return at + timedelta(seconds=self._clock() - then)


def _gids(identifiers: Iterable[str]) -> list[bytes]:
    # Checking the beginning first takes a fifth of the time, because hardly any item is ours.
    gids = map(gid_of, [name for name in identifiers if name.startswith("mbid-")])
    return [gid for gid in gids if gid is not None]
