"""The catalogue of checks for people: as a table on a terminal, and as the documentation has it."""

from __future__ import annotations

import json
from dataclasses import asdict

from artwork_backfill.shared.audit.catalogue import CHECKS, Check
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

_COLUMNS = ("Check", "Severity", "Entity", "What differs", "Remedy", "Note")


def to_terminal() -> RenderableType:
    """Return the catalogue as a rich table."""
    table = Table()
    for column in _COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column == "Check")
    for check in CHECKS.values():
        table.add_row(*map(Text, _row(check)))
    return table


def to_markdown() -> str:
    """Return the catalogue as a Markdown table."""
    lines = [_line(_COLUMNS), _line(("---",) * len(_COLUMNS))]
    for check in CHECKS.values():
        name, *rest = _row(check)
        lines.append(_line((f"`{name}`", *rest)))
    return "\n".join(lines)


def to_json() -> str:
    """Return the catalogue as a JSON array."""
    checks = [asdict(check) | {"severity": check.severity.label} for check in CHECKS.values()]
    return json.dumps(checks, indent=2)


def _row(check: Check) -> tuple[str, ...]:
    return (
        check.name,
        check.severity.label,
        check.applies,
        check.summary,
        str(check.remedy),
        check.note,
    )


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
