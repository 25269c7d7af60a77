"""Deleting in the order that leaves nothing behind: a Redis outlives the clusters that use it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kuberay.access.objects import RAY_CLUSTERS, RAY_SERVICES, SECRETS, Objects, ResourceKind
from kuberay.changes.manifests import Object, is_ray_service, ray_service
from kuberay.errors import WaitTimeout
from kuberay.status import leftovers
from kuberay.status.observed import Pod
from kuberay.status.watching import clusters_of, pods_left

# What others may live in, what holds the definitions of others, and data (models, Redis's state),
# which no manifest brings back, are never ours to delete.
_NEVER = {
    "Namespace",
    "CustomResourceDefinition",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "StorageClass",
}
_POLL_S = 1.0


@dataclass(frozen=True)
class Doomed:
    """An object that exists and is to go. Its `uid` keeps a namesake made meanwhile safe."""

    kind: ResourceKind
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.kind.plural} {self.name}"


@dataclass(frozen=True)
class Deletion:
    """The RayService first, and `after` once its clusters are gone."""

    name: str
    service: Doomed | None
    after: tuple[Doomed, ...]

    def __iter__(self) -> Iterator[Doomed]:
        if self.service:
            yield self.service
        yield from self.after


def propose_deletion(objects: Objects, documents: list[Object]) -> Deletion:
    """What there is of the manifests' objects, and the Redis password that the RayService names.

    Nothing else: not the namespace, not Secrets of API keys, not claims of volumes.
    """
    service = ray_service(documents)
    rest = [each for each in documents if not is_ray_service(each) and each["kind"] not in _NEVER]
    wanted = [(objects.kind_of(each), each["metadata"]["name"]) for each in reversed(rest)]
    wanted += [(SECRETS, secret) for secret in _password(service)]
    found = [_find(objects, kind, name) for kind, name in dict.fromkeys(wanted)]
    name = service["metadata"]["name"]
    return Deletion(name, _find(objects, RAY_SERVICES, name), tuple(each for each in found if each))


def delete(
    objects: Objects,
    deletion: Deletion,
    timeout_s: float | None = 600.0,
    on_progress: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
    wait_for_pods: bool = True,
) -> None:
    """Until the last pod has ended, or else with a word on those that have not.

    Raises WaitTimeout where the clusters are not gone in time (the rest then stays), or the pods
    are not. A rehearsal has nothing to wait for: None.
    """
    wait = _Wait(clock, pause, on_progress, timeout_s or 0.0)
    clusters = set(_clusters(objects, deletion.name))
    if deletion.service:
        _delete(objects, deletion.service, on_progress)
    if timeout_s is not None:
        wait.for_clusters(objects, deletion.name, clusters)
    for each in deletion.after:
        _delete(objects, each, on_progress)
    if timeout_s is not None:
        wait.for_pods(objects, deletion.name, clusters, wait_for_pods)


class _Wait:
    """Looks once a second, says what has changed, and ends with the time-out."""

    def __init__(
        self,
        clock: Callable[[], float],
        pause: Callable[[float], None],
        on_progress: Callable[[str], None],
        timeout_s: float,
    ) -> None:
        self._clock = clock
        self._pause = pause
        self._on_progress = on_progress
        self._timeout_s = timeout_s
        self._until = clock() + timeout_s
        self._said = ""

    def for_clusters(self, objects: Objects, name: str, known: set[str]) -> None:
        """Adds those that it meets to `known`."""
        while found := _clusters(objects, name):
            left = ", ".join(found)
            known.update(found)
            self._check(f"{left} still there after {self._timeout_s:g} s: the rest stays")
            self._say(left, f"waiting for {left} to clean up in Redis and go")
            self._pause(_POLL_S)

    def for_pods(self, objects: Objects, name: str, clusters: set[str], until_gone: bool) -> None:
        """A worker ends when its answers have, and holds its GPU until then."""
        while pods := pods_left(objects, name, clusters):
            left = leftovers.sentence(pods, datetime.now(UTC))
            if not until_gone:
                self._on_progress(f"still ending: {left}")
                return
            self._check(
                f"all is deleted, but after {self._timeout_s:g} s there are still {left}; they "
                f"end by themselves: {_watch_pods(objects, pods)}"
            )
            self._say(",".join(each.name for each in pods), f"waiting for {left}")
            self._pause(_POLL_S)

    def _check(self, message: str) -> None:
        if self._clock() >= self._until:
            raise WaitTimeout(message)

    def _say(self, what: str, line: str) -> None:
        if what != self._said:
            self._on_progress(line)
        self._said = what


def _watch_pods(objects: Objects, pods: list[Pod]) -> str:
    clusters = ",".join(sorted({each.cluster for each in pods}))
    return f"kubectl -n {objects.namespace} get pods -l 'ray.io/cluster in ({clusters})' -w"


def _delete(objects: Objects, doomed: Doomed, on_progress: Callable[[str], None]) -> None:
    objects.delete(doomed.kind, doomed.name, doomed.uid)
    on_progress(f"deleted {doomed}")


def _clusters(objects: Objects, name: str) -> list[str]:
    found, _ = objects.list(RAY_CLUSTERS, labelSelector=clusters_of(name))
    return [each["metadata"]["name"] for each in found]


def _find(objects: Objects, kind: ResourceKind, name: str) -> Doomed | None:
    found = objects.find(kind, name)
    return Doomed(kind, name, found["metadata"]["uid"]) if found else None


def _password(service: Object) -> list[str]:
    """The Secret that the manifests' Job has made, by the RayService's reference to it."""
    options: Any = service["spec"]["rayClusterConfig"].get("gcsFaultToleranceOptions") or {}
    for part in ("redisPassword", "valueFrom", "secretKeyRef"):
        options = options.get(part) or {}
    return [options["name"]] if "name" in options else []
