"""Access: the addresses that the dashboard may listen on, and the people it admits.

Streamlit's login (OpenID Connect, section `[auth]` of its secrets.toml) says who a visitor is. This
module decides by e-mail address who may enter. Without a login the dashboard is only for this
machine, or only for reading.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

from artwork_backfill.dashboard.guard import Hosts

#: The keys that Streamlit's login needs in `[auth]`.
LOGIN_KEYS: Final = (
    "redirect_uri",
    "cookie_secret",
    "client_id",
    "client_secret",
    "server_metadata_url",
)


class AccessError(Exception):
    """The dashboard must not be served with these options. The message says what to do."""


class NotAllowed(Exception):
    """A visitor may not enter. The message says why."""


def check(address: str | None, *, login: bool, allowed: Collection[str], read_only: bool) -> None:
    """Check that the dashboard may listen on an address.

    Parameters
    ----------
    address
        Name or IP address to listen on; `None` for all addresses of the machine.
    login
        Whether Streamlit's login is configured, see `login_is_configured`.
    allowed
        E-mail addresses of people who may enter after a login.
    read_only
        Whether every transaction is read only.

    Raises
    ------
    AccessError
        Everyone who reaches the address could change things, or no one could enter.
    """
    if login and not allowed:
        raise AccessError(
            "a login is configured, but no one may enter: name those who may,"
            " for example with --allow ops@example.org"
        )
    if not (login or read_only or is_loopback(address)):
        raise AccessError(
            f"everyone who reaches {address or 'this machine'} could change things: configure"
            " Streamlit's login ([auth] in .streamlit/secrets.toml) and name those who may enter"
            " with --allow, or add --read-only, or listen on 127.0.0.1"
        )


def is_loopback(address: str | None) -> bool:
    """Return whether only this machine itself can reach an address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


def hosts(address: str, names: Collection[str]) -> Hosts:
    """Return the host names that the dashboard answers to.

    They are those of this machine, that of the login (to which it sends people back), and `names`.
    """
    known = {"localhost", address.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
    if login_is_configured():
        known.add((urlsplit(str(st.secrets["auth"]["redirect_uri"])).hostname or "").lower())
    return Hosts(frozenset(known | set(names)) - {""})


def login_is_configured() -> bool:
    """Return whether Streamlit's secrets contain a login.

    Raises
    ------
    AccessError
        The login is incomplete, or the secrets cannot be read.
    """
    try:
        auth = st.secrets.to_dict().get("auth")
    except StreamlitSecretNotFoundError:
        present = [path for path in st.get_option("secrets.files") if Path(path).exists()]
        if present:
            raise AccessError(f"{present[0]} cannot be read: correct it, or move it away") from None
        return False
    if auth is None:
        return False
    missing = [
        key for key in LOGIN_KEYS if not isinstance(auth, Mapping) or not str(auth.get(key, ""))
    ]
    if missing:
        raise AccessError(
            f"the login in .streamlit/secrets.toml lacks {', '.join(missing)}: see Streamlit's"
            " documentation of st.login"
        )
    return True


def may_enter(user: Mapping[str, object], allowed: Collection[str]) -> str:
    """Return the e-mail address of a logged-in person who may enter.

    Parameters
    ----------
    user
        The claims of the identity token, as `st.user` has them.
    allowed
        E-mail addresses in lower case.

    Raises
    ------
    NotAllowed
        The address is missing, not verified by the provider, or not among `allowed`.
    """
    email = user.get("email")
    if not isinstance(email, str) or not email.strip():
        raise NotAllowed("Your login does not include an e-mail address.")
    # Some providers leave the claim out; one that denies it lets people claim any address.
    if user.get("email_verified", True) not in (True, "true"):
        raise NotAllowed("Your e-mail address is not verified.")
    if email.strip().lower() not in allowed:
        raise NotAllowed("Your e-mail address is not among those that may enter.")
    return email.strip().lower()
