"""The documentation, held against the code: what it says exists, and what it shows runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import click
import psycopg
import pytest

from artwork_backfill.jobs.cli.main import JOBS, main
from artwork_backfill.shared.migrations import available, migrate
from artwork_backfill.shared.settings import VARIABLES
from sandbox import surroundings
from sandbox.library import LibrarySpec
from sandbox.surroundings import Surroundings
from sandbox.world import Spec

PROJECT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "CLAUDE.md", *sorted(f"docs/{p.name}" for p in PROJECT.glob("docs/*.md")))
PAGES = {name: (PROJECT / name).read_text(encoding="utf-8") for name in FILES}
BIN = Path(sys.executable).parent

#: What stands in the documentation for something that the reader has to put there.
PLACEHOLDERS = {
    "JOB": "audit-batch",
    "ID": "1",
    "GID": "76df3287-6cda-33eb-8e9a-044b5e15ffdd",
    "CHECK": "item.dark",
}


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


# -- what is generated -------------------------------------------------------------------------


def test_generated_parts_are_current() -> None:
    check = subprocess.run(
        [sys.executable, PROJECT / "docs/generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert check.returncode == 0, check.stdout + check.stderr


# -- what is named -----------------------------------------------------------------------------


def _walk(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _walk(command, *path, name)


COMMANDS = dict(_walk(main))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_is_explained_with_an_example(path: tuple[str, ...]) -> None:
    shown = COMMANDS[path].help or ""

    assert re.search(rf"^\s*Example: artwork-backfill {' '.join(path)}\b", shown, re.MULTILINE), (
        shown
    )


def _commands_of(page: str) -> list[str]:
    """Every command line of a page, in code blocks and within its text."""
    text = re.sub(r"\\\n\s*", " ", PAGES[page])
    # An example of a help page continues in the next line.
    text = re.sub(r"(Example: [^\n]*)\n +(?=\S)", r"\1 ", text)
    by_itself = re.findall(
        r"(?:^(?:\$ )?|`|Example: )artwork-backfill ([^`\n]+)", text, re.MULTILINE
    )
    in_container = re.findall(r"docker run [^\n`]*? artwork-backfill ([^`\n]+)", text)
    return [re.split(r" [>#|] ", line)[0].strip() for line in by_itself + in_container]


# The example of a new job is no command of ours; it is run below.
DOCUMENTED = sorted(
    {
        (page, line)
        for page in PAGES
        for line in _commands_of(page)
        if not line.endswith("...") and not line.startswith("raise-priority")
    }
)


def _check_command(words: list[str]) -> None:
    """Let click read a command line without running it; raises what click would say."""
    command: click.Command = main
    context = main.make_context("artwork-backfill", list(words), resilient_parsing=True)
    while isinstance(command, click.Group) and words:
        name, chosen, words = command.resolve_command(context, words)
        assert chosen is not None
        if isinstance(chosen, click.Group):
            context = chosen.make_context(name, list(words), parent=context, resilient_parsing=True)
            command = chosen
        elif "--help" not in words:
            chosen.make_context(name, list(words), parent=context)
            return
        else:
            return


@pytest.mark.parametrize(("page", "line"), DOCUMENTED)
def test_documented_commands_exist_with_their_options(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _check_command([PLACEHOLDERS.get(word, word) for word in shlex.split(line)])


def test_the_pages_name_commands_at_all() -> None:
    assert len(DOCUMENTED) > 40


def _known_variables() -> set[str]:
    known = {variable.name for variable in VARIABLES}
    for command in COMMANDS.values():
        for param in command.params:
            known |= {param.envvar} if isinstance(param.envvar, str) else set(param.envvar or ())
    return known | {"PARTITION_INDEX", "PARTITION_COUNT", "JOB_COMPLETION_INDEX"}


def _of_deployments() -> set[str]:
    """Return the variables of the image, the Compose file and the workflow, and other programs'."""
    workflows = (f".github/workflows/{name}.yml" for name in ("ci", "deploy-manual"))
    files = ("Dockerfile", "Makefile", "deploy/compose.yaml", *workflows)
    text = "".join((PROJECT / name).read_text(encoding="utf-8") for name in files)
    outside = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"}
    return set(_VARIABLE.findall(text)) | outside | {"_ARTWORK_BACKFILL_COMPLETE"}


_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+\b")


@pytest.mark.parametrize("page", PAGES)
def test_documented_variables_exist(page: str) -> None:
    # Placeholders of SQL and of the example of a new job are no variables.
    others = {"RUN_ID", "SKIP_LOCKED", "FOR_UPDATE", "BACKFILL_TO", "_NEXT", "_COUNT", "NO_END"} | {
        "GID_OR_URL"
    }
    named = set(_VARIABLE.findall(PAGES[page])) - others

    assert named <= _known_variables() | _of_deployments()


