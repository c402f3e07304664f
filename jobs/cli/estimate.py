"""The estimate command: audit a sample and extrapolate to a full audit."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Group, RenderableType
from rich.progress import Progress
from rich.text import Text

from artwork_backfill.jobs.audit_batch.policy import policy_options
from artwork_backfill.jobs.cli import views
from artwork_backfill.jobs.command import (
    OutputType,
    UnavailableError,
    musicbrainz_database,
    option,
    terminal,
    usage_errors,
)
from artwork_backfill.shared.audit.catalogue import CHECKS
from artwork_backfill.shared.audit.decide import Policy
from artwork_backfill.shared.audit.sampling import Interval
from artwork_backfill.shared.auditing.estimate import (
    Estimate,
    Estimator,
    audit_seconds,
    rounded,
    strata_lines,
)
from artwork_backfill.shared.auditing.examination import Examiner
from artwork_backfill.shared.auditing.expectation import TABLES
from artwork_backfill.shared.auditing.owners import looking_up
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.durations import in_words
from artwork_backfill.shared.engine.job import StopRun
from artwork_backfill.shared.engine.redaction import Redactor
from artwork_backfill.shared.engine.report import REPORT_SUFFIXES
from artwork_backfill.shared.review import runs
from artwork_backfill.shared.settings import Settings

_COMMAND: Final = "estimate"

_database: Final = partial(musicbrainz_database, _COMMAND, TABLES, read_only=True)

#: The default time that artwork-indexer takes for one event, in seconds: a few requests to
#: archive.org.
_SECONDS_PER_EVENT: Final = 3.0


@click.command(name=_COMMAND)
@option(
    "--sample",
    type=click.IntRange(min=1, max=1_000_000),
    default=1_000,
    metavar="N",
    help="Audit about N entities, at least 30 of each kind if there are that many.",
)
@option(
    "--seed",
    type=click.IntRange(min=0, max=2**63 - 1),
    metavar="N",
    help="Draw the same sample as an earlier estimate, which printed this number.",
)
@option(
    "--concurrency",
    type=click.IntRange(1, 512),
    default=16,
    envvar="BACKFILL_CONCURRENCY",
    help="The maximum number of simultaneous requests.",
)
@option(
    "--seconds-per-event",
    type=click.FloatRange(min=0.001, max=86_400),
    default=_SECONDS_PER_EVENT,
    help="How long artwork-indexer takes for one event.",
)
@policy_options
@option(
    "--report",
    "reports",
    type=OutputType(REPORT_SUFFIXES),
    multiple=True,
    envvar="BACKFILL_REPORT",
    help="Write the estimate to this file, as .json or .md by its suffix. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    sample: int,
    seed: int | None,
    concurrency: int,
    seconds_per_event: float,
    policy: Policy,
    reports: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Audit a random sample and estimate what a full audit would find.

    Draws entities from MusicBrainz's tables, audits them without changing anything, and
    extrapolates the number of repairs, reviews, deletions and requests and the duration, with 95 %
    confidence intervals. Nothing needs to be seeded first. If the database keeps records of runs,
    the estimate is one of them, for `runs show` and the dashboard.

    Example: artwork-backfill estimate --sample 2000 --report estimate.md
    """
    seed = secrets.randbits(31) if seed is None else seed
    settings = Settings(os.environ)
    with usage_errors(Redactor.of_process(settings)):
        stop_flag = threading.Event()
        services = Services.from_settings(settings, concurrency=concurrency, stop_flag=stop_flag)
        rates = {
            "archive.org": settings.archive_org().rate,
            "MusicBrainz": settings.musicbrainz().rate,
        }
    started = datetime.now(UTC)
    with closing(services):
        found = _estimate(services, policy, seed, sample)
    result = _Result(found, policy, seed, rates, seconds_per_event, datetime.now(UTC))
    with musicbrainz_database(_COMMAND) as conn:
        options = {"sample": sample, "seed": seed}
        runs.keep_report(conn, _COMMAND, result.to_json(), options=options, started=started)
    for path in reports:
        _save(result, path)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
    else:
        views.show(_view(result))


