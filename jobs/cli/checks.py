"""The command `checks`: the catalogue as a list for a terminal, a table or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

import click
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from artwork_backfill.jobs.cli.views import markdown_table
from artwork_backfill.jobs.command import form_option, musicbrainz_database
from artwork_backfill.shared.audit.catalogue import (
    CHECKS,
    Check,
    Remedy,
    UnknownCheck,
    parse_remedies,
)
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.review import questions
from artwork_backfill.shared.review.questions import RepairTally

_COLUMNS = ("Check", "Severity", "Entity", "What differs", "Remedy", "Note")
_PROOF_COLUMNS = ("Held", "Did not hold")

_BY_CATALOGUE = Policy()

#: How often repairs held, by check.
Repairs = Mapping[str, RepairTally]


@click.command(name="checks")
@form_option("json", "Print JSON.")
@form_option("markdown", "Print a Markdown table.")
@click.option(
    "--remedy",
    "remedies",
    multiple=True,
    metavar="CHECK=REMEDY",
    envvar="BACKFILL_REMEDY",
    show_envvar=True,
    help="Show the remedies that audit-batch applies with this option. Repeatable.",
)
@click.option(
    "--proofs",
    is_flag=True,
    help="Show how often the repairs of each check held; reads the MusicBrainz database.",
)
def command(*, form: str | None, remedies: tuple[str, ...], proofs: bool) -> None:
    """List every check of the audit with its severity and remedy.

    Example: artwork-backfill checks --json
    """
    try:
        policy = Policy(remedies=parse_remedies(remedies))
    except UnknownCheck as error:
        raise click.BadParameter(str(error), param_hint="--remedy") from None
    repairs = None
    if proofs:
        with musicbrainz_database("checks", questions.REPAIR_TABLES) as conn:
            repairs = {tally.check: tally for tally in questions.list_repairs(conn)}
    if form == "json":
        click.echo(to_json(policy, repairs))
    elif form == "markdown":
        click.echo(to_markdown(policy, repairs))
    else:
        Console().print(to_terminal(policy, repairs))


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
