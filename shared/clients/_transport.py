"""One HTTP exchange: send a request, and read the answer within limits of time and size.

Built on requests' transport adapter, and so on urllib3's thread-safe connection pool. It adds a
deadline for the exchange as a whole, a limit on the size of the decompressed answer and of all
large answers together, and detection of incomplete bodies. It knows nothing about retries,
redirects and the meaning of a status.
"""

from __future__ import annotations

import functools
import http.client
import math
import os
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import requests.adapters
import requests.utils
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError as Urllib3Error
from urllib3.exceptions import TimeoutError as Urllib3Timeout

from artwork_backfill.shared.clients._budget import Budget

_CHUNK_BYTES: Final = 64 * 1024
# An unwanted body up to this size is read, because a new connection would cost more.
_DRAIN_BYTES: Final = 64 * 1024

#: How long an exchange may still take when the run is to stop, in seconds.
_GRACE_S: Final = 1.0

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

#: requests' own errors are OSErrors.
_NETWORK_ERRORS: Final = (OSError, Urllib3Error, http.client.HTTPException)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: the names of `headers` are case-insensitive, `body` is decompressed.

    `body` is empty if the status was not one of the wanted ones.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    url: str


class ExchangeFailed(Exception):
    """One HTTP request got no usable answer.

    `transient` says whether the same request may succeed later; `status` is that of the answer, if
    there was one; `retry_after_s` is the delay that the service requested.
    """

    def __init__(
        self,
        reason: str,
        *,
        transient: bool = True,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.transient = transient
        self.status = status
        self.retry_after_s = retry_after_s


class TooLate(ExchangeFailed):
    """The request was sent, but the answer did not arrive in time."""


class BodyTooLarge(ExchangeFailed):
    """The body exceeds the size limit of the caller."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the answer is larger than {max_bytes:,} bytes", transient=False)


class Transport:
    """A pool of persistent connections for all threads of one client.

    Proxies (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`) and `REQUESTS_CA_BUNDLE` are taken from the
    environment, because some networks require them. `.netrc` and cookies are not used: nothing may
    add credentials to a request without the caller's knowledge. Once `stop_flag` is set, an
    exchange ends within a second, and a stream at once.
    """

    def __init__(
        self,
        *,
        connections: int,
        connect_timeout_s: float,
        read_timeout_s: float,
        stop_flag: threading.Event,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._stop_flag = stop_flag
        self._adapter = _Adapter(pool_connections=32, pool_maxsize=connections, max_retries=0)
        self._verify: bool | str = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self._deadlines = _Deadlines(stop_flag)

    def close(self) -> None:
        """Close the idle connections."""
        self._adapter.close()
        self._deadlines.close()

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        wanted: frozenset[int],
        deadline_s: float,
        max_bytes: int,
        budget: Budget,
    ) -> Response:
        """Send one request and read its answer, without following redirects.

        `budget` is the memory of all large answers. Raises `ExchangeFailed` if there is no complete
        answer within the deadline, or if a body with a `wanted` status exceeds `max_bytes`.
        """
        too_late = TooLate(
            f"no complete answer in time ({self._read_timeout_s:g} s of silence or "
            f"{deadline_s:.3g} s in all)"
        )
        with self._deadlines.watch(deadline_s, grace_s=_GRACE_S) as exchange:
            try:
                answer = self._send(method, url, headers, body, deadline_s)
                content = b""
                try:
                    if answer.status_code in wanted:
                        content = self._read(answer.raw, max_bytes, budget, exchange.until)
                    else:
                        answer.raw.read(_DRAIN_BYTES, decode_content=False)
                finally:
                    _release(answer.raw)
            except (*_NETWORK_ERRORS, zlib.error, ValueError) as error:
                is_connected = not isinstance(error, requests.ConnectTimeout)
                is_timeout = isinstance(error, requests.Timeout | Urllib3Timeout)
                if exchange.is_cut or (is_timeout and is_connected):
                    raise too_late from error
                raise ExchangeFailed(self._reason(error)) from error
            if exchange.is_cut:
                raise too_late
        return Response(answer.status_code, answer.headers, content, url)

    @contextmanager
    def stream(
        self, url: str, *, headers: Mapping[str, str]
    ) -> Iterator[tuple[int, urllib3.HTTPResponse]]:
        """Open an answer whose body is read piece by piece, without a deadline.

        Yields its status and its body. `OSError` is raised if there is no answer.
        """
        with self._deadlines.watch(math.inf, grace_s=0.0):
            answer = self._send("GET", url, headers, None, self._read_timeout_s)
            try:
                yield answer.status_code, answer.raw
            finally:
                _release(answer.raw)

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, most_s: float
    ) -> requests.Response:
        request = requests.PreparedRequest()
        request.prepare(method=method, url=url, headers=headers, data=body)
        return self._adapter.send(
            request,
            stream=True,
            timeout=(min(self._connect_timeout_s, most_s), min(self._read_timeout_s, most_s)),
            verify=self._verify,
            proxies=_proxies_for(_origin_of(url)),
        )

    def _read(
        self, raw: urllib3.HTTPResponse, max_bytes: int, budget: Budget, until: float
    ) -> bytes:
        # Compressed bodies are decompressed here and not by urllib3, which accepts a truncated gzip
        # stream as complete.
        encoding = raw.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", "gzip", "x-gzip"):
            raise ExchangeFailed(
                f"the answer is encoded as {encoding[:40]!r}, which was not asked for"
            )
        if raw.length_remaining is not None and raw.length_remaining > max_bytes:
            raise BodyTooLarge(max_bytes)
        gunzip = None if encoding == "identity" else _Gunzip(max_bytes)
        largest = max_bytes if gunzip or raw.length_remaining is None else raw.length_remaining
        taken = 0
        content = bytearray()
        while data := raw.read(_CHUNK_BYTES, decode_content=False):
            content += gunzip.feed(data) if gunzip else data
            if len(content) > max_bytes:
                raise BodyTooLarge(max_bytes)
            if len(content) > budget.SMALL and not taken:
                taken = largest
                if not budget.take(taken, until, self._stop_flag):
                    raise ExchangeFailed("other large answers were being read all the time")
        if gunzip:
            gunzip.check_complete()
        if taken:
            budget.give_back(taken - len(content))
        return bytes(content)

    def _reason(self, error: Exception) -> str:
        if isinstance(error, requests.ConnectTimeout):
            return f"no connection within {self._connect_timeout_s:g} s"
        root: BaseException = error
        # Beyond these, the context is whatever the caller was handling.
        while isinstance(cause := root.__cause__ or root.__context__, _NETWORK_ERRORS):
            root = cause
        return f"{type(root).__name__}: {root}"[:200]


def _release(raw: urllib3.HTTPResponse) -> None:
    # Closes the connection unless the body was read completely.
    raw.close()
    raw.release_conn()


class _Gunzip:
    """Decompress a gzip stream of one or several members, up to `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._room = max_bytes
        self._member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        out: list[bytes] = []
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            self._begun = True
            piece = self._member.decompress(data, self._room + 1)
            self._room -= len(piece)
            if self._room < 0:
                raise BodyTooLarge(self._max_bytes)
            out.append(piece)
            data = self._member.unused_data
        return b"".join(out)

    def check_complete(self) -> None:
        if self._begun and not self._member.eof:
            raise ExchangeFailed("the compressed answer was cut short")


def _origin_of(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/"


@functools.lru_cache(maxsize=1024)
def _proxies_for(origin: str) -> dict[str, str]:
    # No proxy for loopback addresses, where the sandbox is.
    if urlsplit(origin).hostname in _LOOPBACK:
        return {}
    return requests.utils.get_environ_proxies(origin)


# -- deadlines -------------------------------------------------------------------------------------


class _Exchange:
    """One exchange in progress: its deadline in monotonic seconds, and the socket that it uses."""

    def __init__(self, until: float, grace_s: float) -> None:
        self.until = until
        self.grace_s = grace_s
        self.is_cut = False
        self._socket: socket.socket | None = None

    def attach(self, sock: socket.socket | None) -> None:
        """Record the socket on which the answer arrives."""
        self._socket = sock
        if self.is_cut:
            # Too late for the watching thread, which has already checked.
            self.cut()

    def cut(self) -> None:
        """Shut the socket down. What was read is not an answer, even if it looks complete."""
        self.is_cut = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


#: The exchange of this thread.
_current: ContextVar[_Exchange | None] = ContextVar("exchange", default=None)


class _Deadlines:
    """Watch the exchanges of one transport, and cut those that have to end.

    A socket's own time-out starts again with every byte received, so a server that sends single
    bytes could block a thread for ever, in the headers as well as in the body. A separate thread
    shuts such a socket down, which ends every wait for it.
    """

    _LOOK_EVERY_S: Final = 0.1
    #: The thread looks this often without an exchange before it sleeps until the next one: waking
    #: it for every exchange would cost more than many an answer.
    _IDLE_LOOKS: Final = 20

    def __init__(self, stop_flag: threading.Event) -> None:
        self._stop_flag = stop_flag
        self._changed = threading.Condition()
        self._exchanges: set[_Exchange] = set()
        self._watcher: threading.Thread | None = None
        self._sleeps = False
        self._closed = False

    @contextmanager
    def watch(self, seconds: float, *, grace_s: float) -> Iterator[_Exchange]:
        """Watch the exchange of this thread.

        It has to end after `seconds`, or `grace_s` after a request to stop.
        """
        exchange = _Exchange(time.monotonic() + seconds, grace_s)
        with self._changed:
            self._exchanges.add(exchange)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._watcher.start()
            elif self._sleeps:
                self._sleeps = False
                self._changed.notify()
        _current.set(exchange)
        try:
            yield exchange
        finally:
            _current.set(None)
            # The connection may serve another exchange from now on.
            with self._changed:
                self._exchanges.discard(exchange)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        stopped_at = math.inf
        idle_looks = 0
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                # A caller that lives on clears the flag after each stop.
                stopped_at = min(stopped_at, now) if self._stop_flag.is_set() else math.inf
                for exchange in self._exchanges:
                    until = min(exchange.until, stopped_at + exchange.grace_s)
                    if now >= until and not exchange.is_cut:
                        exchange.cut()
                idle_looks = 0 if self._exchanges else idle_looks + 1
                self._sleeps = idle_looks > self._IDLE_LOOKS
                self._changed.wait(None if self._sleeps else self._LOOK_EVERY_S)


class _Connection(HTTPConnection):
    def getresponse(self) -> Any:
        _attach(self.sock)
        return super().getresponse()


class _TlsConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        _attach(self.sock)
        return super().getresponse()


def _attach(sock: socket.socket | None) -> None:
    if (exchange := _current.get()) is not None:
        exchange.attach(sock)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS: Final = {"http": _Pool, "https": _TlsPool}


class _Adapter(requests.adapters.HTTPAdapter):
    """requests' adapter with connections that pass their sockets to the current exchange."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **options: Any) -> urllib3.PoolManager:
        manager: urllib3.PoolManager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager
