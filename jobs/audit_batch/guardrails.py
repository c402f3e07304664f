"""Whether entities may be claimed now, and how many.

artwork-indexer processes its queue strictly in order, one event after another. Every event of an
audit delays later edits of users, so audits keep the queue short and wait for other work.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from psycopg import Connection

from artwork_backfill.shared.auditing.queueing import PROTECTING, missing_triggers
from artwork_backfill.shared.engine.job import StopRun, Wait
from artwork_backfill.shared.engine.session import holds, only_row

_HOUR_S: Final = 3600.0

#: The delay before another look, in seconds: what other runs audit soon frees its places.
_LOOK_AGAIN_S: Final = 0.25

# Claimed entities count as well: each may queue an event soon. The first events in the queue show
# whether artwork-indexer works; the number of each changes when it is begun.
_QUEUED: Final = """
SELECT (SELECT count(*) FROM artwork_indexer.event_queue WHERE state IN ('queued', 'running')),
       (SELECT count(*) FROM artwork_indexer.audit_entity WHERE status = 'audit_in_progress'),
       array_agg(id), array_agg(begun)
FROM (
    (SELECT id, attempts + 1 AS begun FROM artwork_indexer.event_queue WHERE state = 'running')
    UNION ALL
    (SELECT id, attempts FROM artwork_indexer.event_queue WHERE state = 'queued'
     ORDER BY created, id LIMIT 1000)
) AS first
"""

# A missing event was withdrawn, which is no sign of work.
_HAS_ENDED: Final = """
SELECT EXISTS (
    SELECT
    FROM artwork_indexer.event_queue
    WHERE id = ANY (%(ids)s::bigint[]) AND state IN ('completed', 'failed'))
"""

# The events that artwork-indexer can work on now: attempts are left, the delay after a failure has
# passed (an hour per attempt), and all events they depend on are completed. An event takes seconds;
# one that began an hour ago belonged to an indexer that was killed, and may stay so for ever.
_IS_INDEXER_BUSY: Final = """
SELECT EXISTS (
    SELECT
    FROM artwork_indexer.event_queue event
    WHERE (state = 'running' AND last_updated > now() - interval '1 hour')
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
        self._neglect = _Neglect(limits.queue_patience)
        self._wanted = 1
        #: The events in the queue if artwork-indexer can work on none of them now, else 0.
        self._resting = 0

    def room(self, conn: Connection, size: int) -> int | Wait:
        """Return how many of `size` entities may be claimed now, or why none may.

        Raises
        ------
        StopRun
            artwork-indexer is not working, or edits of MusicBrainz could fail because of events of
            the audit.
        """
        with self._lock:
            return self._room(conn, size)

    def _room(self, conn: Connection, size: int) -> int | Wait:
        for name, meaning in missing_triggers(conn).items():
            if name in PROTECTING:
                raise StopRun(
                    f"trigger {name} is missing or disabled, so nothing is queued: {meaning};"
                    f" run `ALTER TABLE artwork_indexer.event_queue ENABLE TRIGGER {name}`"
                )
        allowed = self._room_this_hour(size)
        if isinstance(allowed, Wait) or not self._looks_at_queue():
            return allowed
        queued, in_progress, ids, begun = only_row(conn, _QUEUED)
        first = dict(zip(ids or (), begun or (), strict=True))
        is_busy = queued > 0 and holds(conn, _IS_INDEXER_BUSY)
        self._resting = 0 if is_busy else queued
        if self._wanted > 1:
            queued -= self._resting
        obstacle = self._obstacle(queued, is_busy=is_busy)
        self._check_indexer(conn, queued, first if is_busy or obstacle else {}, obstacle)
        if obstacle is not None:
            return Wait(f"{obstacle}: waiting for artwork-indexer")
        if self._limits.max_queue_depth == 0:
            return allowed
        return self._room_in_queue(allowed, queued, in_progress)

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

    def max_depth(self, events: int) -> int:
        """Return how long the queue may be after a repair of this many events; 0 for no limit.

        A repair with more events than the limit gets an empty queue for itself. Events count as
        absent if artwork-indexer could work on none of them: it may retry them in hours.
        """
        limit = self._limits.max_queue_depth
        return limit and self._resting + max(limit, events)

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

    def _obstacle(self, queued: int, *, is_busy: bool) -> str | None:
        """Return why the run may not claim until artwork-indexer has worked, or None."""
        if self._limits.only_when_idle and is_busy:
            return f"artwork-indexer has {queued:,} events to work on"
        limit = self._limits.max_queue_depth
        if limit and queued + self._wanted > limit:
            return (
                f"the event queue holds {queued:,} events, and --max-queue-depth allows {limit:,}"
            )
        return None

    def _check_indexer(
        self, conn: Connection, queued: int, waiting: Mapping[int, int], obstacle: str | None
    ) -> None:
        """Raise `StopRun` if events have waited too long without work of artwork-indexer."""

        def has_ended(ids: Collection[int]) -> bool:
            return holds(conn, _HAS_ENDED, {"ids": sorted(ids)})

        neglected = self._neglect.look(waiting, self._clock(), has_ended)
        if waiting and neglected >= self._limits.queue_patience:
            state = obstacle or f"the event queue holds {queued:,} events"
            raise StopRun(
                f"{state}, and none was finished for {neglected:,.0f} s:"
                " artwork-indexer is not working"
            )

    def _room_in_queue(self, allowed: int, queued: int, in_progress: int) -> int | Wait:
        limit = self._limits.max_queue_depth
        room = limit - queued - in_progress
        if room < self._wanted:
            return Wait(
                "as many entities are being audited as the queue has room for",
                seconds=_LOOK_AGAIN_S,
            )
        # Two batches share the room, so that one is read while the other is written. Smaller ones
        # are no faster when services are slow, and cost more queries.
        return min(allowed, room, max(1, limit // 2))


class _Neglect:
    """The time for which events have waited since artwork-indexer was last seen working.

    Events appear and disappear without it: the audit withdraws deletions that wait, and edits
    withdraw what they replace. So only time counts in which an event waited from one check to the
    next.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._seconds = 0.0
        self._waiting: Mapping[int, int] = {}
        self._looked_at = -math.inf
        self._waited_until = -math.inf

    def look(
        self, waiting: Mapping[int, int], now: float, has_ended: Callable[[Collection[int]], bool]
    ) -> float:
        """Return the seconds.

        Parameters
        ----------
        waiting
            The waiting events, each with a number that changes when artwork-indexer begins it.
        has_ended
            Whether artwork-indexer has finished one of these events, which have left the queue.
        """
        known = self._waiting
        left = known.keys() & waiting.keys()
        if any(waiting[id_] > known[id_] for id_ in left) or (
            known.keys() - left and has_ended(known.keys() - left)
        ):
            self._seconds = 0.0
        elif left:
            self._seconds += now - self._looked_at
            self._waited_until = now
        elif now - self._waited_until >= self._patience:
            # Too long ago to say anything about the present state of artwork-indexer.
            self._seconds = 0.0
        self._waiting = waiting
        self._looked_at = now
        return self._seconds
