"""What the verification proves whoever else writes to the library, and what it cannot know."""

from __future__ import annotations

from collections.abc import Set

import pytest
from artwork_backfill.jobs.library_artwork_url_backfill.library import Census
from artwork_backfill.jobs.library_artwork_url_backfill.verification import Fate, compare, describe
from artwork_backfill.shared.engine.job import Verification

# Rows 1 and 2 have artwork at the start, 3 to 8 are candidates.
BEFORE = Census(8, frozenset({1, 2}), frozenset({3, 4, 5, 6, 7, 8}))
FATES = {
    3: Fate.FILLED,
    4: Fate.FILLED,
    5: Fate.LEFT,
    6: Fate.LEFT,
    7: Fate.GONE,
    8: Fate.NOT_REACHED,
}


def verify(
    with_artwork: set[int],
    candidates: set[int],
    *,
    lost: Set[int] = frozenset(),
    finished: bool = False,
) -> tuple[Verification, Verification]:
    after = Census(8, frozenset(with_artwork), frozenset(candidates))
    gains, left = compare(BEFORE, after, FATES, lost=frozenset(lost), finished=finished)
    return gains, left


def test_an_undisturbed_run_adds_up() -> None:
    gains, left = verify({1, 2, 3, 4}, {5, 6, 8})
    assert (gains.expected, gains.actual, gains.ok) == (2, 2, True)
    assert gains.detail == "2 had artwork before, 4 now"
    assert (left.expected, left.actual, left.ok) == (3, 3, True)
    assert left.detail == "2 of 6 candidates have artwork now (33.3%)"


@pytest.mark.parametrize(
    ("with_artwork", "candidates", "gained"),
    [
        pytest.param({1, 2, 3, 4, 6}, {5, 8}, 3, id="a row without a result is filled"),
        pytest.param({1, 2, 3, 4, 8}, {5, 6}, 3, id="a row not reached is filled"),
        pytest.param({2, 3, 4}, {5, 6, 8}, 2, id="a row filled long ago is emptied or deleted"),
        pytest.param({1, 2, 3}, {5, 6, 8}, 1, id="a row that this run filled is deleted"),
        pytest.param({1, 2, 3, 4}, {5, 6, 8, 9}, 2, id="another row becomes a candidate"),
        pytest.param({1, 2, 3, 4, 9}, {5, 6, 8}, 3, id="another row is filled"),
        pytest.param({1, 2, 3, 4}, {8}, 2, id="rows are marked as unavailable"),
    ],
)
def test_what_others_do_meanwhile_is_no_fault_of_the_run(
    with_artwork: set[int], candidates: set[int], gained: int
) -> None:
    gains, left = verify(with_artwork, candidates)
    assert gains.ok
    assert left.ok
    assert gains.actual == gained


def test_what_others_filled_is_shown() -> None:
    gains, _ = verify({1, 2, 3, 4, 6, 9}, {5, 8})
    assert gains.detail.endswith("; 2 filled by the live site or another run")


def test_a_row_that_was_filled_and_is_empty_again_is_found_out() -> None:
    # Others filled as many, so that the numbers alone would agree.
    gains, left = verify({1, 2, 3, 6}, {4, 5, 8}, lost={4})
    assert (gains.expected, gains.actual, gains.ok) == (2, 2, False)
    assert gains.detail.endswith("; 1 filled by this run and empty again")
    assert (left.expected, left.actual, left.ok) == (2, 3, False)


def test_a_candidate_that_a_finished_run_forgot_is_found_out() -> None:
    _, left = verify({1, 2, 3, 4}, {5, 6, 8}, finished=True)
    assert (left.expected, left.actual, left.ok) == (2, 3, False)
    _, left = verify({1, 2, 3, 4}, {5, 6}, finished=True)
    assert left.ok


def test_a_library_without_candidates_is_in_order() -> None:
    census = Census(2, frozenset({1, 2}), frozenset())
    gains, left = compare(census, census, {}, lost=frozenset(), finished=True)
    assert gains.ok
    assert left.ok
    assert left.detail == "0 of 0 candidates have artwork now (none)"


def test_without_a_run_there_is_nothing_to_compare_with() -> None:
    assert [(note.name, note.value) for note in describe(BEFORE)] == [
        ("rows with artwork", 2),
        ("candidates left", 6),
    ]
