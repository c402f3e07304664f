"""The stand-ins: they answer as the real services do, traps included, and fail on demand."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sandbox.entities import EntityType, Presence
from sandbox.library import Library, LibraryRow, LibrarySpec
from sandbox.services import ServiceName, Services
from sandbox.world import Spec, World
from tests.timing import LIMIT_S

SCRAPE = "/services/search/v1/scrape"
RIGHTS = {"authorization": "LOW sandbox-access:sandbox-secret"}
KEY = {"authorization": "Bearer sandbox-lml-key"}
WITH_FALLBACK = "bulk?allow_release_resolution_fallback=true"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)


@pytest.fixture(scope="module")
def running() -> Iterator[Services]:
    with Services(Spec(seed=5, size=600), LibrarySpec(seed=5, size=200)) as services:
        yield services


@pytest.fixture
def services(running: Services) -> Services:
    """The stand-ins, behaving well and with nothing counted."""
    for name in ("archive", "musicbrainz", "lml", "old_lml"):
        running.control(name, faults=[], latency_s=0, limit=None, log=False, reset_stats=True)
    running.control("lml", lookup_s=0, uncached_s=0, gone=False)
    running.control("archive", page_size=1_000, nothing="[]")
    return running


@pytest.fixture
def writable() -> Iterator[Services]:
    """Stand-ins of one test's own, which may change what archive.org holds."""
    with Services(Spec(seed=5, size=600)) as services:
        yield services


@pytest.fixture(scope="module")
def world(running: Services) -> World:
    return World(running.spec)


@pytest.fixture(scope="module")
def clean(world: World) -> str:
    """A release with art and nothing wrong."""
    return next(
        plan.gid
        for number, plan in enumerate(world.plans())
        if plan.drift is None
        and plan.entity_type is EntityType.RELEASE
        and world.entity(number).artwork
        and not world.entity(number).dark
    )


def get(
    url: str, headers: dict[str, str] | None = None, body: object = None
) -> tuple[int, Message, bytes]:
    data = json.dumps(body).encode() if body is not None else None
    try:
        with OPENER.open(
            urllib.request.Request(url, data, headers or {}), timeout=LIMIT_S
        ) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def get_json(url: str, headers: dict[str, str] | None = None, body: object = None) -> Any:
    return json.loads(get(url, headers, body)[2])


def test_metadata_of_every_item_is_what_the_world_holds(services: Services, world: World) -> None:
    host = urlsplit(services.archive_url).netloc
    connection = http.client.HTTPConnection(host)
    for plan in world.plans():
        connection.request("GET", f"/metadata/mbid-{plan.gid}")
        item = world.item(plan.gid)
        for answer in item.first_answers if item else ():
            assert connection.getresponse().read() == answer
            connection.request("GET", f"/metadata/mbid-{plan.gid}")
        assert connection.getresponse().read() == (item.document(host) if item else b"[]")
    connection.close()
    assert services.stats("archive").paths["metadata"] >= world.spec.size


def test_a_download_is_redirected_to_a_node_that_holds_the_file(
    services: Services, clean: str
) -> None:
    url = f"{services.archive_url}/download/mbid-{clean}/index.json"
    status, headers, _ = get(url)
    assert status == 302
    document = get_json(f"{services.archive_url}/metadata/mbid-{clean}")
    direct = f"http://{document['d1']}{document['dir']}/index.json"
    assert headers["location"].startswith(direct)
    (md5,) = [file["md5"] for file in document["files"] if file["name"] == "index.json"]
    for place in (headers["location"], direct):
        assert hashlib.md5(get(place)[2]).hexdigest() == md5
    paths = services.stats("archive").paths
    assert paths == {"download": 1, "metadata": 1, "front_node": 1, "node": 1}


def test_a_file_that_is_not_there_is_not_found(services: Services, clean: str) -> None:
    _, headers, _ = get(f"{services.archive_url}/download/mbid-{clean}/nothing.jpg")
    assert get(headers["location"])[0] == 404


def scrape(services: Services, query: str, headers: dict[str, str] | None = None) -> Any:
    return get_json(f"{services.archive_url}{SCRAPE}?{query}", headers)


