"""Several audits share one table: nothing is left out, and nothing is done twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import psycopg
import pytest

from sandbox.services import Services
from tests.faults.fault_processes import PATIENT, JobProcess, wait_for
from tests.faults.fault_scenes import Scene, Watch, runs_at_work

AT_ONCE = 4
BATCH = 6

_IN_PROGRESS = """
SELECT gid::text FROM artwork_indexer.audit_entity WHERE status = 'audit_in_progress'
"""

audits = pytest.mark.parametrize("scene", ["audit-batch"], indirect=True)


@audits
def test_four_audits_at_once_share_the_work(scene: Scene, services: Services) -> None:
    asked_alone = gids_asked_for(services, lambda: scene.start(scene.copy()).wait())
    processes: list[JobProcess] = []

    def all_at_once() -> None:
        with scene.watch() as watch, scene.connect() as starter, starter.transaction():
            # Nobody has done everything before the last one is there.
            starter.execute("LOCK TABLE artwork_indexer.audit_entity IN EXCLUSIVE MODE")
            services.control("archive", latency_s=0.6, jitter=0)
            processes.extend(scene.start(haste=PATIENT) for _ in range(AT_ONCE))
            wait_for(lambda: watch.waiting() >= AT_ONCE)
        wait_for(lambda: runs_at_work(scene.dsn) == AT_ONCE)
        services.control("archive", latency_s=0)
        assert [process.wait() for process in processes] == [0] * AT_ONCE

    asked = gids_asked_for(services, all_at_once)
    totals = [process.report["totals"] for process in processes]
    assert min(total["audited"] for total in totals) > 0
    # Two runs cannot queue events for the same owner at the same moment: one of them defers.
    looked_at = sum(total["audited"] + total.get("deferred", 0) for total in totals)
    assert looked_at == scene.undisturbed().done
    scene.finish()
    # Whoever owns a foreign image is asked for once by each run.
    assert {gid for gid, times in asked.items() if times > 1} <= owners(asked_alone)


@audits
def test_of_four_audits_at_once_some_are_killed(
    scene: Scene, services: Services, dice: random.Random, is_long: bool
) -> None:
    expected = scene.undisturbed()
    asked_alone = gids_asked_for(services, lambda: scene.start(scene.copy()).wait())
    kills = 60 if is_long else 6
    held: set[str] = set()
    processes: list[JobProcess] = []

    def kill_some() -> None:
        processes.extend(scene.start(haste=PATIENT) for _ in range(AT_ONCE))
        with scene.watch() as watch, scene.connect() as conn:
            for kill in range(kills):
                enough = (kill + 0.5) * expected.done / (kills + 1)
                wait_for(lambda: work_on(scene, processes, watch, enough))  # noqa: B023 - waited for
                victim = dice.choice([p for p in processes if p.is_running] or processes)
                if victim.kill():
                    # What it held, and what the others hold just now.
                    held.update(gid for (gid,) in conn.execute(_IN_PROGRESS))
                    if victim.run_id is not None:
                        scene.age_heartbeats(victim.run_id)
                processes.append(scene.start(haste=PATIENT))
        codes = {process.wait() for process in processes}
        assert codes == {0, -9}, codes

    asked = gids_asked_for(services, kill_some)
    more = {what for what, times in asked.items() if times > 1} - owners(asked_alone)
    # A second look has a query.
    twice = {what.partition("?")[0] for what in more}
    assert twice <= held, "audited twice although nobody was killed over it"
    assert len(twice) <= kills * 3 * BATCH
    scene.finish()


def work_on(scene: Scene, processes: list[JobProcess], watch: Watch, rows: float) -> bool:
    """Return whether so many rows are done; have a run at work until then.

    A run that finds everything held by others ends. Where those were killed and still count as
    alive, as all do when the server has only just started, it is up to a later one.
    """
    if watch.done() >= rows:
        return True
    if not any(process.is_running for process in processes):
        processes.append(scene.start(haste=PATIENT))
    return False


def gids_asked_for(services: Services, work: Callable[[], object]) -> Counter[str]:
    """Return how often the metadata of each item is asked for meanwhile."""
    services.control("archive", log=True, reset_stats=True)
    work()
    log = services.stats("archive").log
    services.control("archive", log=False, reset_stats=True)
    prefix = "/metadata/mbid-"
    targets = [str(request["target"]) for request in log]
    return Counter(t.removeprefix(prefix) for t in targets if t.startswith(prefix))


def owners(asked: Counter[str]) -> set[str]:
    """Return the gids that one run alone asks for more than once."""
    return {gid for gid, times in asked.items() if times > 1}


def test_migrations_wait_for_each_other(
    launch: Callable[..., JobProcess], musicbrainz_database: str
) -> None:
    processes = [launch("migrate", musicbrainz=musicbrainz_database) for _ in range(AT_ONCE)]
    assert [process.wait() for process in processes] == [0] * AT_ONCE
    applied = [line for process in processes for line in process.stdout.splitlines()]
    assert len([line for line in applied if line.startswith("applied")]) == _migrations(
        musicbrainz_database
    )


def _migrations(dsn: str) -> int:
    with psycopg.connect(dsn) as conn:
        row = conn.execute("SELECT count(*) FROM artwork_indexer.backfill_migration").fetchone()
    assert row is not None
    return int(row[0])
