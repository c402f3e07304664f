"""Runs audits over mixtures and compares what they leave with what the rules allow.

A round is one run of audit-batch under one policy. Between two rounds artwork-indexer, people and
time do something to what the last one has left: events complete and repair the item or not, fail,
vanish or stay; entities are to be audited once more, or are to be left as they are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sandbox.entities import EntityType, Presence
from sandbox.formats import index_document, index_json, xml_name
from sandbox.services import Services
from tests.oracle import mixtures, musicbrainz
from tests.oracle.answers import meaning
from tests.oracle.mixtures import Mixture
from tests.oracle.musicbrainz import Known
from tests.oracle.place import Found, Key, Place, Queued
from tests.oracle.rules import audit
from tests.oracle.state import (
    EarlierAudit,
    ItemState,
    Outcome,
    Policy,
    QueuedBefore,
    Verdict,
)

_QUEUE = """
INSERT INTO artwork_indexer.event_queue
    (state, entity_type, action, message, created, last_updated)
SELECT state, entity_type, action, message, age, age
FROM unnest(%s::artwork_indexer.event_state[], %s::artwork_indexer.indexable_entity_type[],
            %s::artwork_indexer.event_queue_action[], %s::jsonb[], %s::interval[])
     AS event (state, entity_type, action, message, interval_ago),
     LATERAL (SELECT now() - interval_ago AS age) AS moment
