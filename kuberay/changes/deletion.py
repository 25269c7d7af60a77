"""Deletes in an order that leaves nothing behind: Redis after the clusters that use it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kuberay.access.objects import RAY_CLUSTERS, RAY_SERVICES, SECRETS, Objects, ResourceKind
from kuberay.changes.manifests import is_ray_service, ray_service
from kuberay.errors import WaitTimeout
from kuberay.json_types import Object
from kuberay.status import leftovers
from kuberay.status.observed import Pod
from kuberay.status.watching import clusters_of, pods_left

# Kinds that are never deleted: others may depend on them, or they hold data (models, Redis's state)
# that no manifest restores.
_NEVER = {
    "Namespace",
    "CustomResourceDefinition",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "StorageClass",
}
_POLL_S = 1.0
_REST = "the other objects were not deleted, repeat the command"


@dataclass(frozen=True)
class Target:
    """An object to delete. Its `uid` protects a newer object of the same name."""

    kind: ResourceKind
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.kind.plural} {self.name}"


@dataclass(frozen=True)
class Deletion:
    """The objects to delete: the RayService first, and `after` once its clusters are gone."""

    name: str
    service: Target | None
    after: tuple[Target, ...]

    def __iter__(self) -> Iterator[Target]:
        if self.service:
            yield self.service
        yield from self.after


def propose_deletion(objects: Objects, documents: list[Object]) -> Deletion:
    """Look up the manifests' objects and the Redis password that the RayService names.

    The namespace, Secrets of API keys and claims of volumes are never part of it.
    """
    service = ray_service(documents)
    rest = [
        manifest
        for manifest in documents
        if not is_ray_service(manifest) and manifest["kind"] not in _NEVER
    ]
    named = [
        (objects.kind_of(manifest), manifest["metadata"]["name"]) for manifest in reversed(rest)
    ]
    named += [(SECRETS, secret) for secret in _password(service)]
    existing = [_find(objects, kind, name) for kind, name in dict.fromkeys(named)]
    name = service["metadata"]["name"]
    return Deletion(
        name,
        _find(objects, RAY_SERVICES, name),
        tuple(manifest for manifest in existing if manifest),
    )


def delete(
    objects: Objects,
    deletion: Deletion,
    timeout_s: float | None = 600.0,
    on_progress: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
    wait_for_pods: bool = True,
) -> None:
    """Delete the objects and wait until the last pod has ended.

    Without `wait_for_pods` the pods that remain are reported. With a `timeout_s` of None, for a dry
    run, nothing is waited for. Raises WaitTimeout if the clusters (the other objects then stay) or
    the pods are not gone in time.
    """
    wait = _Wait(clock, pause, on_progress, timeout_s or 0.0)
    clusters = set(_clusters(objects, deletion.name))
    if deletion.service:
        _delete(objects, deletion.service, on_progress)
    if timeout_s is not None:
        wait.for_clusters(objects, deletion.name, clusters)
    for target in deletion.after:
        _delete(objects, target, on_progress)
    if timeout_s is not None:
        wait.for_pods(objects, deletion.name, clusters, wait_for_pods)


class _Wait:
    """Polls every second, reports changes, and ends with the timeout."""

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
        self._reported = ""

    def for_clusters(self, objects: Objects, name: str, known: set[str]) -> None:
        """Wait until the clusters are gone, and add their names to `known`."""
        while clusters := _clusters(objects, name):
            left = ", ".join(clusters)
            known.update(clusters)
            self._check(f"{left} still there after {self._timeout_s:g} s: {_REST}")
            self._report(left, f"waiting for {left} to clean up in Redis and end")
            self._pause(_POLL_S)

    def for_pods(self, objects: Objects, name: str, clusters: set[str], until_gone: bool) -> None:
        """Wait until the pods are gone; a worker holds its GPU until its answers have ended."""
        while pods := pods_left(objects, name, clusters):
            left = leftovers.sentence(pods, datetime.now(UTC))
            if not until_gone:
                self._on_progress(f"still terminating: {left}")
                return
            self._check(
                f"everything is deleted, but {self._timeout_s:g} s later these remain: {left}; "
                f"they end by themselves: {_watch_pods(objects, pods)}"
            )
            self._report(",".join(pod.name for pod in pods), f"waiting for {left}")
            self._pause(_POLL_S)

    def _check(self, message: str) -> None:
        if self._clock() >= self._until:
            raise WaitTimeout(message)

    def _report(self, state: str, line: str) -> None:
        if state != self._reported:
            self._on_progress(line)
        self._reported = state


def _watch_pods(objects: Objects, pods: list[Pod]) -> str:
    clusters = ",".join(sorted({pod.cluster for pod in pods}))
    return f"kubectl -n {objects.namespace} get pods -l 'ray.io/cluster in ({clusters})' -w"


def _delete(objects: Objects, target: Target, on_progress: Callable[[str], None]) -> None:
    objects.delete(target.kind, target.name, target.uid)
    on_progress(f"deleted {target}")


def _clusters(objects: Objects, name: str) -> list[str]:
    clusters, _ = objects.list(RAY_CLUSTERS, labelSelector=clusters_of(name))
    return [cluster["metadata"]["name"] for cluster in clusters]


def _find(objects: Objects, kind: ResourceKind, name: str) -> Target | None:
    live = objects.find(kind, name)
    return Target(kind, name, live["metadata"]["uid"]) if live else None


def _password(service: Object) -> list[str]:
    """Return the Secret of Redis, which a Job has created, from the RayService's reference."""
    options: Any = service["spec"]["rayClusterConfig"].get("gcsFaultToleranceOptions") or {}
    for part in ("redisPassword", "valueFrom", "secretKeyRef"):
        options = options.get(part) or {}
    return [options["name"]] if "name" in options else []
