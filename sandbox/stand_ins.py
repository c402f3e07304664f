"""Stand-ins for archive.org and the MusicBrainz web service; that for LML is in `sandbox.lml`.

Each answers from a `sandbox.world.World` as the real service would, traps included, and misbehaves
as its `Behaviour` says. `sandbox.services` runs them.

Every stand-in also has, for tests and benchmarks:

* ``GET /_stats``: what it has seen so far (see `sandbox.faults.Stats`), by kind of path;
* ``POST /_control``: a JSON object that changes its behaviour; the keys are the fields of
  `Behaviour` and those of its ``Options``, and ``reset_stats``.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote

from sandbox.entities import EntityType
from sandbox.faults import Behaviour, Fault, Stats, Trouble, spoil
from sandbox.formats import ARCHIVES
from sandbox.httpd import Request, Response
from sandbox.items import Item
from sandbox.world import World

_GID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_NOT_FOUND = b'{"error":"not found"}'

_XML_BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE z [<!ENTITY a "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa">'
    + b"".join(
        f'<!ENTITY {name} "{f"&{chr(ord(name) - 1)};" * 32}">'.encode() for name in "bcdefgh"
    )
    + b']><metadata xmlns="http://musicbrainz.org/ns/mmd-2.0#">&h;</metadata>'
)


class StandIn(ABC):
    """What the stand-ins have in common: behaviour, faults, statistics and control."""

    def __init__(self, seed: int, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.stats = Stats()
        self.host = ""
        self._keep_log = False
        self._trouble = Trouble(seed)
        self._trouble.plan(behaviour.faults)

    def __call__(self, request: Request) -> Response:
        """Answer a request."""
        path = self.kind(request)
        if path == "_stats":
            return Response(200, json.dumps(self.stats.to_json()).encode())
        if path == "_control":
            return self._controlled(request)
        self.stats.paths[path] += 1
        if self._keep_log:
            self.stats.log.append(request)
        response = self._answer(path, request)
        response.delay_s += self._trouble.delay(self.behaviour)
        self.stats.statuses[response.status] += 1
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

    def _controlled(self, request: Request) -> Response:
        try:
            self.control(json.loads(request.body))
        except (TypeError, ValueError) as error:
            return Response(400, str(error).encode(), content_type="text/plain")
        return Response(200, b"{}")

    def control(self, changes: dict[str, Any]) -> None:
        """Change the behaviour.

        Raises:
            TypeError, ValueError: a key or a kind of fault is unknown.
        """
        changes = dict(changes)
        if changes.pop("reset_stats", False):
            self.stats = Stats()
        self._keep_log = changes.pop("log", self._keep_log)
        if "faults" in changes:
            changes["faults"] = tuple(
                Fault(**{**f, "paths": tuple(f.get("paths", ())), "gids": tuple(f.get("gids", ()))})
                for f in changes["faults"]
            )
            self._trouble.plan(changes["faults"])
        known = {field.name for field in fields(Behaviour)}
        self.behaviour = replace(
            self.behaviour, **{key: value for key, value in changes.items() if key in known}
        )
        self.set_options({key: value for key, value in changes.items() if key not in known})

    @abstractmethod
    def kind(self, request: Request) -> str:
        """The kind of path of a request, by which it is counted and faults are chosen."""

    @abstractmethod
    def answer(self, path: str, request: Request) -> Response:
        """Answer as the service does when all is well."""

    def answer_badly(self, path: str, request: Request, fault: Fault) -> Response:
        """Answer with a fault that only this service knows; the common ones are added later."""
        del fault
        return self.answer(path, request)

    @abstractmethod
    def set_options(self, changes: dict[str, Any]) -> None:
        """Change what only this service has."""


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """How archive.org behaves.

    Parameters:
        access_key, secret_key: the account that may see the collections.
        page_size: how many items a page of the scrape API holds.
    """

    access_key: str = "sandbox-access"
    secret_key: str = "sandbox-secret"
    page_size: int = 1_000


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
        "_stats": "_stats",
        "_control": "_control",
    }

    def __init__(
        self, world: World, behaviour: Behaviour, options: ArchiveOptions | None = None
    ) -> None:
        super().__init__(world.spec.seed, behaviour)
        self._world = world
        self._options = options or ArchiveOptions()
        # What uploads and deletions have changed; everything else follows from the world.
        self._changed: dict[str, Item] = {}
        # Somebody else's query is another one each time.
        self._strangers = itertools.count()

    def set_options(self, changes: dict[str, Any]) -> None:
        self._options = replace(self._options, **changes)

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

    def _item(self, gid: str) -> Item | None:
        return self._changed.get(gid) or self._world.item(gid)

    def _metadata(self, request: Request) -> Response:
        item = self._item(request.path[len("/metadata/mbid-") :])
        return Response(200, item.document(self.host) if item else b"{}")

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
        item = self._item(bucket.removeprefix("mbid-"))
        if item is None or item.dark:
            return Response(404, b"<html>not found</html>", content_type="text/html")
        location = f"http://{self.host}{item.directory}/{name}?from=front"
        return Response(302, b"", f"Location: {location}\r\n", "text/html")

    def _node(self, request: Request) -> Response:
        parts = request.path.split("/", 4)
        if len(parts) != 5 or parts[2] != "items":
            return Response(404, _NOT_FOUND)
        item = self._item(parts[3].removeprefix("mbid-"))
        name = unquote(parts[4])
        content = item.content(name) if item and not item.dark else None
        if item is None or content is None:
            return Response(404, b"<html>not found</html>", content_type="text/html")
        padding = max(0, item.files[name].size - len(content)) if name in item.contents else 0
        return Response(200, content, content_type="application/octet-stream", padding=padding)

    def _scrape(self, request: Request) -> Response:
        text = request.body.decode() if request.method == "POST" else request.query
        query = {key: values[-1] for key, values in parse_qs(text).items()}
        entity_type = _collection_type(query.get("q", ""))
        if entity_type is None:
            return _json({"items": [], "count": 0, "total": 0})
        rights = f"LOW {self._options.access_key}:{self._options.secret_key}"
        if request.header("authorization") != rights or query.get("scope") != "all":
            # Items are noindex: who may not see them is told of a few others, and of no error.
            return _json({"items": [], "count": 0, "total": 230})
        if query.get("total_only") == "true":
            return _json({"items": [], "count": 0, "total": 1})
        # With `count`, the cursor is ignored.
        cursor = query.get("cursor") if "count" not in query else None
        size = int(query.get("count", self._options.page_size))
        return self._page(entity_type, cursor, size)

    def _page(self, entity_type: EntityType, cursor: str | None, size: int) -> Response:
        try:
            start = _read_cursor(cursor) if cursor else 0
        except ValueError:
            return _json({"error": "[RANGE_ERROR] cursor is not valid"}, status=400)
        gids, stop = self._world.collected(entity_type, start, size)
        identifiers = [f"mbid-{gid}" for gid in gids]
        if start == 0:
            identifiers = [ARCHIVES[entity_type].collection, "mbid-test-item", *identifiers]
        document = {
            "items": [{"identifier": identifier} for identifier in identifiers],
            "count": len(identifiers),
            "total": self._world.spec.size,
        }
        if stop < self._world.spec.size:
            document["cursor"] = _write_cursor(stop)
        return _json(document)

    def _bad_page(self, request: Request, fault: Fault) -> Response:
        response = self._scrape(request)
        if fault.kind == "scrape_error":
            return _json({"error": "query backend is not available"}, status=fault.status or 200)
        document = json.loads(response.body)
        if fault.kind == "foreign_page":
            numbers = range(next(self._strangers), 1_000_000)[:50]
            document["items"] = [{"identifier": f"concert{number:06}"} for number in numbers]
        elif fault.kind == "stuck_cursor":
            text = request.body.decode() if request.method == "POST" else request.query
            sent = parse_qs(text).get("cursor", [])
            if sent:
                document["cursor"] = sent[-1]
        else:
            return response
        return _json(document)

    def _s3(self, request: Request) -> Response:
        """Uploads and deletions: ``PUT`` and ``DELETE /s3/mbid-GID/NAME``."""
        _, _, bucket, name = request.path.split("/", 3)
        gid = bucket.removeprefix("mbid-")
        item = self._item(gid)
        if request.method == "DELETE":
            if item is not None:
                item.delete(name)
                self._changed[gid] = item
            return Response(204)
        headers = request.headers()
        source = headers.get("x-amz-copy-source")
        if source is not None and not self._has_file(source):
            return Response(404, b"<Error><Code>NoSuchKey</Code></Error>", "", "application/xml")
        if item is None:
            item = Item(gid, {})
            item.add_own_files()
        prefix = "x-archive-meta-"
        metadata = {k[len(prefix) :]: v for k, v in headers.items() if k.startswith(prefix)}
        item.upload(name, request.body, metadata)
        self._changed[gid] = item
        return Response(200)

    def _has_file(self, source: str) -> bool:
        _, bucket, name = source.split("/", 2)
        item = self._item(bucket.removeprefix("mbid-"))
        return item is not None and name in item.files


class MusicBrainz(StandIn):
    """The MusicBrainz web service. Kind of path: ``entity``."""

    def __init__(self, world: World, behaviour: Behaviour) -> None:
        super().__init__(world.spec.seed + 1, behaviour)
        self._world = world

    def set_options(self, changes: dict[str, Any]) -> None:
        if changes:
            raise ValueError(f"MusicBrainz has no option {', '.join(changes)}")

    def kind(self, request: Request) -> str:
        if request.path.startswith("/ws/2/"):
            return "entity"
        return request.path[1:] if request.path.startswith("/_") else "other"

    def answer(self, path: str, request: Request) -> Response:
        parts = request.path.split("/")
        if path != "entity" or len(parts) != 5 or parts[3] not in list(EntityType):
            return Response(404, _NOT_FOUND)
        entity_type, gid = EntityType(parts[3]), parts[4]
        answer = self._world.xml(entity_type, gid)
        if answer is None:
            return Response(404, b"<error><text>Not Found</text></error>", "", "application/xml")
        target, xml = answer
        if target != gid:
            query = f"?{request.query}" if request.query else ""
            location = f"http://{self.host}/ws/2/{entity_type}/{target}{query}"
            return Response(301, b"", f"Location: {location}\r\n", "application/xml")
        return Response(200, xml, content_type="application/xml; charset=utf-8")

    def answer_badly(self, path: str, request: Request, fault: Fault) -> Response:
        if fault.kind == "xml_bomb":
            return Response(200, _XML_BOMB, content_type="application/xml; charset=utf-8")
        return self.answer(path, request)


def _json(document: object, *, status: int = 200, delay_s: float = 0.0) -> Response:
    return Response(status, json.dumps(document).encode(), delay_s=delay_s)


def _collection_type(query: str) -> EntityType | None:
    for entity_type, archive in ARCHIVES.items():
        if query == f"collection:{archive.collection}":
            return entity_type
    return None


def _write_cursor(number: int) -> str:
    return base64.urlsafe_b64encode(f"from {number}".encode()).decode()


def _read_cursor(cursor: str) -> int:
    word, _, number = base64.urlsafe_b64decode(cursor).decode().partition(" ")
    if word != "from":
        raise ValueError("not a cursor of ours")
    return int(number)