"""

_ITS_EVENTS = """
SELECT id FROM artwork_indexer.event_queue
WHERE entity_type = %s AND message->>'gid' = %s AND state IN ('queued', 'running')
"""

# What `review wont-fix` does.
_LEAVE = """
WITH reviewed AS (
    UPDATE artwork_indexer.needs_manual_review review
    SET status = 'wont_fix', resolved_at = now(), resolution_notes = 'it is right as it is'
    FROM artwork_indexer.audit_entity entity
    WHERE entity.id = review.audit_entity_id AND review.status = 'open'
    AND entity.entity_type = %s AND entity.gid = %s
    RETURNING entity.id
)
UPDATE artwork_indexer.audit_entity SET status = 'clean' WHERE id IN (SELECT id FROM reviewed)
"""

_AGAIN = """
UPDATE artwork_indexer.audit_entity SET status = 'unchecked', not_before = NULL, withdrawals = 0
WHERE entity_type = %s AND gid = %s
"""


_NOT_DUE = "not to be audited"


@dataclass(frozen=True, slots=True)
class Setting:
    """A policy for each round."""

    name: str
    policies: tuple[Policy, ...]


_DEFAULT = Policy()
_MAJOR = Policy(min_severity="major")
_SOME_IGNORED = Policy(ignore=("index.image.*", "files.xml.missing", "meta.*", "item.missing"))
_REVIEWS_IGNORED = Policy(ignore=("files.original.*", "item.*", "orphan.*", "index.*"))

SETTINGS: Sequence[Setting] = (
    Setting("as it comes", (_DEFAULT, _DEFAULT, _DEFAULT)),
    Setting("major first", (_MAJOR, _DEFAULT, _DEFAULT)),
    Setting("critical only", (Policy(min_severity="critical"), _MAJOR)),
    Setting("some ignored at first", (_SOME_IGNORED, _DEFAULT)),
    Setting("reviews ignored in the end", (_DEFAULT, _REVIEWS_IGNORED)),
    Setting("images of orphans ignored", (Policy(ignore=("orphan.image",)), _DEFAULT)),
    Setting(
        "other remedies",
        (
            Policy(
                remedies={
                    "item.*": "index",
                    "meta.*": "record",
                    "xml.other": "index",
                    "index.image.order": "review",
                    "orphan.index": "review",
                }
            ),
        ),
    ),
    Setting(
        "images recorded",
        (Policy(remedies={"files.original.extra": "record", "orphan.leftover": "record"}),),
    ),
    Setting("no deletions", (Policy(no_deletions=True), Policy(no_deletions=True))),
)


@dataclass(slots=True)
class Comparison:
    """What came of some mixtures.

    `audits` counts the decisions compared, `kinds` those by outcome.
    """

    audits: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(self.kinds.items()))
        shown = self.differences[:20]
        more = [f"... and {len(self.differences) - 20} more"] if self.differences[20:] else []
        summary = f"{self.audits} decisions, {len(self.differences)} differences ({kinds})"
        return "\n\n".join([*shown, *more, summary])


def compare(
    place: Place, services: Services, setting: Setting, seed: int, numbers: Iterable[int]
) -> Comparison:
    """Audit some mixtures in every round of a setting."""
    node = services.archive_url.removeprefix("http://")
    made = [mixtures.make(seed, number, node) for number in numbers]
    _set_up(place, services, made)
    comparison = Comparison()
    run = _Run(place, services, setting, seed, comparison)
    for turn, policy in enumerate(setting.policies):
        if turn:
            run.let_time_pass(made, turn)
        found, _ = place.audit(*policy.options)
        for mixture in made:
            run.compare(mixture, policy, turn, found)
    return comparison


def compare_together(
    places: Sequence[tuple[Setting, Place, range]], services: Services, seed: int
) -> list[Comparison]:
    """Do what `compare` does for several settings at once.

    An audit waits more than it works: it takes its time before it believes in an absence.
    """
    with ThreadPoolExecutor(len(places)) as pool:
        begun = [
            pool.submit(compare, place, services, setting, seed, numbers)
            for setting, place, numbers in places
        ]
        return [comparison.result() for comparison in begun]


def _set_up(place: Place, services: Services, made: Sequence[Mixture]) -> None:
    known = [entity for mixture in made for entity in mixture.world.known.values()]
    musicbrainz.load(place.conn, known)
    services.plant("musicbrainz", musicbrainz.answers(known))
    for mixture in made:
        queue(place, mixture.world.queue)
    _plant(services, {gid: item for mixture in made for gid, item in mixture.world.items.items()})
    place.seed(key for mixture in made for key in mixture.keys)


def _plant(services: Services, items: dict[str, ItemState]) -> None:
    services.plant("archive", {gid: mixtures.planted(state) for gid, state in items.items()})


def queue(place: Place, events: Sequence[QueuedBefore]) -> None:
    """Write events of the past, in their order."""
    if events:
        rows = [
            (
                e.state,
                str(e.entity_type),
                e.action,
                json.dumps(dict(e.message)),
                f"{99 - e.place} hours",
            )
            for e in events
        ]
        place.conn.execute(_QUEUE, tuple(list(column) for column in zip(*rows, strict=True)))


class _Run:
    """One database's rounds: what is expected, and what has become of it."""

    def __init__(
        self,
        place: Place,
        services: Services,
        setting: Setting,
        seed: int,
        comparison: Comparison,
    ) -> None:
        self._place = place
        self._services = services
        self._setting = setting
        self._seed = seed
        self._comparison = comparison
        # What the last round left, and what it should have audited: all that wait at first.
        self._last: dict[Key, tuple[Found, Verdict]] = {}
        self._waiting: set[Key] = set()
        # What a person wants left as it is: no policy takes it up again.
        self._left_alone: set[Key] = set()
        # Mixtures in which something is wrong already: what follows says nothing.
        self._spoilt: set[int] = set()

    def compare(self, mixture: Mixture, policy: Policy, turn: int, found: dict[Key, Found]) -> None:
        """Compare every entity of a mixture after a round."""
        if mixture.number in self._spoilt:
            return
        for key in mixture.keys:
            got = found[key]
            verdict = self._expected(mixture, policy, key)
            complaints = _complaints(verdict, got)
            self._comparison.audits += 1
            kind = f"{got.status}{' with events' * bool(got.events)}"
            self._comparison.kinds[kind] = self._comparison.kinds.get(kind, 0) + 1
            if complaints:
                told = self._describe(mixture, policy, turn, key, verdict, got, complaints)
                self._comparison.differences.append(told)
                self._spoilt.add(mixture.number)
            self._remember(mixture, key, verdict, got)

    def _expected(self, mixture: Mixture, policy: Policy, key: Key) -> Verdict:
        if key in self._left_alone:
            return Verdict((Outcome("clean"),), (_NOT_DUE, "a person wants it left as it is"))
        verdict = audit(mixture.world, policy, key)
        if key not in self._last or key in self._waiting:
            return verdict
        before, earlier = self._last[key]
        # Not to be audited, unless this policy acts on what the last one only recorded.
        as_it_was = Outcome(before.status)
        recorded = before.status in ("clean", "legacy") and bool(earlier.must | before.checks)
        if recorded and as_it_was not in verdict.allowed:
            return verdict
        return Verdict((as_it_was,), (_NOT_DUE, *verdict.because))

    def _remember(self, mixture: Mixture, key: Key, verdict: Verdict, got: Found) -> None:
        if not got.audited:
            return
        world = mixture.world
        self._last[key] = got, verdict
        if got.reason is None:
            world.open_reviews.discard(key)
        else:
            world.open_reviews.add(key)
        if got.status != "unchecked":
            repaired = verdict.repaired if got.events else frozenset()
            audits = world.audits.setdefault(key, [])
            audits.append(EarlierAudit(verdict.must | frozenset(got.checks), repaired))

    # Between two rounds.

    def let_time_pass(self, made: Sequence[Mixture], turn: int) -> None:
        """Do to every mixture what may happen between two audits."""
        self._waiting.clear()
        changed: dict[str, ItemState] = {}
        for mixture in made:
            if mixture.number in self._spoilt:
                continue
            luck = random.Random(f"{self._seed} {mixture.number} {turn}")
            items = mixture.world.items
            moving = {gid: state for gid, state in items.items() if len(state.answers) > 1}
            for key in mixture.keys:
                got, _ = self._last[key]
                if got.events:
                    changed |= self._let_events_end(mixture, key, got, luck)
                if got.status == "manual_review" and luck.random() < 0.15:
                    self._place.conn.execute(_LEAVE, (str(key[0]), key[1]))
                    self._left_alone.add(key)
                if key in self._left_alone:
                    continue
                again = got.status == "unchecked" or got.events or luck.random() < 0.3
                if again or moving:
                    self._place.conn.execute(_AGAIN, (str(key[0]), key[1]))
                    self._waiting.add(key)
            for gid, state in moving.items():
                # What answered in turn has done so.
                state.answers = state.answers[-1:]
                changed.setdefault(gid, state)
        _plant(self._services, changed)

    def _let_events_end(
        self, mixture: Mixture, key: Key, got: Found, luck: random.Random
    ) -> dict[str, ItemState]:
        """Decide what becomes of the events that an audit queued; return the items that change."""
        fate = luck.choices(
            ("repaired", "in vain", "gone", "failed", "failed, then completed", "waiting"),
            (45, 12, 18, 8, 5, 12),
        )[0]
        entity_type, gid = key
        conn, world = self._place.conn, mixture.world
        ids = [row[0] for row in conn.execute(_ITS_EVENTS, (str(entity_type), gid))]
        if fate == "gone":
            conn.execute("DELETE FROM artwork_indexer.event_queue WHERE id = ANY (%s)", (ids,))
            # An earlier run has noticed it, and the wait that follows is over.
            conn.execute(
                "DELETE FROM artwork_indexer.audit_event WHERE event_id = ANY (%s)", (ids,)
            )
            return {}
        state: Any = {"waiting": "queued", "failed": "failed"}.get(fate, "completed")
        if fate == "failed, then completed":
            state = "failed"
        if state != "queued":
            conn.execute(
                "UPDATE artwork_indexer.event_queue SET state = %s WHERE id = ANY (%s)",
                (state, ids),
            )
        self._note(mixture, entity_type, got.events, state)
        if state == "failed":
            # A person is told of it.
            world.open_reviews.add(key)
        if fate == "failed, then completed":
            later = self._note(mixture, entity_type, got.events, "completed")
            conn.execute(
                "UPDATE artwork_indexer.event_queue SET last_updated = now() - interval '99 hours',"
                " created = now() - interval '99 hours' WHERE id = ANY (%s)",
                (ids,),
            )
            queue(self._place, later)
        if state == "completed":
            audits = world.audits[key]
            audits[-1] = EarlierAudit(audits[-1].found, audits[-1].repaired, events_completed=True)
        if fate == "repaired":
            return self._repair(mixture, key, got.events)
        return {}

    def _note(
        self, mixture: Mixture, entity_type: EntityType, events: set[Queued], state: Any
    ) -> list[QueuedBefore]:
        world = mixture.world
        noted = []
        for event in sorted(events, key=str):
            message: dict[str, Any] = {"gid": event.gid}
            if event.artwork_id is not None:
                message |= {"artwork_id": event.artwork_id, "suffix": event.suffix}
            place = len(world.queue)
            noted.append(QueuedBefore(place, state, entity_type, event.action, message))
            world.queue.append(noted[-1])
        return noted

    def _repair(self, mixture: Mixture, key: Key, events: set[Queued]) -> dict[str, ItemState]:
        """Do to an item what artwork-indexer does."""
        entity_type, gid = key
        item = mixture.things[gid]
        known = mixture.world.known.get(key) or Known(entity_type, gid, Presence.UNKNOWN)
        for event in events:
            if event.action == "index":
                document = index_document(entity_type, gid, known.images)
                item.upload("index.json", index_json(document))
                item.upload(xml_name(gid), known.xml)
            elif event.action == "delete_image":
                item.delete(f"mbid-{gid}-{event.artwork_id}.{event.suffix}")
            else:
                item.delete("index.json")
        node = self._services.archive_url.removeprefix("http://")
        state = ItemState([item.document(node)], dict(item.contents))
        mixture.world.items[gid] = state
        return {gid: state}

    # For people.

    def _describe(
        self,
        mixture: Mixture,
        policy: Policy,
        turn: int,
        key: Key,
        verdict: Verdict,
        got: Found,
        complaints: list[str],
    ) -> str:
        entity_type, gid = key
        world = mixture.world
        name = f"mixture {mixture.number} of seed {self._seed}, {self._setting.name!r}"
        lines = [
            f"=== {name}, round {turn + 1}: {entity_type} {gid}",
            f"policy    {' '.join(policy.options) or 'default'}",
            *(f"wrong     {complaint}" for complaint in complaints),
            f"expected  {' | '.join(map(str, verdict.allowed))}",
            *(f"because   {reason}" for reason in verdict.because),
            f"got       {Outcome(got.status, frozenset(got.events))}",
            f"          checks: {', '.join(sorted(got.checks)) or 'none'}",
            f"          review: {got.reason or 'none'}",
        ]
        for (kind, other), known in world.known.items():
            images = ", ".join(f"{image.id}.{image.suffix}" for image in known.images)
            into = f" into {known.heir}" if known.heir else ""
            lines.append(f"knows     {kind} {other} {known.presence.name}{into} [{images}]")
        for event in world.queue:
            lines.append(f"queue     {event.state} {event.action} {dict(event.message)}")
        for earlier in world.audits.get(key, [])[:-1]:
            lines.append(f"earlier   {earlier}")
        for other, state in world.items.items():
            lines += [f"answer    {other} {_shortly(answer)}" for answer in state.answers]
        return "\n".join(lines)


