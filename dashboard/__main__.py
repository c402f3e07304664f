"""Streamlit, once the page's libraries are imported: its first visitor would wait for them."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from streamlit.web.cli import main

# Not the page itself, because what it keeps for its visitors needs a server that runs.
_LIBRARIES: Final = ("altair", "pandas", "artwork_backfill.dashboard.desk")

if __name__ == "__main__":
    for name in _LIBRARIES:
        import_module(name)
    main(prog_name="streamlit")
