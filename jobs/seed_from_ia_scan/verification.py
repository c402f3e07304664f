"""Verification of a scan: what was written, and whether the scan can have seen everything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Event
from typing import Final

from psycopg import Connection

from artwork_backfill.jobs.seed_from_ia_scan import scan as scans
from artwork_backfill.jobs.seed_from_ia_scan.pages import ListedPages
from artwork_backfill.jobs.seed_from_ia_scan.scan import Checkpoint, Scan
from artwork_backfill.shared import seeding
from artwork_backfill.shared.audit.archives import ArtArchive
from artwork_backfill.shared.engine.job import Note, Partition, StopRun, Verification
from artwork_backfill.shared.engine.session import count

#: The share of the entities with art that a scan must at least have seen. Without rights it sees
#: none or a few hundred; items that are really missing are a few in a thousand.
PLAUSIBLE_SHARE: Final = 0.9

#: The share of archive.org's own total that a scan may miss. The total is known to be wrong at
#: times, but a scan must not count as complete without proof.
TOLERATED_SHARE: Final = 0.01

#: The share of a list that must be identifiers of items; otherwise it is another file.
IDENTIFIERS_SHARE: Final = 0.5

#: The number of identifiers of a list that are looked up at once.
_PAGE: Final = 20_000

_COUNT_ALL: Final = """
SELECT count(*)
FROM artwork_indexer.audit_entity
WHERE entity_type = %(entity_type)s
AND (%(partitions)s = 1
     OR mod(('x' || left(gid::text, 8))::bit(32)::bigint, %(partitions)s) = %(partition)s)
