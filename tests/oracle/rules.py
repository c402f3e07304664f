"""The rules of an audit, from the full state of a world to what may be decided of one entity.

This is the second statement of the rules: it shares nothing with the product but their meaning, so
that a difference between the two is a mistake in one of them. Where the rules leave a choice, every
choice is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from sandbox.entities import EntityType, Presence
from sandbox.formats import ARCHIVES, THUMBNAIL_SIZES, xml_log_name, xml_name
from tests.oracle import differences
from tests.oracle.answers import Meaning, artwork_of, files, is_image, is_own, look, meaning
from tests.oracle.musicbrainz import Known
from tests.oracle.place import Key, Queued
from tests.oracle.state import (
    DEFERRED,
    REVIEW,
    ItemState,
    Outcome,
    Policy,
    Verdict,
    World,
)

Remedy = Literal[
    "review",  # a person decides, and nothing else is done
    "late",  # a person decides, once nothing else is to do
    "index",
    "delete",
    "deindex",
    "record",
    "defer",  # the audit comes again later
    "defer or review",
]

OTHER_ARCHIVE = "item.archive"
"""What the audit calls an item of the other archive."""

#: How a review words the commonest reasons.
_PHRASES = (
    "only copy",
    "another file",
    "the owner's item is dark",
    "a leftover of",
    "unknown image: preserve or purge?",
    "cannot be compared",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    check: str
    severity: str
    remedy: Remedy
    why: str = ""
    event: Queued | None = None

    def __str__(self) -> str:
        return f"{self.check} ({self.severity}, {self.remedy}{f': {self.why}' * bool(self.why)})"


def audit(world: World, policy: Policy, key: Key) -> Verdict:
    """Return what an audit of one entity may decide.

    What a deletion rests on is read again before it is queued: when it has changed, the audit comes
    again later, a person decides, or what is seen now counts.
    """
    verdict = _seen_first(world, policy, key)
    if any(event.action == "delete_image" for o in verdict.allowed for event in o.events):
        later = _seen_first(_after_all_answers(world), policy, key)
        if any(_changes(item) for item in world.items.values()):
            allowed = tuple(dict.fromkeys((DEFERRED, REVIEW, *later.allowed)))
            found = verdict.must | verdict.may | later.must | later.may
            because = (*verdict.because, "then", *later.because)
            return Verdict(allowed, because, may=found, repaired=later.repaired)
    return verdict


def _changes(item: ItemState) -> bool:
    first, last = item.answers[0], item.answers[-1]
    return first != last and meaning(first) is not Meaning.ABSENT


def _after_all_answers(world: World) -> World:
    items = {gid: ItemState(item.answers[-1:], item.contents) for gid, item in world.items.items()}
    return replace(world, items=items)


def _seen_first(world: World, policy: Policy, key: Key) -> Verdict:
    entity_type, gid = key
    for event in world.queue:
        under_way = event.state in ("queued", "running")
        if event.entity_type is entity_type and event.names(gid) and under_way:
            return Verdict((DEFERRED,), (f"{event.action} is {event.state}",))
    known = world.known.get(key) or Known(entity_type, gid, Presence.UNKNOWN)
    live = known.presence is Presence.LIVE
    without_art = live and not known.images
    found = look(world.items.get(gid), believes_at_once=without_art)
    match found.meaning:
        case Meaning.UNFINISHED | Meaning.UNAVAILABLE:
            return Verdict((DEFERRED,), (f"the answer is {found.meaning.name}",))
        case Meaning.DARK:
            findings = _dark(known)
        case Meaning.ABSENT:
            findings = _absent(known)
        case Meaning.LISTED if _is_of_other_archive(entity_type, found.document):
            findings = [Finding(OTHER_ARCHIVE, "critical", "review", "of the other archive")]
        case Meaning.LISTED if live:
            findings = _live(world, known, found.document)
        case _:
            findings = _orphan(world, known, found.document)
    verdict = _decide(world, policy, known, findings)
    if verdict.must & {"files.original.missing", "files.original.empty"}:
        # Thumbnails of what has no original may be missed as well.
        verdict = replace(verdict, may=frozenset({"files.thumbnail.missing"}))
    if len(findings) > len(verdict.must) and "files.original.extra" in verdict.must:
        # Two originals with one artwork id, whoever's it is.
        verdict = replace(verdict, may=verdict.may | {"files.original.duplicate"})
    if without_art and all(finding.remedy == "index" for finding in findings):
        # An item that lists no image is clean; whether "lists" is said of its index is left open.
        allowed = tuple(dict.fromkeys([*verdict.allowed, Outcome("clean")]))
        return replace(verdict, allowed=allowed, must=frozenset(), may=verdict.must)
    return verdict


# What is found.


def _dark(known: Known) -> list[Finding]:
    if known.presence is not Presence.LIVE or known.darkened:
        return []
    return [Finding("item.dark", "critical", "review")]


def _absent(known: Known) -> list[Finding]:
    return [Finding("item.missing", "critical", "review")] if known.images else []


def _is_of_other_archive(entity_type: EntityType, document: dict[str, Any]) -> bool:
    collections = _collections(document)
    ours = ARCHIVES[entity_type].collection
    others = {archive.collection for archive in ARCHIVES.values()} - {ours}
    return ours not in collections and bool(others & collections)


def _collections(document: dict[str, Any]) -> set[str]:
    value = document.get("metadata", {}).get("collection", [])
    return {value} if isinstance(value, str) else set(value)


def _live(world: World, known: Known, document: dict[str, Any]) -> list[Finding]:
    """Compare a listed item with its entity."""
    gid = known.gid
    listed = files(document)
    images = {name: file for name, file in listed.items() if is_image(name, file, gid)}
    foreign = _foreign(known, images)
    if not known.images:
        # Nothing is expected of it: neither metadata nor files.
        return [*_foreign_findings(world, known, foreign, images), *_index(world, known, listed)]
    return [
        *_item_metadata(known, document),
        *_originals(known, images),
        *_foreign_findings(world, known, foreign, images),
        *_thumbnails(known, listed),
        *_index(world, known, listed),
        *_xml(world, known, listed, document),
    ]


def _item_metadata(known: Known, document: dict[str, Any]) -> list[Finding]:
    metadata = document["metadata"]
    is_right = {
        "item.collection": ARCHIVES[known.entity_type].collection in _collections(document),
        "item.mediatype": metadata.get("mediatype") == "image",
        "item.noindex": metadata.get("noindex") == "true",
    }
    return [Finding(check, "major", "late") for check, right in is_right.items() if not right]


def _originals(known: Known, images: dict[str, dict[str, Any]]) -> list[Finding]:
    findings = []
    for image in known.images:
        name = f"mbid-{known.gid}-{image.id}.{image.suffix}"
        same_id = [other for other in images if _id_of(other, known.gid) == image.id]
        if name not in images:
            findings.append(Finding("files.original.missing", "critical", "review", name))
        elif int(images[name]["size"]) == 0:
            findings.append(Finding("files.original.empty", "critical", "review", name))
        if len(same_id) > 1:
            findings.append(Finding("files.original.duplicate", "major", "review", name))
    return findings


def _id_of(name: str, gid: str) -> int | None:
    artwork = artwork_of(name, gid)
    return artwork[0] if artwork else None


def _thumbnails(known: Known, listed: dict[str, dict[str, Any]]) -> list[Finding]:
    return [
        Finding("files.thumbnail.missing", "minor", "late", f"{image.id} {size}")
        for image in known.images
        if _has_bytes(listed.get(f"mbid-{known.gid}-{image.id}.{image.suffix}"))
        for size in THUMBNAIL_SIZES
        if f"mbid-{known.gid}-{image.id}_thumb{size}.jpg" not in listed
    ]


def _has_bytes(file: dict[str, Any] | None) -> bool:
    return file is not None and int(file["size"]) > 0


def _index(world: World, known: Known, listed: dict[str, dict[str, Any]]) -> list[Finding]:
    if "index.json" not in listed:
        # Without art that is how artwork-indexer leaves an item.
        return [Finding("files.index.missing", "critical", "index")] if known.images else []
    images = [name for name, file in listed.items() if is_image(name, file, known.gid)]
    ids = frozenset(number for name in images if (number := _id_of(name, known.gid)) is not None)
    content = world.items[known.gid].contents["index.json"]
    size = int(listed["index.json"]["size"])
    return _indexed(differences.of_index(known, content, size, ids))


def _xml(
    world: World, known: Known, listed: dict[str, dict[str, Any]], document: dict[str, Any]
) -> list[Finding]:
    name = xml_name(known.gid)
    if name not in listed:
        findings = [Finding("files.xml.missing", "major", "index")]
    else:
        findings = _indexed(differences.of_xml(known, world.items[known.gid].contents[name]))
    return [*findings, *_indexed(differences.of_metadata(known, document["metadata"]))]


def _indexed(found: differences.Differences) -> list[Finding]:
    return [
        Finding(check, severity, "record" if check == "xml.other" else "index")
        for check, severity in found.items()
    ]


def _orphan(world: World, known: Known, document: dict[str, Any]) -> list[Finding]:
    """Look at what is left of an entity that is gone."""
    gid = known.gid
    listed = files(document)
    images = {name: file for name, file in listed.items() if is_image(name, file, gid)}
    findings = _foreign_findings(world, known, list(images), images)
    if "index.json" in listed:
        event = Queued("deindex", gid)
        findings.append(Finding("orphan.index", "major", "deindex", event=event))
    accounted_for = {xml_name(gid), xml_log_name(gid)}
    if not findings:
        findings = [
            Finding("orphan.leftover", "minor", "late", name)
            for name, file in listed.items()
            if name not in accounted_for and not is_own(name, file, gid)
        ]
    return findings


# Images that are not the entity's own.


def _foreign(known: Known, images: dict[str, dict[str, Any]]) -> list[str]:
    own = {image.id for image in known.images}
    return [name for name in images if _id_of(name, known.gid) not in own]


def _foreign_findings(
    world: World, known: Known, names: Iterable[str], images: dict[str, dict[str, Any]]
) -> list[Finding]:
    live = known.presence is Presence.LIVE
    check = "files.original.extra" if live else "orphan.image"
    findings = []
    for name in names:
        remedy, why = _foreign_remedy(world, known, name, images[name])
        event = None
        if remedy == "delete":
            artwork = artwork_of(name, known.gid)
            assert artwork is not None
            event = Queued("delete_image", known.gid, *artwork)
        findings.append(Finding(check, "major", remedy, f"{name}: {why}", event))
    return findings


def _foreign_remedy(
    world: World, known: Known, name: str, file: dict[str, Any]
) -> tuple[Remedy, str]:
    """What is done about an image that is not the entity's own, and why."""
    artwork = artwork_of(name, known.gid)
    owner = artwork and _owner(world, known, artwork[0])
    if not artwork or not owner:
        return "review", "unknown image: preserve or purge?"
    for event in world.queue:
        under_way = event.state in ("queued", "running")
        moves = event.action in ("copy_image", "delete_image", "deindex")
        same_type = event.entity_type is owner.entity_type
        if same_type and under_way and moves and event.names(owner.gid):
            return "defer", f"{event.action} of its owner is {event.state}"
    found = look(world.items.get(owner.gid))
    match found.meaning:
        case Meaning.UNFINISHED | Meaning.UNAVAILABLE:
            return "defer", f"its owner's answer is {found.meaning.name}"
        case Meaning.DARK:
            return "review", "the owner's item is dark"
        case Meaning.ABSENT:
            return "review", "only copy: its owner has no item"
        case _ if _is_of_other_archive(owner.entity_type, found.document):
            return "review", "its owner's item is of the other archive"
    listed = files(found.document)
    copies = [
        (other, entry)
        for other, entry in listed.items()
        if _id_of(other, owner.gid) == artwork[0] and entry["source"] == "original"
    ]
    if not copies:
        return "review", "only copy: its owner lacks it"
    return _compared(known, artwork[1], file, dict(copies), owner.gid)


