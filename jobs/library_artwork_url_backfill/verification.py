"""Compares the library before and after a run with what the run did. Pure functions over ids.

The live site, another container or a person may fill, empty, add or delete rows at any time. So
what is proved is what must hold whoever else writes: that no row which this run filled is empty
now, and that no candidate is left without a reason. What others did meanwhile is shown, not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from artwork_backfill.jobs.library_artwork_url_backfill.library import Census
from artwork_backfill.shared.engine.job import Note, Verification


class Fate(Enum):
    """What became of a candidate in this run."""

    NOT_REACHED = auto()
    FILLED = auto()  # by this run, or by somebody else just before it could
    LEFT = auto()  # no usable result, an error, or locked all the time
    GONE = auto()  # deleted meanwhile


def compare(
    before: Census,
    after: Census,
    fates: Mapping[int, Fate],
    *,
    lost: frozenset[int],
    finished: bool,
) -> list[Verification]:
    """Return the verifications of a run.

    Parameters
    ----------
    before, after
        The share of the library at the start and at the end, up to the same row.
    fates
        What the run believes of every candidate, by row id.
    lost
        Rows that the run counts as filled, and that exist without artwork now.
    finished
        Whether the run came to its end, so that every candidate was reached.
    """
    return [_gains(before, after, fates, lost), _candidates_left(before, after, fates, finished)]


def describe(now: Census) -> list[Note]:
    """Return what the library looks like when there is no run to compare it with."""
    filled, left = len(now.with_artwork), len(now.candidates)
    return [
        Note("rows with artwork", filled),
        Note("candidates left", left, "a run would look them up"),
    ]


def _gains(
    before: Census, after: Census, fates: Mapping[int, Fate], lost: frozenset[int]
) -> Verification:
    filled = {id_ for id_, fate in fates.items() if fate is Fate.FILLED}
    gained = after.with_artwork - before.with_artwork
    notes = [f"{len(before.with_artwork):,} had artwork before, {len(after.with_artwork):,} now"]
    if others := gained - filled:
        notes.append(f"{len(others):,} filled by the live site or another run")
    if lost:
        notes.append(f"{len(lost):,} filled by this run and empty again")
    return Verification(
        "rows that gained artwork",
        expected=len((filled & after.with_artwork) | lost),
        actual=len(gained),
        detail="; ".join(notes),
        ok=not lost,
    )


def _candidates_left(
    before: Census, after: Census, fates: Mapping[int, Fate], finished: bool
) -> Verification:
    known = {Fate.LEFT} if finished else {Fate.LEFT, Fate.NOT_REACHED}
    # What became a candidate meanwhile is for the next run.
    left = after.candidates & fates.keys()
    explained = {id_ for id_ in left if fates[id_] in known}
    filled = len(before.candidates & after.with_artwork)
    share = f"{filled / len(before.candidates):.1%}" if before.candidates else "none"
    detail = f"{filled:,} of {len(before.candidates):,} candidates have artwork now ({share})"
    return Verification.equal("candidates left", len(explained), len(left), detail)
