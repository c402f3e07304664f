"""Every way in which a run can end, as the table in docs/operations.md lists them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection
from psycopg.conninfo import make_conninfo

from artwork_backfill.shared.engine import session
from artwork_backfill.shared.engine.errors import RunFailed, StopRun, WrongUsage
from artwork_backfill.shared.engine.job import Written
from artwork_backfill.shared.engine.report import Report
from artwork_backfill.shared.engine.session import connect as open_connection
from sandbox.library import Library, LibrarySpec, load_library
from sandbox.services import Services
from tests import programs, tiny_command
from tests.timing import LIMIT_S, at_most
from tests.tiny import (
    Driver,
    FetchingJob,
    TinyJob,
    create_work,
    driver,
    execute,
    query,
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


def of_process(dsn: str, *arguments: str, before: Callable[[], object] | None = None) -> Ended:
    settings = {"PATH": os.environ["PATH"], "MUSICBRAINZ_DATABASE_URL": dsn}
    process = programs.run(arguments, settings, main=tiny_command.main, before=before)
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


class LacksOption(TinyJob):
    def claim(self, conn: Connection, size: int) -> Sequence[int]:
        raise WrongUsage("no position to continue from: pass one")


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


@contextmanager
def full_for_a_role(dsn: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Make a role that gets no connection; yield its URL, and what gives it one."""
    role = f"crowded_{uuid.uuid4().hex[:8]}"
    execute(dsn, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    execute(dsn, f"GRANT SELECT, UPDATE ON work TO {role}")

    def make_room() -> None:
        execute(dsn, f"ALTER ROLE {role} CONNECTION LIMIT -1")

    try:
        yield make_conninfo(dsn, user=role), make_room
    finally:
        execute(dsn, f"DROP OWNED BY {role}")
        execute(dsn, f"DROP ROLE {role}")


def impatient() -> None:
    """Let a run wait for a database that is full for a moment only."""
    defaults = session.open_patiently.__kwdefaults__
    assert defaults is not None
    defaults["patience"] = 0.5


def full_at_the_start(dsn: str) -> Ended:
    with full_for_a_role(dsn) as (url, _):
        return of_process(url, before=impatient)


def locked_out(dsn: str) -> Ended:
    """Let somebody else have a lock for as long as the run is patient."""

    class Needs(TinyJob):
        def write(self, conn: Connection, results: Sequence[int]) -> Written:
            conn.execute("SELECT FROM work FOR UPDATE NOWAIT")
            return super().write(conn, results)

    with psycopg.connect(dsn) as other:
        other.execute("SELECT FROM work WHERE id = 35 FOR UPDATE")
        report = Driver(lambda: open_connection(dsn, "tiny"), patience=0.3).run(Needs)
    assert "another session keeps a lock" in report.reason
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
    "the database has no connection left, at the start": full_at_the_start,
    "another session has a lock for minutes": locked_out,
    "the database refuses the connection, at the start": lambda dsn: of_process(
        "postgresql://nowhere.invalid/x"
    ),
    "an option cannot be used": lambda dsn: of_process(dsn, "--limit", "many"),
    "a setting cannot be used": lambda dsn: of_process("mysql://x"),
    "a table is missing": lambda dsn: after(dsn, "DROP TABLE work", lambda: of_process(dsn)),
    "an option is missing that this run needs": lambda dsn: ended(driver(dsn).run(LacksOption)),
    "a service refuses a key": lambda dsn: ended(driver(dsn).run(HasNoKey)),
    "an error of the program": lambda dsn: ended(driver(dsn).run(Breaks)),
    "SIGTERM": lambda dsn: signalled(dsn, signal.SIGTERM),
    "SIGINT": lambda dsn: signalled(dsn, signal.SIGINT),
}


def test_the_table_lists_every_form() -> None:
    assert documented().keys() == FORMS.keys()


@pytest.mark.parametrize("form", FORMS)
def test_a_run_ends_as_documented(work: str, form: str) -> None:
    assert FORMS[form](work) == documented()[form]


@pytest.mark.parametrize("form", ["every row is done or deferred", "a dry run looked at every row"])
def test_nothing_is_said_to_be_left_where_it_was_not_counted(work: str, form: str) -> None:
    report = driver(work).run(Defers if "deferred" in form else TinyJob, dry_run="dry" in form)
    assert (report.outcome, report.exit_code) == ("verified", 0)
    assert "nothing is left" not in report.reason
    assert states(work) == {"waiting": 35}


