"""The archive.org client: an item's metadata, its files, and the members of a collection.

It knows the forms of archive.org's answers, including failures that look like successes. It does
not know what an item should look like, and returns documents and bytes unchanged.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Final, NoReturn, Self
from urllib.parse import quote, urlencode, urlsplit
from uuid import UUID

from artwork_backfill.shared.clients.http import (
    MEBIBYTE,
    BadAnswer,
    Budget,
    HttpClient,
    Origin,
    Response,
    Service,
    ServiceError,
    parse_json,
)
from artwork_backfill.shared.settings import Settings

#: The listing of an item of 10,000 files has 2.3 MiB.
_METADATA_MAX_BYTES: Final = 3 * MEBIBYTE

#: A size that cannot be true, and that no database can store.
_MORE_THAN_ANY_COLLECTION: Final = 2**63

#: Cursors of the live service have some hundred characters.
_LONGEST_CURSOR: Final = 4_000

_ARCHIVE_HOST: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)*archive\.org")
_ITEM_DIR: Final = re.compile(r"/[0-9]+/items/(?P<item>mbid-[0-9a-f-]{36})")


class ScrapeError(ServiceError):
    """The scrape API answered with an error; the message contains its text."""


class CursorRefused(ScrapeError):
    """The scrape API no longer accepts the cursor: start the enumeration again."""


@dataclass(frozen=True, slots=True)
class ScrapePage:
    """One page of a collection's identifiers, unchanged: any string is possible.

    `cursor` leads to the next page; `None` marks the last one. `total` is the service's own count
    of the collection, which is known to be wrong at times.
    """

    identifiers: tuple[str, ...]
    cursor: str | None
    total: int | None


class ArchiveOrgClient(HttpClient):
    """A client of archive.org, for any number of threads.

    Every method raises `Unreadable`, `ServiceDown` or `Interrupted` if there is no answer.
    """

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        stop_flag: threading.Event,
        concurrency: int = 16,
        attempts: int = 4,
        call_s: float = 120.0,
        patience_s: float = 180.0,
        budget: Budget | None = None,
    ) -> Self:
        """Return a client for the archive.org of the settings, without sending anything yet.

        See `Service` and `HttpClient` for the parameters. Raises `SettingsError`.
        """
        endpoint, keys = settings.archive_org(), settings.archive_org_keys()
        is_the_archive = _is_archive_org(Origin.of(endpoint.base_url))
        service = Service(
            name="archive.org",
            url_setting="ARCHIVE_ORG_URL",
            base_url=endpoint.base_url,
            contact=settings.contact(),
            rate=endpoint.rate,
            concurrency=concurrency,
            credentials={"authorization": f"LOW {keys[0]}:{keys[1]}"} if keys else {},
            key_settings="ARCHIVE_ORG_ACCESS_KEY and ARCHIVE_ORG_SECRET_KEY",
            # A stand-in for archive.org must not lead to the real one.
            may_redirect_to=lambda origin: is_the_archive and _is_archive_org(origin),
            trusts=lambda origin: (
                is_the_archive and origin.scheme == "https" and _is_archive_org(origin)
            ),
            attempts=attempts,
            call_s=call_s,
            patience_s=patience_s,
        )
        return cls(service, stop_flag=stop_flag, budget=budget)

    @property
    def has_credentials(self) -> bool:
        """Whether keys are set. Without them the scrape API hides the items of a collection."""
        return bool(self.service.credentials)

    def metadata(self, gid: str, *, extended_err: bool = False) -> object:
        """Return what the metadata API says about an entity's item: a parsed JSON document.

        The document is returned unchanged, including `[]` and `{}`, which stand for a missing item,
        but at times also for an existing one. Answers that report nothing but a failure of
        archive.org (`error`, or `servers_unavailable` without a list of files) are retried.
        `extended_err` asks for an `errcode` that says why there is no item.
        """
        target = f"/metadata/{_item(gid)}" + ("?extended_err=1" if extended_err else "")

        def parse(response: Response) -> object:
            document = _parse_metadata(response)
            if not document and not response.url.endswith(target):
                # An empty answer after a redirect says nothing about this item.
                raise BadAnswer("it was redirected to an answer about something else")
            return document

        return self.get(target, parse, max_bytes=_METADATA_MAX_BYTES)

    def download(
        self,
        gid: str,
        name: str,
        *,
        max_bytes: int,
        d1: str | None = None,
        d2: str | None = None,
        dir: str | None = None,  # noqa: A002 - archive.org's name for it
    ) -> bytes:
        """Return the bytes of one file of an item; a larger one than `max_bytes` is `Unreadable`.

        archive.org's main host forwards requests to nodes that answer HTTP 500 for up to half of
        the files they have, while the item's own servers answer: these are asked next. Raises
        `NotFound` if archive.org says that the file does not exist.

        Parameters
        ----------
        d1, d2, dir
            The item's servers and its directory there, from the metadata API. They are outside
            data: anything but a place of this very item at archive.org is ignored.
        """
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise ValueError(f"not the name of a file: {name!r}")
        path = f"/{quote(name)}"
        return self.get(
            f"/download/{_item(gid)}{path}",
            lambda response: response.body,
            alternatives=[place + path for place in self._places(gid, (d1, d2), dir)],
            max_bytes=max_bytes,
        )

    def scrape(self, collection: str, cursor: str | None = None) -> ScrapePage:
        """Return one page of a collection's identifiers.

        No page size is requested, because the service ignores `cursor` together with `count`.
        Raises `CursorRefused`, `ScrapeError` or `CredentialsRefused`.
        """
        query = {"q": f"collection:{collection}", "fields": "identifier"}
        if self.has_credentials:
            query["scope"] = "all"
        if cursor is not None:
            query["cursor"] = cursor
        return self.get(
            f"/services/search/v1/scrape?{urlencode(query)}",
            _parse_scrape_page,
            authorized=self.has_credentials,
            also_wanted=frozenset({400}),
        )

    def _places(self, gid: str, hosts: tuple[str | None, ...], directory: str | None) -> list[str]:
        match = _ITEM_DIR.fullmatch(directory or "")
        if match is None or match["item"] != _item(gid):
            return []
        known = [host.lower() for host in hosts if host and self._is_ours(host.lower())]
        scheme = self.service.origin.scheme
        return [f"{scheme}://{host}{directory}" for host in dict.fromkeys(known)]

    def _is_ours(self, host: str) -> bool:
        if host == urlsplit(self.service.base_url).netloc.lower():
            return True
        is_the_archive = _is_archive_org(self.service.origin)
        return is_the_archive and _ARCHIVE_HOST.fullmatch(host) is not None


def _is_archive_org(origin: Origin) -> bool:
    return origin.is_default_port and _ARCHIVE_HOST.fullmatch(origin.host) is not None


def _item(gid: str) -> str:
    return f"mbid-{UUID(gid)}"


#: Fields that say more about an item than a failure of archive.org: it is dark, missing, or has
#: tasks. Such an answer is returned, whatever else it contains.
_SAYS_MORE: Final = frozenset(
    {"is_dark", "errcode", "pending_tasks", "has_redrow", "tasks", "nodownload"}
)


def _parse_metadata(response: Response) -> object:
    document = parse_json(response)
    if isinstance(document, dict) and not any(document.get(key) for key in _SAYS_MORE):
        if "error" in document:
            raise BadAnswer(f"it reports: {str(document['error'])[:200]}")
        if document.get("servers_unavailable") and not document.get("files"):
            raise BadAnswer("it reports: servers_unavailable")
    return document


def _parse_scrape_page(response: Response) -> ScrapePage:
    document = parse_json(response)
    if not isinstance(document, dict):
        raise BadAnswer("the page is not a JSON object")
    if "error" in document:
        _raise_scrape_error(str(document["error"]), response)
    if response.status != 200:
        raise BadAnswer(f"HTTP {response.status}", transient=False, status=response.status)
    items = document.get("items")
    if not isinstance(items, list):
        raise BadAnswer("the page has no list of items")
    cursor = document.get("cursor")
    if cursor is not None and not _is_cursor(cursor):
        raise BadAnswer("the page's cursor is damaged", transient=False)
    total = document.get("total")
    return ScrapePage(
        identifiers=tuple(_identifier(item) for item in items),
        cursor=cursor or None,
        total=total if type(total) is int and 0 <= total < _MORE_THAN_ANY_COLLECTION else None,
    )


def _is_cursor(cursor: object) -> bool:
    # It is sent as part of a URL, and stored.
    return isinstance(cursor, str) and len(cursor) <= _LONGEST_CURSOR and cursor.isprintable()


def _identifier(item: object) -> str:
    identifier = item.get("identifier") if isinstance(item, dict) else None
    if not isinstance(identifier, str):
        raise BadAnswer("an item of the page has no identifier")
    return identifier


def _raise_scrape_error(text: str, response: Response) -> NoReturn:
    kind = CursorRefused if "cursor" in text.lower() else ScrapeError
    raise kind(
        f"archive.org refused to enumerate the collection: {text[:500]}",
        service="archive.org",
        url=response.url,
        status=response.status,
    )
