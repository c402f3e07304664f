"""Runs steered and watched from the command line, against the sandbox's services."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics

from artwork_backfill.shared.migrations import migrate
from sandbox.load import build_database
from sandbox.postgres import Cluster
from sandbox.services import Services
from sandbox.world import Spec, World
from tests import programs
from tests.timing import LIMIT_S
from tests.tiny import wait_for

SIZE = 90


@dataclass
class Place:
    """A world in which every gid waits for an audit."""

    environment: dict[str, str]
    conn: psycopg.Connection
    folder: Path
    services: Services

    def command(self, *arguments: str, code: int = 0, **variables: str) -> str:
        result = programs.run(arguments, {**self.environment, **variables})
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.command("runs", "list", "--json"))["runs"]
        return found

    def count(self, status: str) -> int:
        row = self.conn.execute(
            "SELECT count(*) FROM artwork_indexer.audit_entity WHERE status = %s", (status,)
        ).fetchone()
        assert row is not None
        return int(row[0])

    @contextmanager
    def audit(self, *options: str) -> Iterator[Any]:
        """Start an audit that would take a minute, but for `hurry`; enter once it has claimed."""
        self.services.control("archive", latency_s=1.0, jitter=0)
        arguments = ["audit-batch", "--max-queue-depth", "0", "--concurrency", "2", *options]
        out, err = self.folder / "out", self.folder / "err"
        process = programs.start(arguments, self.environment, out, err)
        try:
            wait_for(lambda: self.count("audit_in_progress"))
            yield process
        finally:
            process.kill()
            process.join()
            self.hurry()

    def hurry(self) -> None:
        """Let archive.org answer at once."""
        self.services.control("archive", latency_s=0)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "out").read_text().splitlines()]


@pytest.fixture(scope="module")
def world() -> World:
    return World(Spec(size=SIZE, drift_rate=0.2, untidy_share=0.0))


@pytest.fixture(scope="module")
def services(world: World) -> Iterator[Services]:
    with Services(world.spec) as running:
        yield running


@pytest.fixture(scope="module")
def template(postgres: Cluster, world: World) -> Iterator[str]:
    name = f"artwork_backfill_test_{uuid.uuid4().hex}"
    dsn = postgres.create_database(name)
    build_database(dsn, world)
    plans = list(world.plans())
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
        conn.execute(
            "INSERT INTO artwork_indexer.audit_entity (entity_type, gid)"
            " SELECT * FROM unnest(%s::artwork_indexer.indexable_entity_type[], %s::uuid[])",
            ([str(plan.entity_type) for plan in plans], [plan.gid for plan in plans]),
        )
    yield name
    postgres.drop_database(name)


@pytest.fixture
def place(postgres: Cluster, template: str, services: Services, tmp_path: Path) -> Iterator[Place]:
    name = f"artwork_backfill_test_{uuid.uuid4().hex}"
    dsn = postgres.create_database(name, template=template)
    environment = {
        **{name: value for name, value in os.environ.items() if "BACKFILL" not in name},
        "BACKFILL_BY": "ann",
        "MUSICBRAINZ_DATABASE_URL": dsn,
        **services.environment,
    }
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Place(environment, conn, tmp_path, services)
    postgres.drop_database(name)


# -- steering --------------------------------------------------------------------------------------


def test_a_paused_run_gives_its_claims_back_and_loses_nothing(place: Place) -> None:
    with place.audit() as process:
        (run,) = place.runs()
        prefix = run["id"][:8].upper()
        said = place.command("runs", "pause", prefix, "--why", "a move")
        wait_for(lambda: not place.count("audit_in_progress"))
        left = place.count("unchecked")

        assert "requested a pause" in said
        # What was claimed and not being read is among them.
        assert 0 < left <= SIZE
        (run,) = place.runs()
        assert run["state"] == "paused"
        assert run["last_words"] == "pause requested by ann: a move"
        assert "paused" in place.command("status")
        wait_for(
            lambda: any(line["message"] == "waiting: paused by ann: a move" for line in place.log())
        )
        assert place.count("unchecked") == left

        place.command("runs", "resume", prefix)
        place.hurry()
        process.join(LIMIT_S)
        assert process.exitcode == 0
    assert place.count("unchecked") == place.count("audit_in_progress") == 0
    report = place.log()[-1]["report"]
    assert report["outcome"] == "verified"
    assert report["totals"]["scanned"] == SIZE
    assert any(line["message"] == "continues" for line in place.log())


def test_a_limit_counts_only_what_a_pause_has_not_given_back(place: Place) -> None:
    with place.audit("--limit", "50") as process:
        (run,) = place.runs()
        place.command("runs", "pause", run["id"])
        wait_for(lambda: not place.count("audit_in_progress"))
        place.command("runs", "resume", run["id"])
        place.hurry()
        process.join(LIMIT_S)
    assert place.log()[-1]["report"]["totals"]["scanned"] == 50
    assert place.count("unchecked") == SIZE - 50


def test_a_stopped_run_ends_in_good_order_and_its_report_is_kept(place: Place) -> None:
    with place.audit() as process:
        (run,) = place.runs()
        live = json.loads(place.command("runs", "show", run["id"], "--json"))
        assert live["state"] == "at work"
        assert live["report"] is None
        place.command("runs", "stop", run["id"][:6], "--why", "enough")
        process.join(LIMIT_S)
        assert process.exitcode == 0
    assert place.count("audit_in_progress") == 0
    (past,) = place.runs()
    assert past["state"] == "stopped"
    assert past["last_words"] == "stopped by ann: enough"
    shown = place.command("runs", "show", run["id"][:6])
    assert "stopped by ann: enough" in shown
    assert "claims of this run left over" in shown
    kept = json.loads(place.command("runs", "show", run["id"], "--json"))["report"]
    assert kept == place.log()[-1]["report"]
    assert "has ended" in place.command("runs", "pause", run["id"], code=1)


def test_a_hold_ends_runs_at_work_and_those_that_start_before_they_claim(place: Place) -> None:
    with place.audit() as process:
        place.command("runs", "hold", "AUDIT-Batch", "--why", "a move")
        process.join(LIMIT_S)
        assert process.exitcode == 0
    audited = SIZE - place.count("unchecked")

    out = place.command("audit-batch")

    report = json.loads(out.splitlines()[-1])["report"]
    assert report["reason"] == "the job is held by ann: a move"
    assert report["totals"]["scanned"] == 0
    assert report["verification"] == []
    assert SIZE - place.count("unchecked") == audited
    assert "a move" in place.command("runs", "list")
    assert "held already" in place.command("runs", "hold", "audit-batch", "--why", "x", code=1)
    place.command("runs", "unhold", "audit-batch")
    assert "not held" in place.command("runs", "unhold", "audit-batch", code=1)
    place.command("audit-batch", "--limit", "5")
    assert SIZE - place.count("unchecked") == audited + 5


def test_what_cannot_be_steered_says_so(place: Place) -> None:
    library = "library-artwork-url-backfill"
    said = place.command("runs", "hold", library, "--why", "x", code=2)
    assert "without records of runs" in " ".join(said.split())
    assert "there is no run ab" in place.command("runs", "show", "ab", code=1)
    assert "not the id of a run" in place.command("runs", "show", "audit-batch", code=2)
    for number in (1, 2):
        place.conn.execute(
            "INSERT INTO artwork_indexer.backfill_run (id, job, version, host, who)"
            " VALUES (%s, 'tiny', '1', 'h', 'w')",
            (f"abcdef0{number}-0000-4000-8000-000000000000",),
        )
    assert "several runs begin with abc" in place.command("runs", "stop", "abc", code=1)
    place.command("runs", "stop", "abcdef01")


@pytest.mark.parametrize(("keep", "left"), [("90d", [1, 89]), ("1", [1]), ("0", []), ("9", None)])
def test_old_records_are_deleted_by_age_or_by_number(
    place: Place, keep: str, left: list[int] | None
) -> None:
    ages = [1, 89, 91]
    for days in ages:
        place.conn.execute(
            "INSERT INTO artwork_indexer.backfill_run (id, job, version, host, who, finished)"
            " VALUES (gen_random_uuid(), 'tiny', '1', 'h', %s, now() - make_interval(days => %s))",
            (str(days), days),
        )
    place.conn.execute(
        "INSERT INTO artwork_indexer.backfill_run (id, job, version, host, who)"
        " VALUES (gen_random_uuid(), 'tiny', '1', 'h', 'alive')"
    )

    place.command("migrate", "--keep-runs", keep)

    kept = place.conn.execute("SELECT who FROM artwork_indexer.backfill_run").fetchall()
    expected = ages if left is None else left
    assert sorted(who for (who,) in kept) == sorted([*map(str, expected), "alive"])


# -- watching --------------------------------------------------------------------------------------


def _samples(text: str) -> dict[tuple[str, str], float]:
    """The samples of OpenMetrics text, which an old parser understands as well."""
    old = [family for family in prometheus.text_string_to_metric_families(text) if family.samples]
    found = {}
    for family in openmetrics.text_string_to_metric_families(text):
        for sample in family.samples:
            rest = {name: value for name, value in sample.labels.items() if name != "job"}
            label = "|".join(rest.values()) if "run_id" not in rest else ""
            found[sample.name.removeprefix("artwork_backfill_"), label] = sample.value
    assert sum(len(family.samples) for family in old) == len(found)
    return found


def test_metrics_show_a_run_at_work_and_its_end(place: Place) -> None:
    file = place.folder / "audit.prom"
    with place.audit("--batch-size", "5", "--fixed-batch-size", "--metrics", str(file)) as process:
        wait_for(file.exists)
        wait_for(lambda: ("rows_total", "scanned") in _samples(file.read_text()))
        # Whatever moment a reader chooses, the file is whole.
        live = _samples(file.read_text())
        place.hurry()
        process.join(LIMIT_S)
    past = _samples(file.read_text())

    assert live["run_outcome", "running"] == 1
    assert live["rows_expected", ""] == SIZE
    assert live["eta_seconds", ""] > 0
    assert ("run_exit_code", "") not in live
    assert past["run_outcome", "running"] == 0
    assert past["run_outcome", "verified"] == 1
    assert past["run_exit_code", ""] == 0
    assert past["rows_total", "scanned"] == SIZE
    assert past["requests_total", "archive.org"] >= SIZE
    report = place.log()[-1]["report"]
    for check, count in report["findings"].items():
        assert past["findings_total", check] == count["findings"]
    # Read when the run began, and every 15 s.
    assert past["oldest_claim_age_seconds", ""] >= 0
    assert ("queue_events", "queued") in past
    assert any(name == "entities" for name, _ in past)
    assert [path.name for path in place.folder.glob(".*")] == []


def test_the_status_is_there_for_monitoring(place: Place) -> None:
    samples = _samples(place.command("status", "--format", "openmetrics"))

    assert samples["entities", "release|unchecked"] + samples["entities", "event|unchecked"] == SIZE
    assert samples["queue_events", "queued"] == 0
    assert samples["open_reviews", ""] == 0


@pytest.mark.parametrize("name", ["metrics.txt", "none/metrics.prom"])
def test_a_file_that_cannot_hold_metrics_is_refused(place: Place, name: str) -> None:
    place.command("seed-from-mb", "--metrics", str(place.folder / name), code=2)


KEY = "5c1f2d34-7a3b-4c0e-9a7d-2f0f7b9d1c11"


@contextmanager
def _health_checks(status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A health-check service: its URL, and the paths that it was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{KEY}", paths
    finally:
        server.shutdown()
        server.server_close()


def test_a_health_check_service_hears_of_start_success_and_failure(place: Place) -> None:
    with _health_checks() as (url, paths):
        place.command("seed-from-mb", BACKFILL_PING_URL=url)
        assert paths == [f"/{KEY}/start", f"/{KEY}"]
        paths.clear()
        place.command(
            "seed-from-mb", code=2, BACKFILL_PING_URL=url, MUSICBRAINZ_DATABASE_URL="dbname=none"
        )
        assert paths == [f"/{KEY}/start", f"/{KEY}/fail"]
        paths.clear()
        # These change nothing, and are no runs that anybody waits for.
        place.command("seed-from-mb", "--dry-run", BACKFILL_PING_URL=url)
        place.command("verify", "seed-from-mb", BACKFILL_PING_URL=url)
        assert paths == []


@pytest.mark.parametrize("trouble", ["refusal", "no server"])
def test_a_ping_that_fails_fails_no_run_and_shows_no_secret(place: Place, trouble: str) -> None:
    with _health_checks(status=404) as (url, _):
        if trouble == "no server":
            url = f"http://127.0.0.1:9/{KEY}"
        out = place.command("seed-from-mb", BACKFILL_PING_URL=url)

    assert "the health-check service did not answer" in out
    assert KEY not in out
    assert json.loads(out.splitlines()[-1])["report"]["outcome"] == "verified"


def test_a_ping_url_that_is_none_is_named_before_anything_is_touched(place: Place) -> None:
    out = place.command("seed-from-mb", code=2, BACKFILL_PING_URL="health.example/" + KEY)

    assert "BACKFILL_PING_URL is not an http or https URL" in out
    assert KEY not in out
