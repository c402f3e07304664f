"""Who gets in, and where the dashboard may listen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from click.testing import CliRunner
from streamlit import config as streamlit_config

from artwork_backfill.dashboard import access, serve
from artwork_backfill.jobs.cli.dashboard import command

ANYWHERE = "0.0.0.0"
OPS = frozenset({"ops@example.org"})
LOGIN = """
[auth]
redirect_uri = "https://dashboard.example/oauth2callback"
cookie_secret = "a long and random secret"
client_id = "dashboard"
client_secret = "another secret"
server_metadata_url = "https://login.example/.well-known/openid-configuration"
"""


@pytest.mark.parametrize(
    ("address", "login", "allowed", "read_only"),
    [
        ("127.0.0.1", False, (), False),
        ("127.0.0.2", False, (), False),
        ("::1", False, (), False),
        ("localhost", False, (), False),
        (ANYWHERE, False, (), True),
        (ANYWHERE, True, OPS, False),
        (None, False, (), True),
    ],
)
def test_it_listens_where_no_one_else_can_change_things(
    address: str | None, login: bool, allowed: frozenset[str], read_only: bool
) -> None:
    access.check(address, login=login, allowed=allowed, read_only=read_only)


@pytest.mark.parametrize(
    ("address", "login", "allowed", "read_only", "says"),
    [
        (ANYWHERE, False, (), False, "--read-only"),
        ("::", False, (), False, "--read-only"),
        ("192.0.2.7", False, OPS, False, "everyone who reaches 192.0.2.7"),
        ("dashboard.example", False, (), False, "listen on 127.0.0.1"),
        ("localhost.example", False, (), False, "listen on 127.0.0.1"),
        (None, False, (), False, "everyone who reaches this machine"),
        ("", False, (), False, "everyone who reaches this machine"),
        (ANYWHERE, True, (), False, "--allow"),
        ("127.0.0.1", True, (), True, "--allow"),
    ],
)
def test_it_refuses_to_listen_where_anybody_could_change_things(
    address: str | None, login: bool, allowed: frozenset[str], read_only: bool, says: str
) -> None:
    with pytest.raises(access.AccessError, match=says):
        access.check(address, login=login, allowed=allowed, read_only=read_only)


@pytest.mark.parametrize(
    "user",
    [
        {"email": "ops@example.org"},
        {"email": "Ops@Example.org", "email_verified": True},
    ],
)
def test_those_on_the_list_may_enter(user: dict[str, object]) -> None:
    assert access.may_enter(user, OPS) == "ops@example.org"


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ({}, "does not include"),
        ({"email": ""}, "does not include"),
        ({"email": ["ops@example.org"]}, "does not include"),
        ({"email": "ops@example.org", "email_verified": False}, "not verified"),
        ({"email": "ops@example.org", "email_verified": "false"}, "not verified"),
        ({"email": "ops@example.org.evil.example"}, "not among"),
        ({"email": "somebody@example.org"}, "not among"),
    ],
)
def test_others_may_not(user: dict[str, object], says: str) -> None:
    with pytest.raises(access.NotAllowed, match=says):
        access.may_enter(user, OPS)


@pytest.fixture
def secrets(tmp_path: Path) -> Iterator[Path]:
    """A secrets.toml that Streamlit would read, not there yet."""
    file = tmp_path / "secrets.toml"
    files = streamlit_config.get_option("secrets.files")
    streamlit_config.set_option("secrets.files", [str(file)])
    _forget_secrets()
    yield file
    streamlit_config.set_option("secrets.files", files)
    _forget_secrets()


def _forget_secrets() -> None:
    st.secrets._reset()


def test_no_secrets_mean_no_login(secrets: Path) -> None:
    assert not access.login_is_configured()
    secrets.write_text("[other]\nkey = 'value'\n")
    _forget_secrets()
    assert not access.login_is_configured()


def test_a_complete_login_is_noticed(secrets: Path) -> None:
    secrets.write_text(LOGIN)
    assert access.login_is_configured()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[auth]\nredirect_uri = 'https://x.example'\n", "lacks cookie_secret, client_id"),
        (LOGIN.replace('client_id = "dashboard"', 'client_id = ""'), "lacks client_id"),
        ("auth = 'yes'\n", "lacks redirect_uri"),
        ("[auth\n", "cannot be read"),
    ],
)
def test_a_login_that_cannot_be_used_is_not_taken_for_none(
    secrets: Path, content: str, says: str
) -> None:
    secrets.write_text(content)
    with pytest.raises(access.AccessError, match=says):
        access.login_is_configured()


def test_the_command_refuses_an_open_address(secrets: Path) -> None:
    result = CliRunner().invoke(command, ["--address", ANYWHERE, "--by", "me"], env={})
    assert result.exit_code == 2
    assert "--read-only" in result.output


def test_the_command_names_a_missing_setting(secrets: Path) -> None:
    result = CliRunner().invoke(command, ["--by", "me"], env={"MUSICBRAINZ_DATABASE_URL": ""})
    assert result.exit_code == 2
    assert "MUSICBRAINZ_DATABASE_URL is not set" in result.output


def test_the_command_names_a_missing_table(secrets: Path, musicbrainz_database: str) -> None:
    result = CliRunner().invoke(
        command, ["--by", "me"], env={"MUSICBRAINZ_DATABASE_URL": musicbrainz_database}
    )
    assert result.exit_code == 2
    assert "artwork-backfill migrate" in result.output


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8501", True),
        ("127.0.0.1:8501", True),
        ("[::1]:8501", True),
        ("192.0.2.7", True),
        ("Dashboard.Example", True),
        ("proxy.example", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[", False),
        ("", False),
        (None, False),
    ],
)
def test_only_its_own_names_and_addresses_are_answered(
    secrets: Path, host: str | None, allowed: bool
) -> None:
    secrets.write_text(LOGIN)
    assert access.hosts(ANYWHERE, ["proxy.example"]).allow(host) is allowed


def test_every_option_is_one_that_streamlit_knows() -> None:
    known = streamlit_config.get_config_options()
    assert set(serve.OPTIONS) <= set(known)
    assert serve.OPTIONS["browser.gatherUsageStats"] is False
    assert serve.OPTIONS["client.disableDataExport"] is True
