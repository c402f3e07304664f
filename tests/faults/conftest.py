"""What tests that break things need: a world, its undisturbed end, and runs that can be killed.

The short form is part of every test run. The long form (`make faults`) breaks the same things
more often, in a larger world, and adds what takes minutes.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from artwork_backfill.shared.migrations import migrate
from sandbox import schema
from sandbox.library import Library, LibrarySpec, load_library
from sandbox.load import build_database
from sandbox.postgres import Cluster
from sandbox.services import Services
from sandbox.world import Spec, World
from tests.faults.fault_processes import SECRETS, Haste, JobProcess, with_password
from tests.faults.fault_scenes import KINDS, End, Kind, Launch, Scene

WXYC_SCHEMA = "wxyc_schema"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--seed", type=int, help="repeat the random choices of an earlier run")


@pytest.fixture(scope="session")
def figure(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Shows a line of what was measured, at once, since the long form takes its time."""
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    capture = pytestconfig.pluginmanager.get_plugin("capturemanager")

    def show(line: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(f"\nmeasured: {line}")

    return show


def _is_long(config: pytest.Config) -> bool:
    return bool(config.getoption("--long", default=False))


@pytest.fixture(scope="session")
def is_long(pytestconfig: pytest.Config) -> bool:
    """Whether this is the long form."""
    return _is_long(pytestconfig)


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Random choices, which a failing test tells how to repeat."""
    given = request.config.getoption("--seed", default=None)
    seed = random.SystemRandom().randrange(1 << 32) if given is None else given
    advice = f"repeat this with: pytest '{request.node.nodeid}' --seed {seed}"
    request.node.add_report_section("setup", "seed", advice)
    return random.Random(f"{seed} {request.node.name}")


# -- the world and the services -----------------------------------------------------------------


@pytest.fixture(scope="session")
def world(is_long: bool) -> World:
    """A third of its gids have drifted, in every way there is; a scan of it is plausible."""
    return World(Spec(seed=21, size=1_500 if is_long else 240, drift_rate=0.33, orphan_share=0.1))


@pytest.fixture(scope="session")
def library(is_long: bool) -> Library:
    return Library(LibrarySpec(seed=70, size=1_500 if is_long else 240, match_share=0.6))


@pytest.fixture(scope="session")
def stand_ins(world: World, library: Library) -> Iterator[Services]:
    """The services, with our secrets as theirs."""
    with Services(world.spec, library.spec) as services:
        services.secret_key = SECRETS["ARCHIVE_ORG_SECRET_KEY"]
        services.lml_api_key = SECRETS["LML_API_KEY"]
        services.control("archive", secret_key=services.secret_key)
        services.control("lml", api_key=services.lml_api_key)
        yield services


@pytest.fixture
def services(stand_ins: Services) -> Services:
    """The services, behaving well, quick, and with nothing counted."""
    for name in ("archive", "musicbrainz", "lml"):
        stand_ins.control(name, faults=[], latency_s=0, limit=None, log=False, reset_stats=True)
    stand_ins.control("archive", page_size=1_000)
    stand_ins.control("lml", lookup_s=0)
    return stand_ins


@pytest.fixture
def own_services(world: World, library: Library) -> Iterator[Services]:
    """Services of one test alone, whose items indexers may change."""
    with Services(world.spec, library.spec) as services:
        services.secret_key = SECRETS["ARCHIVE_ORG_SECRET_KEY"]
        services.control("archive", secret_key=services.secret_key)
        yield services


# -- databases ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def unseeded(postgres: Cluster, world: World) -> Iterator[str]:
    """Name of a database with the world and our migrations, to be copied."""
    name = _fresh_name()
    dsn = postgres.create_database(name)
    build_database(dsn, world)
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def seeded(
    postgres: Cluster, unseeded: str, environ: dict[str, str], outputs: Path
) -> Iterator[str]:
    """Name of a database in which everything waits for an audit, to be copied."""
    name = _fresh_name()
    dsn = postgres.create_database(name, template=unseeded)
    process = _launch(environ, outputs, "seed-from-mb", musicbrainz=dsn)
    assert process.wait() == 0, process.output
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def shelved(postgres: Cluster, library: Library) -> Iterator[str]:
    """Name of a database with the library, to be copied."""
    name = _fresh_name()
    with psycopg.connect(postgres.create_database(name)) as conn:
        schema.create_wxyc(conn, WXYC_SCHEMA)
        load_library(conn, library, WXYC_SCHEMA)
    yield name
    postgres.drop_database(name)


@pytest.fixture
def copy(postgres: Cluster) -> Iterator[Callable[[str], str]]:
    """Copies a database and returns the URL of the copy, which lasts as long as the test."""
    names: list[str] = []

    def make(template: str) -> str:
        names.append(_fresh_name())
        return postgres.create_database(names[-1], template=template)

    yield make
    for name in names:
        postgres.drop_database(name)


# -- runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="session")
def environ(stand_ins: Services) -> dict[str, str]:
    """What every run finds in its environment, the databases aside."""
    return {
        "ARCHIVE_ORG_URL": stand_ins.archive_url,
        "ARCHIVE_ORG_ACCESS_KEY": stand_ins.access_key,
        "ARCHIVE_ORG_RATE": "unlimited",
        "MUSICBRAINZ_URL": stand_ins.musicbrainz_url,
        "MUSICBRAINZ_RATE": "unlimited",
        "LIBRARY_METADATA_URL": stand_ins.lml_url,
        "BACKFILL_CONTACT": "faults@localhost",
        "ARCHIVE_ORG_SECRET_KEY": SECRETS["ARCHIVE_ORG_SECRET_KEY"],
        "LML_API_KEY": SECRETS["LML_API_KEY"],
    }


@pytest.fixture
def launch(environ: dict[str, str], outputs: Path, services: Services) -> Iterator[Launch]:
    """Starts a command: its arguments, and `musicbrainz` or `wxyc` for the database's URL."""
    started: list[JobProcess] = []

    def start(*arguments: str, **options: Any) -> JobProcess:
        started.append(_launch(environ, outputs, *arguments, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()


_numbers = itertools.count(1)


def _launch(
    environ: dict[str, str],
    outputs: Path,
    *arguments: str,
    musicbrainz: str | None = None,
    wxyc: str | None = None,
    haste: Haste | None = None,
    **variables: str,
) -> JobProcess:
    databases = {"MUSICBRAINZ_DATABASE_URL": musicbrainz, "WXYC_DATABASE_URL": wxyc}
    urls = {name: with_password(dsn) for name, dsn in databases.items() if dsn is not None}
    directory = outputs / f"{next(_numbers)}-{arguments[0]}"
    return JobProcess(arguments, {**environ, **urls, **variables}, directory, haste)


@pytest.fixture
def source(world: World, tmp_path: Path) -> Path:
    """A file of the 2021 audit, with its real header, that finds fault with every gid."""
    path = tmp_path / "bad_items.csv"
    gids = [plan.gid for plan in world.plans()]
    rows = "".join(f"{gid},{number % 2},1\n" for number, gid in enumerate(gids))
    path.write_text(f"mbid,Item::indexJson::exists,Item::metaXml::exists\n{rows}")
    return path


@pytest.fixture(scope="session")
def ends() -> dict[Kind, End]:
    """What undisturbed runs have left so far."""
    return {}


@pytest.fixture(params=KINDS)
def scene(
    request: pytest.FixtureRequest,
    launch: Launch,
    copy: Callable[[str], str],
    services: Services,
    source: Path,
    ends: dict[Kind, End],
) -> Scene:
    """Each job in turn, slow enough to be disturbed."""
    kind = KINDS[request.param]
    services.control("archive", latency_s=0.004, jitter=1, page_size=8)
    services.control("lml", lookup_s=0.002)
    return Scene(kind, launch, request.getfixturevalue(kind.template), copy, source, ends)


def _fresh_name() -> str:
    return f"artwork_backfill_faults_{uuid.uuid4().hex}"
