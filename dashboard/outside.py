"""Clients of archive.org and MusicBrainz, used only when a person asks for the current state."""

from __future__ import annotations

import os
from threading import Event
from typing import Final

import streamlit as st

from artwork_backfill.dashboard.database import DashboardDb
from artwork_backfill.shared.auditing.examination import Examiner
from artwork_backfill.shared.auditing.services import Listings, Services
from artwork_backfill.shared.review.explain import examining
from artwork_backfill.shared.settings import Settings

#: Visitors served at the same time.
_AT_ONCE: Final = 2


@st.cache_resource(show_spinner=False)
def services() -> Services:
    """Return the clients, shared by all visitors.

    Raises
    ------
    shared.settings.SettingsError
        If a setting is missing.
    """
    return Services.from_settings(Settings(os.environ), concurrency=_AT_ONCE, stop_flag=Event())


def examiner(database: DashboardDb) -> Examiner:
    """Return an examiner of entities; raises the errors of `services`."""
    return examining(services(), database.reading)


def listings() -> Listings:
    """Return a reader of archive.org's items; it reads the settings at its first use."""
    return Listings(lambda: services().archive)
