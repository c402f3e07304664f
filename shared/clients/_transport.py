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
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.adapters
import requests.utils
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError as Urllib3Error
from urllib3.exceptions import TimeoutError as Urllib3Timeout

from artwork_backfill.shared.clients._budget import Budget, NoRoom

_CHUNK_BYTES = 64 * 1024
# An unwanted body up to this size is read, because a new connection would cost more.
_DRAIN_BYTES = 64 * 1024

#: How long an exchange may still take when the run is to stop, in seconds.
_GRACE_S = 1.0

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_NETWORK_ERRORS = (OSError, Urllib3Error, http.client.HTTPException)


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


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one exchange: seconds, bytes of the answer, and the memory of all large answers.

    Once `stop_flag` is set, one second is left.
    """

    deadline_s: float
    max_bytes: int
    budget: Budget
    stop_flag: threading.Event


class Transport:
    """A pool of persistent connections for all threads of one client.

    Proxies (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`) and `REQUESTS_CA_BUNDLE` are taken from the
    environment, because some networks require them. `.netrc` and cookies are not used: nothing may
    add credentials to a request without the caller's knowledge.
    """

    def __init__(
        self, *, connections: int, connect_timeout_s: float, read_timeout_s: float
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._adapter = _Adapter(pool_connections=32, pool_maxsize=connections, max_retries=0)
        self._verify: bool | str = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self._deadlines = Deadlines()

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
        limits: Limits,
    ) -> Response:
        """Send one request and read its answer, without following redirects.

        Raises
        ------
        ExchangeFailed
            There is no complete answer within the deadline.
        BodyTooLarge
            A body with a `wanted` status exceeds the limit.
        """
        with self._deadlines.exchange(
            limits.deadline_s, limits.stop_flag, grace_s=_GRACE_S
        ) as exchange:
            try:
                answer = self._send(method, url, headers, body, limits.deadline_s)
                content = b""
                with _closing(answer.raw) as raw:
                    if answer.status_code in wanted:
                        content = _read_body(raw, limits, exchange)
                    else:
                        raw.read(_DRAIN_BYTES, decode_content=False)
            except (
                *(requests.RequestException, Urllib3Error, http.client.HTTPException),
                *(OSError, zlib.error, UnicodeError, ValueError),
            ) as error:
                raise self._failure(error, exchange, limits) from error
            if exchange.is_cut:
                raise self._too_late(limits)
        return Response(answer.status_code, answer.headers, content, url)

    @contextmanager
    def stream(
        self, url: str, *, headers: Mapping[str, str], stop_flag: threading.Event
    ) -> Iterator[tuple[requests.Response, Exchange]]:
        """Open an answer whose body is read piece by piece, without a deadline.

        When the run stops, reading ends, and `is_cut` is set.

        Raises
        ------
        OSError
            There is no answer.
        """
        with self._deadlines.exchange(math.inf, stop_flag, grace_s=0.0) as exchange:
            answer = self._send("GET", url, headers, None, self._read_timeout_s)
            with _closing(answer.raw):
                yield answer, exchange

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

    def _failure(self, error: Exception, exchange: Exchange, limits: Limits) -> ExchangeFailed:
        if exchange.is_cut:
            return self._too_late(limits)
        if isinstance(error, requests.ConnectTimeout):
            return ExchangeFailed(f"no connection within {self._connect_timeout_s:g} s")
        if isinstance(error, (requests.Timeout, Urllib3Timeout)):
            return self._too_late(limits)
        root: BaseException = error
        # Beyond these, the context is whatever the caller was handling.
        while isinstance(cause := root.__cause__ or root.__context__, _NETWORK_ERRORS):
            root = cause
        return ExchangeFailed(f"{type(root).__name__}: {root}"[:200])

    def _too_late(self, limits: Limits) -> TooLate:
        return TooLate(
            f"no complete answer in time ({self._read_timeout_s:g} s of silence or "
            f"{limits.deadline_s:.3g} s in all)"
        )


@contextmanager
def _closing(raw: urllib3.HTTPResponse) -> Iterator[urllib3.HTTPResponse]:
    try:
        yield raw
    finally:
        # Closes the connection unless the body was read completely.
        raw.close()
        raw.release_conn()


class _Connection(HTTPConnection):
    def getresponse(self) -> Any:
        attach(self.sock)
        return super().getresponse()


class _TlsConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        attach(self.sock)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _Pool, "https": _TlsPool}


class _Adapter(requests.adapters.HTTPAdapter):
    """requests' adapter with connections that pass their sockets to the current exchange."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **options: Any) -> urllib3.PoolManager:
        manager: urllib3.PoolManager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def _read_body(raw: urllib3.HTTPResponse, limits: Limits, exchange: Exchange) -> bytes:
    # Compressed bodies are decompressed here and not by urllib3, which accepts a truncated gzip
    # stream as complete.
    encoding = raw.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise ExchangeFailed(f"the answer is encoded as {encoding[:40]!r}, which was not asked for")
    max_bytes, budget = limits.max_bytes, limits.budget
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
            _take(taken, limits, exchange)
    if gunzip:
        gunzip.check_complete()
    if taken:
        budget.give_back(taken - len(content))
    return bytes(content)


def _take(size: int, limits: Limits, exchange: Exchange) -> None:
    try:
        limits.budget.take(size, exchange.until, limits.stop_flag)
    except NoRoom as error:
        raise ExchangeFailed(str(error)) from error


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


class Exchange:
    """One exchange in progress: its deadline, and the socket that it uses.

    `until` is in monotonic seconds; once `stop_flag` is set, `grace_s` seconds are left.
    """

    def __init__(self, until: float, stop_flag: threading.Event, grace_s: float) -> None:
        self.until = until
        self.is_cut = False
        self._stop_flag = stop_flag
        self._grace_s = grace_s
        self._socket: socket.socket | None = None

    def attach(self, sock: socket.socket | None) -> None:
        """Record the socket on which the answer arrives."""
        self._socket = sock
        if self.is_cut:
            # Too late for the watching thread, which has already checked.
            self.cut()

    def is_due(self) -> bool:
        """Return whether the exchange has to end now."""
        now = time.monotonic()
        if self._stop_flag.is_set() and self._grace_s < math.inf:
            self.until, self._grace_s = min(self.until, now + self._grace_s), math.inf
        return now >= self.until

    def cut(self) -> None:
        """Shut the socket down. What was read is not an answer, even if it looks complete."""
        self.is_cut = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class Deadlines:
    """Watch the exchanges of one transport, and cut those that have to end.

    A socket's own time-out starts again with every byte received, so a server that sends single
    bytes could block a thread for ever, in the headers as well as in the body. A separate thread
    shuts such a socket down, which ends every wait for it.
    """

    _LOOK_EVERY_S = 0.1

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._exchanges: set[Exchange] = set()
        self._watcher: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def exchange(
        self, seconds: float, stop_flag: threading.Event, *, grace_s: float
    ) -> Iterator[Exchange]:
        """Watch the exchange of this thread until its deadline, or until shortly after a stop."""
        exchange = Exchange(time.monotonic() + seconds, stop_flag, grace_s)
        with self._changed:
            self._exchanges.add(exchange)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._watcher.start()
            elif len(self._exchanges) == 1:
                self._changed.notify()
        _under_way.exchange = exchange
        try:
            yield exchange
        finally:
            _under_way.exchange = None
            # The connection may serve another exchange from now on.
            with self._changed:
                self._exchanges.discard(exchange)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                for exchange in self._exchanges:
                    if not exchange.is_cut and exchange.is_due():
                        exchange.cut()
                self._changed.wait(self._LOOK_EVERY_S if self._exchanges else None)


class _UnderWay(threading.local):
    exchange: Exchange | None = None


_under_way = _UnderWay()


def attach(sock: socket.socket | None) -> None:
    """Record the socket of this thread's exchange."""
    if _under_way.exchange is not None:
        _under_way.exchange.attach(sock)
