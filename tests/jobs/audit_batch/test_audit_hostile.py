"""Services that refuse, fail, lie and attack: no wrong finding, no wrong decision, no way out."""

from __future__ import annotations

import socketserver
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from artwork_backfill.shared.auditing import services as audit_services
from artwork_backfill.shared.clients import http
from artwork_backfill.shared.clients._pacing import Pace
from artwork_backfill.shared.engine.report import Outcome, Report
from artwork_backfill.shared.settings import Settings
from sandbox.services import Services as Sandbox
from tests.jobs.audit_batch.audit_scene import SPEC, Scene

#: How many times as fast as in production the clients think that time passes.
_SPEED = 100.0

#: Far less than any of the answers that are too large.
_ENOUGH_MB = 100


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SPEC) as sandbox:
        yield sandbox


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[object]]]:
    """The address of a server that nobody has any business with, and who asked it all the same."""
    visitors: list[object] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            visitors.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", visitors
        server.shutdown()
        thread.join()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clients back off and lose patience a hundred times as fast, and look twice soon."""
    pause = Pace.pause
    monkeypatch.setattr(Pace, "pause", lambda pace, seconds: pause(pace, seconds / _SPEED))
    defaults = http.HttpClient.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "clock", lambda: time.monotonic() * _SPEED)
    defaults = audit_services.Services.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "second_look_after", 0.05)


def _run(
    scene: Scene,
    sandbox: Sandbox,
    *,
    archive: Sequence[dict[str, Any]] = (),
    musicbrainz: Sequence[dict[str, Any]] = (),
) -> Report:
    """Audit 150 entities while the services misbehave."""
    sandbox.control("archive", faults=archive)
    sandbox.control("musicbrainz", faults=musicbrainz)
    settings = Settings(
        {
            "MUSICBRAINZ_DATABASE_URL": scene.dsn,
            "ARCHIVE_ORG_URL": sandbox.archive_url,
            # Without a rate, refusals would slow the clients down to what they were just doing.
            "ARCHIVE_ORG_RATE": "100/s",
            "MUSICBRAINZ_URL": sandbox.musicbrainz_url,
            "MUSICBRAINZ_RATE": "100/s",
        }
    )
    return scene.run(settings=settings, limit=150, concurrency=4)


def _assert_nothing_wrong(scene: Scene) -> int:
    """Check that whatever was decided is as planned; return how many that are."""
    plans = {plan.gid: plan for plan in scene.world.plans()}
    decided = scene.rows(
        "SELECT gid::text, status::text, coalesce("
        "  (SELECT array_agg(DISTINCT finding->>'check')"
        "   FROM artwork_indexer.audit_result result, jsonb_array_elements(findings) AS finding"
        "   WHERE result.audit_entity_id = entity.id), '{}') AS checks"
        " FROM artwork_indexer.audit_entity entity WHERE status <> 'unchecked'"
    )
    for row in decided:
        assert row.status == plans[row.gid].status
        assert frozenset(row.checks) == plans[row.gid].checks
    return len(decided)


def _fault(kind: str, rate: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "rate": rate, **more}


FILES = ("download", "front_node", "node")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(_fault("fail", 0.4, paths=("front_node",)), id="front door"),
        pytest.param(_fault("refuse", 0.3), id="refusals"),
        pytest.param(_fault("refuse", 0.3, status=429, retry_after="1"), id="Retry-After"),
        pytest.param(_fault("cut", 0.3), id="cut short"),
        pytest.param(_fault("hang_up", 0.3), id="hung up"),
        pytest.param(_fault("error_key", 0.3, paths=("metadata",)), id="error in a 200"),
        pytest.param(_fault("servers_unavailable", 0.3, paths=("metadata",)), id="no servers"),
        pytest.param(_fault("garbage", 0.3), id="web pages"),
        pytest.param(_fault("empty", 0.3), id="empty"),
    ],
)
def test_troubles_that_pass_leave_every_finding_right(
    scene: Scene, sandbox: Sandbox, hasty: None, fault: dict[str, Any]
) -> None:
    report = _run(scene, sandbox, archive=[fault])
    assert (report.outcome, report.exit_code) == (Outcome.STOPPED, 0)
    assert "limit of 150" in report.reason
    # Now and then an entity has bad luck four times in a row, or gets another file for its own.
    assert _assert_nothing_wrong(scene) == 150 - report.totals.get("deferred", 0) > 110


@pytest.mark.parametrize("kind", ["garbage", "empty", "huge", "xml_bomb"])
def test_files_that_are_not_the_listed_ones_are_never_judged(
    scene: Scene, sandbox: Sandbox, hasty: None, kind: str
) -> None:
    faults = [_fault(kind, paths=("front_node", "node"))]
    # Not the process's own peak: that is of every test that this process has run so far.
    tracemalloc.start()
    try:
        report = _run(scene, sandbox, archive=faults)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert _assert_nothing_wrong(scene) == 150 - report.totals.get("deferred", 0)
    assert report.totals["deferred"] > 10
    assert peak / 1e6 < _ENOUGH_MB


@pytest.mark.parametrize("kind", ["garbage", "empty", "xml_bomb", "huge", "fail", "cut"])
def test_without_the_web_service_nothing_is_decided_about_what_needs_it(
    scene: Scene, sandbox: Sandbox, hasty: None, kind: str
) -> None:
    report = _run(scene, sandbox, musicbrainz=[_fault(kind, 0.4)])
    assert _assert_nothing_wrong(scene) == 150 - report.totals.get("deferred", 0)


def test_nobody_is_led_astray(
    scene: Scene, sandbox: Sandbox, hasty: None, stranger: tuple[str, list[object]]
) -> None:
    address, visitors = stranger
    report = _run(
        scene,
        sandbox,
        archive=[
            _fault("hostile_node", paths=("metadata",), location=address),
            _fault("redirect", 0.5, paths=FILES, location=f"http://{address}/secrets"),
            _fault("fail", 0.5, paths=("front_node",)),
        ],
        musicbrainz=[_fault("redirect", 0.2, location=f"http://{address}/ws/2/")],
    )
    assert _assert_nothing_wrong(scene) == 150 - report.totals.get("deferred", 0) > 50
    assert visitors == []


def test_a_service_that_is_down_for_good_interrupts_the_run(
    scene: Scene, sandbox: Sandbox, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_services, "PATIENCE_S", 30.0)
    report = _run(scene, sandbox, archive=[_fault("fail")])
    assert (report.outcome, report.exit_code) == (Outcome.INTERRUPTED, 75)
    assert "archive.org is down" in report.reason
    assert _assert_nothing_wrong(scene) == 0
    assert not scene.rows(
        "SELECT 1 FROM artwork_indexer.audit_entity WHERE status = 'audit_in_progress'"
    )
