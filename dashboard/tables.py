"""The tables that the dashboard needs, in a module without pandas for the command line."""

from __future__ import annotations

from typing import Final

from artwork_backfill.shared.auditing import expectation
from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.review import actions, runs
from artwork_backfill.shared.review.questions import REPAIR_TABLES

#: The tables that are read, in addition to those of `shared.review.questions`.
TABLES: Final = (
    *REPAIR_TABLES,
    *runs.LOOK,
    Table("artwork_indexer.audit_tally"),
    Table("artwork_indexer.finding_tally"),
    Table("artwork_indexer.audit_status_history"),
    *expectation.TABLES,
    *expectation.RECORD_TABLES,
)

#: The tables that people change on the page.
CHANGED: Final = (*actions.TABLES, *actions.DELETION_TABLES, *runs.TABLES)
