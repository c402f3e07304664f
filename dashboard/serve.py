"""Starts Streamlit with the page behind `guard`, without features that the page does not use.

`serve` replaces the command's process by a new one, so that signals reach the server directly;
`run` is what that process executes.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

import streamlit as st
from starlette.middleware import Middleware
from streamlit import net_util

from artwork_backfill.dashboard import access, downloads
from artwork_backfill.dashboard.config import Config
from artwork_backfill.dashboard.guard import Guard

PAGE: Final = Path(__file__).with_name("page.py")

#: Streamlit's options that do not depend on the address. A config.toml cannot override them.
OPTIONS: Final = {
    # No usage statistics, and no questions at the start.
    "browser.gatherUsageStats": False,
    "server.headless": True,
    "server.showEmailPrompt": False,
    # Pages of other sites can neither read nor control this one; `guard` has the stricter rules.
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.enableAgentApi": False,
    "server.enableStaticServing": False,
    "server.maxUploadSize": 1,
    # The page reports errors itself; a traceback would show settings.
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "client.toolbarMode": "viewer",
    # Streamlit's own download writes cells that a spreadsheet interprets as formulas.
    "client.disableDataExport": True,
    "global.developmentMode": False,
    "server.fileWatcherType": "none",
    "server.runOnSave": False,
    "runner.magicEnabled": False,
}

ADDRESS: Final = "BACKFILL_DASHBOARD_ADDRESS"
PORT: Final = "BACKFILL_DASHBOARD_PORT"

# Imported before the first visitor, who would have to wait for them otherwise. Not the page itself,
# because what it keeps for its visitors needs a running server.
_LIBRARIES: Final = ("altair", "pandas", "artwork_backfill.dashboard.database")


def serve(address: str, port: int) -> NoReturn:
    """Replace this process by one that serves the page."""
    os.environ[ADDRESS] = address
    os.environ[PORT] = str(port)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "artwork_backfill.dashboard"])


def run() -> None:
    """Serve the page with the settings of the environment, until a signal ends it."""
    for name in _LIBRARIES:
        import_module(name)
    address = os.environ.get(ADDRESS, "127.0.0.1")
    port = int(os.environ.get(PORT, "8501"))
    config = Config.from_environ(os.environ)
    _ask_no_outside_host()
    hosts = access.hosts(address, config.hosts)
    app = st.App(
        PAGE,
        middleware=[Middleware(Guard, hosts=hosts, pictures=config.pictures)],
        routes=[downloads.ROUTE],
    )
    app.run(config={**OPTIONS, "server.address": address, "server.port": port})


def _ask_no_outside_host() -> None:
    """Keep Streamlit from asking an outside host for this machine's address.

    It does so at the start if it listens on every address, and when a foreign origin connects.
    """
    net_util.get_external_ip = lambda: None
    net_util.get_internal_ip = lambda: None
