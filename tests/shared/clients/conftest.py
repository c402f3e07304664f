"""A clock that only waiting moves, and a local server that misbehaves as told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from artwork_backfill.shared.clients.http import Budget, HttpClient, Service
from tests.fake_time import FakeTime


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


class Exchange(BaseHTTPRequestHandler):
    """One connection of the server; a test's `respond` function gets it for every request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LocalServer
    body: bytes

    def reply(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """Answer properly; `_` in a header's name stands for `-`."""
        self.start(status, **{"Content-Length": str(len(body)), **headers})
        self.wfile.write(body)

    def start(self, status: int = 200, **headers: str) -> None:
        """Send the head of an answer only."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def hang_up(self) -> None:
        """Close the connection after what has been sent."""
        self.close_connection = True

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(Seen(self.command, self.path, headers, self.body))
        try:
            self.server.respond(self)
        except ConnectionError:
            self.hang_up()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)


class LocalServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, respond: Callable[[Exchange], object]) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.respond = respond
        self.seen: list[Seen] = []
        self.connections = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.seen]


Serve = Callable[[Callable[[Exchange], object]], LocalServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[LocalServer] = []

    def start(respond: Callable[[Exchange], object]) -> LocalServer:
        server = LocalServer(respond)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


Connect = Callable[..., HttpClient]


@pytest.fixture
def connect(time: FakeTime) -> Iterator[Connect]:
    """Build clients on the fake clock, whose random numbers are the largest possible."""
    clients: list[HttpClient] = []

    def build(
        base_url: str,
        *,
        stop_flag: threading.Event = time,
        budget: Budget | None = None,
        **options: object,
    ) -> HttpClient:
        service = Service(name="Testing", url_setting="TESTING_URL", base_url=base_url, **options)
        client = HttpClient(
            service,
            stop_flag=stop_flag,
            budget=budget,
            clock=time.clock,
            uniform=lambda _, high: high,
        )
        clients.append(client)
        return client

    yield build
    for client in clients:
        client.close()
