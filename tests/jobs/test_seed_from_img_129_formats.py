"""What the lines of the 2021 audit's files say, kind by kind."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import time
import tracemalloc
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artwork_backfill.jobs.seed_from_img_129.checks import Note
from artwork_backfill.jobs.seed_from_img_129.formats import (
    Kind,
    Remark,
    pack_gid,
    reader_for,
    recognise,
)
from artwork_backfill.jobs.seed_from_img_129.ledger import Entry, Ledger
from artwork_backfill.shared.engine.job import RunFailed
from artwork_backfill.shared.lines import Block, read_blocks

DATA = Path(__file__).parents[1] / "data" / "img-129"

A = "01c2041f-a58b-4ff2-a29a-3414fe11bc0f"
B = "0393a88d-cbfe-4ff2-a542-252623add564"
URLS = f"https://musicbrainz.org/release/{A}\thttps://archive.org/details/mbid-{A}"


def read(
    kind: Kind, *lines: str, include_passed: bool = False
) -> tuple[dict[str, int], list[Remark]]:
    reader = reader_for(kind, include_passed=include_passed)
    remarks = reader.read(Block(1, [line.encode("latin-1") for line in lines]))
    return {str(UUID(bytes=gid)): priority for gid, priority in reader.seeds.items()}, remarks


def notes(remarks: list[Remark]) -> list[tuple[int, Note]]:
    return [(remark.line, remark.note) for remark in remarks]


@pytest.mark.parametrize(
    ("name", "kind", "seeds"),
    [
        ("bad_items.csv", Kind.TABLE, 11),
        ("darkened_items", Kind.LIST, 4),
        ("deleted_properly_delete", Kind.ACTIONS, 2),
        ("failed_checks.log", Kind.LOG, 3),
        ("ia_set_mediatype", Kind.ACTIONS, 0),
        ("ia_set_noindex", Kind.ACTIONS, 0),
        ("manual_check", Kind.ACTIONS, 6),
        ("merged_properly_delete", Kind.ACTIONS, 4),
        ("properly_empty", Kind.ACTIONS, 2),
        ("rederive_thumbnails", Kind.ACTIONS, 6),
        ("reindex", Kind.ACTIONS, 6),
        ("reindex_high_prioriy", Kind.ACTIONS, 6),
        ("reindex_w_metadata", Kind.ACTIONS, 6),
        ("results_cache.gz", Kind.RESULTS, 1),
        ("skipped_items.log", Kind.LOG, 4),
    ],
)
def test_every_file_of_the_auditor_is_recognised_and_read(
    name: str, kind: Kind, seeds: int
) -> None:
    with (DATA / name).open("rb") as file:
        blocks = list(read_blocks(file))
    lines = blocks[0].lines if blocks else []
    assert recognise(lines, name) is kind
    if lines:
        assert recognise(lines, "renamed") is kind
    reader = reader_for(kind, include_passed=False)
    remarks = [remark for block in blocks for remark in reader.read(block)]
    assert len(reader.seeds) == seeds
    assert {remark.note for remark in remarks} <= {Note.TEST_ITEM}


def test_what_the_auditor_called_urgent_is_urgent() -> None:
    reader = reader_for(Kind.ACTIONS, include_passed=False)
    with (DATA / "reindex_high_prioriy").open("rb") as file:
        for block in read_blocks(file):
            reader.read(block)
    assert set(reader.seeds.values()) == {300}


@pytest.mark.parametrize(
    ("check", "priority"),
    [
        ("Item::exists", 300),
        ("Item::CAAIndex::is present", 300),
        ("Item::CAAIndex::is well-formed", 300),
        ("Item::Files::index.json exists", 300),
        ("Item::CAAIndex::Image::missing image", 300),
        ("Item::CAAIndex::Image::unexpected image", 300),
        ("Item::Files::original image exists", 300),
        ("Item::CAAIndex::Image::id is int", 200),
        ("Item::Metadata::item is noindex", 200),
        ("Item::darkened", 200),
        ("EmptyItem::CAAIndex::Image::unexpected image", 200),
        ("DeletedItem::index is absent", 200),
        ("MergedItem::images are absent", 200),
        ("InternalError::KeyError", 200),
    ],
)
def test_priority_follows_from_the_check(check: str, priority: int) -> None:
    assert read(Kind.LOG, f"{A}\t{check}") == ({A: priority}, [])
    assert read(Kind.ACTIONS, f"{A}\t{URLS}\t{check}") == ({A: priority}, [])
    assert read(Kind.RESULTS, f"{A}\t{check}\tFAILED") == ({A: priority}, [])
    assert read(Kind.RESULTS, f"{A}\t{check}\tITEM SKIPPED") == ({A: priority}, [])
    assert read(Kind.TABLE, f"mbid,{check}", f"{A},2") == ({A: priority}, [])


@pytest.mark.parametrize("check", ["Nonsense::is absent", "Item", "Item::", "", "Item::caf\xe9"])
def test_an_unknown_check_is_noted_and_the_item_seeded(check: str) -> None:
    seeds, remarks = read(Kind.LOG, f"{A}\t{check}")
    if check:
        assert (seeds, notes(remarks)) == ({A: 200}, [(1, Note.UNKNOWN_CHECK)])
    else:
        assert (seeds, notes(remarks)) == ({}, [(1, Note.DAMAGED)])


def test_the_highest_priority_of_an_item_wins_wherever_its_lines_are() -> None:
    lines = [f"{A}\tItem::darkened", f"{B}\tItem::exists", f"{A}\tItem::exists", f"{B}\tItem::a"]
    assert read(Kind.LOG, *lines)[0] == {A: 300, B: 300}
    checks = "Item::Metadata::x; Item::CAAIndex::is present"
    assert read(Kind.ACTIONS, f"{A}\t{URLS}\t{checks}")[0] == {A: 300}


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "mbid-{}",
        " {} ",
        "https://musicbrainz.org/release/{}",
        "http://musicbrainz.org/release/{}/cover-art",
        "https://beta.musicbrainz.org/release/{}?tport=8000#x",
        "https://archive.org/details/mbid-{}",
        "https://archive.org/download/mbid-{}/index.json",
        "https://coverartarchive.org/release/{}/",
    ],
)
@pytest.mark.parametrize("case", [str.lower, str.upper], ids=["lower", "upper"])
def test_a_gid_is_found_in_all_its_forms(form: str, case: type[str]) -> None:
    assert read(Kind.LIST, form.format(case(A))) == ({A: 200}, [])
    assert read(Kind.LOG, form.format(case(A)) + "\tItem::exists") == ({A: 300}, [])


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Kind.LIST, "nonsense"),
        (Kind.LIST, A[:-1]),
        (Kind.LIST, A + "0"),
        (Kind.LIST, A.replace("-", "")),
        (Kind.LIST, A.replace("a", "g")),
        (Kind.LIST, "-" + A[1:]),
        (Kind.LIST, f"{A} {B}"),
        (Kind.LIST, f"https://musicbrainz.org/event/{A}"),
        (Kind.LIST, f"https://musicbrainz.org/release-group/{A}"),
        (Kind.LIST, f"{A}\tItem::exists"),
        (Kind.LOG, A),
        (Kind.LOG, f"{A}\tItem::exists\tmore"),
        (Kind.LOG, "\tItem::exists"),
        (Kind.ACTIONS, f"{A}\tItem::exists"),
        (Kind.ACTIONS, f"{A}\tno url\tno url\tItem::exists"),
        (Kind.RESULTS, f"{A}\tItem::exists\tPASS"),
        (Kind.RESULTS, f"{A}\tItem::exists"),
        (Kind.RESULTS, f"{A}x\tItem::exists\tFAILED"),
        (Kind.LIST, "\0\0\0"),
        (Kind.LIST, "caf\xe9"),
    ],
)
def test_a_damaged_line_is_noted_and_seeds_nothing(kind: Kind, line: str) -> None:
    seeds, remarks = read(kind, line, *([B] if kind is Kind.LIST else []))
    assert notes(remarks) == [(1, Note.DAMAGED)]
    assert seeds == ({B: 200} if kind is Kind.LIST else {})


def test_a_line_like_the_one_before_is_still_looked_at() -> None:
    line = f"https://beta.musicbrainz.org/release/{A}"
    other = f"https://beta.musicbrainz.org/release/{B}"
    assert line[:36] == other[:36]
    assert read(Kind.LIST, line, other, line[:36], other) == (
        {A: 200, B: 200},
        [Remark(3, Note.DAMAGED, line[:36].encode())],
    )


def test_an_item_stays_known_over_blocks() -> None:
    reader = reader_for(Kind.RESULTS, include_passed=False)
    reader.read(Block(1, [f"{A}\tItem::darkened\tPASSED".encode()]))
    reader.read(Block(2, [f"{A}\tItem::exists\tFAILED".encode()]))
    assert reader.seeds == {UUID(A).bytes: 300}


@pytest.mark.parametrize(
    ("last", "cut_off"),
    [
        (f"{B}\tItem::exi", True),
        (f"{B}\tItem::exists", False),
        (f"{B}\tItem::exi\n", False),
        (f"{B}\tItem::darkened", False),
        (f"{B}\tIte", True),
    ],
)
def test_a_log_that_ends_in_the_middle_of_a_check_is_cut_off(last: str, cut_off: bool) -> None:
    reader = reader_for(Kind.LOG, include_passed=False)
    text = f"{A}\tItem::exists\n{last}".encode()
    remarks = [remark for block in read_blocks(io.BytesIO(text)) for remark in reader.read(block)]
    assert any(remark.note is Note.DAMAGED for remark in remarks) == cut_off


def test_passed_checks_seed_nothing_unless_asked_for() -> None:
    lines = [f"{A}\tItem::exists\tPASSED", f"{B}\tItem::exists\tPASSED", f"{B}\tItem::x\tFAILED"]
    assert read(Kind.RESULTS, *lines) == ({B: 200}, [])
    assert read(Kind.RESULTS, *lines, include_passed=True) == ({A: 100, B: 200}, [])


def test_test_items_are_no_entities() -> None:
    seeds, remarks = read(Kind.LOG, f"{A}\tDeletedItem::test item", f"{B}\tItem::darkened")
    assert (seeds, notes(remarks)) == ({B: 200}, [(1, Note.TEST_ITEM)])
    skipped = f"{A}\tItem::test item\tITEM SKIPPED"
    assert notes(read(Kind.RESULTS, skipped)[1]) == [(1, Note.TEST_ITEM)]
    passed = f"{A}\tItem::test item\tPASSED"
    assert read(Kind.RESULTS, passed, include_passed=True) == ({A: 100}, [])


@pytest.mark.parametrize(
    ("row", "seeds", "note"),
    [
        (f"{A},0,1,0", {A: 200}, None),
        (f"{A},12,0,0", {A: 300}, None),
        (f"{A},0,0,3", {A: 200}, None),
        (f"mbid-{A.upper()},0,10,0", {A: 200}, None),
        (f'"{A}","0","0","3"', {A: 200}, None),
        (f'"{A}",12,0,0', {A: 300}, None),
        (f"{A}, 12, 0, 0", {A: 300}, None),
        (f'"{A}","0","1"', {}, Note.DAMAGED),
        (f"{A},0,0,0", {}, Note.NO_FAILURE),
        (f"{A},0,1", {}, Note.DAMAGED),
        (f"{A},0,1,0,0", {}, Note.DAMAGED),
        (f"{A},0,,0", {}, Note.DAMAGED),
        (f"{A},0,-1,0", {}, Note.DAMAGED),
        (f"{A},0,x,0", {}, Note.DAMAGED),
        (A, {}, Note.DAMAGED),
        (f"{A}\t0,1,0", {}, Note.DAMAGED),
        ("", {}, None),
    ],
)
def test_rows_of_the_table_are_read_by_its_columns(
    row: str, seeds: dict[str, int], note: Note | None
) -> None:
    heading = "mbid,Item::exists,Item::darkened,Nonsense"
    found, remarks = read(Kind.TABLE, heading, row)
    assert found == seeds
    assert notes(remarks) == [(1, Note.UNKNOWN_CHECK), *([(2, note)] if note else [])]


@pytest.mark.parametrize(
    "heading",
    ["mbid,a\rb", "mbid" + ",x" * 2_000, 'mbid,"' + "x" * 200_000],
    ids=["cr", "many columns", "long name"],
)
def test_an_odd_heading_is_damaged_and_ends_nothing(heading: str) -> None:
    seeds, remarks = read(
        Kind.TABLE, heading, f"{A},1", "mbid,Item::exists,Item::darkened", f"{B},1,0"
    )
    assert seeds == {B: 300}
    assert (1, Note.DAMAGED) in notes(remarks)


def test_a_line_of_gids_without_end_takes_no_time() -> None:
    url = f"https://archive.org/release/{A}"
    began = time.process_time()
    read(Kind.LIST, *[url + f"/release/{A}" * 1_400 + " x"] * 20)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("row", [A, f"{A},1"])
def test_rows_of_a_table_without_a_heading_are_damaged(row: str) -> None:
    seeds, remarks = read(Kind.TABLE, row)
    assert (seeds, notes(remarks)) == ({}, [(1, Note.DAMAGED)])


def test_a_second_heading_takes_the_place_of_the_first() -> None:
    seeds, remarks = read(
        Kind.TABLE,
        "mbid,Item::darkened,Item::exists",
        f"{A},1,0",
        '"mbid","Item::exists","Item::darkened"',
        f"{B},1,0",
    )
    assert (seeds, remarks) == ({A: 200, B: 300}, [])


@pytest.mark.parametrize(
    ("lines", "name", "kind"),
    [
        ([], "x", Kind.LIST),
        ([], "skipped_items.log.gz", Kind.LOG),
        (["nonsense", "more nonsense"], "bad_items.csv", None),
        ([f"{A},0,1"], "bad_items.csv", None),
        (["damaged", A, "damaged", B], "x", Kind.LIST),
        (["damaged", f"{A}\tItem::x", B], "failed_checks.log", Kind.LOG),
        (["damaged", f"{A}\tItem::x", B], "darkened_items", Kind.LIST),
        (["", f"{A}\tItem::x\tPASSED"], "x", Kind.RESULTS),
        (["", "mbid,Item::x"], "x", Kind.TABLE),
        (["<html>", "<body>"], "reindex", None),
    ],
)
def test_the_content_tells_the_kind_and_the_name_where_it_does_not(
    lines: list[str], name: str, kind: Kind | None
) -> None:
    assert recognise([line.encode() for line in lines], name) is kind


@given(st.uuids())
def test_a_gid_is_packed_as_postgresql_does(gid: UUID) -> None:
    assert pack_gid(str(gid).encode()) == gid.bytes
    assert pack_gid(str(gid).upper().encode()) == gid.bytes


@given(st.binary(max_size=50), st.sampled_from(Kind))
def test_no_line_breaks_a_reader(line: bytes, kind: Kind) -> None:
    reader = reader_for(kind, include_passed=True)
    reader.read(Block(1, [line, A.encode() + line, line]))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([bytes([i, j]) + b"-" * 14 for i in (0, 1, 255) for j in range(9)]),
            st.sampled_from([100, 200, 300]),
            st.integers(0, 11),
        ),
        max_size=200,
    )
)
def test_the_ledger_knows_each_gid_once_with_all_its_sources(
    seeds: list[tuple[bytes, int, int]],
) -> None:
    with contextlib.closing(Ledger()) as ledger:
        expected: dict[bytes, Entry] = {}
        for gid, priority, source in seeds:
            ledger.add({gid: priority}, source)
            known = expected.get(gid, Entry(0, frozenset()))
            expected[gid] = Entry(max(known.priority, priority), known.sources | {source})
        assert list(ledger.entries()) == sorted(expected.items())


def test_the_ledger_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        with contextlib.closing(Ledger()) as ledger:
            for n in range(20):
                ledger.add({(n * 5_000 + i).to_bytes(16): 200 for i in range(5_000)}, 0)
            assert sum(1 for _ in ledger.entries()) == 100_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


def test_a_ledger_without_room_says_what_to_do() -> None:
    file = sqlite3.connect("")
    with contextlib.closing(Ledger(file)) as ledger:
        file.execute("PRAGMA max_page_count = 20")
        with pytest.raises(RunFailed, match="free disk space"):
            ledger.add({number.to_bytes(16): 200 for number in range(50_000)}, 0)
