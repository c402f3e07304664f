"""Both statements of what an answer of archive.org means agree on all combinations of its parts."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from artwork_backfill.shared.audit.actual import classify
from tests.oracle.answers import Meaning, meaning

GID = "8a831817-4d64-4fa6-913c-513a42f8eda1"

_OWN = [
    {"name": f"mbid-{GID}_{tail}.xml", "source": "original", "size": "9", "md5": "a" * 32}
    for tail in ("meta", "files")
]
_IMAGE = {"name": f"mbid-{GID}-1.jpg", "source": "original", "size": 9}

#: What each part of an answer may be; the first of them is that of a healthy item.
_PARTS: dict[str, tuple[dict[str, Any], ...]] = {
    "files": (
        {"files": [*_OWN, _IMAGE], "files_count": 3},
        {"files": [*_OWN, _IMAGE]},
        {"files": [*_OWN, _IMAGE], "files_count": "3"},
        {"files": [*_OWN, _IMAGE], "files_count": 4},
        {"files": [_OWN[0], _IMAGE], "files_count": 2},
        {"files": [_OWN[1], _IMAGE]},
        {"files": [], "files_count": 7},
        {"files": []},
        {"files": None},
        {},
    ),
    "dark": ({}, {"is_dark": True}, {"is_dark": False}),
    "errcode": ({}, *({"errcode": code} for code in (101, 102, 104, 105))),
    "work": (
        {},
        {"pending_tasks": True},
        {"pending_tasks": False, "has_redrow": True},
        {"tasks": [{"cmd": "derive.php"}]},
        {"tasks": [], "has_redrow": False},
        {"nodownload": True},
    ),
    "error": ({}, {"error": "something is wrong"}),
    "servers": ({}, {"servers_unavailable": True}),
    "metadata": ({"metadata": {"identifier": f"mbid-{GID}"}}, {}),
}


def test_every_combination_of_parts_means_the_same_to_both() -> None:
    seen = set()
    for parts in itertools.product(*_PARTS.values()):
        answer: dict[str, Any] = {"created": 1_790_000_000}
        for part in parts:
            answer |= part
        expected = meaning(json.dumps(answer).encode())
        assert classify(answer, GID).state.name == expected.name, answer
        seen.add(expected)
    assert seen == set(Meaning)


@pytest.mark.parametrize("answer", [[], {}, None, [1], [[]], 3, "dark", True, {"created": 1}])
def test_what_is_no_item_means_the_same_to_both(answer: object) -> None:
    expected = meaning(json.dumps(answer).encode())
    assert classify(answer, GID).state.name == expected.name
