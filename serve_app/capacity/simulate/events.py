"""Virtual time: a queue of events."""

import heapq
from collections.abc import Callable
from typing import Any


class EventQueue:
    """Events in order of time. `now` is the time of the current event in seconds."""

    __slots__ = ("_count", "_queue", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._queue: list[tuple[float, int, Callable[[Any], None], Any]] = []

    def at(self, time: float, act: Callable[[Any], None], argument: Any = None) -> None:
        self._count += 1  # first come, first served among equal times
        heapq.heappush(self._queue, (time, self._count, act, argument))

    def run_until(self, time: float) -> None:
        """Run all events that are due until `time`."""
        queue = self._queue
        while queue and queue[0][0] <= time:
            self.now, _, act, argument = heapq.heappop(queue)
            act(argument)
        self.now = max(self.now, time)
