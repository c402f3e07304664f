"""Download of a file at a URL that a person gave, piece by piece, without a time limit.

Unlike the answers of services, such a file is large and read once. Its URL may contain a user name
and a password; they are sent to that host only, and nothing else is sent: no `.netrc`, no cookies.
"""

from __future__ import annotations

import base64
import gzip
import threading
import zlib
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import urllib3

from artwork_backfill.shared.clients._transport import Transport

_CONNECT_TIMEOUT_S: Final = 10.0
_READ_TIMEOUT_S: Final = 60.0
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 5


class Download:
    """The bytes at a URL. Opening it and reading from it raise `OSError` on failure.

    Parameters
    ----------
    stop_flag
        When it is set, waiting for the server ends, and reading fails.
    """

    def __init__(self, url: str, stop_flag: threading.Event) -> None:
        self._stop_flag = stop_flag
        self._transport = Transport(
            connections=1,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            read_timeout_s=_READ_TIMEOUT_S,
            stop_flag=stop_flag,
        )
        self._answer = ExitStack()
        try:
            self._raw = self._follow(urlsplit(url))
        except ValueError as error:
            # requests' own kinds of ValueError are OSErrors as well.
            self.close()
            raise error if isinstance(error, OSError) else OSError("the URL is malformed") from None
        except BaseException:
            self.close()
            raise
        self._gunzip: gzip.GzipFile | None = None
        if self._raw.headers.get("content-encoding", "").lower() in ("gzip", "x-gzip"):
            # Not by urllib3, which accepts a truncated stream as complete.
            packed: Any = SimpleNamespace(read=partial(_read, self._raw))
            self._gunzip = gzip.GzipFile(fileobj=packed, mode="rb")

    def read(self, size: int, /) -> bytes:
        try:
            gunzip = self._gunzip
            data = _read(self._raw, size) if gunzip is None else gunzip.read1(size)
        except (OSError, EOFError, zlib.error) as error:
            raise OSError(f"the download broke off ({type(error).__name__})") from error
        if not data and self._stop_flag.is_set():
            # Without a length, a connection that the stop has cut looks like the end of the file.
            raise InterruptedError("the run is stopping")
        return data

    def close(self) -> None:
        self._answer.close()
        self._transport.close()

    def _follow(self, url: SplitResult) -> urllib3.HTTPResponse:
        """Request the file, and follow redirects within the same host."""
        headers = {"Accept-Encoding": "identity", **_credentials(url)}
        here = url
        for _ in range(_MAX_REDIRECTS + 1):
            bare = here._replace(netloc=_host(here), fragment="").geturl()
            status, raw = self._answer.enter_context(self._transport.stream(bare, headers=headers))
            if status == 200:
                return raw
            if status not in _REDIRECTS:
                raise OSError(f"the server answers HTTP {status}")
            self._answer.close()
            here = urlsplit(urljoin(bare, raw.headers.get("location", "")))
            if not _is_same_place(url, here):
                raise OSError("the server redirects to another host")
        raise OSError(f"the server redirects more than {_MAX_REDIRECTS} times")


def _read(raw: urllib3.HTTPResponse, size: int) -> bytes:
    try:
        return raw.read(size, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise OSError(str(error)) from error


def _is_same_place(asked: SplitResult, sent_to: SplitResult) -> bool:
    """Return whether both are at the same host and port, or the second adds TLS to the first."""
    if (asked.scheme, _host(asked)) == (sent_to.scheme, _host(sent_to)):
        return True
    return (asked.scheme, sent_to.scheme, asked.port, sent_to.port, asked.hostname) == (
        *("http", "https", None, None),
        sent_to.hostname,
    )


def _host(url: SplitResult) -> str:
    return url.netloc.rpartition("@")[2].lower()


def _credentials(url: SplitResult) -> dict[str, str]:
    user, at, _ = url.netloc.rpartition("@")
    if not at:
        return {}
    token = base64.b64encode(unquote(user).encode()).decode()
    return {"Authorization": f"Basic {token}"}
