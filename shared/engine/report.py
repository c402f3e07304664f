"""The report: the last output of every run, and its formats.

One structure (`Report`); tables on a terminal, JSON for machines, Markdown for tickets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from artwork_backfill.shared.engine.job import Note, Problem, Section, Verification
from artwork_backfill.shared.engine.log import plain
from artwork_backfill.shared.service_stats import ServiceStats

#: The number of problems that are listed; the totals count all.
LISTED_PROBLEMS: Final = 50


class Outcome(StrEnum):
    """How a run ended, with its exit code."""

    #: It reached its end, and the verification holds (0).
    VERIFIED = "verified"
    #: It reached its end or its limit, but the verification does not hold, or rows failed (3).
    UNVERIFIED = "unverified"
    #: By a limit or on request (0), or by a signal (128 + signal); finished work is committed.
    STOPPED = "stopped"
    #: By an outside cause, such as a service that is down: run it again later (75).
    INTERRUPTED = "interrupted"
    #: By something that a person has to fix (1, or 2 if nothing was changed).
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about one run."""

    run_id: str
    job: str
    version: str
    started_at: datetime
    finished_at: datetime
    outcome: Outcome
    exit_code: int
    #: One sentence: why the run ended.
    reason: str
    dry_run: bool
    options: Mapping[str, object]
    totals: Mapping[str, int]
    requests: Mapping[str, ServiceStats]
    verification: Sequence[Verification]
    problems: Sequence[Problem]
    notes: Sequence[Note] = ()
    sections: Sequence[Section] = ()
    #: Next steps for a person, in sentences; not part of the JSON.
    next_steps: Sequence[str] = ()

    @property
    def duration_s(self) -> float:
        return round((self.finished_at - self.started_at).total_seconds(), 3)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, ready for JSON."""
        return {
            **{name: getattr(self, name) for name in _KEYS},
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat(),
            "outcome": str(self.outcome),
            "requests": {service: asdict(stats) for service, stats in self.requests.items()},
            "verification": [asdict(item) for item in self.verification],
            "notes": [asdict(note) for note in self.notes],
            "problems": [{"what": each.what, "detail": each.detail} for each in self.problems],
            **{section.key: section.data for section in self.sections},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return a report from the values of `as_dict`; sections become plain tables."""
        kept = {name: value for name, value in values.items() if name in _FIELDS}
        kept["started_at"] = datetime.fromisoformat(values["started_at"])
        kept["finished_at"] = datetime.fromisoformat(values["finished_at"])
        kept["outcome"] = Outcome(values["outcome"])
        kept["requests"] = {key: ServiceStats(**each) for key, each in values["requests"].items()}
        kept["verification"] = [Verification(**item) for item in values["verification"]]
        kept["notes"] = [Note(**note) for note in values["notes"]]
        kept["problems"] = [Problem(**problem) for problem in values["problems"]]
        sections = [_plain_section(key, data) for key, data in values.items() if key not in _KEYS]
        return cls(**kept, sections=sections)


_FIELDS: Final = [f.name for f in fields(Report) if f.name not in ("sections", "next_steps")]
#: The keys of every report in JSON; those of its sections are added.
_KEYS: Final = (*_FIELDS, "duration_s")


def _plain_section(key: str, data: object) -> Section:
    """Return the data of a section as a plain table, because its own layout is not stored."""
    title = key.replace("_", " ").capitalize()
    rows = list(data.items()) if isinstance(data, Mapping) else [("", row) for row in _list(data)]
    columns = list(
        dict.fromkeys(str(name) for _, row in rows if isinstance(row, Mapping) for name in row)
    )
    if columns and all(isinstance(row, Mapping) for _, row in rows):
        cells = [(str(name), *(_cell(row.get(column)) for column in columns)) for name, row in rows]
        return Section(key, title, ("What", *columns), tuple(cells), data)
    plain_cells = tuple((str(name), _cell(value)) for name, value in rows)
    return Section(key, title, ("What", "Value"), plain_cells, data)


def _list(data: object) -> list[Any]:
    return data if isinstance(data, list) else [data]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def headline(report: Report) -> str:
    """Return what happened, in one line."""
    dry = " (dry run: nothing was changed)" if report.dry_run else ""
    return f"{report.job}: {report.outcome}{dry}, {report.reason} after {report.duration_s:.1f} s"


# -- tables, for the terminal and for Markdown -----------------------------------------------------


