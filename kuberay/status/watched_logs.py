"""Finds failures that only a log shows: init containers that repeat a failing pull."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from kuberay.access.objects import Objects
from kuberay.errors import ApiError
from kuberay.status.container_rules import at_work
from kuberay.status.observed import Observed

_AFTER = timedelta(seconds=10)
_EVERY_S = 10.0
_LINES = 200
# An error at the beginning of a line, or after the remains of a progress bar.
_ERROR = re.compile(r"(?:^|[\x1b\r].*?)(Error: .*)")
_SUCCESS = re.compile(r"\bsuccess\s*$| is there\s*$")


class Failures:
    """Reads the logs of init containers that have been running for a while."""

    def __init__(self, objects: Objects, clock: Callable[[], float] = time.monotonic) -> None:
        self._objects = objects
        self._clock = clock
        self._read: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}

    def added(self, view: Observed) -> Observed:
        """Add the error lines of these logs to a view."""
        sources = [
            (pod.name, container.name)
            for pod in view.pods
            for container in at_work(pod)
            if view.at - (container.started_at or view.at) >= _AFTER
        ]
        self._read = {source: self._lines(*source) for source in sources}
        failures = {f"{pod}/{c}": lines for (pod, c), (_, lines) in self._read.items() if lines}
        return replace(view, failures=failures)

    def _lines(self, pod: str, container: str) -> tuple[float, tuple[str, ...]]:
        now = self._clock()
        known = self._read.get((pod, container))
        if known and now - known[0] < _EVERY_S:
            return known
        return now, tuple(_errors(self._log(pod, container)))

    def _log(self, pod: str, container: str) -> Iterator[str]:
        """Yield the last lines, fewer or none if the log can't be read or breaks."""
        with suppress(ApiError):
            stream = self._objects.logs(pod, container, False, tailLines=str(_LINES))
            try:
                yield from (line.decode(errors="replace") for line in stream.lines())
            finally:
                stream.close()


def _errors(lines: Iterable[str]) -> list[str]:
    """Return the errors since the last success."""
    errors: list[str] = []
    for line in lines:
        if _SUCCESS.search(line):
            errors.clear()
        elif error := _ERROR.search(line):
            errors.append(error[1].strip())
    return errors
