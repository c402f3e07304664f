"""Examines one claimed entity: reads what archive.org holds, compares, and decides.

All requests of an audit are made here, from several threads at once, and no transaction is open. A
clean entity costs one request to archive.org and one to MusicBrainz.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from threading import Lock
from typing import Final

from artwork_backfill.shared.audit.actual import Actual, Item, UnreadableItem, parse_item
from artwork_backfill.shared.audit.archives import INDEX_NAME, EntityType, xml_name
from artwork_backfill.shared.audit.compare import (
    INDEX_MAX_BYTES,
    XML_MAX_BYTES,
    ForeignImage,
    UnreadableXml,
    compare,
    downloads_needed,
    foreign_images,
    needs_xml,
)
from artwork_backfill.shared.audit.decide import Decision, ImageOwner, Policy, Status, decide
from artwork_backfill.shared.audit.expected import Expected, md5
from artwork_backfill.shared.audit.finding import storable
from artwork_backfill.shared.auditing.models import (
    UNREADABLE_LIMIT,
    Audit,
    BadRow,
    Claim,
    Deferral,
    Reason,
)
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.clients.archive_org import ArchiveOrgClient
from artwork_backfill.shared.clients.http import NotFound, ServiceDown, Unreadable
from artwork_backfill.shared.engine.job import StopRun
from artwork_backfill.shared.engine.session import Session
from psycopg import Connection

#: Items of owners that are remembered; images hang together in families of a few entities.
_REMEMBERED_OWNERS: Final = 10_000

_OWNERS_OF_COVER_ART: Final = """
SELECT art.id, release.gid::text
FROM cover_art_archive.cover_art art
JOIN musicbrainz.release ON release.id = art.release
WHERE art.id = ANY (%(artwork_ids)s::bigint[])
"""

_OWNERS_OF_EVENT_ART: Final = """
SELECT art.id, event.gid::text
FROM event_art_archive.event_art art
JOIN musicbrainz.event ON event.id = art.event
WHERE art.id = ANY (%(artwork_ids)s::bigint[])
"""

_OWNER_QUERIES: Final[Mapping[EntityType, str]] = {
    EntityType.RELEASE: _OWNERS_OF_COVER_ART,
    EntityType.EVENT: _OWNERS_OF_EVENT_ART,
}


class _ItemChanged(Exception):
    """The item is not any more what its listing said when the audit began."""


class _TasksPending(Exception):
    """archive.org is still working on an item that matters here."""


class Owners:
    """Whose image an artwork id is, and whether the owner's item holds it: asked once per run."""

    def __init__(self, archive: ArchiveOrgClient, session: Session) -> None:
        self._archive = archive
        self._session = session
        self._database = Lock()
        self._lock = Lock()
        self._originals: OrderedDict[str, Future[frozenset[int]]] = OrderedDict()

    def of(self, entity_type: EntityType, images: Sequence[ForeignImage]) -> dict[int, ImageOwner]:
        """Return the owner of each image by artwork id.

        Raises what reading an owner's item raises: then nobody may decide about these images.
        """
        ids = [image.artwork_id for image in images]
        gids = self._gids(entity_type, ids)
        return {
            id_: ImageOwner(gids[id_], id_ in self._originals_of(gids[id_]))
            if id_ in gids
            else ImageOwner(None)
            for id_ in ids
        }

    def _gids(self, entity_type: EntityType, artwork_ids: Iterable[int]) -> dict[int, str]:
        def read(conn: Connection) -> dict[int, str]:
            query = _OWNER_QUERIES[entity_type].encode()
            return dict(conn.execute(query, {"artwork_ids": list(artwork_ids)}).fetchall())

        with self._database:
            return self._session.transaction(read, read_only=True)

    def _originals_of(self, gid: str) -> frozenset[int]:
        with self._lock:
            answer = self._originals.get(gid)
            is_mine = answer is None
            if answer is None:
                answer = self._originals[gid] = Future()
                if len(self._originals) > _REMEMBERED_OWNERS:
                    self._originals.popitem(last=False)
        if is_mine:
            self._ask(gid, answer)
        return answer.result()

    def _ask(self, gid: str, answer: Future[frozenset[int]]) -> None:
        try:
            item = parse_item(self._archive.metadata(gid), gid)
            if item.pending:
                raise _TasksPending(f"that of the images' owner {gid}")
            answer.set_result(frozenset(original.artwork_id for original in item.originals()))
        except BaseException as error:
            with self._lock:
                self._originals.pop(gid, None)
            answer.set_exception(error)


