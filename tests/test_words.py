"""The language of everything that people read: help, messages, comments and pages.

A list of words cannot tell good prose from bad. It keeps out those that were replaced everywhere,
so that they do not come back.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

#: Words to avoid, as regular expressions, and what to write instead.
AVOIDED = {
    r"mend(s|ed|ing)?": "fix or repair",
    r"(go|goes|went|lead|leads|led) astray": "be inconsistent, or fail",
    r"(has|have|had) (its|their) way": "take precedence",
    r"whoever|whomever": "name the person, or: the caller, the user",
    r"nobody": "name who is missing: no user, no other run",
    r"anew": "again",
    r"of late": "recently",
    r"so many|so few": "this many, N, or a name for the number",
    r"that which": "what",
    r"tells? whether": "return whether",
    r"whom": "name the person or the service",
    r"(regard|regards|regarding)less of case|without regard to case": "case-insensitive",
    r"(go|goes|went|going) on (where|from)": "continue",
    r"to be had": "available",
    r"be it|be they": "whether",
    r"hereby|thereof|therein|wherein|whence|henceforth": "a shorter sentence",
    r"lest|albeit|notwithstanding": "so that not, although",
    r"in vain": "without a result",
    r"comes? to grief|at a loss|makes? do with": "say what fails",
    r"took it for dead|takes? \w+ for dead": "declare dead",
    # One word for one thing.
    r"settle[sd]?|settling": "resolve, decide",
    r"let(s|ting)? go of": "give back",
    r"tak(e|es|en|ing) (its|their) claims back|takes? (them|it) back": "reclaim",
    r"lookout|look-out": "source",
    r"stray (image|images|file|files)": "foreign image",
}
_AVOIDED = {re.compile(rf"\b(?:{words})\b", re.IGNORECASE): say for words, say in AVOIDED.items()}

CODE = ("jobs", "shared", "dashboard", "sandbox", "bench", "sql", "docs", "deploy")


def _problems(text: str) -> list[str]:
    """Return each avoided word of a text with what to write instead."""
    text = re.sub(r"`[^`\n]+`", "``", text)  # names are not prose
    return [
        f"{found[0]!r} in {_around(text, found)!r}: {say}"
        for words, say in _AVOIDED.items()
        for found in words.finditer(text)
    ]


def _around(text: str, found: re.Match[str]) -> str:
    return " ".join(text[max(0, found.start() - 40) : found.end() + 40].split())


def _files(*patterns: str) -> list[str]:
    """Return the files of the project that match, without what a build left behind."""
    return sorted(
        str(path.relative_to(PROJECT)) for pattern in patterns for path in PROJECT.glob(pattern)
    )


def _prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield every string literal and comment of a Python module with its line.

    Neighbouring literals are one text, and so are the lines of a comment.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    comment, last = "", 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("#: ")
            comment = f"{comment} {text}" if token.start[0] == last + 1 else text
            last = token.start[0]
            yield last, comment


# -- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", CODE)
def test_code_speaks_plainly(folder: str) -> None:
    problems = [
        f"{name}:{line}: {problem}"
        for name in _files(f"{folder}/**/*.py")
        for line, text in _prose((PROJECT / name).read_text(encoding="utf-8"))
        for problem in _problems(text)
    ]

    assert problems == []


@pytest.mark.parametrize(
    "name",
    _files("*.md", "docs/*.md", "sandbox/**/*.sql", "deploy/**/*.yaml")
    # The first four migrations are released and keep their comments: `migrate` compares checksums.
    + [name for name in _files("sql/**/*.sql") if not re.search(r"migrations/000[1-4]_", name)]
    + _files("Makefile", "Dockerfile", ".env.example", ".github/**/*.yml"),
)
def test_pages_and_files_speak_plainly(name: str) -> None:
    text = " ".join((PROJECT / name).read_text(encoding="utf-8").split())

    assert _problems(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "How to go on: mend their cause",
        "archive.org leads astray: page 3",
        "nobody knows who you are",
        "A connection string that says otherwise has its way.",
        "Whom to ask, and how.",
        "Tell whether all is done.",
        "Names are matched without regard to case.",
    ],
)
def test_the_examples_of_what_to_avoid_are_found(text: str) -> None:
    assert _problems(text) != []


# -- messages --------------------------------------------------------------------------------------

#: The exceptions whose message a user reads as the reason why a run or a command ended.
REPORTED = {
    "AccessError",
    "BadChangesFile",
    "BadParameter",
    "ChangesError",
    "ClickException",
    "CredentialsRefused",
    "DatabaseError",
    "MigrationFailed",
    "Refused",
    "RunFailed",
    "ScrapeError",
    "ServiceDown",
    "SettingsError",
    "SourceError",
    "StopRun",
    "Unreadable",
    "UnreadableSource",
    "UnusableError",
    "UsageError",
    "UnknownCheck",
    "WrongAddress",
    "WrongUsage",
}

#: Verbs with which a message says what to do.
_REMEDY = re.compile(
    r"(?:^|[:;,.(…] ?|\b(?:or|and|then) )"
    r"(?:ask|check|choose|close|correct|free|give|grant|install|look|name|narrow|omit|pass|put|"
    r"remove|restore|retry|run|see|set|start|stop|suspend|try|use|wait|write)\b"
    r"|`[a-z]+ [^`]*` (?:lists|shows|opens|prints)|nothing to reopen",
    re.IGNORECASE,
)


def _template(node: ast.expr, constants: Mapping[str, str]) -> str | None:
    """Return a literal message with … for each value put into it, or None for any other."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    if isinstance(node, ast.FormattedValue):
        return _template(node.value, constants) or "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part, constants) or "" for part in node.values)
    return None


