"""One simulation: requests in, `Result` out."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from serve_app.capacity.results.cluster_samples import Sample
from serve_app.capacity.simulate.cutoff import EVERY_S, Cutoff
from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.fleet import Delays, SimulatedFleet
from serve_app.capacity.simulate.policies import TargetPolicy, WorkTargetPolicy
from serve_app.capacity.simulate.policy import CONTROL_LOOP_S
from serve_app.capacity.simulate.replica import Gaps, Replica, ReplicaBounds
from serve_app.capacity.simulate.reports import (
    LoadReport,
    LoadReporter,
    ReplicaReports,
    RouterReports,
)
from serve_app.capacity.simulate.result import Result
from serve_app.capacity.simulate.router import LeastLoaded, PowerOf, Router, RoutingRule
from serve_app.capacity.simulate.simulated_request import SimulatedRequest
from serve_app.capacity.simulate.startup import FixedStartup, Startup
from serve_app.capacity.simulate.work_reports import WorkReports
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.dispatch.fair_queue import Fairness
from serve_app.scaling_settings import Autoscaling

SimulatedRouting = Literal["serve", "gateway", "haproxy"]
_POWER_OF = {"serve": 2, "gateway": 8}
# Seconds from a replica's readiness to its first request: a broadcast, and under HAProxy its
# restart (0.6 to 1.2 s in live runs on two cores).
_JOIN_S: dict[SimulatedRouting, float] = {"serve": 0.1, "gateway": 0.1, "haproxy": 0.8}


@dataclass(frozen=True)
class SimulatedService:
    """The simulated service: the speed and bounds of one replica, and the scaling of the fleet.

    `max_ongoing` is Serve's bound on one replica (default: slots + queue), `max_queued` that on
    the router's queue (below 0: none). The default of `join_s` depends on the routing.
    """

    model: ServiceModel
    slots: int = 4
    queue: int = 16
    scaling: Autoscaling = field(default_factory=Autoscaling)
    startup: Startup = field(default_factory=lambda: FixedStartup(0.0))
    routing: SimulatedRouting = "serve"
    drain_s: float = 1.0
    join_s: float | None = None
    max_ongoing: int | None = None
    max_queued: int = -1
    queue_timeout_s: float = 60.0
    timeouts_s: Mapping[str, float] = field(default_factory=dict)  # by priority, where it differs
    reserved_slots: int = 0
    fairness: Fairness = field(default_factory=Fairness)
    ram_tokens: int = 0
    shares_prefill: bool = False
    # Makes the rule by which a gateway chooses replicas; None: the least loaded of eight.
    rule: Callable[[EventQueue], RoutingRule] | None = None
    control_s: float = CONTROL_LOOP_S  # between decisions: longer for loads of days

    @property
    def bounds(self) -> ReplicaBounds:
        return ReplicaBounds(
            *(self.slots, self.queue, self.reserved_slots, self.fairness),
            *(self.ram_tokens, self.shares_prefill),
        )

    @property
    def target_ongoing_requests(self) -> float:
        full = self.slots if self.queue else self.slots - 0.5
        return self.scaling.target_ongoing_requests or full

    @property
    def joins_s(self) -> float:
        return _JOIN_S[self.routing] if self.join_s is None else self.join_s


def simulate(
    requests: Iterable[WorkloadRequest],
    service: SimulatedService,
    policy: TargetPolicy,
    seed: int = 0,
    seconds: float | None = None,
    cutoff: Cutoff | None = None,
) -> Result:
    """Simulate requests to the service under a policy.

    The fleet is billed for `seconds`, but at least until the last answer. Requests are read one by
    one; memory grows by a few numbers per request.
    """
    return _Simulation(service, policy, random.Random(seed), cutoff).run(requests, seconds)


class _Simulation:
    def __init__(
        self,
        service: SimulatedService,
        policy: TargetPolicy,
        rng: random.Random,
        cutoff: Cutoff | None,
    ) -> None:
        self._service = service
        self._cutoff = cutoff
        self._policy = policy
        self._rng = rng
        self._events = EventQueue()
        self._gaps = Gaps(service.slots)
        self._result = Result(service.model, self._gaps)
        self._load_report = LoadReport()
        self._open = self._arrived = self._completed = 0
        self._router = self._new_router()
        self._fleet = SimulatedFleet(
            self._events,
            Delays(service.startup, service.joins_s, service.drain_s),
            rng,
            self._replica,
            self._load_report.running_changed,
            lambda: self._router.serving_changed(self._fleet.serving),
        )
        self._reporter = self._new_work_reports(policy) or self._new_reporter()
        initial = service.scaling.initial_replicas
        self._fleet.begin_with(service.scaling.min_replicas if initial is None else initial)

    def _new_router(self) -> Router:
        service = self._service
        max_ongoing = service.max_ongoing or service.slots + service.queue
        return Router(
            self._new_rule(),
            max_ongoing,
            service.max_queued,
            self._refused,
            self._events,
            service.fairness if service.routing == "gateway" else None,
        )

    def _new_rule(self) -> RoutingRule:
        if self._service.routing == "haproxy":
            return LeastLoaded()
        if self._service.rule:
            return self._service.rule(self._events)
        return PowerOf(_POWER_OF[self._service.routing], self._rng)

    def _new_reporter(self) -> LoadReporter:
        common = self._events, self._service.scaling, self._rng, self._load_report
        if self._service.routing == "haproxy":
            return ReplicaReports(*common)
        return RouterReports(*common, self._fleet, self._router)

    def _new_work_reports(self, policy: TargetPolicy) -> WorkReports | None:
        """Return the reports to a policy that counts work; None for another policy."""
        if not isinstance(policy, WorkTargetPolicy):
            return None
        return WorkReports(
            *(self._events, self._fleet, self._router, policy, self._rng),
            self._service.scaling.serve_options["metrics_interval_s"],
            sees_queue=self._service.routing != "haproxy",
        )

    def run(self, requests: Iterable[WorkloadRequest], seconds: float | None) -> Result:
        events = self._events
        events.at(self._rng.uniform(0, CONTROL_LOOP_S), self._decide)
        events.at(1.0, self._sample)
        for request in requests:
            events.run_until(request.at_s)
            if self._result.is_cut:
                return self._result
            self._arrive(SimulatedRequest(request))
        events.run_until(seconds or 0.0)
        while self._open:
            events.run_until(events.now + 0.1)
        self._count_cost()
        return self._result

    def _count_cost(self) -> None:
        self._result.seconds = self._events.now
        self._result.replica_seconds = self._fleet.replica_seconds
        self._result.starts = self._fleet.starts

    def _replica(self, number: int) -> Replica:
        service = self._service
        replica = Replica(
            number,
            self._events,
            service.model,
            service.bounds,
            self._ended,
            self._evicted,
            self._gaps,
            self._read,
        )
        self._reporter.started(replica)
        return replica

    def _arrive(self, job: SimulatedRequest) -> None:
        self._open += 1
        self._arrived += 1
        serving = self._fleet.serving
        self._router.send(job, serving)
        if job.replica is not None and not job.is_running:
            priority = job.request.flow.priority
            timeout_s = self._service.timeouts_s.get(priority, self._service.queue_timeout_s)
            self._events.at(job.intended + timeout_s, self._give_up, job)
        if not serving and self._router.pending:
            self._reporter.woken()

    def _read(self, job: SimulatedRequest) -> None:
        assert job.replica is not None
        self._router.read(job, job.replica)

    def _ended(self, job: SimulatedRequest) -> None:
        replica = job.replica
        assert replica is not None
        self._open -= 1
        self._completed += 1
        self._result.served(job)
        self._router.freed(job, replica)
        self._fleet.ended(replica)
        job.forget_tickets()

    def _refused(self, job: SimulatedRequest) -> None:
        self._open -= 1
        self._result.refused(job)
        job.forget_tickets()

    def _give_up(self, job: SimulatedRequest) -> None:
        if job.replica is not None and not job.is_gone and job.replica.give_up(job):
            self._evicted(job)

    def _evicted(self, job: SimulatedRequest) -> None:
        """Refuse a request that has left a replica's queue."""
        assert job.replica is not None
        job.is_gone = True
        self._router.freed(job, job.replica)
        self._fleet.ended(job.replica)
        self._refused(job)

    def _decide(self, _: None) -> None:
        now, fleet = self._events.now, self._fleet
        ongoing = self._load_report.ongoing(now, fleet.running)
        target = self._policy.target(now, len(fleet.running), fleet.target, ongoing)
        if target != fleet.target:
            fleet.scale_to(target)
        self._events.at(now + self._service.control_s, self._decide)

    def _sample(self, _: None) -> None:
        fleet, result = self._fleet, self._result
        result.samples.append(
            Sample(
                at=self._events.now,
                target=fleet.target,
                running=len(fleet.running),
                starting=len(fleet.starting),
                draining=len(fleet.draining),
                ongoing=sum(replica.ongoing for replica in (*fleet.running, *fleet.draining)),
                queued=len(self._router.pending),
                engine_starts=fleet.starts,
            )
        )
        result.arrived.append(self._arrived)
        result.completed.append(self._completed)
        self._arrived = self._completed = 0
        if self._cutoff and len(result.samples) % EVERY_S == 0:
            self._count_cost()
            result.is_cut = result.is_cut or self._cutoff.applies(result)
        self._events.at(self._events.now + 1.0, self._sample)
