"""Commands that audit without writing, on a database and services of this process."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from artwork_backfill.jobs.cli.main import main
from artwork_backfill.shared.auditing.services import Services
from artwork_backfill.shared.clients.http import ServiceDown
from tests.jobs.audit_batch.audit_scene import Scene


@pytest.mark.parametrize("command", ["explain", "estimate"])
def test_a_service_that_is_down_is_to_be_tried_again_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def down(*_: object, **__: object) -> object:
        raise ServiceDown("archive.org is down", service="archive.org")

    monkeypatch.setattr(scene.archive, "metadata", down)
    monkeypatch.setattr(Services, "from_settings", lambda *_, **__: scene.services())
    arguments = [scene.plan(None).gid] if command == "explain" else ["--sample", "1"]
    environment = {"MUSICBRAINZ_DATABASE_URL": scene.dsn, "BACKFILL_CONTACT": "me@example.org"}
    result = CliRunner().invoke(main, [command, *arguments], env=environment)
    assert (result.exit_code, "archive.org is down" in result.output) == (75, True), result.output
