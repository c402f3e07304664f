from __future__ import annotations

import pytest
from artwork_backfill.shared.audit.catalogue import (
    CHECKS,
    Remedy,
    Severity,
    UnknownCheck,
    match_checks,
)


def test_severities_are_ordered_by_gravity():
    assert Severity.MINOR < Severity.MAJOR < Severity.CRITICAL
    assert [severity.label for severity in Severity] == ["minor", "major", "critical"]


def test_every_check_stands_under_its_own_name_and_says_what_it_is():
    for name, check in CHECKS.items():
        assert check.name == name
        assert check.summary
        assert check.applies == ("orphan" if name.startswith("orphan.") else "live")


def test_only_a_live_entity_is_indexed_and_only_an_orphan_is_deindexed():
    assert {c.applies for c in CHECKS.values() if c.remedy is Remedy.INDEX} == {"live"}
    assert {c.applies for c in CHECKS.values() if c.remedy is Remedy.DEINDEX} == {"orphan"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("item.dark", {"item.dark"}),
        ("orphan.*", {"orphan.image", "orphan.index", "orphan.leftover"}),
        ("*.malformed", {"index.malformed", "xml.malformed"}),
        ("meta.[td]*", {"meta.title", "meta.date"}),
        ("*", set(CHECKS)),
    ],
)
def test_checks_are_matched_by_name_or_glob(pattern, names):
    assert match_checks(pattern) == names


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [("xml.fields", "xml.field"), ("index.images.*", "index.image"), ("Item.Dark", "item.dark")],
)
def test_a_pattern_without_a_match_is_refused_naming_the_nearest(pattern, nearest):
    with pytest.raises(UnknownCheck, match=nearest):
        match_checks(pattern)
