"""Shares of a population from a stratified random sample, with 95 % intervals.

Pure arithmetic: the caller draws the sample and counts in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: The quantile of the normal distribution for a 95 % interval.
Z_95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Stratum:
    """One part of the population: its number of entities, and how many of them were sampled."""

    name: str
    population: int
    sampled: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A number of entities: the estimate, and the bounds of its 95 % interval."""

    estimate: float
    low: float
    high: float

    def of(self, population: int) -> Interval:
        """Return the interval as shares of a population, from 0 to 1."""
        if population == 0:
            return Interval(0.0, 0.0, 0.0)
        return Interval(self.estimate / population, self.low / population, self.high / population)


def allocate(populations: Sequence[int], sample: int, *, at_least: int = 30) -> list[int]:
    """Return how many entities of each stratum to sample, about `sample` in all.

    In proportion to the strata's sizes, but at least `at_least` of each if it has as many:
    otherwise chance would decide about a small stratum, such as events.
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

    Each stratum's share has a score interval, corrected for a sample that is a large part of its
    stratum. The bounds are combined by the squares of their distances from the estimate (the method
    of variance estimates recovery, Zou and Donner 2008), which keeps the interval correct if
    nothing was found in a stratum.

    Parameters
    ----------
    strata
        All parts of the population. A part without a sample widens the bounds by all its entities.
    found
        The number of sampled entities that have it, by the stratum's name; 0 for a missing name.
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

    Without the correction it contains rare shares, such as one in a thousand, too rarely.
    """
    sampled = stratum.sampled
    if sampled >= stratum.population:
        return share, share
    # A sample without replacement varies less the more of the stratum it covers.
    z2 = Z_95**2 * (stratum.population - sampled) / max(1, stratum.population - 1)
    scale = 2 * (sampled + z2)
    centre = 2 * sampled * share + z2

    def spread(sign: int) -> float:
        inner = z2 - 1 / sampled + 4 * sampled * share * (1 - share) + sign * (4 * share - 2)
        return math.sqrt(z2 * max(0.0, inner)) + 1

    low = 0.0 if share == 0 else max(0.0, (centre - spread(1)) / scale)
    high = 1.0 if share == 1 else min(1.0, (centre + spread(-1)) / scale)
    return low, high
