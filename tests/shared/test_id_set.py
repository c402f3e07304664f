"""Tests of the compact set of row ids."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from artwork_backfill.shared.id_set import IdSet

IDS = st.lists(st.integers(1, 300_000) | st.integers(2**40, 2**40 + 100))


@given(IDS, IDS)
def test_it_holds_what_a_set_holds(first: list[int], second: list[int]) -> None:
    ids = IdSet()
    ids.update(first)
    ids.update(second)

    assert list(chain.from_iterable(ids.chunks())) == sorted({*first, *second})
    assert len(ids) == len({*first, *second})


@given(IDS, st.integers(1, 300_000))
def test_it_contains_what_was_added_and_nothing_else(added: list[int], id_: int) -> None:
    ids = IdSet()
    ids.update(added)

    assert (id_ in ids) is (id_ in added)


def test_lists_of_ids_are_bounded() -> None:
    ids = IdSet()
    ids.update(range(1, 200_001))

    assert max(len(chunk) for chunk in ids.chunks()) <= 65_536
