"""The command line as its users see it: what it prints, what it sends, how it ends."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kuberay_client.conftest import MANIFESTS, Run
from tests.kuberay_client.objects import (
    container,
    event,
    pod,
    pulling,
    ray_cluster,
    ray_service,
    serving,
    worker_group,
)
from tests.kuberay_client.test_changes import PLAN
from tests.support.kubernetes.cluster import Cluster, Fault
from tests.support.kubernetes.recordings import Recording, needed
from tests.support.kubernetes.replay import Replay

Object = dict[str, Any]


@pytest.fixture
def deployed(run: Run) -> Run:
    assert run("deploy", "-f", str(MANIFESTS), "--no-wait").exit_code == 0
    return run


def spec(cluster: Cluster) -> Object:
    return cluster.store.get("rayservices", "default", "llm")["spec"]


def operate(cluster: Cluster) -> None:
    """An operator's word that the present spec serves."""

    def edit(found: Object) -> None:
        found["status"] = serving(generation=found["metadata"]["generation"])

    cluster.store.update("rayservices", "default", "llm", edit)


def test_deploy(run: Run, cluster: Cluster) -> None:
    """One line an object, in kubectl's words."""
    result = run("deploy", "-f", str(MANIFESTS), "--no-wait")
    assert result.stdout.splitlines() == [
        "rayservice/llm created",
        "deployment/llm-redis created",
        "job/llm-redis-password created",
    ]


def test_deploy_rehearsed(run: Run, cluster: Cluster) -> None:
    """`--dry-run` prints each request, lets the server judge it, and changes nothing."""
    result = run("deploy", "-f", str(MANIFESTS), "--dry-run")
    assert result.exit_code == 0
    assert "PATCH /apis/ray.io/v1/namespaces/default/rayservices/llm?" in result.stdout
    assert "job/llm-redis-password created (dry run)" in result.stdout
    assert cluster.writes == []
    assert cluster.store.list("rayservices", "default") == []


def test_deploy_from_standard_input(run: Run) -> None:
    """So that `kubectl kustomize OVERLAY | python -m kuberay deploy -f -` works."""
    result = run("deploy", "-f", "-", "--no-wait", input=MANIFESTS.read_text())
    assert "rayservice/llm created" in result.stdout


@needed
def test_deploy_an_invalid_manifest(run: Run, tmp_path: Path) -> None:
    """The server's refusal is one line, and the exit code is that of what can't heal."""
    file = tmp_path / "bad.yaml"
    file.write_text(MANIFESTS.read_text().replace("rayVersion", "rayVersoin"))
    result = run("deploy", "-f", str(file))
    assert result.exit_code == 3
    assert 'unknown field "spec.rayClusterConfig.rayVersoin"' in result.stderr


def test_scale_asks_and_sends(deployed: Run, cluster: Cluster) -> None:
    """The difference is shown first; only a yes sends it."""
    before = spec(cluster)
    refused = deployed("scale", "--min", "2", "--max", "8", input="n\n")
    assert refused.exit_code == 1
    assert "maxReplicas: 8" in refused.stdout
    assert spec(cluster) == before
    assert deployed("scale", "--min", "2", "--max", "8", "--no-wait", input="y\n").exit_code == 0
    assert spec(cluster)["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"] == 8


@pytest.fixture
def scaling(deployed: Run, cluster: Cluster) -> Run:
    """With a cluster that runs with the bounds that it was made with."""
    operate(cluster)
    cluster.store.put("rayclusters", ray_cluster(groups=[worker_group()]))
    return deployed


def test_scale_shows_the_cluster_too(scaling: Run, cluster: Cluster) -> None:
    """The difference names the cluster that runs; rehearsed, both requests are shown."""
    result = scaling("scale", "--min", "1", "--max", "8", "--dry-run")
    assert result.exit_code == 0
    spec_part, cluster_part = result.stdout.split("--- now in llm-a, which runs")
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
    assert result.stdout.startswith("the RayService is as wanted, but not the bounds of what runs")
    assert "+  maxReplicas: 8" in result.stdout
    found = cluster.store.get("rayclusters", "default", "llm-a")["spec"]["workerGroupSpecs"]
    assert found == [worker_group(high=8)]
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
    """`--dry-run` shows the difference and the request, and sends nothing for real."""
    before, written = spec(cluster), len(cluster.writes)
    result = deployed(*(files.get(each, each) for each in arguments), "--dry-run")
    assert result.exit_code == 0
    assert "--- now" in result.stdout
    assert "PATCH /apis/ray.io/v1/namespaces/default/rayservices/llm?" in result.stdout
    assert spec(cluster) == before
    assert len(cluster.writes) == written


