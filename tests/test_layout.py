"""The folders of the checkout, below one import name."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from artwork_backfill.shared.engine.job import Job

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


#: What each part of the product may import of the others, besides itself and the plain modules of
#: `shared`, such as the settings. Each line only names what stands above it: there is no circle.
MAY_IMPORT: dict[str, set[str]] = {
    "shared.engine": set(),
    "shared.audit": set(),
    "shared.clients": set(),
    "shared.auditing": {"shared.audit", "shared.clients", "shared.engine"},
    "shared.review": {"shared.audit", "shared.clients", "shared.engine", "shared.auditing"},
    "dashboard": {"shared.audit", "shared.engine", "shared.auditing", "shared.review"},
    "jobs": {"shared.audit", "shared.clients", "shared.engine", "shared.auditing"},
    "jobs.cli": {
        *("shared.audit", "shared.clients", "shared.engine", "shared.auditing", "shared.review"),
        *("jobs", "dashboard"),
    },
}

#: Of `shared` itself, the engine knows the settings, the figures of clients, and the version.
ENGINE_MAY_IMPORT = {"shared.service_stats", "shared.settings", "shared.version"}


def part_of(module: str) -> str:
    """Return the part of the product that a module belongs to, such as `shared.engine`."""
    known = [part for part in MAY_IMPORT if f"{module}.".startswith(f"{part}.")]
    return max(known, key=len, default=module)


def imports() -> Iterator[tuple[str, str]]:
    """Yield each import within the product: the module, and what it imports."""
    for root in INSTALLED:
        for path in (PROJECT / root).rglob("*.py"):
            module = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [f"{node.module}.{alias.name}" for alias in node.names]
                    if isinstance(node, ast.ImportFrom) and node.module
                    else []
                )
                for name in names:
                    if name.startswith("artwork_backfill."):
                        yield module, name.removeprefix("artwork_backfill.")


def test_imports_point_one_way() -> None:
    wrong = {
        (module, imported)
        for module, imported in imports()
        if (importer := part_of(module)) in MAY_IMPORT
        and (part := part_of(imported)) in MAY_IMPORT
        and part not in MAY_IMPORT[importer] | {importer}
    }
    assert wrong == set()


def test_a_job_imports_no_other_job() -> None:
    jobs = {path.parent.name for path in (PROJECT / "jobs").glob("*/job.py")}
    wrong = {
        (module, imported)
        for module, imported in imports()
        for other in jobs
        if module.startswith("jobs.") and imported.startswith(f"jobs.{other}.")
        if module.split(".")[1] in jobs - {other}
    }
    assert wrong == set()


def test_the_sandbox_is_no_part_of_the_product() -> None:
    for root in INSTALLED:
        for path in (PROJECT / root).rglob("*.py"):
            assert not re.search(r"^\s*(from|import) sandbox\b", path.read_text(), re.MULTILINE), (
                path
            )


def test_the_engine_knows_no_domain() -> None:
    imported = {
        part_of(name)
        for module, name in imports()
        if module.startswith("shared.engine") and not name.startswith("shared.engine")
    }
    assert {".".join(name.split(".")[:2]) for name in imported} <= ENGINE_MAY_IMPORT


@pytest.mark.parametrize("word", ["archive.org", "gid", "cover", "review", "event_queue"])
def test_the_engine_speaks_of_no_domain(word: str) -> None:
    for path in (PROJECT / "shared" / "engine").glob("*.py"):
        if path.name != "tables.py":  # whose messages say how to get the tables of each schema
            assert not re.search(rf"\b{re.escape(word)}s?\b", path.read_text()), path


def test_a_job_author_can_override_eight_methods() -> None:
    methods = {
        name
        for name, member in vars(Job).items()
        if callable(member) and not name.startswith("_") and not getattr(member, "__final__", False)
    }
    assert methods == {
        *("source", "fetch", "groups", "write", "committed", "preview", "verify", "sections")
    }
