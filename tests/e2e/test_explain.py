"""explain: one entity, what an audit would find and why; on a role that may only read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from psycopg.conninfo import make_conninfo

from artwork_backfill.shared.audit.archives import EntityType
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.auditing.examination import Examiner
from artwork_backfill.shared.auditing.owners import looking_up
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.review.explain import compare_whole
from artwork_backfill.shared.settings import Settings
from sandbox.world import Spec
from tests.e2e.place import Place

_ROWS = """
SELECT count(*), coalesce(sum(hashtextextended(entity::text, 0)), 0)
FROM artwork_indexer.audit_entity entity
"""

_READER = """
CREATE ROLE {role} LOGIN;
GRANT USAGE ON SCHEMA musicbrainz, cover_art_archive, event_art_archive, artwork_indexer TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA
    musicbrainz, cover_art_archive, event_art_archive, artwork_indexer TO {role};
"""


def _explain(here: Place, gid: str) -> dict[str, Any]:
    said = here.command("explain", gid, "--json")
    [explanation] = json.loads(said)
    assert isinstance(explanation, dict)
    return explanation


def test_what_an_audit_would_find_is_explained_and_nothing_changes(
    place: Callable[[Spec], Place],
) -> None:
    here = place(Spec(size=700, drift_rate=0.6))
    role = f"reader_{here.conn.info.dbname}"[:60]
    here.conn.execute(_READER.format(role=role).encode())
    try:
        before = here.conn.execute(_ROWS).fetchone()
        here.dsn = make_conninfo(here.dsn, user=role)
        for drift in ("index-value", "xml-title", "orphan-image-and-index", None):
            plan = next(plan for plan in here.plans.values() if plan.drift == drift)
            explained = _explain(here, plan.gid)
            assert explained["outcome"] == plan.status
            assert {finding["check"] for finding in explained["findings"]} == plan.checks
            assert bool(explained["events"]) == (plan.status == "repair_queue")
            assert bool(explained["foreign_images"]) == ("orphan.image" in plan.checks)
            if drift == "xml-title":
                sides = [
                    side for side in explained["comparison"] if side["expected"] != side["found"]
                ]
                assert any(side["part"] == "mb_metadata.xml" for side in sides), sides
        url = f"https://musicbrainz.org/{plan.entity_type}/{plan.gid}"
        said = here.command("explain", url)
        assert "An audit would decide" in said
        assert plan.gid in said
        assert here.conn.execute(_ROWS).fetchone() == before
    finally:
        here.conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_mirror_that_lacks_the_audits_tables_is_enough(place: Callable[[Spec], Place]) -> None:
    here = place(Spec(size=300, drift_rate=0.6))
    here.conn.execute("DROP SCHEMA artwork_indexer CASCADE")
    plan = next(plan for plan in here.plans.values() if plan.drift == "orphan-image-and-index")
    explained = _explain(here, plan.gid)
    assert explained["outcome"] == plan.status
    assert explained["case"] is None
    assert "musicbrainz.release" not in here.command("explain", plan.gid, "--all")


def test_a_person_sees_the_items_and_documents_that_an_audit_compares(
    place: Callable[[Spec], Place],
) -> None:
    here = place(Spec(size=300, drift_rate=0.6))
    plan = next(plan for plan in here.plans.values() if plan.drift == "orphan-image-and-index")
    services = Services.from_settings(
        Settings(here.environment), concurrency=1, stop_flag=threading.Event()
    )
    connect = partial(psycopg.connect, here.dsn)
    with closing(services):
        examiner = Examiner(services, looking_up(connect), Policy())
        seen = compare_whole(connect, examiner, EntityType(plan.entity_type), UUID(plan.gid))
    assert seen.problem == ""
    own, *owners = seen.items
    assert own.gid == plan.gid
    assert owners
    assert seen.documents[0].name == "index.json"
