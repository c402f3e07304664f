"""Worlds: deterministic, complete, consistent, and of the formats that the outside really has."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.drift import DRIFTS, HEALTHY, PASSING, Drift, Subject
from sandbox.entities import EntityType, Presence
from sandbox.formats import (
    ARCHIVES,
    Listed,
    extract,
    extracted,
    index_document,
    index_json,
    xml_name,
)
from sandbox.items import PDF_DERIVATIVES
from sandbox.world import (
    ARTWORK_IDS_PER_ENTITY,
    FIRST_ARTWORK_ID,
    UNKNOWN_ARTWORK_ID,
    Spec,
    World,
)

SAMPLES = Path(__file__).parents[1] / "samples"

CHECKS = {
    "item.missing",
    "item.dark",
    "item.archive",
    "item.collection",
    "item.mediatype",
    "item.noindex",
    "files.index.missing",
    "files.xml.missing",
    "files.original.missing",
    "files.original.empty",
    "files.original.duplicate",
    "files.original.extra",
    "files.thumbnail.missing",
    "index.malformed",
    "index.shape",
    "index.entity_url",
    "index.image.missing",
    "index.image.extra",
    "index.image.duplicate",
    "index.image.order",
    "index.image.field_missing",
    "index.image.field_unexpected",
    "index.image.type",
    "index.image.value",
    "index.image.url",
    "xml.malformed",
    "xml.field",
    "xml.other",
    "meta.title",
    "meta.creator",
    "meta.date",
    "meta.language",
    "meta.external_identifier",
    "orphan.image",
    "orphan.index",
    "orphan.leftover",
}


@pytest.fixture(scope="module")
def world() -> World:
    return World(Spec(seed=7))


def test_a_world_of_2000_has_every_drift_check_status_and_presence(world: World) -> None:
    plans = list(world.plans())
    assert {plan.drift for plan in plans} == {None, *(drift.name for drift in DRIFTS)}
    assert set().union(*(plan.checks for plan in plans)) == CHECKS
    assert {plan.status for plan in plans} == {"clean", "repair_queue", "manual_review", "legacy"}
    orphans = {
        world.entity(number).presence
        for number, plan in enumerate(plans)
        if plan.drift is not None and plan.drift.startswith("orphan-")
    }
    assert orphans == {Presence.MERGED, Presence.DELETED, Presence.UNKNOWN}


def test_releases_and_events_both_drift_wherever_the_drift_is_for_both(world: World) -> None:
    planted = {(plan.drift, plan.entity_type) for plan in world.drifted()}
    for drift in DRIFTS:
        for entity_type in drift.types:
            assert (drift.name, entity_type) in planted


def test_events_are_not_expected_to_show_what_only_releases_are_compared_in(world: World) -> None:
    for plan in world.drifted():
        if plan.entity_type is EntityType.EVENT:
            assert not any(check.startswith("meta.") for check in plan.checks)


def test_drifted_lists_exactly_the_plans_with_drift(world: World) -> None:
    drifted = sorted(plan.gid for plan in world.drifted())
    assert drifted == sorted(plan.gid for plan in world.plans() if plan.drift)
    assert len(drifted) == round(world.spec.size * world.spec.drift_rate)


def test_equal_parameters_make_equal_worlds_and_another_seed_another() -> None:
    spec = Spec(seed=3, size=200, drifts=("index-missing",))
    first, second, third = World(spec), World(spec), World(Spec(seed=4, size=200))
    assert [first.item(p.gid) for p in first.plans()] == [second.item(p.gid) for p in first.plans()]
    assert not {p.gid for p in first.plans()} & {p.gid for p in third.plans()}


def test_a_gid_tells_its_number(world: World) -> None:
    gids = [world.gid(number) for number in range(world.spec.size)]
    assert len(set(gids)) == world.spec.size
    assert [world.number(gid) for gid in gids] == list(range(world.spec.size))


@pytest.mark.parametrize("gid", ["", "x", "00000000-0000-4000-8000-000000000000"])
def test_a_gid_of_another_world_has_no_number(world: World, gid: str) -> None:
    assert world.number(gid) is None
    assert world.item(gid) is None
    assert world.xml(EntityType.RELEASE, gid) is None


def test_huge_worlds_answer_at_once() -> None:
    world = World(Spec(size=1_000_000_000))
    gid = world.gid(999_999_999)
    assert world.number(gid) == 999_999_999
    assert world.plan(999_999_999).gid == gid
    assert next(world.drifted()).drift == DRIFTS[0].name


def test_without_drift_everything_is_clean_or_legacy() -> None:
    world = World(Spec(size=500, drift_rate=0))
    assert {plan.status for plan in world.plans()} == {"clean", "legacy"}


def test_only_the_selected_drifts_are_planted() -> None:
    world = World(Spec(size=500, drift_rate=0.2, drifts=("xml-title", "index-missing")))
    assert {plan.drift for plan in world.drifted()} == {"xml-title", "index-missing"}


def test_without_events_there_are_none() -> None:
    world = World(Spec(size=1_000, drift_rate=0.5, event_share=0))
    assert {plan.entity_type for plan in world.plans()} == {EntityType.RELEASE}


@pytest.mark.parametrize(
    ("drifts", "message"),
    [
        (("no-such",), "unknown drift no-such"),
        (("foreign-only-copy",), "original-missing"),
        (("original-missing", "orphan-owner-dark"), "item-dark"),
    ],
)
def test_contradictory_parameters_are_refused(drifts: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        World(Spec(drifts=drifts))


def test_every_answer_is_json_with_the_checksums_of_what_can_be_downloaded(world: World) -> None:
    for plan in world.plans():
        item = world.item(plan.gid)
        if item is None or item.dark:
            continue
        document = json.loads(item.document("127.0.0.1:80"))
        assert document["dir"].endswith(f"/items/mbid-{plan.gid}")
        sums = {file["name"]: file.get("md5") for file in document["files"]}
        assert len(sums) == len(document["files"])
        for name, content in item.contents.items():
            if plan.drift != "index-huge":
                assert sums[name] == hashlib.md5(content).hexdigest()


def test_what_is_extracted_from_xml_is_what_is_said_to_be(world: World) -> None:
    for number in range(300):
        entity = world.entity(number)
        answer = world.xml(entity.entity_type, entity.gid)
        if answer is not None and answer[0] == entity.gid:
            facts = world.facts(number)
            assert extract(answer[1]) == extracted(entity.entity_type, entity.gid, facts)


def test_borrowed_images_belong_to_an_entity_that_has_or_lacks_them(world: World) -> None:
    borrowing = {"foreign-owned", "foreign-only-copy", "foreign-unknown", "orphan-copy-empty"}
    owners = {drift.name: drift.owner for drift in DRIFTS if drift.name in borrowing}
    seen = set()
    for plan in world.drifted():
        if plan.drift not in owners:
            continue
        seen.add(plan.drift)
        item = world.item(plan.gid)
        number = world.number(plan.gid)
        assert item is not None
        assert number is not None
        own = {artwork.id for artwork in world.entity(number).artwork}
        (foreign,) = {
            (artwork_id, name.rpartition(".")[2])
            for name, file in item.files.items()
            if file.source == "original"
            and (artwork_id := _artwork_id(name, plan.gid)) is not None
            and artwork_id not in own
        }
        if owners[plan.drift] is None:
            assert foreign[0] >= UNKNOWN_ARTWORK_ID
            continue
        owner = world.entity((foreign[0] - FIRST_ARTWORK_ID) // ARTWORK_IDS_PER_ENTITY)
        assert owner.presence is Presence.LIVE
        assert owner.entity_type is plan.entity_type
        assert foreign in [(artwork.id, artwork.suffix) for artwork in owner.artwork]
        held = world.item(owner.gid)
        copy = held.files.get(f"mbid-{owner.gid}-{foreign[0]}.{foreign[1]}") if held else None
        own_copy = item.files[f"mbid-{plan.gid}-{foreign[0]}.{foreign[1]}"]
        if owners[plan.drift] == "original-missing":
            assert copy is None
        else:
            assert copy is not None
            has_it = (copy.size, copy.md5) == (own_copy.size, own_copy.md5)
            assert has_it is (owners[plan.drift] == HEALTHY)
    assert seen == owners.keys()


def _artwork_id(name: str, gid: str) -> int | None:
    number = name.removeprefix(f"mbid-{gid}-").rpartition(".")[0]
    return int(number) if number.isdecimal() else None


def test_a_merged_entity_answers_with_the_one_it_was_merged_into(world: World) -> None:
    merged = [
        entity
        for entity in map(world.entity, range(world.spec.size))
        if entity.presence is Presence.MERGED
    ]
    assert merged
    for entity in merged:
        target = world.merged_into(entity)
        answer = world.xml(entity.entity_type, entity.gid)
        assert target is not None
        assert target.presence is Presence.LIVE
        assert answer is not None
        assert answer[0] == target.gid != entity.gid


def test_the_listing_is_written_as_the_indexer_writes_it() -> None:
    gid = "8745795a-190f-4be5-84fd-a8cfe5365cc6"
    images = [
        Listed(31935858269, "jpg", ("Front",), True, False, "", True, 87832752),
        Listed(31935858270, "jpg", ("Back", "Spine"), False, True, "", True, 87832752),
    ]
    written = index_json(index_document(EntityType.RELEASE, gid, images))
    assert written == (SAMPLES / "index-current.json").read_bytes().rstrip(b"\n")


@pytest.mark.parametrize("entity_type", list(EntityType))
def test_a_collection_holds_the_items_that_say_so_and_are_not_dark(
    world: World, entity_type: EntityType
) -> None:
    planned = []
    for plan in world.plans():
        item = world.item(plan.gid)
        if plan.entity_type is entity_type and item is not None and not item.dark:
            collections = item.metadata.get("collection", "")
            if ARCHIVES[entity_type].collection in collections:
                planned.append(plan.gid)
    assert world.collected(entity_type, 0, world.spec.size) == (planned, world.spec.size)
    first, stop = world.collected(entity_type, 0, 10)
    rest, _ = world.collected(entity_type, stop, world.spec.size)
    assert len(first) == 10
    assert first + rest == planned


LIVE_DRIFTS = [drift for drift in DRIFTS if drift.subject is Subject.ART]


@pytest.mark.parametrize("drift", LIVE_DRIFTS, ids=lambda drift: str(drift.name))
def test_every_drift_shows_in_every_variant(drift: Drift) -> None:
    drifts = (DRIFTS[0].name, drift.owner or DRIFTS[0].name, drift.name)
    world = World(Spec(size=480, drift_rate=0.25, drifts=drifts, untidy_share=0))
    planted = [plan for plan in world.drifted() if plan.drift == drift.name]
    assert len(planted) > 20
    for plan in planted:
        assert _deviations(world, plan.gid)


def test_what_is_healthy_does_not_deviate() -> None:
    world = World(Spec(size=300, drift_rate=0, untidy_share=0, dark_share=0))
    with_art = [n for n in range(world.spec.size) if world.entity(n).artwork]
    assert with_art
    for number in with_art:
        assert _deviations(world, world.gid(number)) == set()


PASSING_SHOWN = {
    "unfinished": {"pending_tasks", "has_redrow", "tasks", "nodownload", "errcode"},
    "unavailable": {"error", "errcode"},
}


@pytest.mark.parametrize("drift", PASSING, ids=lambda drift: str(drift.name))
def test_what_passes_by_itself_shows_in_the_answer(drift: Drift) -> None:
    world = World(Spec(size=480, drift_rate=0.25, drifts=(drift.name,)))
    planted = list(world.drifted())
    assert len(planted) > 20
    for plan in planted:
        assert plan.status == plan.repaired == "unchecked"
        item = world.item(plan.gid)
        assert item is not None
        answer = json.loads(item.document("127.0.0.1:80"))
        names = {file["name"] for file in answer["files"]}
        whole = (
            len(names) == answer["files_count"]
            and {
                f"mbid-{plan.gid}_meta.xml",
                f"mbid-{plan.gid}_files.xml",
            }
            <= names
        )
        shown = PASSING_SHOWN.get(drift.name, set()) & answer.keys()
        assert bool(shown) is (drift.name in PASSING_SHOWN)
        assert whole is bool(shown)


def test_what_passes_by_itself_is_not_planted_unless_it_is_named(world: World) -> None:
    assert not {plan.drift for plan in world.plans()} & {drift.name for drift in PASSING}


def test_orphans_that_were_processed_keep_their_xml_and_its_log(world: World) -> None:
    left = [
        set(item.files)
        for plan in world.plans()
        if plan.status == "legacy" and (item := world.item(plan.gid)) is not None and not item.dark
    ]
    assert left
    for names in left:
        assert any(name.endswith("_mb_metadata.xml") for name in names)
        assert any(name.endswith("_mb_metadata_meta.log") for name in names)
        assert "index.json" not in names


def test_dates_known_in_part_are_extracted_in_part_at_most(world: World) -> None:
    dates = {world.facts(number).date for number in range(world.spec.size)}
    partial = sorted(date for date in dates if date is not None and "?" in date)
    assert partial[0][:4].isdecimal()
    assert partial[-1].startswith("????-")
    gid = world.gid(0)
    for date in partial:
        facts = replace(world.facts(0), date=date)
        known = extracted(EntityType.RELEASE, gid, facts).get("date", "")
        assert date.startswith(known)
        assert "?" not in known


def _deviations(world: World, gid: str) -> set[str]:
    """In what an item differs from what its entity with art should have."""
    number = world.number(gid)
    assert number is not None
    entity = world.entity(number)
    answer = world.xml(entity.entity_type, gid)
    assert answer is not None
    item = world.item(gid)
    if item is None or item.dark:
        return {"state"}
    index = index_json(index_document(entity.entity_type, gid, world.listing(entity)))
    sums = {name: hashlib.md5(text).hexdigest() for name, text in item.contents.items()}
    images = {
        f"mbid-{gid}-{artwork.id}{tail}"
        for artwork in entity.artwork
        for tail in (f".{artwork.suffix}", *_tails(artwork.suffix))
    }
    metadata = {
        "collection": ARCHIVES[entity.entity_type].collection,
        "mediatype": "image",
        "noindex": "true",
        **extract(answer[1]),
    }
    found = {
        "index": item.contents.get("index.json") == index,
        "xml": item.contents.get(xml_name(gid)) == answer[1],
        "sums": all(item.files[name].md5 == md5 for name, md5 in sums.items()),
        "names": {name for name in item.files if _is_of_image(name, gid)} == images,
        "sizes": all(file.size and not file.private for file in item.files.values()),
        "metadata": item.metadata.items() >= metadata.items(),
    }
    return {aspect for aspect, is_right in found.items() if not is_right}


def _is_of_image(name: str, gid: str) -> bool:
    own = ("__ia_thumb.jpg", "index.json", f"mbid-{gid}_", "history/")
    return not name.startswith(own)


def _tails(suffix: str) -> list[str]:
    tails = [f"_{tail}.jpg" for tail in ("thumb", "itemimage", "thumb250", "thumb500", "thumb1200")]
    return [*tails, *(tail for tail, _, _ in PDF_DERIVATIVES)] if suffix == "pdf" else tails
