"""Small API objects as a server returns them."""

from typing import Any

Object = dict[str, Any]

BORN = "2026-11-24T08:00:00Z"


def ray_service(status: Object | None = None, **metadata: Any) -> Object:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": "llm",
            "namespace": "default",
            "uid": "u1",
            "generation": 2,
            "creationTimestamp": BORN,
            **metadata,
        },
        "spec": {"rayClusterConfig": {}},
        "status": status or {"observedGeneration": 2},
    }


def serving(application: Object | None = None, generation: int = 2, **more: Any) -> Object:
    """Return the status of a service that serves on the cluster llm-a."""
    deployed = {"status": "RUNNING", "serveDeploymentStatuses": {"pool": {"status": "HEALTHY"}}}
    return {
        "observedGeneration": generation,
        "numServeEndpoints": 1,
        "conditions": [condition("Ready", True), condition("UpgradeInProgress", False)],
        "activeServiceStatus": {
            "rayClusterName": "llm-a",
            "applicationStatuses": {"llm": application or deployed},
        },
        **more,
    }


def condition(kind: str, status: bool, reason: str = "AsTested", message: str = "") -> Object:
    return {
        "type": kind,
        "status": str(status),
        "reason": reason,
        "message": message,
        "observedGeneration": 2,
        "lastTransitionTime": BORN,
    }


def ray_cluster(
    name: str = "llm-a",
    ready: int = 1,
    owner: str = "u1",
    groups: list[Object] | None = None,
    **metadata: Any,
) -> Object:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "labels": {
                "ray.io/originated-from-cr-name": "llm",
                "ray.io/originated-from-crd": "RayService",
            },
            "ownerReferences": [{"kind": "RayService", "name": "llm", "uid": owner}],
            **metadata,
        },
        "spec": {"workerGroupSpecs": groups or []},
        "status": {"readyWorkerReplicas": ready, "desiredWorkerReplicas": 1},
    }


def worker_group(name: str = "gpu", low: int = 1, high: int = 4, pods: int = 1) -> Object:
    """Return a worker group of a cluster; `pods` is the number set by Ray's autoscaler."""
    return {"groupName": name, "minReplicas": low, "maxReplicas": high, "replicas": pods}


def pulling(name: str = "w1", since: str = BORN) -> Object:
    """Return a worker whose init container has been pulling models; the others wait."""
    waiting = {"state": "waiting", "reason": "PodInitializing"}
    return pod(
        name,
        container("pull", sidecar=True, ready=False, startedAt=since),
        container("ollama", sidecar=True, **waiting),
        container(**waiting),
        phase="Pending",
    )


def pod(
    name: str = "w1",
    *containers: Object,
    cluster: str = "llm-a",
    role: str = "worker",
    ready: bool = False,
    sidecars: tuple[str, ...] = ("ollama",),
    node: str = "",
    gpus: int = 0,
    claims: tuple[str, ...] = (),
    **status: Any,
) -> Object:
    """A pod whose first container is Ray's; those with `sidecar` come before it, and go on if
    they are among the `sidecars`. The GPUs are those of a sidecar, as in the manifests."""
    init = [container for container in containers if container["sidecar"]]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "creationTimestamp": BORN,
            "labels": {
                "ray.io/cluster": cluster,
                "ray.io/group": "gpu",
                "ray.io/is-ray-node": "yes",
                "ray.io/node-type": role,
            },
        },
        "spec": {
            "initContainers": [
                {
                    "name": e["name"],
                    **({"restartPolicy": "Always"} if e["name"] in sidecars else {}),
                }
                for e in init
            ]
            + ([_with_gpus(gpus)] if gpus else []),
            "nodeName": node,
            "volumes": [{"persistentVolumeClaim": {"claimName": claim}} for claim in claims],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "initContainerStatuses": init,
            "containerStatuses": [
                container for container in containers if not container["sidecar"]
            ],
            **status,
        },
    }


def _with_gpus(number: int) -> Object:
    limits = {"nvidia.com/gpu": str(number), "memory": "16Gi"}
    return {"name": "ollama", "restartPolicy": "Always", "resources": {"limits": limits}}


def deleting(target: Object, ends_by: str, grace_s: int = 420) -> Object:
    """Return the pod after its deletion; the timestamp is the end of its grace period."""
    metadata = {
        **target["metadata"],
        "deletionTimestamp": ends_by,
        "deletionGracePeriodSeconds": grace_s,
    }
    return {**target, "metadata": metadata}


def disrupted(reason: str, message: str) -> Object:
    """Return the pod condition DisruptionTarget."""
    return {**condition("DisruptionTarget", True, reason, message)}


def unscheduled(sentence: str) -> Object:
    """Return the pod condition of a pod without a node."""
    return {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": sentence,
    }


def companion(name: str, component: str, *containers: Object, **status: Any) -> Object:
    """Return a pod of Redis, or of the Job that creates its Secret."""
    result = pod(name, *containers, **status)
    result["metadata"]["labels"] = {
        "app.kubernetes.io/part-of": "llm",
        "app.kubernetes.io/component": component,
    }
    return result


def job(name: str = "llm-redis-password", makes: str = "llm-redis", **status: Any) -> Object:
    """Return a Job that creates a Secret, as that of the manifests."""
    body = f'{{"kind": "Secret", "metadata": {{"name": "{makes}"}}}}'
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": "default",
            "creationTimestamp": BORN,
            "labels": {"app.kubernetes.io/part-of": "llm"},
        },
        "spec": {"template": {"spec": {"containers": [{"name": "create", "args": [body]}]}}},
        "status": {"startTime": BORN, "active": 1, **status},
    }


def container(
    name: str = "ray-worker", state: str = "running", sidecar: bool = False, **more: Any
) -> Object:
    """Return a container status; `more` sets its state, except `restarts`, `ready` and `last`."""
    return {
        "name": name,
        "sidecar": sidecar,
        "ready": more.pop("ready", state == "running"),
        "restartCount": more.pop("restarts", 0),
        "lastState": {"terminated": more.pop("last")} if "last" in more else {},
        "state": {state: more},
    }


def event(reason: str, message: str, about: str = "Pod/w1", at: str = BORN, **more: Any) -> Object:
    kind, _, name = about.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{reason}.{at}", "namespace": "default"},
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": message,
        "type": more.pop("type", "Warning"),
        "lastTimestamp": at,
        **more,
    }
