"""Rules about pods whose node is lost, which were evicted, or which have no node yet."""

import re
from collections.abc import Iterator

from kuberay.status.advice import command, kubectl, nodes
from kuberay.status.events import about
from kuberay.status.finding import Finding
from kuberay.status.observed import WORKER, Observed, Pod
from kuberay.status.sentences import first_sentence, one_line, scheduler_reason

_TAINT_MANAGER, _GONE = "DeletionByTaintManager", "DeletionByPodGC"
_SHUTDOWN = {"Terminated", "NodeShutdown", "Shutdown"}


def lost_nodes(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find pods whose node is lost, which keep their last state, even while being deleted."""
    if pod.disruption == _GONE:
        cause = f"{pod.role} {pod.name} is lost: its node {pod.node} is gone"
        advice = "wait: the operator replaces it; if no node has room, add one: kubectl get nodes"
    elif why := _silent(pod, observed):
        cause = f"{pod.role} {pod.name} is lost: its node {pod.node} does not answer ({why})"
        advice = (
            f"check the node: {nodes(observed, pod)}; Kubernetes gives up on it after 5 minutes; "
            f"if the machine will not come back: kubectl delete node {pod.node}"
        )
    else:
        return
    yield Finding("lost", pod.name, cause, advice)


def _silent(pod: Pod, observed: Observed) -> str:
    """Return why the pod's node seems lost: its pods turn unready and are then to be deleted."""
    if pod.disruption == _TAINT_MANAGER:
        return one_line(pod.disrupted) or "it is tainted"
    if pod.reason == "NodeLost" or pod.phase == "Unknown":
        return first_sentence(pod.message) or pod.reason or "phase Unknown"
    events = [e for e in about(observed, pod) if e.reason == "NodeNotReady"]
    if events and not pod.is_ready and all(container.is_ready for container in pod.containers):
        return f"NodeNotReady: {one_line(events[-1].message)}"
    return ""


def evicted(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find evicted pods: a full disk, too little memory, a shutdown of the node."""
    if pod.reason != "Evicted" and pod.reason not in _SHUTDOWN:
        return
    cause = f"{pod.role} {pod.name} is lost: {pod.reason}: {first_sentence(pod.message)}"
    advice = eviction_advice(pod.message)
    yield Finding("lost", pod.name, cause, f"{advice}; {_replaced(pod)}")


def eviction_advice(message: str) -> str:
    """Advise against the reason of an eviction."""
    if "shutdown" in message:
        return "nothing to do: its node shuts down (a spot node, an update of the node)"
    if re.search(r"ephemeral|EmptyDir|nodefs|imagefs|disk", message):
        return (
            "give the nodes larger disks, raise sizeLimit or limits.ephemeral-storage, or keep "
            "models out of emptyDir (components/node-cache or shared-cache)"
        )
    if "memory" in message:
        return "raise its memory requests to what it uses, so that the node is not overcommitted"
    return "read the node's events: kubectl get events -A --field-selector reason=Evicted"


def _replaced(pod: Pod) -> str:
    return "wait: the operator replaces it" if pod.is_ray else "wait: its owner replaces it"


def displaced(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find pods that make way for a pod of higher priority or for a drain of their node."""
    if pod.disruption == "PreemptionByScheduler":
        cause = f"{pod.role} {pod.name} is preempted: a pod of higher priority takes its place"
        advice = f"set priorityClassName in its pod template, or add a node; {_replaced(pod)}"
        yield Finding("displaced", pod.name, cause, advice)
    elif pod.disruption == "EvictionByEvictionAPI":
        cause = f"{pod.role} {pod.name} is moved off node {pod.node}, which is being drained"
        yield Finding("displaced", pod.name, cause, _replaced(pod), on_its_way=True)


def unscheduled(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find pods without a node."""
    if pod.unscheduled:
        reason = scheduler_reason(pod.unscheduled)
        advice, on_its_way = _room(pod, reason, observed)
        cause = f"pod {pod.name} has no node: {reason}{_claim_events(pod, observed)}"
        yield Finding("unscheduled", pod.name, cause, advice, on_its_way=on_its_way)


def _room(pod: Pod, reason: str, observed: Observed) -> tuple[str, bool]:
    """Advise how to make room, and tell whether the problem will pass by itself."""
    scale_ups = [e for e in about(observed, pod) if e.reason == "TriggeredScaleUp"]
    if scale_ups:
        return (
            f"wait: the node autoscaler adds a node ({first_sentence(scale_ups[-1].message)})",
            True,
        )
    if "Insufficient" in reason and "gpu" in reason.lower():
        return _gpu_room(pod, reason, observed)
    return _other_room(pod, reason, observed), False


def _gpu_room(pod: Pod, reason: str, observed: Observed) -> tuple[str, bool]:
    if holders := [other for other in observed.pods if other.gpus and other.is_deleting]:
        ends = max(holder.ends_by or observed.at for holder in holders)
        seconds = max(0, int((ends - observed.at).total_seconds()))
        names = ", ".join(holder.name for holder in holders)
        return f"wait: {names} still holds a GPU while it ends, for at most {seconds} s", True
    if _AWAY.search(reason):
        return f"a node is not ready: kubectl get nodes; {_ADD_GPU}", False
    if observed.replaced and pod.cluster != observed.replaced:
        return (
            f"the new cluster needs GPUs beside those of {observed.replaced}, which still serves: "
            f"add a GPU node, or undo the change: {command(observed, 'rollback')}",
            False,
        )
    return f"{_ADD_GPU}{_fewer_replicas(pod, observed)}", False


def _fewer_replicas(pod: Pod, observed: Observed) -> str:
    """Advise to scale to the replicas that have a GPU, if the pool has the usual name."""
    group_pods = [p for p in observed.pods if p.group == pod.group and p.role == WORKER]
    ready = sum(other.is_ready and not other.is_deleting for other in group_pods)
    applications = observed.service.active.applications if observed.service else ()
    names = {deployment.name for app in applications for deployment in app.deployments}
    if not ready or "pool" not in names:
        return ""
    fewer = command(observed, f"scale --min 1 --max {ready}")
    return f"; or use only {ready}: {fewer}"


_AWAY = re.compile(r"node\.kubernetes\.io/(unreachable|not-ready)|network-unavailable")
_ADD_GPU = (
    "free a GPU or add a GPU node (to see who uses them: kubectl describe nodes | grep -E "
    "'^Name:|nvidia.com/gpu')"
)
# By patterns in the scheduler's message; the first match counts.
_ROOM = (
    (_AWAY, "a node is not ready: kubectl get nodes; repair it, or add one"),
    (
        re.compile(r"node\.kubernetes\.io/(disk|memory|pid)-pressure"),
        "a node is short of disk or memory: kubectl describe nodes; free some, or add a node",
    ),
    (
        re.compile(r"were unschedulable|node\.kubernetes\.io/unschedulable"),
        "a node is cordoned: kubectl get nodes; then kubectl uncordon NODE, or add one",
    ),
    (re.compile("taint"), "let the group tolerate the taint, or add nodes without it"),
    (
        re.compile("volume node affinity"),
        "its volume is on another node or in another zone: add a node there, or delete the claim "
        "and deploy it again",
    ),
    (
        re.compile("affinity|selector"),
        "add a node with the labels that the group selects, or correct nodeSelector",
    ),
    (
        re.compile("scheduling gates"),
        "wait for the owner of the gate (a queue such as Kueue): kubectl get workloads",
    ),
    (re.compile("Too many pods"), "the nodes have reached their limit of pods: add a node"),
)


def _other_room(pod: Pod, reason: str, observed: Observed) -> str:
    if "PersistentVolumeClaim" in reason or "persistentvolumeclaim" in reason:
        return _claim_advice(pod, reason, observed)
    fits = (advice for pattern, advice in _ROOM if pattern.search(reason))
    return next(fits, "add a node or lower the group's requests")


def _claim_advice(pod: Pod, reason: str, observed: Observed) -> str:
    if "not found" in reason:
        return "deploy the manifest of the claim (PersistentVolumeClaim) that the pod names"
    names = " ".join(pod.claims)
    return (
        f"find out why no volume is bound: {kubectl(observed, f'describe pvc {names}'.strip())}; a "
        "claim needs a StorageClass that exists (kubectl get storageclass) and its access mode"
    )


def _claim_events(pod: Pod, observed: Observed) -> str:
    """Return the provisioner's last message about the pod's claims."""
    if "persistentvolumeclaim" not in pod.unscheduled.lower():
        return ""
    claim_events = [
        event
        for event in observed.events
        if event.kind == "PersistentVolumeClaim" and event.is_warning
    ]
    events = [event for event in claim_events if event.name in pod.claims]
    return f" ({events[-1].name}: {one_line(events[-1].message)})" if events else ""
