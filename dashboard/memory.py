"""What the server remembers about a visitor, also when the page is loaded again.

Streamlit forgets a visitor with the connection. This module keeps, per browser and person, what a
person would miss: what they have done, the notes they were writing, a running action on many rows,
and where they were before a login. None of it is of use to anyone else, and the least recently used
is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Final
from uuid import UUID

import streamlit as st

from artwork_backfill.dashboard.database import DashboardDb
from artwork_backfill.dashboard.guard import VISITOR
from artwork_backfill.shared.audit.archives import EntityType

if TYPE_CHECKING:
    from artwork_backfill.dashboard.bulk import Bulk

#: The number of visitors that are remembered, and of actions of each.
_VISITORS: Final = 500
_DONE: Final = 200


@dataclass(frozen=True, slots=True)
class Done:
    """An action of a visitor: on an entity, on an event, or on many at once."""

    at: datetime
    what: str
    entity_type: EntityType | None = None
    gid: UUID | None = None
    event_id: int | None = None


@dataclass(slots=True)
class Memory:
    """One visitor's."""

    journal: list[Done] = field(default_factory=list)
    drafts: dict[str, str] = field(default_factory=dict)
    bulk: Bulk | None = None
    address: dict[str, list[str]] = field(default_factory=dict)

    def record(self, done: Iterable[Done]) -> None:
        """Remember actions, latest first."""
        self.journal = [*done, *self.journal][:_DONE]


@dataclass(frozen=True, slots=True)
class Visit(DashboardDb):
    """A visitor's access to the database, and what is remembered of them."""

    kept: Memory


# Two first requests at the same time must get the same memory, which the cache does not warrant.
_LOCK: Final = Lock()


@lru_cache(maxsize=_VISITORS)
def _memory(browser: str, person: str) -> Memory:
    del browser, person
    return Memory()


def of_browser(browser: str, person: str) -> Memory:
    """Return the memory of a person at a browser."""
    with _LOCK:
        return _memory(browser, person)


def visitor() -> str:
    """Return the id of the current browser; empty if it keeps no cookies."""
    cookie: object = st.context.cookies.get(VISITOR)
    return cookie if isinstance(cookie, str) else ""


def of(person: str) -> Memory:
    """Return the memory of a person at the current browser."""
    # Without a cookie, only the session identifies a browser.
    if not (browser := visitor()):
        memory: Memory = st.session_state.setdefault("memory", Memory())
        return memory
    return of_browser(browser, person)
