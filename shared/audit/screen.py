"""Whether what archive.org shows of a release agrees with MusicBrainz's own tables.

archive.org extracts some fields of mb_metadata.xml into the metadata of an item, and that metadata
comes with every listing. Where all of them are as the database has them, the XML in the item is
taken for current without asking the web service. What archive.org does not show cannot be seen this
way: names as credited, and every element that goes stale harmlessly.

Pure: the caller brings the facts and the item's metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from artwork_backfill.shared.audit.actual import ItemMetadata
from artwork_backfill.shared.audit.compare import normalised


@dataclass(frozen=True, slots=True)
class PartialDate:
    """A date of MusicBrainz, each part of which may be unknown."""

    year: int | None
    month: int | None = None
    day: int | None = None

    @property
    def is_comparable(self) -> bool:
        """Whether what is known stands before what is not: `1999`, `1999-05`, `1999-05-12`."""
        if self.year is None:
            return self.month is None and self.day is None
        return self.month is not None or self.day is None

    def __str__(self) -> str:
        known = []
        for value, width in ((self.year, 4), (self.month, 2), (self.day, 2)):
            if value is None:
                break
            known.append(f"{value:0{width}}")
        return "-".join(known)


@dataclass(frozen=True, slots=True)
class Credit:
    """One artist of a release's artist credit: the artist's own names, and gid (lower case)."""

    gid: str
    name: str
    sort_name: str


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What MusicBrainz's tables say of a release, as far as archive.org shows it.

    `dates` holds the date of every release event. `barcode` is `''` for "none" and None for
    "unknown", which archive.org shows alike.
    """

    title: str
    credits: Sequence[Credit]
    dates: Sequence[PartialDate] = ()
    language: str | None = None
    barcode: str | None = None
    asin: str | None = None


def agrees(facts: ReleaseFacts, gid: str, metadata: ItemMetadata) -> bool:
    """Return whether every field that archive.org shows of the release `gid` is as expected.

    False also where it cannot be known, such as which of several dates known in part is the
    earliest: the web service then has to be asked.
    """
    dates = _earliest(facts.dates)
    if dates is None:
        return False
    return (
        normalised([facts.title]) == normalised(_one(metadata.title))
        and normalised(credit.name for credit in facts.credits) == normalised(metadata.creators)
        and _alternatives(facts) == normalised(metadata.creators_alt_script)
        and normalised(dates) == normalised(_one(metadata.date))
        and normalised(_one(facts.language)) == normalised(_one(metadata.language))
        and _identifiers(facts, gid) == _shown_identifiers(metadata.external_identifiers)
    )


def _alternatives(facts: ReleaseFacts) -> set[str]:
    return normalised(credit.sort_name for credit in facts.credits)


def _earliest(dates: Sequence[PartialDate]) -> tuple[str, ...] | None:
    """Return the earliest date as text, nothing where there is none, None where it is unsure."""
    known = [date for date in dates if date != PartialDate(None)]
    if not known:
        return ()
    if not all(date.is_comparable for date in known):
        return None
    texts = sorted({str(date) for date in known})
    # 1999 may be before or after 1999-05: only the web service knows which of the two it shows.
    if any(text.startswith(texts[0]) for text in texts[1:]):
        return None
    return (texts[0],)


def _identifiers(facts: ReleaseFacts, gid: str) -> set[str]:
    identifiers = {f"urn:mb_release_id:{gid}"}
    identifiers |= {f"urn:mb_artist_id:{credit.gid}" for credit in facts.credits}
    identifiers |= {f"urn:upc:{value}" for value in normalised(_one(facts.barcode))}
    identifiers |= {f"urn:asin:{value}" for value in normalised(_one(facts.asin))}
    return identifiers


_KINDS = ("urn:mb_release_id:", "urn:mb_artist_id:", "urn:upc:", "urn:asin:")


def _shown_identifiers(identifiers: Iterable[str]) -> set[str]:
    return {urn for urn in normalised(identifiers) if urn.startswith(_KINDS)}


def _one(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)
