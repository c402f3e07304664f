"""How LML is asked about many albums, and what becomes of every way it may fail to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from artwork_backfill.jobs.library_artwork_url_backfill.lookups import (
    LookupFailed,
    Lookups,
    Pace,
    WrongAddress,
)
from artwork_backfill.shared.clients.http import (
    CredentialsRefused,
    Interrupted,
    NotFound,
    ServiceDown,
    ServiceError,
    TimedOut,
    Unreadable,
)
from artwork_backfill.shared.clients.lml import (
    Artwork,
    BulkAnswer,
    BulkUnsupported,
    LmlQuery,
    LookupAnswer,
)
from tests.fake_time import FakeTime

QUERIES = [LmlQuery("Stereolab", f"Album {number}") for number in range(3)]
NOTHING = LookupAnswer(())


def found(query: LmlQuery, calls: int | None = None) -> LookupAnswer:
    url = "https://i.discogs.com/1.jpg"
    return LookupAnswer((Artwork(query.artist, query.album, 1, url, 1.0),), api_calls=calls)


def error(kind: type[ServiceError], status: int | None = None) -> ServiceError:
    return kind("LML is not well", service="LML", status=status)


class FakeLml:
    """Answers as told, one step of a script at a time, and remembers what it was asked."""

    def __init__(self, bulk: Sequence[Any] = (), single: Sequence[Any] = ()) -> None:
        self._bulk, self._single = iter(bulk), iter(single)
        self.bulks: list[list[LmlQuery]] = []
        self.singles: list[LmlQuery] = []

    def lookup_bulk(self, queries: Sequence[LmlQuery]) -> tuple[BulkAnswer, ...]:
        self.bulks.append(list(queries))
        answer: tuple[BulkAnswer, ...] = _play(self._bulk, queries, answers())
        return answer

    def lookup(self, query: LmlQuery) -> LookupAnswer:
        self.singles.append(query)
        answer: LookupAnswer = _play(self._single, query, found)
        return answer


def _play(script: Iterator[Any], asked: Any, otherwise: Callable[[Any], Any]) -> Any:
    step = next(script, otherwise)
    if isinstance(step, Exception):
        raise step
    return step(asked)


def answers(*statuses: str, calls: int | None = None) -> Callable[[Any], tuple[BulkAnswer, ...]]:
    """Answer a bulk with these statuses; all answered unless given."""

    def answer(queries: Sequence[LmlQuery]) -> tuple[BulkAnswer, ...]:
        wanted = statuses or ("answered",) * len(queries)
        return tuple(
            BulkAnswer(index, status, found(query, calls) if status == "answered" else None, status)  # type: ignore[arg-type]
            for index, (query, status) in enumerate(zip(queries, wanted, strict=True))
        )

    return answer


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def lookups(time: FakeTime) -> Callable[..., Lookups]:
    def make(lml: FakeLml, per_minute: float | None = None) -> Lookups:
        pace = Pace(per_minute and per_minute / 60, time, clock=time.clock)
        return Lookups(lml, discogs=pace, stop_flag=time, clock=time.clock)  # type: ignore[arg-type]

    return make


Make = Callable[..., Lookups]


def test_albums_are_asked_for_together(lookups: Make) -> None:
    lml = FakeLml()
    assert lookups(lml).ask(QUERIES) == list(map(found, QUERIES))
    assert (lml.bulks, lml.singles) == ([QUERIES], [])


def test_nothing_asked_is_nothing_answered(lookups: Make) -> None:
    lml = FakeLml()
    assert lookups(lml).ask([]) == []
    assert lml.bulks == []


def test_an_error_of_one_album_is_asked_again_alone_once(lookups: Make) -> None:
    lml = FakeLml([answers("answered", "failed", "answered")])
    assert lookups(lml).ask(QUERIES) == list(map(found, QUERIES))
    assert lml.singles == [QUERIES[1]]


def test_an_album_that_fails_alone_too_fails_alone(lookups: Make) -> None:
    lml = FakeLml([answers("answered", "failed", "answered")], [error(Unreadable, 500)])
    assert lookups(lml).ask(QUERIES) == [
        found(QUERIES[0]),
        LookupFailed("LML is not well"),
        found(QUERIES[2]),
    ]
    assert lml.singles == [QUERIES[1]]


def test_a_status_that_is_not_known_concerns_that_album_alone(lookups: Make) -> None:
    lml = FakeLml([answers("answered", "unreadable", "answered")])
    assert lookups(lml).ask(QUERIES)[1] == LookupFailed("unreadable")
    assert lml.singles == []


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_repeats_the_same_request_later_and_never_in_pieces(
    lookups: Make, time: FakeTime, status: int
) -> None:
    lml = FakeLml([error(Unreadable, status)] * 3)
    assert lookups(lml).ask(QUERIES) == list(map(found, QUERIES))
    assert (lml.bulks, lml.singles) == ([QUERIES] * 4, [])
    assert time.waits == [2.0, 4.0, 8.0]


def test_a_single_lookup_that_is_refused_is_repeated_as_well(lookups: Make) -> None:
    lml = FakeLml([answers("failed", "answered", "answered")], [error(Unreadable, 429)])
    assert lookups(lml).ask(QUERIES) == list(map(found, QUERIES))
    assert lml.singles == QUERIES[:1] * 2


def test_a_server_that_keeps_refusing_is_down(lookups: Make, time: FakeTime) -> None:
    lml = FakeLml([error(Unreadable, 503)] * 99)
    with pytest.raises(ServiceDown, match="LML has refused for 300 s"):
        lookups(lml).ask(QUERIES)
    assert 300 <= time.now - 1000 <= 400
    assert lml.singles == []


def test_a_run_that_stops_does_not_wait_for_a_refusal_to_pass(
    lookups: Make, time: FakeTime
) -> None:
    time.set()
    with pytest.raises(Interrupted):
        lookups(FakeLml([error(Unreadable, 503)])).ask(QUERIES)


def test_what_took_too_long_is_not_looked_up_again(lookups: Make) -> None:
    lml = FakeLml([error(TimedOut)])
    asking = lookups(lml)
    assert asking.ask(QUERIES) == [LookupFailed("LML is not well")] * 3
    assert (lml.bulks, lml.singles) == ([QUERIES], [])
    # The next albums are looked up together again.
    assert asking.ask(QUERIES) == list(map(found, QUERIES))


@pytest.mark.parametrize("status", [None, 500, 502])
def test_what_cannot_be_answered_together_is_asked_one_by_one(
    lookups: Make, status: int | None
) -> None:
    lml = FakeLml([error(Unreadable, status)], [found, error(Unreadable, status), found])
    assert lookups(lml).ask(QUERIES)[1] == LookupFailed("LML is not well")
    assert lml.singles == QUERIES


@pytest.mark.parametrize(
    "problem",
    [error(ServiceDown), error(CredentialsRefused, 401), Interrupted("the run is stopping")],
)
def test_what_concerns_all_albums_ends_the_run(lookups: Make, problem: Exception) -> None:
    with pytest.raises(type(problem)):
        lookups(FakeLml([problem])).ask(QUERIES)


# -- servers without bulk lookup, and servers that are gone for the moment -------------------------


def test_a_server_without_bulk_is_asked_one_by_one_from_then_on(lookups: Make) -> None:
    lml = FakeLml([error(BulkUnsupported, 404)] * 9)
    asking = lookups(lml)
    for _ in range(2):
        assert asking.ask(QUERIES) == list(map(found, QUERIES))
    # Once more after a single lookup has worked: everything is gone while a version is deployed.
    assert len(lml.bulks) == 2
    assert lml.singles == QUERIES * 2


def test_bulk_that_comes_back_before_a_single_lookup_is_through_is_used(lookups: Make) -> None:
    lml = FakeLml([error(BulkUnsupported, 404)])
    asking = lookups(lml)
    assert asking.ask(QUERIES) == list(map(found, QUERIES))
    asking.ask(QUERIES)
    assert lml.bulks == [QUERIES, QUERIES[1:], QUERIES]
    assert lml.singles == QUERIES[:1]


def test_a_404_after_bulk_has_worked_passes(lookups: Make, time: FakeTime) -> None:
    lml = FakeLml([answers(), *[error(BulkUnsupported, 404)] * 6])
    asking = lookups(lml)
    for _ in range(3):
        assert asking.ask(QUERIES) == list(map(found, QUERIES))
    assert lml.singles == []
    assert len(time.waits) == 6


def test_a_404_of_a_single_lookup_passes_where_another_has_worked(lookups: Make) -> None:
    lml = FakeLml([error(BulkUnsupported, 405)], [found, error(NotFound, 404)])
    assert lookups(lml).ask(QUERIES) == list(map(found, QUERIES))
    assert lml.singles == [QUERIES[0], QUERIES[1], QUERIES[1], QUERIES[2]]


def test_a_server_that_has_neither_is_not_lml(lookups: Make) -> None:
    lml = FakeLml([error(BulkUnsupported, 404)], [error(NotFound, 404)])
    with pytest.raises(WrongAddress, match="check LIBRARY_METADATA_URL"):
        lookups(lml).ask(QUERIES)


# -- questions to Discogs --------------------------------------------------------------------------


def test_questions_to_discogs_keep_to_their_rate(lookups: Make, time: FakeTime) -> None:
    asking = lookups(FakeLml([answers(calls=2)] * 3), per_minute=20)
    for _ in range(3):
        asking.ask(QUERIES)
    # Six questions each time, at three seconds a question; the last have nobody to wait for them.
    assert time.waits == pytest.approx([18.0, 18.0])


def test_cached_albums_go_at_full_speed(lookups: Make, time: FakeTime) -> None:
    asking = lookups(FakeLml([answers(calls=0)] * 3), per_minute=20)
    for _ in range(3):
        asking.ask(QUERIES)
    assert time.waits == []


def test_a_server_that_does_not_say_what_it_cost_is_not_paced(
    lookups: Make, time: FakeTime
) -> None:
    asking = lookups(FakeLml([error(BulkUnsupported, 405)]), per_minute=1)
    asking.ask(QUERIES)
    assert time.waits == []


def test_a_pace_ends_with_the_run(time: FakeTime) -> None:
    pace = Pace(1.0, time, clock=time.clock)
    pace.used(5)
    time.set()
    with pytest.raises(Interrupted):
        pace.wait()
