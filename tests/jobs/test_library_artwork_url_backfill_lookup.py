"""How LML is asked about many albums, and what becomes of every way it may fail to answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from artwork_backfill.jobs.library_artwork_url_backfill.lookup import LookupFailed, Lookups
from artwork_backfill.shared.clients.http import (
    CredentialsRefused,
    Interrupted,
    NotFound,
    ServiceDown,
    ServiceError,
    Unreadable,
)
from artwork_backfill.shared.clients.lml import (
    BulkAnswer,
    BulkUnsupported,
    LmlQuery,
    LookupAnswer,
    LookupResult,
)
from artwork_backfill.shared.engine.job import RunFailed, StopRun

QUERIES = [LmlQuery("Stereolab", f"Album {number}") for number in range(3)]
NOTHING = LookupAnswer(())


def found(query: LmlQuery) -> LookupAnswer:
    return LookupAnswer((LookupResult(1, query.album, query.artist, "https://img.example/1.jpg"),))


def error(kind: type[ServiceError], message: str = "LML is not well") -> ServiceError:
    return kind(message, service="LML")


class FakeLml:
    """Answers as told, and remembers what it was asked."""

    def __init__(
        self,
        bulk: Callable[[Sequence[LmlQuery]], tuple[BulkAnswer, ...]],
        single: Callable[[LmlQuery], LookupAnswer] = found,
    ) -> None:
        self._bulk, self._single = bulk, single
        self.bulks: list[list[LmlQuery]] = []
        self.singles: list[LmlQuery] = []

    def lookup_bulk(self, queries: Sequence[LmlQuery]) -> tuple[BulkAnswer, ...]:
        self.bulks.append(list(queries))
        return self._bulk(queries)

    def lookup(self, query: LmlQuery) -> LookupAnswer:
        self.singles.append(query)
        return self._single(query)


def answers(*statuses: str) -> Callable[[Sequence[LmlQuery]], tuple[BulkAnswer, ...]]:
    """Answer a bulk with these statuses."""

    def answer(queries: Sequence[LmlQuery]) -> tuple[BulkAnswer, ...]:
        return tuple(
            BulkAnswer(index, status, found(query) if status == "match" else None, None)
            for index, (query, status) in enumerate(zip(queries, statuses, strict=True))
        )

    return answer


def raises(problem: Exception) -> Callable[[object], object]:
    def answer(_: object) -> object:
        raise problem

    return answer


def test_albums_are_asked_for_together() -> None:
    lml = FakeLml(answers("match", "no_match", "match"))
    assert Lookups(lml).ask(QUERIES) == [found(QUERIES[0]), NOTHING, found(QUERIES[2])]
    assert (lml.bulks, lml.singles) == ([QUERIES], [])


def test_a_single_album_needs_no_bulk() -> None:
    lml = FakeLml(raises(AssertionError()))
    assert Lookups(lml).ask(QUERIES[:1]) == [found(QUERIES[0])]


def test_nothing_asked_is_nothing_answered() -> None:
    lml = FakeLml(raises(AssertionError()))
    assert Lookups(lml).ask([]) == []


def test_an_error_of_one_album_is_asked_again_alone_once() -> None:
    lml = FakeLml(answers("match", "error", "match"))
    assert Lookups(lml).ask(QUERIES) == list(map(found, QUERIES))
    assert lml.singles == [QUERIES[1]]


def test_an_album_that_fails_alone_too_fails_alone() -> None:
    lml = FakeLml(answers("match", "error", "match"), raises(error(Unreadable, "HTTP 500")))
    assert Lookups(lml).ask(QUERIES) == [
        found(QUERIES[0]),
        LookupFailed("HTTP 500"),
        found(QUERIES[2]),
    ]
    assert lml.singles == [QUERIES[1]]


def test_a_server_without_bulk_is_asked_one_by_one_from_then_on() -> None:
    lml = FakeLml(raises(error(BulkUnsupported)))
    lookups = Lookups(lml)
    for _ in range(2):
        assert lookups.ask(QUERIES) == list(map(found, QUERIES))
    assert len(lml.bulks) == 1
    assert lml.singles == QUERIES * 2


def test_one_by_one_an_album_fails_alone() -> None:
    def single(query: LmlQuery) -> LookupAnswer:
        if query is QUERIES[1]:
            raise error(Unreadable, "HTTP 500")
        return found(query)

    lml = FakeLml(raises(error(BulkUnsupported)), single)
    assert Lookups(lml).ask(QUERIES)[1] == LookupFailed("HTTP 500")


def test_a_bulk_without_an_answer_says_nothing_of_any_album() -> None:
    lml = FakeLml(raises(error(Unreadable)))
    with pytest.raises(Unreadable):
        Lookups(lml).ask(QUERIES)
    assert lml.singles == []


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (error(ServiceDown), StopRun),
        (error(CredentialsRefused), RunFailed),
        (Interrupted("the run is stopping"), Interrupted),
    ],
)
def test_what_concerns_all_albums_ends_the_run(
    problem: Exception, expected: type[Exception], size: int
) -> None:
    lml = FakeLml(raises(problem), raises(problem))
    with pytest.raises(expected, match=str(problem)):
        Lookups(lml).ask(QUERIES[:size])


def test_a_server_that_has_neither_is_not_lml() -> None:
    lml = FakeLml(raises(error(BulkUnsupported)), raises(error(NotFound, "nothing at /lookup")))
    with pytest.raises(RunFailed, match="nothing at /lookup: check LIBRARY_METADATA_URL"):
        Lookups(lml).ask(QUERIES)


def test_a_server_that_was_there_before_only_fails_this_album() -> None:
    lml = FakeLml(answers("match", "error", "match"), raises(error(NotFound, "HTTP 404")))
    assert Lookups(lml).ask(QUERIES)[1] == LookupFailed("HTTP 404")
