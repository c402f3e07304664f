"""Figures that take seconds to count: shown as they were counted last."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from artwork_backfill.dashboard.database import Trouble
from artwork_backfill.dashboard.latest import Counted, Latest


def _until(latest: Latest[int], is_so: Callable[[Counted[int]], bool]) -> Counted[int]:
    while not is_so(counted := latest.get()):
        pass
    return counted


def test_a_visitor_does_not_wait_for_a_count_that_takes_long() -> None:
    may_end = Event()

    def count() -> int:
        may_end.wait()
        return 7

    latest = Latest(count, keep_s=3600, wait_s=0.01)
    assert latest.get() == Counted()
    may_end.set()
    assert _until(latest, lambda counted: counted.at is not None).value == 7


def test_a_count_is_kept_for_a_while() -> None:
    counts = iter(range(2))
    latest = Latest(lambda: next(counts), keep_s=3600, wait_s=60)
    assert [latest.get().value for _ in range(3)] == [0, 0, 0]


def test_a_count_is_repeated_when_it_is_old_and_never_twice_at_once() -> None:
    at_work: list[int] = []
    counts = iter(range(1_000_000))

    def count() -> int:
        at_work.append(1)
        assert len(at_work) == 1
        number = next(counts)
        at_work.pop()
        return number

    latest = Latest(count, keep_s=0, wait_s=60)
    assert _until(latest, lambda counted: (counted.value or 0) >= 3).trouble == ""


def test_what_was_counted_stays_when_the_next_count_fails() -> None:
    answers = iter([5])

    def count() -> int:
        for answer in answers:
            return answer
        raise Trouble("The database cannot be used")

    latest = Latest(count, keep_s=0, wait_s=60)
    counted = _until(latest, lambda counted: counted.trouble != "")
    assert (counted.value, counted.trouble) == (5, "The database cannot be used")
