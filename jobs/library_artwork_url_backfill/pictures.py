"""What a picture's URL says about the picture, and whether the catalogue may hold it. Pure.

Discogs names its pictures by what they show. The path of an `i.discogs.com` URL ends in the base64
of `s3://discogs-database-images/R-...`, where the letter stands for the kind: R a release, M a
master (a release in general), A an artist, L a label. Only a readable letter counts: a URL in any
other form may be a cover.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final
from urllib.parse import unquote, urlsplit

#: `library.artwork_url` is a varchar(512).
URL_MAX: Final = 512
#: The hosts that covers come from, including their subdomains.
DEFAULT_HOSTS: Final = ("discogs.com", "mzstatic.com")

_DISCOGS: Final = "discogs.com"
_PLACEHOLDER: Final = "spacer.gif"
# Characters that a URL does not contain unencoded (RFC 3986, section 2).
_NEVER_IN_URLS: Final = frozenset(' "<>\\^`{|}')

# "s3://" in base64; in some URLs the rest contains slashes.
_ENCODED: Final = re.compile(r"czM6Ly[0-9A-Za-z_/-]*")
_NAME: Final = re.compile(r"(?P<letter>[RMAL])-(?P<id>\d+)(?=[-.]|$)")


class Picture(StrEnum):
    """What a picture shows."""

    RELEASE = "release"
    MASTER = "master"
    ARTIST = "artist"
    LABEL = "label"
    PLACEHOLDER = "placeholder"
    UNKNOWN = "unknown"

    @property
    def is_no_cover(self) -> bool:
        """Whether it is certainly a photo of the artist or the logo of a label."""
        return self in (Picture.ARTIST, Picture.LABEL)


_LETTERS: Final = {
    "R": Picture.RELEASE,
    "M": Picture.MASTER,
    "A": Picture.ARTIST,
    "L": Picture.LABEL,
}


def picture_of(url: str) -> Picture:
    """Return what the picture at a URL shows, as far as the URL says."""
    return _read(url)[0]


def master_of(url: str) -> int | None:
    """Return the Discogs master that the picture belongs to, or `None`."""
    picture, number = _read(url)
    return number if picture is Picture.MASTER else None


def release_of(url: str) -> int | None:
    """Return the Discogs release that the picture belongs to, or `None`."""
    picture, number = _read(url)
    return number if picture is Picture.RELEASE else None


def is_usable(url: str, hosts: Sequence[str] = DEFAULT_HOSTS) -> bool:
    """Return whether the catalogue, whose pages load the URL, may hold it.

    It must be https, have at most 512 characters, be on one of the hosts or their subdomains, and
    have no port, spaces, control characters, user name or password.
    """
    if len(url) > URL_MAX or not url.isprintable() or not _NEVER_IN_URLS.isdisjoint(url):
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        return False
    return port in (None, 443) and is_below(parts.hostname, hosts)


def is_below(host: str, domains: Sequence[str]) -> bool:
    """Return whether a host is one of these domains or a subdomain of one."""
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def _read(url: str) -> tuple[Picture, int]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return Picture.UNKNOWN, 0
    if parts.path.rpartition("/")[2] == _PLACEHOLDER:
        return Picture.PLACEHOLDER, 0
    if not is_below(parts.hostname or "", (_DISCOGS,)):
        return Picture.UNKNOWN, 0
    path = unquote(parts.path)
    match = _NAME.match((_decoded(path) or path).rpartition("/")[2])
    if match is None:
        return Picture.UNKNOWN, 0
    return _LETTERS[match["letter"]], int(match["id"])


def _decoded(path: str) -> str | None:
    """Return the name that is encoded in a path, or `None` if there is none."""
    found = _ENCODED.search(path)
    if found is None:
        return None
    encoded = found[0].replace("/", "").rstrip("=")
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
