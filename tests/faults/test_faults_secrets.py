"""With every secret set to a marker, nothing that leaves a process holds one.

`fault_processes` looks for them in all that any run of these tests prints; here are the ways out
that such runs do not take by themselves.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from sandbox.services import Services
from tests.faults.fault_processes import SECRETS, SENTRY_KEY, leaks, wait_for, with_password
from tests.faults.fault_scenes import Launch, Scene, some_jobs
from tests.faults.fault_servers import serve

PASSWORD = SECRETS["database password"]

_RAISE = """
CREATE FUNCTION public.tell_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'cannot log in with %', {secrets} USING ERRCODE = 'XX000';
END $$
"""
_ON_WRITE = """
CREATE TRIGGER tell_all BEFORE INSERT OR UPDATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION public.tell_all()
"""


@some_jobs
def test_sentry_hears_of_errors_and_of_no_secret(scene: Scene, tmp_path: Path) -> None:
    everything = " ".join(SECRETS.values())
    # What a row is refused for is a problem of that row, until it happens to a hundred in a row:
    # audits and albums that are only looked at come in between.
    code = 1 if scene.kind.arguments[0].startswith("seed-") else 3
    with scene.connect() as conn:
        conn.execute(_RAISE.replace("{secrets}", f"'{everything}'").encode())
        conn.execute(_ON_WRITE.replace("{table}", scene.kind.written).encode())
    reports = [tmp_path / "report.json", tmp_path / "report.md"]
    with serve(lambda *_: (200, b"{}")) as sentry:
        process = scene.start(
            SENTRY_DSN=f"http://{SENTRY_KEY}@{sentry.place}/1",
            BACKFILL_REPORT=" ".join(map(str, reports)),
        )
        assert process.wait() == code, process.output
    assert "cannot log in with ***" in process.output
    for report in reports:
        assert "cannot log in with" in report.read_text()
        assert leaks(report.read_text()) == []
    envelopes = [gzip.decompress(body).decode() for _, body in sentry.visits]
    # Sentry's own protocol names the key that its request is made with.
    assert {leak for text in envelopes for leak in leaks(text)} <= {"SENTRY_DSN"}
    event = next(event for text in envelopes for event in events_of(text))
    tags = event["tags"]
    assert (tags["repo"], tags["tool"]) == ("artwork-backfill", scene.kind.arguments[0])
    assert tags["run_id"] == process.report["run_id"]
    assert tags["step"] == ("failed" if code == 1 else "verify")
    assert all('"vars"' not in text for text in envelopes)


def events_of(envelope: str) -> list[dict[str, Any]]:
    """Return the events in an envelope: lines of JSON, of which those with a level are events."""
    documents = [json.loads(line) for line in envelope.splitlines() if line]
    return [document for document in documents if "level" in document]


@pytest.mark.parametrize("scene", ["audit-batch"], indirect=True)
def test_no_list_of_processes_or_sessions_shows_a_secret(
    scene: Scene, services: Services, environ: dict[str, str]
) -> None:
    services.control("archive", latency_s=0.2)
    command = str(Path(sys.executable).with_name("artwork-backfill"))
    process = subprocess.Popen(
        [command, *scene.kind.arguments],
        env={
            **environ,
            "MUSICBRAINZ_DATABASE_URL": with_password(scene.dsn),
            "PATH": os.environ["PATH"],
        },
        stdout=subprocess.DEVNULL,
    )
    with scene.watch() as watch, scene.connect() as conn:
        wait_for(watch.claims)
        # Without "ww", ps cuts each line at the width that COLUMNS names, and so hides what leaks.
        listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True)
        sessions = conn.execute("SELECT * FROM pg_stat_activity").fetchall()
    process.terminate()
    assert process.wait() == 143
    assert "audit-batch" in listed.stdout
    assert leaks(listed.stdout) == []
    assert leaks(str(sessions)) == []


#: A variable, and a value with a secret in it that cannot be used.
UNUSABLE = {
    "a host that does not exist": (
        "MUSICBRAINZ_DATABASE_URL",
        f"postgresql://me:{PASSWORD.replace('@', '%40')}@nowhere.invalid/db",
    ),
    "a port that nobody listens on": (
        "MUSICBRAINZ_DATABASE_URL",
        f"host=127.0.0.1 port=1 user=me password='{PASSWORD}'",
    ),
    "a connection string that is none": (
        "MUSICBRAINZ_DATABASE_URL",
        f"postgresql://me:{PASSWORD}@[::1/db?what",
    ),
    "an unknown parameter": (
        "MUSICBRAINZ_DATABASE_URL",
        f"host=127.0.0.1 user=me password='{PASSWORD}' colour=red",
    ),
    "a key of several lines": (
        "ARCHIVE_ORG_SECRET_KEY",
        SECRETS["ARCHIVE_ORG_SECRET_KEY"] + "\nX-Header: 1",
    ),
    "a key that no header can carry": (
        "ARCHIVE_ORG_SECRET_KEY",
        SECRETS["ARCHIVE_ORG_SECRET_KEY"] + "ü",
    ),
    "a URL with a password in it": (
        "ARCHIVE_ORG_URL",
        f"https://me:{SECRETS['ARCHIVE_ORG_SECRET_KEY']}@archive.example",
    ),
    "a Sentry DSN that is none": ("SENTRY_DSN", f"sentry:{SENTRY_KEY}"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_setting_that_cannot_be_used_is_not_quoted(
    name: str, seeded: str, copy: Callable[[str], str], launch: Launch
) -> None:
    variable, value = UNUSABLE[name]
    process = launch("audit-batch", musicbrainz=copy(seeded), **{variable: value})
    assert process.wait() in (1, 2), process.output
    assert variable in process.output or "database" in process.output
    assert "Traceback" not in process.output


def test_a_service_that_repeats_our_key_is_not_quoted(
    shelved: str, copy: Callable[[str], str], launch: Launch
) -> None:
    key = SECRETS["LML_API_KEY"]
    with serve(lambda *_: (401, f"who is {key}?".encode())) as lml:
        process = launch(
            "library-artwork-url-backfill", wxyc=copy(shelved), LIBRARY_METADATA_URL=lml.url
        )
        assert process.wait() == 1, process.output
    assert "LML_API_KEY" in process.output


def test_an_audit_of_an_archive_that_repeats_our_key_stores_it_nowhere(
    seeded: str, copy: Callable[[str], str], launch: Launch
) -> None:
    dsn = copy(seeded)
    body = json.dumps({"error": f"not for {SECRETS['ARCHIVE_ORG_SECRET_KEY']}"}).encode()
    with serve(lambda *_: (200, body)) as archive:
        process = launch("seed-from-ia-scan", musicbrainz=dsn, ARCHIVE_ORG_URL=archive.url)
        assert process.wait() in (0, 1, 3), process.output
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("SELECT * FROM artwork_indexer.ia_scan").fetchall()
    assert leaks(str(rows)) == []


def test_what_is_secret_in_the_url_of_a_source_leaves_the_process_nowhere(
    seeded: str, copy: Callable[[str], str], launch: Launch, tmp_path: Path
) -> None:
    """In the first line of the log, in options and reports, in errors, and in Sentry."""
    secrets = ("marker user", "m@rker/password", "marker-token-5d", "marker-sig-9f")
    user, password, token, signature = secrets
    reports = [tmp_path / "report.json", tmp_path / "report.md"]
    dsn = copy(seeded)
    lines = b"76df3287-6cda-33eb-8e9a-044b5e15ffdd\n"
    with serve(lambda *_: (200, b"{}")) as sentry, serve(lambda *_: (200, lines)) as files:
        for status in (0, 3, 2):
            place = files.place if status != 2 else "127.0.0.1:9"
            path = "list" if status != 3 else "bad_items.csv"
            source = (
                f"http://{quote(user)}:{quote(password, safe='')}@{place}/{path}"
                f"?token={token}&X-Signature={signature}"
            )
            process = launch(
                "seed-from-img-129",
                source,
                *(["-"] if status == 3 else []),
                *(f"--report={report}" for report in reports),
                musicbrainz=dsn,
                SENTRY_DSN=f"http://{SENTRY_KEY}@{sentry.place}/1",
            )
            assert process.wait() == status, process.output
            written = [report.read_text() for report in reports if report.exists()]
            for text in (process.output, *written):
                for secret in secrets:
                    for spelling in (secret, quote(secret), quote(secret, safe="")):
                        assert spelling not in text
        told = [gzip.decompress(body).decode(errors="replace") for _, body in sentry.visits]
    assert not [s for s in secrets if any(s in text or quote(s) in text for text in told)]
    with psycopg.connect(dsn) as conn:
        runs = str(conn.execute("SELECT * FROM artwork_indexer.backfill_run").fetchall())
    assert not [secret for secret in secrets if secret in runs or quote(secret) in runs]


@pytest.mark.parametrize("written", ["hunter2@Winter2026", "hunter2%40Winter2026", "hunter2/Win9"])
def test_a_password_is_hidden_raw_and_encoded(
    written: str, seeded: str, copy: Callable[[str], str], launch: Launch
) -> None:
    copy(seeded)
    url = f"postgresql://mb:{written}@nowhere.invalid/x"
    process = launch("seed-from-mb", musicbrainz=url)
    assert process.wait() == 2, process.output
    for part in ("hunter2", "Winter2026", "Win9"):
        assert part not in process.output
    if "%" not in written:
        assert "percent-encoded" in process.output


def test_the_search_for_secrets_finds_them() -> None:
    for secret in (*SECRETS.values(), SENTRY_KEY):
        assert leaks(f"the secret is {secret}!")
    assert leaks(with_password("postgresql://me@/db")) == ["database password"]
