"""Rules about containers that have started: running, ended, restarting, not ready."""

import re
from collections.abc import Iterator
from datetime import timedelta

from kuberay.status.advice import container_kind, log_of, more_memory
from kuberay.status.events import about
from kuberay.status.finding import Finding
from kuberay.status.observed import HEAD, REDIS, Container, Event, Observed, Pod
from kuberay.status.sentences import exit_words, last_line
from serve_app.fleet.advice import RELOADS, RESTARTS

_PULLER = "pull"
# Runs in every worker until the head answers; other rules are about the head.
_OPERATORS = "wait-gcs-ready"
_REACHES_HEAD = timedelta(seconds=60)
_BACK_OFF = re.compile(r"back-off (\w+) restarting")
# Patterns of errors of the container `pull`, with advice; the first match counts.
_REMEDIES = (
    (
        "no space left",
        "give the models a larger volume or disk (sizeLimit of the volume `models`, "
        "components/shared-cache or node-cache)",
    ),
    (
        r"file does not exist|not found|manifest unknown",
        "correct the model's name in MODELS and in `models` of serveConfigV2",
    ),
    (
        r"no such host|timeout|deadline|connection refused|unreachable|x509|EOF",
        "let the pod reach the model registry (network policy, proxy, DNS)",
    ),
    (r"unauthorized|denied|401|403", "check the access to the model registry"),
)


def at_work(pod: Pod) -> Iterator[Container]:
    """Yield init containers that must still end, except the operator's."""
    for container in pod.containers:
        is_counted = container.is_init and container.name != _OPERATORS and not container.is_sidecar
        if is_counted and container.state == "running" and not pod.is_deleting:
            yield container