def _owner(world: World, known: Known, artwork_id: int) -> Known | None:
    for (entity_type, gid), other in world.known.items():
        has_it = any(image.id == artwork_id for image in other.images)
        if has_it and entity_type is known.entity_type and gid != known.gid:
            return other
    return None


def _compared(
    known: Known, suffix: str, file: dict[str, Any], copies: dict[str, dict[str, Any]], owner: str
) -> tuple[Remedy, str]:
    """Whether one of the owner's copies is the same picture."""
    unlike = "another file"
    for name, copy in copies.items():
        artwork = artwork_of(name, owner)
        assert artwork is not None
        if artwork[1] != suffix:
            continue
        if int(copy["size"]) == 0 or copy.get("private") == "true":
            unlike = "its owner's copy has no bytes or is private"
            continue
        if int(copy["size"]) != int(file["size"]):
            continue
        key = next((key for key in ("md5", "sha1") if key in copy and key in file), None)
        if key is None:
            return "defer or review", "cannot be compared"
        if copy[key] == file[key]:
            live = known.presence is Presence.LIVE
            return ("review", "a leftover of its owner") if live else ("delete", "proved")
    return "review", unlike


# What is decided.


def _decide(world: World, policy: Policy, known: Known, findings: list[Finding]) -> Verdict:
    """Decide upon the findings by the policy and by what was tried before."""
    key = known.entity_type, known.gid
    live = known.presence is Presence.LIVE
    because = tuple(map(str, findings))
    checks = frozenset(finding.check for finding in findings)
    in_force = [
        _overridden(finding, policy)
        for finding in findings
        if policy.acts_on(finding.check, finding.severity)
    ]
    verdict = Verdict((), because, checks)
    if policy.no_deletions and any(finding.remedy == "delete" for finding in in_force):
        return replace(verdict, allowed=_without_deletions(in_force))
    images_stay = any(finding.check == "orphan.image" for finding in findings) and not any(
        finding.check == "orphan.image" and finding.remedy != "record" for finding in in_force
    )
    if images_stay:
        # Never a deindex while any image stays.
        idle = tuple(Outcome(status) for status in ("legacy", "clean", "manual_review"))
        in_force = [finding for finding in in_force if finding.remedy != "deindex"]
        if not any(finding.remedy == "review" for finding in in_force):
            return replace(verdict, allowed=idle, keeps_review=key in world.open_reviews)
    acted = [finding for finding in in_force if finding.remedy != "record"]
    if not acted:
        return _nothing_to_do(world, verdict, key, live, findings)
    events = _events(known, acted)
    again = [*_failed_before(world, known, events), *_did_not_hold(world, key, acted)]
    because += tuple(again)
    reviewed = bool(again) or any(finding.remedy == "review" for finding in acted)
    may_defer = any(finding.remedy == "defer or review" for finding in acted)
    if any(finding.remedy == "defer" for finding in acted):
        allowed: tuple[Outcome, ...] = (DEFERRED, REVIEW) if reviewed else (DEFERRED,)
    elif may_defer:
        allowed = (DEFERRED, REVIEW)
    elif reviewed:
        allowed = (REVIEW,)
    elif events:
        allowed = (Outcome("repair_queue", frozenset(events)),)
    else:
        allowed = (REVIEW,)
    repaired = frozenset(f.check for f in acted if f.remedy in ("index", "delete", "deindex"))
    reviewing = [finding for finding in acted if finding.remedy == "review"]
    if not reviewing and not again:
        reviewing = [finding for finding in acted if finding.remedy == "late"]
    says = tuple(phrase for finding in reviewing for phrase in _phrases(finding))
    if not reviewing:
        says = tuple(again)
    return replace(verdict, allowed=allowed, because=because, repaired=repaired, says=says)


