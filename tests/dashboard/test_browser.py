"""The main flows in a real browser, on a sandbox whose audits and indexer are the real ones.

Chromium is Debian's, or whatever CHROMIUM names; where there is none, these tests are skipped. The
pictures of the tabs go to DASHBOARD_SCREENSHOTS when that is set (`make screenshots`).
"""

from __future__ import annotations

import codecs
import hashlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, urljoin, urlsplit

import psycopg
import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Route,
    expect,
    sync_playwright,
)

from artwork_backfill.shared.engine.log import plain
from artwork_backfill.shared.review import actions
from sandbox import dashboard as sandbox_dashboard
from sandbox import demo, surroundings
from sandbox.surroundings import Surroundings
from tests.dashboard.browser import (
    AGE,
    CHROMIUM,
    FLAGS,
    ID,
    NEEDS_CHROMIUM,
    REASON,
    ROW,
    SIZE,
    TABS,
    Visit,
    cell,
    filter_by,
    find_reviews,
    free_port,
    go_to,
    note_elsewhere,
    outcome,
    press,
    select,
    served,
    settled,
    table_of,
    take_picture,
    write_note,
)
from tests.dashboard.dashboard_rows import HOSTILE, Rows

pytestmark = NEEDS_CHROMIUM

#: The version of axe-core that is asked, and what npm's archive of it has to be.
AXE_VERSION: Final = "4.10.3"
AXE_SHA512: Final = (
    "5e6edba515e70d25f6604d9815f064d859c5d1ea7ab661bbc4f87c88779ef0c2"
    "1cae0abbeb636471ef39e9d62d2582e4b88a1866f19f4ecfcf6d986275e4dc12"
)


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    """An audited world, with reviews and failed events."""
    with surroundings.start(demo.SPEC, demo.LIBRARY_SPEC) as started:
        sandbox_dashboard.prepare(started)
        yield started


@pytest.fixture(scope="module")
def address(around: Surroundings) -> Iterator[str]:
    """Where the dashboard of this world is served."""
    with served(around.environment) as dashboard:
        yield dashboard.url


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
        dark: browser.new_context(viewport=SIZE, color_scheme=scheme, reduced_motion="reduce")
        for dark, scheme in schemes.items()
    }
    yield made
    for context in made.values():
        context.close()


@pytest.fixture
def visit(contexts: dict[bool, BrowserContext], address: str) -> Iterator[Visit]:
    """Opens a tab for another visitor; in the end, no page must have been sent anywhere else.

    Each test has visitors of its own: what the server remembers of a browser goes by its cookies.
    """
    for context in contexts.values():
        context.clear_cookies()
    pages: list[Page] = []
    elsewhere: list[str] = []
    dialogs: list[str] = []

    def open_tab(tab: str, *, at: str = address, dark: bool = False, asks: str = "") -> Page:
        page = contexts[dark].new_page()
        pages.append(page)
        page.on("request", lambda request: note_elsewhere(request.url, elsewhere, asks))
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        page.goto(at if "?" in at else f"{at}/?tab={quote(tab)}")
        expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
        settled(page)
        return page

    yield open_tab
    for page in pages:
        page.close()
    assert not elsewhere
    assert not dialogs


