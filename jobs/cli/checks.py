"""The catalogue of checks as text: a list for a terminal, and a table for the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from artwork_backfill.jobs.cli.views import markdown_row
from artwork_backfill.shared.audit.catalogue import CHECKS, Check, Remedy
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.review.questions import RepairTally

_COLUMNS = ("Check", "Severity", "Entity", "What differs", "Remedy", "Note")
_PROOF_COLUMNS = ("Held", "Did not hold")

_BY_CATALOGUE = Policy()

Repairs = Mapping[str, RepairTally]
"""How often repairs held, by check."""


def to_terminal(policy: Policy = _BY_CATALOGUE, repairs: Repairs | None = None) -> RenderableType:
    """Return the catalogue as a list, with the remedies in force.

    The table would not fit a terminal. With `repairs`, each check shows how often its repairs held
    and did not hold.
    """
    entries: list[RenderableType] = []
    for check in CHECKS.values():
        name, severity, entity, summary, remedy, note, *proof = _row(check, policy, repairs)
        heading = Text.assemble((name, "bold"), f"  {severity}, {entity}: {remedy}")
        if any(proof):
            heading.append("  (held {}, did not hold {})".format(*proof))
        entries.append(heading)
        entries.append(Padding(Text(f"{summary} ({note})" if note else summary), (0, 0, 0, 4)))
    return Group(*entries)


def to_markdown(policy: Policy = _BY_CATALOGUE, repairs: Repairs | None = None) -> str:
    """Return the catalogue as a Markdown table."""
    columns = _columns(repairs)
    lines = [markdown_row(columns), markdown_row(("---",) * len(columns))]
    for check in CHECKS.values():
        name, *rest = _row(check, policy, repairs)
        lines.append(markdown_row((f"`{name}`", *rest)))
    return "\n".join(lines)


def to_json(policy: Policy = _BY_CATALOGUE, repairs: Repairs | None = None) -> str:
    """Return the catalogue as a JSON array."""
    return json.dumps([_object(check, policy, repairs) for check in CHECKS.values()], indent=2)


def _object(check: Check, policy: Policy, repairs: Repairs | None) -> dict[str, object]:
    described = asdict(check) | {
        "severity": check.severity.label,
        "remedy": _remedy(check, policy, repairs),
    }
    if repairs is not None:
        tally = repairs.get(check.name)
        described |= {
            "held": tally.held if tally else 0,
            "not_held": tally.not_held if tally else 0,
        }
    return described


def _columns(repairs: Repairs | None) -> tuple[str, ...]:
    return _COLUMNS if repairs is None else (*_COLUMNS, *_PROOF_COLUMNS)


def _row(check: Check, policy: Policy, repairs: Repairs | None) -> tuple[str, ...]:
    row = (
        check.name,
        check.severity.label,
        check.applies,
        check.summary,
        _remedy(check, policy, repairs),
        check.note,
    )
    if repairs is None:
        return row
    tally = repairs.get(check.name)
    return (*row, *((f"{tally.held:,}", f"{tally.not_held:,}") if tally else ("", "")))


def _remedy(check: Check, policy: Policy, repairs: Repairs | None) -> str:
    """Return the remedy that an audit with this policy applies."""
    remedy = policy.remedy(check.name)
    tally = (repairs or {}).get(check.name)
    is_repair = remedy in (Remedy.INDEX, Remedy.DEINDEX, Remedy.IMAGE)
    return str(Remedy.LATE_REVIEW if tally and tally.is_given_up and is_repair else remedy)