def _phrases(finding: Finding) -> list[str]:
    return [finding.check, *(phrase for phrase in _PHRASES if phrase in finding.why)]


def _overridden(finding: Finding, policy: Policy) -> Finding:
    remedy: Remedy | None = policy.remedy(finding.check)
    # No option makes an item of the other archive ours, or an index of what is not there.
    if remedy is None or finding.check == OTHER_ARCHIVE:
        return finding
    if remedy == "index" and finding.check in ("item.missing", "item.dark"):
        return finding
    return replace(finding, remedy=remedy, event=None)


def _without_deletions(in_force: list[Finding]) -> tuple[Outcome, ...]:
    """Where a deletion is due and none is wanted: nothing is done, and the index stays as well."""
    if any(finding.remedy in ("defer", "defer or review") for finding in in_force):
        return DEFERRED, REVIEW
    if any(finding.remedy == "review" for finding in in_force):
        return (REVIEW,)
    return DEFERRED, REVIEW, Outcome("clean"), Outcome("legacy")


def _nothing_to_do(
    world: World, verdict: Verdict, key: Key, live: bool, findings: list[Finding]
) -> Verdict:
    keeps_review = bool(findings) and key in world.open_reviews
    statuses = ["clean" if live else "legacy"]
    if findings and not live:
        # It counts as clean under this policy only.
        statuses.append("clean")
    if keeps_review:
        statuses.append("manual_review")
    allowed = tuple(Outcome(status) for status in statuses)
    return replace(verdict, allowed=allowed, keeps_review=keeps_review)


