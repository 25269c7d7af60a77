"""Commands that deploy and change: output, requests and exit codes."""

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kuberay_client.conftest import MANIFESTS, Run
from tests.kuberay_client.objects import ray_cluster, serving, worker_group
from tests.kuberay_client.test_changes import PLAN
from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.recordings import needed

Object = dict[str, Any]


def spec(cluster: Cluster) -> Object:
    return cluster.store.get("rayservices", "default", "llm")["spec"]


def operate(cluster: Cluster) -> None:
    """Set the status of a service that serves its present spec."""

    def edit(service: Object) -> None:
        service["status"] = serving(generation=service["metadata"]["generation"])

    cluster.store.update("rayservices", "default", "llm", edit)


def test_deploy(run: Run, cluster: Cluster) -> None:
    """`deploy` prints one line for every object, as kubectl does."""
    result = run("deploy", "-f", str(MANIFESTS), "--no-wait")
    assert result.stdout.splitlines() == [
        "rayservice/llm created",
        "deployment/llm-redis created",
        "job/llm-redis-password created",
    ]


def test_deploy_rehearsed(run: Run, cluster: Cluster) -> None:
    """`--dry-run` prints every request, lets the server validate it, and changes nothing."""
    result = run("deploy", "-f", str(MANIFESTS), "--dry-run")
    assert result.exit_code == 0
    assert "PATCH /apis/ray.io/v1/namespaces/default/rayservices/llm?" in result.stdout
    assert "job/llm-redis-password created (dry run)" in result.stdout
    assert cluster.writes == []
    assert cluster.store.list("rayservices", "default") == []


def test_deploy_from_standard_input(run: Run) -> None:
    """Manifests are read from standard input."""
    result = run("deploy", "-f", "-", "--no-wait", input=MANIFESTS.read_text())
    assert "rayservice/llm created" in result.stdout


@needed
def test_deploy_an_invalid_manifest(run: Run, tmp_path: Path) -> None:
    """The server's refusal is one line with exit code 3."""
    file = tmp_path / "bad.yaml"
    file.write_text(MANIFESTS.read_text().replace("rayVersion", "rayVersoin"))
    result = run("deploy", "-f", str(file))
    assert result.exit_code == 3
    assert 'unknown field "spec.rayClusterConfig.rayVersoin"' in result.stderr


def test_scale_asks_and_sends(deployed: Run, cluster: Cluster) -> None:
    """The difference is shown, and sent only after a yes."""
    before = spec(cluster)
    refused = deployed("scale", "--min", "2", "--max", "8", input="n\n")
    assert refused.exit_code == 1
    assert "maxReplicas: 8" in refused.stdout
    assert spec(cluster) == before
    assert deployed("scale", "--min", "2", "--max", "8", "--no-wait", input="y\n").exit_code == 0
    assert spec(cluster)["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"] == 8


@pytest.fixture
def scaling(deployed: Run, cluster: Cluster) -> Run:
    """A service whose cluster has its first bounds."""
    operate(cluster)
    cluster.store.put("rayclusters", ray_cluster(groups=[worker_group()]))
    return deployed


def test_scale_shows_the_cluster_too(scaling: Run, cluster: Cluster) -> None:
    """The difference includes the running cluster, and a dry run shows both requests."""
    result = scaling("scale", "--min", "1", "--max", "8", "--dry-run")
    assert result.exit_code == 0
    spec_part, cluster_part = result.stdout.split("--- now in llm-a, which is running")
    assert "+    maxReplicas: 8" in spec_part
    assert "-  maxReplicas: 4\n+  maxReplicas: 8" in cluster_part
    service, of_cluster = cluster_part.split("PATCH ")[1:]
    assert service.startswith("/apis/ray.io/v1/namespaces/default/rayservices/llm?")
    assert of_cluster.startswith("/apis/ray.io/v1/namespaces/default/rayclusters/llm-a?")
    assert "path: /spec/workerGroupSpecs/0/maxReplicas" in of_cluster
    assert (
        cluster.store.get("rayclusters", "default", "llm-a")["spec"]
        == ray_cluster(groups=[worker_group()])["spec"]
    )


