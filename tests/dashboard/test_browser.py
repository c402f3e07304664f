"""The main flows in a real browser, on a sandbox whose audits and indexer are the real ones.

Chromium is Debian's, or whatever CHROMIUM names; where there is none, these tests are skipped. The
pictures of the tabs go to DASHBOARD_SCREENSHOTS when that is set (`make screenshots`).
"""

from __future__ import annotations

import http.client
import os
import random
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from artwork_backfill.shared.engine.log import plain
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    ViewportSize,
    expect,
    sync_playwright,
)

from sandbox import dashboard as sandbox_dashboard
from sandbox import demo, surroundings
from sandbox.surroundings import Surroundings
from tests.dashboard.dashboard_rows import HOSTILE, Rows

CHROMIUM: Final = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
TABS: Final = ("Overview", "Reviews", "Failed events", "Entities", "Checks")
SIZE: Final = ViewportSize(width=1280, height=860)

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

pytestmark = pytest.mark.skipif(
    not Path(CHROMIUM).is_file(),
    reason="no Chromium found: apt-get install chromium, or set CHROMIUM to its path",
)

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    """An audited world, with reviews and failed events."""
    with surroundings.start(demo.SPEC, demo.LIBRARY_SPEC) as started:
        sandbox_dashboard.prepare(started)
        yield started


@pytest.fixture(scope="module")
def address(around: Surroundings) -> Iterator[str]:
    """Where the dashboard of this world is served."""
    with _served(around) as url:
        yield url


def _free_port() -> int:
    """Return a port that nobody uses, nor gets from the kernel until it is bound."""
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


@contextmanager
def _served(around: Surroundings, *options: str) -> Iterator[str]:
    port = _free_port()
    process = subprocess.Popen(
        [
            *(str(sandbox_dashboard.COMMAND), "dashboard", "--by", "tester"),
            *("--port", str(port), *options),
        ],
        env=sandbox_dashboard.environment(around.environment),
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
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=20)
        assert "Traceback" not in rest, rest


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> Iterator[dict[bool, BrowserContext]]:
    """Profiles on light and dark ground; what one page has fetched serves the next."""
    schemes: dict[bool, Literal["light", "dark"]] = {False: "light", True: "dark"}
    made = {
        dark: browser.new_context(viewport=SIZE, color_scheme=scheme)
        for dark, scheme in schemes.items()
    }
    yield made
    for context in made.values():
        context.close()


@pytest.fixture
def visit(contexts: dict[bool, BrowserContext], address: str) -> Iterator[Visit]:
    """Opens a tab for another visitor; in the end, nobody must have been sent anywhere else."""
    pages: list[Page] = []
    elsewhere: list[str] = []
    dialogs: list[str] = []

    def open_tab(tab: str, *, at: str = address, dark: bool = False) -> Page:
        page = contexts[dark].new_page()
        pages.append(page)
        page.on("request", lambda request: _note_elsewhere(request.url, elsewhere))
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        page.goto(f"{at}/?tab={quote(tab)}")
        expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
        _settled(page)
        return page

    yield open_tab
    for page in pages:
        page.close()
    assert not elsewhere
    assert not dialogs