@pytest.fixture
def rows(around: Surroundings) -> Iterator[Rows]:
    """Rows for one test, which are gone after it with all that belongs to them.

    What audits have queued for other entities meanwhile is left: they rely on it.
    """
    with psycopg.connect(around.musicbrainz_dsn, autocommit=True) as conn:
        rows = Rows(conn)
        entity, event = (
            rows.value(f"SELECT coalesce(max(id), 0) FROM artwork_indexer.{table}")
            for table in ("audit_entity", "event_queue")
        )
        yield rows
        conn.execute("DELETE FROM artwork_indexer.audit_entity WHERE id > %s", (entity,))
        conn.execute(
            "DELETE FROM artwork_indexer.event_queue"
            " WHERE id > %s AND id NOT IN (SELECT event_id FROM artwork_indexer.audit_event)",
            (event,),
        )


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
        go_to(page, tab)
        if tab == "Reviews":
            select(page, "Reviews", 6)
        if tab == "Entities":
            filter_by(page, "Gid, archive.org identifier or URL", "entity", str(gid))
        if tab == "Overview":
            expect(page.locator(".vega-embed canvas, .vega-embed svg")).to_have_count(3)
        elif tab != "Runs":
            expect(page.get_by_test_id("stDataFrame").first).to_be_attached()
        if tab != "Runs":
            expect(page.get_by_test_id("stAlert")).to_have_count(0)
        height = page.get_by_test_id("stMainBlockContainer").evaluate("e => e.scrollHeight")
        page.set_viewport_size({"width": 1280, "height": min(max(height, 600), 1_800)})
        name = f"dashboard-{tab.lower().replace(' ', '-')}{'-dark' if dark else ''}.png"
        take_picture(page, folder / name)
        while (folder / name).stat().st_size <= 10_000:  # its tables are not painted yet
            page.wait_for_timeout(200)
            take_picture(page, folder / name)
        page.set_viewport_size(SIZE)


def test_a_phone_shows_age_and_reason_first(visit: Visit, browser: Browser, tmp_path: Path) -> None:
    folder = Path(os.environ.get("DASHBOARD_SCREENSHOTS") or tmp_path)
    page = visit("Reviews")
    page.set_viewport_size({"width": 390, "height": 1000})
    settled(page)
    table = table_of(page, "Reviews")
    expect(cell(table, AGE)).to_be_attached()
    expect(cell(table, REASON)).to_be_attached()
    width = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollWidth")
    assert width <= 390
    take_picture(page, folder / "dashboard-phone.png")


def _axe(folder: Path) -> str:
    """Return the source of axe-core, which is not part of this project.

    It is that of AXE_CORE, or npm's; without either, the test is skipped.
    """
    if path := os.environ.get("AXE_CORE"):
        return Path(path).read_text(encoding="utf-8")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no axe-core: install npm, or set AXE_CORE to the path of axe.min.js")
    command = [npm, "pack", "--silent", f"axe-core@{AXE_VERSION}"]
    got = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=90, check=False
    )
    archive = folder / f"axe-core-{AXE_VERSION}.tgz"
    if got.returncode or not archive.is_file():
        pytest.skip(f"npm has no axe-core for us: {got.stderr.strip()[-200:]}")
    assert hashlib.sha512(archive.read_bytes()).hexdigest() == AXE_SHA512
    with tarfile.open(archive) as packed:
        member = packed.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def test_axe_core_finds_nothing_in_light_and_dark(visit: Visit, tmp_path: Path) -> None:
    source = _axe(tmp_path)
    page = visit("Overview")
    page.evaluate(source)
    found: list[str] = []
    for tab in TABS:
        go_to(page, tab)
        if tab == "Reviews":
            select(page, "Reviews")
        found += _violations(page, tab, {"resultTypes": ["violations"]})
        # Nothing but colours differs on dark ground.
        page.emulate_media(color_scheme="dark")
        expect(page.get_by_test_id("stApp")).to_have_css("color-scheme", "dark")
        found += _violations(page, f"{tab}, dark", {"runOnly": ["color-contrast"]})
        page.emulate_media(color_scheme="light")
        expect(page.get_by_test_id("stApp")).to_have_css("color-scheme", "light")
    assert found == []


def _violations(page: Page, where: str, options: Mapping[str, object]) -> list[str]:
    """Return what axe-core finds fault with; tables are painted on a canvas and look all alike."""
    result = page.evaluate(
        "([without, options]) => axe.run({exclude: [without]}, options)",
        ["[data-testid=stDataFrame] table tbody tr:nth-child(n+3)", options],
    )
    return [
        f"{where}: {violation['id']}: {node['html'][:200]}"
        for violation in result["violations"]
        for node in violation["nodes"]
    ]