"""

# The search shows no items of entities whose art is darkened. Only partitions need the gid.
_COUNT_WITH_ART: Final = """
SELECT count(*)
FROM musicbrainz.{entity}_meta meta
WHERE {art}_presence = 'present'
AND (%(partitions)s = 1 OR (
    SELECT mod(('x' || left(gid::text, 8))::bit(32)::bigint, %(partitions)s) = %(partition)s
    FROM musicbrainz.{entity} entity
    WHERE entity.id = meta.id
))
"""

_TOTAL: Final = (
    "more than 1 % was not seen: scan again with --restart, or pass --accept-total if you know that"
    " the total is wrong"
)

_OTHER_WAYS: Final = (
    "; or pass an exported list of identifiers with --from-list, or seed merged and deleted"
    " entities with `artwork-backfill seed-from-mb --source merged --source deleted`"
)


def count_with_art(conn: Connection, archive: ArtArchive, partition: Partition) -> int:
    """Return how many entities have art that is not darkened, according to MusicBrainz."""
    return count(conn, archive.query(_COUNT_WITH_ART), partition.values)


def of_scan(
    conn: Connection, scan: Scan, partition: Partition, *, seeded: bool, accept_total: bool
) -> Iterator[Verification | Note]:
    """Verify a scan, or a list that was looked up; `seeded` unless nothing was to be written."""
    if seeded:
        yield _present(conn, scan)
    if isinstance(scan.pages, ListedPages):
        damage = scan.pages.damage or ""
        yield Verification.equal(
            "damage that kept the list from being read", 0, int(bool(damage)), damage
        )
        yield from _list_coverage(conn, scan, partition)
    else:
        yield from _completeness(conn, scan.archive, scan.checkpoint, partition, accept_total)


def look_up_list(conn: Connection, scan: Scan, stop_flag: Event) -> None:
    """Read a whole list and look up the rows of its gids, for a verification without a run."""
    while not scan.pages.finished:
        if stop_flag.is_set():
            raise StopRun("stopped before the whole list was read: run it again", planned=True)
        page = scan.pages.next_page(_PAGE)
        ids = seeding.row_ids(conn, [scan.archive.entity_type], page.gids)
        scan.absent += len(page.gids) - len(ids)
        scan.take(page, scan.after(page, scan.count_new(ids)), ids)


def of_earlier_scans(
    conn: Connection,
    archives: Iterable[ArtArchive],
    partition: Partition,
    *,
    accept_total: bool,
) -> Iterator[Verification | Note]:
    """Verify without a run the stored counts of the last scan of each collection."""
    for archive in archives:
        checkpoint = scans.load(conn, archive.collection, partition)
        if checkpoint is None:
            detail = "there is none: run `artwork-backfill seed-from-ia-scan` first"
            yield Verification.equal(f"scan of {archive.collection} on record", 1, 0, detail)
            continue
        values = {"entity_type": archive.entity_type, **partition.values}
        rows = count(conn, _COUNT_ALL, values)
        yield Verification(
            f"rows of type {archive.entity_type} in audit_entity",
            checkpoint.gids,
            rows,
            "at least as many as the scan found gids",
            ok=rows >= checkpoint.gids,
        )
        yield from _completeness(conn, archive, checkpoint, partition, accept_total)


def _present(conn: Connection, scan: Scan) -> Verification:
    checkpoint = scan.checkpoint
    return Verification.equal(
        f"gids of {scan.archive.collection} in audit_entity",
        len(scan.ids) + scan.absent,
        seeding.count_rows(conn, scan.ids),
        f"{checkpoint.identifiers:,} identifiers seen,"
        f" {checkpoint.foreign_identifiers:,} of them not an entity's",
    )


def _completeness(
    conn: Connection,
    archive: ArtArchive,
    checkpoint: Checkpoint,
    partition: Partition,
    accept_total: bool,
) -> Iterator[Verification | Note]:
    """Compare a scan with what archive.org and MusicBrainz say there should be."""
    name = f"gids of {archive.collection} against entities with art in MusicBrainz"
    with_art = count_with_art(conn, archive, partition)
    if not checkpoint.is_finished:
        detail = "the scan has not reached its end: run it again to continue"
        yield Note(name, checkpoint.gids, f"of {with_art:,}; {detail}")
        return
    if checkpoint.total is not None:
        seen = checkpoint.distinct_identifiers
        is_enough = seen >= (1 - TOLERATED_SHARE) * checkpoint.total
        yield Verification(
            f"identifiers of {archive.collection} against archive.org's total",
            checkpoint.total,
            seen,
            "" if is_enough else "accepted" if accept_total else _TOTAL,
            ok=is_enough or accept_total,
        )
    ok = checkpoint.gids >= PLAUSIBLE_SHARE * with_art
    detail = "" if ok else _what_is_missing(archive, checkpoint) + _OTHER_WAYS
    yield Verification(name, with_art, checkpoint.gids, detail, ok=ok)


def _what_is_missing(archive: ArtArchive, checkpoint: Checkpoint) -> str:
    keys = "ARCHIVE_ORG_ACCESS_KEY and ARCHIVE_ORG_SECRET_KEY"
    if checkpoint.has_rights:
        return (
            f"implausibly few: the account of {keys} seems to have no rights on"
            f" {archive.collection}; ask archive.org for them and scan with --restart"
        )
    return (
        f"implausibly few: without keys archive.org hides these items; set {keys} of an account"
        f" with rights on {archive.collection} and scan again"
    )


def _list_coverage(
    conn: Connection, scan: Scan, partition: Partition
) -> Iterator[Verification | Note]:
    """Check that a list is one of items; it may be a part of them."""
    checkpoint = scan.checkpoint
    usable = checkpoint.identifiers - checkpoint.foreign_identifiers
    ok = usable > 0 and usable >= IDENTIFIERS_SHARE * checkpoint.identifiers
    detail = f"too few are an identifier of {scan.archive.collection}, like mbid-GID"
    yield Verification(
        "lines of the list that are identifiers",
        checkpoint.identifiers,
        usable,
        "" if ok else detail,
        ok=ok,
    )
    with_art = count_with_art(conn, scan.archive, partition)
    yield Note("gids of the list", checkpoint.gids, f"of {with_art:,} entities with art")
