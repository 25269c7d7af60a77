"""The delete command: the objects that it deletes, their order, and those that stay."""

import re
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from tests.kuberay_client.conftest import MANIFESTS, Run
from tests.kuberay_client.objects import container, deleting, pod, ray_cluster
from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.recordings import Recording, needed
from tests.support.kubernetes.replay import Replay


def clean_up(cluster: Cluster) -> None:
    """Delete the cluster after its second listing, as the operator's clean-up does."""
    looks: list[object] = []
    end = time.monotonic() + 30
    while len(looks) < 2 and time.monotonic() < end:
        looks = [request for request in list(cluster.requests) if "rayclusters" in request.path]
        time.sleep(0.01)
    cluster.store.unfinalize("rayclusters", "default", "llm-a")


def test_delete_in_order(deployed: Run, cluster: Cluster) -> None:
    """The service is deleted first and, once its cluster is gone, the rest with the password."""
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
        "waiting for llm-a to clean up in Redis and end",
        "deleted jobs llm-redis-password",
        "deleted deployments llm-redis",
        "deleted secrets llm-redis-password",
    ]
    assert [secret["metadata"]["name"] for secret in cluster.store.list("secrets", "default")] == [
        "llm-api-keys"
    ]


def test_delete_leaves_redis_to_a_cluster_that_stays(deployed: Run, cluster: Cluster) -> None:
    """A clean-up that hangs ends the command with 5, and Redis stays."""
    uid = cluster.store.get("rayservices", "default", "llm")["metadata"]["uid"]
    cluster.store.put("rayclusters", ray_cluster(owner=uid, finalizers=["ray.io/gcs-ft"]))
    result = deployed("delete", "-f", str(MANIFESTS), "--yes", "--timeout", "0.2")
    assert result.exit_code == 5
    assert "llm-a still there after 0.2 s: the other objects were not deleted" in result.stderr
    assert len(cluster.store.list("deployments", "default")) == 1


def test_delete_rehearsed(deployed: Run, cluster: Cluster) -> None:
    """A dry run shows all deletions in order and makes none."""
    result = deployed("delete", "-f", str(MANIFESTS), "--dry-run")
    assert [line for line in result.stdout.splitlines() if line.startswith("DELETE")] == [
        "DELETE /apis/ray.io/v1/namespaces/default/rayservices/llm",
        "DELETE /apis/batch/v1/namespaces/default/jobs/llm-redis-password",
        "DELETE /apis/apps/v1/namespaces/default/deployments/llm-redis",
    ]
    assert len(cluster.store.list("rayservices", "default")) == 1


def test_delete_keeps_claims(run: Run, cluster: Cluster, tmp_path: Path) -> None:
    """Claims of models and of Redis stay, even if the manifests name them."""
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
    """A second deletion finds nothing."""
    assert deployed("delete", "-f", str(MANIFESTS), "--yes").exit_code == 0
    assert (
        deployed("delete", "-f", str(MANIFESTS), "--yes").stdout
        == "nothing to delete: no object of the manifests exists\n"
    )


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def ending(name: str = "llm-abcde-worker", left_s: float = 370) -> dict[str, Any]:
    """Return a terminating worker with a GPU, whose cluster is gone."""
    worker = pod(name, container(), cluster="llm-abcde", node="gpu-1", gpus=2)
    return deleting(worker, in_seconds(left_s), grace_s=420)


