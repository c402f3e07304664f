"""The HTTP layer against a local server that answers well, badly, slowly, or not at all."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import importlib.metadata
import itertools
import json
import socket
import threading
import time as real_time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
import responses

from artwork_backfill.shared.clients._pacing import Health
from artwork_backfill.shared.clients.http import (
    BadAnswer,
    Budget,
    CredentialsRefused,
    HttpClient,
    Interrupted,
    NotFound,
    Origin,
    Response,
    Service,
    ServiceDown,
    TimedOut,
    Unreadable,
    parse_json,
)
from artwork_backfill.shared.settings import SettingsError
from tests.timing import LIMIT_S

SECRET = "Bearer s3cr3t-k3y"


def body_of(response: Response) -> bytes:
    return response.body


def answer_with(*replies):
    """Give one reply after another, the last one for ever; an int is a status."""
    remaining = itertools.chain(replies, itertools.repeat(replies[-1]))

    def respond(exchange):
        reply = next(remaining)
        if callable(reply):
            reply(exchange)
        elif isinstance(reply, int):
            exchange.reply(reply)
        else:
            exchange.reply(200, reply)

    return respond


def stream_for_ever(exchange):
    """Send until the client hangs up."""
    exchange.hang_up()
    for _ in range(2 * 1024):
        exchange.wfile.write(bytes(1024 * 1024))
        exchange.server.streamed += 1024 * 1024


class TestRequests:
    def test_name_us_with_version_and_contact(self, serve, connect):
        server = serve(answer_with(b"ok"))
        connect(server.url, contact="ops@example.org").get("/", body_of)
        version = importlib.metadata.version("artwork-backfill")
        agent = server.seen[0].headers["user-agent"]
        assert agent == f"artwork-backfill/{version} ( ops@example.org )"

    @pytest.mark.parametrize(
        "target", ["/ws/2/event/x?inc=artist-rels+place-rels", "/a%20b?c=%2B", "/metadata/mbid-1"]
    )
    def test_put_the_target_on_the_wire_as_it_is(self, serve, connect, target):
        server = serve(answer_with(b"ok"))
        connect(server.url).get(target, body_of)
        assert server.paths == [target]

    def test_keep_a_path_of_the_base_url(self, serve, connect):
        server = serve(answer_with(b"ok"))
        connect(server.url + "/prefix/").get("/metadata/x", body_of)
        assert server.paths == ["/prefix/metadata/x"]

    def test_share_kept_alive_connections(self, serve, connect):
        server = serve(answer_with(b"ok", 404, 500, b"ok"))
        client = connect(server.url)
        client.get("/1", body_of)
        with pytest.raises(NotFound):
            client.get("/2", body_of)
        client.get("/3", body_of)
        assert len(server.seen) == 4
        assert server.connections == 1

    def test_from_many_threads_share_connections(self, serve, connect):
        server = serve(answer_with(b"ok"))
        client = connect(server.url, concurrency=4)
        with ThreadPoolExecutor(4) as threads:
            bodies = list(threads.map(lambda n: client.get(f"/{n}", body_of), range(200)))
        assert bodies == [b"ok"] * 200
        assert server.connections <= 4
        assert client.stats().requests == 200

    def test_post_json(self, serve, connect):
        server = serve(lambda exchange: exchange.reply(200, exchange.body))
        document = {"artist": "Nilüfer Yanya", "n": 1}
        assert connect(server.url).post_json("/lookup", document, parse_json) == document
        assert server.seen[0].method == "POST"
        assert server.seen[0].headers["content-type"] == "application/json"

    def test_add_nothing_from_netrc_or_cookies(self, serve, connect, monkeypatch, tmp_path):
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login someone password something")
        monkeypatch.setenv("NETRC", str(netrc))
        server = serve(lambda exchange: exchange.reply(200, b"ok", Set_Cookie="a=b; Path=/"))
        client = connect(server.url)
        for _ in range(2):
            client.get("/", body_of)
            assert not {"authorization", "cookie"} & server.seen[-1].headers.keys()

    def test_go_through_the_proxy_of_the_environment(self, serve, connect, monkeypatch):
        proxy = serve(answer_with(b"by proxy"))
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        client = connect("http://service.invalid")
        assert client.get("/x", body_of) == b"by proxy"
        assert proxy.paths == ["http://service.invalid/x"]

    def test_reach_this_machine_without_a_proxy(self, serve, connect, monkeypatch):
        monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
        assert connect(serve(answer_with(b"direct")).url).get("/", body_of) == b"direct"


class TestRetries:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520])
    def test_follow_refusals_and_server_errors(self, serve, connect, status):
        server = serve(answer_with(status, b"ok"))
        client = connect(server.url)
        assert client.get("/", body_of) == b"ok"
        stats = client.stats()
        assert (stats.requests, stats.retries, stats.errors) == (2, 1, 0)

    @pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 410, 451])
    def test_do_not_follow_what_would_stay_so(self, serve, connect, status):
        server = serve(answer_with(status))
        client = connect(server.url)
        with pytest.raises(Unreadable, match=f"HTTP {status}") as caught:
            client.get("/", body_of)
        assert caught.value.status == status
        assert len(server.seen) == 1
        assert client.stats().errors == 1

    def test_back_off_exponentially_with_full_jitter(self, serve, time):
        server = serve(answer_with(500))
        ranges = []

        def uniform(low, high):
            ranges.append((low, high))
            return high / 4

        service = Service(name="T", url_setting="T_URL", base_url=server.url, attempts=5)
        client = HttpClient(service, stop_flag=time, clock=time.clock, uniform=uniform)
        with pytest.raises(Unreadable):
            client.get("/", body_of)
        client.close()
        assert ranges == [(0, 1), (0, 2), (0, 4), (0, 8)]
        assert time.waits == [0.25, 0.5, 1, 2]

    def test_end_with_an_error_that_says_what_to_do(self, serve, connect):
        server = serve(answer_with(502))
        with pytest.raises(Unreadable) as caught:
            connect(server.url).get("/item?x=1", body_of)
        assert str(caught.value) == (
            f"Testing did not answer GET {server.url}/item?x=1 in 4 attempts: HTTP 502. "
            "Try again later; if it persists, check TESTING_URL"
        )
        assert len(server.seen) == 4

    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            ("7", 7),
            ("0", 0),
            ("86400", 60),
            ("9999999999", 60),
            ("9" * 1000, 60),
            (email.utils.formatdate(5_000_030, usegmt=True), 30),
            (email.utils.formatdate(4_999_000, usegmt=True), 0),
            (email.utils.formatdate(9_999_999, usegmt=True), 60),
            ("Fri, 31 Dec 9999 23:59:59 -2359", 60),
            ("Fri, 31 Dec 9999 23:59:59 -0000", 60),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 60),
            ("soon", 0),
            ("-5", 0),
            ("²", 0),
            ("Mon, 99 Foo 99999999999999999999 00:00:00 GMT", 0),
            ("", 0),
        ],
    )
    def test_heed_retry_after(self, serve, time, header, expected):
        server = serve(answer_with(lambda exchange: exchange.reply(503, Retry_After=header), b"ok"))
        service = Service(name="T", url_setting="T_URL", base_url=server.url)
        client = HttpClient(
            service,
            stop_flag=time,
            clock=time.clock,
            wall_clock=lambda: 5_000_000.0,
            uniform=lambda _, high: high,
        )
        assert client.get("/", body_of) == b"ok"
        client.close()
        assert time.waits == [expected + 1]  # and the jitter

    def test_too_many_requests_holds_every_thread_back(self, serve, connect, time):
        server = serve(answer_with(lambda exchange: exchange.reply(429, Retry_After="40"), b"ok"))
        client = connect(server.url, attempts=1)
        with pytest.raises(Unreadable):
            client.get("/refused", body_of)
        client.get("/next", body_of)
        assert time.waits == [40]

    def test_keep_to_the_rate(self, serve, connect, time):
        server = serve(answer_with(500, b"ok"))
        client = connect(server.url, rate=0.5)
        client.get("/1", body_of)
        client.get("/2", body_of)
        # The back-off of 1 s is followed by what is left of the 2 s between requests.
        assert time.waits == [1, 1, 2]

    def test_follow_an_answer_that_the_reader_rejects(self, serve, connect):
        server = serve(answer_with(b"{", b"[]"))
        assert connect(server.url).get("/", parse_json) == []
        assert len(server.seen) == 2

    def test_not_found_is_an_answer(self, serve, connect):
        server = serve(answer_with(404))
        client = connect(server.url)
        with pytest.raises(NotFound, match=f"Testing has nothing at {server.url}/gone"):
            client.get("/gone", body_of)
        assert len(server.seen) == 1
        assert client.stats().errors == 0

    def test_wanted_statuses_reach_the_reader(self, serve, connect):
        server = serve(lambda exchange: exchange.reply(400, b"why"))
        client = connect(server.url)
        assert client.get("/", body_of, also_wanted=frozenset({400})) == b"why"


class TestBrokenAnswers:
    """Each of these must end as Unreadable after all attempts, never as an answer."""

    def unreadable(self, server, connect, **options) -> str:
        client = connect(server.url, attempts=2, **options)
        with pytest.raises(Unreadable) as caught:
            client.get("/", body_of)
        assert len(server.seen) == 2
        assert client.stats().retries == 1
        return str(caught.value)

    def test_connection_refused(self, connect):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            client = connect(url)
            with pytest.raises(Unreadable, match="Connection refused"):
                client.get("/", body_of)
        assert client.stats().requests == 4

    def test_connection_closed_without_an_answer(self, serve, connect):
        reason = self.unreadable(serve(lambda exchange: exchange.hang_up()), connect)
        assert "closed connection without response" in reason

    def test_answer_that_is_not_http(self, serve, connect):
        def respond(exchange):
            exchange.wfile.write(b"SSH-2.0-OpenSSH\r\n")
            exchange.hang_up()

        assert "BadStatusLine" in self.unreadable(serve(respond), connect)

    def test_body_shorter_than_its_length(self, serve, connect):
        def respond(exchange):
            exchange.start(Content_Length="10")
            exchange.wfile.write(b"12345")
            exchange.hang_up()

        assert "IncompleteRead" in self.unreadable(serve(respond), connect)

    def test_chunked_body_without_its_end(self, serve, connect):
        def respond(exchange):
            exchange.start(Transfer_Encoding="chunked")
            exchange.wfile.write(b"5\r\n12345\r\n")
            exchange.hang_up()

        assert "IncompleteRead" in self.unreadable(serve(respond), connect)

    def test_compressed_body_without_its_end(self, serve, connect):
        cut = gzip.compress(b"text" * 100)[:-12]
        server = serve(lambda exchange: exchange.reply(200, cut, Content_Encoding="gzip"))
        assert "cut short" in self.unreadable(server, connect)

    def test_body_that_is_not_compressed_as_it_says(self, serve, connect):
        server = serve(lambda exchange: exchange.reply(200, b"text", Content_Encoding="gzip"))
        assert "incorrect header" in self.unreadable(server, connect)

    def test_encoding_that_was_not_asked_for(self, serve, connect):
        server = serve(lambda exchange: exchange.reply(200, b"text", Content_Encoding="br"))
        assert "'br'" in self.unreadable(server, connect)

    def test_silence(self, serve, connect):
        released = threading.Event()
        server = serve(lambda exchange: released.wait(LIMIT_S))
        reason = self.unreadable(server, connect, read_timeout_s=0.05)
        released.set()
        assert "no complete answer in time" in reason

    @pytest.mark.parametrize("retries", [True, False])
    def test_what_was_given_up_is_sent_again_unless_that_repeats_work(
        self, serve, connect, retries
    ):
        released = threading.Event()
        server = serve(lambda exchange: released.wait(LIMIT_S))
        client = connect(server.url, read_timeout_s=0.05, attempts=2, retries_timeouts=retries)
        with pytest.raises(TimedOut):
            client.get("/", body_of)
        released.set()
        assert len(server.seen) == (2 if retries else 1)

    def test_a_gateways_timeout_is_one_as_well(self, serve, connect):
        server = serve(answer_with(504))
        with pytest.raises(TimedOut):
            connect(server.url, retries_timeouts=False).get("/", body_of)
        assert len(server.seen) == 1

    @pytest.mark.parametrize("part", ["headers", "body", "nothing"])
    def test_what_drips_is_not_waited_for_beyond_the_deadline(self, serve, connect, part):
        hung_up = threading.Event()

        def drip(exchange):
            exchange.hang_up()
            if part == "headers":
                exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            else:
                exchange.start(Content_Length="1000000")
            try:
                while not hung_up.wait(0.01):
                    exchange.wfile.write(b"" if part == "nothing" else b"x")
            except ConnectionError:
                hung_up.set()

        server = serve(drip)
        client = connect(server.url, attempts=1, read_timeout_s=60, deadline_s=0.2)
        began = real_time.monotonic()
        with pytest.raises(Unreadable, match="no complete answer in time"):
            client.get("/", body_of)
        assert real_time.monotonic() - began < 30
        if part != "nothing":
            assert hung_up.wait(LIMIT_S)  # the connection has been closed
        hung_up.set()

    def test_a_connection_with_an_unread_answer_is_not_used_again(self, serve, connect):
        def late(exchange):
            exchange.start(Content_Length="100")
            exchange.wfile.write(b"stale")

        server = serve(answer_with(late, b"fresh"))
        client = connect(server.url, read_timeout_s=0.5)
        assert client.get("/", body_of) == b"fresh"
        assert server.connections == 2


class TestSizes:
    LIMIT = 1000

    def too_large(self, server, connect) -> None:
        server.streamed = 0
        client = connect(server.url, max_bytes=self.LIMIT)
        with pytest.raises(Unreadable, match="larger than 1,000 bytes"):
            client.get("/", body_of)
        # It will not become smaller: no second attempt, and nothing wrong with the service.
        assert len(server.seen) == 1

    @pytest.mark.parametrize("size", [0, 1, 999, 1000])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_up_to_the_limit_is_read(self, serve, connect, size, compressed):
        body = bytes(size)
        headers = {"Content_Encoding": "gzip"} if compressed else {}
        sent = gzip.compress(body) if compressed else body
        server = serve(lambda exchange: exchange.reply(200, sent, **headers))
        assert connect(server.url, max_bytes=self.LIMIT).get("/", body_of) == body

    def test_a_call_may_set_its_own_limit(self, serve, connect):
        client = connect(serve(answer_with(bytes(2000))).url, max_bytes=self.LIMIT)
        assert len(client.get("/", body_of, max_bytes=2000)) == 2000

    def test_an_announced_large_body_is_not_waited_for(self, serve, connect):
        server = serve(lambda exchange: exchange.start(Content_Length=str(self.LIMIT + 1)))
        self.too_large(server, connect)

    def test_a_body_without_end_is_left_early(self, serve, connect):
        def respond(exchange):
            exchange.start(Connection="close")
            stream_for_ever(exchange)

        server = serve(respond)
        self.too_large(server, connect)
        assert server.streamed < 64 * 1024 * 1024

    def test_a_small_body_that_inflates_is_left_early(self, serve, connect):
        bomb = gzip.compress(bytes(32 * 1024 * 1024))
        server = serve(lambda exchange: exchange.reply(200, bomb, Content_Encoding="gzip"))
        client = connect(server.url, max_bytes=100_000)
        tracemalloc.start()
        with pytest.raises(Unreadable, match="larger than 100,000 bytes"):
            client.get("/", body_of)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * 1024 * 1024

    def test_members_of_a_compressed_body_are_joined(self, serve, connect):
        body = gzip.compress(b"one ") + gzip.compress(b"two")
        server = serve(lambda exchange: exchange.reply(200, body, Content_Encoding="gzip"))
        assert connect(server.url).get("/", body_of) == b"one two"

    def test_the_body_of_an_error_is_left_early_too(self, serve, connect):
        def respond(exchange):
            exchange.start(500, Connection="close")
            stream_for_ever(exchange)

        server = serve(respond)
        server.streamed = 0
        with pytest.raises(Unreadable, match="HTTP 500"):
            connect(server.url, attempts=1).get("/", body_of)
        assert server.streamed < 64 * 1024 * 1024


class TestRedirects:
    def test_are_followed_at_the_same_place(self, serve, connect):
        def respond(exchange):
            if exchange.path == "/old":
                exchange.reply(301, b"moved", Location="/new?a=1")
            else:
                exchange.reply(200, b"here")

        server = serve(respond)
        client = connect(server.url)
        assert client.get("/old", body_of) == b"here"
        assert server.paths == ["/old", "/new?a=1"]
        assert client.stats().requests == 2

    def test_are_not_followed_to_strangers(self, serve, connect):
        stranger = serve(answer_with(b"stolen"))
        server = serve(lambda exchange: exchange.reply(302, Location=stranger.url + "/x"))
        with pytest.raises(Unreadable, match=f"{stranger.url}, which is not one of its hosts"):
            connect(server.url).get("/", body_of)
        assert stranger.seen == []

    def test_are_followed_to_friends_but_without_credentials(self, serve, connect):
        friend = serve(answer_with(b"ok"))
        server = serve(lambda exchange: exchange.reply(302, Location=friend.url + "/x"))
        client = connect(
            server.url,
            credentials={"authorization": SECRET},
            may_redirect_to=lambda origin: origin.port == friend.server_port,
        )
        assert client.get("/", body_of, authorized=True) == b"ok"
        assert server.seen[0].headers["authorization"] == SECRET
        assert "authorization" not in friend.seen[0].headers

    def test_take_credentials_along_to_the_trusted(self, serve, connect):
        friend = serve(answer_with(b"ok"))
        server = serve(lambda exchange: exchange.reply(302, Location=friend.url + "/x"))
        client = connect(
            server.url,
            credentials={"authorization": SECRET},
            may_redirect_to=lambda origin: origin.port == friend.server_port,
            trusts=lambda origin: origin.port == friend.server_port,
        )
        client.get("/", body_of, authorized=True)
        assert friend.seen[0].headers["authorization"] == SECRET

    @pytest.mark.parametrize(
        "location",
        [
            "http://service.example/x",
            "//other.example/x",
            "https://service.example:8443/x",
            "https://user:pw@service.example/x",
            "ftp://service.example/x",
            "file:///etc/passwd",
            "https://[::1/x",
            "https://service.example:99999/x",
            None,
        ],
    )
    @responses.activate
    def test_that_lead_astray_are_refused(self, connect, location):
        headers = {} if location is None else {"Location": location}
        responses.get("https://service.example/", status=302, headers=headers)
        with pytest.raises(Unreadable, match="HTTP 302"):
            connect("https://service.example", attempts=1).get("/", body_of)
        assert len(responses.calls) == 1

    @pytest.mark.parametrize(
        ("base_url", "location", "allowed"),
        [
            ("https://service.example", "https://node.example/x", True),
            ("https://service.example", "http://node.example/x", False),
            ("http://service.example", "https://node.example/x", True),
            ("http://service.example", "http://node.example/x", True),
        ],
    )
    @responses.activate
    def test_never_give_up_encryption(self, connect, base_url, location, allowed):
        responses.get(base_url + "/", status=302, headers={"Location": location})
        responses.get(location, body=b"ok")
        client = connect(base_url, attempts=1, may_redirect_to=lambda origin: True)
        if allowed:
            assert client.get("/", body_of) == b"ok"
        else:
            with pytest.raises(Unreadable):
                client.get("/", body_of)

    def test_end_after_five(self, serve, connect):
        server = serve(lambda exchange: exchange.reply(302, Location=exchange.path + "x"))
        with pytest.raises(Unreadable, match="more than 5 redirects"):
            connect(server.url, attempts=1).get("/", body_of)
        assert len(server.seen) == 6

    def test_of_a_post_are_followed_only_where_it_stays_one(self, serve, connect):
        def respond(exchange):
            if exchange.path in ("/301", "/308"):
                exchange.reply(int(exchange.path[1:]), Location="/there")
            else:
                exchange.reply(200, exchange.body)

        server = serve(respond)
        client = connect(server.url, attempts=1)
        assert client.post_json("/308", {"a": 1}, parse_json) == {"a": 1}
        with pytest.raises(Unreadable, match="would turn the POST into a GET"):
            client.post_json("/301", {"a": 1}, parse_json)


class TestAlternatives:
    @pytest.mark.parametrize(
        ("statuses", "outcome", "asked"),
        [
            ({}, b"ok", ["front"]),
            ({"front": 500}, b"ok", ["front", "d1"]),
            ({"front": 503, "d1": 500}, b"ok", ["front", "d1", "d2"]),
            ({"front": 404}, NotFound, ["front"]),
            ({"front": 500, "d1": 404}, b"ok", ["front", "d1", "d2"]),
            ({"front": 500, "d1": 404, "d2": 404}, NotFound, ["front", "d1", "d2"]),
            ({"front": 500, "d1": 404, "d2": 500}, Unreadable, ["front", "d1", "d2"]),
            ({"front": 500, "d1": 500, "d2": 404}, Unreadable, ["front", "d1", "d2"]),
            ({"front": 500, "d1": 500, "d2": 500}, Unreadable, ["front", "d1", "d2"]),
            ({"front": 429}, Unreadable, ["front"]),
            ({"front": 403}, Unreadable, ["front"]),
        ],
    )
    def test_are_asked_in_turn(self, serve, connect, statuses, outcome, asked):
        def respond(exchange):
            status = statuses.get(exchange.path[1:], 200)
            exchange.reply(status, b"ok" if status == 200 else b"")

        server = serve(respond)
        client = connect(server.url, attempts=1)
        alternatives = [server.url + "/d1", server.url + "/d2"]
        if isinstance(outcome, bytes):
            assert client.get("/front", body_of, alternatives=alternatives) == outcome
        else:
            with pytest.raises(outcome):
                client.get("/front", body_of, alternatives=alternatives)
        assert [path[1:] for path in server.paths] == asked

    def test_are_all_asked_before_backing_off(self, serve, connect, time):
        server = serve(answer_with(500, 500, 500, b"ok"))
        alternatives = [server.url + "/d1", server.url + "/d2"]
        assert connect(server.url).get("/front", body_of, alternatives=alternatives) == b"ok"
        assert server.paths == ["/front", "/d1", "/d2", "/front"]
        assert time.waits == [1]

    def test_that_answer_keep_the_service_healthy(self, serve, connect, time):
        server = serve(lambda exchange: exchange.reply(500 if exchange.path == "/front" else 200))
        client = connect(server.url)
        for _ in range(60):
            client.get("/front", body_of, alternatives=[server.url + "/d1"])
            time.now += 10
        assert client.stats().errors == 0


class TestCredentials:
    def test_travel_only_where_they_are_wanted(self, serve, connect):
        server = serve(answer_with(b"ok"))
        client = connect(server.url, credentials={"authorization": SECRET})
        client.get("/open", body_of)
        client.get("/closed", body_of, authorized=True)
        assert "authorization" not in server.seen[0].headers
        assert server.seen[1].headers["authorization"] == SECRET

    @pytest.mark.parametrize("status", [401, 403])
    @pytest.mark.parametrize(
        ("credentials", "message"),
        [({"authorization": SECRET}, "refused TESTING_KEY"), ({}, "wants TESTING_KEY set")],
    )
    def test_refused_end_the_call_without_being_shown(
        self, serve, connect, status, credentials, message
    ):
        server = serve(answer_with(status))
        client = connect(server.url, credentials=credentials, key_settings="TESTING_KEY")
        with pytest.raises(CredentialsRefused, match=message) as caught:
            client.get("/", body_of, authorized=True)
        assert "s3cr3t" not in str(caught.value)
        assert len(server.seen) == 1

    def test_are_not_part_of_the_representation(self):
        service = Service(
            name="T",
            url_setting="T_URL",
            base_url="https://service.example",
            credentials={"authorization": SECRET},
        )
        assert "s3cr3t" not in repr(service)


class TestServices:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"credentials": {"authorization": "hidden\n"}}, "TESTING_KEY cannot be sent"),
            ({"headers": {"mb-set-database": "hidden\n"}}, "mb-set-database cannot be sent"),
        ],
    )
    def test_that_cannot_be_asked_are_refused_by_setting(self, options, message):
        given = {"base_url": "https://service.example", **options}
        with pytest.raises(SettingsError, match=message) as caught:
            Service(name="Testing", url_setting="TESTING_URL", key_settings="TESTING_KEY", **given)
        assert "hidden" not in str(caught.value)

    @pytest.mark.parametrize(
        ("url", "origin"),
        [
            ("https://Archive.ORG/x", ("https", "archive.org", 443)),
            ("http://127.0.0.1:8080", ("http", "127.0.0.1", 8080)),
            ("http://[::1]:80/", ("http", "::1", 80)),
        ],
    )
    def test_origins_compare_without_case_and_default_ports(self, url, origin):
        assert Origin.of(url) == origin


def ask_until_down(client: HttpClient, time) -> ServiceDown | None:
    """Ask every ten seconds for a quarter of an hour, unless the client gives the service up."""
    for _ in range(90):
        try:
            client.get("/", body_of)
        except Unreadable:
            time.now += 10
        except ServiceDown as down:
            return down
    return None


class TestTrouble:
    def test_of_some_minutes_ends_in_service_down(self, serve, connect, time):
        server = serve(answer_with(503))
        client = connect(server.url, patience_s=180)
        began = time.now
        message = str(ask_until_down(client, time))
        assert 180 <= time.now - began < 240
        assert "Testing is down" in message
        assert "HTTP 503" in message
        assert "TESTING_URL" in message
        sent = len(server.seen)
        with pytest.raises(ServiceDown):
            client.get("/", body_of)
        assert len(server.seen) == sent
        # A daemon lives on, and the service recovers.
        time.now += Health.FORGET_AFTER_S + 1
        with pytest.raises(Unreadable):
            client.get("/", body_of)
        assert len(server.seen) > sent

    @pytest.mark.parametrize("retry_after", [{}, {"Retry_After": "60"}])
    def test_without_a_single_answer_ends_at_once_when_the_time_is_up(
        self, serve, connect, time, retry_after
    ):
        server = serve(lambda exchange: exchange.reply(503, **retry_after))
        client = connect(server.url, patience_s=1e9, silence_s=300, call_s=240)
        began = time.now
        message = str(ask_until_down(client, time))
        assert 300 <= time.now - began < 362
        assert "not answered any request for 3" in message

    def test_is_not_what_a_service_dislikes_about_requests(self, serve, connect, time):
        client = connect(serve(answer_with(400)).url)
        assert ask_until_down(client, time) is None

    def test_is_a_service_that_locks_us_out(self, serve, connect, time):
        client = connect(serve(answer_with(403)).url)
        assert ask_until_down(client, time) is not None

    def test_slows_the_rate_down(self, serve, connect, time):
        client = connect(serve(answer_with(500)).url, rate=1, attempts=1)
        for _ in range(12):
            with pytest.raises(Unreadable):
                client.get("/", body_of)
        assert time.waits == [1] * 10 + [2]

    def test_one_refusal_halves_the_rate(self, serve, connect, time):
        client = connect(serve(answer_with(503, b"ok")).url, rate=1, attempts=1)
        with pytest.raises(Unreadable):
            client.get("/refused", body_of)
        for _ in range(2):
            client.get("/", body_of)
        assert time.waits == [1, 2]


class TestCallsAreBounded:
    """One call ends in time, however many attempts and URLs it could still try."""

    def test_over_all_attempts_and_alternatives(self, serve, connect, time):
        def slow(exchange):
            time.now += 25
            exchange.reply(500)

        server = serve(slow)
        with pytest.raises(Unreadable, match="not answered within 60 s"):
            connect(server.url, call_s=60.0).get("/", body_of, alternatives=[f"{server.url}/d1"])
        assert len(server.seen) == 3

    def test_by_giving_up_rather_than_waiting_beyond_it(self, serve, connect, time):
        server = serve(lambda exchange: exchange.reply(503, Retry_After="50"))
        with pytest.raises(Unreadable, match="in 2 attempts: HTTP 503"):
            connect(server.url, call_s=100.0).get("/", body_of)
        assert time.waits == [51]

    def test_but_not_by_the_wait_for_turns(self, serve, connect, time):
        client = connect(serve(answer_with(b"ok")).url, rate=0.001, call_s=60.0)
        for _ in range(3):
            assert client.get("/", body_of) == b"ok"

    def test_down_to_the_exchange_that_drips(self, serve, connect):
        def drip(exchange):
            exchange.start(Content_Length="1000000")
            with contextlib.suppress(ConnectionError):
                while True:
                    exchange.wfile.write(b"x")
                    real_time.sleep(0.01)

        client = connect(serve(drip).url, attempts=1, call_s=0.3, deadline_s=60)
        began = real_time.monotonic()
        with pytest.raises(Unreadable, match="no complete answer in time"):
            client.get("/", body_of)
        assert real_time.monotonic() - began < 30


class TestLargeAnswers:
    """What large answers take together is bounded, whatever each of them may take."""

    LARGE = 300_000

    def test_are_read_one_after_another_where_there_is_room_for_one(self, serve, connect, time):
        budget = Budget(self.LARGE)
        server = serve(answer_with(b"x" * self.LARGE))
        clients = [connect(server.url, budget=budget, max_bytes=self.LARGE) for _ in range(2)]
        lock = threading.Lock()
        active = most = 0

        def parse(response):
            nonlocal active, most
            with lock:
                active += 1
                most = max(most, active)
            real_time.sleep(0.02)
            with lock:
                active -= 1
            return len(response.body)

        with ThreadPoolExecutor(8) as threads:
            sizes = list(threads.map(lambda n: clients[n % 2].get("/", parse), range(16)))
        assert sizes == [self.LARGE] * 16
        assert most == 1
        assert budget.held == 0

    def test_do_not_hold_small_ones_up(self, serve, connect):
        budget = Budget(self.LARGE)
        client = connect(serve(answer_with(b"x" * Budget.SMALL)).url, budget=budget)
        with budget.scope(), ThreadPoolExecutor(1) as threads:
            budget.take(self.LARGE, float("inf"), threading.Event())
            assert len(threads.submit(client.get, "/", body_of).result(10)) == Budget.SMALL

    def test_wait_no_longer_than_their_exchange_may_take(self, serve, connect):
        budget = Budget(self.LARGE)
        server = serve(answer_with(b"x" * self.LARGE))
        client = connect(server.url, budget=budget, attempts=1, deadline_s=0.2)
        with budget.scope(), ThreadPoolExecutor(1) as threads:
            budget.take(self.LARGE, float("inf"), threading.Event())
            with pytest.raises(Unreadable):
                threads.submit(client.get, "/", body_of).result(10)

    @pytest.mark.parametrize("room", [1, 2, 3])
    def test_of_threads_that_each_need_more_than_their_share_are_all_read(
        self, serve, connect, room
    ):
        budget = Budget(room * self.LARGE)
        client = connect(serve(answer_with(b"x" * self.LARGE)).url, budget=budget, deadline_s=20)

        def work(_: int) -> int:
            with budget.scope():
                return sum(len(client.get("/", body_of)) for _ in range(3))

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(work, range(24))) == [3 * self.LARGE] * 24
        assert budget.held == 0

    def test_are_held_until_the_scope_of_the_thread_ends(self, serve, connect):
        budget = Budget(10 * self.LARGE)
        client = connect(serve(answer_with(b"x" * self.LARGE)).url, budget=budget)
        with budget.scope():
            client.get("/", body_of)
            client.get("/", body_of)
            assert budget.held == 2 * self.LARGE
            with contextlib.suppress(BadAnswer), budget.scope():
                budget.take(5, float("inf"), threading.Event())
                raise BadAnswer("of no use")
            assert budget.held == 2 * self.LARGE
        assert budget.held == 0


class TestStopping:
    def test_ends_waiting_for_another_attempt(self, serve, connect):
        stop_flag = threading.Event()

        def respond(exchange):
            stop_flag.set()
            exchange.reply(503, Retry_After="100")

        server = serve(respond)
        with pytest.raises(Interrupted):
            connect(server.url, stop_flag=stop_flag).get("/", body_of)
        assert len(server.seen) == 1

    def test_ends_waiting_for_a_turn(self, serve, connect):
        stop_flag = threading.Event()
        client = connect(serve(answer_with(b"ok")).url, stop_flag=stop_flag, rate=0.001)
        client.get("/", body_of)
        stop_flag.set()
        with pytest.raises(Interrupted):
            client.get("/", body_of)

    def test_ends_an_exchange_that_drips(self, serve, connect):
        stop_flag = threading.Event()

        def drip(exchange):
            exchange.start(Content_Length="1000000")
            with contextlib.suppress(ConnectionError):
                while True:
                    exchange.wfile.write(b"x")
                    stop_flag.set()
                    real_time.sleep(0.05)

        client = connect(serve(drip).url, stop_flag=stop_flag, attempts=1)
        began = real_time.monotonic()
        with pytest.raises(Interrupted):
            client.get("/", body_of)
        assert real_time.monotonic() - began < 30

    def test_sends_nothing_more_once_the_run_is_stopping(self, serve, connect):
        stop_flag = threading.Event()
        stop_flag.set()
        server = serve(answer_with(b"ok"))
        with pytest.raises(Interrupted):
            connect(server.url, stop_flag=stop_flag).get("/", body_of)
        assert server.seen == []


class TestParseJson:
    def response(self, body: bytes) -> Response:
        return Response(200, {}, body, "http://service.example")

    @pytest.mark.parametrize("document", [{}, [], {"a": [1, None, "ü"]}, "text", 0, None])
    def test_returns_any_document(self, document):
        assert parse_json(self.response(json.dumps(document).encode())) == document

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b'{"files": [{"name": "a"',
            b"<html>",
            b"\xff\xfe\xfd",
            b'{"a": NaN}',
            b"[" * 100_000,
            b"1" * 5000,
        ],
        ids=["empty", "cut", "html", "not-utf8", "nan", "deep", "long-number"],
    )
    def test_asks_again_for_anything_else(self, body):
        with pytest.raises(BadAnswer, match="not valid JSON"):
            parse_json(self.response(body))
