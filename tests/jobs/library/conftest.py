"""Libraries on a real PostgreSQL."""

from __future__ import annotations

import pytest

from tests.jobs.library.shelves import FakeLml, Shelves


@pytest.fixture
def shelves(wxyc_database: str) -> Shelves:
    return Shelves(wxyc_database)


@pytest.fixture
def lml(shelves: Shelves) -> FakeLml:
    return shelves.lml
