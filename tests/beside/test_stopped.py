"""A process of ours that is stopped at any of its statements holds up no edit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.beside.rows import (
    BYSTANDER,
    IMAGE,
    ORPHAN,
    OWNER,
    Place,
    deletion,
    gid,
    wait_until,
)
from tests.beside.stopping_proxy import stopping_at
from tests.timing import LIMIT_S, at_most

ROOT = Path(__file__).parents[2]

ADVISORY_LOCKS = "SELECT FROM pg_locks WHERE locktype = 'advisory'"


def is_stopped(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def edits_are_free(place: Place) -> None:
    """Make the edits that meet what is being queued, each in a transaction of its own."""
    event = deletion(ORPHAN)
    for edit in (
        lambda: place.foreign(event.action, dict(event.message)),
        lambda: place.foreign("index", {"gid": gid(ORPHAN)}),
        lambda: place.merge(OWNER, BYSTANDER),
        lambda: place.edit(f"DELETE FROM cover_art_archive.cover_art WHERE id = {IMAGE}"),
        lambda: place.edit(f"DELETE FROM musicbrainz.release WHERE id = {OWNER}"),
    ):
        with at_most(0.5), place.editor.transaction(force_rollback=True):
            edit()


def queue_and_stop(place: Place, message: int) -> bool:
    """Stop a process at its n-th message; return whether it sends that many."""
    id_, claimed_at = place.claim(ORPHAN)
    with stopping_at(place.dsn, message) as (proxy, dsn):
        command = [sys.executable, "-m", "tests.beside.queueing_process", dsn, str(id_)]
        process = subprocess.Popen(
            [*command, claimed_at.isoformat()], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        proxy.pid = process.pid
        try:
            wait_until(lambda: process.poll() is not None or is_stopped(process.pid))
            was_stopped = process.poll() is None
            if was_stopped:
                # What it has sent by then is carried out without it.
                wait_until(lambda: not place.rows_of(ADVISORY_LOCKS))
                edits_are_free(place)
                os.kill(process.pid, signal.SIGCONT)
            out, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 0
    assert [event.id for event in place.events()] == json.loads(out)
    assert len(json.loads(out)) == 2
    return was_stopped


def test_a_process_that_is_stopped_at_any_of_its_messages_holds_up_nobody(place: Place) -> None:
    stopped = 0
    while queue_and_stop(place, stopped + 1):
        stopped += 1
        place.edit("TRUNCATE artwork_indexer.event_queue, artwork_indexer.audit_event CASCADE")
    # The connection, its settings, what queues, and the end.
    assert stopped >= 3
