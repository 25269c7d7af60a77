"""Pods of the API become values: those of one RayService, and what they hold."""

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
    """Of these clusters and Jobs, of the companions, and what is left of clusters that have gone.

    A deleted worker outlives its RayCluster by minutes; then only its cluster's name, which the
    operator makes of the RayService's, tells whose it was.
    """
    left = re.compile(rf"{re.escape(name)}-(raycluster-)?[a-z0-9]{{5}}")

    def is_own(found: Object) -> bool:
        own = labels(found)
        if cluster := own.get("ray.io/cluster"):
            is_left = "deletionTimestamp" in found["metadata"] and left.fullmatch(cluster)
            return cluster in clusters or bool(is_left)
        return own.get("job-name") in jobs or own.get(PART_OF) == (part_of or name)

    return [_pod(each) for each in pods if is_own(each)]


def _pod(found: Object) -> Pod:
    metadata, spec = found["metadata"], found.get("spec") or {}
    status = found.get("status") or {}
    own = labels(found)
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    disrupted = conditions.get("DisruptionTarget", {})
    if disrupted.get("status") != "True":
        disrupted = {}
    ends_by = read_time(metadata.get("deletionTimestamp"))
    return Pod(
        name=metadata["name"],
        cluster=own.get("ray.io/cluster", ""),
        group=own.get("ray.io/group", ""),
        role=own.get("ray.io/node-type") or own.get("app.kubernetes.io/component", ""),
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
    """A pod's deletion timestamp is the moment at which its grace is over."""
    ends_by = read_time(metadata.get("deletionTimestamp"))
    if ends_by is None or "deletionGracePeriodSeconds" not in metadata:
        return None
    return ends_by - timedelta(seconds=metadata["deletionGracePeriodSeconds"])


def _gpus(spec: Object) -> int:
    """GPUs of whatever maker, and parts of one (MIG), of the containers that run together."""
    sidecars = [e for e in spec.get("initContainers") or () if e.get("restartPolicy") == "Always"]
    limits = [
        (each.get("resources") or {}).get("limits") or {}
        for each in (*sidecars, *(spec.get("containers") or ()))
    ]
    return sum(int(n) for each in limits for key, n in each.items() if _GPU.search(key))


def _claims(spec: Object) -> Iterable[str]:
    for volume in spec.get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield claim["claimName"]


def _containers(spec: Object, status: Object) -> tuple[Container, ...]:
    of_init = spec.get("initContainers") or ()
    sidecars = {each["name"] for each in of_init if each.get("restartPolicy") == "Always"}
    return (
        *(_container(each, True, sidecars) for each in status.get("initContainerStatuses") or ()),
        *(_container(each, False, sidecars) for each in status.get("containerStatuses") or ()),
    )


def _container(found: Object, is_init: bool, sidecars: set[str]) -> Container:
    states: Object = found.get("state") or {}
    state = next(iter(states), "")
    details: Object = states.get(state) or {}
    last = (found.get("lastState") or {}).get("terminated") or {}
    return Container(
        name=found["name"],
        image=found.get("image", ""),
        is_init=is_init,
        is_sidecar=found["name"] in sidecars,
        is_ready=found.get("ready", False),
        is_started=bool(found.get("started")),
        restarts=found.get("restartCount", 0),
        state=state,
        reason=details.get("reason", ""),
        message=details.get("message", ""),
        exit_code=details.get("exitCode", 0),
        started_at=read_time(details.get("startedAt")),
        last_reason=last.get("reason", ""),
        last_exit_code=last.get("exitCode", 0),
        last_message=last.get("message", ""),
    )
