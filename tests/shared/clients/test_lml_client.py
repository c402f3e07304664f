"""What the LML client asks for, and what it makes of the answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import responses
from artwork_backfill.shared.clients import lml
from artwork_backfill.shared.clients.http import CredentialsRefused, NotFound, Unreadable
from artwork_backfill.shared.clients.lml import (
    BulkAnswer,
    BulkUnsupported,
    LmlQuery,
    LookupAnswer,
    LookupResult,
)

SAMPLES = Path(__file__).parent / "samples"
BASE = "https://lml.example"
LOOKUP = f"{BASE}/api/v1/lookup"
BULK = f"{BASE}/api/v1/lookup/bulk"
QUERY = LmlQuery("Stereolab", "Emperor Tomato Ketchup")
FOUND = LookupResult(
    library_item_id=10,
    title="Emperor Tomato Ketchup",
    artist="Stereolab",
    artwork_url="https://i.discogs.com/abc/rs:fit/R-123456.jpeg",
)
KEY = "k3y-of-lml"


@pytest.fixture
def client(time):
    client = lml.connect(base_url=BASE, stopping=time, api_key=KEY)
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
        answer = client.lookup(QUERY)
        assert answer == LookupAnswer((FOUND,))
        assert answer.results[0].has_artwork

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
        assert request.headers["x-caller-budget-ms"] == "28000"
        assert request.req_kwargs["timeout"][1] == 29

    def test_sends_no_key_when_there_is_none(self, mocked, time):
        mocked.post(LOOKUP, json=sample("lml-lookup.json"))
        client = lml.connect(base_url=BASE, stopping=time)
        client.lookup(QUERY)
        client.close()
        assert "authorization" not in mocked.calls[0].request.headers

    @pytest.mark.parametrize(
        ("result", "expected", "has_artwork"),
        [
            ({}, LookupResult(None, None, None, None), False),
            ({"library_item": None, "artwork": None}, LookupResult(None, None, None, None), False),
            ({"artwork": {"artwork_url": ""}}, LookupResult(None, None, None, None), False),
            (
                {"artwork": {"artwork_url": "https://st.discogs.com/x/spacer.gif"}},
                LookupResult(None, None, None, "https://st.discogs.com/x/spacer.gif"),
                False,
            ),
            (
                {"library_item": {"id": 7, "title": "T", "artist": "A", "new": []}, "new": 1},
                LookupResult(7, "T", "A", None),
                False,
            ),
        ],
    )
    def test_does_with_what_there_is(self, client, mocked, result, expected, has_artwork):
        mocked.post(LOOKUP, json={"results": [result], "cache_stats": None})
        answer = client.lookup(QUERY)
        assert answer.results == (expected,)
        assert answer.results[0].has_artwork is has_artwork

    @pytest.mark.parametrize(
        "document",
        [
            [],
            {},
            {"results": None},
            {"results": {}},
            {"results": ["text"]},
            {"results": [{"library_item": []}]},
            {"results": [{"library_item": {"id": "10"}}]},
            {"results": [{"library_item": {"id": True}}]},
            {"results": [{"library_item": {"title": 1}}]},
            {"results": [{"artwork": "https://x"}]},
            {"results": [{"artwork": {"artwork_url": ["https://x"]}}]},
        ],
    )
    def test_cannot_read_wrong_shapes(self, client, mocked, document):
        mocked.post(LOOKUP, json=document)
        with pytest.raises(Unreadable):
            client.lookup(QUERY)

    @pytest.mark.parametrize("status", [401, 403])
    def test_says_that_the_key_was_refused(self, client, mocked, status):
        mocked.post(LOOKUP, status=status)
        with pytest.raises(CredentialsRefused, match="LML refused LML_API_KEY") as caught:
            client.lookup(QUERY)
        assert KEY not in str(caught.value)

    def test_says_that_a_key_is_wanted(self, mocked, time):
        mocked.post(LOOKUP, status=401)
        client = lml.connect(base_url=BASE, stopping=time)
        with pytest.raises(CredentialsRefused, match="LML wants LML_API_KEY set"):
            client.lookup(QUERY)
        client.close()

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_is_repeated_after_a_refusal(self, client, mocked, status):
        mocked.post(LOOKUP, status=status)
        mocked.post(LOOKUP, json=sample("lml-lookup.json"))
        assert client.lookup(QUERY) == LookupAnswer((FOUND,))

    def test_at_a_wrong_address_is_not_found(self, client, mocked):
        mocked.post(LOOKUP, status=404)
        with pytest.raises(NotFound, match=r"LML has nothing at https://lml\.example"):
            client.lookup(QUERY)


class TestBulk:
    QUERIES = (QUERY,) * 5

    def test_reads_every_answer(self, client, mocked):
        mocked.post(BULK, json=sample("lml-bulk.json"))
        match, no_match, placeholder, other_album, error = client.lookup_bulk(self.QUERIES)
        assert match == BulkAnswer(0, "match", LookupAnswer((FOUND,)), None)
        assert no_match == BulkAnswer(1, "no_match", None, None)
        assert placeholder.lookup is not None
        assert not placeholder.lookup.results[0].has_artwork
        assert other_album.lookup is not None
        assert other_album.lookup.results[0].library_item_id == 11
        assert error == BulkAnswer(4, "error", None, "TimeoutError")

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
        assert [a.status for a in answers] == ["match", "no_match", "error", "error", "error"]
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
            [{"index": 0, "status": "no_match"}, {"index": 1, "status": "perhaps"}],
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
