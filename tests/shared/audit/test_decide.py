"""Every rule of the decision, over findings of real comparisons and over plain ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from artwork_backfill.shared.audit.actual import CopyState, ItemFile, OriginalImage
from artwork_backfill.shared.audit.archives import image_name, thumbnail_name, xml_name
from artwork_backfill.shared.audit.catalogue import CHECKS, Remedy, Severity
from artwork_backfill.shared.audit.decide import (
    STILL_TRIED,
    Decision,
    FailedEvent,
    ImageOwner,
    Passed,
    Policy,
    PreviousAudits,
    QueuedAction,
    Status,
    decide,
    images_in_question,
    is_still_tried,
    proofs,
)
from artwork_backfill.shared.audit.expected import Expected, Presence
from artwork_backfill.shared.audit.finding import Finding, found
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

SAFE = ImageOwner(OTHER_GID, CopyState.SAME)
ONLY_COPY = ImageOwner(OTHER_GID, CopyState.ONLY_COPY)
NOBODYS = ImageOwner(None)
FROM_LIVE = Policy(delete_from_live=True)

ORPHAN = replace(RELEASE, presence=Presence.MERGED, artwork=(), xml=None)


def foreign(artwork_id: int | None, suffix: str = "jpg") -> OriginalImage:
    """An original of the release's item."""
    name = f"scan.{suffix}" if artwork_id is None else image_name(RELEASE_GID, artwork_id, suffix)
    return OriginalImage(artwork_id, suffix, ItemFile(name, "original"))


def texts(decided: Decision) -> tuple[str, ...]:
    """The reasons for a review, in words."""
    return tuple(map(str, decided.review_reasons))


def owned(
    findings: Sequence[Finding], owners: Mapping[int | None, ImageOwner]
) -> dict[OriginalImage, ImageOwner]:
    """Owners by artwork id as owners by image."""
    images = [finding.image for finding in findings if finding.image is not None]
    return {image: owners[image.artwork_id] for image in images if image.artwork_id in owners}


def of_check(check: str, **changes: object) -> Finding:
    """A finding of `check`, with an image when the decision needs one."""
    image = None
    if CHECKS[check].remedy is Remedy.IMAGE:
        image = foreign(FOREIGN)
    return replace(found(check, image.name if image else "", image=image), **changes)


