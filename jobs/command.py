"""Commands made from jobs: the options of every job, and one execution from start to exit.

The package of a job says what the job does, `shared.engine.runner` how a run proceeds. This module
connects both to the environment and the terminal.
"""

from __future__ import annotations

import errno
import gc
import logging
import math
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar
from uuid import uuid4

import click
import psycopg
from psycopg import Connection
from rich.console import Console

from artwork_backfill.shared.audit.catalogue import UnknownCheck, match_checks
from artwork_backfill.shared.durations import parse_duration
from artwork_backfill.shared.engine import container
from artwork_backfill.shared.engine import report as reports
from artwork_backfill.shared.engine import session as db
from artwork_backfill.shared.engine.errors import EngineError, StopRun
from artwork_backfill.shared.engine.job import Job, Partition, Run, RunOptions
from artwork_backfill.shared.engine.log import (
    LEVELS,
    REPO,
    RunLog,
    configure,
    discard,
    start_sentry,
    stop_sentry,
)
from artwork_backfill.shared.engine.metrics import MetricsFile
from artwork_backfill.shared.engine.ping import Pinger
from artwork_backfill.shared.engine.progress import Progress
from artwork_backfill.shared.engine.redaction import Redactor
from artwork_backfill.shared.engine.runner import INTERRUPTED, Runner
from artwork_backfill.shared.engine.stop import (
    Interruption,
    StopFlag,
    interrupted_by_signals,
    on_signals,
)
from artwork_backfill.shared.engine.tables import Table, check_tables
from artwork_backfill.shared.settings import Settings, SettingsError, is_utf8

F = TypeVar("F", bound=Callable[..., Any])

#: The largest value of PostgreSQL's bigint, with which it counts and numbers rows.
BIGINT_MAX: Final = 2**63 - 1
#: An upper bound for options that count rows, events or entities.
MOST_AT_ONCE: Final = 1_000_000

#: Errors of printing: the disk is full or broken, or the pipe was closed.
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE})

#: Builds a job from its run and its own options.
Build = Callable[..., Job[Any, Any]]

#: How long a thread keeps the interpreter before another may run, in seconds, with few threads.
_SWITCH_INTERVAL_S: Final = 0.0005


class DurationType(click.ParamType[float]):
    """A duration such as 90s, 30m, 1h30m or 5d, as seconds; `name` is what the help calls it."""

    def __init__(self, name: str = "duration") -> None:
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(value).total_seconds()
        except ValueError as error:
            self.fail(str(error), param, ctx)


