"""Replicas that start, serve and drain, and what they cost."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from serve_app.capacity.simulate.events import Events
from serve_app.capacity.simulate.replica import Replica


class Startup(Protocol):
    """Seconds from the decision to the first request that a new replica can take."""

    @property
    def longest(self) -> float: ...

    def draw(self, rng: random.Random) -> float: ...


@dataclass(frozen=True, slots=True)
class FixedStartup:
    seconds: float

    @property
    def longest(self) -> float:
        return self.seconds

    def draw(self, rng: random.Random) -> float:
        return self.seconds

    def __str__(self) -> str:
        return f"{self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class ObservedStartup:
    """Any of the times that were seen, with equal chance."""

    seconds: tuple[float, ...]

    @property
    def longest(self) -> float:
        return max(self.seconds)

    def draw(self, rng: random.Random) -> float:
        return rng.choice(self.seconds)

    def __str__(self) -> str:
        return f"{min(self.seconds):.1f} to {max(self.seconds):.1f} s, as observed"


class Fleet:
    """`replica_seconds` counts from the decision to start to the end of the process: while a
    replica starts, serves and drains, its GPU is taken.
    """

    def __init__(
        self,
        events: Events,
        startup: Startup,
        drain_s: float,
        rng: random.Random,
        make: Callable[[int], Replica],
        running_changed: Callable[[], None],
    ) -> None:
        self.running: list[Replica] = []  # oldest first
        self.starting: list[Replica] = []
        self.draining: set[Replica] = set()
        self.target = 0
        self.starts = 0
        self._events = events
        self._startup = startup
        self._drain_s = drain_s
        self._rng = rng
        self._make = make
        self._running_changed = running_changed
        self._billed_s = 0.0

    @property
    def size(self) -> int:
        return len(self.running) + len(self.starting) + len(self.draining)

    @property
    def replica_seconds(self) -> float:
        now = self._events.now
        return self._billed_s + sum(now - each.began for each in self._all())

    def scale_to(self, target: int, warm: bool = False) -> None:
        """Ray stops those that are starting first, then the newest. `warm`: ready at once."""
        self.target = target
        missing = target - len(self.running) - len(self.starting)
        for _ in range(missing):
            self._start(warm)
        for _ in range(-missing):
            self._stop()

    def ended(self, replica: Replica) -> None:
        """One of its requests has ended: a drained replica goes."""
        if replica in self.draining and not replica.ongoing:
            self._events.at(self._events.now + self._drain_s, self._gone, replica)

    def _start(self, warm: bool) -> None:
        replica = self._make(self.starts)
        self.starts += 1
        self.starting.append(replica)
        if warm:
            self._started(replica)
        else:
            self._events.at(
                self._events.now + self._startup.draw(self._rng), self._started, replica
            )

    def _started(self, replica: Replica) -> None:
        if replica in self.starting:
            self.starting.remove(replica)
            self.running.append(replica)
            replica.serving = True
            self._running_changed()

    def _stop(self) -> None:
        if self.starting:
            self._gone(self.starting.pop())
            return
        replica = self.running.pop()
        self.draining.add(replica)
        replica.serving = False
        self._running_changed()
        self.ended(replica)

    def _gone(self, replica: Replica) -> None:
        replica.gone = True
        self.draining.discard(replica)
        self._billed_s += self._events.now - replica.began

    def _all(self) -> Iterable[Replica]:
        yield from self.running
        yield from self.starting
        yield from self.draining
