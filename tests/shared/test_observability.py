"""Secrets are hidden wherever they hide, and text from outside is shown, not obeyed."""

from __future__ import annotations

import pytest

from artwork_backfill.shared.engine.log import Redactor, plain


def test_secrets_are_hidden_however_deep_they_are() -> None:
    redactor = Redactor(["hunter22", "hunter22-long", "abc"])
    value = {
        "hunter22": ["x hunter22 y", ("hunter22-long", 5)],
        "plain": {"deeper": "hunter22hunter22"},
        "number": 7,
    }
    assert redactor.value(value) == {
        "***": ["x *** y", ["***", 5]],
        "plain": {"deeper": "******"},
        "number": 7,
    }


def test_what_is_too_short_to_be_a_secret_blots_out_no_words() -> None:
    assert Redactor(["a", "ok"]).text("a task is ok") == "a task is ok"
    assert Redactor([]).text("a task is ok") == "a task is ok"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Björk - Début\t(1993)\n", "Björk - Début\t(1993)\n"),
        ("音楽", "音楽"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\rb\x00c\x7f", r"a\rb\x00c\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert plain(text) == shown
