"""Small servers of a test's own: one that nobody should visit, one that says what a test likes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: From a path and a body to a status and a body.
Answer = Callable[[str, bytes], tuple[int, bytes]]


@dataclass(slots=True)
class Served:
    """A running server: where it is, and what it was asked for so far."""

    place: str
    visits: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.place}"


@contextmanager
def serve(answer: Answer) -> Iterator[Served]:
    """Serve on loopback as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            served.visits.append((self.path, body))
            status, content = answer(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the name that the base class looks for

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            # A client that was killed, or has had enough, is no news here.
            pass

    server = Server(("127.0.0.1", 0), Handler)
    served = Served(f"127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
