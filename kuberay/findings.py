"""The rules of a diagnosis: each looks at one kind of trouble and names it, or says nothing.

They stand in the order of causes: what a rule finds explains what those below it find.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from kuberay.events import about, latest
from kuberay.observed import HEAD, WORKER, Application, Container, Observed, Pod, Serving
from kuberay.sentences import (
    exit_words,
    first_sentence,
    image_in,
    last_line,
    pull_reason,
    refusal,
    scheduler_reason,
)

_OPERATOR_WITHIN = timedelta(seconds=20)
_REMEMBERED = timedelta(minutes=2)
_HEAD_STARTS = timedelta(seconds=15)
_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_VOLUMES = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedMapVolume"}
_CREATED = {"CreatedHeadPod", "CreatedWorkerPod", "CreatedRayCluster"}
_NOT_CREATED = {"FailedToCreateHeadPod", "FailedToCreateWorkerPod", "FailedToCreateRayCluster"}


@dataclass(frozen=True)
class Finding:
    """`cause` and `advice` are one line each. A fatal one can't heal without a change of the spec;
    `about` names the object, so that the same trouble is recognised a moment later."""

    kind: str
    about: str
    cause: str
    advice: str
    is_fatal: bool = False


def invalid_spec(observed: Observed) -> Iterator[Finding]:
    """The operator itself refuses the spec, or has given up on it."""
    service = observed.service
    ready = service.condition("Ready") if service else None
    if service is None or ready is None or ready.generation < service.generation:
        return
    if ready.reason == "ValidationFailed":
        advice = "correct the manifest and deploy it again"
        yield Finding("invalid", service.name, f"invalid spec: {ready.message}", advice, True)
    if ready.reason == "InitializingTimeout":
        advice = "find the cause below; then delete it and deploy again"
        cause = f"the operator gave up: {ready.message}"
        yield Finding("gave-up", service.name, cause, advice, True)


def suspended(observed: Observed) -> Iterator[Finding]:
    if observed.service and observed.service.is_suspended:
        advice = "set spec.suspend to false and deploy again"
        yield Finding("suspended", observed.service.name, "it is suspended", advice, True)


def failed_applications(observed: Observed) -> Iterator[Finding]:
    """Serve could not build or start an application: a new spec has to come."""
    service = observed.service
    if service is None or not service.is_observed:
        return
    for serving in (service.pending, service.active):
        for each in serving.applications:
            if each.status == "DEPLOY_FAILED":
                yield _failed(each, serving, observed)


def _failed(application: Application, serving: Serving, observed: Observed) -> Finding:
    service = observed.service
    said = [d.message for d in application.deployments if d.status == "DEPLOY_FAILED" and d.message]
    cause = f"application {application.name}: {last_line(said[0] if said else application.message)}"
    advice = "correct import_path, args or code; then update-config, or upgrade to a new image"
    if service and service.active.cluster and serving.cluster == service.pending.cluster:
        advice = f"{service.active.cluster} still serves: rollback, or {advice}"
    return Finding("deploy-failed", application.name, cause, advice, True)


def no_operator(observed: Observed) -> Iterator[Finding]:
    """Nobody has looked at it for a while."""
    service = observed.service
    if service is None or service.observed_generation or service.conditions:
        return
    if observed.at - service.created_at > _OPERATOR_WITHIN:
        cause = "no operator has taken notice of it"
        advice = "install the KubeRay operator, and let it watch this namespace"
        yield Finding("no-operator", service.name, cause, advice)


def not_created(observed: Observed) -> Iterator[Finding]:
    """The API server refuses pods: a quota, a policy, an admission webhook."""
    for event in latest(observed, _NOT_CREATED | _CREATED):
        if event.reason in _NOT_CREATED:
            cause = f"no pod for {event.name}: {refusal(event.message)}"
            advice = "look at the namespace's quotas, pod security level and webhooks"
            yield Finding("not-created", event.name, cause, advice)


def images(observed: Observed) -> Iterator[Finding]:
    for pod, container in _containers(observed):
        if container.reason in _PULL:
            image = image_in(container.message) or container.image
            why = pull_reason(container.message) if container.message else container.reason
            cause = f"pod {pod.name}: image {image} of {container.name} can't be pulled: {why}"
            advice = "check the image's name and tag, the registry and imagePullSecrets"
            yield Finding("image", f"{pod.name}/{container.name}", cause, advice)


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


def restarting(observed: Observed) -> Iterator[Finding]:
    """A sidecar (or another container) that has ended, or is back and not ready yet."""
    for pod, container in _containers(observed):
        if container is pod.ray or container.is_ready or pod.ray_has_ended:
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


_BACK_SOON = "wait: it comes back by itself and loads its model again"


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


def heads(observed: Observed) -> Iterator[Finding]:
    """The head of the serving cluster is away: workers answer, nothing scales."""
    service = observed.service
    if service is None or not service.active.cluster or service.is_deleting:
        return
    of_active = [p for p in observed.pods if p.cluster == service.active.cluster]
    if of_active and not any(p.role == HEAD and p.is_ready for p in of_active):
        cause = f"the head of {service.active.cluster} is not ready: nothing scales meanwhile"
        advice = "wait: it comes back, workers serve on; else read its log: logs head"
        yield Finding("head", service.active.cluster, cause, advice)


def refused_configs(observed: Observed) -> Iterator[Finding]:
    """Ray's dashboard does not take the Serve config; at a head's start that passes."""
    last = latest(observed, {"FailedToUpdateServeApplications", "UpdatedServeApplications"})
    for event in last:
        if event.is_warning and observed.at - event.at > _HEAD_STARTS:
            cause = f"the Serve config is not accepted: {pull_reason(event.message)}"
            advice = "if that stays, correct serveConfigV2, or let the operator reach port 8265"
            yield Finding("config-refused", event.name, cause, advice)


def deployments(observed: Observed) -> Iterator[Finding]:
    """What Serve itself says of a deployment or an application."""
    service = observed.service
    for serving in (service.pending, service.active) if service else ():
        for application in serving.applications:
            for each in application.deployments:
                if each.message and each.status not in ("HEALTHY", "DEPLOY_FAILED"):
                    cause = f"deployment {each.name} {each.status}: {_said(each.message)}"
                    yield Finding("deployment", each.name, cause, _REPLICAS)


_REPLICAS = "wait for a worker with free resources; else compare what replicas ask with the groups"


def _said(message: str) -> str:
    return last_line(message) if "Traceback" in message else first_sentence(message)


def _containers(observed: Observed) -> Iterator[tuple[Pod, Container]]:
    for pod in observed.pods:
        if not pod.is_deleting:
            yield from ((pod, container) for container in pod.containers)


RULES: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    invalid_spec,
    suspended,
    failed_applications,
    no_operator,
    not_created,
    images,
    configurations,
    lost_pods,
    restarting,
    unscheduled,
    replaced_pods,
    starting_probes,
    volumes,
    heads,
    refused_configs,
    deployments,
)