def end(cluster: Cluster, name: str) -> None:
    """Delete the pod after its second listing, as the kubelet does."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if (
            len([request for request in list(cluster.requests) if request.path.endswith("/pods")])
            > 1
        ):
            break
        time.sleep(0.01)
    cluster.store.put("pods", ending(name), "DELETED")


def test_delete_waits_for_pods(deployed: Run, cluster: Cluster) -> None:
    """The command waits for workers, and reports their GPUs, nodes and remaining time."""
    cluster.store.put("pods", ending())
    kubelet = threading.Thread(target=end, args=(cluster, "llm-abcde-worker"))
    kubelet.start()
    result = deployed("delete", "-f", str(MANIFESTS), "--yes")
    kubelet.join()
    assert result.exit_code == 0
    last = result.stdout.splitlines()[-1]
    expected = (
        r"waiting for 1 pod, which holds 2 GPUs: llm-abcde-worker \(2 GPUs on node gpu-1, "
        r"terminating for \d+ s, killed in \d+ s at the latest\)"
    )
    assert re.fullmatch(expected, last)


def test_delete_says_which_pods_are_left(deployed: Run, cluster: Cluster) -> None:
    """At the timeout everything is deleted, and the remaining pods are named."""
    cluster.store.put("pods", ending())
    result = deployed("delete", "-f", str(MANIFESTS), "--yes", "--timeout", "0.2")
    assert result.exit_code == 5
    assert "0.2 s later these remain: 1 pod, which holds 2 GPUs" in result.stderr
    assert "kubectl -n default get pods -l 'ray.io/cluster in (llm-abcde)' -w" in result.stderr
    assert not cluster.store.list("deployments", "default")


def test_delete_without_waiting_for_pods(deployed: Run, cluster: Cluster) -> None:
    """`--no-wait` reports the remaining pods."""
    cluster.store.put("pods", ending())
    result = deployed("delete", "-f", str(MANIFESTS), "--yes", "--no-wait")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("still terminating: 1 pod, which holds 2 GPUs")


def test_delete_again_while_pods_end(run: Run, cluster: Cluster) -> None:
    """Remaining pods are reported even if no object is left."""
    cluster.store.put("pods", ending())
    result = run("delete", "-f", str(MANIFESTS), "--yes", "--no-wait")
    first, second = result.stdout.splitlines()
    assert first == "nothing to delete: no object of the manifests exists"
    assert second.startswith("still terminating: 1 pod, which holds 2 GPUs")


def test_a_pod_that_is_overdue(deployed: Run, cluster: Cluster) -> None:
    """A pod that is overdue is reported with the command for its node."""
    cluster.store.put("pods", ending(left_s=-90))
    result = deployed("delete", "-f", str(MANIFESTS), "--yes", "--no-wait")
    assert re.search(
        r"overdue by \d+ s: its node does not confirm the end: kubectl describe node gpu-1",
        result.stdout,
    )


def test_pods_of_others_do_not_hold_up(deployed: Run, cluster: Cluster) -> None:
    """Pods of other services are not waited for."""
    for name in ("llm-large-abcde", "other-abcde"):
        cluster.store.put("pods", deleting(pod(name, cluster=name), in_seconds(60)))
    cluster.store.put("pods", pod("still", cluster="llm-fghij"))
    result = deployed("delete", "-f", str(MANIFESTS), "--yes", "--timeout", "0.2")
    assert result.exit_code == 0


def test_status_of_what_is_left(run: Run, cluster: Cluster) -> None:
    """The status of an absent service names its remaining pods."""
    cluster.store.put("pods", ending())
    result = run("status")
    assert result.exit_code == 1
    assert "RayService llm does not exist in namespace default; still there: 1 pod" in (
        result.stderr
    )


@needed
def test_delete_as_recorded(deployed: Run, cluster: Cluster) -> None:
    """The recorded worker outlives its RayService by half a minute."""
    replay = Replay(Recording("delete"), cluster.store)
    replay.to(20)
    result = deployed("delete", "-f", str(MANIFESTS), "--yes", "--timeout", "0.2")
    assert result.exit_code == 5
    assert "these remain: 1 pod: llm-vgwnc-gpu-worker-6vrs9" in result.stderr
    replay.to(40)
    again = deployed("delete", "-f", str(MANIFESTS), "--yes")
    assert again.stdout == "nothing to delete: no object of the manifests exists\n"
