"""The HTTP layer of every client: rate, retries, limits, redirects, credentials and errors.

The client of a service extends `HttpClient`, describes the service by a `Service`, and gives each
call a function that parses the answer. A failure never looks like a missing resource. The parts are
`_transport` (one exchange), `_budget` (memory) and `_pacing` (rate).
"""

from __future__ import annotations

import datetime
import email.utils
import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NoReturn, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

from artwork_backfill.shared.clients._budget import MEBIBYTE, Budget
from artwork_backfill.shared.clients._pacing import (
    Clock,
    Health,
    Interrupted,
    Meter,
    Pace,
)
from artwork_backfill.shared.clients._transport import (
    ExchangeFailed,
    Response,
    TooLate,
    Transport,
)
from artwork_backfill.shared.service_stats import ServiceStats
from artwork_backfill.shared.settings import SettingsError
from artwork_backfill.shared.version import VERSION

__all__ = [
    "MEBIBYTE",
    "BadAnswer",
    "Budget",
    "CredentialsRefused",
    "HttpClient",
    "Interrupted",
    "NotFound",
    "Origin",
    "Response",
    "Service",
    "ServiceDown",
    "ServiceError",
    "TimedOut",
    "Unreadable",
    "parse_json",
]

T = TypeVar("T")

_OK: Final = frozenset({200})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: A POST may follow only those that keep the method (RFC 9110, section 15.4).
_REDIRECTS_OF_POST: Final = frozenset({307, 308})
_MAX_REDIRECTS: Final = 5
_REFUSALS: Final = frozenset({429, 503})
_TRANSIENT: Final = frozenset({408, 429})

_MAX_RETRY_AFTER_S: Final = 60.0
_BACK_OFF_BASE_S: Final = 1.0
_BACK_OFF_CAP_S: Final = 60.0

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class ServiceError(Exception):
    """A service did not return what was requested. The message names it, the URL and the remedy.

    `service` is its name, `url` the requested URL, `status` the HTTP status if there was an answer.
    """

    def __init__(
        self, message: str, *, service: str, url: str = "", status: int | None = None
    ) -> None:
        super().__init__(message)
        self.service = service
        self.url = url
        self.status = status


class Unreadable(ServiceError):
    """This request got no usable answer, which says nothing about the requested resource."""


class TimedOut(Unreadable):
    """The service was still working on the request when the time was up."""


class NotFound(ServiceError):
    """The service says that the resource does not exist (HTTP 404)."""


class CredentialsRefused(ServiceError):
    """The service refuses our credentials, and will refuse every further request."""


class ServiceDown(ServiceError):
    """The service has been failing broadly for minutes: the run should stop."""


class BadAnswer(ExchangeFailed):
    """Raised by a function that parses an answer: the answer is unusable, so retry."""


class Origin(NamedTuple):
    """The origin of a URL: scheme, host (lower case) and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of an http or https URL; raise `ValueError` for other text."""
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError("not an http or https URL")
        if "@" in parts.netloc:
            raise ValueError("a URL with a user name or password in it")
        return cls(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])

    @property
    def is_default_port(self) -> bool:
        return self.port == _DEFAULT_PORTS[self.scheme]


def _nowhere_else(_: Origin) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Service:
    """The properties of one service, and how to send requests to it.

    Parameters
    ----------
    name, url_setting, key_settings
        Its name for people, and the settings to name if its URL or its credentials are wrong.
    base_url, contact
        Scheme, host and optionally a path that precedes that of each request; and the operator's
        e-mail address or URL, for `User-Agent`. `Settings` has checked both.
    rate, concurrency
        Requests per second (`None`: no limit of ours), and the number of threads.
    headers, credentials
        Headers of every request, and those of requests made with `authorized=True` only, which are
        sent only to the base URL's own origin or one that `trusts` allows.
    may_redirect_to, trusts
        Which other origins redirects may lead to, and which may get the credentials.
    connect_timeout_s, read_timeout_s, deadline_s, call_s
        The maximum time for a connection, for a silence, for a whole exchange including the body,
        and for a whole call: all its attempts at all its URLs with the pauses between them, but
        without waiting for the rate, ours or that of a 429.
    max_bytes
        The maximum size of a decompressed body, if a call does not set its own limit.
    attempts, patience_s
        How often a call is tried, and how long the service may fail broadly before `ServiceDown`.
    silence_s
        How long no request at all may be answered before `ServiceDown`; `None` for no limit.
    retries_timeouts
        Whether to retry a request that the service was still working on when its time was up.

    `SettingsError` is raised for a header that cannot be sent.
    """

    name: str
    url_setting: str
    base_url: str
    contact: str | None = None
    rate: float | None = None
    concurrency: int = 16
    headers: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    key_settings: str = ""
    may_redirect_to: Callable[[Origin], bool] = _nowhere_else
    trusts: Callable[[Origin], bool] = _nowhere_else
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    deadline_s: float = 60.0
    call_s: float = 120.0
    max_bytes: int = 16 * MEBIBYTE
    attempts: int = 4
    patience_s: float = 180.0
    silence_s: float | None = None
    retries_timeouts: bool = True

    def __post_init__(self) -> None:
        for name, value in self.headers.items():
            _check_header_value(name, value)
        for value in self.credentials.values():
            _check_header_value(self.key_settings, value)

    @property
    def origin(self) -> Origin:
        return Origin.of(self.base_url)


