"""What an audit has judged, and what it says nothing about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from artwork_backfill.shared.audit.actual import Actual, Item, ItemState
from artwork_backfill.shared.audit.archives import image_name, xml_name
from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.audit.compare import compare, judged
from artwork_backfill.shared.audit.expected import Credit, Expected, Presence, ReleaseFacts
from tests.shared.audit.audit_states import BOTH, EVENT, FRONT, RELEASE, FakeItem, healthy

LIVE = {name for name, check in CHECKS.items() if check.applies != "orphan"}
MERGED = replace(RELEASE, presence=Presence.MERGED, artwork=())


def _judged(expected: Expected, item: FakeItem) -> set[str]:
    actual = item.actual(expected)
    return set(judged(CHECKS, expected, actual, compare(expected, actual)))


def _in_state(expected: Expected, state: ItemState) -> set[str]:
    actual = Actual(Item(expected.gid, state))
    return set(judged(CHECKS, expected, actual, compare(expected, actual)))


@pytest.mark.parametrize("expected", BOTH, ids=lambda expected: expected.entity_type)
def test_a_healthy_item_proves_every_check_of_its_kind(expected: Expected) -> None:
    metadata = {name for name in LIVE if name.startswith("meta.")}
    wanted = LIVE if expected is RELEASE else LIVE - metadata
    assert _judged(expected, healthy(expected)) == wanted


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (lambda item: item.remove("index.json"), "index."),
        (lambda item: item.originals.update({"index.json": b"<html>"}), "index."),
        (lambda item: item.edit_index(lambda index: index.update(images="none")), "index.image."),
        (lambda item: item.edit_index(lambda index: index["images"].pop()), "index.image.value"),
        (lambda item: item.edit_image(lambda image: image.pop("comment")), "index.image.value"),
        (lambda item: item.remove(xml_name(item.gid)), "xml."),
        (lambda item: item.originals.update({xml_name(item.gid): b"<metadata"}), "xml.field"),
        (
            lambda item: item.remove(image_name(item.gid, FRONT, "jpg")),
            "files.original.empty",
        ),
    ],
)
def test_what_another_finding_hides_is_not_judged(
    damage: Callable[[FakeItem], None], lost: str
) -> None:
    item = healthy(RELEASE)
    damage(item)
    found = {finding.check for finding in compare(RELEASE, item.actual(RELEASE))}
    seen = _judged(RELEASE, item)
    assert not {check for check in seen if check.startswith(lost)} - found
    assert found | {"files.original.extra", "item.noindex", "meta.title"} <= seen


def test_the_file_is_not_judged_where_only_the_tables_were_asked() -> None:
    item = healthy(RELEASE)
    facts = ReleaseFacts(
        title="Ruined Subjects",
        credits=(Credit("x", "The Friends", "Friends"),),
        language="eng",
        barcode=None,
        asin=None,
        dates=(),
    )
    item.metadata |= {
        "creator": "The Friends",
        "creator-alt-script": "Friends",
        "external-identifier": [f"urn:mb_release_id:{RELEASE.gid}", "urn:mb_artist_id:x"],
    }
    item.metadata.pop("date")
    screened = replace(RELEASE, xml=None, facts=facts)
    assert LIVE - _judged(screened, item) == {"xml.malformed", "xml.field", "xml.other"}


def test_a_date_known_in_part_is_not_judged() -> None:
    assert RELEASE.xml is not None
    in_part = replace(RELEASE, xml=RELEASE.xml.replace(b"2011-08-09", b"????-08-09"))
    item = healthy(in_part)
    assert LIVE - _judged(in_part, item) == {"meta.date"}


def test_an_item_that_is_absent_or_dark_judges_nothing_of_a_live_entity() -> None:
    assert _in_state(EVENT, ItemState.ABSENT) == {"item.missing"}
    assert _in_state(replace(EVENT, artwork=()), ItemState.ABSENT) == set()
    assert _in_state(replace(EVENT, dark=True), ItemState.DARK) == set()


def test_the_checks_of_an_orphan_are_its_own() -> None:
    orphans = {"orphan.image", "orphan.index", "orphan.leftover", "item.archive"}
    assert _in_state(MERGED, ItemState.ABSENT) == orphans
    assert _in_state(MERGED, ItemState.DARK) == set()
    assert _judged(MERGED, healthy(RELEASE)) == orphans - {"orphan.leftover"}
