"""audit-batch from the command line, against the sandbox's archive.org, MusicBrainz and indexer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from artwork_backfill.shared.migrations import migrate

from sandbox.entities import Entity, Plan, Presence
from sandbox.indexer import Indexer
from sandbox.load import build_database
from sandbox.postgres import Cluster
from sandbox.services import Services
from sandbox.world import ARTWORK_IDS_PER_ENTITY, FIRST_ARTWORK_ID, Spec, World

COMMAND = Path(sys.executable).with_name("artwork-backfill")

PATIENCE_S = 60.0

_SEED = """
INSERT INTO artwork_indexer.audit_entity (entity_type, gid)
SELECT * FROM unnest(%s::artwork_indexer.indexable_entity_type[], %s::uuid[])
"""

_FOUND = """
SELECT gid::text, status::text, coalesce((
    SELECT array_agg(DISTINCT finding->>'check' ORDER BY finding->>'check')
    FROM artwork_indexer.audit_result result, jsonb_array_elements(findings) AS finding
    WHERE result.audit_entity_id = entity.id), '{}')
FROM artwork_indexer.audit_entity entity
"""


@dataclass(slots=True)
class Place:
    """A world with its services and its database, in which every gid waits for an audit."""

    dsn: str
    world: World
    services: Services
    conn: psycopg.Connection
    plans: dict[str, Plan] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if "BACKFILL" not in name},
            "MUSICBRAINZ_DATABASE_URL": self.dsn,
            "ARCHIVE_ORG_URL": self.services.archive_url,
            "ARCHIVE_ORG_RATE": "unlimited",
            "MUSICBRAINZ_URL": self.services.musicbrainz_url,
            "MUSICBRAINZ_RATE": "unlimited",
        }

    def run(self, *options: str) -> dict[str, Any]:
        """Run audit-batch to its end, which must be a good one; return its report."""
        result = subprocess.run(
            [COMMAND, "audit-batch", *options],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        report: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])["report"]
        return report

    def found(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """By gid: its status, and every check that was ever found."""
        rows = self.conn.execute(_FOUND).fetchall()
        return {gid: (status, tuple(checks)) for gid, status, checks in rows}

    def value(self, query: str, *parameters: object) -> int:
        row = self.conn.execute(query.encode(), parameters or None).fetchone()
        assert row is not None
        return int(row[0])

    def indexer(self, seconds_per_event: float = 0.0) -> Indexer:
        return Indexer(
            self.dsn,
            self.services.archive_url,
            self.services.musicbrainz_url,
            seconds_per_event=seconds_per_event,
        )


@pytest.fixture
def place(postgres: Cluster) -> Iterator[Callable[[Spec], Place]]:
    """Builds the world of a specification, with all that is needed to audit it."""
    undo: list[Callable[[], None]] = []

    def build(spec: Spec) -> Place:
        name = f"artwork_backfill_test_{uuid.uuid4().hex}"
        dsn = postgres.create_database(name)
        undo.append(lambda: postgres.drop_database(name))
        world = World(spec)
        build_database(dsn, world)
        services = Services(spec)
        services.__enter__()
        undo.append(lambda: services.__exit__(None, None, None))
        conn = psycopg.connect(dsn, autocommit=True)
        undo.append(conn.close)
        migrate(conn)
        plans = {plan.gid: plan for plan in world.plans()}
        types = [str(plan.entity_type) for plan in plans.values()]
        conn.execute(_SEED, (types, list(plans)))
        return Place(dsn, world, services, conn, plans)

    yield build
    for step in reversed(undo):
        step()


def test_what_has_drifted_is_found_repaired_and_proved(
    place: Callable[[Spec], Place], tmp_path: Path
) -> None:
    here = place(Spec(size=2_000))
    here.services.control("archive", log=True)
    report = here.run("--max-queue-depth", "0", "--report", str(tmp_path / "report.md"))
    assert here.found() == {
        plan.gid: (plan.status, tuple(sorted(plan.checks))) for plan in here.plans.values()
    }
    _check_requests(here, report)
    _check_report(here, report, (tmp_path / "report.md").read_text())
    events = here.value("SELECT count(*) FROM artwork_indexer.event_queue")
    assert report["totals"]["events"] == events

    here.indexer().run_until_idle()
    assert (
        here.value("SELECT count(*) FROM artwork_indexer.event_queue WHERE state = 'completed'")
        == events
    )
    again = here.run()
    repaired = {plan.gid for plan in here.plans.values() if plan.status == "repair_queue"}
    assert again["totals"]["scanned"] == len(repaired)
    assert {gid: status for gid, (status, _) in here.found().items()} == {
        plan.gid: plan.repaired for plan in here.plans.values()
    }
    assert here.value("SELECT count(*) FROM artwork_indexer.event_queue") == events
    assert here.run()["totals"]["scanned"] == 0


def _check_requests(here: Place, report: dict[str, Any]) -> None:
    """One request to archive.org and one to MusicBrainz, and more only where something hangs on it.

    An absence is asked about twice, unless nothing was expected; the owner of an image once, and
    once more together with the entity itself before the image is deleted.
    """
    archive, musicbrainz = here.services.stats("archive"), here.services.stats("musicbrainz")
    entities = [here.world.entity(number) for number in range(here.world.spec.size)]
    due = {entity.gid: _looks(here, entity) for entity in entities}
    owners: Counter[str] = Counter()
    for plan in here.plans.values():
        for owner in _owners(here, plan):
            owners[owner.gid] += _looks(here, owner, deletes=plan.status == "repair_queue")
    asked = Counter(
        path.rpartition("mbid-")[2]
        for entry in archive.log
        if (path := entry["target"].partition("?")[0]).startswith("/metadata/")
    )
    for gid, looks in due.items():
        deletes = here.plans[gid].status == "repair_queue" and bool(_owners(here, here.plans[gid]))
        looks += deletes
        # An owner that several ask about in one batch is asked once for all of them.
        assert looks + (owners[gid] > 0) <= asked[gid] <= looks + owners[gid], here.plans[gid]
    assert owners.total() > 20
    has_item = [
        entity
        for entity in entities
        if entity.presence is Presence.LIVE
        and entity.artwork
        and (item := here.world.item(entity.gid)) is not None
        and not item.dark
        and here.plans[entity.gid].drift != "item-other-archive"
    ]
    assert musicbrainz.paths == {"entity": len(has_item)}
    assert report["requests"]["archive.org"]["requests"] == archive.requests
    assert report["requests"]["archive.org"]["errors"] == 0
    # What is clean and tidy is never downloaded.
    assert archive.paths["download"] < len(here.plans) / 10


def _is_foreign(drift: str) -> bool:
    return "foreign" in drift or drift.startswith("orphan-")


def _looks(here: Place, entity: Entity, *, deletes: bool = False) -> int:
    """How often the item of an entity is looked at before a decision about it."""
    item = here.world.item(entity.gid)
    expects_nothing = entity.presence is Presence.LIVE and not entity.artwork
    is_absent = item is None and not expects_nothing
    answers_wrongly = item is not None and bool(item.first_answers)
    return 1 + (is_absent or answers_wrongly) + deletes


def _owners(here: Place, plan: Plan) -> list[Entity]:
    """The owners of the images in an item that are not its entity's."""
    item = here.world.item(plan.gid)
    if item is None or plan.drift is None or not _is_foreign(plan.drift):
        return []
    number = here.world.number(plan.gid)
    numbers = {
        (int(artwork_id) - FIRST_ARTWORK_ID) // ARTWORK_IDS_PER_ENTITY
        for name, file in item.files.items()
        if file.source == "original"
        and (artwork_id := name.removeprefix(f"mbid-{plan.gid}-").partition(".")[0]).isdecimal()
    }
    live = [here.world.entity(owner) for owner in numbers if owner < here.world.spec.size]
    return [owner for owner in live if owner.artwork and owner.number != number]


