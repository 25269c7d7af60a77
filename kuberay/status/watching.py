"""Watches a RayService, its clusters, pods, Jobs and events, and joins them into a view."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from kuberay.access.objects import (
    EVENTS,
    JOBS,
    PODS,
    RAY_CLUSTERS,
    RAY_SERVICES,
    Objects,
    ResourceKind,
    Watch,
    WatchEvent,
)
from kuberay.errors import ApiError, Expired, Forbidden, NotFound, Unauthorized
from kuberay.json_types import Object
from kuberay.status.metadata import PART_OF
from kuberay.status.observed import LIMITS_PASSWORD, PASSWORD, REDIS, Observed, Pod
from kuberay.status.pod_reading import read_pods
from kuberay.status.reading import observe
from kuberay.status.watched_logs import Failures

_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_LOST_AFTER_S = 120.0
_LEAVE_S = 1.0


_COMPANIONS = ",".join((REDIS, PASSWORD, LIMITS_PASSWORD))
RAY_PODS = "ray.io/is-ray-node=yes"


def clusters_of(name: str) -> str:
    """Return the selector of the RayClusters that the operator made for the RayService `name`."""
    return f"ray.io/originated-from-crd=RayService,ray.io/originated-from-cr-name={name}"


@dataclass(frozen=True)
class Source:
    """Objects of one kind to read, with selectors that keep the answers small.

    An optional source counts as empty for users who may not read it.
    """

    kind: ResourceKind
    selectors: dict[str, str] = field(default_factory=dict)
    is_optional: bool = False


def sources(name: str) -> tuple[Source, ...]:
    """Return the sources for the RayService `name`, in the order of the arguments of `_view`."""
    return (
        Source(RAY_SERVICES, {"fieldSelector": f"metadata.name={name}"}),
        Source(RAY_CLUSTERS, {"labelSelector": clusters_of(name)}),
        Source(PODS, {"labelSelector": RAY_PODS}),
        Source(PODS, {"labelSelector": f"app.kubernetes.io/component in ({_COMPANIONS})"}),
        Source(EVENTS),
        Source(JOBS, {"labelSelector": PART_OF}, is_optional=True),
    )


def look(objects: Objects, name: str) -> Observed:
    """Read one view with a list request for every source, and a few logs. Raises ApiError."""
    view = _view(name, *(_listed(objects, source)[0] for source in sources(name)))
    return Failures(objects).added(view)


def pods_left(objects: Objects, name: str, clusters: set[str]) -> list[Pod]:
    """List Ray's pods of these clusters, and of deleted clusters of the RayService."""
    pods = objects.list(PODS, labelSelector=RAY_PODS)[0]
    return [pod for pod in read_pods(name, clusters, pods) if pod.is_ray]


def _listed(objects: Objects, source: Source) -> tuple[list[Object], str]:
    """List objects, with the version to watch from; empty if an optional source is forbidden."""
    try:
        return objects.list(source.kind, **source.selectors)
    except Forbidden:
        if source.is_optional:
            return [], ""
        raise


def _view(
    name: str,
    services: list[Object],
    clusters: list[Object],
    pods: list[Object],
    companions: list[Object],
    events: list[Object],
    jobs: list[Object],
) -> Observed:
    service = services[0] if services else None
    all_pods = [*pods, *companions]
    return observe(name, datetime.now(UTC), service, clusters, all_pods, events, jobs)


class Watcher:
    """Keeps a view up to date with one thread for every source; a context manager.

    A broken watch continues from its last version; if that is too old, the objects are listed
    again. Raises ApiError after two minutes without an answer, or at once if access is refused.
    """

    def __init__(self, objects: Objects, name: str) -> None:
        self._name = name
        self._changed = threading.Event()
        self._failures = Failures(objects)
        self._reflectors = [
            _Reflector(objects, source, self._changed.set) for source in sources(name)
        ]

    def __enter__(self) -> Self:
        for reflector in self._reflectors:
            reflector.read()
        for reflector in self._reflectors:
            reflector.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for reflector in self._reflectors:
            reflector.stop()

    def views(self, every_s: float) -> Iterator[Observed]:
        """Yield a view now, on every change, and at least every `every_s` seconds, for ever."""
        while True:
            self._changed.clear()
            for reflector in self._reflectors:
                reflector.check()
            view = _view(self._name, *(reflector.items() for reflector in self._reflectors))
            yield self._failures.added(view)
            self._changed.wait(every_s)


class _Reflector:
    """Keeps the objects of one source up to date on a thread."""

    def __init__(
        self,
        objects: Objects,
        source: Source,
        on_change: Callable[[], None],
    ) -> None:
        self._objects = objects
        self._source = source
        self._on_change = on_change
        self._items: dict[str, Object] = {}
        self._version = ""
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._stopped = threading.Event()
        self._last_success_at = time.monotonic()
        self._error: ApiError | None = None
        self._thread = threading.Thread(target=self._run, name=source.kind.plural, daemon=True)

    def read(self) -> None:
        items, version = _listed(self._objects, self._source)
        with self._lock:
            self._items = {item["metadata"]["name"]: item for item in items}
            self._version = version
        self._note_success()
        self._on_change()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if watch := self._watch:
            watch.interrupt()
        self._thread.join(_LEAVE_S)  # the thread may wait for a server that does not answer

    def items(self) -> list[Object]:
        with self._lock:
            return list(self._items.values())

    def check(self) -> None:
        """Raise the error that prevents the watch from going on, if any."""
        if self._source.is_optional and isinstance(self._error, Forbidden):
            return
        if self._error and time.monotonic() - self._last_success_at > self._bound_s(self._error):
            raise self._error

    @staticmethod
    def _bound_s(error: ApiError) -> float:
        return 0.0 if isinstance(error, Unauthorized | Forbidden | NotFound) else _LOST_AFTER_S

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopped.wait(pause_s):
            try:
                self._follow()
                pause_s = _PAUSE_S
            except Expired:
                self._version, pause_s = "", _PAUSE_S
            except ApiError as exc:
                self._error = exc
                self._on_change()
                pause_s = min(max(2 * pause_s, _PAUSE_S), _LONGEST_PAUSE_S)

    def _follow(self) -> None:
        """Follow one watch until it ends."""
        if not self._version:
            self.read()
        source = self._source
        watch = self._objects.watch(source.kind, self._version, **source.selectors)
        self._watch = watch
        if self._stopped.is_set():  # `stop` came before there was a watch to interrupt
            watch.interrupt()
        try:
            self._note_success()
            for change in watch.changes():
                self._apply(change)
        finally:
            self._watch = None
            watch.close()

    def _apply(self, change: WatchEvent) -> None:
        metadata = change.object["metadata"]
        self._note_success()
        with self._lock:
            self._version = metadata["resourceVersion"]
            if change.type == "DELETED":
                self._items.pop(metadata["name"], None)
            elif change.type != "BOOKMARK":
                self._items[metadata["name"]] = change.object
        if change.type != "BOOKMARK":
            self._on_change()

    def _note_success(self) -> None:
        self._last_success_at = time.monotonic()
        self._error = None
