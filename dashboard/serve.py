"""Runs Streamlit with the page, and with nothing that a page for few people has no use for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, NoReturn

from artwork_backfill.dashboard import access

PAGE: Final = Path(__file__).with_name("page.py")

#: Streamlit's options that do not depend on the address. A config.toml cannot undo them.
OPTIONS: Final = {
    # No news to Streamlit's makers, no questions at the start.
    "browser.gatherUsageStats": "false",
    "server.headless": "true",
    "server.showEmailPrompt": "false",
    # Pages of other sites can neither read nor steer this one.
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "server.enableAgentApi": "false",
    "server.enableStaticServing": "false",
    "server.maxUploadSize": "1",
    # What went wrong is said by the page; a traceback would show settings.
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "client.toolbarMode": "viewer",
    # Streamlit's own download writes cells that a spreadsheet takes for formulas.
    "client.disableDataExport": "true",
    "global.developmentMode": "false",
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "runner.magicEnabled": "false",
}

_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "::1")


def flags(address: str, port: int, *, login: bool) -> list[str]:
    """Return Streamlit's command line options for serving on an address."""
    chosen = [("server.address", address), ("server.port", str(port)), *OPTIONS.items()]
    if access.is_loopback(address) and not login:
        # A name that somebody else points at this machine must not make their page one of ours.
        chosen += [("server.allowedHosts", host) for host in _THIS_MACHINE]
    return [f"--{name}={value}" for name, value in chosen]


def serve(address: str, port: int) -> NoReturn:
    """Become Streamlit, serving the page; signals then reach it directly."""
    options = flags(address, port, login=access.login_is_configured())
    command = [sys.executable, "-m", "artwork_backfill.dashboard", "run", *options, str(PAGE)]
    sys.stdout.flush()
    os.execv(sys.executable, command)
