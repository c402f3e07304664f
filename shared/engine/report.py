"""The report: the last thing every run produces, and the three forms people read it in.

One structure (`Report`); a rich table on a terminal, JSON for machines, Markdown for tickets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from artwork_backfill.shared.engine.job import (
    FindingCount,
    Problem,
    Section,
    ServiceStats,
    Verification,
)
from artwork_backfill.shared.engine.log import plain
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

#: Problems that are listed; the totals have the number of all.
LISTED_PROBLEMS: Final = 50


class Outcome(StrEnum):
    """How a run ended."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    #: By a limit, a guardrail or a signal; everything until then is committed.
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is to be said about one run."""

    run_id: str
    job: str
    version: str
    started_at: datetime
    finished_at: datetime
    #: One sentence: why the run ended.
    reason: str
    outcome: Outcome
    exit_code: int
    dry_run: bool
    options: Mapping[str, object]
    totals: Mapping[str, int]
    requests: Mapping[str, ServiceStats]
    findings: Mapping[str, FindingCount]
    verification: Sequence[Verification]
    problems: Sequence[Problem]
    #: What else a person should do, in sentences; for people, so not part of the JSON.
    next_steps: Sequence[str] = ()
    #: Tables of this job alone.
    sections: Sequence[Section] = ()

    @property
    def duration_s(self) -> float:
        return round((self.finished_at - self.started_at).total_seconds(), 3)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, ready for JSON."""
        return {
            "run_id": self.run_id,
            "job": self.job,
            "version": self.version,
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat(),
            "duration_s": self.duration_s,
            "outcome": str(self.outcome),
            "exit_code": self.exit_code,
            "reason": self.reason,
            "dry_run": self.dry_run,
            "options": dict(self.options),
            "totals": dict(self.totals),
            "requests": {
                service: {
                    "requests": stats.requests,
                    "retries": stats.retries,
                    "errors": stats.errors,
                    "p50_ms": round(stats.p50_ms, 1),
                    "p95_ms": round(stats.p95_ms, 1),
                }
                for service, stats in self.requests.items()
            },
            "findings": {
                check: {"entities": count.entities, "findings": count.findings}
                for check, count in self.findings.items()
            },
            "verification": [
                {
                    "name": item.name,
                    "expected": item.expected,
                    "actual": item.actual,
                    "ok": item.ok,
                    "detail": item.detail,
                }
                for item in self.verification
            ],
            "problems": [
                {"what": problem.what, "detail": problem.detail} for problem in self.problems
            ],
            **{section.key: section.data for section in self.sections},
        }


def headline(report: Report) -> str:
    """Return what happened, in one line."""
    dry = " (dry run: nothing was changed)" if report.dry_run else ""
    return f"{report.job}: {report.outcome}{dry}, {report.reason} after {report.duration_s:.1f} s"


# -- tables, as both the terminal and Markdown show them ------------------------------------------


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    #: So many columns hold text; those to the right of them hold numbers, but for details.
    text_columns: int = 1

    def is_text(self, position: int) -> bool:
        return position < self.text_columns or self.columns[position] == "Detail"


def _sections(report: Report) -> list[_Section]:
    sections = [
        _Section("Totals", ("What", "Rows"), tuple((k, f"{v:,}") for k, v in report.totals.items()))
    ]
    if report.verification:
        sections.append(
            _Section(
                "Verification",
                ("", "What", "Expected", "Actual", "Detail"),
                tuple(
                    (
                        "✓" if item.ok else "✗",
                        item.name,
                        f"{item.expected:,}",
                        f"{item.actual:,}",
                        item.detail,
                    )
                    for item in report.verification
                ),
                text_columns=2,
            )
        )
    if report.findings:
        sections.append(_findings_section(report))
    sections += [
        _Section(section.title, section.columns, section.rows, text_columns=len(section.columns))
        for section in report.sections
    ]
    if report.requests:
        sections.append(
            _Section(
                "Requests",
                ("Service", "Requests", "Retries", "Errors", "p50 ms", "p95 ms"),
                tuple(
                    (
                        service,
                        f"{stats.requests:,}",
                        f"{stats.retries:,}",
                        f"{stats.errors:,}",
                        f"{stats.p50_ms:.0f}",
                        f"{stats.p95_ms:.0f}",
                    )
                    for service, stats in report.requests.items()
                ),
            )
        )
    if report.problems:
        sections.append(
            _Section(
                "Problems",
                ("What", "Detail"),
                tuple((problem.what, problem.detail) for problem in report.problems),
                text_columns=2,
            )
        )
    return sections


