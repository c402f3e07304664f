"""What the page is told: the same environment variables as the jobs, and what its command adds.

Streamlit runs the page as a script of its own, so the options of `artwork-backfill dashboard` reach
it through the environment as well.
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
    """One dashboard.

    `by` stands in the notes as the person who acts when there is no login; `allowed` are the
    e-mail addresses, in lower case, of those who may enter when there is one. `hosts` are names
    under which the dashboard is reached besides its address; `pictures` says whether it offers to
    show pictures from archive.org.
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

        Raises `shared.settings.SettingsError` when the database is missing or malformed.
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
