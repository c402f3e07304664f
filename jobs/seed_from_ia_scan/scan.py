"""One enumeration of a collection, and what this run has written of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from artwork_backfill.jobs.seed_from_ia_scan.pages import Page, Pages
from artwork_backfill.jobs.seed_from_ia_scan.standing import Standing
from artwork_backfill.shared.audit.archives import ArtArchive
from artwork_backfill.shared.id_set import IdSet


@dataclass(slots=True)
class Scan:
    """The scan of one collection. Everything is committed, except for `pages`, which reads ahead.

    Parameters
    ----------
    standing
        The position; at first, that of an interrupted run.
    gids_before
        The number of distinct gids of the interrupted run.
    ids
        Rows of audit_entity that this run has met, one for each distinct gid.
    """

    archive: ArtArchive
    pages: Pages
    standing: Standing
    gids_before: int = 0
    ids: IdSet = field(default_factory=IdSet)

    @property
    def is_finished(self) -> bool:
        """Whether the last page is committed."""
        return self.pages.finished and self.standing.is_finished

    @property
    def has_begun(self) -> bool:
        return self.standing.pages > 0

    def count_new(self, ids: Sequence[int]) -> int:
        """Return how many rows this run has not met before."""
        return sum(id_ not in self.ids for id_ in ids)

    def after(self, page: Page, new: int) -> Standing:
        """Return the position after a page with `new` new rows is committed."""
        if page.number == 1:
            return self.standing.after(page, len(self.ids) + new)
        # A dry run has met no rows.
        met = max(self.gids_before + len(self.ids), self.standing.gids)
        return self.standing.after(page, met + new)

    def take(self, page: Page, standing: Standing) -> None:
        """Record that a page is committed."""
        self.standing = standing
        if page.number == 1:
            # The interrupted run's cursor had expired, so its gids are counted again.
            self.gids_before = 0
