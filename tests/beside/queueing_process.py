"""Queues one deletion of an orphan's image, as a process that a test may stop at any statement."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from uuid import uuid4

from artwork_backfill.shared.auditing.queueing import QueueRequest, queue_events
from artwork_backfill.shared.engine.session import connect
from tests.beside.rows import ORPHAN, deindex, deletion


def main(dsn: str, entity_id: int, claimed_at: str) -> None:
    request = QueueRequest(
        entity_id,
        uuid4(),
        [deletion(ORPHAN), deindex(ORPHAN, 0)],
        claimed_at=datetime.fromisoformat(claimed_at),
        is_live=False,
        result="repair_queue",
    )
    with connect(dsn, "stopped") as conn:
        sys.stdout.write(json.dumps(queue_events(conn, request).event_ids))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
