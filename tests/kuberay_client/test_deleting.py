"""The delete command: what goes, in which order, and what stays."""

import threading
import time
from pathlib import Path

import yaml

from tests.kuberay_client.conftest import MANIFESTS, Run
from tests.kuberay_client.objects import ray_cluster
from tests.support.kubernetes.cluster import Cluster


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
