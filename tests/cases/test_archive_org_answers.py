"""Awkward answers of archive.org, one by one, each with the right decision.

``tests/data/archive-org-answers.json`` is a list of cases. ``entities`` says of each gid what
MusicBrainz has (its images, or that it was merged away), what the metadata API answers in turn, of
which the last answer repeats, and what index.json and mb_metadata.xml hold. ``right`` says what an
audit should decide: the status (where several are right, all of them) and the events to be queued.
Its gids are the audited ones; the others own images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.entities import EntityType, Presence
from sandbox.formats import Listed
from sandbox.postgres import Cluster
from sandbox.services import Services
from sandbox.world import Spec
from tests.oracle import musicbrainz
from tests.oracle.musicbrainz import Known
from tests.oracle.place import Found, Key, Place

FILE = Path(__file__).parent.parent / "data" / "archive-org-answers.json"
CASES: list[dict[str, Any]] = json.loads(FILE.read_text())

# What gids without an owner in their case were merged into.
_HEIR = Known(
    EntityType.RELEASE, "00000000-0000-4000-8000-000000000000", Presence.LIVE, xml=b"<metadata/>"
)


@pytest.fixture(scope="module")
def found(postgres: Cluster, migrated_template: str) -> Iterator[dict[Key, Found]]:
    """What one run over all cases has decided."""
    name = f"{migrated_template}_cases"
    dsn = postgres.create_database(name, template=migrated_template)
    try:
        with Services(Spec(size=10, drift_rate=0)) as services:
            place = Place(dsn, services)
            known = [_HEIR, *(entity for case in CASES for entity in _known(case))]
            musicbrainz.load(place.conn, known)
            services.plant("musicbrainz", musicbrainz.answers(known))
            services.plant("archive", _items(services))
            place.seed((EntityType.RELEASE, gid) for case in CASES for gid in case["right"])
            yield place.audit()[0]
            place.close()
    finally:
        postgres.drop_database(name)


def _known(case: dict[str, Any]) -> list[Known]:
    live = [entity["gid"] for entity in case["entities"] if entity["musicbrainz"] != "merged away"]
    heir = live[0] if live else _HEIR.gid
    return [
        Known(
            EntityType.RELEASE,
            gid := entity["gid"],
            Presence.LIVE,
            tuple(_listed(image) for image in entity["musicbrainz"]["images"]),
            entity["files"].get(f"mbid-{gid}_mb_metadata.xml", "<metadata/>").encode(),
        )
        if entity["gid"] in live
        else Known(EntityType.RELEASE, entity["gid"], Presence.MERGED, heir=heir)
        for entity in case["entities"]
    ]


def _listed(image: dict[str, Any]) -> Listed:
    return Listed(**{**image, "types": tuple(image["types"])})


def _items(services: Services) -> dict[str, Any]:
    """Every item, on the one node that there is."""
    node = services.archive_url.removeprefix("http://")
    return {
        entity["gid"]: {
            "answers": [
                json.dumps(_on_node(answer, node))
                for answer in entity["archive_org_metadata_answers"]
            ],
            "files": {
                name: text.encode().decode("latin-1") for name, text in entity["files"].items()
            },
        }
        for case in CASES
        for entity in case["entities"]
    }


def _on_node(answer: Any, node: str) -> Any:
    places = answer.keys() & {"d1", "d2", "server"} if isinstance(answer, dict) else ()
    return {**answer, **dict.fromkeys(places, node)} if places else answer


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_the_decision_is_right(case: dict[str, Any], found: dict[Key, Found]) -> None:
    for gid, right in case["right"].items():
        decided = found[EntityType.RELEASE, gid]
        statuses = right["status"] if isinstance(right["status"], list) else [right["status"]]
        assert decided.status in statuses, decided
        assert sorted(event.action for event in decided.events) == right["events"], decided
        assert all(event.gid == gid for event in decided.events)
        # A review says what for.
        assert (decided.reason is not None) is (decided.status == "manual_review")
