"""The compose file and the Kubernetes manifests: nothing but the image and the env file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from artwork_backfill.jobs.cli.main import JOBS, main
from artwork_backfill.jobs.command import PartitionType

PROJECT = Path(__file__).resolve().parent.parent.parent
MANIFESTS = {
    path.stem: yaml.safe_load(path.read_text()) for path in PROJECT.glob("deploy/kubernetes/*.yaml")
}
COMPOSE = yaml.safe_load((PROJECT / "deploy/compose.yaml").read_text())
JOB_NAMES = set(JOBS)

#: What the platform or the manifest may set beside the env file.
PARTITION_VARIABLES = {"PARTITION_INDEX", "PARTITION_COUNT"}


def _parse(words: list[str]) -> click.Context:
    """Let click read a command; raises what it would say about a wrong one."""
    return main.commands[words[0]].make_context(words[0], list(words[1:]))


def _specs(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return a manifest's job and its one container."""
    spec = document["spec"]
    job = spec["jobTemplate"]["spec"] if document["kind"] == "CronJob" else spec
    (container,) = job["template"]["spec"]["containers"]
    return job, container


def _environment(container: Mapping[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container.get("env", ())}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_needs_nothing_but_the_image_and_the_settings(name: str) -> None:
    job, container = _specs(MANIFESTS[name])

    assert container["image"] == "artwork-backfill"
    assert container["envFrom"] == [{"secretRef": {"name": "artwork-backfill"}}]
    assert set(_environment(container)) <= PARTITION_VARIABLES
    assert "volumes" not in job["template"]["spec"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_runs_a_command_that_exists(name: str) -> None:
    _, container = _specs(MANIFESTS[name])

    _parse(container["args"])


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_pod_is_confined_and_has_time_to_end_well(name: str) -> None:
    job, container = _specs(MANIFESTS[name])
    pod = job["template"]["spec"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert pod["restartPolicy"] == "Never"


INDEXED = [name for name, found in MANIFESTS.items() if "completionMode" in _specs(found)[0]]


@pytest.mark.parametrize("name", INDEXED)
def test_the_pods_of_an_indexed_job_divide_the_rows_among_them(name: str) -> None:
    job, container = _specs(MANIFESTS[name])

    assert job["completionMode"] == "Indexed"
    assert int(_environment(container)["PARTITION_COUNT"]) == job["completions"]


def test_every_job_has_a_manifest() -> None:
    run = {_specs(document)[1]["args"][0] for document in MANIFESTS.values()}

    assert run == JOB_NAMES | {"migrate"}


def test_audits_share_the_entities_out_among_themselves() -> None:
    job, container = _specs(MANIFESTS["audit-batch"])

    assert job["parallelism"] > 1
    assert "completions" not in job
    assert _environment(container) == {}


def test_the_hourly_audit_ends_before_the_next() -> None:
    document = MANIFESTS["audit-hourly"]
    options = _parse(_specs(document)[1]["args"]).params

    assert document["spec"]["concurrencyPolicy"] == "Forbid"
    assert options["limit"] > 0
    assert options["max_duration"] < 3600


# -- compose -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_needs_nothing_but_the_image_and_the_env_file(name: str) -> None:
    service = COMPOSE["services"][name]

    assert "artwork-backfill" in service["image"]
    assert service["env_file"]
    assert set(service.get("environment", {})) <= PARTITION_VARIABLES
    _parse(service["command"])


def test_the_services_of_a_job_are_all_of_its_partitions() -> None:
    partitions: dict[str, list[str]] = {}
    for service in COMPOSE["services"].values():
        environment = service.get("environment")
        if environment:
            share = f"{environment['PARTITION_INDEX']}/{environment['PARTITION_COUNT']}"
            partitions.setdefault(service["command"][0], []).append(share)

    assert partitions
    for shares in partitions.values():
        parsed = [PartitionType().convert(share, None, None) for share in shares]
        assert [part.index for part in parsed] == list(range(parsed[0].count))