def test_hostile_text_is_shown_letter_by_letter(visit: Visit, rows: Rows) -> None:
    review = rows.review(HOSTILE)
    entity = rows.value(
        "SELECT audit_entity_id FROM artwork_indexer.needs_manual_review WHERE id = %s", review.id
    )
    finding = {"check": "xml.field", "severity": "major", "subject": HOSTILE, "repair": False}
    rows.audit(entity, finding | {"expected": HOSTILE, "actual": "javascript:alert(1)"})
    rows.event(review.gid, failure=HOSTILE)
    page = visit("Reviews")
    find_reviews(page, "onerror")
    expect(cell(table_of(page, "Reviews"), REASON)).to_have_text(plain(HOSTILE))
    select(page, "Reviews")
    expect(page.get_by_text(f"Review {review.id}, open, since")).to_contain_text(plain(HOSTILE))
    expect(page.locator(".differences del").first).to_be_visible()
    assert page.locator("img[src='x'], a[href^='javascript'], strong:has-text('bold')").count() == 0
    for link in page.get_by_test_id("stMain").get_by_role("link").all():
        assert str(link.get_attribute("href")).startswith(("https://", "/download/"))


def test_a_download_holds_no_formula(visit: Visit, rows: Rows) -> None:
    rows.review("=HYPERLINK(1)")
    page = visit("Reviews")
    find_reviews(page, "hyperlink")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download CSV").click()
    content = Path(download.value.path()).read_bytes()
    assert content.startswith(codecs.BOM_UTF8)
    header, line = content.decode("utf-8-sig").splitlines()
    assert header.startswith("id,entity_type,gid")
    assert ",'=HYPERLINK(1)," in line


# -- doing -----------------------------------------------------------------------------------------


def test_a_review_is_found_and_resolved_with_a_note(visit: Visit, rows: Rows) -> None:
    page = visit("Reviews")
    find_reviews(page, "item.dark")
    review = rows.seen(int(str(cell(table_of(page, "Reviews"), ID).text_content())))
    select(page, "Reviews")
    write_note(page, "archive.org has made it visible again")
    press(page, "Resolve")
    expect(page.get_by_text("1 of 1 reviews: resolved.")).to_be_visible()
    now = rows.seen(review.id)
    assert (now.status, now.entity_status) == ("resolved", "unchecked")
    assert "tester: resolved: archive.org has made it visible again" in str(now.notes)


def test_the_outcome_of_a_retry_appears_once_it_is_audited(
    visit: Visit, rows: Rows, around: Surroundings
) -> None:
    page = visit("Reviews")
    find_reviews(page, "files.original.duplicate")
    select(page, "Reviews")
    press(page, "Audit again")
    expect(outcome(page)).to_have_text("waiting for an audit")
    around.run("audit-batch")
    expect(outcome(page)).to_contain_text("in review, audited")


def test_a_failed_event_is_requeued_and_its_repair_is_seen_to_hold(
    visit: Visit, rows: Rows, around: Surroundings
) -> None:
    page = visit("Failed events")
    failed = table_of(page, "Failed events")
    expect(cell(failed, 3)).to_have_text("index")
    event = int(str(cell(failed, ID).text_content()))
    select(page, "Failed events")
    press(page, "Requeue")
    expect(page.get_by_text("1 of 1 events are queued again")).to_be_visible()
    around.indexer().run_until_idle()
    expect(outcome(page)).to_have_text("completed")
    gid = rows.value("SELECT message->>'gid' FROM artwork_indexer.event_queue WHERE id = %s", event)
    around.run("audit-batch")
    go_to(page, "Entities")
    filter_by(page, "Gid, archive.org identifier or URL", "entity", gid)
    expect(page.get_by_text("clean, priority")).to_be_visible()