def _findings_section(report: Report) -> _Section:
    audited = report.totals.get("audited", 0)
    return _Section(
        "Findings",
        ("Check", "Entities", "Findings", "Share of audited"),
        tuple(
            (
                check,
                f"{count.entities:,}",
                f"{count.findings:,}",
                f"{count.entities / audited:.1%}" if audited else "",
            )
            for check, count in report.findings.items()
        ),
    )


# -- the three forms ---------------------------------------------------------------------------


def to_json(report: Report) -> str:
    """Return the report as a JSON document."""
    return json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n"


def to_markdown(report: Report) -> str:
    """Return the report as something to paste into a ticket."""
    lines = [
        f"# {_markdown(headline(report))}",
        "",
        f"- run: `{report.run_id}`, version {report.version}",
        f"- from {report.started_at:%F %T} to {report.finished_at:%F %T} UTC",
        f"- exit code: {report.exit_code}",
        f"- throughput: {_throughput(report)}",
        f"- options: {_markdown(_options(report)) or 'defaults'}",
        *(f"- how to go on: {step}" for step in _next_steps(report)),
    ]
    for section in _sections(report):
        lines += ["", f"## {section.title}", "", _markdown_row(section.columns)]
        rules = ("---" if section.is_text(i) else "--:" for i in range(len(section.columns)))
        lines.append("| " + " | ".join(rules) + " |")
        lines += [_markdown_row(row) for row in section.rows]
    return "\n".join(lines) + "\n"


def to_terminal(report: Report) -> RenderableType:
    """Return the report as rich tables."""
    good = report.outcome in (Outcome.VERIFIED, Outcome.STOPPED) and report.exit_code != 1
    parts: list[RenderableType] = [
        Text(plain(headline(report)), style="bold green" if good else "bold red"),
        *(Text(f"How to go on: {step}") for step in _next_steps(report)),
    ]
    for section in _sections(report):
        table = Table(title=section.title, title_justify="left", title_style="bold")
        for position, column in enumerate(section.columns):
            justify: JustifyMethod = "left" if section.is_text(position) else "right"
            table.add_column(column, justify=justify, overflow="fold")
        for row in section.rows:
            # Text, not markup: names and messages may hold anything.
            table.add_row(*(Text(plain(cell)) for cell in row))
        parts.append(table)
    return Group(*parts)


_WRITERS: Final[Mapping[str, Callable[[Report], str]]] = {".json": to_json, ".md": to_markdown}
REPORT_SUFFIXES: Final = tuple(_WRITERS)


def save(report: Report, path: Path) -> None:
    """Write the report to a file, as its suffix says.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    text = _WRITERS[path.suffix](report)
    # Whoever waits for the file must never see half of it.
    unfinished = path.with_name(f".{path.name}.{report.run_id}")
    unfinished.write_text(text, encoding="utf-8", errors="replace")
    unfinished.replace(path)


def show(report: Report, console: Console) -> None:
    """Print the report on a terminal."""
    console.print(to_terminal(report))


def _throughput(report: Report) -> str:
    scanned = report.totals.get("scanned", 0)
    rate = scanned / report.duration_s if report.duration_s else 0.0
    return f"{scanned:,} rows in {report.duration_s:.1f} s, {rate:,.1f} rows/s"


def _options(report: Report) -> str:
    """Return what was chosen; where the report went is no choice that matters."""
    chosen = {name: value for name, value in report.options.items() if name != "reports"}
    # 0 is a choice, too.
    return ", ".join(
        f"{name}={value}"
        for name, value in chosen.items()
        if value is not None and value is not False and value not in ("", [])
    )


def _next_steps(report: Report) -> list[str]:
    command = f"`artwork-backfill {report.job}`"
    match report.outcome:
        case Outcome.VERIFIED if report.dry_run:
            return [f"run {command} without --dry-run to make these changes."]
        case Outcome.VERIFIED if report.next_steps:
            return list(report.next_steps)
        case Outcome.VERIFIED:
            first = "nothing is left to do; running it again is safe and finds nothing."
        case Outcome.STOPPED:
            first = f"run {command} again: it picks up what is left."
        case Outcome.UNVERIFIED:
            first = (
                "look at the lines marked ✗ and at the problems, mend their cause,"
                f" and run {command} again."
            )
        case Outcome.FAILED:
            first = f"mend the cause and run {command} again: what was committed stays."
    return [first, *report.next_steps]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_markdown(cell) for cell in cells) + " |"


def _markdown(text: str) -> str:
    """Return text with everything escaped that Markdown, or HTML within it, would act on."""
    escaped = plain(text).replace("\\", "\\\\").replace("\n", " ").replace("\t", " ")
    for char in "|`*_[]<>#!":
        escaped = escaped.replace(char, f"\\{char}" if char not in "<>" else f"&#{ord(char)};")
    return escaped
