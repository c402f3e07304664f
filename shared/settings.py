"""Settings from the environment: names, meanings, and how they are read.

Options of a single command are declared with that command. This module holds what all containers of
a deployment share through their env file. It opens no connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo


class SettingsError(Exception):
    """A setting is missing or malformed. The message names it and gives an example."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable, as in the documentation and `.env.example`."""

    name: str
    meaning: str
    default: str | None = None
    example: str = ""
    secret: bool = False


VARIABLES: Final = (
    Variable(
        "MUSICBRAINZ_DATABASE_URL",
        "database with the schemas musicbrainz, cover_art_archive, event_art_archive and"
        " artwork_indexer",
        example="postgresql://musicbrainz:password@db.example/musicbrainz_db",
        secret=True,
    ),
    Variable(
        "WXYC_DATABASE_URL",
        "database of the WXYC library",
        example="postgresql://wxyc:password@db.example/wxyc",
        secret=True,
    ),
    Variable("WXYC_SCHEMA_NAME", "schema of the WXYC library", "wxyc_schema", "wxyc_schema"),
    Variable(
        "DB_HOST",
        "host of the WXYC library's database, if WXYC_DATABASE_URL is not set",
        example="db.example",
    ),
    Variable("DB_PORT", "port of DB_HOST", example="5432"),
    Variable("DB_NAME", "database on DB_HOST", example="wxyc"),
    Variable("DB_USERNAME", "role on DB_HOST", example="wxyc"),
    Variable("DB_PASSWORD", "password of DB_USERNAME", example="password", secret=True),
    Variable(
        "ARTWORK_HOSTS",
        "hosts that covers of the WXYC library may come from, with their subdomains",
        "discogs.com mzstatic.com",
    ),
    Variable("ARCHIVE_ORG_URL", "the Internet Archive", "https://archive.org"),
    Variable(
        "ARCHIVE_ORG_ACCESS_KEY",
        "S3-like access key, needed to see noindex items in a scan",
        example="AbCdEfGh12345678",
    ),
    Variable(
        "ARCHIVE_ORG_SECRET_KEY",
        "secret key of the access key",
        example="IjKlMnOp87654321",
        secret=True,
    ),
    Variable("ARCHIVE_ORG_RATE", "requests to archive.org: N/s, N/m or unlimited", "2/s", "2/s"),
    Variable(
        "ARCHIVE_ORG_CHANGES_URL",
        "archive.org's Changes API, for seed-from-ia-changes",
        "https://be-api.us.archive.org",
    ),
    Variable("MUSICBRAINZ_URL", "MusicBrainz web service", "https://musicbrainz.org"),
    Variable("MUSICBRAINZ_RATE", "requests to MusicBrainz: N/s, N/m or unlimited", "1/s", "1/s"),
    Variable(
        "MUSICBRAINZ_SET_DATABASE",
        "value of the mb-set-database header, for hosts that support it",
        example="READWRITE",
    ),
    Variable(
        "LIBRARY_METADATA_URL", "Library Metadata Lookup service", example="https://lml.example"
    ),
    Variable(
        "LML_API_KEY",
        "bearer token for Library Metadata Lookup",
        example="a1b2c3d4e5f6",
        secret=True,
    ),
    Variable("LML_RATE", "requests to Library Metadata Lookup: N/s, N/m or unlimited", "unlimited"),
    Variable(
        "BACKFILL_CONTACT",
        "e-mail address or URL for the User-Agent; required by the public hosts",
        example="ops@example.org",
    ),
    Variable(
        "SENTRY_DSN",
        "Sentry project that errors are reported to; none by default",
        example="https://key@sentry.example/1",
        secret=True,
    ),
    Variable(
        "BACKFILL_PING_URL",
        "URL of a health-check service, requested by each run: with /start when it starts, as it is"
        " after a success, with /fail after a failure",
        example="https://health.example/5c1f2d34-7a3b-4c0e-9a7d-2f0f7b9d1c11",
        secret=True,
    ),
    Variable("SENTRY_ENVIRONMENT", "environment name in Sentry", example="production"),
)
_BY_NAME: Final = {variable.name: variable for variable in VARIABLES}