_NUMBER: Final = re.compile(r"-?[\d,.]+ ?%?")


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]

    def is_text(self, position: int) -> bool:
        """Return whether a column holds anything but numbers, such as 1,234 or 0.8%."""
        cells = [row[position] for row in self.cells()]
        return not any(cells) or not all(_NUMBER.fullmatch(cell) for cell in cells if cell)

    def cells(self) -> list[list[str]]:
        return [[f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in self.rows]


def _tables(report: Report) -> list[_Table]:
    verification = [
        ("✓" if item.ok else "✗", item.name, item.expected, item.actual, item.detail)
        for item in report.verification
    ]
    notes = [(note.name, note.value, note.detail) for note in report.notes]
    requests = [
        (service, s.requests, s.retries, s.errors, f"{s.p50_ms:.0f}", f"{s.p95_ms:.0f}")
        for service, s in report.requests.items()
    ]
    problems = [(problem.what, problem.detail) for problem in report.problems]
    tables = [
        _Table("Totals", ("What", "Rows"), list(report.totals.items())),
        _Table("Verification", ("", "What", "Expected", "Actual", "Detail"), verification),
        _Table("For information", ("What", "Number", "Detail"), notes),
        *(_Table(s.title, s.columns, s.rows) for s in report.sections),
        _Table(
            "Requests", ("Service", "Requests", "Retries", "Errors", "p50 ms", "p95 ms"), requests
        ),
        _Table("Problems", ("What", "Detail"), problems),
    ]
    return [table for table in tables if table.rows]


# -- formats -----------------------------------------------------------------------------------


def to_json(report: Report) -> str:
    """Return the report as a JSON document."""
    return json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n"


def to_markdown(report: Report) -> str:
    """Return the report as Markdown, to paste into a ticket."""
    lines = [
        f"# {_markdown(headline(report))}",
        "",
        f"- run: `{report.run_id}`, version {report.version}",
        f"- from {report.started_at:%FT%TZ} to {report.finished_at:%FT%TZ}",
        f"- exit code: {report.exit_code}",
        f"- throughput: {_throughput(report)}",
        f"- options: {_markdown(_options(report)) or 'defaults'}",
        *(f"- next: {plain(step)}".replace("\n", " ") for step in _next_steps(report)),
    ]
    for table in _tables(report):
        lines += ["", f"## {table.title}", "", _markdown_row(table.columns)]
        rules = ("---" if table.is_text(i) else "--:" for i in range(len(table.columns)))
        lines.append("| " + " | ".join(rules) + " |")
        lines += [_markdown_row(row) for row in table.cells()]
    return "\n".join(lines) + "\n"


def to_terminal(report: Report) -> RenderableType:
    """Return the report as tables for a terminal."""
    style = "bold green" if report.exit_code == 0 or report.exit_code > 128 else "bold red"
    parts: list[RenderableType] = [
        Text(plain(headline(report)), style=style),
        *(Text(f"Next: {plain(step)}") for step in _next_steps(report)),
    ]
    for shown in _tables(report):
        table = Table(title=shown.title, title_justify="left", title_style="bold")
        for position, column in enumerate(shown.columns):
            justify: JustifyMethod = "left" if shown.is_text(position) else "right"
            table.add_column(column, justify=justify, overflow="fold")
        for row in shown.cells():
            # Text, not markup: names and messages may contain anything.
            table.add_row(*(Text(plain(cell)) for cell in row))
        parts.append(table)
    return Group(*parts)


_WRITERS: Final[Mapping[str, Callable[[Report], str]]] = {".json": to_json, ".md": to_markdown}
REPORT_SUFFIXES: Final = tuple(_WRITERS)


def save(report: Report, path: Path) -> None:
    """Write the report to a file, in the format of its suffix."""
    text = _WRITERS[path.suffix](report)
    # A reader that waits for the file must never see a part of it.
    unfinished = path.with_name(f".{path.name}.{report.run_id}")
    unfinished.write_text(text, encoding="utf-8", errors="replace")
    unfinished.replace(path)


def _throughput(report: Report) -> str:
    scanned = report.totals.get("scanned", 0)
    rate = scanned / report.duration_s if report.duration_s else 0.0
    return f"{scanned:,} rows in {report.duration_s:.1f} s, {rate:,.1f} rows/s"


def _options(report: Report) -> str:
    """Return the chosen options, except for the report's own path."""
    chosen = {name: value for name, value in report.options.items() if name != "reports"}
    # 0 is a choice, too.
    return ", ".join(
        f"{name}={value}"
        for name, value in chosen.items()
        if value is not None and value is not False and value not in ("", [])
    )


def _next_steps(report: Report) -> list[str]:
    command = f"`artwork-backfill {report.job}`"
    steps = {
        Outcome.VERIFIED: "running it again is safe.",
        Outcome.STOPPED: f"run {command} again to continue with the remaining rows.",
        Outcome.INTERRUPTED: f"run {command} again later to continue with the remaining rows.",
        Outcome.UNVERIFIED: (
            f"check the lines marked ✗ and the problems, fix the cause, and run {command} again."
        ),
        Outcome.FAILED: f"fix the cause and run {command} again; committed work stays.",
    }
    if report.outcome is Outcome.VERIFIED and report.dry_run:
        return [f"run {command} without --dry-run to make these changes."]
    if report.outcome is Outcome.VERIFIED and report.totals.get("deferred"):
        return [f"run {command} again later for the deferred rows.", *report.next_steps]
    if report.outcome is Outcome.VERIFIED and report.next_steps:
        return list(report.next_steps)
    return [steps[report.outcome], *report.next_steps]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_markdown(cell) for cell in cells) + " |"


def _markdown(text: str) -> str:
    """Return text with everything escaped that Markdown, or HTML within it, would interpret."""
    escaped = plain(text).replace("\\", "\\\\").replace("\n", " ").replace("\t", " ")
    for char in "|`*_[]<>#!":
        escaped = escaped.replace(char, f"\\{char}" if char not in "<>" else f"&#{ord(char)};")
    return escaped
