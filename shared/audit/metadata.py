"""Comparison of what archive.org extracts from a release's mb_metadata.xml with what it should.

Every listing contains the extracted fields. They are compared with the web service's XML
(`compare_metadata`) or, to save that request, with MusicBrainz's own tables (`agrees`).

`agrees` cannot see what archive.org does not show: credited names, the order of artists, a partial
date (`????-05-12`), a file that was damaged after its fields were extracted, and every element that
becomes outdated without harm.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from artwork_backfill.shared.audit import entity_xml
from artwork_backfill.shared.audit.actual import ItemMetadata
from artwork_backfill.shared.audit.entity_xml import EntityXml
from artwork_backfill.shared.audit.expected import PartialDate, ReleaseFacts
from artwork_backfill.shared.audit.finding import Finding, found

_KINDS: Final = ("mb_release_id", "mb_artist_id", "upc", "asin")


def compare_metadata(gid: str, wanted: EntityXml, metadata: ItemMetadata) -> Iterator[Finding]:
    """Yield the findings `meta.*` of the release `gid`.

    archive.org may return a list for a single value, and lists in any order.
    """
    for check, path, actual in (
        ("meta.title", entity_xml.TITLE, _one(metadata.title)),
        ("meta.creator", entity_xml.ARTIST_NAME, metadata.creators),
        ("meta.date", entity_xml.DATE, _one(metadata.date)),
        ("meta.language", entity_xml.LANGUAGE, _one(metadata.language)),
    ):
        if path == entity_xml.DATE and not is_date_comparable(wanted):
            continue
        expected = _normalised(wanted.texts_at(path))
        if expected != _normalised(actual):
            yield found(check, expected=_shown(expected), actual=_shown(actual))
    yield from _external_identifiers(gid, wanted, metadata.external_identifiers)


def is_date_comparable(wanted: EntityXml) -> bool:
    """Return whether the date can be compared; archive.org extracts another from a partial one."""
    return not any("?" in date for date in wanted.texts_at(entity_xml.DATE))


def _external_identifiers(
    gid: str, wanted: EntityXml, actual: tuple[str, ...]
) -> Iterator[Finding]:
    for kind, values in zip(
        _KINDS,
        (
            (gid,),
            wanted.texts_at(entity_xml.ARTIST_ID),
            wanted.texts_at(entity_xml.BARCODE),
            wanted.texts_at(entity_xml.ASIN),
        ),
        strict=True,
    ):
        prefix = f"urn:{kind}:"
        expected = {prefix + value for value in _normalised(values)}
        present = _normalised(urn for urn in actual if urn.startswith(prefix))
        if expected != present:
            yield found(
                "meta.external_identifier",
                f"urn:{kind}",
                expected=_shown(expected),
                actual=_shown(present),
            )


def agrees(facts: ReleaseFacts, gid: str, metadata: ItemMetadata) -> bool:
    """Return whether every field that archive.org shows of a release agrees with the tables.

    Also False if this is unknown, for example which of several partial dates is the earliest: the
    web service then has to be asked.
    """
    known = [date for date in facts.dates if date != PartialDate(None)]
    return (
        _is_shown(known, metadata.date)
        and _normalised([facts.title]) == _normalised(_one(metadata.title))
        and _normalised(credit.name for credit in facts.credits) == _normalised(metadata.creators)
        and _normalised(credit.sort_name for credit in facts.credits)
        == _normalised(metadata.creators_alt_script)
        and _normalised(_one(facts.language)) == _normalised(_one(metadata.language))
        and _identifiers(facts, gid) == _shown_identifiers(metadata.external_identifiers)
    )


def _is_shown(known: Sequence[PartialDate], shown: str | None) -> bool:
    """Return whether the date shown is the earliest known one; False if that is uncertain."""
    if len(known) == 1 and not known[0].is_comparable:
        return True  # archive.org extracts something else from it
    if not all(date.is_comparable for date in known):
        return False
    texts = sorted({str(date) for date in known})
    # 1999 may be before or after 1999-05; only the web service knows which of the two it shows.
    if any(text.startswith(texts[0]) for text in texts[1:]):
        return False
    return _normalised(texts[:1]) == _normalised(_one(shown))


def _identifiers(facts: ReleaseFacts, gid: str) -> set[str]:
    values = (
        (gid,),
        (credit.gid for credit in facts.credits),
        _one(facts.barcode),
        _one(facts.asin),
    )
    return {
        f"urn:{kind}:{value}"
        for kind, of_kind in zip(_KINDS, values, strict=True)
        for value in _normalised(of_kind)
    }


def _shown_identifiers(identifiers: Iterable[str]) -> set[str]:
    prefixes = tuple(f"urn:{kind}:" for kind in _KINDS)
    return {urn for urn in _normalised(identifiers) if urn.startswith(prefixes)}


def _one(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


def _normalised(texts: Iterable[str]) -> set[str]:
    """Return the texts in a form that archive.org's handling of metadata does not change.

    White space is collapsed, characters are composed, and empty values are dropped.
    """
    normalised = {" ".join(unicodedata.normalize("NFC", text).split()) for text in texts}
    return normalised - {""}


def _shown(texts: Iterable[str]) -> str | None:
    return "; ".join(sorted(texts)) or None