def test_a_scan_pages_through_every_item_of_the_collection(
    services: Services, world: World
) -> None:
    services.control("archive", page_size=100)
    query = "q=collection:coverartarchive&fields=identifier&scope=all"
    found: list[str] = []
    cursor = ""
    while True:
        page = scrape(services, query + (f"&cursor={cursor}" if cursor else ""), RIGHTS)
        found += [entry["identifier"] for entry in page["items"]]
        cursor = page.get("cursor", "")
        if not cursor:
            break
    gids, _ = world.collected(EntityType.RELEASE, 0, world.spec.size)
    assert len(gids) > 200
    assert found == ["coverartarchive", "mbid-test-item", *[f"mbid-{gid}" for gid in gids]]


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("q=collection:coverartarchive&scope=all", {}),
        ("q=collection:coverartarchive", RIGHTS),
        ("q=collection:coverartarchive&scope=all", {"authorization": "LOW wrong:wrong"}),
    ],
)
def test_a_scan_without_rights_finds_nothing_and_is_told_no_error(
    services: Services, query: str, headers: dict[str, str]
) -> None:
    assert scrape(services, query, headers) == {"items": [], "count": 0, "total": 230}


def test_with_a_count_the_cursor_is_ignored(services: Services) -> None:
    query = "q=collection:coverartarchive&scope=all&count=100"
    first = scrape(services, query, RIGHTS)
    again = scrape(services, f"{query}&cursor={first['cursor']}", RIGHTS)
    assert first == again


def test_a_bad_cursor_is_an_error(services: Services) -> None:
    query = "q=collection:eventartarchive&scope=all&cursor=%21"
    assert "cursor" in scrape(services, query, RIGHTS)["error"]


def test_the_web_service_redirects_merged_entities_and_knows_no_deleted_ones(
    services: Services, world: World
) -> None:
    expected = {Presence.LIVE: 200, Presence.MERGED: 301, Presence.DELETED: 404}
    for number in range(world.spec.size):
        entity = world.entity(number)
        path = f"/ws/2/{entity.entity_type}/{entity.gid}?inc=artists"
        status, headers, body = get(services.musicbrainz_url + path)
        assert status == expected.get(entity.presence, 404)
        heir = world.merged_into(entity)
        if heir is not None:
            target = f"/ws/2/{entity.entity_type}/{heir.gid}?inc=artists"
            assert headers["location"] == services.musicbrainz_url + target
        if status == 200:
            assert f'id="{entity.gid}"'.encode() in body


def query(row: LibraryRow) -> dict[str, str]:
    return {
        "artist": row.artist,
        "album": row.album,
        "raw_message": f"{row.artist} - {row.album}",
    }


def test_single_and_bulk_lookups_say_the_same(services: Services) -> None:
    rows = list(Library(services.library).rows())[:60]
    single = f"{services.lml_url}/api/v1/lookup"
    asked = {"items": [query(row) for row in rows]}
    bulk = get_json(f"{single}/{WITH_FALLBACK}", KEY, asked)["results"]
    assert [result["index"] for result in bulk] == list(range(60))
    for row, result in zip(rows, bulk, strict=True):
        assert result["lookup"] == get_json(single, KEY, query(row))
        assert result["status"] == ("no_match" if row.outcome == "no_match" else "match")
        found = result["lookup"]["results"]
        assert {item["library_item"]["title"] for item in found} <= {row.album}
        urls = {item["artwork"]["artwork_url"] for item in found if item["artwork"]}
        assert (row.expected in urls) is (row.expected is not None)


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("lookup", {}, {"artist": "a", "album": "b", "raw_message": "c"}, 401),
        ("lookup", KEY, {"artist": "a", "album": "b"}, 422),
        ("lookup/bulk", KEY, {"items": []}, 422),
        ("lookup/bulk", KEY, {"items": [{}] * 101}, 422),
        ("lookup", KEY, None, 405),
        ("search", KEY, {}, 404),
    ],
)
def test_lookups_that_are_not_right_are_refused(
    services: Services, path: str, headers: dict[str, str], body: object, status: int
) -> None:
    assert get(f"{services.lml_url}/api/v1/{path}", headers, body)[0] == status


def test_an_old_lookup_service_has_single_lookups_only(services: Services) -> None:
    row = Library(services.library).row(1)
    url = f"{services.old_lml_url}/api/v1/lookup"
    assert get(f"{url}/bulk", KEY, {"items": [query(row)]})[0] == 404
    assert "cache_stats" not in get_json(url, KEY, query(row))


