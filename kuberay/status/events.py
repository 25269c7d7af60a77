"""Selects the events of Kubernetes and the operator that matter."""

import re

from kuberay.status.observed import Event, Observed, Pod

_CLUSTER = re.compile(r"RayCluster \S+/([a-z0-9-]+)")
# The operator repeats these until they succeed; the first always fail while a head starts.
_UPDATED = {"FailedToUpdateServeApplications": "UpdatedServeApplications"}


def about(observed: Observed, pod: Pod) -> list[Event]:
    return [event for event in observed.events if event.kind == "Pod" and event.name == pod.name]


def cluster_of(event: Event) -> str:
    """Return the RayCluster that an event is about, or that an event of the service names."""
    if event.kind == "RayCluster":
        return event.name
    match = _CLUSTER.search(event.message) if event.kind == "RayService" else None
    return match[1] if match else ""


def latest(observed: Observed, reasons: set[str]) -> list[Event]:
    """Return the last event with one of the reasons for the service and every current cluster."""
    events = [event for event in observed.events if event.reason in reasons]
    last_events = {(event.name, cluster_of(event)): event for event in events}
    return [
        event for (_, cluster), event in last_events.items() if cluster in ("", *observed.current)
    ]


def notable(observed: Observed) -> list[Event]:
    """Return warnings and the news of new nodes, oldest first.

    Left out are readiness probes (a worker without a replica is unready by design), warnings that
    a later success made obsolete, and those of clusters that are being removed.
    """
    return [event for event in observed.events if _is_notable(event, observed)]


def _is_of_the_past(event: Event, observed: Observed) -> bool:
    clusters = {cluster.name for cluster in observed.clusters}
    clusters |= {pod.cluster for pod in observed.pods}
    leaving = [cluster for cluster in clusters if cluster and cluster not in observed.current]
    if cluster_of(event) in leaving:
        return True
    return event.kind == "Pod" and event.name.startswith(
        tuple(f"{cluster}-" for cluster in leaving)
    )


def _is_notable(event: Event, observed: Observed) -> bool:
    if _is_of_the_past(event, observed):
        return False
    if event.reason == "TriggeredScaleUp":
        return True
    if not event.is_warning or event.message.startswith("Readiness probe failed"):
        return False
    success = _UPDATED.get(event.reason)
    return not any(
        other.reason == success and cluster_of(other) == cluster_of(event) and other.at >= event.at
        for other in observed.events
    )
