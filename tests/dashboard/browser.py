"""A real browser, a served dashboard, and what a person does at it: for tests.

Chromium is Debian's, or whatever CHROMIUM names.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, ViewportSize, expect

from sandbox.surroundings import COMMAND

CHROMIUM: Final = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
TABS: Final = ("Overview", "Reviews", "Failed events", "Entities", "Checks", "Runs")
SIZE: Final = ViewportSize(width=1280, height=860)

#: Columns of the lists of reviews and failed events.
AGE: Final = 1
REASON: Final = 2
ID: Final = 9

#: Pixels of a table's header and of a row.
ROW: Final = 35

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

NEEDS_CHROMIUM: Final = pytest.mark.skipif(
    not Path(CHROMIUM).is_file(),
    reason="no Chromium found: apt-get install chromium, or set CHROMIUM to its path",
)

Visit = Callable[..., Page]


def free_port() -> int:
    """Return a free port outside the range from which the kernel hands out ports."""
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True, slots=True)
class Served:
    """A dashboard that is served by a process of its own."""

    url: str
    pid: int


@contextmanager
def served(
    environment: Mapping[str, str], *options: str, port: int | None = None
) -> Iterator[Served]:
    """Serve the dashboard with these settings as long as the block lasts."""
    port = port or free_port()
    process = subprocess.Popen(
        [
            *(str(COMMAND), "dashboard", "--by", "tester"),
            *("--port", str(port), *options),
        ],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        output = ""
        while "URL:" not in output:
            line = process.stdout.readline()
            assert line, f"the dashboard did not start:\n{output}"
            output += line
        yield Served(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=20)
        assert "Traceback" not in rest, rest


def note_elsewhere(url: str, elsewhere: list[str], besides: str = "") -> None:
    """Note a request to any host but this machine, and the one that is expected."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in (
        "127.0.0.1",
        besides,
    ):
        elsewhere.append(url)


def settled(page: Page) -> None:
    """Wait until the run that has drawn what was seen last is over, and nothing is out of date.

    Says nothing right after a click, of which the server may not have heard: wait for what the
    click brings first. Lists and tables refresh by themselves, so no state of the page as a whole
    proves that.
    """
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    expect(page.locator("[data-stale=true]")).to_have_count(0)
    expect(page.locator("[data-testid=stSkeleton]")).to_have_count(0)


def table_of(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def cell(table: Locator, column: int, row: int = 0) -> Locator:
    """A cell of a table, of which a canvas is drawn and a hidden table tells.

    Columns count from 0, and that of the boxes to tick is one of them.
    """
    return table.get_by_test_id(f"glide-cell-{column}-{row}")


def outcome(page: Page, row: int = 0) -> Locator:
    """What has come of something that was done, as the table of those things says."""
    return cell(table_of(page, "What you have done"), 1, row)


def select(page: Page, table: str, position: int = 0) -> None:
    settled(page)
    y = ROW + ROW * position + ROW // 2
    table_of(page, table).locator(".dvn-scroller").click(position={"x": 16, "y": y})
    expect(page.get_by_text("1 selected")).to_be_visible()
    settled(page)


def go_to(page: Page, tab: str) -> None:
    """Open a tab, and wait until it is drawn."""
    page.get_by_role("tab", name=tab).click()
    for sign in DRAWN[tab](page):
        expect(sign).to_be_attached()
    settled(page)


#: What is there when a tab is drawn.
DRAWN: Final[Mapping[str, Callable[[Page], Sequence[Locator]]]] = {
    "Overview": lambda page: [
        table_of(page, "Repairs"),
        page.get_by_text("Findings by check as a table"),
    ],
    "Reviews": lambda page: [table_of(page, "Reviews")],
    "Failed events": lambda page: [table_of(page, "Failed events")],
    "Entities": lambda page: [page.get_by_label("Gid, archive.org identifier or URL")],
    "Checks": lambda page: [table_of(page, "Checks")],
    "Runs": lambda page: [page.get_by_text("The dashboard starts no runs")],
}


def filter_by(page: Page, label: str, name: str, text: str) -> None:
    """Fill in a filter, and wait for the address, which is written when the list is drawn."""
    settled(page)
    field = page.get_by_label(label)
    field.fill(text)
    field.press("Enter")
    page.wait_for_url(lambda url: parse_qs(urlsplit(url).query).get(name) == [text])
    settled(page)


def find_reviews(page: Page, text: str) -> None:
    """Filter the reviews by their reason."""
    filter_by(page, "Reason contains", "reason", text)
    reason = cell(table_of(page, "Reviews"), REASON)
    expect(reason).to_have_text(re.compile(re.escape(text), re.IGNORECASE))


def press(page: Page, button: str) -> None:
    """Press a button; what comes of it is for the test to wait for."""
    settled(page)
    # A button that has a shortcut says so behind its name.
    name = re.compile(rf"^{re.escape(button)}($| \w| Alt)")
    found = page.get_by_role("button", name=name)
    expect(found).to_have_count(1)
    found.click()


def write_note(page: Page, text: str) -> Locator:
    settled(page)
    note = page.get_by_label("Note for people who look at this later")
    note.fill(text)
    return note


def take_picture(page: Page, path: Path) -> None:
    """Keep a picture with no more colours than a page has, which takes a third of the space."""
    picture = Image.open(BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(
        path, optimize="DASHBOARD_SCREENSHOTS" in os.environ
    )
