"""Intervals hold the truth as often as they say."""

from __future__ import annotations

import random

import pytest

from artwork_backfill.shared.audit.sampling import Interval, Stratum, allocate, estimate


@pytest.mark.parametrize(
    ("populations", "sample", "allocated"),
    [
        ([10, 5], 100, [10, 5]),
        ([9_000, 1_000], 1_000, [876, 124]),
        ([1_000_000, 100], 1_000, [970, 30]),
        ([1_000_000, 10], 1_000, [990, 10]),
        ([0, 1_000_000], 1_000, [0, 1_000]),
    ],
)
def test_a_sample_is_shared_out_by_size_with_a_floor(
    populations: list[int], sample: int, allocated: list[int]
) -> None:
    assert allocate(populations, sample) == allocated


def test_a_sample_of_everything_is_exact() -> None:
    strata = [Stratum("release", 50, 50), Stratum("event", 7, 7)]

    assert estimate(strata, {"release": 3, "event": 1}) == Interval(4.0, 4.0, 4.0)


def test_nothing_found_still_leaves_room_for_some() -> None:
    interval = estimate([Stratum("release", 1_000_000, 1_000)], {})

    assert interval.estimate == interval.low == 0.0
    assert 3_000 < interval.high < 5_000


def test_a_stratum_without_a_sample_may_hold_anything() -> None:
    interval = estimate(
        [Stratum("release", 1_000, 1_000), Stratum("event", 500, 0)], {"release": 2}
    )

    assert interval == Interval(2.0, 2.0, 502.0)


@pytest.mark.parametrize("shares", [(0.3, 0.05), (0.02, 0.3), (0.001, 0.001), (0.9, 0.5)])
def test_the_truth_lies_inside_95_times_in_100(shares: tuple[float, float]) -> None:
    chance = random.Random(7)
    populations = (20_000, 3_000)
    truth = [round(share * size) for share, size in zip(shares, populations, strict=True)]
    sampled = allocate(populations, 1_000)
    rounds = 1_000
    inside = 0
    for _ in range(rounds):
        found = {
            name: sum(place < hits for place in chance.sample(range(size), count))
            for name, size, count, hits in zip(("a", "b"), populations, sampled, truth, strict=True)
        }
        strata = [
            Stratum(name, size, count)
            for name, size, count in zip(("a", "b"), populations, sampled, strict=True)
        ]
        interval = estimate(strata, found)
        inside += interval.low <= sum(truth) <= interval.high
    assert inside / rounds >= 0.935