def test_of_two_people_on_one_row_the_second_is_told(visit: Visit, rows: Rows) -> None:
    first, second = visit("Reviews"), visit("Reviews")
    for page in (first, second):
        find_reviews(page, "item.missing")
        select(page, "Reviews")
    review = rows.seen(int(str(cell(table_of(first, "Reviews"), ID).text_content())))
    write_note(first, "the label asked for it")
    press(first, "Won't fix")
    expect(first.get_by_text("1 of 1 reviews: left unfixed.")).to_be_visible()
    write_note(second, "fixed")
    press(second, "Resolve")
    expect(second.get_by_text(f"review {review.id} has changed meanwhile")).to_be_visible()
    assert rows.seen(review.id).status == "wont_fix"


def test_a_read_only_dashboard_has_nothing_to_press(
    visit: Visit, rows: Rows, around: Surroundings
) -> None:
    before = rows.reviews()
    with served(around.environment, "--read-only") as dashboard:
        page = visit("Reviews", at=dashboard.url)
        expect(page.get_by_text("read only")).to_be_visible()
        settled(page)
        table_of(page, "Reviews").locator(".dvn-scroller").click(position={"x": 16, "y": ROW + 5})
        expect(page.get_by_role("link", name="MusicBrainz")).to_be_visible()
        expect(page.get_by_role("button", name="Resolve")).to_have_count(0)
    assert rows.reviews() == before


def test_an_image_at_issue_is_looked_at_compared_and_purged(visit: Visit, rows: Rows) -> None:
    page = visit("Reviews", asks="archive.org")
    page.context.route("https://archive.org/**", _send_picture)
    find_reviews(page, "only copy")
    review = rows.seen(int(str(cell(table_of(page, "Reviews"), ID).text_content())))
    select(page, "Reviews")
    expect(page.get_by_text("keep, copy or purge it?")).to_be_visible()
    expect(page.locator("figure.picture")).to_have_count(0)
    page.get_by_text("Show the pictures from archive.org").click()
    expect(page.locator("figure.picture figcaption").first).to_have_text("1,200 by 1,000 pixels")
    press(page, "Compare with archive.org now")
    expect(page.get_by_text(f"Item of {review.gid}: listed")).to_be_visible()
    press(page, "Explain what an audit would decide now")
    expect(page.get_by_text("An audit would decide now: in review")).to_be_visible()
    page.get_by_text("Purge an image").click()
    typed = page.get_by_label("Artwork number")
    typed.fill("1")
    press(page, "Purge")
    expect(page.get_by_text("Type the number of an image at issue")).to_be_visible()
    settled(page)
    number = re.search(r"mbid-[0-9a-f-]{36}-(\d+)\.", review.reason)
    assert number is not None
    typed.fill(number[1])
    page.get_by_label("Why").fill("the label asked for it")
    press(page, "Purge")
    expect(page.get_by_text("deletes the image; the review is open until it has.")).to_be_visible()
    assert (
        rows.value(
            "SELECT message->>'artwork_id' FROM artwork_indexer.event_queue"
            " WHERE action = 'delete_image' AND message->>'gid' = %s AND state = 'queued'",
            str(review.gid),
        )
        == number[1]
    )


def _send_picture(route: Route) -> None:
    content = BytesIO()
    Image.new("RGB", (1_200, 1_000)).save(content, "PNG")
    route.fulfill(body=content.getvalue(), content_type="image/png")


# -- a link, a lost connection, many rows ----------------------------------------------------------


