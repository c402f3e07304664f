"""A small, fast HTTP/1.1 server for stand-ins, which can also give bad answers on purpose.

A stand-in shares its machine with the client that is being measured. Therefore it parses no more of
a request than the handler needs, and takes one callback per request. It is not a general server: no
chunked uploads, no pipelining, no TLS.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}

_PAD = b" " * 65_536

# The number of pieces of a slowly sent body.
_DRIPS = 50


class Request:
    """One request. `target` is the path with the query, `path` without."""

    __slots__ = ("_head", "body", "method", "path", "query", "target")

    def __init__(self, head: bytes, body: bytes) -> None:
        line, _, self._head = head.partition(b"\r\n")
        method, target, _ = line.decode("latin-1").split(" ", 2)
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition("?")
        self.body = body

    def fields(self) -> dict[str, str]:
        """Return the fields of the form, or of the query if the request has no body."""
        text = self.body.decode() if self.method == "POST" else self.query
        return {key: values[-1] for key, values in parse_qs(text).items()}

    def header(self, name: str) -> str | None:
        """Return the value of a header; `name` is in lower case."""
        return self.headers().get(name)

    def headers(self) -> dict[str, str]:
        """Return every header, with its name in lower case."""
        headers = {}
        for line in self._head.decode("latin-1").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon:
                headers[name.lower()] = value.strip()
        return headers


@dataclass(slots=True)
class Response:
    """One answer, and how to spoil it.

    Parameters
    ----------
    headers
        Further header lines, each with its line end.
    delay_s
        How long to wait before answering.
    padding
        How many spaces follow the body; they are sent on demand.
    cut
        Whether to hang up half-way through the body.
    hang_up
        Whether to hang up without any answer.
    drip_s
        How long to take for sending the body, in small pieces.
    """

    status: int
    body: bytes = b""
    headers: str = ""
    content_type: str = "application/json"
    delay_s: float = 0.0
    padding: int = 0
    cut: bool = False
    hang_up: bool = False
    drip_s: float = 0.0

    def head(self) -> bytes:
        return _STATUS_LINES[self.status] + (
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body) + self.padding}\r\n{self.headers}\r\n"
        ).encode("latin-1")


def json_response(document: object, status: int = 200, *, delay_s: float = 0.0) -> Response:
    return Response(status, json.dumps(document).encode(), delay_s=delay_s)


Handler = Callable[[Request], Response]
"""Answers requests; called from the event loop, so it must not wait."""


class _Connection(asyncio.Protocol):
    """One connection, which takes requests one after another."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._buffer = b""
        self._busy = False
        self._resumed = asyncio.Event()
        self._resumed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._next()

    def pause_writing(self) -> None:
        self._resumed.clear()

    def resume_writing(self) -> None:
        self._resumed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._resumed.set()

    def _next(self) -> None:
        """Answer the next request if it is complete."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end]
        stop = end + 4
        if head[:3] != b"GET":
            stop += _content_length(head)
            if len(self._buffer) < stop:
                return
        request = Request(head, self._buffer[end + 4 : stop])
        self._buffer = self._buffer[stop:]
        response = self._handler(request)
        if response.delay_s:
            self._busy = True
            asyncio.get_running_loop().call_later(response.delay_s, self._send, response)
        else:
            self._send(response)

    def _send(self, response: Response) -> None:
        self._busy = False
        transport = self._transport
        if transport.is_closing():
            return
        if response.hang_up:
            transport.abort()
        elif response.cut:
            transport.write(response.head() + response.body[: len(response.body) // 2])
            transport.close()
        elif response.drip_s or response.padding:
            self._busy = True
            task = asyncio.ensure_future(self._send_slowly(response))
            task.add_done_callback(_raise)
        else:
            transport.write(response.head() + response.body)
            if self._buffer:
                self._next()

    async def _send_slowly(self, response: Response) -> None:
        self._transport.write(response.head())
        size = max(1, len(response.body) // _DRIPS)
        for start in range(0, len(response.body), size):
            await asyncio.sleep(response.drip_s / _DRIPS)
            if self._transport.is_closing():
                return
            self._transport.write(response.body[start : start + size])
        for start in range(0, response.padding, len(_PAD)):
            await self._resumed.wait()
            if self._transport.is_closing():
                return
            self._transport.write(_PAD[: response.padding - start])
        self._busy = False
        self._next()


def _raise(task: asyncio.Future[None]) -> None:
    if not task.cancelled():
        task.result()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve(handler: Handler) -> asyncio.Server:
    """Listen on any free port of loopback."""
    return await asyncio.get_running_loop().create_server(
        lambda: _Connection(handler), "127.0.0.1", backlog=512
    )