def test_every_setting_is_documented() -> None:
    for variable in VARIABLES:
        assert f"`{variable.name}`" in PAGES["docs/settings.md"]


@pytest.mark.parametrize("page", ["README.md", "docs/settings.md"])
@pytest.mark.parametrize("job", JOBS)
def test_every_job_is_listed_with_what_it_needs(page: str, job: str) -> None:
    rows = [line for line in PAGES[page].splitlines() if line.startswith("| `")]
    assert any(f"`{job}`" in row for row in rows)


@pytest.mark.parametrize("page", ["CLAUDE.md", "docs/jobs.md"])
def test_every_job_has_a_runbook(page: str) -> None:
    for job in JOBS:
        part = re.split(rf"^## {job}$", PAGES[page], flags=re.MULTILINE)[1]
        part = part.partition("\n## ")[0]
        for word in ("Run", "Verify", "Roll back"):
            assert f"**{word}" in part, f"{job}: {word}"


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    readme = PAGES["README.md"]

    assert len(readme.splitlines()) <= 125
    assert [page for page in PAGES if page != "README.md" and f"({page})" not in readme] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", PAGES[page]):
        if not target.startswith("http"):
            file = (PROJECT / page).parent.joinpath(target) if target else PROJECT / page
            assert file.exists(), target
            assert not anchor or anchor in _anchors(file.read_text(encoding="utf-8")), anchor


def _anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- what is shown -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    with surroundings.start(Spec(seed=7, size=60, drift_rate=0.3), LibrarySpec(7, 60)) as started:
        yield started


def _run(
    command: list[str], around: Surroundings, folder: Path, **environ: str
) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        env={"PATH": path, "LANG": "C.UTF-8", **around.environment, **environ},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_shell_blocks_run(around: Surroundings, tmp_path: Path) -> None:
    # The jobs first: they migrate and seed.
    pages = ["docs/jobs.md", *(page for page in PAGES if page != "docs/jobs.md")]
    blocks = [block for page in pages for block in _blocks(page, "sh")]
    lines = [line for block in blocks for line in block.splitlines()]

    assert len(lines) > 15
    for line in lines:
        ran = _run(shlex.split(line), around, tmp_path)
        assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}"
    assert "audit-batch" in (tmp_path / "audit.md").read_text()


def test_the_new_job_works(around: Surroundings, tmp_path: Path) -> None:
    (example,) = (
        text for text in _blocks("docs/development.md", "python") if "job_command" in text
    )
    assert len(example.splitlines()) <= 30
    (tmp_path / "raise_priority.py").write_text(example)
    job = [sys.executable, "-c", "from raise_priority import command; command.run()"]
    verify = [sys.executable, "-c", "from raise_priority import command; command.verify()"]
    gids = [uuid4(), uuid4()]
    with psycopg.connect(around.musicbrainz_dsn, autocommit=True) as conn:
        migrate(conn)
        conn.cursor().executemany(
            "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority, status)"
            " VALUES ('release', %s, 10, %s::artwork_indexer.audit_entity_status)",
            [(gids[0], "unchecked"), (gids[1], "clean")],
        )

        tried = _run([*job, "--dry-run"], around, tmp_path)
        assert tried.returncode == 0, tried.stdout + tried.stderr
        assert _priorities(conn, gids) == [10, 10]
        assert _run(verify, around, tmp_path).returncode == 3

        ran = _run([*job, "--report", "report.json"], around, tmp_path)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert _priorities(conn, gids) == [100, 10]
        assert _run(verify, around, tmp_path).returncode == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["totals"]["written"] >= 1


def test_the_daemon_audits(around: Surroundings, tmp_path: Path) -> None:
    (example,) = (text for text in _blocks("docs/auditor.md", "python") if "Auditor" in text)
    program = _DAEMON + example + "\nprint('audited', summary.audited)\n"
    with psycopg.connect(around.musicbrainz_dsn, autocommit=True) as conn:
        migrate(conn)
        conn.execute(
            "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority)"
            " SELECT 'release', gid, 300 FROM musicbrainz.release WHERE id = 1"
            " ON CONFLICT (entity_type, gid) DO UPDATE SET status = 'unchecked', priority = 300"
        )
        # Nothing is audited while artwork-indexer has something to do.
        conn.execute("UPDATE artwork_indexer.event_queue SET state = 'completed'")

    ran = _run([sys.executable, "-c", program], around, tmp_path)

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "audited 1"


