"""Settings: every malformed value is named, with an example, and no secret is quoted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from artwork_backfill.shared.settings import (
    VARIABLES,
    Endpoint,
    Settings,
    SettingsError,
    Variable,
    env_example,
)

READERS: dict[str, Callable[[Settings], object]] = {
    "MUSICBRAINZ_DATABASE_URL": Settings.musicbrainz_database,
    "WXYC_DATABASE_URL": Settings.wxyc_database,
    "WXYC_SCHEMA_NAME": Settings.wxyc_schema,
    "ARCHIVE_ORG_URL": Settings.archive_org,
    "ARCHIVE_ORG_RATE": Settings.archive_org,
    "ARCHIVE_ORG_ACCESS_KEY": Settings.archive_org_keys,
    "ARCHIVE_ORG_SECRET_KEY": Settings.archive_org_keys,
    "MUSICBRAINZ_URL": Settings.musicbrainz,
    "MUSICBRAINZ_RATE": Settings.musicbrainz,
    "LIBRARY_METADATA_URL": Settings.lml,
    "LML_RATE": Settings.lml,
    "BACKFILL_CONTACT": Settings.contact,
    "SENTRY_DSN": Settings.sentry_dsn,
}
SOUND = {
    "BACKFILL_CONTACT": "ops@example.org",
    "LIBRARY_METADATA_URL": "https://lml.example",
    "ARCHIVE_ORG_ACCESS_KEY": "access",
    "ARCHIVE_ORG_SECRET_KEY": "secret",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MUSICBRAINZ_DATABASE_URL", ""),
        ("MUSICBRAINZ_DATABASE_URL", "   "),
        ("MUSICBRAINZ_DATABASE_URL", "mysql://user:hunter22@db/name"),
        ("MUSICBRAINZ_DATABASE_URL", "postgresql://user:hunter22@db/name?nonsense=1"),
        ("MUSICBRAINZ_DATABASE_URL", "host=db password=hunter22 port"),
        ("WXYC_DATABASE_URL", ""),
        ("WXYC_DATABASE_URL", "postgresql://user:hunter22@[::1/name"),
        ("WXYC_SCHEMA_NAME", "wxyc schema"),
        ("WXYC_SCHEMA_NAME", 'wxyc"; DROP SCHEMA x'),
        ("WXYC_SCHEMA_NAME", "7inches"),
        ("WXYC_SCHEMA_NAME", "s" * 64),
        ("ARCHIVE_ORG_URL", "archive.org"),
        ("ARCHIVE_ORG_URL", "ftp://archive.org"),
        ("ARCHIVE_ORG_URL", "https://"),
        ("ARCHIVE_ORG_URL", "https://user:hunter22@archive.org"),
        ("ARCHIVE_ORG_URL", "https://archive.org?x=1"),
        ("ARCHIVE_ORG_URL", "https://archive.org:notaport"),
        ("ARCHIVE_ORG_RATE", "fast"),
        ("ARCHIVE_ORG_RATE", "0"),
        ("ARCHIVE_ORG_RATE", "-1/s"),
        ("ARCHIVE_ORG_RATE", "2/day"),
        ("ARCHIVE_ORG_RATE", "1e3"),
        ("ARCHIVE_ORG_RATE", "nan"),
        ("ARCHIVE_ORG_RATE", "inf"),
        ("ARCHIVE_ORG_ACCESS_KEY", ""),
        ("ARCHIVE_ORG_SECRET_KEY", ""),
        ("MUSICBRAINZ_URL", "musicbrainz"),
        ("MUSICBRAINZ_RATE", "1/fortnight"),
        ("LIBRARY_METADATA_URL", ""),
        ("LIBRARY_METADATA_URL", "lml.example"),
        ("LML_RATE", "0/s"),
        ("BACKFILL_CONTACT", "ops@example.org\nX-Evil: 1"),
        ("BACKFILL_CONTACT", "bjørn@example.org"),
        ("SENTRY_DSN", "hunter22"),
        ("SENTRY_DSN", "https://sentry.example/1"),
        ("SENTRY_DSN", "https://hunter22@sentry.example/"),
        ("SENTRY_DSN", "https://hunter22@sentry.example:port/1"),
    ],
)
def test_a_malformed_value_is_named_with_an_example_and_not_quoted_if_secret(
    name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        READERS[name](Settings({**SOUND, name: value}))
    message = str(caught.value)
    assert message.startswith(name)
    assert f"{name}=" in message
    assert "\n" not in message
    assert "hunter22" not in message
    assert not re.search(r"\b(\w+) \1\b", message)


@pytest.mark.parametrize("url_name", ["ARCHIVE_ORG_URL", "MUSICBRAINZ_URL"])
def test_the_public_hosts_require_a_contact(url_name: str) -> None:
    with pytest.raises(SettingsError, match="BACKFILL_CONTACT is not set"):
        READERS[url_name](Settings({}))
    READERS[url_name](Settings({url_name: "https://mirror.example"}))


@pytest.mark.parametrize(
    ("text", "per_second"),
    [
        ("2/s", 2.0),
        ("2", 2.0),
        ("0.5/s", 0.5),
        ("90/m", 1.5),
        ("90 / M", 1.5),
        ("3600/h", 1.0),
        ("unlimited", None),
        ("Unlimited", None),
        (" 5/s ", 5.0),
    ],
)
def test_a_rate_is_read_as_requests_per_second(text: str, per_second: float | None) -> None:
    settings = Settings({"ARCHIVE_ORG_URL": "http://mirror:8080/ia/", "ARCHIVE_ORG_RATE": text})
    assert settings.archive_org() == Endpoint("http://mirror:8080/ia", per_second)


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_value_counts_as_not_set(variable: Variable, empty: str) -> None:
    name = variable.name
    assert Settings({name: empty}).get(name) == Settings({}).get(name)


def test_keys_of_archive_org_come_in_pairs_or_not_at_all() -> None:
    assert Settings({}).archive_org_keys() is None
    assert Settings(SOUND).archive_org_keys() == ("access", "secret")


@pytest.mark.parametrize(
    ("dsn", "hidden"),
    [
        ("postgresql://u:hunter22@h/d", {"hunter22"}),
        ("postgresql://u:p%40ss%2Fword@h/d", {"p@ss/word", "p%40ss%2Fword"}),
        ("postgresql://u:p%40ss%2fword@h/d", {"p@ss/word", "p%40ss%2fword", "p%40ss%2Fword"}),
        ("postgresql://u@h/d?password=h%C3%BCnter", {"hünter", "h%C3%BCnter"}),
        ("postgresql://u@h/d?sslmode=require&password=hunter22", {"hunter22"}),
        ("host=h user=u password='it''s'", set()),
        ("host=h user=u password='my secret'", {"my secret"}),
        ("postgresql://u:hunter22@h/d?nonsense=1", {"hunter22"}),
    ],
)
def test_passwords_in_connection_strings_are_secrets_in_every_spelling(
    dsn: str, hidden: set[str]
) -> None:
    assert Settings({"MUSICBRAINZ_DATABASE_URL": dsn}).secrets() >= hidden


def test_secret_variables_are_secrets_and_others_are_not() -> None:
    environ = {variable.name: f"value-of-{variable.name}" for variable in VARIABLES}
    secrets = Settings(environ).secrets()
    for name in ("ARCHIVE_ORG_SECRET_KEY", "LML_API_KEY", "SENTRY_DSN"):
        assert f"value-of-{name}" in secrets
    assert "value-of-BACKFILL_CONTACT" not in secrets


def test_settings_do_not_show_their_values() -> None:
    assert "hunter22" not in repr(Settings({"LML_API_KEY": "hunter22"}))


def test_every_example_is_accepted() -> None:
    environ = {v.name: v.example or v.default or "" for v in VARIABLES}
    for read in READERS.values():
        read(Settings(environ))


def test_the_example_file_is_current() -> None:
    path = Path(__file__).parents[2] / ".env.example"
    assert path.read_text() == env_example(), (
        "write it anew: python -c"
        " 'from shared.settings import env_example; print(env_example(), end=\"\")' > .env.example"
    )
