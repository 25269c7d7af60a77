"""Reports of work that reach a policy which counts it, as late as in a live service.

Replicas have the live service's meters: one knows nothing until its first request has ended. They
and the routers report every `metrics_interval_s`.
"""

import random

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.fleet import SimulatedFleet
from serve_app.capacity.simulate.policies import WorkTargetPolicy
from serve_app.capacity.simulate.replica import Replica
from serve_app.capacity.simulate.router import Router
from serve_app.scaling.meter import WorkMeter


class WorkReports:
    """Reports to a policy that counts work, in place of those of requests.

    `sees_queue`: routers report the requests that wait outside of replicas; HAProxy does not.
    """

    def __init__(
        self,
        events: EventQueue,
        fleet: SimulatedFleet,
        router: Router,
        policy: WorkTargetPolicy,
        rng: random.Random,
        every_s: float,
        sees_queue: bool,
    ) -> None:
        self._events = events
        self._fleet = fleet
        self._router = router
        self._policy = policy
        self._every_s = every_s
        self._sees_queue = sees_queue
        events.at(rng.uniform(0, every_s), self._repeat)

    def started(self, replica: Replica) -> None:
        replica.meter = WorkMeter(replica.slots)

    def woken(self) -> None:
        """Report a request that waits without any replica at once, as gateways do."""
        self._report()

    def _repeat(self, _: None) -> None:
        self._report()
        self._events.at(self._events.now + self._every_s, self._repeat)

    def _report(self) -> None:
        """Report all running replicas; Serve's controller ignores those that drain."""
        reports = {
            str(replica.number): replica.meter.report(replica.waiting)
            for replica in self._fleet.running
            if replica.meter
        }
        self._policy.reported(reports, len(self._router.pending) if self._sees_queue else 0)
