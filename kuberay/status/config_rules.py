"""Rules about the needs of a starting container: Secrets, ConfigMaps, volumes, its command."""

import re
from collections.abc import Iterator
from datetime import timedelta

from kuberay.status.advice import deploy, kubectl, nodes
from kuberay.status.events import about
from kuberay.status.finding import Finding
from kuberay.status.observed import LIMITS_PASSWORD, PASSWORD, Job, Observed, Pod
from kuberay.status.sentences import last_line, pull_reason

_CONFIG = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    "ContainerCannotRun",
}
_VOLUMES = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedMapVolume"}
_MISSING = re.compile(r'(secret|configmap) "([^"]+)" not found')
_NO_KEY = re.compile(r"couldn't find key (\S+) in (Secret|ConfigMap) \S+/(\S+)")
# A kubelet that finds no Secret tries again within seconds.
_LOOKS_AGAIN = timedelta(seconds=60)


def configurations(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find containers whose Secret, ConfigMap or command is missing."""
    for container in pod.containers:
        if container.reason not in _CONFIG:
            continue
        about_it, message = f"{pod.name}/{container.name}", last_line(container.message)
        if waits := _made_by_a_job(f"pod {pod.name}: {container.name}", message, observed):
            cause, advice, on_its_way = waits
            yield Finding("config", about_it, cause, advice, on_its_way=on_its_way)
        else:
            cause = f"pod {pod.name}: {container.name} can't start: {message}"
            yield Finding("config", about_it, cause, _config_advice(message, observed))


def volumes(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find pods whose volumes can't be set up."""
    events = [e for e in about(observed, pod) if e.reason in _VOLUMES]
    if not events or any(c.state in ("running", "terminated") for c in pod.containers):
        return
    message = events[-1].message
    if waits := _made_by_a_job(f"pod {pod.name}", message, observed):
        cause, advice, on_its_way = waits
        yield Finding("volume", pod.name, cause, advice, on_its_way=on_its_way)
        return
    cause = f"pod {pod.name} can't be set up: {pull_reason(message)}"
    advice = _volume_advice(events[-1].reason, message, pod, observed)
    yield Finding("volume", pod.name, cause, advice)


def _made_by_a_job(subject: str, message: str, observed: Observed) -> tuple[str, str, bool] | None:
    """Explain the absence of a Secret that a Job creates: cause, advice, whether it will pass."""
    missing = _MISSING.search(message)
    if not missing or missing[1] != "secret":
        return None
    name = missing[2]
    job = next((job for job in observed.jobs if name in job.makes), None)
    if job is None:
        return _made_by_a_pod(subject, name, observed)
    start, log = f"{subject} waits for secret {name}, which Job {job.name}", _log(job, observed)
    again = f"{kubectl(observed, f'delete job {job.name}')}; then {deploy(observed)}"
    if job.failure:
        return (
            f"{start} has failed to create: {job.failure}",
            f"read its log: {log}; {again}",
            False,
        )
    seconds = int((observed.at - job.started_at).total_seconds())
    if not job.is_complete:
        failures = f" ({job.failures} of its pods have failed)" if job.failures else ""
        cause = f"{start} has been creating for {seconds} s{failures}"
        return cause, f"wait: it takes a few seconds; its log: {log}", not job.failures
    if observed.at - job.started_at < _LOOKS_AGAIN:
        return f"{start} has created", "wait: the kubelet tries again within seconds", True
    return (
        f"{start} created, but which is gone",
        f"run the Job again: {again}",
        False,
    )


def _made_by_a_pod(subject: str, name: str, observed: Observed) -> tuple[str, str, bool] | None:
    """Explain the absence by the Job's pod, for users who may not read Jobs."""
    role = LIMITS_PASSWORD if name.endswith("limits") else PASSWORD
    job_pods = [
        pod for pod in observed.pods if pod.role == role and pod.phase in ("Pending", "Running")
    ]
    if not job_pods:
        return None
    seconds = int((observed.at - job_pods[0].created_at).total_seconds())
    creator = f"pod {job_pods[0].name} has been creating for {seconds} s"
    cause = f"{subject} waits for secret {name}, which {creator}"
    log = kubectl(observed, f"logs {job_pods[0].name}")
    return cause, f"wait: it takes a few seconds; its log: {log}", True


def _log(job: Job, observed: Observed) -> str:
    return kubectl(observed, f"logs job/{job.name}")


def _config_advice(message: str, observed: Observed) -> str:
    if missing := _MISSING.search(message):
        return _create(missing[1], missing[2], "KEY", observed)
    if no_key := _NO_KEY.search(message):
        key, kind, name = no_key.groups()
        look = kubectl(observed, f"describe {kind.lower()} {name}")
        return f"add the key {key} to it, or correct the manifest; its keys: {look}"
    if "runAsNonRoot" in message or "run as root" in message:
        return "set runAsUser in the pod's securityContext, or use an image with a user"
    if "executable file not found" in message or "no such file or directory" in message:
        return "correct the container's command, or use an image that has this file"
    return "create the missing object, or correct the manifest"


def _create(kind: str, name: str, key: str, observed: Observed) -> str:
    what = "secret generic" if kind == "secret" else "configmap"
    command = kubectl(observed, f"create {what} {name} --from-literal={key}=VALUE")
    return (
        f"create the missing object: deploy the manifest that has it ({deploy(observed)}), "
        f"or {command}"
    )


def _volume_advice(reason: str, message: str, pod: Pod, observed: Observed) -> str:
    if missing := _MISSING.search(message):
        return f"check the volume; {_create(missing[1], missing[2], 'KEY', observed)}"
    if "non-existent" in message and "key" in message:
        return "add the key to the Secret or ConfigMap, or correct `items` of the volume"
    if "Multi-Attach" in message:
        return "wait until the other pod releases the volume, or use one that several nodes mount"
    if reason == "FailedCreatePodSandBox":
        return f"check the node's network (CNI) and disk: {nodes(observed, pod)}"
    look = kubectl(observed, f"describe pod {pod.name}")
    return f"check the volume and its claim: {look}"
