"""The services refuse, go away or answer rubbish: nothing wrong is decided, and nothing is lost."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sandbox.services import ServiceName, Services
from tests.faults.fault_processes import Haste, wait_for
from tests.faults.fault_scenes import Scene
from tests.faults.fault_servers import Served, serve
from tests.faults.fault_tables import assert_nothing_is_half_done, assert_same, audit_tables

AUDIT, LIBRARY, SCAN = "audit-batch", "library-artwork-url-backfill", "seed-from-ia-scan"

#: What the clients keep to. Where no rate is set, a service that refuses is asked as slowly as the
#: run's requests came before, and sixteen times more slowly than that.
RATES = {"ARCHIVE_ORG_RATE": "50/s", "MUSICBRAINZ_RATE": "50/s", "LML_RATE": "50/s"}

#: A run that holds so little cannot have kept a whole answer of gigabytes.
ENOUGH_MEMORY = 200 * 1024 * 1024


@pytest.fixture
def stranger() -> Iterator[Served]:
    """A server that nobody has any business with."""
    with serve(lambda *_: (404, b"")) as served:
        yield served


def fault(kind: str, rate: float = 0.1, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "rate": rate, **more}


#: Every way to answer badly that the services are known for.
OF_ANY_SERVICE = {
    "refusal": fault("refuse"),
    "refusal that asks for patience": fault("refuse", status=429, retry_after="1"),
    "server error": fault("fail"),
    "half a body": fault("cut"),
    "no answer": fault("hang_up"),
    "late answer": fault("late", seconds=0.3),
    "dripping body": fault("drip", seconds=0.3),
    "web page": fault("garbage"),
    "empty body": fault("empty"),
}
OF_ARCHIVE_ORG = {
    "error in a success": fault("error_key", paths=("metadata",)),
    "servers unavailable": fault("servers_unavailable", paths=("metadata",)),
    "tasks pending": fault("pending_tasks", paths=("metadata",)),
    "stuck task": fault("has_redrow", paths=("metadata",)),
    "item that changes": fault("changing", paths=("metadata",)),
    "redirect elsewhere": fault("redirect"),
    "node elsewhere": fault("hostile_node", paths=("metadata",)),
    "front door that fails": fault("fail", rate=0.4, paths=("front_node",)),
    # Files are seldom asked for, so that these would often not come about at 10 %.
    "endless file": fault("huge", rate=0.3, paths=("front_node", "node")),
    "file that explodes": fault("xml_bomb", rate=0.3, paths=("front_node", "node")),
}
OF_SCANS = {
    "error of the search": fault("scrape_error"),
    "somebody else's page": fault("foreign_page"),
    "cursor that is stuck": fault("stuck_cursor"),
}
OF_MUSICBRAINZ = {"document that explodes": fault("xml_bomb"), "endless document": fault("huge")}

#: Exit codes. Rows of the library that could not be looked up are reported as left, and a scan does
#: not go on behind a page that it cannot have.
MAY_END_WITH = {AUDIT: (0, 75), LIBRARY: (0, 3, 75), SCAN: (0, 1, 3, 75)}

DAMAGE = [
    *[(AUDIT, "archive", name) for name in {**OF_ANY_SERVICE, **OF_ARCHIVE_ORG}],
    *[(AUDIT, "musicbrainz", name) for name in {**OF_ANY_SERVICE, **OF_MUSICBRAINZ}],
    *[(LIBRARY, "lml", name) for name in OF_ANY_SERVICE],
    *[(SCAN, "archive", name) for name in {**OF_ANY_SERVICE, **OF_SCANS}],
]
EVERY_FAULT = OF_ANY_SERVICE | OF_ARCHIVE_ORG | OF_SCANS | OF_MUSICBRAINZ

# In the short form a few kinds come together, which is worse than each alone, and quicker.
TOGETHER = [
    (AUDIT, "archive", ("refusal", "half a body", "error in a success", "tasks pending")),
    (AUDIT, "archive", ("server error", "redirect elsewhere", "node elsewhere", "empty body")),
    (AUDIT, "archive", ("servers unavailable", "front door that fails", "item that changes")),
    (AUDIT, "archive", ("endless file", "file that explodes", "web page", "stuck task")),
    (AUDIT, "musicbrainz", ("endless document", "document that explodes", "half a body")),
    (AUDIT, "musicbrainz", ("refusal that asks for patience", "web page", "no answer")),
    (SCAN, "archive", ("refusal", "half a body", "somebody else's page")),
    (SCAN, "archive", ("error of the search", "cursor that is stuck")),
    (LIBRARY, "lml", ("refusal", "half a body", "empty body", "web page")),
]


@pytest.mark.parametrize(("scene", "service", "names"), TOGETHER, indirect=["scene"])
def test_damaged_answers_decide_nothing(
    scene: Scene,
    services: Services,
    stranger: Served,
    service: ServiceName,
    names: tuple[str, ...],
) -> None:
    check_damage(scene, services, stranger, service, names)


@pytest.mark.long
@pytest.mark.parametrize(("scene", "service", "name"), DAMAGE, indirect=["scene"])
def test_each_kind_of_damaged_answer_decides_nothing(
    scene: Scene, services: Services, stranger: Served, service: ServiceName, name: str
) -> None:
    check_damage(scene, services, stranger, service, (name,))


def check_damage(
    scene: Scene,
    services: Services,
    stranger: Served,
    service: ServiceName,
    names: tuple[str, ...],
) -> None:
    """Run a job while a service fails in some ways, and once more when it is well again."""
    expected = scene.undisturbed().tables
    faults = [EVERY_FAULT[name] for name in names]
    if scene.kind.arguments[0] == SCAN:
        # It asks but some thirty times.
        faults = [{**fault, "rate": 0.3} for fault in faults]
    with troubled(services, service, faults, stranger):
        process = scene.start(haste=Haste(speed=200), **RATES)
        code = process.wait()
        struck = set(services.stats(service).faults)
        assert struck
        assert struck == {fault["kind"] for fault in faults} or scene.kind.arguments[0] == SCAN
    assert code in MAY_END_WITH[scene.kind.arguments[0]], process.output
    assert process.peak_bytes < ENOUGH_MEMORY
    assert stranger.visits == []
    if scene.kind.arguments[0] != AUDIT:
        scene.finish()
    else:
        assert_nothing_is_half_done(expected, audit_tables(scene.dsn))
        last = scene.start()
        assert last.wait() == 0, last.output
        assert_same(expected, audit_tables(scene.dsn))


@contextmanager
def troubled(
    services: Services, service: ServiceName, faults: list[dict[str, Any]], stranger: Served
) -> Iterator[None]:
    """Let a service fail for a while; whatever leads elsewhere leads to the stranger."""
    places = {"redirect": f"http://{stranger.place}/", "hostile_node": stranger.place}
    located = [{**fault, "location": places.get(fault["kind"], "")} for fault in faults]
    services.control(service, faults=located)
    yield
    services.control(service, faults=[])


OUTAGES = [(AUDIT, "archive"), (AUDIT, "musicbrainz"), (LIBRARY, "lml"), (SCAN, "archive")]


@pytest.mark.parametrize(("scene", "service"), OUTAGES, indirect=["scene"])
def test_refusals_for_a_while_slow_a_run_down(
    scene: Scene, services: Services, service: ServiceName
) -> None:
    scene.undisturbed()
    # A scan asks one thing at a time, the others some at once.
    times = 7 if scene.kind.arguments[0] == SCAN else 40
    services.control(service, faults=[fault("refuse", rate=1, times=times)])
    process = scene.start(haste=Haste(speed=20), **RATES)
    code = process.wait()
    services.control(service, faults=[])
    check_recovery(scene, code, process.report)


@pytest.mark.long
@pytest.mark.parametrize(("scene", "service"), OUTAGES, indirect=["scene"])
def test_refusals_for_a_real_minute_slow_a_run_down(
    scene: Scene, services: Services, service: ServiceName
) -> None:
    scene.undisturbed()
    process = scene.start()
    with scene.watch() as watch:
        wait_for(lambda: watch.done() > 20, process=process)
    services.control(service, faults=[fault("refuse", rate=1)])
    time.sleep(60)
    services.control(service, faults=[])
    check_recovery(scene, process.wait(600), process.report)


def check_recovery(scene: Scene, code: int, report: dict[str, Any]) -> None:
    # 75 where more than half of the audits had bad luck.
    assert code in (0, 3, 75), report
    assert any(requests["retries"] for requests in report["requests"].values())
    with scene.watch() as watch:
        assert watch.claims() == 0
        assert watch.done() > 0
    last = scene.start()
    assert last.wait() == 0, last.output
    tables = scene.tables()
    if scene.kind.template == "seeded":
        tables = audit_tables(scene.dsn)
    assert_same(scene.undisturbed().tables, tables)


@pytest.mark.parametrize(
    "kind",
    [
        "refuse",
        pytest.param("fail", marks=pytest.mark.long),
        pytest.param("hang_up", marks=pytest.mark.long),
        "garbage",
    ],
)
@pytest.mark.parametrize(("scene", "service"), OUTAGES, indirect=["scene"])
def test_a_service_that_is_down_for_good_interrupts_the_run(
    scene: Scene, services: Services, service: ServiceName, kind: str
) -> None:
    expected = scene.undisturbed().tables
    services.control(service, faults=[fault(kind, rate=1)])
    process = scene.start(haste=Haste(speed=400))
    assert process.wait() == 75, process.output
    assert process.report["outcome"] == "interrupted"
    assert re.search("is down|did not answer", process.report["reason"])
    services.control(service, faults=[])
    if scene.kind.arguments[0] != AUDIT:
        scene.finish()
    else:
        # What needs no answer of this service may have been decided.
        assert_nothing_is_half_done(expected, audit_tables(scene.dsn))
        with scene.watch() as watch:
            assert watch.claims() == 0
