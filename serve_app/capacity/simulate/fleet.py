"""Replicas that start, serve and drain, and their cost."""

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.replica import Replica
from serve_app.capacity.simulate.startup import Startup

# Serve polls a draining replica at this interval (graceful_shutdown_wait_loop_s).
_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Delays:
    """Delays in seconds.

    `join_s`: from a change of the replicas until the router knows of it. It handles one batch of
    changes after the other. `drain_s`: the minimum time that a replica drains.
    """

    startup: Startup
    join_s: float = 0.0
    drain_s: float = 1.0


class SimulatedFleet:
    """All replicas. `running` is the view of the controller, `serving` the later one of the router.

    `replica_seconds` counts from the decision to start until the end of the process: a replica
    occupies its GPU while it starts, serves and drains.
    """

    def __init__(
        self,
        events: EventQueue,
        delays: Delays,
        rng: random.Random,
        make: Callable[[int], Replica],
        running_changed: Callable[[], None],
        serving_changed: Callable[[], None],
    ) -> None:
        self.running: list[Replica] = []  # oldest first
        self.serving: list[Replica] = []
        self.starting: list[Replica] = []
        self.draining: set[Replica] = set()
        self.target = 0
        self.starts = 0
        self._events = events
        self._delays = delays
        self._rng = rng
        self._make = make
        self._running_changed = running_changed
        self._serving_changed = serving_changed
        self._billed_s = 0.0
        self._unannounced: list[Replica] = []
        self._announcing: list[Replica] = []

    @property
    def replica_seconds(self) -> float:
        now = self._events.now
        return self._billed_s + sum(now - replica.started_at for replica in self._all())

    def begin_with(self, count: int) -> None:
        """Add replicas that already serve."""
        self.target = count
        for _ in range(count):
            self.running.append(self._new())
        for replica in self.running:
            replica.serving = True
        self.serving = list(self.running)
        self._running_changed()
        self._serving_changed()

    def scale_to(self, target: int) -> None:
        """Start or stop replicas. Like Ray, stop starting ones first, then the newest."""
        self.target = target
        missing = target - len(self.running) - len(self.starting)
        for _ in range(missing):
            self._start()
        for _ in range(-missing):
            self._stop()
        self._running_changed()

    def ended(self, replica: Replica) -> None:
        """Note the end of a request; a replica that drains may then exit."""
        if replica in self.draining and not (replica.ongoing or replica.serving):
            due = max(replica.stopped + self._delays.drain_s, self._events.now + _POLL_S)
            self._events.at(due, self._gone, replica)

    def _start(self) -> None:
        replica = self._new()
        self.starting.append(replica)
        ready = self._events.now + self._delays.startup.draw(self._rng)
        self._events.at(ready, self._started, replica)

    def _new(self) -> Replica:
        self.starts += 1
        return self._make(self.starts)

    def _started(self, replica: Replica) -> None:
        if replica in self.starting:
            self.starting.remove(replica)
            self.running.append(replica)
            self._running_changed()
            self._announce(replica)

    def _stop(self) -> None:
        replica = self.starting.pop() if self.starting else self.running.pop()
        replica.stopped = self._events.now
        self.draining.add(replica)
        self._announce(replica)

    def _announce(self, replica: Replica) -> None:
        self._unannounced.append(replica)
        if not self._announcing:
            self._announce_batch()

    def _announce_batch(self) -> None:
        self._announcing, self._unannounced = self._unannounced, []
        self._events.at(self._events.now + self._delays.join_s, self._announced)

    def _announced(self, _: None) -> None:
        changed, self._announcing = self._announcing, []
        for replica in changed:
            replica.serving = replica.stopped == math.inf
        self.serving = [replica for replica in self.running if replica.serving]
        self._serving_changed()
        for replica in changed:
            self.ended(replica)
        if self._unannounced:
            self._announce_batch()

    def _gone(self, replica: Replica) -> None:
        if not replica.gone:
            replica.gone = True
            self.draining.discard(replica)
            self._billed_s += self._events.now - replica.started_at

    def _all(self) -> Iterable[Replica]:
        yield from self.running
        yield from self.starting
        yield from self.draining
