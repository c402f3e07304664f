"""The client of the Changes API: what it sends, and that it says what it did not understand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
import responses

from artwork_backfill.shared.clients.http import CredentialsRefused, Unreadable
from artwork_backfill.shared.clients.ia_changes import (
    FROM_BEGINNING,
    ChangesClient,
    ChangesError,
    ChangesPage,
)
from artwork_backfill.shared.settings import Settings, SettingsError

URL = "http://changes.test/changes/v1"
ENVIRON = {
    "ARCHIVE_ORG_CHANGES_URL": "http://changes.test",
    "ARCHIVE_ORG_RATE": "unlimited",
    "ARCHIVE_ORG_ACCESS_KEY": "access-hunter22",
    "ARCHIVE_ORG_SECRET_KEY": "secret-hunter22",
}
PAGE = {
    "changes": [{"identifier": "mbid-1"}, {"identifier": "x"}],
    "next_token": "opaque+/=",
    "do_sleep_before_returning": False,
}


@pytest.fixture
def client() -> Iterator[ChangesClient]:
    made = ChangesClient.from_settings(Settings(ENVIRON), stop_flag=threading.Event())
    yield made
    made.close()


def sent() -> dict[str, str]:
    body = responses.calls[-1].request.body
    text = body.decode() if isinstance(body, bytes) else str(body)
    return {key: values[0] for key, values in parse_qs(text).items()}


@responses.activate
def test_keys_and_place_are_sent_as_a_form(client: ChangesClient) -> None:
    responses.post(URL, json=PAGE)
    assert client.page(start_date=FROM_BEGINNING) == ChangesPage(
        ("mbid-1", "x"), "opaque+/=", wants_rest=False
    )
    keys = {"access": "access-hunter22", "secret": "secret-hunter22"}
    assert sent() == keys | {"start_date": "0"}
    content_type = responses.calls[-1].request.headers["Content-Type"]
    assert content_type == "application/x-www-form-urlencoded"
    client.page(token="opaque+/=")
    assert sent() == keys | {"token": "opaque+/="}


@responses.activate
@pytest.mark.parametrize(
    ("rest", "distance", "is_near_end"),
    [(True, None, True), (True, 12, True), (True, 10_000_000, False), (False, 0, False)],
)
def test_the_end_is_near_when_a_rest_is_wanted_and_little_is_left(
    client: ChangesClient, rest: bool, distance: int | None, is_near_end: bool
) -> None:
    more: dict[str, Any] = {} if distance is None else {"estimated_distance_from_head": distance}
    responses.post(URL, json=PAGE | {"do_sleep_before_returning": rest} | more)
    assert client.page(token="t").is_near_end is is_near_end


@responses.activate
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, {"error": "no"}),
        (401, {}),
        (200, {"error": "account lacks the privilege see_all_catalog_changes"}),
        (400, {"error": "bad secret"}),
    ],
)
def test_a_refusal_says_which_privilege_is_needed(
    client: ChangesClient, status: int, body: dict[str, str]
) -> None:
    responses.post(URL, json=body, status=status)
    with pytest.raises(CredentialsRefused, match="see_all_catalog_changes") as refused:
        client.page(token="t")
    assert "hunter22" not in str(refused.value)


@responses.activate
@pytest.mark.parametrize("status", [200, 400])
def test_an_error_of_the_service_is_told_with_its_text(client: ChangesClient, status: int) -> None:
    responses.post(URL, json={"error": "token expired"}, status=status)
    with pytest.raises(ChangesError, match=r"token expired.*--since"):
        client.page(token="t")
    assert len(responses.calls) == 1


@responses.activate
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"changes": {}}, "no list .changes."),
        ({"changes": ["mbid-1"]}, "has no identifier"),
        ({"changes": [{"identifier": 7}]}, "has no identifier"),
        ({"next_token": ""}, "no usable `next_token`"),
        ({"next_token": "x" * 20_000}, "no usable `next_token`"),
        ({"next_token": "a\nb"}, "cannot be sent back"),
        ({"next_token": "a\ud800"}, "cannot be sent back"),
        ({"do_sleep_before_returning": "no"}, "do_sleep_before_returning"),
    ],
)
def test_what_is_not_understood_is_said_and_never_guessed(
    client: ChangesClient, change: dict[str, Any], says: str
) -> None:
    responses.post(URL, json=PAGE | change)
    with pytest.raises(Unreadable, match=f"not of the documented form.*{says}"):
        client.page(token="t")
    assert len(responses.calls) == 1


def test_keys_are_required() -> None:
    environ = {key: value for key, value in ENVIRON.items() if "KEY" not in key}
    with pytest.raises(SettingsError, match="see_all_catalog_changes"):
        ChangesClient.from_settings(Settings(environ), stop_flag=threading.Event())