class Examiner:
    """Examines claimed entities, from any number of threads."""

    def __init__(
        self,
        services: Services,
        owners: Callable[[EntityType, Sequence[ForeignImage]], Mapping[int, ImageOwner]],
        policy: Policy,
    ) -> None:
        self._archive = services.archive
        self._musicbrainz = services.musicbrainz
        self._owners = owners
        self._policy = policy

    def examine(self, claim: Claim) -> Audit:
        """Return what came of a claim.

        Raises
        ------
        BadRow
            MusicBrainz's rows of the entity are not as we assume.
        StopRun
            A service has been failing for so long that the run should end.
        """
        if claim.bad_row is not None or claim.expected is None:
            raise BadRow(claim.bad_row or "nothing is known about it")
        if claim.is_busy:
            return Audit(claim, Deferral(Reason.EVENT_QUEUED))
        try:
            return self._examine(claim, claim.expected)
        except _ItemChanged as error:
            return Audit(claim, Deferral(Reason.ITEM_CHANGED, str(error)))
        except _TasksPending as error:
            return Audit(claim, Deferral(Reason.TASKS_PENDING, str(error)))
        except ServiceDown as error:
            raise StopRun(str(error)) from error
        except (Unreadable, NotFound, UnreadableItem, UnreadableXml) as error:
            return _unreadable(claim, str(error))

    def _examine(self, claim: Claim, expected: Expected) -> Audit:
        item = self._item(expected.gid)
        if item.pending:
            raise _TasksPending
        if needs_xml(expected, item):
            xml = self._musicbrainz.entity_xml(expected.entity_type, expected.gid)
            expected = replace(expected, xml=xml)
        files = {name: self._download(item, name) for name in downloads_needed(expected, item)}
        actual = Actual(item, index=files.get(INDEX_NAME), xml=files.get(xml_name(item.gid)))
        findings = compare(expected, actual)
        foreign = foreign_images(expected, item)
        owners = self._owners(expected.entity_type, foreign) if foreign else {}
        decision = decide(expected, findings, owners, claim.past.history, self._policy)
        return Audit(claim, decision, findings)

    def _item(self, gid: str) -> Item:
        return parse_item(self._archive.metadata(gid), gid)

    def _download(self, item: Item, name: str) -> bytes:
        """Return a file that is the one of the listing; anything else is not to be judged."""
        problem = f"{name} is listed, but archive.org answers 404"
        try:
            content = self._archive.download(
                item.gid,
                name,
                max_bytes=INDEX_MAX_BYTES if name == INDEX_NAME else XML_MAX_BYTES,
                d1=item.d1,
                d2=item.d2,
                dir=item.dir,
            )
        except NotFound:
            pass
        else:
            listed = item.file(name)
            if listed is None or listed.md5 in (None, md5(content)):
                return content
            problem = f"{name} has another MD5 than archive.org lists"
        now = self._item(item.gid)
        if now.pending or now.file(name) != item.file(name):
            raise _ItemChanged(name)
        raise UnreadableItem(problem)


def _unreadable(claim: Claim, message: str) -> Audit:
    detail = storable(message)
    if claim.past.unreadable + 1 < UNREADABLE_LIMIT:
        return Audit(claim, Deferral(Reason.UNREADABLE, detail))
    reason = f"{UNREADABLE_LIMIT} audits in a row could not be read, the last because: {detail}"
    return Audit(claim, Decision(Status.MANUAL_REVIEW, review_reasons=(reason,)))
