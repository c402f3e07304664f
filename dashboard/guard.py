"""The requests that the server answers: a layer in front of everything that Streamlit serves.

Streamlit answers any page on any port of this machine, asks outside hosts about foreign origins,
and serves metrics and files to everyone who knows their URL. This layer restricts all of that.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit import file_util

from artwork_backfill.dashboard.pictures import SCRIPT_HASH

#: The cookie that identifies a browser; downloads, drafts and the journal belong to it.
VISITOR: Final = "artwork_backfill_visitor"

#: Sources of pictures that a person asks for; archive.org redirects to its data nodes.
PICTURE_HOSTS: Final = ("https://archive.org", "https://*.archive.org")

#: All paths that are served. The page needs no uploads, metrics, media files or components.
_PATHS: Final = frozenset(
    {
        "/",
        "/index.html",
        "/favicon.png",
        "/manifest.json",
        "/_stcore/health",
        "/_stcore/host-config",
        "/_stcore/stream",
        "/auth/login",
        "/auth/logout",
        "/oauth2callback",
    }
)
_FOLDERS: Final = ("/static/", "/download/")

#: Paths of health probes, which may address this machine by any name.
_HEALTH: Final = "/_stcore/health"

_HEADERS: Final = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def content_security_policy(*, pictures: bool) -> str:
    """Return the Content-Security-Policy: what the page may load, and from where.

    Vega's compiled charts need `unsafe-eval`, and Streamlit's inline styles need `unsafe-inline`.
    """
    return "; ".join(
        (
            "default-src 'self'",
            " ".join(
                (
                    "script-src 'self' 'unsafe-eval'",
                    *_inline_scripts(),
                    *((SCRIPT_HASH,) if pictures else ()),
                )
            ),
            "style-src 'self' 'unsafe-inline'",
            " ".join(("img-src 'self' data: blob:", *(PICTURE_HOSTS if pictures else ()))),
            "font-src 'self' data:",
            "worker-src 'self' blob:",
            "connect-src 'self'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def _inline_scripts() -> list[str]:
    """Return the hashes of the inline scripts of Streamlit's own page."""
    page = Path(file_util.get_static_dir(), "index.html").read_text(encoding="utf-8")
    return [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    ]


@dataclass(frozen=True, slots=True)
class Hosts:
    """The host names that the dashboard accepts; `names` are in lower case.

    Another site can point a host name of its own at this machine, which would then have the same
    origin as the dashboard. It cannot do this with an IP address, so those are accepted.
    """

    names: Collection[str]

    def allow(self, host: str | None) -> bool:
        """Return whether to answer a request with this Host header."""
        try:
            name = urlsplit(f"//{host or ''}").hostname
        except ValueError:
            return False
        if not name:
            return False
        if name.rstrip(".") in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Guard:
    """ASGI middleware that refuses requests not meant for this page, and restricts the page.

    Parameters
    ----------
    app
        The application behind it.
    hosts
        The host names that the dashboard accepts.
    pictures
        Whether pages may show pictures from archive.org.
    """

    def __init__(self, app: ASGIApp, *, hosts: Hosts, pictures: bool) -> None:
        self._app = app
        self._hosts = hosts
        self._policy = content_security_policy(pictures=pictures)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or connection, or pass it to the application."""
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host")
        if self._hosts.allow(host) and _is_same(headers.get("origin"), host):
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        headers = Headers(scope=scope)
        if path != _HEALTH and not self._hosts.allow(headers.get("host")):
            await PlainTextResponse("Not served here.\n", 421)(scope, receive, send)
        elif path not in _PATHS and not path.startswith(_FOLDERS):
            await PlainTextResponse("Not served here.\n", 404)(scope, receive, send)
        else:
            await self._app(scope, receive, self._adding_headers(scope, headers, send))

    def _adding_headers(self, scope: Scope, asked: Headers, send: Send) -> Send:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = self._policy
                for name, value in _HEADERS.items():
                    headers[name] = value
                if scope["path"] == "/" and visitor(asked.get("cookie")) is None:
                    # Lax, not Strict: the browser must send it when a login returns here.
                    headers.append(
                        "Set-Cookie",
                        f"{VISITOR}={secrets.token_urlsafe(24)}; Path=/; HttpOnly; SameSite=Lax",
                    )
            await send(message)

        return add


def visitor(cookies: str | None) -> str | None:
    """Return the visitor's id from a Cookie header, if it has one."""
    if not cookies:
        return None
    morsel = SimpleCookie(cookies).get(VISITOR)
    return morsel.value if morsel and morsel.value else None


def _is_same(origin: str | None, host: str | None) -> bool:
    if origin is None or host is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
