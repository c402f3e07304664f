"""What the LML client asks for, and what it makes of the answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import responses

from artwork_backfill.shared.clients.http import CredentialsRefused, NotFound, Unreadable
from artwork_backfill.shared.clients.lml import (
    Artwork,
    BulkAnswer,
    BulkUnsupported,
    LmlClient,
    LmlQuery,
    LookupAnswer,
)
from artwork_backfill.shared.settings import Settings

SAMPLES = Path(__file__).parents[2] / "samples"
BASE = "https://lml.example"
SETTINGS = {"LIBRARY_METADATA_URL": BASE}
LOOKUP = f"{BASE}/api/v1/lookup"
BULK = f"{BASE}/api/v1/lookup/bulk?allow_release_resolution_fallback=true"
QUERY = LmlQuery("Stereolab", "Emperor Tomato Ketchup")
FOUND = Artwork(
    artist="Stereolab",
    album="Emperor Tomato Ketchup",
    release_id=123456,
    url="https://i.discogs.com/abc/rs:fit/R-123456.jpeg",
    confidence=0.95,
)
ANSWER = LookupAnswer((FOUND,), api_calls=0)
KEY = "k3y-of-lml"


@pytest.fixture
def client(time):
    client = LmlClient.from_settings(Settings({**SETTINGS, "LML_API_KEY": KEY}), stop_flag=time)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def mocked():
    with responses.RequestsMock() as mock:
        yield mock


def sample(name: str) -> dict:
    return json.loads((SAMPLES / name).read_text())


class TestLookup:
    def test_reads_an_answer(self, client, mocked):
        mocked.post(LOOKUP, json=sample("lml-lookup.json"))
        assert client.lookup(QUERY) == ANSWER

    def test_sends_what_lml_wants_to_know(self, client, mocked):
        mocked.post(LOOKUP, json=sample("lml-lookup.json"))
        client.lookup(QUERY)
        request = mocked.calls[0].request
        assert json.loads(request.body) == {
            "artist": "Stereolab",
            "album": "Emperor Tomato Ketchup",
            "raw_message": "Stereolab - Emperor Tomato Ketchup",
        }
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["x-caller-class"] == "5"
        assert request.headers["x-caller-reason"] == "library-artwork-url-backfill"
        # Its mere presence makes LML give up early.
        assert "x-caller-budget-ms" not in request.headers

    def test_gives_up_early_when_it_is_to_be_quick(self, mocked, time):
        mocked.post(LOOKUP, json=sample("lml-lookup.json"))
        client = LmlClient.from_settings(Settings(SETTINGS), stop_flag=time, quick=True)
        client.lookup(QUERY)
        client.close()
        assert "x-caller-budget-ms" in mocked.calls[0].request.headers

    @pytest.mark.parametrize(("bulk_size", "seconds"), [(1, 30), (5, 30), (20, 105), (100, 505)])
    def test_waits_as_long_as_the_albums_of_a_request_may_take(
        self, mocked, time, bulk_size, seconds
    ):
        mocked.post(LOOKUP, json=sample("lml-lookup.json"))
        client = LmlClient.from_settings(Settings(SETTINGS), stop_flag=time, bulk_size=bulk_size)
        client.lookup(QUERY)
        client.close()
        assert mocked.calls[0].request.req_kwargs["timeout"][1] == seconds

    def test_sends_no_key_when_there_is_none(self, mocked, time):
        mocked.post(LOOKUP, json=sample("lml-lookup.json"))
        client = LmlClient.from_settings(Settings(SETTINGS), stop_flag=time)
        client.lookup(QUERY)
        client.close()
        assert "authorization" not in mocked.calls[0].request.headers

    @pytest.mark.parametrize(
        ("result", "expected"),
        [
            ({}, None),
            ({"artwork": None}, None),
            # The row that was asked for is of no interest, whatever it is.
            ({"library_item": "odd", "artwork": None, "new": 1}, None),
            ({"artwork": {}}, Artwork(None, None, None, None, None)),
            (
                {"artwork": {"artwork_url": "", "release_id": 0, "confidence": 1, "new": []}},
                Artwork(None, None, 0, None, 1.0),
            ),
        ],
    )
    def test_does_with_what_there_is(self, client, mocked, result, expected):
        mocked.post(LOOKUP, json={"results": [result], "cache_stats": None})
        assert client.lookup(QUERY) == LookupAnswer((expected,))

    @pytest.mark.parametrize(
        ("flags", "is_sure"),
        [
            ({"timeout": False, "degraded": False}, True),
            ({"timeout": True}, False),
            ({"degraded": True, "degraded_reason": "deadline_exceeded"}, False),
            ({"degraded": True, "degraded_reason": "upstream_unavailable"}, False),
            ({"degraded": True, "degraded_reason": "cache_only"}, True),
            ({"degraded": False, "degraded_reason": "deadline_exceeded"}, True),
        ],
    )
    def test_an_answer_may_say_that_it_is_none(self, client, mocked, flags, is_sure):
        mocked.post(LOOKUP, json={"results": [], **flags})
        assert (client.lookup(QUERY).unsure is None) is is_sure

    @pytest.mark.parametrize(
        ("stats", "calls"),
        [
            ({"api_calls": 3}, 3),
            ({"api_calls": 0}, 0),
            ({}, None),
            ({"api_calls": "3"}, None),
            ({"api_calls": -1}, None),
            ({"api_calls": True}, None),
            ([], None),
        ],
    )
    def test_reads_how_many_questions_to_discogs_it_cost(self, client, mocked, stats, calls):
        mocked.post(LOOKUP, json={"results": [], "cache_stats": stats})
        assert client.lookup(QUERY).api_calls == calls

    @pytest.mark.parametrize(
        "document",
        [
            [],
            {},
            {"results": None},
            {"results": {}},
            {"results": ["text"]},
            {"results": [{"artwork": {"album": 1}}]},
            {"results": [{"artwork": {"artist": []}}]},
            {"results": [{"artwork": {"release_id": "10"}}]},
            {"results": [{"artwork": {"release_id": True}}]},
            {"results": [{"artwork": {"confidence": "high"}}]},
            {"results": [{"artwork": {"confidence": True}}]},
            {"results": [{"artwork": "https://x"}]},
            {"results": [{"artwork": {"artwork_url": ["https://x"]}}]},
        ],
    )
    def test_cannot_read_wrong_shapes(self, client, mocked, document):
        mocked.post(LOOKUP, json=document)
        with pytest.raises(Unreadable):
            client.lookup(QUERY)

    def test_truncates_what_is_longer_than_any_name_or_url(self, client, mocked):
        artwork = {"album": "a" * 70_000, "artist": "b" * 501, "artwork_url": "c" * 1_001}
        mocked.post(LOOKUP, json={"results": [{"artwork": artwork}]})
        assert client.lookup(QUERY).results == (
            Artwork("b" * 500, "a" * 500, None, "c" * 1_000, None),
        )

    def test_reads_the_first_results_only(self, client, mocked):
        mocked.post(LOOKUP, json={"results": [{}] * 100_000})
        assert client.lookup(QUERY) == LookupAnswer((None,) * 50)

    def test_reads_no_answer_that_is_larger_than_any_of_lml(self, client, mocked):
        mocked.post(LOOKUP, json={"results": [], "new": "x" * 1024 * 1024})
        with pytest.raises(Unreadable, match="larger than 1,048,576 bytes"):
            client.lookup(QUERY)
        assert len(mocked.calls) == 1

    @pytest.mark.parametrize("status", [401, 403])
    def test_says_that_the_key_was_refused(self, client, mocked, status):
        mocked.post(LOOKUP, status=status)
        with pytest.raises(CredentialsRefused, match="LML refused LML_API_KEY") as caught:
            client.lookup(QUERY)
        assert KEY not in str(caught.value)

    def test_says_that_a_key_is_wanted(self, mocked, time):
        mocked.post(LOOKUP, status=401)
        client = LmlClient.from_settings(Settings(SETTINGS), stop_flag=time)
        with pytest.raises(CredentialsRefused, match="LML wants LML_API_KEY set"):
            client.lookup(QUERY)
        client.close()

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_is_repeated_after_a_refusal(self, client, mocked, status):
        mocked.post(LOOKUP, status=status)
        mocked.post(LOOKUP, json=sample("lml-lookup.json"))
        assert client.lookup(QUERY) == ANSWER

    def test_at_a_wrong_address_is_not_found(self, client, mocked):
        mocked.post(LOOKUP, status=404)
        with pytest.raises(NotFound, match=r"LML has nothing at https://lml\.example"):
            client.lookup(QUERY)


class TestBulk:
    QUERIES = (QUERY,) * 5

    def test_reads_every_answer(self, client, mocked):
        mocked.post(BULK, json=sample("lml-bulk.json"))
        match, no_match, placeholder, other_album, error = client.lookup_bulk(self.QUERIES)
        assert match == BulkAnswer(0, "answered", ANSWER)
        assert no_match == BulkAnswer(1, "answered", LookupAnswer((), api_calls=0))
        assert placeholder.lookup is not None
        assert "spacer.gif" in placeholder.lookup.results[0].url
        assert other_album.lookup is not None
        assert other_album.lookup.results[0].album == "Dots and Loops"
        assert error == BulkAnswer(4, "failed", None, "TimeoutError")

    def test_asks_beyond_the_cache(self, client, mocked):
        mocked.post(BULK, json=sample("lml-bulk.json"))
        client.lookup_bulk(self.QUERIES)
        assert "allow_release_resolution_fallback=true" in mocked.calls[0].request.url

    def test_no_match_may_come_without_an_answer_of_its_own(self, client, mocked):
        mocked.post(BULK, json={"results": [{"index": 0, "status": "no_match"}]})
        assert client.lookup_bulk((QUERY,)) == (BulkAnswer(0, "answered", LookupAnswer(())),)

    @pytest.mark.parametrize("status", ["match", "no_match"])
    def test_an_answer_within_may_say_that_it_is_none(self, client, mocked, status):
        lookup = {"results": [], "timeout": True}
        mocked.post(BULK, json={"results": [{"index": 0, "status": status, "lookup": lookup}]})
        (answer,) = client.lookup_bulk((QUERY,))
        assert answer.lookup is not None
        assert answer.lookup.unsure is not None

    @pytest.mark.parametrize("status", ["perhaps", None, 7])
    def test_a_status_that_is_not_known_concerns_that_query_alone(self, client, mocked, status):
        document = sample("lml-bulk.json")
        document["results"][1] = {"index": 1, "status": status}
        mocked.post(BULK, json=document)
        answers = client.lookup_bulk(self.QUERIES)
        assert [a.status for a in answers] == [
            "answered",
            "unreadable",
            "answered",
            "answered",
            "failed",
        ]
        assert "unknown status" in answers[1].message

    def test_asks_for_all_of_them_at_once(self, client, mocked):
        mocked.post(BULK, json=sample("lml-bulk.json"))
        client.lookup_bulk(self.QUERIES)
        body = json.loads(mocked.calls[0].request.body)
        assert [item["raw_message"] for item in body["items"]] == [
            "Stereolab - Emperor Tomato Ketchup"
        ] * 5

    def test_answers_are_in_the_order_of_the_queries(self, client, mocked):
        document = sample("lml-bulk.json")
        document["results"].reverse()
        mocked.post(BULK, json=document)
        answers = client.lookup_bulk(self.QUERIES)
        assert [answer.index for answer in answers] == [0, 1, 2, 3, 4]

    def test_one_answer_that_cannot_be_read_leaves_the_others(self, client, mocked):
        document = sample("lml-bulk.json")
        document["results"][2]["lookup"] = {"results": 7}
        document["results"][3]["lookup"] = None
        mocked.post(BULK, json=document)
        answers = client.lookup_bulk(self.QUERIES)
        assert [a.status for a in answers] == [
            "answered",
            "answered",
            "unreadable",
            "unreadable",
            "failed",
        ]
        assert answers[2].message == "the answer has no list of results"

    @pytest.mark.parametrize(
        "results",
        [
            None,
            [],
            [{"index": 0, "status": "no_match"}],
            [{"index": 0, "status": "no_match"}] * 2,
            [{"index": 0, "status": "no_match"}, {"index": 2, "status": "no_match"}],
            [{"index": 0, "status": "no_match"}, {"index": "1", "status": "no_match"}],
            [{"index": 0, "status": "no_match"}, {"index": True, "status": "no_match"}],
            [{"index": 0, "status": "no_match"}, "text"],
        ],
    )
    def test_cannot_read_what_does_not_answer_each_query_once(self, client, mocked, results):
        mocked.post(BULK, json={"results": results})
        with pytest.raises(Unreadable):
            client.lookup_bulk((QUERY, QUERY))

    @pytest.mark.parametrize("status", [404, 405])
    def test_is_not_supported_by_older_servers(self, client, mocked, status):
        mocked.post(BULK, status=status)
        with pytest.raises(BulkUnsupported, match=f"HTTP {status}"):
            client.lookup_bulk((QUERY,))
        assert len(mocked.calls) == 1

    def test_of_nothing_asks_nothing(self, client):
        assert client.lookup_bulk(()) == ()

    def test_takes_no_more_than_the_server_does(self, client):
        with pytest.raises(ValueError, match="101 queries"):
            client.lookup_bulk((QUERY,) * 101)
