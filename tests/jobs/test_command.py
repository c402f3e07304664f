"""A job as a command: its options, signals, logs and report, in a process of its own."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from artwork_backfill.jobs.command import DurationType, OutputType, PartitionType
from artwork_backfill.shared.version import VERSION
from sandbox.postgres import Cluster
from tests import programs, tiny_command
from tests.timing import LIMIT_S, at_most
from tests.tiny import create_work, doubled, states, wait_for

TINY = [sys.executable, str(Path(__file__).parents[1] / "tiny_command.py")]
#: Password and key, both needed in a form that a URL spells differently.
SECRETS = ("p@ss/w0rd!", "p%40ss%2Fw0rd%21", "lml-key-4711")


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> Iterator[str]:
    """URL of a database for all tests of this module, one after another; with a password in it."""
    name = f"tiny_{uuid.uuid4().hex}"
    dsn = postgres.create_database(name)
    yield dsn.replace("postgres@", f"postgres:{SECRETS[1]}@") if "postgres@" in dsn else dsn
    postgres.drop_database(name)


@pytest.fixture
def work(database: str) -> str:
    """URL of a database with 35 rows to work on."""
    create_work(database, 35)
    return database


def environ(dsn: str, **variables: str) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {
        **os.environ,
        "PYTHONPATH": root,
        "MUSICBRAINZ_DATABASE_URL": dsn,
        "LML_API_KEY": SECRETS[2],
        **variables,
    }


def run(dsn: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return programs.run(arguments, environ(dsn, **variables), main=tiny_command.main)


@contextlib.contextmanager
def started(dsn: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*TINY, *arguments],
        env=environ(dsn),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def report_of(stdout: str) -> dict[str, Any]:
    last: dict[str, Any] = lines(stdout)[-1]
    assert last["step"] == "report"
    report: dict[str, Any] = last["report"]
    return report


# -- logs and report -------------------------------------------------------------------------------


def test_every_line_says_which_tool_run_and_step_it_belongs_to(work: str) -> None:
    done = run(work, "--batch-size", "10", "--fixed-batch-size")
    assert (done.returncode, done.stderr) == (0, "")
    logged = lines(done.stdout)
    for line in logged:
        assert line["repo"] == "artwork-backfill"
        assert line["tool"] == "tiny"
        assert line["level"] == "info"
        assert line["message"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(\+00:00|Z)", line["timestamp"])
    assert len({line["run_id"] for line in logged}) == 1
    uuid.UUID(logged[0]["run_id"])
    steps = list(dict.fromkeys(line["step"] for line in logged))
    # Of batches within ten seconds, only the first has a line.
    assert steps == ["started", "batch-1", "verify", "report"]
    batch = next(line for line in logged if line["step"] == "batch-1")
    assert batch["counts"] == {"scanned": 10, "written": 10}
    assert (batch["totals"]["written"], batch["done"], batch["total"]) == (10, 10, 35)
    assert batch["rate"] > 0
    assert batch["eta_s"] >= 0


def test_errors_go_to_stderr_and_all_else_to_stdout(work: str) -> None:
    done = run(work, "--mode", "noisy")
    assert done.returncode == 3
    assert {line["level"] for line in lines(done.stdout)} == {"info", "warning"}
    assert {line["level"] for line in lines(done.stderr)} == {"error"}
    messages = [line["message"] for line in lines(done.stdout)]
    assert any("a library complains" in message for message in messages)


def test_no_secret_leaves_the_process(work: str, tmp_path: Path) -> None:
    for mode in ("noisy", "raise"):
        files = [tmp_path / f"{mode}.json", tmp_path / f"{mode}.md"]
        done = run(work, "--mode", mode, *(f"--report={path}" for path in files))
        outputs = [done.stdout, done.stderr, *(path.read_text() for path in files)]
        for secret in SECRETS:
            assert not any(secret in output for output in outputs), mode
        assert any("***" in output for output in outputs)


def test_log_level_decides_what_is_shown(work: str) -> None:
    done = run(work, "--mode", "noisy", "--log-level", "error")
    assert report_of(done.stdout)["exit_code"] == 3
    assert len(lines(done.stdout)) == 1
    assert [line["message"] for line in lines(done.stderr)] == [
        "failed",
        "tiny: the verification does not hold (rows left as they were)",
    ]


def test_an_unforeseen_error_is_one_json_line_with_its_traceback(work: str) -> None:
    done = run(work, "--mode", "raise")
    assert done.returncode == 1
    (line,) = lines(done.stderr)
    assert line["step"] == "failed"
    assert line["message"] == "tiny failed: RuntimeError: nobody foresaw ***"
    assert "Traceback" in line["exc_info"]
    report = report_of(done.stdout)
    assert (report["outcome"], report["exit_code"]) == ("failed", 1)


def test_the_report_is_written_to_every_file(work: str, tmp_path: Path) -> None:
    paths = [tmp_path / "report.json", tmp_path / "report.md"]
    done = run(work, *(f"--report={path}" for path in paths), "--limit", "7")
    assert done.returncode == 0
    report = json.loads(paths[0].read_text())
    assert report == report_of(done.stdout)
    assert report["outcome"] == "stopped"
    assert report["options"]["limit"] == 7
    assert report["options"]["mode"] == "plain"
    assert "the limit of 7 rows was reached" in paths[1].read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_a_report_that_can_no_longer_be_written_is_an_error_but_no_failure(
    work: str, tmp_path: Path
) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    with started(work, "--mode", "hold", f"--report={folder}/r.json") as process:
        wait_for(lambda: "claimed" in states(work))
        folder.rmdir()
        process.terminate()
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 143
    (line,) = lines(stderr)
    assert "cannot write the report" in line["message"]
    assert report_of(stdout)["outcome"] == "stopped"


@pytest.mark.parametrize("log", ["nobody reads it", "the disk is full"])
def test_a_run_outlives_its_log(work: str, tmp_path: Path, log: str) -> None:
    report = tmp_path / "report.json"
    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen(
            [*TINY, f"--report={report}"],
            env=environ(work),
            stdout=full if log == "the disk is full" else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        if process.stdout is not None:
            process.stdout.close()
        assert process.stderr is not None
        (line,) = lines(process.stderr.read())
    assert line["message"].startswith("the log cannot be written any more")
    assert process.returncode == 0
    assert states(work) == {"done": 35}
    assert json.loads(report.read_text())["outcome"] == "verified"


# -- signals and limits ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signum", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
def test_a_signal_commits_the_batch_in_hand_and_releases_the_rest(
    work: str, signum: signal.Signals, exit_code: int
) -> None:
    with started(work, "--mode", "hold", "--batch-size=10", "--fixed-batch-size") as process:
        wait_for(lambda: states(work).get("done") == 10 and "claimed" in states(work))
        process.send_signal(signum)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == exit_code
    assert stderr == ""
    assert states(work) == {"done": 14, "waiting": 21}
    report = report_of(stdout)
    assert (report["outcome"], report["exit_code"]) == ("stopped", exit_code)
    assert report["reason"] == f"stopped by {signum.name}"
    assert run(work).returncode == 0
    assert states(work) == {"done": 35}
    assert doubled(work) == []


def test_a_second_signal_ends_the_process_at_once(work: str) -> None:
    with started(work, "--mode", "hang") as process:
        assert process.stdout is not None
        # Before, there is nothing that keeps the run from ending in good order.
        assert any("a fetch hangs" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        # A terminal may send it twice; only one that comes later means it.
        time.sleep(1.1)
        process.send_signal(signal.SIGTERM)
        with at_most(3):
            stdout, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 143
    assert '"step": "report"' not in stdout


def test_a_signal_that_comes_twice_at_once_counts_once(work: str) -> None:
    with started(work, "--mode", "hold", "--batch-size=10", "--fixed-batch-size") as process:
        wait_for(lambda: states(work).get("done") == 10 and "claimed" in states(work))
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        stdout, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert report_of(stdout)["outcome"] == "stopped"


def test_a_fetch_that_hangs_does_not_keep_the_process(work: str) -> None:
    with started(work, "--mode", "hang", "--max-duration", "1s", "--batch-size=10") as process:
        stdout, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    report = report_of(stdout)
    assert report["reason"] == "the time limit of 1 s was reached"
    assert states(work).keys() == {"done", "waiting"}


# -- on a terminal ---------------------------------------------------------------------------------


def test_people_at_a_terminal_get_a_bar_and_tables_and_nothing_raw_from_outside(work: str) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*TINY, "--mode", "noisy"],
        env=environ(work, TERM="xterm", COLUMNS="120"),
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # so ends a terminal whose other side is closed
            while chunk := os.read(ours, 65536):
                shown += chunk
        os.close(ours)
    text = shown.decode()
    assert process.returncode == 3
    assert "35/35" in text
    assert "Verification" in text
    assert "Next: " in text
    assert '"level"' not in text
    # The name of row 3 can neither colour the terminal nor be taken for markup.
    assert "\x1b[31mred" not in text
    assert r"\x1b[31mred" in text
    assert "[bold]text[/bold]" in text
    assert not any(secret in text for secret in SECRETS)


# -- Sentry ----------------------------------------------------------------------------------------


@pytest.fixture
def sentry() -> Iterator[tuple[str, list[bytes]]]:
    """The DSN of a server that keeps what it is sent, and what it has been sent."""
    received: list[bytes] = []

    class Keeps(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.append(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keeps)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://publickey@127.0.0.1:{server.server_port}/1", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_sentry_hears_of_errors_with_the_runs_tags_and_without_secrets(
    work: str, sentry: tuple[str, list[bytes]]
) -> None:
    dsn, received = sentry
    done = run(work, "--mode", "raise", SENTRY_DSN=dsn, SENTRY_ENVIRONMENT="test")
    assert done.returncode == 1
    assert len(lines(done.stderr)) == 1
    (envelope,) = received
    event = json.loads(envelope.splitlines()[2])
    assert (
        event["tags"].items()
        >= {
            "repo": "artwork-backfill",
            "tool": "tiny",
            "step": "failed",
            "run_id": report_of(done.stdout)["run_id"],
        }.items()
    )
    assert event["environment"] == "test"
    assert event["release"] == f"artwork-backfill@{VERSION}"
    assert "RuntimeError" in json.dumps(event["exception"])
    assert b'"vars"' not in envelope
    assert not any(secret.encode() in envelope for secret in SECRETS)


@pytest.mark.parametrize(
    ("arguments", "exit_code"), [(["--mode", "noisy"], 3), (["--limit", "many"], 2)], ids=str
)
def test_sentry_hears_of_every_exit_code_but_0(
    work: str, sentry: tuple[str, list[bytes]], arguments: list[str], exit_code: int
) -> None:
    dsn, received = sentry
    assert run(work, *arguments, SENTRY_DSN=dsn).returncode == exit_code
    assert received


def test_sentry_hears_nothing_of_a_run_that_goes_well(
    work: str, sentry: tuple[str, list[bytes]]
) -> None:
    dsn, received = sentry
    assert run(work, SENTRY_DSN=dsn).returncode == 0
    assert received == []


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["--batch-size", "0"], {}, "0 is not in the range 1<=x<="),
        (["--batch-size", "many"], {}, "'many' is not a valid integer"),
        (["--concurrency", "0"], {}, "0 is not in the range 1<=x<=512"),
        (["--limit", "-1"], {}, "-1 is not in the range 1<=x<="),
        (["--max-duration", "soon"], {}, "'soon' is not a duration: write it like 90s, 30m"),
        (["--partition", "4/4"], {}, "'4/4' is not a partition: write I/N"),
        (["--report", "report.txt"], {}, "'report.txt' has an unknown suffix"),
        (["--report", "/no/such/folder/r.md"], {}, "cannot be written: No such file or directory"),
        (["--log-level", "loud"], {}, "'loud' is not one of"),
        (["--mode", "x"], {}, "'x' is not one of"),
        (["--btach-size", "5"], {}, "--batch-size"),
        (["argument"], {}, "unexpected extra argument (argument)"),
        ([], {"BACKFILL_LIMIT": "0"}, "0 is not in the range 1<=x<="),
        ([], {"BACKFILL_REPORT": "a.json b.txt"}, "'b.txt' has an unknown suffix"),
        ([], {"PARTITION_INDEX": "1"}, "PARTITION_INDEX is set but PARTITION_COUNT is not"),
        ([], {"PARTITION_COUNT": "2"}, "PARTITION_COUNT is set but PARTITION_INDEX (or"),
        ([], {"PARTITION_COUNT": "2", "PARTITION_INDEX": "2"}, "'2/2' is not a partition"),
        ([], {"SENTRY_DSN": "nonsense"}, "SENTRY_DSN is not a Sentry DSN"),
        ([], {"MUSICBRAINZ_DATABASE_URL": ""}, "MUSICBRAINZ_DATABASE_URL is not set"),
        ([], {"MUSICBRAINZ_DATABASE_URL": "mysql://u@h/d"}, "MUSICBRAINZ_DATABASE_URL is not a"),
    ],
    ids=str,
)
def test_bad_usage_is_exit_code_2_with_one_clear_line(
    work: str, arguments: list[str], variables: dict[str, str], message: str
) -> None:
    done = run(work, *arguments, **variables)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    (logged,) = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert (logged["level"], logged["step"], logged["tool"]) == ("error", "failed", "tiny")
    assert message in logged["message"]
    assert "Traceback" not in done.stderr
    assert states(work) == {"waiting": 35}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("5d", 432_000)],
)
def test_durations(text: str, seconds: float) -> None:
    assert DurationType().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "0", "45", "0s", "-5", "5 minutes", "m", "1.5h", "30m1h"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration"):
        DurationType().convert(text, None, None)


@pytest.mark.parametrize("text", ["", "1", "1/", "/2", "2/2", "-1/2", "0/0", "a/b", "1/2/3"])
def test_what_is_no_partition(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a partition"):
        PartitionType().convert(text, None, None)


def test_a_folder_is_no_report(tmp_path: Path) -> None:
    folder = tmp_path / "folder.json"
    folder.mkdir()
    with pytest.raises(click.BadParameter, match="is a folder"):
        OutputType((".json", ".md")).convert(str(folder), None, None)


@pytest.mark.parametrize(
    ("variables", "share"),
    [
        ({}, "0/1"),
        ({"PARTITION_INDEX": "1", "PARTITION_COUNT": "3"}, "1/3"),
        ({"JOB_COMPLETION_INDEX": "2", "PARTITION_COUNT": "3"}, "2/3"),
        ({"JOB_COMPLETION_INDEX": "2"}, "0/1"),
        ({"PARTITION_INDEX": "", "PARTITION_COUNT": ""}, "0/1"),
    ],
    ids=str,
)
def test_a_container_platform_may_say_which_share_is_ours(
    work: str, variables: dict[str, str], share: str
) -> None:
    done = run(work, "--dry-run", **variables)
    report = report_of(done.stdout)
    assert report["options"]["partition"] == share
    index, count = map(int, share.split("/"))
    assert report["totals"]["written"] == len([i for i in range(1, 36) if i % count == index])


def test_options_can_come_from_the_environment_and_empty_ones_do_not_count(work: str) -> None:
    done = run(
        work,
        BACKFILL_LIMIT="5",
        BACKFILL_BATCH_SIZE="3",
        BACKFILL_DRY_RUN="",
        BACKFILL_MAX_DURATION="",
        BACKFILL_REPORT="",
        BACKFILL_LOG_LEVEL="",
    )
    assert done.returncode == 0, done.stderr
    options = report_of(done.stdout)["options"]
    assert (options["limit"], options["batch_size"], options["dry_run"]) == (5, 3, False)
    assert states(work)["done"] == 5


def test_verification_can_be_had_alone(work: str) -> None:
    done = run(work, "verify-only")
    assert done.returncode == 0
    assert [line["step"] for line in lines(done.stdout)] == ["verify", "report"]
    assert states(work) == {"waiting": 35}


def test_help_names_each_option_with_its_default_and_variable() -> None:
    text = CliRunner().invoke(tiny_command.command.run, ["--help"], terminal_width=200).output
    for option in tiny_command.command.run.params:
        if option.name != "help":
            assert option.opts[0] in text
    for variable in ("BACKFILL_BATCH_SIZE", "BACKFILL_DRY_RUN", "PARTITION_COUNT", "default: 10"):
        assert variable in text
