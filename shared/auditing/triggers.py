"""Whether the triggers that the audit relies on exist and are enabled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from psycopg import Connection

#: The triggers of `sql/migrations` on artwork-indexer's queue, with the effect of their absence.
TRIGGERS: Final[Mapping[str, str]] = {
    "audit_feedback": "the audit does not learn what artwork-indexer has done",
    "audit_withdraw": "edits of MusicBrainz can fail because of the audit's events",
    "audit_withdraw_again": "an event that people requeue can collide with the audit's deletions",
    "audit_withdraw_failed": "a failed deletion of the audit is retried an hour later",
}

# A trigger that fires only on replicas does not fire here; O is the default, A always fires.
_ENABLED: Final = """
SELECT tgname::text
FROM pg_trigger
WHERE tgrelid = 'artwork_indexer.event_queue'::regclass
AND tgenabled IN ('O', 'A')
AND tgname = ANY (%(names)s)
"""


def missing_triggers(conn: Connection) -> dict[str, str]:
    """Return the names of triggers that do not fire, and what each absence means."""
    enabled = {name for (name,) in conn.execute(_ENABLED, {"names": list(TRIGGERS)})}
    return {name: meaning for name, meaning in TRIGGERS.items() if name not in enabled}
