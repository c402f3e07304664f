"""The configuration of the page: the same environment variables as the jobs, and its command's own.

Streamlit runs the page as a separate script, so the options of `artwork-backfill dashboard` also
reach it through the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from artwork_backfill.shared.engine.log import Redactor
from artwork_backfill.shared.settings import Settings

READ_ONLY: Final = "BACKFILL_DASHBOARD_READ_ONLY"
ALLOW: Final = "BACKFILL_DASHBOARD_ALLOW"
HOSTS: Final = "BACKFILL_DASHBOARD_HOSTS"
PICTURES: Final = "BACKFILL_DASHBOARD_PICTURES"
BY: Final = "BACKFILL_BY"


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of one dashboard.

    `by` is the name in the notes of a person without a login. `allowed` are the e-mail addresses,
    in lower case, of people who may enter with a login. `hosts` are further host names of the
    dashboard. `pictures` says whether it offers to show pictures from archive.org.
    """

    dsn: str = field(repr=False)
    redactor: Redactor = field(repr=False)
    read_only: bool
    by: str
    allowed: frozenset[str]
    hosts: frozenset[str]
    pictures: bool

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """Read the configuration.

        Raises
        ------
        SettingsError
            The database's setting is missing or malformed.
        """
        settings = Settings(environ)
        return cls(
            dsn=settings.musicbrainz_database(),
            redactor=Redactor(settings.secrets()),
            read_only=environ.get(READ_ONLY, "") == "1",
            by=environ.get(BY, "").strip() or "somebody at the dashboard",
            allowed=frozenset(environ.get(ALLOW, "").lower().split()),
            hosts=frozenset(environ.get(HOSTS, "").lower().split()),
            pictures=environ.get(PICTURES, "1") == "1",
        )