def parse_json(response: Response) -> object:
    """Return the JSON document of an answer; raise `BadAnswer` if it is not complete JSON."""
    try:
        document: object = json.loads(response.body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"the answer is not valid JSON ({type(error).__name__})") from error
    return document


@dataclass(slots=True)
class _Call:
    """The parameters that all attempts at a call have in common, and the seconds that are left."""

    method: str
    urls: tuple[str, ...]
    wanted: frozenset[int]
    seconds_left: float
    max_bytes: int
    authorized: bool = False
    body: bytes | None = None
    content_type: str = ""


class HttpClient:
    """Send requests to one service, from any number of threads; the base of all clients.

    Parameters
    ----------
    service
        The service to call.
    stop_flag
        When it is set, every wait (for the rate, for a retry) ends at once with `Interrupted`, and
        so does an exchange that is not finished within a second.
    budget
        The memory of large answers, if several clients share it.
    clock, uniform
        Monotonic seconds, and random numbers between two bounds.
    """

    def __init__(
        self,
        service: Service,
        *,
        stop_flag: threading.Event,
        budget: Budget | None = None,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.service = service
        self._stop_flag = stop_flag
        self._budget = budget or Budget()
        self._origin = service.origin
        self._clock = clock
        self._wall_clock = wall_clock
        self._uniform = uniform
        self._headers = {
            "User-Agent": _user_agent(service.contact),
            "Accept-Encoding": "gzip",
            **service.headers,
        }
        self._pace = Pace(service.rate, clock=clock, stop_flag=stop_flag)
        self._health = Health(service.patience_s, silence_s=service.silence_s, clock=clock)
        self._meter = Meter()
        self._transport = Transport(
            connections=service.concurrency,
            connect_timeout_s=service.connect_timeout_s,
            read_timeout_s=service.read_timeout_s,
            stop_flag=stop_flag,
        )

    @property
    def name(self) -> str:
        """The service's name for people."""
        return self.service.name

    def get(
        self,
        target: str,
        parse: Callable[[Response], T],
        *,
        alternatives: Sequence[str] = (),
        authorized: bool = False,
        also_wanted: frozenset[int] = frozenset(),
        max_bytes: int | None = None,
    ) -> T:
        """GET `target` and return the result of `parse` for the answer.

        Raises `NotFound`, `CredentialsRefused`, `Unreadable`, `ServiceDown` or `Interrupted`.

        Parameters
        ----------
        target
            A path below the base URL, already percent-encoded.
        parse
            Parses an answer; raises `BadAnswer` if the request should be retried.
        alternatives
            Complete URLs that return the same bytes, tried in turn, once per attempt, if the target
            fails. The caller is responsible for where they lead.
        authorized
            Whether to send the service's credentials.
        also_wanted
            Statuses other than 200 whose answers `parse` gets.
        max_bytes
            The maximum size of the answer; by default, that of the service.
        """
        call = self._call("GET", target, also_wanted, authorized)
        call.urls += tuple(alternatives)
        call.max_bytes = call.max_bytes if max_bytes is None else max_bytes
        return self._perform(call, parse)

    def post_json(
        self,
        target: str,
        document: object,
        parse: Callable[[Response], T],
        *,
        authorized: bool = False,
        also_wanted: frozenset[int] = frozenset(),
    ) -> T:
        """POST a JSON document; otherwise as `get`. Retried on failure, so only for look-ups."""
        call = self._call("POST", target, also_wanted, authorized)
        call.body, call.content_type = json.dumps(document).encode(), "application/json"
        return self._perform(call, parse)

    def post_form(
        self,
        target: str,
        fields: Mapping[str, str],
        parse: Callable[[Response], T],
        *,
        also_wanted: frozenset[int] = frozenset(),
    ) -> T:
        """POST a form; otherwise as `post_json`. Its fields appear in no log and no error."""
        call = self._call("POST", target, also_wanted)
        call.body = urlencode(fields).encode()
        call.content_type = "application/x-www-form-urlencoded"
        return self._perform(call, parse)

    def _call(
        self, method: str, target: str, also_wanted: frozenset[int], authorized: bool = False
    ) -> _Call:
        service, wanted = self.service, _OK | also_wanted
        urls = (service.base_url.rstrip("/") + target,)
        return _Call(method, urls, wanted, service.call_s, service.max_bytes, authorized)

    def stats(self) -> ServiceStats:
        """Return the statistics of the requests so far."""
        return self._meter.stats()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def _perform(self, call: _Call, parse: Callable[[Response], T]) -> T:
        attempts_made = 0
        while True:
            attempts_made += 1
            began = self._clock()
            try:
                self._check_health(call)
                with self._budget.scope():
                    value = self._attempt(call, parse)
            except ExchangeFailed as failure:
                self._note_failure(failure, self._clock() - began)
                self._check_health(call)
                is_final = _is_timeout(failure) and not self.service.retries_timeouts
                if not failure.transient or is_final or attempts_made == self.service.attempts:
                    self._raise_unreadable(call, failure, attempts_made)
                self._back_off(call, failure, attempts_made)
            except (NotFound, CredentialsRefused):
                self._note_success()
                raise
            else:
                self._note_success()
                return value

    def _attempt(self, call: _Call, parse: Callable[[Response], T]) -> T:
        """Try the call's URLs in turn until one of them answers.

        For the service's health, only the success of the call as a whole counts.
        """
        try:
            return parse(self._follow(call, call.urls[0]))
        except ExchangeFailed as failure:
            if not failure.transient or failure.status == 429:
                raise
            last = failure
        absences: list[NotFound] = []
        for url in call.urls[1:]:
            try:
                return parse(self._follow(call, url))
            except NotFound as absence:
                absences.append(absence)
            except ExchangeFailed as failure:
                last = failure
        # A single copy may be missing while the other servers only failed to answer.
        if absences and len(absences) == len(call.urls) - 1:
            raise absences[-1]
        raise last

    def _follow(self, call: _Call, url: str) -> Response:
        """Send the request, and follow redirects."""
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._exchange(call, url)
            if response.status in call.wanted:
                return response
            if response.status not in _REDIRECTS:
                self._raise_for_status(call, response)
            url = self._redirect_target(call, response)
        raise ExchangeFailed(f"more than {_MAX_REDIRECTS} redirects")

    def _exchange(self, call: _Call, url: str) -> Response:
        headers = self._headers
        if call.body is not None:
            headers = {**headers, "Content-Type": call.content_type}
        if call.authorized:
            origin = Origin.of(url)
            if origin == self._origin or self.service.trusts(origin):
                headers = {**headers, **self.service.credentials}
        if call.seconds_left <= 0:
            raise ExchangeFailed(f"not answered within {self.service.call_s:g} s")
        self._pace.take_turn()
        began = self._clock()
        try:
            return self._transport.exchange(
                call.method,
                url,
                headers=headers,
                body=call.body,
                wanted=call.wanted,
                deadline_s=min(self.service.deadline_s, call.seconds_left),
                max_bytes=call.max_bytes,
                budget=self._budget,
            )
        except ExchangeFailed as failure:
            if self._stop_flag.is_set():
                # The stop is the probable cause, and another attempt would be interrupted.
                raise Interrupted("the run is stopping") from failure
            raise
        finally:
            took = self._clock() - began
            call.seconds_left -= took
            self._meter.request(took)

    def _redirect_target(self, call: _Call, response: Response) -> str:
        if call.method == "POST" and response.status not in _REDIRECTS_OF_POST:
            raise ExchangeFailed(f"HTTP {response.status} would turn the POST into a GET")
        try:
            url = urljoin(response.url, response.headers["Location"])
            origin = Origin.of(url)
        except KeyError as error:
            raise ExchangeFailed(f"HTTP {response.status} to nowhere") from error
        except ValueError as error:
            raise ExchangeFailed(f"HTTP {response.status} to {error}") from error
        is_safe = origin.scheme in ("https", self._origin.scheme)
        if origin != self._origin and not (is_safe and self.service.may_redirect_to(origin)):
            raise ExchangeFailed(
                f"HTTP {response.status} to {origin.scheme}://{origin.host}:{origin.port}, "
                "which is not one of its hosts"
            )
        return url

    def _raise_for_status(self, call: _Call, response: Response) -> NoReturn:
        status = response.status
        if status == 404:
            raise self._error(NotFound, f"has nothing at {call.urls[0]} (HTTP 404)", call, status)
        if status in (401, 403) and call.authorized:
            settings = self.service.key_settings
            problem = f"refused {settings}" if self.service.credentials else f"wants {settings} set"
            raise self._error(
                CredentialsRefused,
                f"{problem} (HTTP {status} for {call.urls[0]}): correct the setting and run again",
                call,
                status,
            )
        raise ExchangeFailed(
            f"HTTP {status}",
            transient=status in _TRANSIENT or status >= 500,
            status=status,
            retry_after_s=self._retry_after(response),
        )

    def _retry_after(self, response: Response) -> float | None:
        """Parse `Retry-After`: seconds or an HTTP date (RFC 9110, section 10.2.3)."""
        value = response.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]+", value):
            seconds = float(value)
        else:
            try:
                moment = email.utils.parsedate_to_datetime(value)
            except (ValueError, OverflowError):
                return None
            # Without a time zone it is UTC; the local time zone must not matter.
            moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
            seconds = moment.timestamp() - self._wall_clock()
        return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)

    def _note_success(self) -> None:
        self._health.succeeded()
        self._pace.succeeded()

    def _note_failure(self, failure: ExchangeFailed, took_s: float) -> None:
        if not failure.transient and failure.status not in (401, 403):
            # The service works; it only rejects this request.
            self._note_success()
            return
        if failure.status == 429 and failure.retry_after_s:
            # Too Many Requests concerns the client as a whole, not one of its threads.
            self._pace.hold(failure.retry_after_s)
        is_in_trouble = self._health.failed(failure.reason, took_s)
        if is_in_trouble or failure.status in _REFUSALS:
            self._pace.slow_down()

    def _back_off(self, call: _Call, failure: ExchangeFailed, attempts_made: int) -> None:
        ceiling = min(_BACK_OFF_BASE_S * 2 ** (attempts_made - 1), _BACK_OFF_CAP_S)
        # All threads wait for the delay of a 429 before their next requests.
        asked_for = 0.0 if failure.status == 429 else failure.retry_after_s or 0.0
        # Jitter over the whole range, so that threads that failed together do not retry together.
        pause = asked_for + self._uniform(0.0, ceiling)
        if pause >= call.seconds_left:
            self._raise_unreadable(call, failure, attempts_made)
        self._meter.retry()
        call.seconds_left -= pause
        self._pace.pause(pause)

    def _raise_unreadable(self, call: _Call, failure: ExchangeFailed, attempts: int) -> NoReturn:
        self._meter.error()
        tried = f" in {attempts} attempts" if attempts > 1 else ""
        raise self._error(
            TimedOut if _is_timeout(failure) else Unreadable,
            f"did not answer {call.method} {call.urls[0]}{tried}: {failure.reason}. Try again"
            f" later; if it persists, check {self.service.url_setting}",
            call,
            failure.status,
        ) from failure

    def _check_health(self, call: _Call) -> None:
        if (reason := self._health.down) is None:
            return
        self._meter.error()
        raise self._error(
            ServiceDown,
            f"is down: {reason}. Run again when it has recovered; if it works, check"
            f" {self.service.url_setting}",
            call,
        )

    def _error(
        self, kind: type[ServiceError], what: str, call: _Call, status: int | None = None
    ) -> ServiceError:
        name = self.service.name
        return kind(f"{name} {what}", service=name, url=call.urls[0], status=status)


def _is_timeout(failure: ExchangeFailed) -> bool:
    return isinstance(failure, TooLate) or failure.status == 504


def _user_agent(contact: str | None) -> str:
    product = f"artwork-backfill/{VERSION}"
    return f"{product} ( {contact} )" if contact else product


def _check_header_value(name: str, value: str) -> None:
    """Reject a value that no header can carry, before requests does so and shows the value."""
    if not _HEADER_VALUE.fullmatch(value):
        raise SettingsError(
            f"{name} cannot be sent in a header: use only visible ASCII characters, and spaces "
            "between them"
        )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
