"""Secrets are hidden wherever they may stand, and words are left as they are."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artwork_backfill.shared.engine.redaction import Redactor
from artwork_backfill.shared.settings import Settings, SettingsError


def redactor(dsn: str = "", *arguments: str) -> Redactor:
    return Redactor.of_process(Settings({"MUSICBRAINZ_DATABASE_URL": dsn}), arguments)


def test_a_secret_is_hidden_wherever_it_stands() -> None:
    hides = Redactor(["hunter22", "hunter22-long", "abc1"])
    assert hides.text("ahunter22b, hunter22-long; abc1") == "a***b, ***; ***"
    assert hides.value({"hunter22": ["x", ("abc1", {"y": "hunter22"})], "n": 5}) == {
        "***": ["x", ["***", {"y": "***"}]],
        "n": 5,
    }


@pytest.mark.parametrize("secret", ["wrong", "a", "ok", "7", "4711", "password"])
def test_a_secret_that_reads_like_a_word_is_hidden_where_values_stand(secret: str) -> None:
    hides = Redactor([secret])
    prose = f"what is {secret} with row 74711, or error: {secret} column; {secret}ly this is so"
    assert hides.text(prose) == prose
    for before, after in [
        ("password=", ""),
        ("LOW key:", ""),
        ('host "', '"'),
        ("'", "' is no port"),
        ("?x=", "&y=1"),
        ("https://host/", "?x"),
        ("the password ", " was refused"),
    ]:
        assert hides.text(before + secret + after) == f"{before}***{after}"
    assert hides.text(f"postgresql://mb:{secret}@db/x") == "postgresql://***@db/x"
    assert hides.value({"detail": secret}) == {"detail": "***"}


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        (
            "postgresql://mb:hunter2@Winter2026@db/x",
            ["hunter2", "Winter2026", "hunter2@Winter2026"],
        ),
        ("postgresql://mb:sum/mer9@db/x", ["sum/mer9", "mer9", "sum%2Fmer9"]),
        ("postgresql://mb:a?b9c@db/x", ["a?b9c", "b9c"]),
        ("postgresql://mb:p%40ss%3Aw0rd@db/x", ["p%40ss%3Aw0rd", "p@ss:w0rd", "p%40ss%3aw0rd"[:3]]),
        ("postgresql://mb@db/x?password=hunter2&sslmode=require", ["hunter2"]),
        ("host=db user=mb password='hunter2 x'", ["hunter2 x", "hunter2%20x"]),
    ],
)
def test_whatever_can_be_part_of_a_password_is_hidden(dsn: str, shown: list[str]) -> None:
    hides = redactor(dsn)
    for secret in shown:
        text = f'cannot translate host name "{secret}@db", or {secret!r}, or port={secret}'
        assert secret not in hides.text(text) or len(secret) < 4
    assert "hunter2" not in hides.text(dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://mb:hunter2@Winter2026@db/x",
        "postgresql://mb:hunter2/9@db/x",
        "postgresql://mb:hunter2#9@db/x",
    ],
)
def test_a_password_that_can_be_read_in_two_ways_is_refused_with_what_to_do(dsn: str) -> None:
    with pytest.raises(SettingsError, match="must be percent-encoded") as caught:
        Settings({"MUSICBRAINZ_DATABASE_URL": dsn}).musicbrainz_database()
    assert "MUSICBRAINZ_DATABASE_URL=" in str(caught.value)
    assert not {"hunter2", "Winter2026"} & set(str(caught.value).split())


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=20))
def test_every_password_is_hidden_encoded_and_raw(password: str) -> None:
    for written in (quote(password, safe=""), password):
        hides = redactor(f"postgresql://mb:{written}@db.example/x")
        for said in (f"password={written}", f'the password "{written}"', f":{quote(password)}@db"):
            hidden = hides.text(said)
            assert hidden.count("***") >= 1, (said, hidden)
            assert hidden.replace("***", "") in said or written not in hidden


def test_users_and_queries_of_urls_among_the_arguments_are_hidden() -> None:
    url = "https://scott:t1ger%21@host.example/x/bad_items.csv?token=s3cr3t-t0ken&page=2"
    hides = redactor("", "seed-from-img-129", url, f"--from={url}")
    options = hides.value({"places": [url]})
    assert options == {"places": ["https://***@host.example/x/bad_items.csv?***"]}
    for said in ("t1ger!", "t1ger%21", "s3cr3t-t0ken", "token=s3cr3t-t0ken&page=2"):
        assert said not in hides.text(f"cannot open {said}: see {url}")
    assert hides.text("page 2 of 2") == "page 2 of 2"


def test_the_user_of_a_url_that_no_one_knew_of_is_hidden() -> None:
    assert Redactor(()).text("see http://me:pass@host/x, ftp://a@b") == (
        "see http://***@host/x, ftp://***@b"
    )


def test_redaction_takes_no_time_on_long_texts() -> None:
    hides = redactor("postgresql://mb:wrong@db/x", "https://a:b@c/d?e=fghijkl")
    for text in ("://" * 100_000, "=" * 300_000, "wrong" * 60_000, "a@" * 150_000):
        assert len(hides.text(text)) > 0
