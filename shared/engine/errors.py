"""The exceptions of the engine. The message of each is a sentence for people.

`StopRun` and `RunFailed` are the two ways in which a job or a source ends a run. Any other
exception is a bug, and the run fails with a traceback.
"""

from __future__ import annotations


class EngineError(Exception):
    """The run ends or cannot start. The message says why, and what to do."""


class StopRun(EngineError):
    """The run ends in an orderly way: finished work stays, and claims are given back.

    If `planned`, a person wanted it (exit code 0). Otherwise an outside cause ended the run, such
    as a service that is down, and a later run may succeed (exit code 75).
    """

    def __init__(self, reason: str, *, planned: bool = False) -> None:
        super().__init__(reason)
        self.planned = planned


class RunFailed(EngineError):
    """The run cannot continue, and a person has to fix the cause (exit code 1)."""


class WrongUsage(RunFailed):
    """The run lacks an option that it needs, and has changed nothing (exit code 2)."""


class DatabaseError(EngineError):
    """The database is not in the state that a command needs."""