@pytest.mark.parametrize("arguments", CHANGES, ids=" ".join)
def test_every_change_can_be_rolled_back(
    deployed: Run, cluster: Cluster, files: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """Each is sent as it was shown, once; a second time there is nothing to change."""
    before = spec(cluster)
    command = [*(files.get(each, each) for each in arguments), "--yes", "--no-wait"]
    assert deployed(*command).exit_code == 0
    assert spec(cluster) != before
    assert deployed(*command).stdout == "nothing to change\n"
    assert deployed("rollback", "--yes", "--no-wait").exit_code == 0
    assert spec(cluster) == before


def test_a_change_waits_until_it_serves(deployed: Run, cluster: Cluster) -> None:
    """The command ends when the operator has carried the change out."""
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
    assert "llm serves, endpoints: 1" in result.stdout


def test_what_cannot_be_changed(deployed: Run) -> None:
    """An error in one line, exit code 1, before anything is sent."""
    result = deployed("scale", "--min", "1", "--max", "2", "--deployment", "nope")
    assert (result.exit_code, result.stderr) == (1, "Error: no deployment nope: there are pool\n")


def test_a_mistake_in_the_command_line(run: Run) -> None:
    """2, as everywhere."""
    assert run("scale", "--min", "1").exit_code == 2
    assert run("wait", "--patience", "soon").exit_code == 2


def test_wait_ends_at_once_on_what_cannot_heal(run: Run, cluster: Cluster) -> None:
    """DEPLOY_FAILED: exit code 3, and the traceback's last line."""
    failed = {"status": "DEPLOY_FAILED", "message": "Traceback\nKeyError: 'x'"}
    cluster.store.put("rayservices", ray_service(serving(failed)))
    result = run("wait")
    assert result.exit_code == 3
    assert "application llm: KeyError: 'x'" in result.stderr


def test_wait_shows_what_may_be_normal_and_has_patience(run: Run, cluster: Cluster) -> None:
    """A missing model is shown at once, and ends the wait with 4 when it lasts."""
    cluster.store.put("rayservices", ray_service({"observedGeneration": 2}))
    cluster.store.put("rayclusters", ray_cluster())
    cluster.store.put("pods", pod("w1", container("ollama", "running", True, ready=False)))
    cluster.store.put("events", event("Unhealthy", "Startup probe failed: model 'm' not found"))
    result = run("wait", "--patience", "1s")
    assert result.exit_code == 4
    first, *_, last = result.stderr.splitlines()
    assert first.startswith("starting: pod w1: ollama is not ready: startup probe failed")
    assert last.startswith("Error: for 1 s now: pod w1: ollama is not ready")


def test_wait_says_once_what_is_on_its_way(run: Run, cluster: Cluster) -> None:
    """A pull counts its seconds: it is shown at once, not anew with each of them, and ends the
    wait with 4 when it lasts."""
    cluster.store.put("rayservices", ray_service({"observedGeneration": 2}))
    cluster.store.put("rayclusters", ray_cluster())
    cluster.store.put("pods", pulling())
    result = run("wait", "--patience", "2.5s")
    assert result.exit_code == 4
    assert result.stderr.count("starting: pod w1: init container pull has been running for") == 1
    assert "Error: for 2.5 s now: pod w1: init container pull" in result.stderr


def test_wait_has_an_end(run: Run, cluster: Cluster) -> None:
    """5 after --timeout."""
    cluster.store.put("rayservices", ray_service({"observedGeneration": 2}))
    result = run("wait", "--timeout", "0.5")
    assert (result.exit_code, result.stderr[:8]) == (5, "starting")


def test_wait_for_nothing(run: Run) -> None:
    """A service that is not there will not come by waiting."""
    assert run("wait").exit_code == 3


RECORDED = [
    ("app_import_error", "AttributeError: module 'labapp' has no attribute 'nope'"),
    ("bad_image", "image lab.local/ollama:missing of ollama can't be pulled"),
    ("unschedulable", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
    ("model_missing", "Error: model 'llama3:70b' not found"),
]


@needed
@pytest.mark.parametrize(("name", "cause"), RECORDED)
def test_status_of_recordings(run: Run, cluster: Cluster, name: str, cause: str) -> None:
    """The cause stands in the second line, above all tables."""
    Replay(Recording(name), cluster.store).to(60)
    headline, second, *_ = run("status").stdout.splitlines()
    assert headline.startswith("llm  ")
    assert cause in second


@needed
@pytest.mark.parametrize(
    ("t", "cause"),
    [
        (38, "sidecar ollama ended (exit code 137, SIGKILL) and is restarting"),
        (56, "worker llm-wbwfb-gpu-worker-tnrkq is lost"),
    ],
)
def test_status_while_something_heals(run: Run, cluster: Cluster, t: float, cause: str) -> None:
    """A sidecar that restarts and a worker that is replaced are named while it lasts."""
    Replay(Recording("sidecar_killed_worker_killed"), cluster.store).to(t)
    assert cause in run("status").stdout.splitlines()[1]


@needed
def test_wait_on_a_recording(run: Run, cluster: Cluster) -> None:
    """The recorded import error, seen from start to end, is exit code 3."""
    Replay(Recording("app_import_error"), cluster.store).to(33)
    result = run("wait", "--timeout", "30s")
    assert result.exit_code == 3
    assert "module 'labapp' has no attribute 'nope'" in result.stderr


def test_status_as_json(run: Run, cluster: Cluster) -> None:
    """For scripts."""
    cluster.store.put("rayservices", ray_service(serving()))
    found = json.loads(run("status", "-o", "json").stdout)
    assert found["diagnosis"]["state"] == "running"
    assert found["view"]["service"]["endpoints"] == 1


def test_status_of_nothing(run: Run) -> None:
    """An error that says where it has looked."""
    result = run("-n", "elsewhere", "status", "other")
    assert result.exit_code == 1
    assert "no RayService other in namespace elsewhere" in result.stderr


@pytest.mark.parametrize("code", [401, 403, 404])
def test_no_access(run: Run, cluster: Cluster, code: int) -> None:
    """A refusal is one line with the server's words, never a traceback."""
    cluster.faults.append(Fault(code, times=99))
    result = run("status")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert ("is the KubeRay operator installed?" in result.stderr) == (code == 404)


def test_logs(run: Run, cluster: Cluster) -> None:
    """Each line behind its pod; the head's, the workers', and the engines' beside them."""
    cluster.store.put("rayservices", ray_service(serving()))
    cluster.store.put("rayclusters", ray_cluster())
    for name in ("w1", "w2"):
        containers = (container("ollama", sidecar=True), container())
        cluster.store.put("pods", pod(name, *containers))
        cluster.logs[name, "ollama"] = ["1 loading", "2 ready"]
    cluster.store.put("pods", pod("w3", container(state="waiting", reason="PodInitializing")))
    cluster.logs["w1", "ray-worker"] = ["1 hello"]
    assert run("logs", "sidecar", "--tail", "1").stdout == "w1 ready\nw2 ready\n"
    assert run("logs", "workers", "-c", "ollama", "--tail", "1").stdout == "w1 ready\nw2 ready\n"
    workers = run("logs", "workers").stdout.splitlines()
    assert workers[0] == "w1 hello"
    assert workers[1].startswith("w3 (no log: container")


@pytest.mark.parametrize("arguments", [["head"], ["workers", "-c", "olama"]], ids=" ".join)
def test_logs_of_nothing(run: Run, cluster: Cluster, arguments: list[str]) -> None:
    """An empty log and no pod are two things: the second is an error, in a sentence."""
    cluster.store.put("rayservices", ray_service(serving()))
    cluster.store.put("rayclusters", ray_cluster())
    cluster.store.put("pods", pod("w1", container("ollama", sidecar=True), container()))
    result = run("logs", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"no such pod: llm has none for {arguments[0]}" in result.stderr


def clean_up(cluster: Cluster) -> None:
    """The operator's clean-up in Redis, which takes longer than one look at its clusters."""
    looks: list[object] = []
    end = time.monotonic() + 30
    while len(looks) < 2 and time.monotonic() < end:
        looks = [each for each in list(cluster.requests) if "rayclusters" in each.path]
        time.sleep(0.01)
    cluster.store.unfinalize("rayclusters", "default", "llm-a")


def test_delete_in_order(deployed: Run, cluster: Cluster) -> None:
    """The service, then, once its cluster has cleaned up in Redis, the rest with the password."""
    password = {"metadata": {"name": "llm-redis-password", "namespace": "default", "uid": "s"}}
    keys = {"metadata": {"name": "llm-api-keys", "namespace": "default", "uid": "k"}}
    uid = cluster.store.get("rayservices", "default", "llm")["metadata"]["uid"]
    cluster.store.put("secrets", password)
    cluster.store.put("secrets", keys)
    cluster.store.put("rayclusters", ray_cluster(owner=uid, finalizers=["ray.io/gcs-ft"]))
    cleaner = threading.Thread(target=clean_up, args=(cluster,))
    cleaner.start()
    result = deployed("delete", "-f", str(MANIFESTS), "--yes")
    cleaner.join()
    assert result.exit_code == 0
    assert result.stdout.splitlines()[4:] == [
        "deleted rayservices llm",
        "waiting for llm-a to clean up in Redis and go",
        "deleted jobs llm-redis-password",
        "deleted deployments llm-redis",
        "deleted secrets llm-redis-password",
    ]
    assert [each["metadata"]["name"] for each in cluster.store.list("secrets", "default")] == [
        "llm-api-keys"
    ]


def test_delete_leaves_redis_to_a_cluster_that_stays(deployed: Run, cluster: Cluster) -> None:
    """A clean-up that hangs ends the command with 5, and Redis is still there for it."""
    uid = cluster.store.get("rayservices", "default", "llm")["metadata"]["uid"]
    cluster.store.put("rayclusters", ray_cluster(owner=uid, finalizers=["ray.io/gcs-ft"]))
    result = deployed("delete", "-f", str(MANIFESTS), "--yes", "--timeout", "0.2")
    assert result.exit_code == 5
    assert "llm-a still there after 0.2 s: the rest stays" in result.stderr
    assert len(cluster.store.list("deployments", "default")) == 1


def test_delete_rehearsed(deployed: Run, cluster: Cluster) -> None:
    """Every deletion is shown in its order, and none happens."""
    result = deployed("delete", "-f", str(MANIFESTS), "--dry-run")
    assert [line for line in result.stdout.splitlines() if line.startswith("DELETE")] == [
        "DELETE /apis/ray.io/v1/namespaces/default/rayservices/llm",
        "DELETE /apis/batch/v1/namespaces/default/jobs/llm-redis-password",
        "DELETE /apis/apps/v1/namespaces/default/deployments/llm-redis",
    ]
    assert len(cluster.store.list("rayservices", "default")) == 1


def test_delete_keeps_claims(run: Run, cluster: Cluster, tmp_path: Path) -> None:
    """Models and Redis's state outlive the service, though the manifests name their claims."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "llm-models"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    file = tmp_path / "with-claim.yaml"
    file.write_text(f"{MANIFESTS.read_text()}\n---\n{yaml.safe_dump(claim)}")
    assert run("deploy", "-f", str(file), "--no-wait").exit_code == 0
    result = run("delete", "-f", str(file), "--yes")
    assert result.exit_code == 0
    assert "persistentvolumeclaims" not in result.stdout
    assert not cluster.store.list("deployments", "default")
    assert len(cluster.store.list("persistentvolumeclaims", "default")) == 1


def test_delete_twice(deployed: Run) -> None:
    """There is nothing the second time."""
    assert deployed("delete", "-f", str(MANIFESTS), "--yes").exit_code == 0
    assert (
        deployed("delete", "-f", str(MANIFESTS), "--yes").stdout == "there is nothing to delete\n"
    )
