"""Asking less, auditing again, and following archive.org's changes, from the command line."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.entities import EntityType, Plan
from sandbox.world import Spec
from tests.e2e.place import Place

#: Drifts of releases that archive.org shows nothing of; screen does not see them, as the docs say.
NOT_SHOWN = {"xml-malformed", "xml-other"}


def test_screen_finds_what_archive_org_shows_and_asks_musicbrainz_of_nothing_else(
    place: Callable[[Spec], Place],
) -> None:
    here = place(Spec(size=1_500, drift_rate=0.4))
    here.services.control("musicbrainz", log=True)
    here.run("--xml", "screen", "--max-queue-depth", 0)
    found = here.found()
    for plan in here.plans.values():
        if plan.entity_type is EntityType.EVENT or plan.drift not in NOT_SHOWN:
            assert found[plan.gid] == (plan.status, tuple(sorted(plan.checks))), plan
        else:
            assert found[plan.gid] in (("clean", ()), (plan.status, tuple(sorted(plan.checks))))
    asked = [
        here.plans[entry["target"].partition("?")[0].rpartition("/")[2]]
        for entry in here.services.stats("musicbrainz").log
        if entry["target"].startswith("/ws/")
    ]
    assert {plan.entity_type for plan in asked} == {EntityType.RELEASE, EntityType.EVENT}
    assert [plan for plan in asked if not _is_doubtful(plan)] == []


def _is_doubtful(plan: Plan) -> bool:
    """Whether the web service has to be asked: what archive.org shows of the XML differs."""
    drift = plan.drift or ""
    differs = drift.startswith(("xml-", "meta-")) or "files.xml.missing" in plan.checks
    return plan.entity_type is EntityType.EVENT or differs or "xml.field" in plan.checks
