"""A demonstration in a small world: seed, audit, repair, audit again, and the library job.

Every step runs the real command line in a process of its own, and compares its result with what the
world had planted.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from sandbox import surroundings
from sandbox.entities import Plan
from sandbox.library import LibrarySpec
from sandbox.surroundings import WXYC_SCHEMA, Surroundings
from sandbox.world import Spec

# About a hundred gids with drift, of every kind.
SPEC = Spec(seed=129, size=400, drift_rate=0.24)
LIBRARY_SPEC = LibrarySpec(seed=129, size=600, stranger_share=0.1)

_STATUSES = "SELECT gid::text, status::text FROM artwork_indexer.audit_entity"
_EVENTS = "SELECT state::text, count(*) FROM artwork_indexer.event_queue GROUP BY state"
_ARTWORK = "SELECT id, artwork_url FROM {}"


class StepError(Exception):
    """A step had another result than expected."""


def main() -> int:
    """Run the demonstration; return the exit code: 0, 1 if a step fails, or 130 after Ctrl-C."""
    console = Console(highlight=False)
    started = time.monotonic()
    try:
        console.print("Starting PostgreSQL, archive.org, MusicBrainz and LML on this machine ...")
        with surroundings.start(SPEC, LIBRARY_SPEC) as around, tempfile.TemporaryDirectory() as d:
            _Demo(console, around, Path(d)).tell()
    except StepError as error:
        console.print(f"\n[red]The demo failed:[/red] {error}", markup=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is left behind.")
        return 128 + signal.SIGINT
    console.print(f"\nAll steps succeeded, in {time.monotonic() - started:.0f} seconds.")
    console.print(
        "`make dashboard` serves the dashboard on such a world; try to decide its reviews."
    )
    return 0


class _Demo:
    def __init__(self, console: Console, around: Surroundings, directory: Path) -> None:
        self._console = console
        self._around = around
        self._directory = directory
        self._steps = 0
        self._plans = {plan.gid: plan for plan in around.world.plans()}

    def tell(self) -> None:
        self._step("Create the tables of the audit beside artwork-indexer's.")
        self._run("migrate")
        self._step("Give every gid that MusicBrainz knows, or knew, a row that waits for an audit.")
        self._run("seed-from-mb", report=True)
        self._step("Add the items of archive.org that MusicBrainz does not know.")
        self._run("seed-from-ia-scan", report=True)
        self._step(
            f"Compare each item with what MusicBrainz says. Of {len(self._plans)} gids,"
            f" {sum(plan.drift is not None for plan in self._plans.values())} have drifted. The"
            " audit queues events for what artwork-indexer can repair, and opens reviews for the"
            " rest. artwork-indexer is not running yet, so the queue has no limit here."
        )
        self._run("audit-batch", "--max-queue-depth", "0", report=True)
        audited = self._compare_statuses(lambda plan: plan.status)
        self._step("Let artwork-indexer, here its stand-in, carry out the queued events.")
        events = self._repair()
        self._step("Audit the repaired entities again, which proves that the repairs held.")
        self._run("audit-batch", report=True)
        proved = self._compare_statuses(lambda plan: plan.repaired)
        self._step("Give albums of the WXYC library the artwork that Discogs has for them.")
        self._run("library-artwork-url-backfill", report=True)
        filled = self._compare_library()
        self._step("Show the status.")
        self._run("status")
        self._sum_up(audited, events, proved, filled)

    def _sum_up(
        self, audited: Counter[str], events: int, proved: Counter[str], filled: int
    ) -> None:
        self._console.rule("What happened", align="left")
        fixed = proved["clean"] - audited["clean"]
        self._console.print(
            f"{audited.total()} gids were seeded and audited. {audited['clean']} had no difference,"
            f" and {audited['legacy']} have nothing left on archive.org.\nThe audit queued {events}"
            f" events for {audited['repair_queue']} entities. artwork-indexer carried them out, and"
            f" the second audit found {fixed} of the entities clean.\n{proved['manual_review']}"
            " wait for a person: `artwork-backfill review list` lists them, `review show GID`"
            f" shows the findings.\n{filled} albums of the library have artwork now.\nEvery result"
            " was compared with what had been planted. README.md says how to run the same jobs on"
            " your own databases."
        )

    def _step(self, sentence: str) -> None:
        self._steps += 1
        self._console.rule(f"Step {self._steps}", align="left")
        self._console.print(sentence)

    def _run(self, job: str, *options: str, report: bool = False) -> None:
        """Run a command; show its report, or else its output."""
        arguments = [job, *options]
        file = self._directory / f"{self._steps}.md"
        if report:
            arguments += ["--report", str(file)]
        self._console.print(f"[bold]$ artwork-backfill {' '.join([job, *options])}[/bold]")
        try:
            output = self._around.run(*arguments)
        except subprocess.CalledProcessError as error:
            self._console.print(*error.__notes__, markup=False)
            raise StepError(f"{job} ended with exit code {error.returncode}") from error
        if report:
            self._console.print(Markdown(file.read_text()))
        else:
            self._console.print(output.rstrip(), markup=False)

    def _repair(self) -> int:
        """Let the indexer work; return how many events it carried out."""
        ran = self._around.indexer().run_until_idle()
        with psycopg.connect(self._around.musicbrainz_dsn) as conn:
            states: dict[str, int] = dict(conn.execute(_EVENTS).fetchall())
        self._console.print(f"{ran} events carried out.")
        if set(states) - {"completed"}:
            raise StepError(f"events are left that are not completed: {states}")
        return ran

    def _compare_statuses(self, planned: Callable[[Plan], str]) -> Counter[str]:
        """Compare every audited gid with the plan; return how many have each status."""
        with psycopg.connect(self._around.musicbrainz_dsn) as conn:
            found: dict[str, str] = dict(conn.execute(_STATUSES).fetchall())
        wanted = {gid: planned(self._plans[gid]) for gid in found}
        table = Table("status", "planned", "found")
        planned_numbers, found_numbers = Counter(wanted.values()), Counter(found.values())
        for status in sorted({*wanted.values(), *found.values()}):
            table.add_row(status, str(planned_numbers[status]), str(found_numbers[status]))
        self._console.print(table)
        wrong = [gid for gid in found if found[gid] != wanted[gid]]
        if wrong:
            plan = self._plans[wrong[0]]
            raise StepError(
                f"{len(wrong)} gids have another status than planned, the first is"
                f" {plan.entity_type} {plan.gid} ({plan.drift or 'no drift'}):"
                f" {found[plan.gid]} instead of {wanted[plan.gid]}"
            )
        return found_numbers

    def _compare_library(self) -> int:
        """Compare every album with the plan; return how many have artwork."""
        table = sql.Identifier(WXYC_SCHEMA, "library")
        with psycopg.connect(self._around.wxyc_dsn) as conn:
            rows = conn.execute(sql.SQL(_ARTWORK).format(table)).fetchall()
        found: dict[int, str | None] = dict(rows)
        planned = list(self._around.library.rows())
        wrong = [row for row in planned if found[row.id] != row.expected]
        filled = sum(url is not None for url in found.values())
        self._console.print(f"{filled} of {len(planned)} albums have artwork now.")
        if wrong:
            row = wrong[0]
            raise StepError(
                f"{len(wrong)} albums have other artwork than planned, the first is row {row.id}"
                f" ({row.outcome}): {found[row.id]} instead of {row.expected}"
            )
        return filled
