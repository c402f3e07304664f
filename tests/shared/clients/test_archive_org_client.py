"""What the archive.org client asks for, and what it makes of the answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import responses
from responses import matchers

from artwork_backfill.shared.clients.archive_org import (
    ArchiveOrgClient,
    CursorRefused,
    ScrapeError,
    ScrapePage,
)
from artwork_backfill.shared.clients.http import CredentialsRefused, NotFound, Unreadable
from artwork_backfill.shared.settings import Settings, SettingsError

SAMPLES = Path(__file__).parents[2] / "samples"
GID = "8745795a-190f-4be5-84fd-a8cfe5365cc6"
OTHER_GID = "4a37fa2d-f2d7-440f-8785-9faeecc3f80c"
BASE = "https://archive.org"
METADATA = f"{BASE}/metadata/mbid-{GID}"
FRONT = f"{BASE}/download/mbid-{GID}/index.json"
DIR = f"/3/items/mbid-{GID}"
D1 = "ia600800.us.archive.org"
D2 = "ia800800.us.archive.org"
SCRAPE = f"{BASE}/services/search/v1/scrape"
KEYS = {"ARCHIVE_ORG_ACCESS_KEY": "acc3ss", "ARCHIVE_ORG_SECRET_KEY": "s3cr3t"}


def client_of(url, stop_flag, keys=None):
    environ = {
        "ARCHIVE_ORG_URL": url,
        "ARCHIVE_ORG_RATE": "unlimited",
        "BACKFILL_CONTACT": "ops@example.org",
        **(keys or {}),
    }
    return ArchiveOrgClient.from_settings(Settings(environ), stop_flag=stop_flag)


@pytest.fixture
def client(time):
    client = client_of(BASE, time)
    yield client
    client.close()


@pytest.fixture
def insider(time):
    client = client_of(BASE, time, KEYS)
    yield client
    client.close()


@pytest.fixture
def mocked():
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def asked(mock) -> list[str]:
    return [call.request.url for call in mock.calls]


class TestMetadata:
    @pytest.mark.parametrize(
        "sample", ["archive-org-metadata-missing.json", "archive-org-metadata-dark.json"]
    )
    def test_is_handed_on_as_it_came(self, client, mocked, sample):
        text = (SAMPLES / sample).read_text()
        mocked.get(METADATA, body=text)
        assert client.metadata(GID) == json.loads(text)

    def test_nothing_found_elsewhere_is_no_answer_about_the_item(self, client, mocked):
        elsewhere = f"{BASE}/metadata/somewhere-else"
        mocked.get(METADATA, status=302, headers={"Location": elsewhere})
        mocked.get(elsewhere, body="{}")
        with pytest.raises(Unreadable, match="about something else"):
            client.metadata(GID)

    def test_is_asked_for_in_lower_case(self, client, mocked):
        mocked.get(METADATA, body="{}")
        client.metadata(GID.upper())
        assert asked(mocked) == [METADATA]

    @pytest.mark.parametrize(
        ("trouble", "reason"),
        [
            ('{"error": "Couldn\'t locate item"}', "Couldn't locate item"),
            ('{"error": null, "pending_tasks": false}', "it reports"),
            ('{"servers_unavailable": true, "files": []}', "servers_unavailable"),
            ('{"files": [{"name": "index.js', "not valid JSON"),
            ("", "not valid JSON"),
            ("<html>Temporarily offline</html>", "not valid JSON"),
        ],
        ids=["error", "null-error", "unavailable", "cut", "empty", "html"],
    )
    def test_with_trouble_inside_is_asked_for_again(self, client, mocked, trouble, reason):
        mocked.get(METADATA, body=trouble)
        mocked.get(METADATA, body='{"created": 1}')
        assert client.metadata(GID) == {"created": 1}

        mocked.reset()
        mocked.get(METADATA, body=trouble)
        with pytest.raises(Unreadable, match=reason):
            client.metadata(GID)
        assert len(mocked.calls) == 4

    @pytest.mark.parametrize(
        "body",
        [
            "[]",
            '{"errcode": 104, "error": "item not found"}',
            '{"is_dark": true, "error": "dark"}',
            '{"pending_tasks": true, "error": "busy"}',
            '{"nodownload": 1, "servers_unavailable": true, "files": []}',
            '{"servers_unavailable": true, "files": [{"name": "index.json"}]}',
        ],
    )
    def test_an_answer_is_handed_on_as_it_came(self, client, mocked, body):
        mocked.get(METADATA, body=body)
        assert client.metadata(GID) == json.loads(body)
        assert len(mocked.calls) == 1

    def test_the_second_look_asks_for_the_reason(self, client, mocked):
        mocked.get(f"{METADATA}?extended_err=1", body="[]")
        assert client.metadata(GID, extended_err=True) == []
        assert mocked.calls[0].request.url == f"{METADATA}?extended_err=1"

    def test_is_asked_for_without_credentials(self, insider, mocked):
        mocked.get(METADATA, body="{}")
        insider.metadata(GID)
        assert "authorization" not in mocked.calls[0].request.headers

    def test_of_something_that_is_not_a_gid_is_not_asked_for(self, client, mocked):
        with pytest.raises(ValueError, match="UUID"):
            client.metadata("../evil")
        assert asked(mocked) == []


class TestDownload:
    def download(self, client, **place) -> bytes:
        return client.download(GID, "index.json", max_bytes=1000, **place)

    def test_takes_the_front_door(self, client, mocked):
        mocked.get(FRONT, body=b"{}")
        assert self.download(client, d1=D1, d2=D2, dir=DIR) == b"{}"
        assert asked(mocked) == [FRONT]

    def test_follows_it_to_a_node(self, client, mocked):
        node = f"https://dn721801.ca.archive.org/0/items/mbid-{GID}/index.json"
        mocked.get(FRONT, status=302, headers={"Location": node})
        mocked.get(node, body=b"{}")
        assert self.download(client) == b"{}"

    @pytest.mark.parametrize("status", [500, 503])
    def test_asks_the_items_own_servers_when_the_node_fails(self, client, mocked, time, status):
        node = "https://dn721801.ca.archive.org/x/index.json"
        mocked.get(FRONT, status=302, headers={"Location": node})
        mocked.get(node, status=status)
        mocked.get(f"https://{D1}{DIR}/index.json", status=500)
        mocked.get(f"https://{D2}{DIR}/index.json", body=b"{}")
        assert self.download(client, d1=D1, d2=D2, dir=DIR) == b"{}"
        assert time.waits == []

    def test_asks_them_when_it_is_sent_to_a_stranger(self, client, mocked):
        mocked.get(FRONT, status=302, headers={"Location": "https://archive.example/x"})
        mocked.get(f"https://{D1}{DIR}/index.json", body=b"{}")
        assert self.download(client, d1=D1, d2=D2, dir=DIR) == b"{}"

    def test_backs_off_and_begins_again_when_all_fail(self, client, mocked, time):
        mocked.get(FRONT, status=500)
        mocked.get(FRONT, body=b"{}")
        mocked.get(f"https://{D1}{DIR}/index.json", status=500)
        assert self.download(client, d1=D1, dir=DIR) == b"{}"
        assert len(time.waits) == 1
        assert len(mocked.calls) == 3

    def test_server_errors_never_mean_that_a_file_is_missing(self, client, mocked):
        mocked.get(FRONT, status=500)
        with pytest.raises(Unreadable):
            self.download(client)

    def test_only_not_found_does(self, client, mocked):
        mocked.get(FRONT, status=404)
        with pytest.raises(NotFound):
            self.download(client, d1=D1, d2=D2, dir=DIR)
        assert asked(mocked) == [FRONT]

    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "127.0.0.1:8080",
            "[::1]",
            "169.254.169.254",
            "localhost",
            "evil.example",
            "archive.org.evil.example",
            "evilarchive.org",
            "evil.example/.archive.org",
            "evil.example?.archive.org",
            "evil.example#.archive.org",
            "me@ia1.archive.org",
            "ia1.archive.org:22",
            "ia1.archive.org:443",
            ".archive.org",
            "a..archive.org",
            "-a.archive.org",
            "ia1.archive.org\n",
            "ia1.archive.org ",
            "i\u04301.archive.org",
            "",
        ],
    )
    def test_leaves_servers_elsewhere_unused(self, client, mocked, host):
        mocked.get(FRONT, status=500)
        with pytest.raises(Unreadable):
            self.download(client, d1=host, d2=host, dir=DIR)
        assert set(asked(mocked)) == {FRONT}

    @pytest.mark.parametrize(
        "directory",
        [
            None,
            "",
            "/",
            f"/3/items/mbid-{OTHER_GID}",
            f"/3/items/mbid-{GID}/..",
            f"/../3/items/mbid-{GID}",
            f"3/items/mbid-{GID}",
            f"/x/items/mbid-{GID}",
            f"/3/items/mbid-{GID}\n",
            f"/3/items/mbid-{GID}?x",
            f"/3/items/mbid-{GID.upper()}",
        ],
    )
    def test_leaves_other_directories_unused(self, client, mocked, directory):
        mocked.get(FRONT, status=500)
        with pytest.raises(Unreadable):
            self.download(client, d1=D1, d2=D2, dir=directory)
        assert set(asked(mocked)) == {FRONT}

    @pytest.mark.parametrize("host", [D1, D1.upper(), "archive.org", "ia1.archive.org"])
    def test_uses_servers_of_archive_org(self, client, mocked, host):
        mocked.get(FRONT, status=500)
        mocked.get(f"https://{host.lower()}{DIR}/index.json", body=b"{}")
        assert self.download(client, d1=host, dir=DIR) == b"{}"

    def test_asks_a_server_named_twice_once(self, client, mocked):
        mocked.get(FRONT, status=500)
        mocked.get(f"https://{D1}{DIR}/index.json", status=500)
        with pytest.raises(Unreadable):
            self.download(client, d1=D1, d2=D1, dir=DIR)
        assert len(mocked.calls) == 2 * 4

    def test_uses_the_base_urls_own_host_and_port(self, serve, time):
        def respond(exchange):
            exchange.reply(500 if exchange.path.startswith("/download/") else 200, b"{}")

        server = serve(respond)
        client = client_of(server.url, time)
        assert self.download(client, d1=server.host, dir=DIR) == b"{}"
        client.close()
        assert server.paths == [f"/download/mbid-{GID}/index.json", f"{DIR}/index.json"]

    def test_does_not_use_the_base_urls_host_at_another_port(self, serve, time):
        other = serve(lambda exchange: exchange.reply(200, b"stolen"))
        server = serve(lambda exchange: exchange.reply(500))
        client = client_of(server.url, time)
        for host in (other.host, "127.0.0.1"):
            with pytest.raises(Unreadable):
                self.download(client, d1=host, dir=DIR)
        client.close()
        assert other.seen == []

    @pytest.mark.parametrize(
        ("name", "quoted"),
        [
            ("a b.jpg", "a%20b.jpg"),
            ("a%2F?.jpg", "a%252F%3F.jpg"),
            ("ü.jpg", "%C3%BC.jpg"),
            ("history/files/index.json.~1~", "history/files/index.json.~1~"),
        ],
    )
    def test_quotes_names(self, serve, time, name, quoted):
        server = serve(lambda exchange: exchange.reply(200, b"ok"))
        client = client_of(server.url, time)
        client.download(GID, name, max_bytes=10)
        client.close()
        assert server.paths == [f"/download/mbid-{GID}/{quoted}"]

    @pytest.mark.parametrize("name", ["", ".", "..", "../mbid-x/index.json", "a//b", "/etc/passwd"])
    def test_refuses_names_that_lead_out_of_the_item(self, client, mocked, name):
        with pytest.raises(ValueError, match="not the name of a file"):
            client.download(GID, name, max_bytes=10)
        assert asked(mocked) == []

    def test_refuses_more_than_is_wanted(self, client, mocked):
        mocked.get(FRONT, body=bytes(1001))
        with pytest.raises(Unreadable, match="larger than 1,000 bytes"):
            self.download(client)

    def test_carries_no_credentials(self, insider, mocked):
        mocked.get(FRONT, status=500)
        mocked.get(f"https://{D1}{DIR}/index.json", body=b"{}")
        self.download(insider, d1=D1, dir=DIR)
        assert all("authorization" not in call.request.headers for call in mocked.calls)


class TestScrape:
    def sample(self) -> str:
        return (SAMPLES / "archive-org-scrape.json").read_text()

    def test_reads_a_page(self, client, mocked):
        mocked.get(SCRAPE, body=self.sample())
        assert client.scrape("coverartarchive") == ScrapePage(
            identifiers=(f"mbid-{GID}", "coverartarchive", "mbid-not-a-uuid"),
            cursor="W3siaWRlbnRpZmllciI6Im1iaWQtODc0In1d",
            total=3757159,
        )

    def test_reads_the_last_page(self, client, mocked):
        mocked.get(SCRAPE, body=(SAMPLES / "archive-org-scrape-anonymous.json").read_text())
        assert client.scrape("coverartarchive") == ScrapePage((), None, 230)

    def test_asks_anonymously_without_scope(self, client, mocked):
        query = {"q": "collection:coverartarchive", "fields": "identifier"}
        mocked.get(SCRAPE, body=self.sample(), match=[matchers.query_param_matcher(query)])
        assert not client.has_credentials
        client.scrape("coverartarchive")
        assert "authorization" not in mocked.calls[0].request.headers

    def test_asks_with_keys_for_everything_and_never_for_a_count(self, insider, mocked):
        query = {
            "q": "collection:eventartarchive",
            "fields": "identifier",
            "scope": "all",
            "cursor": "W3+/=",
        }
        mocked.get(SCRAPE, body=self.sample(), match=[matchers.query_param_matcher(query)])
        assert insider.has_credentials
        insider.scrape("eventartarchive", "W3+/=")
        assert mocked.calls[0].request.headers["authorization"] == "LOW acc3ss:s3cr3t"

    @pytest.mark.parametrize(
        "location", ["https://www.archive.org/scrape", "https://archive.org/elsewhere"]
    )
    def test_takes_keys_along_within_archive_org(self, insider, mocked, location):
        mocked.get(SCRAPE, status=302, headers={"Location": location})
        mocked.get(location, body=self.sample())
        insider.scrape("coverartarchive")
        assert mocked.calls[1].request.headers["authorization"] == "LOW acc3ss:s3cr3t"

    def test_takes_keys_nowhere_unencrypted_but_to_the_base_url(self, mocked, time):
        node = "http://node.archive.org/scrape"
        mocked.get(
            "http://archive.org/services/search/v1/scrape", status=302, headers={"Location": node}
        )
        mocked.get(node, body=self.sample())
        client = client_of("http://archive.org", time, KEYS)
        client.scrape("coverartarchive")
        client.close()
        assert "authorization" in mocked.calls[0].request.headers
        assert "authorization" not in mocked.calls[1].request.headers

    @pytest.mark.parametrize("status", [200, 400])
    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("[INVALID_CURSOR] the cursor has expired", CursorRefused),
            ("Invalid or expired Cursor", CursorRefused),
            ("[RANGE_OUT_OF_BOUNDS] too many", ScrapeError),
        ],
    )
    def test_hands_on_what_the_service_objects_to(self, client, mocked, status, text, kind):
        mocked.get(SCRAPE, status=status, json={"error": text})
        with pytest.raises(ScrapeError, match=text.split("]")[-1].strip()) as caught:
            client.scrape("coverartarchive")
        assert type(caught.value) is kind
        assert len(mocked.calls) == 1

    @pytest.mark.parametrize("status", [401, 403])
    def test_says_which_keys_are_refused(self, insider, mocked, status):
        mocked.get(SCRAPE, status=status)
        with pytest.raises(CredentialsRefused, match="ARCHIVE_ORG_ACCESS_KEY") as caught:
            insider.scrape("coverartarchive")
        assert "s3cr3t" not in str(caught.value)
        assert "acc3ss" not in str(caught.value)

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (200, "[]"),
            (200, "{}"),
            (200, '{"items": {}}'),
            (200, '{"items": ["mbid"]}'),
            (200, '{"items": [{"id": 1}]}'),
            (200, '{"items": [{"identifier": 1}]}'),
            (200, '{"items": [], "cursor": 7}'),
            (200, '{"items": [{"identifier": "a"'),
            (400, '{"items": []}'),
            (400, "Bad Request"),
            (502, ""),
        ],
    )
    def test_cannot_read_other_shapes(self, client, mocked, status, body):
        mocked.get(SCRAPE, status=status, body=body)
        with pytest.raises(Unreadable):
            client.scrape("coverartarchive")

    @pytest.mark.parametrize(
        "cursor",
        ["1", "[]", "{}", "true", '"\\ud800"', '"a\\u0000b"', '"\\n"', '"' + "x" * 5000 + '"'],
    )
    def test_says_at_once_that_a_cursor_is_damaged(self, client, mocked, cursor):
        mocked.get(SCRAPE, body=f'{{"items": [], "cursor": {cursor}}}')
        with pytest.raises(Unreadable, match="cursor is damaged"):
            client.scrape("coverartarchive")
        assert len(mocked.calls) == 1

    @pytest.mark.parametrize("total", ["null", '"many"', "true", "1.5", "-1", str(2**63)])
    def test_takes_the_total_for_the_hint_it_is(self, client, mocked, total):
        mocked.get(SCRAPE, body=f'{{"items": [], "total": {total}}}')
        assert client.scrape("coverartarchive") == ScrapePage((), None, None)


@pytest.mark.parametrize("missing", KEYS)
def test_one_key_alone_is_refused(time, missing):
    with pytest.raises(SettingsError, match=f"{missing} is not set"):
        client_of(BASE, time, {key: value for key, value in KEYS.items() if key != missing})


class TestStandIn:
    """What stands in for archive.org, such as the sandbox, never leads to archive.org's nodes."""

    def test_is_not_left_for_the_nodes_that_an_item_names(self, serve, time):
        server = serve(lambda exchange: exchange.reply(500))
        client = client_of(server.url, time)
        with pytest.raises(Unreadable):
            client.download(GID, "index.json", max_bytes=10, d1=D1, d2="archive.org", dir=DIR)
        client.close()
        assert server.paths == [f"/download/mbid-{GID}/index.json"] * 4

    def test_is_not_left_by_a_redirect(self, serve, time):
        location = f"https://{D1}{DIR}/index.json"
        server = serve(lambda exchange: exchange.reply(302, Location=location))
        client = client_of(server.url, time)
        with pytest.raises(Unreadable, match=f"{D1}:443, which is not one of its hosts"):
            client.download(GID, "index.json", max_bytes=10)
        client.close()
