"""What a full audit would find, from a random sample of MusicBrainz's own tables. Only reads.

Gids are random, so entities that follow each other in the order of their gids have nothing else in
common: short ranges of the unique index from random places are a random sample, and cost no scan of
the table. The sample is drawn by strata (entity type; with art, without, or gone), since those
differ in everything that an audit counts.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, LiteralString
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.decide import Decision, Status
from artwork_backfill.shared.audit.sampling import Interval, Stratum, allocate, estimate
from artwork_backfill.shared.auditing.examination import Examiner
from artwork_backfill.shared.auditing.expectation import look_at
from artwork_backfill.shared.auditing.models import Audit, BadRow, Claim, Deferral
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.engine.session import count

#: Opens a connection for one short look at the database.
Connect = Callable[[], AbstractContextManager[Connection]]

#: Entities from one place of the index, and entities that are looked up and examined together.
_RANGE: Final = 5
_BATCH: Final = 100


@dataclass(frozen=True, slots=True)
class _Source:
    """One stratum: how it is counted, and how a range of it is read from a gid on."""

    name: str
    entity_type: EntityType
    count: LiteralString
    range: LiteralString


_COUNT_RELEASES_WITH_ART: Final = """
SELECT count(DISTINCT release) FROM cover_art_archive.cover_art
"""

_COUNT_RELEASES_WITHOUT_ART: Final = """
SELECT (SELECT count(*) FROM musicbrainz.release)
     - (SELECT count(DISTINCT release) FROM cover_art_archive.cover_art)
"""

_COUNT_EVENTS_WITH_ART: Final = """
SELECT count(DISTINCT event) FROM event_art_archive.event_art
"""

_COUNT_EVENTS_WITHOUT_ART: Final = """
SELECT (SELECT count(*) FROM musicbrainz.event)
     - (SELECT count(DISTINCT event) FROM event_art_archive.event_art)
"""

_COUNT_MERGED_RELEASES: Final = "SELECT count(*) FROM musicbrainz.release_gid_redirect"

_COUNT_MERGED_EVENTS: Final = "SELECT count(*) FROM musicbrainz.event_gid_redirect"

_COUNT_DELETED_RELEASES: Final = """
SELECT count(*) FROM musicbrainz.deleted_entity WHERE data->>'entity_type' = 'release'
"""

_COUNT_DELETED_EVENTS: Final = """
SELECT count(*) FROM musicbrainz.deleted_entity WHERE data->>'entity_type' = 'event'
"""

_RELEASES_WITH_ART: Final = """
SELECT gid
FROM musicbrainz.release entity
WHERE gid >= %(start)s
AND EXISTS (SELECT FROM cover_art_archive.cover_art art WHERE art.release = entity.id)
ORDER BY gid
LIMIT %(size)s
"""

_RELEASES_WITHOUT_ART: Final = """
SELECT gid
FROM musicbrainz.release entity
WHERE gid >= %(start)s
AND NOT EXISTS (SELECT FROM cover_art_archive.cover_art art WHERE art.release = entity.id)
ORDER BY gid
LIMIT %(size)s
"""

_EVENTS_WITH_ART: Final = """
SELECT gid
FROM musicbrainz.event entity
WHERE gid >= %(start)s
AND EXISTS (SELECT FROM event_art_archive.event_art art WHERE art.event = entity.id)
ORDER BY gid
LIMIT %(size)s
"""

_EVENTS_WITHOUT_ART: Final = """
SELECT gid
FROM musicbrainz.event entity
WHERE gid >= %(start)s
AND NOT EXISTS (SELECT FROM event_art_archive.event_art art WHERE art.event = entity.id)
ORDER BY gid
LIMIT %(size)s
"""

_MERGED_RELEASES: Final = """
SELECT gid FROM musicbrainz.release_gid_redirect WHERE gid >= %(start)s ORDER BY gid LIMIT %(size)s
"""

_MERGED_EVENTS: Final = """
SELECT gid FROM musicbrainz.event_gid_redirect WHERE gid >= %(start)s ORDER BY gid LIMIT %(size)s
"""

_DELETED_RELEASES: Final = """
SELECT gid
FROM musicbrainz.deleted_entity
WHERE gid >= %(start)s AND data->>'entity_type' = 'release'
ORDER BY gid
LIMIT %(size)s
"""

_DELETED_EVENTS: Final = """
SELECT gid
FROM musicbrainz.deleted_entity
WHERE gid >= %(start)s AND data->>'entity_type' = 'event'
ORDER BY gid
LIMIT %(size)s
"""

_SOURCES: Final = (
    _Source("releases with art", EntityType.RELEASE, _COUNT_RELEASES_WITH_ART, _RELEASES_WITH_ART),
    _Source(
        "releases without art",
        EntityType.RELEASE,
        _COUNT_RELEASES_WITHOUT_ART,
        _RELEASES_WITHOUT_ART,
    ),
    _Source("releases merged", EntityType.RELEASE, _COUNT_MERGED_RELEASES, _MERGED_RELEASES),
    _Source("releases deleted", EntityType.RELEASE, _COUNT_DELETED_RELEASES, _DELETED_RELEASES),
    _Source("events with art", EntityType.EVENT, _COUNT_EVENTS_WITH_ART, _EVENTS_WITH_ART),
    _Source("events without art", EntityType.EVENT, _COUNT_EVENTS_WITHOUT_ART, _EVENTS_WITHOUT_ART),
    _Source("events merged", EntityType.EVENT, _COUNT_MERGED_EVENTS, _MERGED_EVENTS),
    _Source("events deleted", EntityType.EVENT, _COUNT_DELETED_EVENTS, _DELETED_EVENTS),
)

#: What is estimated besides checks and outcomes, as names of counts.
EVENTS: Final = "events"
DELETIONS: Final = "deletions"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a full audit of the population would find, each with a 95 % interval.

    `outcomes` and `checks` are in entities, by status (or `deferred`, `failed`) and by check.
    `events` and `deletions` are in events; their bounds follow from those of the entities that need
    any. `requests` is in requests by service. `unaudited` counts entities of the sample that could
    not be audited: deferred or failed.
    """

    strata: tuple[Stratum, ...]
    outcomes: Mapping[str, Interval]
    checks: Mapping[str, Interval]
    events: Interval
    deletions: Interval
    requests: Mapping[str, float]

    @property
    def population(self) -> int:
        """How many entities there are."""
        return sum(stratum.population for stratum in self.strata)

    @property
    def sampled(self) -> int:
        """How many of them were audited for this estimate."""
        return sum(stratum.sampled for stratum in self.strata)


