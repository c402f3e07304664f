"""The progress of a run: a bar on stderr for people, lines in the log for machines.

There is at most one line every ten seconds, with the rate and the time left, and at least one a
minute even if nothing happens: silence means that the process is gone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Event, Lock, Thread
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from artwork_backfill.shared.engine.log import RunLog, plain
from artwork_backfill.shared.engine.runs import Wait

#: The minimum time between two lines, and the maximum while nothing happens, in seconds.
LINE_EVERY_S: Final = 10.0
SILENCE_S: Final = 60.0


class _Rate(ProgressColumn):
    """Rows per second, over rich's moving window."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="cyan")


class Progress:
    """Done and total, rate, time left, and the counts that matter. Safe to use from any thread.

    It draws on `console`, or writes lines if there is none.
    """

    def __init__(self, log: RunLog, console: Console | None) -> None:
        self._log = log
        self._lock = Lock()
        self._began = time.monotonic()
        self._said_at: float | None = None
        self._total: int | None = None
        self._done = 0
        self._waits: Wait | None = None
        self._said = "started"
        self._over = Event()
        self._bar = None if console is None else _bar(console)
        self._task = TaskID(0)
        if self._bar is not None:
            self._task = self._bar.add_task(log.tool, counts="", total=None)

    def start(self, total: int | None) -> None:
        """Start with the expected number of rows, `None` if it is unknown."""
        self._total, self._began = total, time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, total=total)
            self._bar.start()
        else:
            Thread(target=self._break_silence, name="silence", daemon=True).start()

    def advance(self, message: str, done: int, totals: Mapping[str, int], **fields: object) -> None:
        """Show that `done` rows are finished, with the totals of the run so far.

        The message and the fields are those of a log line.
        """
        self._done, self._said = done, message
        if self._bar is not None:
            shown = "  ".join(f"{name} {count:,}" for name, count in totals.items() if count)
            self._bar.update(self._task, completed=done, counts=shown)
        elif self._may_speak(LINE_EVERY_S):
            self._log.info(message, **fields, totals=dict(totals), **self.figures())

    def waiting(self, wait: Wait | None) -> None:
        """Show what the run waits for, or that it continues."""
        before, self._waits = self._waits, wait
        if (wait and wait.reason) == (before and before.reason):
            return
        # Requests of people are confirmed at once.
        is_urgent = any(each is not None and each.is_pause for each in (before, wait))
        if self._bar is not None:
            text = self._log.tool if wait is None else f"{self._log.tool}: {plain(wait.reason)}"
            self._bar.update(self._task, description=text)
        elif is_urgent or (wait is not None and self._may_speak(LINE_EVERY_S)):
            message = "continues" if wait is None else self.last_words()
            self._log.info(message, **self.figures())

    @property
    def is_waiting(self) -> bool:
        """Whether the run waits for something."""
        return self._waits is not None

    def last_words(self) -> str:
        """Return what the run waits for, or what it did last."""
        wait = self._waits
        return self._said if wait is None else f"waiting: {wait.reason}"

    def stop(self) -> None:
        """End, and remove the bar."""
        self._over.set()
        if self._bar is not None:
            self._bar.stop()

    def figures(self) -> dict[str, int | float | None]:
        """Return `done`, `total`, `rate` in rows per second, and `eta_s`."""
        seconds = time.monotonic() - self._began
        rate = self._done / seconds if seconds > 0 else 0.0
        left = None if self._total is None or not rate else max(0, self._total - self._done) / rate
        return {
            "done": self._done,
            "total": self._total,
            "rate": round(rate, 2),
            "eta_s": None if left is None else round(left),
        }

    def _may_speak(self, after: float) -> bool:
        with self._lock:
            now = time.monotonic()
            if self._said_at is not None and now - self._said_at < after:
                return False
            self._said_at = now
            return True

    def _break_silence(self) -> None:
        while not self._over.wait(1.0):
            if time.monotonic() - self._began >= SILENCE_S and self._may_speak(SILENCE_S):
                message = self.last_words() if self.is_waiting else "at work"
                self._log.info(message, **self.figures())


def _bar(console: Console) -> RichProgress:
    return RichProgress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
        console=console,
    )
