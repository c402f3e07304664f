"""Generation of the parts of the documentation that follow from the code.

    python docs/generate.py            rewrite the files
    python docs/generate.py --check    name the files that are out of date, and fail

A part stands between `<!-- generated: NAME -->` and `<!-- end -->` in a Markdown file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import click
from click.testing import CliRunner

from artwork_backfill.jobs.cli import checks
from artwork_backfill.jobs.cli.main import JOBS, load_job, main
from artwork_backfill.shared.settings import VARIABLES

PROJECT: Final = Path(__file__).resolve().parent.parent
FILES: Final = (
    "README.md",
    *(f"docs/{name}.md" for name in ("checks", "commands", "jobs", "settings")),
)

_PART: Final = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)
_WIDTH: Final = 80


def settings() -> str:
    """Return every environment variable that the jobs share."""
    rows = [
        (
            f"`{variable.name}`",
            variable.meaning,
            f"`{variable.default}`" if variable.default else "none",
            f"`{variable.example}`" if variable.example and not variable.default else "",
        )
        for variable in VARIABLES
    ]
    return _table(("Variable", "Meaning", "Default", "Example"), rows)


def jobs() -> str:
    """Return every job with the first sentence of its help."""
    rows = [(f"`{name}`", _first_sentence(load_job(name).run)) for name in JOBS]
    return _table(("Job", "What it does"), rows)


def others() -> str:
    """Return every command that is not a job, with the first sentence of its help."""
    rows = [
        (f"`{path}`", _first_sentence(command))
        for path, command in walk(main)
        if path.split()[0] not in JOBS and not path.startswith("verify ")
    ]
    return _table(("Command", "What it does"), rows)


def common_options() -> str:
    """Return the options that every job has."""
    of_jobs = [load_job(name).run.params for name in JOBS]
    shared = set.intersection(*({param.name for param in params} for params in of_jobs))
    options = [param for param in of_jobs[0] if param.name in shared]
    return _options(options)


def commands() -> str:
    """Return the help of every command, as it is printed."""
    parts = [f"## artwork-backfill\n\n{_help('')}"]
    parts += [f"## {path}\n\n{_help(path)}" for path, _ in walk(main)]
    return "\n\n".join(parts)


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": settings,
    "jobs": jobs,
    "others": others,
    "common-options": common_options,
    "commands": commands,
    "checks": checks.to_markdown,
}


def walk(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command below a group with its path, like `review list`."""
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from walk(command, f"{prefix}{name} ")


def render(text: str) -> str:
    """Return a Markdown text with every generated part as it should be."""
    return _PART.sub(
        lambda part: f"{part['begin']}\n{PARTS[part['name']]()}\n\n{part['end']}", text
    )


def _first_sentence(command: click.Command) -> str:
    text = " ".join((command.help or "").split())
    return text.partition(". ")[0].removesuffix(".")


def _options(params: Sequence[click.Parameter]) -> str:
    rows = []
    for param in params:
        if isinstance(param, click.Option):
            # An option that reads its variables itself names them in its help.
            meaning, _, named = (param.help or "").partition(" [env var")
            envvar = param.envvar or re.findall(r"[A-Z][A-Z_]+", named)
            variables = [envvar] if isinstance(envvar, str) else envvar
            names = ", ".join(f"`{name}`" for name in variables)
            rows.append((f"`{param.opts[0]}`", meaning, names))
    return _table(("Option", "Meaning", "Variable"), rows)


def _help(path: str) -> str:
    result = CliRunner().invoke(
        main, [*path.split(), "--help"], prog_name="artwork-backfill", terminal_width=_WIDTH
    )
    return f"```text\n{result.output}```"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _main() -> int:
    is_check = sys.argv[1:] == ["--check"]
    stale = []
    for name in FILES:
        path = PROJECT / name
        before = path.read_text(encoding="utf-8")
        after = render(before)
        if after != before:
            stale.append(name)
            if not is_check:
                path.write_text(after, encoding="utf-8")
    for name in stale:
        print(f"{name} {'is out of date: run `make docs`' if is_check else 'rewritten'}")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(_main())
