"""The tables that the dashboard needs; without pandas, for the command line to know them."""

from __future__ import annotations

from typing import Final

from artwork_backfill.shared.engine.tables import Table
from artwork_backfill.shared.review import actions, runs
from artwork_backfill.shared.review.questions import REPAIR_TABLES

#: The tables that are read, besides those of `shared.review.questions`.
TABLES: Final = (
    *REPAIR_TABLES,
    *runs.LOOK,
    Table("artwork_indexer.audit_tally"),
    Table("artwork_indexer.finding_tally"),
    Table("artwork_indexer.audit_status_history"),
    Table("musicbrainz.release"),
    Table("musicbrainz.event"),
    Table("musicbrainz.release_gid_redirect"),
    Table("musicbrainz.event_gid_redirect"),
    Table("cover_art_archive.index_listing"),
    Table("cover_art_archive.image_type"),
    Table("cover_art_archive.cover_art"),
    Table("event_art_archive.index_listing"),
    Table("event_art_archive.event_art"),
)

#: The tables that people change at the page.
CHANGED: Final = (*actions.TABLES, *actions.DELETION_TABLES, *runs.TABLES)
