"""The folders of the checkout, below one import name."""

from __future__ import annotations

import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
INSTALLED = ("dashboard", "jobs", "shared")


def test_every_folder_of_the_product_is_installed_below_one_import_name() -> None:
    folders = {
        "artwork_backfill." + ".".join(path.parent.relative_to(PROJECT).parts)
        for root in INSTALLED
        for path in (PROJECT / root).rglob("__init__.py")
    }
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]

    assert set(settings["packages"]) == folders | {
        "artwork_backfill.sql.migrations",
        "artwork_backfill.sql.wxyc",
    }
