"""Several gateways before one pool, in virtual time: each knows its own requests, and reports."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.placing import Affinity
from serve_app.capacity.simulate.replica import Replica
from serve_app.capacity.simulate.simulated_request import SimulatedRequest
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.replica_state import CallEvent, CallStep, ReplicaReport

# The delay until other gateways know a replica's events: the bound of dispatch/reports.py.
REPORT_S = 0.1


class Gateways:
    """Requests arrive at any of `number` gateways; each request stays at one of them.

    `seed`: of the choice of the gateway.
    """

    def __init__(
        self,
        events: EventQueue,
        new_view: Callable[[], FleetView],
        max_ongoing: int,
        number: int,
        seed: int = 0,
    ) -> None:
        self._events = events
        self._views = [new_view() for _ in range(number)]
        self._rules = [Affinity(events, view, max_ongoing) for view in self._views]
        self._rng = random.Random(seed)
        self._gateways: dict[SimulatedRequest, int] = {}
        # By replica: events that the others have no report of yet, with their gateway.
        self._unreported: defaultdict[str, list[tuple[int, CallEvent]]] = defaultdict(list)
        self._due: set[str] = set()

    def choose(self, job: SimulatedRequest, serving: Sequence[Replica]) -> Replica:
        gateway = self._gateways.setdefault(job, self._rng.randrange(len(self._rules)))
        return self._rules[gateway].choose(job, serving)

    def homes(self, job: SimulatedRequest) -> frozenset[str]:
        gateway = self._gateways.setdefault(job, self._rng.randrange(len(self._rules)))
        return self._rules[gateway].homes(job)

    def sent(self, job: SimulatedRequest, replica: Replica) -> None:
        gateway = self._gateways.setdefault(job, self._rng.randrange(len(self._rules)))
        self._rules[gateway].sent(job, replica)
        self._changed(replica, job, CallStep.BEGAN)

    def read(self, job: SimulatedRequest, replica: Replica) -> None:
        self._rules[self._gateways[job]].read(job, replica)
        self._changed(replica, job, CallStep.READ)

    def ended(self, job: SimulatedRequest, replica: Replica) -> None:
        self._rules[self._gateways[job]].ended(job, replica)
        self._changed(replica, job, CallStep.ENDED)
        del self._gateways[job]

    def serving_changed(self, serving: Sequence[Replica]) -> None:
        for rule in self._rules:
            rule.serving_changed(serving)

    def _changed(self, replica: Replica, job: SimulatedRequest, step: CallStep) -> None:
        name, blocks = str(replica.number), job.request.blocks
        event = CallEvent(id(job), step, blocks if step is CallStep.BEGAN else ())
        self._unreported[name].append((self._gateways[job], event))
        if name not in self._due:
            self._due.add(name)
            self._events.at(self._events.now + REPORT_S, self._report, name)

    def _report(self, name: str) -> None:
        self._due.discard(name)
        work = [view.own_work(name) for view in self._views]
        events = self._unreported.pop(name, [])
        for number, view in enumerate(self._views):
            for gateway, event in events:
                if gateway != number:
                    view.note_event(name, event)
            others = [own for other, own in enumerate(work) if other != number]
            report = ReplicaReport(
                sum(own.ahead for own in others),
                sum(own.pending_tokens for own in others),
                unread=sum(own.unread for own in others),
            )
            view.report(name, report, self._events.now)
