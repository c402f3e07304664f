"""The catalogue of checks as text: a list for a terminal, and a table for the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from artwork_backfill.jobs.cli.views import markdown_table
from artwork_backfill.shared.audit.catalogue import CHECKS, Check, Remedy
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.review.questions import RepairTally

_COLUMNS = ("Check", "Severity", "Entity", "What differs", "Remedy", "Note")
_PROOF_COLUMNS = ("Held", "Did not hold")

_BY_CATALOGUE = Policy()

#: How often repairs held, by check.
Repairs = Mapping[str, RepairTally]


def to_terminal(policy: Policy, repairs: Repairs | None) -> RenderableType:
    """Return the catalogue as a list, with the remedies in force.

    The table would not fit a terminal. With `repairs`, each check shows how often its repairs held
    and did not hold.
    """
    entries: list[RenderableType] = []
    for check in CHECKS.values():
        heading = Text.assemble(
            (check.name, "bold"),
            f"  {check.severity.label}, {check.applies}: {_remedy(check, policy, repairs)}",
        )
        if tally := (repairs or {}).get(check.name):
            heading.append(f"  (held {tally.held:,}, did not hold {tally.not_held:,})")
        entries.append(heading)
        text = f"{check.summary} ({check.note})" if check.note else check.summary
        entries.append(Padding(Text(text), (0, 0, 0, 4)))
    return Group(*entries)


def to_markdown(policy: Policy = _BY_CATALOGUE, repairs: Repairs | None = None) -> str:
    """Return the catalogue as a Markdown table."""
    rows = []
    for check in CHECKS.values():
        remedy = _remedy(check, policy, repairs)
        row = (check.severity.label, check.applies, check.summary, remedy, check.note)
        tally = (repairs or {}).get(check.name)
        proofs = (f"{tally.held:,}", f"{tally.not_held:,}") if tally else ("", "")
        rows.append((f"`{check.name}`", *row, *(() if repairs is None else proofs)))
    columns = _COLUMNS if repairs is None else (*_COLUMNS, *_PROOF_COLUMNS)
    return markdown_table(columns, rows)


def to_json(policy: Policy, repairs: Repairs | None) -> str:
    """Return the catalogue as a JSON array."""
    rows = []
    for check in CHECKS.values():
        row = asdict(check) | {
            "severity": check.severity.label,
            "remedy": _remedy(check, policy, repairs),
        }
        if repairs is not None:
            tally = repairs.get(check.name)
            row["held"], row["not_held"] = (tally.held, tally.not_held) if tally else (0, 0)
        rows.append(row)
    return json.dumps(rows, indent=2)


def _remedy(check: Check, policy: Policy, repairs: Repairs | None) -> str:
    """Return the remedy that an audit with this policy applies."""
    remedy = policy.remedy(check.name)
    tally = (repairs or {}).get(check.name)
    is_repair = remedy in (Remedy.INDEX, Remedy.DEINDEX, Remedy.IMAGE)
    return str(Remedy.LATE_REVIEW if tally and tally.is_given_up and is_repair else remedy)
