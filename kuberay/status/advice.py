"""Advice as sentences with commands that can be pasted."""

from kuberay.status.observed import HEAD, REDIS, Container, Observed, Pod
from serve_app.fleet.advice import LESS_MEMORY


def command(observed: Observed, words: str) -> str:
    """Return a command of this client: `python -m kuberay -n llm-ns scale --max 4 llm`."""
    return f"python -m kuberay {_namespace(observed)}{words} {observed.name}"


def deploy(observed: Observed) -> str:
    return f"python -m kuberay {_namespace(observed)}deploy -f MANIFEST"


def kubectl(observed: Observed, words: str) -> str:
    return f"kubectl {_namespace(observed)}{words}"


def _namespace(observed: Observed) -> str:
    return f"-n {observed.namespace} " if observed.namespace else ""


def log_of(
    observed: Observed, pod: Pod, container: Container | None = None, previous: bool = False
) -> str:
    """Return the command for a container's log: this client's for Ray's pods, else kubectl's."""
    container = container or pod.ray
    before = " --previous" if previous else ""
    if not pod.is_ray or observed.is_leaving(pod):
        named = f" -c {container.name}" if container else ""
        return kubectl(observed, f"logs {pod.name}{named}{before}")
    return command(observed, f"logs {_which(pod, container)}{before}")


def _which(pod: Pod, container: Container | None) -> str:
    role = "head" if pod.role == HEAD else "workers"
    if container is None or container is pod.ray:
        return role
    sidecar = next((container for container in pod.containers if container.is_sidecar), None)
    if container is sidecar and role == "workers":
        return "sidecar"
    return f"{role} -c {container.name}"


def container_kind(pod: Pod, container: Container) -> str:
    """Return the kind of a container, to stand before its name."""
    if container.is_sidecar:
        return "sidecar"
    return "init container" if container.is_init else "container"


def more_memory(observed: Observed, pod: Pod, container: Container) -> str:
    """Advise after OOMKilled: the limit to raise, and ways to reduce memory."""
    deploy = command(observed, "upgrade -f MANIFEST")
    if container.is_sidecar:
        return (
            f"raise its memory limit (limits.memory of {container.name} in worker group "
            f"{pod.group}), or {LESS_MEMORY}; then {deploy}"
        )
    if pod.is_ray:
        where = "the head group" if pod.role == HEAD else f"worker group {pod.group}"
        return (
            f"raise its memory limit (limits.memory of {container.name} in {where}); then {deploy}"
        )
    owner = "its Deployment" if pod.role == REDIS else "its Job"
    return f"raise its memory limit (limits.memory of {container.name} in {owner}) and deploy again"


def nodes(observed: Observed, pod: Pod) -> str:
    return f"kubectl describe node {pod.node}" if pod.node else "kubectl get nodes"