def _note_elsewhere(url: str, elsewhere: list[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1":
        elsewhere.append(url)


def _settled(page: Page) -> None:
    """Wait until the page is drawn and nothing of it is out of date."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    expect(page.locator("[data-stale=true]")).to_have_count(0)
    expect(page.locator("[data-testid=stSkeleton]")).to_have_count(0)


@pytest.fixture
def rows(around: Surroundings) -> Iterator[Rows]:
    with psycopg.connect(around.musicbrainz_dsn, autocommit=True) as conn:
        yield Rows(conn)


def _table(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def _cell(table: Locator, column: int, row: int = 0) -> Locator:
    """A cell of a table, of which a canvas is drawn and a hidden table tells.

    Columns count from 0, and that of the boxes to tick is one of them.
    """
    return table.get_by_test_id(f"glide-cell-{column}-{row}")


def _outcome(page: Page, row: int = 0) -> Locator:
    """What has come of something that was done, as the table of those things says."""
    return _cell(_table(page, "What you have done"), 4, row)


def _select(page: Page, table: str, position: int = 0) -> None:
    y = ROW + ROW * position + ROW // 2
    _table(page, table).locator(".dvn-scroller").click(position={"x": 16, "y": y})
    expect(page.get_by_text("1 selected")).to_be_visible()
    _settled(page)


def _filter(page: Page, label: str, text: str) -> None:
    field = page.get_by_label(label)
    field.fill(text)
    field.press("Enter")
    _settled(page)


def _find_reviews(page: Page, text: str) -> None:
    """Filter the reviews by their reason, and wait until the first of them has it."""
    _filter(page, "Reason contains", text)
    # The page seems settled before it has begun to draw itself anew.
    reason = _cell(_table(page, "Reviews"), 5)
    expect(reason).to_have_text(re.compile(re.escape(text), re.IGNORECASE))
    _settled(page)


def _press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()
    _settled(page)


def _note(page: Page, text: str) -> None:
    page.get_by_label("Note, for whoever looks at this later").fill(text)


# -- looking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_tab_opens_and_has_its_picture_taken(
    visit: Visit, rows: Rows, tmp_path: Path, dark: bool
) -> None:
    folder = Path(os.environ.get("DASHBOARD_SCREENSHOTS") or tmp_path)
    gid = rows.value(
        "SELECT entity.gid FROM artwork_indexer.audit_entity entity"
        " JOIN artwork_indexer.audit_result result ON result.audit_entity_id = entity.id"
        " WHERE result.event_ids <> '{}' AND entity.status = 'clean'"
        " ORDER BY jsonb_array_length(result.findings) DESC, entity.id LIMIT 1"
    )
    page = visit("Overview", dark=dark)
    for tab in TABS[:2] if dark else TABS:
        page.get_by_role("tab", name=tab).click()
        expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
        _settled(page)
        if tab == "Reviews":
            _select(page, "Reviews", 6)
        if tab == "Entities":
            _filter(page, "Gid, archive.org identifier or URL", str(gid))
        if tab == "Overview":
            expect(page.locator(".vega-embed canvas, .vega-embed svg")).to_have_count(3)
        else:
            expect(page.get_by_test_id("stDataFrame").first).to_be_visible()
        expect(page.get_by_test_id("stAlert")).to_have_count(0)
        height = page.get_by_test_id("stMainBlockContainer").evaluate("e => e.scrollHeight")
        page.set_viewport_size({"width": 1280, "height": min(max(height, 600), 1_800)})
        name = f"dashboard-{tab.lower().replace(' ', '-')}{'-dark' if dark else ''}.png"
        _take_picture(page, folder / name)
        page.set_viewport_size(SIZE)
        assert (folder / name).stat().st_size > 10_000


def _take_picture(page: Page, path: Path) -> None:
    """Keep a picture with no more colours than a page has, which takes a third of the space."""
    picture = Image.open(BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(
        path, optimize="DASHBOARD_SCREENSHOTS" in os.environ
    )


def test_hostile_text_is_shown_letter_by_letter(visit: Visit, rows: Rows) -> None:
    review = rows.review(HOSTILE)
    entity = rows.value(
        "SELECT audit_entity_id FROM artwork_indexer.needs_manual_review WHERE id = %s", review.id
    )
    finding = {"check": "xml.field", "severity": "major", "subject": HOSTILE, "repair": False}
    rows.audit(entity, finding | {"expected": HOSTILE, "actual": "javascript:alert(1)"})
    rows.event(review.gid, failure=HOSTILE)
    page = visit("Reviews")
    _find_reviews(page, "onerror")
    expect(_cell(_table(page, "Reviews"), 5)).to_have_text(plain(HOSTILE))
    _select(page, "Reviews")
    expect(page.get_by_text(f"{review.id}, open: {plain(HOSTILE)}")).to_be_visible()
    expect(_cell(_table(page, "Findings"), 3)).to_have_text(plain(HOSTILE))
    assert page.locator("img[src='x'], a[href^='javascript'], strong:has-text('bold')").count() == 0
    for link in page.get_by_test_id("stMain").get_by_role("link").all():
        assert str(link.get_attribute("href")).startswith("https://")
    rows.conn.execute("DELETE FROM artwork_indexer.audit_entity WHERE id = %s", (entity,))
    rows.conn.execute("DELETE FROM artwork_indexer.event_queue WHERE message->>'gid' = %s",
                      (str(review.gid),))  # fmt: skip


def test_a_download_holds_no_formula(visit: Visit, rows: Rows) -> None:
    review = rows.review("=HYPERLINK(1)")
    page = visit("Reviews")
    _find_reviews(page, "hyperlink")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    header, line = Path(download.value.path()).read_text().splitlines()
    assert header.startswith("id,entity_type,gid")
    assert ",'=HYPERLINK(1)," in line
    rows.conn.execute("DELETE FROM artwork_indexer.audit_entity WHERE gid = %s", (review.gid,))


# -- doing -----------------------------------------------------------------------------------------


def test_a_review_is_found_and_resolved_with_a_note(visit: Visit, rows: Rows) -> None:
    page = visit("Reviews")
    _find_reviews(page, "item.dark")
    review = rows.seen(int(str(_cell(_table(page, "Reviews"), 1).text_content())))
    _select(page, "Reviews")
    _note(page, "archive.org has made it visible again")
    _press(page, "Resolve")
    expect(page.get_by_text("1 of 1 reviews: resolved.")).to_be_visible()
    now = rows.seen(review.id)
    assert (now.status, now.entity_status) == ("resolved", "unchecked")
    assert "tester: resolved: archive.org has made it visible again" in str(now.notes)


def test_the_outcome_of_a_retry_appears_once_it_is_audited(
    visit: Visit, rows: Rows, around: Surroundings
) -> None:
    page = visit("Reviews")
    _find_reviews(page, "files.original.duplicate")
    _select(page, "Reviews")
    _press(page, "Audit again")
    expect(_outcome(page)).to_have_text("unchecked")
    sandbox_dashboard.run(around, "audit-batch")
    expect(_outcome(page)).to_contain_text("manual_review, audited")


def test_a_failed_event_is_requeued_and_its_repair_is_seen_to_hold(
    visit: Visit, rows: Rows, around: Surroundings
) -> None:
    page = visit("Failed events")
    page.get_by_role("combobox", name="Action").click()
    page.get_by_role("option", name="delete_image").click()
    _settled(page)
    failed = _table(page, "Failed events")
    expect(_cell(failed, 4)).to_have_text("delete_image")
    event = int(str(_cell(failed, 1).text_content()))
    expect(_cell(failed, 9)).to_have_text("1")
    _select(page, "Failed events")
    _press(page, "Requeue")
    expect(page.get_by_text("1 of 1 events are queued again, and 1 that depend")).to_be_visible()
    around.indexer().run_until_idle()
    for row in (0, 1):
        expect(_outcome(page, row)).to_have_text("completed")
    gid = rows.value("SELECT message->>'gid' FROM artwork_indexer.event_queue WHERE id = %s", event)
    sandbox_dashboard.run(around, "audit-batch")
    page.get_by_role("tab", name="Entities").click()
    _filter(page, "Gid, archive.org identifier or URL", gid)
    expect(page.get_by_text("clean, priority")).to_be_visible()


def test_of_two_people_on_one_row_the_second_is_told(visit: Visit, rows: Rows) -> None:
    first, second = visit("Reviews"), visit("Reviews")
    for page in (first, second):
        _find_reviews(page, "item.missing")
        _select(page, "Reviews")
    review = rows.seen(int(str(_cell(_table(first, "Reviews"), 1).text_content())))
    _note(first, "the label asked for it")
    _press(first, "Won't fix")
    expect(first.get_by_text("1 of 1 reviews: left unfixed.")).to_be_visible()
    _note(second, "mended")
    _press(second, "Resolve")
    expect(second.get_by_text(f"review {review.id} has changed meanwhile")).to_be_visible()
    assert rows.seen(review.id).status == "wont_fix"


def test_a_read_only_dashboard_has_nothing_to_press(
    visit: Visit, rows: Rows, around: Surroundings
) -> None:
    before = rows.reviews()
    with _served(around, "--read-only") as url:
        page = visit("Reviews", at=url)
        expect(page.get_by_text("read only")).to_be_visible()
        _table(page, "Reviews").locator(".dvn-scroller").click(position={"x": 16, "y": ROW + 5})
        _settled(page)
        expect(page.get_by_role("link", name="MusicBrainz")).to_be_visible()
        expect(page.get_by_role("button", name="Resolve")).to_have_count(0)
    assert rows.reviews() == before


# -- the door --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "value"),
    [("Host", "dashboard.evil.example"), ("Origin", "https://evil.example")],
)
def test_pages_of_others_get_no_connection(address: str, header: str, value: str) -> None:
    host = str(urlsplit(address).netloc)
    headers = {
        "Host": host,
        "Origin": f"http://{host}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert _handshake(host, headers) == 101
    assert _handshake(host, headers | {header: value}) == 403


def _handshake(host: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request("GET", "/_stcore/stream", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_it_does_not_start_for_everybody(around: Surroundings) -> None:
    result = subprocess.run(
        [str(sandbox_dashboard.COMMAND), "dashboard", "--address", "0.0.0.0"],
        env=sandbox_dashboard.environment(around.environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert "add --read-only" in result.stderr
