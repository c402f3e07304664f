"""Random mixtures of faults, audited through the command line and held against the rules.

``python -m tests.oracle`` compares more of them, or one alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from sandbox.postgres import Cluster
from sandbox.services import Services
from sandbox.world import Spec
from tests.oracle.comparison import SETTINGS, Comparison, Setting, compare
from tests.oracle.place import Place

SEED = 12


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with Services(Spec(size=10, drift_rate=0)) as services:
        yield services


@pytest.fixture
def place(postgres: Cluster, migrated_template: str, services: Services) -> Iterator[Place]:
    name = f"artwork_backfill_test_{uuid.uuid4().hex}"
    place = Place(postgres.create_database(name, template=migrated_template), services)
    yield place
    place.close()
    postgres.drop_database(name)


def _report(comparison: Comparison) -> str:
    return f"audits and rules disagree\n\n{comparison}"


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])
def test_audits_decide_as_the_rules_say(setting: Setting, place: Place, services: Services) -> None:
    first = SETTINGS.index(setting) * 1_000_000
    number = 200 if setting is SETTINGS[0] else 40
    comparison = compare(place, services, setting, SEED, range(first, first + number))
    assert not comparison.differences, _report(comparison)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])
def test_audits_decide_as_the_rules_say_ten_thousand_times(
    setting: Setting, place: Place, services: Services
) -> None:
    first = SETTINGS.index(setting) * 1_000_000 + 1_000
    number = 4_000 if setting is SETTINGS[0] else 750
    comparison = compare(place, services, setting, SEED, range(first, first + number))
    assert not comparison.differences, _report(comparison)