#: Hosts whose operators require a contact.
PUBLIC_HOSTS: Final = ("archive.org", "be-api.us.archive.org", "musicbrainz.org")

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]{0,30}://\S+", re.IGNORECASE)
_PASSWORD_PARAMETER: Final = re.compile(r"[?&](?:ssl)?password=([^&#]*)")
_DELIMITERS_OF_HOST: Final = re.compile(r"[/?#]")
_DELIMITERS: Final = re.compile(r"[@/?#]")
#: Shorter values in a query, such as a page number, are not secrets.
_SHORTEST_VALUE: Final = 6
_HOST: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*")
_SCHEMA_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_MOST_PER_SECOND: Final = 1e6
#: Shorter segments of a path are words.
_SHORTEST_KEY: Final = 12
_RATE: Final = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?:\s*/\s*(?P<unit>s|m|h))?", re.IGNORECASE
)
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The URL of a web service, and the rate of requests.

    `rate` is in requests per second, `None` for no limit of ours.
    """

    base_url: str
    rate: float | None


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment, read on demand: only the settings that a job needs are checked.

    Parameters
    ----------
    environ
        Variables by name, usually `os.environ`. An empty value counts as not set, because
        `docker run --env-file` passes `NAME=` as an empty string.
    """

    environ: Mapping[str, str] = field(repr=False)

    def get(self, name: str) -> str | None:
        """Return the value of a variable, its default, or `None`."""
        value = self.environ.get(name, "").strip()
        if not is_utf8(value):
            # For example a byte of Latin-1.
            raise _problem(name, "is not UTF-8")
        return value or _BY_NAME[name].default

    def require(self, name: str) -> str:
        """Return the value of a variable; raise `SettingsError` if it is not set."""
        value = self.get(name)
        if value is None:
            raise _problem(name, "is not set")
        return value

    def musicbrainz_database(self) -> str:
        """Return the connection string of the MusicBrainz database."""
        return self._database("MUSICBRAINZ_DATABASE_URL")

    def wxyc_database(self) -> str:
        """Return the connection string of the WXYC library's database.

        WXYC's own env files have `DB_HOST` and others instead of a URL.
        """
        host = self.get("DB_HOST")
        if host is None or self.get("WXYC_DATABASE_URL") is not None:
            return self._database("WXYC_DATABASE_URL")
        port = self.get("DB_PORT")
        if port is not None and not (port.isascii() and port.isdecimal() and int(port) < 65_536):
            raise _problem("DB_PORT", "is not a port")
        return make_conninfo(
            host=host,
            port=port,
            dbname=self.require("DB_NAME"),
            user=self.require("DB_USERNAME"),
            password=self.get("DB_PASSWORD"),
        )

    def artwork_hosts(self) -> tuple[str, ...]:
        """Return the hosts that covers may come from, including their subdomains."""
        hosts = tuple(self.require("ARTWORK_HOSTS").lower().replace(",", " ").split())
        if not all(map(_HOST.fullmatch, hosts)):
            raise _problem("ARTWORK_HOSTS", "is not a list of host names")
        return hosts

    def wxyc_schema(self) -> str:
        """Return the name of the WXYC library's schema, a plain SQL identifier."""
        name = self.require("WXYC_SCHEMA_NAME")
        if not _SCHEMA_NAME.fullmatch(name):
            raise _problem("WXYC_SCHEMA_NAME", "is not a plain schema name")
        return name

    def archive_org(self) -> Endpoint:
        """Return the endpoint of archive.org."""
        return self._endpoint("ARCHIVE_ORG_URL", "ARCHIVE_ORG_RATE")

    def archive_org_changes(self) -> Endpoint:
        """Return the endpoint of archive.org's Changes API; it has archive.org's rate."""
        return self._endpoint("ARCHIVE_ORG_CHANGES_URL", "ARCHIVE_ORG_RATE")

    def archive_org_keys(self) -> tuple[str, str] | None:
        """Return archive.org's access and secret key, or `None` if neither is set."""
        access, secret = self.get("ARCHIVE_ORG_ACCESS_KEY"), self.get("ARCHIVE_ORG_SECRET_KEY")
        if access is None and secret is None:
            return None
        return self.require("ARCHIVE_ORG_ACCESS_KEY"), self.require("ARCHIVE_ORG_SECRET_KEY")

    def musicbrainz(self) -> Endpoint:
        """Return the endpoint of the MusicBrainz web service."""
        return self._endpoint("MUSICBRAINZ_URL", "MUSICBRAINZ_RATE")

    def lml(self) -> Endpoint:
        """Return the endpoint of Library Metadata Lookup."""
        return self._endpoint("LIBRARY_METADATA_URL", "LML_RATE")

    def contact(self) -> str | None:
        """Return the contact for the User-Agent; it must be valid in a header."""
        contact = self.get("BACKFILL_CONTACT")
        if contact is not None and not (contact.isascii() and contact.isprintable()):
            raise _problem("BACKFILL_CONTACT", "has characters that no header can carry")
        return contact

    def sentry_dsn(self) -> str | None:
        """Return the Sentry DSN, or `None` if errors are not reported."""
        dsn = self.get("SENTRY_DSN")
        if dsn is None:
            return None
        # Imported only if needed, because it takes a tenth of a second.
        from sentry_sdk.utils import Dsn

        try:
            Dsn(dsn)
        except ValueError:
            # Its message contains the DSN.
            raise _problem("SENTRY_DSN", "is not a Sentry DSN") from None
        return dsn

    def ping_url(self) -> str | None:
        """Return the URL of a health-check service, or `None`."""
        url = self.get("BACKFILL_PING_URL")
        if url is None:
            return None
        parts = _http_parts(url)
        if parts is None or parts.fragment:
            # The URL itself is a secret.
            raise _problem("BACKFILL_PING_URL", "is not an http or https URL")
        return url

    def secrets(self) -> frozenset[str]:
        """Return every text that no log, report or error may show.

        These are the secret variables and the passwords in connection strings, as written and
        percent-decoded.
        """
        values: set[str] = set()
        for variable in VARIABLES:
            value = self.environ.get(variable.name, "").strip()
            if not (variable.secret and value):
                continue
            if variable.name.endswith("_DATABASE_URL"):
                values.update(_passwords(value))
            else:
                values.add(value)
            if variable.name == "BACKFILL_PING_URL":
                values.update(_keys(value))
        return frozenset(values)

    def _database(self, name: str) -> str:
        dsn = self.require(name)
        try:
            conninfo_to_dict(dsn)
        except ProgrammingError:
            # libpq's own message contains the string, and so the password.
            raise _problem(name, "is not a PostgreSQL connection string") from None
        if "://" in dsn and _credentials(dsn)[2]:
            raise _problem(
                name,
                "has a user or password with an @, / or : in it, which must be percent-encoded"
                " there (%40, %2F, %3A)",
            )
        return dsn

    def _endpoint(self, url_name: str, rate_name: str) -> Endpoint:
        url = self.require(url_name).rstrip("/")
        parts = _http_parts(url)
        if parts is None:
            raise _problem(url_name, "is not an http or https URL")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise _problem(url_name, "must contain only scheme, host, port and path")
        host = str(parts.hostname)
        if host.removeprefix("www.") in PUBLIC_HOSTS and self.contact() is None:
            raise SettingsError(
                f"BACKFILL_CONTACT is not set, and {host} asks every client to name a contact: "
                "set it to an e-mail address or URL, for example BACKFILL_CONTACT=ops@example.org"
            )
        return Endpoint(url, self._rate(rate_name))

    def _rate(self, name: str) -> float | None:
        text = self.require(name)
        if text.lower() == "unlimited":
            return None
        match = _RATE.fullmatch(text)
        if match is None or not 0 < float(match["number"]) < _MOST_PER_SECOND:
            raise _problem(name, f"is {text!r}, which is not a rate like 2/s, 100/m or unlimited")
        return float(match["number"]) / _SECONDS[(match["unit"] or "s").lower()]


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded; one from outside may hold half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _http_parts(url: str) -> SplitResult | None:
    """Return the parts of an http or https URL, `None` for another text."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname else None


def env_example() -> str:
    """Return the content of `.env.example`: every variable, ready to be filled in."""
    head = "# Copy to .env and fill in what your jobs need; an empty value counts as not set.\n"
    return head + "".join(_env_example(variable) for variable in VARIABLES)


def _env_example(variable: Variable) -> str:
    example = "" if variable.default else f"\n# for example {variable.example}"
    return f"\n# {variable.meaning}{example}\n{variable.name}={variable.default or ''}\n"


def _problem(name: str, what: str) -> SettingsError:
    variable = _BY_NAME[name]
    example = variable.example or variable.default or "..."
    return SettingsError(
        f"{name} {what} ({variable.meaning}): set it, for example {name}={example}"
    )


def url_secrets(text: str) -> set[str]:
    """Return the secret parts of the URLs in a text: users, passwords, and queries."""
    found: set[str] = set()
    for url in _URL.findall(text):
        user, password, _ = _credentials(url)
        query = url.partition("?")[2].partition("#")[0]
        values = (pair.partition("=")[2] for pair in query.split("&"))
        found |= _spellings(user, password, query)
        found |= _spellings(*(value for value in values if len(value) >= _SHORTEST_VALUE))
    return found


def _keys(url: str) -> set[str]:
    """Return the secret parts of a URL: a password, and long segments of its path."""
    parts = _http_parts(url)
    if parts is None:
        return set()
    segments = {part for part in parts.path.split("/") if len(part) >= _SHORTEST_KEY}
    return {text for text in (*segments, parts.query, parts.password or "") if text}


def _passwords(dsn: str) -> set[str]:
    """Return the parts of a connection string that may belong to a password."""
    found: set[str] = set()
    try:
        found.add(str(conninfo_to_dict(dsn).get("password") or ""))
    except (ProgrammingError, UnicodeEncodeError):
        # Not even libpq knows where the password is: hide the whole string.
        found.add(dsn)
    user, password, is_ambiguous = _credentials(dsn)
    found.update([password, *_PASSWORD_PARAMETER.findall(dsn)])
    if is_ambiguous:
        # libpq's messages contain what it takes for a host, a port or a database.
        found.update([f"{user}:{password}", *_DELIMITERS.split(password)])
    return _spellings(*found)


def _credentials(url: str) -> tuple[str, str, bool]:
    """Return user and password of a URL, and whether it is ambiguous.

    For some parsers a password ends at an unencoded `@` or `/`. Here it ends at the last possible
    `@`.
    """
    rest = url.partition("://")[2]
    netloc = _DELIMITERS_OF_HOST.split(rest, maxsplit=1)[0]
    is_cut = "@" not in netloc and ":" in netloc and "@" in rest
    before_host = (rest if is_cut else netloc).rpartition("@")[0]
    user, _, password = before_host.partition(":")
    return user, password, is_cut or "@" in before_host


def _spellings(*texts: str) -> set[str]:
    """Return texts as written in a URL and as decoded, because messages may contain either."""
    found = {spelling for text in texts for spelling in (text, unquote(text))}
    found |= {
        quote(text, safe, errors="surrogateescape") for text in tuple(found) for safe in ("", "/")
    }
    return found - {""}
