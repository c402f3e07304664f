"""Stand-ins for archive.org and the MusicBrainz web service; that for LML is in `sandbox.lml`.

Each answers from a `sandbox.world.World` as the real service would, traps included, with the faults
of its `Behaviour`. `sandbox.services` runs them.

Every stand-in also has, for tests and benchmarks:

* ``GET /_stats``: what it has seen so far (see `sandbox.faults.Stats`), by kind of path;
* ``POST /_control``: a JSON object that changes its behaviour; the keys are the fields of
  its `Behaviour`, and ``reset_stats``;
* ``POST /_plant`` (archive.org, MusicBrainz): a JSON object of answers that replace those of the
  world (see `ArchiveOrg.plant` and `MusicBrainz.plant`).
"""

from __future__ import annotations

import itertools
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import unquote

from sandbox.entities import EntityType
from sandbox.faults import Behaviour, Fault, Stats, Trouble, spoil
from sandbox.formats import ARCHIVES
from sandbox.httpd import Request, Response, json_response
from sandbox.items import File, Item
from sandbox.world import World

#: A collection of a larger world takes too long to count.
_COUNTED_WORLD = 2_000

_GID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_NOT_FOUND = b'{"error":"not found"}'

# The answer of the metadata API for a missing item, if the reason is requested.
_NO_ITEM = b'{"errcode":104,"error":"item does not exist or was deleted"}'

_XML_BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE z [<!ENTITY a "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa">'
    + b"".join(
        f'<!ENTITY {name} "{f"&{chr(ord(name) - 1)};" * 32}">'.encode() for name in "bcdefgh"
    )
    + b']><metadata xmlns="http://musicbrainz.org/ns/mmd-2.0#">&h;</metadata>'
)


