"""Routing of requests to replicas, and the queue of the router."""

import heapq
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.replica import Replica
from serve_app.capacity.simulate.simulated_request import SimulatedRequest
from serve_app.dispatch.fair_queue import Fairness, FairQueue
from serve_app.engines.base import Flow


class RoutingRule(Protocol):
    def choose(self, job: SimulatedRequest, serving: Sequence[Replica]) -> Replica:
        """Choose one of the serving replicas, of which there is at least one."""

    def homes(self, job: SimulatedRequest) -> frozenset[str]:
        """Return the replicas that have most of its prompt cached, as Ticket.homes."""

    def sent(self, job: SimulatedRequest, replica: Replica) -> None: ...

    def read(self, job: SimulatedRequest, replica: Replica) -> None:
        """Note that the replica has read the prompt."""

    def ended(self, job: SimulatedRequest, replica: Replica) -> None: ...

    def serving_changed(self, serving: Sequence[Replica]) -> None: ...


class PowerOf:
    """Chooses, of some random replicas, the one with the fewest ongoing requests.

    Ray Serve takes two, the gateway eight (`serve_app/ray_serve/request_router.py`).
    """

    def __init__(self, choices: int, rng: random.Random) -> None:
        self._choices = choices
        self._rng = rng

    def choose(self, job: SimulatedRequest, serving: Sequence[Replica]) -> Replica:
        some = self._rng.sample(serving, min(self._choices, len(serving)))
        return min(some, key=lambda replica: replica.ongoing)

    def homes(self, job: SimulatedRequest) -> frozenset[str]:
        return frozenset()

    def sent(self, job: SimulatedRequest, replica: Replica) -> None:
        """Do nothing: the rule has no memory."""

    ended = read = sent

    def serving_changed(self, serving: Sequence[Replica]) -> None:
        """Do nothing: the rule has no memory."""


class LeastLoaded:
    """HAProxy's leastconn: the replica with the fewest connections, in turn among equals.

    A change of the replicas starts a new HAProxy, which does not count the connections that its
    predecessor still holds. The heap has an entry for every change of a count; outdated entries are
    dropped when they come up.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._life = 0
        self._heap: list[tuple[int, int, Replica]] = []
        self._latest: dict[Replica, tuple[int, int]] = {}  # connections, turn

    def choose(self, job: SimulatedRequest, serving: Sequence[Replica]) -> Replica:
        while True:
            connections, turn, replica = self._heap[0]
            if self._latest[replica] == (connections, turn):
                return replica
            heapq.heappop(self._heap)

    def homes(self, job: SimulatedRequest) -> frozenset[str]:
        return frozenset()

    def sent(self, job: SimulatedRequest, replica: Replica) -> None:
        job.life = self._life
        self._count(replica, 1)

    def read(self, job: SimulatedRequest, replica: Replica) -> None:
        """Do nothing: connections count until the end."""

    def ended(self, job: SimulatedRequest, replica: Replica) -> None:
        if job.life == self._life:
            self._count(replica, -1)

    def serving_changed(self, serving: Sequence[Replica]) -> None:
        self._life += 1
        self._heap = []
        self._latest = dict.fromkeys(serving, (0, 0))
        for replica in serving:
            self._count(replica, 0)

    def _count(self, replica: Replica, change: int) -> None:
        self._turn += 1
        connections = self._latest[replica][0] + change
        self._latest[replica] = (connections, self._turn)
        heapq.heappush(self._heap, (connections, self._turn, replica))


class Router:
    """Sends a request to a replica below `max_ongoing`, or queues or refuses it.

    If all replicas are full, Ray tries two others after at most half a second, long before a
    replica runs out of queued requests; here a replica with room is found at once. `max_queued`
    below 0 means no bound. `fairness`: None where the queue is Serve's, which knows no keys.
    """

    def __init__(
        self,
        rule: RoutingRule,
        max_ongoing: int,
        max_queued: int,
        refuse: Callable[[SimulatedRequest], None],
        events: EventQueue,
        fairness: Fairness | None,
    ) -> None:
        self.pending: FairQueue[SimulatedRequest] = FairQueue(fairness)
        self._is_fair = fairness is not None
        self._events = events
        self._rule = rule
        self._max_ongoing = max_ongoing
        self._max_queued = max_queued
        self._refuse = refuse

    def send(self, job: SimulatedRequest, serving: Sequence[Replica]) -> None:
        if not self._is_fair:
            job.sent = job.ticket(Flow())
        replica = self._with_room(job, serving) if serving and not self.pending else None
        if replica is not None:
            self.pending.start(job.sent, self._events.now)
            self._give(job, replica)
            return
        job.sent.homes = self._rule.homes(job)
        if 0 <= self._max_queued <= len(self.pending):
            self._displace(job)
        else:
            self.pending.push(job.sent, self._events.now)

    def _displace(self, job: SimulatedRequest) -> None:
        """Refuse the newest request of the key that holds most of the full queue."""
        surplus = self.pending.surplus(job.sent.flow)
        if surplus is None:
            self._refuse(job)
            return
        self.pending.withdraw(surplus)
        self._refuse(surplus.owner)
        self.pending.push(job.sent, self._events.now)

    def read(self, job: SimulatedRequest, replica: Replica) -> None:
        self._rule.read(job, replica)

    def freed(self, job: SimulatedRequest, replica: Replica) -> None:
        """Note the end of a request."""
        self._rule.ended(job, replica)
        self.pending.end(job.sent)
        if replica.serving:
            self._fill(replica)

    def serving_changed(self, serving: Sequence[Replica]) -> None:
        """Note a change of the replicas, and send queued requests."""
        self._rule.serving_changed(serving)
        for replica in serving if self.pending else ():
            self._fill(replica)

    def _fill(self, replica: Replica) -> None:
        while replica.ongoing < self._max_ongoing:
            ticket = self.pending.pop(self._events.now, replica=str(replica.number))
            if ticket is None:
                return
            self._give(ticket.owner, replica)

    def _with_room(self, job: SimulatedRequest, serving: Sequence[Replica]) -> Replica | None:
        chosen = self._rule.choose(job, serving)
        if chosen.ongoing < self._max_ongoing:
            return chosen
        return next((replica for replica in serving if replica.ongoing < self._max_ongoing), None)

    def _give(self, job: SimulatedRequest, replica: Replica) -> None:
        replica.known = True
        self._rule.sent(job, replica)
        if not replica.admit(job):
            self._rule.ended(job, replica)
            self.pending.end(job.sent, 0.0)
            self._refuse(job)