def _estimate(services: Services, policy: Policy, seed: int, sample: int) -> Estimate:
    examiner = Examiner(services, looking_up(_database), policy)
    with Progress(console=terminal(), transient=True, disable=terminal() is None) as progress:
        task = progress.add_task("auditing the sample", total=sample)
        estimator = Estimator(
            _database,
            examiner,
            services,
            seed=seed,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
        try:
            return estimator.estimate(sample)
        except StopRun as problem:
            raise UnavailableError(str(problem)) from None


# -- output formats ------------------------------------------------------------------------------

_COLUMNS: Final = ("What", "Share", "95 % interval", "Entities", "From", "To")


@dataclass(frozen=True, slots=True)
class _Result:
    """An estimate and the parameters that it was made with."""

    found: Estimate
    policy: Policy
    seed: int
    rates: dict[str, float | None]
    seconds_per_event: float
    made_at: datetime

    @property
    def audit_s(self) -> float:
        return audit_seconds(self.found.requests, self.rates)

    @property
    def indexer_s(self) -> float:
        return self.found.events.estimate * self.seconds_per_event

    def to_json(self) -> dict[str, Any]:
        found = self.found
        return {
            "made_at": self.made_at.isoformat(),
            "seed": self.seed,
            "population": found.population,
            "sampled": found.sampled,
            "strata": [
                {"name": name, "population": population, "sampled": sampled}
                for name, population, sampled in strata_lines(found.strata)
            ],
            "outcomes": {name: self._json(found.outcomes[name]) for name in found.outcomes},
            "checks": {
                check: {
                    "severity": CHECKS[check].severity.label,
                    "remedy": str(self.policy.remedy(check)),
                    **self._json(found.checks[check]),
                }
                for check in found.checks
            },
            "events": self._json(found.events),
            "deletions": self._json(found.deletions),
            "requests": {name: round(number) for name, number in found.requests.items()},
            "audit_s": round(self.audit_s),
            "indexer_s": round(self.indexer_s),
        }

    def _json(self, interval: Interval) -> dict[str, float]:
        share = interval.of(self.found.population)
        return {
            "estimate": round(interval.estimate),
            "low": round(interval.low),
            "high": round(interval.high),
            "share": round(share.estimate, 6),
            "share_low": round(share.low, 6),
            "share_high": round(share.high, 6),
        }

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the rows of the table: first outcomes, then checks."""
        for name, interval in self.found.outcomes.items():
            yield self._row(f"would be {name}", interval)
        for check, interval in self.found.checks.items():
            yield self._row(f"{check} ({self.policy.remedy(check)})", interval)

    def _row(self, what: str, interval: Interval) -> tuple[str, ...]:
        share = interval.of(self.found.population)
        return (
            what,
            f"{share.estimate:.2%}",
            f"{share.low:.2%} to {share.high:.2%}",
            f"{rounded(interval.estimate):,}",
            f"{rounded(interval.low):,}",
            f"{rounded(interval.high):,}",
        )

    def lines(self) -> Iterator[str]:
        """Yield the cost of a full audit and its repairs as sentences."""
        found = self.found
        yield (f"Audited {found.sampled:,} of {found.population:,} entities (--seed {self.seed}).")
        for name, population, sampled in strata_lines(found.strata):
            yield f"- {name}: {sampled:,} of {population:,}"
        yield f"Events for artwork-indexer: {_range(found.events)}"
        yield f"Images among these that would be deleted: {_range(found.deletions)}"
        for service, number in found.requests.items():
            rate = self.rates.get(service)
            at = "without a rate limit" if rate is None else f"at {rate:g}/s"
            yield f"Requests to {service}: about {rounded(number):,}, {at}"
        if self.audit_s:
            yield f"A full audit takes at least {in_words(self.audit_s)} at these rates."
        yield (
            f"artwork-indexer then works for about {in_words(self.indexer_s)},"
            f" at {self.seconds_per_event:g} s an event."
        )


def _range(interval: Interval) -> str:
    return (
        f"about {rounded(interval.estimate):,}"
        f" (95 %: {rounded(interval.low):,} to {rounded(interval.high):,})"
    )


def _view(result: _Result) -> RenderableType:
    return Group(*(Text(line) for line in result.lines()), views.table(_COLUMNS, result.rows()))


def _markdown(result: _Result) -> str:
    lines = [f"# Estimate of {result.made_at.isoformat(timespec='seconds')}", ""]
    for line in result.lines():
        lines += [line] if line.startswith("- ") else ["", line]
    lines += ["", views.markdown_table(_COLUMNS, result.rows())]
    return "\n".join(lines) + "\n"


def _save(result: _Result, path: Path) -> None:
    text = json.dumps(result.to_json(), indent=2) if path.suffix == ".json" else _markdown(result)
    try:
        path.write_text(text)
    except OSError as error:
        raise click.ClickException(
            f"cannot write the estimate to {path}: {error.strerror or error}; choose another file"
        ) from None
