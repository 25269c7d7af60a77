"""Replicas whose engines have room for some of the models, in virtual time, and rules for them."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.model_keepers import Keeper, ModelCounts
from serve_app.capacity.simulate.replica import Gaps, Replica, ReplicaBounds
from serve_app.capacity.simulate.simulated_request import SimulatedRequest
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.dispatch.model_copies import spare_copies
from serve_app.engines.load_cost import load_cost
from serve_app.engines.residency import Rules

NewKeeper = Callable[[int, EventQueue, Callable[[str], int], ModelCounts], Keeper]


class ModelReplica(Replica):
    """A replica that takes a request into its slots or queue once the request's model is loaded."""

    def __init__(
        self,
        number: int,
        events: EventQueue,
        model: ServiceModel,
        slots: int,
        new_keeper: NewKeeper,
        counts: ModelCounts,
        done: Callable[[SimulatedRequest], None],
    ) -> None:
        bounds = ReplicaBounds(slots, queue=1_000_000)
        super().__init__(number, events, model, bounds, self._ended, done, Gaps(slots))
        self._on_end = done
        self._slots = slots
        self._lines: dict[str, deque[SimulatedRequest]] = {}
        self.cold = 0  # requests that wait for their models
        self.cold_waits_s: list[float] = []  # waits of the requests that have waited
        self.keeper = new_keeper(number, events, self._opened, counts)

    def admit(self, job: SimulatedRequest) -> bool:
        if self.keeper.arrive(job.request.model):
            return super().admit(job)
        self.cold += 1
        self._lines.setdefault(job.request.model, deque()).append(job)
        return True

    @property
    def all_requests(self) -> int:
        return self.ongoing + self.cold

    def slot_wait_s(self, hold_s: float) -> float:
        """Return the expected wait for a slot, where a request holds one for `hold_s`."""
        return max(0, self.ongoing - self._slots + 1) * hold_s / self._slots

    def _opened(self, model: str) -> int:
        """Let the requests that wait for a model pass. Returns their number."""
        line = self._lines.pop(model, deque())
        self.cold -= len(line)
        for job in line:
            self.cold_waits_s.append(self._events.now - job.intended)
            super().admit(job)
        return len(line)

    def _ended(self, job: SimulatedRequest) -> None:
        self.keeper.leave(job.request.model)
        self._on_end(job)


Choose = Callable[[WorkloadRequest, Sequence[ModelReplica], float], ModelReplica]


def least_loaded(rng: random.Random) -> Choose:
    """Choose the replica with the fewest requests, any of them among equals."""

    def choose(
        request: WorkloadRequest, replicas: Sequence[ModelReplica], now: float
    ) -> ModelReplica:
        return min(replicas, key=lambda replica: (replica.all_requests, rng.random()))

    return choose


def first_to_serve(rules: Rules, hold_s: float) -> Choose:
    """Choose the replica that is predicted to serve first, with the cost of a load.

    As in placement: the wait for a slot, the time of a load, and its cost to others.
    """

    def choose(
        request: WorkloadRequest, replicas: Sequence[ModelReplica], now: float
    ) -> ModelReplica:
        _note_spare(replicas)

        def cost(replica: ModelReplica) -> tuple[float, int]:
            load = load_cost(replica.keeper.view(), rules, request.model, now)
            return replica.slot_wait_s(hold_s) + load.total_s, replica.all_requests

        return min(replicas, key=cost)

    return choose


def _note_spare(replicas: Sequence[ModelReplica]) -> None:
    """Note in each replica its models that others hold too, as gateways do."""
    views = {str(replica.number): replica.keeper.view() for replica in replicas}
    held = {name: view.loaded.keys() - {view.closing} for name, view in views.items()}
    for replica, spare in zip(replicas, spare_copies(held).values(), strict=True):
        replica.keeper.note_spare(spare)


@dataclass(frozen=True, slots=True)
class ModelRun:
    """The measurements of a run of requests for several models.

    `cold_waits_s`: of the requests that have waited for their model to be loaded.
    """

    ttft_s: tuple[float, ...]
    cold_waits_s: tuple[float, ...]
    loads: int
    evictions: int
    busy_s: tuple[float, ...]  # slot-seconds by replica


def simulate_models(
    requests: Iterable[WorkloadRequest],
    model: ServiceModel,
    replicas: int,
    slots: int,
    new_keeper: NewKeeper,
    choose: Choose,
) -> ModelRun:
    """Run requests through a fixed number of replicas, until all of them are answered."""
    events, counts = EventQueue(), ModelCounts()
    ended: list[SimulatedRequest] = []
    fleet = [
        ModelReplica(number, events, model, slots, new_keeper, counts, ended.append)
        for number in range(replicas)
    ]
    sent = 0
    for request in requests:
        events.run_until(request.at_s)
        choose(request, fleet, events.now).admit(SimulatedRequest(request))
        sent += 1
    while len(ended) < sent:
        events.run_until(events.now + 1.0)
    busy = [0.0] * replicas
    for job in ended:
        if job.replica is not None:
            busy[job.replica.number] += job.ended - job.first
    ttft = tuple(job.first - job.intended for job in ended)
    waits = tuple(wait for replica in fleet for wait in replica.cold_waits_s)
    return ModelRun(ttft, waits, counts.loads, counts.evictions, tuple(busy))
