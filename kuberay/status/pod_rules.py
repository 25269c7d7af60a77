"""Rules about pods: which pods count, in which order, and which rule explains a pod.

A rule yields findings about one kind of problem of one pod.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from kuberay.status import config_rules, container_rules, image_rules, node_rules
from kuberay.status.advice import kubectl, log_of, more_memory
from kuberay.status.finding import Finding
from kuberay.status.observed import (
    CLEANUP,
    HEAD,
    LIMITS_PASSWORD,
    PASSWORD,
    REDIS,
    WORKER,
    Observed,
    Pod,
)
from kuberay.status.replaced_rules import replaced_pods
from kuberay.status.sentences import exit_words, first_sentence, last_line

# Without its Secret Redis can't start, without Redis the head, without the head no worker.
_ROLES = (PASSWORD, LIMITS_PASSWORD, REDIS, HEAD, WORKER, CLEANUP)


def lost_pods(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find pods whose Ray container has ended, which the operator replaces."""
    if not pod.is_ray or observed.service is None:
        return
    ray = pod.ray
    if ray and pod.ray_has_ended:
        how = exit_words(ray.exit_code, ray.reason)
        advice = f"{_REPLACED}: {log_of(observed, pod)}"
        if ray.reason == "OOMKilled":
            advice = more_memory(observed, pod, ray)
        message = last_line(ray.message)
        last_words = f": {message}" if message else ""
        cause = f"{pod.role} {pod.name} is lost: its Ray container ended ({how}){last_words}"
        yield Finding("lost", pod.name, cause, advice)
    elif pod.phase == "Failed" and not _has_failed_init(pod):
        why = first_sentence(f"{pod.reason or pod.phase}: {pod.message}")
        cause = f"{pod.role} {pod.name} is lost: {why}"
        look = kubectl(observed, f"describe pod {pod.name}")
        yield Finding("lost", pod.name, cause, f"wait: the operator replaces it; {look}")


_REPLACED = "wait: the operator replaces it; if it happens again, read its log"


def _has_failed_init(pod: Pod) -> bool:
    return any(
        container.is_init and not container.is_sidecar and container.exit_code
        for container in pod.containers
    )


def failed_jobs(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find failed pods of Jobs, which try again for a while."""
    if pod.role not in (PASSWORD, LIMITS_PASSWORD, CLEANUP) or pod.phase != "Failed":
        return
    ended = next((container for container in pod.containers if container.exit_code), None)
    how = exit_words(ended.exit_code, ended.reason) if ended else pod.reason or pod.phase
    cause = f"pod {pod.name} of the Job {pod.role} failed ({how})"
    advice = f"its Job tries again; its log: {log_of(observed, pod, ended)}"
    if pod.role == CLEANUP:
        advice += "; after 5 minutes the operator deletes the cluster without it"
    yield Finding("job", pod.name, cause, advice)


Rule = Callable[[Pod, Observed], Iterator[Finding]]

# In the order of causes: the first rule with a finding explains the pod.
_DYING: tuple[Rule, ...] = (node_rules.lost_nodes, node_rules.evicted, node_rules.displaced)
_LIVING: tuple[Rule, ...] = (
    image_rules.images,
    config_rules.configurations,
    container_rules.failed_init,
    lost_pods,
    failed_jobs,
    container_rules.restarting,
    node_rules.unscheduled,
    config_rules.volumes,
    image_rules.pulling,
    container_rules.preparing,
    container_rules.waiting_for_head,
    container_rules.starting_probes,
)

# The loss of a worker explains why its successor has no node yet.
_REPLACED_RANK = (_ROLES.index(WORKER), (*_DYING, *_LIVING).index(node_rules.unscheduled) - 0.5)


def of_pods(observed: Observed) -> list[Finding]:
    """Find what is wrong with pods, except those of clusters that are to be removed.

    Problems that do not pass by themselves come first, and causes before their consequences.
    """
    ranked: list[tuple[tuple[int, float], Finding]] = [
        ((_ROLES.index(pod.role), rank), replace(finding, cluster=pod.cluster))
        for pod in observed.pods
        if pod.role in _ROLES and (pod.role == CLEANUP or not observed.is_leaving(pod))
        for rank, finding in _explained(pod, observed)
    ]
    ranked += [(_REPLACED_RANK, finding) for finding in replaced_pods(observed)]
    return [finding for _, finding in sorted(ranked, key=lambda r: (r[1].on_its_way, r[0]))]


def _explained(pod: Pod, observed: Observed) -> Iterator[tuple[int, Finding]]:
    if pod.phase == "Succeeded":
        return
    for rank, rule in enumerate(_DYING if pod.is_deleting else (*_DYING, *_LIVING)):
        if findings := list(rule(pod, observed)):
            yield from ((rank, finding) for finding in findings)
            return
