"""The exceptions of the engine. The message of each is a sentence for people.

`StopRun` and `RunFailed` are the two ways in which a job or a source ends a run; anything else that
a job raises is an error of ours, and the run fails with a traceback.
"""

from __future__ import annotations


class EngineError(Exception):
    """Something ends a run or keeps it from starting. The message says what, and what to do."""


class StopRun(EngineError):
    """The run ends in good order: what is done stays, and what is claimed is given back.

    Parameters
    ----------
    planned
        Whether somebody wanted it so (exit code 0). Otherwise others ended the run, such as a
        service that is down, and a later run may succeed (exit code 75).
    """

    def __init__(self, reason: str, *, planned: bool = False) -> None:
        super().__init__(reason)
        self.planned = planned


class RunFailed(EngineError):
    """The run cannot continue, and a person has to do something about it (exit code 1)."""


class DatabaseError(EngineError):
    """The database is not as a command needs it."""
