"""A way to the database that stops a process at the n-th message that it sends there."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo


class StoppingProxy:
    """Passes on what a process and PostgreSQL say to each other.

    `stop_at` is the number of the message, from 1, at which `pid` is stopped: once it was sent,
    and before anything can come back.
    """

    def __init__(self, server: tuple[str, int], stop_at: int) -> None:
        self._server = server
        self._stop_at = stop_at
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.messages = 0
        self.pid: int | None = None
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                host, port = self._server
                if host.startswith("/"):
                    server = socket.socket(socket.AF_UNIX)
                    server.connect(f"{host}/.s.PGSQL.{port}")
                else:
                    server = socket.create_connection((host, port))
                Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
                Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if counts:
                    self.messages += 1
                    if self.messages == self._stop_at and self.pid is not None:
                        os.kill(self.pid, signal.SIGSTOP)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def stopping_at(dsn: str, message: int) -> Iterator[tuple[StoppingProxy, str]]:
    """Open a way to the database; yields it, and the connection string that leads there."""
    with psycopg.connect(dsn) as conn:
        host, port = conn.info.host, conn.info.port
    proxy = StoppingProxy((host, port), message)
    try:
        given = {**conninfo_to_dict(dsn), "host": "127.0.0.1", "port": str(proxy.port)}
        yield proxy, make_conninfo("", **given, sslmode="disable", gssencmode="disable")
    finally:
        proxy.close()
