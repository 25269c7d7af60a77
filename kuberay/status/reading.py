"""API objects become values: what belongs to one RayService, and is not out of date."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from kuberay.status.observed import (
    Application,
    Condition,
    Container,
    Deployment,
    Event,
    Observed,
    Pod,
    RayCluster,
    RayService,
    Serving,
)

Object = Mapping[str, Any]

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def observe(
    name: str,
    at: datetime,
    service: Object | None,
    clusters: Iterable[Object],
    pods: Iterable[Object],
    events: Iterable[Object],
) -> Observed:
    """Read API objects; keep what belongs to the RayService `name` and is not out of date.

    Pods count by their cluster; events only when they are about the service, its clusters or its
    present pods, and not older than the present spec.
    """
    seen = None if service is None else _service(service)
    own_clusters = [each for each in clusters if _belongs(each, name, seen)]
    names = {each["metadata"]["name"] for each in own_clusters}
    names |= {seen.active.cluster, seen.pending.cluster} - {""} if seen else set()
    own_pods = [each for each in pods if _labels(each).get("ray.io/cluster") in names]
    about = {("RayService", name)} | {("RayCluster", each) for each in names}
    about |= {("Pod", each["metadata"]["name"]) for each in own_pods}
    # Their times are often whole seconds; their names end in the nanosecond.
    in_order = sorted(events, key=lambda each: str(each["metadata"]["name"]).rpartition(".")[2])
    own_events = [_event(each) for each in in_order if _subject(each) in about]
    return Observed(
        at=at,
        service=seen,
        clusters=tuple(_cluster(each) for each in own_clusters),
        pods=tuple(sorted(map(_pod, own_pods), key=lambda pod: (pod.cluster, pod.role, pod.name))),
        events=tuple(
            sorted((e for e in own_events if not _is_old(e, seen)), key=lambda event: event.at)
        ),
    )


def read_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _is_old(event: Event, service: RayService | None) -> bool:
    return service is not None and event.at < service.changed_at


def _belongs(cluster: Object, name: str, service: RayService | None) -> bool:
    owners = cluster["metadata"].get("ownerReferences") or ()
    if service and service.uid and owners:
        return any(owner["uid"] == service.uid for owner in owners)
    return _labels(cluster).get("ray.io/originated-from-cr-name") == name


def _service(found: Object) -> RayService:
    metadata, status = found["metadata"], found.get("status") or {}
    return RayService(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata.get("uid", ""),
        generation=metadata["generation"],
        observed_generation=status.get("observedGeneration", 0),
        created_at=_created(metadata),
        changed_at=_changed(metadata),
        is_deleting="deletionTimestamp" in metadata,
        is_suspended=bool((found.get("spec") or {}).get("suspend")),
        conditions=tuple(_condition(each) for each in status.get("conditions") or ()),
        active=_serving(status.get("activeServiceStatus") or {}),
        pending=_serving(status.get("pendingServiceStatus") or {}),
        endpoints=status.get("numServeEndpoints", 0),
    )


def _created(metadata: Object) -> datetime:
    return read_time(metadata.get("creationTimestamp")) or _LONG_AGO


def _changed(metadata: Object) -> datetime:
    """The last time that somebody wrote into the spec; of status writers the API server keeps
    a record apart."""
    times = [
        read_time(entry.get("time"))
        for entry in metadata.get("managedFields") or ()
        if "f:spec" in (entry.get("fieldsV1") or {}) and not entry.get("subresource")
    ]
    return max([_created(metadata), *(each for each in times if each)])


def _condition(found: Object) -> Condition:
    return Condition(
        found["type"],
        found["status"] == "True",
        found.get("reason", ""),
        found.get("message", ""),
        found.get("observedGeneration", 0),
    )


def _serving(found: Object) -> Serving:
    applications = found.get("applicationStatuses") or {}
    return Serving(
        found.get("rayClusterName", ""),
        tuple(_application(name, each) for name, each in sorted(applications.items())),
    )


def _application(name: str, found: Object) -> Application:
    deployments = found.get("serveDeploymentStatuses") or {}
    return Application(
        name,
        found.get("status", ""),
        found.get("message", ""),
        tuple(
            Deployment(each, status.get("status", ""), status.get("message", ""))
            for each, status in sorted(deployments.items())
        ),
    )


def _cluster(found: Object) -> RayCluster:
    status = found.get("status") or {}
    return RayCluster(
        found["metadata"]["name"],
        status.get("readyWorkerReplicas", 0),
        status.get("desiredWorkerReplicas", 0),
        status.get("maxWorkerReplicas", 0),
        "deletionTimestamp" in found["metadata"],
    )


def _pod(found: Object) -> Pod:
    metadata, spec = found["metadata"], found.get("spec") or {}
    status = found.get("status") or {}
    labels = _labels(found)
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    return Pod(
        name=metadata["name"],
        cluster=labels.get("ray.io/cluster", ""),
        group=labels.get("ray.io/group", ""),
        role=labels.get("ray.io/node-type", ""),
        node=spec.get("nodeName", ""),
        phase=status.get("phase", ""),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        is_ready=conditions.get("Ready", {}).get("status") == "True",
        is_deleting="deletionTimestamp" in metadata,
        unscheduled=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        created_at=_created(metadata),
        containers=_containers(spec, status),
    )


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
        restarts=found.get("restartCount", 0),
        state=state,
        reason=details.get("reason", ""),
        message=details.get("message", ""),
        exit_code=details.get("exitCode", 0),
        started_at=read_time(details.get("startedAt")),
        last_reason=last.get("reason", ""),
        last_exit_code=last.get("exitCode", 0),
    )


def _event(found: Object) -> Event:
    series = found.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        found.get("lastTimestamp"),
        found.get("eventTime"),
        found.get("firstTimestamp"),
        found["metadata"].get("creationTimestamp"),
    )
    kind, name = _subject(found)
    field = found["involvedObject"].get("fieldPath") or ""
    return Event(
        kind=kind,
        name=name,
        container=field.partition("{")[2].rstrip("}"),
        reason=found.get("reason", ""),
        message=found.get("message", ""),
        is_warning=found.get("type") == "Warning",
        count=series.get("count") or found.get("count") or 1,
        at=next(filter(None, map(read_time, times)), _LONG_AGO),
    )


def _subject(event: Object) -> tuple[str, str]:
    about = event["involvedObject"]
    return about.get("kind", ""), about.get("name", "")


def _labels(found: Object) -> Object:
    return found["metadata"].get("labels") or {}