def test_a_link_shows_a_colleague_the_same_and_back_leads_back(visit: Visit, rows: Rows) -> None:
    page = visit("Overview")
    go_to(page, "Reviews")
    find_reviews(page, "only copy")
    select(page, "Reviews")
    expect(page.get_by_text("keep, copy or purge it?")).to_be_visible()
    link = page.url
    colleague = visit("Reviews", at=link)
    expect(colleague.get_by_label("Reason contains")).to_have_value("only copy")
    expect(colleague.get_by_text("keep, copy or purge it?")).to_be_visible()
    colleague.reload()
    expect(colleague.get_by_label("Reason contains")).to_have_value("only copy")
    page.go_back()
    expect(page.get_by_text("keep, copy or purge it?")).to_have_count(0)
    page.go_back()
    expect(page.get_by_label("Reason contains")).to_have_value("")
    page.go_back()
    expect(page.get_by_role("tab", name="Overview")).to_have_attribute("aria-selected", "true")


def test_what_was_done_and_written_survives_a_reload(visit: Visit, rows: Rows) -> None:
    page = visit("Reviews")
    find_reviews(page, "files.thumbnail.missing")
    select(page, "Reviews")
    press(page, "Audit again")
    expect(outcome(page)).to_have_text("waiting for an audit")
    note = write_note(page, "ask them about it")
    # The run that leaving the field causes is cut short by the next one.
    note.press("Tab")
    page.get_by_role("tab", name="Checks").click()
    expect(table_of(page, "Checks")).to_be_attached()
    expect(note).to_have_count(0)
    go_to(page, "Reviews")
    expect(note).to_have_value("ask them about it")
    page.reload()
    expect(note).to_have_value("ask them about it")
    expect(outcome(page)).to_have_text("waiting for an audit")


def test_a_tick_never_moves_to_another_row_when_the_connection_is_lost(
    visit: Visit, rows: Rows, around: Surroundings
) -> None:
    first, second, third = (rows.review(f"lost connection {number}") for number in range(3))
    port = free_port()
    with served(around.environment, port=port) as dashboard:
        page = visit("Reviews", at=dashboard.url)
        find_reviews(page, "lost connection")
        write_note(page, "about the second")
        select(page, "Reviews", 1)
        app = page.get_by_test_id("stApp")
    expect(app).not_to_have_attribute("data-test-connection-state", "CONNECTED")
    actions.resolve(rows.conn, first, by="another", note="gone from the list")
    with served(around.environment, port=port):
        expect(app).to_have_attribute("data-test-connection-state", "CONNECTED")
        # The old page is still there, its tick on what is the third row's place now.
        press(page, "Resolve")
        expect(page.get_by_text("The connection was lost for some time.")).to_be_visible()
        settled(page)
        expect(cell(table_of(page, "Reviews"), ID)).to_have_text(str(second.id))
        expect(page.get_by_text("1 selected")).to_have_count(0)
        expect(page.get_by_text(f"Acts on review {second.id}, which is open.")).to_be_visible()
        assert [rows.seen(second.id), rows.seen(third.id)] == [second, third]
        press(page, "Resolve")
        expect(page.get_by_text("1 of 1 reviews: resolved.")).to_be_visible()
        assert rows.seen(third.id) == third
        assert "about the second" in str(rows.seen(second.id).notes)


def test_all_that_match_are_resolved_in_four_clicks_and_reopened_in_one(
    visit: Visit, rows: Rows
) -> None:
    rows.conn.execute(
        "WITH made AS (INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status)"
        " SELECT 'release', gen_random_uuid(), 'manual_review' FROM generate_series(1, 450)"
        " RETURNING id) INSERT INTO artwork_indexer.needs_manual_review"
        " (audit_entity_id, review_reason, reasons) SELECT id, 'many.alike: this one',"
        ' \'[{"code": "finding", "check": "many.alike"}]\' FROM made'
    )
    page = visit("Reviews")
    write_note(page, "all of a kind")
    page.get_by_role("button", name="many.alike 450").click()
    expect(page.get_by_text("of 450,")).to_be_visible()
    page.get_by_role("button", name="Select all 450 that match").click()
    expect(page.get_by_text("All 450 that match are selected.")).to_be_visible()
    press(page, "Resolve")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("because of “many.alike”")).to_be_visible()
    dialog.get_by_role("button", name="Yes, do it").click()
    expect(page.get_by_text("Resolve: 450 of 450 done.")).to_be_visible()
    count = (
        "SELECT count(*) FROM artwork_indexer.needs_manual_review"
        " WHERE status = 'open' AND review_reason = 'many.alike: this one'"
    )
    assert rows.value(count) == 0
    press(page, "Undo")
    expect(page.get_by_text("Undo: Resolve: 450 of 450 done.")).to_be_visible()
    assert rows.value(count) == 450
    press(page, "Close")
    expect(page.get_by_text("Undo: Resolve: 450 of 450 done.")).to_have_count(0)


