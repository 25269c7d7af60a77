"""Failures that only a log tells: a model that an init container pulls again and again."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import islice

from kuberay.access.objects import Objects
from kuberay.errors import ApiError
from kuberay.status.container_rules import at_work
from kuberay.status.observed import Observed

_AFTER = timedelta(seconds=10)
_EVERY_S = 10.0
_LINES = 200
_ERROR = re.compile(r"Error: .*")


class Failures:
    """Reads the logs of init containers that have been at work for a while, now and then."""

    def __init__(self, objects: Objects, clock: Callable[[], float] = time.monotonic) -> None:
        self._objects = objects
        self._clock = clock
        self._read: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}

    def added(self, view: Observed) -> Observed:
        """The view with lines of errors of these logs."""
        wanted = [
            (pod.name, container.name)
            for pod in view.pods
            for container in at_work(pod)
            if view.at - (container.started_at or view.at) >= _AFTER
        ]
        self._read = {source: self._lines(*source) for source in wanted}
        found = {f"{pod}/{name}": lines for (pod, name), (_, lines) in self._read.items() if lines}
        return replace(view, failures=found)

    def _lines(self, pod: str, container: str) -> tuple[float, tuple[str, ...]]:
        now = self._clock()
        known = self._read.get((pod, container))
        if known and now - known[0] < _EVERY_S:
            return known
        return now, tuple(self._errors(pod, container))

    def _errors(self, pod: str, container: str) -> Iterator[str]:
        try:
            stream = self._objects.logs(pod, container, False, tailLines=str(_LINES))
        except ApiError:
            return  # gone meanwhile, or not allowed: the status alone has to do
        try:
            for line in islice(stream.lines(), _LINES):
                if found := _ERROR.search(line.decode(errors="replace")):
                    yield found[0].strip()
        except ApiError:
            return  # broken off: what has been read counts
        finally:
            stream.close()
