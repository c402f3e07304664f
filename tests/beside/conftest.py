"""A database with MusicBrainz's triggers and ours, and a few entities in it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.beside.rows import ROWS, Place


@pytest.fixture
def place(migrated_database: str) -> Iterator[Place]:
    with (
        psycopg.connect(migrated_database, autocommit=True) as ours,
        psycopg.connect(migrated_database, autocommit=True) as editor,
    ):
        ours.execute(ROWS)
        yield Place(migrated_database, ours, editor)
