"""The auditor in a daemon: bounded by its time limit, and safe to close from a signal handler."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from artwork_backfill.jobs.audit_batch.auditor import Auditor
from artwork_backfill.shared.settings import Settings
from tests.beside.rows import LIVE, Place, gid, wait_until
from tests.timing import LIMIT_S, at_most

ROOT = Path(__file__).parents[2]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(listener.accept()[0])
                except OSError:
                    return

        Thread(target=accept, daemon=True).start()
        yield listener
        for connection in kept:
            connection.close()


@pytest.fixture
def environ(place: Place, silent: socket.socket) -> dict[str, str]:
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    place.edit(
        "INSERT INTO artwork_indexer.audit_entity (entity_type, gid)"
        f" VALUES ('release', '{gid(LIVE)}')"
    )
    return {
        "MUSICBRAINZ_DATABASE_URL": place.dsn,
        "ARCHIVE_ORG_URL": url,
        "MUSICBRAINZ_URL": url,
        "ARCHIVE_ORG_RATE": "unlimited",
        "MUSICBRAINZ_RATE": "unlimited",
        "BACKFILL_CONTACT": "test@localhost",
    }


def test_a_silent_service_holds_up_no_call_beyond_its_time_limit(
    place: Place, environ: dict[str, str]
) -> None:
    with Auditor(Settings(environ), time_limit=0.5) as auditor:
        with at_most(2):
            summary = auditor.audit()
        assert summary.waits_for == "the time limit of 0.5 s was reached"
        assert place.entity(LIVE).status == "unchecked"
        with at_most(1):
            summary = auditor.audit()
        assert summary.waits_for == "a service has not answered a request of an earlier call yet"
        with at_most(1):
            auditor.close()


def test_closing_ends_a_call_in_another_thread(place: Place, environ: dict[str, str]) -> None:
    auditor = Auditor(Settings(environ))
    call = Thread(target=auditor.audit)
    call.start()
    wait_until(lambda: place.entity(LIVE).status == "audit_in_progress")
    with at_most(0.2):
        auditor.close()
    with at_most(3):
        call.join(LIMIT_S)
    assert not call.is_alive()
    assert place.entity(LIVE).status == "unchecked"


DAEMON = """
import signal, sys
from artwork_backfill.jobs.audit_batch.auditor import Auditor
auditor = Auditor.from_environment()
signal.signal(signal.SIGTERM, lambda *_: auditor.close())
summary = auditor.audit()
sys.stdout.write(summary.waits_for)
"""


def test_a_signal_handler_may_close_it(place: Place, environ: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON], env=environ, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        wait_until(lambda: place.entity(LIVE).status == "audit_in_progress")
        process.send_signal(signal.SIGTERM)
        with at_most(3):
            out, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "the auditor was closed")
    assert place.entity(LIVE).status == "unchecked"
