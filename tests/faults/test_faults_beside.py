"""Everybody at once: no edit is lost or held up because of us, and no image is lost at all."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from threading import Event
from typing import Any

import psycopg
import pytest

from sandbox.indexer import Indexer
from sandbox.services import Services
from sandbox.world import World
from tests.faults.beside_parties import (
    OURS,
    Audits,
    Editor,
    Vandal,
    Watch,
    good_copies,
    indexer,
    start,
)
from tests.faults.fault_scenes import Launch
from tests.timing import LIMIT_S

#: How long everybody works, in seconds: in a test run, and in the long form.
SHORT_S, LONG_S = 12.0, 120.0

#: By how much an edit may be delayed because of us, in seconds.
MOST_DELAY_S = 0.5

# An entity that has drifted comes up again, as after a `reaudit`, and what was withdrawn at once.
_ANEW = """
UPDATE artwork_indexer.audit_entity
SET status = CASE WHEN status = 'clean' THEN 'unchecked' ELSE status END, not_before = NULL
WHERE id IN (SELECT id FROM artwork_indexer.audit_entity ORDER BY random() LIMIT 40)
"""

_DOUBLED = """
SELECT event_id, count(*)
FROM artwork_indexer.audit_result CROSS JOIN unnest(event_ids) AS event_id
GROUP BY event_id HAVING count(*) > 1
"""

_DELETED_BY_US = """
SELECT event.message->>'artwork_id'
FROM artwork_indexer.audit_result result
JOIN artwork_indexer.event_queue event ON event.id = ANY (result.event_ids)
WHERE event.action = 'delete_image'
"""

_OUR_EVENTS = """
SELECT count(*), count(*) FILTER (WHERE event.id IS NULL)
FROM artwork_indexer.audit_result result
CROSS JOIN unnest(result.event_ids) AS ours (id)
LEFT JOIN artwork_indexer.event_queue event ON event.id = ours.id
"""

_REPAIRS = """
SELECT audit_entity_id, count(*)
FROM artwork_indexer.audit_result
WHERE event_ids <> '{}'
GROUP BY audit_entity_id
ORDER BY count(*) DESC
LIMIT 1
"""


@pytest.mark.timeout(600)
def test_editors_indexers_audits_and_a_killer_work_at_once(
    launch: Launch,
    copy: Callable[[str], str],
    seeded: str,
    own_services: Services,
    world: World,
    dice: random.Random,
    is_long: bool,
    figure: Callable[[str], None],
) -> None:
    dsn = copy(seeded)
    with psycopg.connect(dsn, autocommit=True) as conn:
        gids = [str(gid) for (gid,) in conn.execute("SELECT gid FROM artwork_indexer.audit_entity")]
        releases = [
            id_ for (id_,) in conn.execute("SELECT id FROM musicbrainz.release ORDER BY id")
        ]
    services = own_services
    before = good_copies(services, world, gids)
    services.control(
        "archive",
        latency_s=0.005,
        faults=[{"kind": "refuse", "rate": 0.1, "paths": ["s3"]}],
    )
    dice.shuffle(releases)
    half = len(releases) // 2
    editors = [
        Editor(dsn, services, random.Random(dice.random()), sorted(part), number)
        for number, part in enumerate((releases[:half], releases[half:]))
    ]
    indexers = [indexer(dsn, services, retry_delay_s=1) for _ in range(2)]
    audits = Audits(
        lambda: launch(
            "audit-batch",
            "--batch-size=20",
            "--max-queue-depth=60",
            musicbrainz=dsn,
            ARCHIVE_ORG_URL=services.archive_url,
            MUSICBRAINZ_URL=services.musicbrainz_url,
        ),
        dice,
        runs=2,
    )
    watch = Watch(dsn)
    vandal = Vandal(dsn, services, random.Random(dice.random()))
    stop_flag, stopping_indexers, errors = Event(), Event(), list[BaseException]()
    threads = [start(party.run, stop_flag, errors) for party in (*editors, vandal, audits, watch)]
    indexing = [start(_index(one), stopping_indexers, errors) for one in indexers]
    deadline = time.monotonic() + (LONG_S if is_long else SHORT_S)
    with psycopg.connect(dsn, autocommit=True, application_name=OURS) as conn:
        while time.monotonic() < deadline and not stop_flag.wait(1):
            conn.execute(_ANEW)
        stop_flag.set()
        for thread in threads:
            thread.join(LIMIT_S)
        services.control("archive", faults=[], latency_s=0)
        _let_the_queue_drain(conn, indexers)
        stopping_indexers.set()
        for thread in indexing:
            thread.join(LIMIT_S)
        if errors:
            raise errors[0]
        now = good_copies(services, world, gids)
        edits = sum(editor.edits for editor in editors)
        queued, gone = conn.execute(_OUR_EVENTS).fetchall()[0]
        figure(
            f"{edits} edits beside {len(audits.ended) + audits.killed} audits ({audits.killed}"
            f" killed), which queued {queued} events, {gone} of them withdrawn: others waited for"
            f" us for {watch.longest:.3f} s at most"
        )
        lost = [edit for editor in editors for edit in editor.lost]
        assert not lost, "\n".join(lost)
        too_long = {what: s for what, s in watch.waits.items() if s > MOST_DELAY_S}
        assert not too_long, too_long
        removed = set().union(*(editor.removed for editor in editors))
        # MusicBrainz itself moves images into items that are dark, where nobody sees them any more.
        ours = {int(id_) for (id_,) in conn.execute(_DELETED_BY_US)}
        gone = {id_: at for id_, at in before.items() if id_ in ours - removed and id_ not in now}
        assert not gone, _story(conn, gone)
        assert conn.execute(_DOUBLED).fetchall() == []
        most = conn.execute(_REPAIRS).fetchone()
        assert most is None or most[1] <= 6
        assert edits > 10
        statuses = Counter(
            status for (status,) in conn.execute("SELECT status FROM artwork_indexer.audit_entity")
        )
        assert statuses["clean"] + statuses["legacy"] > 0


def _column(conn: psycopg.Connection, query: str) -> list[Any]:
    return [value for (value,) in conn.execute(query.encode())]


def _index(one: Indexer) -> Callable[[Event], None]:
    def work(stop_flag: Event) -> None:
        with psycopg.connect(one.dsn, autocommit=True) as conn:
            while not stop_flag.is_set():
                if not one.run_one(conn):
                    stop_flag.wait(0.1)

    return work


def _let_the_queue_drain(conn: psycopg.Connection, indexers: list[Indexer]) -> None:
    """Wait until everything that can run has run, retries included."""
    query = "SELECT count(*) FROM artwork_indexer.event_queue WHERE state IN ('queued', 'running')"
    deadline = time.monotonic() + LIMIT_S
    while conn.execute(query).fetchone() != (0,):
        assert time.monotonic() < deadline, "the queue does not drain"
        time.sleep(0.2)


def _story(conn: psycopg.Connection, gone: dict[int, set[str]]) -> str:
    """Return what the queue knows about images that are gone, for whoever has to find out why."""
    lines = []
    for id_, places in gone.items():
        lines.append(f"image {id_}, once in {places}")
        for row in conn.execute(
            "SELECT event.id, state, action, message, depends_on, attempts, event.created,"
            " event.last_updated, ours.id IS NOT NULL"
            " FROM artwork_indexer.event_queue event"
            " LEFT JOIN artwork_indexer.audit_result ours ON event.id = ANY (ours.event_ids)"
            " WHERE message->>'artwork_id' = %s ORDER BY event.id",
            (str(id_),),
        ):
            lines.append(f"    {row}")
    return "\n".join(lines)
