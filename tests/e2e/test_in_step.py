"""Asking less, auditing again, and following archive.org's changes, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

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


def test_what_archive_org_changes_is_audited_again_and_nothing_else(
    place: Callable[[Spec], Place],
) -> None:
    here = place(Spec(size=300, drift_rate=0.0))
    here.run("--xml", "screen")
    since = datetime.now(UTC).strftime("%Y-%m-%d")
    first = here.run("--since", since, job="seed-from-ia-changes")
    assert first["totals"]["identifiers"] == 9

    clean = [gid for gid, (status, _) in here.found().items() if status == "clean"]
    named = [gid for gid in clean if here.world.item(gid) is not None][:20]
    unknown, *changed = named
    here.conn.execute("DELETE FROM artwork_indexer.audit_entity WHERE gid = %s", (unknown,))
    here.services.control("changes", changed=[*changed[1:], unknown])
    here.services.delete(changed[0], "index.json")

    report = here.run(job="seed-from-ia-changes")
    assert report["outcome"] == "verified"
    assert (report["totals"]["unchecked"], report["totals"]["seeded"]) == (19, 1)
    here.services.control("archive", reset_stats=True)
    audited = here.run("--xml", "screen", "--max-queue-depth", 0)
    assert audited["totals"]["scanned"] == 20
    assert here.found()[changed[0]] == ("repair_queue", ("files.index.missing",))
    assert here.services.stats("archive").requests <= 22

    # What artwork-indexer repairs comes back once, and is then done.
    here.indexer().run_until_idle()
    assert here.run("--xml", "screen")["totals"]["scanned"] == 1
    assert here.run(job="seed-from-ia-changes")["totals"]["unchecked"] == 1


def test_screen_needs_tables_that_an_exact_audit_does_not(place: Callable[[Spec], Place]) -> None:
    here = place(Spec(size=10))
    here.conn.execute("DROP TABLE musicbrainz.language CASCADE")
    assert "musicbrainz.language" in here.command("audit-batch", "--xml", "screen", code=2)
    here.run("--max-queue-depth", 0)


def test_changes_are_refused_without_the_privilege(place: Callable[[Spec], Place]) -> None:
    here = place(Spec(size=10))
    here.services.control("changes", secret_key="another")
    said = here.command("seed-from-ia-changes", "--from-beginning", code=1)
    assert "see_all_catalog_changes" in said
    assert here.services.secret_key not in said
    here.services.control("changes", secret_key=here.services.secret_key)
    report = here.run("--from-beginning", job="seed-from-ia-changes")
    assert report["outcome"] == "verified"
