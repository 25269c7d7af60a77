"""Reports of work that reach a policy which counts it, as late as in a live service.

Replicas report the work that they have accepted, routers the number of waiting requests; both every
`metrics_interval_s`. The cost of a request is learned from those that have ended.
"""

import random
from typing import TYPE_CHECKING

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.fleet import SimulatedFleet
from serve_app.capacity.simulate.policies import WorkReport, WorkTargetPolicy
from serve_app.capacity.simulate.replica import Replica
from serve_app.capacity.simulate.router import Router
from serve_app.capacity.simulate.simulated_request import SimulatedRequest
from serve_app.scaling.work import SlotSpeed, WorkModel

if TYPE_CHECKING:
    from serve_app.capacity.simulate.run import SimulatedService


class WorkReports:
    """Reports to a policy that counts work, in place of those of requests."""

    def __init__(
        self,
        events: EventQueue,
        service: "SimulatedService",
        fleet: SimulatedFleet,
        router: Router,
        rng: random.Random,
        policy: WorkTargetPolicy,
    ) -> None:
        model = service.model
        pace = model.pace(service.slots)
        self._events = events
        self._fleet = fleet
        self._router = router
        self._policy = policy
        self._every_s = service.scaling.serve_options["metrics_interval_s"]
        self._model = WorkModel(
            SlotSpeed(model.prefill_tokens_per_s, model.decode_tokens_per_s / pace), service.slots
        )
        self._taken_s = 0.0
        self._reported: dict[int, tuple[int, int]] = {}
        events.at(rng.uniform(0, self._every_s), self._repeat)

    def started(self, replica: Replica) -> None:
        """Do nothing: all replicas report at once."""

    def woken(self) -> None:
        """Report a request that waits without any replica at once, as gateways do."""
        self._report()

    def ended(self, job: SimulatedRequest) -> None:
        request = job.request
        self._model = self._model.after(request.prompt_tokens, job.cached, request.output_tokens)

    def _repeat(self, _: None) -> None:
        self._report()
        self._events.at(self._events.now + self._every_s, self._repeat)

    def _report(self) -> None:
        replicas = [*self._fleet.running, *self._fleet.draining]
        for replica in replicas:
            requests, tokens = self._reported.get(replica.number, (0, 0))
            self._taken_s += self._model.work_of(
                replica.taken - requests, replica.taken_tokens - tokens
            )
        self._reported = {r.number: (r.taken, r.taken_tokens) for r in replicas}
        mean_s = self._model.mean_work_s
        waiting = len(self._router.pending)
        in_queues = sum(replica.waiting for replica in replicas)
        self._policy.reported(
            WorkReport(
                self._taken_s + waiting * mean_s,
                (waiting + in_queues) * mean_s,
                mean_s * self._model.slots,
            )
        )
