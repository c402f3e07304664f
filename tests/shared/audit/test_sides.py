"""The documents of an entity, as they should be and as they are."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from artwork_backfill.shared.audit.archives import xml_name
from artwork_backfill.shared.audit.expected import Expected, Presence
from artwork_backfill.shared.audit.sides import documents
from tests.shared.audit.audit_states import BOTH, RELEASE, healthy


@pytest.mark.parametrize("expected", BOTH)
def test_documents_that_need_not_be_read_are_as_expected(expected: Expected) -> None:
    index, xml = documents(expected, healthy(expected).actual(expected))
    assert index.expected == index.found
    assert xml.expected == xml.found
    assert xml.name == xml_name(expected.gid)


def test_a_document_that_differs_is_shown_whole_on_both_sides() -> None:
    item = healthy(RELEASE)
    item.edit_image(lambda image: image.update(comment="edited"))
    item.edit_xml("Ruined Subjects", "Ruined")
    index, xml = documents(RELEASE, item.actual(RELEASE))
    assert json.loads(index.found or "")["images"][0]["comment"] == "edited"
    assert index.expected != index.found
    assert "<title>Ruined</title>" in (xml.found or "").splitlines()


def test_a_document_that_is_missing_has_one_side() -> None:
    item = healthy(RELEASE)
    item.remove("index.json")
    index, _ = documents(RELEASE, item.actual(RELEASE))
    assert index.found is None
    assert index.expected is not None
    assert index.problem == ""


def test_what_a_deleted_entity_leaves_behind_is_named_though_it_is_not_read() -> None:
    gone = replace(RELEASE, presence=Presence.DELETED, artwork=(), xml=None)
    index, _ = documents(gone, healthy(RELEASE).actual(gone))
    assert (index.expected, index.found) == (None, None)
    assert index.problem.startswith("not read: ")