@dataclass(slots=True)
class _Tally:
    """What was counted in the sample of one stratum."""

    stratum: Stratum
    #: Examined, and not counted before the time for a second look has come.
    waiting: list[Audit] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)


class Estimator:
    """Draws the sample, audits it without writing anything, and extrapolates.

    Parameters
    ----------
    connect
        Opens a connection for one look at the database; none is open while services are asked.
    seed
        Of the random places in the index, so that an estimate can be repeated.
    on_progress
        Told how many entities of how many have been audited.
    """

    def __init__(
        self,
        connect: Connect,
        examiner: Examiner,
        services: Services,
        *,
        seed: int,
        on_progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> None:
        self._connect = connect
        self._examiner = examiner
        self._services = services
        self._chance = random.Random(seed)
        self._on_progress = on_progress

    def estimate(self, sample: int) -> Estimate:
        """Return the estimate from about `sample` entities; all, where there are no more.

        Raises `StopRun` when a service is down.
        """
        populations = [self._count(source) for source in _SOURCES]
        wanted = allocate(populations, sample)
        tallies: list[_Tally] = []
        done = 0
        for source, population, size in zip(_SOURCES, populations, wanted, strict=True):
            gids = self._sample(source, size)
            tally = _Tally(Stratum(source.name, population, len(gids)))
            for start in range(0, len(gids), _BATCH):
                self._examine(source.entity_type, gids[start : start + _BATCH], tally)
                self._confirm(tally, until=time.monotonic())
                done += len(gids[start : start + _BATCH])
                self._on_progress(done, sum(wanted))
            tallies.append(tally)
        # A second look has to be some seconds later than the first.
        for tally in tallies:
            self._confirm(tally, until=math.inf)
        return _extrapolated(tallies)

    def _count(self, source: _Source) -> int:
        with self._connect() as conn:
            return count(conn, source.count)

    def _sample(self, source: _Source, size: int) -> list[str]:
        gids: dict[str, None] = {}
        with self._connect() as conn:
            if size:
                # A stratum that is wanted whole would take random places for ever.
                everything = self._range(conn, source, UUID(int=0), size + 1)
                if len(everything) <= size:
                    return everything
            while len(gids) < size:
                start = UUID(int=self._chance.getrandbits(128))
                gids |= dict.fromkeys(self._range(conn, source, start, _RANGE))
        return list(gids)[:size]

    def _range(self, conn: Connection, source: _Source, start: UUID, size: int) -> list[str]:
        rows = conn.execute(source.range, {"start": start, "size": size}).fetchall()
        return [str(gid) for (gid,) in rows]

    def _examine(self, entity_type: EntityType, gids: Sequence[str], tally: _Tally) -> None:
        with self._connect() as conn:
            claims = look_at(conn, entity_type, gids)
        before = self._requests()
        with ThreadPoolExecutor(self._services.concurrency) as pool:
            examined = list(pool.map(self._examine_one, claims))
        tally.waiting += [audit for audit in examined if audit is not None]
        tally.outcomes["failed"] += examined.count(None)
        tally.requests.update(self._requests() - before)

    def _examine_one(self, claim: Claim) -> Audit | None:
        try:
            return self._examiner.examine(claim)
        except BadRow:
            return None

    def _confirm(self, tally: _Tally, *, until: float) -> None:
        """Count the audits that are ready by then, and keep no more of them than the counts."""
        before = self._requests()
        ready = [audit for audit in tally.waiting if audit.ready_at <= until]
        tally.waiting = [audit for audit in tally.waiting if audit.ready_at > until]
        for audit in self._examiner.confirm(ready):
            if audit is not None:
                _count_audit(audit, tally)
        tally.requests.update(self._requests() - before)

    def _requests(self) -> Counter[str]:
        return Counter({name: stats.requests for name, stats in self._services.stats().items()})


def _count_audit(audit: Audit, tally: _Tally) -> None:
    for check in {finding.check for finding in audit.findings}:
        tally.checks[check] += 1
    outcome = audit.outcome
    if isinstance(outcome, Deferral):
        tally.outcomes["deferred"] += 1
        return
    tally.outcomes[outcome.status] += 1
    tally.events[EVENTS] += len(outcome.events)
    tally.events[DELETIONS] += _deletions(outcome)
    if outcome.events:
        tally.events[f"entities with {EVENTS}"] += 1
    if _deletions(outcome):
        tally.events[f"entities with {DELETIONS}"] += 1


def _deletions(decision: Decision) -> int:
    return sum(event.action == "delete_image" for event in decision.events)


def _extrapolated(tallies: Sequence[_Tally]) -> Estimate:
    strata = tuple(tally.stratum for tally in tallies)

    def of(counts: Callable[[_Tally], Mapping[str, int]], name: str) -> Interval:
        found = {tally.stratum.name: counts(tally).get(name, 0) for tally in tallies}
        return estimate(strata, found)

    def of_events(name: str) -> Interval:
        """Return a number of events, bounded as the entities that need any are."""
        entities = of(_events, f"entities with {name}")
        events = sum(_scaled(tally, tally.events[name]) for tally in tallies)
        if entities.estimate == 0:
            return Interval(0.0, 0.0, entities.high)
        each = events / entities.estimate
        return Interval(events, entities.low * each, entities.high * each)

    seen = {name for tally in tallies for name, number in tally.outcomes.items() if number}
    services = sorted({name for tally in tallies for name in tally.requests})
    return Estimate(
        strata=strata,
        outcomes={name: of(_outcomes, name) for name in _OUTCOMES if name in seen},
        checks={
            check: of(_checks, check)
            for check in sorted({check for tally in tallies for check in tally.checks})
        },
        events=of_events(EVENTS),
        deletions=of_events(DELETIONS),
        requests={
            service: sum(_scaled(tally, tally.requests[service]) for tally in tallies)
            for service in services
        },
    )


_OUTCOMES: Final = (*(str(status) for status in Status), "deferred", "failed")


def _outcomes(tally: _Tally) -> Mapping[str, int]:
    return tally.outcomes


def _checks(tally: _Tally) -> Mapping[str, int]:
    return tally.checks


def _events(tally: _Tally) -> Mapping[str, int]:
    return tally.events


def _scaled(tally: _Tally, count: int) -> float:
    stratum = tally.stratum
    return count * stratum.population / stratum.sampled if stratum.sampled else 0.0


def audit_seconds(requests: Mapping[str, float], rates: Mapping[str, float | None]) -> float:
    """Return how long the requests take at these rates, in seconds; services are asked at once.

    A rate of None is no limit, and costs nothing here.
    """
    return max(
        (number / rate for name, number in requests.items() if (rate := rates.get(name))),
        default=0.0,
    )


def rounded(value: float) -> int:
    """Return a number of entities to two or three digits: more would pretend to be known."""
    if value < 1:
        return math.ceil(value) if value else 0
    digits = int(math.log10(value)) + 1
    unit = int(10 ** max(0, digits - 3))
    return round(value / unit) * unit


def strata_lines(strata: Sequence[Stratum]) -> Iterator[tuple[str, int, int]]:
    """Yield name, population and sample of every stratum that has entities."""
    for stratum in strata:
        if stratum.population:
            yield stratum.name, stratum.population, stratum.sampled
