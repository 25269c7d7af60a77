"""Rules about images: those that can't be pulled, and those that are being pulled."""

import re
from collections.abc import Iterator
from datetime import timedelta

from kuberay.status.advice import kubectl, nodes
from kuberay.status.events import about
from kuberay.status.finding import Finding
from kuberay.status.observed import Container, Event, Observed, Pod
from kuberay.status.sentences import image_in, pull_reason

_PULL_SHOWS = timedelta(seconds=5)
_PULL = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
}
_PULLING = {"Pulling", "Pulled", "Failed", "BackOff"}
# Patterns of messages of failed pulls, with advice; the first match counts.
_REMEDIES = (
    (
        r"no such host|timeout|deadline exceeded|connection refused|x509|unreachable|\bEOF\b",
        "check the image's name, and whether nodes reach its registry (DNS, proxy, certificate)",
    ),
    (
        r"toomanyrequests|\b429\b|rate limit",
        "wait, or add a Secret with an account of the registry to imagePullSecrets",
    ),
    (
        r"unauthorized|denied|forbidden|authentication|\b40[13]\b",
        "check the image's name; if it is right, add a Secret with access to the registry to "
        "imagePullSecrets",
    ),
    (
        r"no match for platform|no matching manifest",
        "build the image for the node's architecture, or select other nodes with nodeSelector",
    ),
    (
        r"not found|manifest unknown|NotFound",
        "check the image's name and tag: the registry does not have it",
    ),
)
_OTHER = "check the image's name and tag, the registry and imagePullSecrets"


def images(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find images that can't be pulled."""
    for container in pod.containers:
        if container.reason not in _PULL:
            continue
        image = image_in(container.message) or container.image
        message = _message(pod, container, image, observed)
        why = pull_reason(message) if message else container.reason
        about_it, start = f"{pod.name}/{container.name}", f"pod {pod.name}: image {image}"
        if "no space left on device" in message:
            cause = f"{start} of {container.name} does not fit on the disk of {_node(pod)}: {why}"
            yield Finding("image", about_it, cause, _full_disk(pod, observed))
        else:
            cause = f"{start} of {container.name} can't be pulled: {why}"
            yield Finding("image", about_it, cause, _remedy(container.reason, message))


def pulling(pod: Pod, observed: Observed) -> Iterator[Finding]:
    """Find images that are being pulled, which is normal on a new node and may take minutes."""
    events = [event for event in about(observed, pod) if event.reason in _PULLING]
    waits = any(container.state == "waiting" for container in pod.containers)
    if not events or events[-1].reason != "Pulling" or not waits:
        return
    image, passed = image_in(events[-1].message), observed.at - events[-1].at
    seconds = int(passed.total_seconds())
    failed = [e for e in events if e.reason == "Failed" and image_in(e.message) == image]
    if failed:
        yield _failed_before(pod, image, failed, observed)
    elif passed > _PULL_SHOWS:
        cause = f"pod {pod.name}: image {image} has been pulling for {seconds} s"
        advice = "wait; the pre-pull Job (kuberay/prepull.yaml) brings images to nodes beforehand"
        yield Finding("pulling", f"{pod.name}/{image}", cause, advice, on_its_way=True)


def _failed_before(pod: Pod, image: str, failed: list[Event], observed: Observed) -> Finding:
    times, message = sum(event.count for event in failed), failed[-1].message
    cause = (
        f"pod {pod.name}: image {image} is being pulled again after {times} "
        f"{'failure' if times == 1 else 'failures'}: {pull_reason(message)}"
    )
    is_full = "no space left on device" in message
    advice = _full_disk(pod, observed) if is_full else _remedy("ErrImagePull", message)
    return Finding("pulling", f"{pod.name}/{image}", cause, advice)


def _message(pod: Pod, container: Container, image: str, observed: Observed) -> str:
    """Return the reason, from the last event if an older kubelet's ImagePullBackOff has none."""
    if container.reason != "ImagePullBackOff" or "ErrImagePull" in container.message:
        return container.message
    events = [e for e in about(observed, pod) if e.reason == "Failed" and image in e.message]
    return events[-1].message if events else container.message


def _remedy(reason: str, message: str) -> str:
    if reason == "ErrImageNeverPull":
        return "bring the image to the node, or set imagePullPolicy: IfNotPresent"
    if reason == "InvalidImageName":
        return "correct the image's name: it must be REGISTRY/NAME:TAG"
    # The name of a host may contain the words of any pattern.
    text = re.sub(r'"[^"]*"', "", message)
    return next((advice for words, advice in _REMEDIES if re.search(words, text)), _OTHER)


def _full_disk(pod: Pod, observed: Observed) -> str:
    return (
        f"give the nodes larger disks, or free space on this one (crictl rmi --prune removes "
        f"images; {nodes(observed, pod)}); then restart the pod: "
        f"{kubectl(observed, f'delete pod {pod.name}')}"
    )


def _node(pod: Pod) -> str:
    return f"node {pod.node}" if pod.node else "its node"