# -- a database that is full ----------------------------------------------------------------------


def start_tiny(dsn: str, folder: Path) -> ForkServerProcess:
    settings = {"PATH": os.environ["PATH"], "MUSICBRAINZ_DATABASE_URL": dsn}
    return programs.start([], settings, folder / "out", folder / "err", main=tiny_command.main)


def says(folder: Path, text: str) -> bool:
    out = folder / "out"
    return out.exists() and text in out.read_text()


def test_a_database_that_is_full_at_the_start_is_waited_for(work: str, tmp_path: Path) -> None:
    with full_for_a_role(work) as (url, make_room):
        process = start_tiny(url, tmp_path)
        wait_for(lambda: says(tmp_path, "the database is not ready, trying again"))
        make_room()
        process.join(LIMIT_S)
    assert process.exitcode == 0, (tmp_path / "err").read_text()
    assert states(work) == {"done": 35}


def test_a_run_that_waits_for_a_full_database_hears_sigterm(work: str, tmp_path: Path) -> None:
    with full_for_a_role(work) as (url, _):
        process = start_tiny(url, tmp_path)
        wait_for(lambda: says(tmp_path, "the database is not ready, trying again"))
        terminate(process)
    assert process.exitcode == 143
    assert "stopped by SIGTERM" in (tmp_path / "err").read_text()
    assert states(work) == {"waiting": 35}


# -- SIGTERM is heard, whatever a run waits for ----------------------------------------------------


def terminate(process: ForkServerProcess) -> None:
    """Send SIGTERM, and check that the process ends within two seconds."""
    assert process.pid is not None
    with at_most(2):
        os.kill(process.pid, signal.SIGTERM)
        process.join(LIMIT_S)


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
    terminate(process)
    assert process.exitcode == 143, err.read_text()
    assert "Traceback" not in err.read_text()


LIBRARY = LibrarySpec(seed=7, size=20)

#: What the library job may wait for: options, and faults of LML.
LIBRARY_WAITS: dict[str, tuple[list[str], list[dict[str, object]]]] = {
    "an answer": ([], [{"kind": "late", "rate": 1, "seconds": 3600}]),
    "an LML that refuses": ([], [{"kind": "refuse", "rate": 1}]),
    "the pause between batches": (["--pause-between", "1h"], []),
    "the write rate": (["--write-rate", "0.01"], []),
}


@pytest.fixture(scope="module")
def lml() -> Iterator[Services]:
    with Services(library=LIBRARY) as services:
        services.control("lml", lookup_s=0)
        yield services


@pytest.mark.parametrize("what", LIBRARY_WAITS)
def test_a_library_job_that_waits_hears_sigterm(
    wxyc_database: str, lml: Services, tmp_path: Path, what: str
) -> None:
    options, faults = LIBRARY_WAITS[what]
    with psycopg.connect(wxyc_database, autocommit=True) as conn:
        load_library(conn, Library(LIBRARY))
        ((had,),) = conn.execute(_FILLED).fetchall()
    lml.control("lml", faults=faults, reset_stats=True)
    environ = {
        "PATH": os.environ["PATH"],
        "WXYC_DATABASE_URL": wxyc_database,
        "LIBRARY_METADATA_URL": lml.lml_url,
        "LML_API_KEY": str(lml.lml_api_key),
    }
    arguments = ["library-artwork-url-backfill", "--batch-size=2", "--fixed-batch-size", *options]
    out, err = tmp_path / "out", tmp_path / "err"
    process = programs.start(arguments, environ, out, err)
    if faults:
        wait_for(lambda: lml.stats("lml").faults)
    else:
        wait_for(lambda: query(wxyc_database, _FILLED) > [(had,)])
    terminate(process)
    assert process.exitcode == 143, err.read_text()
    assert "Traceback" not in err.read_text()
    assert b'"outcome": "stopped"' in out.read_bytes()


_FILLED = "SELECT count(*) FROM wxyc_schema.library WHERE artwork_url IS NOT NULL"


def is_begun(out: Path) -> bool:
    return out.exists() and b"started" in out.read_bytes()


def connected(place: str) -> bool:
    """Return whether anything is connected to a port of this machine."""
    port = f":{int(place.rpartition(':')[2]):04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(port) and line.split()[3] == "01" for line in lines)
