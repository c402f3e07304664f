"""What the MusicBrainz client asks for, and what it makes of the answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import responses

from artwork_backfill.shared.clients.http import NotFound, Unreadable
from artwork_backfill.shared.clients.musicbrainz import MusicBrainzClient
from artwork_backfill.shared.settings import Settings, SettingsError

SAMPLES = Path(__file__).parents[2] / "samples"
GID = "8745795a-190f-4be5-84fd-a8cfe5365cc6"
URL = f"https://musicbrainz.org/ws/2/release/{GID}?inc=artists"
XML = (SAMPLES / "musicbrainz-release.xml").read_bytes()


def client_of(url, stop_flag, set_database=""):
    environ = {
        "MUSICBRAINZ_URL": url,
        "MUSICBRAINZ_RATE": "unlimited",
        "MUSICBRAINZ_SET_DATABASE": set_database,
        "BACKFILL_CONTACT": "ops@example.org",
    }
    return MusicBrainzClient.from_settings(Settings(environ), stop_flag=stop_flag)


@pytest.fixture
def client(time):
    client = client_of("https://musicbrainz.org", time)
    yield client
    client.close()


@pytest.mark.parametrize(
    ("entity_type", "sample", "path"),
    [
        ("release", "musicbrainz-release.xml", f"/ws/2/release/{GID}?inc=artists"),
        ("event", "musicbrainz-event.xml", f"/ws/2/event/{GID}?inc=artist-rels+place-rels"),
    ],
)
def test_the_xml_comes_as_the_indexer_would_archive_it(serve, time, entity_type, sample, path):
    xml = (SAMPLES / sample).read_bytes()
    server = serve(lambda exchange: exchange.reply(200, xml))
    client = client_of(server.url, time)
    assert client.entity_xml(entity_type, GID) == xml
    client.close()
    assert server.paths == [path]
    assert "mb-set-database" not in server.seen[0].headers


def test_a_database_can_be_selected(serve, time):
    server = serve(lambda exchange: exchange.reply(200, XML))
    client = client_of(server.url, time, "TEST_CAA")
    client.entity_xml("release", GID)
    client.close()
    assert server.seen[0].headers["mb-set-database"] == "TEST_CAA"


def test_a_database_that_no_header_can_carry_is_refused(time):
    with pytest.raises(SettingsError, match="mb-set-database cannot be sent in a header"):
        client_of("https://musicbrainz.org", time, "TEST\nX-Evil: 1")


@responses.activate
def test_a_merged_gid_leads_to_its_target(client):
    target = "https://musicbrainz.org/ws/2/release/target?inc=artists"
    responses.get(URL, status=301, headers={"Location": target})
    responses.get(target, body=XML)
    assert client.entity_xml("release", GID) == XML


@responses.activate
def test_redirects_to_another_host_are_not_followed(client):
    responses.get(URL, status=301, headers={"Location": "https://mirror.example/"})
    with pytest.raises(Unreadable, match=r"mirror\.example"):
        client.entity_xml("release", GID)


@responses.activate
def test_an_entity_that_is_gone_is_not_found(client):
    responses.get(URL, status=404)
    with pytest.raises(NotFound):
        client.entity_xml("release", GID)


@responses.activate
@pytest.mark.parametrize("headers", [{}, {"Retry-After": "3"}])
def test_the_rate_limit_is_waited_out(client, time, headers):
    responses.get(URL, status=503, headers=headers)
    responses.get(URL, body=XML)
    assert client.entity_xml("release", GID) == XML
    assert len(time.waits) == 1
    assert client.stats().retries == 1


@responses.activate
@pytest.mark.parametrize("body", [b"", b"  ", b'{"error": "x"}', b"Not XML <", b"<html/>"])
def test_what_is_not_xml_of_the_web_service_is_unreadable(client, body):
    responses.get(URL, body=body)
    with pytest.raises(Unreadable, match="not XML"):
        client.entity_xml("release", GID)
    assert len(responses.calls) == 4


@responses.activate
@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b"\n ", b"\xef\xbb\xbf\n"])
def test_what_may_stand_before_xml_does_no_harm(client, prefix):
    responses.get(URL, body=prefix + XML)
    assert client.entity_xml("release", GID) == prefix + XML


def test_what_is_not_a_gid_is_not_asked_for(client):
    with pytest.raises(ValueError, match="UUID"):
        client.entity_xml("release", "../../admin")
