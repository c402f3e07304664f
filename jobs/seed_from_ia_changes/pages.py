"""Pages of archive.org's changes: what is ours on them, and when to stop asking.

What is here knows how following goes wrong. What becomes of the gids is the job's business.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Event
from typing import Final

from artwork_backfill.jobs.seed_from_ia_changes.checkpoint import Checkpoint, day_of_start
from artwork_backfill.shared.clients.http import (
    CredentialsRefused,
    Interrupted,
    ServiceDown,
    Unreadable,
)
from artwork_backfill.shared.clients.ia_changes import ChangesClient, ChangesError, ChangesPage
from artwork_backfill.shared.engine.job import Partition, RunFailed, StopRun

#: Pages that are taken together while hardly anything on them is ours, and for how long, in
#: seconds: nearly all of archive.org is not, and each transaction has its price.
_MOST_TOGETHER: Final = 20
_TOGETHER_S: Final = 5.0

#: How long to rest when the service asks for it, in seconds.
_REST_S: Final = 5.0

_IDENTIFIER: Final = re.compile(r"mbid-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class Page:
    """What one or several pages name of ours, and where they stand.

    Parameters
    ----------
    gids
        Packed, each once, of our partition.
    asked_at
        When the last of the pages was asked for, by the database's clock: every change that is
        named had happened by then.
    before, after
        The places where they begin and end.
    is_part
        Whether more of the page follows; only with the last part the place moves on.
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
        """Return parts of the page, or nothing when it holds no gid.

        The place where it ends is a part of its own: a gid that cannot be written must not keep the
        run from moving on.
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

    Parameters
    ----------
    now
        The database's time when the pages are opened.
    stop_flag
        Ends every wait.
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
        #: What ended the reading behind pages that are not handed out yet.
        self._error: Exception | None = None
        # Any circle of tokens comes past a remembered one, if it is renewed ever more seldom.
        self._remembered: str | None = None
        self._asked = 0

    def next_page(self, size: int) -> Page | None:
        """Return what the next pages name of ours, about `size` gids; None at the end.

        Raises
        ------
        StopRun
            The service does not answer, or leads in circles.
        RunFailed
            It refuses the keys or the token.
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
                # What was read before it counts.
                self._error = error
                break
            asked_at = now
            gids.update(_share(ours, self._partition))
            is_enough = len(gids) >= size or self._clock() >= ends_at
            # What a cold start names is treated unlike what follows it.
            if self._is_finished or is_enough or self._place.is_cold != before.is_cold:
                break
        return Page(frozenset(gids), asked_at, before, self._place)

    def _read(self, asked_at: datetime) -> list[bytes]:
        """Read one page, and move behind it."""
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
        """Move to the place behind an answer, and rest where the service wants that."""
        place = replace(
            self._place,
            token=answer.next_token,
            start_date=None,
            pages=self._place.pages + 1,
            identifiers=self._place.identifiers + len(answer.identifiers),
            gids=self._place.gids + ours,
        )
        if answer.is_near_end and place.is_cold:
            # What changed while the list was read is still to come.
            place = replace(place, token=None, start_date=day_of_start(place), is_cold=False)
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
                "archive.org's Changes API leads in circles (it returned a token for the second"
                " time). Run again later; if that does not help, start again with --since DATE"
            )
        self._asked += 1
        if self._asked & (self._asked - 1) == 0:
            self._remembered = token

    def _now(self) -> datetime:
        at, then = self._opened
        return at + timedelta(seconds=self._clock() - then)


def _gids(identifiers: Iterable[str]) -> list[bytes]:
    # Looking at the beginning first takes a fifth of the time, since hardly any is ours.
    matches = map(_IDENTIFIER.fullmatch, [name for name in identifiers if name.startswith("mbid-")])
    return [bytes.fromhex(match[1].replace("-", "")) for match in matches if match is not None]


def _share(gids: Iterable[bytes], partition: Partition) -> Iterable[bytes]:
    if partition.count == 1:
        return gids
    share, shares = partition.index, partition.count
    return (gid for gid in gids if int.from_bytes(gid[:4]) % shares == share)
