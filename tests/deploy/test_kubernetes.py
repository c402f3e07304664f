"""The manifests below deploy/kubernetes, as kustomize renders them."""

from __future__ import annotations

import base64
import copy
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from artwork_backfill.jobs.cli.main import JOBS, main

PROJECT = Path(__file__).resolve().parent.parent.parent
KUBERNETES = PROJECT / "deploy/kubernetes"
BASE = KUBERNETES / "base"
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())

#: The oldest version that is supported, one in between, and the newest schema there is.
VERSIONS = ("1.29.0", "1.33.0", "1.37.0")

Document = dict[str, Any]


def _load(name: str) -> Document:
    document: Document = yaml.safe_load((BASE / name).read_text())
    return document


def _merge(target: Any, patch: Any) -> Any:
    """Merge as kustomize does: mappings by key, containers by name."""
    if isinstance(target, dict) and isinstance(patch, dict):
        return target | {key: _merge(target.get(key), value) for key, value in patch.items()}
    if _is_named(target) and _is_named(patch):
        by_name = {item["name"]: item for item in target}
        for item in patch:
            by_name[item["name"]] = _merge(by_name.get(item["name"]), item)
        return list(by_name.values())
    return patch


def _is_named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(i, dict) and "name" in i for i in value)


def _render() -> dict[str, Document]:
    """Return every CronJob by its short name, with what all have in common."""
    (patch,) = KUSTOMIZATION["patches"]
    common = _load(patch["path"])
    del common["metadata"]
    documents = [_load(name) for name in KUSTOMIZATION["resources"]]
    return {
        document["metadata"]["name"].removeprefix("artwork-backfill-"): _merge(
            document, copy.deepcopy(common)
        )
        for document in documents
        if document["kind"] == "CronJob"
    }


CRON_JOBS = _render()


def _specs(name: str) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    """Return the specs of a CronJob's Job, pod and container."""
    job = CRON_JOBS[name]["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    return job, pod, container


def _parse(words: list[str]) -> dict[str, Any]:
    return main.commands[words[0]].make_context(words[0], list(words[1:])).params


def test_every_job_has_a_manifest() -> None:
    assert {_specs(name)[2]["args"][0] for name in CRON_JOBS} == {*JOBS, "migrate"}
    assert {path.name for path in BASE.iterdir()} == {
        *KUSTOMIZATION["resources"],
        "kustomization.yaml",
        "every-job.yaml",
    }


@pytest.mark.parametrize("name", CRON_JOBS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_manifest_is_valid(name: str, version: str) -> None:
    validate(CRON_JOBS[name], version, strict=True)


@pytest.mark.parametrize("name", CRON_JOBS)
def test_a_manifest_runs_a_command_that_exists(name: str) -> None:
    _parse(_specs(name)[2]["args"])


@pytest.mark.parametrize("name", CRON_JOBS)
def test_a_pod_is_confined_as_the_restricted_standard_demands(name: str) -> None:
    _, pod, container = _specs(name)

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("name", CRON_JOBS)
def test_only_one_pod_at_a_time_asks_services_that_have_rates(name: str) -> None:
    job, _, _ = _specs(name)

    assert (job["parallelism"], job["completions"]) == (1, 1)
    assert job["podReplacementPolicy"] == "Failed"
    assert CRON_JOBS[name]["spec"]["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize("name", CRON_JOBS)
def test_what_would_fail_again_is_final_and_the_rest_is_retried(name: str) -> None:
    job, pod, _ = _specs(name)
    final, disruption = job["podFailurePolicy"]["rules"]

    assert pod["restartPolicy"] == "Never"
    assert final["action"] == "FailJob"
    assert final["onExitCodes"]["values"] == [2, 3]
    assert disruption["action"] == "Ignore"
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert job["backoffLimit"] > 0


@pytest.mark.parametrize("name", CRON_JOBS)
def test_reports_go_to_a_volume_that_the_user_may_write_to(name: str) -> None:
    _, pod, container = _specs(name)
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}

    assert mounts["reports"] == "/reports"
    claim = volumes["reports"]["persistentVolumeClaim"]["claimName"]
    assert claim == _load("reports.yaml")["metadata"]["name"]
    assert pod["securityContext"]["fsGroup"]
    # Named after the pod, so that none replaces another's.
    assert str(environment["BACKFILL_REPORT"]).split() == [
        "/reports/$(POD_NAME).md",
        "/reports/$(POD_NAME).json",
    ]


def test_nothing_starts_by_itself_but_what_is_meant_to() -> None:
    scheduled = {name for name, job in CRON_JOBS.items() if not job["spec"].get("suspend")}

    assert scheduled == {"audit-hourly", "library-artwork-url-backfill"}


def test_the_hourly_audit_ends_before_the_next() -> None:
    options = _parse(_specs("audit-hourly")[2]["args"])

    assert options["limit"] > 0
    assert options["max_duration"] < 3600


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_renders_the_example_with_the_settings_of_an_env_file(tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    example = tmp_path / "kubernetes/example"
    awkward = """postgresql://mb:p$HOME"a'b@db.example/musicbrainz_db"""
    (example / ".env").write_text(f"# settings\nMUSICBRAINZ_DATABASE_URL={awkward}\n")

    rendered = subprocess.run(
        ["kubectl", "kustomize", example], capture_output=True, text=True, check=False
    )

    assert rendered.returncode == 0, rendered.stderr
    documents = list(yaml.safe_load_all(rendered.stdout))
    cron_jobs = [document for document in documents if document["kind"] == "CronJob"]
    (secret,) = (document for document in documents if document["kind"] == "Secret")
    assert {job["metadata"]["name"] for job in cron_jobs} == {
        f"artwork-backfill-{name}" for name in CRON_JOBS
    }
    for job in cron_jobs:
        for version in VERSIONS:
            validate(job, version, strict=True)
        spec = job["spec"]["jobTemplate"]["spec"]
        expected, _, _ = _specs(job["metadata"]["name"].removeprefix("artwork-backfill-"))
        assert spec["podFailurePolicy"] == expected["podFailurePolicy"]
        (container,) = spec["template"]["spec"]["containers"]
        assert container["image"] == "ghcr.io/example/artwork-backfill:1.2.3"
        (source,) = container["envFrom"]
        assert source["secretRef"]["name"] == secret["metadata"]["name"]
        assert container["args"]
    assert _decoded(secret)["MUSICBRAINZ_DATABASE_URL"] == awkward


def _decoded(secret: Document) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
