"""Which of the events that Kubernetes and the operator send matter."""

import re

from kuberay.status.observed import Event, Observed, Pod

_CLUSTER = re.compile(r"RayCluster \S+/([a-z0-9-]+)")
# The operator repeats these until they succeed; at a head's start the first ones always fail.
_UPDATED = {"FailedToUpdateServeApplications": "UpdatedServeApplications"}


def about(observed: Observed, pod: Pod) -> list[Event]:
    return [each for each in observed.events if each.kind == "Pod" and each.name == pod.name]


def cluster_of(event: Event) -> str:
    """The RayCluster that an event is about, or that one about the service speaks of."""
    if event.kind == "RayCluster":
        return event.name
    named = _CLUSTER.search(event.message) if event.kind == "RayService" else None
    return named[1] if named else ""


def latest(observed: Observed, reasons: set[str]) -> list[Event]:
    """The last event with one of the reasons, about the service and each of its clusters, but not
    of clusters on their way out."""
    events = [each for each in observed.events if each.reason in reasons]
    found = {(each.name, cluster_of(each)): each for each in events}
    return [e for (_, cluster), e in found.items() if cluster in ("", *observed.current)]


def notable(observed: Observed) -> list[Event]:
    """Warnings, the oldest first, but not readiness probes (a worker without a replica is unready
    by design), not what has succeeded since, nor of a cluster on its way out; and the news that
    a node is on its way."""
    return [each for each in observed.events if _is_notable(each, observed)]


def _is_of_the_past(event: Event, observed: Observed) -> bool:
    clusters = {each.name for each in observed.clusters} | {e.cluster for e in observed.pods}
    leaving = [each for each in clusters if each and each not in observed.current]
    if cluster_of(event) in leaving:
        return True
    return event.kind == "Pod" and event.name.startswith(tuple(f"{each}-" for each in leaving))


def _is_notable(event: Event, observed: Observed) -> bool:
    if _is_of_the_past(event, observed):
        return False
    if event.reason == "TriggeredScaleUp":
        return True
    if not event.is_warning or event.message.startswith("Readiness probe failed"):
        return False
    success = _UPDATED.get(event.reason)
    return not any(
        each.reason == success and cluster_of(each) == cluster_of(event) and each.at >= event.at
        for each in observed.events
    )
