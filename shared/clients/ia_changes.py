"""The client of archive.org's Changes API: items that any task has changed, including noindex ones.

The API is documented at https://archive.org/developers/changes.html. It covers all of archive.org
and gives no times. It could not be tested with the live service when this was written, so an answer
of another form than the documented one is rejected with what was not understood.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final, Self

from artwork_backfill.shared.clients.http import (
    MEBIBYTE,
    BadAnswer,
    CredentialsRefused,
    HttpClient,
    Response,
    Service,
    ServiceError,
    parse_json,
)
from artwork_backfill.shared.settings import Settings, SettingsError, is_utf8

#: A page has about ten thousand identifiers of at most a hundred characters.
_PAGE_MAX_BYTES: Final = 16 * MEBIBYTE

#: Documented to be opaque; the maximum length that is stored.
TOKEN_MAX_CHARACTERS: Final = 10_000

_KEYS: Final = "ARCHIVE_ORG_ACCESS_KEY and ARCHIVE_ORG_SECRET_KEY"
_PRIVILEGE: Final = (
    f"the account of {_KEYS} needs the privilege see_all_catalog_changes; ask archive.org's"
    " collections team for it"
)

#: A page that requests a pause with at most this many tasks after it is the last for the moment.
_NEAR_END: Final = 10_000

FROM_BEGINNING: Final = "0"
"""The start date of a cold start: every existing item, then what has changed since."""


class ChangesError(ServiceError):
    """The Changes API answered with an error; the message contains its text."""


@dataclass(frozen=True, slots=True)
class ChangesPage:
    """One page of identifiers, unchanged: any string is possible, in any order, also repeated.

    `next_token` leads to the next page. `wants_rest` says that the service asks its callers to
    pause. `distance` is its own estimate of the number of tasks after this page, `None` if it gives
    none.
    """

    identifiers: tuple[str, ...]
    next_token: str
    wants_rest: bool
    distance: int | None = None

    @property
    def is_near_end(self) -> bool:
        """Whether hardly any more changes are available now."""
        return self.wants_rest and (self.distance is None or self.distance <= _NEAR_END)


class ChangesClient(HttpClient):
    """A client of the Changes API, for one page after another.

    Every method raises `Unreadable`, `ServiceDown` or `Interrupted` if there is no answer.
    """

    def __init__(
        self, service: Service, keys: tuple[str, str], *, stop_flag: threading.Event
    ) -> None:
        super().__init__(service, stop_flag=stop_flag)
        self._keys = dict(zip(("access", "secret"), keys, strict=True))

    @classmethod
    def from_settings(cls, settings: Settings, *, stop_flag: threading.Event) -> Self:
        """Return a client for the Changes API of the settings, without sending anything yet.

        Raises `SettingsError`, also if there are no keys.
        """
        keys = settings.archive_org_keys()
        if keys is None:
            raise SettingsError(
                f"{_KEYS} are not set, and the Changes API needs them: set them; {_PRIVILEGE}"
            )
        address = settings.archive_org_changes()
        service = Service(
            name="archive.org's Changes API",
            url_setting="ARCHIVE_ORG_CHANGES_URL",
            base_url=address.base_url,
            contact=settings.contact(),
            rate=address.rate,
            concurrency=1,
            key_settings=_KEYS,
            max_bytes=_PAGE_MAX_BYTES,
        )
        return cls(service, keys, stop_flag=stop_flag)

    def page(self, *, token: str | None = None, start_date: str | None = None) -> ChangesPage:
        """Return the page of a token, or the first page since a date, by default now.

        `start_date` is `YYYYMMDD` in UTC, or `FROM_BEGINNING`. Raises `CredentialsRefused` if the
        account lacks the privilege or its keys are wrong, and `ChangesError` if the service
        answered with an error.
        """
        fields = dict(self._keys)
        if token is not None:
            fields["token"] = token
        elif start_date is not None:
            fields["start_date"] = start_date
        return self.post_form(
            "/changes/v1",
            fields,
            _parse_page,
            also_wanted=frozenset({400, 401, 403}),
        )


def _parse_page(response: Response) -> ChangesPage:
    if response.status in (401, 403):
        raise _refused(f"HTTP {response.status}", response)
    document = parse_json(response)
    if isinstance(document, dict) and "error" in document:
        raise _error(str(document["error"])[:500], response)
    if response.status != 200:
        raise BadAnswer(f"HTTP {response.status}", transient=False, status=response.status)
    if not isinstance(document, dict):
        raise _not_understood("the page is not a JSON object")
    changes, token = document.get("changes"), document.get("next_token")
    if not isinstance(changes, list):
        raise _not_understood("the page has no list `changes`")
    if not isinstance(token, str) or not token or len(token) > TOKEN_MAX_CHARACTERS:
        raise _not_understood("the page has no usable `next_token`")
    if not token.isprintable() or not is_utf8(token):
        raise _not_understood("the page's `next_token` holds characters that cannot be sent back")
    rest = document.get("do_sleep_before_returning")
    if not isinstance(rest, bool):
        raise _not_understood("the page has no `do_sleep_before_returning`")
    distance = document.get("estimated_distance_from_head")
    return ChangesPage(
        identifiers=tuple(_identifier(change) for change in changes),
        next_token=token,
        wants_rest=rest,
        distance=distance if type(distance) is int and 0 <= distance < 2**63 else None,
    )


def _identifier(change: object) -> str:
    identifier = change.get("identifier") if isinstance(change, dict) else None
    if not isinstance(identifier, str):
        raise _not_understood("a change on the page has no identifier")
    return identifier


def _not_understood(what: str) -> BadAnswer:
    return BadAnswer(f"it is not of the documented form: {what}", transient=False)


def _error(text: str, response: Response) -> ServiceError:
    lowered = text.lower()
    if any(word in lowered for word in ("privilege", "not authorized", "access denied", "secret")):
        return _refused(text, response)
    return ChangesError(
        f"archive.org's Changes API answered with an error: {text}. Retry later; if the message"
        " concerns the token, start again with --since DATE",
        service="archive.org",
        url=response.url,
        status=response.status,
    )


def _refused(why: str, response: Response) -> ServiceError:
    return CredentialsRefused(
        f"archive.org refused to show changes ({why}): {_PRIVILEGE}",
        service="archive.org",
        url=response.url,
        status=response.status,
    )
