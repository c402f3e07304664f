"""Random mixtures of faults, audited through the command line and held against the rules.

``python -m tests.oracle`` compares more of them, or one alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from sandbox.postgres import Cluster
from sandbox.services import Services
from sandbox.world import Spec
from tests.oracle.comparison import SETTINGS, compare_together
from tests.oracle.place import Place

SEED = 12

Places = Callable[[], Place]


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with Services(Spec(size=10, drift_rate=0)) as services:
        yield services


@pytest.fixture
def place(postgres: Cluster, migrated_template: str, services: Services) -> Iterator[Places]:
    """Makes places with databases of their own."""
    places: dict[str, Place] = {}

    def make() -> Place:
        name = f"artwork_backfill_test_{uuid.uuid4().hex}"
        dsn = postgres.create_database(name, template=migrated_template)
        places[name] = Place(dsn, services)
        return places[name]

    yield make
    for name, made in places.items():
        made.close()
        postgres.drop_database(name)


def _compare(
    place: Places, services: Services, of_first: int, of_others: int, *, skip: int, rounds: int
) -> None:
    """Compare so many mixtures of the first setting, where most is done, and of the others."""
    places = []
    for number, setting in enumerate(SETTINGS):
        first = number * 1_000_000 + skip
        mixtures = of_others if number else of_first
        setting = replace(setting, policies=setting.policies[:rounds])
        places.append((setting, place(), range(first, first + mixtures)))
    compared = compare_together(places, services, SEED)
    assert sum(comparison.audits for comparison in compared) > of_first + of_others
    wrong = [str(comparison) for comparison in compared if comparison.differences]
    assert not wrong, "audits and rules disagree\n\n" + "\n\n".join(wrong)


def test_audits_decide_as_the_rules_say(place: Places, services: Services) -> None:
    _compare(place, services, of_first=180, of_others=40, skip=0, rounds=2)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_audits_decide_ten_thousand_times_as_the_rules_say(
    place: Places, services: Services
) -> None:
    for turn in range(4):
        skip = 1_000 + 1_000 * turn
        _compare(place, services, of_first=900, of_others=200, skip=skip, rounds=3)
