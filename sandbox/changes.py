"""A stand-in for archive.org's Changes API.

It returns pages of identifiers: after a cold start every item of the world, in the order of
identifiers and among many that are not ours, and then the changes since. Changes come from `POST
/_control` with ``{"changed": [GID, ...]}``, and from uploads to archive.org's stand-in if both
share their list of changes.
"""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sandbox.faults import Behaviour, Fault
from sandbox.httpd import Request, Response, json_response
from sandbox.stand_ins import StandIn
from sandbox.world import World


@dataclass(frozen=True, slots=True)
class ChangesBehaviour(Behaviour):
    """How the Changes API behaves.

    Parameters
    ----------
    access_key, secret_key
        The account that may see all changes.
    page_size
        How many identifiers a page names.
    strangers
        How many identifiers that are not ours come with each of ours.
    distance
        How many tasks there seem to be behind a page that asks for a rest.
    """

    access_key: str = "sandbox-access"
    secret_key: str = "sandbox-secret"
    page_size: int = 1_000
    strangers: int = 9
    distance: int | None = None


class Changes(StandIn):
    """The Changes API. Kind of path: ``changes``.

    Kinds of fault that only it knows: ``repeated_token`` (the next token is the one that was
    sent), ``changes_error`` (an error with HTTP 200).
    """

    behaviour: ChangesBehaviour

    def __init__(self, world: World, changed: list[str]) -> None:
        super().__init__(world.spec.seed + 3, ChangesBehaviour())
        self._world = world
        self._changed = changed

    def control(self, changes: dict[str, Any]) -> None:
        changes = dict(changes)
        self._changed += [f"mbid-{gid}" for gid in changes.pop("changed", ())]
        super().control(changes)

    def kind(self, request: Request) -> str:
        return "changes" if request.path == "/changes/v1" else "other"

    def answer(self, path: str, request: Request) -> Response:
        if path != "changes" or request.method != "POST":
            return Response(404, b'{"error":"not found"}')
        fields = request.fields()
        keys = (fields.get("access"), fields.get("secret"))
        if keys != (self.behaviour.access_key, self.behaviour.secret_key):
            return json_response(
                {"error": "account lacks the privilege see_all_catalog_changes"}, 403
            )
        try:
            scan, place = self._start(fields)
        except ValueError:
            return json_response({"error": "invalid token"}, 400)
        return self._page(scan, place)

    def answer_badly(self, path: str, request: Request, fault: Fault) -> Response:
        if path != "changes":
            return self.answer(path, request)
        if fault.kind == "changes_error":
            return json_response({"error": "the catalogue is not available"})
        response = self.answer(path, request)
        if fault.kind == "repeated_token" and (sent := request.fields().get("token")):
            document = json.loads(response.body)
            document["next_token"] = sent
            document["do_sleep_before_returning"] = False
            return json_response(document)
        return response

    def _start(self, fields: dict[str, str]) -> tuple[bool, int]:
        """Return whether a cold start is still listing items, and the position in that list."""
        if "token" in fields:
            state = json.loads(base64.b64decode(fields["token"], validate=True))
            return bool(state["scan"]), int(state["at"])
        if fields.get("start_date") == "0":
            return True, 0
        if "start_date" in fields:
            return False, 0
        return False, len(self._changed)

    def _page(self, scan: bool, place: int) -> Response:
        source = self._catalogue if scan else self._changed
        ours = source[place : place + self.behaviour.page_size]
        stop = place + len(ours)
        at_end = stop >= len(source)
        token = {"scan": False, "at": 0} if scan and at_end else {"scan": scan, "at": stop}
        document: dict[str, Any] = {
            "changes": [{"identifier": name} for name in self._among_strangers(ours, place)],
            "next_token": base64.b64encode(json.dumps(token).encode()).decode(),
            "do_sleep_before_returning": at_end and not scan,
        }
        if not scan:
            distance = self.behaviour.distance
            document["estimated_distance_from_head"] = (
                len(self._changed) - stop if distance is None else distance
            )
        return json_response(document)

    def _among_strangers(self, ours: list[str], place: int) -> list[str]:
        strangers = self.behaviour.strangers
        numbers = itertools.count(place * max(1, strangers))
        names: list[str] = []
        # A page without any of ours has strangers all the same.
        for group in [[name] for name in ours] or [[]]:
            names += group
            names += [f"concert{next(numbers):09}" for _ in range(strangers)]
        return names

    @cached_property
    def _catalogue(self) -> list[str]:
        gids = map(self._world.gid, range(self._world.spec.size))
        return sorted(f"mbid-{gid}" for gid in gids if self._world.item(gid) is not None)
