"""Logs and Sentry.

JSON lines carry `timestamp` (ISO 8601, UTC), `level`, `message`, `repo`, `tool`, `step` and
`run_id`; info and warning go to stdout, error to stderr. On a terminal, people get rich's
rendering on stderr instead.
"""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
from typing import Any, Final, TextIO
from uuid import UUID

from pythonjsonlogger.json import JsonFormatter
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from artwork_backfill.shared.engine.redaction import Redactor as Redactor
from artwork_backfill.shared.settings import Settings
from artwork_backfill.shared.version import VERSION

REPO: Final = "artwork-backfill"
LEVELS: Final = ("debug", "info", "warning", "error")

_LOGGER: Final = "artwork_backfill"
_SENTRY_FLUSH_S: Final = 2.0


def plain(text: str) -> str:
    """Return text from outside in a form that is safe to show on a terminal.

    Control characters, which can drive a terminal, and bidirectional overrides, which can make a
    line read as something else, are shown as escapes.
    """
    return "".join(
        char if char in " \n\t" or unicodedata.category(char)[0] != "C" else ascii(char)[1:-1]
        for char in text
    )


class RunLog:
    """The log of one run: every line says which tool, run and step it belongs to.

    `tool` is the name of the job or command.
    """

    def __init__(self, tool: str, run_id: UUID, redactor: Redactor) -> None:
        self.tool = tool
        self.run_id = str(run_id)
        self.redactor = redactor
        self.step = "started"
        self._logger = logging.getLogger(_LOGGER)

    def enter(self, step: str) -> None:
        """Set the step of all following lines."""
        self.step = step

    def identity(self) -> dict[str, str]:
        """Return the fields of every line, and the tags of every event in Sentry."""
        return {"repo": REPO, "tool": self.tool, "step": self.step, "run_id": self.run_id}

    def info(self, message: str, **fields: object) -> None:
        """Log an info line with further fields."""
        self._logger.info(message, extra={"fields": fields})

    def always(self, message: str, **fields: object) -> None:
        """Log a line at any log level."""
        record = self._logger.makeRecord(
            _LOGGER, logging.INFO, "", 0, message, (), None, extra={"fields": fields}
        )
        self._logger.handle(record)

    def warning(self, message: str, **fields: object) -> None:
        """Log something that an operator may want to check."""
        self._logger.warning(message, extra={"fields": fields})

    def error(self, message: str, cause: Exception | None = None) -> None:
        """Log what ended the run, with the traceback of its cause, and report it to Sentry."""
        self._logger.error(message, exc_info=cause)


class _Stamp(logging.Filter):
    """Add the fields of every line to each record, including those of libraries."""

    def __init__(self, run_log: RunLog) -> None:
        super().__init__()
        self._log = run_log

    def filter(self, record: logging.LogRecord) -> bool:
        redactor = self._log.redactor
        record.msg, record.args = redactor.text(record.getMessage()), None
        fields = record.__dict__.pop("fields", {})
        record.__dict__ |= {name: redactor.value(value) for name, value in fields.items()}
        record.__dict__ |= self._log.identity()
        return True


class _JsonFormatter(JsonFormatter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__(
            "{levelname}{message}{repo}{tool}{step}{run_id}",
            style="{",
            rename_fields={"levelname": "level"},
            timestamp=True,
            json_ensure_ascii=True,
        )
        self._redactor = redactor

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        log_data["level"] = log_data["level"].lower()
        return log_data

    # The base class uses camel case.
    def formatException(self, ei: Any) -> str:  # noqa: N802
        return self._redactor.text(logging.Formatter.formatException(self, ei))


def configure(run_log: RunLog, level: str, console: Console | None) -> None:
    """Send the process's logs to the console, or as JSON lines to stdout and stderr.

    `level`, one of `LEVELS`, is the lowest that is shown.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.setLevel(level.upper())
    # Our clients count retries and redirects; the lines of these libraries only repeat URLs.
    for library in ("urllib3", "requests"):
        logging.getLogger(library).setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
    for handler in _handlers(run_log, console):
        handler.addFilter(_Stamp(run_log))
        root.addHandler(handler)


def _handlers(run_log: RunLog, console: Console | None) -> list[logging.Handler]:
    if console is not None:
        rich = RichHandler(
            console=console,
            show_path=False,
            markup=False,
            highlighter=None,
            log_time_format=lambda moment: Text(moment.astimezone().isoformat(timespec="seconds")),
        )
        rich.setFormatter(_PlainFormatter(run_log.redactor))
        return [rich]
    out, err = _LineHandler(sys.stdout), _LineHandler(sys.stderr)
    out.addFilter(lambda record: record.levelno < logging.ERROR)
    err.setLevel(logging.ERROR)
    for handler in (out, err):
        handler.setFormatter(_JsonFormatter(run_log.redactor))
    return [out, err]


def discard(stream: TextIO) -> None:
    """Discard the output of a stream from now on.

    Python's final flush would otherwise fail as well and change the exit code.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class _LineHandler(logging.StreamHandler[TextIO]):
    """Write lines as long as possible: a run outlives the reader of its log."""

    # The base class uses camel case.
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        discard(self.stream)
        # Errors go to another stream than all other lines.
        logging.getLogger(_LOGGER).error(
            "the log cannot be written any more (%s): the run continues without it", error.strerror
        )


class _PlainFormatter(logging.Formatter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__("%(message)s")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        # The traceback is appended here, after the message was redacted.
        return plain(self._redactor.text(super().format(record)))


def start_sentry(run_log: RunLog, settings: Settings) -> None:
    """Report errors to Sentry with the run's tags, if the settings name a DSN.

    Raises `SettingsError` if it is malformed.
    """
    dsn = settings.sentry_dsn()
    if dsn is None:
        return
    # Imported only if needed, because it takes a tenth of a second.
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration

    def redact(event: Any, _hint: Any) -> Any:
        return run_log.redactor.value(event)

    def tag(event: Any, hint: Any) -> Any:
        return redact({**event, "tags": event.get("tags", {}) | run_log.identity()}, hint)

    sentry_sdk.init(
        dsn=dsn,
        release=f"{REPO}@{VERSION}",
        environment=settings.get("SENTRY_ENVIRONMENT"),
        before_send=tag,
        before_breadcrumb=redact,
        # Local variables hold rows, answers and settings, which must not leave the process.
        include_local_variables=False,
        send_default_pii=False,
        # The services do not use the headers that connect our traces to theirs.
        trace_propagation_targets=[],
        # The default writes lines of its own to stderr.
        integrations=[AtexitIntegration(callback=lambda _pending, _timeout: None)],
    )


def stop_sentry() -> None:
    """Give Sentry a moment to send pending events, if it was started."""
    if "sentry_sdk" not in sys.modules:
        return
    import sentry_sdk

    sentry_sdk.flush(timeout=_SENTRY_FLUSH_S)
