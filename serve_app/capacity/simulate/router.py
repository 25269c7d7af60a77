"""Which replica takes a request, and what waits while none can."""

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from serve_app.capacity.simulate.replica import Job, Replica


class Choice(Protocol):
    def choose(self, running: Sequence[Replica]) -> Replica:
        """One of the running replicas, at least one."""

    def changed(self, replica: Replica) -> None:
        """It has taken or ended a request, or it is new."""


class PowerOfTwo:
    """Ray Serve's own: of two random replicas, the one with fewer ongoing requests."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(self, running: Sequence[Replica]) -> Replica:
        count = len(running)
        first = int(self._rng.random() * count)
        second = int(self._rng.random() * (count - 1))
        one = running[first]
        other = running[second + (second >= first)] if count > 1 else one
        return other if other.ongoing < one.ongoing else one

    def changed(self, replica: Replica) -> None:
        """It asks afresh each time."""


class LeastLoaded:
    """HAProxy's leastconn: the replica with the fewest, in turn among equals.

    A heap with an entry per change; one that is no longer true is dropped when it comes up.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._heap: list[tuple[int, int, Replica]] = []
        self._latest: dict[Replica, int] = {}

    def choose(self, running: Sequence[Replica]) -> Replica:
        while True:
            _, turn, replica = self._heap[0]
            if replica.serving and self._latest[replica] == turn:
                return replica
            heapq.heappop(self._heap)

    def changed(self, replica: Replica) -> None:
        self._turn += 1
        self._latest[replica] = self._turn
        heapq.heappush(self._heap, (replica.ongoing, self._turn, replica))


class Router:
    """Sends each request to a replica below `max_ongoing`, or holds it, or refuses it.

    With all replicas full Ray asks two others after a pause of at most half a second, so that one
    with room is found long before its queue has run dry: here it is found at once.
    `max_queued` below 0 is no bound.
    """

    def __init__(
        self, choice: Choice, max_ongoing: int, max_queued: int, refuse: Callable[[Job], None]
    ) -> None:
        self.pending: deque[Job] = deque()
        self._choice = choice
        self._max_ongoing = max_ongoing
        self._max_queued = max_queued
        self._refuse = refuse

    def send(self, job: Job, running: Sequence[Replica]) -> None:
        replica = self._with_room(running) if running and not self.pending else None
        if replica is not None:
            self._give(job, replica)
        elif 0 <= self._max_queued <= len(self.pending):
            self._refuse(job)
        else:
            self.pending.append(job)

    def freed(self, replica: Replica) -> None:
        """A replica is new, or one of its requests has ended: those who wait come first."""
        if not replica.serving:
            return
        while self.pending and replica.ongoing < self._max_ongoing:
            self._give(self.pending.popleft(), replica)
        self._choice.changed(replica)

    def _with_room(self, running: Sequence[Replica]) -> Replica | None:
        chosen = self._choice.choose(running)
        if chosen.ongoing < self._max_ongoing:
            return chosen
        return next((each for each in running if each.ongoing < self._max_ongoing), None)

    def _give(self, job: Job, replica: Replica) -> None:
        replica.known = True
        if not replica.admit(job):
            self._refuse(job)
        self._choice.changed(replica)
