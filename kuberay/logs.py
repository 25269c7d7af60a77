"""The logs of several pods at once, with the source of each line."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue

from kuberay.access.api_server import Stream
from kuberay.access.objects import Objects
from kuberay.errors import ApiError, NotFound
from kuberay.status.observed import HEAD, WORKER, Observed, Pod
from kuberay.status.watching import look

_FULL_S = 0.5


@dataclass(frozen=True)
class LogSource:
    """One container of one pod."""

    pod: str
    container: str


@dataclass(frozen=True)
class Line:
    """A line of a log, with its source."""

    source: LogSource
    text: str


@dataclass(frozen=True)
class Selection:
    """Selects containers: Ray's of the `head` or the `workers`, or each worker's `sidecar`.

    With `container`, it selects the container of that name in the same pods.
    """

    which: str
    container: str = ""

    def __str__(self) -> str:
        return f"{self.which}, container {self.container}" if self.container else self.which

    def sources(self, view: Observed) -> list[LogSource]:
        role = HEAD if self.which == "head" else WORKER
        named = [(pod.name, self._container(pod)) for pod in view.pods if pod.role == role]
        return [LogSource(pod, container) for pod, container in named if container]

    def _container(self, pod: Pod) -> str:
        if self.container:
            names = [status.name for status in pod.containers]
            return self.container if self.container in names else ""
        if self.which == "sidecar":
            return next((status.name for status in pod.containers if status.is_sidecar), "")
        return pod.ray.name if pod.ray else ""


def read(
    objects: Objects, name: str, selection: Selection, options: Mapping[str, str]
) -> Iterator[Line]:
    """Yield the logs of all sources one after another; an error becomes a line.

    Raises NotFound if no container matches.
    """
    sources = selection.sources(look(objects, name))
    if not sources:
        raise NotFound(f"RayService {name} has no pods that match {selection}: see its status", 404)
    for source in sources:
        try:
            stream = objects.logs(source.pod, source.container, False, **options)
        except ApiError as exc:
            yield Line(source, f"(can't read this log: {exc})")
            continue
        try:
            yield from (Line(source, line.decode(errors="replace")) for line in stream.lines())
        finally:
            stream.close()


class Follower:
    """Follows the logs of all matching containers, including those that start later."""

    def __init__(
        self,
        objects: Objects,
        name: str,
        selection: Selection,
        options: Mapping[str, str],
        look_every_s: float = 2.0,
    ) -> None:
        self._look_every_s = look_every_s
        self._objects = objects
        self._name = name
        self._selection = selection
        self._options = options
        self._queue: Queue[Line] = Queue(maxsize=1000)
        self._tails: dict[LogSource, _Tail] = {}

    def lines(self) -> Iterator[Line]:
        """Yield lines for ever; closing the generator closes the streams."""
        try:
            while True:
                self._look()
                yield from self._until(time.monotonic() + self._look_every_s)
        finally:
            for tail in self._tails.values():
                tail.stop()

    def _look(self) -> None:
        for source in self._selection.sources(look(self._objects, self._name)):
            if source not in self._tails:
                self._tails[source] = _Tail(self._objects, source, self._queue, self._options)
            self._tails[source].go_on()

    def _until(self, end: float) -> Iterator[Line]:
        while (remaining_s := end - time.monotonic()) > 0:
            try:
                yield self._queue.get(timeout=remaining_s)
            except Empty:
                return


class _Tail:
    """The log of one source, which continues after the last line when its stream breaks."""

    def __init__(
        self, objects: Objects, source: LogSource, queue: "Queue[Line]", options: Mapping[str, str]
    ) -> None:
        self._objects = objects
        self._source = source
        self._queue = queue
        self._options = options
        self._last = ""
        self._stream: Stream | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def go_on(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        if stream := self._stream:
            stream.interrupt()

    def _run(self) -> None:
        since = {"sinceTime": self._last} if self._last else self._options
        pod, container = self._source.pod, self._source.container
        try:
            stream = self._objects.logs(pod, container, True, timestamps="true", **since)
        except ApiError:
            return  # not started, or gone: the next round tries again
        self._stream = stream
        try:
            self._read(stream, self._last)
        except ApiError:
            return  # broken: the next round continues
        finally:
            stream.close()

    def _read(self, stream: Stream, last_stamp: str) -> None:
        for line in stream.lines():
            stamp, _, text = line.decode(errors="replace").partition(" ")
            if self._stopped:
                return
            if stamp > last_stamp:
                self._last = stamp
                self._put(Line(self._source, text))

    def _put(self, line: Line) -> None:
        while not self._stopped:
            with suppress(Full):
                self._queue.put(line, timeout=_FULL_S)
                return