def _check_report(here: Place, report: dict[str, Any], markdown: str) -> None:
    """Every check with the number of its entities and their share of what was audited."""
    entities = Counter(check for plan in here.plans.values() for check in plan.checks)
    assert {name: count["entities"] for name, count in report["findings"].items()} == entities
    cells = [
        [cell.strip().replace("\\", "") for cell in line.split("|")[1:-1]]
        for line in markdown.splitlines()
    ]
    table = {row[0]: row for row in cells if row and row[0] in entities}
    for check, number in entities.items():
        assert table[check][1] == str(number)
        assert table[check][3] == f"{number / len(here.plans):.1%}"


def test_a_front_door_that_fails_almost_every_second_time_changes_nothing(
    place: Callable[[Spec], Place],
) -> None:
    here = place(Spec(size=400, drift_rate=0.4))
    here.services.control(
        "archive", faults=[{"kind": "fail", "rate": 0.4, "paths": ("front_node",)}]
    )
    report = here.run("--max-queue-depth", "0")
    assert here.found() == {
        plan.gid: (plan.status, tuple(sorted(plan.checks))) for plan in here.plans.values()
    }
    stats = here.services.stats("archive")
    assert stats.paths["node"] == stats.faults["fail"] > 10
    assert report["totals"].get("deferred", 0) == 0