def test_scale_mends_a_cluster_that_is_behind(scaling: Run, cluster: Cluster) -> None:
    """The RayService is as asked for, what runs is not: that is something to change, and it says
    so; then there is nothing more."""
    command = ("scale", "--min", "1", "--max", "8", "--yes", "--no-wait")
    assert scaling(*command).exit_code == 0
    cluster.store.put("rayclusters", ray_cluster(groups=[worker_group()]))
    result = scaling(*command)
    assert result.stdout.startswith("the RayService is up to date, but not the bounds")
    assert "+  maxReplicas: 8" in result.stdout
    workers = cluster.store.get("rayclusters", "default", "llm-a")["spec"]["workerGroupSpecs"]
    assert workers == [worker_group(high=8)]
    assert scaling(*command).stdout == "nothing to change\n"


CHANGES = [
    ("scale", "--min", "2", "--max", "8"),
    ("update-config", "CONFIG"),
    ("apply-plan", "PLAN"),
    ("upgrade", "--image", "llm:2", "--ray-version", "2.61.0"),
    ("upgrade", "-f", "MANIFEST"),
]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """What commands take files for, by the word that stands for them in `CHANGES`."""
    config = {"applications": [{"name": "llm", "import_path": "other:app"}]}
    contents = {
        "CONFIG": yaml.safe_dump(config),
        "PLAN": PLAN,
        "MANIFEST": MANIFESTS.read_text().replace("llm:1", "llm:3"),
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in contents}


@pytest.mark.parametrize("arguments", CHANGES, ids=" ".join)
def test_every_change_can_be_rehearsed(
    deployed: Run, cluster: Cluster, files: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """`--dry-run` shows the difference and the request, and changes nothing."""
    before, written = spec(cluster), len(cluster.writes)
    result = deployed(*(files.get(argument, argument) for argument in arguments), "--dry-run")
    assert result.exit_code == 0
    assert "--- now" in result.stdout
    assert "PATCH /apis/ray.io/v1/namespaces/default/rayservices/llm?" in result.stdout
    assert spec(cluster) == before
    assert len(cluster.writes) == written


@pytest.mark.parametrize("arguments", CHANGES, ids=" ".join)
def test_every_change_can_be_rolled_back(
    deployed: Run, cluster: Cluster, files: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """Every change is sent once as shown, and can be rolled back."""
    before = spec(cluster)
    command = [*(files.get(argument, argument) for argument in arguments), "--yes", "--no-wait"]
    assert deployed(*command).exit_code == 0
    assert spec(cluster) != before
    assert deployed(*command).stdout == "nothing to change\n"
    assert deployed("rollback", "--yes", "--no-wait").exit_code == 0
    assert spec(cluster) == before


def test_a_change_waits_until_it_serves(deployed: Run, cluster: Cluster) -> None:
    """The command ends when the changed service is ready."""
    stop = threading.Event()

    def act() -> None:
        while not stop.wait(0.1):
            operate(cluster)

    operator = threading.Thread(target=act)
    operator.start()
    try:
        result = deployed("upgrade", "--image", "llm:2", "--yes", "--timeout", "30s")
    finally:
        stop.set()
        operator.join()
    assert result.exit_code == 0
    assert "RayService llm is ready, endpoints: 1" in result.stdout


def test_what_cannot_be_changed(deployed: Run) -> None:
    """An impossible change fails with one line and exit code 1."""
    result = deployed("scale", "--min", "1", "--max", "2", "--deployment", "nope")
    assert (result.exit_code, result.stderr) == (1, "Error: no deployment nope: llm has pool\n")


def test_a_mistake_in_the_command_line(run: Run) -> None:
    """A wrong command line has exit code 2."""
    assert run("scale", "--min", "1").exit_code == 2
    assert run("wait", "--patience", "soon").exit_code == 2
