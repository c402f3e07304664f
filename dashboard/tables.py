"""The tables that only the dashboard reads; without pandas, for the command line to know them."""

from __future__ import annotations

from typing import Final

from artwork_backfill.shared.engine.tables import Table

#: The tables that the questions of `queries` are about, besides those of `shared.review.questions`.
TABLES: Final = (
    Table("artwork_indexer.audit_tally"),
    Table("artwork_indexer.finding_tally"),
    Table("artwork_indexer.audit_status_history"),
    Table("musicbrainz.release"),
    Table("musicbrainz.event"),
    Table("cover_art_archive.index_listing"),
    Table("cover_art_archive.image_type"),
    Table("event_art_archive.index_listing"),
)
