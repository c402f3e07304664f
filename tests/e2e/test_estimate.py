"""estimate: the true shares lie inside its intervals, and it changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import psycopg
from psycopg import Connection

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.auditing.estimate import Estimate, Estimator
from artwork_backfill.shared.auditing.examination import Examiner
from artwork_backfill.shared.auditing.models import Audit, Failure
from artwork_backfill.shared.auditing.owners import OwnerRows, look_up_owners
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.review import runs
from artwork_backfill.shared.settings import Settings
from sandbox.entities import Presence
from sandbox.world import Spec
from tests.e2e.place import Place

SEEDS = range(6)


class Counting(Examiner):
    """Remembers the largest number of audits that waited together for a second look."""

    most = 0

    def look_again(self, audits: Sequence[Audit]) -> list[Audit | Failure | None]:
        Counting.most = max(Counting.most, len(audits))
        return super().look_again(audits)


def _estimates(here: Place, sample: int) -> Iterator[Estimate]:
    @contextmanager
    def connect() -> Iterator[Connection]:
        with psycopg.connect(here.dsn) as conn:
            conn.execute("SET TRANSACTION READ ONLY")
            yield conn

    def owners(entity_type: EntityType, artwork_ids: Collection[int]) -> OwnerRows:
        with connect() as conn:
            return look_up_owners(conn, entity_type, artwork_ids)

    settings = Settings(here.environment)
    services = Services.from_settings(settings, concurrency=8, stop_flag=Event())
    services = replace(services, second_look_after=0.0)
    with closing(services):
        examiner = Counting(services, owners, Policy())
        for seed in SEEDS:
            yield Estimator(connect, examiner, services, seed=seed).estimate(sample)


def test_true_numbers_lie_inside_the_intervals(place: Callable[[Spec], Place]) -> None:
    here = place(Spec(size=1_000, drift_rate=0.4, orphan_share=0.1))
    known = [
        plan
        for number, plan in enumerate(here.world.plans())
        if here.world.entity(number).presence is not Presence.UNKNOWN
    ]
    statuses = Counter(str(plan.status) for plan in known)
    checks = Counter(check for plan in known for check in plan.checks)
    inside: list[bool] = []
    for estimate in _estimates(here, 300):
        assert estimate.population == len(known)
        assert estimate.sampled < len(known) / 2
        for truth, found in ((statuses, estimate.outcomes), (checks, estimate.checks)):
            for name, count in truth.items():
                # What the sample did not come across has no line of its own.
                interval = found.get(name)
                if interval is not None:
                    inside.append(interval.low <= count <= interval.high)
    assert len(inside) > 100
    # A sample may be of a million.
    assert 0 < Counting.most <= 100
    assert sum(inside) / len(inside) > 0.92


def test_an_estimate_comes_before_anything_else(
    place: Callable[[Spec], Place], tmp_path: Path
) -> None:
    here = place(Spec(size=120, drift_rate=0.5))
    # As on a mirror of MusicBrainz.
    here.conn.execute("DROP SCHEMA artwork_indexer CASCADE")
    files = [tmp_path / "estimate.md", tmp_path / "estimate.json"]
    reports = [argument for file in files for argument in ("--report", str(file))]
    said = here.command("estimate", "--sample", 1_000, "--seed", 7, "--json", *reports)
    found = json.loads(said[said.index("{") :])
    # All that there is, so that nothing is uncertain.
    assert found["sampled"] == found["population"] > 100
    truth = Counter(
        check
        for number, plan in enumerate(here.world.plans())
        if here.world.entity(number).presence is not Presence.UNKNOWN
        for check in plan.checks
    )
    assert {check: line["estimate"] for check, line in found["checks"].items()} == truth
    assert all(line["low"] == line["high"] for line in found["checks"].values())
    assert json.loads(files[1].read_text()) == found
    markdown = files[0].read_text()
    assert all(f"| {check} (" in markdown for check in truth)
    assert found["requests"]["archive.org"] > found["population"]


def test_an_estimate_is_kept_where_runs_leave_records(place: Callable[[Spec], Place]) -> None:
    here = place(Spec(size=40, drift_rate=0.5))
    said = here.command("estimate", "--sample", 1_000, "--seed", 7, "--json")
    found = json.loads(said[said.index("{") :])
    kept = runs.latest_run(here.conn, "estimate")
    assert kept is not None
    assert (kept.report, kept.options["seed"], kept.exit_code) == (found, 7, 0)
    assert '"population": ' in here.command("runs", "show", str(kept.id))
