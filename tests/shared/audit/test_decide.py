"""Every rule of the decision, over findings of real comparisons and over plain ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from artwork_backfill.shared.audit.archives import image_name, thumbnail_name, xml_name
from artwork_backfill.shared.audit.catalogue import CHECKS, Remedy, Severity
from artwork_backfill.shared.audit.decide import (
    Decision,
    FailedEvent,
    History,
    ImageOwner,
    Policy,
    QueuedAction,
    Status,
    decide,
)
from artwork_backfill.shared.audit.expected import Expected, Presence
from artwork_backfill.shared.audit.finding import Finding, ForeignImage, found

from tests.shared.audit.audit_states import (
    BOTH,
    EVENT,
    FOREIGN,
    FRONT,
    OTHER_GID,
    RELEASE,
    RELEASE_GID,
    FakeItem,
    findings_of,
    healthy,
)

SAFE = ImageOwner(OTHER_GID, has_original=True)
ONLY_COPY = ImageOwner(OTHER_GID, has_original=False)
NOBODYS = ImageOwner(None)

ORPHAN = replace(RELEASE, presence=Presence.MERGED, artwork=(), xml=None)


def of_check(check: str, **changes: object) -> Finding:
    """A finding of `check`, with an image when the decision needs one."""
    image = None
    if CHECKS[check].remedy is Remedy.IMAGE:
        image = ForeignImage(FOREIGN, "jpg", image_name(RELEASE_GID, FOREIGN, "jpg"))
    return replace(found(check, image.name if image else "", image=image), **changes)


def decision(
    expected: Expected,
    *findings: Finding | str,
    owners: dict[int, ImageOwner] | None = None,
    history: History | None = None,
    policy: Policy | None = None,
) -> Decision:
    return decide(
        expected,
        [of_check(each) if isinstance(each, str) else each for each in findings],
        {FOREIGN: SAFE} if owners is None else owners,
        history or History(),
        policy or Policy(),
    )


def live_checks(remedy: Remedy) -> list[str]:
    return [c.name for c in CHECKS.values() if c.remedy is remedy and c.applies == "live"]


class TestWithoutFindings:
    @pytest.mark.parametrize("expected", BOTH, ids=lambda e: e.entity_type)
    def test_a_live_entity_is_clean(self, expected):
        assert decision(expected) == Decision(Status.CLEAN)

    @pytest.mark.parametrize("presence", [Presence.MERGED, Presence.DELETED, Presence.UNKNOWN])
    def test_an_orphan_is_legacy(self, presence):
        assert decision(replace(ORPHAN, presence=presence)) == Decision(Status.LEGACY)


class TestIndex:
    @pytest.mark.parametrize("check", live_checks(Remedy.INDEX))
    def test_what_an_index_can_repair_is_repaired_by_one(self, check):
        assert decision(RELEASE, check) == Decision(
            Status.REPAIR_QUEUE, events=(QueuedAction("index", RELEASE_GID),), causes=(check,)
        )

    def test_one_event_repairs_everything(self):
        checks = live_checks(Remedy.INDEX)
        decided = decision(EVENT, *checks, *checks)
        assert decided.events == (QueuedAction("index", EVENT.gid),)
        assert decided.causes == tuple(checks)

    def test_the_message_is_the_indexers(self):
        [event] = decision(RELEASE, "files.index.missing").events
        assert event.message == {"gid": RELEASE_GID}

    def test_what_is_only_recorded_leads_to_nothing(self):
        assert decision(RELEASE, "xml.other") == Decision(Status.CLEAN)

    def test_what_is_only_recorded_is_no_cause(self):
        assert decision(RELEASE, "xml.other", "xml.field").causes == ("xml.field",)


class TestReview:
    @pytest.mark.parametrize("check", live_checks(Remedy.REVIEW))
    def test_a_review_finding_stops_every_repair(self, check):
        decided = decision(RELEASE, "files.index.missing", "files.original.extra", check)
        assert (decided.status, decided.events) == (Status.MANUAL_REVIEW, ())
        [reason] = decided.review_reasons
        assert reason.startswith(check)
        assert decided.causes == ()

    def test_every_reason_is_named(self):
        name = image_name(RELEASE_GID, FOREIGN, "jpg")
        decided = decision(
            RELEASE,
            found("files.original.missing", "a.jpg", actual="a.png"),
            found("files.original.missing", "b.jpg"),
            found("files.original.duplicate", "7", actual="7.jpg, 7.gif"),
            of_check("files.original.extra"),
            owners={FOREIGN: NOBODYS},
        )
        assert decided.review_reasons == (
            "files.original.missing: a.jpg (found a.png)",
            "files.original.missing: b.jpg",
            "files.original.duplicate: 7 (found 7.jpg, 7.gif)",
            f"files.original.extra: {name}: unknown image: preserve or purge?",
        )

    def test_a_reason_without_a_subject_says_what_the_check_means(self):
        [reason] = decision(RELEASE, "item.dark").review_reasons
        assert reason == f"item.dark: {CHECKS['item.dark'].summary}"


class TestLateReview:
    def test_missing_thumbnails_are_reviewed_when_nothing_else_is_to_do(self):
        finding = found("files.thumbnail.missing", str(FRONT), expected="250, 500")
        assert decision(RELEASE, finding, "xml.other") == Decision(
            Status.MANUAL_REVIEW,
            review_reasons=(f"files.thumbnail.missing: {FRONT} (expected 250, 500)",),
        )

    def test_they_wait_for_repairs(self):
        decided = decision(RELEASE, "files.thumbnail.missing", "xml.field")
        assert decided.status is Status.REPAIR_QUEUE
        assert decided.review_reasons == ()

    def test_they_are_no_reason_beside_another_review(self):
        decided = decision(RELEASE, "files.thumbnail.missing", "item.dark")
        assert len(decided.review_reasons) == 1

    def test_leftovers_of_an_orphan_are_reviewed_when_nothing_else_is_to_do(self):
        assert decision(ORPHAN, "orphan.leftover").status is Status.MANUAL_REVIEW
        assert decision(ORPHAN, "orphan.leftover", "orphan.index").status is Status.REPAIR_QUEUE


class TestForeignImages:
    @pytest.mark.parametrize("expected", BOTH, ids=lambda e: e.entity_type)
    def test_a_leftover_is_deleted_and_the_index_follows(self, expected):
        item = healthy(expected)
        item.add_image(FOREIGN, "png")
        item.add_image(FOREIGN + 1, "pdf")
        decided = decide(
            expected,
            findings_of(expected, item),
            {FOREIGN: SAFE, FOREIGN + 1: SAFE},
            History(),
            Policy(),
        )
        assert decided == Decision(
            Status.REPAIR_QUEUE,
            events=(
                QueuedAction("delete_image", expected.gid, FOREIGN, "png"),
                QueuedAction("delete_image", expected.gid, FOREIGN + 1, "pdf"),
                QueuedAction("index", expected.gid, depends_on=(0, 1)),
            ),
            causes=("files.original.extra",),
        )

    def test_the_message_of_a_deletion_is_the_indexers(self):
        deletion = decision(RELEASE, "files.original.extra").events[0]
        assert deletion.message == {"gid": RELEASE_GID, "artwork_id": FOREIGN, "suffix": "jpg"}

    def test_one_deletion_and_one_index_whatever_else_is_found(self):
        extra = "files.original.extra"
        decided = decision(RELEASE, "index.malformed", extra, extra, "xml.field")
        assert [event.action for event in decided.events] == ["delete_image", "index"]
        assert decided.events[1].depends_on == (0,)
        assert decided.causes == ("index.malformed", extra, "xml.field")

    @pytest.mark.parametrize(
        ("owner", "reason"),
        [
            (NOBODYS, "unknown image: preserve or purge?"),
            (ONLY_COPY, f"only copy: it belongs to release {OTHER_GID}, whose item lacks it"),
            (
                ImageOwner(RELEASE_GID, has_original=True),
                "it has become this entity's own during the audit",
            ),
        ],
    )
    @pytest.mark.parametrize(
        ("expected", "check", "repairable"),
        [
            (RELEASE, "files.original.extra", "index.malformed"),
            (ORPHAN, "orphan.image", "orphan.index"),
        ],
        ids=["live", "orphan"],
    )
    def test_a_doubtful_image_is_reviewed_and_nothing_is_done(
        self, expected, check, repairable, owner, reason
    ):
        decided = decision(expected, check, repairable, owners={FOREIGN: owner})
        name = image_name(RELEASE_GID, FOREIGN, "jpg")
        assert decided == Decision(
            Status.MANUAL_REVIEW, review_reasons=(f"{check}: {name}: {reason}",)
        )

    def test_one_doubtful_image_keeps_the_others(self):
        other = ForeignImage(FRONT, "jpg", image_name(RELEASE_GID, FRONT, "jpg"))
        decided = decision(
            ORPHAN,
            "orphan.image",
            found("orphan.image", other.name, image=other),
            owners={FOREIGN: SAFE, FRONT: ONLY_COPY},
        )
        assert decided.events == ()
        assert len(decided.review_reasons) == 1
        assert other.name in decided.review_reasons[0]

    def test_an_owner_of_an_event_is_named_as_such(self):
        [reason] = decision(
            EVENT, "files.original.extra", owners={FOREIGN: ONLY_COPY}
        ).review_reasons
        assert f"belongs to event {OTHER_GID}" in reason

    @pytest.mark.parametrize("owners", [{}, {FOREIGN: ImageOwner(OTHER_GID)}])
    def test_without_a_full_look_up_there_is_no_decision(self, owners):
        with pytest.raises(ValueError, match="nobody has looked"):
            decision(RELEASE, "files.original.extra", owners=owners)


class TestOrphans:
    def test_the_images_go_first_then_the_index(self):
        item = healthy(ORPHAN)
        item.add_image(FOREIGN, "jpg")
        item.add_image(FRONT, "png")
        decided = decide(
            ORPHAN,
            findings_of(ORPHAN, item),
            {FOREIGN: SAFE, FRONT: SAFE},
            History(),
            Policy(),
        )
        assert decided == Decision(
            Status.REPAIR_QUEUE,
            events=(
                QueuedAction("delete_image", RELEASE_GID, FOREIGN, "jpg"),
                QueuedAction("delete_image", RELEASE_GID, FRONT, "png"),
                QueuedAction("deindex", RELEASE_GID, depends_on=(0, 1)),
            ),
            causes=("orphan.image", "orphan.index"),
        )

    def test_an_index_alone_is_removed(self):
        assert decision(ORPHAN, "orphan.index").events == (QueuedAction("deindex", RELEASE_GID),)

    def test_images_alone_are_deleted_and_nothing_is_indexed(self):
        assert [event.action for event in decision(ORPHAN, "orphan.image").events] == [
            "delete_image"
        ]


class TestHistory:
    def test_an_identical_event_that_has_failed_is_reviewed(self):
        failed = FailedEvent(77, "index", {"gid": RELEASE_GID})
        assert decision(RELEASE, "xml.field", history=History(failed=(failed,))) == Decision(
            Status.MANUAL_REVIEW, review_reasons=(f"event 77 has failed: index gid {RELEASE_GID}",)
        )

    def test_a_deletion_that_has_failed_is_reviewed(self):
        message = {"suffix": "jpg", "artwork_id": FOREIGN, "gid": RELEASE_GID}
        history = History(failed=(FailedEvent(78, "delete_image", message),))
        [reason] = decision(ORPHAN, "orphan.image", history=history).review_reasons
        assert reason.startswith("event 78 has failed: delete_image")
        assert str(FOREIGN) in reason

    @pytest.mark.parametrize(
        "failed",
        [
            FailedEvent(1, "deindex", {"gid": RELEASE_GID}),
            FailedEvent(1, "index", {"gid": OTHER_GID}),
            FailedEvent(1, "index", {"gid": RELEASE_GID, "artwork_id": 1}),
        ],
    )
    def test_another_event_that_has_failed_does_not_matter(self, failed):
        history = History(failed=(failed,))
        assert decision(RELEASE, "xml.field", history=history).status is Status.REPAIR_QUEUE

    def test_an_event_that_has_failed_does_not_matter_when_nothing_is_to_do(self):
        history = History(failed=(FailedEvent(1, "index", {"gid": RELEASE_GID}),))
        assert decision(RELEASE, "xml.other", history=history).status is Status.CLEAN

    def test_a_repair_that_did_not_hold_is_reviewed(self):
        history = History(repaired=frozenset({"xml.field", "meta.title"}))
        decided = decision(RELEASE, "xml.field", "index.malformed", history=history)
        assert decided == Decision(
            Status.MANUAL_REVIEW, review_reasons=("repair did not hold: xml.field",)
        )

    @pytest.mark.parametrize(
        ("expected", "check"), [(RELEASE, "files.original.extra"), (ORPHAN, "orphan.index")]
    )
    def test_neither_does_a_deletion_or_a_deindexing_go_in_circles(self, expected, check):
        history = History(repaired=frozenset({check}))
        assert decision(expected, check, history=history).review_reasons == (
            f"repair did not hold: {check}",
        )

    def test_another_check_than_the_repaired_one_is_repaired(self):
        history = History(repaired=frozenset({"xml.field"}))
        assert decision(RELEASE, "meta.title", history=history).status is Status.REPAIR_QUEUE

    def test_a_finding_that_is_not_acted_upon_is_no_repair_that_did_not_hold(self):
        decided = decision(
            RELEASE,
            "xml.field",
            "index.malformed",
            history=History(repaired=frozenset({"xml.field"})),
            policy=Policy(ignored=frozenset({"xml.field"})),
        )
        assert decided.status is Status.REPAIR_QUEUE


class TestPolicy:
    @pytest.mark.parametrize(
        "check", [c.name for c in CHECKS.values() if c.applies == "live" and c.name != "xml.other"]
    )
    def test_an_ignored_check_is_not_acted_upon_whatever_its_remedy(self, check):
        policy = Policy(ignored=frozenset({check}))
        assert decision(RELEASE, check, owners={}, policy=policy) == Decision(Status.CLEAN)

    def test_an_orphan_whose_findings_are_ignored_has_still_something_left(self):
        policy = Policy(ignored=frozenset({"orphan.image"}))
        assert decision(ORPHAN, "orphan.image", policy=policy) == Decision(Status.CLEAN)

    @pytest.mark.parametrize(
        ("severity", "least", "status"),
        [
            (Severity.MINOR, Severity.MINOR, Status.REPAIR_QUEUE),
            (Severity.MINOR, Severity.MAJOR, Status.CLEAN),
            (Severity.MAJOR, Severity.MAJOR, Status.REPAIR_QUEUE),
            (Severity.MAJOR, Severity.CRITICAL, Status.CLEAN),
            (Severity.CRITICAL, Severity.CRITICAL, Status.REPAIR_QUEUE),
        ],
    )
    def test_what_is_lighter_than_asked_for_is_not_acted_upon(self, severity, least, status):
        finding = of_check("index.image.url", severity=severity)
        assert decision(RELEASE, finding, policy=Policy(min_severity=least)).status is status

    def test_a_lighter_review_finding_is_not_acted_upon_either(self):
        policy = Policy(min_severity=Severity.CRITICAL)
        decided = decision(RELEASE, "files.original.duplicate", "index.malformed", policy=policy)
        assert decided.status is Status.REPAIR_QUEUE


def lose_everything(item: FakeItem) -> None:
    item.originals = {}
    item.derivatives = {}
    item.metadata = {}


@pytest.mark.parametrize("expected", BOTH, ids=lambda e: e.entity_type)
@pytest.mark.parametrize(
    ("damage", "status", "actions"),
    [
        (lambda item: None, Status.CLEAN, []),
        (lambda item: item.remove("index.json"), Status.REPAIR_QUEUE, ["index"]),
        (lambda item: item.remove(xml_name(item.gid)), Status.REPAIR_QUEUE, ["index"]),
        (
            lambda item: item.remove(thumbnail_name(item.gid, FRONT, 500)),
            Status.MANUAL_REVIEW,
            [],
        ),
        (lose_everything, Status.MANUAL_REVIEW, []),
    ],
    ids=["clean", "no index", "no XML", "no thumbnail", "nothing left"],
)
def test_from_the_item_to_the_decision(expected, damage, status, actions):
    item = healthy(expected)
    damage(item)
    decided = decide(expected, findings_of(expected, item), {}, History(), Policy())
    assert decided.status is status
    assert [event.action for event in decided.events] == actions