def _constants(module: ast.Module) -> dict[str, str]:
    """Return the texts of a module that have a name."""
    found: dict[str, str] = {}
    for node in module.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            text = _template(node.value, found)
            if text is not None:
                found[node.target.id] = text
    return found


def _messages() -> Iterator[tuple[str, str]]:
    """Yield every literal message of the exceptions that users read, with where it is raised."""
    for name in _files("jobs/**/*.py", "shared/**/*.py", "dashboard/**/*.py"):
        module = ast.parse((PROJECT / name).read_text(encoding="utf-8"))
        constants = _constants(module)
        for node in ast.walk(module):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            call = node.exc
            kind = ast.unparse(call.func).rpartition(".")[2]
            if kind not in REPORTED or not call.args:
                continue
            # What a person has asked for needs no remedy.
            if any(keyword.arg == "planned" for keyword in call.keywords):
                continue
            message = _template(call.args[0], constants)
            # A message that passes another one on is checked where that one is raised.
            if message is not None and len(re.findall(r"[^\s…:,]{2,}", message)) > 2:
                yield f"{name}:{node.lineno}", message


MESSAGES = dict(_messages())


def _listed() -> list[str]:
    """Return the parts of messages in the first column of docs/messages.md."""
    page = (PROJECT / "docs/messages.md").read_text(encoding="utf-8")
    cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    return [
        (long or short).strip(" ") if long else short
        for cell in cells
        for long, short in re.findall(r"``(.*?)``|`([^`]+)`", cell)
    ]


LISTED = _listed()


def test_many_messages_are_checked() -> None:
    assert len(MESSAGES) > 60
    assert len(LISTED) > 40


@pytest.mark.parametrize("place", MESSAGES)
def test_a_message_says_what_to_do_or_the_page_of_messages_does(place: str) -> None:
    message = MESSAGES[place]

    assert _REMEDY.search(message) or any(part in message for part in LISTED), message


def test_every_listed_message_is_one_of_the_code() -> None:
    names = _files("jobs/**/*.py", "shared/**/*.py", "dashboard/**/*.py", "sql/**/*.sql")
    text = "\n".join((PROJECT / name).read_text(encoding="utf-8") for name in names)
    # Literals that are written in several pieces, put together.
    sources = re.sub(r"""["']\s*\n\s*f?["']""", "", text)

    assert [part for part in LISTED if part not in sources] == []


# -- help ------------------------------------------------------------------------------------------


def test_words_are_checked_in_the_help_of_every_command() -> None:
    """The help is made of literals, and commands.md, which is generated, holds all of it."""
    check = subprocess.run(
        [sys.executable, PROJECT / "docs/generate.py", "--check"], capture_output=True, check=False
    )

    assert check.returncode == 0, check.stdout