def decision(
    expected: Expected,
    *findings: Finding | str,
    owners: Mapping[int | None, ImageOwner] | None = None,
    previous: PreviousAudits | None = None,
    policy: Policy | None = None,
) -> Decision:
    given = [of_check(each) if isinstance(each, str) else each for each in findings]
    return decide(
        expected,
        given,
        owned(given, {FOREIGN: SAFE} if owners is None else owners),
        previous or PreviousAudits(),
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
        decided = decision(
            RELEASE, "files.index.missing", "files.original.extra", check, policy=FROM_LIVE
        )
        assert (decided.status, decided.events) == (Status.MANUAL_REVIEW, ())
        [reason] = texts(decided)
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
        assert texts(decided) == (
            "files.original.missing: a.jpg (found a.png)",
            "files.original.missing: b.jpg",
            "files.original.duplicate: 7 (found 7.jpg, 7.gif)",
            f"files.original.extra: {name}: unknown image: preserve or purge?",
        )

    def test_a_reason_without_a_subject_says_what_the_check_means(self):
        [reason] = texts(decision(RELEASE, "item.dark"))
        assert reason == f"item.dark: {CHECKS['item.dark'].summary}"


class TestLateReview:
    def test_missing_thumbnails_are_reviewed_when_nothing_else_is_to_do(self):
        finding = found("files.thumbnail.missing", str(FRONT), expected="250, 500")
        decided = decision(RELEASE, finding, "xml.other")
        assert decided.status is Status.MANUAL_REVIEW
        assert texts(decided) == (f"files.thumbnail.missing: {FRONT} (expected 250, 500)",)

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
    def test_a_leftover_is_deleted_from_a_live_entity_where_that_is_allowed(self, expected):
        item = healthy(expected)
        item.add_image(FOREIGN, "png")
        item.add_image(FOREIGN + 1, "pdf")
        findings = findings_of(expected, item)
        decided = decide(
            expected,
            findings,
            owned(findings, {FOREIGN: SAFE, FOREIGN + 1: SAFE}),
            PreviousAudits(),
            FROM_LIVE,
        )
        assert decided == Decision(
            Status.REPAIR_QUEUE,
            events=(
                QueuedAction("delete_image", expected.gid, FOREIGN, "png", owner=OTHER_GID),
                QueuedAction("delete_image", expected.gid, FOREIGN + 1, "pdf", owner=OTHER_GID),
                QueuedAction("index", expected.gid, depends_on=(0, 1)),
            ),
            causes=("files.original.extra",),
        )

    def test_a_leftover_on_a_live_entity_is_for_a_person(self):
        decided = decision(RELEASE, "files.original.extra", "index.malformed")
        assert (decided.status, decided.events) == (Status.MANUAL_REVIEW, ())
        [reason] = decided.review_reasons
        assert (reason.code, reason.check) == ("leftover_on_live", "files.original.extra")
        assert f"a leftover of release {OTHER_GID}" in reason.text

    def test_the_message_of_a_deletion_is_the_indexers(self):
        deletion = decision(ORPHAN, "orphan.image").events[0]
        assert deletion.message == {"gid": RELEASE_GID, "artwork_id": FOREIGN, "suffix": "jpg"}

    def test_one_deletion_and_one_index_whatever_else_is_found(self):
        extra = "files.original.extra"
        decided = decision(RELEASE, "index.malformed", extra, extra, "xml.field", policy=FROM_LIVE)
        assert [event.action for event in decided.events] == ["delete_image", "index"]
        assert decided.events[1].depends_on == (0,)
        assert decided.causes == ("index.malformed", extra, "xml.field")

    @pytest.mark.parametrize(
        ("owner", "code", "words"),
        [
            (NOBODYS, "unknown_image", "unknown image: preserve or purge?"),
            (ONLY_COPY, "only_copy", f"only copy: it belongs to release {OTHER_GID}"),
            (
                ImageOwner(OTHER_GID, CopyState.ANOTHER_FILE),
                "another_file",
                f"another file: release {OTHER_GID}",
            ),
            (ImageOwner(OTHER_GID, CopyState.EMPTY), "owner_copy_empty", "has no bytes"),
            (ImageOwner(OTHER_GID, CopyState.PRIVATE), "owner_copy_private", "is private"),
            (ImageOwner(OTHER_GID, CopyState.DARK), "owner_item_dark", "the owner's item is dark"),
            (
                ImageOwner(OTHER_GID, CopyState.OTHER_ARCHIVE),
                "owner_item_of_other_archive",
                "of the other archive",
            ),
            (
                ImageOwner(RELEASE_GID, CopyState.SAME),
                "became_own",
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
        self, expected, check, repairable, owner, code, words
    ):
        decided = decision(expected, check, repairable, owners={FOREIGN: owner}, policy=FROM_LIVE)
        assert (decided.status, decided.events) == (Status.MANUAL_REVIEW, ())
        [reason] = decided.review_reasons
        assert (reason.code, reason.check) == (code, check)
        assert words in reason.text

    def test_an_image_without_an_artwork_id_is_unknown(self):
        image = foreign(None)
        decided = decision(
            ORPHAN, found("orphan.image", image.name, image=image), owners={None: NOBODYS}
        )
        assert [reason.code for reason in decided.review_reasons] == ["unknown_image"]

    def test_one_doubtful_image_keeps_the_others(self):
        other = foreign(FRONT)
        decided = decision(
            ORPHAN,
            "orphan.image",
            found("orphan.image", other.name, image=other),
            owners={FOREIGN: SAFE, FRONT: ONLY_COPY},
        )
        assert decided.events == ()
        [reason] = texts(decided)
        assert other.name in reason

    def test_an_owner_of_an_event_is_named_as_such(self):
        [reason] = texts(decision(EVENT, "files.original.extra", owners={FOREIGN: ONLY_COPY}))
        assert f"belongs to event {OTHER_GID}" in reason

    @pytest.mark.parametrize(
        "owners",
        [
            {},
            {FOREIGN: ImageOwner(OTHER_GID)},
            {FOREIGN: ImageOwner(OTHER_GID, CopyState.INCOMPARABLE)},
        ],
    )
    def test_without_a_comparison_there_is_no_decision(self, owners):
        with pytest.raises(ValueError, match="has not been"):
            decision(ORPHAN, "orphan.image", owners=owners)

    @pytest.mark.parametrize(
        "policy",
        [
            Policy(ignored=frozenset({"orphan.image"})),
            Policy(min_severity=Severity.CRITICAL),
            Policy(remedies={"orphan.image": Remedy.REVIEW}),
        ],
    )
    def test_owners_are_not_asked_for_when_nothing_hangs_on_them(self, policy):
        assert images_in_question([of_check("orphan.image")], policy) == ()


class TestOrphans:
    def test_the_images_go_first_then_the_index(self):
        item = healthy(ORPHAN)
        item.add_image(FOREIGN, "jpg")
        item.add_image(FRONT, "png")
        findings = findings_of(ORPHAN, item)
        owners = owned(findings, {FOREIGN: SAFE, FRONT: SAFE})
        assert decide(ORPHAN, findings, owners, PreviousAudits(), Policy()) == Decision(
            Status.REPAIR_QUEUE,
            events=(
                QueuedAction("delete_image", RELEASE_GID, FOREIGN, "jpg", owner=OTHER_GID),
                QueuedAction("delete_image", RELEASE_GID, FRONT, "png", owner=OTHER_GID),
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

    @pytest.mark.parametrize(
        "policy",
        [
            Policy(ignored=frozenset({"orphan.image"})),
            Policy(remedies={"orphan.image": Remedy.RECORD}),
            Policy(deletions=False),
        ],
        ids=["ignored", "recorded", "no deletions"],
    )
    def test_the_index_stays_while_an_image_stays(self, policy):
        decided = decision(ORPHAN, "orphan.image", "orphan.index", policy=policy)
        assert (decided.status, decided.events) == (Status.CLEAN, ())
        assert [each.check for each in decided.passed] == ["orphan.image"]


class TestHistory:
    def test_an_identical_event_that_has_failed_is_reviewed(self):
        failed = FailedEvent(77, "index", {"gid": RELEASE_GID})
        decided = decision(RELEASE, "xml.field", previous=PreviousAudits(failed=(failed,)))
        assert texts(decided) == (f"event 77 has failed: index gid {RELEASE_GID}",)
        [reason] = decided.review_reasons
        assert (reason.code, reason.subject) == ("event_failed", "77")

    def test_a_deletion_that_has_failed_is_reviewed(self):
        message = {"suffix": "jpg", "artwork_id": FOREIGN, "gid": RELEASE_GID}
        previous = PreviousAudits(failed=(FailedEvent(78, "delete_image", message),))
        [reason] = texts(decision(ORPHAN, "orphan.image", previous=previous))
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
        previous = PreviousAudits(failed=(failed,))
        assert decision(RELEASE, "xml.field", previous=previous).status is Status.REPAIR_QUEUE

    def test_an_event_that_has_failed_does_not_matter_when_nothing_is_to_do(self):
        previous = PreviousAudits(failed=(FailedEvent(1, "index", {"gid": RELEASE_GID}),))
        assert decision(RELEASE, "xml.other", previous=previous).status is Status.CLEAN

    def test_a_repair_that_did_not_hold_is_reviewed(self):
        previous = PreviousAudits(repaired=frozenset({"xml.field", "meta.title"}))
        decided = decision(RELEASE, "xml.field", "index.malformed", previous=previous)
        assert texts(decided) == ("repair did not hold: xml.field",)
        assert decided.review_reasons[0].code == "repair_did_not_hold"

    @pytest.mark.parametrize(
        ("expected", "check"), [(RELEASE, "files.original.extra"), (ORPHAN, "orphan.index")]
    )
    def test_neither_does_a_deletion_or_a_deindexing_go_in_circles(self, expected, check):
        previous = PreviousAudits(repaired=frozenset({check}))
        decided = decision(expected, check, previous=previous, policy=FROM_LIVE)
        assert texts(decided) == (f"repair did not hold: {check}",)

    def test_another_check_than_the_repaired_one_is_repaired(self):
        previous = PreviousAudits(repaired=frozenset({"xml.field"}))
        assert decision(RELEASE, "meta.title", previous=previous).status is Status.REPAIR_QUEUE

    def test_a_finding_that_is_not_acted_upon_is_no_repair_that_did_not_hold(self):
        decided = decision(
            RELEASE,
            "xml.field",
            "index.malformed",
            previous=PreviousAudits(repaired=frozenset({"xml.field"})),
            policy=Policy(ignored=frozenset({"xml.field"})),
        )
        assert decided.status is Status.REPAIR_QUEUE


class TestPolicy:
    @pytest.mark.parametrize(
        "check", [c.name for c in CHECKS.values() if c.applies == "live" and c.name != "xml.other"]
    )
    def test_an_ignored_check_is_not_acted_upon_whatever_its_remedy(self, check):
        policy = Policy(ignored=frozenset({check}))
        decided = decision(RELEASE, check, owners={}, policy=policy)
        passed = (Passed(check, CHECKS[check].severity),)
        assert decided == Decision(Status.CLEAN, passed=passed)

    def test_an_orphan_whose_findings_are_ignored_has_still_something_left(self):
        policy = Policy(ignored=frozenset({"orphan.image"}))
        assert decision(ORPHAN, "orphan.image", policy=policy).status is Status.CLEAN

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

    def test_a_chosen_remedy_replaces_that_of_the_catalogue(self):
        tried = Policy(remedies={"item.noindex": Remedy.INDEX})
        assert decision(RELEASE, "item.noindex").status is Status.MANUAL_REVIEW
        assert decision(RELEASE, "item.noindex", policy=tried).causes == ("item.noindex",)
        reviewed = Policy(remedies={"xml.field": Remedy.REVIEW})
        assert decision(RELEASE, "xml.field", policy=reviewed).status is Status.MANUAL_REVIEW
        recorded = Policy(remedies={"xml.field": Remedy.RECORD})
        assert decision(RELEASE, "xml.field", policy=recorded).passed == (
            Passed("xml.field", Severity.MAJOR),
        )

    def test_without_deletions_what_could_be_deleted_is_passed_and_reviews_remain(self):
        policy = Policy(deletions=False)
        assert decision(ORPHAN, "orphan.image", policy=policy) == Decision(
            Status.CLEAN, passed=(Passed("orphan.image", Severity.MAJOR, is_deletion=True),)
        )
        doubtful = decision(ORPHAN, "orphan.image", owners={FOREIGN: ONLY_COPY}, policy=policy)
        assert doubtful.status is Status.MANUAL_REVIEW

    def test_what_the_catalogue_only_records_is_not_passed(self):
        assert decision(RELEASE, "xml.other") == Decision(Status.CLEAN)

    @pytest.mark.parametrize(
        ("in_review", "keeps"),
        [
            (frozenset({"files.original.missing"}), True),
            (frozenset({""}), True),
            (frozenset({"xml.field"}), False),
            (None, False),
        ],
    )
    def test_a_review_is_not_closed_because_its_check_is_passed_now(self, in_review, keeps):
        decided = decision(
            RELEASE,
            "files.original.missing",
            previous=PreviousAudits(in_review=in_review),
            policy=Policy(ignored=frozenset({"files.original.missing"})),
        )
        assert decided.keeps_review is keeps
        assert decided.status is (Status.MANUAL_REVIEW if keeps else Status.CLEAN)


class TestRepairsThatDoNotHold:
    DISTRUSTED = PreviousAudits(distrusted=frozenset({"meta.date", "orphan.index"}))

    def test_a_check_whose_repairs_do_not_hold_is_a_late_review(self):
        decided = decision(RELEASE, "meta.date", previous=self.DISTRUSTED)
        assert (decided.status, decided.events) == (Status.MANUAL_REVIEW, ())
        both = decision(RELEASE, "meta.date", "xml.field", previous=self.DISTRUSTED)
        assert both.causes == ("xml.field",)

    def test_one_in_a_thousand_is_still_tried(self):
        gids = [f"00000000-0000-4000-8000-{number:012x}" for number in range(20 * STILL_TRIED)]
        tried = [gid for gid in gids if is_still_tried("meta.date", gid)]
        assert 5 <= len(tried) <= 50
        expected = replace(RELEASE, gid=tried[0])
        decided = decision(expected, "meta.date", previous=self.DISTRUSTED)
        assert decided.status is Status.REPAIR_QUEUE

    def test_a_repair_is_proved_by_an_audit_that_judges_its_check(self):
        checks = frozenset({"meta.date", "xml.field", "xml.malformed"})
        seen = frozenset({"meta.date", "xml.field"})
        found = [of_check("meta.date")]
        judgement = proofs(found, seen, PreviousAudits(unproved=checks))
        assert judgement == {"meta.date": False, "xml.field": True}


def lose_everything(item: FakeItem) -> None:
    item.originals = {}
    item.derivatives = {}


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
    decided = decide(expected, findings_of(expected, item), {}, PreviousAudits(), Policy())
    assert decided.status is status
    assert [event.action for event in decided.events] == actions
