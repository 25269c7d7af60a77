"""Reads the API objects of one RayService, except outdated ones."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial

from kuberay.status.metadata import LONG_AGO, PART_OF, Object, created, labels, read_time
from kuberay.status.observed import (
    Application,
    Condition,
    Deployment,
    Event,
    Job,
    Observed,
    Pod,
    RayCluster,
    RayService,
    Serving,
)
from kuberay.status.pod_reading import read_pods

# A Secret in the text of a Job: as JSON for the API server, or as an argument of kubectl.
_MADE = re.compile(r'(?:"name": ?"|secret generic )([a-z0-9][a-z0-9.-]*)')


def observe(
    name: str,
    at: datetime,
    service: Object | None,
    clusters: Iterable[Object],
    pods: Iterable[Object],
    events: Iterable[Object],
    jobs: Iterable[Object] = (),
) -> Observed:
    """Read API objects; keep those of the RayService `name` that are not outdated.

    Pods belong by their cluster, those of Redis and of Jobs by their label `part-of`; events by
    their object, if they are not older than the present spec.
    """
    parsed = None if service is None else _service(service)
    own_clusters = [cluster for cluster in clusters if _belongs(cluster, name, parsed)]
    names = {cluster["metadata"]["name"] for cluster in own_clusters}
    if parsed:
        names |= {parsed.active.cluster, parsed.pending.cluster} - {""}
    part_of = parsed.part_of if parsed else name
    own_jobs = tuple(_job(job) for job in jobs if labels(job).get(PART_OF) == part_of)
    own_pods = read_pods(name, names, pods, part_of, {job.name for job in own_jobs})
    subjects = _Subjects(name, names, own_pods, own_jobs, parsed.redis if parsed else "")
    view = Observed(
        name=name,
        namespace=parsed.namespace if parsed else "",
        at=at,
        service=parsed,
        clusters=tuple(_cluster(cluster) for cluster in own_clusters),
        pods=(),
        events=tuple(_events(events, subjects, parsed)),
        jobs=own_jobs,
    )
    return replace(view, pods=tuple(sorted(own_pods, key=partial(_place, view))))


def _place(view: Observed, pod: Pod) -> tuple[int, str, str, str]:
    """Sort pods: of the pending cluster, the active one, no cluster, clusters to be removed."""
    order = {cluster: place for place, cluster in enumerate(view.current)}
    place = order.get(pod.cluster, 8 if pod.cluster else 7)
    return place, pod.cluster, pod.role, pod.name


class _Subjects:
    """The objects whose events are kept."""

    def __init__(
        self, name: str, clusters: set[str], pods: list[Pod], jobs: Iterable[Job], redis: str
    ) -> None:
        self._names = {("RayService", name)} | {("RayCluster", cluster) for cluster in clusters}
        self._names |= {("Pod", pod.name) for pod in pods} | {("Job", job.name) for job in jobs}
        claims = {claim for pod in pods for claim in pod.claims}
        self._names |= {("PersistentVolumeClaim", claim) for claim in claims}
        self._clusters = tuple(f"{cluster}-" for cluster in clusters)
        self._redis = f"{redis}-" if redis else ""

    def __contains__(self, subject: tuple[str, str]) -> bool:
        """Include replaced pods, because only their events explain their end."""
        kind, name = subject
        is_own_pod = kind == "Pod" and bool(self._clusters) and name.startswith(self._clusters)
        is_redis = kind in ("ReplicaSet", "StatefulSet") and bool(self._redis)
        return subject in self._names or is_own_pod or (is_redis and name.startswith(self._redis))


def _events(
    events: Iterable[Object], subjects: _Subjects, service: RayService | None
) -> list[Event]:
    # Their times are often whole seconds, but their names end in nanoseconds.
    in_order = sorted(events, key=lambda event: str(event["metadata"]["name"]).rpartition(".")[2])
    own_events = [_event(event) for event in in_order if _subject(event) in subjects]
    return sorted(
        (event for event in own_events if not _is_old(event, service)), key=lambda event: event.at
    )


def _job(job: Object) -> Job:
    metadata, status = job["metadata"], job.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    failed = conditions.get("Failed", {})
    text = json.dumps((job.get("spec") or {}).get("template") or {}).replace("\\", "")
    return Job(
        name=metadata["name"],
        makes=tuple(dict.fromkeys([*_MADE.findall(text), metadata["name"]])),
        is_complete="Complete" in conditions,
        failure=": ".join(filter(None, (failed.get("reason"), failed.get("message")))),
        failures=status.get("failed", 0),
        started_at=read_time(status.get("startTime")) or created(metadata),
    )


def _is_old(event: Event, service: RayService | None) -> bool:
    return service is not None and event.at < service.changed_at


def _belongs(cluster: Object, name: str, service: RayService | None) -> bool:
    owners = cluster["metadata"].get("ownerReferences") or ()
    if service and service.uid and owners:
        return any(owner["uid"] == service.uid for owner in owners)
    return labels(cluster).get("ray.io/originated-from-cr-name") == name


def _service(service: Object) -> RayService:
    metadata, status = service["metadata"], service.get("status") or {}
    return RayService(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata.get("uid", ""),
        generation=metadata["generation"],
        observed_generation=status.get("observedGeneration", 0),
        created_at=created(metadata),
        changed_at=_changed(metadata),
        is_deleting="deletionTimestamp" in metadata,
        is_suspended=bool((service.get("spec") or {}).get("suspend")),
        conditions=tuple(_condition(condition) for condition in status.get("conditions") or ()),
        active=_serving(status.get("activeServiceStatus") or {}),
        pending=_serving(status.get("pendingServiceStatus") or {}),
        endpoints=status.get("numServeEndpoints", 0),
        redis=_redis(service),
        part_of=labels(service).get(PART_OF) or metadata["name"],
    )


def _redis(service: Object) -> str:
    """Return `llm-redis` from `redis://llm-redis.ns:6379`."""
    cluster = (service.get("spec") or {}).get("rayClusterConfig") or {}
    address = (cluster.get("gcsFaultToleranceOptions") or {}).get("redisAddress") or ""
    return re.split("[.:]", str(address).rpartition("//")[2])[0]


def _changed(metadata: Object) -> datetime:
    """Return the last time of a write to the spec, by the managed fields except of the status."""
    times = [
        read_time(entry.get("time"))
        for entry in metadata.get("managedFields") or ()
        if "f:spec" in (entry.get("fieldsV1") or {}) and not entry.get("subresource")
    ]
    return max([created(metadata), *(time for time in times if time)])


def _condition(condition: Object) -> Condition:
    return Condition(
        condition["type"],
        condition["status"] == "True",
        condition.get("reason", ""),
        condition.get("message", ""),
        condition.get("observedGeneration", 0),
    )


def _serving(serving: Object) -> Serving:
    applications = serving.get("applicationStatuses") or {}
    return Serving(
        serving.get("rayClusterName", ""),
        tuple(
            _application(name, application) for name, application in sorted(applications.items())
        ),
    )


def _application(name: str, application: Object) -> Application:
    deployments = application.get("serveDeploymentStatuses") or {}
    return Application(
        name,
        application.get("status", ""),
        application.get("message", ""),
        tuple(
            Deployment(deployment, status.get("status", ""), status.get("message", ""))
            for deployment, status in sorted(deployments.items())
        ),
    )


def _cluster(cluster: Object) -> RayCluster:
    status = cluster.get("status") or {}
    return RayCluster(
        cluster["metadata"]["name"],
        status.get("readyWorkerReplicas", 0),
        status.get("desiredWorkerReplicas", 0),
        status.get("maxWorkerReplicas", 0),
        "deletionTimestamp" in cluster["metadata"],
    )


def _event(event: Object) -> Event:
    series = event.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event.get("firstTimestamp"),
        event["metadata"].get("creationTimestamp"),
    )
    kind, name = _subject(event)
    field = event["involvedObject"].get("fieldPath") or ""
    return Event(
        kind=kind,
        name=name,
        container=field.partition("{")[2].rstrip("}"),
        reason=event.get("reason", ""),
        message=event.get("message", ""),
        is_warning=event.get("type") == "Warning",
        count=series.get("count") or event.get("count") or 1,
        at=next(filter(None, map(read_time, times)), LONG_AGO),
    )


def _subject(event: Object) -> tuple[str, str]:
    about = event["involvedObject"]
    return about.get("kind", ""), about.get("name", "")