class FiniteRange(click.FloatRange):
    """A finite number within bounds; rejects `nan` and `inf`."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class PartitionType(click.ParamType[Partition]):
    """I/N: share I of N, counted from 0."""

    name = "I/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Partition:
        if isinstance(value, Partition):
            return value
        match = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", "".join(value.split()))
        if match is None or int(match[1]) >= int(match[2]):
            self.fail(
                f"{value!r} is not a partition: write I/N with I from 0 to N-1, like 0/4",
                param,
                ctx,
            )
        return Partition(int(match[1]), int(match[2]))


class OutputType(click.ParamType[Path]):
    """A writable file with one of these suffixes, checked before the run starts."""

    name = "file"

    def __init__(self, suffixes: tuple[str, ...]) -> None:
        self._suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        if path.suffix not in self._suffixes:
            known = " or ".join(self._suffixes)
            self.fail(f"{value!r} has an unknown suffix: name the file *{known}", param, ctx)
        try:
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder")
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            self.fail(f"{value!r} cannot be written: {error.strerror or error}", param, ctx)
        return path

    def split_envvar_value(self, rv: str) -> list[str]:
        return rv.split()


@dataclass(frozen=True, slots=True)
class JobCommand:
    """The two commands of a job: `run` and `verify`."""

    job: type[Job[Any, Any]]
    run: click.Command
    verify: click.Command


def job_command(job: type[Job[Any, Any]]) -> Callable[[Build], JobCommand]:
    """Turn a function that builds a job into its commands.

    The decorated function gets the `Run` as its first argument and the job's own options by name.
    Its docstring is the command's help.
    """

    def decorate(build: Build) -> JobCommand:
        def run(**options: Any) -> NoReturn:
            _execute(job, build, options, verify_only=False)

        def verify(**options: Any) -> NoReturn:
            _execute(job, build, options, verify_only=True)

        own = list(reversed(getattr(build, "__click_params__", [])))
        return JobCommand(
            job,
            LoggedCommand(
                job.name, callback=run, params=own + _run_options(job), help=build.__doc__
            ),
            LoggedCommand(
                job.name,
                callback=verify,
                params=own + _output_options(),
                help=_verify_help(job, own),
            ),
        )

    return decorate


def _verify_help(job: type[Job[Any, Any]], own: list[click.Parameter]) -> str:
    arguments = [param.metavar or "" for param in own if isinstance(param, click.Argument)]
    example = " ".join(["artwork-backfill verify", job.name, *arguments])
    return f"Repeat the verification of {job.name}.\n\nExample: {example}"


def option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """Declare an option of a job; the help shows its default and its variable."""
    return click.option(*names, show_default=True, show_envvar=True, **attributes)


def _run_options(job: type[Job[Any, Any]]) -> list[click.Parameter]:
    concurrency = _option(
        "--concurrency",
        type=click.IntRange(1, 512),
        default=job.concurrency,
        help="The maximum number of simultaneous requests.",
    )
    return [
        _option(
            "--batch-size",
            type=click.IntRange(1, MOST_AT_ONCE),
            default=job.batch_size,
            help="Rows in the first batch. The size then adapts so that a write takes about 1 s.",
        ),
        # A job that must fetch sequentially has no choice here.
        *([concurrency] if job.concurrency > 1 else []),
        _option("--fixed-batch-size", is_flag=True, help="Keep the batch size constant."),
        _option(
            "--limit", type=click.IntRange(1, BIGINT_MAX), metavar="N", help="Stop after N rows."
        ),
        _option(
            "--max-duration", type=DurationType(), help="Stop after this time, for example 30m."
        ),
        _option(
            "--dry-run",
            is_flag=True,
            # WXYC's own jobs use the second.
            envvar=["BACKFILL_DRY_RUN", "DRY_RUN"]
            if job.database is Settings.wxyc_database
            else None,
            help="Read, fetch, compute and report, but change nothing.",
        ),
        click.Option(
            ["--partition"],
            type=PartitionType(),
            help="Process only the rows whose id modulo N is I, to share a job among containers."
            " [env var: PARTITION_INDEX (or JOB_COMPLETION_INDEX) and PARTITION_COUNT]",
        ),
        _option(
            "--metrics",
            type=OutputType((".prom",)),
            metavar="FILE.prom",
            help="Write metrics to this file, in OpenMetrics format for node_exporter's textfile"
            " collector. Updated after each batch, at most once a second.",
        ),
        *_output_options(),
    ]


def _output_options() -> list[click.Parameter]:
    return [
        _option(
            "--report",
            "reports",
            type=OutputType(reports.REPORT_SUFFIXES),
            multiple=True,
            envvar="BACKFILL_REPORT",
            help="Write the report to this file, as .json or .md by its suffix. Repeatable.",
        ),
        _option(
            "--log-level",
            type=click.Choice(LEVELS, case_sensitive=False),
            default="info",
            help="The lowest level of log lines to show.",
        ),
    ]


def _option(name: str, *more: str, **attributes: Any) -> click.Parameter:
    envvar = "BACKFILL_" + name.removeprefix("--").replace("-", "_").upper()
    attributes["envvar"] = attributes.get("envvar") or envvar
    return click.Option([name, *more], show_default=True, show_envvar=True, **attributes)


def matched_checks(patterns: Iterable[str], option_name: str) -> frozenset[str]:
    """Return the checks of the audit that the patterns of an option match."""
    try:
        return frozenset(check for pattern in patterns for check in match_checks(pattern))
    except UnknownCheck as error:
        raise click.BadParameter(str(error), param_hint=option_name) from None


def form_option(name: str, help_text: str) -> Callable[[F], F]:
    """Declare a flag for an output format; the command gets the chosen name as `form`."""

    def choose(ctx: click.Context, param: click.Parameter, is_chosen: bool) -> None:
        earlier = ctx.params.setdefault("form", None)
        if is_chosen and earlier is not None:
            raise click.UsageError(f"--{earlier} and --{name} exclude each other: pass one", ctx)
        if is_chosen:
            ctx.params["form"] = name

    return click.option(
        f"--{name}", f"as_{name}", is_flag=True, expose_value=False, callback=choose, help=help_text
    )


# -- one execution -----------------------------------------------------------------------------


def _execute(
    job_type: type[Job[Any, Any]], build: Build, options: dict[str, Any], *, verify_only: bool
) -> NoReturn:
    settings = Settings(os.environ)
    stop_flag = StopFlag()
    log_level = options.pop("log_level")
    metrics_path = options.pop("metrics", None)
    run_options = _take_run_options(job_type, options)
    _refuse_to_overwrite(run_options.own, run_options.reports)
    console = terminal()
    run_id = uuid4()
    redactor = Redactor.of_process(settings, options.values())
    run_log = RunLog(job_type.name, run_id, redactor)
    configure(run_log, log_level, console)
    _warn_about_lost_reports(run_options.reports, run_log)
    with usage_errors(redactor):
        ping_url = settings.ping_url()
    changes_nothing = verify_only or run_options.dry_run
    pinger = Pinger(None if changes_nothing else ping_url, run_log)
    with _pinged(pinger), usage_errors(redactor):
        pinger.started()
        start_sentry(run_log, settings)
        dsn = job_type.database(settings)
        open_connection = partial(db.connect, dsn, f"artwork-backfill {job_type.name}")
        with closing(db.open_patiently(open_connection)) as conn:
            check = partial(check_tables, conn, command=job_type.name, read_only=changes_nothing)
            check(job_type.tables_for(settings))
            run = Run(
                run_id,
                run_options,
                settings,
                stop_flag.event,
                open_connection,
                verify_only=verify_only,
            )
            job = build(run, **options)
            check(job.more_tables)
    _tune_interpreter(run_options.concurrency)
    with on_signals(stop_flag):
        progress = Progress(run_log, console)
        metrics = None
        if metrics_path is not None:
            metrics = MetricsFile(metrics_path, job, run, log=run_log, progress=progress)
        runner = Runner(
            job, run, log=run_log, progress=progress, stop_flag=stop_flag, metrics=metrics
        )
        report = runner.verify() if verify_only else _with_time_limit(runner, run, stop_flag)
        # Before the report, which is the last output of every run.
        pinger.ended(report.exit_code)
        _publish(report, run, run_log, console)
    _leave(report.exit_code, has_stragglers=runner.has_stragglers)


@contextmanager
def _pinged(pinger: Pinger) -> Iterator[None]:
    """Ping the health-check service if a run cannot start."""
    try:
        yield
    except click.ClickException as error:
        pinger.ended(error.exit_code)
        raise


def _refuse_to_overwrite(own: Mapping[str, object], reports: Iterable[Path]) -> None:
    """Refuse a report that would replace a file that the job itself reads or writes."""
    for path in reports:
        for value in own.values():
            for other in value if isinstance(value, tuple) else (value,):
                if isinstance(other, str | Path) and Path(other).resolve() == path.resolve():
                    raise click.UsageError(
                        f"the report {path} would replace a file of this run: choose another file"
                    )


def _warn_about_lost_reports(paths: Iterable[Path], run_log: RunLog) -> None:
    """Warn before the run about reports that would be deleted with the container."""
    if container.in_container():
        for path in filter(container.vanishes, paths):
            run_log.warning(
                f"the report {path} is deleted together with the container: mount a folder,"
                ' for example with -v "$PWD/reports:/reports"'
            )


def _tune_interpreter(concurrency: int) -> None:
    """Tune the garbage collector and thread switching, which cost over 5 % of a run otherwise."""
    # Imported objects live as long as the process: exclude them from garbage collection.
    gc.freeze()
    if concurrency == 1:
        # With two threads, the writing one would wait 5 ms for the interpreter after each answer
        # of the database. With many threads, more switching only costs time.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)


def _with_time_limit(runner: Runner[Any, Any], run: Run, stop_flag: StopFlag) -> reports.Report:
    if run.options.max_duration is None:
        return runner.run()
    reason = f"the time limit of {run.options.max_duration:g} s was reached"
    timer = threading.Timer(run.options.max_duration, stop_flag.request, [reason])
    timer.daemon = True
    timer.start()
    try:
        return runner.run()
    finally:
        timer.cancel()


def _take_run_options(job: type[Job[Any, Any]], options: dict[str, Any]) -> RunOptions:
    """Remove the common options from a command's options; the job's own remain."""
    partition = options.pop("partition", None) or _partition_from(os.environ)
    common = {
        field.name: options.pop(field.name) for field in fields(RunOptions) if field.name in options
    }
    return RunOptions(
        **{"batch_size": job.batch_size, **common}, partition=partition, own=dict(options)
    )


def _partition_from(environ: Mapping[str, str]) -> Partition:
    """Return the partition that the container platform assigns.

    Kubernetes sets JOB_COMPLETION_INDEX in the pods of an indexed Job, but not their number:
    without PARTITION_COUNT, this process takes all rows.
    """
    count = environ.get("PARTITION_COUNT", "").strip()
    index = environ.get("PARTITION_INDEX", "").strip()
    if not count:
        if index:
            raise click.UsageError("PARTITION_INDEX is set but PARTITION_COUNT is not: set both")
        return Partition()
    index = index or environ.get("JOB_COMPLETION_INDEX", "").strip()
    if not index:
        raise click.UsageError(
            "PARTITION_COUNT is set but PARTITION_INDEX (or JOB_COMPLETION_INDEX) is not: set both"
        )
    try:
        return PartitionType().convert(f"{index}/{count}", None, None)
    except click.BadParameter as error:
        raise click.UsageError(f"PARTITION_INDEX, PARTITION_COUNT: {error.message}") from None


class UnusableError(click.ClickException):
    """A precondition of a command is not met. The message names it and the remedy."""

    exit_code = 2


class UnavailableError(UnusableError):
    """A precondition is not met now, but may be later; the command can be retried."""

    exit_code = INTERRUPTED


@contextmanager
def usage_errors(redactor: Redactor) -> Iterator[None]:
    """Convert errors before a run starts into one message with an exit code."""
    error_type = UnusableError
    try:
        yield
    except psycopg.Error as error:
        message = f"the database cannot be used: {db.explain(error)}"
    except StopRun as error:
        message, error_type = str(error), UnavailableError
    except (SettingsError, EngineError) as error:
        message = str(error)
    else:
        return
    raise error_type(redactor.text(message))


@contextmanager
def musicbrainz_database(
    command: str,
    tables: tuple[Table, ...] = (),
    *,
    database: Callable[[Settings], str] = Settings.musicbrainz_database,
    read_only: bool = False,
    statement_timeout: str = db.READ_TIMEOUT,
) -> Iterator[Connection]:
    """Open the database of a command that is not a job, and check the tables it needs.

    Errors of the settings or the database become one message.
    """
    settings = Settings(os.environ)
    with usage_errors(Redactor.of_process(settings)):
        dsn = database(settings)
        opens = partial(
            db.open_standalone,
            dsn,
            f"artwork-backfill {command}",
            read_only=read_only,
            statement_timeout=statement_timeout,
        )
        with closing(db.open_patiently(opens)) as conn:
            check_tables(conn, tables, command=command, read_only=read_only)
            yield conn


class LoggedCommand(click.Command):
    """A command that also reports its failures to the log and to Sentry."""

    def main(self, *arguments: Any, **extra: Any) -> NoReturn:
        with interrupted_by_signals() as interruption:
            code = self._main(interruption, *arguments, **extra)
            stop_sentry()
            sys.exit(code)

    def _main(self, interruption: Interruption, *arguments: Any, **extra: Any) -> int:
        try:
            _check_arguments(extra.get("args") or (*arguments, sys.argv[1:])[0])
            code = super().main(*arguments, **{**extra, "standalone_mode": False})
            sys.stdout.flush()
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            click.echo(f"Error: cannot write the output: {error.strerror or error}", err=True)
            discard(sys.stdout)
            return 1
        except click.ClickException as error:
            # In a container, where every line is JSON, the log line suffices.
            if not _only_logs():
                error.show()
            _log_refusal(error, _tool(self.name, *arguments))
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            message, code = "Aborted!", 1
            if interruption.signal is not None:
                message = f"stopped by {signal.Signals(interruption.signal).name}"
                code = 128 + interruption.signal
            if _only_logs():
                announce(_tool(self.name, *arguments), message)
            else:
                click.echo(message, err=True)
        return code if isinstance(code, int) else 0


class LoggedGroup(LoggedCommand, click.Group):
    """A group of commands that also report their failures to the log and to Sentry."""


def _check_arguments(arguments: Iterable[str]) -> None:
    for argument in arguments:
        if not is_utf8(argument):
            raise click.UsageError(f"the argument {argument!a} is not UTF-8: use UTF-8")


def _tool(name: str | None, args: Sequence[str] | None = None, *_: Any) -> str:
    """Return the name of the called command, for errors that belong to none of its options."""
    words = sys.argv[1:] if args is None else args
    called = next((word for word in words if not word.startswith("-")), None)
    return name if name and name != REPO else (called or REPO)


def _log_refusal(error: click.ClickException, name: str) -> None:
    """Log why a command ended before its run began, except on a terminal."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    tool = (context.command.name if context is not None else None) or name
    settings = Settings(os.environ)
    run_log = RunLog(tool, uuid4(), Redactor.of_process(settings))
    run_log.enter("failed")
    console = terminal()
    configure(run_log, "error", console)
    with suppress(SettingsError):
        start_sentry(run_log, settings)
    if console is None or "sentry_sdk" in sys.modules:
        run_log.error(error.format_message())


def announce(command: str, message: str) -> None:
    """Print what a command has done, in a container as a log line."""
    if not _only_logs():
        click.echo(message)
        return
    run_log = RunLog(command, uuid4(), Redactor.of_process(Settings(os.environ)))
    configure(run_log, "info", None)
    run_log.info(message)


def _only_logs() -> bool:
    return container.in_container() and terminal() is None


def terminal() -> Console | None:
    """Return the console of a terminal, or `None` if the output goes to a file or a pipe."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        return Console(stderr=True)
    return None


def _publish(report: reports.Report, run: Run, run_log: RunLog, console: Console | None) -> None:
    run_log.enter("report")
    for path in run.options.reports:
        try:
            reports.save(report, path)
        except OSError as error:
            run_log.error(f"cannot write the report to {path}: {error.strerror or error}")
    if console is None:
        run_log.always(reports.headline(report), report=report.as_dict())
    else:
        console.print(reports.to_terminal(report))


def _leave(exit_code: int, *, has_stragglers: bool) -> NoReturn:
    """End the process without waiting for unfinished requests."""
    stop_sentry()
    if has_stragglers:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    raise SystemExit(exit_code)
