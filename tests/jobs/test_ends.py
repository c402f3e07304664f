"""Every way in which a run can end, as the table in docs/operations.md lists them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from artwork_backfill.shared.engine.errors import RunFailed, StopRun
from artwork_backfill.shared.engine.job import Written
from artwork_backfill.shared.engine.report import Report
from artwork_backfill.shared.engine.session import connect as open_connection
from tests import programs, tiny_command
from tests.tiny import (
    Driver,
    FetchingJob,
    TinyJob,
    create_work,
    driver,
    execute,
    states,
    wait_for,
)

PAGE = Path(__file__).parents[2] / "docs/operations.md"

Ended = tuple[str, int]


def documented() -> dict[str, Ended]:
    text = PAGE.read_text()
    table = text[text.index("| what ended it |") :].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {what: (outcome, int(code)) for what, outcome, code in rows[2:]}


@pytest.fixture
def work(empty_database: str) -> str:
    create_work(empty_database, 35)
    return empty_database


def ended(report: Report) -> Ended:
    return str(report.outcome), report.exit_code


def of_process(dsn: str, *arguments: str, **environ: str) -> Ended:
    settings = {"PATH": os.environ["PATH"], "MUSICBRAINZ_DATABASE_URL": dsn, **environ}
    process = programs.run(arguments, settings, main=tiny_command.main)
    outcome = re.search(r'"outcome": "(\w+)"', process.stdout)
    assert "Traceback" not in process.stderr
    return outcome[1] if outcome else "", process.returncode


class Defers(TinyJob):
    def write(self, conn: Connection, results: Sequence[int]) -> Written:
        super().release(conn, results)
        return Written({"deferred": len(results)})


class LosesCount(TinyJob):
    def write(self, conn: Connection, results: Sequence[int]) -> Written:
        return Written.of(len(results))


class CannotReach(FetchingJob):
    def fetch(self, items: Sequence[int]) -> Sequence[int]:
        raise StopRun("the service is down")


class HasNoKey(FetchingJob):
    def fetch(self, items: Sequence[int]) -> Sequence[int]:
        raise RunFailed("the service refuses the key")


class Breaks(TinyJob):
    def write(self, conn: Connection, results: Sequence[int]) -> Written:
        raise TypeError("an error of ours")


def after(dsn: str, statement: str, end: Callable[[], Ended]) -> Ended:
    execute(dsn, statement)
    return end()


def signalled(dsn: str, signum: signal.Signals) -> Ended:
    driving = driver(dsn)

    class Signalled(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            driving.stop_flag.request(f"stopped by {signum.name}", signum)
            return items

    return ended(driving.run(Signalled))


def out_of_time(dsn: str) -> Ended:
    driving = driver(dsn)

    class Slow(FetchingJob):
        def fetch(self, items: Sequence[int]) -> Sequence[int]:
            driving.stop_flag.request("the time limit of 1 s was reached")
            return items

    return ended(driving.run(Slow))


def crowded_out(dsn: str) -> Ended:
    """Let the first batch begin, and then no connection through any more."""
    full = threading.Event()

    def connect() -> Connection:
        if full.is_set():
            raise psycopg.errors.TooManyConnections("sorry, too many clients already")
        return open_connection(dsn, "tiny")

    class Crowded(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            full.set()
            execute(
                dsn,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()",
            )
            return super().write(conn, results)

    return ended(Driver(connect, patience=0.3).run(Crowded))


def locked_out(dsn: str) -> Ended:
    """Let somebody else have a lock for as long as the run is patient."""

    class Needs(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            conn.execute("SELECT FROM work FOR UPDATE NOWAIT")
            return super().write(conn, results)

    with psycopg.connect(dsn) as other:
        other.execute("SELECT FROM work WHERE id = 35 FOR UPDATE")
        report = Driver(lambda: open_connection(dsn, "tiny"), patience=0.3).run(Needs)
    assert "another session has locked" in report.reason
    return ended(report)


FORMS: dict[str, Callable[[str], Ended]] = {
    "every row is done, and the counts agree": lambda dsn: ended(driver(dsn).run(TinyJob)),
    "every row is done or deferred": lambda dsn: ended(driver(dsn).run(Defers)),
    "a dry run looked at every row": lambda dsn: of_process(dsn, "--dry-run"),
    "the limit was reached": lambda dsn: of_process(dsn, "--limit", "5"),
    "the time limit was reached": out_of_time,
    "every row is done, and the counts do not agree": lambda dsn: ended(
        driver(dsn).run(LosesCount)
    ),
    "some rows failed": lambda dsn: after(
        dsn,
        "UPDATE work SET bad = TRUE WHERE id = 3",
        lambda: ended(driver(dsn).run(TinyJob)),
    ),
    "the limit was reached, and some rows failed": lambda dsn: after(
        dsn,
        "UPDATE work SET bad = TRUE WHERE id = 3",
        lambda: ended(driver(dsn).run(TinyJob, limit=10)),
    ),
    "a service is down": lambda dsn: ended(driver(dsn).run(CannotReach)),
    "the database has no connection left, in the middle of a run": crowded_out,
    "another session has a lock for minutes": locked_out,
    "the database refuses the connection, at the start": lambda dsn: of_process(
        "postgresql://nowhere.invalid/x"
    ),
    "an option cannot be used": lambda dsn: of_process(dsn, "--limit", "many"),
    "a setting cannot be used": lambda dsn: of_process("mysql://x"),
    "a table is missing": lambda dsn: after(dsn, "DROP TABLE work", lambda: of_process(dsn)),
    "a service refuses a key": lambda dsn: ended(driver(dsn).run(HasNoKey)),
    "an error of the program": lambda dsn: ended(driver(dsn).run(Breaks)),
    "SIGTERM": lambda dsn: signalled(dsn, signal.SIGTERM),
    "SIGINT": lambda dsn: signalled(dsn, signal.SIGINT),
}
#: How long a database that is full is waited for cannot be chosen from outside.
ELSEWHERE = {"the database has no connection left, at the start"}


def test_the_table_lists_every_form() -> None:
    assert documented().keys() == FORMS.keys() | ELSEWHERE


@pytest.mark.parametrize("form", FORMS)
def test_a_run_ends_as_documented(work: str, form: str) -> None:
    assert FORMS[form](work) == documented()[form]


@pytest.mark.parametrize("form", ["every row is done or deferred", "a dry run looked at every row"])
def test_nothing_is_said_to_be_left_where_it_was_not_counted(work: str, form: str) -> None:
    report = driver(work).run(Defers if "deferred" in form else TinyJob, dry_run="dry" in form)
    assert (report.outcome, report.exit_code) == ("verified", 0)
    assert "nothing is left" not in report.reason
    assert states(work) == {"waiting": 35}


# -- SIGTERM is heard, whatever a run waits for ----------------------------------------------------

#: Two are the promise; a machine that runs other tests as well takes its time to end a process.
MOST_SECONDS = 6.0


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections, and sends a byte now and then."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:

        def drip(conn: socket.socket) -> None:
            with contextlib.suppress(OSError):
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nX-Slow: ")
                while True:
                    conn.sendall(b"x")
                    time.sleep(0.2)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    conn, _ = server.accept()
                    connections.append(conn)
                    threading.Thread(target=drip, args=(conn,), daemon=True).start()

        connections: list[socket.socket] = []
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        for conn in connections:
            conn.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit-batch"],
        ["seed-from-ia-scan"],
        ["seed-from-img-129", "PIPE"],
        ["seed-from-img-129", "http://PLACE/bad_items.csv"],
    ],
    ids=" ".join,
)
def test_a_run_that_waits_for_what_does_not_come_hears_sigterm(
    migrated_database: str, silent: str, tmp_path: Path, arguments: list[str]
) -> None:
    execute(
        migrated_database,
        "INSERT INTO artwork_indexer.audit_entity (entity_type, gid)"
        " SELECT 'release', gen_random_uuid() FROM generate_series(1, 40)",
    )
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    given = [a.replace("PIPE", str(pipe)).replace("PLACE", silent) for a in arguments]
    environ = {
        "PATH": os.environ["PATH"],
        "MUSICBRAINZ_DATABASE_URL": migrated_database,
        "ARCHIVE_ORG_URL": f"http://{silent}",
        "ARCHIVE_ORG_RATE": "unlimited",
        "MUSICBRAINZ_URL": f"http://{silent}",
        "MUSICBRAINZ_RATE": "unlimited",
    }
    out, err = tmp_path / "out", tmp_path / "err"
    process = programs.start(given, environ, out, err)
    # A URL is opened before the run begins, a signal in between is heard as well.
    is_pipe = given[-1] == str(pipe)
    wait_for(lambda: is_begun(out) if is_pipe else connected(silent))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    began = time.monotonic()
    process.join(30)
    took = time.monotonic() - began
    assert took < MOST_SECONDS
    assert process.exitcode in (143, 2), err.read_text()
    assert "Traceback" not in err.read_text()


def is_begun(out: Path) -> bool:
    return out.exists() and b"started" in out.read_bytes()


def connected(place: str) -> bool:
    """Return whether anything is connected to a port of this machine."""
    port = f":{int(place.rpartition(':')[2]):04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(port) and line.split()[3] == "01" for line in lines)