def _events(known: Known, acted: list[Finding]) -> set[Queued]:
    deletions = frozenset(f.event for f in acted if f.remedy == "delete" and f.event)
    events = set(deletions)
    if any(finding.remedy == "index" for finding in acted):
        events.add(Queued("index", known.gid, after=deletions))
    if any(finding.remedy == "deindex" for finding in acted):
        events.add(Queued("deindex", known.gid, after=deletions))
    return events


def _failed_before(world: World, known: Known, events: set[Queued]) -> list[str]:
    """The events of these that have failed, and none like them completed since."""
    failed = []
    for event in events:
        message: dict[str, Any] = {"gid": event.gid}
        if event.artwork_id is not None:
            message |= {"artwork_id": event.artwork_id, "suffix": event.suffix}
        same = [
            before
            for before in world.queue
            if before.entity_type is known.entity_type
            and before.action == event.action
            and dict(before.message) == message
            and before.state in ("failed", "completed")
        ]
        if same and max(same, key=lambda before: before.place).state == "failed":
            failed.append(f"has failed: {event.action}")
    return failed


def _did_not_hold(world: World, key: Key, acted: list[Finding]) -> list[str]:
    """The checks that were repaired and are found again, without having been right meanwhile."""
    audits = world.audits.get(key, [])
    again = []
    for check in sorted({finding.check for finding in acted}):
        since = 0
        for place, earlier in enumerate(audits):
            if check not in earlier.found:
                since = place + 1
        if any(a.events_completed and check in a.repaired for a in audits[since:]):
            again.append(f"repair did not hold: {check}")
    return again