def test_all_that_match_are_resolved_across_a_restart_in_the_middle(
    visit: Visit, rows: Rows, around: Surroundings
) -> None:
    rows.conn.execute(
        "WITH made AS (INSERT INTO artwork_indexer.audit_entity (entity_type, gid, status)"
        " SELECT 'release', gen_random_uuid(), 'manual_review' FROM generate_series(1, 1000)"
        " RETURNING id) INSERT INTO artwork_indexer.needs_manual_review"
        " (audit_entity_id, review_reason) SELECT id, 'restarted: this one' FROM made"
    )
    left = (
        "SELECT count(*) FROM artwork_indexer.needs_manual_review"
        " WHERE status = 'open' AND review_reason = 'restarted: this one'"
    )
    port = free_port()
    with (
        psycopg.connect(around.musicbrainz_dsn) as other,
        served(around.environment, port=port) as dashboard,
    ):
        # Someone else's transaction stops it in the third batch.
        other.execute(
            "SELECT FROM artwork_indexer.needs_manual_review WHERE id = (SELECT id FROM"
            " artwork_indexer.needs_manual_review WHERE review_reason = 'restarted: this one'"
            " ORDER BY id OFFSET 500 LIMIT 1) FOR UPDATE"
        )
        page = visit("Reviews", at=dashboard.url)
        find_reviews(page, "restarted")
        _resolve_all(page, 1_000)
        expect(page.get_by_text("Resolve: 400 of 1,000 done, stopped.")).to_be_visible()
        expect(page.get_by_text("Someone else is changing these rows")).to_be_visible()
    assert rows.value(left) == 600
    with served(around.environment, port=port) as dashboard:
        page = visit("Reviews", at=dashboard.url)
        find_reviews(page, "restarted")
        _resolve_all(page, 600)
        expect(page.get_by_text("Resolve: 600 of 600 done.")).to_be_visible()
    assert rows.value(left) == 0


def _resolve_all(page: Page, count: int) -> None:
    write_note(page, "all of them")
    press(page, f"Select all {count:,} that match")
    expect(page.get_by_text(f"All {count:,} that match are selected.")).to_be_visible()
    press(page, "Resolve")
    page.get_by_role("dialog").get_by_role("button", name="Yes, do it").click()


def test_a_page_is_drawn_again_when_the_database_is_back(
    visit: Visit, around: Surroundings
) -> None:
    page = visit("Reviews")
    find_reviews(page, "item")
    around.server.stop()
    try:
        press(page, "Reload")
        expect(page.get_by_text("Reviews could not be drawn.")).to_be_visible()
        expect(page.get_by_text("The database cannot be used")).to_be_visible()
    finally:
        around.server.start()
    press(page, "Try again")
    expect(table_of(page, "Reviews")).to_be_attached()
    expect(page.get_by_label("Reason contains")).to_have_value("item")
    expect(page.get_by_text("Reviews could not be drawn.")).to_have_count(0)


