"""The gateway's rule in virtual time."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.gateways import Gateways
from serve_app.capacity.simulate.placing import Affinity
from serve_app.capacity.simulate.replica import Gaps, Replica, ReplicaBounds
from serve_app.capacity.simulate.router import Router, RoutingRule
from serve_app.capacity.simulate.simulated_request import SimulatedRequest
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.dispatch.fair_queue import Fairness
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.rates import Speeds

SLOTS, ROOM = 4, 20
FAST, HALF = ServiceModel(1000, 50, 0.05), ServiceModel(500, 25, 0.05)


def new_view() -> FleetView:
    return FleetView(SLOTS, 16_384, 4 * 16_384, Speeds(1000.0, 0.0, 2.0, 1.0))


def one_gateway(events: EventQueue) -> RoutingRule:
    return Affinity(events, new_view(), ROOM)


def play(
    models: Sequence[ServiceModel],
    requests: Sequence[WorkloadRequest],
    new_rule: Callable[[EventQueue], RoutingRule] = one_gateway,
) -> list[SimulatedRequest]:
    """Send the requests to one replica of each speed; return them when all have ended."""
    events, ended, refused = EventQueue(), list[SimulatedRequest](), list[SimulatedRequest]()
    router = Router(new_rule(events), ROOM, -1, refused.append, events, Fairness())

    def done(job: SimulatedRequest) -> None:
        ended.append(job)
        assert job.replica
        router.freed(job, job.replica)

    def read(job: SimulatedRequest) -> None:
        assert job.replica
        router.read(job, job.replica)

    bounds = ReplicaBounds(SLOTS, ROOM, ram_tokens=4 * 16_384, shares_prefill=True)
    replicas = [
        Replica(number, events, model, bounds, done, refused.append, Gaps(SLOTS), read)
        for number, model in enumerate(models)
    ]
    for replica in replicas:
        replica.serving = True
    router.serving_changed(replicas)
    for request in requests:
        events.run_until(request.at_s)
        router.send(SimulatedRequest(request), replicas)
    events.run_until(1e6)
    assert len(ended) == len(requests)
    return ended


def talks(number: int, per_s: float, turns: int = 6) -> list[WorkloadRequest]:
    """Conversations with one system prompt of two blocks, each turn half a block longer."""
    rng = random.Random(0)
    requests, begin = [], 0.0
    for talk in range(number):
        begin += rng.expovariate(per_s)
        at_s = begin
        for turn in range(turns):
            prompt = 2048 + 256 * turn
            own = range(1000 * (talk + 1), 1000 * (talk + 1) + prompt // 512 - 2)
            requests.append(WorkloadRequest(at_s, prompt, 50, f"talk {talk}", turn, (-1, -2, *own)))
            at_s += rng.uniform(2, 8)
    return sorted(requests, key=lambda request: request.at_s)


def test_a_replica_of_half_the_speed_gets_its_share_and_no_more() -> None:
    """That is one of seven requests beside three others of full speed."""
    rng, at_s, requests = random.Random(1), 0.0, []
    while len(requests) < 1200:
        at_s += rng.expovariate(3.1)  # of 3.5 prompts a second
        requests.append(WorkloadRequest(at_s, 1000, 40))
    counts = Counter(job.replica.number for job in play([FAST, FAST, HALF, FAST], requests))
    assert 0.07 < counts[2] / len(requests) < 0.17


def test_several_gateways_find_what_any_of_them_had_read() -> None:
    """Four have almost as many tokens cached as one."""
    requests = talks(60, 0.4)
    cached = [
        sum(job.cached for job in play([FAST] * 4, requests, rule))
        for rule in (one_gateway, partial(Gateways, new_view=new_view, max_ongoing=ROOM, number=4))
    ]
    assert cached[1] > 0.95 * cached[0]