def _complaints(verdict: Verdict, got: Found) -> list[str]:
    complaints = []
    due = _NOT_DUE not in verdict.because
    if got.audited is not due:
        complaints.append("was not audited" if due else "was audited although that was not due")
    if Outcome(got.status, frozenset(got.events)) not in verdict.allowed:
        complaints.append("the decision")
    elif got.status != "unchecked":
        if verdict.must - got.checks:
            complaints.append(f"not found: {', '.join(sorted(verdict.must - got.checks))}")
        if got.checks - verdict.must - verdict.may:
            more = sorted(got.checks - verdict.must - verdict.may)
            complaints.append(f"found without cause: {', '.join(more)}")
    if got.status == "manual_review":
        unsaid = [phrase for phrase in verdict.says if phrase not in (got.reason or "")]
        if unsaid or got.reason is None:
            complaints.append(f"the review does not say: {', '.join(unsaid)}")
    if got.status in ("clean", "legacy") and got.reason is not None and not verdict.keeps_review:
        complaints.append("the review is still open")
    if verdict.keeps_review and got.reason is None:
        complaints.append("the review was closed, although its checks are only ignored")
    return complaints


def _shortly(answer: bytes) -> str:
    kind = meaning(answer).name
    try:
        document = json.loads(answer)
    except ValueError:
        return f"{kind} {answer[:60]!r}..."
    if not isinstance(document, dict) or "files" not in document:
        return f"{kind} {document}"
    shown = {
        key: value
        for key, value in document.items()
        if key not in ("files", "created", "d1", "d2", "dir", "server", "uniq", "workable_servers")
    }
    files = "".join(
        f"\n            {file['name']} {file['source']}, {file['format']}, {file['size']} bytes,"
        f" md5 {file.get('md5', 'none')[:6]}, sha1 {file.get('sha1', 'none')[:6]}"
        f"{', private' * ('private' in file)}"
        for file in document["files"]
        if not file["name"].startswith("__") and file["source"] != "metadata"
    )
    return f"{kind} {shown}{files}"