class StandIn(ABC):
    """The common part of all stand-ins: behaviour, faults, statistics and control."""

    def __init__(self, seed: int, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.stats = Stats()
        self.host = ""
        self._trouble = Trouble(seed)
        self._trouble.plan(behaviour.faults)

    def __call__(self, request: Request) -> Response:
        """Answer a request."""
        match request.path:
            case "/_stats":
                return json_response(vars(self.stats))
            case "/_control":
                return self._controlled(request, self.control)
            case "/_plant":
                return self._controlled(request, self.plant)
        path = self.kind(request)
        self.stats.paths[path] += 1
        if self.behaviour.log:
            self.stats.log.append({"target": request.target, "headers": request.headers()})
        response = self._answer(path, request)
        response.delay_s += self._trouble.delay(self.behaviour)
        self.stats.statuses[str(response.status)] += 1
        return response

    def _answer(self, path: str, request: Request) -> Response:
        if self._trouble.exceeds(self.behaviour.limit):
            return Response(503, b"too many requests")
        found = _GID.search(request.target)
        fault = self._trouble.strike(path, found.group() if found else None)
        if fault is None:
            return self.answer(path, request)
        self.stats.faults[fault.kind] += 1
        return spoil(self.answer_badly(path, request, fault), fault)

    def _controlled(self, request: Request, change: Callable[[dict[str, Any]], None]) -> Response:
        try:
            change(json.loads(request.body))
        except (KeyError, TypeError, ValueError) as error:
            return Response(400, str(error).encode(), content_type="text/plain")
        return Response(200, b"{}")

    def control(self, changes: dict[str, Any]) -> None:
        """Change the behaviour.

        Raises
        ------
        TypeError, ValueError
            A key or a kind of fault is unknown.
        """
        changes = dict(changes)
        if changes.pop("reset_stats", False):
            self.stats = Stats()
        if "faults" in changes:
            changes["faults"] = [Fault(**fault) for fault in changes["faults"]]
            self._trouble.plan(changes["faults"])
        self.behaviour = replace(self.behaviour, **changes)

    def plant(self, answers: dict[str, Any]) -> None:
        """Replace answers of the world.

        Raises
        ------
        ValueError
            This service takes no answers.
        """
        raise ValueError(f"{type(self).__name__} takes no planted answers")

    @abstractmethod
    def kind(self, request: Request) -> str:
        """Return the kind of path of a request, by which it is counted and faults are chosen."""

    @abstractmethod
    def answer(self, path: str, request: Request) -> Response:
        """Answer without a fault."""

    def answer_badly(self, path: str, request: Request, fault: Fault) -> Response:
        """Answer with a fault that only this service knows; the common ones are added later."""
        del fault
        return self.answer(path, request)


@dataclass(frozen=True, slots=True)
class ArchiveBehaviour(Behaviour):
    """How archive.org behaves.

    Parameters
    ----------
    access_key, secret_key
        The account that may see the collections.
    page_size
        How many items a page of the scrape API holds.
    nothing
        The metadata API's answer for a missing item: ``[]`` today, ``{}`` before.
    """

    access_key: str = "sandbox-access"
    secret_key: str = "sandbox-secret"
    page_size: int = 1_000
    nothing: str = "[]"


class ArchiveOrg(StandIn):
    """archive.org: metadata API, downloads, scrape API, and a simplified S3 for the indexer.

    Kinds of path: ``metadata``, ``download`` (answers 302 to a node), ``front_node`` (where that
    leads), ``node`` (a node asked directly, as d1 and d2 say), ``scrape``, ``s3``.
    """

    _PREFIXES: ClassVar = {
        "metadata": "metadata",
        "download": "download",
        "services": "scrape",
        "s3": "s3",
    }
    behaviour: ArchiveBehaviour

    def __init__(self, world: World) -> None:
        super().__init__(world.spec.seed, ArchiveBehaviour())
        self._world = world
        # What uploads and deletions have changed; everything else follows from the world.
        self._changed: dict[str, Item] = {}
        self._planted: dict[str, Item] = {}
        #: Identifiers of items that uploads and deletions have changed, for the Changes API.
        self.changed: list[str] = []
        # How often the metadata API was asked for items that first get wrong answers.
        self._asked: Counter[str] = Counter()
        # The page of another query is a different one each time.
        self._strangers = itertools.count()

    def kind(self, request: Request) -> str:
        first = request.path.split("/", 2)[1]
        if first.isdecimal():
            return "front_node" if request.query else "node"
        return self._PREFIXES.get(first, "other")

    def answer(self, path: str, request: Request) -> Response:
        match path:
            case "metadata":
                return self._metadata(request)
            case "download":
                return self._download(request)
            case "front_node" | "node":
                return self._node(request)
            case "scrape":
                return self._scrape(request)
            case "s3":
                return self._s3(request)
        return Response(404, _NOT_FOUND)

    def answer_badly(self, path: str, request: Request, fault: Fault) -> Response:
        if path == "metadata":
            return self._bad_metadata(request, fault)
        if path == "scrape":
            return self._bad_page(request, fault)
        if fault.kind == "xml_bomb":
            return Response(200, _XML_BOMB, content_type="application/xml")
        return self.answer(path, request)

    def plant(self, answers: dict[str, Any]) -> None:
        """Plant items: by gid, ``answers`` one after another and ``files`` by name, all as text."""
        for gid, planted in answers.items():
            if not planted["answers"]:
                raise ValueError(f"{gid} needs an answer")
            *first, last = [answer.encode() for answer in planted["answers"]]
            files = {name: text.encode("latin-1") for name, text in planted["files"].items()}
            self._planted[gid] = Item(gid, {}, contents=files, first_answers=first, answer=last)
            self._asked[gid] = 0

    def _item(self, gid: str) -> Item | None:
        return self._changed.get(gid) or self._world.item(gid)

    def _any_item(self, gid: str) -> Item | None:
        return self._planted.get(gid) or self._item(gid)

    def _metadata(self, request: Request) -> Response:
        gid = request.path[len("/metadata/mbid-") :]
        item = self._any_item(gid)
        if item is None:
            extended = "extended_err=1" in request.query
            return Response(200, _NO_ITEM if extended else self.behaviour.nothing.encode())
        asked = self._asked[gid]
        if asked < len(item.first_answers):
            self._asked[gid] += 1
            return Response(200, item.first_answers[asked])
        return Response(200, item.document(self.host))

    def _bad_metadata(self, request: Request, fault: Fault) -> Response:
        response = self._metadata(request)
        match fault.kind:
            case "error_key":
                response.body = b'{"error":"Couldn\'t locate item"}'
            case "servers_unavailable":
                response.body = b'{"servers_unavailable":true,"metadata":{}}'
            case "pending_tasks" | "has_redrow" | "changing" | "hostile_node":
                response.body = self._amended(response.body, fault)
        return response

    def _amended(self, body: bytes, fault: Fault) -> bytes:
        document = json.loads(body)
        if not document:
            return body
        if fault.kind == "hostile_node":
            document["d1"] = document["d2"] = fault.location
        elif fault.kind == "changing":
            # A dark item has no such time.
            updated = document.get("item_last_updated", 0)
            document["item_last_updated"] = updated + self.stats.faults["changing"]
        else:
            document["pending_tasks"] = True
            document["has_redrow"] = fault.kind == "has_redrow"
        return json.dumps(document).encode()

    def _download(self, request: Request) -> Response:
        _, _, bucket, name = request.path.split("/", 3)
        item = self._any_item(bucket.removeprefix("mbid-"))
        if item is None or item.dark:
            return Response(404, b"<html>not found</html>", content_type="text/html")
        location = f"http://{self.host}{item.directory}/{name}?from=front"
        return Response(302, b"", f"Location: {location}\r\n", "text/html")

    def _node(self, request: Request) -> Response:
        parts = request.path.split("/", 4)
        if len(parts) != 5 or parts[2] != "items":
            return Response(404, _NOT_FOUND)
        item = self._any_item(parts[3].removeprefix("mbid-"))
        name = unquote(parts[4])
        content = item.content(name) if item and not item.dark else None
        if item is None or content is None:
            return Response(404, b"<html>not found</html>", content_type="text/html")
        padding = 0
        if name in item.contents and name in item.files:
            padding = max(0, item.files[name].size - len(content))
        return Response(200, content, content_type="application/octet-stream", padding=padding)

    def _scrape(self, request: Request) -> Response:
        query = request.fields()
        entity_type = _collection_type(query.get("q", ""))
        if entity_type is None:
            return json_response({"items": [], "count": 0, "total": 0})
        rights = f"LOW {self.behaviour.access_key}:{self.behaviour.secret_key}"
        if request.header("authorization") != rights or query.get("scope") != "all":
            # Items are noindex: without rights, a few other items are shown, and no error.
            return json_response({"items": [], "count": 0, "total": 230})
        if query.get("total_only") == "true":
            return json_response({"items": [], "count": 0, "total": 1})
        # With `count`, the cursor is ignored.
        cursor = query.get("cursor") if "count" not in query else None
        size = int(query.get("count", self.behaviour.page_size))
        return self._page(entity_type, cursor, size)

    def _page(self, entity_type: EntityType, cursor: str | None, size: int) -> Response:
        try:
            start = int(cursor.removesuffix("==")) if cursor else 0
        except ValueError:
            return json_response({"error": "[RANGE_ERROR] cursor is not valid"}, status=400)
        gids, stop = self._world.collected(entity_type, start, size)
        identifiers = [f"mbid-{gid}" for gid in gids]
        if start == 0:
            identifiers = [ARCHIVES[entity_type].collection, "mbid-test-item", *identifiers]
        document = {
            "items": [{"identifier": identifier} for identifier in identifiers],
            "count": len(identifiers),
        }
        if self._world.spec.size <= _COUNTED_WORLD:
            found, _ = self._world.collected(entity_type, 0, self._world.spec.size)
            document["total"] = len(found) + 2
        if stop < self._world.spec.size:
            # Like the real one, it must be quoted in a query.
            document["cursor"] = f"{stop}=="
        return json_response(document)

    def _bad_page(self, request: Request, fault: Fault) -> Response:
        response = self._scrape(request)
        if fault.kind == "scrape_error":
            return json_response(
                {"error": "query backend is not available"}, status=fault.status or 200
            )
        document = json.loads(response.body)
        if fault.kind == "foreign_page":
            numbers = range(next(self._strangers), 1_000_000)[:50]
            document["items"] = [{"identifier": f"concert{number:06}"} for number in numbers]
        elif fault.kind == "stuck_cursor":
            if sent := request.fields().get("cursor"):
                document["cursor"] = sent
        else:
            return response
        return json_response(document)

    def _s3(self, request: Request) -> Response:
        """Handle uploads and deletions: ``PUT`` and ``DELETE /s3/mbid-GID/NAME``."""
        _, _, bucket, name = request.path.split("/", 3)
        gid = bucket.removeprefix("mbid-")
        item = self._item(gid)
        if request.method == "DELETE":
            if item is not None:
                item.delete(name)
                self._note(gid, item)
            return Response(204)
        headers = request.headers()
        source = headers.get("x-amz-copy-source")
        copied = self._file(source) if source is not None else None
        if source is not None and copied is None:
            return Response(404, b"<Error><Code>NoSuchKey</Code></Error>", "", "application/xml")
        if item is None:
            # The headers of an upload about the item itself count for new items only.
            prefix = "x-archive-meta-"
            item = Item(
                gid, {k[len(prefix) :]: v for k, v in headers.items() if k.startswith(prefix)}
            )
            item.add_own_files()
        if copied is not None:
            item.copy(name, copied)
        else:
            item.upload(name, request.body)
        self._note(gid, item)
        return Response(200)

    def _note(self, gid: str, item: Item) -> None:
        self._changed[gid] = item
        self.changed.append(f"mbid-{gid}")

    def _file(self, source: str) -> File | None:
        _, bucket, name = source.split("/", 2)
        item = self._item(bucket.removeprefix("mbid-"))
        return item.files.get(name) if item is not None else None


class MusicBrainz(StandIn):
    """The MusicBrainz web service. Kind of path: ``entity``."""

    def __init__(self, world: World) -> None:
        super().__init__(world.spec.seed + 1, Behaviour())
        self._world = world
        self._planted: dict[str, dict[str, str] | None] = {}

    def plant(self, answers: dict[str, Any]) -> None:
        """Plant entities: by ``TYPE/GID``, ``gid`` and ``xml`` of the answering entity, or null."""
        self._planted.update(answers)

    def kind(self, request: Request) -> str:
        return "entity" if request.path.startswith("/ws/2/") else "other"

    def answer(self, path: str, request: Request) -> Response:
        parts = request.path.split("/")
        if path != "entity" or len(parts) != 5 or parts[3] not in list(EntityType):
            return Response(404, _NOT_FOUND)
        entity_type, gid = EntityType(parts[3]), parts[4]
        answer = self._xml(entity_type, gid)
        if answer is None:
            return Response(404, b"<error><text>Not Found</text></error>", "", "application/xml")
        target, xml = answer
        if target != gid:
            query = f"?{request.query}" if request.query else ""
            location = f"http://{self.host}/ws/2/{entity_type}/{target}{query}"
            return Response(301, b"", f"Location: {location}\r\n", "application/xml")
        return Response(200, xml, content_type="application/xml; charset=utf-8")

    def _xml(self, entity_type: EntityType, gid: str) -> tuple[str, bytes] | None:
        key = f"{entity_type}/{gid}"
        if key not in self._planted:
            return self._world.xml(entity_type, gid)
        planted = self._planted[key]
        return None if planted is None else (planted["gid"], planted["xml"].encode())

    def answer_badly(self, path: str, request: Request, fault: Fault) -> Response:
        if fault.kind == "xml_bomb":
            return Response(200, _XML_BOMB, content_type="application/xml; charset=utf-8")
        return self.answer(path, request)


def _collection_type(query: str) -> EntityType | None:
    for entity_type, archive in ARCHIVES.items():
        if query == f"collection:{archive.collection}":
            return entity_type
    return None
