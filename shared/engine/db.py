"""Former names of `session` and `tables`, until every module uses the new ones."""

from __future__ import annotations

from artwork_backfill.shared.engine.errors import DatabaseError
from artwork_backfill.shared.engine.session import (
    PATIENCE_S,
    Session,
    explain,
    is_passing,
)
from artwork_backfill.shared.engine.session import open_standalone as connect
from artwork_backfill.shared.engine.tables import Table, check_may_create, check_tables

__all__ = [
    "PATIENCE_S",
    "DatabaseError",
    "Session",
    "Table",
    "check_may_create",
    "check_tables",
    "connect",
    "explain",
    "is_passing",
]
