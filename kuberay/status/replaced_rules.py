"""Rules about replaced pods, whose events explain their end while successors start."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from kuberay.status.advice import command
from kuberay.status.events import latest
from kuberay.status.finding import Finding
from kuberay.status.node_rules import eviction_advice
from kuberay.status.observed import HEAD, WORKER, Event, Observed
from kuberay.status.sentences import exit_words, one_line

_REMEMBERED = timedelta(minutes=2)
_NODES = {"NodeNotReady", "TaintManagerEviction", "NodeControllerEviction"}
_DELETED = {"DeletedWorkerPod", "DeletedHeadPod"}


def replaced_pods(observed: Observed) -> Iterator[Finding]:
    """Find lost pods by their events, until their successors are ready."""
    current_pods = [p for p in observed.pods if p.cluster in observed.current]
    is_complete = all(c.ready >= c.desired for c in observed.clusters if c.name in observed.current)
    if is_complete and all(pod.is_ready for pod in current_pods):
        return
    for cluster in observed.current:
        for finding in (*_displaced(cluster, observed), *_deleted(cluster, observed)):
            yield replace(finding, cluster=cluster)


def _displaced(cluster: str, observed: Observed) -> Iterator[Finding]:
    """Find lost pods by the events of nodes and the scheduler."""
    present = {pod.name for pod in observed.pods}
    for event in observed.events:
        is_own = event.kind == "Pod" and event.name.startswith(f"{cluster}-")
        if not is_own or event.name in present or observed.at - event.at >= _REMEMBERED:
            continue
        role = HEAD if event.name.startswith(f"{cluster}-head") else WORKER
        start = f"{role} {event.name} is lost"
        why = f"{event.reason}: {one_line(event.message)}"
        wait = "wait: the operator replaces it"
        if event.reason == "Evicted":
            advice = f"{eviction_advice(event.message)}; {wait}"
            yield Finding("lost", event.name, f"{start}: {why}", advice)
        elif event.reason == "Preempted":
            advice = f"set priorityClassName in its pod template, or add a node; {wait}"
            yield Finding("lost", event.name, f"{start}: {why}", advice)
        elif event.reason in _NODES:
            advice = f"bring the node back or add one: kubectl get nodes; {wait}"
            yield Finding("lost", event.name, f"{start} with its node ({why})", advice)


def _deleted(cluster: str, observed: Observed) -> Iterator[Finding]:
    """Find lost pods by the operator's events about their deletion."""
    present = {pod.name for pod in observed.pods}
    for event in latest(observed, _DELETED):
        if event.name == cluster and observed.at - event.at < _REMEMBERED:
            name = event.message.partition(";")[0].rpartition("/")[2]
            yield from _ended(event, name, observed)
            if "Pod status: Failed" in event.message and name not in present:
                yield _failed(event, name, observed)


def _ended(event: Event, name: str, observed: Observed) -> Iterator[Finding]:
    _, is_terminated, how = event.message.partition("ContainerStateTerminated{")
    if not is_terminated:
        return
    fields = dict(part.partition(":")[::2] for part in how.split(","))
    code, reason = int(fields.get("ExitCode") or 0), fields.get("Reason", "")
    role, which = _of(event)
    cause = f"{role} {name} is lost: its Ray container ended ({exit_words(code, reason)})"
    log = command(observed, f"logs {which}")
    advice = f"wait: the operator replaces it; if it happens again, read its log: {log}"
    if reason == "OOMKilled":
        advice = f"raise its memory limit (limits.memory of its Ray container); {advice}"
    yield Finding("lost", name, cause, advice)


def _failed(event: Event, name: str, observed: Observed) -> Finding:
    role, which = _of(event)
    cause = f"{role} {name} failed before Ray started: an init container, or its node"
    log = command(observed, f"logs {which} -c pull")
    return Finding("lost", name, cause, f"wait for its successor and read its log: {log}")


def _of(event: Event) -> tuple[str, str]:
    return (HEAD, "head") if event.reason == "DeletedHeadPod" else (WORKER, "workers")
