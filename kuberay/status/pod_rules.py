"""Rules about the pods and their containers, in the order in which a pod comes to life.

A rule looks at one kind of trouble and names it, or says nothing.
"""

from collections.abc import Iterator
from datetime import timedelta

from kuberay.status.events import about, latest
from kuberay.status.finding import Finding
from kuberay.status.observed import HEAD, WORKER, Container, Observed, Pod
from kuberay.status.sentences import (
    exit_words,
    first_sentence,
    image_in,
    last_line,
    pull_reason,
    scheduler_reason,
)

_REMEMBERED = timedelta(minutes=2)
_PULL_SHOWS = timedelta(seconds=5)
_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_PULLING = {"Pulling", "Pulled", "Failed", "BackOff"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_VOLUMES = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedMapVolume"}
_PULLER = "pull"
# Runs in every worker until the head answers; the head has rules of its own.
_OPERATORS = "wait-gcs-ready"
_BACK_SOON = "wait: it comes back by itself and loads its model again"


def images(observed: Observed) -> Iterator[Finding]:
    for pod, container in _containers(observed):
        if container.reason in _PULL:
            image = image_in(container.message) or container.image
            why = pull_reason(container.message) if container.message else container.reason
            cause = f"pod {pod.name}: image {image} of {container.name} can't be pulled: {why}"
            advice = "check the image's name and tag, the registry and imagePullSecrets"
            yield Finding("image", f"{pod.name}/{container.name}", cause, advice)


def pulling(observed: Observed) -> Iterator[Finding]:
    """An image on its way: normal on a new node, and it may take minutes."""
    for pod in observed.pods:
        said = [each for each in about(observed, pod) if each.reason in _PULLING]
        waits = any(each.state == "waiting" for each in pod.containers)
        if not said or said[-1].reason != "Pulling" or not waits or pod.is_deleting:
            continue
        passed = observed.at - said[-1].at
        if passed > _PULL_SHOWS:
            image, seconds = image_in(said[-1].message), int(passed.total_seconds())
            cause = f"pod {pod.name}: image {image} is being pulled, for {seconds} s now"
            advice = "wait; the pre-pull Job brings images to nodes beforehand"
            yield Finding("pulling", f"{pod.name}/{image}", cause, advice)


def configurations(observed: Observed) -> Iterator[Finding]:
    """A Secret, ConfigMap or command that a container needs is not there."""
    for pod, container in _containers(observed):
        if container.reason in _CONFIG:
            cause = f"pod {pod.name}: {container.name} can't start: {last_line(container.message)}"
            advice = "create what it refers to, or correct the manifest"
            yield Finding("config", f"{pod.name}/{container.name}", cause, advice)


def unscheduled(observed: Observed) -> Iterator[Finding]:
    for pod in observed.pods:
        if pod.unscheduled and not pod.is_deleting:
            cause = f"pod {pod.name} has no node: {scheduler_reason(pod.unscheduled)}"
            yield Finding("unscheduled", pod.name, cause, _room(pod, observed))


def _room(pod: Pod, observed: Observed) -> str:
    coming = [e for e in about(observed, pod) if e.reason == "TriggeredScaleUp"]
    if coming:
        return f"wait: the node autoscaler adds a node ({first_sentence(coming[-1].message)})"
    if "gpu" in pod.unscheduled.lower() and "Insufficient" in pod.unscheduled:
        return "free a GPU or add a GPU node; else ask for fewer (scale --max)"
    if "taint" in pod.unscheduled:
        return "let the group tolerate the taint, or add nodes without it"
    if "affinity" in pod.unscheduled or "selector" in pod.unscheduled:
        return "add a node with the labels that the group selects, or correct nodeSelector"
    return "add a node or lower the group's requests"


def lost_pods(observed: Observed) -> Iterator[Finding]:
    """A pod whose Ray container has ended is gone for Ray; the operator replaces it."""
    for pod in observed.pods:
        ray = pod.ray
        if pod.is_deleting or observed.service is None:
            continue
        if pod.reason in ("Evicted", "NodeLost") or (pod.phase == "Failed" and not ray):
            yield _lost(pod.name, pod.role, f"{pod.reason or pod.phase}: {pod.message}", "")
        elif ray and pod.ray_has_ended:
            yield _lost(pod.name, pod.role, exit_words(ray.exit_code, ray.reason), ray.reason)


def replaced_pods(observed: Observed) -> Iterator[Finding]:
    """The same, once only the operator's event tells why the pod goes and its successor starts."""
    whole = all(cluster.ready >= cluster.desired for cluster in observed.clusters)
    if whole and all(pod.is_ready for pod in observed.pods):
        return
    for event in latest(observed, {"DeletedWorkerPod", "DeletedHeadPod"}):
        name = event.message.partition(";")[0].rpartition("/")[2]
        _, died, how = event.message.partition("ContainerStateTerminated{")
        if died and observed.at - event.at < _REMEMBERED:
            fields = dict(part.partition(":")[::2] for part in how.split(","))
            code, reason = int(fields.get("ExitCode") or 0), fields.get("Reason", "")
            role = HEAD if event.reason == "DeletedHeadPod" else WORKER
            yield _lost(name, role, exit_words(code, reason), reason)


def _lost(name: str, role: str, how: str, reason: str) -> Finding:
    cause = f"{role} {name} is lost: its Ray container ended ({how})"
    if how.startswith(("Evicted", "NodeLost", "Failed")):
        cause = f"{role} {name} is lost: {first_sentence(how)}"
    advice = "wait: the operator replaces it; if that repeats, read its log and its node's events"
    return Finding("lost", name, cause, _memory_advice(reason) or advice)


def failed_init(observed: Observed) -> Iterator[Finding]:
    """An init container that fails ends its pod: Ray's pods are never restarted, but replaced."""
    for pod, container in _containers(observed):
        failed = container.state == "terminated" and container.exit_code
        if failed and container.is_init and not container.is_sidecar:
            how = exit_words(container.exit_code, container.reason)
            said = f": {last_line(container.message)}" if container.message else ""
            cause = f"pod {pod.name}: init container {container.name} failed ({how}){said}"
            advice = f"read its log: logs workers --container {container.name}"
            about_it = f"{pod.group}/{container.name}"
            yield Finding("init", about_it, cause, _memory_advice(container.reason) or advice)


def preparing(observed: Observed) -> Iterator[Finding]:
    """An init container at work, as a rule on gigabytes of models: Serve waits, whatever it says
    about resources."""
    for pod, container in _containers(observed):
        is_ours = container.is_init and container.name != _OPERATORS
        if is_ours and container.state == "running" and not container.is_sidecar:
            passed = observed.at - (container.started_at or pod.created_at)
            cause = (
                f"pod {pod.name}: init container {container.name} has been running for "
                f"{int(passed.total_seconds())} s"
            )
            about_it = f"{pod.name}/{container.name}"
            yield Finding("preparing", about_it, cause, _preparing_advice(pod, container))


def _preparing_advice(pod: Pod, container: Container) -> str:
    whose = HEAD if pod.role == HEAD else "workers"
    advice = f"wait; how far it is: python -m kuberay logs {whose} -c {container.name}"
    if container.name != _PULLER:
        return advice
    return f"{advice}; components/shared-cache or node-cache spares the next pod the pull"


def restarting(observed: Observed) -> Iterator[Finding]:
    """A sidecar (or another container) that has ended, or is back and not ready yet."""
    for pod, container in _containers(observed):
        if container is pod.ray or container.is_ready or pod.ray_has_ended:
            continue
        if pod.phase == "Failed":
            continue
        ended = container.state == "terminated" and container.exit_code
        looping = container.reason == "CrashLoopBackOff"
        if not (ended or looping or container.restarts):
            continue
        code, reason = container.last_exit_code, container.last_reason
        if ended:
            code, reason = container.exit_code, container.reason
        kind = "sidecar" if container.is_sidecar else "container"
        cause = (
            f"pod {pod.name}: {kind} {container.name} ended ({exit_words(code, reason)}) and is "
            f"restarting (restarts: {container.restarts})"
        )
        advice = "read its log: logs sidecar --previous" if looping else _BACK_SOON
        yield Finding(
            "restarting", f"{pod.name}/{container.name}", cause, _memory_advice(reason) or advice
        )


def _memory_advice(reason: str) -> str:
    if reason != "OOMKilled":
        return ""
    return "raise its memory limit, or lower LLAMA_ARG_CACHE_RAM, the context or the slots"


def starting_probes(observed: Observed) -> Iterator[Finding]:
    """A container runs, and its startup or liveness probe says that it is no use yet."""
    for pod in observed.pods:
        said = [
            e
            for e in about(observed, pod)
            if e.reason == "Unhealthy" and e.message.startswith(("Startup", "Liveness"))
        ]
        waiting = [c for c in pod.containers if c.state == "running" and not c.is_ready]
        if not said or not waiting or pod.is_deleting:
            continue
        event = said[-1]
        name = event.container or waiting[0].name
        if all(each.name != name for each in waiting):
            continue
        what, _, why = event.message.strip().partition(": ")
        cause = f"pod {pod.name}: {name} is not ready: {what.lower()}: {last_line(why)}"
        yield Finding("probe", f"{pod.name}/{name}", cause, _probe_advice(why))


def _probe_advice(why: str) -> str:
    if "not found" in why and "model" in why:
        return "pull the model into the cache (init container, pre-pull Job), or correct its name"
    return "wait while it loads; then read its log: logs sidecar"


def volumes(observed: Observed) -> Iterator[Finding]:
    for pod in observed.pods:
        said = [e for e in about(observed, pod) if e.reason in _VOLUMES]
        if said and not any(each.state == "running" for each in pod.containers):
            cause = f"pod {pod.name} can't be set up: {pull_reason(said[-1].message)}"
            advice = "check the volume, Secret or ConfigMap, or the node's network"
            yield Finding("volume", pod.name, cause, advice)


def _containers(observed: Observed) -> Iterator[tuple[Pod, Container]]:
    for pod in observed.pods:
        if not pod.is_deleting:
            yield from ((pod, container) for container in pod.containers)
