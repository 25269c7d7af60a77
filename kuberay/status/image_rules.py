"""Rules about images: what can't be pulled and why, and what is still on its way."""

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
# What the message of a failed pull has in it, and what helps; the first that fits.
_REMEDIES = (
    (
        r"no such host|timeout|deadline exceeded|connection refused|x509|unreachable|\bEOF\b",
        "check the image's name, and whether nodes reach that registry (DNS, proxy, certificate)",
    ),
    (
        r"toomanyrequests|\b429\b|rate limit",
        "wait, or name a Secret with an account of the registry in imagePullSecrets",
    ),
    (
        r"unauthorized|denied|forbidden|authentication|\b40[13]\b",
        "check the image's name; if it is right, name a Secret with access to the registry in "
        "imagePullSecrets",
    ),
    (
        r"no match for platform|no matching manifest",
        "build the image for the node's architecture, or select other nodes by nodeSelector",
    ),
    (r"not found|manifest unknown|NotFound", "check the image's name and tag: there is none such"),
)
_OTHER = "check the image's name and tag, the registry and imagePullSecrets"


def images(pod: Pod, observed: Observed) -> Iterator[Finding]:
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
    """An image on its way: normal on a new node, and it may take minutes."""
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
        cause = f"pod {pod.name}: image {image} is being pulled, for {seconds} s now"
        advice = "wait; the pre-pull Job brings images to nodes beforehand"
        yield Finding("pulling", f"{pod.name}/{image}", cause, advice, on_its_way=True)


def _failed_before(pod: Pod, image: str, failed: list[Event], observed: Observed) -> Finding:
    times, message = sum(event.count for event in failed), failed[-1].message
    cause = (
        f"pod {pod.name}: image {image} is being pulled once more; that has failed {times} "
        f"{'time' if times == 1 else 'times'}: {pull_reason(message)}"
    )
    is_full = "no space left on device" in message
    advice = _full_disk(pod, observed) if is_full else _remedy("ErrImagePull", message)
    return Finding("pulling", f"{pod.name}/{image}", cause, advice)


def _message(pod: Pod, container: Container, image: str, observed: Observed) -> str:
    """An older kubelet's ImagePullBackOff has no reason with it: then the last event's."""
    if container.reason != "ImagePullBackOff" or "ErrImagePull" in container.message:
        return container.message
    events = [e for e in about(observed, pod) if e.reason == "Failed" and image in e.message]
    return events[-1].message if events else container.message


def _remedy(reason: str, message: str) -> str:
    if reason == "ErrImageNeverPull":
        return "bring the image to the node, or set imagePullPolicy: IfNotPresent"
    if reason == "InvalidImageName":
        return "check the image's name: it is no REGISTRY/NAME:TAG"
    # A host's name may have anything in it.
    text = re.sub(r'"[^"]*"', "", message)
    return next((advice for words, advice in _REMEDIES if re.search(words, text)), _OTHER)


def _full_disk(pod: Pod, observed: Observed) -> str:
    return (
        f"give the nodes larger disks, or free this one (images: crictl rmi --prune on the node; "
        f"{nodes(observed, pod)}); then let the pod start anew: "
        f"{kubectl(observed, f'delete pod {pod.name}')}"
    )


def _node(pod: Pod) -> str:
    return f"node {pod.node}" if pod.node else "its node"
