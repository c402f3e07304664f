"""What a person at a terminal sees while a run works: a bar on stderr.

Where nobody looks at a terminal, `Progress` shows nothing and the log's batch lines take its place.
"""

from __future__ import annotations

from collections.abc import Mapping

from artwork_backfill.shared.engine.log import plain
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text


class _Rate(ProgressColumn):
    """Rows per second, over rich's moving window."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="cyan")


class Progress:
    """Done of total, rate, time left, and the counts that matter.

    Parameters
    ----------
    console
        The terminal to draw on, or `None` to draw nothing.
    """

    def __init__(self, tool: str, console: Console | None) -> None:
        self._tool = tool
        self._bar = (
            RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[counts]}", markup=False),
                console=console,
            )
            if console is not None
            else None
        )
        self._task = None if self._bar is None else self._bar.add_task(tool, counts="", total=None)

    def start(self, total: int | None) -> None:
        """Show the bar, with the number of rows that are expected, `None` where nobody knows."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total)
            self._bar.start()

    def advance(self, done: int, counts: Mapping[str, int]) -> None:
        """Show that `done` rows are finished, and the counts of the run so far."""
        if self._bar is not None and self._task is not None:
            shown = "  ".join(f"{name} {count:,}" for name, count in counts.items() if count)
            self._bar.update(self._task, completed=done, counts=shown)

    def waiting(self, reason: str | None) -> None:
        """Show what the run waits for, or that it goes on."""
        if self._bar is not None and self._task is not None:
            text = self._tool if reason is None else f"{self._tool}: {plain(reason)}"
            self._bar.update(self._task, description=text)

    def stop(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.stop()
