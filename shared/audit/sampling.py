"""Shares of a population from a stratified random sample, with 95 % intervals.

Pure arithmetic: how the sample is drawn and what is counted in it is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: The quantile of the normal distribution for an interval that holds 95 % of the time.
Z_95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Stratum:
    """One part of the population: how many entities it has, and how many of them were sampled."""

    name: str
    population: int
    sampled: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A number of entities: the estimate, and bounds that hold it 95 % of the time."""

    estimate: float
    low: float
    high: float

    def of(self, population: int) -> Interval:
        """Return the same as shares of a population, 0 to 1."""
        if population == 0:
            return Interval(0.0, 0.0, 0.0)
        return Interval(self.estimate / population, self.low / population, self.high / population)


def allocate(populations: Sequence[int], sample: int, *, at_least: int = 30) -> list[int]:
    """Return how many entities of each stratum to sample, about `sample` in all.

    In proportion to the strata's sizes, but `at_least` so many of each where it has as many: a
    small stratum, such as events, would otherwise be left to luck.
    """
    total = sum(populations)
    if total <= sample:
        return list(populations)
    floors = [min(population, at_least, sample) for population in populations]
    spare = max(0, sample - sum(floors))
    return [
        min(population, floor + round(spare * population / total))
        for population, floor in zip(populations, floors, strict=True)
    ]


def estimate(strata: Sequence[Stratum], found: Mapping[str, int]) -> Interval:
    """Return how many entities of the whole population have what `found` counts in the sample.

    Each stratum's share has a score interval, corrected for a sample that is a good part of its
    stratum; the bounds are combined by the squares of their distances from the estimate
    (the method of variance estimates recovery, Zou and Donner 2008), which keeps the interval
    honest where nothing at all was found in a stratum.

    Parameters
    ----------
    strata
        All parts of the population. One that has entities but no sample makes the bounds wider by
        all that it may hold.
    found
        How many sampled entities have it, by the stratum's name; 0 where the name is absent.
    """
    estimate_ = 0.0
    below = above = unsampled = 0.0
    for stratum in strata:
        if stratum.population == 0:
            continue
        if stratum.sampled == 0:
            unsampled += stratum.population
            continue
        share = found.get(stratum.name, 0) / stratum.sampled
        low, high = _wilson(share, stratum)
        estimate_ += stratum.population * share
        below += (stratum.population * (share - low)) ** 2
        above += (stratum.population * (high - share)) ** 2
    seen = sum(found.values())
    population = sum(stratum.population for stratum in strata)
    return Interval(
        estimate_,
        max(float(seen), estimate_ - math.sqrt(below)),
        min(float(population), estimate_ + math.sqrt(above) + unsampled),
    )


def _wilson(share: float, stratum: Stratum) -> tuple[float, float]:
    """Return the score interval with continuity correction (Newcombe 1998, method 4).

    Without the correction it holds too seldom what is found once in a thousand.
    """
    sampled = stratum.sampled
    if sampled >= stratum.population:
        return share, share
    # A sample without replacement varies less the more of the stratum it takes in.
    z2 = Z_95**2 * (stratum.population - sampled) / max(1, stratum.population - 1)
    scale = 2 * (sampled + z2)
    centre = 2 * sampled * share + z2

    def spread(sign: int) -> float:
        inner = z2 - 1 / sampled + 4 * sampled * share * (1 - share) + sign * (4 * share - 2)
        return math.sqrt(z2 * max(0.0, inner)) + 1

    low = 0.0 if share == 0 else max(0.0, (centre - spread(1)) / scale)
    high = 1.0 if share == 1 else min(1.0, (centre + spread(-1)) / scale)
    return low, high
