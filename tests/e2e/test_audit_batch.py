"""audit-batch from the command line, against the sandbox's archive.org, MusicBrainz and indexer."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.entities import Entity, Plan, Presence
from sandbox.world import ARTWORK_IDS_PER_ENTITY, FIRST_ARTWORK_ID, Spec
from tests import programs
from tests.e2e.place import Place
from tests.timing import LIMIT_S


def test_what_has_drifted_is_found_repaired_and_proved(
    place: Callable[[Spec], Place], tmp_path: Path
) -> None:
    here = place(Spec(size=1_000, drift_rate=0.15))
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


def test_policies_are_chosen_on_the_command_line_and_forget_nothing(
    place: Callable[[Spec], Place],
) -> None:
    here = place(Spec(size=600, drift_rate=0.6))
    deletable = {p.gid for p in here.plans.values() if p.drift == "orphan-image-and-index"}
    minor = {p.gid for p in here.plans.values() if p.drift == "meta-title"}
    unindexed = {p.gid for p in here.plans.values() if p.drift == "item-noindex"}
    assert all((deletable, minor, unindexed))
    narrow = ("--no-deletions", "--min-severity", "major", "--remedy", "item.*=index")
    here.run("--max-queue-depth", "0", *narrow)
    statuses = {gid: status for gid, (status, _) in here.found().items()}
    assert {statuses[gid] for gid in deletable | minor} == {"clean"}
    assert {statuses[gid] for gid in unindexed} == {"repair_queue"}
    assert not here.value(
        "SELECT count(*) FROM artwork_indexer.event_queue WHERE action = 'delete_image'"
    )
    assert here.run("--max-queue-depth", "0", *narrow)["totals"]["scanned"] == 0
    here.run("--max-queue-depth", "0")
    statuses = {gid: status for gid, (status, _) in here.found().items()}
    assert {statuses[gid] for gid in deletable | minor} == {"repair_queue"}


def test_repairs_do_not_hold_up_the_edits_of_users(place: Callable[[Spec], Place]) -> None:
    limit, seconds_per_event = 4, 0.03
    here = place(Spec(size=70, drift_rate=0.5))
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
    assert report["totals"]["events"] > 12
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
    deadline = time.monotonic() + LIMIT_S
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


def _failed_deletion(here: Place) -> tuple[str, int, int]:
    """An orphan whose deletion of an image has failed for good: gid, artwork id, event."""
    gid = next(plan.gid for plan in here.plans.values() if _is_release(plan, "orphan-image"))
    here.only(gid)
    here.run()
    event, message = here.event(gid)
    here.conn.execute(
        "UPDATE artwork_indexer.event_queue SET state = 'failed', attempts = 5 WHERE id = %s",
        (event,),
    )
    return gid, message["artwork_id"], event


def _is_release(plan: Plan, drift: str) -> bool:
    return plan.drift == drift and plan.entity_type == "release"


def test_a_failed_deletion_is_queued_again_while_the_picture_is_safe_with_its_owner(
    place: Callable[[Spec], Place],
) -> None:
    here = place(Spec(size=300, drift_rate=0.6))
    _, _, event = _failed_deletion(here)
    assert f"event {event} is queued again" in here.command("events", "requeue", event)
    states = here.conn.execute("SELECT state::text FROM artwork_indexer.event_queue").fetchall()
    assert states == [("queued",)]


_BELONGS_TO = "UPDATE cover_art_archive.cover_art SET release = ({}) WHERE id = %(artwork)s"
_OWN = _BELONGS_TO.format("SELECT id FROM musicbrainz.release WHERE gid = %(gid)s")
_ANOTHERS = _BELONGS_TO.format("SELECT min(id) FROM musicbrainz.release WHERE gid <> %(gid)s")
_NO_OWNERS = "DELETE FROM cover_art_archive.cover_art WHERE id = %(artwork)s"
_OWNER_BUSY = """
INSERT INTO artwork_indexer.event_queue (entity_type, action, message)
SELECT 'release', 'copy_image', jsonb_build_object('old_gid', release.gid)
FROM cover_art_archive.cover_art art
JOIN musicbrainz.release ON release.id = art.release
WHERE art.id = %(artwork)s
"""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_OWN, "is this entity's own"),
        (_NO_OWNERS, "belongs to no entity"),
        (_ANOTHERS, "does not hold the same image"),
        (_OWNER_BUSY, "must wait for other events"),
    ],
    ids=["own", "no owner", "another owner", "owner busy"],
)
def test_a_failed_deletion_is_not_queued_again_once_it_could_be_wrong(
    place: Callable[[Spec], Place], change: str, reason: str
) -> None:
    here = place(Spec(size=300, drift_rate=0.6))
    gid, artwork, event = _failed_deletion(here)
    here.conn.execute(
        "INSERT INTO musicbrainz.release (id, gid, name, artist_credit)"
        " SELECT 1 + max(id), %s, 'back again', min(artist_credit) FROM musicbrainz.release",
        (gid,),
    )
    here.conn.execute(change.encode(), {"gid": gid, "artwork": artwork})
    if change != _OWNER_BUSY:
        # What the edit has queued was carried out since.
        here.conn.execute("DELETE FROM artwork_indexer.event_queue WHERE state = 'queued'")
    if "own" not in reason:
        here.conn.execute("DELETE FROM musicbrainz.release WHERE gid = %s", (gid,))
    assert reason in " ".join(here.command("events", "requeue", event, code=1).split())
    assert (
        here.value("SELECT count(*) FROM artwork_indexer.event_queue WHERE state = 'failed'") == 1
    )


def test_events_of_others_are_queued_again_only_when_that_is_asked_for(
    place: Callable[[Spec], Place],
) -> None:
    here = place(Spec(size=50))
    event = here.value(
        "INSERT INTO artwork_indexer.event_queue (state, entity_type, action, message)"
        """ VALUES ('failed', 'release', 'index', '{"gid": "x"}') RETURNING id"""
    )
    assert "was not queued by an audit" in here.command("events", "requeue", event, code=1)
    assert "is queued again" in here.command("events", "requeue", "--any", event)


def test_an_image_is_purged_on_a_persons_word(place: Callable[[Spec], Place]) -> None:
    here = place(Spec(size=300, drift_rate=0.6))
    gid = next(p.gid for p in here.plans.values() if _is_release(p, "orphan-unknown-image"))
    here.only(gid)
    here.run()
    item = here.world.item(gid)
    assert item is not None
    name = next(n for n in item.files if n.startswith(f"mbid-{gid}-") and "_" not in n)
    artwork, suffix = name.removeprefix(f"mbid-{gid}-").split(".")
    review = here.value("SELECT id FROM artwork_indexer.needs_manual_review WHERE status = 'open'")

    missing = here.command("review", "purge", review, "--artwork", 1, "--note", "n", code=1)
    assert "lists no original with artwork id 1" in missing
    purge = ("review", "purge", review, "--artwork", artwork, "--note", "spam")
    here.command(*purge)
    _, message = here.event(gid)
    assert message == {"gid": gid, "artwork_id": int(artwork), "suffix": suffix}
    [(notes, status)] = here.conn.execute(
        "SELECT resolution_notes, entity.status::text FROM artwork_indexer.needs_manual_review"
        " JOIN artwork_indexer.audit_entity entity ON entity.id = audit_entity_id WHERE gid = %s",
        (gid,),
    ).fetchall()
    assert "alice: purge of" in notes
    assert "spam" in notes
    assert status == "repair_queue"
    assert "queued or running" in " ".join(here.command(*purge, code=1).split())
    here.command("verify", "audit-batch")

    here.indexer().run_until_idle()
    here.run()
    here.indexer().run_until_idle()
    here.run()
    assert here.found()[gid][0] == "legacy"


def test_an_entitys_own_image_is_not_purged(place: Callable[[Spec], Place]) -> None:
    here = place(Spec(size=300, drift_rate=0.6))
    gid = next(p.gid for p in here.plans.values() if _is_release(p, "thumbnail-missing"))
    here.only(gid)
    here.run()
    entity = here.world.entity(here.world.number(gid) or 0)
    review = here.value("SELECT id FROM artwork_indexer.needs_manual_review WHERE status = 'open'")
    said = here.command(
        "review", "purge", review, "--artwork", entity.artwork[0].id, "--note", "n", code=1
    )
    assert "own: remove it at MusicBrainz" in " ".join(said.split())
    assert here.value("SELECT count(*) FROM artwork_indexer.event_queue") == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--ignore", "index.imge.url"], "'index.image.url'"),
        (["--ignore", "nothing.*"], "there is no check 'nothing.*'"),
        (["--remedy", "item.missing=index"], "indexing again cannot repair 'item.missing'"),
        (["--remedy", "item.noindex=delete"], "write CHECK=index, CHECK=review or CHECK=record"),
        (["--min-severity", "grave"], "'grave' is not one of 'minor', 'major', 'critical'"),
        (["--max-queue-depth", "-1"], "-1 is not in the range"),
        (["--max-per-hour", "0"], "0 is not in the range"),
        (["--queue-patience", "soon"], "'soon' is not a duration"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_before_anything_is_touched(
    migrated_database: str, options: list[str], complaint: str
) -> None:
    result = programs.run(
        ["audit-batch", *options],
        {
            **os.environ,
            "MUSICBRAINZ_DATABASE_URL": migrated_database,
            "ARCHIVE_ORG_URL": "http://127.0.0.1:9",
            "MUSICBRAINZ_URL": "http://127.0.0.1:9",
        },
        seconds=LIMIT_S,
    )
    assert result.returncode == 2
    assert complaint in " ".join(result.stderr.split())
