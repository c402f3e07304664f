from __future__ import annotations

import pytest

from artwork_backfill.shared.audit.catalogue import (
    CHECKS,
    Remedy,
    Severity,
    UnknownCheck,
    match_checks,
    parse_remedies,
)


def test_severities_are_ordered_by_gravity():
    assert Severity.MINOR < Severity.MAJOR < Severity.CRITICAL
    assert [severity.label for severity in Severity] == ["minor", "major", "critical"]


def test_every_check_stands_under_its_own_name_and_says_what_it_is():
    for name, check in CHECKS.items():
        assert check.name == name
        assert check.summary
        if name != "item.archive":
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


@pytest.mark.parametrize(
    ("texts", "remedies"),
    [
        (
            ["item.*=index"],
            {
                "item.collection": Remedy.INDEX,
                "item.mediatype": Remedy.INDEX,
                "item.noindex": Remedy.INDEX,
            },
        ),
        (["meta.title=record"], {"meta.title": Remedy.RECORD}),
        (
            ["*.image=review", "orphan.image=record"],
            {"orphan.image": Remedy.RECORD},
        ),
        ([], {}),
    ],
)
def test_remedies_are_chosen_by_name_or_glob_and_the_last_counts(texts, remedies):
    assert parse_remedies(texts) == remedies


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("item.missing=index", "indexing again cannot repair"),
        ("item.missing=delete", "write CHECK=index"),
        ("item.missing", "write CHECK=index"),
        ("xml.fields=index", "xml.field"),
    ],
)
def test_a_remedy_that_is_not_possible_is_refused(text, problem):
    with pytest.raises(UnknownCheck, match=problem):
        parse_remedies([text])
