"""Reads the pods of one RayService from API objects."""

import re
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from kuberay.status.metadata import PART_OF, Object, created, labels, read_time
from kuberay.status.observed import Container, Pod

_GPU = re.compile(r"/(gpu|mig-|i915|xe)")


def read_pods(
    name: str,
    clusters: set[str],
    pods: Iterable[Object],
    part_of: str = "",
    jobs: Collection[str] = (),
) -> list[Pod]:
    """Read the pods of these clusters and Jobs, of the companions, and of deleted clusters.

    A deleted worker may outlive its RayCluster by minutes. Then only the name of the cluster, which
    the operator derives from the RayService's, shows where it belongs.
    """
    orphan_name = re.compile(rf"{re.escape(name)}-(raycluster-)?[a-z0-9]{{5}}")

    def is_own(pod: Object) -> bool:
        pod_labels = labels(pod)
        if cluster := pod_labels.get("ray.io/cluster"):
            is_left = "deletionTimestamp" in pod["metadata"] and orphan_name.fullmatch(cluster)
            return cluster in clusters or bool(is_left)
        return pod_labels.get("job-name") in jobs or pod_labels.get(PART_OF) == (part_of or name)

    return [_pod(pod) for pod in pods if is_own(pod)]


def _pod(pod: Object) -> Pod:
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    status = pod.get("status") or {}
    pod_labels = labels(pod)
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    disrupted = conditions.get("DisruptionTarget", {})
    if disrupted.get("status") != "True":
        disrupted = {}
    ends_by = read_time(metadata.get("deletionTimestamp"))
    return Pod(
        name=metadata["name"],
        cluster=pod_labels.get("ray.io/cluster", ""),
        group=pod_labels.get("ray.io/group", ""),
        role=pod_labels.get("ray.io/node-type")
        or pod_labels.get("app.kubernetes.io/component", ""),
        node=spec.get("nodeName", ""),
        phase=status.get("phase", ""),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        is_ready=conditions.get("Ready", {}).get("status") == "True",
        is_deleting="deletionTimestamp" in metadata,
        unscheduled=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        disruption=disrupted.get("reason", ""),
        disrupted=disrupted.get("message", ""),
        gpus=_gpus(spec),
        claims=tuple(_claims(spec)),
        created_at=created(metadata),
        deleting_since=_deleting_since(metadata),
        ends_by=ends_by,
        containers=_containers(spec, status),
    )


def _deleting_since(metadata: Object) -> datetime | None:
    """Return when the deletion began: the timestamp is when the grace period ends."""
    ends_by = read_time(metadata.get("deletionTimestamp"))
    if ends_by is None or "deletionGracePeriodSeconds" not in metadata:
        return None
    return ends_by - timedelta(seconds=metadata["deletionGracePeriodSeconds"])


def _gpus(spec: Object) -> int:
    """Count GPUs of any vendor, and parts of one (MIG), of the containers that run together."""
    sidecars = [
        container
        for container in spec.get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    ]
    limits = [
        (container.get("resources") or {}).get("limits") or {}
        for container in (*sidecars, *(spec.get("containers") or ()))
    ]
    return sum(int(n) for limit in limits for key, n in limit.items() if _GPU.search(key))


def _claims(spec: Object) -> Iterable[str]:
    for volume in spec.get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield claim["claimName"]


def _containers(spec: Object, status: Object) -> tuple[Container, ...]:
    init_containers = spec.get("initContainers") or ()
    sidecars = {
        container["name"]
        for container in init_containers
        if container.get("restartPolicy") == "Always"
    }
    return (
        *(
            _container(container, True, sidecars)
            for container in status.get("initContainerStatuses") or ()
        ),
        *(
            _container(container, False, sidecars)
            for container in status.get("containerStatuses") or ()
        ),
    )


def _container(status: Object, is_init: bool, sidecars: set[str]) -> Container:
    states: Object = status.get("state") or {}
    state = next(iter(states), "")
    details: Object = states.get(state) or {}
    last_run = (status.get("lastState") or {}).get("terminated") or {}
    return Container(
        name=status["name"],
        image=status.get("image", ""),
        is_init=is_init,
        is_sidecar=status["name"] in sidecars,
        is_ready=status.get("ready", False),
        is_started=bool(status.get("started")),
        restarts=status.get("restartCount", 0),
        state=state,
        reason=details.get("reason", ""),
        message=details.get("message", ""),
        exit_code=details.get("exitCode", 0),
        started_at=read_time(details.get("startedAt")),
        last_reason=last_run.get("reason", ""),
        last_exit_code=last_run.get("exitCode", 0),
        last_message=last_run.get("message", ""),
    )
