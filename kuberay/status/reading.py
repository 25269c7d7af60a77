"""API objects become values: what belongs to one RayService, and is not out of date."""

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
    """Read API objects; keep what belongs to the RayService `name` and is not out of date.

    Pods count by their cluster, those of Redis and of Jobs by their label `part-of`; events only
    when they are about these, and not older than the present spec.
    """
    seen = None if service is None else _service(service)
    own_clusters = [each for each in clusters if _belongs(each, name, seen)]
    names = {each["metadata"]["name"] for each in own_clusters}
    names |= {seen.active.cluster, seen.pending.cluster} - {""} if seen else set()
    part_of = seen.part_of if seen else name
    own_jobs = tuple(_job(each) for each in jobs if labels(each).get(PART_OF) == part_of)
    found = read_pods(name, names, pods, part_of, {each.name for each in own_jobs})
    subjects = _Subjects(name, names, found, own_jobs, seen.redis if seen else "")
    view = Observed(
        name=name,
        namespace=seen.namespace if seen else "",
        at=at,
        service=seen,
        clusters=tuple(_cluster(each) for each in own_clusters),
        pods=(),
        events=tuple(_events(events, subjects, seen)),
        jobs=own_jobs,
    )
    return replace(view, pods=tuple(sorted(found, key=partial(_place, view))))


def _place(view: Observed, pod: Pod) -> tuple[int, str, str, str]:
    """Pods of the awaited cluster, of the one that serves, of neither, and of those that leave."""
    order = {cluster: place for place, cluster in enumerate(view.current)}
    place = order.get(pod.cluster, 8 if pod.cluster else 7)
    return place, pod.cluster, pod.role, pod.name


class _Subjects:
    """What events may be about."""

    def __init__(
        self, name: str, clusters: set[str], pods: list[Pod], jobs: Iterable[Job], redis: str
    ) -> None:
        self._names = {("RayService", name)} | {("RayCluster", each) for each in clusters}
        self._names |= {("Pod", pod.name) for pod in pods} | {("Job", job.name) for job in jobs}
        claims = {claim for pod in pods for claim in pod.claims}
        self._names |= {("PersistentVolumeClaim", each) for each in claims}
        self._clusters = tuple(f"{each}-" for each in clusters)
        self._redis = f"{redis}-" if redis else ""

    def __contains__(self, subject: tuple[str, str]) -> bool:
        """Pods that have been replaced too: what became of them stands only in their events."""
        kind, name = subject
        was_ours = kind == "Pod" and bool(self._clusters) and name.startswith(self._clusters)
        is_redis = kind in ("ReplicaSet", "StatefulSet") and bool(self._redis)
        return subject in self._names or was_ours or (is_redis and name.startswith(self._redis))


def _events(
    events: Iterable[Object], subjects: _Subjects, service: RayService | None
) -> list[Event]:
    # Their times are often whole seconds; their names end in the nanosecond.
    in_order = sorted(events, key=lambda each: str(each["metadata"]["name"]).rpartition(".")[2])
    found = [_event(each) for each in in_order if _subject(each) in subjects]
    return sorted((e for e in found if not _is_old(e, service)), key=lambda event: event.at)


def _job(found: Object) -> Job:
    metadata, status = found["metadata"], found.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    failed = conditions.get("Failed", {})
    text = json.dumps((found.get("spec") or {}).get("template") or {}).replace("\\", "")
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


def _service(found: Object) -> RayService:
    metadata, status = found["metadata"], found.get("status") or {}
    return RayService(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata.get("uid", ""),
        generation=metadata["generation"],
        observed_generation=status.get("observedGeneration", 0),
        created_at=created(metadata),
        changed_at=_changed(metadata),
        is_deleting="deletionTimestamp" in metadata,
        is_suspended=bool((found.get("spec") or {}).get("suspend")),
        conditions=tuple(_condition(each) for each in status.get("conditions") or ()),
        active=_serving(status.get("activeServiceStatus") or {}),
        pending=_serving(status.get("pendingServiceStatus") or {}),
        endpoints=status.get("numServeEndpoints", 0),
        redis=_redis(found),
        part_of=labels(found).get(PART_OF) or metadata["name"],
    )


def _redis(found: Object) -> str:
    """`llm-redis` of `redis://llm-redis.ns:6379`."""
    cluster = (found.get("spec") or {}).get("rayClusterConfig") or {}
    address = (cluster.get("gcsFaultToleranceOptions") or {}).get("redisAddress") or ""
    return re.split("[.:]", str(address).rpartition("//")[2])[0]


def _changed(metadata: Object) -> datetime:
    """The last time that somebody wrote into the spec; of status writers the API server keeps
    a record apart."""
    times = [
        read_time(entry.get("time"))
        for entry in metadata.get("managedFields") or ()
        if "f:spec" in (entry.get("fieldsV1") or {}) and not entry.get("subresource")
    ]
    return max([created(metadata), *(each for each in times if each)])


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
        at=next(filter(None, map(read_time, times)), LONG_AGO),
    )


def _subject(event: Object) -> tuple[str, str]:
    about = event["involvedObject"]
    return about.get("kind", ""), about.get("name", "")
