"""An action on many rows: a batch at a time, with progress, a stop button, and the result.

Each batch is a transaction of its own, and the next one is read afterwards: rows that are gone or
have changed in the meantime are no obstacle. Finished batches stay done, whatever happens to the
page, the server or the database; the other rows are still in the list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, Literal

import streamlit as st

from artwork_backfill.dashboard import memory, show
from artwork_backfill.dashboard.database import Trouble

#: The number of rows in a batch, for a transaction of about half a second.
BATCH: Final = 200

#: How long batches are processed before the page shows the progress, and how soon the next ones
#: follow, in seconds.
_TURN_S: Final = 1.0
_DRAW_EVERY_S: Final = 0.2

#: The number of refusals that are kept to be shown.
_REFUSALS: Final = 20


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of one batch. The next one begins after `last_id`; `None` if none is left."""

    last_id: int | None
    done: Sequence[int] = ()
    refusals: Sequence[str] = ()


@dataclass(slots=True)
class Bulk:
    """An action on many rows, and its progress.

    Parameters
    ----------
    name
        The name of the list that it belongs to.
    what, to
        What is done, as a heading, and to which rows.
    total
        The number of rows when the person was asked.
    step
        Processes one batch, of rows with larger ids than the given one.
    undo
        Makes the action that undoes this one for the rows with these ids; `None` if there is none.
    """

    name: str
    what: str
    to: Sequence[str]
    total: int
    step: Callable[[int], Batch]
    undo: Callable[[Sequence[int]], Bulk] | None = None
    state: Literal["running", "stopped", "finished"] = "running"
    trouble: str = ""
    after: int = 0
    done: list[int] = field(default_factory=list)
    refused: int = 0
    refusals: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def advance(self, for_s: float = _TURN_S) -> None:
        """Process batches for some time; return at once if another page of this browser does."""
        if not self._lock.acquire(blocking=False):
            time.sleep(for_s)
            return
        try:
            until = time.monotonic() + for_s
            while self.state == "running" and time.monotonic() < until:
                self._work_one()
        finally:
            self._lock.release()

    def _work_one(self) -> None:
        try:
            batch = self.step(self.after)
        except Trouble as trouble:
            self.trouble = str(trouble)
            self.state = "stopped"
            return
        self.done += batch.done
        self.refused += len(batch.refusals)
        self.refusals = [*self.refusals, *batch.refusals][:_REFUSALS]
        if batch.last_id is None:
            self.state = "finished"
        else:
            self.after = batch.last_id

    def stop(self) -> None:
        """Stop after the current batch."""
        if self.state == "running":
            self.state = "stopped"

    def resume(self) -> None:
        """Continue where it stopped."""
        self.trouble = ""
        self.state = "running"

    def summary(self) -> str:
        """Return the progress in a sentence."""
        words = f"{self.what}: {len(self.done):,} of {self.total:,} done"
        if self.refused:
            words += f", {self.refused:,} left as they are"
        return words + (", stopped." if self.state == "stopped" else ".")


def show_bulk(kept: memory.Memory, name: str, on_change: Callable[[], None]) -> bool:
    """Show the action on a list, if there is one, and return whether there is.

    `on_change` is called when it has ended, or is dismissed.
    """
    bulk = kept.bulk
    if bulk is None or bulk.name != name:
        return False
    with st.container(border=True, key=f"{name}-bulk"):
        every = _DRAW_EVERY_S if bulk.state == "running" else None
        st.fragment(_show, run_every=every)(kept, bulk, on_change)
    return True


def _show(kept: memory.Memory, bulk: Bulk, on_change: Callable[[], None]) -> None:
    """Draw the action; each part keeps its place, or an old button would stay beside a new one."""
    st.markdown(f"**{bulk.what}**")
    with st.container():
        for line in bulk.to:
            show.text(line)
    worked = len(bulk.done) + bulk.refused
    st.progress(min(1.0, worked / max(1, bulk.total)), text=f"{worked:,} of {bulk.total:,}")
    with st.container():
        if bulk.state != "running":
            _show_end(bulk)
    with st.container(horizontal=True):
        if bulk.state == "running":
            st.button("Stop", key=f"{bulk.name}.bulk.stop", on_click=bulk.stop)
        else:
            _offer_next(kept, bulk, on_change)
    if bulk.state == "running":
        bulk.advance()
        if bulk.state != "running":
            on_change()
            st.rerun()


def _show_end(bulk: Bulk) -> None:
    st.success(bulk.summary()) if bulk.state == "finished" else st.warning(bulk.summary())
    if bulk.trouble:
        show.text(bulk.trouble)
    for line in bulk.refusals:
        show.text(line)


def _offer_next(kept: memory.Memory, bulk: Bulk, on_change: Callable[[], None]) -> None:
    if bulk.state == "stopped" and st.button("Continue", key=f"{bulk.name}.bulk.resume"):
        bulk.resume()
        st.rerun()
    if (
        bulk.undo is not None
        and bulk.done
        and st.button("Undo", key=f"{bulk.name}.bulk.undo", help="Reverts this action.")
    ):
        kept.bulk = bulk.undo(bulk.done)
        st.rerun()
    if st.button("Close", key=f"{bulk.name}.bulk.close"):
        kept.bulk = None
        on_change()
        st.rerun()
