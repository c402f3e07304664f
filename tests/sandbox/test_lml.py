"""The stand-in for LML behaves under load, and about what is not cached, as the real one does."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sandbox.httpd import Request, Response
from sandbox.library import Library, LibraryRow, LibrarySpec
from sandbox.lml import Lml, LmlBehaviour, OldLml

LIBRARY = Library(LibrarySpec(seed=3, size=400, timeout_share=0.05, degraded_share=0.05))
UNCACHED = Library(LibrarySpec(seed=3, size=400, uncached_share=1.0))
FALLBACK = "?allow_release_resolution_fallback=true"


def ask(lml: Lml, *rows: LibraryRow, query: str = FALLBACK, headers: str = "") -> Response:
    items = [
        {"artist": row.artist, "album": row.album, "raw_message": f"{row.artist} - {row.album}"}
        for row in rows
    ]
    target = f"/api/v1/lookup/bulk{query}"
    head = f"POST {target} HTTP/1.1\r\nauthorization: Bearer sandbox-lml-key\r\n{headers}"
    return lml(Request(head.encode(), json.dumps({"items": items}).encode()))


def lookups(response: Response) -> list[dict[str, Any]]:
    return [result["lookup"] for result in json.loads(response.body)["results"]]


def rows_of(library: Library, outcome: str) -> list[LibraryRow]:
    return [row for row in library.rows() if row.outcome == outcome]


def lml(library: Library, **options: Any) -> Lml:
    return Lml(library, LmlBehaviour(**options))


def test_all_callers_share_the_permits() -> None:
    server = lml(LIBRARY, permits=5, lookup_s=1.0)
    rows = list(LIBRARY.rows())
    assert ask(server, *rows[:5]).delay_s == pytest.approx(1.0, abs=0.1)
    assert ask(server, rows[5]).delay_s == pytest.approx(2.0, abs=0.1)
    # Seven more after that: all permits but one are taken for another second.
    assert ask(server, *rows[6:13]).delay_s == pytest.approx(3.0, abs=0.1)


def test_a_permit_is_free_again_when_its_lookup_is_done() -> None:
    server = lml(LIBRARY, permits=1, lookup_s=0.05)
    ask(server, LIBRARY.row(1))
    time.sleep(0.06)
    assert ask(server, LIBRARY.row(2)).delay_s == pytest.approx(0.05, abs=0.02)


def test_what_is_not_cached_costs_a_question_to_discogs_once() -> None:
    server = lml(UNCACHED, uncached_s=4.0, lookup_s=0.01, permits=9)
    row = rows_of(UNCACHED, "match")[0]
    first, again = ask(server, row), ask(server, row)
    assert (first.delay_s, again.delay_s) == (pytest.approx(4.0), pytest.approx(0.01, abs=0.01))
    costs = [lookups(answer)[0]["cache_stats"]["api_calls"] for answer in (first, again)]
    assert costs == [1, 0]
    assert server.stats.counts == {"discogs": 1, "asked_again": 1}


def test_without_the_fallback_what_is_not_cached_comes_back_as_a_photo() -> None:
    row = rows_of(UNCACHED, "match")[0]
    (lookup,) = lookups(ask(lml(UNCACHED), row, query=""))
    assert lookup["degraded_reason"] == "cache_only"
    assert row.expected not in json.dumps(lookup)


def test_a_budget_makes_it_give_up_early() -> None:
    row = rows_of(UNCACHED, "match")[0]
    answer = ask(lml(UNCACHED, uncached_s=9.0), row, headers="x-caller-budget-ms: 28000\r\n")
    assert answer.delay_s == pytest.approx(4.0)
    assert lookups(answer)[0]["timeout"] is True


def test_what_it_could_not_say_comes_as_a_success() -> None:
    server = lml(LIBRARY)
    (late,) = lookups(ask(server, rows_of(LIBRARY, "timeout")[0]))
    (cut_off,) = lookups(ask(server, rows_of(LIBRARY, "degraded")[0]))
    assert (late["results"], late["timeout"]) == ([], True)
    assert cut_off["degraded_reason"] == "upstream_unavailable"
    assert cut_off["results"][0]["artwork"] is None


def test_an_old_server_keeps_quiet_about_costs_and_time_outs() -> None:
    server = OldLml(LIBRARY, LmlBehaviour())
    row = rows_of(LIBRARY, "timeout")[0]
    body = json.dumps({"artist": row.artist, "album": row.album, "raw_message": "x"}).encode()
    head = b"POST /api/v1/lookup HTTP/1.1\r\nauthorization: Bearer sandbox-lml-key\r\n"
    assert (
        json.loads(server(Request(head, body)).body)
        .keys()
        .isdisjoint({"timeout", "degraded", "cache_stats"})
    )
    assert ask(server, row).status == 404