# A daemon that has nothing to do, and ends after a single round.
_DAEMON = """
class Stopping:
    rounds = 0
    def is_set(self):
        self.rounds += 1
        return self.rounds > 1
    def wait(self, seconds):
        assert seconds >= 1.0

stopping, work_that_is_waiting = Stopping(), lambda: False
"""


def _documented_fields(beginning: str) -> set[str]:
    """Return the names in the first column of the table that follows a text of operations.md."""
    after = PAGES["docs/operations.md"].partition(beginning)[2].lstrip()
    cells = [line.split("|")[1] for line in after.partition("\n\n")[0].splitlines()]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_field_of_logs_and_reports_is_documented(
    around: Surroundings, tmp_path: Path
) -> None:
    command = [str(BIN / "artwork-backfill")]
    assert _run([*command, "migrate"], around, tmp_path).returncode == 0
    lines, reports = set(), set()
    for job in ("seed-from-mb", "audit-batch", "library-artwork-url-backfill"):
        ran = _run([*command, job, "--dry-run", "--limit", "20"], around, tmp_path)
        for line in map(json.loads, ran.stdout.splitlines()):
            lines |= set(line)
            reports |= set(line.get("report", ()))

    assert "report" in lines
    assert lines <= _documented_fields("with their zone.")
    # Each job may add sections of its own.
    known = _documented_fields("`--report FILE.json`:")
    assert known - {"findings"} <= reports


def _priorities(conn: psycopg.Connection, gids: list[UUID]) -> list[int]:
    rows = conn.execute(
        "SELECT priority FROM artwork_indexer.audit_entity WHERE gid = ANY (%s)"
        " ORDER BY array_position(%s, gid)",
        (gids, gids),
    )
    return [priority for (priority,) in rows]


def _sql(page: str, beginning: str) -> str:
    (block,) = (text for text in _blocks(page, "sql") if text.startswith(beginning))
    return block


def test_a_run_is_rolled_back_as_the_runbook_says(migrated_database: str) -> None:
    run_id = uuid4()
    with psycopg.connect(migrated_database, autocommit=True) as conn:
        mine, users = (_queue(conn, name) for name in ("theirs", "mine"))
        with conn.transaction():
            conn.execute("DELETE FROM artwork_indexer.event_queue WHERE id = %s", (mine,))
            mine = _queue(conn, "mine again")
            conn.execute(
                "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status)"
                " VALUES ('release', gen_random_uuid(), 'repair_queue')"
            )
            conn.execute(
                "INSERT INTO artwork_indexer.audit_result"
                " (audit_entity_id, run_id, outcome, event_ids)"
                " SELECT id, %s, 'repair_queue', %s FROM artwork_indexer.audit_entity",
                (run_id, [mine, users]),
            )

        conn.execute(_sql("docs/jobs.md", "BEGIN").replace("RUN_ID", str(run_id)).encode())

        left = conn.execute("SELECT id FROM artwork_indexer.event_queue").fetchall()
        status = conn.execute("SELECT status FROM artwork_indexer.audit_entity").fetchall()
    assert left == [(users,)]
    assert status == [("unchecked",)]


def _queue(conn: psycopg.Connection, gid: str) -> int:
    row = conn.execute(
        "INSERT INTO artwork_indexer.event_queue (entity_type, action, message)"
        " VALUES ('release', 'index', jsonb_build_object('gid', %s::text)) RETURNING id",
        (gid,),
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_the_other_statements_of_the_runbook_hold(migrated_database: str) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status, priority)"
            " VALUES ('release', gen_random_uuid(), 'unchecked', 300),"
            "        ('release', gen_random_uuid(), 'clean', 300)"
        )

        priorities = "UPDATE artwork_indexer.audit_entity SET priority"
        conn.execute(_sql("docs/jobs.md", priorities).encode())
        assert conn.execute(
            "SELECT priority FROM artwork_indexer.audit_entity ORDER BY id"
        ).fetchall() == [(100,), (300,)]

        conn.execute(_sql("docs/jobs.md", "DELETE").encode())
        assert conn.execute("SELECT status FROM artwork_indexer.audit_entity").fetchall() == [
            ("clean",)
        ]

        conn.execute(
            "UPDATE artwork_indexer.audit_entity"
            " SET status = 'unchecked', priority = 50, was_live = FALSE"
        )
        statuses = "UPDATE artwork_indexer.audit_entity\nSET status"
        conn.execute(_sql("docs/jobs.md", statuses).encode())
        assert conn.execute("SELECT status FROM artwork_indexer.audit_entity").fetchall() == [
            ("legacy",)
        ]

        # Everything of ours is gone then, and can be made again.
        conn.execute(_sql("docs/jobs.md", "DROP TRIGGER").encode())
        assert migrate(conn) == [migration.name for migration in available()]
