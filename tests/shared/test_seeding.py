"""Giving gids a row: what is new, what is there, and what another session puts there meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection

from artwork_backfill.shared import seeding
from artwork_backfill.shared.seeding import UuidArray, uuid_array
from tests.timing import LIMIT_S
from tests.tiny import wait_for

_ROWS = "SELECT gid, priority FROM artwork_indexer.audit_entity WHERE entity_type = %s"
_INSERT = (
    "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority) VALUES (%s, %s, %s)"
)
_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
def conn(migrated_database: str) -> Iterator[Connection]:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        yield connection


def seed(conn: Connection, priorities: dict[UUID, int]) -> seeding.Seeded:
    with conn.transaction():
        packed = {gid.bytes: priority for gid, priority in priorities.items()}
        return seeding.seed(conn, "release", packed)


def rows(conn: Connection) -> dict[UUID, int]:
    return dict(conn.execute(_ROWS, ["release"]).fetchall())


def test_new_gids_get_rows_whose_ids_can_be_looked_up(conn: Connection) -> None:
    wanted = {uuid4(): priority for priority in (100, 200, 300) for _ in range(20)}
    seeded = seed(conn, wanted)
    assert rows(conn) == wanted
    assert seeded.counts == {"written": 60, "raised": 0, "skipped": 0}
    ids = conn.execute("SELECT id FROM artwork_indexer.audit_entity").fetchall()
    gids = [gid.bytes for gid in wanted]
    assert sorted(seeding.row_ids(conn, ["release"], gids)) == sorted(id_ for (id_,) in ids)
    assert seeding.row_ids(conn, ["event"], gids) == []


def test_a_row_that_none_of_the_first_gids_has_is_met_all_the_same(conn: Connection) -> None:
    wanted = {UUID(int=number): 200 for number in range(1_000)}
    last = UUID(int=999)
    conn.execute(_INSERT, ["release", last, 300])
    seeded = seed(conn, wanted)
    assert rows(conn) == {**wanted, last: 300}
    assert seeded.counts == {"written": 999, "raised": 0, "skipped": 1}


def test_present_rows_are_raised_but_never_lowered_nor_doubled(conn: Connection) -> None:
    low, high, new = uuid4(), uuid4(), uuid4()
    seed(conn, {low: 100, high: 300})
    seeded = seed(conn, {low: 200, high: 200, new: 200})
    assert rows(conn) == {low: 200, high: 300, new: 200}
    assert seeded.counts == {"written": 1, "raised": 1, "skipped": 1}


def test_a_gid_of_another_entity_type_is_another_entity(conn: Connection) -> None:
    gid = uuid4()
    conn.execute(_INSERT, ["event", gid, 100])
    assert seed(conn, {gid: 200}).written == 1
    assert rows(conn) == {gid: 200}


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("musicbrainz.event (id, gid, name)", "7, %s, 'x'"),
        ("musicbrainz.event_gid_redirect (gid, new_id)", "%s, 1"),
        (
            "musicbrainz.deleted_entity (gid, data, deleted_at)",
            """%s, '{"entity_type": "event"}', now()""",
        ),
    ],
    ids=["live", "merged", "deleted"],
)
def test_a_gid_that_is_known_as_the_other_type_is_refused(
    conn: Connection, table: str, values: str
) -> None:
    other, ours = uuid4(), uuid4()
    conn.execute(
        "INSERT INTO musicbrainz.event (id, gid, name) VALUES (1, %s, 'target')", [uuid4()]
    )
    conn.execute(f"INSERT INTO {table} VALUES ({values})".encode(), [other])
    previewed = seeding.seed(conn, "release", {other.bytes: 100, ours.bytes: 100}, preview=True)
    seeded = seed(conn, {other: 100, ours: 100})
    assert rows(conn) == {ours: 100}
    assert seeded.counts == {"written": 1, "raised": 0, "skipped": 1, "refused": 1}
    assert previewed.counts == seeded.counts
    assert seeding.count_refused(conn, "release", [other.bytes, ours.bytes]) == 1


def test_a_row_that_another_session_inserts_meanwhile_is_met_and_nothing_is_lost(
    conn: Connection, migrated_database: str
) -> None:
    # Not yet visible when the seeding looks for rows that are there, and then in its way.
    contested, others = uuid4(), {uuid4(): 200 for _ in range(9)}
    with psycopg.connect(migrated_database) as rival, ThreadPoolExecutor() as pool:
        rival.execute(_INSERT, ["release", contested, 100])
        seeding_ = pool.submit(seed, conn, {contested: 200, **others})
        with psycopg.connect(migrated_database, autocommit=True) as watch:
            wait_for(lambda: watch.execute(_WAITING).fetchone() == (1,))
        rival.commit()
        seeded = seeding_.result(timeout=LIMIT_S)
    assert rows(conn) == {contested: 200, **others}
    assert seeded.counts == {"written": 9, "raised": 1, "skipped": 0}


def test_two_sessions_that_seed_the_same_gids_at_once_share_them(migrated_database: str) -> None:
    wanted = {uuid4(): 100 for _ in range(2_000)}

    def seed_all(_: int) -> int:
        with psycopg.connect(migrated_database, autocommit=True) as own:
            return seed(own, wanted).written

    with ThreadPoolExecutor() as pool:
        written = list(pool.map(seed_all, range(4)))
    assert sum(written) == len(wanted)
    with psycopg.connect(migrated_database) as watch:
        assert rows(watch) == wanted


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_array_of_gids_arrives_as_it_is(conn: Connection, count: int) -> None:
    gids = [uuid4() for _ in range(count)]
    array = uuid_array(gid.bytes for gid in gids)
    assert isinstance(array, UuidArray)
    row = conn.execute("SELECT %s, pg_typeof(%s)::text", [array, array]).fetchone()
    assert row == (gids, "uuid[]")