def test_every_route_is_gone_while_a_version_is_deployed(services: Services) -> None:
    services.control("lml", gone=True)
    for path in ("lookup", "lookup/bulk"):
        assert get(f"{services.lml_url}/api/v1/{path}", KEY, {})[0] == 404


@pytest.mark.parametrize(
    ("fault", "status", "contains"),
    [
        ({"kind": "fail"}, 500, b""),
        ({"kind": "fail", "status": 502}, 502, b""),
        ({"kind": "refuse"}, 503, b""),
        ({"kind": "refuse", "status": 429, "retry_after": "7"}, 429, b""),
        ({"kind": "garbage"}, 200, b"<html>"),
        ({"kind": "error_key"}, 200, b'"error"'),
        ({"kind": "servers_unavailable"}, 200, b'"servers_unavailable":true'),
        ({"kind": "pending_tasks"}, 200, b'"pending_tasks": true'),
        ({"kind": "has_redrow"}, 200, b'"has_redrow": true'),
        ({"kind": "hostile_node", "location": "evil.example"}, 200, b'"d1": "evil.example"'),
        ({"kind": "redirect", "location": "http://evil.example/"}, 302, b""),
    ],
)
def test_a_fault_shows_in_the_answer(
    services: Services, clean: str, fault: dict[str, Any], status: int, contains: bytes
) -> None:
    services.control("archive", faults=[fault])
    found, headers, body = get(f"{services.archive_url}/metadata/mbid-{clean}")
    assert found == status
    assert contains in body
    assert headers.get("retry-after") == fault.get("retry_after")
    assert headers.get("location", "") == ("http://evil.example/" if status == 302 else "")
    assert services.stats("archive").faults == {fault["kind"]: 1}


@pytest.mark.parametrize(
    ("kind", "error"),
    [("cut", http.client.IncompleteRead), ("hang_up", ConnectionError)],
)
def test_a_fault_can_break_the_connection(
    services: Services, clean: str, kind: str, error: type[Exception]
) -> None:
    services.control("archive", faults=[{"kind": kind}])
    with pytest.raises((error, urllib.error.URLError)):
        get(f"{services.archive_url}/metadata/mbid-{clean}")


@pytest.mark.parametrize("kind", ["late", "drip"])
def test_a_fault_can_take_its_time(services: Services, clean: str, kind: str) -> None:
    services.control("archive", faults=[{"kind": kind, "seconds": 0.2}])
    started = time.monotonic()
    get(f"{services.archive_url}/metadata/mbid-{clean}")
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize("kind", ["foreign_page", "stuck_cursor", "scrape_error"])
def test_a_fault_can_spoil_a_scan(services: Services, kind: str) -> None:
    services.control("archive", faults=[{"kind": kind}])
    page = scrape(services, "q=collection:coverartarchive&scope=all&cursor=abc", RIGHTS)
    match kind:
        case "foreign_page":
            assert page["items"][0]["identifier"] == "concert000000"
        case "stuck_cursor":
            assert page["cursor"] == "abc"
        case "scrape_error":
            assert "items" not in page


def test_a_fault_can_be_a_bomb(services: Services, clean: str) -> None:
    services.control("musicbrainz", faults=[{"kind": "xml_bomb"}])
    _, _, body = get(f"{services.musicbrainz_url}/ws/2/release/{clean}")
    assert b"<!ENTITY h" in body
    assert len(body) < 10_000


def test_a_huge_body_is_sent_as_it_is_read(services: Services, clean: str) -> None:
    services.control("archive", faults=[{"kind": "huge"}])
    host, _, port = urlsplit(services.archive_url).netloc.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET /metadata/mbid-{clean} HTTP/1.1\r\n\r\n".encode())
        received = 0
        while received < 20_000_000:
            received += len(connection.recv(1 << 20))
    services.control("archive", faults=[])
    assert get(f"{services.archive_url}/metadata/mbid-{clean}")[0] == 200