def failed_init(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find failed init containers, which end their pod: Ray's pods are replaced, not restarted."""
    for container in pod.containers:
        if container.is_sidecar or not container.is_init:
            continue
        if container.state != "terminated" or not container.exit_code:
            continue
        message = last_line(container.message)
        how = exit_words(container.exit_code, container.reason)
        cause = f"pod {pod.name}: init container {container.name} failed ({how})"
        advice = f"read its log: {log_of(observed, pod, container)}"
        if container.reason == "OOMKilled":
            advice = more_memory(observed, pod, container)
        elif remedy := _remedy(container, message):
            advice = f"{remedy}; its log: {log_of(observed, pod, container)}"
        about_it = f"{pod.group}/{container.name}"
        yield Finding("init", about_it, cause + (f": {message}" if message else ""), advice)


def preparing(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find running init containers, which mostly pull models, while Serve waits for them."""
    for container in at_work(pod):
        failures = observed.failures.get(f"{pod.name}/{container.name}", ())
        passed = observed.at - (container.started_at or pod.created_at)
        cause = (
            f"pod {pod.name}: init container {container.name} has been running for "
            f"{int(passed.total_seconds())} s"
        )
        advice = _preparing_advice(pod, container, observed)
        if failures:
            times = "once" if len(failures) == 1 else f"{len(failures)} times"
            cause += f" and has failed {times}: {failures[-1]}"
            remedy = _remedy(container, failures[-1])
            log = log_of(observed, pod, container)
            advice = f"{remedy}; its log: {log}" if remedy else f"read its log: {log}"
        about_it = f"{pod.name}/{container.name}"
        yield Finding("preparing", about_it, cause, advice, on_its_way=not failures)


def waiting_for_head(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find workers whose init container does not end although the head is ready."""
    heads = [p for p in observed.pods if p.cluster == pod.cluster and p.role == HEAD and p.is_ready]
    for container in pod.containers:
        passed = observed.at - (container.started_at or observed.at)
        is_waiting = container.name == _OPERATORS and container.state == "running"
        if heads and is_waiting and passed > _REACHES_HEAD:
            seconds = int(passed.total_seconds())
            cause = f"pod {pod.name} has not reached the head {heads[0].name} for {seconds} s"
            log = log_of(observed, pod, container)
            advice = f"check the network policies and DNS; its log: {log}"
            yield Finding("no-head", pod.name, cause, advice)


def _remedy(container: Container, message: str) -> str:
    if container.name != _PULLER:
        return ""
    return next((advice for words, advice in _REMEDIES if re.search(words, message)), "")


def _preparing_advice(pod: Pod, container: Container, observed: Observed) -> str:
    advice = f"wait; its progress: {log_of(observed, pod, container)}"
    if container.name != _PULLER:
        return advice
    return f"{advice}; with components/shared-cache or node-cache the next pod need not pull"


def restarting(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find sidecars and other containers that have ended, or are not ready after a restart."""
    if pod.phase == "Failed":
        return
    for container in pod.containers:
        if (container is pod.ray and pod.is_ray) or container.is_ready:
            continue
        if container.is_init and not container.is_sidecar:
            continue
        ended = container.state == "terminated" and container.exit_code
        looping = container.reason == "CrashLoopBackOff"
        if ended or looping or container.restarts:
            yield _restarting(pod, container, observed)


def _restarting(pod: Pod, container: Container, observed: Observed) -> Finding:
    code, reason = container.last_exit_code, container.last_reason
    message = last_line(container.last_message)
    if container.state == "terminated":
        code, reason, message = container.exit_code, container.reason, last_line(container.message)
    looping = container.reason == "CrashLoopBackOff"
    again = _BACK_OFF.search(container.message)
    cause = (
        f"pod {pod.name}: {container_kind(pod, container)} {container.name} ended "
        f"({_how(pod, container, exit_words(code, reason), observed)}) and is restarting "
        f"(restarts: {container.restarts}{f', next after {again[1]}' if again else ''})"
        f"{f': {message}' if message else ''}"
    )
    advice = RELOADS if container.is_sidecar else RESTARTS
    if looping:
        advice = f"read the reason in its log: {log_of(observed, pod, container, previous=True)}"
    if reason == "OOMKilled":
        advice = more_memory(observed, pod, container)
    about_it = f"{pod.name}/{container.name}"
    return Finding("restarting", about_it, cause, advice, on_its_way=not looping)


def _how(pod: Pod, container: Container, words: str, observed: Observed) -> str:
    """Describe the end of a container, with the failed probe for which the kubelet ended it."""
    for event in reversed(about(observed, pod)):
        if event.reason == "Killing" and event.message.startswith(f"Container {container.name} "):
            if probe := re.search(r"failed (\w+) probe", event.message):
                return f"{words}, after a failed {probe[1]} probe"
            break
    return words


def starting_probes(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find running containers that are not ready by their probes."""
    waiting = [c for c in pod.containers if c.state == "running" and not c.is_ready]
    events = [e for e in about(observed, pod) if e.reason == "Unhealthy" and _counts(e, pod)]
    if not events or not waiting:
        return
    event = events[-1]
    name = event.container or waiting[0].name
    container = next((c for c in waiting if c.name == name), None)
    if container is None:
        return
    probe, _, why = event.message.partition(":")
    text = last_line(why)
    cause = f"pod {pod.name}: {name} is not ready: {probe.lower()}{f': {text}' if text else ''}"
    advice, on_its_way = _probe_advice(pod, container, why, observed)
    yield Finding("probe", f"{pod.name}/{name}", cause, advice, on_its_way=on_its_way)


def _counts(event: Event, pod: Pod) -> bool:
    """Return whether an event of a probe matters.

    A worker without a replica is unready by design, but not a sidecar or Redis. A startup probe
    does not matter once its container has started.
    """
    container = next((c for c in pod.containers if c.name == event.container), None)
    if event.message.startswith("Startup"):
        return container is None or not container.is_started
    is_news = pod.role == REDIS or bool(container and container.is_sidecar)
    return is_news or event.message.startswith("Liveness")


def _probe_advice(pod: Pod, container: Container, why: str, observed: Observed) -> tuple[str, bool]:
    """Advise for a failed probe of this container, and tell whether it will pass."""
    log = log_of(observed, pod, container)
    if container.is_sidecar:
        if "not found" in why and "model" in why:
            return (
                "pull the model into the cache (init container, pre-pull Job), or correct its "
                f"name in MODELS; its log: {log}",
                False,
            )
        return f"wait while it loads its model; if that takes long, read its log: {log}", True
    if pod.role == REDIS:
        return f"wait: Ray's head needs Redis; if that takes long, read its log: {log}", True
    if pod.role == HEAD:
        return f"wait while Ray's head starts; if that takes long, read its log: {log}", True
    return f"wait while Ray joins the cluster; if that takes long, read its log: {log}", True