def test_repairs_do_not_hold_up_the_edits_of_users(place: Callable[[Spec], Place]) -> None:
    limit, seconds_per_event = 4, 0.03
    here = place(Spec(size=150, drift_rate=0.5))
    indexer = here.indexer(seconds_per_event)
    working = threading.Thread(target=indexer.run, args=(0.005,))
    working.start()
    try:
        depths: list[int] = []
        audited: list[dict[str, Any]] = []
        audit = threading.Thread(
            target=lambda: audited.append(here.run("--max-queue-depth", str(limit)))
        )
        audit.start()
        while audit.is_alive() and not _repairs_in_queue(here):
            time.sleep(0.005)
        edits = _edit(here, lambda: depths.append(_repairs_in_queue(here)))
        while audit.is_alive():
            depths.append(_repairs_in_queue(here))
            time.sleep(0.005)
        audit.join()
    finally:
        indexer.stop()
        working.join()
    [report] = audited
    assert report["totals"]["events"] > 30
    assert 2 <= max(depths) <= limit
    ahead = _repairs_ahead(here, edits)
    assert max(ahead) > 0
    # Everything that the queue may hold, and what a transaction that had begun before adds to it.
    assert max(ahead) <= 2 * limit


def _edit(here: Place, meanwhile: Callable[[], None]) -> list[int]:
    """Let users' events arrive for a while; return their ids once all are completed."""
    ids = []
    gids = [plan.gid for plan in here.plans.values() if plan.drift is None][:12]
    for gid in gids:
        row = here.conn.execute(
            "INSERT INTO artwork_indexer.event_queue (entity_type, action, message)"
            " VALUES ('release', 'deindex', jsonb_build_object('gid', %s::text, 'by', 'user'))"
            " RETURNING id",
            (gid,),
        ).fetchone()
        assert row is not None
        ids.append(row[0])
        until = time.monotonic() + 0.08
        while time.monotonic() < until:
            meanwhile()
            time.sleep(0.005)
    deadline = time.monotonic() + PATIENCE_S
    while here.value(
        "SELECT count(*) FROM artwork_indexer.event_queue"
        " WHERE id = ANY (%s) AND state <> 'completed'",
        ids,
    ):
        assert time.monotonic() < deadline
        meanwhile()
        time.sleep(0.005)
    return ids


def _repairs_ahead(here: Place, edits: list[int]) -> list[int]:
    """Return how many repairs were completed while each of these events waited."""
    rows = here.conn.execute(
        "SELECT (SELECT count(*) FROM artwork_indexer.event_queue repair"
        "        WHERE repair.message->>'by' IS NULL AND repair.state = 'completed'"
        "        AND repair.last_updated BETWEEN edit.created AND edit.last_updated)"
        " FROM artwork_indexer.event_queue edit WHERE edit.id = ANY (%s)",
        (edits,),
    ).fetchall()
    return [count for (count,) in rows]


def _repairs_in_queue(here: Place) -> int:
    return here.value(
        "SELECT count(*) FROM artwork_indexer.event_queue"
        " WHERE state IN ('queued', 'running') AND message->>'by' IS NULL"
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--ignore", "index.imge.url"], "'index.image.url'"),
        (["--ignore", "nothing.*"], "no check is called 'nothing.*'"),
        (["--min-severity", "grave"], "'grave' is not one of 'minor', 'major', 'critical'"),
        (["--max-queue-depth", "-1"], "-1 is not in the range"),
        (["--max-per-hour", "0"], "0 is not in the range"),
        (["--queue-patience", "soon"], "'soon' is not a duration"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_before_anything_is_touched(
    migrated_database: str, options: list[str], complaint: str
) -> None:
    result = subprocess.run(
        [COMMAND, "audit-batch", *options],
        env={
            **os.environ,
            "MUSICBRAINZ_DATABASE_URL": migrated_database,
            "ARCHIVE_ORG_URL": "http://127.0.0.1:9",
            "MUSICBRAINZ_URL": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert result.returncode == 2
    assert complaint in " ".join(result.stderr.split())