def test_an_oversized_index_is_served_in_full_size(services: Services, world: World) -> None:
    (gid, *_) = [plan.gid for plan in world.drifted() if plan.drift == "index-huge"]
    document = get_json(f"{services.archive_url}/metadata/mbid-{gid}")
    (size,) = [int(file["size"]) for file in document["files"] if file["name"] == "index.json"]
    host, _, port = document["d1"].partition(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("GET", f"{document['dir']}/index.json")
    assert connection.getresponse().length == size > 10_000_000
    connection.close()


def test_faults_strike_only_their_paths_and_gids_and_so_often(
    services: Services, clean: str, world: World
) -> None:
    other = next(plan.gid for plan in world.plans() if plan.gid != clean)
    services.control(
        "archive",
        faults=[{"kind": "fail", "paths": ["metadata"], "gids": [clean], "times": 2}],
    )
    assert get(f"{services.archive_url}/download/mbid-{clean}/index.json")[0] == 302
    assert get(f"{services.archive_url}/metadata/mbid-{other}")[0] == 200
    statuses = [get(f"{services.archive_url}/metadata/mbid-{clean}")[0] for _ in range(3)]
    assert statuses == [500, 500, 200]


def test_a_rate_is_about_the_share_of_the_requests(services: Services, clean: str) -> None:
    services.control("archive", faults=[{"kind": "fail", "rate": 0.4, "paths": ["metadata"]}])
    statuses = [get(f"{services.archive_url}/metadata/mbid-{clean}")[0] for _ in range(200)]
    assert 50 < statuses.count(500) < 110
    assert services.stats("archive").statuses["500"] == statuses.count(500)


def test_requests_beyond_the_limit_are_refused(services: Services, clean: str) -> None:
    services.control("musicbrainz", limit=1)
    url = f"{services.musicbrainz_url}/ws/2/release/{clean}"
    assert [get(url)[0] for _ in range(3)] == [200, 503, 503]


def test_latency_is_added_to_every_answer(services: Services, clean: str) -> None:
    services.control("musicbrainz", latency_s=0.1)
    started = time.monotonic()
    get(f"{services.musicbrainz_url}/ws/2/release/{clean}")
    assert time.monotonic() - started >= 0.1


def test_the_log_shows_the_headers_of_requests(services: Services, clean: str) -> None:
    services.control("musicbrainz", log=True)
    url = f"{services.musicbrainz_url}/ws/2/release/{clean}"
    get(url, {"mb-set-database": "READWRITE"})
    (entry,) = services.stats("musicbrainz").log
    assert entry["target"] == f"/ws/2/release/{clean}"
    assert entry["headers"]["mb-set-database"] == "READWRITE"


@pytest.mark.parametrize(
    ("service", "changes", "message"),
    [
        ("archive", {"latencies": 1}, "latencies"),
        ("musicbrainz", {"bulk": True}, "bulk"),
        ("lml", {"faults": [{"kind": "earthquake"}]}, "earthquake"),
    ],
)
def test_an_unknown_change_is_refused_by_name(
    services: Services, service: ServiceName, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        services.control(service, **changes)


def test_an_upload_keeps_the_old_version_and_is_served(writable: Services, clean: str) -> None:
    before = get_json(f"{writable.archive_url}/metadata/mbid-{clean}")
    writable.upload(clean, "index.json", b"{}", noindex="false")
    after = get_json(f"{writable.archive_url}/metadata/mbid-{clean}")
    files = {file["name"]: file for file in after["files"]}
    assert files["index.json"]["md5"] == hashlib.md5(b"{}").hexdigest()
    assert files["history/files/index.json.~1~"]["old_version"] == "true"
    # What an upload says of the item counts for new items only.
    assert after["metadata"]["noindex"] == "true"
    assert after["item_last_updated"] > before["item_last_updated"]


def test_what_an_upload_says_of_the_item_counts_when_it_makes_the_item(
    writable: Services,
) -> None:
    gid = "00000000-0000-4000-8000-000000000001"
    writable.upload(gid, "index.json", b"{}", noindex="true", collection="coverartarchive")
    writable.upload(gid, "index.json", b"{}", noindex="false")
    metadata = get_json(f"{writable.archive_url}/metadata/mbid-{gid}")["metadata"]
    assert metadata == {
        "identifier": f"mbid-{gid}",
        "noindex": "true",
        "collection": "coverartarchive",
    }


def test_where_there_is_no_item_the_reason_is_told_to_those_who_ask(services: Services) -> None:
    url = f"{services.archive_url}/metadata/mbid-00000000-0000-4000-8000-000000000002"
    assert get(url)[2] == b"[]"
    assert get_json(f"{url}?extended_err=1")["errcode"] == 104
    services.control("archive", nothing="{}")
    assert get(url)[2] == b"{}"


def test_planted_answers_come_in_turn_and_the_last_one_stays(writable: Services) -> None:
    gid = "00000000-0000-4000-8000-000000000003"
    writable.plant("archive", {gid: {"answers": ["[]", '{"a": 1}'], "files": {"a.txt": "ä"}}})
    url = f"{writable.archive_url}/metadata/mbid-{gid}"
    assert [get_json(url) for _ in range(3)] == [[], {"a": 1}, {"a": 1}]
    _, headers, _ = get(f"{writable.archive_url}/download/mbid-{gid}/a.txt")
    assert get(headers["location"])[2] == "ä".encode("latin-1")
    assert get(headers["location"].replace("a.txt", "b.txt"))[0] == 404


def test_a_planted_entity_takes_the_place_of_the_worlds(writable: Services, clean: str) -> None:
    heir = "00000000-0000-4000-8000-000000000004"
    writable.plant(
        "musicbrainz",
        {
            f"release/{heir}": {"gid": heir, "xml": "<metadata/>"},
            f"release/{clean}": {"gid": heir, "xml": "<metadata/>"},
            f"event/{clean}": None,
        },
    )
    base = f"{writable.musicbrainz_url}/ws/2"
    assert get(f"{base}/release/{heir}?inc=artists")[2] == b"<metadata/>"
    assert get(f"{base}/release/{clean}?inc=artists")[0] == 301
    assert get(f"{base}/event/{clean}")[0] == 404


def test_answers_cannot_be_planted_where_none_are_taken(services: Services) -> None:
    with pytest.raises(ValueError, match="Lml takes no planted answers"):
        services.plant("lml", {"x": {}})
    with pytest.raises(ValueError, match="needs an answer"):
        services.plant("archive", {"x": {"answers": [], "files": {}}})


def test_a_copied_image_is_the_same_picture(writable: Services, world: World) -> None:
    source = next(
        entity
        for entity in map(world.entity, range(world.spec.size))
        if entity.artwork and world.plan(entity.number).drift is None and not entity.dark
    )
    artwork = source.artwork[0]
    name = f"mbid-{source.gid}-{artwork.id}.{artwork.suffix}"
    target = "00000000-0000-4000-8000-000000000005"
    request = urllib.request.Request(
        f"{writable.archive_url}/s3/mbid-{target}/mbid-{target}-{artwork.id}.{artwork.suffix}",
        b"",
        {"x-amz-copy-source": f"/mbid-{source.gid}/{name}"},
        method="PUT",
    )
    OPENER.open(request, timeout=LIMIT_S).close()
    sums = []
    for gid in (source.gid, target):
        get(f"{writable.archive_url}/metadata/mbid-{gid}")  # it may say nothing at first
        files = get_json(f"{writable.archive_url}/metadata/mbid-{gid}")["files"]
        (file,) = [
            file for file in files if file["name"].endswith(f"-{artwork.id}.{artwork.suffix}")
        ]
        sums.append((file["size"], file["md5"], file["sha1"]))
    assert sums[0] == sums[1]


def test_a_deletion_takes_the_derivatives_along(writable: Services, world: World) -> None:
    entity = next(
        entity
        for number, plan in enumerate(world.plans())
        if plan.drift is None and len((entity := world.entity(number)).artwork) > 1
    )
    first, second = entity.artwork[:2]
    writable.delete(entity.gid, f"mbid-{entity.gid}-{first.id}.{first.suffix}")
    document = get_json(f"{writable.archive_url}/metadata/mbid-{entity.gid}")
    names = [file["name"] for file in document["files"] if "old_version" not in file]
    assert not [name for name in names if str(first.id) in name]
    assert [name for name in names if str(second.id) in name]


OWNER = """
import os, sys
from sandbox.services import Services
with Services() as services:
    print(services.archive_url, flush=True)
    sys.stdin.read()
"""


def test_the_stand_ins_end_with_their_owner() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        assert get(f"{url}/_stats")[0] == 200
        os.kill(owner.pid, signal.SIGKILL)
    host, _, port = urlsplit(url).netloc.partition(":")
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port))).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.02)
    pytest.fail("the stand-ins still answer")