def test_a_question_is_dropped_when_it_is_closed(visit: Visit, rows: Rows) -> None:
    page = visit("Reviews")
    write_note(page, "never mind")
    before = rows.reviews()
    page.get_by_role("button", name=re.compile("Select all .* that match")).click()
    expect(page.get_by_text("that match are selected.")).to_be_visible()
    press(page, "Won't fix")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("open reviews.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    press(page, "Select none")
    expect(page.get_by_text("Nothing is selected.")).to_be_visible()
    settled(page)
    expect(dialog).to_have_count(0)
    assert rows.reviews() == before


def test_the_focus_stays_where_an_action_was_pressed(visit: Visit) -> None:
    page = visit("Reviews")
    button = page.get_by_role("button", name="Resolve", exact=False).first
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("write the reason in the note first")).to_be_visible()
    settled(page)
    expect(button).to_be_focused()


# -- the door --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Host", "dashboard.evil.example"),
        ("Origin", "https://evil.example"),
        ("Origin", "http://127.0.0.1:1"),
        ("Origin", "http://localhost"),
        ("Origin", "null"),
        ("Origin", None),
    ],
)
def test_pages_of_others_get_no_connection(address: str, header: str, value: str | None) -> None:
    host = str(urlsplit(address).netloc)
    headers: dict[str, str | None] = {**HANDSHAKE, "Host": host, "Origin": f"http://{host}"}
    assert _ask(address, "/_stcore/stream", headers)[0] == 101
    assert _ask(address, "/_stcore/stream", headers | {header: value})[0] == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/_stcore/health", 200),
        ("/_stcore/metrics", 404),
        ("/_stcore/script-health-check", 404),
        ("/_stcore/upload_file/a/b", 404),
        ("/media/abc.csv", 404),
        ("/component/x/index.html", 404),
        ("/elsewhere", 404),
        ("/download/guessed/reviews.csv", 410),
    ],
)
def test_nothing_is_served_that_the_page_does_not_need(
    address: str, path: str, status: int
) -> None:
    assert _ask(address, path, {})[0] == status


def test_the_page_may_not_be_framed_nor_talk_to_others(address: str) -> None:
    status, headers = _ask(address, "/", {})
    policy = headers["content-security-policy"]
    assert status == 200
    assert "frame-ancestors 'none'" in policy
    assert "connect-src 'self'" in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "HttpOnly" in headers["set-cookie"]
    assert _ask(address, "/", {"Host": "dashboard.evil.example"})[0] == 421


def test_a_download_is_only_for_the_browser_that_was_offered_it(visit: Visit, address: str) -> None:
    page = visit("Reviews")
    link = page.get_by_role("link", name="Download CSV").get_attribute("href")
    assert link is not None
    assert page.request.get(urljoin(address, link)).status == 200
    assert _ask(address, urlsplit(link).path, {})[0] == 410


HANDSHAKE: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def _ask(
    address: str, path: str, headers: Mapping[str, str | None]
) -> tuple[int, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(str(urlsplit(address).netloc), timeout=10)
    try:
        sent = {name: value for name, value in headers.items() if value is not None}
        connection.request("GET", path, headers=sent)
        response = connection.getresponse()
        return response.status, response.headers
    finally:
        connection.close()


def test_no_outside_host_is_asked_for_anything(around: Surroundings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        outside = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        environment = {"no_proxy": "127.0.0.1,localhost"}
        environment |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), outside)
        options = ("--address", "0.0.0.0", "--read-only")
        with served({**around.environment, **environment}, *options) as dashboard:
            url = dashboard.url
            host = str(urlsplit(url).netloc)
            headers = HANDSHAKE | {"Host": host, "Origin": "http://evil.example"}
            assert _ask(url, "/_stcore/stream", headers)[0] == 403
        proxy.settimeout(0.0)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_it_does_not_start_for_everyone(around: Surroundings) -> None:
    result = subprocess.run(
        [str(surroundings.COMMAND), "dashboard", "--address", "0.0.0.0"],
        env={**os.environ, **around.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert "add --read-only" in result.stderr
