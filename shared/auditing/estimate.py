"""Estimates of what a full audit would find, from a random sample. Only reads.

Gids are random, so entities with adjacent gids have nothing else in common: short ranges of the
unique index from random positions are a random sample, and need no scan of the table. The sample is
drawn by strata (entity type; with art, without, or gone), because those differ in everything that
an audit counts.
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
from operator import attrgetter
from typing import Final
from uuid import UUID

from psycopg import Connection

from artwork_backfill.shared.audit.archives import ART_ARCHIVES, EntityType
from artwork_backfill.shared.audit.decide import Decision, Status
from artwork_backfill.shared.audit.sampling import Interval, Stratum, allocate, estimate
from artwork_backfill.shared.auditing.examination import Examiner
from artwork_backfill.shared.auditing.expectation import look_at
from artwork_backfill.shared.auditing.models import Audit, BadRow, Claim, Deferral, Failure
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.engine.session import count

#: Opens a connection for a short read of the database.
Connect = Callable[[], AbstractContextManager[Connection]]

#: The number of entities from one position of the index, and of entities examined together.
_RANGE: Final = 5
_BATCH: Final = 100


# Read and counted alike for both types; gone gids have no row that could have art.
_WITH_ART: Final = """
musicbrainz.{entity} entity
WHERE EXISTS (SELECT FROM {art}_archive.{art} art WHERE art.{entity} = entity.id)
"""
_WITHOUT_ART: Final = """
musicbrainz.{entity} entity
WHERE NOT EXISTS (SELECT FROM {art}_archive.{art} art WHERE art.{entity} = entity.id)
"""
_MERGED: Final = "musicbrainz.{entity}_gid_redirect WHERE TRUE"
_DELETED: Final = "musicbrainz.deleted_entity WHERE data->>'entity_type' = '{entity}'"


@dataclass(frozen=True, slots=True)
class _Source:
    """One stratum: the rows that it is made of, as what follows FROM in a query."""

    kind: str
    entity_type: EntityType
    rows: str

    @property
    def name(self) -> str:
        return f"{self.entity_type}s {self.kind}"

    def query(self, before: str, after: str = "") -> str:
        """Return a query of the rows."""
        rows = ART_ARCHIVES[self.entity_type].query(self.rows)
        return f"{before} FROM {rows} {after}"


_SOURCES: Final = tuple(
    _Source(kind, entity_type, rows)
    for entity_type in EntityType
    for kind, rows in (
        ("with art", _WITH_ART),
        ("without art", _WITHOUT_ART),
        ("merged", _MERGED),
        ("deleted", _DELETED),
    )
)

#: Names of counts that are estimated in addition to checks and outcomes.
EVENTS: Final = "events"
DELETIONS: Final = "deletions"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a full audit of the population would find, each number with a 95 % interval.

    Attributes
    ----------
    outcomes, checks
        In entities, by status (or `deferred`, `failed`) and by check.
    events, deletions
        In events; their bounds follow from those of the entities that need any.
    requests
        By service.
    unaudited
        The number of entities of the sample that could not be audited: deferred or failed.
    """

    strata: tuple[Stratum, ...]
    outcomes: Mapping[str, Interval]
    checks: Mapping[str, Interval]
    events: Interval
    deletions: Interval
    requests: Mapping[str, float]

    @property
    def population(self) -> int:
        """The number of entities."""
        return sum(stratum.population for stratum in self.strata)

    @property
    def sampled(self) -> int:
        """The number of entities that were audited for this estimate."""
        return sum(stratum.sampled for stratum in self.strata)


@dataclass(slots=True)
class _Tally:
    """The counts in the sample of one stratum."""

    stratum: Stratum
    #: Examined entities that are counted when the time for a second look has come.
    waiting: list[Audit] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)


class Estimator:
    """Draw the sample, audit it without changing anything, and extrapolate.

    Parameters
    ----------
    connect
        Opens a connection for one read of the database; none is open during requests to services.
    seed
        Determines the random positions in the index, so that an estimate can be repeated.
    on_progress
        Called with the number of audited entities and the size of the sample.
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
        """Return the estimate from about `sample` entities, or from all if there are fewer.

        Raises
        ------
        StopRun
            A service is down.
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
        # Last, because a second look must be some seconds later than the first.
        for tally in tallies:
            self._confirm(tally, until=math.inf)
        return _extrapolated(tallies)

    def _count(self, source: _Source) -> int:
        with self._connect() as conn:
            return count(conn, source.query("SELECT count(*)"))

    def _sample(self, source: _Source, size: int) -> list[str]:
        gids: dict[str, None] = {}
        with self._connect() as conn:
            if size:
                # Random positions would take for ever to cover a whole stratum.
                everything = self._range(conn, source, UUID(int=0), size + 1)
                if len(everything) <= size:
                    return everything
            while len(gids) < size:
                start = UUID(int=self._chance.getrandbits(128))
                gids |= dict.fromkeys(self._range(conn, source, start, _RANGE))
        return list(gids)[:size]

    def _range(self, conn: Connection, source: _Source, start: UUID, size: int) -> list[str]:
        query = source.query("SELECT gid", "AND gid >= %(start)s ORDER BY gid LIMIT %(size)s")
        rows = conn.execute(query.encode(), {"start": start, "size": size})
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
        """Count the audits that are ready by `until`, and keep only their counts."""
        before = self._requests()
        ready = [audit for audit in tally.waiting if audit.ready_at <= until]
        tally.waiting = [audit for audit in tally.waiting if audit.ready_at > until]
        for seen in self._examiner.look_again(ready):
            audit = self._examiner.confirm_deletions(seen) if isinstance(seen, Audit) else seen
            if isinstance(audit, Failure):
                tally.outcomes["failed"] += 1
            elif audit is not None:
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
        """Return a number of events, with the bounds of the entities that need any."""
        entities = of(attrgetter("events"), f"entities with {name}")
        events = sum(_scaled(tally, tally.events[name]) for tally in tallies)
        if entities.estimate == 0:
            return Interval(0.0, 0.0, entities.high)
        each = events / entities.estimate
        return Interval(events, entities.low * each, entities.high * each)

    seen = {name for tally in tallies for name, number in tally.outcomes.items() if number}
    services = sorted({name for tally in tallies for name in tally.requests})
    return Estimate(
        strata=strata,
        outcomes={name: of(attrgetter("outcomes"), name) for name in _OUTCOMES if name in seen},
        checks={
            check: of(attrgetter("checks"), check)
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


def _scaled(tally: _Tally, count: int) -> float:
    stratum = tally.stratum
    return count * stratum.population / stratum.sampled if stratum.sampled else 0.0


def audit_seconds(requests: Mapping[str, float], rates: Mapping[str, float | None]) -> float:
    """Return how long the requests take at these rates, in seconds, with services in parallel.

    A rate of None means no limit, and counts as no time.
    """
    return max(
        (number / rate for name, number in requests.items() if (rate := rates.get(name))),
        default=0.0,
    )


def rounded(value: float) -> int:
    """Return a number of entities rounded to two or three digits, as it is only an estimate."""
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
