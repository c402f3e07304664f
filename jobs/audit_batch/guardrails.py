"""Whether entities may be claimed now, and how many.

artwork-indexer processes its queue strictly in order, one event after another. Every event of an
audit delays later edits of users, so audits keep the queue short and wait for other work.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from psycopg import Connection

from artwork_backfill.shared.engine.job import StopRun, Wait
from artwork_backfill.shared.engine.session import holds, only_row

_HOUR_S: Final = 3600.0

#: The delay before another look, in seconds: entities being audited soon free their places.
_LOOK_AGAIN_S: Final = 0.05

# Claimed entities count as well: each may queue an event soon.
_QUEUED: Final = """
SELECT array_agg(id),
       (SELECT count(*) FROM artwork_indexer.audit_entity WHERE status = 'audit_in_progress')
FROM artwork_indexer.event_queue
WHERE state IN ('queued', 'running')
"""

# The events that artwork-indexer can work on now: attempts are left, the delay after a failure has
# passed (an hour per attempt), and all events they depend on are completed.
_IS_INDEXER_BUSY: Final = """
SELECT EXISTS (
    SELECT
    FROM artwork_indexer.event_queue event
    WHERE state = 'running'
    OR (state = 'queued'
        AND attempts < 5
        AND last_updated <= now() - interval '1 hour' * attempts
        AND NOT EXISTS (
            SELECT
            FROM artwork_indexer.event_queue parent
            WHERE parent.id = ANY (event.depends_on) AND parent.state <> 'completed'))
)
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that the operator sets.

    `max_queue_depth` is in events, 0 for no limit; `queue_patience` in seconds; `max_per_hour` in
    entities, `None` for no limit.
    """

    max_queue_depth: int = 40
    queue_patience: float = 600.0
    only_when_idle: bool = False
    max_per_hour: int | None = None


class Guardrails:
    """Watch the queue and the clock for one run. `clock` is monotonic, in seconds.

    One thread claims entities and another writes them; both report here.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._claimed: deque[tuple[float, int]] = deque()
        self._waits_since: float | None = None
        self._queued: frozenset[int] = frozenset()
        self._wanted = 1

    def room(self, conn: Connection, size: int) -> int | Wait:
        """Return how many of `size` entities may be claimed now, or why none may.

        Raises
        ------
        StopRun
            artwork-indexer is not working.
        """
        with self._lock:
            return self._room(conn, size)

    def _room(self, conn: Connection, size: int) -> int | Wait:
        allowed = self._room_this_hour(size)
        if isinstance(allowed, Wait) or not self._looks_at_queue():
            return allowed
        ids, in_progress = only_row(conn, _QUEUED)
        queued = frozenset(ids or ())
        if (obstacle := self._obstacle(conn, len(queued))) is not None:
            return self._wait_for_indexer(queued, obstacle)
        self._waits_since = None
        if self._limits.max_queue_depth == 0:
            return allowed
        return self._room_in_queue(allowed, len(queued), int(in_progress))

    def claimed(self, entities: int) -> None:
        """Record that this many entities were claimed now."""
        with self._lock:
            self._wanted = 1
            if self._limits.max_per_hour is not None:
                self._claimed.append((self._clock(), entities))

    def postponed(self, events: int) -> None:
        """Record that a repair of this many events found no room, and wait for that much room."""
        with self._lock:
            self._wanted = min(events, self._limits.max_queue_depth)

    def _looks_at_queue(self) -> bool:
        return self._limits.max_queue_depth > 0 or self._limits.only_when_idle

    def _room_this_hour(self, size: int) -> int | Wait:
        if self._limits.max_per_hour is None:
            return size
        now = self._clock()
        while self._claimed and self._claimed[0][0] <= now - _HOUR_S:
            self._claimed.popleft()
        room = self._limits.max_per_hour - sum(entities for _, entities in self._claimed)
        if room > 0:
            return min(size, room)
        return Wait(
            f"{self._limits.max_per_hour:,} entities were audited within the hour",
            seconds=self._claimed[0][0] + _HOUR_S - now,
        )

    def _obstacle(self, conn: Connection, queued: int) -> str | None:
        """Return why the run may not claim until artwork-indexer has worked, or None."""
        if self._limits.only_when_idle and holds(conn, _IS_INDEXER_BUSY):
            return f"artwork-indexer has {queued:,} events to work on"
        limit = self._limits.max_queue_depth
        if limit and queued + self._wanted > limit:
            return (
                f"the event queue holds {queued:,} events, and --max-queue-depth allows {limit:,}"
            )
        return None

    def _wait_for_indexer(self, queued: frozenset[int], obstacle: str) -> Wait:
        now = self._clock()
        has_drained = not self._queued <= queued
        if self._waits_since is None or has_drained:
            self._waits_since = now
        self._queued = queued
        waited = now - self._waits_since
        if waited >= self._limits.queue_patience:
            raise StopRun(
                f"{obstacle}, and none was finished for {waited:,.0f} s:"
                " artwork-indexer is not working"
            )
        return Wait(f"{obstacle}: waiting for artwork-indexer")

    def _room_in_queue(self, allowed: int, queued: int, in_progress: int) -> int | Wait:
        limit = self._limits.max_queue_depth
        room = limit - queued - in_progress
        if room < self._wanted:
            return Wait(
                "as many entities are being audited as the queue has room for",
                seconds=_LOOK_AGAIN_S,
            )
        # Several small batches keep the fetching threads busier than one that fills the queue.
        return min(allowed, room, max(1, limit // 4))
